# SPDX-License-Identifier: Apache-2.0
"""Others who come along in a referral that was sent: added, each asked apart, or what was sent of one corrected."""

from __future__ import annotations

from typing import Any, Final

import msgspec
from aiohttp import web

from node.casework import drafts, group, notes
from node.web.pages.group import members_of
from node.web.pages.page import Page, Visit, go
from node.web.pages.refer import ADDS_TO, load_draft, recipient
from node.web.pages.sections import FormSections
from node.web.pages.send import coming_in, member_of
from protocol import crypto
from protocol.errors import LocalError


async def begin(visit: Visit) -> web.StreamResponse:
    """A draft with nobody in it yet; refused at once where nobody can be added."""
    referral_id = visit.params["referral"]
    row = await visit.read(notes.addable, visit.actor, referral_id)
    draft: dict[str, Any] = {
        ADDS_TO: referral_id,
        "agency": row.peer,
        "peer_desk": row.peer_desk,
        "services": [],
        "desk": row.desk_id,
        "priority": row.priority,
        "members": {},
    }
    draft_id = crypto.new_id()
    await visit.do(drafts.save, draft_id=draft_id, desk_id=row.desk_id, form=draft)
    return go(f"/refer/{draft_id}/group/new")


async def _load(visit: Visit) -> dict[str, Any]:
    draft = await load_draft(visit, visit.params["draft"], may_add=True)
    if not draft.get(ADDS_TO):
        raise drafts.unknown()
    return draft


async def show_preview(visit: Visit) -> web.StreamResponse:
    """Exactly what the recipient will see of those who are added, and what stays here."""
    draft = await _load(visit)
    coming = coming_in(visit, draft)
    if not coming:
        return go(f"/refer/{visit.params['draft']}/group")
    to = await recipient(visit, draft)
    return visit.page("along.html", visit.say("Look once more, then send"), draft=draft, coming=coming, to=to)


async def send(visit: Visit) -> web.StreamResponse:
    """Consents and what they cover in one transaction; a second click finds that it was sent."""
    try:
        draft = await _load(visit)
    except LocalError:
        return go("/referrals?show=ours&done=already")
    members = [member_of(visit, member) for _, member in members_of(draft)]
    visit.refuse_if_problems()
    referral_id = draft[ADDS_TO]
    await visit.do(group.add, draft_id=visit.params["draft"], referral_id=referral_id, members=members)
    return go(f"/referrals/{referral_id}?done=told")


async def _sent_of_her(visit: Visit) -> tuple[dict[str, Any], dict[str, Any]]:
    """What was said of her last, and its sections; refused where it cannot be corrected."""
    referral_id, member_id = visit.params["referral"], visit.params["member"]
    await visit.read(notes.addable, visit.actor, referral_id)
    found = await visit.read(
        group.said_of, visit.services.here, visit.actor, visit.now, referral_id=referral_id, member_id=member_id
    )
    if not found["sections"]:
        raise LocalError("consent-withdrawn", "Sharing was stopped. There is nothing left to correct.")
    return found, {name: msgspec.json.decode(raw) for name, raw in found["sections"].items()}


async def show_correct(visit: Visit) -> web.StreamResponse:
    """What was sent of her, as a form."""
    _, sent = await _sent_of_her(visit)
    return visit.page(
        "correct.html",
        visit.say("Correct what was sent"),
        fields=visit.form or FormSections.fields_of(sent),
        sections=sorted(sent),
        is_member=True,
    )


async def correct(visit: Visit) -> web.StreamResponse:
    """All of it goes again, with what she changed: it takes the place of what was said before."""
    found, sent = await _sent_of_her(visit)
    read = FormSections(visit, only=set(sent), before=sent)
    visit.refuse_if_problems()
    if read.form == sent:
        visit.problem("", "Nothing is different from what was sent.")
    visit.refuse_if_problems()
    await visit.do(
        group.tell,
        referral_id=visit.params["referral"],
        member_id=visit.params["member"],
        release_id=found["release"],
        sections=read.sections,
    )
    return go(f"/referrals/{visit.params['referral']}?done=told")


PAGES: Final = [
    Page("/referrals/{referral}/group", None, begin),
    Page("/referrals/{referral}/group/{member}", show_correct, correct),
    Page("/refer/{draft}/group/preview", show_preview, send),
]
