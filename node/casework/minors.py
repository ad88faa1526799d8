# SPDX-License-Identifier: Apache-2.0
"""Who is a child, and what follows: she and a guardian agree together, until she is of age and is asked herself.

A guardian's consent ends by itself by the 18th birthday. Its end stands in the clear, in a row and in the header of
what is sent, and must not say when she was born: by chance it lies up to two weeks before the birthday, never after it.
Where her age is disputed the rules for children go on.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import date, datetime, timedelta
from typing import Any, Final

import msgspec
from sqlalchemy import Connection, select, update

from node.casework import records
from node.casework.calendars import office_calendar
from node.office import audit
from node.office.actor import Actor
from node.storage.here import Here
from node.storage.tables import IS_PERMITTING, releases
from protocol import consent, crypto
from protocol.codes import Basis, Section
from protocol.consent import Collected, Details
from protocol.errors import LocalError

_SPREAD_DAYS: Final = 14
#: The age bands for which the rules for children hold.
MINOR_BANDS: Final = frozenset({"0-11", "12-17"})


def is_child(identity: Mapping[str, Any], today: date) -> bool:
    """Whether the rules for children hold: by her age band or day of birth, and always where her age is disputed."""
    if identity.get("age_disputed") is True or identity.get("age_band") in MINOR_BANDS:
        return True
    try:
        return today < _eighteenth(str(identity.get("birth_date", "")))
    except ValueError:
        return False


def is_known_child(db: Connection, here: Here, actor: Actor, now: datetime, case_id: str) -> bool:
    """Whether she is one by what her case knows."""
    known = records.latest(db, here, actor, "case", case_id) or {}
    return is_child(json.loads(known.get(Section.IDENTITY, b"{}")), office_calendar(here).local(now).date())


def refuse_without_guardian(
    db: Connection,
    here: Here,
    actor: Actor,
    now: datetime,
    *,
    release: Any,
    sections: Mapping[Section, bytes],
    case_id: str | None = None,
) -> None:
    """Whoever is a child by these sections (or, where they do not say who she is, by her case) is told of only on a
    consent that was given as a child's is. `release` is its row. Raises LocalError `child-asked-anew`.

    For the person herself and for whoever comes along alike, when she is told of first and when that is corrected.
    """
    if Section.IDENTITY in sections:
        today = office_calendar(here).local(now).date()
        if not is_child(json.loads(sections[Section.IDENTITY]), today):
            return
    elif case_id is None or not is_known_child(db, here, actor, now, case_id):
        return
    if release.basis != Basis.CONSENT:
        return
    said = (records.latest(db, here, actor, "consent", release.id) or {}).get(Section.NARRATIVE)
    details = None if said is None else msgspec.json.decode(said, type=Details)
    if details is None or not (details.guardian_decision and details.childs_own_answer):
        raise LocalError(
            "child-asked-anew",
            "For a child other rules hold. Stop sharing, ask her and her guardian, and begin anew with the decision "
            "that appointed the guardian.",
        )


def is_guardians(details: Details) -> bool:
    """Whether a guardian consented, for herself or beside the child."""
    return details.collected is Collected.GUARDIAN or bool(details.guardian_decision)


def limit(db: Connection, here: Here, actor: Actor, now: datetime, *, case_id: str, valid_until: datetime) -> datetime:
    """Until when a guardian's consent for this case may count: `valid_until`, or before she is of age.

    Raises LocalError `of-age` when she is already.
    """
    birthday = _comes_of_age(db, here, actor, case_id)
    if birthday is None:
        return valid_until
    calendar = office_calendar(here)
    left = (birthday - calendar.local(now).date()).days
    if left <= 0:
        raise LocalError(
            "of-age", "She is of age: nobody else can agree for her any more. Ask her, and record a new consent."
        )
    if valid_until < calendar.instant(birthday - timedelta(days=_SPREAD_DAYS), 0):
        return valid_until
    early = crypto.random_bytes(1)[0] % min(_SPREAD_DAYS, left)
    return min(valid_until, calendar.instant(birthday - timedelta(days=early), 0))


def limit_renewal(
    db: Connection, here: Here, actor: Actor, now: datetime, *, release: Any, valid_until: datetime
) -> datetime:
    """The same for a release that is renewed; one that is not a guardian's runs as long as was asked for.

    What she agreed to alone, and was known as a child only later, is not renewed: `child-asked-anew`.
    """
    details = _her_own(db, here, actor, release)
    if details is None or not is_guardians(details):
        if details is not None:
            refuse_without_guardian(db, here, actor, now, release=release, sections={}, case_id=release.case_id)
        return valid_until
    return limit(db, here, actor, now, case_id=release.case_id, valid_until=valid_until)


def shorten(db: Connection, here: Here, actor: Actor, now: datetime, *, case_id: str) -> None:
    """Her day of birth became known or was corrected: what a guardian agreed to ends in time."""
    if _comes_of_age(db, here, actor, case_id) is None:
        return
    query = select(releases).where(releases.c.case_id == case_id, releases.c.ours.is_(True), IS_PERMITTING)
    for row in db.execute(query).all():
        details = _her_own(db, here, actor, row)
        if details is None or not is_guardians(details):
            continue
        try:
            until = limit(db, here, actor, now, case_id=case_id, valid_until=row.valid_until)
        except LocalError:
            until = min(now, row.valid_until)  # she is of age: the next sweep ends it, and opens the task
        if until < row.valid_until:
            db.execute(update(releases).where(releases.c.id == row.id).values(valid_until=until))
            audit.record(db, now, actor.staff_id, "consent.shorten", row.id, peer=row.agency)


def _her_own(db: Connection, here: Here, actor: Actor, row: Any) -> Details | None:
    """How the person whom the case is about agreed; None for another basis and for somebody who came along."""
    if row.basis != Basis.CONSENT:
        return None
    opened = records.latest(db, here, actor, "consent", row.id) or {}
    # Somebody who came along has her own birthday, which this case does not know.
    if Section.NARRATIVE not in opened or Section.IDENTITY in opened:
        return None
    return msgspec.json.decode(opened[Section.NARRATIVE], type=Details)


def _comes_of_age(db: Connection, here: Here, actor: Actor, case_id: str) -> date | None:
    """The day on which she is of age; None where it is not known, or disputed."""
    opened = records.latest(db, here, actor, "case", case_id) or {}
    identity = json.loads(opened.get(Section.IDENTITY, b"{}"))
    if "birth_date" not in identity or identity.get("age_disputed") is True:
        return None
    return _eighteenth(identity["birth_date"])


def _eighteenth(birth_date: str) -> date:
    born = date.fromisoformat(birth_date)
    return date(*consent.guardian_consent_ends(born.year, born.month, born.day))
