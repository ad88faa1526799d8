# SPDX-License-Identifier: Apache-2.0
"""What a successor gets to know of the time before: when something was done and what is planned, and nothing of it.

Which agencies were asked, and what was said, is not in it: that is hers to tell. Nor that the police was one of them.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any

from sqlalchemy import Connection, select

from node.casework import cases
from node.casework.calendars import office_calendar
from node.exchange import peers
from node.office.actor import Actor
from node.storage.here import Here
from node.storage.tables import FollowupKind, Side, followups, referrals, threads
from protocol.codes import AgencyType, Status
from protocol.sections import LIST_MAX


def account(db: Connection, here: Here, actor: Actor, case_id: str) -> dict[str, Any]:
    """`open_followups` and `history` for `service` of a transfer (Specification, 6.5), each if there is any.

    Days are the agency's. Raises LocalError `unknown-case`.
    """
    row = cases.load(db, actor, case_id)
    calendar = office_calendar(here)
    acts = [(row.opened_at, "case-opened")]
    asked = (
        select(threads.c.peer, *(referrals.c[name] for name in ("status", "requested_at", "decided_at", "ended_at")))
        .join(threads, threads.c.id == referrals.c.thread_id)
        .where(threads.c.case_id == case_id, referrals.c.side == Side.SOURCE, referrals.c.requested_at.is_not(None))
        .where(referrals.c.status != Status.ENTERED_IN_ERROR)  # it was about somebody else, or to nobody
    )
    for one in db.execute(asked).all():
        if peers.recipient_type(db, here, one.peer) is AgencyType.LAW_ENFORCEMENT:
            continue
        acts.append((one.requested_at, "referred"))
        if one.status == Status.REJECTED:
            acts.append((one.decided_at or one.ended_at, "declined"))
            continue
        if one.decided_at is not None:  # what was stopped before anybody took it on has not ended: it never began
            acts += [(one.decided_at, "accepted"), (one.ended_at, "ended")]
    ours = (followups.c.case_id == case_id) & (followups.c.kind == FollowupKind.CONTACT)
    done = select(followups.c.reported_at).where(ours, followups.c.reported_at.is_not(None))
    acts += [(at, "followed-up") for at in db.execute(done).scalars()]
    planned = select(followups.c.due_at).where(ours, followups.c.reported_at.is_(None), followups.c.ended.is_(False))

    def day(at: datetime) -> str:
        return calendar.local(at).date().isoformat()

    told = sorted((at, act) for at, act in acts if at is not None)[-LIST_MAX:]
    due = sorted({day(at) for at in db.execute(planned).scalars()})[:LIST_MAX]
    found: dict[str, Any] = {"history": [{"on": day(at), "act": act} for at, act in told]}
    return {"open_followups": due, **found} if due else found
