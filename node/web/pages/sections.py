# SPDX-License-Identifier: Apache-2.0
"""Sections as forms and as text: what a person fills in becomes what the protocol knows, and back.

Each field is named `section.field`. What a form cannot show (several channels, permits with their dates) and that was
there before stays as it was.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import date
from typing import TYPE_CHECKING, Any, Final

from node.web.pages import words
from node.web.pages.times import clock_of, minutes_of
from protocol.codes import Section
from protocol.sections import CONTROL, EXPLOITATION, FIELDS, check_form, is_hours

if TYPE_CHECKING:
    from node.web.pages.page import Visit

#: One entry on each line.
LINES: Final = frozenset({"service.already_provided", "identity.documents", "safety.must_not_learn"})
BOOLEANS: Final = frozenset(
    {"identity.age_disputed", "contact.interpreter_needed", "family.unaccompanied", "family.caregiver_informed"}
)
SEVERAL: Final = {"trafficking.exploitation": EXPLOITATION, "trafficking.control": CONTROL}
#: Fields of the telephone channel that the form shows beside the number.
_CHANNEL_TEXTS: Final = ("safe_days_times", "say_if_other_answers", "safe_word")
_CHANNEL_FLAGS: Final = ("voicemail_ok", "message_ok", "may_name_organisation", "device_shared_or_monitored")
#: Built from other fields, not typed as they are.
_BUILT: Final = frozenset({"service.services", "contact.channels", "family.dependants", "legal.permits"})


class FormSections:
    """The sections that a form says: `form` as the protocol's form, `sections` as canonical JSON.

    What is wrong is in the visit's problems, by field. `only` limits what is read; `before` is what was there.
    """

    def __init__(
        self, visit: Visit, *, only: set[str] | None = None, before: Mapping[str, Mapping[str, Any]] | None = None
    ) -> None:
        self.form: dict[str, dict[str, Any]] = {}
        for section, fields in FIELDS.items():
            if only is not None and section not in only:
                continue
            values = self._section(visit, section, fields, (before or {}).get(section, {}))
            if values:
                self.form[str(section)] = values
        sections, problems = check_form(self.form)
        for problem in problems:
            visit.problem(_place(problem.section, problem.field), problem.text)
        self.sections: dict[Section, bytes] = sections

    def _section(
        self, visit: Visit, section: Section, fields: Mapping[str, object], before: Mapping[str, Any]
    ) -> dict[str, Any]:
        values: dict[str, Any] = {}
        for name in fields:
            full = f"{section}.{name}"
            if full in _BUILT:
                value = _built(visit, full, before.get(name))
            elif full in SEVERAL:
                value = [entry for entry in visit.all(full) if entry]
            elif full in LINES:
                value = [line.strip() for line in visit.get(full).split("\n") if line.strip()]
            elif full in BOOLEANS:
                value = {"yes": True, "no": False}.get(visit.get(full))
            elif full in visit.form or name not in before:
                value = visit.get(full)
            else:
                value = before[name]
            if value not in ("", [], None):
                values[name] = value
        return values

    @staticmethod
    def fields_of(sections: Mapping[str, Mapping[str, Any]]) -> dict[str, list[str]]:
        """The form's fields, filled with what the sections say."""
        fields: dict[str, list[str]] = {}
        for section, values in sections.items():
            for name, value in values.items():
                full = f"{section}.{name}"
                if full == "service.services":
                    fields[full] = [str(service["id"]) for service in value if "id" in service]
                elif full == "contact.channels":
                    fields |= _channel_fields(value)
                elif full == "family.dependants":
                    fields[full] = ["\n".join(str(person.get("relation", "")) for person in value)]
                elif full in SEVERAL:
                    fields[full] = [str(entry) for entry in value]
                elif full in LINES:
                    fields[full] = ["\n".join(str(entry) for entry in value)]
                elif isinstance(value, bool):
                    fields[full] = ["yes" if value else "no"]
                elif isinstance(value, (str, int)):
                    fields[full] = [str(value)]
        return fields


def _built(visit: Visit, full: str, before: Any) -> Any:
    match full:
        case "service.services":
            chosen = [s for s in visit.all(full) if s in words.SERVICE_PATH]
            return [{"id": int(s), "path": words.SERVICE_PATH[s]} for s in chosen] or before
        case "contact.channels":
            return _channels(visit, before or [])
        case "family.dependants":
            lines = [line.strip() for line in visit.get(full).split("\n") if line.strip()]
            known = {str(person.get("relation", "")): person for person in before or []}
            return [known.get(line, {"relation": line}) for line in lines]
        case _:
            return before


def _channels(visit: Visit, before: list[dict[str, Any]]) -> list[dict[str, Any]]:
    others = [channel for channel in before if channel.get("channel") != "phone"]
    number = visit.get("contact.telephone")
    if not number:
        return others
    known = next((channel for channel in before if channel.get("channel") == "phone"), {})
    phone: dict[str, Any] = {"channel": "phone", "safe": True, "value": number}
    phone |= {name: visit.get(f"contact.{name}") for name in _CHANNEL_TEXTS if visit.get(f"contact.{name}")}
    for name in _CHANNEL_FLAGS:
        if visit.get(f"contact.{name}") in ("yes", "no"):
            phone[name] = visit.get(f"contact.{name}") == "yes"
    # The form shows the first entry; others stay as they were.
    hours = [*_safe_times(visit), *known.get("safe_times", ())[1:]]
    if hours:
        phone["safe_times"] = hours
    return [phone, *others]


def _safe_times(visit: Visit) -> list[dict[str, Any]]:
    days = sorted({int(day) for day in visit.all("contact.safe_days") if day in "0123456" and len(day) == 1})
    begins, ends = (minutes_of(visit.get(f"contact.{name}")) for name in ("safe_from", "safe_until"))
    if not days and begins is None and ends is None:
        return []
    if not days or begins is None or ends is None or begins >= ends:
        visit.problem("contact.safe_days", "Choose days, a beginning, and an end that is later on the same day.")
        return []
    return [{"days": days, "opens": begins, "closes": ends}]


def _channel_fields(channels: list[dict[str, Any]]) -> dict[str, list[str]]:
    phone = next((channel for channel in channels if channel.get("channel") == "phone"), {})
    fields = {f"contact.{name}": [str(phone[name])] for name in _CHANNEL_TEXTS if name in phone}
    fields |= {f"contact.{name}": ["yes" if phone[name] else "no"] for name in _CHANNEL_FLAGS if name in phone}
    for hours in phone.get("safe_times", ())[:1]:
        fields["contact.safe_days"] = [str(day) for day in hours["days"]]
        fields["contact.safe_from"] = [clock_of(hours["opens"])]
        fields["contact.safe_until"] = [clock_of(min(hours["closes"], 1439))]
    return fields


def _place(section: str, name: str) -> str:
    """The field on the page that a problem of the protocol's form belongs to."""
    if (section, name) == ("contact", "channels"):
        return "contact.safe_days_times"
    return f"{section}.{name}" if name else section


def plain(section: str, name: str, value: Any) -> list[tuple[str, str]]:
    """A field's value as lines of (group of words, code or text); the group is empty for a person's own text."""
    if isinstance(value, bool):
        return [("yes-no", "true" if value else "false")]
    if isinstance(value, list):
        return [line for entry in value for line in plain(section, name, entry)]
    if isinstance(value, dict):
        if name == "services":
            return [("service", str(value.get("id", "")))]
        if name == "history":
            day = str(value.get("on", ""))
            return [(f"on:{day}" if _is_day(day) else "act", str(value.get("act", "")))]
        # As they are filled in: what was canonical on its way has its fields by the alphabet.
        keys = sorted(value, key=lambda key: _FIRST.index(key) if key in _FIRST else len(_FIRST))
        return [line for key in keys if key != "safe" for line in _part(section, key, value[key])]
    group = _GROUP.get(f"{section}.{name}") or _GROUP.get(name, "")
    if group == "day" and not _is_day(value):  # another agency may have written anything
        group = ""
    return [(group, str(value))]


_FIRST: Final = ("channel", "value", "relation", "safe_days_times", "safe_times")


def _is_day(value: object) -> bool:
    try:
        return bool(date.fromisoformat(str(value)))
    except ValueError:
        return False


def _part(section: str, key: str, entry: Any) -> list[tuple[str, str]]:
    if key == "safe_times" and is_hours(entry):
        return [
            (
                "field:safe_times:hours",
                f"{' '.join(map(str, one['days']))} {clock_of(one['opens'])}–{clock_of(min(one['closes'], 1439))}",
            )
            for one in entry
        ]
    lines = plain(section, key, entry)
    if key in ("channel", "relation", "value"):
        return lines
    return [("field:" + key + ":" + group, text) for group, text in lines]


_GROUP: Final = {
    "safety.risk": "risk-short",
    "identity.age_band": "age",
    "identity.gender": "gender",
    "contact.contact_permitted": "permitted",
    "contact.preferred_language": "spoken",
    "channel": "channel",
    "trafficking.status": "htcds",
    "trafficking.asserted_by": "htcds",
    "exploitation": "htcds",
    "control": "htcds",
    "service.reason": "reason",
    "service.preferred_start": "day",
    "service.open_followups": "day",
    "identity.birth_date": "day",
    "contact.confirmed_on": "day",
    "legal.reflection_period_end": "day",
    "until": "day",
}
