# SPDX-License-Identifier: Apache-2.0
"""The agency's own pages at a real browser: colleagues, desks, recovery, her copy, being told that something waits."""

from __future__ import annotations

import http.client
import json
import re
import socket
import time
from datetime import datetime, timedelta
from pathlib import Path
from zoneinfo import ZoneInfo

import pytest
from aiosmtpd.controller import Controller

from tests.browser.conftest import Meet, Network, Staffed
from tests.browser.requests import ask
from tests.browser.test_referral import arrive, referred
from tests.federation.nodes import RealNode, form
from tests.mailbox import Box


class Alone(Staffed):
    """A node with its first person only."""

    def __init__(self, node: RealNode) -> None:
        self.node, self.cookies = node, {node.key: str(node.client.cookie)}


def test_a_colleague_joins_a_desk_by_the_digits_she_reads_aloud(network: Network, meet: Meet) -> None:
    """The officer types what she hears; other digits add nobody."""
    network.lantern.add("tilda", ["caseworker"], joins=False)
    tilda = meet(network.lantern, "tilda")
    tilda.open("/refer")
    assert tilda.sees("You do not belong to a desk yet.")
    tilda.open("/me")
    digits = tilda.page.locator("#fingerprint").inner_text()
    officer = meet(network.lantern)
    officer.adopt(str(network.lantern.node.client.cookie))
    for typed, joins in (("1" * 30, False), (digits, True)):
        officer.open("/desks")
        officer.page.locator("summary", has_text="Add a member").first.click()
        officer.page.get_by_label("Colleague").first.select_option(label="tilda")
        officer.page.locator("input[name=fingerprint]").first.fill(typed)
        officer.page.locator("details[open]").get_by_role("button", name="Add", exact=True).click()
        assert officer.sees("Added.") == joins
        if not joins:
            assert officer.sees("This is not the fingerprint of her key.")
    tilda.open("/refer")
    assert tilda.sees("What is needed?")


def test_what_a_desk_offers_is_what_others_see(network: Network, meet: Meet) -> None:
    officer = meet(network.harbour)
    officer.adopt(str(network.harbour.node.client.cookie))
    officer.open("/desks")
    part = officer.page.locator("section.part", has=officer.page.get_by_role("heading", name="Seldom open"))
    part.locator("summary", has_text="What other agencies see of it").click()
    part.get_by_label("Legal advice").check()
    part.get_by_label("Română").check()
    part.get_by_role("button", name="Save").click()
    assert officer.sees("Changed.")
    listed = network.harbour.node.client.get("/api/v1/desks")["desks"]
    profile = next(desk["profile"] for desk in listed if desk["name"] == "Seldom open")
    assert profile["services"] == [1375] and profile["languages"] == ["ro"]
    assert profile["opening"] == [{"weekday": 0, "opens": 1, "closes": 2}], "what was there is still there"


def test_her_copy_is_in_her_language_and_without_a_menu(network: Network, meet: Meet) -> None:
    sent = network.lantern.client("carla").post("/api/v1/refer", {"form": form(network.harbour.node)})
    carla = meet(network.lantern, "carla")
    carla.open(f"/cases/{sent['case']}")
    carla.click("Her copy, to print or read aloud", role="link")
    assert carla.sees("You may stop it at any time") and carla.sees("Invented harbour")
    assert carla.page.locator("header.top").count() == 0
    carla.click("العربية", role="link")
    assert carla.page.locator("html").get_attribute("dir") == "rtl"


def test_everything_we_hold_can_be_shown_to_the_person_and_that_is_in_the_trail(network: Network, meet: Meet) -> None:
    carla, irma = meet(network.lantern, "carla"), meet(network.harbour, "irma")
    referral = referred(network, carla, code="SHOWN-INVENTED")
    arrive(irma, referral)
    irma.fill("Note or question", "We look forward to meeting her.")
    irma.click("Send")
    carla.wait_for("We look forward to meeting her.")
    carla.click("The case", role="link")
    carla.click("Everything we hold, for the person herself", role="link")
    for text in ("SHOWN-INVENTED", "A room for some weeks", "We look forward to meeting her.", "Given"):
        assert carla.sees(text), text
    aldo = meet(network.lantern, "aldo")
    aldo.open("/trail")
    assert aldo.sees("case.export") and not aldo.sees("SHOWN-INVENTED")


def test_who_was_referred_is_referred_onward_only_by_asking_her_anew(network: Network, meet: Meet) -> None:
    carla, irma = meet(network.lantern, "carla"), meet(network.harbour, "irma")
    referral = referred(network, carla, code="ONWARD-INVENTED")
    arrive(irma, referral)
    irma.page.locator("summary", has_text="Accept").click()
    irma.page.locator("details[open]").get_by_role("button", name="Accept", exact=True).last.click()
    irma.click("Refer onward, with a new consent", role="link")
    irma.tick("Legal advice")
    irma.click("Go on")
    irma.page.locator("input[name=desk]").first.check()
    irma.click("Go on")
    assert irma.page.get_by_label("Case code").input_value() == "", "nothing that was received is copied"
    irma.fill("What is needed, in a few sentences", "Advice on her permit.")
    irma.fill("Case code", "H-77")
    irma.tick("No, the person will contact us")
    irma.click("Go on")
    irma.tick("I told her first what the law may oblige us to report")
    for part in irma.page.locator("section.may").all():
        irma.tick("Yes, you may share this", within=part)
    irma.choose("In which language was it explained?", "pcm")
    irma.click("Go on")
    irma.click("Send")
    irma.page.wait_for_url(re.compile("/referrals/[0-9a-f]{32}"))
    assert irma.sees("Follows from an earlier referral.")


def test_a_lost_passphrase_comes_back_with_both_sheets(tmp_path: Path, meet: Meet) -> None:
    """One sheet alone, or twice the same, is worth nothing."""
    tmp_path.chmod(0o700)
    node = RealNode(tmp_path, "solo")
    process = node.set_up()
    out, err = process.communicate(timeout=120)
    assert process.returncode == 0, err

    printed = json.loads(out)
    node.sign_in["totp_secret"] = printed["totp_secret"]
    node.begin()
    try:
        assert node.wait()
        node.log_in()
        sheets = printed["sheet_a"], printed["sheet_b"]
        form_data = {"handle": "solo", "passphrase": "five new invented words", "again": "five new invented words"}

        alone = Alone(node)
        for a, b in ((sheets[0], sheets[0]), (sheets[0], ""), ("x", "y"), (sheets[1], sheets[1])):
            answer = ask(alone, "POST", "/recover", form={**form_data, "sheet_a": a, "sheet_b": b})
            assert answer.status == 422 and 'role="alert"' in answer.text
            assert sheets[0].split()[3] not in answer.text, "a sheet is never sent back"
        both = {**form_data, "sheet_a": sheets[1], "sheet_b": sheets[0]}
        answer = ask(alone, "POST", "/recover", form=both)
        assert answer.status == 200 and "Recovery codes, on paper" in answer.text
        assert ask(alone, "GET", "/", "solo").status == 303, "whoever was signed in with the old one is not any more"
        code = re.findall(r"<li><code>([a-z2-7 ]+)</code></li>", answer.text)[0]
        signed = {"handle": "solo", "passphrase": "five new invented words", "code": code}
        assert ask(alone, "POST", "/signin", form=signed).status == 303
    finally:
        node.end()
        node.log.close()


def test_one_sentence_comes_by_mail_when_nobody_looks(tmp_path: Path) -> None:
    """A real mail server: the message that she asks for, then one because something waits, then none."""
    tmp_path.chmod(0o700)
    node, box = RealNode(tmp_path, "posted"), Box()
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    controller = Controller(box, hostname="127.0.0.1", port=port)
    controller.start()
    node.finish_set_up(node.set_up())
    (node.folder / "demo-clock").unlink()
    settings = f'[post]\nhost = "127.0.0.1"\nport = {port}\nsecurity = "none"\nsender = "reminder@example.invalid"\n'
    file = node.folder / "staffetta.toml"
    file.write_text(file.read_text().replace("[post]\n", settings))
    node.begin()
    try:
        assert node.wait()
        node.log_in()
        alone = Alone(node)
        wanted = {"address": "work@example.invalid", "test": "yes"}
        assert ask(alone, "POST", "/me/channels", "posted", {"address": "nonsense"}).status == 422
        assert ask(alone, "POST", "/me/channels", "posted", wanted).headers["location"] == "/me?done=mailed#ways"
        assert len(box.kept) == 1
        node.client.request("DELETE", "/api/v1/session")
        for delay_seconds in (0, 0, 1.1, 2.1, 0):  # wrong codes delay the next try
            body = {"handle": "posted", "passphrase": node.sign_in["passphrase"], "code": "000000"}
            ask(alone, "POST", "/signin", form=body)
            time.sleep(delay_seconds)
        for _ in range(300):
            if len(box.kept) == 2:
                break
            time.sleep(0.1)
        assert [message.get_payload().strip() for message in box.kept] == ["There is something to read."] * 2
        assert box.kept[0].as_string().replace("Date", "") != "" and len({m["Subject"] for m in box.kept}) == 1
        time.sleep(7)
        assert len(box.kept) == 2, "once is enough"
    finally:
        node.end()
        node.log.close()
        controller.stop()


@pytest.mark.parametrize("name", ["sheet_a", "sheet_b", "root"])
def test_what_opens_everything_is_in_no_log(network: Network, name: str) -> None:
    canary = "CANARY" * 4
    ask(network.lantern, "POST", "/recover", form={"handle": "carla", name: canary})
    ask(network.lantern, "POST", f"/staff/{'0' * 32}/officer", "adam", {name: canary})
    network.lantern.node.log.flush()
    assert canary.encode() not in Path(network.lantern.node.log.name).read_bytes()


def test_the_demonstration_says_on_every_page_that_it_is_one(tmp_path: Path) -> None:
    """A training node cannot be mistaken for a real one."""
    tmp_path.chmod(0o700)
    node = RealNode(tmp_path, "training")
    process = node.set_up()
    node.finish_set_up(process)
    assert (node.folder / "demo-clock").exists()
    node.begin()
    try:
        assert node.wait()

        connection = http.client.HTTPConnection("127.0.0.1", node.port)
        connection.request("GET", "/signin", headers={"Accept": "text/html"})
        assert "Training: everybody and everything here is invented." in connection.getresponse().read().decode()
        connection.close()
    finally:
        node.end()
        node.log.close()


def test_without_her_consent_only_with_a_second_person_and_said_aloud(network: Network, meet: Meet) -> None:
    """Asked by a caseworker, approved by a supervisor, marked for the recipient; nothing leaves before."""
    carla, sara, irma = (
        meet(network.lantern, "carla"),
        meet(network.lantern, "sara"),
        meet(network.harbour, "irma"),
    )
    carla.open("/refer")
    carla.tick("Immediate safety")
    carla.click("Go on")
    carla.page.locator("input[name=desk]").first.check()
    carla.click("Go on")
    carla.fill("What is needed, in a few sentences", "She is in danger tonight.")
    carla.fill("Case code", "EXCEPTION-INVENTED")
    carla.tick("No contact")
    carla.choose("Risk", "high")
    carla.click("Go on")
    carla.click("She cannot be asked, or a law obliges us", role="link")
    carla.click("Ask a second person")
    assert carla.page.locator(".problems li").count() == 4
    carla.tick("A life is in danger, and she cannot be asked")
    carla.fill("What has happened, in one or two sentences", "She telephoned and the line broke off.")
    carla.fill("Which law or rule", "Vital interests, Art. 6(1)(d)")
    carla.tick("What is needed")
    carla.tick("Who she or he is")
    carla.click("Ask a second person")
    assert carla.sees("Nothing has been sent.")
    assert carla.page.get_by_role("button", name="Send", exact=True).count() == 0
    draft = re.findall(r"/refer/([0-9a-f]{32})/", carla.page.url)[0]
    early = ask(network.lantern, "POST", f"/refer/{draft}/exception/send", "carla")
    assert early.status == 409 and "A second person has not approved exactly this" in early.text
    sara.open("/")
    sara.click("A colleague asks you to approve sharing without the person's consent.", role="link")
    approval = sara.page.url.rpartition("/")[2].partition("?")[0]
    assert sara.sees("She telephoned and the line broke off.") and sara.sees("EXCEPTION-INVENTED")
    assert not sara.sees("No contact"), "the parts that are not asked for are not shown"
    for outsider, status in (("carla", 403), ("adam", 403), ("vera", 403), ("irma", 403)):
        assert ask(network.lantern, "GET", f"/approvals/{approval}", outsider).status == status, outsider
        form_data = {"approve": "yes"}
        assert ask(network.lantern, "POST", f"/approvals/{approval}", outsider, form_data).status == status, outsider
    sara.click("I have looked at it, and approve it")
    carla.page.reload()
    assert carla.sees("A second person has approved it.")
    carla.click("Send")
    carla.page.wait_for_url(re.compile("/referrals/[0-9a-f]{32}"))
    referral = re.findall(r"/referrals/([0-9a-f]{32})", carla.page.url)[0]
    arrive(irma, referral)
    assert irma.sees("Not on her consent, but on another legal basis.")
    assert irma.sees("A life is in danger") and not irma.sees("Safe contact")
    aldo = meet(network.lantern, "aldo")
    aldo.open("/trail")
    assert aldo.sees("approval.ask") and aldo.sees("approval.approve") and aldo.sees("vital-interests")


def test_a_question_names_nobody_and_its_answer_stands_beside_the_desk(network: Network, meet: Meet) -> None:
    """Asked of a desk, answered in two clicks, and seen where the next referral chooses its desk."""
    carla, irma = meet(network.lantern, "carla"), meet(network.harbour, "irma", width=390)
    carla.open("/")
    carla.click("Ask who could take somebody")
    assert (
        carla.page.locator("form[action='/capacity'] input[type=text], form[action='/capacity'] textarea").count() == 0
    )
    carla.choose("What is needed?", "1121")
    carla.choose("Children, 3–5 years", "2")
    carla.click("Ask")
    assert carla.sees("Choose whom to ask.")
    carla.page.locator("input[name=desk]").first.check()
    carla.click("Ask")
    assert carla.sees("no answer yet") and carla.sees("3–5, 3–5")
    irma.open_until("/", "Another agency asks whether you could take somebody.")
    irma.click("Another agency asks whether you could take somebody.", role="link")
    irma.tick("Yes")
    irma.click("Answer")
    assert irma.sees("The other desk is told.")
    carla.open_until("/capacity", "Counts until")
    carla.open("/refer")
    carla.tick("Emergency shelter")
    carla.click("Go on")
    assert carla.sees("said yes until")
    assert [fault for fault in carla.faults + irma.faults if "422" not in fault] == []


def test_somebody_who_is_away_has_a_cover_until_she_is_back(network: Network, meet: Meet) -> None:
    """What is hers goes to her cover at once, both pages say so, and it comes back with her."""
    network.lantern.add("alma", ["caseworker"], joins=True)
    network.lantern.add("berta", ["caseworker"], joins=True)
    sent = network.lantern.client("alma").post("/api/v1/refer", {"form": form(network.harbour.node)})
    alma, berta = meet(network.lantern, "alma"), meet(network.lantern, "berta")
    alma.open("/away")
    alma.click("Save")
    assert alma.page.locator(".problems li").count() == 3, "every problem at once"
    today = datetime.now(ZoneInfo("Europe/Rome")).date()
    alma.fill("First day away", today.isoformat())
    alma.fill("Last day away", (today + timedelta(days=7)).isoformat())
    alma.page.get_by_label("Who covers").select_option(label="berta")
    alma.click("Save")
    assert alma.sees("alma is away from") and alma.sees("berta covers.")
    alma.open("/")
    assert alma.sees("berta covers for you.")
    berta.open("/")
    assert berta.sees("You cover for alma until")
    berta.open(f"/referrals/{sent['referral']}")
    held = network.lantern.client("berta").get(f"/api/v1/referrals/{sent['referral']}")
    assert held["staff_id"] == network.lantern.ids["berta"]
    berta.open("/away")
    assert berta.page.get_by_role("button", name="I am back").count() == 0, "only she herself or a supervisor"
    alma.open("/away")
    alma.click("I am back")
    back = network.lantern.client("alma").get(f"/api/v1/referrals/{sent['referral']}")
    assert back["staff_id"] == network.lantern.ids["alma"]


def test_each_number_in_a_drawing_of_the_guide_is_explained(network: Network) -> None:
    for language in ("en", "ar"):
        text = ask(network.lantern, "GET", "/help", "carla", Accept_Language=language).text
        figures = re.findall(r'<figure class="guide">(.*?)</figure>', text, re.DOTALL)
        assert len(figures) == 5
        for figure in figures:
            assert figure.count("<circle") == figure.count("<li>") >= 3
            assert re.search(r'role="img" aria-label="[^"]{10,}"', figure), "a screen reader says what it shows"
        assert all(0 <= int(x) <= 320 for x in re.findall(r'<rect x="(-?\d+)"', text))
