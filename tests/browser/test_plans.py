# SPDX-License-Identifier: Apache-2.0
"""When we look after somebody, at a real browser: a plan, a date that must not pass, one item put off, the figures."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from tests.browser.conftest import Meet, Network
from tests.browser.requests import ask, token
from tests.federation.nodes import form

TODAY = datetime.now(UTC).date()


def test_a_case_has_a_plan_and_its_dates_do_not_pass_unseen(network: Network, meet: Meet) -> None:
    carla = meet(network.lantern, "carla")
    api = network.lantern.client("carla")
    case = api.post("/api/v1/refer", {"form": form(network.harbour.node)})["case"]
    carla.open(f"/cases/{case}/plan")
    carla.fill("The next time in how many days?", "1")
    carla.fill("Then every how many days?", "100")
    carla.page.get_by_label("Then every how many days?").evaluate("input => { input.value = '100' }")
    carla.click("Save")
    assert carla.sees("Write a number of days, from 1 to 90.")
    carla.fill("Then every how many days?", "20")
    carla.click("Save")
    assert carla.sees("Saved.")
    end = TODAY + timedelta(days=12)
    api.post(f"/api/v1/cases/{case}/sections", {"sections": {"legal": {"reflection_period_end": end.isoformat()}}})
    carla.open(f"/cases/{case}/plan")
    assert carla.sees("The reflection period ends")
    row = next(f for f in api.get("/api/v1/followups")["followups"] if f["case_id"] == case and f["kind"] == "date")
    carla.open(f"/followups/{row['id']}")
    assert carla.sees("The reflection period ends") and not carla.sees("What came of it?")
    carla.page.locator("summary", has_text="Put it off, once").click()
    carla.fill("Until", (TODAY + timedelta(days=3)).isoformat())
    carla.click("Put it off")
    assert carla.sees("Write why, in a few words.")
    carla.fill("Why", "The lawyer is away until then.")
    carla.click("Put it off")
    assert carla.sees("Put off until")
    carla.open(f"/followups/{row['id']}")
    assert not carla.page.locator("summary", has_text="Put it off, once").count()
    carla.fill("What was done, and what is next", "The lawyer has asked for a permit.")
    carla.click("Record")
    assert row["id"] not in {f["id"] for f in api.get("/api/v1/followups")["followups"]}


def test_the_agency_chooses_its_holidays_and_intervals(network: Network, meet: Meet) -> None:
    sara = meet(network.lantern, "sara")
    sara.open("/ways")
    sara.fill("One day on each line, as year-month-day", "2031-12-25\nsoon")
    sara.page.locator("form[action='/ways/holidays']").get_by_role("button").click()
    assert sara.sees("Write each day as year-month-day")
    sara.fill("One day on each line, as year-month-day", "2031-12-25\n2031-12-26")
    sara.page.locator("form[action='/ways/holidays']").get_by_role("button").click()
    sara.page.locator("#days-low").fill("25")
    sara.page.locator("form[action='/ways/intervals']").get_by_role("button").click()
    found = network.lantern.client("sara").get("/api/v1/ways")
    assert found["holidays"] == ["2031-12-25", "2031-12-26"] and found["intervals"]["low"] == 25
    for handle in ("carla", "aldo", "vera"):
        assert ask(network.lantern, "GET", "/ways", handle).status == 403
        body = {"token": token(network.lantern, handle), "days-high": "1"}
        assert ask(network.lantern, "POST", "/ways/intervals", handle, form=body).status in (403, 422)
    assert network.lantern.client("sara").get("/api/v1/ways")["intervals"]["high"] == 7


def test_the_figures_are_for_who_answers_for_the_agency(network: Network, meet: Meet) -> None:
    network.lantern.client("carla").post("/api/v1/refer", {"form": form(network.harbour.node)})
    sara = meet(network.lantern, "sara", accept_downloads=True)
    sara.open("/report")
    assert sara.sees("How our cases stand") and sara.sees("General") and sara.sees("On time")
    with sara.page.expect_download() as waiting:
        sara.page.get_by_role("link", name="Exact figures as a table").click()
    text = waiting.value.path().read_text()
    assert text.startswith("what,name,on-time,") and "General" in text
    exact = network.lantern.client("sara").get("/api/v1/report")
    public = network.lantern.client("sara").get("/api/v1/report?public=true")
    assert sum(exact["total"].values()) == public["total"] or sum(exact["total"].values()) < 11
    for handle in ("carla", "aldo", "adam", "vera"):
        assert ask(network.lantern, "GET", "/report", handle).status == 403
        assert ask(network.lantern, "GET", "/report.csv", handle).status == 403


def test_when_an_agency_counts_as_silent_is_decided_by_who_may(network: Network, meet: Meet) -> None:
    sara = meet(network.lantern, "sara")
    agency = network.harbour.node.agency
    sara.open("/agencies")
    sara.page.locator("summary", has_text="Counts as silent after 72 hours").click()
    sara.fill("Hours without a sign of life", "48")
    sara.page.locator(f"form[action='/agencies/{agency}/silence']").get_by_role("button").click()
    assert sara.sees("Counts as silent after 48 hours")
    for handle in ("carla", "aldo", "vera"):
        body = {"token": token(network.lantern, handle), "hours": "5"}
        assert ask(network.lantern, "POST", f"/agencies/{agency}/silence", handle, form=body).status == 403
    sara.open("/agencies")
    assert sara.sees("Counts as silent after 48 hours")


def test_a_follow_up_is_recorded_in_a_minute_and_her_no_is_answered(network: Network, meet: Meet) -> None:
    carla = meet(network.lantern, "carla")
    api = network.lantern.client("carla")
    case = api.post("/api/v1/cases", {"desk": network.lantern.node.desk, "risk": "none"})["id"]
    carla.open(f"/cases/{case}/edit")
    carla.fill("Case code", "AURORA-INVENTED-9")
    carla.page.get_by_label("Yes, as written below").check()
    carla.page.locator("[name='contact.telephone']").fill("+39 055 0000 000")
    carla.page.locator("summary", has_text="Hours in which the telephone is safe").click()
    carla.page.get_by_label("Monday").check()
    carla.page.get_by_label("Thursday").check()
    carla.page.locator("[name='contact.safe_from']").fill("10:00")
    carla.click("Save")
    assert carla.sees("Choose days, a beginning, and an end that is later on the same day.")
    carla.page.locator("[name='contact.safe_until']").fill("12:00")
    carla.click("Save")
    assert carla.sees("Mon, Thu 10:00–12:00")
    api.post(f"/api/v1/cases/{case}/plan", {"every_days": 30, "first_days": 1})

    def due() -> str:
        found = [f for f in api.get("/api/v1/followups")["followups"] if f["case_id"] == case]
        return str(found[0]["id"])

    carla.open(f"/followups/{due()}")
    assert carla.sees("If nobody answers now, the next try is planned for")
    carla.page.get_by_label("No answer").check()
    carla.click("Record")
    carla.open(f"/followups/{due()}")
    assert carla.sees("nobody was reached on")
    carla.page.get_by_label("Reached, and safe").check()
    carla.page.get_by_label("Yes, she says so").check()
    carla.fill("What is next", "Ask about the invented course.")
    carla.click("Record")
    carla.open(f"/cases/{case}")
    assert carla.sees("Ask about the invented course.") and carla.sees("Confirmed on")
    carla.page.get_by_role("link", name="She got in touch herself").click()
    carla.page.get_by_label("Does not want to be contacted").check()
    carla.click("Record")
    assert carla.sees("The door stays open") and carla.sees("You can come back to us at any time")
    sara = network.lantern.client("sara")
    sara.post("/api/v1/ways/door", {"words": {"it": "La porta resta aperta, parole inventate."}})
    carla.open(f"/cases/{case}/door?in=it")
    assert carla.sees("La porta resta aperta, parole inventate.")
    sara.post("/api/v1/ways/door", {"words": {}})


def test_the_agency_writes_a_plan_for_a_service_and_a_case_begins_it(network: Network, meet: Meet) -> None:
    sara = meet(network.lantern, "sara")
    sara.open("/ways")
    sara.page.locator("summary", has_text="Write a plan for a service").click()
    form = sara.page.locator("form[action='/ways/templates']")
    form.locator("[name='service']").select_option("1121")
    form.locator("[name='first_days']").fill("2, three")
    form.get_by_role("button").click()
    assert sara.sees("Write numbers with spaces between them")
    form.locator("[name='first_days']").fill("2, 4")
    form.get_by_role("button").click()
    assert sara.sees("Emergency shelter") or sara.page.locator("th[scope=row]", has_text="helter").count()
    api = network.lantern.client("carla")
    case = api.post("/api/v1/cases", {"desk": network.lantern.node.desk, "risk": "none"})["id"]
    carla = meet(network.lantern, "carla")
    carla.open(f"/cases/{case}/plan")
    carla.page.locator("select[name='service']").select_option("1121")
    carla.page.get_by_label("While somebody helps her").check()
    carla.click("Begin")
    assert carla.sees("Saved.")
    assert len([f for f in api.get("/api/v1/followups")["followups"] if f["case_id"] == case]) == 2
    sara.open("/ways")
    sara.page.get_by_role("button", name="Take out:").first.click()
    assert list(network.lantern.client("sara").get("/api/v1/ways")["templates"]) == [""]
