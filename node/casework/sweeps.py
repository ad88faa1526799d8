# SPDX-License-Identifier: Apache-2.0
"""What time brings: attention that changes, consents that end, answers that do not come, gaps in a chain.

Each sweep looks only at rows whose time has come, does each at most once, and catches up by itself after a power cut.
"""

from __future__ import annotations

from datetime import datetime, timedelta

from sqlalchemy import Connection, bindparam, select, update

from node.casework import mail, referrals
from node.exchange import chains, outbox
from node.office import audit, tasks
from node.storage.here import NODE, Here
from node.storage.rows import Change, Question, insert_rows
from node.storage.tables import (
    IS_PERMITTING,
    cases,
    release_events,
    releases,
    threads,
    withdrawals,
)
from node.storage.tables import referrals as rows
from protocol import referral
from protocol.codes import ConsentState, Role
from protocol.encoding import EXPIRY_GRACE_DAYS, MESSAGE_LIFE_DAYS
from protocol.messages import ThreadResync
from protocol.referral import Attention

#: A gap in a chain is asked about after this long; before, the missing message is probably still under way.
GAP_AFTER = timedelta(hours=24)
#: No message is accepted later than this after it was written; one that is missing for so long does not exist.
GAP_FINAL = timedelta(days=MESSAGE_LIFE_DAYS + EXPIRY_GRACE_DAYS)
_TASKS = {Attention.UNDELIVERED: "undelivered", Attention.OVERDUE: "overdue"}

# Asked every minute, and nearly always answered with nothing: that has to cost nearly nothing.
_DUE = Question(
    select(rows)
    .where(rows.c.attention_at <= bindparam("now"))
    .order_by(rows.c.attention_at)
    .limit(bindparam("most"))
    .with_for_update(skip_locked=True)
)
_ATTEND = Change(
    update(rows)
    .where(rows.c.id == bindparam("referral"))
    .values(attention=bindparam("now_at"), attention_at=bindparam("next_at"))
)
_ENDING = Question(
    select(releases.c.id, releases.c.ours, cases.c.desk_id)
    .outerjoin(cases, cases.c.id == releases.c.case_id)
    .where(IS_PERMITTING, releases.c.valid_until <= bindparam("now"))
    .limit(bindparam("most"))
)
_END = Change(
    update(releases)
    .where(releases.c.id == bindparam("release"))
    .values(state=ConsentState.EXPIRED, state_at=bindparam("at"))
)
_UNANSWERED = Question(
    select(withdrawals.c.id, threads.c.desk_id)
    .join(threads, threads.c.id == withdrawals.c.thread_id)
    .where(withdrawals.c.answered_at.is_(None), withdrawals.c.duty_at <= bindparam("now"))
    .limit(bindparam("most"))
)
_GAPS = Question(select(threads).where(threads.c.gap_since <= bindparam("before")).limit(bindparam("most")))


def attend(db: Connection, here: Here, now: datetime, limit: int = 200) -> int:
    """Referrals whose attention may have changed: their rows say what it is now, people are told. Returns how many."""
    found = _DUE.all(db, {"now": now, "most": limit})
    for row in found:
        view = referrals.view_of(row._asdict(), referrals.state_of(row))
        attention = referral.attention(view, now)
        _ATTEND.run(db, {"referral": row.id, "now_at": attention, "next_at": referral.next_change(view, now)})
        if attention in _TASKS:
            tasks.open_task(db, now, _TASKS[attention], row.id, desk_id=row.desk_id, staff_id=row.staff_id)
            tasks.notify(db, now, f"role:{Role.SUPERVISOR}")
            audit.record(db, now, NODE, f"referral.{attention}", row.id)
    return len(found)


def end_consents(db: Connection, here: Here, now: datetime, limit: int = 200) -> int:
    """Consents whose date has passed: nothing more is shared, a task says so, nothing is erased. Returns how many.

    Only with a clock that is beyond doubt: a wrong one would stop help.
    """
    ended = _ENDING.all(db, {"now": now, "most": limit})
    for row in ended:
        _END.run(db, {"release": row.id, "at": now})
        insert_rows(db, release_events, [{"release_id": row.id, "state": ConsentState.EXPIRED, "at": now}])
        if row.ours:
            tasks.open_task(db, now, "consent-ended", row.id, desk_id=row.desk_id)
        audit.record(db, now, NODE, "consent.expire", row.id)
    return len(ended)


def miss_erasures(db: Connection, here: Here, now: datetime, limit: int = 200) -> int:
    """Withdrawals that were not answered in time: a task for a person, at both ends. Returns how many."""
    late = _UNANSWERED.all(db, {"now": now, "most": limit})
    for row in late:
        tasks.open_task(db, now, "erasure-missing", row.id, desk_id=row.desk_id)
        tasks.notify(db, now, f"role:{Role.SUPERVISOR}")
        again = now + timedelta(hours=72)
        db.execute(update(withdrawals).where(withdrawals.c.id == row.id).values(duty_at=again))
        audit.record(db, now, NODE, "consent.answer-missing", row.id)
    return len(late)


def ask_for_gaps(db: Connection, here: Here, now: datetime, limit: int = 100) -> int:
    """Chains with a gap for more than a day: the sender is asked for what is missing. Returns how many.

    What is still missing when it would be refused as too old can never come: then what waits behind it is applied, and
    people are told.
    """
    gaps = _GAPS.all(db, {"before": now - GAP_AFTER, "most": limit})
    for row in gaps:
        first = chains.first_ahead(db, row._asdict())
        if first is None:
            db.execute(update(threads).where(threads.c.id == row.id).values(gap_since=None))
        elif first.at <= now - GAP_FINAL:
            chains.skip_gap(db, here, mail.Mail(), now, row.id)
        else:
            missing = row.in_seq + 1 if first.epoch == row.in_epoch else 1
            outbox.compose(db, here, now, row.id, ThreadResync, missing_epoch=first.epoch, missing_from=missing)
            db.execute(update(threads).where(threads.c.id == row.id).values(gap_since=now))
    return len(gaps) + chains.give_up_orphans(db, here, mail.Mail(), now, now - GAP_FINAL)
