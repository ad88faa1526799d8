# SPDX-License-Identifier: Apache-2.0
"""The staff API, agency side: sign-in, staff, desks, peers, keys, the trail. One table of routes at the end."""

from __future__ import annotations

import asyncio
import time
from dataclasses import asdict
from datetime import datetime
from typing import Annotated, Any, Final

import msgspec
from aiohttp import web
from sqlalchemy import Connection, select

from node.casework import returning
from node.exchange import peers
from node.office import audit, clocks, desks, lock, passkeys, setup, signin, staff, tasks
from node.office import root as roots
from node.office.actor import Actor
from node.storage.here import Here
from node.storage.tables import agencies, messages
from node.storage.tables import outbox as outbox_rows
from node.web import peering
from node.web.api import COOKIE, SECURE_COOKIE, Call, Route, Services, session_of
from protocol import crypto
from protocol.codes import AgencyType, Role
from protocol.encoding import Id
from protocol.errors import LocalError

_Text = Annotated[str, msgspec.Meta(max_length=1024)]
#: Entries of the trail in one answer: some hundred KiB.
AUDIT_STEP: Final = 1_000
SALT_BYTES: Final = 16
#: Argon2id at 64 MiB: two at once are what a small server has memory for. Others wait their turn.
_STRETCHING: Final = asyncio.Semaphore(2)


class Body(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Base of every request."""


class SignIn(Body, frozen=True, kw_only=True):
    handle: _Text
    passphrase: _Text
    code: Annotated[str, msgspec.Meta(max_length=24)]


class Enrol(Body, frozen=True, kw_only=True):
    secret: _Text
    passphrase: _Text


class Zone(Body, frozen=True, kw_only=True):
    """An IANA name; empty for the agency's."""

    zone: Annotated[str, msgspec.Meta(max_length=64)]


class NewStaff(Body, frozen=True, kw_only=True):
    handle: _Text
    roles: Annotated[tuple[Role, ...], msgspec.Meta(max_length=len(Role))]


class NewDesk(Body, frozen=True, kw_only=True):
    name: _Text
    profile: desks.Profile = desks.Profile()
    join: bool = True


class Roles(Body, frozen=True, kw_only=True):
    roles: Annotated[tuple[Role, ...], msgspec.Meta(max_length=len(Role))]


class Member(Body, frozen=True, kw_only=True):
    staff_id: Id


class NewInvite(Body, frozen=True, kw_only=True):
    type: AgencyType


class AcceptInvite(Body, frozen=True, kw_only=True):
    invite: _Text


class Root(Body, frozen=True, kw_only=True):
    """The root key as it is printed. Taken on the node's own socket only, used for this request, stored nowhere."""

    root: _Text


class Successor(Root, frozen=True, kw_only=True):
    new_root: _Text


class Unlock(Body, frozen=True, kw_only=True):
    """`anyway`: after a restore, though some agencies have not answered yet."""

    anyway: bool = False


class Heard(Body, frozen=True, kw_only=True):
    fingerprint: _Text


async def stretch(passphrase: str, salt: bytes) -> bytes:
    """Argon2id off the event loop and off the database's threads."""
    async with _STRETCHING:
        return await asyncio.to_thread(crypto.stretch, staff.normal_passphrase(passphrase), salt)


async def open_session(
    services: Services, request: web.Request, handle: str, passphrase: str, code: str
) -> signin.SignedIn:
    """Sign a person in, from the API or a page. Raises LocalError `sign-in` or `sign-in-wait`."""
    if not services.sign_ins.take(request.remote or "", time.monotonic()):
        raise LocalError("sign-in-wait", "Too many tries from this address. Wait a minute, then try again.")
    material = await services.database.read(signin.material, services.here, handle)
    stretched = await stretch(passphrase, material.salt)
    signed = await services.database.write(
        signin.sign_in, services.here, services.real.now(), handle=handle, stretched=stretched, code=code
    )
    if signed is None:
        raise signin.refusal()
    return signed


async def sign_in(call: Call) -> web.Response:
    body = call.body
    signed = await open_session(call.services, call.request, body.handle, body.passphrase, body.code)
    response = web.Response(body=msgspec.json.encode(who(signed.actor)), content_type="application/json")
    cookie_for(call.services, call.request, response, f"{signed.session_id}.{signed.secret.hex()}")
    return response


def cookie_for(services: Services, request: web.Request, response: web.Response, value: str) -> None:
    """The session's cookie: for this site alone, out of reach of scripts, over TLS only where there is TLS."""
    secure = request.secure or services.config.agency.address.startswith("https://")
    response.set_cookie(
        SECURE_COOKIE if secure else COOKIE, value, httponly=True, secure=secure, samesite="Strict", path="/"
    )


def who(actor: Actor) -> dict[str, Any]:
    """Who is signed in, as the API says it."""
    return {"staff_id": actor.staff_id, "roles": sorted(actor.roles), "desks": sorted(actor.desks)}


async def who_am_i(call: Call) -> Any:
    about = await call.read(staff.about, call.actor.staff_id)
    return who(call.actor) | {"zone": about.zone or call.services.here.zone}


async def set_zone(call: Call) -> Any:
    await call.write(staff.set_zone, call.actor, call.body.zone)
    return {"changed": True}


async def sign_out(call: Call) -> web.Response:
    session_id, _ = session_of(call.request)
    await call.write(signin.end_session, call.services.real.now(), session_id)
    response = web.Response(body=b'{"signed_in":false}', content_type="application/json")
    for name in (COOKIE, SECURE_COOKIE):
        response.del_cookie(name, path="/", secure=name == SECURE_COOKIE)
    return response


async def make_codes(call: Call) -> Any:
    codes = await call.write(staff.make_codes, call.services.here, call.actor, call.services.real.now())
    return {"codes": codes}


async def enrol(call: Call) -> Any:
    staff.check_passphrase(call.body.passphrase)
    salt = crypto.random_bytes(SALT_BYTES)
    stretched = await stretch(call.body.passphrase, salt)
    enrolled = await call.write(
        staff.enrol,
        call.services.here,
        call.services.real.now(),
        secret=call.body.secret,
        salt=salt,
        stretched=stretched,
    )
    return {"staff_id": enrolled.staff_id, "totp_uri": enrolled.totp_uri("staff", "Staffetta")}


async def list_staff(call: Call) -> Any:
    return {"staff": await call.read(staff.list_staff)}


async def add_staff(call: Call) -> Any:
    staff_id, secret = await call.write(
        staff.invite, call.actor, call.services.real.now(), handle=call.body.handle, roles=call.body.roles
    )
    return {"id": staff_id, "enrol_secret": secret}


async def disable_staff(call: Call) -> Any:
    left = await call.do(staff.disable, call.params["staff"])
    await peering.publish(call)
    return {"desks_to_rotate": left}


async def set_roles(call: Call) -> Any:
    await call.write(staff.set_roles, call.actor, call.now, call.params["staff"], call.body.roles)
    return {"changed": True}


async def remove_passkeys(call: Call) -> Any:
    gone = await call.write(passkeys.remove_all, call.actor, call.services.real.now(), call.params["staff"])
    return {"removed": gone}


async def sign_out_person(call: Call) -> Any:
    ended = await call.write(signin.end_all_sessions, call.actor, call.services.real.now(), call.params["staff"])
    return {"ended": ended}


async def sign_out_everybody(call: Call) -> Any:
    return {"ended": await call.do(signin.end_everybody)}


async def list_desks(call: Call) -> Any:
    return {"desks": await call.read(desks.list_desks)}


async def add_desk(call: Call) -> Any:
    desk_id = await call.do(desks.create, name=call.body.name, profile=call.body.profile, join=call.body.join)
    await peering.publish(call)
    return {"id": desk_id}


async def add_member(call: Call) -> Any:
    await call.do(desks.add_member, call.params["desk"], call.body.staff_id)
    return {"added": True}


async def remove_member(call: Call) -> Any:
    await call.do(desks.remove_member, call.params["desk"], call.params["staff"])
    await peering.publish(call)
    return {"removed": True}


async def set_profile(call: Call) -> Any:
    await call.write(desks.set_profile, call.actor, call.now, call.params["desk"], call.body)
    await peering.publish(call)
    return {"changed": True}


async def rotate_desk(call: Call) -> Any:
    await call.do(desks.rotate_key, call.params["desk"])
    await peering.publish(call)
    return {"rotated": True}


# -- peers -----------------------------------------------------------------------------------------------------------


async def list_peers(call: Call) -> Any:
    own = await call.read(peers.own_fingerprint, call.services.here)
    return {"our_fingerprint": own, "peers": await call.read(peers.list_peers, call.services.here)}


async def make_invite(call: Call) -> Any:
    text = await peering.make_invite(call, call.body.type)
    return {"invite": text, "our_fingerprint": await call.read(peers.own_fingerprint, call.services.here)}


async def accept_invite(call: Call) -> Any:
    services = call.services
    peer = await peering.accept_invite(call, call.body.invite)
    listed = await call.read(peers.list_peers, services.here)
    found = next(row for row in listed if row["agency"] == peer.agency)
    return {
        "agency": peer.agency,
        "name": peer.name,
        "fingerprint": found["fingerprint"],
        "our_fingerprint": await call.read(peers.own_fingerprint, services.here),
    }


async def verify_peer(call: Call) -> Any:
    agency = call.params["agency"]
    await peering.verify_peer(call, agency, call.body.fingerprint)
    return {"agency": agency, "standing": str(call.services.here.directory.members[agency].standing)}


async def block_peer(call: Call) -> Any:
    agency = call.params["agency"]
    await peering.block_peer(call, agency)
    return {"agency": agency, "standing": "blocked"}


# -- the node --------------------------------------------------------------------------------------------------------


async def list_outbox(call: Call) -> Any:
    return {"outbox": await call.read(_outbox)}


def _outbox(db: Connection) -> list[dict[str, Any]]:
    query = (
        select(
            outbox_rows.c.message_id.label("message"),
            outbox_rows.c.peer,
            outbox_rows.c.lane,
            outbox_rows.c.attempts,
            outbox_rows.c.queued_at,
            outbox_rows.c.expires_at,
            agencies.c.retry_at,
            messages.c.type,
        )
        .join(agencies, agencies.c.agency == outbox_rows.c.peer)
        .join(messages, (messages.c.id == outbox_rows.c.message_id) & messages.c.incoming.is_(False))
        .order_by(outbox_rows.c.number)
        .limit(tasks.LIST_MAX)
    )
    return [dict(row) for row in db.execute(query).mappings()]


async def rotate_keys(call: Call) -> Any:
    call.actor.require_role(Role.ADMINISTRATOR, Role.OFFICER)
    services = call.services
    services.here.keystore.rotate(call.now, force=True)
    await peering.publish(call)

    def note(db: Connection, here: Here, actor: Actor, now: datetime) -> None:
        audit.record(db, now, actor.staff_id, "keys.rotate", here.agency)

    await call.do(note)
    return {"rotated": True}


async def lock_node(call: Call) -> Any:
    """By who may, signed in, or by the node's own user through its socket, as the node."""
    return {"locked": True, "ended": await call.do(lock.lock)}


async def unlock_node(call: Call) -> Any:
    return {"locked": False, "was_locked": await call.do(returning.unlock, anyway=call.body.anyway)}


async def show_clock(call: Call) -> Any:
    call.actor.require_role(Role.ADMINISTRATOR, Role.DIRECTOR)
    return await call.read(clocks.state, call.now)


async def confirm_clock(call: Call) -> Any:
    """By who may, signed in, or by the node's own user through its socket, as the node."""
    return {"confirmed": await call.do(clocks.confirm)}


async def show_keys(call: Call) -> Any:
    return await call.read(roots.status, call.services.here, call.actor, call.now)


async def renew_keys(call: Call) -> Any:
    until = await call.do(roots.renew, root=setup.read_root(call.body.root))
    await _spread(call)
    return {"until": until}


async def succeed_root(call: Call) -> Any:
    successor = setup.read_root(call.body.new_root)
    printed = await call.do(roots.succeed, root=setup.read_root(call.body.root), successor=successor)
    await _spread(call)
    return {"fingerprint": printed}


async def _spread(call: Call) -> None:
    """Our bundle is made again, and every agency is told that there is a newer one."""
    await peering.publish(call)
    await call.services.worker.say_hello()


async def verify_audit(call: Call) -> Any:
    call.actor.require_role(Role.AUDITOR, Role.DIRECTOR, Role.ADMINISTRATOR)
    seen = call.request.query.get("seen", "")
    if seen and not (len(seen) == 64 and set(seen) <= set("0123456789abcdef")):
        raise LocalError("audit-head", "A head of the trail has 64 digits and letters from a to f. Copy all of it.")
    found = await call.read(audit.verify_all, seen=seen or audit.START)
    return {
        "entries": sum(one.entries for one in found),
        "broken_at": next((one.broken_at for one in found if one.broken_at is not None), None),
        "head": found[0].head,
        "chains": [asdict(one) for one in found],
    }


async def list_audit(call: Call) -> Any:
    """The trail in order, a thousand entries at a time."""
    call.actor.require_role(Role.AUDITOR, Role.DIRECTOR, Role.ADMINISTRATOR)
    after = call.request.query.get("after", "0")
    if not after.isdecimal() or len(after) > 15:
        raise LocalError("audit-after", "Give the number of the entry after which to go on.")
    chain = call.request.query.get("chain", audit.MAIN_CHAIN)
    return {"entries": await call.read(audit.after, int(after), AUDIT_STEP, chain)}


async def list_tasks(call: Call) -> Any:
    return {"tasks": await call.read(tasks.list_tasks, call.actor)}


async def settle_task(call: Call) -> Any:
    await call.do(tasks.settle, task_id=call.params["task"])
    return {}


async def list_notices(call: Call) -> Any:
    return {"notices": await call.read(tasks.notices_for, call.actor)}


async def read_notices(call: Call) -> Any:
    await call.write(tasks.read_notices, call.actor)
    return {"read": True}


async def rest(call: Call) -> Any:
    if call.services.rest is None:
        raise LocalError("not-found", "There is nothing at this address.")
    return await call.services.rest()


ROUTES: Final = [
    Route("POST", "/session", sign_in, "Sign in", SignIn, is_open=True),
    Route("GET", "/session", who_am_i, "Who am I"),
    Route("DELETE", "/session", sign_out, "Sign out"),
    Route("POST", "/session/zone", set_zone, "The time zone in which the pages show moments to me", Zone),
    Route("POST", "/session/codes", make_codes, "New recovery codes, instead of the ones before"),
    Route("POST", "/enrolment", enrol, "Enrol with an invitation", Enrol, is_open=True),
    Route("GET", "/staff", list_staff, "List the people of this agency"),
    Route("POST", "/staff", add_staff, "Invite a person", NewStaff),
    Route("POST", "/staff/{staff}/disable", disable_staff, "End a person's access"),
    Route("POST", "/staff/{staff}/roles", set_roles, "Change a person's roles", Roles),
    Route("POST", "/staff/{staff}/passkeys/remove", remove_passkeys, "A colleague has lost her passkeys"),
    Route("POST", "/staff/{staff}/signout", sign_out_person, "End a person's sessions"),
    Route("POST", "/staff/signout", sign_out_everybody, "End everybody's sessions"),
    Route("GET", "/desks", list_desks, "List the desks"),
    Route("POST", "/desks", add_desk, "Make a desk", NewDesk),
    Route("POST", "/desks/{desk}/members", add_member, "Add a member to a desk", Member),
    Route("POST", "/desks/{desk}/members/{staff}/remove", remove_member, "Remove a member; the key changes"),
    Route("POST", "/desks/{desk}/profile", set_profile, "What other agencies see of a desk", desks.Profile),
    Route("POST", "/desks/{desk}/rotate", rotate_desk, "Change a desk's key"),
    Route("GET", "/peers", list_peers, "List other agencies"),
    Route("POST", "/peers/invites", make_invite, "Invite an agency", NewInvite),
    Route("POST", "/peers/accept", accept_invite, "Accept an invite", AcceptInvite),
    Route("POST", "/peers/{agency}/verify", verify_peer, "Confirm the fingerprint that was heard", Heard),
    Route("POST", "/peers/{agency}/block", block_peer, "Exchange nothing more with an agency"),
    Route("GET", "/outbox", list_outbox, "What is not delivered yet"),
    Route("POST", "/keys/rotate", rotate_keys, "Make a new sealing key for the node"),
    Route("POST", "/node/lock", lock_node, "Lock the node: everybody is out, it goes on receiving"),
    Route("POST", "/local/lock", lock_node, "The same, on the node's own machine", is_open=True, local_only=True),
    Route("POST", "/local/unlock", unlock_node, "Open a locked node again", Unlock, is_open=True, local_only=True),
    Route("GET", "/node/clock", show_clock, "Whether the clock is in doubt"),
    Route("POST", "/node/clock", confirm_clock, "Somebody has looked at a watch: the clock is right"),
    Route("POST", "/local/clock", confirm_clock, "The same, on the node's own machine", is_open=True, local_only=True),
    Route("GET", "/keys", show_keys, "The agency's keys, and when each ends"),
    Route("POST", "/keys/renew", renew_keys, "Certificates for thirteen months, by the root", Root, local_only=True),
    Route("POST", "/keys/succeed", succeed_root, "A new root, signed by the old one", Successor, local_only=True),
    Route("GET", "/audit", list_audit, "Read the trail"),
    Route("GET", "/audit/verify", verify_audit, "Check the trail"),
    Route("GET", "/tasks", list_tasks, "What waits for me"),
    Route("POST", "/tasks/{task}/done", settle_task, "What no act ends: somebody has seen to it"),
    Route("GET", "/notices", list_notices, "Whether there is something to read"),
    Route("POST", "/notices/read", read_notices, "I have read it"),
    Route(
        "POST", "/demo/rest", rest, "Come to rest (demonstration only)", is_open=True, local_only=True, demo_only=True
    ),
]
