# SPDX-License-Identifier: Apache-2.0
"""The published vectors: our reader refuses each for the reason it is named by, a second reader agrees."""

from __future__ import annotations

import base64
import json
import re
from pathlib import Path
from typing import Any

import msgspec
import pytest

from protocol import callback, crypto, disclosure, envelope, identity, messages, record
from protocol.codes import Section
from protocol.crypto import KemKey, VerifyKey
from protocol.directory import Standing
from protocol.errors import RemoteError
from tests import alert_vectors, callback_vectors, make_vectors, second_reader

FOLDER = Path(__file__).parent.parent / "vectors"
NAMES = sorted(path.stem for path in FOLDER.glob("*.json"))
FIELDS = {
    "envelope": {"kind", "about", "now", "agency", "kem_seeds", "members", "desk_seed", "input", "accept", "refuse"},
    "record": {
        "kind",
        "about",
        "desk_seed",
        "sender",
        "recipient",
        "thread",
        "message",
        "content_hash",
        "commitments",
        "input",
        "accept",
        "refuse",
    },
    "alert": {"kind", "about", "now", "input", "accept", "refuse"},
    "callback": {"kind", "about", "now", "us", "bundle", "asked", "input", "accept", "refuse"},
    "bundle": {"kind", "about", "now", "previous", "input", "accept", "refuse"},
}


def load(name: str) -> dict[str, Any]:
    case: dict[str, Any] = json.loads((FOLDER / f"{name}.json").read_text())
    assert set(case) <= FIELDS[case["kind"]], "a field that no reader knows"
    assert ("accept" in case) == name.startswith("accept-")
    assert ("refuse" in case) == name.startswith("refuse-")
    return case


class Members:
    """What `open` asks of a directory, from a vector."""

    def __init__(self, members: list[dict[str, Any]]) -> None:
        self._members = {m["agency"]: m for m in members}

    def node_key(self, agency: str, key_hash: str, now: int) -> VerifyKey | None:
        known = self._members.get(agency)
        if known is None or known["standing"] == Standing.BLOCKED or now >= known["valid_until"]:
            return None
        key = VerifyKey(bytes.fromhex(known["node_key"]))
        return key if key.hash == key_hash else None


def read(case: dict[str, Any]) -> dict[str, Any]:
    raw = base64.b64decode(case["input"])
    if case["kind"] == "record":
        context = record.Context(
            case["sender"], case["recipient"], case["thread"], case["message"], case["content_hash"]
        )
        commitments = {Section(name): value for name, value in case["commitments"].items()}
        opened = record.open_sections(raw, KemKey(bytes.fromhex(case["desk_seed"])), context, commitments)
        return {"sections": {str(name): plain.decode() for name, plain in opened.items()}}
    if case["kind"] == "alert":
        content = messages.parse(raw)
        assert isinstance(content, messages.AlertRaise)
        disclosure.check_arrival(content, case["now"])
        return {"form": content.form, "basis": None if content.consent is None else content.consent.basis}
    if case["kind"] == "callback":
        peer = identity.verify_bundle(base64.b64decode(case["bundle"]), case["now"])
        if "asked" in case:
            found = callback.check_answer(raw, peer, msgspec.convert(case["asked"], callback.Call))
            return {"seen": str(found.seen), "newer": found.newer}
        asked = callback.check_call(raw, peer, us=case["us"], now=case["now"])
        return {"id": asked.id, "version": asked.version}
    if case["kind"] == "bundle":
        before = None
        if "previous" in case:
            before = identity.verify_bundle(base64.b64decode(case["previous"]), case["now"])
        peer = identity.verify_bundle(raw, case["now"], before)
        told: dict[str, Any] = {
            "agency": peer.agency,
            "desks": [desk.id for desk in peer.desks],
            "order": list(peer.order),
        }
        return told if peer.versions == (1,) else told | {"versions": list(peer.versions)}
    keys = [KemKey(bytes.fromhex(seed)) for seed in case["kem_seeds"]]
    opened_one = envelope.open(
        raw,
        agency=case["agency"],
        keys={bytes.fromhex(key.public.hash[:16]): key for key in keys},
        directory=Members(case["members"]),  # type: ignore[arg-type]  # the one question that is asked
        now=case["now"],
    )
    said: dict[str, Any] = {"content": opened_one.content_raw.decode(), "content_hash": opened_one.content_hash}
    if "desk_seed" in case:
        content: Any = opened_one.content
        about = record.Context(content.sender, content.recipient, content.thread, content.id, opened_one.content_hash)
        desk = KemKey(bytes.fromhex(case["desk_seed"]))
        sections = record.open_sections(opened_one.body, desk, about, content.sections)
        said["sections"] = {str(name): plain.decode() for name, plain in sections.items()}
    return said


@pytest.mark.parametrize("name", NAMES)
def test_our_reader_does_with_each_vector_what_its_name_says(name: str) -> None:
    case = load(name)
    if "accept" in case:
        assert read(case) == case["accept"]
        return
    with pytest.raises(RemoteError) as refusal:
        read(case)
    assert {"code": refusal.value.code, "public": refusal.value.public} == case["refuse"]


@pytest.mark.parametrize("name", NAMES)
def test_a_reader_written_from_the_specification_alone_agrees(name: str) -> None:
    case = load(name)
    if "accept" in case:
        assert second_reader.read(case) == case["accept"]
        return
    with pytest.raises(second_reader.Refused):
        second_reader.read(case)


def test_the_second_reader_uses_nothing_of_ours() -> None:
    text = Path(second_reader.__file__).read_text()
    imported = set(re.findall(r"^(?:from|import) ([a-z_]+)", text, re.MULTILINE))
    assert not imported & {"protocol", "node", "tests", "msgspec"}


def test_every_vector_can_be_made_again_and_none_is_missing() -> None:
    made = {**make_vectors.envelopes(), **make_vectors.records(), **make_vectors.bundles()}
    made |= {**alert_vectors.alerts(), **callback_vectors.callbacks()}
    assert sorted(made) == NAMES


def test_every_step_of_open_has_a_vector_that_stops_there() -> None:
    about = [load(name)["about"] for name in NAMES if name.startswith("refuse-") and load(name)["kind"] == "envelope"]
    steps = {int(number) for text in about for number in re.findall(r"Step (\d+)", text)}
    assert steps == set(range(1, 16))


def test_to_the_outside_every_failure_after_decryption_looks_the_same() -> None:
    """But for time, which the sender can put right only if it is told."""
    for name in NAMES:
        case = load(name)
        if case["kind"] == "envelope" and "refuse" in case and case["refuse"]["code"] not in ("expired", "clock"):
            step = int(re.findall(r"Step (\d+)", case["about"])[0])
            assert (case["refuse"]["public"] == "refused") == (step >= 6), name


def test_vectors_are_made_with_keys_that_nobody_uses() -> None:
    assert make_vectors.LANTERN.agency != make_vectors.HARBOUR.agency
    assert crypto.sha256_hex(make_vectors.seed("x")) != crypto.sha256_hex(make_vectors.seed("y"))


def test_every_step_of_accepting_a_bundle_has_a_vector_that_stops_there() -> None:
    about = [load(name)["about"] for name in NAMES if name.startswith("refuse-bundle-")]
    assert {int(number) for text in about for number in re.findall(r"Step (\d+)", text)} == set(range(1, 9))
