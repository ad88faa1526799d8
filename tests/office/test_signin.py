# SPDX-License-Identifier: Apache-2.0
"""Signing in tells a stranger nothing, and what is stored opens no session."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from sqlalchemy import func, select

from node.office import signin, staff
from node.office import tasks as task_lists
from node.storage.tables import audit, sessions
from node.storage.tables import staff as staff_rows
from protocol import crypto
from protocol.codes import Role
from protocol.errors import LocalError
from tests.office.house import Office, Person, code_of

WRONG = "four grey geese at noon"


def wrong_code(office: Office, person: Person) -> str:
    near = {crypto.totp_code(person.totp, int(office.now.timestamp()) + shift) for shift in (-30, 0, 30)}
    return next(code for code in ("000000", "111111", "222222", "333333") if code not in near)


def ways_to_fail(office: Office, ines: Person) -> dict[str, Callable[[], signin.SignedIn | None]]:
    return {
        "wrong passphrase": lambda: office.try_sign_in("ines", WRONG, office.code(ines)),
        "wrong code": lambda: office.try_sign_in("ines", ines.passphrase, wrong_code(office, ines)),
        "no code": lambda: office.try_sign_in("ines", ines.passphrase, ""),
        "a code with other digits": lambda: office.try_sign_in("ines", ines.passphrase, "１２３４５６"),
        "replayed code": lambda: (
            office.sign_in(ines) and office.try_sign_in("ines", ines.passphrase, office.code(ines))
        ),
        "unknown name": lambda: office.try_sign_in("nobody", ines.passphrase, office.code(ines)),
        "not a name": lambda: office.try_sign_in("\0' OR 1=1", ines.passphrase, office.code(ines)),
        "invited, not enrolled": lambda: office.try_sign_in("later", ines.passphrase, office.code(ines)),
        "disabled": lambda: office.try_sign_in("gone", ines.passphrase, office.code(ines)),
        "delayed": lambda: (
            [office.try_sign_in("ines", ines.passphrase, wrong_code(office, ines)) for _ in range(4)]
            and office.try_sign_in("ines", ines.passphrase, office.code(ines))
        ),
    }


WAYS = (
    "wrong passphrase",
    "wrong code",
    "no code",
    "a code with other digits",
    "replayed code",
    "unknown name",
    "not a name",
    "invited, not enrolled",
    "disabled",
    "delayed",
)


def test_passphrase_and_code_together_open_a_session_with_the_persons_keys(office: Office) -> None:
    ines = office.hire("ines", Role.CASEWORKER, Role.INTAKE)
    night = office.open_desk("Night shelter", ines)
    signed_in = office.sign_in(ines)
    found, _ = office.read(signin.session_actor, office.now, signed_in.session_id, signed_in.secret)
    assert found == signed_in.actor
    assert (found.staff_id, found.roles, found.desks) == (ines.id, {Role.CASEWORKER, Role.INTAKE}, {night})
    assert found.require_seed().hex() not in repr(signed_in)
    assert signed_in.secret.hex() not in repr(signed_in)


@pytest.mark.parametrize("way", WAYS)
def test_every_way_to_fail_has_the_same_answer_the_same_trace_and_no_session(office: Office, way: str) -> None:
    ines = office.hire("ines")
    office.write(staff.invite, office.actor(office.first), office.now, handle="later", roles=[Role.INTAKE])
    gone = office.hire("gone")
    office.write(staff.disable, office.here, office.actor(office.first), office.now, gone.id)
    fail = ways_to_fail(office, ines)
    assert set(fail) == set(WAYS)
    assert fail[way]() is None
    refused = select(audit.c.action).order_by(audit.c.seq.desc()).limit(1)
    assert office.rows(refused)[0].action == "session.refused"
    count = select(func.count()).where(sessions.c.staff_id == ines.id)
    assert office.read(lambda db: db.execute(count).scalar()) == (1 if way == "replayed code" else 0)
    assert signin.refusal().code == "sign-in"


def test_the_salt_of_an_unknown_name_looks_like_any_other_and_stays_the_same(office: Office) -> None:
    ines = office.hire("ines")
    salts = [office.read(signin.material, office.here, name).salt for name in ("ines", "nobody", "nobody", "no\0body")]
    assert {len(salt) for salt in salts} == {signin.SALT_BYTES}
    assert salts[1] == salts[2]
    assert len(set(salts)) == 3
    assert ines.handle == "ines"


def test_a_code_of_the_half_minute_before_or_after_is_taken_but_none_twice_or_older(office: Office) -> None:
    ines = office.hire("ines")
    office.pass_time(minutes=10)
    now = int(office.now.timestamp())
    before, this, after = (crypto.totp_code(ines.totp, now + shift) for shift in (-30, 0, 30))
    too_old = crypto.totp_code(ines.totp, now - 90)
    assert office.try_sign_in("ines", ines.passphrase, too_old) is None
    assert office.try_sign_in("ines", ines.passphrase, this) is not None
    assert office.try_sign_in("ines", ines.passphrase, before) is None, "older than one that was used"
    assert office.try_sign_in("ines", ines.passphrase, after) is not None
    assert office.try_sign_in("ines", ines.passphrase, after) is None


def test_who_does_not_know_the_passphrase_cannot_shut_a_colleague_out(office: Office) -> None:
    ines = office.hire("ines")
    office.pass_time(minutes=1)
    for _ in range(30):
        assert office.try_sign_in("ines", WRONG, "000000") is None
    assert office.try_sign_in("ines", ines.passphrase, office.code(ines)) is not None


def test_guessing_codes_with_the_right_passphrase_gets_slower_up_to_a_minute_and_the_person_is_told(
    office: Office,
) -> None:
    ines = office.hire("ines")
    for _ in range(12):
        office.pass_time(minutes=2)
        assert office.try_sign_in("ines", ines.passphrase, wrong_code(office, ines)) is None
    [row] = office.rows(select(staff_rows.c.retry_at, staff_rows.c.failures).where(staff_rows.c.id == ines.id))
    assert (row.failures, (row.retry_at - office.now).total_seconds()) == (12, 60)
    office.pass_time(seconds=59)
    assert office.try_sign_in("ines", ines.passphrase, office.code(ines)) is None, "she waits as well"
    office.pass_time(seconds=31)
    actor = office.actor(ines)
    assert [task["kind"] for task in office.read(task_lists.list_tasks, actor)] == [signin.CODES_TASK]
    [row] = office.rows(select(staff_rows.c.failures).where(staff_rows.c.id == ines.id))
    assert row.failures == 0


def test_a_copy_of_the_database_and_the_key_folder_opens_no_session(office: Office) -> None:
    ines = office.hire("ines")
    signed_in = office.sign_in(ines)
    seed = signed_in.actor.require_seed()
    [row] = office.rows(select(sessions).where(sessions.c.staff_id == ines.id))
    stored = [value for value in row if isinstance(value, bytes)]
    assert signed_in.session_id not in row, "not even the name that the cookie gives it"
    for known in (*stored, office.keystore.local, bytes(32), row.server_secret):
        assert code_of(
            lambda known=known: office.read(signin.session_actor, office.now, signed_in.session_id, known)
        ) == ("signed-out")
        assert seed not in known
        assert signed_in.secret not in known
    assert office.read(signin.session_actor, office.now, signed_in.session_id, signed_in.secret)[0].seed == seed


def test_the_secret_of_one_session_opens_no_other_and_the_stored_id_is_not_a_session_id(office: Office) -> None:
    ines, bruna = office.hire("ines"), office.hire("bruna")
    one, other = office.sign_in(ines), office.sign_in(bruna)
    [row] = office.rows(select(sessions.c.id).where(sessions.c.staff_id == ines.id))
    for session_id, secret in (
        (one.session_id, other.secret),
        (other.session_id, one.secret),
        (row.id, one.secret),
        ("", b""),
    ):
        args = (office.now, session_id, secret)
        assert code_of(lambda args=args: office.read(signin.session_actor, *args)) == "signed-out"


def test_a_session_ends_after_thirty_idle_minutes(office: Office) -> None:
    signed_in = office.sign_in(office.hire("ines"))
    args = (signed_in.session_id, signed_in.secret)
    office.pass_time(minutes=29, seconds=59)
    _, touch_due = office.read(signin.session_actor, office.now, *args)
    assert touch_due
    office.write(signin.touch, office.now, signed_in.session_id)
    _, touch_due = office.read(signin.session_actor, office.pass_time(seconds=59), *args)
    assert not touch_due, "once a minute is enough"
    office.pass_time(minutes=29, seconds=1)
    assert code_of(lambda: office.read(signin.session_actor, office.now, *args)) == "signed-out"


def test_a_session_ends_after_twelve_hours_however_busy(office: Office) -> None:
    signed_in = office.sign_in(office.hire("ines"))
    args = (signed_in.session_id, signed_in.secret)
    for _ in range(35):
        office.read(signin.session_actor, office.pass_time(minutes=20), *args)
        office.write(signin.touch, office.now, signed_in.session_id)
    office.pass_time(minutes=20)
    assert code_of(lambda: office.read(signin.session_actor, office.now, *args)) == "signed-out"


def test_signing_out_ends_that_session_and_signing_out_everywhere_ends_all(office: Office) -> None:
    ines, bruna = office.hire("ines"), office.hire("bruna")
    first, second, third = (office.sign_in(ines) for _ in range(3))
    office.write(signin.end_session, office.now, first.session_id)
    office.write(signin.end_session, office.now, first.session_id)
    assert code_of(lambda: office.read(signin.session_actor, office.now, first.session_id, first.secret)) == (
        "signed-out"
    )
    office.read(signin.session_actor, office.now, second.session_id, second.secret)
    stranger = office.actor(bruna)
    assert code_of(lambda: office.write(signin.end_all_sessions, stranger, office.now, ines.id)) == "forbidden"
    assert office.write(signin.end_all_sessions, third.actor, office.now, ines.id) == 2
    assert code_of(lambda: office.read(signin.session_actor, office.now, third.session_id, third.secret)) == (
        "signed-out"
    )


def test_one_person_has_few_sessions_and_the_oldest_goes_first(office: Office) -> None:
    ines = office.hire("ines")
    made = [office.sign_in(ines) for _ in range(signin.SESSIONS_MAX + 2)]
    count = select(func.count()).where(sessions.c.staff_id == ines.id)
    assert office.read(lambda db: db.execute(count).scalar()) == signin.SESSIONS_MAX
    for index, session in enumerate(made):
        args = (office.now, session.session_id, session.secret)
        if index < 2:
            assert code_of(lambda args=args: office.read(signin.session_actor, *args)) == "signed-out"
        else:
            office.read(signin.session_actor, *args)


def test_sessions_that_ended_by_time_are_purged_and_no_others(office: Office) -> None:
    office.write(signin.end_all_sessions, office.actor(office.first), office.now, office.first.id)
    office.first.cookie = None
    ines, bruna = office.hire("ines"), office.hire("bruna")
    office.sign_in(ines)
    office.pass_time(minutes=20)
    kept = office.sign_in(bruna)
    office.pass_time(minutes=15)
    assert office.write(signin.purge, office.now) == 2
    office.read(signin.session_actor, office.now, kept.session_id, kept.secret)


def test_roles_and_desks_are_those_of_this_moment_and_not_of_the_sign_in(office: Office) -> None:
    ines = office.hire("ines", Role.CASEWORKER)
    before = office.actor(ines)
    office.write(staff.set_roles, office.actor(office.first), office.now, ines.id, [Role.VOLUNTEER])
    assert before.roles == {Role.CASEWORKER}
    after = office.actor(ines)
    assert after.roles == {Role.VOLUNTEER}
    with pytest.raises(LocalError):
        after.require_role(Role.CASEWORKER)
