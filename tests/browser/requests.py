# SPDX-License-Identifier: Apache-2.0
"""Pages without a browser: exactly the request that a test wants to make, with a person's cookie and form token."""

from __future__ import annotations

import http.client
import re
from dataclasses import dataclass
from urllib.parse import urlencode, urlsplit

from tests.browser.conftest import Staffed


@dataclass(frozen=True)
class Answer:
    status: int
    headers: dict[str, str]
    text: str

    @property
    def title(self) -> str:
        found = re.search(r"<title>(.*?) · Staffetta</title>", self.text)
        return "" if found is None else found[1]


def ask(
    staffed: Staffed,
    method: str,
    path: str,
    handle: str = "",
    form: dict[str, str] | bytes | None = None,
    **headers: str,
) -> Answer:
    """One request as a browser sends it; a form gets the person's token unless it has one."""
    parts = urlsplit(staffed.node.address)
    sent = {"Accept": "text/html", "Sec-Fetch-Site": "same-origin"}
    if handle:
        sent["Cookie"] = f"staffetta={staffed.cookies[handle]}"
    body: bytes | None = None
    if method == "POST":
        if isinstance(form, bytes):
            body = form
        else:
            fields = dict(form or {})
            if handle and "token" not in fields:
                fields["token"] = token(staffed, handle)
            body = urlencode(fields).encode()
        sent["Content-Type"] = "application/x-www-form-urlencoded"
    sent |= {name.replace("_", "-"): value for name, value in headers.items()}
    connection = http.client.HTTPConnection(parts.hostname or "", parts.port, timeout=30)
    try:
        connection.request(method, path, body, sent)
        response = connection.getresponse()
        text = response.read().decode(errors="replace")  # a PDF is no text
        return Answer(response.status, {k.lower(): v for k, v in response.getheaders()}, text)
    finally:
        connection.close()


_tokens: dict[str, str] = {}


def token(staffed: Staffed, handle: str) -> str:
    """The token that the forms of this person's session carry."""
    cookie = staffed.cookies[handle]
    if cookie not in _tokens:
        found = re.search(r'name="token" value="([0-9a-f]{64})"', ask(staffed, "GET", "/me", handle).text)
        assert found is not None
        _tokens[cookie] = found[1]
    return _tokens[cookie]
