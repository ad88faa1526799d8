# SPDX-License-Identifier: Apache-2.0
"""Forms: every field, every way to be wrong, every problem told at once and none of them repeating what was written."""

from __future__ import annotations

import json
import tomllib
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocol.codes import Section
from protocol.encoding import encode
from protocol.sections import FIELDS, check_form

EXAMPLE = Path(__file__).parents[2] / "examples" / "referral.toml"
CANARY = "Zzyzx-Canary"


def test_the_example_is_right() -> None:
    form = tomllib.loads(EXAMPLE.read_text())
    sections, problems = check_form({name: form[name] for name in form.keys() & set(Section)})
    assert problems == [] and len(sections) >= 4
    for raw in sections.values():
        assert encode(json.loads(raw)) == raw


GOOD: dict[str, dict[str, object]] = {
    "service": {"services": [{"id": 1121, "path": "Housing / Emergency Shelter"}], "details": "A room."},
    "identity": {"case_code": "AURORA-INVENTED", "birth_date": "1999-02-28", "gender": "Feminine", "nationality": "IT"},
    "contact": {
        "contact_permitted": "yes",
        "telephone": "+39 055 0000 000",
        "preferred_language": "pcm",
        "channels": [
            {
                "channel": "sms",
                "safe": True,
                "message_ok": False,
                "safe_times": [{"days": [0, 6], "opens": 0, "closes": 1440}],
            }
        ],
        "recheck_every_days": 30,
    },
    "safety": {"risk": "high", "must_not_learn": ["Her cousin (invented)"]},
    "health": {"medication": "None."},
    "legal": {"permits": [{"kind": "Art. 18", "until": "2027-09-01"}]},
    "family": {"unaccompanied": False, "dependants": [{"relation": "son", "age_band": "0-4"}]},
    "trafficking": {"status": "PossibleVictimOfTrafficking", "control": ["WithholdsDocuments"]},
    "narrative": {"text": "Everything here is invented.\nSecond line."},
}


def test_a_form_with_every_section() -> None:
    sections, problems = check_form(GOOD)
    assert problems == []
    assert {str(name) for name in sections} == set(GOOD)


WRONG: list[tuple[str, str, object]] = [
    ("service", "services", "1121"),
    ("service", "services", []),
    ("service", "services", [{"id": -1}]),
    ("service", "services", [{"id": True}]),
    ("service", "services", [{"nummer": 1}]),
    ("service", "services", [{"id": 1}] * 41),
    ("service", "details", ""),
    ("service", "details", "   "),
    ("service", "details", "x" * 4001),
    ("service", "details", 5),
    ("service", "preferred_start", "31.3.2027"),
    ("service", "preferred_start", "2027-02-30"),
    ("identity", "birth_date", 1999),
    ("identity", "gender", "Female"),
    ("identity", "nationality", "Italy"),
    ("identity", "name", "Canary\u202eyranaC"),
    ("identity", "name", "Canary\x00"),
    ("identity", "name", "Canary\ud800"),
    ("identity", "name", "Canary\u2066"),
    ("identity", "documents", [""]),
    ("contact", "telephone", "055 0000"),
    ("contact", "telephone", "+0123456"),
    ("contact", "telephone", "+39 055 0000 000\n"),
    ("contact", "contact_permitted", "maybe"),
    ("contact", "channels", [{"channel": "fax"}]),
    ("contact", "channels", [{"channel": "sms", "safe_times": [{"days": [7], "opens": 0, "closes": 9}]}]),
    ("contact", "channels", [{"channel": "sms", "safe_times": [{"days": [0], "opens": 9, "closes": 9}]}]),
    ("contact", "channels", [{"channel": "sms", "safe_times": [{"days": [0], "opens": 9}]}]),
    ("contact", "channels", [{"channel": "sms", "safe_times": [{"days": [0], "opens": 0, "closes": 1441}]}]),
    ("contact", "channels", [{"channel": "sms", "safe_times": "mornings"}]),
    ("contact", "channels", [{"channel": "sms", "safe": "yes"}]),
    ("contact", "recheck_every_days", 0),
    ("contact", "preferred_language", "Italian"),
    ("safety", "risk", "very high"),
    ("legal", "permits", [{"kind": "x", "until": "soon"}]),
    ("family", "unaccompanied", 1),
    ("trafficking", "exploitation", ["Slavery"]),
    ("narrative", "text", "x" * 40_001),
]


@pytest.mark.parametrize(
    ("section", "field", "value"), WRONG, ids=lambda v: str(v)[:20].encode("unicode_escape").decode()
)
def test_one_wrong_field_is_named_and_its_value_is_not_repeated(section: str, field: str, value: object) -> None:
    form = {name: dict(fields) for name, fields in GOOD.items()}
    form[section][field] = value
    _, problems = check_form(form)
    assert [(problem.section, problem.field) for problem in problems] == [(section, field)]
    assert "Canary" not in problems[0].text and problems[0].text.endswith(".")


def test_all_problems_are_told_at_once() -> None:
    form = {
        "identity": {"gender": CANARY},
        "contact": {"telephone": CANARY, CANARY: "x"},
        CANARY: {"text": "x"},
        "narrative": {},
        "attachments": {"a": "b"},
    }
    _, problems = check_form(form)
    found = {(problem.section, problem.field) for problem in problems}
    assert found == {
        ("identity", "gender"),
        ("identity", "case_code"),
        ("contact", "telephone"),
        ("contact", "field"),
        ("form", "section"),
        ("narrative", ""),
    }
    assert CANARY not in repr(problems)


def test_somebody_is_named_by_code_or_by_name() -> None:
    for identity, is_right in (({"case_code": "X"}, True), ({"name": "Ada"}, True), ({"nationality": "IT"}, False)):
        assert (check_form({"identity": identity})[1] == []) is is_right


def test_names_in_every_script_stay_as_they_are() -> None:
    for name in ("Ọlá Ìyá", "فاطمة", "Олена", "ኢትዮጵያ", "陳小明", "Zoë D’Arc", "عائشة‌زاده"):
        sections, problems = check_form({"identity": {"name": name}})
        assert problems == [] and json.loads(sections[Section.IDENTITY])["name"]


def test_the_same_text_has_one_form() -> None:
    composed, decomposed = (check_form({"identity": {"name": n}})[0] for n in ("Zoë", "Zoe\u0308"))
    assert composed == decomposed


values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)


@given(
    st.dictionaries(
        st.sampled_from([str(s) for s in Section]) | st.text(max_size=8),
        st.dictionaries(st.sampled_from([f for fields in FIELDS.values() for f in fields]), values, max_size=4)
        | values,
        max_size=4,
    )
)
def test_whatever_is_written_there_is_an_answer_and_never_a_fault(form: dict[str, object]) -> None:
    sections, problems = check_form(form)
    for problem in problems:
        assert problem.text.endswith(".")
    if not problems:
        for raw in sections.values():
            assert encode(json.loads(raw)) == raw
