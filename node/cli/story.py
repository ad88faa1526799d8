# SPDX-License-Identifier: Apache-2.0
"""What the demonstration plays, step by step. Every step says what it verified; one that cannot be verified ends it."""

from __future__ import annotations

import sqlite3
import time
import tomllib
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime
from pathlib import Path
from typing import Any

import click

from node.cli import ends
from node.cli.cast import hire, page, second_referral
from node.cli.client import ApiError, Client
from node.cli.demo import DemoAgency, StepFailed, Teller

DAY_SECONDS = 86_400
#: How long anything may take that has to come by itself.
WAIT_SECONDS = 30


def play(agencies: list[DemoAgency], form_path: Path, teller: Teller, *, as_json: bool) -> None:
    """The whole story. Raises StepFailed."""
    form = tomllib.loads(form_path.read_text(encoding="utf-8"))
    needles = _needles(form)
    story = Story(agencies, form, teller)
    if not as_json:
        click.echo("Staffetta: a demonstration. Everybody and every place in it is invented.")
    story.set_up()
    story.meet()
    story.consent()
    story.refer()
    story.follow_up()
    story.withdraw()
    story.liaison()
    story.people()
    ends.alert(story)
    ends.alert_about(story)
    ends.programme(story)
    story.search(needles)


def _needles(form: dict[str, Any]) -> list[str]:
    """What must be found nowhere: her name, her telephone number, however it is written."""
    name = form.get("identity", {}).get("name")
    telephone = form.get("contact", {}).get("telephone")
    if not name or not telephone:
        raise StepFailed("For the demonstration the form needs [identity] name and [contact] telephone.")
    return [name, telephone, telephone.replace(" ", ""), telephone.replace(" ", "").removeprefix("+")]


class Story:
    """What the steps share: the agencies, their people, the clock that the demonstration moves."""

    def __init__(self, agencies: list[DemoAgency], form: dict[str, Any], teller: Teller) -> None:
        self.ngo, self.shelter, self.police = agencies
        self.all = agencies
        self.form = form
        self.tell = teller
        self.clock = 0
        self.referral = ""
        self.release = ""
        self.case = ""
        self.cast: list[dict[str, Client]] = []

    # -- 1 -----------------------------------------------------------------------------------------------------------

    def set_up(self) -> None:
        self.tell.step("Three agencies set up their nodes")
        running = [agency.set_up() for agency in self.all]
        for agency, process in zip(self.all, running, strict=True):
            agency.finish_set_up(process)
        with ThreadPoolExecutor() as together:
            list(together.map(_open, self.all))
        for agency in self.all:
            self.tell.say(f"{agency.name}: its own process, folder, database and port {agency.port}")
        ids = {agency.process.pid for agency in self.all if agency.process is not None}
        self.tell.check("three processes, three folders, three databases", len(ids) == 3)
        self.form["referral"] = {
            **self.form.get("referral", {}),
            "agency": self.shelter.name,
            "desk": self.shelter.desk_name,
        }

    def meet(self) -> None:
        self.tell.step("The agencies meet by invite and compare fingerprints")
        for other in (self.shelter, self.police):
            made = self.ngo.client.post("/api/v1/peers/invites", {"type": other.kind})
            other.client.post("/api/v1/peers/accept", {"invite": made["invite"]})
            again = self.police if other is self.shelter else self.shelter
            used = again.refused("POST", "/api/v1/peers/accept", {"invite": made["invite"]})
            self.tell.check(f"{other.name} came in by an invite that works once", used.code == "invite-refused")
        refusal = self.ngo.refused("POST", "/api/v1/refer", {"form": self._covered()})
        self.tell.check(
            "before fingerprints are compared, sending personal data is refused", refusal.code == "peer-unverified"
        )
        self.tell.say(f"the refusal says: {refusal.text}")
        for other in (self.shelter, self.police):
            for here, there in ((self.ngo, other), (other, self.ngo)):
                heard = there.client.get("/api/v1/peers")["our_fingerprint"]
                self.tell.say(f"{there.name} reads aloud: {heard}")
                wrong = "1" + heard[1:] if heard[0] != "1" else "2" + heard[1:]
                path = f"/api/v1/peers/{there.agency}/verify"
                if here.refused("POST", path, {"fingerprint": wrong}).code != "fingerprint":
                    raise StepFailed("A wrong fingerprint was taken.")
                here.client.post(path, {"fingerprint": heard})
            self.wait(
                "both have confirmed",
                lambda other=other: self._standing(self.ngo, other) == self._standing(other, self.ngo) == "verified",  # type: ignore[misc]  # bound now, not later
            )
            self.tell.check(f"{self.ngo.name} and {other.name}: both fingerprints confirmed", True)

    @staticmethod
    def _standing(here: DemoAgency, there: DemoAgency) -> str:
        peers = here.client.get("/api/v1/peers")["peers"]
        return str(next(p["standing"] for p in peers if p["agency"] == there.agency))

    # -- 2 -----------------------------------------------------------------------------------------------------------

    def _covered(self) -> dict[str, Any]:
        """The form with only the sections that she agreed to."""
        agreed = set(self.form["consent"]["sections"])
        return {k: v for k, v in self.form.items() if k in ("referral", "consent") or k in agreed}

    def consent(self) -> None:
        self.tell.step("A caseworker records consent; what it does not cover is not sent")
        agreed = self.form["consent"]["sections"]
        self.tell.say(f"she agreed to: {', '.join(agreed)}; for {self.form['consent'].get('valid_days', 90)} days")
        outside = next((name for name in ("health", "narrative", "legal") if name not in agreed), None)
        if outside is None:
            raise StepFailed("For the demonstration the consent must leave out health, narrative or legal.")
        field = {"health": "physical_needs", "narrative": "text", "legal": "status"}[outside]
        with_more = {**self._covered(), outside: {field: "Something that she wants to keep private."}}
        refusal = self.ngo.refused("POST", "/api/v1/refer", {"form": with_more})
        self.tell.check(
            f"the section “{outside}” is refused, by name",
            refusal.code == "section-not-covered" and f"“{outside}”" in refusal.text,
        )
        self.tell.say(f"the refusal says: {refusal.text}")
        cases = self.ngo.client.get("/api/v1/cases")["cases"]
        self.tell.check("nothing was half done: there is no case yet", cases == [])

    # -- 3 -----------------------------------------------------------------------------------------------------------

    def refer(self) -> None:
        self.tell.step("The shelter's node is killed while the referral is sent; it arrives once all the same")
        self.shelter.kill()
        self.tell.say("kill -9: the shelter is down")
        sent = self.ngo.client.post("/api/v1/refer", {"form": self._covered()})
        self.referral, self.release, self.case = sent["referral"], sent["consent"], sent["case"]
        waiting = self.ngo.client.get("/api/v1/outbox")["outbox"]
        self.tell.check("the referral waits in the outbox", [w["message"] for w in waiting] == [self.referral])
        time.sleep(1)
        self.tell.check("it is still there after failed attempts", self._status(self.ngo) == "requested")
        self.shelter.start()
        self.tell.say("the shelter is back")
        self.wait("the referral is delivered", lambda: self._status(self.ngo) == "received")
        arrived = self.shelter.client.get("/api/v1/referrals")["referrals"]
        self.tell.check("the shelter has it exactly once", [r["id"] for r in arrived] == [self.referral])
        self.tell.check("the sender has a signed receipt", self.ngo.client.get("/api/v1/outbox")["outbox"] == [])
        for action in ({"action": "acknowledge"}, {"action": "accept", "risk": "high", "text": "A room is ready."}):
            self.shelter.client.post(f"/api/v1/referrals/{self.referral}/acts", action)
        self.wait("the sender knows that it was accepted", lambda: self._status(self.ngo) == "accepted")
        self.settle()
        histories = [self._history(agency) for agency in (self.ngo, self.shelter)]
        self.tell.check("both sides show the same state: accepted", self._status(self.shelter) == "accepted")
        self.tell.check(f"both sides show the same history: {', '.join(histories[0])}", histories[0] == histories[1])

    def _show(self, agency: DemoAgency) -> dict[str, Any]:
        shown: dict[str, Any] = agency.client.get(f"/api/v1/referrals/{self.referral}")
        return shown

    def _status(self, agency: DemoAgency) -> str:
        return str(self._show(agency)["status"])

    def _history(self, agency: DemoAgency) -> list[str]:
        other = {"us": "them", "them": "us"}
        side = {"us": "us", "them": "them"} if agency is self.ngo else other
        return [
            f"{'NGO' if side[act['by']] == 'us' else 'shelter'}: {act['what']}" for act in self._show(agency)["history"]
        ]

    # -- 4 -----------------------------------------------------------------------------------------------------------

    def follow_up(self) -> None:
        self.tell.step("Follow-ups: one is reported, one is missed and escalates at both ends")
        first = {agency.key: self._followup(agency) for agency in (self.ngo, self.shelter)}
        due = first["ngo"]["due_at"]
        self.tell.check(f"both ends watch the same date: {_day(due)}", due == first["shelter"]["due_at"])
        self.advance_until("it falls due", lambda: self.tasks(self.shelter, "followup-due"))
        self.tell.check(
            "the person at the shelter is told, and so is the one at the NGO", self.tasks(self.ngo, "followup-due")
        )
        report = {"outcome": "reached-safe", "text": "She is well and has begun her course."}
        self.shelter.client.post(f"/api/v1/followups/{first['shelter']['id']}/report", report)
        self.wait("the NGO sees that it was reported", lambda: self._followup(self.ngo)["ordinal"] == 2)
        self.tell.check("it was reported; both ends wait for the second", self._followup(self.shelter)["ordinal"] == 2)
        self.advance_until("the second is missed", lambda: self._rung(self.shelter) == "director")
        for agency in (self.ngo, self.shelter):
            passed = [rung["rung"] for rung in self._followup(agency)["passed"]]
            self.tell.check(f"{agency.name}: {' → '.join(passed)}", "director" in passed and "due" in passed)
        self.tell.check("nothing was closed by time", self._status(self.ngo) == "accepted")

    def _followup(self, agency: DemoAgency) -> dict[str, Any]:
        found = agency.client.get("/api/v1/followups")["followups"]
        if not found:
            raise StepFailed(f"{agency.name} has no follow-up.")
        first: dict[str, Any] = found[0]
        return first

    def _rung(self, agency: DemoAgency) -> str:
        passed = self._followup(agency)["passed"]
        return str(passed[-1]["rung"]) if passed else ""

    @staticmethod
    def tasks(agency: DemoAgency, kind: str) -> bool:
        return any(task["kind"] == kind for task in agency.client.get("/api/v1/tasks")["tasks"])

    def advance(self, seconds: int) -> None:
        """Move the clock of all nodes by at most 24 hours, and let them come to rest."""
        self.clock += min(seconds, DAY_SECONDS)
        for agency in self.all:
            agency.move_clock(self.clock)
        time.sleep(0.05)
        self.settle()

    def settle(self) -> None:
        for _ in range(2):
            for agency in self.all:
                agency.rest()

    def advance_until(self, what: str, is_so: Callable[[], bool]) -> None:
        for _ in range(60):
            if is_so():
                self.tell.say(f"{what}, after {self.clock // DAY_SECONDS} days")
                return
            self.advance(DAY_SECONDS)
        raise StepFailed(f"It did not happen within sixty days: {what}.")

    # -- 5 -----------------------------------------------------------------------------------------------------------

    def withdraw(self) -> None:
        self.tell.step("Consent is withdrawn by word of mouth")
        body = {"by_person": True, "erase": True}
        self.ngo.client.post(f"/api/v1/consents/{self.release}/withdraw", body)
        sections = {"contact": self.form["contact"]}
        refusal = self.ngo.refused("POST", f"/api/v1/referrals/{self.referral}/sections", {"sections": sections})
        self.tell.check("use stops at once at the NGO", refusal.code == "consent-withdrawn")
        self.wait("the shelter's node locks the sections", lambda: self._show(self.shelter)["locked"])
        self.tell.check(
            "the shelter's node has locked the sections by itself", self._show(self.shelter)["sections"] == {}
        )
        self.wait("the NGO sees the lock", lambda: self._withdrawal()["locked_at"] is not None)
        duty = self.shelter.client.get("/api/v1/withdrawals")["withdrawals"][0]
        path = f"/api/v1/withdrawals/{duty['id']}/answer"
        early = self.shelter.refused("POST", path, {})
        self.tell.check("erasing waits 72 hours, in which she can be asked", early.code == "erase-later")
        for _ in range(4):
            self.advance(DAY_SECONDS)
        answer = self.shelter.client.post(path, {})
        self.tell.say(f"a person at the shelter erases {answer['erased']} sealed sections and signs")
        self.wait("the NGO sees the signed erasure", lambda: self._withdrawal()["answered_at"] is not None)
        seen = self._withdrawal()
        self.tell.check(
            "the NGO sees both: locked and erased", bool(seen["locked_at"]) and seen["erased"] == answer["erased"]
        )

    def _withdrawal(self) -> dict[str, Any]:
        for consent in self.ngo.client.get(f"/api/v1/cases/{self.case}/consents")["consents"]:
            for withdrawal in consent["withdrawals"]:
                found: dict[str, Any] = withdrawal
                return found
        raise StepFailed("The NGO has no record of its withdrawal.")

    # -- 6 -----------------------------------------------------------------------------------------------------------

    def liaison(self) -> None:
        self.tell.step("The law-enforcement liaison got nothing, and cannot ask")
        mine = self.police.client.get("/api/v1/referrals?ended=true")["referrals"]
        self.tell.check("the liaison's node holds no referral", mine == [])
        cookie = self.police.client.cookie
        stranger = DemoAgency(self.police.folder.parent, "none", "none", "NGO", "none")
        stranger.client.cookie = cookie
        for agency in (self.ngo, self.shelter):
            stranger.client = type(stranger.client)(agency.folder, agency.address, cookie)
            for path in ("/api/v1/referrals", f"/api/v1/referrals/{self.referral}", "/api/v1/cases"):
                if stranger.refused("GET", path).status != 401:
                    raise StepFailed(f"{agency.name} answered somebody else's session.")
            for path in ("/staffetta/v1/query", "/staffetta/v1/search", "/staffetta/v1/cases"):
                if stranger.refused("POST", path, {}).status != 404:
                    raise StepFailed(f"{agency.name} has an address {path}.")
        self.tell.check("its session opens nothing at the other nodes, and they have no address to search at", True)
        form = {
            **self._covered(),
            "referral": {**self.form["referral"], "agency": self.ngo.name, "desk": self.ngo.desk_name},
        }
        try:
            self.police.client.post("/api/v1/refer", {"form": form})
            refused = self._is_refused_by_ngo()
        except ApiError:
            refused = True
        self.tell.check("what it may send is an answer: a request from it is refused by the recipient's node", refused)

    def _is_refused_by_ngo(self) -> bool:
        self.wait("the NGO's node has refused it", lambda: self.tasks(self.police, "message-rejected"))
        ids = [r["id"] for r in self.ngo.client.get("/api/v1/referrals?ended=true")["referrals"]]
        return ids == [self.referral]

    # -- 7 -----------------------------------------------------------------------------------------------------------

    def people(self) -> None:
        self.tell.step("Everybody signs in to the pages; each sees her own part")
        with ThreadPoolExecutor() as together:
            self.cast = list(together.map(hire, self.all))
        ngo, shelter, police = self.cast
        sent = ngo["caseworker"].post("/api/v1/refer", {"form": second_referral(self._covered())})["referral"]
        self.wait("the second referral is delivered", lambda: self.is_at(shelter["intake"], sent))
        inbox = page(shelter["intake"], "/referrals")
        self.tell.check("the intake desk sees what is needed on the row", "A room for two" in inbox)
        opened = page(shelter["intake"], f"/referrals/{sent}")
        self.tell.check("and, opened, whose turn it is", "Your turn." in opened and "BRINA-15" in opened)
        self.tell.check("the supervisor sees everything open", sent in page(ngo["supervisor"], "/overview"))
        outsiders = {"administrator": ngo["administrator"], "auditor": ngo["auditor"], "liaison": police["duty"]}
        for who, client in outsiders.items():
            seen = "".join(page(client, path) for path in ("/", "/cases", "/referrals?show=ours", "/referrals"))
            self.tell.check(f"the {who} sees no case and no referral", sent not in seen and "BRINA-15" not in seen)

    @staticmethod
    def is_at(client: Client, referral: str) -> bool:
        return any(row["id"] == referral for row in client.get("/api/v1/referrals")["referrals"])

    # -- 8 ----------------------------------------------------------------------------------------------------------

    def search(self, needles: list[str]) -> None:
        self.tell.step("Every file of all three is searched for her name and telephone number")
        for agency in self.all:
            _hot_copy(agency.folder)
        files = [path for agency in self.all for path in agency.folder.rglob("*") if path.is_file()]
        total = sum(path.stat().st_size for path in files)
        found = [path.name for path in files if _holds(path, needles)]
        kinds = sorted({path.suffix or path.name for path in files})
        self.tell.say(f"{len(files)} files, {total // 1024} KiB: {', '.join(kinds)}")
        self.tell.check("her name and number are nowhere", found == [])
        control = [path for path in files if _holds(path, [self.ngo.name])]
        self.tell.check("the same search does find what is not secret (the agency's name)", bool(control))
        sections = self._show(self.ngo)["sections"]
        read = sections.get("identity", {}).get("name") == self.form["identity"]["name"]
        self.tell.check("a signed-in caseworker of the NGO reads them", read)

    # -- waiting -----------------------------------------------------------------------------------------------------

    def wait(self, what: str, is_so: Callable[[], bool]) -> None:
        until = time.monotonic() + WAIT_SECONDS
        while time.monotonic() < until:
            if is_so():
                return
            time.sleep(0.1)
        raise StepFailed(f"It did not happen within {WAIT_SECONDS} seconds: {what}.")


_OPEN = {"opening": [{"weekday": day, "opens": 0, "closes": 1440} for day in range(7)], "telephone": "+39 055 0000 000"}


def _open(agency: DemoAgency) -> None:
    """Its node runs, its first person is signed in, it has a desk."""
    agency.start()
    agency.log_in()
    agency.desk = agency.client.post("/api/v1/desks", {"name": agency.desk_name, "profile": _OPEN})["id"]


def _day(moment: str) -> str:
    return datetime.fromisoformat(moment).strftime("%d %B %Y")


def _hot_copy(folder: Path) -> None:
    """A copy of the running database, as a backup would make it."""
    source = sqlite3.connect(f"file:{folder / 'node.db'}?mode=ro", uri=True)
    copy = sqlite3.connect(folder / "hot-copy.db")
    try:
        source.backup(copy)
    finally:
        source.close()
        copy.close()


def _holds(path: Path, needles: list[str]) -> bool:
    """Whether the file holds one of the texts, in any letter case, as UTF-8 or UTF-16."""
    content = path.read_bytes().lower()
    forms = [needle.lower().encode(code) for needle in needles for code in ("utf-8", "utf-16-le", "utf-16-be")]
    return any(form in content for form in forms)
