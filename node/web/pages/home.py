# SPDX-License-Identifier: Apache-2.0
"""What waits for me today, the lists of referrals and follow-ups, and search."""

from __future__ import annotations

from datetime import timedelta
from typing import Any, Final

from aiohttp import web
from sqlalchemy import Connection, select

from node.casework import (
    absences,
    alert_acts,
    alerts,
    alerts_outside,
    approvals,
    backstop,
    capacity,
    cases,
    consents,
    contact,
    decisions,
    disclosures,
    drafts,
    drills,
    erasure,
    followups,
    keeping,
    plans,
    programmes,
    replies,
    returning,
    show,
    silence,
)
from node.office import clocks, staff, tasks
from node.storage.here import Here
from node.storage.tables import FollowupKind, messages, referrals, releases, withdrawals
from node.storage.tables import cases as case_rows
from node.web.pages import news
from node.web.pages.page import Page, Visit, go
from protocol.codes import FollowupOutcome
from protocol.errors import LocalError

#: What is due within this time belongs to today.
_TODAY: Final = timedelta(hours=24)
_ROW_MAX: Final = 50


async def home(visit: Visit) -> web.StreamResponse:
    """What waits today, nothing else."""

    def look(db: Connection) -> dict[str, Any]:
        here, actor, now = visit.services.here, visit.actor, visit.now
        listed = show.list_referrals(db, here, actor, now)
        due = [f for f in followups.list_followups(db, here, actor, now) if f["due_at"] <= now + _TODAY and f["ours"]]
        waiting = [r for r in listed if r["side"] == "target" and _is_our_turn(r)][:_ROW_MAX]
        silent = [
            r
            for r in listed
            if r["side"] == "source" and (r["attention"] in ("overdue", "undelivered") or r["silent_since"])
        ]
        mine = tasks.list_tasks(db, actor)
        known = {agency: member.peer.name for agency, member in here.directory.members.items()}
        unmet = {t["subject_id"]: t["kind"] == replies.UNMET for t in mine if t["kind"] in replies.KINDS}
        answered = show.list_referrals(db, here, actor, now, include_ended=True, only=unmet) if unmet else []
        above = {str(row["id"]) for row in (*waiting, *answered, *silent, *due)}
        of_cases = [*(r["case"] for r in (*waiting, *answered, *silent)), *(f["case_id"] for f in due)]
        return {
            "tasks": [
                {
                    **task,
                    "link": _link(db, here, task),
                    "by_word": tasks.is_by_word(str(task["kind"])),
                    "agency": known.get(str(task["subject_id"]), ""),
                }
                for task in mine
                if not (task["kind"] in _SAID_ABOVE and task["subject_id"] in above)
            ],
            "waiting": waiting,
            "answered": answered,
            "unmet": unmet,
            "silent": silent,
            "due": due,
            "needs": show.triage(db, here, actor, waiting),
            "codes": cases.codes(db, here, actor, of_cases),
            "drafts": drafts.list_drafts(db, actor),
            "open": len(listed),
            "away": [
                a for a in absences.list_absences(db, actor, now) if actor.staff_id in (a["staff_id"], a["cover_id"])
            ],
            "names": staff.names(db),
            "news": bool(tasks.notices_for(db, actor)),
            "state": news.state(db, actor),
        }

    found = await visit.read(look)
    if found.pop("news"):
        await visit.write(tasks.read_notices, visit.actor)
        found["state"] = await visit.read(news.state, visit.actor)
    return visit.page("home.html", visit.say("Today"), **found)


def _is_our_turn(row: dict[str, Any]) -> bool:
    return row["turn"] == "target" and (row["status"] in ("received", "on-hold") or row["cancellation_requested"])


#: What the row of a referral or of a follow-up says by itself.
_SAID_ABOVE: Final = frozenset(
    {"overdue", "undelivered", "cancel-asked", "followup-due", "followup-missed", *replies.KINDS}
)
_ALERT_TASKS: Final = frozenset(
    {
        alerts.TASK,
        alerts.QUESTION_TASK,
        alerts.CANCEL_TASK,
        alerts.UNCONFIRMED_TASK,
        alert_acts.REVIEW_TASK,
        disclosures.TELL_TASK,
    }
)


def _link(db: Connection, here: Here, task: dict[str, Any]) -> str:
    """The page on which this task is done."""
    kind, subject = str(task["kind"]), str(task["subject_id"])
    if kind == erasure.TASK:
        return "/withdrawals"
    if kind == approvals.TASK:
        return f"/approvals/{subject}"
    if kind in {f"followup-{outcome}" for outcome in decisions.OPEN}:
        return f"/followups/{subject}/decide"
    if kind.startswith("followup"):
        return "/followups"
    if kind.startswith(("desk", "roster")):
        return "/desks"
    if kind.startswith("alarm"):
        return "/agencies"
    if kind in (programmes.ENDS_TASK, programmes.REVIEW_TASK):
        return f"/programmes/{subject}"
    if kind in (programmes.ORPHAN_TASK, cases.RETENTION_TASK):
        return f"/cases/{subject}"
    if kind == alerts_outside.TASK:
        return f"/alerts/outside/{subject}"
    if kind in _ALERT_TASKS:
        return f"/alerts/{subject}"
    if kind.startswith("message-") and alerts.is_alert(db, subject):
        return f"/alerts/{subject}"
    if kind.startswith((alerts.PATH_TASK, drills.DRILL_TASK)):
        return "/alerts"
    if kind in (silence.PEER_TASK, returning.FORGOTTEN_TASK):
        return "/agencies"
    if kind in (keeping.CALL_TASK, keeping.NAMES_TASK, backstop.USED_TASK, silence.GONE_TASK):
        page = keeping.page_of(db, kind, subject)
        if page:
            return page
    if kind == silence.GONE_TASK:
        is_case = db.execute(select(case_rows.c.id).where(case_rows.c.id == subject)).first() is not None
        return f"/cases/{subject}" if is_case else f"/referrals/{subject}"
    if kind == absences.TASK:
        return "/away"
    if kind == capacity.TASK:
        return f"/capacity/{subject}"
    if kind == clocks.TASK:
        return "/lock"
    if kind == "sign-in-codes":
        return "/me"
    if kind in (consents.OUTSIDE_TASK, "erasure-missing"):
        of = select(releases.c.case_id).join(withdrawals, withdrawals.c.release_id == releases.c.id)
        case = db.execute(of.where(withdrawals.c.id == subject)).scalar()
        return f"/cases/{case}" if case else "/withdrawals"
    if kind == "consent-ended":
        case = db.execute(select(releases.c.case_id).where(releases.c.id == subject)).scalar()
        return f"/cases/{case}" if case else ""
    found = db.execute(select(referrals.c.id).where(referrals.c.id == subject)).scalar()
    if found is None:
        found = _referral_of(db, here, subject)
    return f"/referrals/{found}" if found else ""


def _referral_of(db: Connection, here: Here, message_id: str) -> str | None:
    agencies = [here.agency, *here.directory.members]
    query = select(messages.c.referral_id).where(messages.c.agency.in_(agencies), messages.c.id == message_id)
    return db.execute(query).scalar()


async def settle(visit: Visit) -> web.StreamResponse:
    """Something that is done when she says so."""
    await visit.do(tasks.settle, task_id=visit.params["task"])
    return go("/?done=saved")


async def list_referrals(visit: Visit) -> web.StreamResponse:
    """The referrals of my desks, with enough on each row to sort them without opening."""
    which = visit.query.get("show", "waiting")

    def look(db: Connection) -> dict[str, Any]:
        here, actor, now = visit.services.here, visit.actor, visit.now
        listed = show.list_referrals(db, here, actor, now, include_ended=which == "ended")
        chosen = [r for r in listed if _belongs(r, which)]
        rows = chosen[:_ROW_MAX]
        return {
            "rows": rows,
            "more": len(chosen) - len(rows),
            "needs": show.triage(db, here, actor, rows),
            "codes": cases.codes(db, here, actor, [row["case"] for row in rows]),
            "names": staff.names(db),
            "state": news.state(db, actor),
        }

    return visit.page(
        "referrals.html",
        visit.say("Referrals"),
        which=which if which in ("waiting", "theirs", "ours", "ended") else "waiting",
        me=visit.actor.staff_id,
        **await visit.read(look),
    )


def _belongs(row: dict[str, Any], which: str) -> bool:
    if which == "ended":
        return row["ended_at"] is not None
    if row["ended_at"] is not None:
        return False
    if which == "ours":
        return bool(row["side"] == "source")
    if which == "theirs":
        return bool(row["side"] == "target")
    return row["side"] == "target" and _is_our_turn(row)


# -- follow-ups ------------------------------------------------------------------------------------------------------


async def list_followups(visit: Visit) -> web.StreamResponse:
    def look(db: Connection) -> dict[str, Any]:
        here, actor = visit.services.here, visit.actor
        found = followups.list_followups(db, here, actor, visit.now)
        codes = cases.codes(db, here, actor, [row["case_id"] for row in found])
        return {"rows": found, "names": staff.names(db), "codes": codes}

    return visit.page("followups.html", visit.say("Follow-ups"), **await visit.read(look))


async def show_followup(visit: Visit) -> web.StreamResponse:
    followup_id = visit.params["followup"]

    def look(db: Connection) -> dict[str, Any]:
        found = followups.list_followups(db, visit.services.here, visit.actor, visit.now)
        row = next((f for f in found if f["id"] == followup_id), None)
        if row is None:
            raise LocalError("unknown-followup", "There is no such follow-up at your desks.")
        here, actor = visit.services.here, visit.actor
        if row["kind"] == FollowupKind.DATE:
            return {"row": row, "date": plans.dates_of(db, here, actor, row["case_id"]).get(row["plan_id"], "")}
        if decisions.is_stopped(db, row["case_id"]):
            return {"row": row, "stopped": True}
        return {
            "row": row,
            "door": contact.door_words(db).get(visit.language.tag, ""),
            **contact.outlook(db, here, actor, visit.now, row),
        }

    last = (visit.now + plans.SNOOZE_MAX).date()
    return visit.page("followup.html", visit.say("Follow-up"), snooze_last=last, **await visit.read(look))


async def show_decide(visit: Visit) -> web.StreamResponse:
    """What a follow-up has left to a person with responsibility."""
    found = await visit.read(decisions.to_decide, visit.actor, visit.params["followup"])
    return visit.page("decide.html", visit.say("To be decided"), found=found)


async def decide(visit: Visit) -> web.StreamResponse:
    await visit.do(decisions.decide, followup_id=visit.params["followup"], text=visit.get("text"))
    return go("/?done=saved")


async def report_followup(visit: Visit) -> web.StreamResponse:
    outcome = visit.get("outcome")
    if outcome not in {*FollowupOutcome, "done"}:
        visit.problem("outcome", "Choose what came of it.")
    still_right = visit.get("still_right")
    if still_right == "yes" and outcome not in contact.REACHED:
        visit.problem("still_right", "Only she can say that it is still right, when she was reached.")
    visit.refuse_if_problems()
    followup_id = visit.params["followup"]
    case_id = await visit.do(
        followups.report,
        followup_id=followup_id,
        outcome=None if outcome == "done" else FollowupOutcome(outcome),
        text=visit.get("text"),
        next_step=visit.get("next_step"),
        contact_confirmed=still_right == "yes",
        channel=visit.get("channel") if outcome == FollowupOutcome.NOT_REACHED else "",
    )
    return go(after_report(case_id, outcome, still_right))


def after_report(case_id: str | None, outcome: str, still_right: str) -> str:
    """Where somebody goes on who has recorded a follow-up."""
    if case_id is not None and outcome == FollowupOutcome.CONTACT_DECLINED:
        return f"/cases/{case_id}/door?done=reported"
    if case_id is not None and still_right == "no":
        return f"/cases/{case_id}/edit?done=reported"
    return "/followups?done=reported"


# -- search ----------------------------------------------------------------------------------------------------------


async def search(visit: Visit) -> web.StreamResponse:
    """Cases of my desks whose code or name holds what was typed: opened, compared, forgotten. A form, never a URL."""
    wanted = visit.get("text").casefold()
    found: list[dict[str, Any]] = []
    if len(wanted) >= 2:
        found = await visit.read(cases.find, visit.services.here, visit.actor, wanted)
    elif visit.request.method == "POST" and not visit.problems:
        visit.problem("text", "Type at least two letters.")
        visit.status = 422
    return visit.page("search.html", visit.say("Search"), found=found, text=visit.get("text"))


PAGES: Final = [
    Page("/", home),
    Page("/tasks/{task}/done", None, settle, again=home),
    Page("/referrals", list_referrals),
    Page("/followups", list_followups),
    Page("/followups/{followup}", show_followup, report_followup),
    Page("/followups/{followup}/decide", show_decide, decide),
    Page("/search", search, search),
]
