"""What the OpenAPI document says of bodies that the service reads itself, for speed."""

from __future__ import annotations

from typing import Any

from services.common import problems
from services.ingest.events import DEFAULT_TYPE, KEY_PATTERN, TYPE_PATTERN

_EVENT: dict[str, Any] = {
    "type": "object",
    "title": "Event",
    "required": ["payload"],
    "additionalProperties": False,
    "properties": {
        "payload": {"type": "object", "description": "The event itself; kept as it is written."},
        "event_type": {"type": "string", "pattern": TYPE_PATTERN, "default": DEFAULT_TYPE},
        "schema_version": {
            "type": ["integer", "null"],
            "minimum": 1,
            "maximum": 2**31 - 1,
            "description": "Version of the type's JSON Schema; the newest when it is left out.",
        },
        "idempotency_key": {
            "type": ["string", "null"],
            "pattern": KEY_PATTERN,
            "description": "Events with the same key are one event. Without one the content is the key.",
        },
    },
    "example": {"payload": {"example": "hello"}},
}
_RECEIPT = {
    "type": "object",
    "title": "Receipt",
    "required": ["id", "duplicate", "received_at"],
    "additionalProperties": False,
    "properties": {
        "id": {"type": "string", "format": "uuid"},
        "duplicate": {"type": "boolean", "description": "Whether it was here before."},
        "received_at": {"type": "string", "format": "date-time", "description": "When it came first, UTC."},
    },
}
_BULK_ANSWER = {
    "type": "object",
    "title": "BulkReceipt",
    "required": ["accepted", "duplicates", "events"],
    "additionalProperties": False,
    "properties": {
        "accepted": {"type": "integer", "minimum": 0},
        "duplicates": {"type": "integer", "minimum": 0},
        "events": {"type": "array", "items": _RECEIPT},
    },
}
_PROBLEMS = problems.responses(400, 401, 403, 409, 413, 415, 422, 429, 503)


def _json(schema: dict[str, Any]) -> dict[str, Any]:
    return {"content": {"application/json": {"schema": schema}}}


INGEST: dict[str, Any] = {
    "responses": {200: {"description": "The event is stored.", **_json(_RECEIPT)}, **_PROBLEMS},
    "openapi_extra": {
        "requestBody": {"required": True, **_json(_EVENT)},
        "parameters": [
            {
                "name": "Idempotency-Key",
                "in": "header",
                "required": False,
                "schema": {"type": "string", "pattern": KEY_PATTERN},
            }
        ],
    },
}
BULK: dict[str, Any] = {
    "responses": {200: {"description": "The events are stored.", **_json(_BULK_ANSWER)}, **_PROBLEMS},
    "openapi_extra": {
        "requestBody": {
            "required": True,
            "content": {
                "application/json": {"schema": {"type": "array", "minItems": 1, "items": _EVENT}},
                "application/x-ndjson": {"schema": {"type": "string"}},
            },
        },
    },
}
_READINESS = {
    "type": "object",
    "required": ["status", "dependencies", "outbox"],
    "properties": {
        "status": {"enum": ["ready", "not ready"]},
        "dependencies": {"type": "object", "additionalProperties": {"type": "string"}},
        "outbox": {"type": "object", "additionalProperties": {"type": "integer"}},
    },
}
READY: dict[str, Any] = {
    "responses": {
        200: {"description": "Events are taken in.", **_json(_READINESS)},
        503: {"description": "They are not.", **_json(_READINESS)},
    }
}
