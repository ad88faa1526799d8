# SPDX-License-Identifier: Apache-2.0
"""Moments in a person's own time zone; days in her agency's, because a day is one day for all of its people."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from node.office import zones as known
from node.web.pages import zones
from node.web.pages.languages import NAMES, language
from node.web.pages.render import Dates

NOW = datetime(2027, 1, 15, 22, 30, tzinfo=UTC)
ROME, KATHMANDU, LISBON = "Europe/Rome", "Asia/Kathmandu", "Europe/Lisbon"


def dates(own: str = "") -> Dates:
    return Dates(language("en"), ROME, NOW, own)


def test_a_moment_is_in_her_own_zone_and_in_the_agencys_without_one() -> None:
    at = datetime(2027, 1, 16, 12, 0, tzinfo=UTC)
    assert dates().exact(at) == "16 Jan 2027, 13:00"
    assert dates(LISBON).exact(at) == "16 Jan 2027, 12:00"
    assert dates(KATHMANDU).exact(at) == "17:45", "where it is the 16th already, this is today"
    for own in ("", KATHMANDU):
        assert 'datetime="2027-01-16T12:00:00+00:00"' in dates(own).moment(at), "whoever reads it, it is one moment"


def test_a_day_is_the_agencys_day_for_everybody() -> None:
    """The end of a hold is kept as the midnight with which its day begins; further west that is the day before."""
    midnight = dates().parse("2027-03-31")
    assert midnight == dates(LISBON).parse("2027-03-31") == datetime(2027, 3, 30, 22, 0, tzinfo=UTC)
    for own in ("", LISBON, KATHMANDU):
        assert dates(own).day(midnight) == "31 March 2027"
        assert dates(own).today == "2027-01-15"
    assert dates().last_day(midnight) == dates(LISBON).last_day(midnight) == "30 March 2027"


@pytest.mark.parametrize("own", ["", LISBON, KATHMANDU])
def test_what_a_field_sends_is_the_moment_that_it_shows(own: str) -> None:
    at = datetime(2027, 7, 1, 16, 15, tzinfo=UTC)
    assert dates(own).parse(dates(own).field(at)) == at
    assert dates(own).parse(at.isoformat()) == at, "a moment that was kept keeps its zone"


@pytest.mark.parametrize("text", ["", "soon", "2027-13-01", "2027-01-01T25:00", "31.3.2027"])
def test_what_is_no_moment_is_none(text: str) -> None:
    assert dates(KATHMANDU).parse(text) is None


def test_her_zone_is_named_where_it_is_not_the_agencys() -> None:
    assert dates(LISBON).is_elsewhere and (dates(LISBON).where, dates(LISBON).where_agency) == ("Lisbon", "Rome")
    assert not dates().is_elsewhere and not dates(ROME).is_elsewhere and dates().where == "Rome"


@pytest.mark.parametrize("tag", NAMES)
def test_every_zone_is_offered_once_by_a_name_of_the_language(tag: str) -> None:
    found = zones.choices(language(tag).locale)
    names = [name for name, _ in found]
    assert len(names) == len(set(names)) > 300 and set(names) <= known.known()
    assert {zones.chosen(name) for name in (ROME, LISBON, KATHMANDU, "Africa/Lagos")} <= set(names)
    assert all(place.strip() for _, place in found)
