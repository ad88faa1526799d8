# SPDX-License-Identifier: Apache-2.0
"""A node that was restored from an old backup, with peers that are ahead of it, on a clock that the test owns.

What the real processes do is in `tests/federation/test_backup.py`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import delete, func, insert, select, update

from node import backup, config, filing, listing, restore
from node.app import Node
from node.casework import consents, erasure, followups, notes, referrals, returning, silence, sweeps
from node.cli import doctor
from node.errors import ConfigError, NodeError
from node.exchange.outbox import _store, compose
from node.office import lock, setup
from node.office.actor import Actor
from node.office.tasks import settle as settle_task
from node.storage import ledger, migrate
from node.storage.database import Database
from node.storage.keystore import Keystore
from node.storage.tables import Lane, bodies, escalations, messages, outbox, releases, tasks, threads, withdrawals
from node.storage.tables import followups as followup_rows
from node.storage.tables import referrals as referral_rows
from protocol import crypto
from protocol.codes import FollowupOutcome, Priority, Risk, Status
from protocol.directory import Directory
from protocol.encoding import encode, seconds
from protocol.errors import LocalError
from protocol.messages import ConsentLocked, ReferralUpdate
from protocol.referral import Action
from tests import depots
from tests.casework.test_attachments import CONTENT, WITH_FILES, attach, read
from tests.world import START, Agency, Store, agree, carry, copy_rows, make_agency, meet, new_case, refer, settle_all
from tests.world import restore as restore_old


def make_pair(folder: Path) -> tuple[Agency, Agency]:
    """Two agencies that know one another; the second is a whole data folder, `folder/Harbour`."""
    data_dir = folder / "Harbour"
    for path in (folder, data_dir):
        path.mkdir(mode=0o700, exist_ok=True)
        path.chmod(0o700)
    database = Database.open(f"sqlite:///{data_dir / 'node.db'}")
    migrate.upgrade(database)
    database.close()
    text = config.default_toml(address="http://localhost:1", host="127.0.0.1", port=0, database=config.Database())
    (data_dir / config.NAME).write_text(text)
    one = make_agency(folder, "Lantern")
    other = make_agency(folder, "Harbour", url=f"sqlite:///{data_dir / 'node.db'}")
    meet(one, other)
    return one, other


def reopened(agency: Agency, data_dir: Path) -> Agency:
    """The same people at a node that was restored into this folder."""
    store = Store(f"sqlite:///{data_dir / 'node.db'}")
    here = store.read(setup.load_here, Keystore.open(data_dir / "keys"), Directory())
    here.depot = filing.depot(data_dir)
    again = replace(agency, store=store, here=here)
    again.reload(START)
    return again


def test_a_backup_holds_the_files_that_lie_on_the_disk_and_a_restored_node_puts_them_there(tmp_path: Path) -> None:
    one, other = pair = make_pair(tmp_path)
    data_dir = tmp_path / "Harbour"
    other.here.depot = filing.depot(data_dir)
    case = new_case(one)
    referral = refer(one, other, case_id=case, release_id=agree(one, other, case, sections=WITH_FILES))
    sent = attach(one, referral)
    settle_all(pair, START)
    assert depots.file(other) == 3
    on_disk = [path for path in (data_dir / "files").rglob("*") if path.is_file()]
    assert len(on_disk) == 3 and (data_dir / "node.db").stat().st_size < 2 * 1024 * 1024

    made = backup.make(data_dir, tmp_path / "copies", "0", START)
    assert made.missing == 0 and made.size > len(CONTENT)
    settings = config.load(data_dir)
    with doctor._reading(settings) as db:
        assert doctor._files(db, settings) == "new ones go to the disk; 3 parts lie in the folder files, all there"
    on_disk[0].unlink()
    with doctor._reading(settings) as db, pytest.raises(NodeError, match="1 of 3 parts of files are not in"):
        doctor._files(db, settings)
    assert backup.make(data_dir, tmp_path / "copies", "0", START + timedelta(hours=1)).missing == 1

    key = restore.recovery_key(other.printed.sheet_a, other.printed.sheet_b)
    again = tmp_path / "again"
    restore.restore(made.path, again, key, START)
    assert not (again / "files").exists(), "all of it is in the database of the backup"
    back = reopened(other, again)
    assert read(back, referral, sent) == CONTENT
    assert depots.file(back) == 3 and len([p for p in (again / "files").rglob("*") if p.is_file()]) == 3
    assert read(back, referral, sent) == CONTENT


def test_what_is_deleted_from_a_copy_is_not_in_its_bytes(tmp_path: Path) -> None:
    """Small and large, beside rows that stay."""
    copy, canary = tmp_path / "node.db", b"Aurora Inventata"
    backup.make_tables(copy)
    for act in (
        insert(bodies).values([{"content_hash": f"{n:064}", "body_sealed": canary * (1 + n * 20)} for n in range(60)]),
        update(bodies).where(bodies.c.content_hash == f"{59:064}").values(body_sealed=b"short"),
        delete(bodies).where(bodies.c.content_hash != f"{59:064}"),
    ):
        engine = backup.open_copy(copy)
        with engine.begin() as db:
            db.execute(act)
        engine.dispose()
    backup.close_copy(copy)
    assert canary not in copy.read_bytes() and b"short" in copy.read_bytes()
    assert [path.name for path in tmp_path.iterdir()] == ["node.db"]


async def test_a_node_moves_files_where_the_settings_say_and_removes_what_was_erased(tmp_path: Path) -> None:
    one, other = pair = make_pair(tmp_path)
    data_dir = tmp_path / "Harbour"
    case = new_case(one)
    referral = refer(one, other, case_id=case, release_id=agree(one, other, case, sections=WITH_FILES))
    attach(one, referral)
    settle_all(pair, START)
    settings = data_dir / config.NAME
    chosen = settings.read_text()

    async def turn(store: str, act: Callable[[Node], Awaitable[object]]) -> int:
        other.store.engine.dispose()
        settings.write_text(chosen.replace('# store = "disk"', f'store = "{store}"'))
        node = Node(config.load(data_dir))
        try:
            await act(node)
        finally:
            await node.stop()
        return sum(path.is_file() for path in (data_dir / "files").rglob("*"))

    assert await turn("database", Node.sweep) == 0
    assert await turn("disk", Node.sweep) == 3
    assert await turn("database", Node.sweep) == 0
    (data_dir / "files").chmod(0o755)
    assert await turn("disk", Node.sweep) == 0, "others could reach it: nothing goes there, and the clocks went on"
    (data_dir / "files").chmod(0o700)
    assert await turn("disk", Node.sweep) == 3
    other.store.write(erasure.erase_referral, START, referral)
    assert await turn("disk", Node.overwrite) == 0


@pytest.mark.parametrize(
    ("url", "store", "is_used"),
    [
        ("sqlite:///node.db", "", True),
        ("postgresql+psycopg://staffetta@localhost/staffetta", "", False),
        ("sqlite:///node.db", "database", False),
        ("postgresql+psycopg://staffetta@localhost/staffetta", "disk", True),
    ],
)
def test_what_is_not_chosen_is_the_disk_beside_sqlite(tmp_path: Path, url: str, store: str, is_used: bool) -> None:
    text = config.default_toml(
        address="http://localhost:1", host="127.0.0.1", port=0, database=config.Database(url=url)
    )
    (tmp_path / config.NAME).write_text(text.replace('# store = "disk"', f'store = "{store}"'))
    assert filing.uses_depot(config.load(tmp_path)) is is_used


def test_a_store_that_there_is_not_stops_the_start_with_a_sentence(tmp_path: Path) -> None:
    (tmp_path / config.NAME).write_text('[attachments]\nstore = "dsk"\n')
    with pytest.raises(ConfigError, match=r"no dsk\. Did you mean disk\? Known: disk, database\.") as caught:
        config.load(tmp_path)
    assert caught.value.code == "config-value"


def test_who_was_not_restored_is_given_nothing_to_do_by_a_thread_that_it_never_had(two: tuple[Agency, Agency]) -> None:
    one, other = two
    invented = crypto.new_id()

    def lie(now: datetime) -> None:
        content = ReferralUpdate(
            version=1, id=crypto.new_id(), sender=other.id, recipient=one.id, created=seconds(now), seq=1,
            expires=seconds(now + DAY), desk=one.desk, thread=invented, epoch=other.here.epoch,
            priority=Priority.NORMAL, referral=invented, action=Action.ACKNOWLEDGE, status=Status.RECEIVED,
        )  # fmt: skip
        raw = encode(content)
        other.store.write(_store, other.here, now, content, raw, crypto.sha256_hex(raw), b"", Lane.NORMAL)
        settle_all(two, now)

    lie(START)
    assert "answers-forgotten" not in open_tasks(one) and quarantined(one) == {"referral.update"}
    # Restored, and long ago; or restored just now, but by what was written before the backup.
    restore_old(one, copy_rows(one), START, START + DAY)
    settle_all(two, START + DAY)
    lie(START + 40 * DAY)
    assert "answers-forgotten" not in open_tasks(one)
    lie(START + 2 * DAY)
    assert "answers-forgotten" in open_tasks(one)


# -- an old backup, peers ahead ---------------------------------------------------------------------------------------

DAY = timedelta(days=1)


def accepted(pair: tuple[Agency, Agency], risk: Risk = Risk.LOW) -> tuple[str, str]:
    """A referral that the target has accepted, with a plan that both watch: (its id, its release)."""
    one, other = pair
    case = new_case(one)
    release = agree(one, other, case)
    referral = refer(one, other, case_id=case, release_id=release)
    settle_all(pair, START)
    for action in (Action.ACKNOWLEDGE, Action.ACCEPT):
        other.do(referrals.act, START, referral_id=referral, action=action, risk=risk)
    settle_all(pair, START)
    return referral, release


def sweep(agency: Agency, now: datetime) -> None:
    while agency.store.write(followups.sweep, agency.here, now):
        pass


def open_tasks(agency: Agency) -> list[str]:
    """Their kinds, but for what the other agency has answered: that waits for who sent it, restored or not."""
    is_open = tasks.c.closed_at.is_(None) & (tasks.c.kind != "answered")
    query = select(tasks.c.kind).where(is_open).order_by(tasks.c.kind)
    return agency.store.read(lambda db: list(db.execute(query).scalars()))


def rungs(agency: Agency) -> int:
    return agency.store.read(lambda db: db.execute(select(func.count()).select_from(escalations)).scalar() or 0)


def ahead(agency: Agency) -> list[Any]:
    query = select(followup_rows).where(followup_rows.c.ended.is_(False)).order_by(followup_rows.c.due_at)
    return list(agency.store.read(lambda db: db.execute(query).all()))


def quarantined(agency: Agency) -> set[str]:
    query = select(messages.c.type).where(messages.c.state == "quarantined")
    return agency.store.read(lambda db: set(db.execute(query).scalars()))


@pytest.mark.parametrize("risk", [Risk.LOW, Risk.HIGH])
def test_a_follow_up_that_was_reported_after_the_backup_rings_no_more(pair: tuple[Agency, Agency], risk: Risk) -> None:
    """It had rung, and was reported; the node that did it is lost, and the one that watched it knows."""
    one, other = pair
    accepted(pair, risk)
    due = ahead(other)[0]
    overdue = due.due_at + timedelta(hours=2)
    sweep(other, overdue)
    assert open_tasks(other) == ["followup-due"]
    before, made = copy_rows(other), overdue
    later = due.due_at + 8 * DAY
    sweep(other, later)
    assert open_tasks(other) == ["followup-missed"], "the supervisor and the director were told"
    other.do(followups.report, later, followup_id=due.id, outcome=FollowupOutcome.REACHED_SAFE)
    settle_all(pair, later)
    back = later + DAY
    watched = ahead(one)[0]
    assert watched.ordinal > due.ordinal and open_tasks(one) == []

    restore_old(other, before, made, back)
    rung = rungs(other)
    sweep(other, back)
    assert rungs(other) == rung, "nothing rings before anybody could be asked"
    settle_all(pair, back)
    sweep(other, back + 2 * DAY)
    found = ahead(other)
    assert [row.ordinal for row in found] == [watched.ordinal] and found[0].due_at == watched.due_at
    assert open_tasks(other) == ["node-restored"] and rungs(other) == rung
    assert quarantined(one) == quarantined(other) == set()
    # From here both go on as before.
    other.do(followups.report, back + DAY, followup_id=found[0].id, outcome=FollowupOutcome.REACHED_SAFE)
    settle_all(pair, back + DAY)
    assert ahead(one)[0].ordinal == ahead(other)[0].ordinal > watched.ordinal


@pytest.mark.parametrize(("risk", "wait"), [(Risk.LOW, timedelta(days=4)), (Risk.HIGH, timedelta(hours=4))])
def test_one_that_nobody_reported_is_asked_for_again_from_the_first_rung(
    two: tuple[Agency, Agency], risk: Risk, wait: timedelta
) -> None:
    other = two[1]
    accepted(two, risk)
    due = ahead(other)[0]
    made = due.due_at - DAY
    before = copy_rows(other)
    back = due.due_at + 10 * DAY
    restore_old(other, before, made, back)
    sweep(other, back)
    settle_all(two, back)
    assert open_tasks(other) == ["node-restored"]
    sweep(other, back + wait)
    assert open_tasks(other) == ["followup-due", "node-restored"], "first whoever does it, not the director"
    sweep(other, back + wait + 8 * DAY)
    assert "followup-missed" in open_tasks(other), "and nothing is forgotten"


def test_what_the_other_end_has_reported_is_not_missed_by_one_who_was_restored(two: tuple[Agency, Agency]) -> None:
    one, other = two
    accepted(two)
    due = ahead(one)[0]
    before, made = copy_rows(one), START
    later = due.due_at + DAY
    other.do(followups.report, later, followup_id=ahead(other)[0].id, outcome=FollowupOutcome.REACHED_SAFE)
    settle_all(two, later)
    back = later + 7 * DAY
    restore_old(one, before, made, back)
    sweep(one, back)
    settle_all(two, back)
    sweep(one, back)
    assert open_tasks(one) == ["node-restored"] and [row.ordinal for row in ahead(one)] == [due.ordinal + 1]


def test_nobody_but_a_restored_nodes_peer_speaks_for_it(two: tuple[Agency, Agency]) -> None:
    """A peer that says we had reported what we have not: refused, and our ladder goes on."""
    one, other = two
    accepted(two)
    due = ahead(other)[0]

    def pretend(at: datetime, now: datetime) -> None:
        one.store.write(
            lambda db: (
                db.execute(update(followup_rows).values(reported_at=at, ended=True) if at else update(followup_rows))
                and returning.tell_reported(db, one.here, now, other.id, START)
            )
        )
        settle_all(two, now)

    pretend(due.due_at, due.due_at)
    assert quarantined(other) == {"followup.report"} and [row.id for row in ahead(other)] == [due.id]
    # Nor for what was after the return, nor months later.
    back = due.due_at + 3 * DAY
    restore_old(other, copy_rows(other), due.due_at + DAY, back)
    settle_all(two, back)
    for at, now in ((due.due_at, back), (back + DAY, back + 2 * DAY), (due.due_at + 2 * DAY, back + 36 * DAY)):
        pretend(at, now)
        assert [row.id for row in ahead(other)] == [due.id]


def test_nothing_is_sent_twice_and_what_was_sent_after_the_backup_is_still_there(two: tuple[Agency, Agency]) -> None:
    one, other = two
    queued = refer(one, other)
    before = copy_rows(one)
    lost = refer(one, other)
    settle_all(two, START)
    other.do(referrals.act, START, referral_id=queued, action=Action.ACKNOWLEDGE)
    settle_all(two, START)
    back = START + 2 * DAY
    restore_old(one, before, START, back)
    settle_all(two, back)
    query = select(referral_rows.c.id)
    held = other.store.read(lambda db: sorted(db.execute(query).scalars()))
    assert held == sorted([queued, lost]), "each once; the one that its sender forgot is not dropped"
    mine = one.store.read(lambda db: db.execute(select(referral_rows)).all())
    assert [row.id for row in mine] == [queued] and mine[0].acknowledged_at is not None
    assert one.store.read(lambda db: db.execute(select(outbox.c.number)).all()) == []
    assert quarantined(other) == set()
    # What comes of the forgotten one is refused by who does not know it, and a person at the other end is told.
    other.do(referrals.act, back, referral_id=lost, action=Action.ACCEPT)
    settle_all(two, back)
    assert [kind for kind in open_tasks(other) if kind.startswith("message-")] == ["message-rejected"]
    assert open_tasks(one) == ["answers-forgotten", "node-restored"], "and a supervisor here telephones that agency"
    named = select(tasks.c.id, tasks.c.subject_id, tasks.c.role).where(tasks.c.kind == "answers-forgotten")
    task = one.store.read(lambda db: db.execute(named).one())
    assert (task.subject_id, task.role) == (other.id, "supervisor")
    other.do(notes.note, back, referral_id=lost, text="She has arrived, and asks for you.")
    settle_all(two, back)
    assert open_tasks(one).count("answers-forgotten") == 1, "whatever else comes of it"
    held = other.store.read(lambda db: db.execute(select(referral_rows.c.status)).scalars().all())
    assert "accepted" in held, "nothing of it is lost where it was sent"
    one.do(settle_task, back, task_id=task.id)
    assert open_tasks(one) == ["node-restored"]
    # Both go on.
    again = refer(one, other, back)
    settle_all(two, back)
    assert again in other.store.read(lambda db: set(db.execute(query).scalars()))


@pytest.mark.parametrize("erase", [False, True])
def test_sharing_that_was_stopped_after_the_backup_stays_stopped(pair: tuple[Agency, Agency], erase: bool) -> None:
    """The node that has forgotten the withdrawal learns it from the one that has carried it out."""
    one, other = pair
    referral, release = accepted(pair)
    before = copy_rows(one)
    one.do(consents.withdraw, START, release_id=release, by_person=True, erase=erase, confirmed=True)
    settle_all(pair, START)
    if erase:
        duty = other.store.read(erasure.list_duties, other.actor)[0]["id"]
        other.do(erasure.erase_under, START, withdrawal_id=duty)
        other.do(erasure.sign_erasure, START, withdrawal_id=duty)
        settle_all(pair, START)
    back = START + DAY
    restore_old(one, before, START, back)
    state = select(releases.c.state).where(releases.c.id == release)
    assert one.store.read(lambda db: db.execute(state).scalar()) == "ConsentGiven", "it has forgotten"
    settle_all(pair, back)
    assert one.store.read(lambda db: db.execute(state).scalar()) == "ConsentRevoked"
    assert open_tasks(one) == ["consent-ended", "node-restored"]
    known = one.store.read(lambda db: db.execute(select(withdrawals)).one())
    assert known.locked_at is not None and (known.answered_at is not None) is erase
    with pytest.raises(LocalError, match="ended") as caught:
        one.do(notes.note, back, referral_id=referral, text="Something more.")
    assert caught.value.code == "consent-ended"
    assert "consent.withdraw" not in quarantined(other)


def test_a_peer_cannot_stop_what_goes_to_another(two: tuple[Agency, Agency]) -> None:
    one, other = two
    accepted(two)
    own = agree(other, one, new_case(other))
    state = select(releases.c.state).where(releases.c.id == own)

    def lie(db: Any, here: Any, actor: Any, now: Any) -> None:
        thread = db.execute(select(threads.c.id)).scalar_one()
        compose(db, here, now, thread, ConsentLocked, release=own, withdraw=crypto.new_id(), at=seconds(now))

    other.store.write(lambda db: db.execute(update(releases).where(releases.c.id == own).values(agency="f" * 64)))
    one.do(lie, START)
    settle_all(two, START)
    assert quarantined(other) == {"consent.locked"}
    assert other.store.read(lambda db: db.execute(state).scalar()) == "ConsentGiven"


def test_what_was_erased_after_the_backup_is_not_there_again(pair: tuple[Agency, Agency]) -> None:
    """By the list beside the backup; and without it the withdrawal comes again, and locks before anybody erases."""
    one, other = pair
    _, release = accepted(pair)
    before = copy_rows(other)
    one.do(consents.withdraw, START, release_id=release, by_person=True, erase=True, confirmed=True)
    settle_all(pair, START)
    duty = other.store.read(erasure.list_duties, other.actor)[0]["id"]
    other.do(erasure.erase_under, START, withdrawal_id=duty)
    other.do(erasure.sign_erasure, START, withdrawal_id=duty)
    settle_all(pair, START)
    listed = other.store.read(listing.known)
    held = select(func.count()).select_from(bodies).join(messages, messages.c.content_hash == bodies.c.content_hash)
    held = held.where(messages.c.type == "referral.request", messages.c.locked_at.is_(None))
    back = START + DAY
    for beside, at_once in ((listed, 0), (None, 1)):
        restore_old(other, before, START, back, beside)
        assert other.store.read(lambda db: db.execute(held).scalar()) == at_once
        settle_all(pair, back)
        assert other.store.read(lambda db: db.execute(held).scalar()) == 0, "locked, at the latest"
        assert "erase-or-keep" in open_tasks(other), "and a person signs again"


def test_a_restored_node_opens_when_its_peers_have_said_what_was_stopped(pair: tuple[Agency, Agency]) -> None:
    """Of all that goes again what was stopped comes first; then they say so, and only then it opens."""
    one, other = pair
    referral, release = accepted(pair)
    before = copy_rows(other)
    for number in range(3):
        one.do(notes.note, START, referral_id=referral, text=f"Something more, {number}.")
    settle_all(pair, START)
    one.do(consents.withdraw, START, release_id=release, by_person=True, erase=False, do_not_contact=True)
    settle_all(pair, START)
    back = START + DAY
    restore_old(other, before, START, back)
    node = Actor.node()
    assert other.store.read(lock.is_locked) and other.store.read(returning.unanswered) == [one.id]
    with pytest.raises(NodeError, match=f"locked until 1 agencies .*: {one.id[:12]}"):
        other.store.read(doctor._lock)
    with pytest.raises(LocalError, match="not said yet") as caught:
        other.store.write(returning.unlock, other.here, node, back)
    assert caught.value.code == "not-answered" and other.store.read(lock.is_locked)
    with pytest.raises(LocalError) as person:
        other.do(returning.unlock, back, anyway=True)
    assert person.value.code == "forbidden", "nobody from a page"
    locked = select(func.count()).select_from(messages).where(messages.c.locked_at.is_not(None))
    assert other.store.read(lambda db: db.execute(locked).scalar()) == 0
    carry(other, one, back)
    assert other.store.read(returning.unanswered) == [one.id], "heard, not answered yet"
    seen = []
    while carry(one, other, back):
        is_locked = bool(other.store.read(lambda db: db.execute(locked).scalar()))
        seen.append((other.store.read(returning.unanswered), is_locked))
    assert seen and all(is_locked for waiting, is_locked in seen if not waiting) and seen[-1] == ([], True), seen
    assert other.store.write(returning.unlock, other.here, node, back)
    assert not other.store.read(lock.is_locked)
    # An emergency later has nothing to do with it.
    other.do(lock.lock, back + DAY)
    assert other.store.write(returning.unlock, other.here, node, back + DAY)


def test_who_cannot_wait_opens_it_at_the_machine(two: tuple[Agency, Agency]) -> None:
    one, other = two
    restore_old(other, copy_rows(other), START, START + DAY)
    assert other.store.read(returning.unanswered) == [one.id]
    assert other.store.write(returning.unlock, other.here, Actor.node(), START + DAY, anyway=True)
    assert not other.store.read(lock.is_locked) and other.store.read(returning.unanswered) == []


def test_what_was_erased_is_not_taken_again_from_a_peer_that_still_sends_it(pair: tuple[Agency, Agency]) -> None:
    """It came after the backup and was erased after it: a peer that was asked for all since then has it still."""
    one, other = pair
    before = copy_rows(other)
    referral, kept = refer(one, other), refer(one, other)
    settle_all(pair, START)
    other.store.write(erasure.erase_referral, START, referral)
    listed = other.store.read(listing.known)
    back = START + DAY
    restore_old(other, before, START, back, listed)
    settle_all(pair, back)
    held = select(messages.c.id).join(bodies, bodies.c.content_hash == messages.c.content_hash)
    held = held.where(messages.c.agency == one.id, messages.c.id.in_([referral, kept]))
    assert other.store.read(lambda db: db.execute(held).scalars().all()) == [kept]
    both = select(func.count()).select_from(referral_rows)
    assert other.store.read(lambda db: db.execute(both).scalar()) == 2, "that there was one is known again"
    assert other.store.read(listing.known).items() >= listed.items()


async def test_an_erasure_is_listed_at_once_in_both_places_and_not_signed_before(tmp_path: Path) -> None:
    one, other = pair = make_pair(tmp_path)
    data_dir, second = tmp_path / "Harbour", tmp_path / "second"
    settings = data_dir / config.NAME
    settings.write_text(settings.read_text().replace('# also = "/var/backups/staffetta"', f'also = "{second}"'))
    referrals_of = [refer(one, other) for _ in range(2)]
    settle_all(pair, START)
    other.store.engine.dispose()
    node = Node(config.load(data_dir))
    lists = [ledger.place(folder, other.id) for folder in (data_dir, second)]
    node._loop = asyncio.get_running_loop()
    try:
        await node.database.write(erasure.erase_referral, START, referrals_of[0])
        await asyncio.wait(node._begun)
        assert [len(ledger.read(path, other.id)) for path in lists] == [1, 1]
        assert all(path.stat().st_mode & 0o777 == 0o600 for path in lists)
        second.chmod(0o755)
        await node.database.write(erasure.erase_referral, START, referrals_of[1])
        with pytest.raises(NodeError, match="chmod 700"):
            await node.overwrite()
        assert [len(ledger.read(path, other.id)) for path in lists] == [2, 1], "the other place is written all the same"
        with doctor._reading(config.load(data_dir)) as db, pytest.raises(NodeError, match="1 erasures are not in"):
            doctor._erasures(db, node.here, config.load(data_dir))
        second.chmod(0o700)
        await node.sweep()
        assert len(ledger.read(lists[1], other.id)) == 2, "made good without anybody"
        with doctor._reading(config.load(data_dir)) as db:
            assert doctor._erasures(db, node.here, config.load(data_dir)).startswith("all listed")
        lists[0].unlink()
    finally:
        await node.stop()
    again = Node(config.load(data_dir))
    try:
        await again.overwrite()
        assert len(ledger.read(lists[0], other.id)) == 2, "a list that was lost is whole again after the start"
    finally:
        await again.stop()


def test_no_agency_counts_as_silent_because_we_were_away(two: tuple[Agency, Agency]) -> None:
    one, other = two
    accepted(two)
    before = copy_rows(other)
    back = START + 20 * DAY
    restore_old(other, before, START, back)
    assert other.store.write(silence.watch_peers, other.here, back) == 0
    assert not other.store.read(silence.is_gone, one.id, back), "so nobody's card may be opened"
    assert other.store.write(silence.watch_peers, other.here, back + 4 * DAY) == 1, "but later, if nothing comes"


def test_who_waits_for_an_answer_waits_until_it_could_be_heard(two: tuple[Agency, Agency]) -> None:
    one, other = two
    referral = refer(one, other)
    settle_all(two, START)
    before = copy_rows(one)
    other.do(referrals.act, START, referral_id=referral, action=Action.ACKNOWLEDGE)
    settle_all(two, START)
    back = START + 10 * DAY
    restore_old(one, before, START, back)
    one.store.write(sweeps.attend, one.here, back)
    assert open_tasks(one) == ["node-restored"]
    settle_all(two, back)
    one.store.write(sweeps.attend, one.here, back + timedelta(hours=1))
    assert open_tasks(one) == ["node-restored"], "it had been answered"
