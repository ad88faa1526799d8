# SPDX-License-Identifier: Apache-2.0
"""A project ends, at a real browser: the board shows who has nobody, one person moves, one says no."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from node.cli.client import ApiError
from tests.browser.conftest import Meet, Network
from tests.browser.requests import ask
from tests.browser.test_referral import agree, arrive
from tests.federation.nodes import form
from tests.federation.test_operator import run

TODAY = datetime.now(UTC).date()


def _bars(person: Any) -> list[tuple[int, int]]:
    """Where each bar of the chart begins, and how wide it is."""
    found = person.page.locator("svg.chart rect.bar")
    return [
        (int(found.nth(n).get_attribute("x")), int(found.nth(n).get_attribute("width"))) for n in range(found.count())
    ]


def test_a_programme_ends_and_nobody_is_left_behind(network: Network, meet: Meet) -> None:
    if "tina" not in network.lantern.ids:
        network.lantern.add("tina", ["caseworker", "supervisor"], joins=True)
    api = network.lantern.client("tina")
    irma = meet(network.harbour, "irma")
    tina = meet(network.lantern, "tina")
    tina.open("/programmes")
    tina.page.locator("summary", has_text="Add a programme").click()
    tina.fill("Name", "Invented harbour lights")
    tina.fill("Last day", (TODAY + timedelta(days=40)).isoformat())
    tina.click("Add")
    assert tina.sees("Added.") and tina.sees("Invented harbour lights")
    programme = next(p["id"] for p in api.get("/api/v1/programmes")["programmes"] if p["name"].startswith("Invented"))
    sent = [api.post("/api/v1/refer", {"form": form(network.harbour.node)}) for _ in range(2)]
    moves, stays = (s["case"] for s in sent)
    api.post(f"/api/v1/programmes/{programme}/cases", {"cases": [moves, stays]})
    tina.open("/programmes")
    assert (
        tina.sees("What comes, day by day") and tina.page.locator("svg.chart rect[fill='url(#hatch-silent)']").count()
    )
    left = _bars(tina)
    ask(network.lantern, "POST", "/me/language", "tina", {"language": "ar"})
    tina.open("/programmes")
    assert _bars(tina) == [(1000 - x - width, width) for x, width in left], "time runs as the page is read"
    ask(network.lantern, "POST", "/me/language", "tina", {"language": "en"})
    tina.open(f"/programmes/{programme}?takes=yes&language=ha")
    assert tina.page.get_by_label("Only who takes people now").is_checked()
    tina.page.locator("summary", has_text="Desks and people of this programme").click()
    tina.page.locator("form[action$='/people'] [name='staff']").first.check()
    tina.page.locator("form[action$='/people'] button").click()
    assert len(api.get(f"/api/v1/programmes/{programme}")["programme"]["staff"]) == 1
    tina.open(f"/programmes/{programme}")
    assert tina.sees("2 people still need somebody who goes on.") and tina.sees("0 of 2")
    # One says no.
    tina.open(f"/cases/{stays}/programme")
    tina.fill("Where she was told to turn", "The invented counter; she has her copy.")
    tina.click("Record it")
    # It is hers to keep, in her language; on the case it is found again.
    assert tina.sees("Where you can turn:") and tina.sees("The invented counter; she has her copy.")
    tina.open(f"/cases/{stays}")
    tina.page.locator(f"a[href='/cases/{stays}/stays']").click()
    tina.click("Italiano", role="link")
    assert tina.sees("La tua copia") and tina.sees("The invented counter; she has her copy.")
    # She may change her mind, and change it again.
    tina.open(f"/cases/{stays}/programme")
    assert not tina.sees("Prepare the move")
    tina.click("She has changed her mind")
    assert tina.sees("Prepare the move")
    api.post(f"/api/v1/cases/{stays}/stays", {"told": "The invented counter; she has her copy."})
    # One moves: prepared from the board, she is asked, the other agency accepts.
    tina.open(f"/programmes/{programme}?state=nobody")
    tina.page.locator(f"input[value='{moves}']").check()
    tina.page.get_by_label("To", exact=True).select_option(index=1)
    tina.click("Prepare")
    assert tina.sees("The drafts are on your first page.")
    draft = tina.page.locator("a[href^='/refer/']").first.get_attribute("href") or ""
    # What was done so far goes with it, by its days, unless she does not want that.
    tina.open(draft.replace("/need", "/person"))
    box = tina.page.locator("input[name=history]")
    assert box.is_checked()
    box.uncheck()
    tina.tick("No, the person will contact us")
    tina.click("Go on")
    assert tina.page.url.endswith("/consent") and not tina.sees("What was done so far")
    tina.open(draft.replace("/need", "/person"))
    assert not box.is_checked()
    box.check()
    tina.click("Go on")
    assert tina.sees("What was done so far") and tina.sees("The case was opened")
    agree(tina)
    tina.choose("In which language was it explained?", "en")
    tina.click("Go on")
    tina.click("Send")
    tina.page.wait_for_url(re.compile("/referrals/[0-9a-f]{32}"))
    referral = re.findall(r"/referrals/([0-9a-f]{32})", tina.page.url)[0]
    arrive(irma, referral)
    assert irma.sees("The other agency becomes responsible") or irma.page.locator("h1").inner_text()
    assert irma.sees("Another agency was asked for help")
    irma.page.locator("summary", has_text="Accept").click()
    irma.page.locator("details[open]").get_by_role("button", name="Accept", exact=True).last.click()
    tina.open_until(f"/programmes/{programme}", "2 of 2")
    assert tina.sees("Everybody has somebody who goes on.")
    tina.open(f"/cases/{moves}")
    assert tina.sees("is responsible since")
    assert [fault for fault in tina.faults + irma.faults if "422" not in fault] == []


def test_a_look_ahead_shows_who_would_have_nobody(network: Network, meet: Meet) -> None:
    if "tina" not in network.lantern.ids:
        network.lantern.add("tina", ["caseworker", "supervisor"], joins=True)
    api = network.lantern.client("tina")
    ends = TODAY + timedelta(days=20)
    made = api.post(
        "/api/v1/programmes",
        {"name": "Invented winter", "starts_on": TODAY.isoformat(), "ends_on": ends.isoformat()},
    )["programme"]
    case = api.post("/api/v1/refer", {"form": form(network.harbour.node)})["case"]
    api.post(f"/api/v1/programmes/{made}/cases", {"cases": [case]})
    tina = meet(network.lantern, "tina")
    tina.open("/rehearsal")
    tina.fill("Until", (ends + timedelta(days=30)).isoformat())
    tina.click("Look ahead")
    assert tina.sees("1 person has nobody.") and tina.page.locator(f"a[href='/cases/{case}']").count() == 1
    tina.page.get_by_label("If this programme").select_option(made)
    tina.fill("ended on", (ends + timedelta(days=300)).isoformat())
    tina.click("Look ahead")
    assert tina.sees("0 people have nobody."), "extended in the rehearsal alone"
    tina.fill("ended on", "")
    tina.choose("and its people went to", network.harbour.node.agency)
    tina.click("Look ahead")
    assert tina.sees("0 people have nobody.") and tina.sees("She has not been asked yet.")
    name = network.harbour.node.name
    assert tina.sees(f"1 person would go to {name} if she agrees. 1 person has still to be asked.")
    # Several changes together: a second programme, and somebody who leaves. Half a change is not passed over.
    other = api.post(
        "/api/v1/programmes",
        {"name": "Invented spring", "starts_on": TODAY.isoformat(), "ends_on": ends.isoformat()},
    )["programme"]
    also = api.post("/api/v1/refer", {"form": form(network.harbour.node)})["case"]
    api.post(f"/api/v1/programmes/{other}/cases", {"cases": [also]})
    tina.click("Look ahead")
    assert tina.sees("1 person has nobody.") and tina.sees(f"1 person would go to {name} if she agrees.")
    tina.click("Another programme")
    second = tina.page.get_by_role("group", name="Programme 2")
    second.get_by_label("If this programme").select_option(other)
    tina.click("Look ahead")
    assert tina.sees("Choose the programme, and when it would end or to whom its people would go.")
    second.get_by_label("ended on").fill((ends + timedelta(days=300)).isoformat())
    tina.click("Another person")
    assert tina.page.get_by_label("And if", exact=True).count() == 2
    tina.page.get_by_label("And if", exact=True).first.select_option(label="tina")
    tina.fill("left on", TODAY.isoformat())
    tina.click("Look ahead")
    assert tina.sees("0 people have nobody.") and tina.sees(f"1 person would go to {name} if she agrees.")
    assert tina.page.get_by_label("And if", exact=True).count() == 1, "a line that was left empty is gone"
    api.post(f"/api/v1/programmes/{other}/end", {"ends_on": (ends + timedelta(days=300)).isoformat()})
    board = api.get(f"/api/v1/programmes/{made}")
    assert board["programme"]["ends_on"] == ends.isoformat()
    client = network.lantern.client("tina")
    client.keep_session()
    ahead = run(network.lantern.node.folder, "rehearse", "--until", (ends + timedelta(days=30)).isoformat())
    assert ahead.returncode == 0 and "1 people have nobody" in ahead.stdout and case in ahead.stdout, ahead.stderr
    later = (ends + timedelta(days=30)).isoformat()
    successor = ("--successor", made, network.harbour.node.agency[:12])
    moved = run(network.lantern.node.folder, "rehearse", "--until", later, *successor)
    assert moved.returncode == 0 and f"case {case}: to {name} (Invented winter)" in moved.stdout, moved.stderr
    assert "0 people have nobody" in moved.stdout and "1 have still to be asked" in moved.stdout
    none = run(network.lantern.node.folder, "rehearse", "--until", later, "--successor", "1" * 32, successor[2])
    assert none.returncode == 1 and "There is no such programme" in none.stderr
    until, gone = (TODAY + timedelta(days=60)).isoformat(), TODAY.isoformat()
    mine = api.post("/api/v1/cases", {"desk": network.lantern.node.desk})["id"]
    api.post(f"/api/v1/cases/{mine}/plan", {"every_days": 7, "first_days": 1})
    staying = run(network.lantern.node.folder, "rehearse", "--until", until)
    without = run(network.lantern.node.folder, "rehearse", "--until", until, "--leaves", "tina", gone)
    assert without.returncode == 0 and "fall on nobody's desk" in without.stdout, without.stderr
    fallen = [int(re.search(r"(\d+) of (\d+) follow-ups", said.stdout)[1]) for said in (staying, without)]  # type: ignore[index]  # it is there
    assert fallen[1] > fallen[0], "what she looks after falls on nobody"
    unknown = run(network.lantern.node.folder, "rehearse", "--until", until, "--leaves", "nobody-here", gone)
    assert unknown.returncode == 2 and "Nobody here is called" in unknown.stderr
    listed = run(network.lantern.node.folder, "programme", "list")
    assert "Invented winter" in listed.stdout


def test_the_board_is_for_who_is_responsible(network: Network) -> None:
    for handle in ("carla", "adam", "aldo", "vera"):
        for path in ("/api/v1/programmes", "/api/v1/programmes/" + "0" * 32):
            with pytest.raises(ApiError) as refused:
                network.lantern.client(handle).get(path)
            assert refused.value.code == "forbidden"
