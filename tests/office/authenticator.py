# SPDX-License-Identifier: Apache-2.0
"""A passkey's device in software, for tests: it signs what a browser would hand it, and, on wish, what none should."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import os
import struct
from dataclasses import dataclass, field
from typing import Any

import cbor2
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec


def text(raw: bytes) -> str:
    return base64.urlsafe_b64encode(raw).decode().rstrip("=")


@dataclass
class Device:
    """One passkey. What a test changes is wrong on purpose."""

    site: str
    origin: str
    verifies: bool = True
    count: int = 0
    credential: bytes = field(default_factory=lambda: os.urandom(32))
    secret: bytes = field(default_factory=lambda: os.urandom(32))
    key: ec.EllipticCurvePrivateKey = field(default_factory=lambda: ec.generate_private_key(ec.SECP256R1()))

    def prf(self, given: bytes) -> bytes:
        """As browsers do: the input is hashed with a label before the device sees it."""
        salt = hashlib.sha256(b"WebAuthn PRF\0" + given).digest()
        return hmac.new(self.secret, salt, hashlib.sha256).digest()

    def make(self, challenge: bytes, given: bytes | None = None) -> dict[str, Any]:
        """The answer to a request for a new passkey."""
        numbers = self.key.public_key().public_numbers()
        public = {1: 2, 3: -7, -1: 1, -2: numbers.x.to_bytes(32, "big"), -3: numbers.y.to_bytes(32, "big")}
        attested = bytes(16) + struct.pack(">H", len(self.credential)) + self.credential + cbor2.dumps(public)
        made = {"fmt": "none", "attStmt": {}, "authData": self._data(0x40) + attested}
        return {
            "id": text(self.credential),
            "client_data": text(self._client("webauthn.create", challenge)),
            "attestation": text(cbor2.dumps(made)),
            "prf": "" if given is None else text(self.prf(given)),
        }

    def use(self, challenge: bytes, given: bytes | None = None) -> dict[str, Any]:
        """The answer at sign-in."""
        self.count += 1
        data, client = self._data(0), self._client("webauthn.get", challenge)
        signature = self.key.sign(data + hashlib.sha256(client).digest(), ec.ECDSA(hashes.SHA256()))
        return {
            "id": text(self.credential),
            "client_data": text(client),
            "data": text(data),
            "signature": text(signature),
            "prf": "" if given is None else text(self.prf(given)),
        }

    def _data(self, flags: int) -> bytes:
        seen = 0x01 | (0x04 if self.verifies else 0)
        return hashlib.sha256(self.site.encode()).digest() + bytes([seen | flags]) + struct.pack(">I", self.count)

    def _client(self, kind: str, challenge: bytes) -> bytes:
        return json.dumps({"type": kind, "challenge": text(challenge), "origin": self.origin}).encode()
