# SPDX-License-Identifier: Apache-2.0
"""The two ways in which a protocol operation fails, told apart by who must act.

`LocalError`: our own caller asked for something that the rules do not allow. `RemoteError`: what came from
another agency is not acceptable. Each carries a stable `code`, which peers, logs and tests use; the text is
for a person and says what to do next. Neither ever holds a name, a key, a token or content.
"""

from __future__ import annotations


class Said(str):
    """A text with values put in. Whoever translates needs the `template`, not the result."""

    template: str
    values: dict[str, object]

    __slots__ = ("template", "values")


def say(template: str, **values: object) -> Said:
    """The template with its `{names}` filled in; values are limits, states and codes, never anything personal."""
    said = Said(template.format(**{name: shown(value) for name, value in values.items()}))
    said.template, said.values = template, values
    return said


def shown(value: object) -> str:
    """A value as it stands in a text; several with commas between them."""
    return ", ".join(f"“{entry}”" for entry in value) if isinstance(value, (tuple, list)) else str(value)


class ProtocolError(Exception):
    """A refusal with a stable `code` (lower-case words joined by hyphens) and a text that says what to do next."""

    def __init__(self, code: str, text: str) -> None:
        super().__init__(text)
        self.code = code
        self.text = text

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.code!r})"


class LocalError(ProtocolError):
    """Our caller must act: the request is not allowed, nothing was changed."""


class RemoteError(ProtocolError):
    """The other agency must act: what it sent is refused, nothing was changed.

    `public` is the code that may be told to the peer; all cryptographic failures share one, so that a
    stranger learns nothing from the difference.
    """

    def __init__(self, code: str, text: str, public: str | None = None) -> None:
        super().__init__(code, text)
        self.public = code if public is None else public
