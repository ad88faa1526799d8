# SPDX-License-Identifier: Apache-2.0
"""The shipped front configurations, started: two nodes talk through TLS, staff pages only from inside."""

from __future__ import annotations

import http.client
import re
import socket
import ssl
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import trustme

from tests.deploy.tools import DEPLOY, find, run
from tests.federation.nodes import RealNode, form

NODE = "127.0.0.1:8470"


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def nginx(folder: Path, port: int, node: int, certificate: Path, key: Path) -> list[str]:
    """The shipped file with this machine's ports and paths; everything else as it is."""
    text = (DEPLOY / "nginx.conf").read_text()
    for old, new in (
        ("listen 443 ssl", f"listen 127.0.0.1:{port} ssl"),
        ("server_name referrals.example.org", "server_name localhost"),
        ("/etc/ssl/staffetta/certificate.pem", str(certificate)),
        ("/etc/ssl/staffetta/certificate.key", str(key)),
        (NODE, f"127.0.0.1:{node}"),
    ):
        assert old in text
        text = text.replace(old, new)
    kinds = ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    paths = "".join(f"    {kind}_temp_path {folder}/{kind};\n" for kind in kinds)
    file = folder / "nginx.conf"
    file.write_text(f"daemon off;\npid {folder}/nginx.pid;\n" + text.replace("http {\n", "http {\n" + paths))
    command = [find("nginx"), "-e", "stderr", "-p", str(folder), "-c", str(file)]
    checked = run(*command, "-t")
    assert checked.returncode == 0, checked.stderr
    return command


def caddy(folder: Path, port: int, node: int, certificate: Path, key: Path) -> list[str]:
    """The shipped file, its two settings from the environment, with our certificate instead of one fetched outside."""
    text = (DEPLOY / "Caddyfile").read_text()
    text = text.replace("{$STAFFETTA_HOST:referrals.example.org}", f"https://localhost:{port}")
    text = text.replace(f"{{$STAFFETTA_NODE:{NODE}}}", f"127.0.0.1:{node}")
    text = re.sub(r"(https://localhost:\d+ \{\n)", rf"\1\tbind 127.0.0.1\n\ttls {certificate} {key}\n", text)
    file = folder / "Caddyfile"
    file.write_text("{\n\tadmin off\n\tauto_https off\n}\n" + text)
    checked = run(find("caddy"), "validate", "--config", str(file), "--adapter", "caddyfile", HOME=str(folder))
    assert checked.returncode == 0, checked.stderr
    as_shipped = run(
        find("caddy"), "adapt", "--config", str(DEPLOY / "Caddyfile"), "--adapter", "caddyfile", HOME=str(folder)
    )
    assert as_shipped.returncode == 0 and "referrals.example.org" in as_shipped.stdout, as_shipped.stderr
    return [find("caddy"), "run", "--config", str(file), "--adapter", "caddyfile"]


FRONTS = {"nginx": nginx, "caddy": caddy}


@contextmanager
def front(name: str, folder: Path, port: int, node: int, certificate: Path, key: Path) -> Iterator[None]:
    folder.mkdir()
    command = FRONTS[name](folder, port, node, certificate, key)
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log, env={"HOME": str(folder), "PATH": "/usr/bin:/bin"})
    try:
        until = time.monotonic() + 20
        while True:
            try:
                socket.create_connection(("127.0.0.1", port), timeout=1).close()
                break
            except OSError:
                assert time.monotonic() < until and process.poll() is None, (folder / "log").read_text()
                time.sleep(0.05)
        yield
    finally:
        process.terminate()
        process.wait(20)


def ask(port: int, authority: Path, path: str, **headers: str) -> tuple[int, bytes, dict[str, str]]:
    context = ssl.create_default_context(cafile=str(authority))
    connection = http.client.HTTPSConnection("localhost", port, timeout=20, context=context)
    try:
        connection.request("GET", path, headers=headers)
        answer = connection.getresponse()
        return answer.status, answer.read(), {k.lower(): v for k, v in answer.getheaders()}
    finally:
        connection.close()


@pytest.mark.parametrize("name", FRONTS)
def test_two_nodes_talk_through_tls(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tmp_path.chmod(0o700)
    authority = trustme.CA()
    trusted, certificate, key = tmp_path / "ca.pem", tmp_path / "c.pem", tmp_path / "c.key"
    authority.cert_pem.write_to_path(str(trusted))
    issued = authority.issue_cert("localhost")
    certificate.write_bytes(b"".join(blob.bytes() for blob in issued.cert_chain_pems))
    issued.private_key_pem.write_to_path(str(key))
    monkeypatch.setenv("SSL_CERT_FILE", str(trusted))
    one, other = RealNode(tmp_path, "lantern"), RealNode(tmp_path, "harbour")
    ports = [free_port(), free_port()]
    nodes = [one, other]
    try:
        for node, process, port in zip(nodes, [node.set_up() for node in nodes], ports, strict=True):
            node.finish_set_up(process)
            (node.folder / "demo-clock").unlink()
            file = node.folder / "staffetta.toml"
            text = re.sub(r'address = "[^"]*"', f'address = "https://localhost:{port}"', file.read_text())
            file.write_text(text.replace("# proxies = 1", "proxies = 1"))
            node.begin()
        for node in nodes:
            assert node.wait()
        with (
            front(name, tmp_path / "front-a", ports[0], one.port, certificate, key),
            front(name, tmp_path / "front-b", ports[1], other.port, certificate, key),
        ):
            for node in nodes:
                node.log_in()
                node.desk = node.client.post("/api/v1/desks", {"name": "Desk"})["id"]
            _meet(one, other)
            sent = one.client.post("/api/v1/refer", {"form": form(other)})["referral"]
            until = time.monotonic() + 40
            while sent not in [row["id"] for row in other.client.get("/api/v1/referrals")["referrals"]]:
                assert time.monotonic() < until, "it did not arrive"
                time.sleep(0.1)
            _look_from_outside(ports[0], trusted)
    finally:
        for node in nodes:
            node.end()
            node.log.close()


def _meet(one: RealNode, other: RealNode) -> None:
    made = one.client.post("/api/v1/peers/invites", {"type": "NGO"})["invite"]
    assert made.startswith("https://localhost:")
    other.client.post("/api/v1/peers/accept", {"invite": made})
    for here, there in ((one, other), (other, one)):
        heard = there.client.get("/api/v1/peers")["our_fingerprint"]
        here.client.post(f"/api/v1/peers/{there.agency}/verify", {"fingerprint": heard})
    until = time.monotonic() + 20
    while any(
        peer["standing"] != "verified" for node in (one, other) for peer in node.client.get("/api/v1/peers")["peers"]
    ):
        assert time.monotonic() < until, "both have compared"
        time.sleep(0.1)


def _look_from_outside(port: int, trusted: Path) -> None:
    status, body, _ = ask(port, trusted, "/.well-known/staffetta")
    assert status == 200 and body.startswith(b"{")
    status, _, headers = ask(port, trusted, "/signin")
    assert status == 200, "this machine is inside"
    assert "content-security-policy" in headers and headers["cache-control"] == "no-store"
    cookie: dict[str, Any] = ask(port, trusted, "/", Accept="text/html")[2]
    assert cookie["location"].startswith("/signin")
    with pytest.raises((ConnectionError, http.client.HTTPException, OSError)):
        plain = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
        plain.request("GET", "/signin")
        answer = plain.getresponse()
        raise ConnectionError if answer.status >= 400 else AssertionError("plain HTTP was answered")
