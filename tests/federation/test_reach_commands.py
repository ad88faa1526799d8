# SPDX-License-Identifier: Apache-2.0
"""A person's ways of being told, the rota and her time zone, by commands, as the pages have them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner

from node.cli import cli
from node.errors import NodeError
from tests.federation.nodes import RealNode


@pytest.fixture(scope="module")
def node(pair: tuple[RealNode, RealNode]) -> RealNode:
    """The session that `staffetta login` would have kept."""
    pair[0].client.keep_session()
    return pair[0]


def said(node: RealNode, *words: str) -> str:
    done = CliRunner().invoke(cli, ["--data", str(node.folder), *words])
    assert done.exit_code == 0, done.exception
    return done.output


def refused(node: RealNode, *words: str) -> str:
    """The sentence; a wrong use has its own."""
    done = CliRunner().invoke(cli, ["--data", str(node.folder), *words])
    if isinstance(done.exception, NodeError):
        return done.exception.text
    assert done.exit_code == 2, done.exception
    return done.output


def test_the_rota_of_a_desk(node: RealNode) -> None:
    who = next(person["handle"] for person in node.client.get("/api/v1/staff")["staff"])
    assert "There is no rota" in said(node, "duty", "list", "Desk")
    said(node, "duty", "add", "Desk", who, "--day", "mon", "--day", "holidays", "--from", "20:00", "--until", "08:00")
    listed = said(node, "duty", "list", "Desk")
    assert "mon" in listed and "holidays" in listed and "20:00" in listed and "08:00 next day" in listed
    turns = json.loads(said(node, "--json", "duty", "list", "Desk"))["turns"]
    assert [(turn["day"], turn["begins"], turn["ends"], turn["place"]) for turn in turns] == [
        (0, 1200, 1920, 1),
        (7, 1200, 1920, 1),
    ]
    overlap = ("--day", "mon", "--from", "21:00", "--until", "22:00")
    assert "on duty in part of these hours already" in refused(node, "duty", "add", "Desk", who, *overlap)
    said(node, "duty", "add", "Desk", who, *overlap, "--second")
    assert "There is no person of that name." in refused(node, "duty", "add", "Desk", "nobody", *overlap)
    assert "22:00" in refused(node, "duty", "add", "Desk", who, "--day", "mon", "--from", "late", "--until", "x")
    assert "There is nothing of that number." in refused(node, "duty", "remove", "Desk", "9")
    for _ in range(3):
        said(node, "duty", "remove", "Desk", "1")
    assert node.client.get(f"/api/v1/desks/{node.desk}/duty")["turns"] == []
    assert "no single desk of that name" in refused(node, "duty", "list", "Nowhere")


def test_ones_own_ways_and_hours(node: RealNode, tmp_path: Path) -> None:
    assert "nothing is sent" in said(node, "reach", "list")
    assert "No mail server is set." in refused(node, "reach", "add", "ada@example.invalid")
    assert "a secret" in refused(node, "reach", "add", "ntfys://ntfy.example.org/topic"), "others see command lines"
    secret = tmp_path / "address"
    secret.write_text("ntfys://ntfy.example.org/topic\n")
    secret.chmod(0o600)
    assert "not switched on here" in refused(node, "reach", "add", "--address-file", str(secret))
    said(node, "reach", "hours", "--from", "22:00", "--until", "07:00", "--quiet-day", "sun", "--digest", "09:00")
    listed = said(node, "reach", "list")
    assert "Quiet from 22:00 to 07:00" in listed and "sun" in listed and "at 09:00" in listed
    said(node, "reach", "hours", "--desk", "Desk", "--from", "23:00", "--until", "06:00")
    assert "Quiet from 23:00 to 06:00" in said(node, "reach", "list", "--desk", "Desk")
    said(node, "reach", "hours")
    assert "Quiet" not in said(node, "reach", "list")
    assert "neither" in refused(node, "reach", "hours", "--from", "22:00")
    assert "There is nothing of that number." in refused(node, "reach", "test", "1")


def test_ones_time_zone(node: RealNode) -> None:
    assert said(node, "zone").strip() == "Europe/Rome"
    assert said(node, "zone", "Asia/Kathmandu").strip() == "Asia/Kathmandu"
    assert "There is no such time zone." in refused(node, "zone", "Nowhere/Invented")
    assert said(node, "zone", "--agency").strip() == "Europe/Rome"
