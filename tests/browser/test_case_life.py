# SPDX-License-Identifier: Apache-2.0
"""A spreadsheet, a closed case, and what the person herself gets, in a browser."""

from __future__ import annotations

import json
import re
from pathlib import Path

from tests.browser.conftest import Meet, Network
from tests.browser.people import axe
from tests.browser.requests import ask
from tests.federation.nodes import form

GOOD = "Case code,Risk,Age\nSHEET-INVENTED,medium,25-39\n"
BAD = "Case code,Risk\nSHEET-WRONG-INVENTED,enormous\n"


def test_a_spreadsheet_is_looked_at_taken_in_closed_and_opened_again(
    network: Network, meet: Meet, tmp_path: Path
) -> None:
    carla = meet(network.lantern, "carla")
    sheet = tmp_path / "cases.csv"
    for text, said in ((BAD, "Nothing was taken in"), (GOOD, "1 row, and all of it is understood.")):
        sheet.write_text(text)
        carla.open("/cases/import")
        carla.page.get_by_label("File").set_input_files(sheet)
        carla.click("Go on")
        assert carla.sees(said) and not carla.sees("enormous")
    workbook = {"name": "cases.xlsx", "mimeType": "application/zip", "buffer": b"PK\x03\x04" + bytes(2 * 1024 * 1024)}
    carla.page.get_by_label("File").set_input_files(workbook)
    carla.click("Go on")
    assert carla.sees("This is a workbook (.xlsx, .ods, .xls or .numbers).") and axe(carla.page) == []
    carla.page.get_by_label("File").set_input_files(sheet)
    carla.page.get_by_label("Only look at it, and take in nothing yet").uncheck()
    carla.click("Go on")
    assert carla.sees("SHEET-INVENTED") and not carla.sees("SHEET-WRONG-INVENTED")
    carla.click("SHEET-INVENTED", role="link")
    case = re.findall(r"/cases/([0-9a-f]{32})", carla.page.url)[0]
    carla.page.locator("summary", has_text="Close the case").click()
    carla.click("Close the case")
    carla.open("/cases?show=closed")
    carla.click("SHEET-INVENTED", role="link")
    carla.click("Open the case again")
    assert carla.sees("New referral")
    whole = json.loads(ask(network.lantern, "GET", f"/cases/{case}/export.json", "carla").text)
    assert whole["sections"]["identity"] == {"case_code": "SHEET-INVENTED", "age_band": "25-39"}
    paper = meet(network.lantern, "carla").context.request.get(f"{carla.address}/cases/{case}/export/paper")
    assert paper.status in (200, 422)
    assert [fault for fault in carla.faults if "422" not in fault] == []


def test_a_case_begins_without_a_referral_and_is_called_by_its_code_wherever_it_waits(
    network: Network, meet: Meet
) -> None:
    carla = meet(network.lantern, "carla")
    carla.open("/cases")
    carla.click("New case", role="button")
    carla.click("Open the case")
    assert carla.sees("Give the case a code by which you know it again.")
    carla.page.get_by_label("Case code").fill("OWN-INVENTED")
    carla.click("Open the case")
    assert carla.sees("The case is open. It has a next date.") and carla.sees("OWN-INVENTED")
    carla.open("/followups")
    assert carla.sees("OWN-INVENTED")
    elsewhere = {"desk": "0" * 32, "identity.case_code": "NOT-HERE-INVENTED"}
    refused = ask(network.lantern, "POST", "/cases/new", "carla", elsewhere)
    assert refused.status in (403, 422)
    assert "NOT-HERE-INVENTED" not in ask(network.lantern, "GET", "/cases", "sara").text
    assert [fault for fault in carla.faults if "422" not in fault] == []


def test_two_people_choose_how_long_closed_cases_are_kept(network: Network) -> None:
    lantern = network.lantern
    if "ruth" not in lantern.ids:
        lantern.add("ruth", ["supervisor"], joins=False)
    assert ask(lantern, "POST", "/ways/retention", "carla", {"months": "24"}).status == 403
    assert ask(lantern, "POST", "/ways/retention", "sara", {"months": "24"}).status == 303
    assert "asks for 24 months." in ask(lantern, "GET", "/ways", "ruth").text
    assert ask(lantern, "POST", "/ways/retention/agree", "sara", {"months": "24"}).status == 422
    assert ask(lantern, "POST", "/ways/retention/agree", "ruth", {"months": "24"}).status == 303
    assert "24 months after it was closed." in ask(lantern, "GET", "/ways", "sara").text


def test_who_turns_out_to_be_a_child_is_said_to_be_and_nothing_new_goes_out(network: Network) -> None:
    """Corrected in her case it is only known; corrected in what was sent it is refused, and what was typed stays."""
    lantern = network.lantern
    carla = lantern.client("carla")
    sent = carla.post("/api/v1/refer", {"form": form(network.harbour.node)})
    note = "nothing new is shared unless she and her guardian agree"
    assert note not in ask(lantern, "GET", f"/cases/{sent['case']}", "carla").text
    known = {"identity.case_code": "INVENTED", "identity.age_band": "12-17", "service.details": "A room."}
    refused = ask(lantern, "POST", f"/referrals/{sent['referral']}/correct", "carla", known)
    assert refused.status == 422 and "For a child other rules hold." in refused.text
    assert 'value="12-17" selected' in refused.text, "what was typed stays"
    assert [act["what"] for act in carla.get(f"/api/v1/referrals/{sent['referral']}")["history"]] == ["request"]
    child = {"sections": {"identity": {"case_code": "INVENTED", "age_band": "12-17"}}}
    carla.post(f"/api/v1/cases/{sent['case']}/sections", child)
    assert note in ask(lantern, "GET", f"/cases/{sent['case']}", "carla").text
