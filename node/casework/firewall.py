# SPDX-License-Identifier: Apache-2.0
"""What kind of agency may send what kind of message, and what was refused. A liaison answers, and never asks.

What is refused is kept as a header with its code (Specification, 8.4); here it is counted. Nothing of it is shown.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any, Final

from sqlalchemy import Connection, func, select

from node.office.actor import Actor
from node.storage.tables import Arrival, agencies, messages
from protocol.codes import AgencyType, MessageType, Role
from protocol.refusals import code_of

#: What an agency of type LawEnforcement may send at all: it answers, it never asks (promise 9).
POLICE_MAY_SEND: Final = frozenset(
    {
        MessageType.REFERRAL_UPDATE,
        MessageType.REFERRAL_OUTCOME,
        MessageType.REFERRAL_CANCEL_CONFIRM,
        MessageType.REFERRAL_NOTE,
        MessageType.ALERT_SEEN,
        MessageType.ALERT_ACK,
        MessageType.ALERT_UPDATE,
        MessageType.ALERT_CANCEL_CONFIRM,
        MessageType.CONSENT_LOCKED,
        MessageType.CONSENT_ERASED,
        MessageType.THREAD_RESYNC,
        MessageType.RESUME,
        MessageType.HELLO,
        MessageType.RECEIPT,
    }
)
#: What an agency that is no liaison may not send: the answers to an alert, which it cannot have had.
LIAISON_ONLY: Final = frozenset({MessageType.ALERT_SEEN, MessageType.ALERT_ACK, MessageType.ALERT_CANCEL_CONFIRM})
#: What is for a liaison and for nobody else.
TO_LIAISON_ONLY: Final = frozenset({MessageType.ALERT_RAISE, MessageType.ALERT_UPDATE, MessageType.ALERT_CANCEL})
#: How far back is counted.
COUNTED_DAYS: Final = 90
ROWS_MAX: Final = 200


def may_send(sender: AgencyType, recipient: AgencyType, kind: MessageType) -> bool:
    """Whether a message of this type may come from such an agency to such an agency at all."""
    if sender is AgencyType.LAW_ENFORCEMENT:
        return kind in POLICE_MAY_SEND
    if kind in LIAISON_ONLY:
        return False
    if kind in TO_LIAISON_ONLY:
        return recipient is AgencyType.LAW_ENFORCEMENT
    return True


def refused(db: Connection, actor: Actor, now: datetime) -> list[dict[str, Any]]:
    """What agencies sent in the last 90 days that was refused here: agency, type, code, how often, when last."""
    actor.require_role(Role.SUPERVISOR, Role.ADMINISTRATOR)
    query = (
        select(
            agencies.c.name.label("agency"),
            agencies.c.type.label("agency_type"),
            messages.c.type,
            messages.c.receipt_code,
            func.count().label("count"),
            func.max(messages.c.at).label("last_at"),
        )
        .join(agencies, agencies.c.agency == messages.c.agency)
        .where(messages.c.state == Arrival.QUARANTINED, messages.c.at > now - timedelta(days=COUNTED_DAYS))
        .group_by(agencies.c.name, agencies.c.type, messages.c.type, messages.c.receipt_code)
        .order_by(func.max(messages.c.at).desc())
        .limit(ROWS_MAX)
    )
    return [
        {**row, "code": "other" if row["receipt_code"] is None else code_of(row["receipt_code"])}
        for row in db.execute(query).mappings()
    ]
