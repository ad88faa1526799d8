# SPDX-License-Identifier: Apache-2.0
"""Templates, dates and static files. Everything a page needs comes from this node; nothing from outside."""

from __future__ import annotations

import gzip
import unicodedata
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from functools import lru_cache
from pathlib import Path
from typing import Any, Final
from zoneinfo import ZoneInfo

from aiohttp import web
from babel.dates import format_date, format_datetime, format_time, format_timedelta, get_day_names
from babel.units import format_unit
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from node.web.pages import words, zones
from node.web.pages.languages import NAMES, Language
from node.web.pages.sections import plain
from node.web.pages.times import clock_of
from protocol.codes import Section
from protocol.crypto import sha256_hex
from protocol.sections import FIELDS

_WEB: Final = Path(__file__).resolve().parents[1]
_TYPES: Final = {".css": "text/css", ".js": "text/javascript", ".svg": "image/svg+xml"}


@dataclass(frozen=True, slots=True)
class Static:
    """One file as it is served, and compressed."""

    body: bytes
    packed: bytes
    type: str


@lru_cache(maxsize=1)
def statics() -> dict[str, Static]:
    """Every file under static/, by an address that holds its hash: a browser may keep it for ever."""
    found = {}
    for path in sorted((_WEB / "static").rglob("*")):
        if path.suffix in _TYPES:
            body = path.read_bytes()
            name = f"{path.stem}.{sha256_hex(body)[:12]}{path.suffix}"
            found[name] = Static(body, gzip.compress(body, 9, mtime=0), _TYPES[path.suffix])
    return found


def static_address(name: str) -> str:
    """The address of static/…/name."""
    stem, dot, suffix = name.rpartition(".")
    found = next(known for known in statics() if known.startswith(f"{stem}.") and known.endswith(dot + suffix))
    return f"/static/{found}"


async def serve_static(request: web.Request) -> web.Response:
    """A file of the program: the same for everybody, so a cache may keep it."""
    file = statics().get(request.match_info["name"])
    if file is None:
        raise web.HTTPNotFound
    packed = "gzip" in request.headers.get("Accept-Encoding", "")
    headers = {"Cache-Control": "public, max-age=31536000, immutable", "Vary": "Accept-Encoding"}
    if packed:
        headers["Content-Encoding"] = "gzip"
    return web.Response(
        body=file.packed if packed else file.body, content_type=file.type, charset="utf-8", headers=headers
    )


@lru_cache(maxsize=len(NAMES))
def environment(language: Language) -> Environment:
    """Templates in this language. An undefined name is a fault, never an empty place on a page."""
    env = Environment(  # autoescape is on for every template: all of them are pages
        loader=FileSystemLoader(_WEB / "templates"),
        autoescape=True,
        auto_reload=False,
        undefined=StrictUndefined,
        extensions=["jinja2.ext.i18n"],
        lstrip_blocks=True,
    )
    env.install_gettext_callables(  # type: ignore[attr-defined]  # the i18n extension adds it
        language.catalogue.gettext, language.catalogue.ngettext, newstyle=True
    )
    env.globals.update(
        static=static_address, language=language, languages=NAMES, words=words, plain=plain, clock_of=clock_of
    )
    env.filters["label"] = lambda code, group: (
        _hours(language, code) if group == "hours" else language.say(words.label(group, code))
    )
    env.filters["ordered"] = _ordered
    env.filters["direction"] = direction
    return env


def direction(text: object) -> str:
    """From where a text is read, by its first letter; one without letters from the left.

    In a mirrored page the groups of a telephone number would change places. What makes papers knows no `dir="auto"`.
    """
    strong = next((kind for kind in map(unicodedata.bidirectional, str(text)) if kind in ("L", "R", "AL")), "L")
    return "ltr" if strong == "L" else "rtl"


def _hours(language: Language, code: object) -> str:
    """“Mon, Tue 10:00–12:00” of “0 1 10:00–12:00”."""
    names = get_day_names("abbreviated", "stand-alone", language.locale)
    *days, hours = str(code).split()
    return f"{', '.join(names[int(day)] for day in days)} {hours}"


def _ordered(values: Mapping[str, Any], section: str) -> list[tuple[str, Any]]:
    """A section's fields in the order in which the specification lists them; a number that a channel repeats, once."""
    known = list(FIELDS.get(Section(section), ())) if section in set(Section) else []
    repeated = {"telephone"} if values.get("channels") else set()
    order = sorted(values, key=lambda name: known.index(name) if name in known else len(known))
    return [(name, values[name]) for name in order if name not in repeated]


@dataclass(frozen=True, slots=True)
class Dates:
    """Moments as this person reads them, in her language and in her own time zone if she has set one.

    A day is another matter: an end, a due day, a holiday is one day for everybody in the agency. So days are always of
    `zone`, which is the agency's; only what has a time of day is shown and read in `own`.
    """

    language: Language
    zone: str
    now: datetime
    own: str = ""

    @property
    def _hers(self) -> ZoneInfo:
        return ZoneInfo(self.own or self.zone)

    @property
    def is_elsewhere(self) -> bool:
        """Whether her times are not those of the agency."""
        return bool(self.own) and self.own != self.zone

    @property
    def where(self) -> str:
        """The city of her times, in her language."""
        return zones.city(self.own or self.zone, self.language.locale)

    @property
    def where_agency(self) -> str:
        """The city of the agency's days and clocks."""
        return zones.city(self.zone, self.language.locale)

    @property
    def today(self) -> str:
        """The agency's day, as `date` fields have it."""
        return self.now.astimezone(ZoneInfo(self.zone)).date().isoformat()

    def moment(self, at: datetime) -> Markup:
        """“in 3 hours” with the exact time beside it."""
        return Markup('<time datetime="{}">{} <span class="exact">({})</span></time>').format(
            at.astimezone(UTC).isoformat(timespec="seconds"), self.distance(at), self.exact(at)
        )

    def distance(self, at: datetime) -> str:
        """“in 3 hours”, “2 days ago”."""
        return str(format_timedelta(at - self.now, add_direction=True, locale=self.language.locale))

    def exact(self, at: datetime) -> str:
        """Day and time; only the time when it is today."""
        zone = self._hers
        if at.astimezone(zone).date() == self.now.astimezone(zone).date():
            return str(format_time(at.astimezone(zone), "short", locale=self.language.locale))
        return self.written(at)

    def written(self, at: datetime) -> str:
        """Day and time, also when it is today: for what is read on another day. With its zone once on the paper."""
        return str(format_datetime(at.astimezone(self._hers), "d MMM y, HH:mm", locale=self.language.locale))

    def day(self, value: date | datetime | str) -> str:
        """A date in words."""
        if isinstance(value, str):
            value = date.fromisoformat(value[:10])
        if isinstance(value, datetime):
            value = value.astimezone(ZoneInfo(self.zone)).date()
        return str(format_date(value, "long", locale=self.language.locale))

    def last_day(self, until: datetime) -> str:
        """The last day of a time that ends at this midnight."""
        return self.day(until - timedelta(seconds=1))

    def month(self, value: date) -> str:
        """A month and its year, short."""
        return str(format_date(value, "MMM y", locale=self.language.locale))

    def weekday(self, day: int) -> str:
        """The name of a weekday, 0 for Monday."""
        return str(get_day_names("wide", "stand-alone", self.language.locale)[day])

    def size(self, count: int) -> str:
        """How large a file is: “1.4 MB”."""
        unit, value = ("megabyte", count / 1_000_000) if count >= 1_000_000 else ("kilobyte", max(1, count / 1000))
        return str(format_unit(round(value, 1), f"digital-{unit}", length="short", locale=self.language.locale))

    def is_past(self, at: datetime) -> bool:
        """Whether this moment has passed."""
        return at <= self.now

    def field(self, at: datetime) -> str:
        """A moment as `datetime-local` fields have it."""
        return at.astimezone(self._hers).strftime("%Y-%m-%dT%H:%M")

    def parse(self, text: str) -> datetime | None:
        """What a `datetime-local` field (her zone) or a `date` field (the agency's day) sent, or a moment that was kept
        with its zone; None if it is none of them."""
        try:
            at = datetime.fromisoformat(text)
        except ValueError:
            return None
        if at.tzinfo is None:
            at = at.replace(tzinfo=self._hers if "T" in text else ZoneInfo(self.zone))
        return at.astimezone(UTC)


def template(language: Language, name: str, **values: Any) -> str:
    """A rendered template."""
    return environment(language).get_template(name).render(**values)
