# SPDX-License-Identifier: Apache-2.0
"""The guide for staff: what to do, step by step, with drawings of the pages whose numbers the text explains.

A drawing has no words in it, so it is the same in every language; for those that are written from the right it is
mirrored, numbers excepted. It is made here, of boxes: nothing to fetch, and it follows the page's colours.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from aiohttp import web
from markupsafe import Markup

from node.web.pages.page import Page, Visit

_WIDTH: Final = 320


@dataclass(frozen=True, slots=True)
class Drawing:
    """Boxes (x, y, width, height, class) and numbered marks (x, y), in a field 320 wide and `height` high."""

    height: int
    boxes: tuple[tuple[int, int, int, int, str], ...]
    marks: tuple[tuple[int, int], ...]

    def svg(self, label: str, *, mirrored: bool) -> Markup:
        """The drawing; `label` says to a screen reader what it shows."""
        parts = [
            Markup('<svg viewBox="0 0 {} {}" role="img" aria-label="{}" class="drawing">').format(
                _WIDTH, self.height, label
            )
        ]
        for x, y, width, height, name in self.boxes:
            left = _WIDTH - x - width if mirrored else x
            parts.append(
                Markup('<rect x="{}" y="{}" width="{}" height="{}" rx="4" class="{}"/>').format(
                    left, y, width, height, name
                )
            )
        for number, (x, y) in enumerate(self.marks, 1):
            center = _WIDTH - x if mirrored else x
            parts.append(
                Markup('<circle cx="{0}" cy="{1}" r="10"/><text x="{0}" y="{2}">{3}</text>').format(
                    center, y, y + 5, number
                )
            )
        return Markup("").join([*parts, Markup("</svg>")])


_TOP: Final = ((0, 0, 320, 26, "bar"), (10, 8, 50, 10, "line"), (250, 5, 62, 16, "dark"))
DRAWINGS: Final = {
    # The first page: the way out, a new referral, what waits.
    "home": Drawing(
        170,
        (
            *_TOP,
            (10, 38, 150, 14, "line"),
            (10, 62, 90, 20, "button"),
            (10, 96, 300, 28, "box"),
            (18, 104, 40, 12, "urgent"),
            (66, 104, 150, 12, "line"),
            (10, 130, 300, 28, "box"),
            (18, 138, 180, 12, "line"),
        ),
        ((238, 13), (116, 72), (296, 110)),
    ),
    # The person is asked part by part.
    "consent": Drawing(
        190,
        (
            (10, 10, 300, 48, "box"),
            (18, 18, 130, 12, "line"),
            (18, 38, 60, 14, "button"),
            (86, 38, 60, 14, "outline"),
            (10, 66, 300, 48, "box"),
            (18, 74, 110, 12, "line"),
            (18, 94, 60, 14, "outline"),
            (86, 94, 60, 14, "dark"),
            (10, 122, 300, 30, "dashed"),
            (18, 131, 160, 12, "line"),
            (10, 162, 90, 20, "button"),
        ),
        ((240, 24), (160, 101), (240, 137), (116, 172)),
    ),
    # How far it has come: sent, delivered, seen, accepted, arrived.
    "journey": Drawing(
        60,
        ((30, 28, 260, 4, "dark"),),
        ((30, 30), (95, 30), (160, 30), (225, 30), (290, 30)),
    ),
    # The list of what has come in, and the acts on one of them.
    "inbox": Drawing(
        170,
        (
            (10, 8, 300, 44, "box"),
            (18, 15, 50, 12, "urgent"),
            (76, 15, 120, 12, "line"),
            (18, 34, 170, 10, "line"),
            (10, 58, 300, 44, "box"),
            (18, 65, 150, 12, "line"),
            (18, 84, 120, 10, "line"),
            (10, 116, 96, 20, "button"),
            (112, 116, 96, 20, "outline"),
            (214, 116, 96, 20, "outline"),
            (10, 146, 300, 16, "dashed"),
        ),
        ((212, 21), (204, 39), (58, 126), (160, 126), (262, 126)),
    ),
    # Stop sharing: three questions, and who has erased what.
    "stop": Drawing(
        130,
        (
            (10, 10, 14, 14, "outline"),
            (32, 10, 180, 14, "line"),
            (10, 32, 14, 14, "outline"),
            (32, 32, 200, 14, "line"),
            (10, 54, 14, 14, "outline"),
            (32, 54, 150, 14, "line"),
            (10, 82, 300, 36, "box"),
            (18, 93, 120, 14, "line"),
            (230, 93, 60, 14, "button"),
        ),
        ((236, 17), (256, 39), (206, 61), (214, 100)),
    ),
}


async def show(visit: Visit) -> web.StreamResponse:
    mirrored = visit.language.direction == "rtl"
    return visit.page(
        "help.html",
        visit.say("Help"),
        draw=lambda name, label: DRAWINGS[name].svg(label, mirrored=mirrored),
    )


PAGES: Final = [Page("/help", show)]
