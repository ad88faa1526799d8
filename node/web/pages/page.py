# SPDX-License-Identifier: Apache-2.0
"""The pages' machinery: who is signed in, whose form this is, and what a person sees when something is refused.

A form that is refused is shown again with everything that was typed and every problem beside its field. A form that
comes after its session has ended is kept, sealed, until the same person has signed in again. Permissions are not
decided here but next to each decision, in the rooms below.
"""

from __future__ import annotations

import base64
import hmac
import time
import unicodedata
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Final, TypeVar
from urllib.parse import parse_qsl, quote

import msgspec
import structlog
from aiohttp import web
from sqlalchemy import Connection

from node.casework.forms import FormError
from node.errors import NodeError
from node.office import lock, signin, staff, tasks
from node.office.actor import Actor
from node.storage.settings import get_setting
from node.web import problems
from node.web.api import COOKIE, SECURE_COOKIE, Services, session_of
from node.web.numbers import present
from node.web.pages import render
from node.web.pages.languages import Language, choose, language
from node.web.pages.words import N_
from protocol import crypto
from protocol.codes import Role
from protocol.errors import LocalError, ProtocolError

T = TypeVar("T")
log = structlog.get_logger(__name__)

#: A form with a long story in it; files do not come this way.
FORM_MAX_BYTES: Final = 256 * 1024
FORM_MAX_FIELDS: Final = 400
#: How long a form is kept for the person who was signed out while she wrote it.
KEPT_SECONDS: Final = 12 * 3600
_KEPT_AAD: Final = b"staffetta/1/kept-form"
LANGUAGE_COOKIE: Final = "staffetta-language"
#: Control characters but the line feed, and what turns the direction of reading: nobody types them, all of them hide.
_HIDDEN: Final = frozenset([*range(0x0A), *range(0x0B, 0x20), 0x7F, *range(0x202A, 0x202F), *range(0x2066, 0x206A)])
_ROLE_MENU: Final = frozenset({Role.CASEWORKER, Role.INTAKE, Role.SUPERVISOR})


def clean(text: str) -> str:
    """What was typed or pasted, without characters that cannot be seen, in one form of each letter."""
    spaced = text.replace("\r\n", "\n").replace("\r", "\n").replace("\t", " ")
    return unicodedata.normalize("NFC", "".join(c for c in spaced if ord(c) not in _HIDDEN)).strip()


@dataclass(slots=True)
class Visit:
    """One request for a page. `form` holds the fields as lists, in order, cleaned; `problems` by the field's name."""

    services: Services
    request: web.Request
    language: Language
    now: datetime
    real_now: datetime
    actor: Actor
    handle: str = ""
    #: Her time zone, if it is not her agency's.
    zone: str = ""
    token: str = ""
    form: dict[str, list[str]] = field(default_factory=dict)
    problems: list[dict[str, str]] = field(default_factory=list)
    status: int = 200
    session_secret: bytes = field(default=b"", repr=False)
    nonce: str = field(default_factory=lambda: base64.b64encode(crypto.random_bytes(18)).decode())

    @property
    def params(self) -> Mapping[str, str]:
        return self.request.match_info

    @property
    def query(self) -> Mapping[str, str]:
        return self.request.query

    @property
    def dates(self) -> render.Dates:
        return render.Dates(self.language, self.services.here.zone, self.now, self.zone)

    def turn_to_her(self) -> None:
        """What follows is for the survivor: in the language asked for, and in the agency's time like her copy on paper,
        whoever of the staff shows it."""
        self.language = language(self.query.get("in", self.language.tag))
        self.zone = ""

    def say(self, text: str) -> str:
        """A text of the program in the person's language."""
        return self.language.say(text)

    def get(self, name: str, default: str = "") -> str:
        """One field of the form."""
        values = self.form.get(name)
        return values[0] if values else default

    def all(self, name: str) -> list[str]:
        """Every value of a field that may have several."""
        return self.form.get(name, [])

    def has(self, *roles: Role) -> bool:
        """Whether the person has one of the roles: for what a page offers, never for what is allowed."""
        return bool(self.actor.roles & set(roles))

    async def do(self, fn: Callable[..., T], *args: Any, **kwargs: Any) -> T:
        """A decision of the signed-in person: `fn(db, here, actor, now, …)` in one durable transaction."""
        return await self.services.database.write(fn, self.services.here, self.actor, self.now, *args, **kwargs)

    async def write(self, fn: Callable[..., T], *args: Any, **kwargs: Any) -> T:
        """Any other transaction that writes."""
        return await self.services.database.write(fn, *args, **kwargs)

    async def read(self, fn: Callable[..., T], *args: Any, **kwargs: Any) -> T:
        """A transaction that only reads."""
        return await self.services.database.read(fn, *args, **kwargs)

    def page(self, name: str, title: str, **values: Any) -> web.Response:
        """The page. `title` says what kind of page it is and never whom it is about."""
        leave = self.services.config.pages.leave_to
        body = render.template(
            self.language,
            name,
            title=title,
            visit=self,
            dates=self.dates,
            agency=self.services.agency_name,
            is_demo=self.services.rest is not None,
            leave_to=leave,
            problems=self.problems,
            path=self.request.path,
            done=self.query.get("done", ""),
            **values,
        )
        response = web.Response(status=self.status, text=body, content_type="text/html")
        response.headers["Content-Security-Policy"] = (
            f"default-src 'none'; script-src 'nonce-{self.nonce}'; style-src 'self'; img-src 'self' data:; "
            f"connect-src 'self'; form-action 'self' {_origin(leave)}; frame-ancestors 'none'; base-uri 'none'; "
            "require-trusted-types-for 'script'; trusted-types htmx"
        )
        response.enable_compression()
        return response

    def problem(self, name: str, text: str) -> None:
        """A field needs another look."""
        self.problems.append({"field": name, "text": self.say(text)})

    def refuse_if_problems(self) -> None:
        """Raise if any field had a problem: the form is shown again with all of them."""
        if self.problems:
            raise Refused


class Refused(Exception):
    """The form has problems; they are in `Visit.problems`."""


Handler = Callable[[Visit], Awaitable[web.StreamResponse]]


@dataclass(frozen=True, slots=True)
class Page:
    """One address: `show` answers GET, `submit` POST. When `submit` is refused, `show` shows the form again."""

    path: str
    show: Handler | None
    submit: Handler | None = None
    again: Handler | None = None
    is_open: bool = False
    #: Of the open ones, what works while the node is locked too.
    while_locked: bool = False
    #: Its form holds a file: the handler reads it as it streams, and checks the token before the file.
    reads_itself: bool = False


def go(address: str) -> web.Response:
    """On to another page: what was posted is not posted again by the back button or a reload."""
    return web.Response(status=303, headers={"Location": address})


class Pages:
    """Adds pages to an application."""

    def __init__(self, services: Services, pages: list[Page]) -> None:
        self.services, self.pages = services, pages

    def add_to(self, application: web.Application) -> None:
        for page in self.pages:
            if page.show is not None:
                application.router.add_get(page.path, self._wrap(page, page.show), allow_head=False)
            if page.submit is not None:
                application.router.add_post(page.path, self._wrap(page, page.submit))
        application.router.add_get("/static/{name}", render.serve_static)

    def _wrap(self, page: Page, handler: Handler) -> Callable[[web.Request], Awaitable[web.StreamResponse]]:
        async def handle(request: web.Request) -> web.StreamResponse:
            visit = self._visit(request)
            try:
                if request.method == "POST":
                    _refuse_cross_site(request)
                    if not page.reads_itself:
                        visit.form = await _read_form(request)
                if page.is_open and not page.while_locked:
                    await visit.read(lock.refuse_if_locked)
                if not page.is_open:
                    await self._sign_in(visit)
                    if request.method == "POST" and not page.reads_itself:
                        check_token(visit)
                return await handler(visit)
            except Exception as error:  # noqa: BLE001  the one place where every failure becomes a page
                return await self._refused(page, visit, error)

        return handle

    def missing(self, request: web.Request, error: web.HTTPException) -> web.Response:
        """What a browser sees at an address that is not there, or that does not take what it sent."""
        visit = self._visit(request)
        visit.status, text = _explained(error)
        number = present() if visit.status == 500 else ""
        return visit.page("refused.html", visit.say("This did not work"), text=visit.say(text), number=number)

    def _visit(self, request: web.Request) -> Visit:
        services = self.services
        tag = choose(request.cookies.get(LANGUAGE_COOKIE), request.headers.get("Accept-Language", ""))
        return Visit(services, request, language(tag), services.clock.now(), services.real.now(), Actor.node())

    async def _sign_in(self, visit: Visit) -> None:
        session_id, secret = session_of(visit.request)
        now = visit.real_now
        read = self.services.database.read
        actor, is_touch_due, about = await read(_session, now, session_id, secret)
        # A page that refreshes itself is not somebody who works: only what she does herself keeps her signed in.
        if is_touch_due and visit.request.headers.get("HX-Request") is None:
            await self.services.database.write(signin.touch, now, session_id)
        visit.actor, visit.handle, visit.token = actor, about.handle, form_token(secret)
        visit.session_secret = secret
        if about.language:
            visit.language = language(about.language)
        visit.zone = about.zone or ""

    async def _refused(self, page: Page, visit: Visit, error: Exception) -> web.StreamResponse:
        if visit.request.headers.get("Accept") == "application/json":
            # The page's own script asks so, for an upload with progress: it shows the sentence where it is.
            status, text = _explained(error)
            if status == 500:
                log.error("page_failed", exc_info=error)
            return web.json_response({"text": visit.say(text)}, status=status)
        if isinstance(error, LocalError) and error.code == "signed-out":
            return self._signed_out(visit, error, keeps=not page.reads_itself)
        if isinstance(error, LocalError) and error.code == "locked":
            visit.status = 503
            return visit.page("refused.html", visit.say("This node is locked"), text=visit.say(error.text), number="")
        if isinstance(error, LocalError) and error.code == "retired":
            visit.status = 410
            return visit.page("refused.html", visit.say("This node has retired"), text=visit.say(error.text), number="")
        again = page.again or page.show
        is_form = (visit.request.method == "POST" and again is not None and not visit.actor.is_node) or page.is_open
        status, text = _explained(error)
        if is_form and again is not None and isinstance(error, (Refused, FormError, ProtocolError, NodeError)):
            if isinstance(error, FormError):
                visit.problems += [
                    {"field": f"{p['section']}.{p['field']}", "text": visit.say(p["text"])} for p in error.problems
                ]
            elif isinstance(error, (ProtocolError, NodeError)):
                visit.problems.append({"field": "", "text": visit.say(error.text)})
            visit.status = status
            try:
                return await again(visit)
            except ProtocolError as second:
                # What the form was about is gone: then only the sentence is left to show.
                status, text = _explained(second)
        if status == 500:
            log.error("page_failed", exc_info=error)
        visit.status = status
        number = present() if visit.status == 500 else ""
        return visit.page("refused.html", visit.say("This did not work"), text=visit.say(text), number=number)

    def _signed_out(self, visit: Visit, error: LocalError, *, keeps: bool) -> web.StreamResponse:
        """To the sign-in page, which keeps what was typed until the same person is back."""
        if visit.request.method != "POST":
            why = "idle" if visit.request.cookies.get(COOKIE) or visit.request.cookies.get(SECURE_COOKIE) else ""
            following = visit.request.path_qs if visit.request.path != "/" else ""
            if visit.request.headers.get("HX-Request"):
                return web.Response(status=401, headers={"HX-Redirect": f"/signin?why={why}"})
            address = "/signin" + (f"?why={why}" if why else "")
            if following:
                address += ("&" if why else "?") + "next=" + quote(following, safe="/")
            return go(address)
        # A file is not kept: it is still where she took it from.
        kept = keep_form(self.services, visit) if keeps else ""
        visit.status = 401
        visit.form = {}
        return visit.page("signin.html", visit.say("Sign in"), why="form" if keeps else "idle", kept=kept, following="")


def _session(db: Connection, now: datetime, session_id: str, secret: bytes) -> tuple[Actor, bool, staff.About]:
    actor, is_touch_due = signin.session_actor(db, now, session_id, secret)
    return actor, is_touch_due, staff.about(db, actor.staff_id)


def form_token(secret: bytes) -> str:
    """What every form of a session carries: only the cookie's holder can know it."""
    return crypto.derive(secret, b"staffetta/1/form-token").hex()


def check_token(visit: Visit) -> None:
    """Raise LocalError `cross-site` unless the form is one of this session's pages."""
    if not hmac.compare_digest(visit.get("token"), visit.token):
        raise LocalError("cross-site", "This form is from an earlier session. Look at it once more, then send it.")


def _refuse_cross_site(request: web.Request) -> None:
    """A form of somebody else's page is refused; browsers that do not say where a form is from need the token."""
    if request.headers.get("Sec-Fetch-Site", "same-origin") != "same-origin":
        raise LocalError("cross-site", "This request comes from another site.")
    origin = request.headers.get("Origin")
    if origin not in (None, "null") and str(origin).partition("://")[2] != request.host:
        raise LocalError("cross-site", "This request comes from another site.")


async def _read_form(request: web.Request) -> dict[str, list[str]]:
    if (request.content_length or 0) > FORM_MAX_BYTES:
        raise _too_large()
    raw = b""
    async for chunk in request.content.iter_chunked(65536):
        raw += chunk
        if len(raw) > FORM_MAX_BYTES:
            raise _too_large()
    try:
        pairs = parse_qsl(raw.decode("utf-8"), keep_blank_values=True, max_num_fields=FORM_MAX_FIELDS, errors="strict")
    except ValueError:
        raise LocalError(
            "not-json", "This form could not be read. Go back, reload the page, and send it again."
        ) from None
    form: dict[str, list[str]] = {}
    for name, value in pairs:
        form.setdefault(name, []).append(clean(value))
    return form


def _too_large() -> LocalError:
    return LocalError("too-large", "This form is longer than it can be. Shorten the long texts, then send it again.")


def _explained(error: Exception) -> tuple[int, str]:
    if isinstance(error, Refused):
        return 422, ""
    if isinstance(error, (ProtocolError, NodeError)):
        return problems.explain(error).status, error.text
    if isinstance(error, web.HTTPException):
        return error.status, N_("There is nothing at this address. Begin again from the first page.")
    return 500, N_("Something went wrong inside the node. It was noted; nothing was half done.")


def _origin(address: str) -> str:
    scheme, _, rest = address.partition("://")
    return f"{scheme}://{rest.partition('/')[0]}" if rest else ""


# -- forms that outlive their session --------------------------------------------------------------------------------


class Kept(msgspec.Struct, frozen=True, kw_only=True):
    """A form that came too late: where it goes, whose it is, what is in it, when it came (unix seconds)."""

    path: str
    who: str
    at: int
    form: dict[str, list[str]]


def keep_form(services: Services, visit: Visit) -> str:
    """The form, sealed by this node: the page that carries it to and fro cannot be read."""
    form = {name: values for name, values in visit.form.items() if name not in ("token", "who")}
    kept = Kept(path=visit.request.path, who=visit.get("who"), at=int(time.time()), form=form)
    sealed = crypto.seal_under(services.here.keystore.local, msgspec.json.encode(kept), _KEPT_AAD)
    return base64.b64encode(sealed).decode()


def kept_form(services: Services, text: str, staff_id: str) -> Kept | None:
    """The form, if it is of this person and not too old."""
    try:
        opened = crypto.open_under(services.here.keystore.local, base64.b64decode(text), _KEPT_AAD)
        kept = msgspec.json.decode(opened, type=Kept)
    except (ValueError, LocalError, msgspec.MsgspecError):
        return None
    return kept if kept.who == staff_id and time.time() - kept.at < KEPT_SECONDS else None


async def has_news(visit: Visit) -> bool:
    """Whether something waits that this person has not looked at."""
    return bool(await visit.read(tasks.notices_for, visit.actor))


def agency_name(db: Connection) -> str:
    """Our agency's name, as it was given at the beginning."""
    return get_setting(db, "agency_name") or ""
