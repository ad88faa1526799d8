# SPDX-License-Identifier: Apache-2.0
"""Six languages, complete: every text of pages and refusals, with the same places for values, and no forbidden word."""

from __future__ import annotations

import hashlib
import re
from pathlib import Path

import pytest
from babel.messages.catalog import Catalog
from babel.messages.extract import DEFAULT_KEYWORDS, extract_from_dir
from babel.messages.pofile import read_po

from node.web.pages import render, words
from node.web.pages.languages import DEFAULT, NAMES, choose, language
from protocol import codes, referral
from protocol.errors import LocalError, say

ROOT = Path(__file__).resolve().parents[2]
OTHERS = [tag for tag in NAMES if tag != DEFAULT]
KEYWORDS = {**DEFAULT_KEYWORDS, "N_": None, "say": None, "LocalError": (2,), "_Wrong": (1,), "Problem": (3,)}
KEYWORDS["problem"] = (2,)
METHODS = [
    ("node/cli/**.py", "ignore"),
    ("protocol/envelope.py", "ignore"),
    ("node/**.py", "python"),
    ("protocol/**.py", "python"),
    ("node/web/templates/**.html", "jinja2"),
]
#: On no screen: what means a report to the authorities, and what calls the person by what was done to her.
FORBIDDEN = {
    "it": r"segnalazion|vittim",
    "fr": r"signalement|victime",
    "es": r"víctima|denuncia",
    "ro": r"victim|denunț",
    "ar": "ضحية|ضحايا|بلاغ",
    "en": r"victim|no-show|absconded|non-compliant",
}


def catalogue(tag: str) -> Catalog:
    with (ROOT / "node/locale" / f"{tag}.po").open("rb") as file:
        return read_po(file)


@pytest.fixture(scope="module")
def texts() -> set[str]:
    """Every English text in the code and the templates."""
    found = extract_from_dir(
        str(ROOT), METHODS, {"node/web/templates/**.html": {"extensions": "jinja2.ext.i18n"}}, KEYWORDS
    )
    return {entry[2] if isinstance(entry[2], str) else entry[2][0] for entry in found if entry[2]}


def places(text: str) -> list[str]:
    return sorted(re.findall(r"%\(\w+\)[sd]|\{\w+\}", text))


@pytest.mark.parametrize("tag", OTHERS)
def test_every_text_has_its_translation(texts: set[str], tag: str) -> None:
    found = {m.id if isinstance(m.id, str) else m.id[0]: m for m in catalogue(tag) if m.id}
    assert sorted(texts - found.keys()) == [], "run: make texts"
    assert sorted(found.keys() - texts) == [], "run: make texts"
    for name, message in found.items():
        forms = [message.string] if isinstance(message.string, str) else list(message.string)
        assert all(forms) and not message.fuzzy, f"not translated: {name}"


@pytest.mark.parametrize("tag", OTHERS)
def test_a_translation_has_the_same_places_for_values(tag: str) -> None:
    for message in catalogue(tag):
        if not message.id:
            continue
        if isinstance(message.id, str):
            assert places(str(message.string)) == places(message.id), message.id
        else:
            for form in message.string:
                assert set(places(form)) <= set(places(message.id[1])), message.id


@pytest.mark.parametrize("tag", list(NAMES))
def test_no_language_uses_a_forbidden_word(texts: set[str], tag: str) -> None:
    shown = texts if tag == DEFAULT else {str(m.string) for m in catalogue(tag) if m.id}
    assert [text for text in shown if re.search(FORBIDDEN[tag], text, re.IGNORECASE)] == []


@pytest.mark.parametrize("tag", list(NAMES))
def test_plurals_follow_the_languages_own_rule(tag: str) -> None:
    shown = language(tag)
    for count in (0, 1, 2, 3, 11, 20, 100, 101):
        text = shown.catalogue.ngettext("%(num)s day", "%(num)s days", count)
        assert text and (tag != "en" or text == ("%(num)s day" if count == 1 else "%(num)s days"))


@pytest.mark.parametrize(
    ("group", "kind"),
    [
        ("status", codes.Status),
        ("action", referral.Action),
        ("reason", codes.StatusReason),
        ("priority", codes.Priority),
        ("kind", codes.Kind),
        ("risk", codes.Risk),
        ("risk-short", codes.Risk),
        ("business", codes.BusinessStatus),
        ("attention", referral.Attention),
        ("section", codes.Section),
        ("purpose", codes.Purpose),
        ("consent", codes.ConsentState),
        ("outcome", codes.FollowupOutcome),
        ("role", codes.Role),
        ("agency", codes.AgencyType),
    ],
)
def test_every_code_has_its_words(group: str, kind: type) -> None:
    assert {str(code) for code in kind} <= set(words.GROUPS[group])  # type: ignore[attr-defined]


def test_fields_and_lists_of_sections_have_their_words() -> None:
    from protocol import sections

    for fields in sections.FIELDS.values():
        assert set(fields) <= set(words.FIELD)
    for values in (sections.HTCDS_STATUS, sections.ASSERTED_BY, sections.EXPLOITATION, sections.CONTROL):
        assert set(values) <= set(words.HTCDS)
    assert set(sections.GENDERS) == set(words.GENDER)
    assert set(sections.CHANNELS) == set(words.CHANNEL)
    assert set(sections.PERMITTED) == set(words.PERMITTED)
    assert set(words.SERVICE) == set(words.SERVICE_PATH)


def test_values_in_a_refusal_are_called_as_everywhere_else() -> None:
    text = say("This needs one of the roles: {roles}. Ask your administrator.", roles=(codes.Role.INTAKE,))
    assert "“Intake desk”" in language("en").say(text)
    assert LocalError("x", text).text == "This needs one of the roles: “intake”. Ask your administrator."
    for tag in OTHERS:
        assert "intake" not in language(tag).say(text)


def test_the_language_is_chosen_from_what_there_is() -> None:
    assert choose("it", "fr") == "it"
    assert choose("xx", "de-DE,fr-CH;q=0.9,en;q=0.8") == "fr"
    assert choose(None, "") == "en"
    assert choose(None, "de,pl" * 1000) == "en"
    assert language("xx").tag == "en" and language("ar").direction == "rtl"


def test_files_of_others_are_as_their_authors_published_them() -> None:
    folder = ROOT / "node/web/static/vendor"
    listed = dict(re.findall(r"\| (\S+) \| .* \| ([0-9a-f]{64}) \|", (folder / "README.md").read_text()))
    assert set(listed) == {path.name for path in folder.iterdir() if path.suffix in (".js", ".css")}
    for name, digest in listed.items():
        assert hashlib.sha256((folder / name).read_bytes()).hexdigest() == digest, name


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("+39 055 0000 000", "ltr"), ("25–39", "ltr"), ("", "ltr"), ("A room.", "ltr"), ("12 - غرفة", "rtl"),
        ("غرفة A", "rtl"), ("(02) 12", "ltr"), ("חדר", "rtl"), ("٠١٢ ٣٤", "ltr"),
    ],
)  # fmt: skip
def test_a_text_is_read_from_where_its_first_letter_says(text: str, expected: str) -> None:
    assert render.direction(text) == expected
