# SPDX-License-Identifier: Apache-2.0
"""Logs for an operator at three in the morning: JSON lines on standard output, fields from a list, nothing personal.

A field that is not on the list is dropped, and the line says that one was. The text of a foreign exception is never
logged, only its type: it could quote what somebody sent.
"""

from __future__ import annotations

import logging
import re
import sys
from collections.abc import MutableMapping
from typing import Any, Final

import structlog

#: Ids, counts, durations, codes. Nothing with a name, an address or a text gets onto this list.
ALLOWED: Final = frozenset(
    {
        "agency",
        "code",
        "count",
        "event",
        "kind",
        "level",
        "logger",
        "milliseconds",
        "peer",
        "port",
        "request",
        "seconds",
        "status",
        "timestamp",
        "where",
    }
)
_SAFE: Final = re.compile(r"[A-Za-z0-9_.:/<>-]{0,120}")


def setup(level: str = "info") -> None:
    """All logs of this process, ours and the libraries', go through the list."""
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            reduce_exception,
            allow,
            structlog.processors.JSONRenderer(sort_keys=True),
        ],
        wrapper_class=structlog.make_filtering_bound_logger(logging.getLevelNamesMapping()[level.upper()]),
        # A line in one write: processes that share a file would else come between a line and its end.
        logger_factory=structlog.WriteLoggerFactory(sys.stdout),
        cache_logger_on_first_use=False,
    )
    root = logging.getLogger()
    root.handlers = [_Foreign()]
    root.setLevel(logging.WARNING)


def allow(logger: Any, method: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """Keep what is on the list and looks like an id, a number or a code."""
    kept: dict[str, Any] = {}
    dropped = 0
    for name, value in event.items():
        if name in ALLOWED and (isinstance(value, (int, float)) or _SAFE.fullmatch(str(value))):
            kept[name] = value if isinstance(value, (int, float)) else str(value)
        else:
            dropped += 1
    if dropped:
        kept["dropped"] = dropped
    return kept


def reduce_exception(logger: Any, method: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """Of an exception only its type and where in our code it was raised remain."""
    info = event.pop("exc_info", None)
    if info is True:
        info = sys.exc_info()
    error = info[1] if isinstance(info, tuple) else info
    if isinstance(error, BaseException):
        event["kind"] = type(error).__name__
        event["where"] = place(error)
    return event


def place(error: BaseException) -> str:
    """module:line of the innermost frame of ours, without any value."""
    found, trace = "", error.__traceback__
    while trace is not None:
        module = str(trace.tb_frame.f_globals.get("__name__", ""))
        if module.startswith(("node.", "protocol.")):
            found = f"{module}:{trace.tb_lineno}"
        trace = trace.tb_next
    return found


class _Foreign(logging.Handler):
    """What libraries log: which library, how grave, what kind of exception; never their text."""

    def emit(self, record: logging.LogRecord) -> None:
        kind = record.exc_info[0].__name__ if record.exc_info and record.exc_info[0] else ""
        structlog.get_logger().warning("library_message", logger=record.name, kind=kind, status=record.levelno)
