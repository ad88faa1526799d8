# SPDX-License-Identifier: Apache-2.0
"""What a withdrawal asks of a holder: locked by the node at once, erased or kept by a person, signed.

An erasure is signed only after the database has overwritten the bytes: the caller truncates the write-ahead log between
`erase_under` and `sign_erasure`.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import datetime
from typing import Any, Final

from sqlalchemy import Connection, delete, insert, or_, select, update

from node.casework import cases, records
from node.exchange import outbox
from node.office import audit, tasks
from node.office.actor import Actor
from node.storage.database import note_erasure
from node.storage.here import Here
from node.storage.tables import bodies, disclosures, erasures, messages, referrals, releases, threads, withdrawals
from node.storage.tables import outbox as outbox_rows
from protocol import consent, record
from protocol.codes import Role, Section
from protocol.encoding import encode, seconds
from protocol.errors import LocalError
from protocol.messages import ConsentErased

TASK: Final = "erase-or-keep"
LAW_MAX: Final = 500


def erase_under(
    db: Connection,
    here: Here,
    actor: Actor,
    now: datetime,
    *,
    withdrawal_id: str,
    keep: Mapping[Section, str] | None = None,
) -> tuple[int, int]:
    """Erase what came under the withdrawn release, except sections that a named law makes us keep.

    Returns how many sealed sections were erased and kept. The caller then truncates the log and calls `sign_erasure`.
    """
    actor.require_role(Role.CASEWORKER, Role.INTAKE, Role.LIAISON, Role.SUPERVISOR)
    row, desk_id = _load(db, actor, withdrawal_id)
    if row.answered_at is not None:
        raise LocalError("already-answered", "This withdrawal was answered already.")
    if row.erase and row.erase_from is not None and now < row.erase_from:
        raise LocalError("erase-later", "The erasure is not final yet: she may still be asked. The data is locked.")
    kept_sections = dict(keep or {})
    if any(not 1 <= len(law.strip()) <= LAW_MAX for law in kept_sections.values()):
        raise LocalError("law-needed", "Name the law that makes you keep each section that you do not erase.")
    erased, kept = 0, 0
    for message in db.execute(_held(row.release_id)).all():
        present = list(record.parse(message.body_sealed).sections)
        going = [section for section in present if section not in kept_sections]
        kept += len(present) - len(going)
        if going:
            erase_body(db, now, message, going)
            erased += len(going)
    if kept_sections:
        reasons = {section.value: law for section, law in kept_sections.items()}
        text = {Section.LEGAL: encode(reasons)}
        records.save(db, here, actor, now, kind="kept", subject_id=withdrawal_id, desk_id=desk_id, sections=text)
    values = {"erased_count": (row.erased_count or 0) + erased, "kept_count": kept}
    db.execute(update(withdrawals).where(withdrawals.c.id == withdrawal_id).values(**values))
    audit.record(db, now, actor.staff_id, "consent.erase", withdrawal_id, peer=_owner(db, row))
    return erased, kept


def sign_erasure(db: Connection, here: Here, actor: Actor, now: datetime, *, withdrawal_id: str) -> str:
    """Tell the agency that collected the consent what was erased and kept. Only after the bytes are gone from disk."""
    row, desk_id = _load(db, actor, withdrawal_id)
    if row.erased_count is None or row.answered_at is not None:
        raise LocalError("not-erased", "Erase first, or say what is kept; then sign.")
    reasons = records.latest(db, here, actor, "kept", withdrawal_id)
    thread = db.execute(select(threads).where(threads.c.id == row.thread_id)).one()
    sections: dict[Section, bytes] = {}
    readers = None
    if reasons is not None:
        member = here.directory.members.get(thread.peer)
        desk = None if member is None else member.peer.desk(thread.peer_desk, seconds(now))
        if desk is None:
            raise LocalError("unknown-desk", "The other agency's desk has no valid key now. Telephone it.")
        sections = {Section.LEGAL: reasons[Section.LEGAL]}
        readers = {desk.key: list(sections), records.desk_public(db, desk_id): list(sections)}
    message = outbox.compose(
        db,
        here,
        now,
        row.thread_id,
        ConsentErased,
        sections=sections,
        readers=readers,
        release=row.release_id,
        withdraw=withdrawal_id,
        at=seconds(now),
        erased=row.erased_count,
        kept=row.kept_count or 0,
        backups_until=seconds(now) + consent.BACKUP_SECONDS,
    )
    db.execute(update(withdrawals).where(withdrawals.c.id == withdrawal_id).values(answered_at=now, duty_at=None))
    tasks.close_task(db, now, TASK, withdrawal_id, actor.staff_id)
    audit.record(db, now, actor.staff_id, "consent.erasure-signed", withdrawal_id, peer=thread.peer)
    return message.id


def list_erasure(db: Connection, agency: str, message_id: str, sections: list[Section], now: datetime) -> None:
    """The ledger knows that these sections of this message are gone; a restored backup obeys it.

    Here in the database, and once that is committed in the lists outside of it.
    """
    note_erasure(db)
    where = (erasures.c.agency == agency) & (erasures.c.message_id == message_id)
    before = db.execute(select(erasures.c.sections).where(where)).scalar()
    if before is None:
        row = {"agency": agency, "message_id": message_id, "sections": json.dumps(sorted(sections)), "at": now}
        db.execute(insert(erasures), row)
    else:
        every = sorted({*json.loads(before), *sections})
        db.execute(update(erasures).where(where).values(sections=json.dumps(every), at=now))


def list_duties(db: Connection, actor: Actor) -> list[dict[str, Any]]:
    """Withdrawals that wait for an answer of this person's desks."""
    query = (
        select(withdrawals, threads.c.peer, threads.c.desk_id)
        .join(threads, threads.c.id == withdrawals.c.thread_id)
        .join(releases, releases.c.id == withdrawals.c.release_id)
        .where(
            withdrawals.c.answered_at.is_(None),
            releases.c.ours.is_(False),
            threads.c.desk_id.in_(actor.desks),
            cases.visible(actor, threads.c.id, threads.c.case_id),
        )
        .order_by(withdrawals.c.at)
        .limit(200)
    )
    return [dict(row) for row in db.execute(query).mappings()]


def what_is_held(db: Connection, release_id: str) -> dict[str, Any]:
    """The sections that are still here under another agency's release, and the referral or alert they came with."""
    held: set[str] = set()
    for message in db.execute(_held(release_id)).all():
        held |= {str(section) for section in record.parse(message.body_sealed).sections}
    referral = db.execute(select(referrals.c.id).where(referrals.c.release_id == release_id).limit(1)).scalar()
    if referral is None:  # somebody who came along, with a release of her own
        of_it = (messages.c.release_id == release_id) & messages.c.referral_id.is_not(None)
        referral = db.execute(select(messages.c.referral_id).where(of_it).limit(1)).scalar()
    alert = db.execute(select(disclosures.c.alert_id).where(disclosures.c.release_id == release_id)).scalar()
    return {"held": sorted(held), "referral": referral, "alert": alert}


def _load(db: Connection, actor: Actor, withdrawal_id: str) -> tuple[Any, str]:
    row = db.execute(select(withdrawals).where(withdrawals.c.id == withdrawal_id)).first()
    desk_id = None
    if row is not None:
        thread = db.execute(select(threads.c.desk_id, threads.c.case_id).where(threads.c.id == row.thread_id)).first()
        if thread is not None and not actor.is_kept_out(row.thread_id, thread.case_id):
            desk_id = thread.desk_id
        is_ours = db.execute(select(releases.c.ours).where(releases.c.id == row.release_id)).scalar()
        if is_ours:
            raise LocalError("not-holder", "This is for the agency that holds the data to answer.")
    if row is None or desk_id not in actor.desks:
        raise LocalError("unknown-withdrawal", "There is no such withdrawal at your desks.")
    return row, str(desk_id)


def covered(release_id: str) -> Any:
    """The messages that a withdrawal of another agency's release concerns: what came under it, and what was said in
    the referrals and alerts that came under it, by either side.
    """
    of_thread = select(releases.c.thread_id).where(releases.c.id == release_id).scalar_subquery()
    under = select(referrals.c.id).where(referrals.c.thread_id == of_thread, referrals.c.release_id == release_id)
    alerted = select(disclosures.c.alert_id).where(disclosures.c.release_id == release_id)
    is_about = or_(
        messages.c.release_id == release_id, messages.c.referral_id.in_(under), messages.c.referral_id.in_(alerted)
    )
    return (messages.c.thread_id == of_thread) & is_about


def _held(release_id: str) -> Any:
    return (
        select(messages.c.agency, messages.c.id, messages.c.content_hash, bodies.c.body_sealed)
        .join(bodies, bodies.c.content_hash == messages.c.content_hash)
        .where(covered(release_id))
    )


def erase_body(db: Connection, now: datetime, message: Any, sections: list[Section]) -> None:
    """These sections of one message are overwritten, and listed in the ledger."""
    this = bodies.c.content_hash == message.content_hash
    left = record.erase(message.body_sealed, sections)
    is_queued = db.execute(select(outbox_rows.c.number).where(outbox_rows.c.message_id == message.id)).first()
    if not record.parse(left).sections or is_queued is not None:
        # What has not arrived yet goes without its record: a recipient takes all that the header promises, or nothing.
        db.execute(delete(bodies).where(this))
    else:
        db.execute(update(bodies).where(this).values(body_sealed=left))
    list_erasure(db, message.agency, message.id, sections, now)


def erase_referral(db: Connection, now: datetime, referral_id: str) -> None:
    """Everything sealed that this referral's messages carried is erased; headers and trail stay."""
    query = (
        select(messages.c.agency, messages.c.id, messages.c.content_hash, bodies.c.body_sealed)
        .join(bodies, bodies.c.content_hash == messages.c.content_hash)
        .join(referrals, referrals.c.thread_id == messages.c.thread_id)
        .where(referrals.c.id == referral_id, messages.c.referral_id == referral_id)
    )
    for row in db.execute(query).all():
        present = list(record.parse(row.body_sealed).sections)
        if present:
            erase_body(db, now, row, present)


def _owner(db: Connection, row: Any) -> str | None:
    return db.execute(select(threads.c.peer).where(threads.c.id == row.thread_id)).scalar()
