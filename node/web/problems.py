# SPDX-License-Identifier: Apache-2.0
"""Every refusal as a problem document (RFC 9457): a stable code, a sentence that says what to do, nothing personal."""

from __future__ import annotations

from typing import Any, Final

import msgspec
import structlog
from aiohttp import web

from node.casework.forms import FormError
from node.errors import NodeError, StorageError, StorageFull
from node.web.numbers import present
from protocol.errors import ProtocolError, RemoteError

log = structlog.get_logger(__name__)

TYPE_PREFIX: Final = "urn:staffetta:problem:"
_STATUS: Final = {
    "forbidden": 403,
    "signed-out": 401,
    "locked": 503,
    "retired": 410,
    "sign-in": 401,
    "sign-in-wait": 429,
    "changed-meanwhile": 409,
    "illegal-transition": 409,
    "already-reported": 409,
    "already-answered": 409,
    "snoozed": 409,
    "not-silent": 409,
    "same-person": 403,
    "approval-missing": 409,
    "not-alone": 409,
    "consent-ended": 409,
    "approval-lapsed": 409,
    "approval-changed": 409,
    "peer-unknown": 404,
    "too-large": 413,
    "not-json": 400,
    "not-found": 404,
    "method": 405,
    "cross-site": 403,
}
_TITLES: Final = {
    400: "The request cannot be read",
    401: "Not signed in",
    403: "Not allowed",
    404: "Not found",
    405: "Not possible here",
    409: "Changed meanwhile",
    413: "Too large",
    422: "Something is missing or wrong",
    429: "Too many tries",
    500: "A fault of ours",
    502: "The other agency did not answer",
    503: "Not ready",
    507: "The disk is full",
}


def response(status: int, code: str, detail: str, problems: list[dict[str, str]] | None = None) -> web.Response:
    """The document."""
    document: dict[str, Any] = {
        "type": TYPE_PREFIX + code,
        "title": _TITLES.get(status, "Refused"),
        "status": status,
        "detail": str(detail),
    }
    if number := present():
        document["request"] = number
    if problems:
        document["problems"] = [{name: str(text) for name, text in problem.items()} for problem in problems]
    return web.Response(status=status, body=msgspec.json.encode(document), content_type="application/problem+json")


def explain(error: BaseException) -> web.Response:
    """The document for an exception; for one of ours that should not be, only its kind is logged."""
    if isinstance(error, FormError):
        return response(422, error.code, error.text, error.problems)
    if isinstance(error, RemoteError):
        return response(502, error.code, error.text)
    if isinstance(error, ProtocolError):
        # What is not there and what is not hers look the same.
        otherwise = 404 if error.code.startswith("unknown-") else 422
        return response(_STATUS.get(error.code, otherwise), error.code, error.text)
    if isinstance(error, StorageFull):
        return response(507, error.code, error.text)
    if isinstance(error, StorageError):
        return response(503, error.code, error.text)
    if isinstance(error, NodeError):
        return response(_STATUS.get(error.code, 500), error.code, error.text)
    if isinstance(error, web.HTTPException):
        return _from_http(error)
    log.error("request_failed", exc_info=error)
    return response(500, "internal", "Something went wrong inside the node. It was noted; nothing was half done.")


def _from_http(error: web.HTTPException) -> web.Response:
    if error.status == 404:
        return response(404, "not-found", "There is nothing at this address. See /api/v1/openapi.json.")
    if error.status == 405:
        return response(405, "method", "This address does not take that method. See /api/v1/openapi.json.")
    if error.status == 413:
        return response(413, "too-large", "The request is larger than a megabyte. Send less.")
    return response(error.status, "refused", "The request was refused. See /api/v1/openapi.json.")
