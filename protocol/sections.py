# SPDX-License-Identifier: Apache-2.0
"""What each section may say (Specification, 6.5): known fields, checked, every problem told at once.

A form is what a person filled in; what comes out is the canonical JSON of each section. A problem names section and
field and says what to do, and never repeats what was written.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import date
from typing import Final

from protocol.codes import Risk, Section
from protocol.encoding import SECTION_MAX_BYTES, encode
from protocol.errors import say

#: One line: a name, a place, a code.
LINE_MAX: Final = 200
#: What is told in a few paragraphs; `narrative` may be longer.
TEXT_MAX: Final = 4_000
NARRATIVE_MAX: Final = 40_000
#: Entries of one list: needs, documents, children.
LIST_MAX: Final = 40

_E164: Final = re.compile(r"\+[1-9][0-9 ]{5,20}")
_LANGUAGE: Final = re.compile(r"[a-z]{2,3}")
_COUNTRY: Final = re.compile(r"[A-Z]{2}")
# Control characters but the line feed, and what turns the direction of reading: both can hide what a text says.
_FORBIDDEN: Final = re.compile("[\x00-\x09\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\ud800-\udfff]")

GENDERS: Final = (
    "Feminine",
    "Masculine",
    "TransgenderFeminine",
    "TransgenderMasculine",
    "NonConforming",
    "NonSpecifiedUnknown",
)
HTCDS_STATUS: Final = ("PossibleVictimOfTrafficking", "ActualVictimOfTrafficking", "NotAVictimOfTrafficking")
ASSERTED_BY: Final = ("Police", "NGO", "CourtOrProsecution", "NonPoliceGovernmentalOrganization", "Other")
EXPLOITATION: Final = (
    "ForcedLabour",
    "SexualExploitation",
    "ChildLabour",
    "ForcedMarriage",
    "Servitude",
    "ForcedMilitaryByNonStateActors",
    "OrganRemoval",
    "ForcedBegging",
    "ForcedAdoption",
    "Surrogacy",
    "Other",
)
CONTROL: Final = (
    "DebtBondage",
    "TakesEarnings",
    "RestrictsFinancialAccess",
    "Threats",
    "PsychologicalAbuse",
    "PhysicalAbuse",
    "SexualAbuse",
    "FalsePromises",
    "PsychoactiveSubstances",
    "RestrictsMovement",
    "RestrictsMedicalCare",
    "ExcessiveWorkingHours",
    "UsesChildren",
    "ThreatOfLawEnforcement",
    "WithholdsNecessities",
    "WithholdsDocuments",
    "Other",
)
#: What was done in a case before it is handed over: acts and days, neither whose they were nor what was said.
ACTS: Final = ("case-opened", "referred", "accepted", "declined", "ended", "followed-up")
CHANNELS: Final = ("phone", "sms", "email", "messaging-app", "in-person", "via-trusted-person")
PERMITTED: Final = ("yes", "survivor-will-contact-us", "no")


@dataclass(frozen=True, slots=True)
class Problem:
    """What is wrong with one field, and what to do."""

    section: str
    field: str
    text: str


Check = Callable[[object], object]


class _Wrong(Exception):
    """A value that is not acceptable; its text goes into a Problem."""

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self.text = text


def _text(limit: int) -> Check:
    def check(value: object) -> object:
        if not isinstance(value, str):
            raise _Wrong("Write this as text, between quotation marks.")
        clean = unicodedata.normalize("NFC", value.replace("\r\n", "\n").strip())
        if _FORBIDDEN.search(clean):
            raise _Wrong("This holds invisible characters. Type it again instead of pasting it.")
        if not clean or len(clean) > limit:
            raise _Wrong(
                say("This has 1 to {limit} characters. Leave the field out if there is nothing to say.", limit=limit)
            )
        return clean

    return check


def _matching(pattern: re.Pattern[str], text: str) -> Check:
    def check(value: object) -> object:
        if not isinstance(value, str) or not pattern.fullmatch(value):
            raise _Wrong(text)
        return value

    return check


def _one_of(values: tuple[str, ...]) -> Check:
    def check(value: object) -> object:
        if value not in values:
            raise _Wrong(say("Choose one of: {values}.", values=values))
        return value

    return check


def _list_of(each: Check, limit: int = LIST_MAX) -> Check:
    def check(value: object) -> object:
        if not isinstance(value, list) or not 1 <= len(value) <= limit:
            raise _Wrong(say("This is a list of 1 to {limit} entries, between square brackets.", limit=limit))
        return [each(entry) for entry in value]

    return check


def _boolean(value: object) -> object:
    if not isinstance(value, bool):
        raise _Wrong("Write true or false.")
    return value


def _integer(low: int, high: int) -> Check:
    def check(value: object) -> object:
        if not isinstance(value, int) or isinstance(value, bool) or not low <= value <= high:
            raise _Wrong(say("Write a whole number from {low} to {high}.", low=low, high=high))
        return value

    return check


def _day(value: object) -> object:
    if isinstance(value, date):
        return value.isoformat()[:10]
    if isinstance(value, str):
        try:
            return date.fromisoformat(value).isoformat()
        except ValueError:
            pass
    raise _Wrong("Write a date as year-month-day, for example 2027-03-31.")


def _table(fields: Mapping[str, Check]) -> Check:
    def check(value: object) -> object:
        if not isinstance(value, Mapping):
            raise _Wrong("This is a table with fields of its own. Compare it with the example.")
        unknown = sorted(set(value) - set(fields))
        if unknown:
            raise _Wrong(say("It has a field that is not known. Known are: {fields}.", fields=tuple(fields)))
        return {str(name): fields[str(name)](entry) for name, entry in value.items()}

    return check


_LINE, _LONG = _text(LINE_MAX), _text(TEXT_MAX)
_LINES = _list_of(_LINE)
_TELEPHONE = _matching(_E164, "Write a telephone number with its country, for example +39 055 0000 000.")
_SPOKEN = _matching(_LANGUAGE, "Write a language as its ISO 639 code, for example en or pcm.")
_NATION = _matching(_COUNTRY, "Write a country as its ISO 3166 code of two capitals, for example IT.")
_SERVICE = _table({"id": _integer(0, 99_999), "path": _LINE})
_HOURS = _table({"days": _list_of(_integer(0, 6), 7), "opens": _integer(0, 1439), "closes": _integer(1, 1440)})


def _safe_times(value: object) -> object:
    """Hours on weekdays (0 is Monday), in minutes of her local day."""
    checked = _list_of(_HOURS, 7)(value)
    for entry in checked if isinstance(checked, list) else ():
        if set(entry) != {"days", "opens", "closes"} or entry["opens"] >= entry["closes"]:
            raise _Wrong("Give days, a beginning, and an end that is later on the same day.")
    return checked


def is_hours(value: object) -> bool:
    """Whether this can be used as `safe_times`: another agency may have written anything."""
    try:
        _safe_times(value)
    except _Wrong:
        return False
    return True


_CHANNEL = _table(
    {
        "channel": _one_of(CHANNELS),
        "safe": _boolean,
        "value": _LINE,
        "safe_days_times": _LINE,
        "safe_times": _safe_times,
        "voicemail_ok": _boolean,
        "message_ok": _boolean,
        "may_name_organisation": _boolean,
        "say_if_other_answers": _LINE,
        "safe_word": _LINE,
        "device_shared_or_monitored": _boolean,
    }
)
_ACT = _table({"on": _day, "act": _one_of(ACTS)})
_PERSON = _table(
    {"relation": _LINE, "age_band": _LINE, "needs": _LONG, "how_to_approach": _LONG, "may_say_no": _boolean}
)

#: The fields of each section.
FIELDS: Final[Mapping[Section, Mapping[str, Check]]] = {
    Section.SERVICE: {
        "services": _list_of(_SERVICE),
        "already_provided": _LINES,
        "reason": _LONG,
        "details": _LONG,
        "text": _LONG,
        "preferred_start": _day,
        "incident_window": _LINE,
        "worker": _LINE,
        "our_number": _LINE,
        "their_number": _LINE,
        "agreed_by_telephone_with": _LINE,
        "meeting_point": _LINE,
        "arrival_word": _LINE,
        "open_followups": _list_of(_day),
        "history": _list_of(_ACT),
    },
    Section.IDENTITY: {
        "case_code": _LINE,
        "name": _LINE,
        "relation": _LINE,
        "birth_date": _day,
        "pseudonym": _LINE,
        "age_band": _LINE,
        "age_disputed": _boolean,
        "gender": _one_of(GENDERS),
        "description": _LONG,
        "nationality": _NATION,
        "documents": _LINES,
    },
    Section.CONTACT: {
        "contact_permitted": _one_of(PERMITTED),
        "telephone": _TELEPHONE,
        "channels": _list_of(_CHANNEL, len(CHANNELS)),
        "preferred_language": _SPOKEN,
        "interpreter_needed": _boolean,
        "interpreter_constraints": _LONG,
        "confirmed_on": _day,
        "recheck_every_days": _integer(1, 366),
    },
    Section.SAFETY: {
        "risk": _one_of(tuple(Risk)),
        "must_not_learn": _LINES,
        "immediate_dangers": _LONG,
        "safety_plan": _LONG,
    },
    Section.HEALTH: {
        "physical_needs": _LONG,
        "psychological_needs": _LONG,
        "medication": _LONG,
        "disability": _LONG,
        "pregnancy": _LONG,
    },
    Section.LEGAL: {
        "status": _LONG,
        "permits": _list_of(_table({"kind": _LINE, "until": _day})),
        "proceedings": _LONG,
        "reflection_period_end": _day,
    },
    Section.FAMILY: {
        "dependants": _list_of(_PERSON),
        "caregiver": _LINE,
        "guardian": _LINE,
        "unaccompanied": _boolean,
        "caregiver_informed": _boolean,
        "why_not_informed": _LONG,
    },
    Section.TRAFFICKING: {
        "status": _one_of(HTCDS_STATUS),
        "asserted_by": _one_of(ASSERTED_BY),
        "exploitation": _list_of(_one_of(EXPLOITATION)),
        "control": _list_of(_one_of(CONTROL)),
        "indicators": _LINES,
    },
    Section.NARRATIVE: {"text": _text(NARRATIVE_MAX)},
    Section.ATTACHMENTS: {},
}


def check_form(form: Mapping[str, object]) -> tuple[dict[Section, bytes], list[Problem]]:
    """The sections of a form as canonical JSON, and everything that is wrong with it.

    A form with problems must not be used, not even the sections that have none.
    """
    sections: dict[Section, bytes] = {}
    problems: list[Problem] = []
    for name, values in form.items():
        if name not in set(Section) or name == Section.ATTACHMENTS:
            problems.append(
                Problem(
                    "form", "section", say("This is not a section. Sections are: {sections}.", sections=tuple(FIELDS))
                )
            )
            continue
        section = Section(name)
        if not isinstance(values, Mapping) or not values:
            problems.append(Problem(section, "", "This section is empty. Fill in a field, or leave it out."))
            continue
        checked = check_values(section, values, problems)
        raw = encode(checked)
        if len(raw) > SECTION_MAX_BYTES:
            problems.append(Problem(section, "", "This section is too long. Shorten it, or attach a file."))
        sections[section] = raw
    if Section.IDENTITY in sections and not {"case_code", "name"} & set(dict(form["identity"])):  # type: ignore[call-overload]  # a mapping, checked above
        problems.append(Problem("identity", "case_code", "Give a case code or a name. The code is enough."))
    return sections, problems


def check_values(section: Section, values: Mapping[str, object], problems: list[Problem]) -> dict[str, object]:
    """The fields of one section, checked; what is wrong is added to `problems`."""
    checked: dict[str, object] = {}
    fields = FIELDS[section]
    for name, value in values.items():
        if name not in fields:
            problems.append(
                Problem(section, "field", say("A field is not known. Known are: {fields}.", fields=tuple(fields)))
            )
            continue
        try:
            checked[name] = fields[name](value)
        except _Wrong as wrong:
            problems.append(Problem(section, name, wrong.text))
    return checked
