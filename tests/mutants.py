# SPDX-License-Identifier: Apache-2.0
"""Deliberate faults, each of which the simulator must notice: `python -m tests.mutants`.

A simulator that has caught nothing has proven nothing. Every mutant is a fault that somebody could make on a bad day;
it is put in, seeds are run until one fails, and it is taken out again. One that survives is a hole in the invariants.
"""

from __future__ import annotations

import argparse
import sys
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import timedelta
from pathlib import Path
from typing import Any, Final
from unittest.mock import patch

from sqlalchemy import bindparam, delete, select, update

from node import log
from node.casework import apply, consents, erasure, followups, referrals, sweeps
from node.casework.mail import Mail
from node.exchange import batch, chains, inbox, outbox, receipts, sending
from node.office import audit
from node.storage.rows import Change
from node.storage.tables import messages, releases
from node.storage.tables import outbox as outbox_rows
from protocol import followup, referral
from protocol.codes import ReceiptStatus
from protocol.encoding import seconds
from protocol.errors import ProtocolError, RemoteError
from protocol.messages import ReceiptEntry, Threaded
from tests import simulator

#: Seeds that a mutant may survive at most.
SEEDS: Final = 40


@contextmanager
def no_deduplication() -> Iterator[None]:
    """A duplicate is taken for a new message."""
    with patch.object(inbox, "_known", lambda db, opened: {}):
        yield


@contextmanager
def acknowledge_before_commit() -> Iterator[None]:
    """Now and then the receipt goes out although the transaction was rolled back."""
    real, count = inbox.take_in, [0]

    async def lying(database: Any, here: Any, hooks: Any, now: Any, raws: Any) -> Any:
        count[0] += 1
        if count[0] % 7:
            return await real(database, here, hooks, now, raws)
        kept: list[Any] = []

        def and_back(db: Any) -> None:
            kept.append(inbox.receive(db, here, hooks, now, raws))
            raise _Back

        with suppress(_Back):
            await database.write(and_back)
        return kept[0]

    with patch.object(inbox, "take_in", lying):
        yield


class _Back(Exception):
    """Undo."""


@contextmanager
def swallowed_exception() -> Iterator[None]:
    """A refusal of casework is taken for success."""
    real = Mail.apply

    def calm(self: Mail, db: Any, here: Any, now: Any, content: Any, body: bytes, pending: Any) -> None:
        with suppress(ProtocolError):
            real(self, db, here, now, content, body, pending)

    with patch.object(simulator, "PoisonedMail", lambda world: Mail()), patch.object(Mail, "apply", calm):
        yield


@contextmanager
def unbounded_back_off() -> Iterator[None]:
    """The wait doubles for ever."""
    with patch.object(sending, "backoff_seconds", lambda failures, chance: 5.0 * 2**failures):
        yield


@contextmanager
def early_erasure() -> Iterator[None]:
    """Nobody waits until the erasure is final."""
    real = erasure._load

    def at_once(db: Any, actor: Any, withdrawal_id: str) -> Any:
        row, desk = real(db, actor, withdrawal_id)
        return _Changed(row, erase_from=None), desk

    with patch.object(erasure, "_load", at_once):
        yield


class _Changed:
    """A row with something else in it."""

    def __init__(self, row: Any, **changes: Any) -> None:
        self._row, self._changes = row, changes

    def __getattr__(self, name: str) -> Any:
        return self._changes[name] if name in self._changes else getattr(self._row, name)


@contextmanager
def dropped_poison() -> Iterator[None]:
    """What cannot be processed is acknowledged and forgotten."""

    def forget(db: Any, here: Any, hooks: Any, now: Any, raw: bytes) -> Any:
        gone = batch.Batch(db, here, hooks, now)
        for message in inbox.unwrap(here, now, [raw]).opened:
            entry = ReceiptEntry(
                message=message.content.id,
                content=message.content_hash,
                envelope=message.binding.envelope,
                status=ReceiptStatus.DELIVERED,
                at=seconds(now),
            )
            gone.result.entries.setdefault(message.content.sender, []).append(entry)
        return gone.result

    with patch.object(inbox, "set_aside", forget):
        yield


@contextmanager
def poison_loses_its_place() -> Iterator[None]:
    """What was set aside leaves a hole in the chain."""
    with patch.object(chains, "keep_place", lambda batch, message: None):
        yield


@contextmanager
def delete_before_acknowledge() -> Iterator[None]:
    """What was claimed is taken out of the queue at once."""
    real = sending.claim

    def hasty(db: Any, *args: Any, **kwargs: Any) -> Any:
        dispatch = real(db, *args, **kwargs)
        if dispatch is not None:
            db.execute(delete(outbox_rows).where(outbox_rows.c.number.in_([c.number for c in dispatch.claimed])))
        return dispatch

    with patch.object(sending, "claim", hasty):
        yield


@contextmanager
def every_answer_is_a_receipt() -> Iterator[None]:
    """Whatever comes back, what was sent counts as delivered."""

    def trusting(db: Any, here: Any, hooks: Any, now: Any, dispatch: Any, answer: Any, chance: float) -> int:
        ids = [claimed.message_id for claimed in dispatch.claimed]
        outbox._end(db, here, outbox.Delivery.DELIVERED, ids)
        return len(ids)

    with patch.object(sending, "settle", trusting):
        yield


@contextmanager
def consent_is_asked_once() -> Iterator[None]:
    """Only when it was written, not when it is sent."""
    with (
        patch.object(Mail, "permitted", lambda self, db, here, now, found: set(found)),
        patch.object(consents, "stop_queued", lambda db, here, now, release_id: None),
    ):
        yield


@contextmanager
def withdrawal_locks_nothing() -> Iterator[None]:
    """The withdrawal is answered and the data stays open."""
    real = apply._withdraw

    def open_still(db: Any, here: Any, now: Any, content: Any, pending: Any) -> None:
        real(db, here, now, content, pending)
        db.execute(update(messages).values(locked_at=None))

    with patch.dict(apply._HANDLERS, {apply.messages.ConsentWithdraw: open_still}):
        yield


@contextmanager
def order_is_ignored() -> Iterator[None]:
    """What comes early is applied early."""
    real = chains._keep_waiting

    def at_once(batch: Any, thread: Any, content: Any, message: Any) -> Any:
        real(batch, thread, content, message)
        chains._apply(batch, content, message)
        return chains.Arrival.APPLIED

    with patch.object(chains, "_keep_waiting", at_once):
        yield


@contextmanager
def waiting_is_forgotten() -> Iterator[None]:
    """When the gap is filled nobody looks at what waited."""
    with patch.object(chains, "_fill", lambda batch, thread: None):
        yield


@contextmanager
def lease_is_never_given_back() -> Iterator[None]:
    """After a failure the messages stay leased, for long."""

    def keep(db: Any, now: Any, dispatch: Any, chance: float, retry_seconds: int | None = None) -> None:
        sending._back_off(db, now, dispatch.peer, chance, retry_seconds)

    with (
        patch.object(sending, "fail", keep),
        patch.object(sending, "LEASE", timedelta(days=365)),
        patch.object(sending, "free_leases", lambda db, slot: None),
    ):
        yield


@contextmanager
def silent_end() -> Iterator[None]:
    """What was refused is nobody's task."""
    with patch.object(Mail, "ended", lambda self, db, here, now, found: None):
        yield


@contextmanager
def crossing_is_refused() -> Iterator[None]:
    """Whoever was slower is told that it is not possible."""
    with patch.object(referral, "arrive", referral.apply):
        yield


@contextmanager
def rung_is_not_remembered() -> Iterator[None]:
    """A sweep announces the same rung each time it looks."""
    real = followup.rungs_due

    def again(steps: Any, passed: Any, now: Any) -> Any:
        return real(steps, set(), now)

    with patch.object(followup, "rungs_due", again):
        yield


@contextmanager
def follow_up_is_skipped() -> Iterator[None]:
    """The source does not watch what the target promised."""
    with patch.object(followups, "watch", lambda *args: None):
        yield


@contextmanager
def trail_has_holes() -> Iterator[None]:
    """An entry is chained to nothing."""
    with patch.object(audit, "_last", lambda db, chain: (_count(db), audit.START)):
        yield


def _count(db: Any) -> int:
    return len(db.execute(select(audit.audit.c.seq)).all())


@contextmanager
def chain_is_not_moved() -> Iterator[None]:
    """Two messages of a thread get the same place."""
    real = outbox.compose

    def standing(db: Any, here: Any, now: Any, thread: Any, *args: Any, **kwargs: Any) -> Threaded:
        before = None
        if isinstance(thread, str):
            before = outbox._THREAD.first(db, {"thread": thread})
        content: Threaded = real(db, here, now, thread, *args, **kwargs)
        if before is not None and before.out_seq > 1:
            where = {"thread": thread, "epoch": before.out_epoch, "seq": before.out_seq, "hash": before.out_hash}
            outbox._MOVE.run(db, where)
        return content

    with patch.object(outbox, "compose", standing):
        yield


@contextmanager
def withdrawal_is_final_nowhere() -> Iterator[None]:
    """A withdrawn consent counts as given again after a while."""
    real = sweeps.attend

    def forgetful(db: Any, here: Any, now: Any, limit: int = 200) -> int:
        db.execute(update(releases).where(releases.c.ours.is_(True)).values(state="ConsentGiven"))
        return real(db, here, now, limit)

    forgetful.__name__ = "attend"
    with patch.object(sweeps, "attend", forgetful):
        yield


@contextmanager
def cancel_is_not_told() -> Iterator[None]:
    """The source cancels for itself alone."""
    real = referrals.tell

    def quiet(db: Any, here: Any, now: Any, row: Any, action: Any, *rest: Any, **more: Any) -> None:
        if action is not referral.Action.CANCEL:
            real(db, here, now, row, action, *rest, **more)

    with patch.object(referrals, "tell", quiet):
        yield


@contextmanager
def receipt_is_not_kept() -> Iterator[None]:
    """The receipt's end is noted and the message stays queued."""
    nothing = outbox_rows.c.message_id.in_(bindparam("ids", expanding=True)) & (outbox_rows.c.number < 0)
    with patch.object(receipts, "_SETTLE", Change(delete(outbox_rows).where(nothing))):
        yield


MUTANTS: Final[tuple[Callable[[], Any], ...]] = (
    no_deduplication,
    acknowledge_before_commit,
    swallowed_exception,
    unbounded_back_off,
    early_erasure,
    dropped_poison,
    poison_loses_its_place,
    delete_before_acknowledge,
    every_answer_is_a_receipt,
    consent_is_asked_once,
    withdrawal_locks_nothing,
    order_is_ignored,
    waiting_is_forgotten,
    lease_is_never_given_back,
    silent_end,
    crossing_is_refused,
    rung_is_not_remembered,
    follow_up_is_skipped,
    trail_has_holes,
    chain_is_not_moved,
    withdrawal_is_final_nowhere,
    cancel_is_not_told,
    receipt_is_not_kept,
)

#: Those that need many seeds before they show: hunted by `make mutants` alone.
SLOW: Final = frozenset(
    {
        order_is_ignored,
        withdrawal_is_final_nowhere,
        poison_loses_its_place,
    }
)

#: Where the rarer ones were noticed when this was written: looked at first, to save time.
NOTICED: Final = {
    unbounded_back_off: 27,
    early_erasure: 22,
    rung_is_not_remembered: 38,
    poison_loses_its_place: 23,
    order_is_ignored: 4,
    waiting_is_forgotten: 11,
    withdrawal_is_final_nowhere: 46,
    receipt_is_not_kept: 1,
}


def _is_broken(error: Exception) -> bool:
    """Whether the fault could not even be put in: what it takes hold of is called otherwise by now."""
    project = Path(__file__).parent.parent
    frames = [Path(frame.filename) for frame in traceback.extract_tb(error.__traceback__)]
    ours = [path for path in frames if path.is_relative_to(project) and ".venv" not in path.parts]
    return ours[-1] == Path(__file__)


def hunt(mutant: Callable[[], Any], seeds: int = SEEDS) -> tuple[int, str] | None:
    """A seed that notices this mutant and how, or None if it survives them all. Raises what a broken mutant raises."""
    first = NOTICED.get(mutant, 0)
    for seed in (first, *(seed for seed in range(seeds) if seed != first)):
        try:
            with mutant():
                simulator.run_seed(seed)
        except Exception as error:  # however it shows itself, it was noticed
            if _is_broken(error):
                raise
            kind = "" if isinstance(error, (simulator.Violated, RemoteError)) else f"{type(error).__name__}: "
            return seed, (kind + str(error)).split("\n")[0][:100]
    return None


def main() -> None:
    parser = argparse.ArgumentParser(prog="tests.mutants", description=__doc__)
    parser.add_argument("--seeds", type=int, default=SEEDS, help="how many seeds each may survive")
    parser.add_argument("only", nargs="*", help="names of mutants")
    chosen = parser.parse_args()
    log.setup("critical")
    survived = []
    for mutant in MUTANTS:
        if chosen.only and mutant.__name__ not in chosen.only:
            continue
        begun = time.monotonic()
        found = hunt(mutant, chosen.seeds)
        took = time.monotonic() - begun
        if found is None:
            survived.append(mutant.__name__)
            print(f"SURVIVED  {mutant.__name__} ({took:.0f} s)")
        else:
            print(f"seed {found[0]:>3}  {mutant.__name__} ({took:.0f} s): {found[1]}")
    simulator.forget_templates()
    if survived:
        sys.exit(f"not noticed: {', '.join(survived)}")


if __name__ == "__main__":
    main()
