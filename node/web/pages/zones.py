# SPDX-License-Identifier: Apache-2.0
"""Time zones by the country and the city that people know them by, in each language."""

from __future__ import annotations

from functools import lru_cache
from typing import Final

from babel import Locale
from babel.core import get_global
from babel.dates import get_timezone_location

from node.office.zones import known
from node.web.pages.languages import NAMES

#: The territory of what is nowhere in particular.
WORLD: Final = "001"


@lru_cache(maxsize=len(NAMES))
def choices(locale: Locale) -> tuple[tuple[str, str], ...]:
    """(IANA name, “Italy: Rome”) in the order of the alphabet: one for each zone, without its old names."""
    found = []
    for name, territory in get_global("zone_territories").items():
        country = locale.territories.get(territory)
        if name in known() and country and territory != WORLD:
            place = city(name, locale)
            found.append((name, country if country == place else f"{country}: {place}"))
    return tuple(sorted(found, key=lambda choice: choice[1]))


def chosen(name: str) -> str:
    """The name among the choices of a zone that may be stored under an older or a newer one."""
    return str(get_global("zone_aliases").get(name, name))


@lru_cache(maxsize=1024)
def city(name: str, locale: Locale) -> str:
    """What the zone is called by: the city that stands for it."""
    return str(get_timezone_location(name, locale=locale, return_city=True))
