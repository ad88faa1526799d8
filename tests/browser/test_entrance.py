# SPDX-License-Identifier: Apache-2.0
"""The way in and out: sign-in, recovery codes, sessions, what happens to a form, leaving at once."""

from __future__ import annotations

import re
import signal
from typing import Any

import pytest
from playwright.sync_api import Route

from node.cli.client import ApiError
from tests.browser.conftest import Meet, Network, passphrase
from tests.browser.people import Person, fresh_code
from tests.browser.test_referral import fill_person, prepare

HARMLESS = "<!doctype html><title>Harmless</title><h1>Harmless</h1>"


def hire(network: Network, handle: str, roles: list[str] | None = None) -> None:
    """Somebody of her own for tests that end sessions."""
    network.lantern.add(handle, roles or ["caseworker"], joins=True)


def log_in(who: Person, network: Network, handle: str) -> None:
    who.open("/signin")
    who.fill("Work name", handle)
    who.fill("Passphrase", passphrase(handle))
    who.fill("Code from your authenticator", network.lantern.code(handle))
    who.click("Sign in")


def test_an_invited_person_enrols_and_signs_in(network: Network, meet: Meet) -> None:
    adam = meet(network.lantern, "adam")
    adam.open("/staff")
    adam.page.locator("#handle").fill("newcomer")
    adam.page.locator("section.part").last.get_by_label("Caseworker").check()
    adam.click("Invite")
    secret = adam.page.locator("#invitation").inner_text()
    new = meet(network.lantern)
    new.open("/enrol")
    new.fill("Invitation", secret)
    new.fill("A passphrase of your own", "short")
    new.fill("The same passphrase again", "other")
    new.click("Go on")
    assert new.page.locator(".problems li").count() == 2, "every problem at once"
    assert new.page.get_by_label("Invitation").input_value() == secret, "nothing typed is lost"
    assert new.page.get_by_label("A passphrase of your own").input_value() == "", "but a passphrase is never sent back"
    new.fill("A passphrase of your own", "four invented words here")
    new.fill("The same passphrase again", "four invented words here")
    new.click("Go on")
    assert new.page.locator(".qr svg").count() == 1
    totp = new.page.locator("#secret").inner_text().replace(" ", "")
    codes = [code.replace(" ", "") for code in new.page.locator(".codes code").all_inner_texts()]
    assert len(codes) == 10
    for code, works in ((fresh_code(totp), True), (codes[0], True), (codes[0], False), (codes[1], True)):
        new.open("/signin")
        new.fill("Work name", "newcomer")
        new.fill("Passphrase", "four invented words here")
        new.fill("Code from your authenticator", code)
        new.click("Sign in")
        assert new.sees("What waits for you today") == works, "a recovery code works once"
        if works:
            new.click("Sign out")
            assert new.sees("You are signed out.")
    again = meet(network.lantern)
    again.open("/enrol")
    again.fill("Invitation", secret)
    again.fill("A passphrase of your own", "four invented words here")
    again.fill("The same passphrase again", "four invented words here")
    again.click("Go on")
    assert again.sees("This invitation is not valid any more."), "an invitation works once"


def test_every_wrong_sign_in_gets_the_same_answer(network: Network, meet: Meet) -> None:
    answers = set()
    who = meet(network.lantern)
    for handle, words, code in (
        ("carla", passphrase("carla"), "000000"),
        ("carla", "wrong words entirely", "000000"),
        ("nobody-here", "wrong words entirely", "000000"),
        ("<b>carla</b>", "wrong words entirely", "000000"),
        ("", "", ""),
    ):
        who.open("/signin")
        who.fill("Work name", handle)
        who.fill("Passphrase", words)
        who.fill("Code from your authenticator", code)
        who.click("Sign in")
        answers.add(who.page.locator(".problems li").inner_text())
    assert answers == {"Work name, passphrase or code is not right. Check all three, wait a minute, then try again."}


def test_leaving_takes_one_key_and_going_back_reaches_only_the_sign_in_page(network: Network, meet: Meet) -> None:
    hire(network, "lena")
    lena = meet(network.lantern, "lena", own=True)
    asked: list[Route] = []
    lena.context.route("https://www.wikipedia.org/**", lambda route: asked.append(route))
    lena.open("/")
    lena.open("/cases")
    lena.open("/me")
    lena.page.evaluate("window.addEventListener('pagehide', () => sessionStorage.setItem('x', 'x'))")
    hidden: list[str] = []
    lena.page.on("console", lambda said: hidden.append(said.text) if said.type == "log" else None)
    lena.page.evaluate(
        "document.addEventListener('keydown', () => console.log(getComputedStyle(document.body).visibility))"
    )
    lena.page.keyboard.press("Escape")
    for _ in range(600):
        # The page is still there while the other site has not answered: what it says is not lost with it.
        if asked and hidden:
            break
        lena.page.wait_for_timeout(50)
    asked[0].fulfill(body=HARMLESS, content_type="text/html")
    lena.page.wait_for_url("https://www.wikipedia.org/**")
    assert hidden == ["hidden"], "what was on the screen is gone with the key itself, before any network"
    assert lena.page.title() == "Harmless"
    for _ in range(2):
        lena.page.go_back()
        lena.page.wait_for_url(re.compile("/signin"))
        assert lena.page.title() == "Sign in · Staffetta", lena.page.url
    names = [cookie["name"] for cookie in lena.context.cookies() if "localhost" in cookie["domain"]]
    assert "staffetta" not in names
    lena.context.add_cookies(
        [{"name": "staffetta", "value": network.lantern.cookies["lena"], "url": lena.address, "sameSite": "Strict"}]
    )
    lena.open("/")
    assert lena.page.title() == "Sign in · Staffetta", "the session ended on the server, not only in the browser"


def test_leaving_does_not_wait_for_the_node_which_ends_the_session_when_it_can(network: Network, meet: Meet) -> None:
    """A node that answers nobody, or a line that is gone, must not keep her on the page."""
    hire(network, "lara")
    lara = meet(network.lantern, "lara", own=True)
    elsewhere = lambda route: route.fulfill(body=HARMLESS, content_type="text/html")  # noqa: E731
    lara.context.route("https://www.wikipedia.org/**", elsewhere)
    lara.open("/cases")
    process = network.lantern.node.process
    assert process is not None
    process.send_signal(signal.SIGSTOP)
    try:
        lara.page.keyboard.press("Escape")
        lara.page.wait_for_url("https://www.wikipedia.org/**")
        assert lara.page.title() == "Harmless"
    finally:
        process.send_signal(signal.SIGCONT)
    with pytest.raises(ApiError) as ended:
        for _ in range(100):
            network.lantern.client("lara").get("/api/v1/session")
            lara.page.wait_for_timeout(100)
    assert ended.value.code == "signed-out", "on the node too, from what the page sent before it went"


def test_whoever_goes_back_before_the_node_has_heard_of_it_sees_nothing(network: Network, meet: Meet) -> None:
    """On a slow line the page could be fetched once more while the session is still there."""
    hire(network, "luna")
    luna = meet(network.lantern, "luna", own=True)
    luna.context.route(
        "https://www.wikipedia.org/**", lambda route: route.fulfill(body=HARMLESS, content_type="text/html")
    )
    held: list[Route] = []
    luna.context.route("**/leave", lambda route: held.append(route))
    luna.open("/cases")
    luna.open("/me")
    luna.page.keyboard.press("Escape")
    luna.page.wait_for_url("https://www.wikipedia.org/**")
    assert network.lantern.client("luna").get("/api/v1/session")["roles"], "the node has heard nothing"
    luna.page.evaluate("history.back()")
    luna.page.wait_for_url("**/cases")
    assert luna.page.locator("html").get_attribute("hidden") is not None and not luna.page.locator("body").is_visible()
    for _ in range(600):
        if len(held) > 1:
            break
        luna.page.wait_for_timeout(50)
    held[-1].continue_()
    luna.page.wait_for_url(re.compile("/signin"))
    with pytest.raises(ApiError) as ended:
        network.lantern.client("luna").get("/api/v1/session")
    assert ended.value.code == "signed-out", "asked once more, before anything else"


def test_leaving_works_without_javascript(network: Network, meet: Meet) -> None:
    hire(network, "lisa")
    lisa = meet(network.lantern, "lisa", java_script_enabled=False)
    lisa.open("/cases")
    # What is reached by being sent on is not intercepted, and from here there is no way to it.
    with lisa.page.expect_event("requestfailed", lambda request: request.url.startswith("https://www.wikipedia.org/")):
        lisa.page.locator("button.leave").click()
    lisa.page.wait_for_url("chrome-error://**")
    lisa.page.go_back()
    assert lisa.page.title() == "Sign in · Staffetta"


def test_a_form_survives_the_end_of_its_session(network: Network, meet: Meet) -> None:
    """She is signed out while she writes; after signing in again the form goes where it was going."""
    hire(network, "mila")
    mila = meet(network.lantern, "mila")
    mila.open("/refer")
    mila.tick("Medical care")
    mila.click("Go on")
    mila.page.locator("input[name=desk]").first.check()
    mila.click("Go on")
    fill_person(mila, "KEPT-INVENTED")
    code = network.lantern.code("mila")
    network.lantern.node.client.post(f"/api/v1/staff/{network.lantern.ids['mila']}/signout")
    mila.click("Go on")
    assert mila.sees("You were signed out while you were writing. Your form is kept")
    assert "KEPT-INVENTED" not in mila.page.content(), "what was written is not on the sign-in page"
    mila.fill("Work name", "mila")
    mila.fill("Passphrase", passphrase("mila"))
    mila.fill("Code from your authenticator", code)
    mila.click("Sign in")
    mila.click("Go on with it")
    assert mila.sees("What may we share?") and mila.sees("KEPT-INVENTED")


def test_a_form_that_was_kept_is_nobody_elses(network: Network, meet: Meet) -> None:
    hire(network, "mona")
    hire(network, "nina")
    code = network.lantern.code("nina")
    mona = meet(network.lantern, "mona")
    mona.open("/search")
    mona.fill("Case code or name", "written by mona")
    network.lantern.node.client.post(f"/api/v1/staff/{network.lantern.ids['mona']}/signout")
    mona.page.locator("main").get_by_role("button", name="Search").click()
    assert mona.sees("Your form is kept")
    mona.fill("Work name", "nina")
    mona.fill("Passphrase", passphrase("nina"))
    mona.fill("Code from your authenticator", code)
    mona.click("Sign in")
    assert mona.sees("What waits for you today") and "written by mona" not in mona.page.content()


def test_changing_the_passphrase_ends_every_session(network: Network, meet: Meet) -> None:
    hire(network, "olga")
    code = network.lantern.code("olga")
    olga = meet(network.lantern, "olga")
    olga.open("/me")
    olga.fill("The present passphrase", "wrong words entirely")
    olga.fill("The new passphrase", "five new invented words")
    olga.fill("The new passphrase again", "five new invented words")
    olga.click("Change", within=olga.page.locator("form[action='/me/passphrase']"))
    assert olga.sees("The present passphrase is not right.")
    olga.fill("The present passphrase", passphrase("olga"))
    olga.fill("The new passphrase", "five new invented words")
    olga.fill("The new passphrase again", "five new invented words")
    olga.click("Change", within=olga.page.locator("form[action='/me/passphrase']"))
    assert olga.sees("Your passphrase is changed.")
    olga.fill("Work name", "olga")
    olga.fill("Passphrase", "five new invented words")
    olga.fill("Code from your authenticator", code)
    olga.click("Sign in")
    assert olga.sees("What waits for you today")


def test_sessions_are_listed_and_ended_one_by_one(network: Network, meet: Meet) -> None:
    hire(network, "petra")
    here, there = meet(network.lantern, "petra"), meet(network.lantern)
    log_in(there, network, "petra")
    here.open("/me")
    assert here.sees("This browser") and here.sees("Another browser")
    here.click("End")
    assert here.sees("Ended.") and not here.sees("Another browser")
    there.open("/cases")
    assert there.page.title() == "Sign in · Staffetta"


def test_the_language_is_the_persons_own(network: Network, meet: Meet) -> None:
    hire(network, "quinta")
    who = meet(network.lantern, "quinta")
    who.open("/me")
    who.page.locator("#language").select_option("it")
    who.click("Change", within=who.page.locator("form[action='/me/language']"))
    assert who.page.locator("html").get_attribute("lang") == "it"
    other = meet(network.lantern)
    other.open("/signin")
    assert other.page.locator("html").get_attribute("lang") == "en"
    other.page.locator("#language").select_option("ar")
    other.click("Change")
    assert other.page.locator("html").get_attribute("dir") == "rtl"


def test_a_link_that_leads_elsewhere_after_sign_in_is_not_followed(network: Network, meet: Meet) -> None:
    hire(network, "rosa")
    rosa = meet(network.lantern)
    for address in ("//evil.invalid/", "https://evil.invalid/", "/\\evil.invalid"):
        rosa.open(f"/signin?next={address}")
        assert rosa.page.locator("input[name=following]").get_attribute("value") == ""


def test_double_clicks_and_the_back_button_send_once(network: Network, meet: Meet) -> None:
    hire(network, "silva")
    silva = meet(network.lantern, "silva")
    prepare(silva, code="TWICE-INVENTED")
    silva.page.get_by_role("button", name="Send", exact=True).dblclick()
    silva.page.wait_for_url(re.compile("/referrals"))
    silva.page.go_back()
    assert silva.sees("There is no such draft.") or silva.page.get_by_role("button", name="Send", exact=True).count()
    if silva.page.get_by_role("button", name="Send", exact=True).count():
        silva.click("Send")
        assert silva.sees("This was sent already. Nothing was sent twice.")
    mine = [r for r in referrals(network, "silva") if r["staff_id"] == network.lantern.ids["silva"]]
    assert len(mine) == 1


def referrals(network: Network, handle: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = network.lantern.client(handle).get("/api/v1/referrals?ended=true")["referrals"]
    return found
