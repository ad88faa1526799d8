# SPDX-License-Identifier: Apache-2.0
"""“Do you reach us?”: a question of one agency to one other, and an answer to that question alone."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocol import callback, identity
from protocol.callback import Answer, Call, Seen
from protocol.encoding import CLOCK_AHEAD_SECONDS
from protocol.errors import RemoteError
from tests.make_vectors import HARBOUR, LANTERN, NOW, OTHER, Making

PEER = identity.verify_bundle(Making().build(), NOW)
CALL = Call(agency=LANTERN.agency, peer=HARBOUR.agency, id="1" * 32, at=NOW, version="1.2.3")
RAW = callback.ask(LANTERN.node, CALL)


def test_a_call_is_of_one_agency_for_one_other_and_of_today() -> None:
    assert callback.claimed_sender(RAW) == LANTERN.agency
    for now in (NOW, NOW + CLOCK_AHEAD_SECONDS, NOW - CLOCK_AHEAD_SECONDS):
        assert callback.check_call(RAW, PEER, us=HARBOUR.agency, now=now) == CALL
    for us, now in (
        (OTHER.agency, NOW),
        (HARBOUR.agency, NOW + CLOCK_AHEAD_SECONDS + 1),
        (HARBOUR.agency, NOW - CLOCK_AHEAD_SECONDS - 1),
    ):
        with pytest.raises(RemoteError):
            callback.check_call(RAW, PEER, us=us, now=now)
    with pytest.raises(RemoteError) as refusal:
        callback.check_call(callback.ask(OTHER.node, CALL), PEER, us=HARBOUR.agency, now=NOW)
    assert refusal.value.code == "bad-signature"


def test_an_answer_is_to_one_call_and_neither_passes_for_the_other() -> None:
    asked = Call(agency=HARBOUR.agency, peer=LANTERN.agency, id="2" * 32, at=NOW, version="1.2.3")
    found = Answer(agency=LANTERN.agency, peer=HARBOUR.agency, id="2" * 32, at=NOW, seen=Seen.NOT_REACHED, newer=False)
    raw = callback.answer(LANTERN.node, found)
    assert callback.check_answer(raw, PEER, asked) == found
    for other in (
        Call(agency=HARBOUR.agency, peer=LANTERN.agency, id="3" * 32, at=NOW, version="1.2.3"),
        Call(agency=OTHER.agency, peer=LANTERN.agency, id="2" * 32, at=NOW, version="1.2.3"),
    ):
        with pytest.raises(RemoteError):
            callback.check_answer(raw, PEER, other)
    for wrong in (RAW, callback.answer(OTHER.node, found)):
        with pytest.raises(RemoteError):
            callback.check_answer(wrong, PEER, asked)


@pytest.mark.parametrize("version", ["", "1", "1.2.x", "1.2.3\n", "1.2.3.4.5", "9" * 40])
def test_a_version_is_numbers(version: str) -> None:
    raw = callback.ask(LANTERN.node, Call(agency="a" * 64, peer="b" * 64, id="1" * 32, at=NOW, version=version))
    with pytest.raises(RemoteError):
        callback.claimed_sender(raw)


@pytest.mark.parametrize(
    ("ours", "theirs", "newer"), [("1.10.0", "1.9.9", True), ("1.9.9", "1.10.0", False), ("1.2", "1.2", False)]
)
def test_versions_are_compared_number_by_number(ours: str, theirs: str, newer: bool) -> None:
    assert callback.is_newer(ours, theirs) is newer


@given(st.binary(max_size=500))
def test_noise_is_neither(noise: bytes) -> None:
    for parse in (
        lambda: callback.claimed_sender(noise),
        lambda: callback.check_call(noise, PEER, us=HARBOUR.agency, now=NOW),
        lambda: callback.check_answer(noise, PEER, CALL),
    ):
        with pytest.raises(RemoteError):
            parse()
