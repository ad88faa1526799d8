# SPDX-License-Identifier: Apache-2.0
"""The agency's recovery key: two printed sheets, neither of which says anything alone, for lost passphrases.

The seed is split by exclusive-or with random bytes (a perfect two-of-two split). Each sheet carries a checksum against
typing errors and the random number of its pair; neither says anything about the seed.
"""

from __future__ import annotations

import base64
from datetime import datetime
from typing import Final

from sqlalchemy import Connection, select

from node.office import audit, lock, roster
from node.office.staff import Enrolled, seed_aad, set_keys
from node.storage.here import Here
from node.storage.tables import staff
from protocol import crypto
from protocol.crypto import KemKey
from protocol.errors import LocalError

_CHECK_BYTES: Final = 4
_PAIR_BYTES: Final = 4


def make_sheets(seed: bytes) -> tuple[str, str]:
    """Two texts of base32 groups. Either alone is random; both together are the seed."""
    pair, pad = crypto.random_bytes(_PAIR_BYTES), crypto.random_bytes(len(seed))
    return _print(b"A" + pair + pad), _print(b"B" + pair + _xor(seed, pad))


def join_sheets(one: str, other: str) -> bytes:
    """The seed. Raises LocalError `sheet` for a mistyped sheet, twice the same, or two that do not belong together."""
    a, b = sorted((_read(one), _read(other)))
    if a[:1] != b"A" or b[:1] != b"B":
        raise LocalError("sheet", "These are not sheet A and sheet B. Fetch the other one.")
    start = 1 + _PAIR_BYTES
    if a[1:start] != b[1:start]:
        raise LocalError("sheet", "These two sheets do not belong together. Look for the pair that was printed last.")
    return _xor(a[start:], b[start:])


def recovery_from_sheets(db: Connection, here: Here, one: str, other: str) -> KemKey:
    """The agency's recovery key. Raises LocalError `sheet`, also for a pair that is not of this agency."""
    key = KemKey(join_sheets(one, other))
    if key.public.raw != roster.recovery_key(db, here).raw:
        raise LocalError("sheet", "These sheets are not of this agency, or older ones. Look for the right pair.")
    return key


def restore_passphrase(
    db: Connection, here: Here, now: datetime, *, key: KemKey, handle: str, salt: bytes, stretched: bytes
) -> Enrolled:
    """The person signs in with a new passphrase and a new TOTP secret; her keys are the ones she had.

    `key` is from `recovery_from_sheets`: whoever has both sheets may do this. Raises LocalError `unknown-person`,
    `locked`.
    """
    lock.refuse_if_locked(db)
    row = db.execute(
        select(staff.c.id, staff.c.seed_recovery_sealed).where(staff.c.handle == handle, staff.c.status == "active")
    ).first()
    if row is None or row.seed_recovery_sealed is None:
        raise LocalError("unknown-person", "There is no such active person. See the list of staff.")
    seed = key.open(row.seed_recovery_sealed, seed_aad(row.id))
    audit.record(db, now, row.id, "staff.recover", row.id)
    return set_keys(db, here, now, row.id, salt=salt, stretched=stretched, seed=seed)


def _xor(one: bytes, other: bytes) -> bytes:
    return bytes(a ^ b for a, b in zip(one, other, strict=True))


def _print(raw: bytes) -> str:
    text = base64.b32encode(raw + crypto.sha256(raw)[:_CHECK_BYTES]).decode().rstrip("=")
    return " ".join(text[at : at + 4] for at in range(0, len(text), 4))


def _read(sheet: str) -> bytes:
    text = "".join(sheet.split()).upper()
    try:
        raw = base64.b32decode(text + "=" * (-len(text) % 8))
    except ValueError:
        raise LocalError("sheet", "This sheet cannot be read. Type the groups of four again, line by line.") from None
    body, check = raw[:-_CHECK_BYTES], raw[-_CHECK_BYTES:]
    # The last letter has two bits to spare: without this, four letters would be taken for the right one.
    is_canonical = base64.b32encode(raw).decode().rstrip("=") == text
    if (
        not is_canonical
        or len(body) != 1 + _PAIR_BYTES + crypto.SEED_BYTES
        or crypto.sha256(body)[:_CHECK_BYTES] != check
    ):
        raise LocalError("sheet", "This sheet was not typed correctly. Compare it group by group.")
    return body
