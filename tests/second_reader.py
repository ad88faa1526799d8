# SPDX-License-Identifier: Apache-2.0
"""A second implementation of the reading half, written from `protocol/README.md` alone.

It imports nothing of `protocol/`: what it needs is in the specification, or the specification does not say enough. It
favours plainness over speed, and says only whether something is acceptable, not which check failed.
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
from typing import Any

from cryptography.exceptions import InvalidSignature, InvalidTag
from cryptography.hazmat.primitives import hpke
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.mldsa import MLDSA65PublicKey
from cryptography.hazmat.primitives.asymmetric.mlkem import MLKEM768PrivateKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

SUITE = hpke.Suite(hpke.KEM.MLKEM768_X25519, hpke.KDF.HKDF_SHA256, hpke.AEAD.CHACHA20_POLY1305)
SECTIONS = ["service", "identity", "contact", "safety", "health", "legal", "family", "trafficking", "narrative"]
SECTIONS.append("attachments")
DAY = 86_400


class Refused(Exception):
    """Not acceptable."""


def need(condition: bool) -> None:
    if not condition:
        raise Refused


def sha(data: bytes) -> bytes:
    return hashlib.sha256(data).digest()


def u32(raw: bytes) -> int:
    return int.from_bytes(raw, "big")


# -- section 2: encoding ---------------------------------------------------------------------------------------------


def canonical(value: Any) -> bytes:
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()


def read_json(raw: bytes, limit: int) -> Any:
    need(len(raw) <= limit)
    try:
        value = json.loads(raw.decode("utf-8"))
        need(canonical(value) == raw)
    except (ValueError, RecursionError, UnicodeError):
        raise Refused from None
    return value


def is_hex(value: object, digits: int) -> bool:
    return isinstance(value, str) and re.fullmatch(rf"[0-9a-f]{{{digits}}}", value) is not None


# -- section 3: primitives -------------------------------------------------------------------------------------------


class Opener:
    """A private sealing key, from its seed."""

    def __init__(self, seed: bytes) -> None:
        grown = hashlib.shake_256(seed).digest(96)
        kem, curve = MLKEM768PrivateKey.from_seed_bytes(grown[:64]), X25519PrivateKey.from_private_bytes(grown[64:])
        self.public = kem.public_key().public_bytes_raw() + curve.public_key().public_bytes_raw()
        self.hash = sha(self.public)
        self._key = hpke.MLKEM768X25519PrivateKey(kem, curve)

    def open(self, sealed: bytes, info: bytes) -> bytes:
        try:
            return SUITE.decrypt(sealed, self._key, info)
        except (InvalidTag, ValueError):
            raise Refused from None


def derive(secret: bytes, info: bytes, salt: bytes = b"") -> bytes:
    return HKDF(SHA256(), 32, salt, info).derive(secret)


def decrypt(key: bytes, nonce: int, sealed: bytes, aad: bytes) -> bytes:
    try:
        return ChaCha20Poly1305(key).decrypt(nonce.to_bytes(12, "big"), sealed, aad)
    except InvalidTag:
        raise Refused from None


def verify(public: bytes, label: bytes, message: bytes, ed25519: bytes, mldsa: bytes) -> None:
    signed = label + b"\0" + message
    y = u_little(public[:32])
    need(y not in SMALL_ORDER)
    try:
        Ed25519PublicKey.from_public_bytes(public[:32]).verify(ed25519, signed)
        MLDSA65PublicKey.from_public_bytes(public[32:]).verify(mldsa, signed)
    except (InvalidSignature, ValueError):
        raise Refused from None


def u_little(raw: bytes) -> int:
    return int.from_bytes(raw, "little") & (2**255 - 1)


_P = 2**255 - 19
_OTHERS = (
    0x05FC536D880238B13933C6D305ACDFD5F098EFF289F4C345B027B2C28F95E826,
    0x7A03AC9277FDC74EC6CC392CFA53202A0F67100D760B3CBA4FD83D3D706A17C7,
)
SMALL_ORDER = {0, 1, _P - 1, _P, _P + 1, *_OTHERS}
_OTHERS_U = (
    325606250916557431795983626356110631294008115727848805560023387167927233504,
    39382357235489614581723061781553021112529911719440698176882885853963445705823,
)
SMALL_ORDER_U = {0, 1, _P - 1, _P, _P + 1, *_OTHERS_U}


# -- section 7: the envelope -----------------------------------------------------------------------------------------


def open_envelope(case: dict[str, Any]) -> dict[str, Any]:
    """What the node may read, and the record as bytes under `body`."""
    raw, now = base64.b64decode(case["input"]), case["now"]
    need(len(raw) in (16_384, 65_536, 262_144))  # 1
    need(raw[:8] in (b"STF1\1\1\0\0", b"STF1\1\2\0\0"))  # 2
    need(u32(raw[52:56]) == len(raw) - 56)  # 3
    need(u32(raw[48:52]) + 7 >= now // DAY)  # 4
    keys = {key.hash[:8]: key for key in (Opener(bytes.fromhex(seed)) for seed in case["kem_seeds"])}
    need(raw[40:48] in keys)  # 5
    key = keys[raw[40:48]]
    if raw[5] == 1:  # 6
        padded = key.open(raw[56:], b"staffetta/1/envelope\0" + raw[:56])
    else:
        secret = key.open(raw[56:1224], b"staffetta/1/envelope-secret\0" + key.hash)
        padded = decrypt(derive(secret, b"staffetta/1/shared-envelope\0" + raw[:56]), 0, raw[1224:], b"")
    length = u32(padded[:4])
    need(4 + length <= len(padded))  # 7
    need(not any(padded[4 + length :]))
    inner, parts = padded[4 : 4 + length], []
    while inner:  # 8
        size = u32(inner[:4])
        need(len(inner) >= 4 + size)
        parts.append(inner[4 : 4 + size])
        inner = inner[4 + size :]
        need(len(parts) <= 6)
    need(len(parts) == 6 and len(parts[4]) == 64 and len(parts[5]) == 3309)
    binding_raw, content_raw, body, batch, ed25519, mldsa = parts
    binding = read_json(binding_raw, 1024)  # 9
    need(set(binding) == {"envelope", "sender_key", "recipient_key", "directory", "directory_hash", "audit_head"})
    need(binding["envelope"] == raw[24:40].hex() and binding["recipient_key"] == key.hash.hex())
    content = read_json(content_raw, 48 * 1024)  # 10
    check_header(content)
    need(content["to"] == case["agency"])
    sender = next((m for m in case["members"] if m["agency"] == content["from"]), None)  # 11
    need(sender is not None and content["from"] != case["agency"])
    assert sender is not None
    public = bytes.fromhex(sender["node_key"])
    need(sender["standing"] != "blocked" and now < sender["valid_until"])
    need(sha(public).hex() == binding["sender_key"])
    if body:  # 12
        need("thread" in content)
        sections, _ = read_record(body)
        need(set(sections) == set(content.get("sections", {})))
        if "consent" in content:
            need(set(sections) <= set(content["consent"]["sections"]))
    label = b"staffetta/1/receipt" if content["type"] == "receipt" else b"staffetta/1/message"
    count, index = int.from_bytes(batch[:2], "big"), int.from_bytes(batch[2:4], "big")
    need(len(batch) >= 4 and (len(batch) - 4) % 32 == 0 and 1 <= count <= 128 and index < count)  # 13
    leaf = sha(b"\0" + label + b"\0" + len(binding_raw).to_bytes(4, "big") + binding_raw + sha(content_raw) + sha(body))
    root = climb(leaf, index, count, [batch[at : at + 32] for at in range(4, len(batch), 32)])
    verify(public, label, count.to_bytes(2, "big") + root, ed25519, mldsa)  # 14
    need(now - 120 * DAY <= content["created"] <= now + DAY)  # 15
    need(content["created"] < content["expires"] and now <= content["expires"] + 7 * DAY)
    return {"content": content, "content_hash": sha(content_raw).hex(), "body": body}


def climb(node: bytes, index: int, count: int, path: list[bytes]) -> bytes:
    """RFC 9162, 2.1.3.2, told from the top: in which half of how many leaves does this one lie?"""
    turns = []
    while count > 1:
        half = 1
        while half * 2 < count:
            half *= 2
        is_left = index < half
        turns.append(is_left)
        index, count = (index, half) if is_left else (index - half, count - half)
    need(len(turns) == len(path))
    for is_left, sibling in zip(reversed(turns), path, strict=True):
        node = sha(b"\1" + node + sibling) if is_left else sha(b"\1" + sibling + node)
    return node


_BASE = {"version", "type", "id", "from", "to", "created", "expires"}
_THREADED = {"desk", "thread", "epoch", "seq", "priority"}
_MAY = {"prev", "due", "consent", "sections", "attachments", "part_of", "derived_from"}


def check_header(content: Any) -> None:
    """The types that the vectors show; the others of section 6 are built alike."""
    need(isinstance(content, dict) and content.get("version") == 1)
    shown = (
        "referral.request",
        "referral.note",
        "attachment.part",
        "backstop.card",
        "followup.overdue",
        "hello",
        "receipt",
    )
    need(content.get("type") in shown)
    must, may = _BASE, set()
    if content["type"] == "referral.request":
        must, may = _BASE | _THREADED | {"kind", "reply_desk"}, _MAY | {"needed_by", "backstop", "members"}
        need(content["priority"] in ("emergency", "urgent", "normal") and content["kind"] in ("referral", "transfer"))
        need(all(is_hex(content[name], 32) for name in ("desk", "thread", "epoch", "reply_desk")))
        need(is_count(content["seq"]))
        need("members" not in content or (is_count(content["members"]) and 1 <= content["members"] <= 12))
    elif content["type"] == "referral.note":
        must, may = _BASE | _THREADED | {"referral"}, _MAY | {"question", "answers", "member"}
        need(all(is_hex(content[name], 32) for name in ("desk", "thread", "epoch", "referral")))
        need(all(is_hex(content[name], 32) for name in ("answers", "member") if name in content))
        need(is_count(content["seq"]))
    elif content["type"] == "attachment.part":
        must, may = _BASE | _THREADED | {"referral", "attachment", "index", "parts"}, _MAY
        need(all(is_hex(content[name], 32) for name in ("desk", "thread", "epoch", "referral", "attachment")))
        need(all(is_count(content[name]) for name in ("seq", "index", "parts")) and content["index"] < 107)
        need(1 <= content["parts"] <= 107)
    elif content["type"] == "backstop.card":
        must, may = _BASE | _THREADED | {"state", "reply_desk"}, _MAY
        need(content["state"] in ("planned", "overdue", "orphaned", "ended", "opened", "taken"))
        need(all(is_hex(content[name], 32) for name in ("desk", "thread", "epoch", "reply_desk")))
        need(is_count(content["seq"]))
    elif content["type"] == "followup.overdue":
        must = _BASE | {"about", "due"}
        need(is_hex(content["about"], 64) and is_count(content["due"]))
    elif content["type"] == "hello":
        must, may = _BASE | {"epoch", "bundle_at"}, {"retired"}
        need(content.get("retired", True) is True)
    else:
        must = _BASE | {"entries"}
    need(must <= set(content) <= must | may)
    need(is_hex(content["id"], 32) and is_hex(content["from"], 64) and is_hex(content["to"], 64))
    need(is_count(content["created"]) and is_count(content["expires"]))


def is_count(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 2**53


# -- section 5: the record -------------------------------------------------------------------------------------------


def read_record(raw: bytes) -> tuple[dict[str, bytes], dict[bytes, tuple[bytes, bytes, dict[str, bytes]]]]:
    """Sections by name, and keyrings by the hash of a desk key: (what was sealed, salt, entries)."""
    at = 0

    def take(count: int) -> bytes:
        nonlocal at
        need(at + count <= len(raw))
        at += count
        return raw[at - count : at]

    def names(count: int) -> Any:
        last = 0
        for _ in range(count):
            code = take(1)[0]
            need(last < code <= len(SECTIONS))
            last = code
            yield SECTIONS[code - 1]

    version = take(1)[0]
    need(version in (1, 2))
    sections = {name: take(u32(take(4))) for name in names(take(1)[0])}
    most = {name: (240 if name == "attachments" else 64) * 1024 + 48 for name in SECTIONS}
    need(all(48 <= len(sealed) <= most[name] for name, sealed in sections.items()))
    rings: dict[bytes, tuple[bytes, bytes, dict[str, bytes]]] = {}
    count = take(1)[0]
    need(count <= 16)
    previous = b""
    for _ in range(count):
        key_hash = take(32)
        need(key_hash > previous)
        previous = key_hash
        sealed, salt = take(1168), take(32 if version == 2 else 0)
        rings[key_hash] = sealed, salt, {name: take(48) for name in names(take(1)[0])}
    need(at == len(raw))
    return sections, rings


def open_record(case: dict[str, Any], raw: bytes) -> dict[str, str]:
    """The plain JSON of each section that the desk key opens."""
    desk = Opener(bytes.fromhex(case["desk_seed"]))
    sections, rings = read_record(raw)
    need(desk.hash in rings)
    sealed, salt, entries = rings[desk.hash]
    bound = bytes.fromhex("".join(case[n] for n in ("sender", "recipient", "thread", "message", "content_hash")))
    if not salt:
        ring_key = desk.open(sealed, b"staffetta/1/keyring\0" + bound + desk.hash)
    else:
        secret = desk.open(sealed, b"staffetta/1/keyring-secret\0" + bound[:64] + desk.hash)
        ring_key = derive(secret, b"staffetta/1/shared-keyring\0" + bound + desk.hash, salt)
    opened = {}
    for name, wrapped in entries.items():
        if name not in sections:
            continue
        code = SECTIONS.index(name) + 1
        need(is_hex(case["commitments"].get(name), 64))
        commitment = bytes.fromhex(case["commitments"][name])
        key = decrypt(ring_key, code, wrapped, b"")
        aad = b"staffetta/1/section\0" + bytes([code]) + commitment
        salted = decrypt(key, 0, sections[name], aad)
        need(sha(salted) == commitment)
        opened[name] = salted[32:].decode()
    return opened


# -- section 4: the key bundle ---------------------------------------------------------------------------------------


def signed_by(signed: Any, label: bytes, *keys: bytes) -> Any:
    need(set(signed) == {"statement", "signatures"} and len(signed["signatures"]) == len(keys))
    raw = base64.b64decode(signed["statement"], validate=True)
    values = {s["key"]: base64.b64decode(s["value"], validate=True) for s in signed["signatures"]}
    for key in keys:
        value = values.get(sha(key).hex(), b"")
        need(len(value) == 64 + 3309)
        verify(key, label, raw, value[:64], value[64:])
    return read_json(raw, 512 * 1024)


def need_sealing_key(key: bytes) -> None:
    """3.4: of the right size, and not under a point of small order."""
    need(len(key) == 1216 and u_little(key[1184:]) not in SMALL_ORDER_U)


def open_bundle(raw: bytes, now: int) -> tuple[dict[str, Any], list[str]]:
    """Agency, desks, and the pair that orders bundles; and the hashes of all its roots."""
    signed = read_json(raw, 1024 * 1024)  # 1
    bundle = read_json(base64.b64decode(signed["statement"]), 512 * 1024)
    root = base64.b64decode(bundle["root"])
    roots = [sha(root).hex()]
    need(sha(b"staffetta/1/root\0" + root).hex() == bundle["agency"])  # 2
    for serial, link in enumerate(bundle.get("successions", []), start=1):  # 3
        new = base64.b64decode(json.loads(base64.b64decode(link["statement"]))["root"])
        statement = signed_by(link, b"staffetta/1/succession", root, new)
        need(statement["agency"] == bundle["agency"] and statement["serial"] == serial)
        need(statement["previous"] == sha(root).hex())
        root = new
        roots.append(sha(root).hex())
    node = signed_by(bundle["node"], b"staffetta/1/node", root)  # 4
    need(node["agency"] == bundle["agency"] and node["not_before"] <= now < node["not_after"])
    signed_by(signed, b"staffetta/1/bundle", base64.b64decode(node["key"]))  # 5
    officers = {}
    for entry in bundle.get("officers", []):  # 6
        officer = signed_by(entry, b"staffetta/1/officer", root)
        need(officer["agency"] == bundle["agency"])
        key = base64.b64decode(officer["key"])
        if officer["not_before"] <= now < officer["not_after"]:
            officers[sha(key).hex()] = key
    desks = []
    for entry in bundle.get("desks", []):  # 7
        signer = entry["certificate"]["signatures"][0]["key"]
        need(signer in officers)
        desk = signed_by(entry["certificate"], b"staffetta/1/desk", officers[signer])
        need(desk["agency"] == bundle["agency"] and desk["desk"] not in desks)
        need_sealing_key(base64.b64decode(desk["key"]))
        desks.append(desk["desk"])
    for entry in bundle["kem"]:
        need_sealing_key(base64.b64decode(entry["key"]))
    found = {"agency": bundle["agency"], "desks": desks, "order": [node["serial"], bundle["at"]]}
    if "versions" in bundle:
        need(1 <= len(bundle["versions"]) <= 8 and bundle["versions"] != [1])
        found["versions"] = bundle["versions"]
    return found, roots


# -- section 13: alerts ----------------------------------------------------------------------------------------------

_SAYS = {
    "place-or-pattern": {"narrative"},
    "pseudonymous-person": {"narrative", "identity"},
    "identified-person": {"narrative", "identity", "contact", "safety"},
}


def read_alert(content: Any, now: int) -> dict[str, Any]:
    """13.8, on the header of an `alert.raise` that was opened."""
    need(content["type"] == "alert.raise" and content["form"] in _SAYS)
    sections, claim = set(content.get("sections", {})), content.get("consent")
    found = {"form": content["form"], "basis": claim and claim["basis"]}
    if content.get("test"):
        need(content["form"] == "place-or-pattern" and not sections and claim is None and "review_by" not in content)
        return found
    need(sections <= _SAYS[content["form"]] and "narrative" in sections)
    if content["form"] == "place-or-pattern":
        need(claim is None and "review_by" not in content)
        return found
    need("identity" in sections and claim is not None)
    need(claim["purposes"] == ["law-enforcement"] and claim.get("onward", "none") == "none")
    days = 30 if claim["basis"] == "consent" else 7
    need(claim["until"] <= content["created"] + days * 86_400)
    if "review_by" in content:
        need(claim["basis"] != "consent" and content["urgency"] == "Immediate")
        need(content["review_by"] <= content["created"] + 86_400)
    need(now < claim["until"] and sections <= set(claim["sections"]))
    return found


# -- section 9.4: do you reach us? ------------------------------------------------------------------------------------


def read_callback(case: dict[str, Any], raw: bytes) -> dict[str, Any]:
    """A question for us; with `asked`, an answer to that one."""
    bundle = base64.b64decode(case["bundle"])
    sender = open_bundle(bundle, case["now"])[0]["agency"]
    node = json.loads(base64.b64decode(json.loads(bundle)["statement"]))["node"]
    key = base64.b64decode(json.loads(base64.b64decode(node["statement"]))["key"])
    label = b"staffetta/1/callback-answer" if "asked" in case else b"staffetta/1/callback"
    said = signed_by(read_json(raw, 16 * 1024), label, key)
    need(said["agency"] == sender and is_hex(said["id"], 32) and isinstance(said["at"], int))
    if "asked" in case:
        need(set(said) == {"agency", "peer", "id", "at", "seen", "newer"})
        need(said["peer"] == case["asked"]["agency"] and said["id"] == case["asked"]["id"])
        need(said["seen"] in ("reached", "not-reached") and isinstance(said["newer"], bool))
        return {"seen": said["seen"], "newer": said["newer"]}
    need(set(said) == {"agency", "peer", "id", "at", "version"} and said["peer"] == case["us"])
    need(re.fullmatch(r"[0-9]{1,4}(\.[0-9]{1,4}){1,3}", said["version"]) is not None)
    need(abs(said["at"] - case["now"]) <= DAY)
    return {"id": said["id"], "version": said["version"]}


def read(case: dict[str, Any]) -> dict[str, Any]:
    """What a vector should be read as. Raises Refused."""
    raw = base64.b64decode(case["input"])
    if case["kind"] == "record":
        return {"sections": open_record(case, raw)}
    if case["kind"] == "alert":
        return read_alert(json.loads(raw), case["now"])
    if case["kind"] == "callback":
        return read_callback(case, raw)
    if case["kind"] == "bundle":
        found, roots = open_bundle(raw, case["now"])
        if "previous" in case:
            before, known = open_bundle(base64.b64decode(case["previous"]), case["now"])
            need(found["agency"] == before["agency"] and found["order"] >= before["order"])  # 8
            need(known[-1] in roots)
        return found
    opened = open_envelope(case)
    found = {"content": canonical(opened["content"]).decode(), "content_hash": opened["content_hash"]}
    if "desk_seed" in case:
        content = opened["content"]
        names = {"sender": "from", "recipient": "to", "thread": "thread", "message": "id", "commitments": "sections"}
        about = {ours: content[theirs] for ours, theirs in names.items()}
        record = about | {"content_hash": opened["content_hash"], "desk_seed": case["desk_seed"]}
        found["sections"] = open_record(record, opened["body"])
    return found
