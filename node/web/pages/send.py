# SPDX-License-Identifier: Apache-2.0
"""The last step of a new referral: exactly what the recipient will see, what stays here, then sent in one act."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any, Final

from aiohttp import web

from node.casework import forms
from node.casework.group import Member
from node.web.pages.group import members_of
from node.web.pages.page import Page, Visit, go
from node.web.pages.refer import consent_page, details_of, is_minor, load_draft, sections_of
from protocol.codes import Kind, Priority, Risk, Section
from protocol.errors import LocalError


def _agreed(draft: dict[str, Any]) -> set[str]:
    """The parts that may be shared, by the answers of this draft; none while she has not been asked as it is now."""
    said = draft.get("consent", {}) if draft.get("agreed_at") else {}
    return {name.removeprefix("may.") for name, answer in said.items() if answer == ["yes"] and name.startswith("may.")}


def coming_in(visit: Visit, draft: dict[str, Any]) -> list[dict[str, Any]] | None:
    """What would be seen of each of those who come along, and what stays here; None while one was not asked."""
    coming = []
    for _, member in members_of(draft):
        if not member.get("agreed_at"):
            return None
        found = sections_of(visit, member).form
        may = _agreed(member)
        coming.append(
            {
                "sections": {name: said for name, said in found.items() if name in may},
                "kept": [name for name in found if name not in may],
                "relation": (member["person"].get("identity.relation") or [""])[0],
            }
        )
    return coming


async def show_preview(visit: Visit) -> web.StreamResponse:
    """Exactly what the recipient will see, and what stays here."""
    draft_id = visit.params["draft"]
    draft = await load_draft(visit, draft_id)
    values = await consent_page(visit, draft)
    agreed = _agreed(draft)
    if not agreed & set(values["sections"]):
        return go(f"/refer/{draft_id}/consent")
    coming = coming_in(visit, draft)
    if coming is None:
        return go(f"/refer/{draft_id}/group")
    return visit.page(
        "refer_preview.html",
        visit.say("Look once more, then send"),
        agreed=[name for name in values["sections"] if name in agreed],
        kept=[name for name in values["sections"] if name not in agreed],
        coming=coming,
        files_later=draft["consent"].get("may.attachments") == ["yes"],
        **{name: value for name, value in values.items() if name != "fields"},
    )


async def send(visit: Visit) -> web.StreamResponse:
    """Case, consents and referral in one transaction; a second click finds that it was sent."""
    try:
        draft = await load_draft(visit, visit.params["draft"])
    except LocalError:
        return go("/referrals?show=ours&done=already")
    sections = sections_of(visit, draft)
    members = [member_of(visit, member) for _, member in members_of(draft)]
    visit.refuse_if_problems()
    agreed = _agreed(draft)
    risk = (draft["person"].get("risk") or [""])[0]
    sent = await visit.do(
        forms.send_draft,
        draft_id=visit.params["draft"],
        desk_id=draft["desk"],
        case_id=draft.get("case") or None,
        agency=draft["agency"],
        peer_desk=draft["peer_desk"],
        sections=sections.sections,
        agreed={Section(name) for name in (*sections.form, Section.ATTACHMENTS) if name in agreed},
        details=details_of(draft),
        valid_until=_until(draft),
        kind=Kind(draft["kind"]),
        priority=Priority(draft["priority"]),
        needed_by=visit.dates.parse(draft["needed_by"]) if draft.get("needed_by") else None,
        risk=Risk(risk) if risk in set(Risk) else Risk.NONE,
        part_of=draft.get("part_of") or None,
        programme_id=draft.get("programme") or None,
        is_minor=is_minor(visit, draft),
        members=members,
    )
    return go(f"/referrals/{sent.referral}?done=sent")


def member_of(visit: Visit, member: dict[str, Any]) -> Member:
    """One of those who come along, as she is sent."""
    found = sections_of(visit, member)
    agreed = _agreed(member)
    person = member["person"]
    names = [(person.get(f"identity.{name}") or [""])[0] for name in ("relation", "case_code", "name")]
    return Member(
        who=", ".join(name for name in names if name),
        sections=found.sections,
        agreed={Section(name) for name in found.form if name in agreed},
        details=details_of(member),
        valid_until=_until(member),
        is_minor=is_minor(visit, member),
    )


def _until(draft: dict[str, Any]) -> datetime:
    """What she agreed to counts from when she agreed, not from when somebody found time to send it."""
    if not draft.get("agreed_at"):
        raise LocalError("draft-incomplete", "Something was changed after the consent. Ask again, then send.")
    return datetime.fromisoformat(draft["agreed_at"]) + timedelta(days=int(draft["consent"]["days"][0]))


PAGES: Final = [Page("/refer/{draft}/preview", show_preview, send)]
