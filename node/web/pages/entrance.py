# SPDX-License-Identifier: Apache-2.0
"""The way in and the way out: sign-in, enrolment, language, and leaving at once."""

from __future__ import annotations

from typing import Final

from aiohttp import web
from markupsafe import Markup

from node.office import recovery, signin, staff
from node.web import passkey_api
from node.web.api import COOKIE, SECURE_COOKIE, session_of
from node.web.pages.languages import NAMES
from node.web.pages.page import LANGUAGE_COOKIE, Page, Visit, form_token, go, kept_form
from node.web.staff_api import SALT_BYTES, cookie_for, open_session, stretch
from protocol import crypto
from protocol.errors import LocalError

_YEAR_SECONDS: Final = 365 * 86_400


async def show_sign_in(visit: Visit) -> web.StreamResponse:
    why = visit.query.get("why", "")
    following = visit.get("following") or visit.query.get("next", "")
    return visit.page(
        "signin.html",
        visit.say("Sign in"),
        why=why if why in ("idle", "left", "ended", "changed") else "",
        kept=visit.get("kept"),
        following=_own(following),
    )


async def passkey_options(visit: Visit) -> web.StreamResponse:
    """What the script on the sign-in page asks of a passkey, and a cookie that binds the answer to this browser."""
    asked, attempt = passkey_api.ask_to_sign_in(visit.services)
    response = web.json_response(asked)
    passkey_api.attempt_cookie(visit.services, visit.request, response, attempt)
    return response


async def _open_session(visit: Visit) -> signin.SignedIn:
    passphrase = visit.get("passphrase")
    if visit.get("passkey"):
        answer = passkey_api.read_answer(visit.get("passkey"))
        return await passkey_api.open_session(visit.services, visit.request, answer, passphrase)
    return await open_session(visit.services, visit.request, visit.get("handle"), passphrase, visit.get("code"))


async def sign_in(visit: Visit) -> web.StreamResponse:
    """Begin a session. Whoever was in the middle of a form goes on with it."""
    signed = await _open_session(visit)
    kept = kept_form(visit.services, visit.get("kept"), signed.actor.staff_id) if visit.get("kept") else None
    if kept is not None:
        about = await visit.read(staff.about, signed.actor.staff_id)
        visit.actor, visit.handle, visit.form = signed.actor, about.handle, {}
        visit.token = form_token(signed.secret)
        response: web.Response = visit.page("kept.html", visit.say("Your form is kept"), kept=kept)
    else:
        response = go(_own(visit.get("following")) or "/")
    cookie_for(visit.services, visit.request, response, f"{signed.session_id}.{signed.secret.hex()}")
    return response


def _own(address: str) -> str:
    """Only an address of our own pages: a link to the sign-in page leads nowhere else."""
    is_own = address.startswith("/") and not address.startswith("//") and "\\" not in address
    return address if is_own and len(address) < 500 else ""


async def sign_out(visit: Visit) -> web.StreamResponse:
    session_id, _ = session_of(visit.request)
    await visit.write(signin.end_session, visit.real_now, session_id)
    return _forget(go("/signin?why=ended"))


async def leave(visit: Visit) -> web.StreamResponse:
    """Gone at once: the session ends, the browser forgets what this site stored, another site opens.

    Open to everybody and without a form's token: it must work in every state, and whoever is not signed in has
    nothing to lose by it. The session's own cookie decides whose session ends.
    """
    try:
        session_id, secret = session_of(visit.request)
        await visit.read(signin.session_actor, visit.real_now, session_id, secret)
        await visit.write(signin.end_session, visit.real_now, session_id)
    except LocalError:
        pass
    return _forget(go(visit.services.config.pages.leave_to))


def _forget(response: web.Response) -> web.Response:
    for name in (COOKIE, SECURE_COOKIE):
        response.del_cookie(name, path="/", secure=name == SECURE_COOKIE)
    response.headers["Clear-Site-Data"] = '"cache", "storage"'
    return response


async def choose_language(visit: Visit) -> web.StreamResponse:
    """The language of these pages in this browser, and of hers everywhere once she is signed in."""
    tag = visit.get("language")
    if tag not in NAMES:
        raise LocalError("language", "Choose one of the languages in the list.")
    response = go(_own(visit.get("back")) or "/signin")
    response.set_cookie(LANGUAGE_COOKIE, tag, max_age=_YEAR_SECONDS, httponly=True, samesite="Strict", path="/")
    return response


async def show_enrol(visit: Visit) -> web.StreamResponse:
    return visit.page("enrol.html", visit.say("First sign-in"))


async def enrol(visit: Visit) -> web.StreamResponse:
    """The invited person has a passphrase and an authenticator, and sees her recovery codes, once."""
    passphrase = visit.get("passphrase")
    try:
        staff.check_passphrase(passphrase)
    except LocalError as error:
        visit.problem("passphrase", error.text)
    if passphrase != visit.get("again"):
        visit.problem("again", "The two passphrases are not the same. Type both once more.")
    visit.refuse_if_problems()
    salt = crypto.random_bytes(SALT_BYTES)
    services = visit.services
    if not services.sign_ins.take(visit.request.remote or "", services.clock.monotonic()):
        raise LocalError("sign-in-wait", "Too many tries from this address. Wait a minute, then try again.")
    stretched = await stretch(passphrase, salt)
    secret = "".join(visit.get("secret").split())
    enrolled = await visit.write(
        staff.enrol, services.here, visit.real_now, secret=secret, salt=salt, stretched=stretched
    )
    return await _enrolled(visit, enrolled)


async def show_recover(visit: Visit) -> web.StreamResponse:
    return visit.page("recover.html", visit.say("A lost passphrase"))


async def recover(visit: Visit) -> web.StreamResponse:
    """With both recovery sheets of the agency a person has a new passphrase, and the keys that she had."""
    passphrase = visit.get("passphrase")
    try:
        staff.check_passphrase(passphrase)
    except LocalError as error:
        visit.problem("passphrase", error.text)
    if passphrase != visit.get("again"):
        visit.problem("again", "The two passphrases are not the same. Type both once more.")
    visit.refuse_if_problems()
    services = visit.services
    if not services.sign_ins.take(visit.request.remote or "", services.clock.monotonic()):
        raise LocalError("sign-in-wait", "Too many tries from this address. Wait a minute, then try again.")
    key = await visit.read(recovery.recovery_from_sheets, services.here, visit.get("sheet_a"), visit.get("sheet_b"))
    salt = crypto.random_bytes(SALT_BYTES)
    stretched = await stretch(passphrase, salt)
    handle = visit.get("handle").lower()
    enrolled = await visit.write(
        recovery.restore_passphrase,
        services.here,
        visit.real_now,
        key=key,
        handle=handle,
        salt=salt,
        stretched=stretched,
    )
    return await _enrolled(visit, enrolled)


async def _enrolled(visit: Visit, enrolled: staff.Enrolled) -> web.Response:
    """What she keeps, shown once: the authenticator's secret and ten codes for paper."""
    services = visit.services
    about = await visit.read(staff.about, enrolled.staff_id)
    codes = await visit.write(staff.make_codes, services.here, staff.self_of(enrolled.staff_id), visit.real_now)
    uri = enrolled.totp_uri(about.handle, services.agency_name or "Staffetta")
    return visit.page(
        "enrolled.html",
        visit.say("Keep these"),
        handle=about.handle,
        qr=qr_code(uri),
        codes=codes,
        grouped=grouped,
        secret=enrolled.totp_text,
    )


def qr_code(text: str) -> Markup:
    """A QR code as inline SVG, without styles."""
    import segno  # once in the life of an account

    return Markup(segno.make(text, micro=False).svg_inline(scale=5, border=2, light="white"))  # noqa: S704  our own SVG


def grouped(code: str) -> str:
    """A long code in groups of four, as it is read and typed."""
    return " ".join(code[at : at + 4] for at in range(0, len(code), 4))


PAGES: Final = [
    Page("/signin", show_sign_in, sign_in, is_open=True),
    Page("/signin/passkey", None, passkey_options, again=show_sign_in, is_open=True),
    Page("/signout", None, sign_out),
    Page("/leave", None, leave, is_open=True, while_locked=True),
    Page("/language", None, choose_language, again=show_sign_in, is_open=True, while_locked=True),
    Page("/enrol", show_enrol, enrol, is_open=True),
    Page("/recover", show_recover, recover, is_open=True),
]
