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
#: A record by itself, and one that shares its secrets with others of its moment.
sharing = st.sampled_from([None, record.Shared()])
either = pytest.mark.parametrize("shared", [None, record.Shared()], ids=["alone", "shared"])


@given(sections, sharing, st.data())
@settings(max_examples=80)
def test_each_desk_reads_exactly_the_sections_it_may(
    plain: dict[Section, bytes], shared: record.Shared | None, data: st.DataObject
) -> None:
    salted, commitments = record.salt(plain)
    allowed = {desk.public: data.draw(st.sets(st.sampled_from(sorted(plain)))) for desk in DESKS}
    raw = record.seal(salted, allowed, CONTEXT, shared)
    assert record.parse(raw).pack() == raw
    for desk in DESKS:
        opened = record.open_sections(raw, desk, CONTEXT, commitments)
        assert opened == {name: plain[name] for name in allowed[desk.public]}


@given(sections, sharing, st.data())
@settings(max_examples=80)
def test_what_was_erased_is_gone_for_every_desk_and_the_rest_stays(
    plain: dict[Section, bytes], shared: record.Shared | None, data: st.DataObject
) -> None:
    salted, commitments = record.salt(plain)
    raw = record.seal(salted, {desk.public: list(plain) for desk in DESKS}, CONTEXT, shared)
    gone = data.draw(st.sets(st.sampled_from(sorted(plain))))
    after = record.erase(raw, gone)
    for name in gone:
        assert record.parse(raw).sections[name] not in after
    left = {name: text for name, text in plain.items() if name not in gone}
    for desk in DESKS:
        assert record.open_sections(after, desk, CONTEXT, commitments) == left


@given(sections, sharing, st.data())
@settings(max_examples=80)
def test_what_is_taken_out_opens_nothing_and_makes_the_record_whole_again(
    plain: dict[Section, bytes], shared: record.Shared | None, data: st.DataObject
) -> None:
    salted, commitments = record.salt(plain)
    raw = record.seal(salted, {desk.public: list(plain) for desk in DESKS}, CONTEXT, shared)
    name = data.draw(st.sampled_from(sorted(plain)))
    left, rest = record.take_out(raw, name)
    assert record.put_back(left, name, rest) == raw
    assert record.parse(left).pack() == left and len(left) + len(rest) == len(raw)
    assert record.erase(left, [name]) == record.erase(raw, [name]), "erased alike, whatever lies elsewhere"
    if rest:
        with pytest.raises(RemoteError) as refused:
            record.open_sections(left, DESKS[0], CONTEXT, commitments)
        assert refused.value.code == "cannot-open"


@either
def test_no_section_is_sealed_twice_under_one_key_and_no_salt_comes_twice(shared: record.Shared | None) -> None:
    plain = {Section.SERVICE: b"{}"}
    first, second = record.salt(plain), record.salt(plain)
    assert first[1] != second[1]
    one, other = (
        record.parse(record.seal(first[0], {DESKS[0].public: [Section.SERVICE]}, CONTEXT, shared)) for _ in range(2)
    )
    assert one.sections != other.sections
    rings = [each.keyrings[DESKS[0].public.hash].entries for each in (one, other)]
    assert rings[0] != rings[1], "nor a section's key, though the message is the same"


@either
@given(data=st.data())
@settings(max_examples=150)
def test_no_bit_of_what_a_desk_reads_can_be_changed(shared: record.Shared | None, data: st.DataObject) -> None:
    plain = {Section.SERVICE: b'{"text":"a"}', Section.CONTACT: b'{"telephone":"+39 055 0000 000"}'}
    salted, commitments = record.salt(plain)
    raw = bytearray(record.seal(salted, {DESKS[0].public: list(plain)}, CONTEXT, shared))
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


@either
@pytest.mark.parametrize("field", ["sender", "recipient", "thread", "message", "content_hash"])
def test_a_keyring_opens_only_where_it_was_sealed_for(field: str, shared: record.Shared | None) -> None:
    salted, commitments = record.salt({Section.SERVICE: b"{}"})
    raw = record.seal(salted, {DESKS[0].public: [Section.SERVICE]}, CONTEXT, shared)
    values = {name: getattr(CONTEXT, name) for name in ("sender", "recipient", "thread", "message", "content_hash")}
    elsewhere = record.Context(**(values | {field: "f" * len(values[field])}))
    with pytest.raises(RemoteError) as refusal:
        record.open_sections(raw, DESKS[0], elsewhere, commitments)
    assert refusal.value.code == "cannot-open"


def test_records_of_one_moment_share_a_secret_for_each_desk_and_agency_and_nothing_else() -> None:
    shared = record.Shared()
    readers = {desk.public: [Section.SERVICE] for desk in DESKS[:2]}
    elsewhere = record.Context(CONTEXT.sender, "1" * 64, "2" * 32, "3" * 32, "4" * 64)
    beside = record.Context(CONTEXT.sender, CONTEXT.recipient, "5" * 32, "6" * 32, "7" * 64)
    rings = []
    for context in (CONTEXT, beside, elsewhere):
        salted, commitments = record.salt({Section.SERVICE: b"{}"})
        raw = record.seal(salted, readers, context, shared)
        for desk in DESKS[:2]:
            assert record.open_sections(raw, desk, context, commitments) == {Section.SERVICE: b"{}"}
        rings.append(record.parse(raw).keyrings)
    one, same_agency, other_agency = ({ring.sealed for ring in each.values()} for each in rings)
    assert len(one) == 2, "each desk has its own"
    assert one == same_agency
    assert not one & other_agency, "two agencies could see that something was written for both at one moment"
    assert len({ring.salt for each in rings for ring in each.values()}) == 6


def test_a_shared_record_is_not_taken_for_one_alone() -> None:
    salted, _ = record.salt({Section.SERVICE: b"{}"})
    for shared, version in ((None, 2), (record.Shared(), 1)):
        raw = bytearray(record.seal(salted, {DESKS[0].public: [Section.SERVICE]}, CONTEXT, shared))
        raw[0] = version
        with pytest.raises(RemoteError) as refusal:
            record.parse(bytes(raw))
        assert refusal.value.code == "malformed-record"
