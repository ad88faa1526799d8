# SPDX-License-Identifier: Apache-2.0
"""How a person may be reached, when somebody may try again, and what follows when she gets in touch herself.

Nobody tries outside the hours that she gave, and never three times in a week at one number. What was tried at which
number stands only in sealed records. Who wants no contact finds the door open, in words that the agency chose.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final

import msgspec
from sqlalchemy import Connection, select, update

from node.casework import cases, followups, records
from node.casework.calendars import office_calendar
from node.office import audit
from node.office.actor import Actor
from node.storage.here import Here
from node.storage.settings import get_setting, set_setting
from node.storage.tables import FollowupKind
from node.storage.tables import cases as case_rows
from node.storage.tables import followups as rows
from node.storage.tables import records as sealed
from protocol import crypto, followup
from protocol.codes import FollowupOutcome, Risk, Role, Section
from protocol.encoding import encode
from protocol.errors import LocalError, say
from protocol.followup import Next, Windows
from protocol.sections import is_hours

#: The setting with the agency's words for who wants no contact, by language.
DOOR: Final = "door-words"
#: What is read aloud in a minute.
DOOR_MAX: Final = 600
#: Languages for which an agency may choose its words: more than the pages have.
LANGUAGES_MAX: Final = 20
#: Only somebody who was reached can say that her safe-contact record is still right.
REACHED: Final = frozenset(
    {FollowupOutcome.REACHED_SAFE, FollowupOutcome.REACHED_NEEDS_SUPPORT, FollowupOutcome.REACHED_AT_RISK}
)
#: What may come of it when she gets in touch herself, and so what is a contact.
CAME: Final = REACHED | {FollowupOutcome.CONTACT_DECLINED}
_CONFIRMED: Final = "contact-confirmed"
_WEEK: Final = timedelta(days=7)
#: Reports of one case within a week that are opened to count tries: more than anybody makes.
_TRIES_MAX: Final = 50


@dataclass(frozen=True, slots=True)
class Way:
    """One safe way to reach her: the channel, its number or address, and the hours of the week."""

    channel: str
    value: str
    windows: Windows


def record_of(db: Connection, here: Here, actor: Actor, row: Mapping[str, Any]) -> dict[str, Any] | None:
    """The safe-contact record to use for this follow-up: the case's own, else what the referral brought; None for none.

    No record means: do not contact.
    """
    opened = records.latest(db, here, actor, "case", row["case_id"]) or {}
    raw = opened.get(Section.CONTACT)
    is_own = raw is not None
    if raw is None and row["referral_id"]:
        from node.casework import show

        try:
            shown = show.show(db, here, actor, row["due_at"], referral_id=row["referral_id"])
            raw = shown["sections"].get(str(Section.CONTACT))
        except LocalError:
            # What this person may not read is no record for her, and no reason that she cannot say what came of it.
            raw = None
    if raw is None and row["case_id"]:
        from node.casework import keeping

        raw = keeping.contact_of_case(db, here, actor, row["due_at"], row["case_id"])
    found: dict[str, Any] | None = None if raw is None else msgspec.json.decode(raw)
    if found is not None and not is_own:
        # What another agency wrote is not copied into our case; that she confirmed it stands beside it.
        said = records.latest(db, here, actor, _CONFIRMED, row["case_id"]) or {}
        on = msgspec.json.decode(said.get(Section.NARRATIVE, b"{}")).get("on", "")
        found |= {"confirmed_on": on} if on > str(found.get("confirmed_on", "")) else {}
    return found


def ways(contact: Mapping[str, Any] | None) -> list[Way]:
    """The safe ways of a safe-contact record, the first first; none where she may not be contacted."""
    if contact is None or contact.get("contact_permitted") != "yes":
        return []
    found = []
    for entry in contact.get("channels", ()):
        if entry.get("safe") is True:
            hours = entry.get("safe_times", ())
            windows = [
                (day, one["opens"], one["closes"]) for one in hours if is_hours(hours) for day in set(one["days"])
            ]
            found.append(Way(str(entry.get("channel", "")), str(entry.get("value", "")), windows))
    return found


def outlook(db: Connection, here: Here, actor: Actor, now: datetime, row: Mapping[str, Any]) -> dict[str, Any]:
    """What somebody needs before trying: the record, the safe ways, and for each the tries and what would follow.

    `not_before` is set while a way was tried twice in a week; `try_at` is the next try if nobody answers now, None
    where a supervisor decides.
    """
    contact = record_of(db, here, actor, row) if row["case_id"] else None
    shown = []
    for way in ways(contact):
        made = tries(db, here, actor, now, row["case_id"], way)
        from_when = followup.not_before(made, now)
        after = _after(here, now, way, made)
        shown.append(
            {
                "channel": way.channel,
                "tries": made,
                "not_before": from_when if from_when > now else None,
                "try_at": after.try_at,
            }
        )
    return {"contact": contact, "ways": shown}


def tries(db: Connection, here: Here, actor: Actor, now: datetime, case_id: str, way: Way) -> list[datetime]:
    """When nobody was reached this way in the last seven days, the first first; reports of our desks only."""
    query = (
        select(rows.c.record_id, rows.c.reported_at)
        .where(
            rows.c.case_id == case_id,
            rows.c.record_id.is_not(None),
            rows.c.reported_at > now - _WEEK,
            rows.c.desk_id.in_(actor.desks),
        )
        .order_by(rows.c.reported_at)
    )
    found = []
    for row in db.execute(query.limit(_TRIES_MAX)).all():
        said = _said(db, here, actor, row.record_id)
        # One whose number was not written down counts for every number.
        if said.get("outcome") == FollowupOutcome.NOT_REACHED and said.get("tried", way.value) == way.value:
            found.append(row.reported_at)
    return found


def _said(db: Connection, here: Here, actor: Actor, record_id: str) -> dict[str, Any]:
    opened = records.read(db, here, actor, record_id)
    found: dict[str, Any] = msgspec.json.decode(opened.get(Section.NARRATIVE, b"{}"))
    return found


def _after(here: Here, now: datetime, way: Way, made: list[datetime]) -> Next:
    return followup.after_outcome(FollowupOutcome.NOT_REACHED, made, way.windows, office_calendar(here), now)


def after_no_answer(
    db: Connection, here: Here, actor: Actor, now: datetime, row: Mapping[str, Any], channel: str
) -> tuple[Next, str]:
    """What follows when nobody was reached, and the number that was tried ("" where none is known).

    `channel` "" is the first safe way. Raises LocalError `channel` for one that her record does not have.
    """
    known = ways(record_of(db, here, actor, row)) if row["case_id"] else []
    chosen = [way for way in known if channel in ("", way.channel)]
    if channel and not chosen:
        raise LocalError("channel", "Her safe-contact record has no such way. Choose one that it has.")
    if not chosen:
        return Next(tell_supervisor=True), ""
    way = chosen[0]
    return _after(here, now, way, tries(db, here, actor, now, row["case_id"], way)), way.value


def confirm(db: Connection, here: Here, actor: Actor, now: datetime, row: Mapping[str, Any]) -> None:
    """She says that her safe-contact record is still right: it carries today's date."""
    case_id = row["case_id"]
    if case_id is None or record_of(db, here, actor, row) is None:
        raise LocalError(
            "no-contact-record", "There is no safe-contact record to confirm. Write down on the case how to reach her."
        )
    today = office_calendar(here).local(now).date().isoformat()
    raw = (records.latest(db, here, actor, "case", case_id) or {}).get(Section.CONTACT)
    if raw is not None:
        values = msgspec.json.decode(raw) | {"confirmed_on": today}
        cases.record_sections(db, here, actor, now, case_id=case_id, sections={Section.CONTACT: encode(values)})
        return
    sections = {Section.NARRATIVE: encode({"on": today})}
    records.save(db, here, actor, now, kind=_CONFIRMED, subject_id=case_id, desk_id=row["desk_id"], sections=sections)


#: Reports of follow-ups whose record was not erased since.
_WRITTEN: Final = select(rows.c.record_id, rows.c.reported_at).join(sealed, sealed.c.id == rows.c.record_id)


def last_report(db: Connection, here: Here, actor: Actor, case_id: str) -> dict[str, Any] | None:
    """What came of the case's last follow-up by our people, and what was to be next; None if there was none."""
    cases.load(db, actor, case_id)
    query = _WRITTEN.where(
        rows.c.case_id == case_id,
        rows.c.kind == FollowupKind.CONTACT,
        rows.c.desk_id.in_(actor.desks),
    ).order_by(rows.c.reported_at.desc())
    row = db.execute(query.limit(1)).first()
    return None if row is None else {"at": row.reported_at, **_said(db, here, actor, row.record_id)}


def reports(db: Connection, here: Here, actor: Actor, case_id: str) -> list[dict[str, Any]]:
    """Everything that our people wrote down about follow-ups of this case, the first first; of the actor's desks."""
    cases.load(db, actor, case_id)
    query = _WRITTEN.where(rows.c.case_id == case_id, rows.c.desk_id.in_(actor.desks)).order_by(rows.c.reported_at)
    return [{"at": row.reported_at, **_said(db, here, actor, row.record_id)} for row in db.execute(query).all()]


def she_came(
    db: Connection,
    here: Here,
    actor: Actor,
    now: datetime,
    *,
    case_id: str,
    outcome: FollowupOutcome,
    text: str = "",
    next_step: str = "",
    contact_confirmed: bool = False,
    contact_again: bool = False,
) -> None:
    """She got in touch herself: that fulfils the next follow-up, and the plan goes on from there.

    `contact_again`: she had wanted no contact, and wants to be contacted again; the case gets a next date. Raises
    LocalError `case-closed`, `outcome`.
    """
    actor.require_role(Role.CASEWORKER, Role.INTAKE, Role.SUPERVISOR)
    case = cases.load(db, actor, case_id)
    if case.closed_at is not None:
        raise LocalError("case-closed", "This case is closed. Open a new one.")
    if outcome not in CAME:
        raise LocalError("outcome", "Choose what came of it.")
    query = select(rows.c.id).where(
        rows.c.case_id == case_id,
        rows.c.kind == FollowupKind.CONTACT,
        rows.c.ours.is_(True),
        rows.c.ended.is_(False),
        rows.c.reported_at.is_(None),
        rows.c.desk_id.in_(actor.desks),
    )
    followup_id = db.execute(query.order_by(rows.c.due_at).limit(1)).scalar()
    if followup_id is None:
        followup_id = followups.insert_row(
            db,
            now,
            here,
            due_at=now,
            risk=Risk(case.risk),
            plan_id=crypto.new_id(),
            ordinal=1,
            ours=True,
            desk_id=case.desk_id,
            staff_id=case.staff_id,
            case_id=case_id,
        )
    if contact_again and case.do_not_contact and outcome is not FollowupOutcome.CONTACT_DECLINED:
        db.execute(update(case_rows).where(case_rows.c.id == case_id).values(do_not_contact=False))
        audit.record(db, now, actor.staff_id, "case.contact-again", case_id)
    followups.report(
        db,
        here,
        actor,
        now,
        followup_id=followup_id,
        outcome=outcome,
        text=text,
        next_step=next_step,
        contact_confirmed=contact_confirmed,
        she_came=True,
    )


# -- the door stays open ---------------------------------------------------------------------------------------------


def door_words(db: Connection) -> dict[str, str]:
    """What the agency tells somebody who wants no contact, by language; one that is not there has our own text."""
    found: dict[str, str] = json.loads(get_setting(db, DOOR) or "{}")
    return found


def choose_door_words(db: Connection, here: Here, actor: Actor, now: datetime, *, words: Mapping[str, str]) -> None:
    """From now on these words stand on the screen and on her copy. A language without any goes back to our own text.

    Raises LocalError `door-words`.
    """
    actor.require_role(Role.SUPERVISOR, Role.DIRECTOR)
    kept = {tag: text.strip() for tag, text in words.items() if text.strip()}
    if len(words) > LANGUAGES_MAX or any(len(tag) > 8 or len(text) > DOOR_MAX for tag, text in kept.items()):
        raise LocalError("door-words", say("Write at most {limit} characters in each language.", limit=DOOR_MAX))
    set_setting(db, DOOR, json.dumps(kept, sort_keys=True))
    audit.record(db, now, actor.staff_id, "followup.door-words", here.agency)
