# SPDX-License-Identifier: Apache-2.0
"""Both sheets give back what a lost passphrase closed; one alone gives nothing."""

from __future__ import annotations

import base64

import pytest
from hypothesis import given
from hypothesis import strategies as st

from node.office import desks, recovery, signin, staff
from node.office.recovery import join_sheets, make_sheets
from protocol import crypto
from protocol.crypto import KemKey
from tests.office.house import Office, Person, code_of, stretch

NEW = "nine slow barges upriver"


def restore(office: Office, person: Person, key: KemKey) -> None:
    salt = crypto.random_bytes(signin.SALT_BYTES)
    enrolled = office.write(
        recovery.restore_passphrase,
        office.here,
        office.now,
        key=key,
        handle=person.handle,
        salt=salt,
        stretched=stretch(NEW, salt),
    )
    person.passphrase, person.totp, person.cookie = NEW, enrolled.totp_secret, None


def from_sheets(office: Office, one: str, other: str) -> KemKey:
    return office.read(recovery.recovery_from_sheets, office.here, one, other)


@given(st.binary(min_size=32, max_size=32))
def test_two_sheets_are_the_seed_in_either_order_however_they_are_typed(seed: bytes) -> None:
    a, b = make_sheets(seed)
    assert join_sheets(a, b) == join_sheets(b.lower(), a.replace(" ", "\n")) == seed


def test_one_sheet_alone_says_nothing_of_the_seed() -> None:
    """The same seed gives other sheets each time, and any seed fits one given sheet."""
    seed, other = crypto.random_bytes(32), crypto.random_bytes(32)
    sheets = [sheet for _ in range(20) for sheet in make_sheets(seed)]
    assert len(set(sheets)) == 40
    a, b = (base64.b32decode(s.replace(" ", "") + "=" * (-len(s.replace(" ", "")) % 8)) for s in make_sheets(seed))
    needed = bytes(x ^ y for x, y in zip(a[5:37], other, strict=True))
    body = b[:5] + needed
    fitting = base64.b32encode(body + crypto.sha256(body)[:4]).decode().rstrip("=")
    assert join_sheets(base64.b32encode(a).decode().rstrip("="), fitting) == other


def test_one_sheet_twice_or_of_two_pairs_is_refused() -> None:
    (a, b), (a2, b2) = make_sheets(bytes(32)), make_sheets(bytes(32))
    for pair in ((a, a), (b, b), (a, b2), (a2, b), (a, a2)):
        assert code_of(lambda pair=pair: join_sheets(*pair)) == "sheet"


def test_every_single_typing_error_is_noticed() -> None:
    a, b = make_sheets(crypto.random_bytes(32))
    for at, letter in enumerate(a):
        if letter != " ":
            wrong = "A" if letter != "A" else "B"
            typed = a[:at] + wrong + a[at + 1 :]
            assert code_of(lambda typed=typed: join_sheets(typed, b)) == "sheet"


@pytest.mark.parametrize("sheet", ["", "A", "not a sheet!", "é" * 72, "A" * 72, "A" * 5000])
def test_what_is_not_a_sheet_is_refused(sheet: str) -> None:
    assert code_of(lambda: join_sheets(sheet, make_sheets(bytes(32))[1])) == "sheet"


def test_both_sheets_restore_a_lost_passphrase_with_the_same_keys(office: Office) -> None:
    ines = office.hire("ines")
    night = office.open_desk("Night shelter", ines)
    before, lost = office.actor(ines), ines.passphrase
    letter = office.read(desks.current_key, night).seal(b"from before", b"test")
    key = from_sheets(office, office.printed.sheet_a, office.printed.sheet_b)
    old_totp = ines.totp
    restore(office, ines, key)
    office.pass_time(minutes=1)
    assert office.try_sign_in("ines", lost, office.code(ines)) is None
    assert ines.totp != old_totp
    after = office.actor(ines)
    assert after.seed == before.seed
    desk_key = office.read(desks.open_desk_key, after, office.read(desks.current_key, night).hash)
    assert desk_key.open(letter, b"test") == b"from before"


def test_restoring_ends_the_sessions_of_before(office: Office) -> None:
    ines = office.hire("ines")
    old = office.sign_in(ines)
    restore(office, ines, from_sheets(office, office.printed.sheet_a, office.printed.sheet_b))
    assert code_of(lambda: office.read(signin.session_actor, office.now, old.session_id, old.secret)) == "signed-out"


def test_one_sheet_alone_or_sheets_of_another_agency_restore_nothing(office: Office) -> None:
    ines = office.hire("ines")
    a, b = office.printed.sheet_a, office.printed.sheet_b
    foreign = make_sheets(crypto.random_bytes(32))
    for pair in ((a, a), (b, b), (a, ""), (a, foreign[1]), (foreign[0], b), foreign):
        assert code_of(lambda pair=pair: from_sheets(office, *pair)) == "sheet"
    # What one sheet holds is not the key either, nor does any other key open a person's seed.
    half = base64.b32decode(a.replace(" ", "") + "=" * (-len(a.replace(" ", "")) % 8))[5:37]
    for key in (KemKey(half), KemKey(crypto.random_bytes(32))):
        assert code_of(lambda key=key: restore(office, ines, key)) == "cannot-open"
    assert office.actor(ines).staff_id == ines.id


def test_who_is_unknown_or_was_disabled_is_not_brought_back(office: Office) -> None:
    ines = office.hire("ines")
    office.write(staff.disable, office.here, office.actor(office.first), office.now, ines.id)
    key = from_sheets(office, office.printed.sheet_b, office.printed.sheet_a)
    assert code_of(lambda: restore(office, ines, key)) == "unknown-person"
    assert code_of(lambda: restore(office, Person("0" * 32, "nobody", "", b""), key)) == "unknown-person"


def test_a_desk_whose_last_member_is_gone_is_opened_with_both_sheets_and_an_officer(office: Office) -> None:
    marta = office.hire_officer("marta")
    only = office.hire("ines")
    actor = office.actor(marta)
    legal = office.write(
        desks.create,
        office.here,
        actor,
        office.now,
        name="Legal advice",
        profile=desks.Profile(),
        join=False,
        others=[only.id],
    )
    old = office.read(desks.current_key, legal)
    letter = old.seal(b"from before", b"test")
    office.write(staff.disable, office.here, office.actor(office.first), office.now, only.id)
    key = from_sheets(office, office.printed.sheet_a, office.printed.sheet_b)
    caseworker = office.actor(office.hire("bruna"))

    def reopen(who: object, with_key: KemKey) -> None:
        office.write(desks.reopen, office.here, who, office.now, legal, key=with_key)

    assert code_of(lambda: reopen(caseworker, key)) == "forbidden"
    assert code_of(lambda: reopen(actor, KemKey(crypto.random_bytes(32)))) == "cannot-open"
    assert code_of(lambda: office.read(desks.open_desk_key, actor, old.hash)) == "no-desk-key"
    reopen(actor, key)
    assert office.read(desks.open_desk_key, actor, old.hash).open(letter, b"test") == b"from before"
    assert legal in office.actor(marta).desks
