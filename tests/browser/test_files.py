# SPDX-License-Identifier: Apache-2.0
"""Files at a real browser: a photograph goes with the referral, arrives whole, and is never shown inside a page."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from protocol import crypto
from tests.browser.conftest import Meet, Network
from tests.browser.people import Person
from tests.browser.test_referral import arrive, referred
from tests.federation.test_backup import wait_for
from tests.web.test_pictures import JPEG, PLACE

PDF = b"%PDF-1.7\n" + crypto.random_bytes(3 * 1024 * 1024)


def attach(who: Person, name: str, content: bytes, about: str = "") -> None:
    who.fill("What it is", about)
    who.page.get_by_label("File", exact=True).set_input_files(
        {"name": name, "mimeType": "application/octet-stream", "buffer": content}
    )
    who.click("Send the file")


def wait_for_file(who: Person, referral: str, name: str) -> None:
    for _ in range(100):
        who.open(f"/referrals/{referral}")
        if who.page.get_by_role("link", name=name).count():
            return
        who.page.wait_for_timeout(100)
    raise AssertionError("The file did not arrive.")


def saved(who: Person, name: str) -> bytes:
    with who.page.expect_download() as waiting:
        who.page.get_by_role("link", name=name).first.click()
    assert waiting.value.suggested_filename == name
    return Path(waiting.value.path()).read_bytes()


@pytest.mark.parametrize("script", [True, False])
def test_a_file_goes_with_a_referral_with_and_without_javascript(network: Network, meet: Meet, script: bool) -> None:
    carla = meet(network.lantern, "carla", java_script_enabled=script)
    irma = meet(network.harbour, "irma", accept_downloads=True)
    referral = referred(network, carla)
    arrive(irma, referral)
    attach(carla, "permesso è valido.pdf", PDF, "Her permit")
    carla.wait_for("Her permit")
    assert carla.sees("Sent.")
    wait_for_file(irma, referral, "permesso è valido.pdf")
    assert irma.sees("Her permit") and irma.sees("3.1 MB")
    assert saved(irma, "permesso è valido.pdf") == PDF
    assert [fault for fault in carla.faults + irma.faults if "Failed to load" not in fault] == []


def test_a_photograph_arrives_without_the_place_where_it_was_taken(network: Network, meet: Meet) -> None:
    carla = meet(network.lantern, "carla")
    irma = meet(network.harbour, "irma", accept_downloads=True)
    referral = referred(network, carla)
    attach(carla, "room.jpg", JPEG)
    carla.wait_for("room.jpg")
    wait_for_file(irma, referral, "room.jpg")
    picture = saved(irma, "room.jpg")
    assert picture.startswith(b"\xff\xd8") and PLACE not in picture


@pytest.mark.parametrize("script", [True, False])
def test_what_cannot_be_sent_is_refused_with_a_sentence(
    network: Network, meet: Meet, script: bool, tmp_path: Path
) -> None:
    carla = meet(network.lantern, "carla", java_script_enabled=script)
    referral = referred(network, carla)
    for name, content, sentence in (
        ("tool.exe", b"MZ" + bytes(100), "This kind of file cannot be sent."),
        ("photo.jpg", b"\xff\xd8\xff\xe0\x00\x10cut", "This picture is damaged."),
        ("empty.txt", b"", "This file is empty."),
    ):
        attach(carla, name, content)
        carla.wait_for(sentence)
    if script:
        # News do not take the sentence away: she would think that the file was sent.
        irma, ours = network.harbour.client("irma"), network.lantern.client("carla")
        wait_for(lambda: referral in [r["id"] for r in irma.get("/api/v1/referrals")["referrals"]])
        irma.post(f"/api/v1/referrals/{referral}/acts", {"action": "acknowledge"})
        wait_for(lambda: bool(ours.get(f"/api/v1/referrals/{referral}")["acknowledged_at"]))
        carla.page.wait_for_timeout(1000)
        assert carla.sees("This file is empty.")
        film = tmp_path / "film.pdf"
        with film.open("wb") as file:
            file.truncate(26 * 1024 * 1024)
        carla.page.get_by_label("File", exact=True).set_input_files(film)
        carla.click("Send the file")
        carla.wait_for("This file is too large.")


def test_a_file_is_an_attachment_of_no_type_and_only_for_the_two_desks(network: Network, meet: Meet) -> None:
    carla, aldo = meet(network.lantern, "carla"), meet(network.lantern, "aldo")
    referral = referred(network, carla)
    attach(carla, "page.txt", b"<script>alert(1)</script>")
    carla.wait_for("page.txt")
    link = carla.page.get_by_role("link", name="page.txt").first.get_attribute("href") or ""
    answer = carla.page.request.get(carla.address + link)
    assert answer.headers["content-type"] == "application/octet-stream"
    assert answer.headers["x-content-type-options"] == "nosniff" and answer.headers["cache-control"] == "no-store"
    assert answer.headers["content-disposition"].startswith("attachment;")
    for path in (link, f"/referrals/{referral}/files/{crypto.new_id()}"):
        assert aldo.page.request.get(aldo.address + path).status in (403, 404)
    form = {"file": {"name": "x.txt", "mimeType": "text/plain", "buffer": b"x"}, "token": "wrong"}
    refused = carla.page.request.post(carla.address + f"/referrals/{referral}/files", multipart=form)
    assert refused.status == 403 and "earlier session" in refused.text()
    assert re.search("page.txt", carla.page.request.get(carla.address + f"/referrals/{referral}").text())


def test_who_keeps_files_private_is_not_asked_again_by_a_button(network: Network, meet: Meet) -> None:
    carla = meet(network.lantern, "carla")
    referred(network, carla, private="attachments")
    assert carla.sees("She was not asked whether files may be sent.") and not carla.sees("Send the file")
