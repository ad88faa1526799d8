# SPDX-License-Identifier: Apache-2.0
"""Other agencies: met by invite, trusted after two people compared fingerprints, blocked by a person's decision.

An agency is `verified` only when both are known: our person heard theirs, and their node says that they heard ours.
"""

from __future__ import annotations

import json
from collections.abc import Collection
from datetime import datetime, timedelta
from statistics import median
from typing import Any, Final

import structlog
from sqlalchemy import Connection, bindparam, insert, select, update

from node.exchange.hooks import Hooks
from node.storage.here import Here
from node.storage.rows import Change, Question
from node.storage.settings import RETIRING, get_setting, set_setting
from node.storage.tables import agencies, invites, outbox
from protocol import crypto, identity, invite
from protocol.codes import AgencyType
from protocol.directory import Directory, Member, Standing
from protocol.encoding import encode, moment, seconds
from protocol.errors import LocalError, RemoteError, say
from protocol.identity import Peer
from protocol.invite import INVITE_DAYS, Invite, InviteAnswer, InviteRequest

log = structlog.get_logger(__name__)

#: A network of agencies in one region; the members' list will replace the invites long before.
PEERS_MAX: Final = 2_000
INVITES_MAX: Final = 50
#: The setting that lists the agencies that do not know our new address yet.
ANNOUNCE: Final = "announce_to"
_OUTSIDE: Final = select(agencies.c.outside).where(agencies.c.agency == bindparam("agency"))


def create_invite(
    db: Connection, here: Here, actor_id: str, now: datetime, agency_type: AgencyType, address: str
) -> Invite:
    """An invite that works once, for seven days. Only the hash of its secret is stored."""
    open_ones = select(invites.c.id).where(invites.c.used_at.is_(None), invites.c.expires_at > now)
    if len(db.execute(open_ones).all()) >= INVITES_MAX:
        raise LocalError("too-many-invites", "Too many invites are open. Wait until some are used or have ended.")
    made = Invite(address, crypto.new_id(), here.agency, crypto.new_id())
    row = {
        "id": made.invite,
        "secret_hash": crypto.sha256_hex(made.secret.encode()),
        "agency_type": agency_type,
        "created_at": now,
        "created_by": actor_id,
        "expires_at": now + timedelta(days=INVITE_DAYS),
    }
    db.execute(insert(invites), row)
    return made


def register(db: Connection, here: Here, hooks: Hooks, now: datetime, request: InviteRequest) -> bytes | None:
    """Admit the agency that shows this invite, unverified, and return our answer; None if the invite is not good.

    A second use by another agency raises an alarm. The same agency asking again (its answer was lost) gets the same.
    """
    row = db.execute(select(invites).where(invites.c.id == request.invite)).first()
    secret_hash = crypto.sha256_hex(request.secret.encode())
    if get_setting(db, RETIRING):  # nobody begins anything with a node that ends
        return None
    if row is None or not crypto.equal(row.secret_hash.encode(), secret_hash.encode()) or now >= row.expires_at:
        return None
    peer = identity.verify_bundle(request.bundle, seconds(now))
    if row.used_at is not None and row.used_by != peer.agency:
        db.execute(update(invites).where(invites.c.id == row.id).values(second_uses=invites.c.second_uses + 1))
        hooks.alarm(db, here, now, "invite-reused", row.id, peer.agency)
        return None
    if peer.type != row.agency_type:
        raise RemoteError("invite-type", "The invite was made for another type of agency. Ask for a new one.")
    invite.check_possession(request.possession, peer, invite=request.invite, us=here.agency)
    store_peer(db, here, now, peer)
    db.execute(update(invites).where(invites.c.id == row.id).values(used_at=now, used_by=peer.agency))
    ours = own_bundle(db)
    proof = invite.possession(here.keystore.node, request.invite, here.agency, peer.agency, ours, seconds(now))
    return encode(InviteAnswer(bundle=ours, possession=proof, type=peer.type))


def invite_request(db: Connection, here: Here, now: datetime, made: Invite) -> bytes:
    """What we post to accept an invite."""
    if made.agency == here.agency:
        raise LocalError("invite-own", "This invite is your own. Give it to the other agency.")
    ours = own_bundle(db)
    proof = invite.possession(here.keystore.node, made.invite, here.agency, made.agency, ours, seconds(now))
    return encode(InviteRequest(invite=made.invite, secret=made.secret, bundle=ours, possession=proof))


def accept_answer(db: Connection, here: Here, now: datetime, made: Invite, raw: bytes) -> Peer:
    """Admit the agency that invited us, unverified. It must be the one that the invite names."""
    answer = invite.parse_answer(raw)
    peer = identity.verify_bundle(answer.bundle, seconds(now))
    if peer.agency != made.agency:
        raise RemoteError("invite-agency", "Another agency answered than the one in the invite. Telephone them.")
    invite.check_possession(answer.possession, peer, invite=made.invite, us=here.agency)
    if answer.type is not here.type:
        raise RemoteError("invite-type", "They invited another type of agency. Ask for a new invite.")
    store_peer(db, here, now, peer)
    return peer


_TYPE = Question(select(agencies.c.type).where(agencies.c.agency == bindparam("agency")))
_STORE = Change(
    update(agencies)
    .where(agencies.c.agency == bindparam("of"))
    .values(name=bindparam("called"), bundle=bindparam("raw"), bundle_fetched_at=bindparam("at"))
)


def store_peer(db: Connection, here: Here, now: datetime, peer: Peer) -> None:
    """The bundle is stored if it is not older than the one already known; a new agency begins unverified."""
    if peer.agency == here.agency:
        raise LocalError("peer-self", "This is your own agency.")
    known = _TYPE.first(db, {"agency": peer.agency})
    values = {"name": peer.name, "bundle": peer.raw, "bundle_fetched_at": now}
    if known is None:
        with_node = select(agencies.c.agency).where(agencies.c.outside.is_(False))
        if len(db.execute(with_node.limit(PEERS_MAX)).all()) >= PEERS_MAX:
            raise LocalError("too-many-peers", say("A node knows at most {limit} agencies.", limit=PEERS_MAX))
        new = {**values, "agency": peer.agency, "type": peer.type, "standing": Standing.UNVERIFIED, "met_at": now}
        db.execute(insert(agencies), new)
        return
    before = here.directory.members.get(peer.agency)
    if before is not None and peer.order < before.peer.order:
        raise RemoteError("bundle-rollback", "The key bundle is older than the one already known.")
    if peer.type != known.type:
        raise RemoteError("bundle-type", "The agency has changed its type. Meet it again by an invite.")
    if before is not None and before.peer.root.hash not in peer.roots:
        # Also when it meets us anew by an invite: a leaked old root must not lead an agency elsewhere.
        raise RemoteError("bundle-fork", "The agency's root does not follow the one that is known. Telephone it.")
    if before is not None and peer.root.hash != before.peer.root.hash:
        log.warning("peer_root_changed", agency=peer.agency)
    _STORE.run(db, {"of": peer.agency, "called": peer.name, "raw": peer.raw, "at": now})


def take_bundle(db: Connection, here: Here, now: datetime, raw: bytes) -> None:
    """An agency that is known has sent its own bundle: it has moved, and its old address may lead nowhere.

    The bundle proves itself as one that was fetched does (Specification, 4.5). Raises RemoteError, also for an agency
    that is not known or blocked here: nobody joins this way.
    """
    signed = identity.decode_signed(raw)
    member = here.directory.members.get(identity.claimed_agency(signed))
    if member is None or member.standing is Standing.BLOCKED:
        raise RemoteError("unknown-sender", "This agency is not known here.", "refused")
    store_peer(db, here, now, identity.verify_bundle(raw, seconds(now), member.peer))


def announce_to(db: Connection) -> list[str]:
    """The agencies that have not taken our new address yet, by a bundle that we sent."""
    agencies_left: list[str] = json.loads(get_setting(db, ANNOUNCE) or "[]")
    return agencies_left


def begin_announcing(db: Connection) -> None:
    """Our address has changed: every agency that is known, and not blocked, has to be told."""
    known = select(agencies.c.agency).where(agencies.c.standing != Standing.BLOCKED)
    set_setting(db, ANNOUNCE, json.dumps(list(db.execute(known.limit(PEERS_MAX)).scalars())))


def announced(db: Connection, told: Collection[str]) -> None:
    """These agencies have it."""
    set_setting(db, ANNOUNCE, json.dumps([agency for agency in announce_to(db) if agency not in told]))


def verify_peer(db: Connection, here: Here, actor_id: str, now: datetime, agency: str, digits: str) -> Standing:
    """Our person has heard these thirty digits. Raises LocalError `fingerprint` if they are not the agency's."""
    member = _member(here, agency)
    heard = "".join(letter for letter in digits if letter.isdigit())
    expected = identity.fingerprint(agency, member.peer.root.hash).replace(" ", "")
    if not crypto.equal(heard.encode(), expected.encode()):
        raise LocalError(
            "fingerprint",
            "These are not the digits of this agency. Hang up, call a number that you know from elsewhere, compare. "
            "If they differ again, do not send anything, and tell your administrator.",
        )
    if member.standing is Standing.BLOCKED:
        raise LocalError("peer-blocked", "This agency is blocked here. Ask your administrator why.")
    db.execute(update(agencies).where(agencies.c.agency == agency).values(verified_at=now, verified_by=actor_id))
    return _promote(db, agency)


def confirmation(db: Connection, here: Here, now: datetime, agency: str) -> bytes | None:
    """Our signed statement for the agency that its fingerprint was heard, or None if it was not."""
    verified = db.execute(select(agencies.c.verified_at).where(agencies.c.agency == agency)).scalar()
    member = here.directory.members.get(agency)
    return (
        None
        if verified is None or member is None
        else invite.confirm(here.keystore.node, here.agency, member.peer, seconds(now))
    )


def take_confirmation(db: Connection, here: Here, now: datetime, raw: bytes) -> bytes | None:
    """Their person has heard ours. Returns our own confirmation if we have one, so that one exchange is enough."""
    agency = invite.claimed_sender(raw)
    member = here.directory.members.get(agency)
    root = get_setting(db, "root")
    if member is None or member.standing is Standing.BLOCKED or root is None:
        raise RemoteError("unknown-sender", "This agency is not known here.", "refused")
    our_root = crypto.sha256_hex(bytes.fromhex(root))
    invite.check_confirmation(raw, member.peer, us=here.agency, our_root=our_root)
    db.execute(update(agencies).where(agencies.c.agency == agency).values(confirmed_by_peer_at=now))
    _promote(db, agency)
    return confirmation(db, here, now, agency)


def _promote(db: Connection, agency: str) -> Standing:
    row = db.execute(
        select(agencies.c.standing, agencies.c.verified_at, agencies.c.confirmed_by_peer_at).where(
            agencies.c.agency == agency
        )
    ).one()
    if row.standing == Standing.UNVERIFIED and row.verified_at is not None and row.confirmed_by_peer_at is not None:
        db.execute(update(agencies).where(agencies.c.agency == agency).values(standing=Standing.VERIFIED))
        return Standing.VERIFIED
    return Standing(row.standing)


def block(db: Connection, here: Here, agency: str) -> None:
    """Nothing that the agency sends is taken any more, and only what protects a person goes to it."""
    _member(here, agency)
    db.execute(update(agencies).where(agencies.c.agency == agency).values(standing=Standing.BLOCKED))


def has_no_node(db: Connection, here: Here, agency: str) -> bool:
    """Whether this is an agency without a node. What is in the directory has one: then nothing is asked."""
    return agency not in here.directory.members and bool(db.execute(_OUTSIDE, {"agency": agency}).scalar())


def recipient_type(db: Connection, here: Here, agency: str) -> AgencyType:
    """What kind of agency this is, with a node or without. Raises LocalError `peer-unknown`."""
    member = here.directory.members.get(agency)
    if member is not None:
        return member.peer.type
    kind = db.execute(select(agencies.c.type).where(agencies.c.agency == agency, agencies.c.outside.is_(True))).scalar()
    if kind is None:
        raise LocalError("peer-unknown", "This agency is not known here. Exchange an invite with it first.")
    return AgencyType(kind)


def names(db: Connection) -> dict[str, str]:
    """How every agency that is known is called, with a node or without."""
    return {row.agency: row.name for row in db.execute(select(agencies.c.agency, agencies.c.name))}


def list_peers(db: Connection, here: Here) -> list[dict[str, Any]]:
    """Every agency that has a node and is known, with both fingerprints' state and how much waits for it."""
    query = select(agencies).where(agencies.c.outside.is_(False)).order_by(agencies.c.name).limit(PEERS_MAX)
    found = []
    for row in db.execute(query).mappings():
        member = here.directory.members.get(row["agency"])
        waiting = select(outbox.c.number).where(outbox.c.peer == row["agency"]).limit(1)
        found.append(
            {
                "agency": row["agency"],
                "name": row["name"],
                "type": row["type"],
                "standing": row["standing"],
                "verified_at": row["verified_at"],
                "confirmed_by_peer_at": row["confirmed_by_peer_at"],
                "heard_at": row["heard_at"],
                "retry_at": row["retry_at"],
                "is_waited_for": db.execute(waiting).first() is not None,
                "fingerprint": None if member is None else identity.fingerprint(row["agency"], member.peer.root.hash),
                "desks": [] if member is None else [_desk(desk) for desk in member.peer.desks],
            }
        )
    return found


def _desk(desk: identity.Desk) -> dict[str, Any]:
    entry = desk.entry
    return {
        "id": desk.id,
        "name": entry.name,
        "services": list(entry.services),
        "areas": list(entry.areas),
        "languages": list(entry.languages),
        "accepting": entry.accepting,
        "telephone": entry.telephone,
        "key_until": moment(desk.key_until),
    }


def own_fingerprint(db: Connection, here: Here) -> str:
    """The thirty digits that our people read aloud."""
    root = get_setting(db, "root")
    if root is None:
        raise LocalError("not-initialised", "This node has no agency yet. Run: staffetta init")
    return identity.fingerprint(here.agency, crypto.sha256_hex(bytes.fromhex(root)))


def unconfirmed(db: Connection) -> list[str]:
    """Agencies whose fingerprint we have heard and who have not confirmed ours: they are told again until they have."""
    query = select(agencies.c.agency).where(
        agencies.c.verified_at.is_not(None),
        agencies.c.confirmed_by_peer_at.is_(None),
        agencies.c.standing == Standing.UNVERIFIED,
    )
    return list(db.execute(query.limit(PEERS_MAX)).scalars())


_MEMBERS = Question(
    select(agencies.c.agency, agencies.c.standing, agencies.c.bundle)
    .where(agencies.c.outside.is_(False))
    .limit(PEERS_MAX)
)


def load_directory(db: Connection, now: datetime, before: Directory | None = None) -> Directory:
    """The members as stored. A bundle that was verified before is not verified again."""
    known = {} if before is None else {agency: member.peer for agency, member in before.members.items()}
    members: dict[str, Member] = {}
    for row in _MEMBERS.all(db, {}):
        standing, old = Standing(row.standing), known.get(row.agency)
        if old is not None and old.raw == row.bundle:
            members[row.agency] = Member(old, standing)
            continue
        try:
            members[row.agency] = Member(identity.read_known(row.bundle, seconds(now)), standing)
        except RemoteError as refusal:
            log.warning("peer_bundle_unusable", agency=row.agency, code=refusal.code)
    return Directory(members)


def heard_last(db: Connection, now: datetime, limit: int) -> list[Peer]:
    """The verified agencies that were heard last, without any whose bundle is not good now."""
    query = select(agencies.c.bundle).where(agencies.c.standing == Standing.VERIFIED)
    found = []
    for raw in db.execute(query.order_by(agencies.c.heard_at.desc().nulls_last()).limit(limit)).scalars():
        try:
            found.append(identity.verify_bundle(raw, seconds(now)))
        except RemoteError:
            continue
    return found


def clock_offset(db: Connection, now: datetime) -> int:
    """By how many seconds other agencies' clocks are ahead of ours, as they signed it in the last week: the middle one.

    One agency with a wrong clock moves it little; our own wrong clock moves all.
    """
    recent = agencies.c.clock_seen_at > now - timedelta(days=7)
    offsets = db.execute(select(agencies.c.clock_offset_seconds).where(recent)).scalars().all()
    return round(median(offsets)) if offsets else 0


def _member(here: Here, agency: str) -> Member:
    member = here.directory.members.get(agency)
    if member is None:
        raise LocalError("peer-unknown", "This agency is not known here. See the list of peers.")
    return member


def own_bundle(db: Connection) -> bytes:
    """The bundle that we published last. Raises LocalError `not-initialised`."""
    stored = get_setting(db, "bundle")
    if stored is None:
        raise LocalError("not-initialised", "This node has no key bundle yet. Start it once: staffetta serve")
    return bytes.fromhex(stored)
