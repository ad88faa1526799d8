# SPDX-License-Identifier: Apache-2.0
"""The description of the staff API (OpenAPI 3.1), made from the table of routes and the types of the requests."""

from __future__ import annotations

import re
from typing import Any

import msgspec

from node.web.api import COOKIE, PREFIX, Route


def describe(routes: list[Route], version: str) -> dict[str, Any]:
    """The document. What is only for this machine's demonstration is left out."""
    shown = [route for route in routes if not route.local_only]
    bodies = [route.body for route in shown if route.body is not None]
    schemas, components = msgspec.json.schema_components(bodies, ref_template="#/components/schemas/{name}")
    by_body = dict(zip(bodies, schemas, strict=True))
    paths: dict[str, dict[str, Any]] = {}
    for route in shown:
        operation: dict[str, Any] = {
            "summary": route.summary,
            "operationId": _name(route),
            "responses": {
                "200": {"description": "Done", "content": {"application/json": {"schema": {"type": "object"}}}},
                "4XX": _problem("Refused: what to do is in `detail`"),
                "5XX": _problem("The node cannot do it now"),
            },
        }
        names = re.findall(r"{(\w+)}", route.path)
        if names:
            operation["parameters"] = [
                {"name": name, "in": "path", "required": True, "schema": {"type": "string"}} for name in names
            ]
        if route.method != "GET":
            header = {"name": "X-Staffetta", "in": "header", "required": True, "schema": {"const": "1"}}
            operation.setdefault("parameters", []).append(header)
        if route.body is not None:
            operation["requestBody"] = {
                "required": True,
                "content": {"application/json": {"schema": by_body[route.body]}},
            }
        if route.is_open:
            operation["security"] = []
        paths.setdefault(PREFIX + route.path, {})[route.method.lower()] = operation
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Staffetta staff API",
            "version": version,
            "description": "For the people of one agency. Times are ISO 8601 with a zone, ids hexadecimal.",
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "security": [{"session": []}],
        "paths": paths,
        "components": {
            "schemas": {
                **components,
                "Problem": {
                    "type": "object",
                    "required": ["type", "title", "status", "detail"],
                    "properties": {
                        "type": {"type": "string"},
                        "title": {"type": "string"},
                        "status": {"type": "integer"},
                        "detail": {"type": "string"},
                        "problems": {"type": "array", "items": {"type": "object"}},
                    },
                },
            },
            "securitySchemes": {"session": {"type": "apiKey", "in": "cookie", "name": COOKIE}},
        },
    }


def _problem(text: str) -> dict[str, Any]:
    schema = {"$ref": "#/components/schemas/Problem"}
    return {"description": text, "content": {"application/problem+json": {"schema": schema}}}


def _name(route: Route) -> str:
    return route.handler.__name__
