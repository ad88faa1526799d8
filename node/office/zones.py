# SPDX-License-Identifier: Apache-2.0
"""The time zones that there are, by their IANA names."""

from __future__ import annotations

from functools import lru_cache
from typing import Final
from zoneinfo import available_timezones

#: Not zones: what this machine is set to, and what one is that nobody has set up.
_NONE: Final = frozenset({"localtime", "Factory"})


@lru_cache(maxsize=1)
def known() -> frozenset[str]:
    """Every name; read from the disk once."""
    return frozenset(available_timezones()) - _NONE
