# SPDX-License-Identifier: Apache-2.0
"""The refusal codes that a receipt may carry, as numbers (Specification, 8.4).

Only what a known, authenticated sender may be told. Numbers are never used again for something else.
"""

from __future__ import annotations

from types import MappingProxyType
from typing import Final

CODES: Final = (
    "other",
    "internal",
    "unsupported-type",
    "unknown-desk",
    "unknown-thread",
    "unknown-referral",
    "foreign-thread",
    "thread-full",
    "fork",
    "id-reused",
    "illegal-transition",
    "consent-missing",
    "consent-expired",
    "consent-withdrawn",
    "recipient-not-covered",
    "purpose-not-covered",
    "section-not-covered",
    "basis-incomplete",
    "not-permitted",
    "desk-key-unknown",
    "unknown-release",
    "unknown-withdrawal",
    "unknown-plan",
    "malformed-record",
    "not-verified",
    "too-late",
    "retired",
)
_NUMBERS: Final = MappingProxyType({code: number for number, code in enumerate(CODES)})


def number_of(code: str) -> int:
    """The number of a code; of `other` for one that is not to be told."""
    return _NUMBERS.get(code, 0)


def code_of(number: int) -> str:
    """The code of a number; `other` for one of a later version."""
    return CODES[number] if 0 <= number < len(CODES) else CODES[0]
