# SPDX-License-Identifier: Apache-2.0
"""Who comes along in a referral: each on a consent of her own, when it is sent or later, and corrected one by one.

Nobody is added to what somebody else has agreed to. What is said of one of them is a record of its own, so a correction
of it says all of it again; a person who stops sharing takes nothing from the others.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

import msgspec
from sqlalchemy import Connection

from node.casework import consents, drafts, notes, referrals, show
from node.exchange import peers
from node.office import tasks
from node.office.actor import Actor
from node.storage.here import Here
from protocol.codes import Priority, Purpose, Section
from protocol.consent import Details
from protocol.errors import LocalError

#: What is urgent when it changes: a wrong number rings at the wrong door.
_URGENT: Final = (Section.CONTACT, Section.SAFETY)


@dataclass(frozen=True, slots=True)
class Member:
    """Somebody who comes along: all `sections` as they were filled in, `agreed` those that may be told, and how she
    agreed. `who` names her to our own people only."""

    who: str
    sections: Mapping[Section, bytes]
    agreed: Collection[Section]
    details: Details
    valid_until: datetime
    is_minor: bool = False

    @property
    def comes(self) -> bool:
        """Whether there is anything that may be told of her."""
        return bool(set(self.agreed) & set(self.sections))


def refuse_if_ended(now: datetime, until: Collection[datetime]) -> None:
    """Raises LocalError `consent-expired` if what one of them agreed to has ended before it was sent."""
    if min(until) <= now:
        raise LocalError(
            "consent-expired", "What she agreed to has ended meanwhile. Go back to the consent, and ask her again."
        )


def join(
    db: Connection,
    here: Here,
    actor: Actor,
    now: datetime,
    *,
    referral_id: str,
    case_id: str,
    agency: str,
    purpose: Purpose,
    member: Member,
) -> None:
    """Her consent is recorded, and what it covers goes to the desk of the referral."""
    own = consents.record_consent(
        db,
        here,
        actor,
        now,
        case_id=case_id,
        agency=agency,
        purposes=(purpose,),
        sections=member.agreed,
        details=member.details,
        valid_until=member.valid_until,
        is_minor=member.is_minor,
        who=member.who,
    )
    known = {section: raw for section, raw in member.sections.items() if section in member.agreed}
    notes.add_member(db, here, actor, now, referral_id=referral_id, release_id=own, sections=known)


def add(
    db: Connection,
    here: Here,
    actor: Actor,
    now: datetime,
    *,
    draft_id: str,
    referral_id: str,
    members: Sequence[Member],
) -> None:
    """Others come along in a referral that was sent: all of them or none, and the draft is gone.

    Raises LocalError `unknown-draft` when it was sent before: a second click sends nothing twice; `nothing-agreed`;
    `consent-expired`; and what `notes.add_member` raises.
    """
    row = referrals.load(db, actor, referral_id)
    coming = [member for member in members if member.comes]
    if not coming:
        raise LocalError("nothing-agreed", "Nothing may be shared of this person, so there is nothing to send.")
    refuse_if_ended(now, [member.valid_until for member in coming])
    if not drafts.discard(db, actor, draft_id):
        raise LocalError("unknown-draft", "This was sent already, or discarded. Nothing was sent twice.")
    for member in coming:
        join(
            db,
            here,
            actor,
            now,
            referral_id=referral_id,
            case_id=row.case_id,
            agency=row.peer,
            purpose=Purpose(row.kind),
            member=member,
        )
    _tell_outside(db, here, now, row)


def tell(
    db: Connection,
    here: Here,
    actor: Actor,
    now: datetime,
    *,
    referral_id: str,
    release_id: str,
    sections: Mapping[Section, bytes],
    member_id: str | None = None,
) -> str:
    """Somebody comes along on a consent that is recorded already; with `member_id`, what was said of her is corrected.

    Returns her id in this referral. A change of contact or safety goes as urgent. Raises LocalError `child-asked-anew`
    when the correction makes a child of her, `unknown-member`, and what `notes.add_member` raises.
    """
    row = referrals.load(db, actor, referral_id)
    priority = None
    if member_id is not None:
        before = said_of(db, here, actor, now, referral_id=referral_id, member_id=member_id)["sections"]
        if any(_differs(sections, before, section) for section in _URGENT):
            priority = Priority.URGENT
    member = notes.add_member(
        db,
        here,
        actor,
        now,
        referral_id=referral_id,
        release_id=release_id,
        sections=sections,
        member_id=member_id,
        priority=priority,
    )
    _tell_outside(db, here, now, row)
    return member


def said_of(
    db: Connection, here: Here, actor: Actor, now: datetime, *, referral_id: str, member_id: str
) -> dict[str, Any]:
    """What was said last of one of them, opened, with her release. Raises LocalError `unknown-referral`,
    `unknown-member`."""
    shown = show.show(db, here, actor, now, referral_id=referral_id)
    found: dict[str, Any] | None = shown["members"].get(member_id)
    if found is None:
        raise LocalError("unknown-member", "There is no such person in this referral.")
    return found


def _tell_outside(db: Connection, here: Here, now: datetime, row: Any) -> None:
    if peers.has_no_node(db, here, row.peer):
        tasks.open_task(db, now, referrals.OUTSIDE_TASK, row.id, desk_id=row.desk_id, staff_id=row.staff_id)


def _differs(sections: Mapping[Any, Any], before: Mapping[Any, Any], section: Section) -> bool:
    one, other = (msgspec.json.decode(said.get(section, b"{}")) for said in (sections, before))
    return bool(one != other)
