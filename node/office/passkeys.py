# SPDX-License-Identifier: Apache-2.0
"""Passkeys: in place of the authenticator's code, and, where the device can (PRF), in place of the passphrase too.

A passkey answers a challenge that this node made for this attempt, once, within five minutes, at this address, after
its device has verified the person. One that opens her keys wraps her seed under HKDF of what only it can compute from
a fixed input; the node keeps the wrapped seed and never what opens it. No passkey is asked for by work name: nobody
learns who exists or who has one.
"""

from __future__ import annotations

import base64
import json
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any, Final

import msgspec
from sqlalchemy import Connection, delete, func, insert, select, update

from node.office import audit, signin
from node.office.actor import Actor
from node.office.staff import seed_aad
from node.storage.here import NODE, Here
from node.storage.rows import upsert
from node.storage.tables import passkeys, sessions, staff, used_challenges
from protocol import crypto
from protocol.codes import Role
from protocol.encoding import seconds
from protocol.errors import LocalError, say

#: A telephone, a laptop, a key on the ring, and their spares.
PASSKEYS_MAX: Final = 10
NAME_MAX: Final = 60
#: As long as somebody needs to find her telephone.
CHALLENGE_LIFE: Final = timedelta(minutes=5)
#: What the extension gives: the output of HMAC-SHA-256.
PRF_BYTES: Final = 32
#: An answer of an authenticator is some hundred bytes, with an attestation a few thousand.
ANSWER_MAX: Final = 16_384
SIGN_IN: Final = b"sign-in"
ADD: Final = b"add"


@dataclass(frozen=True, slots=True)
class Site:
    """Where the pages are opened: the name that passkeys are bound to, and the origin that a browser reports."""

    id: str
    origin: str


class Answer(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a browser hands over, each in base64url: an attestation when a passkey is made, else data and signature."""

    id: str
    client_data: str
    attestation: str = ""
    data: str = ""
    signature: str = ""
    #: What the passkey computed to wrap or open her keys; empty if it cannot, or is not to.
    prf: str = ""


@dataclass(frozen=True, slots=True)
class Stored:
    """A passkey as the node knows it, and the salt of its owner's passphrase."""

    id: str
    staff_id: str
    public_key: bytes
    sign_count: int
    salt: bytes


@dataclass(frozen=True, slots=True)
class Checked:
    """An answer that is right: which challenge it used up and what it brought. `public_key` is of a new passkey."""

    credential: bytes
    challenge: bytes
    sign_count: int
    public_key: bytes
    prf: bytes | None = field(repr=False)


def refusal() -> LocalError:
    """The one answer to whatever is wrong with a passkey's answer."""
    return LocalError("sign-in", "This passkey was not accepted. Try again, or sign in with the code.")


def challenge(here: Here, now: datetime, purpose: bytes, bound: str) -> bytes:
    """36 bytes for an authenticator to sign. `bound` is the session, or the attempt, that alone may use the answer."""
    lapses = seconds(now + CHALLENGE_LIFE)
    return crypto.seal_under(_challenge_key(here), lapses.to_bytes(8, "big"), _challenge_aad(purpose, bound))


def prf_input(here: Here) -> bytes:
    """What passkeys compute their secret from: the same for everybody here, so that no name has to be asked for."""
    return crypto.sha256(b"staffetta/1/passkey-prf\0" + bytes.fromhex(here.agency))


def find(db: Connection, credential: str) -> Stored | None:
    """The passkey of an answer that claims this id, if its owner is active."""
    query = (
        select(passkeys, staff.c.seed_salt)
        .join(staff, staff.c.id == passkeys.c.staff_id)
        .where(passkeys.c.credential == _bytes(credential), staff.c.status == "active")
    )
    row = db.execute(query).first()
    if row is None:
        return None
    return Stored(row.id, row.staff_id, row.public_key, row.sign_count, row.seed_salt)


def check(here: Here, site: Site, now: datetime, answer: Answer, stored: Stored, bound: str) -> Checked:
    """The answer is this passkey's, to a challenge of ours for this attempt, at this address, of a verified person.

    Some milliseconds, the first time half a second: run it on a thread. Raises LocalError `sign-in`. Whether the
    challenge was used before is seen in the transaction that uses it.
    """
    from webauthn import verify_authentication_response

    challenged = _challenge_of(here, now, answer, SIGN_IN, bound)
    try:
        verified = verify_authentication_response(
            credential=_as_browser(answer),
            expected_challenge=challenged,
            expected_rp_id=site.id,
            expected_origin=site.origin,
            credential_public_key=stored.public_key,
            credential_current_sign_count=stored.sign_count,
            require_user_verification=True,
        )
    except Exception:  # noqa: BLE001  a library's parsers on bytes from anywhere: whatever they raise is a refusal
        raise refusal() from None
    return Checked(verified.credential_id, challenged, verified.new_sign_count, stored.public_key, _prf(answer))


def check_new(here: Here, site: Site, now: datetime, answer: Answer, bound: str) -> Checked:
    """The answer is a new passkey's, to a challenge of ours for this session. Raises LocalError `sign-in`."""
    from webauthn import verify_registration_response

    challenged = _challenge_of(here, now, answer, ADD, bound)
    try:
        verified = verify_registration_response(
            credential=_as_browser(answer),
            expected_challenge=challenged,
            expected_rp_id=site.id,
            expected_origin=site.origin,
            require_user_verification=True,
        )
    except Exception:  # noqa: BLE001  as above
        raise LocalError("passkey", "This passkey could not be added. Try again, or take another device.") from None
    return Checked(
        verified.credential_id, challenged, verified.sign_count, verified.credential_public_key, _prf(answer)
    )


def sign_in(
    db: Connection, here: Here, now: datetime, *, checked: Checked | None, stretched: bytes | None
) -> signin.SignedIn | bool | None:
    """Start a session, or write down the failure and return None: raising would undo what was written.

    False: the passkey was right but does not open her keys by itself, and no passphrase came with it. `stretched` is
    her passphrase, stretched. Wrong codes typed by somebody else do not delay her here: nothing can be guessed.
    """
    row = None if checked is None else _row(db, checked.credential)
    if checked is None or row is None or not _use(db, checked.challenge, now) or not _counts_on(row, checked):
        audit.record(db, now, NODE if row is None else row.staff_id, "session.refused", NODE)
        return None
    seed = None
    if row.seed_sealed is not None and checked.prf is not None:
        seed = _open(_wrapping_key(checked.prf, row.credential), row.seed_sealed, _wrap_aad(row.staff_id))
    if seed is None and stretched is not None:
        seed = _open(stretched, row.person_seed, seed_aad(row.staff_id))
    if seed is None:
        audit.record(db, now, row.staff_id, "session.refused", row.staff_id)
        return None if stretched is not None else False
    values = {"sign_count": checked.sign_count, "used_at": now}
    db.execute(update(passkeys).where(passkeys.c.id == row.id).values(values))
    db.execute(update(staff).where(staff.c.id == row.staff_id).values(seen_at=now))
    audit.record(db, now, row.staff_id, "session.passkey", row.staff_id)
    return signin.start(db, now, row.staff_id, row.roles, seed)


def add(db: Connection, here: Here, actor: Actor, now: datetime, *, checked: Checked, name: str, current: bytes) -> str:
    """The passkey is hers from now on; with a PRF it opens her keys too. Returns its id.

    `current` is her passphrase, stretched: a screen left open is not enough. Raises LocalError `passphrase`,
    `passkey-name`, `too-many-passkeys`, `passkey-known`, and `passkey` for a challenge that was used.
    """
    name = name.strip()
    if not 1 <= len(name) <= NAME_MAX:
        raise LocalError("passkey-name", say("Give it a name of up to {limit} letters.", limit=NAME_MAX))
    sealed = db.execute(select(staff.c.seed_sealed).where(staff.c.id == actor.staff_id)).scalar()
    seed = _open(current, sealed or b"", seed_aad(actor.staff_id))
    if seed is None:
        raise LocalError("passphrase", "The present passphrase is not right. Type it again.")
    mine = passkeys.c.staff_id == actor.staff_id
    if (db.execute(select(func.count()).select_from(passkeys).where(mine)).scalar() or 0) >= PASSKEYS_MAX:
        raise LocalError(
            "too-many-passkeys", say("You can have {limit} passkeys. Remove one first.", limit=PASSKEYS_MAX)
        )
    if db.execute(select(passkeys.c.id).where(passkeys.c.credential == checked.credential)).first() is not None:
        raise LocalError("passkey-known", "This passkey is here already.")
    if not _use(db, checked.challenge, now):
        raise LocalError("passkey", "This passkey could not be added. Try again, or take another device.")
    passkey_id = crypto.new_id()
    wrapped = None
    if checked.prf is not None:
        key = _wrapping_key(checked.prf, checked.credential)
        wrapped = crypto.seal_under(key, seed, _wrap_aad(actor.staff_id))
    row = {
        "id": passkey_id,
        "staff_id": actor.staff_id,
        "credential": checked.credential,
        "public_key": checked.public_key,
        "sign_count": checked.sign_count,
        "name_sealed": crypto.seal_under(here.keystore.local, name.encode(), _name_aad(passkey_id)),
        "seed_sealed": wrapped,
        "created_at": now,
    }
    db.execute(insert(passkeys), row)
    audit.record(db, now, actor.staff_id, "passkey.add", actor.staff_id)
    return passkey_id


def list_own(db: Connection, here: Here, actor: Actor) -> list[dict[str, Any]]:
    """Her passkeys, the oldest first, with their names and whether they open her keys."""
    query = select(passkeys).where(passkeys.c.staff_id == actor.staff_id).order_by(passkeys.c.created_at)
    return [
        {
            "id": row.id,
            "credential": base64.urlsafe_b64encode(row.credential).decode().rstrip("="),
            "name": crypto.open_under(here.keystore.local, row.name_sealed, _name_aad(row.id)).decode(),
            "opens_keys": row.seed_sealed is not None,
            "created_at": row.created_at,
            "used_at": row.used_at,
        }
        for row in db.execute(query)
    ]


def remove(db: Connection, actor: Actor, now: datetime, passkey_id: str) -> None:
    """One of her own passkeys opens nothing any more. Raises LocalError `unknown-passkey`."""
    mine = (passkeys.c.id == passkey_id) & (passkeys.c.staff_id == actor.staff_id)
    if not db.execute(delete(passkeys).where(mine)).rowcount:
        raise LocalError("unknown-passkey", "There is no such passkey. See the list on this page.")
    audit.record(db, now, actor.staff_id, "passkey.remove", actor.staff_id)


def remove_all(db: Connection, actor: Actor, now: datetime, staff_id: str) -> int:
    """A colleague has lost her devices: none of her passkeys opens anything any more, and she is signed out.

    Her passphrase with her code or a recovery code goes on working. For who administers accounts. Returns how many.
    Raises LocalError `unknown-passkey`.
    """
    actor.require_role(Role.ADMINISTRATOR, Role.DIRECTOR)
    gone: int = db.execute(delete(passkeys).where(passkeys.c.staff_id == staff_id)).rowcount
    if not gone:
        raise LocalError("unknown-passkey", "This person has no passkey.")
    db.execute(delete(sessions).where(sessions.c.staff_id == staff_id))
    audit.record(db, now, actor.staff_id, "passkey.remove-all", staff_id)
    return gone


def purge(db: Connection, now: datetime) -> int:
    """Challenges that nobody could answer any more are forgotten. Returns how many."""
    return db.execute(delete(used_challenges).where(used_challenges.c.lapses_at <= now)).rowcount


def _row(db: Connection, credential: bytes) -> Any:
    query = (
        select(passkeys, staff.c.roles, staff.c.seed_sealed.label("person_seed"))
        .join(staff, staff.c.id == passkeys.c.staff_id)
        .where(passkeys.c.credential == credential, staff.c.status == "active")
    )
    return db.execute(query).first()


def _counts_on(row: Any, checked: Checked) -> bool:
    """Two answers at the same moment: the counter is compared again where it is written (WebAuthn, 6.1.1)."""
    before: int = row.sign_count
    return checked.sign_count > before or checked.sign_count == before == 0


def _use(db: Connection, used: bytes, now: datetime) -> bool:
    """Whether this challenge is used for the first time."""
    statement = upsert(db.dialect.name, used_challenges).values(
        hash=crypto.sha256_hex(used), lapses_at=now + CHALLENGE_LIFE
    )
    first = statement.on_conflict_do_nothing(index_elements=[used_challenges.c.hash])
    return db.execute(first.returning(used_challenges.c.hash)).first() is not None


def _challenge_of(here: Here, now: datetime, answer: Answer, purpose: bytes, bound: str) -> bytes:
    try:
        found = _bytes(json.loads(_bytes(answer.client_data))["challenge"])
        lapses = crypto.open_under(_challenge_key(here), found, _challenge_aad(purpose, bound))
    except (LocalError, ValueError, KeyError, TypeError, RecursionError):
        raise refusal() from None
    if not bound or now >= datetime.fromtimestamp(int.from_bytes(lapses, "big"), UTC):
        raise LocalError("sign-in", "This took too long. Reload the page, then try again.")
    return found


def _challenge_key(here: Here) -> bytes:
    return crypto.derive(here.keystore.local, b"staffetta/1/passkey-challenge")


def _challenge_aad(purpose: bytes, bound: str) -> bytes:
    return purpose + b"\0" + bound.encode("utf-8", "replace")


def _wrapping_key(prf: bytes, credential: bytes) -> bytes:
    return crypto.derive(prf, b"staffetta/1/passkey-seed", crypto.sha256(credential))


def _wrap_aad(staff_id: str) -> bytes:
    return b"staffetta/1/passkey-seed\0" + bytes.fromhex(staff_id)


def _name_aad(passkey_id: str) -> bytes:
    return b"staffetta/1/passkey-name\0" + bytes.fromhex(passkey_id)


def _open(key: bytes, sealed: bytes, aad: bytes) -> bytes | None:
    try:
        return crypto.open_under(key, sealed, aad)
    except LocalError:
        return None


def _prf(answer: Answer) -> bytes | None:
    found = _bytes(answer.prf)
    return found if len(found) == PRF_BYTES else None


def _bytes(text: object) -> bytes:
    """Base64url as browsers write it; nothing for what is not."""
    try:
        raw = str(text).encode("ascii")
        return base64.b64decode(raw + b"=" * (-len(raw) % 4), altchars=b"-_", validate=True)
    except ValueError:
        return b""


def _as_browser(answer: Answer) -> dict[str, Any]:
    response = {"clientDataJSON": answer.client_data}
    if answer.attestation:
        response["attestationObject"] = answer.attestation
    else:
        response |= {"authenticatorData": answer.data, "signature": answer.signature}
    return {"id": answer.id, "rawId": answer.id, "type": "public-key", "response": response}
