# SPDX-License-Identifier: Apache-2.0
"""The languages of pages and papers: one catalogue for each, read when it is first used.

English is what the code and the templates say. A text with values in it (`protocol.errors.say`) is translated as its
template. Until a practitioner has read a language, pages say that it is not reviewed.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from gettext import NullTranslations, c2py
from pathlib import Path
from typing import Final

from babel import Locale
from babel.messages.pofile import read_po

from node.web.pages.words import BY_KIND
from protocol.errors import Said, shown

FOLDER: Final = Path(__file__).resolve().parents[2] / "locale"
#: Tag → the language's own name.
NAMES: Final = {
    "en": "English",
    "it": "Italiano",
    "fr": "Français",
    "es": "Español",
    "ro": "Română",
    "ar": "العربية",
}
DEFAULT: Final = "en"
#: Who has read a language's texts as a practitioner, and when: tag → “name, 2027-03-31”. Nobody yet.
REVIEWED: Final[Mapping[str, str]] = {}
RIGHT_TO_LEFT: Final = frozenset({"ar"})


class _Catalogue(NullTranslations):
    """Translations by their English text; plurals by the language's own rule."""

    def __init__(self, texts: dict[str, str | tuple[str, ...]], rule: Callable[[int], int]) -> None:
        super().__init__()
        self._texts, self._rule = texts, rule

    def gettext(self, message: str) -> str:
        found = self._texts.get(message)
        return found if isinstance(found, str) and found else message

    def ngettext(self, singular: str, plural: str, count: int) -> str:
        found = self._texts.get(singular)
        if isinstance(found, tuple):
            return found[self._rule(count)]
        return singular if count == 1 else plural


@dataclass(frozen=True, slots=True)
class Language:
    """One language: its tag, its catalogue, Babel's locale for dates and numbers."""

    tag: str
    locale: Locale
    catalogue: NullTranslations
    reviewed: str

    @property
    def direction(self) -> str:
        """How it is written: `ltr` or `rtl`."""
        return "rtl" if self.tag in RIGHT_TO_LEFT else "ltr"

    def say(self, text: str) -> str:
        """A text of the program in this language; values are put in after translation."""
        if isinstance(text, Said):
            values = {name: shown(self._named(value)) for name, value in text.values.items()}
            return self.catalogue.gettext(text.template).format(**values)
        return self.catalogue.gettext(text)

    def _named(self, value: object) -> object:
        """Codes in a text are called as everywhere else."""
        if isinstance(value, (tuple, list)):
            return [self._named(entry) for entry in value]
        words = BY_KIND.get(type(value))
        return value if words is None else self.catalogue.gettext(words[str(value)])


@lru_cache(maxsize=len(NAMES))
def language(tag: str) -> Language:
    """The language of this tag; English for one that is not among them."""
    if tag not in NAMES or tag == DEFAULT:
        return Language(DEFAULT, Locale("en", "GB"), NullTranslations(), "")
    locale = Locale.parse(tag)
    with (FOLDER / f"{tag}.po").open("rb") as file:
        catalogue = read_po(file)
    texts: dict[str, str | tuple[str, ...]] = {}
    for message in catalogue:
        if message.id and not message.fuzzy:
            if isinstance(message.id, str):
                texts[message.id] = str(message.string)
            else:
                texts[message.id[0]] = tuple(message.string or ())
    translations = _Catalogue(texts, _plural_rule(catalogue.plural_expr))
    return Language(tag, locale, translations, REVIEWED.get(tag, ""))


def _plural_rule(expression: str) -> Callable[[int], int]:
    rule: Callable[[int], int] = c2py(expression)
    return rule


def in_language(tag: str | None, text: str) -> str:
    """A text in the language of this tag."""
    return language(tag or DEFAULT).say(text)


def choose(wanted: str | None, accepted: str) -> str:
    """The tag to show: what the person chose, else the first of what her browser accepts that there is."""
    if wanted in NAMES:
        return str(wanted)
    for entry in accepted.split(",")[:20]:
        tag = entry.partition(";")[0].strip().lower().partition("-")[0]
        if tag in NAMES:
            return tag
    return DEFAULT
