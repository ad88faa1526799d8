# SPDX-License-Identifier: Apache-2.0
"""Without her consent: a reason, a rule, a second person. Asked by one, looked at and decided by another."""

from __future__ import annotations

from datetime import timedelta
from typing import Any, Final

import msgspec
from aiohttp import web
from sqlalchemy import Connection

from node.casework import approvals, disclosures, drafts, forms
from node.office import staff
from node.web.pages import alert
from node.web.pages.page import Page, Visit, go
from node.web.pages.refer import is_minor, load_draft, recipient, sections_of
from protocol.codes import Basis, Kind, Priority, Risk, Section
from protocol.consent import Collected, Details
from protocol.errors import LocalError

#: An exception is for what is urgent now; whatever comes after it is asked of her again.
VALID: Final = timedelta(days=7)
_BASES: Final = tuple(basis for basis in Basis if basis is not Basis.CONSENT)
TEXT_MAX: Final = 500


async def show_exception(visit: Visit) -> web.StreamResponse:
    draft = await load_draft(visit, visit.params["draft"])
    state = await visit.read(approvals.state, visit.actor, visit.now, visit.params["draft"])
    return visit.page(
        "exception.html", visit.say("Without her consent"), state=state, bases=_BASES, **await _shown(visit, draft)
    )


async def _shown(visit: Visit, draft: dict[str, Any]) -> dict[str, Any]:
    problems = list(visit.problems)
    sections = sections_of(visit, draft).form if draft.get("person") else {}
    visit.problems = problems
    to = await recipient(visit, draft)
    if not sections:
        raise LocalError("draft-incomplete", "A step before this one is missing. Begin with what is needed.")
    return {
        "draft": draft,
        "said": draft.get("exception", {}),
        "sections": sections,
        "agency_to": to["agency"],
        "desk_to": to["desk"],
    }


async def ask(visit: Visit) -> web.StreamResponse:
    """The request goes to the supervisors of the desk; nothing leaves."""
    draft = await load_draft(visit, visit.params["draft"])
    shown = await _shown(visit, draft)
    if visit.get("basis") not in set(_BASES):
        visit.problem("basis", "Choose why it cannot wait for her consent.")
    for name in ("reason", "rule"):
        if not 1 <= len(visit.get(name)) <= TEXT_MAX:
            visit.problem(name, "Write it in one or two sentences.")
    chosen = [name for name in visit.all("sections") if name in shown["sections"]]
    if not chosen:
        visit.problem("sections", "Choose the parts that are needed, and only those.")
    visit.refuse_if_problems()
    draft["exception"] = {
        "basis": visit.get("basis"),
        "reason": visit.get("reason"),
        "rule": visit.get("rule"),
        "sections": chosen,
    }
    draft_id = visit.params["draft"]
    await visit.do(drafts.save, draft_id=draft_id, desk_id=draft["desk"], form=draft)
    await visit.do(approvals.ask, draft_id=draft_id, desk_id=draft["desk"])
    return go(f"/refer/{draft_id}/exception?done=asked")


async def send(visit: Visit) -> web.StreamResponse:
    """What was approved, exactly, goes; the recipient sees on which basis."""
    draft_id = visit.params["draft"]
    draft = await load_draft(visit, draft_id)
    said = draft.get("exception")
    if not said:
        raise LocalError("draft-incomplete", "A step before this one is missing. Begin with what is needed.")
    sections = sections_of(visit, draft)
    visit.refuse_if_problems()
    risk = (draft["person"].get("risk") or [""])[0]
    sent = await visit.do(
        forms.send_draft,
        draft_id=draft_id,
        desk_id=draft["desk"],
        case_id=draft.get("case") or None,
        agency=draft["agency"],
        peer_desk=draft["peer_desk"],
        sections=sections.sections,
        agreed={Section(name) for name in said["sections"] if name in sections.form},
        details=Details(
            collected=Collected.ORAL,
            explained_in="und",
            notice_language="und",
            notice_version="",
            limits_told_first=False,
            told_back=False,
            reason=said["reason"],
            rule=said["rule"],
        ),
        valid_until=visit.now + VALID,
        kind=Kind(draft["kind"]),
        priority=Priority(draft["priority"]),
        needed_by=visit.dates.parse(draft["needed_by"]) if draft.get("needed_by") else None,
        risk=Risk(risk) if risk in set(Risk) else Risk.NONE,
        is_minor=is_minor(visit, draft),
        part_of=draft.get("part_of") or None,
        programme_id=draft.get("programme") or None,
        basis=Basis(said["basis"]),
    )
    return go(f"/referrals/{sent.referral}?done=sent")


# -- the second person -----------------------------------------------------------------------------------------------


async def show_approval(visit: Visit) -> web.StreamResponse:
    def look(db: Connection) -> dict[str, Any]:
        here, actor = visit.services.here, visit.actor
        draft, row = approvals.read(db, here, actor, visit.now, visit.params["approval"])
        return {"draft": draft, "row": row, "who": staff.names(db).get(row.requested_by, "")}

    found = await visit.read(look)
    if found["draft"].get("kind") == disclosures.KIND:
        made = msgspec.convert(found["draft"], disclosures.Draft)
        to = alert.name_of(visit, made.agency, made.peer_desk)
        about = {"row": found["row"], "who": found["who"], "to": to, "said": made.exception}
        about["seen"] = disclosures.seen(made)
        return visit.page("approval_alert.html", visit.say("A second person"), **about)
    shown = await _shown(visit, found["draft"])
    asked = set(shown["said"]["sections"])
    shown["sections"] = {name: values for name, values in shown["sections"].items() if name in asked}
    return visit.page("approval.html", visit.say("A second person"), row=found["row"], who=found["who"], **shown)


async def decide(visit: Visit) -> web.StreamResponse:
    if visit.get("approve") not in ("yes", "no"):
        raise LocalError("approve", "Approve it, or do not.")
    await visit.do(approvals.decide, approval_id=visit.params["approval"], approved=visit.get("approve") == "yes")
    return go("/?done=decided")


PAGES: Final = [
    Page("/refer/{draft}/exception", show_exception, ask),
    Page("/refer/{draft}/exception/send", None, send, again=show_exception),
    Page("/approvals/{approval}", show_approval, decide),
]
