# SPDX-License-Identifier: Apache-2.0
"""Vectors for “do you reach us?” (Specification, 9.4): the question and the answer, and each way to refuse one."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable
from typing import Any, Final

import msgspec

from protocol import callback, identity
from protocol.callback import Answer, Call, Seen
from protocol.crypto import SigningKey
from protocol.encoding import CLOCK_AHEAD_SECONDS, encode
from tests.make_vectors import HARBOUR, LANTERN, NOW, OTHER, Making, number

#: Lantern asks Harbour; and Harbour asks Lantern, which answers.
ASKED: Final = Call(agency=LANTERN.agency, peer=HARBOUR.agency, id=number("call"), at=NOW, version="1.2.3")
ANSWERED: Final = Call(agency=HARBOUR.agency, peer=LANTERN.agency, id=number("answered"), at=NOW, version="1.2.3")
FOUND: Final = Answer(
    agency=LANTERN.agency, peer=HARBOUR.agency, id=ANSWERED.id, at=NOW + 2, seen=Seen.NOT_REACHED, newer=True
)


def signed(
    value: Call | Answer,
    label: bytes = b"",
    key: SigningKey = LANTERN.node,
    edit: Callable[[bytes], bytes] = lambda raw: raw,
) -> bytes:
    """The statement under its label and both signatures; `edit`: what is signed, if no program of ours would say it."""
    own = callback.LABEL_CALL if isinstance(value, Call) else callback.LABEL_ANSWER
    statement = edit(encode(value))
    return encode(
        {
            "signatures": [
                {
                    "key": key.public.hash,
                    "value": base64.b64encode(key.sign(label or own, statement)).decode(),
                }
            ],
            "statement": base64.b64encode(statement).decode(),
        }
    )


def changed(value: Call, **fields: Any) -> Call:
    return msgspec.structs.replace(value, **fields)


def replaced(value: Answer, **fields: Any) -> Answer:
    return msgspec.structs.replace(value, **fields)


def with_field(raw: bytes, **more: Any) -> bytes:
    """Other fields, canonical all the same. None takes one out."""
    fields = {name: value for name, value in {**json.loads(raw), **more}.items() if value is not None}
    return encode(dict(sorted(fields.items())))


def callbacks() -> dict[str, Callable[[], dict[str, Any]]]:
    """By name: what makes it."""

    def case(about: str, raw: bytes, code: str = "", *, asked: Call | None = None, **more: Any) -> dict[str, Any]:
        made: dict[str, Any] = {"kind": "callback", "about": about, "now": NOW, "us": HARBOUR.agency, **more}
        made["bundle"] = base64.b64encode(Making().build()).decode()
        if asked is not None:
            made["asked"] = msgspec.to_builtins(asked)
        made["input"] = base64.b64encode(raw).decode()
        if code:
            made["refuse"] = {"code": code, "public": PUBLIC.get(code, "refused")}
        elif asked is None:
            made["accept"] = {"id": ASKED.id, "version": ASKED.version}
        else:
            made["accept"] = {"seen": str(FOUND.seen), "newer": FOUND.newer}
        return made

    def answer(about: str, raw: bytes, code: str = "") -> dict[str, Any]:
        return case(about, raw, code, asked=ANSWERED)

    day = CLOCK_AHEAD_SECONDS
    return {
        "accept-callback": lambda: case("A question.", signed(ASKED)),
        "accept-callback-a-day-late": lambda: case(
            "Its clock, or ours, is a day behind.", signed(changed(ASKED, at=NOW - day))
        ),
        "accept-callback-a-day-early": lambda: case("A day ahead.", signed(changed(ASKED, at=NOW + day))),
        "accept-callback-answer": lambda: answer("An answer to what was asked.", signed(FOUND)),
        "refuse-callback-of-two-days-ago": lambda: case(
            "Not of today.", signed(changed(ASKED, at=NOW - day - 1)), "callback"
        ),
        "refuse-callback-of-the-day-after": lambda: case(
            "Not of today.", signed(changed(ASKED, at=NOW + day + 1)), "callback"
        ),
        "refuse-callback-for-another": lambda: case(
            "It asks somebody else.", signed(ASKED), "callback", us=OTHER.agency
        ),
        "refuse-callback-in-the-name-of-another": lambda: case(
            "Signed by one agency, it speaks for another.", signed(changed(ASKED, agency=OTHER.agency)), "callback"
        ),
        "refuse-callback-signed-by-another-node": lambda: case(
            "The key is not the one in its bundle.", signed(ASKED, key=OTHER.node), "bad-signature"
        ),
        "refuse-callback-signed-as-an-answer": lambda: case(
            "The label is another's.", signed(ASKED, callback.LABEL_ANSWER), "bad-signature"
        ),
        "refuse-callback-signed-as-a-bundle": lambda: case(
            "The label is another's.", signed(ASKED, identity.LABEL_BUNDLE), "bad-signature"
        ),
        "refuse-callback-changed-after-signing": lambda: case(
            "Another version than was signed.",
            encode(
                {
                    **json.loads(signed(ASKED)),
                    "statement": base64.b64encode(encode(changed(ASKED, version="9.9.9"))).decode(),
                }
            ),
            "bad-signature",
        ),
        "refuse-callback-that-says-where-to-call": lambda: case(
            "Only the address in its bundle is ever called: there is no such field.",
            signed(ASKED, edit=lambda raw: with_field(raw, address="https://elsewhere.invalid")),
            "malformed",
        ),
        "refuse-callback-with-a-name-for-a-version": lambda: case(
            "Numbers alone.", signed(ASKED, edit=lambda raw: with_field(raw, version="1.2.3-beta")), "malformed"
        ),
        "refuse-callback-without-a-version": lambda: case(
            "A field is missing.", signed(ASKED, edit=lambda raw: with_field(raw, version=None)), "malformed"
        ),
        "refuse-callback-not-canonical": lambda: case(
            "White space.", signed(ASKED, edit=lambda raw: raw.replace(b":", b": ", 1)), "not-canonical"
        ),
        "refuse-callback-answer-to-another-question": lambda: answer(
            "Another id.", signed(replaced(FOUND, id=number("another call"))), "callback"
        ),
        "refuse-callback-answer-to-another-agency": lambda: answer(
            "It answers somebody else.", signed(replaced(FOUND, peer=OTHER.agency)), "callback"
        ),
        "refuse-callback-answer-of-another-agency": lambda: answer(
            "It speaks for somebody else.", signed(replaced(FOUND, agency=OTHER.agency)), "callback"
        ),
        "refuse-callback-answer-signed-by-another-node": lambda: answer(
            "The key is not the one in its bundle.", signed(FOUND, key=OTHER.node), "bad-signature"
        ),
        "refuse-callback-answer-signed-as-a-question": lambda: answer(
            "The label is another's.", signed(FOUND, callback.LABEL_CALL), "bad-signature"
        ),
        "refuse-callback-answer-that-is-a-question": lambda: answer(
            "A question under its own label.", signed(ASKED), "malformed"
        ),
        "refuse-callback-answer-with-another-word": lambda: answer(
            "It would tell what else stands at an address.",
            signed(FOUND, edit=lambda raw: with_field(raw, seen="another-program")),
            "malformed",
        ),
        "refuse-callback-answer-with-a-version": lambda: answer(
            "Which version it is is nobody's business; only whether it is newer.",
            signed(FOUND, edit=lambda raw: with_field(raw, version="1.2.4")),
            "malformed",
        ),
    }


#: What of a refusal would be told, if it were; the node answers all of them alike.
PUBLIC: Final[dict[str, str]] = {"malformed": "malformed", "not-canonical": "not-canonical"}
