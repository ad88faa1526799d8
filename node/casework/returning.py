# SPDX-License-Identifier: Apache-2.0
"""A node that was restored: what it must not conclude from rows that are older than it is, and what its peers know.

Between the backup and the return its own people did things that are in no database any more. Its clocks wait until
people and peers could say so; what a peer knows of our own acts is taken from it, where that stops something or spares
a reminder.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any, Final

from sqlalchemy import Connection, insert, select, update

from node.casework import consents, followups
from node.casework.calendars import office_calendar
from node.exchange import outbox
from node.office import audit, lock, tasks
from node.office.actor import Actor
from node.storage.here import NODE, Here
from node.storage.settings import LOST, get_setting, set_setting
from node.storage.tables import Side, agencies, messages, threads, withdrawals
from node.storage.tables import cases as case_rows
from node.storage.tables import followups as followup_rows
from node.storage.tables import referrals as referral_rows
from node.storage.tables import releases as release_rows
from protocol.codes import MessageType, Risk, Role
from protocol.consent import Withdrawal
from protocol.directory import Standing
from protocol.encoding import moment, seconds
from protocol.errors import LocalError, RemoteError, say
from protocol.messages import ConsentErased, ConsentLocked, FollowupReport, Threaded

#: The setting that is there while a restored node is locked because peers have not said yet what was stopped meanwhile.
_AWAITED: Final = "answers-awaited"
#: An agency answers what this node has forgotten. The subject is the agency.
FORGOTTEN_TASK: Final = "answers-forgotten"
#: So long a peer may come back with what it knows; later it is no answer to our return any more.
TOLD_WITHIN: Final = timedelta(days=35)
#: Until peers have answered what was asked of them at the start.
_ANSWERED_IN: Final = timedelta(minutes=15)
#: A follow-up at high risk waits no longer than between two of its rungs; any other for a working day.
_HIGH_WAITS: Final = timedelta(hours=4)
#: Follow-ups of which one peer is told at once: more than it can have reported since its last backup.
_TOLD_MAX: Final = 1_000


def begin(db: Connection, here: Here, now: datetime, made_at: int) -> None:
    """The rows are of `made_at` (unix seconds), and it is `now`: no clock rings for what came due in between.

    Follow-ups that would ring now begin their ladder again after a working day, so that whoever has reported one can
    say so. What waits for an agency's answer waits until it could be heard. No agency counts as silent because we were
    away. Nobody signs in before peers have answered, or somebody at the machine has decided not to wait.
    """
    set_setting(db, LOST, f"{made_at} {seconds(now)}")
    set_setting(db, _AWAITED, "yes")
    lock.lock(db, here, Actor.node(), now)
    is_due = followup_rows.c.ended.is_(False) & (followup_rows.c.next_rung_at <= now)
    for is_high in (True, False):
        at = now + _HIGH_WAITS if is_high else office_calendar(here).add_working_days(now, 1)
        of_risk = (followup_rows.c.risk == Risk.HIGH) if is_high else (followup_rows.c.risk != Risk.HIGH)
        db.execute(update(followup_rows).where(is_due, of_risk).values(due_at=at, next_rung_at=at))
    is_ours = (referral_rows.c.side == Side.SOURCE) & (referral_rows.c.attention_at <= now)
    db.execute(update(referral_rows).where(is_ours).values(attention_at=now + _ANSWERED_IN))
    db.execute(update(agencies).where(agencies.c.standing == Standing.VERIFIED).values(heard_at=now))


def unanswered(db: Connection) -> list[str]:
    """After a return: the agencies that have not said yet what they stopped or took back meanwhile.

    What they say first, when they are asked to `resume`, is that; a `hello` ends it (Specification, 8.8).
    """
    if not get_setting(db, _AWAITED):
        return []
    back_at = moment(_lost_between(db)[1])
    asked, said = messages.alias(), messages.alias()
    answered = (
        select(asked.c.peer)
        .join(said, (said.c.agency == asked.c.peer) & (said.c.created_at >= asked.c.receipt_at))
        .where(asked.c.type == MessageType.RESUME, ~asked.c.incoming, asked.c.created_at >= back_at)
        .where(said.c.type == MessageType.HELLO, said.c.incoming)
    )
    is_there = (agencies.c.standing == Standing.VERIFIED) & ~agencies.c.outside & agencies.c.retired_at.is_(None)
    query = select(agencies.c.agency).where(is_there, agencies.c.agency.not_in(answered))
    return sorted(db.execute(query).scalars())


def unlock(db: Connection, here: Here, actor: Actor, now: datetime, *, anyway: bool = False) -> bool:
    """People may sign in again. Returns whether the node was locked. Only from its own machine.

    After a return only when every agency has answered, or with `anyway`: until then a page might show what somebody has
    stopped meanwhile. Raises LocalError `not-answered`.
    """
    waiting = [] if anyway else unanswered(db)
    if waiting:
        raise LocalError(
            "not-answered",
            say(
                "Agencies that have not said yet what was stopped since the backup: {count}. They do it in minutes. "
                "staffetta doctor names them. Telephone those that do not answer, then: staffetta unlock --anyway",
                count=len(waiting),
            ),
        )
    was_locked = lock.unlock(db, here, actor, now)
    set_setting(db, _AWAITED, "")
    return was_locked


# -- what we know of a peer that was restored ------------------------------------------------------------------------


def tell_reported(db: Connection, here: Here, now: datetime, peer: str, since: datetime) -> int:
    """The peer learns again which follow-ups it has reported to us since then. Returns how many."""
    query = (
        select(followup_rows)
        .join(threads, threads.c.id == followup_rows.c.thread_id)
        .where(threads.c.peer == peer, followup_rows.c.ours.is_(False), followup_rows.c.reported_at >= since)
        .order_by(followup_rows.c.reported_at)
        .limit(_TOLD_MAX)
    )
    found = db.execute(query).all()
    for row in found:
        outbox.compose(
            db,
            here,
            now,
            row.thread_id,
            FollowupReport,
            referral=row.referral_id,
            plan=row.plan_id,
            ordinal=row.ordinal,
            at=seconds(row.reported_at),
        )
    return len(found)


# -- what a peer knows of us -----------------------------------------------------------------------------------------


def learn_report(db: Connection, here: Here, now: datetime, message: FollowupReport) -> None:
    """A follow-up of ours was reported before we were restored, as the agency says that watches it.

    It rings no more and the next one is planned: never does a peer's word end a plan. Raises RemoteError
    `unknown-referral` unless our acts of that moment are lost: nobody else speaks for us.
    """
    if not _is_lost(db, now, message.at):
        raise RemoteError("unknown-referral", "There is no such referral in this thread.")
    followup_id = followups.learn_reported(db, here, now, message)
    if followup_id is not None:
        audit.record(db, now, NODE, "followup.learn", followup_id, peer=message.sender)


def learn_stop(db: Connection, here: Here, now: datetime, message: ConsentLocked | ConsentErased) -> Any:
    """A withdrawal that we do not know was carried out by the agency that held the data: we have forgotten it.

    Nothing leaves under that release any more, and its case's desk is told. Taken at any time, because all that it does
    is to stop what goes to the agency that says it. Returns the withdrawal's row, or None if there is nothing it fits.
    """
    query = select(release_rows).where(
        release_rows.c.id == message.release, release_rows.c.ours.is_(True), release_rows.c.agency == message.sender
    )
    release = db.execute(query).first()
    if release is None:
        return None
    answer_by = Withdrawal(at=message.at, by_person=False, erase=False, do_not_contact=False).answer_by()
    row = {
        "id": message.withdraw,
        "release_id": release.id,
        "holder": message.sender,
        "thread_id": message.thread,
        "at": moment(message.at),
        "by_person": False,
        "erase": False,
        "do_not_contact": False,
        "duty_at": moment(answer_by),
    }
    db.execute(insert(withdrawals), row)
    if consents.stop_unasked(db, here, now, release):
        desk = db.execute(select(case_rows.c.desk_id).where(case_rows.c.id == release.case_id)).scalar()
        tasks.open_task(db, now, "consent-ended", release.id, desk_id=desk)
        audit.record(db, now, NODE, "consent.learn", release.id, peer=message.sender)
    return db.execute(select(withdrawals).where(withdrawals.c.id == message.withdraw)).one()


def learn_forgotten(db: Connection, here: Here, now: datetime, message: Threaded) -> None:
    """An agency answers something that was sent between the backup and the return: only it knows of that now.

    It is told that its answer was not taken, and its people are; here a supervisor telephones it: one task for each
    agency, because every thread that it names is a new one for us. Of one that was not restored nothing is believed.
    """
    member = here.directory.members.get(message.sender)
    if member is None or member.standing is not Standing.VERIFIED:
        return
    made_at, back_at = _lost_between(db)
    if made_at <= message.created and back_at and now <= moment(back_at) + TOLD_WITHIN:
        tasks.open_task(db, now, FORGOTTEN_TASK, message.sender, role=Role.SUPERVISOR)
        audit.record(db, now, NODE, "node.forgotten", message.thread, peer=message.sender)


def _is_lost(db: Connection, now: datetime, at: int) -> bool:
    made_at, back_at = _lost_between(db)
    return made_at <= at <= back_at and now <= moment(back_at) + TOLD_WITHIN


def _lost_between(db: Connection) -> tuple[int, int]:
    """When the backup was made and when the node was back, unix seconds; 0 and 0 for one that was never restored."""
    made_at, back_at = (int(word) for word in (get_setting(db, LOST) or "0 0").split())
    return made_at, back_at
