# SPDX-License-Identifier: Apache-2.0
"""What waits in the outbox is sent: leased, signed and wrapped, posted by the worker, settled by the answer.

A message is claimed with its consent asked again. One that is not acknowledged is free again, and its agency has its
back-off.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import cached_property
from typing import Any, Final

from sqlalchemy import Connection, bindparam, or_, select, update

from node import faults
from node.exchange import outbox as outbox_of
from node.exchange.hooks import Hooks
from node.exchange.receipts import store_receipts
from node.storage.database import slot_of
from node.storage.here import Here
from node.storage.rows import Change, Question
from node.storage.tables import Lane, agencies, bodies, lane_number, messages, outbox
from protocol import envelope, framing
from protocol.crypto import KemPublicKey
from protocol.directory import Standing
from protocol.encoding import BATCH_MAX_MESSAGES, CLOCK_AHEAD_SECONDS, ENVELOPE_SIZES, REQUEST_MAX_BYTES, seconds
from protocol.errors import RemoteError
from protocol.messages import Receipt

#: After this a claim that was never settled (a killed process) is anybody's again. Longer than any request may take.
LEASE: Final = timedelta(seconds=90)
#: Waits between attempts to reach one agency; afterwards an hour. Nodes with four hours of power a day must not starve.
BACKOFF_SECONDS: Final = (0, 5, 15, 60, 300, 900, 1800, 3600)
JITTER: Final = 0.2
#: An alert does not share in the wait of its agency: after these it is tried every half minute, for its 72 hours.
ALERT_BACKOFF_SECONDS: Final = (2, 5, 15, 30)
#: How often a message is tried that was dated by a clock that was ahead: as rarely as an agency that does not answer.
_AHEAD_AGAIN: Final = timedelta(seconds=BACKOFF_SECONDS[-1])
#: Header, HPKE, binding, batch path and signatures around content and body; for choosing how many fit in a request.
_WRAPPING_BYTES: Final = 6_400


@dataclass(frozen=True, slots=True)
class Claimed:
    """One leased message."""

    number: int
    message_id: str
    type: str
    thread_id: str | None
    referral_id: str | None
    content_hash: str
    attempts: int = 0
    #: Dated so far ahead of our clock that, if that is right, nobody takes it yet (Specification, 7.4, step 15).
    is_ahead: bool = False


@dataclass(frozen=True)
class Dispatch:
    """A request to one agency. `is_alert`: by itself, in the lane that waits for nothing."""

    peer: str
    address: str
    outgoing: tuple[envelope.Outgoing, ...]
    sender: envelope.Sender
    key: KemPublicKey
    at: int
    claimed: tuple[Claimed, ...]
    is_alert: bool = False
    #: Whether the agency reads envelopes that share a secret.
    shares: bool = False

    @cached_property
    def body(self) -> bytes:
        """What is posted: signed and wrapped when it is first asked for. The database's thread is not for that."""
        sealed = envelope.seal(self.outgoing, self.sender, self.key, self.at, shares=self.shares)
        return framing.frame([one.raw for one in sealed])

    @property
    def is_small(self) -> bool:
        """Whether it is sealed so quickly that a thread of its own would cost more."""
        return len(self.outgoing) <= _FEW and sum(len(one.body) for one in self.outgoing) <= ENVELOPE_SIZES[0]


#: Parts of files in one request, of 256 KiB each: few, so that no transaction with them takes long at either end. A
#: request of 1 MiB already costs next to nothing for each of its bytes.
_FILES_AT_ONCE: Final = 4
#: So many messages are sealed in about two milliseconds.
_FEW: Final = 4
_FILES: Final = lane_number(Lane.FILES)
_ALERTS: Final = lane_number(Lane.ALERT)
_CLAIM = (
    select(
        outbox.c.number,
        outbox.c.attempts,
        messages.c.id,
        messages.c.type,
        messages.c.thread_id,
        messages.c.referral_id,
        messages.c.release_id,
        messages.c.content_hash,
        messages.c.created_at,
        messages.c.content,
        bodies.c.body_sealed,
    )
    .select_from(
        outbox.join(
            messages, (messages.c.id == outbox.c.message_id) & (messages.c.agency == bindparam("us"))
        ).outerjoin(bodies, bodies.c.content_hash == messages.c.content_hash)
    )
    .where(
        outbox.c.peer == bindparam("peer"),
        or_(outbox.c.lease_until.is_(None), outbox.c.lease_until <= bindparam("now")),
        or_(outbox.c.expires_at.is_(None), outbox.c.expires_at > bindparam("now")),
        outbox.c.lane.between(bindparam("lane_from"), bindparam("lane_to")),
    )
    .order_by(outbox.c.lane, outbox.c.number)
    .limit(bindparam("most"))
)
#: On PostgreSQL another process may be at the same: what it has leased is passed over.
_DUE: Final = Question(_CLAIM)
_DUE_SHARED: Final = Question(_CLAIM.with_for_update(skip_locked=True, of=outbox))
_LEASE = Change(
    update(outbox)
    .where(outbox.c.number.in_(bindparam("numbers", expanding=True)))
    .values(lease_until=bindparam("until"), leased_by=bindparam("slot"), attempts=outbox.c.attempts + 1)
)
_FREE = Change(
    update(outbox)
    .where(outbox.c.number.in_(bindparam("numbers", expanding=True)))
    .values(lease_until=bindparam("until"))
)
_FAILURES = Question(select(agencies.c.failures).where(agencies.c.agency == bindparam("peer")))
_FAILED = Change(
    update(agencies)
    .where(agencies.c.agency == bindparam("peer"))
    .values(failures=bindparam("count"), retry_at=bindparam("until"))
)
_HEARD = Change(
    update(agencies)
    .where(agencies.c.agency == bindparam("peer"))
    .values(
        heard_at=bindparam("at"),
        failures=0,
        retry_at=None,
        clock_offset_seconds=bindparam("ahead"),
        clock_seen_at=bindparam("at"),
    )
)
_RETRY = Question(select(agencies.c.retry_at).where(agencies.c.agency == bindparam("peer")))


def claim(
    db: Connection,
    here: Here,
    hooks: Hooks,
    now: datetime,
    peer: str,
    limit: int = BATCH_MAX_MESSAGES,
    *,
    first: Lane = Lane.ALERT,
    last: Lane = Lane.FILES,
) -> Dispatch | None:
    """Lease what is due for one agency in these lanes and make a request of it; None if nothing can go now.

    Alerts by themselves ask no back-off of the agency: each has its own.

    Consent is asked again for each message that carries data: what is no longer permitted ends as `withheld`. The
    envelopes are for the newest key of the agency's node.
    """
    member = here.directory.members.get(peer)
    key = None if member is None else member.peer.sealing_key(seconds(now))
    if member is None or key is None:
        return None
    is_alert = last is Lane.ALERT
    known = None if is_alert else _RETRY.first(db, {"peer": peer})
    if known is not None and known.retry_at is not None and known.retry_at > now:
        return None
    query = _DUE if db.dialect.name == "sqlite" else _DUE_SHARED
    facts = {"us": here.agency, "peer": peer, "now": now}
    lanes = {"lane_from": lane_number(first), "lane_to": min(lane_number(last), _FILES - 1)}
    rows = query.all(db, {**facts, "most": limit, **lanes})
    if not rows and last is Lane.FILES:
        # Files wait for everything else, and few of them are read: each part fills an envelope of the largest size.
        files = {"most": min(limit, _FILES_AT_ONCE), "lane_from": _FILES, "lane_to": _FILES}
        rows = query.all(db, {**facts, **files})
    if member.standing is not Standing.VERIFIED:
        # Before both have compared fingerprints, and after a block, only what names nobody goes.
        rows = [row for row in rows if row.body_sealed is None]
    ready = _fit(_withhold(db, here, hooks, now, rows))
    if not ready:
        return None
    numbers = [row.number for row, _ in ready]
    _LEASE.run(db, {"numbers": numbers, "until": now + LEASE, "slot": slot_of(db)})
    sender = envelope.Sender(here.agency, here.keystore.node, here.directory.version, here.directory.hash)
    outgoing = tuple(envelope.Outgoing(row.content, body) for row, body in ready)
    latest = now + timedelta(seconds=CLOCK_AHEAD_SECONDS)
    claimed = tuple(
        Claimed(
            row.number,
            row.id,
            row.type,
            row.thread_id,
            row.referral_id,
            row.content_hash,
            row.attempts,
            row.created_at > latest,
        )
        for row, _ in ready
    )
    at, shares = seconds(now), member.peer.shares
    return Dispatch(peer, member.peer.address, outgoing, sender, key, at, claimed, is_alert, shares)


def _withhold(db: Connection, here: Here, hooks: Hooks, now: datetime, rows: Sequence[Any]) -> list[tuple[Any, bytes]]:
    """Each row with the record to send. Without consent the record stays here; the header goes alone if it must.

    A message that is nothing but data, was never tried and is the last of its chain ends here, as if it had not been
    written. One that may have arrived already, that others follow, or that says what was decided, goes without its
    record: the chain stays whole, both ends agree, and no data leaves.
    """
    carrying = {row.release_id for row in rows if row.release_id is not None and row.body_sealed is not None}
    permitted = hooks.permitted(db, here, now, carrying) if carrying else set()
    kept, ended = [], []
    for row in rows:
        body = row.body_sealed or b""
        if body and row.release_id is not None and row.release_id not in permitted:
            body = b""
            if row.type in outbox_of.DATA:
                if row.attempts == 0 and outbox_of.take_back(db, here, row.id):
                    ended.append(outbox_of.ended(row, "consent-withdrawn", now))
                    continue
                ended.append(outbox_of.ended(row, "record-withheld", now))
        kept.append((row, body))
    if ended:
        hooks.ended(db, here, now, ended)
    return kept


def _fit(rows: Sequence[tuple[Any, bytes]]) -> list[tuple[Any, bytes]]:
    """As many as fit into one request, in their order."""
    kept: list[tuple[Any, bytes]] = []
    room = REQUEST_MAX_BYTES
    for row, body in rows:
        inner = len(row.content) + len(body) + _WRAPPING_BYTES
        size = 4 + next(size for size in (*ENVELOPE_SIZES, inner) if size >= inner)
        if kept and size > room:
            break
        room -= size
        kept.append((row, body))
    return kept


def settle(
    db: Connection, here: Here, hooks: Hooks, now: datetime, dispatch: Dispatch, answer: Sequence[bytes], chance: float
) -> int:
    """Store the receipts in an answer. Returns how many of the dispatched messages they acknowledge.

    What is not acknowledged stays queued; if nothing is, the agency gets its back-off, as if it had not answered.
    """
    receipts: list[tuple[Receipt, envelope.Opened]] = []
    for raw in answer:
        try:
            opened = envelope.open(
                raw, agency=here.agency, keys=here.keystore.kem_keys, directory=here.directory, now=seconds(now)
            )
        except RemoteError:
            continue
        if isinstance(opened.content, Receipt) and opened.content.sender == dispatch.peer:
            receipts.append((opened.content, opened))
    settled = store_receipts(db, here, hooks, now, dispatch.peer, receipts)
    faults.point("settle-before-commit")
    if settled:
        # What it signed a moment ago says what time it is there: for whoever has to find out whose clock is wrong.
        ahead = max(receipt.created for receipt, _ in receipts) - seconds(now)
        _HEARD.run(db, {"peer": dispatch.peer, "at": now, "ahead": ahead})
    left = [claimed for claimed in dispatch.claimed if claimed.message_id not in settled]
    if not dispatch.is_alert and (ahead_of_us := [claimed for claimed in left if claimed.is_ahead]):
        # Written while our clock was wrong: these wait, not their agency, which takes everything else.
        _FREE.run(db, {"numbers": [claimed.number for claimed in ahead_of_us], "until": now + _AHEAD_AGAIN})
        left = [claimed for claimed in left if not claimed.is_ahead]
    if left:
        _free(db, now, dispatch, left)
        if not settled and not dispatch.is_alert:
            _back_off(db, now, dispatch.peer, chance)
    return len(settled)


def fail(db: Connection, now: datetime, dispatch: Dispatch, chance: float, retry_seconds: int | None = None) -> None:
    """The agency was not reached: its messages are free again, and it is tried later. `chance` (0–1) is the jitter."""
    _free(db, now, dispatch, dispatch.claimed)
    if not dispatch.is_alert:
        _back_off(db, now, dispatch.peer, chance, retry_seconds)


def _free(db: Connection, now: datetime, dispatch: Dispatch, left: Collection[Claimed]) -> None:
    """These may be claimed again: at once, for their agency has a back-off; an alert when its own is over."""
    until: datetime | None = None
    if dispatch.is_alert:
        tries = min((claimed.attempts for claimed in left), default=0)
        until = now + timedelta(seconds=ALERT_BACKOFF_SECONDS[min(tries, len(ALERT_BACKOFF_SECONDS) - 1)])
    _FREE.run(db, {"numbers": [claimed.number for claimed in left], "until": until})


def _back_off(db: Connection, now: datetime, peer: str, chance: float, at_least_seconds: int | None = None) -> None:
    known = _FAILURES.first(db, {"peer": peer})
    failures = 0 if known is None else known.failures
    wait = max(backoff_seconds(failures, chance), at_least_seconds or 0)
    _FAILED.run(db, {"peer": peer, "count": failures + 1, "until": now + timedelta(seconds=wait)})


def backoff_seconds(failures: int, chance: float) -> float:
    """How long to wait after so many failures in a row. `chance` from 0 to 1 spreads it by ±20 %."""
    wait = BACKOFF_SECONDS[min(failures, len(BACKOFF_SECONDS) - 1)]
    return wait * (1 - JITTER + 2 * JITTER * chance)


def reset_back_off(db: Connection, peer: str) -> None:
    """The agency was heard: what waits for it goes now."""
    db.execute(update(agencies).where(agencies.c.agency == peer).values(failures=0, retry_at=None))


def forget_back_offs(db: Connection) -> None:
    """At the start of a process: every agency may be tried now. How often it failed before is remembered."""
    db.execute(update(agencies).where(agencies.c.retry_at.is_not(None)).values(retry_at=None))


def free_leases(db: Connection, slot: int) -> None:
    """At the start of a process: whatever its slot had leased was leased by a process that is gone.

    A lease without a slot is of the release before, which had one process.
    """
    mine = or_(outbox.c.leased_by == slot, outbox.c.leased_by.is_(None))
    db.execute(update(outbox).where(outbox.c.lease_until.is_not(None), mine).values(lease_until=None))


def _waits_for(agency: Any, *conditions: Any) -> Any:
    return select(outbox.c.number).where(outbox.c.peer == agency, *conditions).limit(1).exists()


_WAITING = Question(
    select(agencies.c.agency).where(
        or_(agencies.c.retry_at.is_(None), agencies.c.retry_at <= bindparam("now")),
        _waits_for(agencies.c.agency, outbox.c.lane > _ALERTS),
    )
)
_ALERTING = Question(
    select(agencies.c.agency).where(
        _waits_for(
            agencies.c.agency,
            outbox.c.lane == _ALERTS,
            or_(outbox.c.lease_until.is_(None), outbox.c.lease_until <= bindparam("now")),
        )
    )
)


def waiting(db: Connection, now: datetime) -> tuple[list[str], list[str]]:
    """For whom an alert can go now, and for whom something else can: asked every two seconds, in one hop."""
    return waiting_alerts(db, now), waiting_peers(db, now)


def waiting_peers(db: Connection, now: datetime) -> list[str]:
    """Agencies for which something besides alerts is queued and that may be tried now."""
    return [row.agency for row in _WAITING.all(db, {"now": now})]


def waiting_alerts(db: Connection, now: datetime) -> list[str]:
    """Agencies for which an alert is queued that may be tried now, whatever else was tried with them."""
    return [row.agency for row in _ALERTING.all(db, {"now": now})]
