# SPDX-License-Identifier: Apache-2.0
"""Behind one proxy the limits are for each person's address; without one the header is not believed."""

from __future__ import annotations

import pytest
from aiohttp import web
from aiohttp.test_utils import TestClient, TestServer

from node.web.proxy import behind_one_proxy


async def asked(middlewares: list[object], headers: dict[str, str]) -> str:
    async def who(request: web.Request) -> web.Response:
        return web.Response(text=f"{request.remote} {request.scheme} {await request.text()}")

    application = web.Application(middlewares=middlewares)  # type: ignore[arg-type]
    application.router.add_post("/", who)
    async with TestClient(TestServer(application)) as client:
        answer = await client.post("/", data=b"body", headers=headers)
        return await answer.text()


@pytest.mark.parametrize(
    ("header", "seen"),
    [
        ("192.0.2.7", "192.0.2.7"),
        ("203.0.113.9, 192.0.2.7", "192.0.2.7"),
        ("2001:db8::1", "2001:db8::1"),
        ("forged, nothing", "127.0.0.1"),
        ("", "127.0.0.1"),
    ],
)
async def test_only_what_the_proxy_itself_wrote_is_believed(header: str, seen: str) -> None:
    assert (await asked([behind_one_proxy], {"X-Forwarded-For": header})).startswith(seen + " ")


async def test_without_a_proxy_nobody_chooses_her_address() -> None:
    assert (await asked([], {"X-Forwarded-For": "192.0.2.7"})).startswith("127.0.0.1 ")


async def test_the_scheme_and_the_body_come_through() -> None:
    headers = {"X-Forwarded-For": "192.0.2.7", "X-Forwarded-Proto": "https"}
    assert await asked([behind_one_proxy], headers) == "192.0.2.7 https body"
