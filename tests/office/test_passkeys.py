# SPDX-License-Identifier: Apache-2.0
"""A passkey signs in whom it belongs to, once for each challenge, at this address, and nobody else."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from sqlalchemy import select, update

from node.office import passkeys, signin, staff
from node.office.passkeys import Answer, Site
from node.storage.tables import audit, sessions, used_challenges
from node.storage.tables import passkeys as rows
from protocol import crypto
from protocol.codes import Role
from tests.office.authenticator import Device, text
from tests.office.house import Office, Person, code_of, stretch

SITE = Site("node.example", "https://node.example")
ATTEMPT = "a" * 32


def device(**wrong: Any) -> Device:
    return Device(**{"site": SITE.id, "origin": SITE.origin, **wrong})


def add(office: Office, person: Person, made: Device, *, unlocks: bool, passphrase: str | None = None) -> str:
    """She adds this device on her page."""
    actor = office.actor(person)
    bound = person.cookie[0] if person.cookie else ""
    asked = passkeys.challenge(office.here, office.now, passkeys.ADD, bound)
    answer = Answer(**made.make(asked, passkeys.prf_input(office.here) if unlocks else None))
    checked = passkeys.check_new(office.here, SITE, office.now, answer, bound)
    salt = office.read(signin.material, office.here, person.handle).salt
    current = stretch(passphrase or person.passphrase, salt)
    return office.write(
        passkeys.add, office.here, actor, office.now, checked=checked, name="invented telephone", current=current
    )


def use(
    office: Office,
    made: Device,
    *,
    passphrase: str | None = None,
    prf: bool = True,
    attempt: str = ATTEMPT,
    answer: Answer | None = None,
) -> signin.SignedIn | bool | None:
    """Somebody signs in with this device."""
    if answer is None:
        asked = passkeys.challenge(office.here, office.now, passkeys.SIGN_IN, ATTEMPT)
        answer = Answer(**made.use(asked, passkeys.prf_input(office.here) if prf else None))
    stored = office.read(passkeys.find, answer.id)
    checked = None if stored is None else passkeys.check(office.here, SITE, office.now, answer, stored, attempt)
    stretched = None if passphrase is None or stored is None else stretch(passphrase, stored.salt)
    return office.write(passkeys.sign_in, office.here, office.now, checked=checked, stretched=stretched)


def test_a_passkey_that_opens_her_keys_signs_her_in_alone(office: Office) -> None:
    ines = office.hire("ines", Role.CASEWORKER)
    desk = office.open_desk("Night shelter", ines)
    seed = office.actor(ines).require_seed()
    made = device()
    add(office, ines, made, unlocks=True)
    signed = use(office, made)
    assert isinstance(signed, signin.SignedIn)
    assert signed.actor.require_seed() == seed and signed.actor.desks == {desk}
    assert isinstance(use(office, made), signin.SignedIn), "and again, with a new challenge"
    assert seed.hex() not in repr(signed)


def test_a_passkey_without_a_secret_stands_in_place_of_the_code(office: Office) -> None:
    ines = office.hire("ines")
    made = device()
    add(office, ines, made, unlocks=False)
    assert use(office, made) is False, "her keys stay closed without the passphrase"
    assert use(office, made, passphrase="four grey geese at noon") is None
    signed = use(office, made, passphrase=ines.passphrase)
    assert isinstance(signed, signin.SignedIn)
    assert office.sign_in(ines).actor.staff_id == ines.id, "the authenticator goes on working"


def test_another_persons_passphrase_opens_nothing_with_it(office: Office) -> None:
    ines, rosa = office.hire("ines"), office.hire("rosa")
    made = device()
    add(office, ines, made, unlocks=False)
    other = "another invented sentence here"
    assert rosa.passphrase == ines.passphrase, "the salt makes the difference"
    assert use(office, made, passphrase=other) is None


WRONG: dict[str, Callable[[Office, Device], object]] = {
    "an answer of another address": lambda o, d: _as(d, o, origin="https://node.example.evil.invalid"),
    "an answer over plain HTTP": lambda o, d: _as(d, o, origin="http://node.example"),
    "an answer for another site": lambda o, d: _as(d, o, site="evil.invalid"),
    "a device that did not verify her": lambda o, d: _as(d, o, verifies=False),
    "another device with this one's id": lambda o, d: _as(d, o, key=device().key),
    "another attempt": lambda o, d: use(o, d, attempt="b" * 32),
    "no attempt": lambda o, d: use(o, d, attempt=""),
    "a challenge that nobody made": lambda o, d: _answered(o, d, crypto.random_bytes(36)),
    "a challenge for a new passkey": lambda o, d: _answered(
        o, d, passkeys.challenge(o.here, o.now, passkeys.ADD, ATTEMPT)
    ),
    "an answer that came late": lambda o, d: _late(o, d),
    "a counter that went back": lambda o, d: _as(d, o, count=0),
    "noise": lambda o, d: use(o, d, answer=Answer(id=text(d.credential), client_data="!", data="%", signature="é")),
    "an answer to the question for a new passkey": lambda o, d: use(
        o, d, answer=Answer(**d.make(passkeys.challenge(o.here, o.now, passkeys.SIGN_IN, ATTEMPT)))
    ),
}


def _as(made: Device, office: Office, **changes: Any) -> object:
    for name, value in changes.items():
        setattr(made, name, value)
    return use(office, made)


def _answered(office: Office, made: Device, challenge: bytes) -> object:
    return use(office, made, answer=Answer(**made.use(challenge, passkeys.prf_input(office.here))))


def _late(office: Office, made: Device) -> object:
    asked = passkeys.challenge(office.here, office.now, passkeys.SIGN_IN, ATTEMPT)
    office.pass_time(minutes=5)
    return _answered(office, made, asked)


def test_whatever_is_wrong_with_an_answer_starts_no_session(office: Office) -> None:
    ines = office.hire("ines")
    for way, fail in WRONG.items():
        made = device()
        added = add(office, ines, made, unlocks=True)
        assert use(office, made) and use(office, made), way
        before = len(office.rows(select(sessions)))
        assert code_of(lambda: fail(office, made)) == "sign-in", way  # noqa: B023  called at once
        assert len(office.rows(select(sessions))) == before, way
        office.write(passkeys.remove, office.actor(ines), office.now, added)


def test_an_answer_is_used_once_even_by_a_device_that_does_not_count(office: Office) -> None:
    ines = office.hire("ines")
    made = device()
    add(office, ines, made, unlocks=True)
    asked = passkeys.challenge(office.here, office.now, passkeys.SIGN_IN, ATTEMPT)
    made.count = -1
    answer = Answer(**made.use(asked, passkeys.prf_input(office.here)))
    assert isinstance(use(office, made, answer=answer), signin.SignedIn)
    assert use(office, made, answer=answer) is None
    last = office.rows(select(audit.c.action).order_by(audit.c.seq.desc()).limit(1))[0]
    assert last.action == "session.refused"
    office.pass_time(minutes=5)
    assert office.write(passkeys.purge, office.now) == 2 and office.rows(select(used_challenges)) == []
    assert code_of(lambda: use(office, made, answer=answer)) == "sign-in", "forgotten, but lapsed"


def test_a_wrong_passphrase_uses_the_answer_up(office: Office) -> None:
    ines = office.hire("ines")
    made = device()
    add(office, ines, made, unlocks=False)
    asked = passkeys.challenge(office.here, office.now, passkeys.SIGN_IN, ATTEMPT)
    answer = Answer(**made.use(asked))
    assert use(office, made, answer=answer) is False
    assert use(office, made, answer=answer, passphrase=ines.passphrase) is None


def test_the_counter_is_compared_where_it_is_written(office: Office) -> None:
    """Two copies of one device at the same moment: the second finds that the counter has moved on."""
    ines = office.hire("ines")
    made = device()
    add(office, ines, made, unlocks=True)
    answers = []
    for _ in range(2):
        asked = passkeys.challenge(office.here, office.now, passkeys.SIGN_IN, ATTEMPT)
        answers.append(Answer(**made.use(asked, passkeys.prf_input(office.here))))
        made.count = 0
    stored = office.read(passkeys.find, text(made.credential))
    assert stored is not None
    first, second = (passkeys.check(office.here, SITE, office.now, a, stored, ATTEMPT) for a in answers)
    assert office.write(passkeys.sign_in, office.here, office.now, checked=first, stretched=None)
    assert office.write(passkeys.sign_in, office.here, office.now, checked=second, stretched=None) is None


def test_adding_needs_the_passphrase_the_session_and_a_device_that_verifies(office: Office) -> None:
    ines = office.hire("ines")
    made = device()
    assert code_of(lambda: add(office, ines, made, unlocks=True, passphrase="not her words at all")) == "passphrase"
    assert code_of(lambda: add(office, ines, device(verifies=False), unlocks=True)) == "passkey"
    assert code_of(lambda: add(office, ines, device(origin="https://evil.invalid"), unlocks=True)) == "passkey"
    asked = passkeys.challenge(office.here, office.now, passkeys.ADD, "another session")
    answer = Answer(**made.make(asked))
    assert code_of(lambda: passkeys.check_new(office.here, SITE, office.now, answer, ATTEMPT)) == "sign-in"
    add(office, ines, made, unlocks=True)
    assert code_of(lambda: add(office, ines, made, unlocks=True)) == "passkey-known"
    assert code_of(lambda: add(office, office.hire("rosa"), made, unlocks=True)) == "passkey-known"
    for _ in range(passkeys.PASSKEYS_MAX - 1):
        add(office, ines, device(), unlocks=False)
    assert code_of(lambda: add(office, ines, device(), unlocks=False)) == "too-many-passkeys"


def test_a_new_passkeys_answer_is_used_once(office: Office) -> None:
    ines = office.hire("ines")
    actor = office.actor(ines)
    made = device()
    asked = passkeys.challenge(office.here, office.now, passkeys.ADD, ATTEMPT)
    checked = passkeys.check_new(office.here, SITE, office.now, Answer(**made.make(asked)), ATTEMPT)
    current = stretch(ines.passphrase, office.read(signin.material, office.here, "ines").salt)
    again = lambda: office.write(  # noqa: E731  the same three lines twice
        passkeys.add, office.here, actor, office.now, checked=checked, name="x", current=current
    )
    first = again()
    office.write(passkeys.remove, actor, office.now, first)
    assert code_of(again) == "passkey", "a challenge that was used adds nothing a second time"


def test_a_passkey_is_named_listed_and_removed_by_her_alone(office: Office) -> None:
    ines, rosa = office.hire("ines"), office.hire("rosa")
    made = device()
    added = add(office, ines, made, unlocks=True)
    listed = office.read(passkeys.list_own, office.here, office.actor(ines))
    assert [(p["name"], p["opens_keys"], p["used_at"]) for p in listed] == [("invented telephone", True, None)]
    assert b"telephone" not in office.rows(select(rows.c.name_sealed))[0].name_sealed, "its name is sealed"
    assert office.read(passkeys.list_own, office.here, office.actor(rosa)) == []
    assert code_of(lambda: office.write(passkeys.remove, office.actor(rosa), office.now, added)) == "unknown-passkey"
    assert isinstance(use(office, made), signin.SignedIn)
    office.write(passkeys.remove, office.actor(ines), office.now, added)
    assert office.read(passkeys.find, text(made.credential)) is None and use(office, made) is None


def test_an_administrator_removes_lost_passkeys_and_nobody_else_does(office: Office) -> None:
    ines, rosa = office.hire("ines"), office.hire("rosa")
    lost, kept = device(), device()
    add(office, ines, lost, unlocks=True)
    add(office, rosa, kept, unlocks=True)
    assert isinstance(use(office, lost), signin.SignedIn)
    before = office.rows(select(sessions).where(sessions.c.staff_id == ines.id))
    assert code_of(lambda: office.write(passkeys.remove_all, office.actor(rosa), office.now, ines.id)) == "forbidden"
    assert before and office.rows(select(sessions).where(sessions.c.staff_id == ines.id)) == before
    assert office.write(passkeys.remove_all, office.actor(office.first), office.now, ines.id) == 1
    assert use(office, lost) is None and isinstance(use(office, kept), signin.SignedIn)
    assert office.rows(select(sessions).where(sessions.c.staff_id == ines.id)) == [], "and she is signed out"
    again = lambda: office.write(passkeys.remove_all, office.actor(office.first), office.now, ines.id)  # noqa: E731
    assert code_of(again) == "unknown-passkey"


def test_what_is_stored_opens_nothing_without_the_device(office: Office) -> None:
    """A copy of the row in another person's name, or under another passkey, opens no keys."""
    ines, rosa = office.hire("ines"), office.hire("rosa")
    hers, other = device(), device()
    add(office, ines, hers, unlocks=True)
    add(office, rosa, other, unlocks=True)
    wrapped = office.rows(select(rows.c.seed_sealed).where(rows.c.staff_id == ines.id))[0].seed_sealed
    office.run(update(rows).where(rows.c.staff_id == rosa.id).values(seed_sealed=wrapped))
    assert use(office, other) is False
    assert office.actor(ines).require_seed() not in wrapped


def test_whoever_leaves_or_recovers_has_no_passkey_left(office: Office) -> None:
    ines, gone = office.hire("ines"), office.hire("gone")
    made, other = device(), device()
    add(office, ines, made, unlocks=True)
    add(office, gone, other, unlocks=True)
    office.write(staff.disable, office.here, office.actor(office.first), office.now, gone.id)
    seed = office.actor(ines).require_seed()
    salt = crypto.random_bytes(16)
    office.write(
        staff.set_keys,
        office.here,
        office.now,
        ines.id,
        salt=salt,
        stretched=stretch("a new invented sentence", salt),
        seed=seed,
    )
    assert use(office, made) is None and use(office, other) is None
    assert office.rows(select(rows)) == []
