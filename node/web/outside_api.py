# SPDX-License-Identifier: Apache-2.0
"""The staff API: agencies without a node, and what they told us."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any, Final

import msgspec

from node.casework import outside
from node.office.desks import Profile
from node.web.api import Call, Route
from node.web.case_api import Body, aware
from protocol.codes import AgencyType, BusinessStatus, StatusReason
from protocol.referral import Action

_Text = Annotated[str, msgspec.Meta(max_length=8_000)]


class NewOutside(Body, frozen=True, kw_only=True):
    name: _Text
    type: AgencyType
    desk: _Text
    profile: Profile


class OutsideDesk(Body, frozen=True, kw_only=True):
    name: _Text
    profile: Profile


class Told(Body, frozen=True, kw_only=True):
    """`told_by`: who told us, and how."""

    action: Action
    told_by: _Text
    version: int | None = None
    reason: StatusReason | None = None
    text: _Text = ""
    business_status: BusinessStatus | None = None
    resume_by: datetime | None = None
    arrive_by: datetime | None = None


class ToldThem(Body, frozen=True, kw_only=True):
    told_by: _Text


class ErasureTold(Body, frozen=True, kw_only=True):
    told_by: _Text
    erased: bool
    text: _Text = ""


async def list_desks(call: Call) -> Any:
    return {"desks": await call.read(outside.list_desks)}


async def add(call: Call) -> Any:
    body = call.body
    agency = await call.do(outside.add, name=body.name, agency_type=body.type, desk=body.desk, profile=body.profile)
    return {"agency": agency}


async def add_desk(call: Call) -> Any:
    body = call.body
    desk = await call.do(outside.add_desk, agency=call.params["agency"], name=body.name, profile=body.profile)
    return {"desk": desk}


async def change_desk(call: Call) -> Any:
    await call.do(outside.change_desk, desk_id=call.params["desk"], name=call.body.name, profile=call.body.profile)
    return {"changed": True}


async def remove_desk(call: Call) -> Any:
    await call.do(outside.remove_desk, desk_id=call.params["desk"])
    return {"changed": True}


async def enter(call: Call) -> Any:
    body = call.body
    state = await call.do(
        outside.enter,
        referral_id=call.params["referral"],
        action=body.action,
        told_by=body.told_by,
        version=body.version,
        reason=body.reason,
        text=body.text,
        business_status=body.business_status,
        resume_by=aware(body.resume_by),
        arrive_by=aware(body.arrive_by),
    )
    return {"status": state.status, "cancellation_requested": state.cancellation_requested}


async def told_them(call: Call) -> Any:
    await call.do(outside.told_them, referral_id=call.params["referral"], told_by=call.body.told_by)
    return {"told": True}


async def answer_withdrawal(call: Call) -> Any:
    body = call.body
    await call.do(
        outside.answer_withdrawal,
        withdrawal_id=call.params["withdrawal"],
        told_by=body.told_by,
        erased=body.erased,
        text=body.text,
    )
    return {"recorded": True}


ROUTES: Final = [
    Route("GET", "/outside/desks", list_desks, "Desks of agencies without a node"),
    Route("POST", "/outside", add, "Add an agency without a node", NewOutside),
    Route("POST", "/outside/{agency}/desks", add_desk, "Add a desk to one", OutsideDesk),
    Route("POST", "/outside/desks/{desk}", change_desk, "Change such a desk", OutsideDesk),
    Route("POST", "/outside/desks/{desk}/remove", remove_desk, "Take such a desk from the list"),
    Route("POST", "/referrals/{referral}/told", enter, "Enter what an agency without a node told us", Told),
    Route("POST", "/referrals/{referral}/told-them", told_them, "An agency without a node was told", ToldThem),
    Route("POST", "/withdrawals/{withdrawal}/told", answer_withdrawal, "What such an agency did with it", ErasureTold),
]
