# SPDX-License-Identifier: Apache-2.0
"""The command line's way to a running node: its API, over the Unix socket in the data folder or over HTTP.

A command is a person: it signs in like one and may do what she may. The session is kept in a file with mode 0600.
"""

from __future__ import annotations

import http.client
import json
import socket
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from node.errors import ConfigError, NodeError
from node.storage import files

SOCKET_NAME = "node.sock"
SESSION_NAME = "session.json"
COOKIE = "staffetta"
#: What a node behind TLS calls it; it takes either name back.
SECURE_COOKIE = "__Host-staffetta"
#: Longer than any request of a person needs; a command must not hang for ever on a node that does.
TIMEOUT_SECONDS = 60
#: Answers are lists with limits; anything near this is not from a node.
ANSWER_MAX_BYTES = 16 * 1024 * 1024


class ApiError(NodeError):
    """The node refused. `code` and `text` are of its problem document; `problems` lists each field that is wrong."""

    def __init__(self, status: int, code: str, text: str, problems: list[dict[str, str]]) -> None:
        super().__init__(code, text)
        self.status = status
        self.problems = problems


class _UnixConnection(http.client.HTTPConnection):
    def __init__(self, path: Path) -> None:
        super().__init__("localhost", timeout=TIMEOUT_SECONDS)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(str(self._path))


class Client:
    """Requests to one node. `cookie` is the session, if there is one."""

    def __init__(self, data_dir: Path, address: str | None = None, cookie: str | None = None) -> None:
        self.data_dir = data_dir
        self.address = address
        self.cookie = cookie

    @classmethod
    def with_session(cls, data_dir: Path) -> Client:
        """A client with the session that `staffetta login` has kept, if any."""
        path = data_dir / SESSION_NAME
        cookie = files.read_secret(path, "the session").decode().strip() if path.exists() else None
        return cls(data_dir, cookie=cookie)

    def keep_session(self) -> None:
        """Write the session to its file, or remove the file if there is none."""
        path = self.data_dir / SESSION_NAME
        if self.cookie is None:
            path.unlink(missing_ok=True)
        else:
            files.replace_secret(path, self.cookie.encode())

    def get(self, path: str) -> Any:
        """GET, and return the parsed answer. Raises ApiError or ConfigError."""
        return self.request("GET", path)

    def post(self, path: str, body: object | None = None) -> Any:
        """POST `body` as JSON, and return the parsed answer. Raises ApiError or ConfigError."""
        return self.request("POST", path, {} if body is None else body)

    def request(self, method: str, path: str, body: object | None = None) -> Any:
        """One request. A new session cookie in the answer is remembered."""
        headers = {"Accept": "application/json", "X-Staffetta": "1"}
        if self.cookie is not None:
            headers["Cookie"] = f"{COOKIE}={self.cookie}"
        raw = None
        if body is not None:
            # A form read from TOML holds dates; they travel as ISO text.
            raw = json.dumps(body, default=lambda moment: moment.isoformat()).encode()
            headers["Content-Type"] = "application/json"
        connection = self._connection()
        try:
            connection.request(method, path, raw, headers)
            response = connection.getresponse()
            answer = response.read(ANSWER_MAX_BYTES)
            self._remember(response.headers.get_all("Set-Cookie") or [])
        except (FileNotFoundError, ConnectionRefusedError) as error:
            raise ConfigError(
                "node-not-running", f"No node answers for {self.data_dir}. Start it with: staffetta serve"
            ) from error
        except (OSError, http.client.HTTPException) as error:
            raise ConfigError("node-no-answer", "The node did not answer in time. Try again in a moment.") from error
        finally:
            connection.close()
        return _parsed(response.status, answer)

    def _connection(self) -> http.client.HTTPConnection:
        if self.address is None:
            return _UnixConnection(self.data_dir / SOCKET_NAME)
        parts = urlsplit(self.address)
        return http.client.HTTPConnection(parts.hostname or "localhost", parts.port, timeout=TIMEOUT_SECONDS)

    def _remember(self, cookies: list[str]) -> None:
        for cookie in cookies:
            name, _, rest = cookie.partition("=")
            if name in (COOKIE, SECURE_COOKIE):
                self.cookie = rest.partition(";")[0].strip('"') or None


def _parsed(status: int, answer: bytes) -> Any:
    try:
        value = json.loads(answer) if answer else None
    except ValueError as error:
        raise ConfigError("node-bad-answer", "What answered is not a Staffetta node. Check the folder.") from error
    if status < 400:
        return value
    problem = value if isinstance(value, dict) else {}
    code = str(problem.get("type", "urn:staffetta:problem:unknown")).rpartition(":")[2]
    raise ApiError(status, code, str(problem.get("detail", "The node refused.")), problem.get("problems", []))
