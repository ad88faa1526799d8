# SPDX-License-Identifier: Apache-2.0
"""Passkeys in a real browser, with Chromium's own virtual device: added, used, removed; and refused from outside."""

from __future__ import annotations

import base64
import json
from http.cookies import SimpleCookie
from typing import Any

from playwright.sync_api import CDPSession

from tests.browser.conftest import Meet, Network, Staffed, passphrase
from tests.browser.people import Person
from tests.browser.requests import ask
from tests.browser.test_entrance import hire
from tests.office.authenticator import Device


def plug_in(who: Person, *, prf: bool = True, verified: bool = True) -> tuple[CDPSession, str]:
    """A device at her computer, which answers as soon as it is asked."""
    cdp = who.context.new_cdp_session(who.page)
    cdp.send("WebAuthn.enable")
    options = {
        "protocol": "ctap2",
        "ctap2Version": "ctap2_1",
        "transport": "internal",
        "hasResidentKey": True,
        "hasUserVerification": True,
        "isUserVerified": verified,
        "hasPrf": prf,
        "automaticPresenceSimulation": True,
    }
    return cdp, cdp.send("WebAuthn.addVirtualAuthenticator", {"options": options})["authenticatorId"]


def add_passkey(who: Person, handle: str, name: str) -> None:
    who.open("/me/passkeys")
    who.fill("A name for it", name)
    who.fill("Your passphrase", passphrase(handle))
    who.click("Add a passkey")


def use_passkey(who: Person, words: str = "") -> None:
    who.open("/signin")
    if words:
        who.fill("Passphrase", words)
    who.click("Sign in with a passkey")


def test_a_passkey_signs_in_without_passphrase_or_code_until_it_is_removed(network: Network, meet: Meet) -> None:
    hire(network, "thea")
    thea = meet(network.lantern, "thea", own=True)
    plug_in(thea)
    add_passkey(thea, "thea", "invented telephone")
    thea.wait_for("Added.")
    assert thea.sees("invented telephone") and thea.sees("opens your keys: no passphrase needed")
    thea.click("Sign out")
    thea.page.wait_for_url("**/signin**")
    use_passkey(thea)
    thea.wait_for("What waits for you today")
    thea.open("/cases")
    assert "Cases" in thea.page.title(), "her desk's keys are open"
    thea.open("/me/passkeys")
    thea.click("Remove invented telephone")
    assert thea.sees("You have none yet.")
    thea.click("Sign out")
    use_passkey(thea)
    thea.wait_for("This passkey was not accepted.")
    assert [fault for fault in thea.faults if "401" not in fault] == [], "the page's policy refused nothing"


def test_a_device_without_a_secret_stands_in_place_of_the_code(network: Network, meet: Meet) -> None:
    hire(network, "ulla")
    ulla = meet(network.lantern, "ulla", own=True)
    plug_in(ulla, prf=False)
    add_passkey(ulla, "ulla", "invented key")
    ulla.wait_for("Added.")
    assert ulla.sees("in place of the code, with your passphrase")
    ulla.click("Sign out")
    use_passkey(ulla)
    ulla.wait_for("This passkey does not open your keys by itself.")
    use_passkey(ulla, "wrong words entirely")
    ulla.wait_for("This passkey was not accepted.")
    use_passkey(ulla, passphrase("ulla"))
    ulla.wait_for("What waits for you today")


def test_a_device_that_did_not_verify_her_adds_nothing(network: Network, meet: Meet) -> None:
    hire(network, "viola")
    viola = meet(network.lantern, "viola", own=True)
    plug_in(viola, verified=False)
    add_passkey(viola, "viola", "invented key")
    viola.wait_for("The device did not make a passkey.")
    viola.open("/me/passkeys")
    assert viola.sees("You have none yet.")


# -- from outside ----------------------------------------------------------------------------------------------------


def post(
    staffed: Staffed, path: str, body: Any, handle: str = "", attempt: str = ""
) -> tuple[int, dict[str, Any], str]:
    """One request to the API: its status, its answer, and the attempt that it began."""
    cookies = [f"staffetta={staffed.cookies[handle]}"] if handle else []
    cookies += [f"staffetta-attempt={attempt}"] if attempt else []
    answer = ask(
        staffed,
        "POST",
        f"/api/v1{path}",
        form=json.dumps(body).encode(),
        X_Staffetta="1",
        Content_Type="application/json",
        **({"Cookie": "; ".join(cookies)} if cookies else {}),
    )
    begun = SimpleCookie(answer.headers.get("set-cookie", "")).get("staffetta-attempt")
    return answer.status, json.loads(answer.text), "" if begun is None else begun.value


def raw(text: str) -> bytes:
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))


def test_from_outside_only_the_right_answer_at_the_right_place_signs_in(network: Network) -> None:
    lantern = network.lantern
    hire(network, "wilma")
    hire(network, "xenia")
    port = lantern.node.port
    made = Device("localhost", f"http://localhost:{port}")
    _, asked, _ = post(lantern, "/passkeys/options", {}, "wilma")
    new = {"passkey": made.make(raw(asked["challenge"]), raw(asked["input"])), "name": "x"}
    assert post(lantern, "/passkeys", {**new, "passphrase": passphrase("xenia")}, "wilma")[0] == 422
    assert post(lantern, "/passkeys", {**new, "passphrase": passphrase("xenia")}, "xenia")[0] == 401, "asked of another"
    assert post(lantern, "/passkeys", {**new, "passphrase": passphrase("wilma")}, "wilma")[0] == 200

    def attempt(**wrong: Any) -> tuple[int, dict[str, Any], dict[str, Any], str]:
        _, asked, begun = post(lantern, "/session/passkey/options", {})
        kept = {name: getattr(made, name) for name in wrong}
        for name, value in wrong.items():
            setattr(made, name, value)
        body = {"passkey": made.use(raw(asked["challenge"]), raw(asked["input"]))}
        for name, value in kept.items():
            setattr(made, name, value)
        status, answer, _ = post(lantern, "/session/passkey", body, attempt=begun)
        return status, answer, body, begun

    status, answer, body, begun = attempt()
    assert status == 200 and answer["staff_id"] == lantern.ids["wilma"]
    assert post(lantern, "/session/passkey", body, attempt=begun)[0] == 401, "a replay"
    for wrong in (
        {"origin": f"http://127.0.0.1:{port}"},
        {"origin": "https://evil.invalid"},
        {"site": "evil.invalid"},
        {"verifies": False},
        {"key": Device("x", "x").key},
        {"credential": b"nobody's"},
    ):
        status, answer, _, _ = attempt(**wrong)
        assert status == 401 and answer["type"].endswith("sign-in"), wrong
    _, asked, _ = post(lantern, "/session/passkey/options", {})
    body = {"passkey": made.use(raw(asked["challenge"]), raw(asked["input"]))}
    assert post(lantern, "/session/passkey", body)[0] == 401, "a browser that did not ask"
    assert post(lantern, "/session/passkey", body, attempt=begun)[0] == 401, "another attempt"
    mine = lantern.client("wilma").get("/api/v1/passkeys")["passkeys"]
    assert post(lantern, f"/passkeys/{mine[0]['id']}/remove", {}, "xenia")[0] == 404, "another's passkey"
    assert post(lantern, f"/passkeys/{mine[0]['id']}/remove", {}, "wilma")[0] == 200
    assert attempt()[0] == 401
