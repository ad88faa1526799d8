# SPDX-License-Identifier: Apache-2.0
"""Writes the test vectors of the specification: `python -m tests.make_vectors` adds those that are missing.

A published vector is never changed. Sealing and signing are randomised, so that a vector that is made again differs in
its bytes and not in its meaning. People, places and agencies are invented.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from protocol import crypto, envelope, identity, messages, record
from protocol.codes import AgencyType, Basis, CardState, Kind, Priority, Purpose, ReceiptStatus, Section
from protocol.crypto import KemKey, SigningKey
from protocol.encoding import DAY_SECONDS, encode
from protocol.envelope import Outgoing
from protocol.identity import (
    Bundle,
    DeskCertificate,
    DeskEntry,
    KemEntry,
    NodeCertificate,
    OfficerCertificate,
    Signed,
    Succession,
)

FOLDER = Path(__file__).with_name("vectors")
NOW = 1_803_859_200  # 2027-03-01T00:00:00Z
DAY = DAY_SECONDS


def seed(name: str) -> bytes:
    """A fixed seed for each key of the vectors."""
    return crypto.sha256(b"staffetta vector " + name.encode())


def number(name: str) -> str:
    """A fixed id."""
    return crypto.sha256_hex(b"staffetta vector id " + name.encode())[:32]


class Party:
    """An agency of the vectors with all its keys."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.root = SigningKey(seed(f"{name} root"))
        self.officer = SigningKey(seed(f"{name} officer"))
        self.node = SigningKey(seed(f"{name} node"))
        self.kem = KemKey(seed(f"{name} kem"))
        self.desk_key = KemKey(seed(f"{name} desk"))
        self.agency = identity.agency_id(self.root.public.raw)
        self.desk = number(f"{name} desk")


LANTERN, HARBOUR, OTHER = (
    Party("Lantern House (invented)"),
    Party("Harbour Shelter (invented)"),
    Party("Third (invented)"),
)

SECTIONS = {
    Section.SERVICE: b'{"details":"A room for some weeks."}',
    Section.CONTACT: b'{"telephone":"+39 055 0000 000"}',
    Section.NARRATIVE: encode({"text": "Ogni parola è inventata. كل كلمة مخترعة. 🕯"}),
}


def request(sections: dict[Section, str] | None = None, **changes: Any) -> messages.ReferralRequest:
    """A referral from Lantern to Harbour."""
    names = tuple(sorted(sections or {}))
    fields: dict[str, Any] = {
        "version": 1,
        "id": number("referral"),
        "sender": LANTERN.agency,
        "recipient": HARBOUR.agency,
        "created": NOW,
        "expires": NOW + 30 * DAY,
        "desk": HARBOUR.desk,
        "thread": number("thread"),
        "epoch": number("epoch"),
        "seq": 1,
        "priority": Priority.URGENT,
        "kind": Kind.REFERRAL,
        "reply_desk": LANTERN.desk,
        "sections": sections or {},
    }
    if names:
        fields["consent"] = messages.Claim(
            release=number("release"),
            purposes=(Purpose.REFERRAL,),
            sections=names,
            until=NOW + 90 * DAY,
            basis=Basis.CONSENT,
        )
    return messages.ReferralRequest(**(fields | changes))


def with_record(shared: record.Shared | None = None, **changes: Any) -> Outgoing:
    """The referral with its sealed record."""
    salted, commitments = record.salt(SECTIONS)
    content = request(commitments, **changes)
    raw = encode(content)
    readers = {HARBOUR.desk_key.public: list(SECTIONS), LANTERN.desk_key.public: list(SECTIONS)}
    return Outgoing(raw, record.seal(salted, readers, context(content, raw), shared))


def context(content: messages.Threaded, raw: bytes) -> record.Context:
    return record.Context(content.sender, content.recipient, content.thread, content.id, crypto.sha256_hex(raw))


@dataclass
class Forge:
    """Builds an envelope step by step, so that each step can be done wrongly."""

    messages: list[Outgoing] = field(default_factory=lambda: [with_record()])
    index: int = 0
    signer: SigningKey = LANTERN.node
    sender_key: str = ""
    recipient: KemKey = HARBOUR.kem
    bound_to: str = ""
    label: bytes = envelope.LABEL_MESSAGE
    expiry_day: int = NOW // DAY + 30
    edit_binding: Callable[[bytes], bytes] = lambda raw: raw
    edit_parts: Callable[[list[bytes]], list[bytes]] = lambda parts: parts
    edit_inner: Callable[[bytes], bytes] = lambda inner: inner
    edit_padded: Callable[[bytearray], bytearray] = lambda padded: padded
    edit_header: Callable[[bytearray], bytearray] = lambda header: header
    edit_raw: Callable[[bytearray], bytearray] = lambda raw: raw
    #: Suite 2, and for which key's hash its secret is bound.
    shares: bool = False
    secret_for: str = ""

    def build(self) -> bytes:
        ids = [crypto.new_id() for _ in self.messages]
        bindings = [
            self.edit_binding(
                encode(
                    envelope.Binding(
                        envelope=envelope_id,
                        sender_key=self.sender_key or self.signer.public.hash,
                        recipient_key=self.bound_to or self.recipient.public.hash,
                        directory=0,
                        directory_hash="0" * 64,
                        audit_head="0" * 64,
                    )
                )
            )
            for envelope_id in ids
        ]
        leaves = [
            envelope.leaf(self.label, b, crypto.sha256(out.content), crypto.sha256(out.body))
            for b, out in zip(bindings, self.messages, strict=True)
        ]
        root, paths = envelope.merkle(leaves)
        signature = self.signer.sign(self.label, len(leaves).to_bytes(2) + root)
        out = self.messages[self.index]
        proof = len(leaves).to_bytes(2) + self.index.to_bytes(2) + b"".join(paths[self.index])
        parts = [bindings[self.index], out.content, out.body, proof, signature[:64], signature[64:]]
        inner = self.edit_inner(b"".join(len(p).to_bytes(4) + p for p in self.edit_parts(parts)))
        sealing = crypto.SEALED_SECRET_BYTES + crypto.TAG_BYTES if self.shares else crypto.SEAL_OVERHEAD_BYTES
        around = envelope.HEADER_BYTES + sealing + 4
        size = next(s for s in envelope.ENVELOPE_SIZES if s >= len(inner) + around)
        header = bytearray(
            (b"STF1\1\2\0\0" if self.shares else b"STF1\1\1\0\0")
            + bytes.fromhex(envelope.mailbox(self.recipient.public.hash))
            + bytes.fromhex(ids[self.index])
            + bytes.fromhex(self.recipient.public.hash[:16])
            + self.expiry_day.to_bytes(4)
            + (size - envelope.HEADER_BYTES).to_bytes(4)
        )
        header = self.edit_header(header)
        padded = self.edit_padded(bytearray(len(inner).to_bytes(4) + inner + bytes(size - around - len(inner))))
        sealed = self.seal(bytes(padded), bytes(header))
        return bytes(self.edit_raw(bytearray(bytes(header) + sealed)))

    def seal(self, padded: bytes, header: bytes) -> bytes:
        public = self.recipient.public
        if not self.shares:
            return public.seal(padded, envelope.LABEL_ENVELOPE + header)
        bound = bytes.fromhex(self.secret_for or public.hash)
        secret = crypto.SealedSecret(public, envelope.LABEL_SECRET + bound)
        return secret.sealed + crypto.seal_once(secret.key(envelope.LABEL_SHARED + header), padded, b"")


def content_of(raw: bytes, body: bytes = b"") -> Forge:
    """An envelope with this header, whatever it says."""
    return Forge(messages=[Outgoing(raw, body)])


def changed(old: str, new: str, **fields: Any) -> Forge:
    """A referral without a record in whose canonical JSON one text was replaced."""
    raw = encode(request(**fields)).decode()
    assert old in raw, old
    return content_of(raw.replace(old, new, 1).encode("utf-8", "surrogatepass"))


def flip(at: int) -> Callable[[bytearray], bytearray]:
    def edit(raw: bytearray) -> bytearray:
        raw[at] ^= 1
        return raw

    return edit


def put(at: int, value: bytes) -> Callable[[bytearray], bytearray]:
    def edit(raw: bytearray) -> bytearray:
        raw[at : at + len(value)] = value
        return raw

    return edit


def part(index: int, edit: Callable[[bytes], bytes]) -> Callable[[list[bytes]], list[bytes]]:
    def edit_all(parts: list[bytes]) -> list[bytes]:
        return [edit(p) if i == index else p for i, p in enumerate(parts)]

    return edit_all


def receipt(**changes: Any) -> messages.Receipt:
    """Harbour's receipt, here sent by Lantern so that the same keys serve."""
    entry = messages.ReceiptEntry(
        message=number("acknowledged"),
        content="ab" * 32,
        envelope=number("envelope"),
        status=ReceiptStatus.DELIVERED,
        at=NOW,
    )
    fields: dict[str, Any] = {
        "version": 1,
        "id": number("receipt"),
        "sender": LANTERN.agency,
        "recipient": HARBOUR.agency,
        "created": NOW,
        "expires": NOW + 30 * DAY,
        "entries": (entry,),
    }
    return messages.Receipt(**(fields | changes))


def hello(**changes: Any) -> messages.Hello:
    fields: dict[str, Any] = {
        "version": 1,
        "id": number("hello"),
        "sender": LANTERN.agency,
        "recipient": HARBOUR.agency,
        "created": NOW,
        "expires": NOW + 30 * DAY,
        "epoch": number("epoch"),
        "bundle_at": NOW,
    }
    return messages.Hello(**(fields | changes))


def members(**changes: Any) -> list[dict[str, Any]]:
    """Whom the recipient knows."""
    known = {
        "agency": LANTERN.agency,
        "node_key": LANTERN.node.public.raw.hex(),
        "valid_until": NOW + 300 * DAY,
        "standing": "verified",
    }
    return [known | changes]


def envelope_case(
    about: str,
    made: Forge,
    *,
    code: str = "",
    public: str = "refused",
    sections: dict[Section, bytes] | None = None,
    **world: Any,
) -> dict[str, Any]:
    """One vector of kind `envelope`."""
    raw = made.build()
    case: dict[str, Any] = {
        "kind": "envelope",
        "about": about,
        "now": NOW,
        "agency": HARBOUR.agency,
        "kem_seeds": [HARBOUR.kem.seed.hex()],
        "members": members(),
    } | world
    if code:
        case["refuse"] = {"code": code, "public": public}
    else:
        out = made.messages[made.index]
        case["accept"] = {"content": out.content.decode(), "content_hash": crypto.sha256_hex(out.content)}
        if out.body:
            case["accept"]["sections"] = {str(name): plain.decode() for name, plain in (sections or SECTIONS).items()}
            case["desk_seed"] = HARBOUR.desk_key.seed.hex()
    case["input"] = base64.b64encode(raw).decode()
    return case


def three() -> list[Outgoing]:
    return [with_record(), Outgoing(encode(request(id=number("second"), seq=2))), Outgoing(encode(hello()))]


def sharing() -> list[Outgoing]:
    """Three that were written at one moment: their records share a secret for each desk."""
    shared = record.Shared()
    return [
        with_record(shared, id=number(name), seq=seq) for seq, name in enumerate(("referral", "second", "third"), 1)
    ]


def deep(depth: int) -> str:
    return "[" * depth + "]" * depth


def envelopes() -> dict[str, Callable[[], dict[str, Any]]]:
    """Everything about one envelope. A name says what is wrong with it."""
    case = envelope_case
    cut = with_record()
    return {
        "accept-referral-with-three-sections": lambda: case("One message, three sealed sections.", Forge()),
        "accept-second-of-a-batch-of-three": lambda: case("Place 1 of a batch.", Forge(messages=three(), index=1)),
        "accept-last-of-a-batch-of-three": lambda: case(
            "The odd leaf of an unbalanced tree; a message without a thread.", Forge(messages=three(), index=2)
        ),
        "accept-suite-2-first-of-three-that-share": lambda: case(
            "One secret was sealed for three envelopes, and one for each desk of their three records.",
            Forge(messages=sharing(), shares=True),
        ),
        "accept-suite-2-last-of-three": lambda: case(
            "A message without a thread; its envelope shares, and it has no record.",
            Forge(messages=three(), index=2, shares=True),
        ),
        "accept-suite-2-by-itself": lambda: case(
            "Who reads need not know how many share.", Forge(messages=[Outgoing(encode(hello()))], shares=True)
        ),
        "accept-hello-of-a-node-that-has-retired": lambda: case(
            "The last word of an agency that ends.", content_of(encode(hello(retired=True)))
        ),
        "refuse-hello-with-retired-false": lambda: case(
            "Step 10: what has its default value is absent.",
            content_of(encode(hello(retired=True)).replace(b'"retired":true', b'"retired":false')),
            code="not-canonical",
        ),
        "accept-receipt": lambda: case(
            "Receipts are signed under their own label.",
            Forge(messages=[Outgoing(encode(receipt()))], label=envelope.LABEL_RECEIPT),
        ),
        "accept-header-alone-after-consent-ended": lambda: case(
            "The record stayed behind; the commitments stay in the header.",
            content_of(encode(request({Section.SERVICE: "cd" * 32}))),
        ),
        "accept-part-of-a-file": lambda: case(
            "A part is larger than any other section may be.",
            file_part(),
            sections={Section.ATTACHMENTS: b"invented " * (70_000 // 9)},
        ),
        "accept-backstop-card": lambda: case(
            "A thread may begin with it; `due` is the next follow-up.",
            backstop_card(),
            sections={Section.CONTACT: SECTIONS[Section.CONTACT]},
        ),
        "accept-backstop-card-with-another-date": lambda: case(
            "Without sections and without a claim: only the date and the state have changed.",
            content_of(encode(card_header(due=NOW + 30 * DAY, seq=2, prev="ab" * 32))),
        ),
        "refuse-backstop-card-in-an-unknown-state": lambda: case(
            "Step 10.", content_of(encode(card_header()).replace(b'"planned"', b'"dormant"')), code="malformed"
        ),
        "accept-followup-overdue": lambda: case(
            "Which agency has missed a follow-up, and of nobody in particular.", content_of(encode(overdue()))
        ),
        "refuse-followup-overdue-about-a-thread": lambda: case(
            "Step 10: it has no field that could say whose.",
            content_of(json_with(encode(overdue()), thread=number("thread"))),
            code="malformed",
        ),
        "accept-referral-of-a-group": lambda: case(
            "Two others come with the person; each is told by a note of her own.", Forge([with_record(members=2)])
        ),
        "accept-another-person-of-the-group": lambda: case(
            "Her own sections, under her own release.", group_note(), sections={Section.SERVICE: GROUP_NOTE}
        ),
        "refuse-group-of-more-than-twelve": lambda: case(
            "Step 10: at most 12 others.",
            changed('"kind":"referral"', '"kind":"referral","members":13'),
            code="malformed",
        ),
        "refuse-part-of-a-file-beyond-the-last": lambda: case(
            "Step 10: a file has at most 107 parts.", file_part(size=16, index=107), code="malformed"
        ),
        "accept-replay-on-day-119": lambda: case(
            "Old, and inside the horizon.",
            Forge(
                messages=[Outgoing(encode(request(created=NOW - 119 * DAY, expires=NOW)))],
            ),
        ),
        "accept-six-days-after-expiry": lambda: case(
            "A peer with a slow clock has seven days of grace.",
            content_of(encode(request(created=NOW - 36 * DAY, expires=NOW - 6 * DAY))),
        ),
        # Steps 1 to 5: what can be told before anything is decrypted.
        "refuse-size-one-byte-short": lambda: case(
            "Step 1.", Forge(edit_raw=lambda raw: raw[:-1]), code="bad-size", public="malformed"
        ),
        "refuse-size-one-byte-more": lambda: case(
            "Step 1.", Forge(edit_raw=lambda raw: raw + b"\0"), code="bad-size", public="malformed"
        ),
        "refuse-magic": lambda: case("Step 2.", Forge(edit_raw=put(0, b"STF2")), code="bad-header", public="malformed"),
        "refuse-version-2": lambda: case(
            "Step 2.", Forge(edit_raw=put(4, b"\2")), code="bad-header", public="malformed"
        ),
        "refuse-suite-downgrade": lambda: case(
            "Step 2: suite 0.", Forge(edit_raw=put(5, b"\0")), code="bad-header", public="malformed"
        ),
        "refuse-suite-3": lambda: case("Step 2.", Forge(edit_raw=put(5, b"\3")), code="bad-header", public="malformed"),
        "refuse-flags-set": lambda: case(
            "Step 2.", Forge(edit_raw=put(7, b"\1")), code="bad-header", public="malformed"
        ),
        "refuse-ciphertext-length": lambda: case(
            "Step 3.", Forge(edit_raw=put(52, (1).to_bytes(4))), code="bad-length", public="malformed"
        ),
        "refuse-outer-expiry-long-past": lambda: case(
            "Step 4: eight days.", Forge(expiry_day=NOW // DAY - 8), code="expired", public="expired"
        ),
        "refuse-key-that-is-gone": lambda: case(
            "Step 5.", Forge(recipient=KemKey(seed("destroyed"))), code="unknown-key", public="unknown-key"
        ),
        # Step 6: the header is bound, the ciphertext authentic.
        "refuse-ciphertext-flipped": lambda: case("Step 6.", Forge(edit_raw=flip(-1)), code="cannot-open"),
        "refuse-encapsulation-flipped": lambda: case("Step 6.", Forge(edit_raw=flip(56)), code="cannot-open"),
        "refuse-mailbox-changed": lambda: case("Step 6: bound.", Forge(edit_raw=flip(8)), code="cannot-open"),
        "refuse-envelope-id-changed": lambda: case("Step 6: bound.", Forge(edit_raw=flip(24)), code="cannot-open"),
        "refuse-expiry-changed": lambda: case("Step 6: bound.", Forge(edit_raw=flip(51)), code="cannot-open"),
        "refuse-suite-1-called-suite-2": lambda: case(
            "Step 6: bound.", Forge(edit_raw=put(5, b"\2")), code="cannot-open"
        ),
        "refuse-suite-2-called-suite-1": lambda: case(
            "Step 6: bound.", Forge(shares=True, edit_raw=put(5, b"\1")), code="cannot-open"
        ),
        "refuse-suite-2-secret-flipped": lambda: case(
            "Step 6: the encapsulation.", Forge(shares=True, edit_raw=flip(56)), code="cannot-open"
        ),
        "refuse-suite-2-secret-with-another-tag": lambda: case(
            "Step 6: the sealed secret is authentic.", Forge(shares=True, edit_raw=flip(1223)), code="cannot-open"
        ),
        "refuse-suite-2-ciphertext-flipped": lambda: case(
            "Step 6.", Forge(shares=True, edit_raw=flip(-1)), code="cannot-open"
        ),
        "refuse-suite-2-mailbox-changed": lambda: case(
            "Step 6: bound.", Forge(shares=True, edit_raw=flip(8)), code="cannot-open"
        ),
        "refuse-suite-2-envelope-id-changed": lambda: case(
            "Step 6: bound; the key of each envelope comes from its id too.",
            Forge(shares=True, edit_raw=flip(24)),
            code="cannot-open",
        ),
        "refuse-suite-2-expiry-changed": lambda: case(
            "Step 6: bound.", Forge(shares=True, edit_raw=flip(51)), code="cannot-open"
        ),
        "refuse-suite-2-secret-of-another-key": lambda: case(
            "Step 6: sealed to our key, and bound to the hash of a third agency's.",
            Forge(shares=True, secret_for=OTHER.kem.public.hash),
            code="cannot-open",
        ),
        "refuse-suite-2-surreptitious-forwarding": lambda: case(
            "Step 9: signed for a third agency's key, sealed again for this one.",
            Forge(shares=True, bound_to=OTHER.kem.public.hash),
            code="wrong-binding",
        ),
        # Steps 7 and 8.
        "refuse-padding-not-zero": lambda: case("Step 7.", Forge(edit_padded=flip(-1)), code="bad-padding"),
        "refuse-inner-length-beyond-end": lambda: case(
            "Step 7.", Forge(edit_padded=put(0, b"\xff\xff\xff\xff")), code="bad-padding"
        ),
        "refuse-five-parts": lambda: case("Step 8.", Forge(edit_parts=lambda p: p[:5]), code="bad-parts"),
        "refuse-seven-parts": lambda: case("Step 8.", Forge(edit_parts=lambda p: [*p, b""]), code="bad-parts"),
        "refuse-part-runs-over": lambda: case("Step 8.", Forge(edit_inner=lambda i: i[:-1]), code="bad-parts"),
        "refuse-mldsa-signature-stripped": lambda: case(
            "Step 8: both signatures are needed.", Forge(edit_parts=part(5, lambda _: b"")), code="bad-parts"
        ),
        "refuse-ed25519-signature-stripped": lambda: case(
            "Step 8: both signatures are needed.", Forge(edit_parts=part(4, lambda _: b"")), code="bad-parts"
        ),
        # Step 9.
        "refuse-binding-not-canonical": lambda: case(
            "Step 9.", Forge(edit_binding=lambda b: b.replace(b",", b", ", 1)), code="not-canonical"
        ),
        "refuse-binding-with-unknown-field": lambda: case(
            "Step 9.", Forge(edit_binding=lambda b: b[:-1] + b',"zzz":1}'), code="malformed"
        ),
        "refuse-binding-of-another-envelope": lambda: case(
            "Step 9: the same signed payload in a new envelope.",
            Forge(edit_binding=forged_id),
            code="wrong-binding",
        ),
        "refuse-surreptitious-forwarding": lambda: case(
            "Step 9: signed for a third agency's key, sealed again for this one.",
            Forge(bound_to=OTHER.kem.public.hash),
            code="wrong-binding",
        ),
        # Step 10.
        "refuse-content-of-another-recipient": lambda: case(
            "Step 10.", content_of(encode(request(recipient=OTHER.agency))), code="wrong-recipient"
        ),
        "refuse-json-keys-not-sorted": lambda: case("Step 10.", unsorted(), code="not-canonical"),
        "refuse-json-white-space": lambda: case("Step 10.", changed(',"desk"', ', "desk"'), code="not-canonical"),
        "refuse-json-escape-that-need-not-be": lambda: case(
            "Step 10.", changed('"urgent"', '"ur\\u0067ent"'), code="not-canonical"
        ),
        "refuse-json-duplicate-key": lambda: case(
            "Step 10: parsers differ in which one they take.",
            changed('"seq":1', '"seq":1,"seq":1'),
            code="not-canonical",
        ),
        "refuse-json-float": lambda: case("Step 10.", changed('"seq":1', '"seq":1.0'), code="malformed"),
        "refuse-json-huge-integer": lambda: case(
            "Step 10.", changed('"seq":1', '"seq":' + "9" * 400), code="malformed"
        ),
        "refuse-json-negative-seq": lambda: case("Step 10.", changed('"seq":1', '"seq":-1'), code="malformed"),
        "refuse-json-unknown-field": lambda: case(
            "Step 10: a field in which a text would fit.", changed('"seq":1', '"seq":1,"title":"x"'), code="malformed"
        ),
        "refuse-json-depth": lambda: case(
            "Step 10: a thousand levels.", changed('"seq":1', '"seq":' + deep(1000)), code="malformed"
        ),
        "refuse-json-lone-surrogate": lambda: case("Step 10.", changed('"urgent"', '"\ud800"'), code="malformed"),
        "refuse-json-byte-order-mark": lambda: case(
            "Step 10.", content_of(b"\xef\xbb\xbf" + encode(request())), code="malformed"
        ),
        "refuse-id-with-capitals": lambda: case(
            "Step 10.", changed(number("referral"), number("referral").upper()), code="malformed"
        ),
        "refuse-text-in-a-code": lambda: case("Step 10.", changed('"urgent"', '"Maria"'), code="malformed"),
        "refuse-header-too-large": lambda: case(
            "Step 10: looked at before the first byte is parsed.",
            content_of(b"[" + b" " * 50_000 + b"]"),
            code="too-large",
        ),
        # Step 11.
        "refuse-unknown-sender": lambda: case("Step 11.", Forge(), code="unknown-sender", members=[]),
        "refuse-blocked-sender": lambda: case(
            "Step 11.", Forge(), code="unknown-sender", members=members(standing="blocked")
        ),
        "refuse-sender-key-expired": lambda: case(
            "Step 11.", Forge(), code="unknown-sender", members=members(valid_until=NOW)
        ),
        "refuse-key-of-another-agency": lambda: case(
            "Step 11: signed by a key that is not the sender's.", Forge(signer=OTHER.node), code="unknown-sender"
        ),
        "refuse-ourselves-as-sender": lambda: case(
            "Step 11.",
            content_of(encode(request(sender=HARBOUR.agency))),
            code="unknown-sender",
            members=members(agency=HARBOUR.agency),
        ),
        # Step 12.
        "refuse-record-beside-hello": lambda: case(
            "Step 12.", content_of(encode(hello()), with_record().body), code="unexpected-record"
        ),
        "refuse-record-cut": lambda: case("Step 12.", content_of(cut.content, cut.body[:-1]), code="malformed-record"),
        "refuse-record-with-bytes-after-it": lambda: case(
            "Step 12.", content_of(cut.content, cut.body + b"\0"), code="malformed-record"
        ),
        "refuse-section-that-is-not-committed-to": lambda: case("Step 12.", uncommitted(), code="section-mismatch"),
        "refuse-section-outside-the-claim": lambda: case(
            "Step 12: the consent that comes with it does not name it.", uncovered(), code="section-not-covered"
        ),
        # Step 13.
        "refuse-batch-path-missing": lambda: case(
            "Step 13.",
            Forge(messages=three(), index=1, edit_parts=part(3, lambda p: p[:4])),
            code="bad-path",
        ),
        "refuse-batch-path-cut": lambda: case(
            "Step 13.",
            Forge(messages=three(), index=1, edit_parts=part(3, lambda p: p[:-32])),
            code="bad-path",
        ),
        "refuse-batch-path-too-long": lambda: case(
            "Step 13.",
            Forge(messages=three(), index=1, edit_parts=part(3, lambda p: p + bytes(32))),
            code="bad-path",
        ),
        "refuse-batch-path-half-a-hash": lambda: case(
            "Step 13.", Forge(messages=three(), index=1, edit_parts=part(3, lambda p: p[:-16])), code="bad-path"
        ),
        "refuse-batch-of-none": lambda: case(
            "Step 13.", Forge(edit_parts=part(3, lambda p: bytes(2) + p[2:])), code="bad-path"
        ),
        "refuse-batch-of-129": lambda: case(
            "Step 13.", Forge(edit_parts=part(3, lambda p: (129).to_bytes(2) + p[2:])), code="bad-path"
        ),
        "refuse-place-outside-the-batch": lambda: case(
            "Step 13.", Forge(edit_parts=part(3, lambda p: p[:2] + (1).to_bytes(2))), code="bad-path"
        ),
        # Step 14.
        "refuse-path-of-another-batch": lambda: case(
            "Step 14: the path leads to a root that nobody signed.",
            Forge(messages=three(), index=1, edit_parts=part(3, lambda p: p[:4] + bytes(len(p) - 4))),
            code="bad-signature",
        ),
        "refuse-batch-count-changed": lambda: case(
            "Step 14: the count is signed.",
            Forge(messages=three(), index=0, edit_parts=part(3, lambda p: (4).to_bytes(2) + p[2:])),
            code="bad-signature",
        ),
        "refuse-ed25519-signature-wrong": lambda: case(
            "Step 14.", Forge(edit_parts=part(4, lambda s: bytes([s[0] ^ 1]) + s[1:])), code="bad-signature"
        ),
        "refuse-mldsa-signature-wrong": lambda: case(
            "Step 14.", Forge(edit_parts=part(5, lambda s: bytes([s[0] ^ 1]) + s[1:])), code="bad-signature"
        ),
        "refuse-signatures-of-another-message": lambda: case("Step 14.", swapped(), code="bad-signature"),
        "refuse-content-changed-after-signing": lambda: case(
            "Step 14.", Forge(edit_parts=part(1, lambda c: c.replace(b'"urgent"', b'"normal"'))), code="bad-signature"
        ),
        "refuse-record-changed-after-signing": lambda: case(
            "Step 14.", Forge(edit_parts=part(2, lambda b: b[:-1] + bytes([b[-1] ^ 1]))), code="bad-signature"
        ),
        "refuse-receipt-signed-as-message": lambda: case(
            "Step 14: a receipt has a label of its own.",
            Forge(messages=[Outgoing(encode(receipt()))]),
            code="bad-signature",
        ),
        "refuse-message-signed-as-receipt": lambda: case(
            "Step 14.", Forge(label=envelope.LABEL_RECEIPT), code="bad-signature"
        ),
        # Step 15.
        "refuse-replay-on-day-121": lambda: case(
            "Step 15.",
            content_of(encode(request(created=NOW - 121 * DAY, expires=NOW + DAY))),
            code="expired",
            public="expired",
        ),
        "refuse-eight-days-after-expiry": lambda: case(
            "Step 15.",
            content_of(encode(request(created=NOW - 38 * DAY, expires=NOW - 8 * DAY))),
            code="expired",
            public="expired",
        ),
        "refuse-message-from-the-future": lambda: case(
            "Step 15: more than 24 hours.",
            content_of(encode(request(created=NOW + DAY + 1))),
            code="clock",
            public="clock",
        ),
        "refuse-expiry-before-creation": lambda: case(
            "Step 15.", content_of(encode(request(expires=NOW))), code="clock", public="clock"
        ),
    }


def forged_id(binding: bytes) -> bytes:
    """The binding with another envelope's id in it."""
    fields = json.loads(binding)
    return encode(envelope.Binding(**(fields | {"envelope": number("another envelope")})))


def unsorted() -> Forge:
    fields = json.loads(encode(request()))
    return content_of(json.dumps(dict(reversed(fields.items())), separators=(",", ":")).encode())


def uncommitted() -> Forge:
    """The record has a section of which the header says nothing."""
    salted, commitments = record.salt(SECTIONS)
    said = {name: value for name, value in commitments.items() if name is not Section.NARRATIVE}
    content = request(said)
    raw = encode(content)
    return content_of(raw, record.seal(salted, {HARBOUR.desk_key.public: list(SECTIONS)}, context(content, raw)))


def uncovered() -> Forge:
    salted, commitments = record.salt(SECTIONS)
    covered = request(commitments)
    assert covered.consent is not None
    claim = replace_struct(covered.consent, sections=(Section.CONTACT, Section.SERVICE))
    content = request(commitments, consent=claim)
    raw = encode(content)
    return content_of(raw, record.seal(salted, {HARBOUR.desk_key.public: list(SECTIONS)}, context(content, raw)))


def file_part(size: int = 70_000, **changes: Any) -> Forge:
    """One part of a file that Lantern sends with its referral."""
    salted, commitments = record.salt({Section.ATTACHMENTS: b"invented " * (size // 9)})
    asked = request(commitments)
    fields = {
        name: getattr(asked, name)
        for name in asked.__struct_fields__
        if name not in ("kind", "reply_desk", "needed_by", "backstop", "members")
    }
    about = {
        "id": number("part"),
        "referral": number("referral"),
        "attachment": number("file"),
        "seq": 2,
        "prev": "ab" * 32,
    }
    content = messages.AttachmentPart(**(fields | about | {"index": 1, "parts": 3} | changes))
    raw = encode(content)
    readers = {HARBOUR.desk_key.public: [Section.ATTACHMENTS], LANTERN.desk_key.public: [Section.ATTACHMENTS]}
    return content_of(raw, record.seal(salted, readers, context(content, raw)))


def card_header(commitments: Any = None, **changes: Any) -> messages.BackstopCard:
    """What Lantern leaves with Harbour for the day on which it falls silent."""
    asked = request(commitments or {})
    shared = [name for name in asked.__struct_fields__ if name in messages.Threaded.__struct_fields__]
    claim = asked.consent
    if claim is not None:
        claim = replace_struct(claim, purposes=(Purpose.BACKSTOP,), sections=(Section.CONTACT,))
    fields = {name: getattr(asked, name) for name in shared} | {
        "id": number("card"),
        "consent": claim,
        "due": NOW + 14 * DAY,
        "state": CardState.PLANNED,
        "reply_desk": asked.reply_desk,
    }
    return messages.BackstopCard(**(fields | changes))


def backstop_card() -> Forge:
    salted, commitments = record.salt({Section.CONTACT: SECTIONS[Section.CONTACT]})
    content = card_header(commitments)
    raw = encode(content)
    readers = {HARBOUR.desk_key.public: [Section.CONTACT], LANTERN.desk_key.public: [Section.CONTACT]}
    return content_of(raw, record.seal(salted, readers, context(content, raw)))


def overdue() -> messages.FollowupOverdue:
    said = hello()
    fields = {name: getattr(said, name) for name in messages.Header.__struct_fields__}
    return messages.FollowupOverdue(**(fields | {"id": number("overdue"), "about": OTHER.agency, "due": NOW - 7 * DAY}))


def json_with(raw: bytes, **more: Any) -> bytes:
    """The header with further fields, canonical."""
    return json.dumps(json.loads(raw) | more, sort_keys=True, separators=(",", ":")).encode()


GROUP_NOTE = b'{"details":"A cot for the night."}'


def group_note() -> Forge:
    """Lantern tells of another person who comes along."""
    salted, commitments = record.salt({Section.SERVICE: GROUP_NOTE})
    asked = request(commitments)
    assert asked.consent is not None
    fields = {
        name: getattr(asked, name)
        for name in asked.__struct_fields__
        if name not in ("kind", "reply_desk", "needed_by", "backstop", "members")
    }
    about = {
        "id": number("note"),
        "referral": number("referral"),
        "member": number("member"),
        "consent": replace_struct(asked.consent, release=number("release of another")),
        "seq": 2,
        "prev": "ab" * 32,
    }
    content = messages.ReferralNote(**(fields | about))
    raw = encode(content)
    readers = {HARBOUR.desk_key.public: [Section.SERVICE], LANTERN.desk_key.public: [Section.SERVICE]}
    return content_of(raw, record.seal(salted, readers, context(content, raw)))


def replace_struct(value: Any, **changes: Any) -> Any:
    import msgspec

    return msgspec.structs.replace(value, **changes)


def swapped() -> Forge:
    """Both signatures are right, each for another message."""
    other = Forge(messages=[Outgoing(encode(hello()))])
    kept: list[bytes] = []
    other.edit_parts = lambda parts: kept.extend(parts) or parts
    other.build()
    return Forge(edit_parts=lambda parts: [*parts[:4], kept[4], kept[5]])


# -- records -----------------------------------------------------------------------------------------------------------


def record_case(about: str, body: bytes, out: Outgoing, *, code: str = "", **changes: Any) -> dict[str, Any]:
    """One vector of kind `record`: opened with a desk key after the envelope was."""
    content = json.loads(out.content)
    case: dict[str, Any] = {
        "kind": "record",
        "about": about,
        "desk_seed": HARBOUR.desk_key.seed.hex(),
        "sender": content["from"],
        "recipient": content["to"],
        "thread": content["thread"],
        "message": content["id"],
        "content_hash": crypto.sha256_hex(out.content),
        "commitments": content["sections"],
    } | changes
    if code:
        case["refuse"] = {"code": code, "public": "refused"}
    case["input"] = base64.b64encode(body).decode()
    return case


def records() -> dict[str, Callable[[], dict[str, Any]]]:
    case = record_case
    out = with_record()
    sharer = sharing()[1]
    plain = {str(name): text.decode() for name, text in SECTIONS.items()}
    erased = {name: text for name, text in plain.items() if name != "contact"}
    return {
        "accept-record": lambda: case("All sections open.", out.body, out) | {"accept": {"sections": plain}},
        "accept-record-with-one-section-erased": lambda: (
            case(
                "Erased without a key, for good; the others still open.", record.erase(out.body, [Section.CONTACT]), out
            )
            | {"accept": {"sections": erased}}
        ),
        "accept-shared-record": lambda: (
            case("Its secret was sealed for others too.", sharer.body, sharer) | {"accept": {"sections": plain}}
        ),
        "accept-shared-record-with-one-section-erased": lambda: (
            case("Erased without a key, for good.", record.erase(sharer.body, [Section.CONTACT]), sharer)
            | {"accept": {"sections": erased}}
        ),
        "refuse-record-of-version-3": lambda: case(
            "There are two.", b"\3" + sharer.body[1:], sharer, code="malformed-record"
        ),
        "refuse-shared-record-called-alone": lambda: case(
            "A salt is taken for entries.", b"\1" + sharer.body[1:], sharer, code="malformed-record"
        ),
        "refuse-shared-record-moved-to-another-message": lambda: case(
            "The key comes from the message too.",
            sharer.body,
            sharer,
            code="cannot-open",
            message=number("another message"),
        ),
        "refuse-shared-record-moved-to-another-thread": lambda: case(
            "The key comes from the thread too.",
            sharer.body,
            sharer,
            code="cannot-open",
            thread=number("another thread"),
        ),
        "refuse-shared-record-under-another-header": lambda: case(
            "The key comes from the hash of the header too.",
            sharer.body,
            sharer,
            code="cannot-open",
            content_hash="ef" * 32,
        ),
        "refuse-shared-record-for-another-agency": lambda: case(
            "The secret is sealed for what goes from one agency to one other.",
            sharer.body,
            sharer,
            code="cannot-open",
            recipient=OTHER.agency,
        ),
        "refuse-shared-record-with-another-salt": lambda: case(
            "The key comes from the salt.", salted_otherwise(sharer.body), sharer, code="cannot-open"
        ),
        "refuse-record-of-another-desk": lambda: case(
            "There is no keyring for this desk key.",
            out.body,
            out,
            code="not-for-this-desk",
            desk_seed=OTHER.desk_key.seed.hex(),
        ),
        "refuse-record-moved-to-another-message": lambda: case(
            "A keyring opens only in the message it was sealed for.",
            out.body,
            out,
            code="cannot-open",
            message=number("another message"),
        ),
        "refuse-record-moved-to-another-thread": lambda: case(
            "A keyring opens only in the thread it was sealed for.",
            out.body,
            out,
            code="cannot-open",
            thread=number("another thread"),
        ),
        "refuse-record-under-another-header": lambda: case(
            "The keyring is bound to the hash of the header.",
            out.body,
            out,
            code="cannot-open",
            content_hash="ef" * 32,
        ),
        "refuse-record-with-a-wrong-commitment": lambda: case(
            "What a section says must be what the header commits to.",
            out.body,
            out,
            code="cannot-open",
            commitments=json.loads(out.content)["sections"] | {"contact": "ab" * 32},
        ),
        "refuse-record-without-a-commitment": lambda: case(
            "A section that the header does not name is not read.",
            out.body,
            out,
            code="commitment-mismatch",
            commitments={},
        ),
        "refuse-record-sections-swapped": lambda: case(
            "Each section's ciphertext is bound to its name.", swap_sections(out.body), out, code="cannot-open"
        ),
        "refuse-record-order": lambda: case(
            "Sections stand in the order of their codes, each once.", misorder(out.body), out, code="malformed-record"
        ),
    }


def salted_otherwise(body: bytes) -> bytes:
    """One bit of the salt of each keyring is another."""
    parsed = record.parse(body)
    rings = {
        key: record.Keyring(ring.sealed, ring.entries, bytes([ring.salt[0] ^ 1]) + ring.salt[1:])
        for key, ring in parsed.keyrings.items()
    }
    return record.Record(parsed.sections, rings, parsed.version).pack()


def swap_sections(body: bytes) -> bytes:
    parsed = record.parse(body)
    sections = dict(parsed.sections)
    one, other = Section.SERVICE, Section.CONTACT
    sections[one], sections[other] = sections[other], sections[one]
    return record.Record(sections, parsed.keyrings).pack()


def misorder(body: bytes) -> bytes:
    """The code of the first section is that of the second."""
    return body[:2] + bytes([3]) + body[3:]


# -- bundles -----------------------------------------------------------------------------------------------------------


@dataclass
class Making:
    """A key bundle, step by step."""

    party: Party = LANTERN
    root: SigningKey = LANTERN.root
    successions: tuple[Signed, ...] = ()
    certificate: NodeCertificate = field(
        default_factory=lambda: NodeCertificate(
            agency=LANTERN.agency,
            serial=1,
            key=LANTERN.node.public.raw,
            not_before=NOW - DAY,
            not_after=NOW + 395 * DAY,
        )
    )
    bundle_signer: SigningKey = LANTERN.node
    desk_signer: SigningKey = LANTERN.officer
    desk_agency: str = LANTERN.agency
    officers: tuple[SigningKey, ...] = (LANTERN.officer,)
    officer_until: int = NOW + 300 * DAY
    desks: int = 1
    agency: str = LANTERN.agency
    at: int = NOW
    node_root: SigningKey | None = None
    officer_root: SigningKey | None = None
    officer_agency: str = LANTERN.agency
    kem: bytes = LANTERN.kem.public.raw
    desk_kem: bytes = LANTERN.desk_key.public.raw
    versions: tuple[int, ...] = (1,)
    edit: Callable[[bytes], bytes] = lambda raw: raw

    def build(self) -> bytes:
        desk = DeskCertificate(
            agency=self.desk_agency,
            desk=self.party.desk,
            serial=1,
            key=self.desk_kem,
            not_before=NOW - DAY,
            not_after=NOW + 366 * DAY,
        )
        entry = DeskEntry(
            certificate=identity.sign(desk, identity.LABEL_DESK, self.desk_signer), name="Intake", services=(1102,)
        )
        bundle = Bundle(
            version=1,
            agency=self.agency,
            name=self.party.name,
            type=AgencyType.NGO,
            zone="Europe/Rome",
            root=self.party.root.public.raw,
            node=identity.sign(self.certificate, identity.LABEL_NODE, self.node_root or self.root),
            at=self.at,
            kem=(KemEntry(key=self.kem, not_before=NOW - DAY, not_after=NOW + 20 * DAY),),
            versions=self.versions,
            address="https://lantern.invalid",
            successions=self.successions,
            officers=tuple(
                identity.sign(
                    OfficerCertificate(
                        agency=self.officer_agency, key=o.public.raw, not_before=NOW - DAY, not_after=self.officer_until
                    ),
                    identity.LABEL_OFFICER,
                    self.officer_root or self.root,
                )
                for o in self.officers
            ),
            desks=(entry,) * self.desks,
        )
        return self.edit(encode(identity.sign(bundle, identity.LABEL_BUNDLE, self.bundle_signer)))


NEW_ROOT, FORKED_ROOT = SigningKey(seed("second root")), SigningKey(seed("another second root"))


def succession(
    *signers: SigningKey, serial: int = 1, previous: str = LANTERN.root.public.hash, new: SigningKey = NEW_ROOT
) -> Signed:
    statement = Succession(
        agency=LANTERN.agency, serial=serial, previous=previous, root=new.public.raw, at=NOW - 5 * DAY
    )
    return identity.sign(statement, identity.LABEL_SUCCESSION, *signers)


def bundle_case(about: str, made: Making, *, code: str = "", public: str = "refused", **world: Any) -> dict[str, Any]:
    """One vector of kind `bundle`."""
    case: dict[str, Any] = {"kind": "bundle", "about": about, "now": NOW} | world
    if code:
        case["refuse"] = {"code": code, "public": public}
    else:
        case["accept"] = {
            "agency": made.agency,
            "desks": [made.party.desk],
            "order": [made.certificate.serial, made.at],
        }
        if made.versions != (1,):
            case["accept"]["versions"] = list(made.versions)
    case["input"] = base64.b64encode(made.build()).decode()
    return case


def small_order_node() -> NodeCertificate:
    bad = bytes(32) + LANTERN.node.public.raw[32:]
    return replace_struct(Making().certificate, key=bad)  # type: ignore[no-any-return]


def bundles() -> dict[str, Callable[[], dict[str, Any]]]:
    case, root = bundle_case, LANTERN.root
    return {
        "accept-bundle": lambda: case("One desk, one officer.", Making()),
        "accept-bundle-of-a-node-that-reads-what-shares": lambda: case(
            "It says which versions it reads.", Making(versions=(1, 2))
        ),
        "refuse-bundle-that-reads-no-version": lambda: case(
            "Step 1.", Making(versions=()), code="malformed", public="malformed"
        ),
        "accept-bundle-with-a-second-root": lambda: case(
            "The root has a successor, signed by both; the agency is the same.",
            Making(root=NEW_ROOT, successions=(succession(root, NEW_ROOT),)),
        ),
        "refuse-bundle-not-canonical": lambda: case(
            "Step 1.",
            Making(edit=lambda raw: raw.replace(b",", b", ", 1)),
            code="not-canonical",
            public="not-canonical",
        ),
        "refuse-bundle-of-another-root": lambda: case(
            "Step 2: the agency's id is the hash of its first root.", Making(agency=OTHER.agency), code="bundle-root"
        ),
        "refuse-bundle-successor-not-signed-by-the-old-root": lambda: case(
            "Step 3.", Making(root=NEW_ROOT, successions=(succession(NEW_ROOT),)), code="bad-signature"
        ),
        "refuse-bundle-successor-not-signed-by-itself": lambda: case(
            "Step 3: proof of possession.",
            Making(root=NEW_ROOT, successions=(succession(root),)),
            code="bad-signature",
        ),
        "refuse-bundle-succession-with-a-gap": lambda: case(
            "Step 3.",
            Making(root=NEW_ROOT, successions=(succession(root, NEW_ROOT, serial=2),)),
            code="bundle-succession",
        ),
        "refuse-bundle-node-certified-by-another-root": lambda: case(
            "Step 4.", Making(node_root=OTHER.root), code="bad-signature"
        ),
        "refuse-bundle-node-certified-by-the-old-root": lambda: case(
            "Step 4: after a succession only the new root counts.",
            Making(root=NEW_ROOT, node_root=root, successions=(succession(root, NEW_ROOT),)),
            code="bad-signature",
        ),
        "refuse-bundle-node-certificate-of-another-agency": lambda: case(
            "Step 4.",
            Making(certificate=replace_struct(Making().certificate, agency=OTHER.agency)),
            code="bundle-foreign",
        ),
        "refuse-bundle-node-certificate-expired": lambda: case(
            "Step 4.",
            Making(certificate=replace_struct(Making().certificate, not_after=NOW)),
            code="bundle-expired",
            public="bundle-expired",
        ),
        "refuse-bundle-node-key-of-small-order": lambda: case(
            "Step 4: under such a key one signature verifies for everything.",
            Making(certificate=small_order_node()),
            code="bad-key",
        ),
        "refuse-bundle-signed-by-another-node": lambda: case(
            "Step 5.", Making(bundle_signer=OTHER.node), code="bad-signature"
        ),
        "refuse-bundle-officer-certified-by-another-root": lambda: case(
            "Step 6.", Making(officer_root=OTHER.root), code="bad-signature"
        ),
        "refuse-bundle-officer-of-another-agency": lambda: case(
            "Step 6.", Making(officer_agency=OTHER.agency), code="bundle-foreign"
        ),
        "refuse-bundle-desk-key-of-small-order": lambda: case(
            "Step 7: what is sealed to such a key is half open.",
            Making(desk_kem=LANTERN.desk_key.public.raw[:1184] + bytes(32)),
            code="bad-key",
        ),
        "refuse-bundle-sealing-key-of-small-order": lambda: case(
            "Section 3.4: a node key to which half of the secret would be known.",
            Making(kem=LANTERN.kem.public.raw[:1184] + bytes(31) + b"\x80"),
            code="bad-key",
        ),
        "refuse-bundle-desk-without-an-officer": lambda: case(
            "Step 7: the node itself signed a desk key.", Making(desk_signer=LANTERN.node), code="desk-not-certified"
        ),
        "refuse-bundle-desk-signed-by-an-expired-officer": lambda: case(
            "Step 7.", Making(officer_until=NOW), code="desk-not-certified"
        ),
        "refuse-bundle-desk-of-another-agency": lambda: case(
            "Step 7.", Making(desk_agency=OTHER.agency), code="bundle-foreign"
        ),
        "refuse-bundle-desk-twice": lambda: case("Step 7.", Making(desks=2), code="bundle-desk"),
        "refuse-bundle-older-than-known": lambda: case(
            "Step 8: rollback.",
            Making(),
            code="bundle-rollback",
            previous=base64.b64encode(Making(at=NOW + 1).build()).decode(),
        ),
        "accept-bundle-whose-root-succeeds-the-known-one": lambda: case(
            "Step 8: the known bundle had the first root, this one has its successor.",
            Making(root=NEW_ROOT, successions=(succession(root, NEW_ROOT),), at=NOW + 1),
            previous=base64.b64encode(Making().build()).decode(),
        ),
        "refuse-bundle-whose-root-does-not-follow-the-known-one": lambda: case(
            "Step 8: the first root has signed two successors, and the other one is known.",
            Making(root=FORKED_ROOT, successions=(succession(root, FORKED_ROOT, new=FORKED_ROOT),), at=NOW + 1),
            code="bundle-fork",
            previous=base64.b64encode(
                Making(root=NEW_ROOT, successions=(succession(root, NEW_ROOT),)).build()
            ).decode(),
        ),
        "refuse-bundle-that-returns-to-the-root-before": lambda: case(
            "Step 8: the successor is known; the old root alone is not enough any more.",
            Making(at=NOW + 1),
            code="bundle-fork",
            previous=base64.b64encode(
                Making(root=NEW_ROOT, successions=(succession(root, NEW_ROOT),)).build()
            ).decode(),
        ),
    }


def main() -> None:
    """Write what is missing."""
    from tests.alert_vectors import alerts
    from tests.callback_vectors import callbacks

    FOLDER.mkdir(exist_ok=True)
    written = 0
    for name, make in {**envelopes(), **records(), **bundles(), **alerts(), **callbacks()}.items():
        path = FOLDER / f"{name}.json"
        if not path.exists():
            path.write_text(json.dumps(make(), indent=1, ensure_ascii=False) + "\n")
            written += 1
    print(f"{written} written to {FOLDER}")


if __name__ == "__main__":
    main()
