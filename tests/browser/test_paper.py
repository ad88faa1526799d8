# SPDX-License-Identifier: Apache-2.0
"""On paper: what is downloaded holds what its page holds, in her language, tagged, and nobody else gets it."""

from __future__ import annotations

import io
import re
import socket
from datetime import datetime
from zoneinfo import ZoneInfo

import pytest
from pypdf import PdfReader

from node.web.pages.paper import make_pdf
from tests.browser.conftest import Meet, Network
from tests.browser.people import Person
from tests.browser.requests import token
from tests.browser.test_referral import NUMBER, prepare, referred


def paper(who: Person, path: str) -> PdfReader:
    answer = who.page.request.get(who.address + path)
    assert answer.status == 200 and answer.headers["content-type"] == "application/pdf"
    assert answer.headers["cache-control"] == "no-store"
    assert answer.headers["content-disposition"] == 'attachment; filename="paper.pdf"'
    return PdfReader(io.BytesIO(answer.body()))


def words(pdf: PdfReader) -> str:
    return " ".join(" ".join(page.extract_text() for page in pdf.pages).split())


def draft_path(who: Person) -> str:
    """A draft at its consent page."""
    prepare(who, code="PAPER-INVENTED")
    return re.sub(r".*(/refer/[0-9a-f]{32})/.*", r"\1", who.page.url)


def test_the_consent_can_be_signed_on_paper_in_her_language(network: Network, meet: Meet) -> None:
    carla = meet(network.lantern, "carla")
    path = draft_path(carla)
    pdf = paper(carla, f"{path}/consent/paper?in=it")
    text = words(pdf)
    assert "Sì, potete comunicarlo" in text and "A room for some weeks" in text and NUMBER in text
    assert pdf.trailer["/Root"]["/MarkInfo"]["/Marked"] and pdf.trailer["/Root"]["/Lang"] == "it"
    assert "PAPER-INVENTED" not in str(pdf.metadata), "nobody stands in what a viewer shows of the file"


def test_arabic_is_shaped_and_runs_from_the_right(network: Network, meet: Meet) -> None:
    """The letters are joined (their shapes differ from the bare ones) and the first word stands at the right."""
    carla = meet(network.lantern, "carla")
    pdf = paper(carla, f"{draft_path(carla)}/consent/paper?in=ar")
    assert pdf.trailer["/Root"]["/Lang"] == "ar"
    places: list[tuple[float, str]] = []
    pdf.pages[0].extract_text(
        visitor_text=lambda text, _cm, matrix, _font, _size: places.append((matrix[4], text)) if text.strip() else None
    )
    arabic = [(x, text) for x, text in places if re.search("[\u0600-\u06ff\ufb50-\ufeff]", text)]
    assert arabic, "there is Arabic on it"
    assert max(x for x, _ in arabic) > 300, "lines begin at the right edge of the page (595 points wide)"
    assert NUMBER in words(pdf), "its groups stand in their order"


def test_her_copy_and_a_referral_are_papers_for_who_may_read_them(network: Network, meet: Meet) -> None:
    carla, aldo = meet(network.lantern, "carla"), meet(network.lantern, "aldo")
    referral = referred(network, carla, code="COPY-INVENTED")
    text = words(paper(carla, f"/referrals/{referral}/paper"))
    assert "COPY-INVENTED" in text and NUMBER in text and "may not be passed on" in text
    carla.click("The case", role="link")
    copy = carla.page.get_by_role("link", name="Her copy, to print or read aloud").first.get_attribute("href") or ""
    assert "Emergency" not in (said := words(paper(carla, copy.replace("/copy", "/paper") + "?in=fr")))
    assert "Invented harbour" in said and "COPY-INVENTED" not in said, "a copy that is found names nobody"
    everything = copy.partition("/consents/")[0] + "/export/paper"
    carla.page.request.post(
        carla.address + "/me/zone", form={"token": token(network.lantern, "carla"), "zone": "Pacific/Auckland"}
    )
    said = words(paper(carla, everything))
    assert "Times: Rome (Europe/Rome)." in said, "the agency's, whoever prints it"
    at = datetime.now(ZoneInfo("Europe/Rome"))
    assert re.search(rf"{at.day} {at:%b} {at.year}, \d\d:\d\d", said), "with its day, also on the day itself"
    carla.page.request.post(carla.address + "/me/zone", form={"token": token(network.lantern, "carla"), "zone": ""})
    for path in (f"/referrals/{referral}/paper", copy.replace("/copy", "/paper"), everything):
        answer = aldo.page.request.get(aldo.address + path)
        assert answer.status in (403, 404) and "COPY-INVENTED" not in answer.text()


def test_nothing_is_loaded_while_a_paper_is_made() -> None:
    """An address in what somebody wrote is not followed: neither a file of the node's nor one of the network's."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(0.2)
        made = make_pdf(
            f'<html lang="en"><title>Paper</title><img src="http://127.0.0.1:{server.getsockname()[1]}/x.png" alt="">'
            '<img src="file:///etc/hostname" alt=""><style>@import "file:///etc/hostname";</style><p>Text</p></html>'
        )
        with pytest.raises(TimeoutError):
            server.accept()
    assert "Text" in words(PdfReader(io.BytesIO(made)))
