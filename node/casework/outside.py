# SPDX-License-Identifier: Apache-2.0
"""Agencies without a node: who they are, and what they tell us by telephone, on paper or at the door.

A referral to one is like any other: the same consent, the same table, the same clocks and follow-ups. Nothing is ever
queued for it (`exchange.outbox`), and each of its acts says who told us and is entered by one of our own people. It has
no fingerprint: who answers is only as sure as the number that somebody here wrote down.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from datetime import datetime
from typing import Any, Final

import msgspec
from sqlalchemy import Connection, func, insert, select, update

from node.casework import cases, consents, followups, records, referrals, replies
from node.exchange import peers
from node.office import audit, tasks
from node.office.actor import Actor
from node.office.desks import Profile, checked_profile
from node.storage.here import Here
from node.storage.tables import agencies, outside_desks, releases, withdrawals
from protocol import crypto, referral
from protocol.codes import AgencyType, BusinessStatus, Role, Section, Status, StatusReason
from protocol.directory import Standing
from protocol.encoding import encode
from protocol.errors import LocalError, say
from protocol.referral import FINAL, Action, Party, State

#: What one agency has learnt of its surroundings; a list that a person still reads.
DESKS_MAX: Final = 200
NAME_MAX: Final = 120
#: Who told us: a name or a work name, and how.
TOLD_MAX: Final = 200
ANSWER_KIND: Final = "outside-answer"
#: Who keeps the list: a wrong number in it sends a person's story to a stranger.
_KEEPERS: Final = (Role.SUPERVISOR, Role.DIRECTOR, Role.ADMINISTRATOR)
_WRITERS: Final = (Role.CASEWORKER, Role.INTAKE, Role.SUPERVISOR)


# -- who they are ----------------------------------------------------------------------------------------------------


def add(
    db: Connection,
    here: Here,
    actor: Actor,
    now: datetime,
    *,
    name: str,
    agency_type: AgencyType,
    desk: str,
    profile: Profile,
) -> str:
    """The agency can be chosen like any other, with this desk. Returns its id, which is ours alone and random.

    Raises LocalError `outside-police`, `outside-known`, `outside-name`, `outside-telephone`.
    """
    actor.require_role(*_KEEPERS)
    if agency_type is AgencyType.LAW_ENFORCEMENT:
        raise LocalError(
            "outside-police",
            "What goes to the police needs a release of its own and a node that acknowledges it. Telephone them.",
        )
    clean = _named(name)
    if db.execute(select(agencies.c.agency).where(func.lower(agencies.c.name) == clean.lower())).first() is not None:
        raise LocalError("outside-known", "An agency of this name is in the list already. Add a desk to it.")
    agency = crypto.new_id() + crypto.new_id()
    row = {
        "agency": agency,
        "name": clean,
        "type": agency_type,
        "standing": Standing.BLOCKED,
        "bundle": b"",
        "met_at": now,
        "outside": True,
    }
    db.execute(insert(agencies), row)
    audit.record(db, now, actor.staff_id, "outside.add", agency)
    add_desk(db, here, actor, now, agency=agency, name=desk, profile=profile)
    return agency


def add_desk(
    db: Connection, here: Here, actor: Actor, now: datetime, *, agency: str, name: str, profile: Profile
) -> str:
    """The agency has one more desk. Returns the desk's id."""
    actor.require_role(*_KEEPERS)
    if db.execute(select(agencies.c.agency).where(agencies.c.agency == agency, agencies.c.outside.is_(True))).first():
        known = db.execute(select(func.count()).select_from(outside_desks)).scalar() or 0
        if known >= DESKS_MAX:
            raise LocalError("too-many-desks", say("At most {limit} such desks are kept.", limit=DESKS_MAX))
        desk_id = crypto.new_id()
        row = {"id": desk_id, "agency": agency, "name": _named(name), "profile": _reachable(profile)}
        db.execute(insert(outside_desks), row)
        audit.record(db, now, actor.staff_id, "outside.desk", desk_id)
        return desk_id
    raise _unknown_desk()


def change_desk(
    db: Connection, here: Here, actor: Actor, now: datetime, *, desk_id: str, name: str, profile: Profile
) -> None:
    """The desk is called and reached like this now."""
    actor.require_role(*_KEEPERS)
    values = {"name": _named(name), "profile": _reachable(profile)}
    is_listed = (outside_desks.c.id == desk_id) & outside_desks.c.closed_at.is_(None)
    if not db.execute(update(outside_desks).where(is_listed).values(**values)).rowcount:
        raise _unknown_desk()
    audit.record(db, now, actor.staff_id, "outside.change", desk_id)


def remove_desk(db: Connection, here: Here, actor: Actor, now: datetime, *, desk_id: str) -> None:
    """The desk cannot be chosen any more; what is under way with it goes on, and still shows its number."""
    actor.require_role(*_KEEPERS)
    is_listed = (outside_desks.c.id == desk_id) & outside_desks.c.closed_at.is_(None)
    if not db.execute(update(outside_desks).where(is_listed).values(closed_at=now)).rowcount:
        raise _unknown_desk()
    audit.record(db, now, actor.staff_id, "outside.remove", desk_id)


def list_desks(db: Connection, *, include_removed: bool = False) -> list[dict[str, Any]]:
    """The desks of agencies without a node, by the name of the agency; each with its profile."""
    query = (
        select(outside_desks, agencies.c.name.label("agency_name"), agencies.c.type)
        .join(agencies, agencies.c.agency == outside_desks.c.agency)
        .order_by(agencies.c.name, outside_desks.c.name)
        .limit(DESKS_MAX)
    )
    if not include_removed:
        query = query.where(outside_desks.c.closed_at.is_(None))
    return [
        {**row, "profile": msgspec.json.decode(row["profile"], type=Profile)} for row in db.execute(query).mappings()
    ]


def _named(name: str) -> str:
    clean = " ".join(name.split())
    if not 1 <= len(clean) <= NAME_MAX:
        raise LocalError("outside-name", say("A name has 1 to {limit} characters.", limit=NAME_MAX))
    return clean


def _reachable(profile: Profile) -> str:
    if not profile.telephone.strip():
        raise LocalError("outside-telephone", "Write the telephone number: it is the only way to reach this desk.")
    return checked_profile(profile)


def _unknown_desk() -> LocalError:
    return LocalError("unknown-desk", "There is no such desk. See the list of desks.")


# -- what they tell us -----------------------------------------------------------------------------------------------


def possible(state: State) -> list[Action]:
    """What the other agency can tell us now, by the table that its node would have to keep to."""
    found: list[Action] = []
    for action in (a for a in Action if a is not Action.RECEIVE and state.status not in FINAL):
        if referral.ROLES[action] and action not in (Action.SEND, Action.CANCEL, Action.VOID):
            try:
                referral.arrive(state, Party.TARGET, action)
            except LocalError:
                continue
            found.append(action)
    return found


def enter(
    db: Connection,
    here: Here,
    actor: Actor,
    now: datetime,
    *,
    referral_id: str,
    action: Action,
    told_by: str,
    version: int | None = None,
    reason: StatusReason | None = None,
    text: str = "",
    business_status: BusinessStatus | None = None,
    resume_by: datetime | None = None,
    arrive_by: datetime | None = None,
) -> State:
    """The other agency's act, as `told_by` told us, is entered and marked so. Returns the new state.

    Raises LocalError `has-node` where the other agency's own node speaks for it, `told-by`, `illegal-transition`,
    `reason-needed`, `resume-needed`, `changed-meanwhile`.
    """
    actor.require_role(*_WRITERS)
    row = referrals.load(db, actor, referral_id)
    if not peers.has_no_node(db, here, row.peer):
        raise LocalError("has-node", "This agency has a node, and answers by it. Nobody else answers for it.")
    if version is not None and version != row.version:
        raise LocalError("changed-meanwhile", "Somebody has answered this meanwhile. Look at its present state first.")
    who = _told(told_by)
    referrals.check_said(action, reason, text, resume_by)
    before = referrals.state_of(row)
    if action not in possible(before):
        raise LocalError(
            "illegal-transition",
            say(
                "“{action}” is not possible while the referral is “{status}”. Look at its present state first.",
                action=action,
                status=Status(row.status),
            ),
        )
    if action is Action.ACCEPT:
        referrals.require_release(db, row, now)
    state = referral.arrive(before, Party.TARGET, action)
    referrals.tell(db, here, now, row, action, state, reason, text, business_status, resume_by, arrive_by, who)
    values = referrals.answered_values(
        row, action, state, now, business_status=business_status, resume_by=resume_by, arrive_by=arrive_by
    )
    referrals.store(db, row, values, now)
    if action is Action.ACCEPT:
        # There is no other end that would plan and report: the whole follow-up is ours.
        followups.plan_after_accept(db, here, actor, now, row, row.staff_id, None)
    if state.status in FINAL:
        followups.end_with_referral(db, now, referral_id)
    if state.status in (Status.COMPLETED, Status.FAILED):
        followups.after_completion(db, here, now, row)
    for kind in ("overdue", referrals.OUTSIDE_TASK):
        tasks.close_task(db, now, kind, referral_id, actor.staff_id)
    replies.came(db, now, row, action)
    audit.record(db, now, actor.staff_id, f"outside.{action}", referral_id, peer=row.peer)
    return state


def told_them(db: Connection, here: Here, actor: Actor, now: datetime, *, referral_id: str, told_by: str) -> None:
    """They were told what has changed (a correction, that we stop); who was told is kept, sealed."""
    actor.require_role(*_WRITERS)
    row = referrals.load(db, actor, referral_id)
    sections = {Section.SERVICE: encode({"told_by": _told(told_by)})}
    records.save(db, here, actor, now, kind=ANSWER_KIND, subject_id=row.id, desk_id=row.desk_id, sections=sections)
    tasks.close_task(db, now, referrals.OUTSIDE_TASK, referral_id, actor.staff_id)
    audit.record(db, now, actor.staff_id, "outside.told", referral_id, peer=row.peer)


def answer_withdrawal(
    db: Connection,
    here: Here,
    actor: Actor,
    now: datetime,
    *,
    withdrawal_id: str,
    told_by: str,
    erased: bool,
    text: str = "",
) -> None:
    """What an agency without a node says it did with what it had: erased it, or keeps it, and under which law.

    It is their word, not their signature, and is shown so. Raises LocalError `unknown-withdrawal`, `already-answered`,
    `told-by`, `law-needed`.
    """
    actor.require_role(*_WRITERS)
    row = db.execute(select(withdrawals).where(withdrawals.c.id == withdrawal_id)).first()
    release = None if row is None else db.execute(select(releases).where(releases.c.id == row.release_id)).first()
    if row is None or release is None or not release.ours or not peers.has_no_node(db, here, row.holder):
        raise LocalError("unknown-withdrawal", "There is no such withdrawal at your desks.")
    case = cases.load(db, actor, release.case_id)
    if row.answered_at is not None:
        raise LocalError("already-answered", "This withdrawal was answered already.")
    said = {"told_by": _told(told_by), "text": text.strip()}
    if not erased and not 1 <= len(said["text"]) <= referrals.TEXT_MAX:
        raise LocalError("law-needed", "Write down why they keep it, and under which law.")
    sections = {Section.SERVICE: encode({name: value for name, value in said.items() if value})}
    records.save(
        db, here, actor, now, kind=ANSWER_KIND, subject_id=withdrawal_id, desk_id=case.desk_id, sections=sections
    )
    parts = len(json.loads(release.sections))
    values = {"erased_count": parts if erased else 0, "kept_count": 0 if erased else parts, "duty_at": None}
    db.execute(update(withdrawals).where(withdrawals.c.id == withdrawal_id).values(answered_at=now, **values))
    for kind in (consents.OUTSIDE_TASK, "erasure-missing"):
        tasks.close_task(db, now, kind, withdrawal_id, actor.staff_id)
    audit.record(db, now, actor.staff_id, "outside.erasure", withdrawal_id, peer=row.holder)


def answers(db: Connection, here: Here, actor: Actor, withdrawal_ids: Iterable[str]) -> dict[str, dict[str, Any]]:
    """Who told us what became of the data, by withdrawal."""
    found = {}
    for withdrawal_id in withdrawal_ids:
        opened = records.latest(db, here, actor, ANSWER_KIND, withdrawal_id)
        if opened is not None:
            found[withdrawal_id] = msgspec.json.decode(opened[Section.SERVICE])
    return found


def _told(told_by: str) -> str:
    who = " ".join(told_by.split())
    if not 1 <= len(who) <= TOLD_MAX:
        raise LocalError("told-by", "Write down who told you, and how: it is all the proof there is.")
    return who
