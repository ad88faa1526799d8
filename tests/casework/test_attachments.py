# SPDX-License-Identifier: Apache-2.0
"""Files: whole or not at all, under a consent that covers files, locked and erased with everything else."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy import func, select

from node import filing
from node.casework import attachments, consents, erasure, show
from node.casework.attachments import File
from node.errors import StorageError, StorageFull
from node.exchange import outbox, resend, sending
from node.storage import parts
from node.storage.tables import Lane, bodies, messages, records
from node.storage.tables import attachments as rows
from node.storage.tables import outbox as queue
from protocol import crypto
from protocol.codes import Section
from protocol.encoding import ATTACHMENT_PART_BYTES
from protocol.errors import LocalError
from protocol.messages import AttachmentPart
from tests import depots as depots_of
from tests.depots import Memory, give_depot
from tests.world import SECTIONS, START, Agency, agree, carry, copy_rows, new_case, refer, restore, settle_all

CONTENT = crypto.random_bytes(2 * ATTACHMENT_PART_BYTES + 1_000)
WITH_FILES = (*SECTIONS, Section.ATTACHMENTS)


def referred(pair: tuple[Agency, Agency], sections: Any = WITH_FILES) -> tuple[str, str]:
    """A delivered referral: (its id, its release)."""
    one, other = pair
    case = new_case(one)
    release = agree(one, other, case, sections=sections)
    referral = refer(one, other, case_id=case, release_id=release)
    settle_all(pair, START)
    return referral, release


def upload(agency: Agency, referral: str, content: bytes = CONTENT, upload_id: str = "") -> tuple[str, int]:
    upload_id = upload_id or crypto.new_id()
    pieces = [content[at : at + ATTACHMENT_PART_BYTES] for at in range(0, len(content), ATTACHMENT_PART_BYTES)]
    for index, data in enumerate(pieces):
        agency.do(attachments.stage, START, referral_id=referral, upload_id=upload_id, index=index, data=data)
    return upload_id, len(pieces)


def attach(agency: Agency, referral: str, content: bytes = CONTENT) -> File:
    upload_id, parts = upload(agency, referral, content)
    digest = hashlib.sha256(content).hexdigest()
    file = File(crypto.new_id(), "permit.pdf", "application/pdf", len(content), digest, "Her permit")
    agency.do(attachments.attach, START, referral_id=referral, upload_id=upload_id, parts=parts, file=file)
    return file


def read(agency: Agency, referral: str, file: File) -> bytes:
    shown = agency.store.read(show.show, agency.here, agency.actor, START, referral_id=referral)
    found, reference = attachments.find(shown, file.id)
    assert found == file and agency.store.read(attachments.arrived, referral) == {file.id: True}
    parts = [
        agency.store.read(
            attachments.read_part, agency.here, agency.actor, referral_id=referral, file_id=file.id, index=index
        )
        for index in range(reference.parts)
    ]
    whole = b"".join(data for data, _ in parts)
    attachments.check_whole([c for _, c in parts], hashlib.sha256(whole).hexdigest(), file, reference)
    return whole


def code_of(fn: Any, *args: Any, **kwargs: Any) -> str:
    with pytest.raises(LocalError) as refused:
        fn(*args, **kwargs)
    return refused.value.code


def test_a_file_arrives_whole_and_both_ends_read_it(pair: tuple[Agency, Agency]) -> None:
    one, other = pair
    referral, _ = referred(pair)
    file = attach(one, referral)
    settle_all(pair, START)
    assert read(one, referral, file) == CONTENT == read(other, referral, file)
    held = one.store.read(lambda db: db.execute(select(func.count()).select_from(records)).scalar())
    assert held == one.store.read(
        lambda db: db.execute(
            select(func.count()).select_from(records).where(records.c.kind.not_like("upload-%"))
        ).scalar()
    ), "nothing is staged any more"


def test_a_page_of_the_referral_opens_no_part(pair: tuple[Agency, Agency]) -> None:
    one, other = pair
    referral, _ = referred(pair)
    attach(one, referral)
    settle_all(pair, START)
    shown = other.store.read(show.show, other.here, other.actor, START, referral_id=referral)
    assert len(shown["files"]) == 1 and "attachments" not in shown["sections"]
    assert [act["what"] for act in shown["history"]].count("attach") == 1


def test_files_wait_for_everything_else_and_one_request_takes_few(pair: tuple[Agency, Agency]) -> None:
    one, other = pair
    referral, _ = referred(pair)
    attach(one, referral)
    later = refer(one, other)
    dispatch = one.store.write(sending.claim, one.here, one.mail, START, other.id)
    assert dispatch is not None and [claimed.message_id for claimed in dispatch.claimed] == [later]
    one.store.write(sending.fail, START, dispatch, 0.5)
    lanes = one.store.read(lambda db: db.execute(select(queue.c.lane).order_by(queue.c.lane)).scalars().all())
    assert lanes.count(list(Lane).index(Lane.FILES)) == 4


def test_without_a_consent_to_files_none_is_taken(pair: tuple[Agency, Agency]) -> None:
    one, other = pair
    referral, _ = referred(pair, tuple(SECTIONS))
    assert code_of(one.do, attachments.may_attach, START, referral_id=referral) == "section-not-covered"
    assert code_of(attach, one, referral) == "section-not-covered"
    assert code_of(other.do, attachments.may_attach, START, referral_id=referral) in ("not-source", "unknown-referral")


def test_consent_that_ends_while_a_file_comes_in_stops_it(pair: tuple[Agency, Agency]) -> None:
    one = pair[0]
    referral, release = referred(pair)
    upload_id, parts = upload(one, referral)
    one.do(consents.withdraw, START, release_id=release, by_person=True, erase=False)
    file = File(crypto.new_id(), "permit.pdf", "application/pdf", len(CONTENT), "00" * 32)
    sending = {"referral_id": referral, "upload_id": upload_id, "parts": parts, "file": file}
    assert code_of(one.do, attachments.attach, START, **sending) in ("consent-withdrawn", "illegal-transition")
    assert one.store.read(lambda db: db.execute(select(rows.c.id)).all()) == []


def test_an_upload_that_was_cut_is_no_file_and_is_forgotten(pair: tuple[Agency, Agency]) -> None:
    one = pair[0]
    referral, _ = referred(pair)
    upload_id, parts = upload(one, referral)
    file = File(crypto.new_id(), "permit.pdf", "application/pdf", len(CONTENT), "00" * 32)
    sending = {"referral_id": referral, "upload_id": upload_id, "parts": parts + 1, "file": file}
    assert code_of(one.do, attachments.attach, START, **sending) == "upload-cut"
    assert one.store.write(attachments.forget_cut, one.here, START + timedelta(hours=23)) == 0
    assert one.store.write(attachments.forget_cut, one.here, START + timedelta(hours=25)) == parts


def test_a_withdrawal_locks_and_erases_files_too(pair: tuple[Agency, Agency]) -> None:
    one, other = pair
    referral, release = referred(pair)
    file = attach(one, referral)
    settle_all(pair, START)
    one.do(consents.withdraw, START, release_id=release, by_person=True, erase=True, confirmed=True)
    settle_all(pair, START)
    locked = {"referral_id": referral, "file_id": file.id, "index": 0}
    assert code_of(other.store.read, attachments.read_part, other.here, other.actor, **locked) == "unknown-file"
    duty = other.store.read(erasure.list_duties, other.actor)[0]["id"]
    other.do(erasure.erase_under, START, withdrawal_id=duty)
    left = other.store.read(
        lambda db: db.execute(
            select(func.count())
            .select_from(bodies)
            .join(messages, messages.c.content_hash == bodies.c.content_hash)
            .where(messages.c.type == "attachment.part")
        ).scalar()
    )
    assert left == 0


def test_what_was_changed_on_the_way_is_not_given_out(pair: tuple[Agency, Agency]) -> None:
    one, other = pair
    referral, _ = referred(pair)
    file = attach(one, referral)
    settle_all(pair, START)
    shown = other.store.read(show.show, other.here, other.actor, START, referral_id=referral)
    found, reference = attachments.find(shown, file.id)
    good = [
        other.store.read(
            attachments.read_part, other.here, other.actor, referral_id=referral, file_id=file.id, index=index
        )[1]
        for index in range(reference.parts)
    ]
    attachments.check_whole(good, file.sha256, found, reference)
    for commitments, digest in ((good[::-1], file.sha256), (good[:-1], file.sha256), (good, "00" * 32)):
        assert code_of(attachments.check_whole, commitments, digest, found, reference) == "file-damaged"
    assert code_of(attachments.find, shown, crypto.new_id()) == "unknown-file"
    gone = replace(found, id=crypto.new_id())
    assert code_of(attachments.find, shown, gone.id) == "unknown-file"


# -- outside of the database ------------------------------------------------------------------------------------------


def places(agency: Agency) -> list[str]:
    return agency.store.read(lambda db: list(db.execute(select(rows.c.place).order_by(rows.c.part)).scalars()))


def sizes(agency: Agency) -> list[int]:
    """Bytes of each part's body in the database."""
    query = select(func.length(bodies.c.body_sealed)).join(messages, messages.c.content_hash == bodies.c.content_hash)
    query = query.where(messages.c.type == "attachment.part")
    return agency.store.read(lambda db: list(db.execute(query).scalars()))


def filed(pair: tuple[Agency, Agency]) -> tuple[str, str, File, Memory, Memory]:
    """A file that has arrived, with its parts in the depot at both ends."""
    referral, release = referred(pair)
    depots = give_depot(pair[0]), give_depot(pair[1])
    sent = attach(pair[0], referral)
    settle_all(pair, START)
    assert [depots_of.file(agency) for agency in pair] == [3, 3]
    return referral, release, sent, *depots


def test_parts_that_have_come_to_rest_lie_in_the_depot_and_are_read_from_there(pair: tuple[Agency, Agency]) -> None:
    referral, _, sent, one, other = filed(pair)
    for agency, depot in zip(pair, (one, other), strict=True):
        assert places(agency) == ["depot"] * 3 and max(sizes(agency)) < 4_000, "keyrings and a beginning are left"
        assert sum(held.size for held in depot.held()) == len(CONTENT)
        assert read(agency, referral, sent) == CONTENT
        assert depots_of.file(agency) == 0, "and nothing is moved twice"


def test_a_part_that_still_has_to_go_stays_where_it_is_sent_from(two: tuple[Agency, Agency]) -> None:
    one = two[0]
    referral, _ = referred(two)
    give_depot(one)
    attach(one, referral)
    assert depots_of.file(one) == 0 and places(one) == ["database"] * 3
    settle_all(two, START)
    assert depots_of.file(one) == 3


def test_what_the_depot_holds_opens_nothing_and_an_erasure_does_not_wait_for_it(pair: tuple[Agency, Agency]) -> None:
    one, other = pair
    _, release, _, _, depot = filed(pair)
    held = dict(depot.parts)
    assert all(CONTENT[at : at + 64] not in b"".join(held.values()) for at in range(0, len(CONTENT), 50_000))
    one.do(consents.withdraw, START, release_id=release, by_person=True, erase=True, confirmed=True)
    settle_all(pair, START)
    duty = other.store.read(erasure.list_duties, other.actor)[0]["id"]
    other.do(erasure.erase_under, START, withdrawal_id=duty)
    assert sizes(other) == [], "the keyrings are gone with the rows, whatever the depot still has"
    depot.failure = StorageError("depot-unusable", "The store is away.")
    with pytest.raises(StorageError, match="away"):
        depots_of.file(other, filing.clear)
    depot.failure = None
    assert depots_of.file(other, filing.clear) == 3
    assert (depot.parts, places(other), depots_of.file(other, filing.clear)) == ({}, ["gone"] * 3, 0)


def test_an_erasure_while_a_part_is_put_away_leaves_nothing_in_the_depot(two: tuple[Agency, Agency]) -> None:
    one, other = two
    referral, _ = referred(two)
    depot = give_depot(other)
    attach(one, referral)
    settle_all(two, START)
    going = other.store.read(parts.resting)
    for part in going:
        depot.put(part.name, part.rest)
    other.store.write(erasure.erase_referral, START, referral)
    assert other.store.write(parts.put_away, going) == [part.name for part in going], "to be removed again"
    assert depots_of.file(other, filing.clear) == 3, "and if that is cut off, it is done later"
    assert (depot.parts, sizes(other)) == ({}, [])


def test_what_a_killed_process_left_in_the_depot_is_found_and_what_is_needed_stays(pair: tuple[Agency, Agency]) -> None:
    """One of two put a part while it was erased, and was killed before it heard of that."""
    one, other = pair
    depot = give_depot(other)
    case = new_case(one)
    going_referral = refer(one, other, case_id=case, release_id=agree(one, other, case, sections=WITH_FILES))
    staying = refer(one, other, case_id=case, release_id=agree(one, other, case, sections=WITH_FILES))
    attach(one, going_referral)
    sent = attach(one, staying)
    settle_all(pair, START)
    resting = other.store.read(parts.resting)
    going = [part for part in resting if other.store.read(_referral_of, part.message_id) == going_referral]
    assert len(going) == 3 and len(resting) == 6
    other.store.write(erasure.erase_referral, START, going_referral)
    assert depots_of.file(other, filing.clear) == 3, "the other process erases, and finds nothing"
    for part in going:
        depot.put(part.name, part.rest)  # and only now the first one puts, and is killed
    assert depots_of.file(other, filing.clear) == 0 and len(depot.parts) == 3, "no row refers to them any more"
    for part in resting:
        depot.put(part.name, part.rest)  # the rest is on its way: still in the database
    assert depots_of.file(other, filing.tidy) == 3
    assert depot.parts.keys() == {part.name for part in resting} - {part.name for part in going}
    assert depots_of.file(other) == 3 and depots_of.file(other, filing.tidy) == 0
    assert read(other, staying, sent) == CONTENT


def _referral_of(db: Any, message_id: str) -> str:
    return str(db.execute(select(messages.c.referral_id).where(messages.c.id == message_id)).scalar_one())


def test_a_depot_that_is_away_or_full_loses_nothing(two: tuple[Agency, Agency]) -> None:
    one, other = two
    referral, _ = referred(two)
    depot = give_depot(other)
    sent = attach(one, referral)
    settle_all(two, START)
    depot.failure = StorageFull()
    with pytest.raises(StorageFull):
        depots_of.file(other)
    assert read(other, referral, sent) == CONTENT
    depot.failure = None
    assert depots_of.file(other) == 3
    lost = depot.parts.pop(sorted(depot.parts)[0])
    codes = [
        code_of(other.store.read, attachments.read_part, other.here, other.actor, **part)
        for part in ({"referral_id": referral, "file_id": sent.id, "index": index} for index in range(3))
        if not is_readable(other, part)
    ]
    assert codes == ["file-away"] and lost
    assert other.store.read(filing.missing, depot) == (3, 1)


def is_readable(agency: Agency, part: dict[str, Any]) -> bool:
    try:
        agency.store.read(attachments.read_part, agency.here, agency.actor, **part)
    except LocalError:
        return False
    return True


def test_a_peer_that_was_restored_gets_parts_again_that_lie_in_the_depot(pair: tuple[Agency, Agency]) -> None:
    one, other = pair
    referral, _ = referred(pair)
    depot, before = give_depot(one), copy_rows(other)
    sent = attach(one, referral)
    settle_all(pair, START)
    assert depots_of.file(one) == 3
    held = dict(depot.parts)
    restore(other, before, START, START)
    assert other.store.read(attachments.arrived, referral) == {}
    settle_all(pair, START)
    assert read(other, referral, sent) == CONTENT
    assert places(one) == ["database"] * 3, "from where it was sent"
    assert depots_of.file(one) == 3 and depot.parts == held


def test_a_part_that_the_depot_lost_is_not_sent_by_halves(two: tuple[Agency, Agency]) -> None:
    one, other = two
    _, _, _, depot, _ = filed(two)
    before = one.store.read(lambda db: db.execute(select(func.count()).select_from(queue)).scalar())
    depot.parts.clear()
    one.store.write(resend.since, one.here, START, other.id, START - timedelta(hours=1))
    types = select(messages.c.type).join(queue, queue.c.message_id == messages.c.id)
    queued = one.store.read(lambda db: set(db.execute(types).scalars()))
    assert before == 0 and queued and "attachment.part" not in queued


def test_everything_comes_back_into_the_database_when_that_is_chosen_and_what_is_damaged_does_not(
    two: tuple[Agency, Agency],
) -> None:
    other = two[1]
    referral, _, sent, _, depot = filed(two)
    damaged = sorted(depot.parts)[0]
    kept, depot.parts[damaged] = depot.parts[damaged], b"\0" * len(depot.parts[damaged])
    assert depots_of.file(other, filing.bring_back) == 2
    assert list(depot.parts) == [damaged], "what may be all that is left of it is not thrown away"
    depot.parts[damaged] = kept
    assert depots_of.file(other, filing.bring_back) == 1
    assert (depot.parts, places(other)) == ({}, ["database"] * 3)
    assert read(other, referral, sent) == CONTENT


def test_a_copy_for_a_backup_has_every_part_in_itself(two: tuple[Agency, Agency]) -> None:
    other = two[1]
    referral, _, sent, _, depot = filed(two)
    assert other.store.write(filing.fill, depot) == 0
    other.here.depot = None
    assert places(other) == ["database"] * 3 and read(other, referral, sent) == CONTENT


def test_a_copy_says_how_many_parts_it_lacks(two: tuple[Agency, Agency]) -> None:
    _, _, _, _, depot = filed(two)
    depot.parts.popitem()
    assert two[1].store.write(filing.fill, depot) == 1


def test_a_part_that_no_consent_covers_is_refused_by_the_recipient(pair: tuple[Agency, Agency]) -> None:
    """A sender that does not ask its own rules is refused by the other node's."""
    one, other = pair
    referral, _ = referred(pair)

    def send(db: Any, here: Any, actor: Any, now: Any) -> str:
        from node.casework import referrals

        row = referrals.load(db, actor, referral)
        part = outbox.compose(
            db,
            here,
            now,
            row.thread_id,
            AttachmentPart,
            sections={Section.ATTACHMENTS: b"bytes"},
            readers=referrals.readers(db, here, now, row, [Section.ATTACHMENTS]),
            under=row.release_id,
            referral=referral,
            attachment=crypto.new_id(),
            index=0,
            parts=1,
        )
        return part.id

    sent = one.do(send, START)
    carry(one, other, START)
    state = other.store.read(lambda db: db.execute(select(messages.c.state).where(messages.c.id == sent)).scalar())
    assert state == "quarantined"
    assert other.store.read(lambda db: db.execute(select(rows.c.id)).all()) == []
