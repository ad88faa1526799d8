# SPDX-License-Identifier: Apache-2.0
"""The staff API: a node that retires. Two people decide; its files are for the node's own user on its machine."""

from __future__ import annotations

from typing import Any, Final

from node.casework import retiring
from node.web.api import Call, Route
from node.web.case_api import Body


class Retirement(Body, frozen=True, kw_only=True):
    hand_over: bool = False


async def look(call: Call) -> Any:
    return await call.read(retiring.look, call.services.here, call.actor, call.now)


async def ask(call: Call) -> Any:
    await call.do(retiring.ask, hand_over=call.body.hand_over)
    return {"asked": True}


async def agree(call: Call) -> Any:
    await call.do(retiring.agree, hand_over=call.body.hand_over)
    return {"retiring": True}


async def take_back(call: Call) -> Any:
    await call.do(retiring.take_back)
    return {"asked": False}


async def files(call: Call) -> Any:
    return {"files": await call.read(retiring.files, call.services.here, call.actor, call.now)}


ROUTES: Final = [
    Route("GET", "/retirement", look, "What is open before this node could retire, and what was asked"),
    Route("POST", "/retirement", ask, "Ask a second person to let this node retire", Retirement),
    Route("POST", "/retirement/agree", agree, "A second person agrees: the node retires, for good", Retirement),
    Route("POST", "/retirement/take-back", take_back, "The node does not retire"),
    Route("GET", "/local/retirement", files, "The signed files of a retired node", is_open=True, local_only=True),
]
