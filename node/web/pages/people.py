# SPDX-License-Identifier: Apache-2.0
"""The agency's own: my account, staff, desks, other agencies, what is open everywhere, the trail."""

from __future__ import annotations

from typing import Any, Final

from aiohttp import web
from sqlalchemy import Connection

from node.casework import absences, overview, silence
from node.exchange import peers
from node.office import audit, desks, passkeys, recovery, roster, setup, signin, staff
from node.office.desks import Profile
from node.web import peering, reaching
from node.web.api import session_of
from node.web.pages import reach, words, zones
from node.web.pages.entrance import grouped
from node.web.pages.languages import NAMES
from node.web.pages.page import LANGUAGE_COOKIE, Page, Visit, go
from node.web.pages.times import minutes_of
from node.web.staff_api import SALT_BYTES, stretch
from protocol import crypto
from protocol.codes import AgencyType, Role
from protocol.errors import LocalError
from protocol.identity import Opening

#: Roles that an administrator may give. An officer is certified with the agency's root.
_GIVEN: Final = tuple(role for role in Role if role not in (Role.OFFICER, Role.STEWARD))
#: Rows of the trail on one page.
_TRAIL_MAX: Final = 200


# -- my account ------------------------------------------------------------------------------------------------------


async def show_me(visit: Visit) -> web.StreamResponse:
    session_id, _ = session_of(visit.request)

    def look(db: Connection) -> dict[str, Any]:
        listed = desks.list_desks(db)
        return {
            "sessions": signin.list_sessions(db, visit.actor, session_id),
            "fingerprint": desks.person_fingerprint(visit.services.here, visit.actor),
            "desks": [desk for desk in listed if desk["id"] in visit.actor.desks],
            "codes_left": staff.codes_left(db, visit.actor),
            **reaching.show(db, visit.services.here, visit.actor),
        }

    return visit.page(
        "me.html",
        visit.say("My account"),
        allowed=reaching.allowed(visit.services),
        zones=zones.choices(visit.language.locale),
        zone=zones.chosen(visit.zone),
        **await visit.read(look),
    )


async def change_passphrase(visit: Visit) -> web.StreamResponse:
    """The new passphrase opens her keys; every session ends, this one too."""
    try:
        staff.check_passphrase(visit.get("passphrase"))
    except LocalError as error:
        visit.problem("passphrase", error.text)
    if visit.get("passphrase") != visit.get("again"):
        visit.problem("again", "The two passphrases are not the same. Type both once more.")
    visit.refuse_if_problems()
    material = await visit.read(signin.material, visit.services.here, visit.handle)
    current = await stretch(visit.get("current"), material.salt)
    salt = crypto.random_bytes(SALT_BYTES)
    stretched = await stretch(visit.get("passphrase"), salt)
    await visit.write(
        staff.change_passphrase, visit.actor, visit.real_now, current=current, salt=salt, stretched=stretched
    )
    return go("/signin?why=changed")


async def new_codes(visit: Visit) -> web.StreamResponse:
    codes = await visit.write(staff.make_codes, visit.services.here, visit.actor, visit.real_now)
    return visit.page("codes.html", visit.say("Keep these"), codes=codes, grouped=grouped)


async def set_language(visit: Visit) -> web.StreamResponse:
    tag = visit.get("language")
    if tag not in NAMES:
        raise LocalError("language", "Choose one of the languages in the list.")
    await visit.write(staff.set_language, visit.actor, tag)
    response = go("/me?done=changed")
    response.set_cookie(LANGUAGE_COOKIE, tag, max_age=31_536_000, httponly=True, samesite="Strict", path="/")
    return response


async def set_zone(visit: Visit) -> web.StreamResponse:
    await visit.write(staff.set_zone, visit.actor, visit.get("zone"))
    return go("/me?done=changed")


async def end_session(visit: Visit) -> web.StreamResponse:
    await visit.write(signin.end_one, visit.actor, visit.real_now, visit.params["session"])
    return go("/me?done=ended")


async def end_all(visit: Visit) -> web.StreamResponse:
    await visit.write(signin.end_all_sessions, visit.actor, visit.real_now, visit.actor.staff_id)
    return go("/signin?why=ended")


# -- staff -----------------------------------------------------------------------------------------------------------


async def show_staff(visit: Visit) -> web.StreamResponse:
    visit.actor.require_role(Role.ADMINISTRATOR, Role.DIRECTOR, Role.OFFICER)
    people = await visit.read(staff.list_staff)
    return visit.page("staff.html", visit.say("Staff"), people=people, roles=_GIVEN, invited=None)


async def invite(visit: Visit) -> web.StreamResponse:
    roles = [Role(role) for role in visit.all("roles") if role in set(_GIVEN)]
    handle = visit.get("handle").lower()
    _, secret = await visit.write(staff.invite, visit.actor, visit.real_now, handle=handle, roles=roles)
    people = await visit.read(staff.list_staff)
    visit.form = {}
    invited = {"handle": handle, "secret": grouped(secret), "days": staff.ENROL_DAYS}
    return visit.page("staff.html", visit.say("Staff"), people=people, roles=_GIVEN, invited=invited)


async def set_roles(visit: Visit) -> web.StreamResponse:
    roles = [Role(role) for role in visit.all("roles") if role in set(_GIVEN)]
    await visit.write(staff.set_roles, visit.actor, visit.now, visit.params["staff"], roles)
    return go("/staff?done=changed")


async def disable(visit: Visit) -> web.StreamResponse:
    await visit.do(staff.disable, visit.params["staff"])
    await peering.publish(visit)
    return go("/staff?done=ended")


async def sign_out_person(visit: Visit) -> web.StreamResponse:
    await visit.write(signin.end_all_sessions, visit.actor, visit.real_now, visit.params["staff"])
    return go("/staff?done=ended")


async def remove_passkeys(visit: Visit) -> web.StreamResponse:
    await visit.write(passkeys.remove_all, visit.actor, visit.real_now, visit.params["staff"])
    return go("/staff?done=ended")


async def certify(visit: Visit) -> web.StreamResponse:
    """Somebody is an officer, by the agency's root, which an officer fetched from its safe place and typed in."""
    root = setup.read_root(visit.get("root"))
    await visit.do(staff.certify_officer, visit.params["staff"], root=root)
    await peering.publish(visit)
    return go("/staff?done=changed")


# -- desks -----------------------------------------------------------------------------------------------------------


async def show_desks(visit: Visit) -> web.StreamResponse:
    def look(db: Connection) -> dict[str, Any]:
        listed = desks.list_desks(db)
        return {
            "desks": [{**desk, "members": roster.members(db, desk["id"])} for desk in listed],
            "people": overview.colleagues(db),
            "names": staff.names(db),
            "is_officer": roster.is_officer(db, visit.services.here, visit.actor, visit.now),
        }

    return visit.page(
        "desks.html", visit.say("Desks"), services=words.SERVICE, spoken=words.SPOKEN, **await visit.read(look)
    )


async def add_desk(visit: Visit) -> web.StreamResponse:
    await visit.do(desks.create, name=visit.get("name"), profile=read_profile(visit), join=True)
    await peering.publish(visit)
    return go("/desks?done=added")


def read_profile(visit: Visit) -> Profile:
    """What peers will see of the desk, from the form."""
    opening = []
    for day in range(7):
        opens, closes = minutes_of(visit.get(f"opens.{day}")), minutes_of(visit.get(f"closes.{day}"))
        if opens is not None and closes is not None and opens < closes:
            opening.append(Opening(weekday=day, opens=opens, closes=closes))
        elif visit.get(f"opens.{day}") or visit.get(f"closes.{day}"):
            visit.problem(f"opens.{day}", "Give both times, the later one second.")
    visit.refuse_if_problems()
    areas = tuple(line.strip() for line in visit.get("areas").split("\n") if line.strip())
    return Profile(
        services=tuple(int(service) for service in visit.all("services") if service in words.SERVICE),
        areas=areas,
        languages=tuple(tag for tag in visit.all("languages") if tag in words.SPOKEN),
        opening=tuple(opening),
        accepting=visit.get("accepting") != "no",
        telephone=visit.get("telephone"),
    )


async def set_profile(visit: Visit) -> web.StreamResponse:
    await visit.write(desks.set_profile, visit.actor, visit.now, visit.params["desk"], read_profile(visit))
    await peering.publish(visit)
    return go("/desks?done=changed")


async def add_member(visit: Visit) -> web.StreamResponse:
    """The fingerprint that the colleague reads aloud from her own screen has to be that of her key."""
    if not visit.get("fingerprint"):
        visit.problem("fingerprint", "Ask her to read the thirty digits on her page “My account”, and type them.")
    visit.refuse_if_problems()
    await visit.do(desks.add_member, visit.params["desk"], visit.get("staff"), fingerprint=visit.get("fingerprint"))
    return go("/desks?done=added")


async def remove_member(visit: Visit) -> web.StreamResponse:
    await visit.do(desks.remove_member, visit.params["desk"], visit.params["staff"])
    await peering.publish(visit)
    return go("/desks?done=ended")


async def reopen(visit: Visit) -> web.StreamResponse:
    """A desk that nobody can read any more is hers, by the key that both recovery sheets open."""
    key = await visit.read(
        recovery.recovery_from_sheets, visit.services.here, visit.get("sheet_a"), visit.get("sheet_b")
    )
    await visit.do(desks.reopen, visit.params["desk"], key=key)
    return go("/desks?done=changed")


async def rotate(visit: Visit) -> web.StreamResponse:
    await visit.do(desks.rotate_key, visit.params["desk"])
    await peering.publish(visit)
    return go("/desks?done=changed")


# -- other agencies --------------------------------------------------------------------------------------------------


async def show_agencies(visit: Visit) -> web.StreamResponse:
    return await _agencies(visit, "")


async def _agencies(visit: Visit, invite_text: str) -> web.Response:
    here = visit.services.here
    return visit.page(
        "agencies.html",
        visit.say("Other agencies"),
        own=await visit.read(peers.own_fingerprint, here),
        peers=await visit.read(silence.list_peers, here, visit.now),
        kinds=list(AgencyType),
        invite=invite_text,
        may_run=visit.has(Role.ADMINISTRATOR, Role.DIRECTOR),
        may_set=visit.has(Role.ADMINISTRATOR, Role.DIRECTOR, Role.SUPERVISOR),
    )


async def make_invite(visit: Visit) -> web.StreamResponse:
    if visit.get("type") not in set(AgencyType):
        visit.problem("type", "Choose what kind of agency it is.")
    visit.refuse_if_problems()
    return await _agencies(visit, await peering.make_invite(visit, AgencyType(visit.get("type"))))


async def accept_invite(visit: Visit) -> web.StreamResponse:
    await peering.accept_invite(visit, visit.get("invite"))
    return go("/agencies?done=added")


async def verify_agency(visit: Visit) -> web.StreamResponse:
    await peering.verify_peer(visit, visit.params["agency"], visit.get("fingerprint"))
    return go("/agencies?done=changed")


async def block_agency(visit: Visit) -> web.StreamResponse:
    await peering.block_peer(visit, visit.params["agency"])
    return go("/agencies?done=changed")


# -- everything open, and the trail ----------------------------------------------------------------------------------


async def show_overview(visit: Visit) -> web.StreamResponse:
    query = visit.query
    only = query.get("only", "")

    def look(db: Connection) -> dict[str, Any]:
        rows = overview.list_open(
            db,
            visit.services.here,
            visit.actor,
            visit.now,
            desk=query.get("desk", ""),
            person=query.get("person", ""),
            only=only,
            sort=query.get("sort", ""),
        )
        return {
            "rows": rows,
            "counts": overview.counts(db, visit.actor, visit.now),
            "people": overview.colleagues(db),
            "away": absences.away(db, visit.now),
            "desks": desks.list_desks(db),
            "names": staff.names(db),
        }

    chosen = {"desk": query.get("desk", ""), "person": query.get("person", ""), "only": only}
    chosen["sort"] = query.get("sort", "")
    return visit.page("overview.html", visit.say("Everything open"), chosen=chosen, **await visit.read(look))


async def move(visit: Visit) -> web.StreamResponse:
    if not visit.all("referral"):
        visit.problem("referral", "Tick at least one referral.")
    if not visit.get("to"):
        visit.problem("to", "Choose a colleague.")
    visit.refuse_if_problems()
    await visit.do(overview.move, referral_ids=visit.all("referral"), to=visit.get("to"))
    return go("/overview?done=moved")


async def export_counts(visit: Visit) -> web.StreamResponse:
    """The counts as a table for a spreadsheet: numbers only."""
    found = await visit.read(overview.counts, visit.actor, visit.now)
    lines = ["what,count", *(f"{name},{count}" for name, count in found.items())]
    return web.Response(
        text="\r\n".join(lines) + "\r\n",
        content_type="text/csv",
        headers={"Content-Disposition": 'attachment; filename="counts.csv"'},
    )


async def show_trail(visit: Visit) -> web.StreamResponse:
    visit.actor.require_role(Role.AUDITOR, Role.DIRECTOR, Role.ADMINISTRATOR)

    def look(db: Connection) -> dict[str, Any]:
        found = audit.verify_all(db)
        count = sum(one.entries for one in found)
        broken = next((one.broken_at for one in found if one.broken_at is not None), None)
        return {"count": count, "broken": broken, "rows": audit.latest(db, _TRAIL_MAX), "names": staff.names(db)}

    return visit.page("trail.html", visit.say("The trail"), **await visit.read(look))


PAGES: Final = [
    Page("/me", show_me),
    Page("/me/passphrase", None, change_passphrase, again=show_me),
    Page("/me/codes", None, new_codes, again=show_me),
    Page("/me/language", None, set_language, again=show_me),
    Page("/me/zone", None, set_zone, again=show_me),
    Page("/me/sessions/{session}/end", None, end_session, again=show_me),
    Page("/me/sessions/end", None, end_all, again=show_me),
    *reach.pages(show_me),
    Page("/staff", show_staff, invite),
    Page("/staff/{staff}/roles", None, set_roles, again=show_staff),
    Page("/staff/{staff}/passkeys/remove", None, remove_passkeys, again=show_staff),
    Page("/staff/{staff}/disable", None, disable, again=show_staff),
    Page("/staff/{staff}/officer", None, certify, again=show_staff),
    Page("/staff/{staff}/signout", None, sign_out_person, again=show_staff),
    Page("/desks", show_desks, add_desk),
    Page("/desks/{desk}/profile", None, set_profile, again=show_desks),
    Page("/desks/{desk}/members", None, add_member, again=show_desks),
    Page("/desks/{desk}/members/{staff}/remove", None, remove_member, again=show_desks),
    Page("/desks/{desk}/reopen", None, reopen, again=show_desks),
    Page("/desks/{desk}/rotate", None, rotate, again=show_desks),
    Page("/agencies", show_agencies),
    Page("/agencies/invite", None, make_invite, again=show_agencies),
    Page("/agencies/accept", None, accept_invite, again=show_agencies),
    Page("/agencies/{agency}/verify", None, verify_agency, again=show_agencies),
    Page("/agencies/{agency}/block", None, block_agency, again=show_agencies),
    Page("/overview", show_overview, move),
    Page("/overview/counts.csv", export_counts),
    Page("/trail", show_trail),
]
