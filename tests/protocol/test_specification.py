# SPDX-License-Identifier: Apache-2.0
"""The specification says what the code does: generated parts are the code's, every section the code cites exists.

`python -m tests.protocol.test_specification` writes the generated parts.
"""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from protocol import encoding, messages, referral, refusals
from protocol.codes import MessageType, Section

ROOT = Path(__file__).parents[2]
README = ROOT / "protocol" / "README.md"

LIMITS = {
    "ENVELOPE_MAX_BYTES": "an envelope, bytes",
    "REQUEST_MAX_BYTES": "a request between nodes, bytes",
    "BATCH_MAX_MESSAGES": "messages under one pair of signatures",
    "CONTENT_MAX_BYTES": "a header, bytes",
    "SECTION_MAX_BYTES": "a section before sealing, bytes",
    "ATTACHMENT_PART_BYTES": "a part of a file, bytes",
    "ATTACHMENT_MAX_BYTES": "a file, bytes",
    "BUNDLE_MAX_BYTES": "a key bundle, bytes",
    "THREAD_MAX_MESSAGES": "messages of one agency in a thread",
    "MESSAGE_LIFE_DAYS": "life of a message, days",
    "EXPIRY_GRACE_DAYS": "grace after the expiry, days",
    "REPLAY_HORIZON_DAYS": "replay horizon, days",
    "CLOCK_AHEAD_SECONDS": "how far ahead a sender's clock may be, seconds",
}


def generated() -> dict[str, str]:
    """The parts of the specification that are made from the code."""
    limits = "".join(f"| {what} | {getattr(encoding, name)} |\n" for name, what in LIMITS.items())
    codes = "".join(f"| {number} | `{code}` |\n" for number, code in enumerate(refusals.CODES))
    return {
        "limits": "| limit | value |\n|---|---|\n" + limits,
        "codes": "| number | code |\n|---|---|\n" + codes,
        "diagram": "```mermaid\n" + referral.diagram() + "```\n",
        "table": referral.table_markdown(),
    }


def between(text: str, name: str) -> str:
    found = re.search(rf"<!-- {name}:begin -->\n(.*?)<!-- {name}:end -->", text, re.DOTALL)
    assert found is not None, name
    return found[1]


@pytest.mark.parametrize("name", ["limits", "codes", "diagram", "table"])
def test_the_generated_parts_are_those_of_the_code(name: str) -> None:
    assert between(README.read_text(), name) == generated()[name]


def test_every_section_that_the_code_cites_exists() -> None:
    headings = set(re.findall(r"^(?:## )?\**(\d+(?:\.\d+)?)\b", README.read_text(), re.MULTILINE))
    cited = set()
    for folder in ("protocol", "node", "tests"):
        for path in (ROOT / folder).rglob("*.py"):
            cited |= set(re.findall(r"Specification, (\d+(?:\.\d+)?)", path.read_text()))
    assert cited, "nothing is cited"
    assert cited <= headings, cited - headings


def test_every_type_section_and_limit_is_named() -> None:
    text = README.read_text()
    for code in [*MessageType, *Section]:
        assert f"`{code}`" in text, code
    for kind in messages.Content.__args__:
        assert f"`{kind.__struct_config__.tag}`" in text


def main() -> None:
    """Write the generated parts into the specification."""
    text = README.read_text()
    for name, made in generated().items():
        text = text.replace(
            f"<!-- {name}:begin -->\n{between(text, name)}<!-- {name}:end -->",
            f"<!-- {name}:begin -->\n{made}<!-- {name}:end -->",
        )
    README.write_text(text)


if __name__ == "__main__":
    main()
