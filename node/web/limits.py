# SPDX-License-Identifier: Apache-2.0
"""How often one address may ask: a token bucket for each, a bounded number of them."""

from __future__ import annotations

from collections import OrderedDict
from typing import Final

#: Addresses remembered at once; the one seen longest ago is forgotten.
ADDRESSES_MAX: Final = 10_000


class Buckets:
    """A token bucket for each key."""

    def __init__(self, per_second: float, burst: float) -> None:
        self._per_second, self._burst = per_second, burst
        self._levels: OrderedDict[str, tuple[float, float]] = OrderedDict()

    def take(self, key: str, now: float) -> bool:
        """Whether this key may do one more thing at `now` (monotonic seconds)."""
        level, at = self._levels.pop(key, (self._burst, now))
        level = min(self._burst, level + (now - at) * self._per_second)
        allowed = level >= 1
        self._levels[key] = (level - 1 if allowed else level, now)
        if len(self._levels) > ADDRESSES_MAX:
            self._levels.popitem(last=False)
        return allowed
