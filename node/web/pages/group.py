# SPDX-License-Identifier: Apache-2.0
"""Who comes along in one referral: each with what is known of her, and a consent of her own.

Somebody who was not asked is only named, with how to approach her, and marked so; that is part of what the person
herself agrees to.
"""

from __future__ import annotations

from typing import Any, Final

from aiohttp import web

from node.web.pages.languages import NAMES
from node.web.pages.page import Page, Visit, go
from node.web.pages.refer import (
    ADDS_TO,
    consent_page,
    is_minor,
    load_draft,
    read_answers,
    save_draft,
    sections_of,
)
from protocol import crypto
from protocol.errors import LocalError, say
from protocol.messages import GROUP_MAX
from protocol.sections import LINE_MAX, TEXT_MAX


def members_of(draft: dict[str, Any]) -> list[tuple[str, dict[str, Any]]]:
    """Each of the others as a draft of her own: the same agency and services, her own answers."""
    names = ("agency", "peer_desk", "services", "desk", "priority", ADDS_TO)
    shared: dict[str, Any] = {name: draft[name] for name in names if name in draft}
    # A family speaks one language until somebody says otherwise.
    shared["spoken"] = (draft.get("person", {}).get("contact.preferred_language") or [""])[0]
    return [(id_, {**shared, **member, "member": id_}) for id_, member in draft.get("members", {}).items()]


async def _load(visit: Visit) -> dict[str, Any]:
    return await load_draft(visit, visit.params["draft"], may_add=True)


def one_of(draft: dict[str, Any], member_id: str) -> dict[str, Any]:
    found = dict(members_of(draft)).get(member_id)
    if found is None:
        raise LocalError("unknown-member", "There is no such person in this referral.")
    return found


async def show_group(visit: Visit) -> web.StreamResponse:
    draft = await _load(visit)
    rows = [
        {
            "id": id_,
            "relation": (member["person"].get("identity.relation") or [""])[0],
            "code": (member["person"].get("identity.case_code") or [""])[0],
            "is_minor": is_minor(visit, member),
            "asked": bool(member.get("agreed_at")),
        }
        for id_, member in members_of(draft)
    ]
    return visit.page(
        "group.html",
        visit.say("Who comes along"),
        draft=draft,
        rows=rows,
        others=draft.get("others", []),
        most=GROUP_MAX,
    )


async def add_other(visit: Visit) -> web.StreamResponse:
    """Somebody who was not asked: named only with how to approach her."""
    # She is told of in what the person herself agrees to: not once that was sent.
    draft = await load_draft(visit, visit.params["draft"])
    relation, how = visit.get("relation"), visit.get("how_to_approach")
    if not 1 <= len(relation) <= LINE_MAX:
        visit.problem("relation", "Write who it is to the person, without a name.")
    if not 1 <= len(how) <= TEXT_MAX:
        visit.problem("how_to_approach", "Write how she can be approached safely.")
    others = draft.get("others", [])
    if len(others) >= GROUP_MAX or any(other["relation"] == relation for other in others):
        visit.problem("relation", "She is in the list already, or the list is full.")
    visit.refuse_if_problems()
    draft["others"] = [*others, {"relation": relation, "how_to_approach": how}]
    # The person herself has to agree to this too.
    draft.pop("agreed_at", None)
    return await save_draft(visit, draft, "group")


async def remove_other(visit: Visit) -> web.StreamResponse:
    draft = await _load(visit)
    number = visit.params["number"]
    draft["others"] = [other for at, other in enumerate(draft.get("others", [])) if str(at) != number]
    draft.pop("agreed_at", None)
    return await save_draft(visit, draft, "group")


async def show_member(visit: Visit) -> web.StreamResponse:
    draft = await _load(visit)
    member_id = visit.params["member"]
    known = {} if member_id == "new" else one_of(draft, member_id)["person"]
    return visit.page(
        "group_person.html", visit.say("Somebody who comes along"), draft=draft, fields=visit.form or known
    )


async def member(visit: Visit) -> web.StreamResponse:
    draft = await _load(visit)
    members = draft.setdefault("members", {})
    member_id = visit.params["member"]
    if member_id == "new":
        if len(members) >= GROUP_MAX:
            raise LocalError("group-full", say("At most {limit} people come along in one referral.", limit=GROUP_MAX))
        member_id = crypto.new_id()
    elif member_id not in members:
        raise LocalError("unknown-member", "There is no such person in this referral.")
    fields = {name: values for name, values in visit.form.items() if "." in name}
    sections_of(visit, {"member": member_id, "person": fields})
    if not visit.get("identity.relation"):
        visit.problem("identity.relation", "Write who it is to the person, for example: daughter.")
    if not visit.get("identity.age_band"):
        visit.problem("identity.age_band", "Choose an age: for children other rules hold.")
    if not (visit.get("identity.case_code") or visit.get("identity.name")):
        visit.problem("identity.case_code", "Give a case code. A name is not needed.")
    visit.refuse_if_problems()
    # What she has agreed to was what stood here before.
    members[member_id] = {**members.get(member_id, {}), "person": fields, "agreed_at": ""}
    return await save_draft(visit, draft, f"group/{member_id}/consent")


async def remove_member(visit: Visit) -> web.StreamResponse:
    draft = await _load(visit)
    draft.get("members", {}).pop(visit.params["member"], None)
    return await save_draft(visit, draft, "group")


async def show_consent(visit: Visit) -> web.StreamResponse:
    """What she is asked, apart from the others."""
    draft = one_of(await _load(visit), visit.params["member"])
    values = await consent_page(visit, draft)
    return visit.page("refer_consent.html", visit.say("What may we share?"), **values, languages_all=NAMES)


async def show_turned(visit: Visit) -> web.StreamResponse:
    draft = one_of(await _load(visit), visit.params["member"])
    values = await consent_page(visit, draft)
    visit.turn_to_her()
    return visit.page("consent_turned.html", visit.say("What may we share?"), **values)


async def agree(visit: Visit) -> web.StreamResponse:
    draft = await _load(visit)
    member_id = visit.params["member"]
    answers = read_answers(visit, one_of(draft, member_id))
    draft["members"][member_id] |= answers
    return await save_draft(visit, draft, "group")


async def go_on(visit: Visit) -> web.StreamResponse:
    """Back to where the person herself is asked, or on to the preview when she was."""
    draft = await _load(visit)
    if draft.get(ADDS_TO):
        return go(f"/refer/{visit.params['draft']}/group/preview")
    return go(f"/refer/{visit.params['draft']}/{'preview' if draft.get('agreed_at') else 'consent'}")


PAGES: Final = [
    Page("/refer/{draft}/group", show_group, add_other),
    Page("/refer/{draft}/group/on", None, go_on, again=show_group),
    Page("/refer/{draft}/group/others/{number}/remove", None, remove_other, again=show_group),
    Page("/refer/{draft}/group/{member}", show_member, member),
    Page("/refer/{draft}/group/{member}/remove", None, remove_member, again=show_group),
    Page("/refer/{draft}/group/{member}/consent", show_consent, agree),
    Page("/refer/{draft}/group/{member}/consent/turned", show_turned),
]
