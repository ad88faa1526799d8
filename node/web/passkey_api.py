# SPDX-License-Identifier: Apache-2.0
"""Passkeys from a browser: what it is asked and what it answers, the same for the page and the API."""

from __future__ import annotations

import asyncio
import base64
import ipaddress
import time
from collections.abc import Callable
from typing import Annotated, Any, Final, Protocol, TypeVar
from urllib.parse import urlsplit

import msgspec
from aiohttp import web

from node.config import Config
from node.office import passkeys, signin, staff
from node.office.actor import Actor
from node.office.passkeys import Answer, Site
from node.web.api import Call, Route, Services, session_of
from node.web.staff_api import Body, cookie_for, stretch, who
from protocol import crypto
from protocol.errors import LocalError

T = TypeVar("T")

#: Binds a challenge to the browser that asked for it. It opens nothing.
ATTEMPT_COOKIE: Final = "staffetta-attempt"
_ALGORITHMS: Final = (-8, -7, -257)


class Request(Protocol):
    """A request of a signed-in person, whether it came to the API or to a page."""

    services: Services
    request: web.Request
    actor: Actor

    async def read(self, fn: Callable[..., T], *args: Any, **kwargs: Any) -> T: ...

    async def write(self, fn: Callable[..., T], *args: Any, **kwargs: Any) -> T: ...


class PasskeySignIn(Body, frozen=True, kw_only=True):
    """`passphrase` only for a passkey that does not open her keys by itself."""

    passkey: Answer
    passphrase: Annotated[str, msgspec.Meta(max_length=staff.PASSPHRASE_MAX)] = ""


class NewPasskey(Body, frozen=True, kw_only=True):
    passkey: Answer
    name: Annotated[str, msgspec.Meta(max_length=passkeys.NAME_MAX)]
    passphrase: Annotated[str, msgspec.Meta(max_length=staff.PASSPHRASE_MAX)]


def site_of(config: Config) -> Site | None:
    """Where the pages are, as a passkey needs it: under a name. This machine itself is called `localhost`."""
    parts = urlsplit(config.pages.address or config.agency.address)
    host, port = parts.hostname or "", "" if parts.port is None else f":{parts.port}"
    try:
        if not ipaddress.ip_address(host).is_loopback:
            return None
        host = "localhost"
    except ValueError:
        pass
    return Site(host, f"{parts.scheme}://{host}{port}")


def _site(services: Services) -> Site:
    site = site_of(services.config)
    if site is None:
        raise LocalError(
            "passkey-address", "This node has a number and no name. For passkeys the sysadmin has to give it a name."
        )
    return site


def _text(raw: bytes) -> str:
    return base64.urlsafe_b64encode(raw).decode().rstrip("=")


def ask_to_sign_in(services: Services) -> tuple[dict[str, Any], str]:
    """What the browser asks of a passkey at sign-in, and the attempt that alone may use the answer."""
    attempt = crypto.new_id()
    made = passkeys.challenge(services.here, services.real.now(), passkeys.SIGN_IN, attempt)
    asked = {"challenge": _text(made), "site": _site(services).id, "input": _text(passkeys.prf_input(services.here))}
    return asked, attempt


def attempt_cookie(services: Services, request: web.Request, response: web.StreamResponse, attempt: str) -> None:
    """The browser that asked is the one that may answer."""
    secure = request.secure or services.config.agency.address.startswith("https://")
    seconds = int(passkeys.CHALLENGE_LIFE.total_seconds())
    response.set_cookie(
        ATTEMPT_COOKIE, attempt, max_age=seconds, httponly=True, secure=secure, samesite="Strict", path="/"
    )


async def open_session(services: Services, request: web.Request, answer: Answer, passphrase: str) -> signin.SignedIn:
    """Sign a person in by her passkey. Raises LocalError `sign-in`, `sign-in-wait` or `passkey-passphrase`."""
    site = _site(services)
    if not services.sign_ins.take(request.remote or "", time.monotonic()):
        raise LocalError("sign-in-wait", "Too many tries from this address. Wait a minute, then try again.")
    now, here = services.real.now(), services.here
    stored = await services.database.read(passkeys.find, answer.id)
    checked, refused = None, passkeys.refusal()
    if stored is not None:
        try:
            attempt = request.cookies.get(ATTEMPT_COOKIE, "")
            checked = await asyncio.to_thread(passkeys.check, here, site, now, answer, stored, attempt)
        except LocalError as error:
            refused = error
    stretched = None
    if checked is not None and stored is not None and passphrase:
        stretched = await stretch(passphrase, stored.salt)
    signed = await services.database.write(passkeys.sign_in, here, now, checked=checked, stretched=stretched)
    if signed is False:
        raise LocalError(
            "passkey-passphrase",
            "This passkey does not open your keys by itself. Type your passphrase too, then use the passkey again.",
        )
    if not isinstance(signed, signin.SignedIn):
        raise refused
    return signed


async def ask_to_add(call: Request) -> dict[str, Any]:
    """What the browser asks of a new passkey, for the person of this session."""
    services = call.services
    site = _site(services)
    session_id, _ = session_of(call.request)
    made = passkeys.challenge(services.here, services.real.now(), passkeys.ADD, session_id)
    about = await call.read(staff.about, call.actor.staff_id)
    own = await call.read(passkeys.list_own, services.here, call.actor)
    return {
        "challenge": _text(made),
        "site": site.id,
        "input": _text(passkeys.prf_input(services.here)),
        "user": _text(bytes.fromhex(call.actor.staff_id)),
        "name": about.handle,
        "algorithms": _ALGORITHMS,
        "known": [passkey["credential"] for passkey in own],
    }


async def add(call: Request, answer: Answer, name: str, passphrase: str) -> str:
    """The passkey is hers. Returns its id. Raises what `passkeys.check_new` and `passkeys.add` raise."""
    services = call.services
    session_id, _ = session_of(call.request)
    now = services.real.now()
    checked = await asyncio.to_thread(passkeys.check_new, services.here, _site(services), now, answer, session_id)
    about = await call.read(staff.about, call.actor.staff_id)
    material = await call.read(signin.material, services.here, about.handle)
    current = await stretch(passphrase, material.salt)
    return await call.write(passkeys.add, services.here, call.actor, now, checked=checked, name=name, current=current)


def read_answer(text: str) -> Answer:
    """What the page's script put into a form. Raises LocalError `sign-in`."""
    if len(text) > passkeys.ANSWER_MAX:
        raise passkeys.refusal()
    try:
        return msgspec.json.decode(text, type=Answer)
    except (msgspec.MsgspecError, ValueError, RecursionError):
        raise passkeys.refusal() from None


# -- the API ---------------------------------------------------------------------------------------------------------


async def sign_in_options(call: Call) -> web.Response:
    asked, attempt = ask_to_sign_in(call.services)
    response = web.Response(body=msgspec.json.encode(asked), content_type="application/json")
    attempt_cookie(call.services, call.request, response, attempt)
    return response


async def sign_in(call: Call) -> web.Response:
    signed = await open_session(call.services, call.request, call.body.passkey, call.body.passphrase)
    response = web.Response(body=msgspec.json.encode(who(signed.actor)), content_type="application/json")
    cookie_for(call.services, call.request, response, f"{signed.session_id}.{signed.secret.hex()}")
    response.del_cookie(ATTEMPT_COOKIE, path="/")
    return response


async def list_passkeys(call: Call) -> Any:
    return {"passkeys": await call.read(passkeys.list_own, call.services.here, call.actor)}


async def add_options(call: Call) -> Any:
    return await ask_to_add(call)


async def add_passkey(call: Call) -> Any:
    return {"id": await add(call, call.body.passkey, call.body.name, call.body.passphrase)}


async def remove_passkey(call: Call) -> Any:
    await call.write(passkeys.remove, call.actor, call.services.real.now(), call.params["passkey"])
    return {"removed": True}


ROUTES: Final = [
    Route("POST", "/session/passkey/options", sign_in_options, "What to ask of a passkey at sign-in", is_open=True),
    Route("POST", "/session/passkey", sign_in, "Sign in with a passkey", PasskeySignIn, is_open=True),
    Route("GET", "/passkeys", list_passkeys, "List my passkeys"),
    Route("POST", "/passkeys/options", add_options, "What to ask of a new passkey"),
    Route("POST", "/passkeys", add_passkey, "Add a passkey", NewPasskey),
    Route("POST", "/passkeys/{passkey}/remove", remove_passkey, "Remove one of my passkeys"),
]
