# SPDX-License-Identifier: Apache-2.0
"""Headers: one encoding for each value, nothing else parses, and no field in which a text would fit."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec import inspect as types

from protocol import messages
from protocol.codes import MessageType
from protocol.encoding import CONTENT_MAX_BYTES, encode
from protocol.errors import RemoteError
from protocol.messages import Peek
from tests.protocol.strategies import MESSAGES, any_message


@given(any_message())
@settings(max_examples=300)
def test_every_message_has_one_encoding(message: Any) -> None:
    raw = messages.pack(message)
    assert messages.parse(raw) == message
    assert messages.pack(messages.parse(raw)) == raw  # type: ignore[arg-type]
    assert raw == json.dumps(json.loads(raw), sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()


@given(any_message(), st.data())
@settings(max_examples=400)
def test_what_parses_serialises_to_the_same_bytes(message: Any, data: st.DataObject) -> None:
    """However it was damaged: either it is refused, or it is another valid message in its one encoding."""
    raw = bytearray(messages.pack(message))
    for _ in range(data.draw(st.integers(1, 3))):
        at = data.draw(st.integers(0, len(raw) - 1))
        match data.draw(st.sampled_from(["flip", "drop", "double"])):
            case "flip":
                raw[at] ^= 1 << data.draw(st.integers(0, 7))
            case "drop":
                del raw[at]
            case _:
                raw.insert(at, raw[at])
        if not raw:
            return
    try:
        parsed = messages.parse(bytes(raw))
    except RemoteError as refusal:
        assert refusal.code in ("malformed", "not-canonical")
    else:
        if not isinstance(parsed, Peek):
            assert messages.pack(parsed) == bytes(raw)


@given(st.binary(max_size=300))
def test_noise_is_refused_without_quoting_it(noise: bytes) -> None:
    with pytest.raises(RemoteError) as refusal:
        messages.parse(noise)
    assert refusal.value.code == "malformed"


def test_the_largest_receipt_fits() -> None:
    entry = messages.ReceiptEntry(
        message="f" * 32, content="f" * 64, envelope="f" * 32, status=messages.ReceiptStatus.UNSUPPORTED_TYPE, at=2**40
    )
    receipt = messages.Receipt(
        version=1,
        id="f" * 32,
        sender="f" * 64,
        recipient="f" * 64,
        created=2**40,
        expires=2**40,
        entries=(entry,) * 128,
    )
    assert len(encode(receipt)) <= CONTENT_MAX_BYTES


LEAVES = (types.EnumType, types.LiteralType, types.BoolType, types.NoneType, types.IntType)


def leaves(kind: Any, path: str) -> list[tuple[str, Any]]:
    match kind:
        case types.StructType():
            assert kind.forbid_unknown_fields, path
            return [leaf for f in kind.fields for leaf in leaves(f.type, f"{path}.{f.encode_name}")]
        case types.VarTupleType():
            assert kind.max_length is not None, f"{path} has no limit"
            return leaves(kind.item_type, path)
        case types.DictType():
            assert kind.max_length is not None, f"{path} has no limit"
            return [*leaves(kind.key_type, path), *leaves(kind.value_type, path)]
        case types.UnionType():
            return [leaf for one in kind.types for leaf in leaves(one, path)]
    return [(path, kind)]


@pytest.mark.parametrize("message", MESSAGES, ids=lambda m: m.__name__)
def test_a_header_admits_only_ids_hashes_codes_dates_and_integers(message: type[Any]) -> None:
    for path, kind in leaves(types.type_info(message), message.__name__):
        if isinstance(kind, types.StrType):
            assert kind.pattern is not None and kind.max_length in (32, 64), f"{path}: a text would fit"
            assert kind.min_length == kind.max_length, path
        else:
            assert isinstance(kind, LEAVES), f"{path}: {kind}"
        if isinstance(kind, types.IntType):
            assert kind.ge is not None and kind.le is not None, f"{path} has no bounds"


def test_every_type_of_version_1_is_named_and_those_of_later_stages_are_answered() -> None:
    """A message of a known name that this program does not carry out is told apart from nonsense."""
    later = {
        "bundle",
    }
    assert {str(kind) for kind in MessageType} - {str(kind) for kind in messages.SUPPORTED} == later
    known = json.loads(messages.pack(_hello()))
    for kind in later:
        parsed = messages.parse(encode(known | {"type": kind, "anything": ["at", "all"]}))
        assert isinstance(parsed, Peek) and parsed.type == kind
    with pytest.raises(RemoteError):
        messages.parse(encode(known | {"type": "case.query"}))


def _hello() -> messages.Hello:
    return messages.Hello(
        version=1,
        id="1" * 32,
        sender="2" * 64,
        recipient="3" * 64,
        created=1,
        expires=2,
        epoch="4" * 32,
        bundle_at=0,
    )


@given(
    message=any_message(),
    created=st.integers(0, 2**40),
    life=st.integers(-5, 200 * 86_400),
    now=st.integers(0, 2**40),
    age=st.none() | st.integers(-3 * 86_400, 200 * 86_400),
)
@settings(max_examples=300)
def test_times_outside_the_horizon_are_refused_but_for_what_protects_a_person(
    message: Any, created: int, life: int, now: int, age: int | None
) -> None:
    day = 86_400
    if age is not None:
        now = max(0, created + age)
    expires = max(0, created + life)
    message = msgspec.structs.replace(message, created=created, expires=expires)
    is_protective = str(messages.type_of(message)) in (
        "consent.withdraw",
        "consent.locked",
        "consent.erased",
        "referral.cancel",
        "referral.void",
        "referral.update",
        "referral.outcome",
        "followup.plan",
        "followup.report",
        "backstop.card",
        "alert.cancel",
    )
    is_old = created < now - 120 * day or expires + 7 * day < now
    acceptable = created <= now + day and created < expires and (is_protective or not is_old)
    try:
        messages.check_times(message, now)
    except RemoteError as refusal:
        assert not acceptable and refusal.code in ("expired", "clock")
    else:
        assert acceptable
