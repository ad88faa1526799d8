# SPDX-License-Identifier: Apache-2.0
"""Every page for everybody: axe finds nothing, a keyboard is enough, a narrow phone shows all, nothing weighs much."""

from __future__ import annotations

import os
import re
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from node.web.pages import ALL
from node.web.pages.languages import NAMES
from tests.browser.conftest import Meet, Network
from tests.browser.people import Person, axe, screenshot
from tests.browser.requests import ask
from tests.browser.test_forms import begin, person
from tests.browser.test_referral import NUMBER
from tests.federation.nodes import form

#: English and a language that is written from the right; `make test-long` takes all.
LANGUAGES = list(NAMES) if os.environ.get("STAFFETTA_LONG") else ["en", "ar"]
WEIGHT_MAX = 60 * 1024
ARTEFACTS = Path(os.environ.get("STAFFETTA_SCREENSHOTS", Path(__file__).parents[2] / "build" / "screenshots"))

CONSENT = {
    "limits_told_first": "yes",
    "collected": "oral",
    "notice_language": "en",
    "explained_in": "pcm",
    "days": "30",
    "may.service": "yes",
    "may.identity": "yes",
    "may.contact": "no",
    "may.attachments": "yes",
}


@pytest.fixture(scope="module")
def pages(network: Network) -> dict[str, tuple[str, str]]:
    """Name → whose page it is and its address: every page that a person can see, filled."""
    lantern = network.lantern
    if "ada" not in lantern.ids:
        lantern.add("ada", ["caseworker", "supervisor", "intake", "administrator", "auditor", "director"], joins=True)
        network.harbour.add("bea", ["caseworker", "supervisor", "intake"], joins=True)
    whole = form(
        network.harbour.node,
        service={"services": [{"id": 1121, "path": "Housing"}], "details": "A room.", "worker": "ada"},
        identity={"case_code": "SEEN-INVENTED", "age_band": "25-39", "gender": "Feminine"},
        contact={"contact_permitted": "yes", "telephone": "+39 055 0000 000", "preferred_language": "pcm"},
        safety={"risk": "high", "immediate_dangers": "Somebody waits outside."},
        consent={
            "purposes": ["referral"],
            "sections": ["service", "identity", "contact", "safety", "attachments"],
            "collected": "oral",
            "explained_in": "pcm",
            "notice_language": "en",
            "limits_told_first": True,
            "told_back": True,
        },
    )
    sent = lantern.client("ada").post("/api/v1/refer", {"form": whole})
    bea = network.harbour.client("bea")
    for _ in range(200):
        found = bea.get("/api/v1/referrals?ended=true")["referrals"]
        if any(r["id"] == sent["referral"] for r in found):
            break
    bea.post(f"/api/v1/referrals/{sent['referral']}/acts", {"action": "accept", "risk": "high", "text": "Welcome."})
    bea.post(f"/api/v1/referrals/{sent['referral']}/notes", {"text": "Does she climb stairs?", "question": True})
    draft = begin(network, "ada")
    ask(lantern, "POST", f"/refer/{draft}/person", "ada", person())
    ask(lantern, "POST", f"/refer/{draft}/consent", "ada", CONSENT)
    programme = next(iter(lantern.client("ada").get("/api/v1/programmes")["programmes"]))["id"]
    consent = f"/cases/{sent['case']}/consents/{sent['consent']}"
    ada = lantern.client("ada")
    ada.post(f"/api/v1/cases/{sent['case']}/plan", {"every_days": 7, "first_days": 1})
    mine = [f for f in ada.get("/api/v1/followups")["followups"] if f["case_id"] == sent["case"] and f["ours"]]
    followup = mine[0]["id"]
    day = (datetime.now(UTC) + timedelta(days=2)).isoformat()
    stays = ada.post("/api/v1/cases", {"desk": lantern.node.desk})["id"]
    ada.post(f"/api/v1/cases/{stays}/stays", {"told": "The invented counter in Example Street."})
    desks = [{"agency": network.harbour.node.agency, "desk": network.harbour.node.desk}]
    asked = {"from_desk": lantern.node.desk, "desks": desks, "service": 1121, "day": day}
    ada.post("/api/v1/capacity", asked)
    question = ada.get("/api/v1/capacity")["questions"][0]["id"]
    return {
        "home": ("ada", "/"),
        "need": ("ada", "/refer"),
        "agency": ("ada", f"/refer/{draft}/agency"),
        "person": ("ada", f"/refer/{draft}/person"),
        "consent": ("ada", f"/refer/{draft}/consent"),
        "turned": ("ada", f"/refer/{draft}/consent/turned?in=ar"),
        "preview": ("ada", f"/refer/{draft}/preview"),
        "referrals": ("ada", "/referrals?show=ours"),
        "referral": ("ada", f"/referrals/{sent['referral']}"),
        "correct": ("ada", f"/referrals/{sent['referral']}/correct"),
        "cases": ("ada", "/cases"),
        "new case": ("ada", "/cases/new"),
        "case": ("ada", f"/cases/{sent['case']}"),
        "edit": ("ada", f"/cases/{sent['case']}/edit"),
        "kept out": ("ada", f"/referrals/{sent['referral']}/people"),
        "merge": ("ada", f"/cases/{sent['case']}/merge"),
        "copy": ("ada", consent + "/copy"),
        "capacity": ("ada", "/capacity"),
        "programmes": ("ada", "/programmes"),
        "programme": ("ada", f"/programmes/{programme}"),
        "case programme": ("ada", f"/cases/{sent['case']}/programme"),
        "where to turn": ("ada", f"/cases/{stays}/stays"),
        "plan": ("ada", f"/cases/{sent['case']}/plan"),
        "came": ("ada", f"/cases/{sent['case']}/contact"),
        "door": ("ada", f"/cases/{sent['case']}/door"),
        "ways": ("ada", "/ways"),
        "rehearsal": ("ada", f"/rehearsal?until={datetime.now(UTC).date() + timedelta(days=200)}"),
        "withdraw": ("ada", consent + "/withdraw"),
        "renew": ("ada", consent + "/renew"),
        "followups": ("ada", "/followups"),
        "search": ("ada", "/search"),
        "overview": ("ada", "/overview"),
        "withdrawals": ("ada", "/withdrawals"),
        "staff": ("ada", "/staff"),
        "desks": ("ada", "/desks"),
        "agencies": ("ada", "/agencies"),
        "outside": ("ada", "/outside"),
        "import": ("ada", "/cases/import"),
        "group": ("ada", f"/refer/{draft}/group"),
        "group person": ("ada", f"/refer/{draft}/group/new"),
        "closed": ("ada", "/cases?show=closed"),
        "trail": ("ada", "/trail"),
        "me": ("ada", "/me"),
        "passkeys": ("ada", "/me/passkeys"),
        "away": ("ada", "/away"),
        "help": ("ada", "/help"),
        "followup": ("ada", f"/followups/{followup}"),
        "exception": ("ada", f"/refer/{draft}/exception"),
        "export": ("ada", f"/cases/{sent['case']}/export"),
        "question": ("ada", f"/capacity/{question}"),
        "report": ("ada", "/report"),
        "alert": ("ada", "/alert"),
        "alerts": ("ada", "/alerts"),
        "alert person": ("ada", f"/alert/person?case={sent['case']}"),
        "refused": ("ada", "/refused"),
        "backstop": ("ada", "/backstop"),
        "case backstop": ("ada", f"/cases/{sent['case']}/backstop"),
        "desk reach": ("ada", f"/desks/{lantern.node.desk}/reach"),
        "lock": ("ada", "/lock"),
        "retire": ("ada", "/retire"),
        "missing": ("ada", "/nothing"),
        "signin": ("", "/signin"),
        "enrol": ("", "/enrol"),
        "recover": ("", "/recover"),
    }


#: Not pages: what is downloaded or listened to. And those that the tests of their own acts look at.
NOT_LOOKED_AT = {
    "/events",
    "/overview/counts.csv",
    "/report.csv",
    "/alerts/{alert}/evidence",
    "/referrals/{referral}/evidence",
    "/referrals/{referral}/files/{file}",
    "/referrals/{referral}/paper",
    "/refer/{draft}/consent/paper",
    "/cases/{case}/consents/{consent}/paper",
    "/cases/{case}/stays/paper",
    "/refer/{draft}/need",  # the same as /refer
    "/cases/{case}/people",  # the same as /referrals/{referral}/people
    "/approvals/{approval}",
    "/alerts/{alert}",
    "/alerts/{alert}/paper",
    "/alerts/{alert}/for-her",
    "/alerts/outside/{alert}",
    "/alert/person/{draft}",
    "/alert/person/{draft}/edit",
    "/backstop/{card}",
    "/followups/{followup}/decide",
    "/cases/{case}/export.json",
    "/cases/{case}/export/paper",
    "/refer/{draft}/group/{member}",  # the same as /refer/{draft}/group/new
    "/refer/{draft}/group/{member}/consent",  # the same as /refer/{draft}/consent
    "/refer/{draft}/group/{member}/consent/turned",
    "/refer/{draft}/group/{member}/consent/paper",
    "/refer/{draft}/group/preview",
    "/referrals/{referral}/group/{member}",  # the same as /referrals/{referral}/correct
}


def test_every_page_is_in_the_list(pages: dict[str, tuple[str, str]]) -> None:
    """Whoever adds a page adds it to the list that is looked at, in all languages and widths."""
    seen = [path.partition("?")[0] for _, path in pages.values()]
    missing = {
        page.path
        for page in ALL
        if page.show is not None
        and page.path not in NOT_LOOKED_AT
        and not any(re.fullmatch(re.sub(r"{\w+}", "[0-9a-f]+", page.path), path) for path in seen)
    }
    assert missing == set()
    assert {page.path for page in ALL} >= NOT_LOOKED_AT


def unfold(who: Person) -> None:
    """What is closed is read too."""
    who.page.evaluate("document.querySelectorAll('details').forEach(d => { d.open = true; })")


@pytest.mark.parametrize("language", LANGUAGES)
def test_axe_finds_nothing_on_any_page(
    network: Network, meet: Meet, pages: dict[str, tuple[str, str]], language: str
) -> None:
    found: list[str] = []
    for handle in ("ada", ""):
        who = meet(network.lantern, handle, language=language)
        for name, (whose, path) in pages.items():
            if whose == handle:
                who.open(path)
                shown = who.page.locator("html").get_attribute("lang")
                assert shown == ("ar" if name == "turned" else language), name
                has_folded = who.page.locator("details:not([open])").count()
                # What is folded is folded in every language alike.
                if language == LANGUAGES[0] or not has_folded:
                    found += [f"{name}: {line}" for line in axe(who.page)]
                if has_folded:
                    unfold(who)
                    found += [f"{name}, unfolded: {line}" for line in axe(who.page)]
        assert [fault for fault in who.faults if "404" not in fault] == []
    assert found == []


@pytest.mark.parametrize("language", ["it", "ar"])
def test_main_pages_fit_and_are_kept_as_pictures(
    network: Network, meet: Meet, pages: dict[str, tuple[str, str]], language: str
) -> None:
    """On a phone of 320 px nothing has to be scrolled sideways, nor on a desk."""
    ARTEFACTS.mkdir(parents=True, exist_ok=True)
    who = meet(network.lantern, "ada", language=language)
    for name, (whose, path) in pages.items():
        if whose != "ada":
            continue
        who.open(path)
        for width in (320, 1280):
            who.page.set_viewport_size({"width": width, "height": 900})
            has, needs = who.page.evaluate("[window.innerWidth, document.documentElement.scrollWidth]")
            assert needs <= has == width, (name, needs)
            if name in ("home", "person", "consent", "turned", "preview", "referral", "referrals", "case", "overview"):
                screenshot(who.page, ARTEFACTS / f"{name}-{language}-{width}.png")


def test_no_page_weighs_much_and_at_twice_the_size_of_its_text_it_still_fits(
    network: Network, meet: Meet, pages: dict[str, tuple[str, str]]
) -> None:
    """All that a page needs, compressed as it travels, for somebody who comes for the first time.

    200 % zoom of a 1280 px window is a window of 640 px: nothing is cut off.
    """
    for handle in ("ada", ""):
        who = meet(network.lantern, handle, width=640, own=True)
        who.context.new_cdp_session(who.page).send("Network.setCacheDisabled", {"cacheDisabled": True})
        for name, (whose, path) in pages.items():
            if whose != handle:
                continue
            who.open(path)
            sizes = who.page.evaluate(
                "[...performance.getEntriesByType('navigation'), ...performance.getEntriesByType('resource')]"
                ".map(entry => entry.encodedBodySize)"
            )
            assert len(sizes) >= 6 and 20_000 < sum(sizes) <= WEIGHT_MAX, (name, sizes)
            assert who.page.evaluate("document.documentElement.scrollWidth <= window.innerWidth"), name


def test_a_keyboard_alone_is_enough(network: Network, meet: Meet) -> None:
    """From the first page into a new referral and out again by Tab, Space and Enter; the focus can be seen."""
    who = meet(network.lantern, "carla")
    who.open("/")
    keys = who.page.keyboard
    keys.press("Tab")
    assert who.page.evaluate("document.activeElement.textContent") == "To the content"
    keys.press("Enter")
    for _ in range(4):
        keys.press("Tab")
        if who.page.evaluate("document.activeElement.textContent") == "New referral":
            break
    outline = who.page.evaluate("getComputedStyle(document.activeElement).outlineStyle")
    assert outline != "none"
    keys.press("Enter")
    who.page.wait_for_url("**/refer")
    who.page.get_by_label("Emergency shelter").focus()
    keys.press("Space")
    for _ in range(60):
        keys.press("Tab")
        if who.page.evaluate("document.activeElement.textContent") == "Go on":
            break
    keys.press("Enter")
    who.page.wait_for_url("**/agency")


def test_every_essential_act_works_without_javascript(network: Network, meet: Meet) -> None:
    from tests.browser.test_referral import refer

    who = meet(network.lantern, "carla", java_script_enabled=False)
    who.page.set_default_timeout(10_000)
    referral = refer(who, code="PLAIN-INVENTED")
    who.fill("Note or question", "Written without a script.")
    who.click("Send")
    assert who.sees("Written without a script.")
    who.page.locator("summary", has_text="Stop this referral").click()
    who.click("Ask to stop")
    who.open(f"/referrals/{referral}")
    assert who.sees("to confirm that it stops") or who.sees("Ended")


def test_problems_are_tied_to_their_fields_for_a_screen_reader(network: Network) -> None:
    draft = begin(network)
    text = ask(network.lantern, "POST", f"/refer/{draft}/person", "carla", {}).text
    for name in re.findall(r'aria-describedby="([^"]*)"', text):
        for part in name.split():
            assert f'id="{part}"' in text, part
    assert 'aria-invalid="true"' in text


#: Where the first and the last letter of each text that holds this stand, from the left.
WHERE = """wanted => [...document.querySelectorAll('main bdi')].filter(b => b.textContent.includes(wanted)).map(b => {
  const range = document.createRange(), text = b.firstChild;
  const at = n => { range.setStart(text, n); range.setEnd(text, n + 1); return range.getBoundingClientRect().left; };
  return [at(0), at(text.length - 1)];
})"""


def test_a_telephone_number_is_read_from_the_left_in_every_language(network: Network, meet: Meet) -> None:
    """Where somebody is about to call it, and where it is turned towards her: mirrored it would be another number."""
    draft = begin(network)
    filled = person(contact__contact_permitted="yes", contact__telephone=NUMBER)
    assert ask(network.lantern, "POST", f"/refer/{draft}/person", "carla", filled).status == 303
    api = network.lantern.client("carla")
    contact = {
        "contact_permitted": "yes",
        "channels": [{"channel": "phone", "safe": True, "value": NUMBER, "safe_days_times": "10-12"}],
    }
    case = api.post("/api/v1/cases", {"desk": network.lantern.node.desk, "sections": {"contact": contact}})["id"]
    api.post(f"/api/v1/cases/{case}/plan", {"every_days": 7, "first_days": 1})
    followup = next(f["id"] for f in api.get("/api/v1/followups")["followups"] if f["case_id"] == case)
    who = meet(network.lantern, "carla", language="ar")
    for path in (f"/refer/{draft}/consent/turned?in=ar", f"/followups/{followup}", f"/cases/{case}"):
        who.open(path)
        assert who.page.locator("html").get_attribute("dir") == "rtl"
        found = who.page.evaluate(WHERE, NUMBER)
        assert found and all(first < last for first, last in found), (path, found)


def test_what_is_turned_towards_her_can_be_left_at_once_with_a_finger(network: Network) -> None:
    """No menu and no other case, but the way out, without a keyboard too."""
    draft = begin(network)
    assert ask(network.lantern, "POST", f"/refer/{draft}/person", "carla", person()).status == 303
    shown = ask(network.lantern, "GET", f"/refer/{draft}/consent/turned?in=it", "carla").text
    assert 'action="/leave"' in shown and "Esci subito" in shown and "<nav" not in shown
