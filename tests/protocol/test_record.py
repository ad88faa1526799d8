# SPDX-License-Identifier: Apache-2.0
"""Sealed sections: who may read what, what is gone after an erasure, and that nothing else opens them."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from protocol import crypto, record
from protocol.codes import Section
from protocol.crypto import KemKey
from protocol.encoding import SECTION_MAX_BYTES
from protocol.errors import LocalError, RemoteError

DESKS = [KemKey(crypto.sha256(bytes([number]))) for number in range(3)]
CONTEXT = record.Context("a" * 64, "b" * 64, "c" * 32, "d" * 32, "e" * 64)
sections = st.dictionaries(st.sampled_from(Section), st.binary(max_size=200), min_size=1)


@given(sections, st.data())
@settings(max_examples=60)
def test_each_desk_reads_exactly_the_sections_it_may(plain: dict[Section, bytes], data: st.DataObject) -> None:
    salted, commitments = record.salt(plain)
    allowed = {desk.public: data.draw(st.sets(st.sampled_from(sorted(plain)))) for desk in DESKS}
    raw = record.seal(salted, allowed, CONTEXT)
    assert record.parse(raw).pack() == raw
    for desk in DESKS:
        opened = record.open_sections(raw, desk, CONTEXT, commitments)
        assert opened == {name: plain[name] for name in allowed[desk.public]}


@given(sections, st.data())
@settings(max_examples=60)
def test_what_was_erased_is_gone_for_every_desk_and_the_rest_stays(
    plain: dict[Section, bytes], data: st.DataObject
) -> None:
    salted, commitments = record.salt(plain)
    raw = record.seal(salted, {desk.public: list(plain) for desk in DESKS}, CONTEXT)
    gone = data.draw(st.sets(st.sampled_from(sorted(plain))))
    after = record.erase(raw, gone)
    for name in gone:
        assert record.parse(raw).sections[name] not in after
    left = {name: text for name, text in plain.items() if name not in gone}
    for desk in DESKS:
        assert record.open_sections(after, desk, CONTEXT, commitments) == left


@given(sections, st.data())
@settings(max_examples=60)
def test_what_is_taken_out_opens_nothing_and_makes_the_record_whole_again(
    plain: dict[Section, bytes], data: st.DataObject
) -> None:
    salted, commitments = record.salt(plain)
    raw = record.seal(salted, {desk.public: list(plain) for desk in DESKS}, CONTEXT)
    name = data.draw(st.sampled_from(sorted(plain)))
    left, rest = record.take_out(raw, name)
    assert record.put_back(left, name, rest) == raw
    assert record.parse(left).pack() == left and len(left) + len(rest) == len(raw)
    assert record.erase(left, [name]) == record.erase(raw, [name]), "erased alike, whatever lies elsewhere"
    if rest:
        with pytest.raises(RemoteError) as refused:
            record.open_sections(left, DESKS[0], CONTEXT, commitments)
        assert refused.value.code == "cannot-open"


def test_no_section_is_sealed_twice_under_one_key_and_no_salt_comes_twice() -> None:
    plain = {Section.SERVICE: b"{}"}
    first, second = record.salt(plain), record.salt(plain)
    assert first[1] != second[1]
    one, other = (record.seal(first[0], {DESKS[0].public: [Section.SERVICE]}, CONTEXT) for _ in range(2))
    assert record.parse(one).sections != record.parse(other).sections


@given(st.data())
@settings(max_examples=150)
def test_no_bit_of_what_a_desk_reads_can_be_changed(data: st.DataObject) -> None:
    plain = {Section.SERVICE: b'{"text":"a"}', Section.CONTACT: b'{"telephone":"+39 055 0000 000"}'}
    salted, commitments = record.salt(plain)
    raw = bytearray(record.seal(salted, {DESKS[0].public: list(plain)}, CONTEXT))
    bit = data.draw(st.integers(0, len(raw) * 8 - 1))
    raw[bit // 8] ^= 1 << bit % 8
    with pytest.raises(RemoteError):
        record.open_sections(bytes(raw), DESKS[0], CONTEXT, commitments)


@given(st.binary(max_size=3000))
def test_noise_is_no_record(noise: bytes) -> None:
    try:
        parsed = record.parse(noise)
    except RemoteError as refusal:
        assert refusal.code == "malformed-record"
    else:
        assert parsed.pack() == noise


def test_limits() -> None:
    with pytest.raises(LocalError) as refusal:
        record.salt({Section.NARRATIVE: bytes(SECTION_MAX_BYTES + 1)})
    assert refusal.value.code == "section-too-large"
    salted, _ = record.salt({Section.SERVICE: b"{}"})
    many = {KemKey(crypto.sha256(bytes([9, n]))).public: [Section.SERVICE] for n in range(record.KEYRINGS_MAX + 1)}
    for readers in ({}, many):
        with pytest.raises(LocalError) as refusal:
            record.seal(salted, readers, CONTEXT)
        assert refusal.value.code == "readers"


@pytest.mark.parametrize("field", ["sender", "recipient", "thread", "message", "content_hash"])
def test_a_keyring_opens_only_where_it_was_sealed_for(field: str) -> None:
    salted, commitments = record.salt({Section.SERVICE: b"{}"})
    raw = record.seal(salted, {DESKS[0].public: [Section.SERVICE]}, CONTEXT)
    values = {name: getattr(CONTEXT, name) for name in ("sender", "recipient", "thread", "message", "content_hash")}
    elsewhere = record.Context(**(values | {field: "f" * len(values[field])}))
    with pytest.raises(RemoteError) as refusal:
        record.open_sections(raw, DESKS[0], elsewhere, commitments)
    assert refusal.value.code == "cannot-open"
