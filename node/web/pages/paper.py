# SPDX-License-Identifier: Apache-2.0
"""On paper, as tagged PDF: the consent to be signed, her own copy, a referral for who has no node, an alert.

A paper is made when somebody asks for it and is kept nowhere here. It holds only what its page holds, and it loads
nothing: no address is followed while it is made.
"""

from __future__ import annotations

import asyncio
import io
from functools import lru_cache
from pathlib import Path
from typing import Any, Final

import msgspec
from aiohttp import web

from node.casework import contact, evidence, programmes, subject
from node.office import audit
from node.web.pages import case, group, refer, render, thread
from node.web.pages.languages import language
from node.web.pages.page import Page, Visit
from protocol import evidence as proof
from protocol import identity
from protocol.encoding import moment
from protocol.errors import LocalError

#: Laying out a page takes a core for up to a second: one at a time, and the pages of others go on meanwhile.
_ONE_AT_A_TIME: Final = asyncio.Semaphore(1)
_STYLE: Final = Path(__file__).resolve().parents[1] / "static" / "paper.css"


async def consent_form(visit: Visit) -> web.StreamResponse:
    """What she is asked, part by part, in her language, with places for her answers and how they were given."""
    draft = await refer.load_draft(visit, visit.params["draft"])
    values = await refer.consent_page(visit, draft)
    return await _paper(visit, "paper_consent.html", visit.params["draft"], **values)


async def consent_form_of_member(visit: Visit) -> web.StreamResponse:
    """The same for one of those who come along: exactly what would be sent of her, and of nobody else."""
    draft = await refer.load_draft(visit, visit.params["draft"], may_add=True)
    values = await refer.consent_page(visit, group.one_of(draft, visit.params["member"]))
    return await _paper(visit, "paper_consent.html", visit.params["draft"], **values)


async def her_copy(visit: Visit) -> web.StreamResponse:
    """What she agreed to and how she stops it: hers to keep."""
    release = await case.consent_of(visit)
    agency_to = release["agency_name"]
    words = await visit.read(contact.door_words)
    door = words.get(language(visit.query.get("in", visit.language.tag)).tag, "")
    return await _paper(visit, "paper_copy.html", release["id"], release=release, agency_to=agency_to, door=door)


async def where_to_turn(visit: Visit) -> web.StreamResponse:
    """Where she can turn who does not want to be handed over: hers to keep."""
    case_id = visit.params["case"]
    found = await visit.read(programmes.told_where, visit.services.here, visit.actor, case_id)
    return await _paper(visit, "paper_where.html", case_id, **found)


async def referral_form(visit: Visit) -> web.StreamResponse:
    """A referral as it can be read now, with what may be done with it."""
    found = await thread.opened(visit)
    return await _paper(visit, "paper_referral.html", visit.params["referral"], referral=found["referral"])


async def alert_form(visit: Visit) -> web.StreamResponse:
    """An alert as evidence that people can read: who signed what and who received it. The proof itself is inside."""
    alert_id = visit.params["alert"]
    raw = await visit.do(evidence.export_alert, alert_id=alert_id)
    found = proof.verify(raw)
    said = []
    for message in found.messages:
        texts = {str(section): msgspec.json.decode(text) for section, text in message.texts.items()}
        times = {"at": moment(message.created), "got": None if message.received is None else moment(message.received)}
        said.append({"message": message, "said": texts.pop("narrative", {}), "person": texts, **times})
    return await _paper(
        visit,
        "paper_alert.html",
        alert_id,
        attached=raw,
        said=said,
        peers=found.agencies,
        prints={agency: identity.fingerprint(agency, peer.root.hash) for agency, peer in found.agencies.items()},
        marking=next((m.marking for m in found.messages if m.marking is not None), None),
        made_by=found.agencies[found.exported_by].name,
        thread=found.thread,
    )


async def everything(visit: Visit) -> web.StreamResponse:
    """All that we hold about the person, for herself."""
    case_id = visit.params["case"]
    found = await visit.do(subject.everything, case_id=case_id)
    return await _paper(visit, "paper_export.html", case_id, **found)


async def _paper(
    visit: Visit, name: str, subject: str, attached: bytes | None = None, **values: Any
) -> web.StreamResponse:
    tongue = language(visit.query.get("in", visit.language.tag))
    html = render.template(
        tongue,
        name,
        dates=render.Dates(tongue, visit.services.here.zone, visit.now),
        agency=visit.services.agency_name,
        is_demo=visit.services.rest is not None,
        **values,
    )
    async with _ONE_AT_A_TIME:
        made = await asyncio.to_thread(make_pdf, html, attached)
    await visit.write(audit.record, visit.now, visit.actor.staff_id, "paper.make", subject)
    response = web.Response(body=made, content_type="application/pdf")
    # The name says nothing about anybody: it stays in the list of downloads.
    response.headers["Content-Disposition"] = 'attachment; filename="paper.pdf"'
    return response


def make_pdf(html: str, attached: bytes | None = None) -> bytes:
    """The page as PDF/UA-1: tagged, with its language; `attached` is a file of evidence that is put into it.

    Raises LocalError `no-paper` where nothing can make one.
    """
    try:
        from weasyprint import CSS, HTML, Attachment
        from weasyprint.urls import URLFetcher
    except (ImportError, OSError):
        raise LocalError(
            "no-paper",
            "This node cannot make PDF files. Print the page from the browser, or ask your administrator to install "
            "the extra “pdf”.",
        ) from None
    fetcher = URLFetcher(allowed_protocols=[])
    style = CSS(string=_style(), url_fetcher=fetcher)
    files = [] if attached is None else [Attachment(file_obj=io.BytesIO(attached), name="evidence.json")]
    page = HTML(string=html, url_fetcher=fetcher)
    pdf: bytes = page.write_pdf(stylesheets=[style], pdf_variant="pdf/ua-1", attachments=files)
    return pdf


@lru_cache(maxsize=1)
def _style() -> str:
    return _STYLE.read_text()


PAGES: Final = [
    Page("/cases/{case}/export/paper", everything),
    Page("/refer/{draft}/consent/paper", consent_form),
    Page("/refer/{draft}/group/{member}/consent/paper", consent_form_of_member),
    Page("/cases/{case}/consents/{consent}/paper", her_copy),
    Page("/cases/{case}/stays/paper", where_to_turn),
    Page("/referrals/{referral}/paper", referral_form),
    Page("/alerts/{alert}/paper", alert_form),
]
