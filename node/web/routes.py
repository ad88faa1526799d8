# SPDX-License-Identifier: Apache-2.0
"""Every route of the staff API. The node serves these, the description names these, the tests try each of these."""

from __future__ import annotations

from typing import Final

from node.web import (
    absence_api,
    alert_api,
    backstop_api,
    capacity_api,
    case_api,
    outside_api,
    passkey_api,
    plan_api,
    programme_api,
    reach_api,
    retire_api,
    staff_api,
)
from node.web.api import Route

ALL: Final[list[Route]] = [
    *staff_api.ROUTES,
    *passkey_api.ROUTES,
    *case_api.ROUTES,
    *capacity_api.ROUTES,
    *programme_api.ROUTES,
    *alert_api.ROUTES,
    *plan_api.ROUTES,
    *absence_api.ROUTES,
    *backstop_api.ROUTES,
    *outside_api.ROUTES,
    *reach_api.ROUTES,
    *retire_api.ROUTES,
]
