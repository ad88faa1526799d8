# SPDX-License-Identifier: Apache-2.0
"""A node that retires: refused while something is open, or with a signed list for the backstop; by two people.

From the second person's yes nobody is signed in, nothing can be sent under a consent, and what comes is refused with a
signed receipt. Then everything sealed and every person's keys are erased, a part at a time, each part whole or not at
all: after a crash the next sweep goes on. At the end stands a signed certificate. It is no withdrawal: she took nothing
back, and who helps her now keeps what she agreed to.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Sequence
from datetime import datetime, timedelta
from typing import Any, Final

from sqlalchemy import Connection, delete, func, null, or_, select, update

from node.casework import backstop, consents, erasure
from node.exchange import outbox, peers
from node.office import audit, tasks
from node.office.actor import Actor
from node.storage.here import NODE, Here
from node.storage.settings import RETIRING, get_setting, set_setting
from node.storage.tables import (
    alerts,
    bodies,
    cards,
    cases,
    channels,
    desk_wraps,
    followups,
    messages,
    outside_alerts,
    passkeys,
    records,
    referrals,
    sessions,
    staff,
    threads,
    withdrawals,
)
from node.storage.tables import outbox as outbox_rows
from protocol import consent, record, retirement
from protocol.codes import CardState, MessageType, Role, Section
from protocol.crypto import sha256, sha256_hex
from protocol.directory import Standing
from protocol.encoding import seconds
from protocol.errors import LocalError, say
from protocol.messages import Hello
from protocol.retirement import Erased, HandOver, OpenKind, OpenThing, Retired

MAY: Final = (Role.DIRECTOR, Role.ADMINISTRATOR)
#: A request that nobody has agreed to by then is none any more.
LAPSES: Final = timedelta(hours=4)
#: Rows erased in one transaction: some tenths of a second, so that answers to other agencies need not wait.
STEP: Final = 200
_ASKED: Final = "retire-asked"
_LIST: Final = "retire-list"
_CERTIFICATE: Final = "retire-certificate"
_START: Final = "0" * 64
#: Between nodes, about nobody.
_PLAIN: Final = (MessageType.HELLO, MessageType.RECEIPT)


# -- what is open ----------------------------------------------------------------------------------------------------


def what_is_open(db: Connection, here: Here) -> list[OpenThing]:
    """Everything of which somebody here would still have to think; at most one more than a list can hold."""
    own = (followups.c.case_id == cases.c.id) & followups.c.ended.is_(False)
    following = select(func.min(followups.c.due_at)).where(own).correlate(cases).scalar_subquery()
    no_id = null()
    in_thread = threads.c.case_id, threads.c.id.label("thread"), threads.c.peer
    queries: dict[OpenKind, Any] = {
        OpenKind.CASE: select(cases.c.id, cases.c.id, no_id, no_id, following.label("next")).where(
            cases.c.closed_at.is_(None), cases.c.transferred_to.is_(None), cases.c.merged_into.is_(None)
        ),
        OpenKind.REFERRAL: select(referrals.c.id, *in_thread, referrals.c.attention_at)
        .join(threads, threads.c.id == referrals.c.thread_id)
        .where(referrals.c.ended_at.is_(None)),
        OpenKind.ALERT: select(alerts.c.id, *in_thread, alerts.c.next_step_at)
        .join(threads, threads.c.id == alerts.c.thread_id)
        .where(alerts.c.ended_at.is_(None), alerts.c.test.is_(False))
        .union_all(
            select(outside_alerts.c.id, no_id, no_id, no_id, outside_alerts.c.next_step_at).where(
                outside_alerts.c.ended_at.is_(None)
            )
        ),
        OpenKind.FOLLOWUP: select(
            followups.c.id, followups.c.case_id, followups.c.thread_id, no_id, followups.c.due_at
        ).where(followups.c.ended.is_(False), followups.c.ours.is_(True)),
        OpenKind.CARD: select(cards.c.thread_id, no_id, cards.c.thread_id, cards.c.peer, cards.c.due_at).where(
            cards.c.ours.is_(False), cards.c.ended.is_(False), cards.c.state != CardState.TAKEN
        ),
        OpenKind.WITHDRAWAL: select(
            withdrawals.c.id, no_id, withdrawals.c.thread_id, withdrawals.c.holder, withdrawals.c.duty_at
        ).where(withdrawals.c.answered_at.is_(None)),
        OpenKind.MESSAGE: select(messages.c.id, no_id, messages.c.thread_id, messages.c.peer, no_id)
        .join(outbox_rows, outbox_rows.c.message_id == messages.c.id)
        .where(messages.c.type.not_in(_PLAIN)),
    }
    found: list[OpenThing] = []
    for kind, query in queries.items():
        for id_, case, thread, agency, at in db.execute(query.limit(retirement.OPEN_MAX + 1)):
            found.append(
                OpenThing(
                    kind=kind,
                    id=id_,
                    case=case,
                    thread=thread,
                    agency=agency,
                    next=None if at is None else seconds(at),
                )
            )
    return found[: retirement.OPEN_MAX + 1]


def count(things: Iterable[OpenThing]) -> dict[str, int]:
    """How many of each kind."""
    counts: dict[str, int] = {}
    for thing in things:
        counts[thing.kind] = counts.get(thing.kind, 0) + 1
    return counts


def look(db: Connection, here: Here, actor: Actor, now: datetime) -> dict[str, Any]:
    """For whoever may retire the node: what is open, who is the backstop, and what was asked."""
    actor.require_role(*MAY)
    waiting = _waiting(db, now)
    return {
        "open": count(what_is_open(db, here)),
        "backstop": backstop.chosen(db)[0],
        "asked": None if waiting is None else {"by": waiting["by"], "hand_over": waiting["hand_over"]},
    }


# -- two people ------------------------------------------------------------------------------------------------------


def ask(db: Connection, here: Here, actor: Actor, now: datetime, *, hand_over: bool) -> None:
    """Ask a second person to agree, within four hours. Raises LocalError `retire-open`, `retire-backstop`."""
    actor.require_role(*MAY)
    _check(db, here, hand_over)
    set_setting(db, _ASKED, json.dumps({"by": actor.staff_id, "at": now.isoformat(), "hand_over": hand_over}))
    for role in MAY:
        tasks.notify(db, now, f"role:{role}")
    audit.record(db, now, actor.staff_id, "node.retire-ask", here.agency)


def take_back(db: Connection, here: Here, actor: Actor, now: datetime) -> None:
    """Nobody is asked any more. Any of those who may retire the node may say no."""
    actor.require_role(*MAY)
    if _waiting(db, now) is not None:
        audit.record(db, now, actor.staff_id, "node.retire-no", here.agency)
    set_setting(db, _ASKED, "null")


def agree(db: Connection, here: Here, actor: Actor, now: datetime, *, hand_over: bool) -> None:
    """The second person agrees, to exactly that. Everybody is signed out for good; the erasing begins.

    Raises LocalError `lapsed`, `approver`, and what `ask` does.
    """
    actor.require_role(*MAY)
    waiting = _waiting(db, now)
    if waiting is None or waiting["hand_over"] is not hand_over:
        raise LocalError("lapsed", "This request has lapsed, or was changed. Ask again.")
    if waiting["by"] == actor.staff_id:
        raise LocalError("approver", "Somebody else has to agree: it takes two people.")
    things = _check(db, here, hand_over)
    listed = None
    if hand_over:
        said = HandOver(
            form="staffetta-hand-over-1",
            agency=here.agency,
            bundle=peers.own_bundle(db),
            made_at=seconds(now),
            backstop=backstop.chosen(db)[0],
            things=tuple(things),
        )
        raw = retirement.sign(said, here.keystore.node)
        listed = sha256_hex(raw)
        set_setting(db, _LIST, raw.decode())
    consents.end_all(db, here, actor, now)
    bundle_at = int(get_setting(db, "bundle_at") or "0")
    for agency, member in sorted(here.directory.members.items()):
        if member.standing is Standing.VERIFIED:
            outbox.compose_plain(db, here, now, agency, Hello, epoch=here.epoch, bundle_at=bundle_at, retired=True)
    db.execute(delete(sessions))
    audit.record(db, now, actor.staff_id, "node.retire", here.agency)
    state: dict[str, Any] = {"began_at": seconds(now), "hand_over": listed, "erased": {}, "done": False}
    set_setting(db, RETIRING, json.dumps(state))


def _waiting(db: Connection, now: datetime) -> dict[str, Any] | None:
    stored: dict[str, Any] | None = json.loads(get_setting(db, _ASKED) or "null")
    if not stored or datetime.fromisoformat(stored["at"]) + LAPSES <= now:
        return None
    return stored


def _check(db: Connection, here: Here, hand_over: bool) -> list[OpenThing]:
    things = what_is_open(db, here)
    if not hand_over and things:
        raise LocalError(
            "retire-open",
            say(
                "{count} things are still open. Close them or hand them over one by one, or retire with a hand-over "
                "list for your backstop.",
                count=len(things),
            ),
        )
    if hand_over:
        agency = backstop.chosen(db)[0]
        member = here.directory.members.get(agency)
        if member is None or member.standing is not Standing.VERIFIED:
            raise LocalError("retire-backstop", "Choose a backstop first: an agency whose fingerprint was compared.")
        if len(things) > retirement.OPEN_MAX:
            raise LocalError(
                "retire-open",
                say("One list holds {limit} open things. Hand over some of them first.", limit=retirement.OPEN_MAX),
            )
    return things


# -- it is carried out -----------------------------------------------------------------------------------------------


def is_retiring(db: Connection) -> bool:
    """Whether two people have agreed: then nothing but retiring is done here any more."""
    return bool(get_setting(db, RETIRING))


def is_done(db: Connection) -> bool:
    """Whether the certificate is there."""
    return bool(_state(db)["done"])


def erase_some(db: Connection, here: Here, now: datetime, limit: int = STEP) -> int:
    """Erase the next part, and count it in the same transaction. Returns how much; 0 when nothing is left."""
    state = _state(db)
    if state["done"]:
        return 0
    for kind, erase in _ERASE.items():
        gone = erase(db, here, now, limit)
        if gone:
            known = state["erased"].get(kind) or {"count": 0, "chain": _START}
            chain = bytes.fromhex(known["chain"])
            for raw in gone:
                chain = sha256(chain + sha256(raw))
            state["erased"][kind] = {"count": known["count"] + len(gone), "chain": chain.hex()}
            set_setting(db, RETIRING, json.dumps(state))
            return len(gone)
    return 0


def certify(db: Connection, here: Here, now: datetime, overwritten: bool) -> int:
    """Sign what was erased. Only when nothing is left, and after the caller has truncated the write-ahead log.

    `overwritten`: whether that showed that the bytes are gone. Returns 1, or 0 if it was signed already.
    """
    state = _state(db)
    if state["done"]:
        return 0
    if any(erase(db, here, now, 1) for erase in _ERASE.values()):
        raise RuntimeError("something is left that is not erased")
    audit.record(db, now, NODE, "node.retired", here.agency)
    said = Retired(
        form="staffetta-retired-1",
        agency=here.agency,
        bundle=peers.own_bundle(db),
        began_at=state["began_at"],
        ended_at=seconds(now),
        erased={kind: Erased(**erased) for kind, erased in state["erased"].items()},
        trail=audit.head(db),
        backups_until=seconds(now) + consent.BACKUP_SECONDS,
        overwritten=overwritten,
        hand_over=state["hand_over"],
    )
    set_setting(db, _CERTIFICATE, retirement.sign(said, here.keystore.node).decode())
    set_setting(db, RETIRING, json.dumps({**state, "done": True}))
    return 1


def files(db: Connection, here: Here, actor: Actor, now: datetime) -> dict[str, str]:
    """The signed files by their names, for the node's own user on its machine: nobody else can sign in any more."""
    if not actor.is_node:
        raise LocalError(
            "forbidden", "The files are written on the node's own machine: staffetta retire --files FOLDER"
        )
    found = {"hand-over.json": get_setting(db, _LIST), "certificate.json": get_setting(db, _CERTIFICATE)}
    return {name: text for name, text in found.items() if text}


def _state(db: Connection) -> dict[str, Any]:
    state: dict[str, Any] = json.loads(get_setting(db, RETIRING) or '{"done": true}')
    return state


def _erase_bodies(db: Connection, here: Here, now: datetime, limit: int) -> list[bytes]:
    query = select(bodies.c.content_hash, bodies.c.body_sealed, messages.c.agency, messages.c.id)
    query = query.outerjoin(messages, messages.c.content_hash == bodies.c.content_hash)
    gone: dict[str, bytes] = {}
    for row in db.execute(query.order_by(bodies.c.content_hash).limit(limit)).all():
        gone[row.content_hash] = row.body_sealed
        present = list(record.parse(row.body_sealed).sections)
        if row.id is not None and present:
            erasure.list_erasure(db, row.agency, row.id, present, now)
    db.execute(delete(bodies).where(bodies.c.content_hash.in_(gone)))
    return list(gone.values())


def _erase_records(db: Connection, here: Here, now: datetime, limit: int) -> list[bytes]:
    found = db.execute(select(records).order_by(records.c.id).limit(limit)).all()
    for row in found:
        erasure.list_erasure(db, here.agency, row.id, [Section(name) for name in json.loads(row.commitments)], now)
    db.execute(delete(records).where(records.c.id.in_([row.id for row in found])))
    return [row.body_sealed for row in found]


def _erase_desk_keys(db: Connection, here: Here, now: datetime, limit: int) -> list[bytes]:
    found = db.execute(select(desk_wraps).order_by(desk_wraps.c.key_hash, desk_wraps.c.holder).limit(limit)).all()
    for row in found:
        this = (desk_wraps.c.key_hash == row.key_hash) & (desk_wraps.c.holder == row.holder)
        db.execute(delete(desk_wraps).where(this))
    return [row.seed_sealed for row in found]


def _erase_people(db: Connection, here: Here, now: datetime, limit: int) -> list[bytes]:
    secrets = ("seed_sealed", "seed_recovery_sealed", "seed_salt", "totp_sealed", "email_sealed", "enrol_hash")
    has_some = or_(*(staff.c[name].is_not(None) for name in secrets))
    found = db.execute(select(staff).where(has_some).order_by(staff.c.id).limit(limit)).all()
    nothing = {**dict.fromkeys(secrets), "codes": "[]", "status": "disabled"}
    db.execute(update(staff).where(staff.c.id.in_([row.id for row in found])).values(**nothing))
    return [row.seed_sealed or b"" for row in found]


def _erase_rows(table: Any, column: str) -> Callable[[Connection, Here, datetime, int], Sequence[bytes]]:
    def erase(db: Connection, here: Here, now: datetime, limit: int) -> list[bytes]:
        found = db.execute(select(table.c.id, table.c[column]).order_by(table.c.id).limit(limit)).all()
        db.execute(delete(table).where(table.c.id.in_([row.id for row in found])))
        return [row[1] for row in found]

    return erase


#: In this order: first what is about the people who were helped, then what could open it, then what is about staff.
_ERASE: Final[dict[str, Callable[[Connection, Here, datetime, int], Sequence[bytes]]]] = {
    "bodies": _erase_bodies,
    "records": _erase_records,
    "desk-keys": _erase_desk_keys,
    "passkeys": _erase_rows(passkeys, "credential"),
    "channels": _erase_rows(channels, "address_sealed"),
    "people": _erase_people,
}
