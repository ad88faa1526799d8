# SPDX-License-Identifier: Apache-2.0
"""The staff's pages: forms that work without JavaScript, in the person's own language. Decisions are made below."""

from __future__ import annotations

from typing import Final

from node.web.pages import (
    alert,
    alert_person,
    along,
    apart,
    away,
    backstop,
    capacity,
    case,
    contact,
    entrance,
    exception,
    files,
    group,
    guide,
    home,
    importing,
    locking,
    news,
    outside,
    paper,
    passkeys,
    people,
    plans,
    programmes,
    refer,
    report,
    retire,
    send,
    thread,
)
from node.web.pages.page import Page

ALL: Final[list[Page]] = [
    *entrance.PAGES,
    *home.PAGES,
    *news.PAGES,
    *refer.PAGES,
    *send.PAGES,
    *along.PAGES,  # before the next: “preview” is nobody's id
    *group.PAGES,
    *exception.PAGES,
    *thread.PAGES,
    *importing.PAGES,
    *case.PAGES,
    *contact.PAGES,
    *capacity.PAGES,
    *outside.PAGES,
    *programmes.PAGES,
    *report.PAGES,
    *alert.PAGES,
    *alert_person.PAGES,
    *files.PAGES,
    *apart.PAGES,
    *plans.pages(case.show_case, home.show_followup),
    *backstop.PAGES,
    *retire.PAGES,
    *paper.PAGES,
    *away.PAGES,
    *people.PAGES,
    *guide.PAGES,
    *passkeys.PAGES,
    *locking.PAGES,
]
