# SPDX-License-Identifier: Apache-2.0
"""Files of a referral (Specification, 6.6): sealed part by part while they come in, sent behind everything else.

While it is uploaded a file lies here as sealed parts that belong to nobody's message; when it is whole it becomes
messages in one transaction. What was cut off is gone the next day.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final

from sqlalchemy import Connection, delete, func, insert, select

from node.casework import consents, records, referrals
from node.exchange import outbox, peers
from node.office import audit, tasks
from node.office.actor import Actor
from node.office.desks import desk_keys_for
from node.storage import parts as places
from node.storage.here import Here
from node.storage.tables import Lane, Side, bodies, messages, releases
from node.storage.tables import attachments as rows
from node.storage.tables import records as staged
from protocol import crypto, record, referral
from protocol.codes import Priority, Purpose, Section
from protocol.encoding import ATTACHMENT_MAX_BYTES, ATTACHMENT_PART_BYTES, encode
from protocol.errors import LocalError, say
from protocol.messages import AttachmentPart, AttachmentRef, ReferralNote, parse
from protocol.referral import FINAL, Action

#: Files of one referral: papers and photographs of one person, not an archive.
FILES_MAX: Final = 20
NAME_MAX: Final = 120
#: An upload that was cut off is forgotten after a day; the person has tried again long before.
_KEPT: Final = timedelta(days=1)
_KIND: Final = "upload"


@dataclass(frozen=True, slots=True)
class File:
    """A file as its sealed descriptor has it: `size` in bytes, `sha256` of the whole in hexadecimal."""

    id: str
    name: str
    type: str
    size: int
    sha256: str
    about: str = ""


def may_attach(db: Connection, here: Here, actor: Actor, now: datetime, *, referral_id: str) -> Any:
    """The referral's row, if this person may send a file with it now.

    Asked before anything is read of an upload. Raises LocalError: `not-source`, `illegal-transition`,
    `section-not-covered` (she was not asked about files), `too-many-files`, or why the consent permits nothing.
    """
    actor.require_role(*referral.ROLES[Action.SEND])
    row = referrals.load(db, actor, referral_id)
    release = db.execute(select(releases).where(releases.c.id == row.release_id)).first()
    if row.side != Side.SOURCE or release is None:
        raise LocalError("not-source", "Only the agency that referred her can add files to it.")
    if row.status in FINAL:
        raise LocalError("illegal-transition", "This referral has ended. Begin a new one.")
    _agreed(release, row, now)
    held = select(func.count(func.distinct(rows.c.id))).where(rows.c.referral_id == referral_id)
    if (db.execute(held).scalar() or 0) >= FILES_MAX:
        raise LocalError("too-many-files", say("A referral has at most {limit} files.", limit=FILES_MAX))
    return row


def _agreed(release: Any, row: Any, now: datetime) -> Any:
    police = Purpose.LAW_ENFORCEMENT in consents.as_release(release).purposes
    purpose = Purpose.LAW_ENFORCEMENT if police else Purpose(row.kind)
    return consents.check(release, recipient=row.peer, purpose=purpose, sections=[Section.ATTACHMENTS], now=now)


def stage(
    db: Connection,
    here: Here,
    actor: Actor,
    now: datetime,
    *,
    referral_id: str,
    upload_id: str,
    index: int,
    data: bytes,
) -> None:
    """One part of an upload lies here, sealed to our desk."""
    row = referrals.load(db, actor, referral_id)
    records.save(
        db,
        here,
        actor,
        now,
        kind=f"{_KIND}-{index:03}",
        subject_id=upload_id,
        desk_id=row.desk_id,
        sections={Section.ATTACHMENTS: data},
    )


def attach(
    db: Connection,
    here: Here,
    actor: Actor,
    now: datetime,
    *,
    referral_id: str,
    upload_id: str,
    parts: int,
    file: File,
) -> None:
    """What was staged is a file of the referral and on its way; nothing of it is staged any more.

    For an agency without a node it stays here, sealed, and is a person's task: only she can hand a copy over.
    Raises what `may_attach` raises: consent may have ended while the file came in. LocalError `upload-cut` when a part
    is missing.
    """
    row = may_attach(db, here, actor, now, referral_id=referral_id)
    release = db.execute(select(releases).where(releases.c.id == row.release_id)).one()
    claim = consents.claim_of(_agreed(release, row, now), [Section.ATTACHMENTS])
    readers = referrals.readers(db, here, now, row, [Section.ATTACHMENTS])
    commitments = b""
    for index in range(parts):
        opened = records.latest(db, here, actor, f"{_KIND}-{index:03}", upload_id)
        if opened is None:
            raise LocalError("upload-cut", "The file did not come in whole. Send it once more.")
        part = outbox.compose(
            db,
            here,
            now,
            row.thread_id,
            AttachmentPart,
            sections=opened,
            readers=readers,
            claim=claim,
            priority=Priority.NORMAL,
            lane=Lane.FILES,
            referral=referral_id,
            attachment=file.id,
            index=index,
            parts=parts,
        )
        commitments += bytes.fromhex(part.sections[Section.ATTACHMENTS])
        keep_part(db, part, here.agency)
    described = {
        name: getattr(file, name) for name in ("id", "name", "type", "size", "sha256", "about") if getattr(file, name)
    }
    outbox.compose(
        db,
        here,
        now,
        row.thread_id,
        ReferralNote,
        sections={Section.ATTACHMENTS: encode({"files": [described]})},
        readers=readers,
        claim=claim,
        priority=Priority(row.priority),
        lane=Lane.FILES,
        referral=referral_id,
        attachments=(AttachmentRef(id=file.id, hash=crypto.sha256_hex(commitments), parts=parts),),
    )
    if peers.has_no_node(db, here, row.peer):
        task = referrals.OUTSIDE_TASK
        tasks.open_task(db, now, task, referral_id, desk_id=row.desk_id, staff_id=row.staff_id)
    forget_upload(db, upload_id)
    audit.record(db, now, actor.staff_id, "referral.attach", referral_id, basis=release.basis, peer=row.peer)


def stays_here(db: Connection, here: Here, referral_id: str) -> bool:
    """Whether files of this referral cannot be sent: the other agency has no node."""
    return peers.has_no_node(db, here, referrals.load(db, Actor.node(), referral_id).peer)


def keep_part(db: Connection, part: AttachmentPart, agency: str) -> None:
    """The part's message is known as this part of its file."""
    row = {
        "id": part.attachment,
        "part": part.index,
        "parts": part.parts,
        "agency": agency,
        "message_id": part.id,
        "referral_id": part.referral,
    }
    known = (rows.c.agency == agency) & (rows.c.id == part.attachment) & (rows.c.part == part.index)
    if db.execute(select(rows.c.id).where(known)).first() is None:
        db.execute(insert(rows), row)


def forget_upload(db: Connection, upload_id: str) -> None:
    """Nothing of this upload is staged any more."""
    db.execute(delete(staged).where(staged.c.subject_id == upload_id, staged.c.kind.startswith(f"{_KIND}-")))


def forget_cut(db: Connection, here: Here, now: datetime) -> int:
    """Uploads that never became whole are gone. Returns how many parts."""
    old = staged.c.kind.startswith(f"{_KIND}-") & (staged.c.at < now - _KEPT)
    return db.execute(delete(staged).where(old)).rowcount


def arrived(db: Connection, referral_id: str) -> dict[str, bool]:
    """The files of a referral of which parts are here, and whether all of them are."""
    query = (
        select(rows.c.id, func.count().label("here"), func.max(rows.c.parts).label("parts"))
        .where(rows.c.referral_id == referral_id)
        .group_by(rows.c.id)
    )
    return {row.id: row.here == row.parts for row in db.execute(query)}


def find(shown: dict[str, Any], file_id: str) -> tuple[File, AttachmentRef]:
    """The descriptor of a file in an opened referral (`show.show`), with what its header says. Raises LocalError."""
    for said in shown["files"]:
        for entry in said["files"]:
            if entry["id"] == file_id:
                reference = next((ref for ref in said["refs"] if ref.id == file_id), None)
                if reference is not None:
                    return File(**entry), reference
    raise LocalError("unknown-file", "There is no such file in this referral, or it has been erased.")


def read_part(
    db: Connection, here: Here, actor: Actor, *, referral_id: str, file_id: str, index: int
) -> tuple[bytes, str]:
    """One part's bytes and its commitment.

    Raises LocalError `unknown-file` if it is locked, erased or not here yet, `file-away` if the depot lacks it.
    """
    referrals.load(db, actor, referral_id)
    row = db.execute(
        select(messages, bodies.c.body_sealed, rows.c.place)
        .join(rows, (rows.c.message_id == messages.c.id) & (rows.c.agency == messages.c.agency))
        .join(bodies, bodies.c.content_hash == messages.c.content_hash)
        .where(
            rows.c.referral_id == referral_id,
            rows.c.id == file_id,
            rows.c.part == index,
            messages.c.locked_at.is_(None),
        )
    ).first()
    content = None if row is None else parse(row.content)
    if row is None or not isinstance(content, AttachmentPart):
        raise LocalError("unknown-file", "There is no such file in this referral, or it has been erased.")
    context = record.Context(content.sender, content.recipient, content.thread, content.id, row.content_hash)
    for key in desk_keys_for(db, actor, set(record.parse(row.body_sealed).keyrings)).values():
        body = places.whole(here.depot, row.content_hash, row.body_sealed, row.place)
        if body is None:
            raise LocalError("file-away", "A part of this file is not where it should lie. Tell your administrator.")
        opened = record.open_sections(body, key, context, content.sections)
        return opened[Section.ATTACHMENTS], content.sections[Section.ATTACHMENTS]
    raise LocalError("no-desk-key", "You have no key for this desk. Ask one of its members to add you.")


def check_whole(commitments: Sequence[str], digest: str, file: File, reference: AttachmentRef) -> None:
    """Raise LocalError `file-damaged` unless what was read is exactly what was announced."""
    joined = crypto.sha256_hex(b"".join(bytes.fromhex(one) for one in commitments))
    if joined != reference.hash or digest != file.sha256:
        raise LocalError("file-damaged", "This file is not what was announced. Ask the other agency to send it again.")


__all__ = [
    "ATTACHMENT_MAX_BYTES",
    "ATTACHMENT_PART_BYTES",
    "File",
    "arrived",
    "attach",
    "check_whole",
    "find",
    "forget_cut",
    "forget_upload",
    "keep_part",
    "may_attach",
    "read_part",
    "stage",
    "stays_here",
]
