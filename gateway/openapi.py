"""Describes the HTTP side as OpenAPI 3.1: from the protos and their comments, Segment's by hand.

`python -m gateway.openapi` writes it, for what is generated from it.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from functools import cache
from importlib import resources
from typing import Any

import msgspec
from google.protobuf import descriptor_pb2
from google.protobuf.descriptor import (
    Descriptor,
    EnumDescriptor,
    FieldDescriptor,
    MethodDescriptor,
)

from common.access import rule_of
from gateway.envelope import MAX_EVENTS
from gateway.exchange import GPC_PATH
from gateway.live import LIVE_PATH
from gateway.pixel import PIXEL_PATHS
from gateway.sdk_settings import SETTINGS_PATH, SOURCE_CONFIG_PATH
from gateway.segment import BATCH_PATHS, DROPPED_PATH, EVENT_PATHS
from gateway.session_routes import END_ALL_PATH, END_PATH, SESSION_PATH
from gateway.sessions import HEADER
from gateway.transcoding import (
    CONTENT_TYPE,
    DURATION,
    SERVICE_VARIABLE,
    TIMESTAMP,
    HttpMethod,
    header_of,
    http_methods,
    is_json,
    is_large_integer,
)

_Json = dict[str, Any]

_ABOUT = (
    "Paths are those of the protos' `http` options. Times are RFC 3339, 64-bit integers are"
    " strings, and fields are named as in the protos. Paths of Segment's tracking API take what"
    " Segment's SDKs send, and answer in the shape that those understand."
)
_SERVICES = ("ingest", "query", "keys", "maintenance")
_BEARER: _Json = {"type": "http", "scheme": "bearer", "description": "A key, such as `sk_live_…`."}
_BASIC: _Json = {
    "type": "http",
    "scheme": "basic",
    "description": "A key as the user, with an empty password.",
}
_ERROR: _Json = {
    "description": "A failure (https://google.aip.dev/193).",
    "type": "object",
    "required": ["error"],
    "properties": {
        "error": {
            "type": "object",
            "required": ["code", "message", "status", "details"],
            "properties": {
                "code": {"type": "integer", "description": "The HTTP status."},
                "message": {"type": "string", "description": "What is wrong, for people."},
                "status": {"type": "string", "description": "The name in `google.rpc.Code`."},
                "details": {
                    "type": "array",
                    "description": "The first is a `google.rpc.ErrorInfo`, whose `reason`"
                    " programs can compare; a `google.rpc.BadRequest` names each bad field.",
                    "items": {
                        "type": "object",
                        "required": ["@type"],
                        "properties": {"@type": {"type": "string"}},
                    },
                },
            },
        }
    },
}
_SEGMENT_ANSWER: _Json = {
    "description": "What became of the events.",
    "type": "object",
    "required": [
        *("success", "received", "accepted", "duplicates", "rejected", "suppressed", "quota"),
        "results",
    ],
    "properties": {
        "success": {"const": True},
        "received": {"type": "integer"},
        "accepted": {"type": "integer", "description": "Stored now, durably."},
        "duplicates": {"type": "integer", "description": "Stored before."},
        "rejected": {"type": "integer", "description": "Not stored."},
        "suppressed": {
            "type": "integer",
            "description": "Not stored: of people of whom the store wants no events.",
        },
        "quota": {"type": "integer", "description": "Not stored: the store's day is full."},
        "results": {
            "type": "array",
            "description": "The events that were not accepted.",
            "items": {
                "type": "object",
                "required": ["index", "verdict"],
                "properties": {
                    "index": {"type": "integer", "description": "Among the events sent, from 0."},
                    "messageId": {"type": "string"},
                    "verdict": {"enum": ["duplicate", "rejected", "suppressed", "quota"]},
                    "code": {"type": "string", "description": "Why, for programs."},
                    "path": {"type": "string", "description": "Where in the event."},
                    "message": {"type": "string", "description": "Why, for people."},
                },
            },
        },
    },
}
_SEGMENT_ERROR: _Json = {
    "description": "A failure of the whole request: none of its events may be taken for stored.",
    "type": "object",
    "required": ["success", "code", "message", "error"],
    "properties": {
        "success": {"const": False},
        "code": {"type": "string", "description": "Why, for programs: `invalid_request`, …"},
        "message": {"type": "string", "description": "Why, for people."},
        "error": {"type": "string", "description": "The same."},
    },
}
_SESSION: _Json = {
    "description": "A session of the dashboard.",
    "type": "object",
    "required": ["key_uid", "store_uid", "scopes", "expire_time"],
    "properties": {
        "key_uid": {"type": "string", "description": "The key that opened it."},
        "store_uid": {"type": "string", "description": "The key's store; empty if it opens all."},
        "scopes": {"type": "array", "items": {"type": "string"}},
        "expire_time": {"type": "string", "format": "date-time"},
    },
}
_COOKIE: _Json = {
    "type": "apiKey",
    "in": "cookie",
    "name": "shoptrail_session",
    "description": "Stands for the key that opened the session, wherever a key is taken but for"
    " sending events. Over HTTPS the name begins with `__Host-`.",
}
_WRITE_KEY_PARAMETER: _Json = {
    "name": "writeKey",
    "in": "query",
    "description": "The key, if it's in no header.",
    "schema": {"type": "string"},
}
_TYPES = {
    FieldDescriptor.CPPTYPE_STRING: "string",
    FieldDescriptor.CPPTYPE_BOOL: "boolean",
    FieldDescriptor.CPPTYPE_INT32: "integer",
    FieldDescriptor.CPPTYPE_UINT32: "integer",
}
_RETRY_AFTER: _Json = {
    "description": "With 429 and 503: how many seconds to wait.",
    "schema": {"type": "integer"},
}


@cache
def describe_api() -> _Json:
    """The whole description, not to be changed; its RPCs are those with an `http` option."""
    comments = _read_comments()
    schemas: _Json = {
        "Error": _ERROR,
        "segment.Answer": _SEGMENT_ANSWER,
        "segment.Error": _SEGMENT_ERROR,
        "gateway.Session": _SESSION,
    }
    paths: _Json = {}
    for path, operation in _describe_segment():
        paths[path] = {"post": operation}
    for method in http_methods():
        operation = _Described(comments, schemas).operation(method)
        paths.setdefault(method.template, {})[method.verb.lower()] = operation
    for path, operation in (
        *_describe_pixels(),
        *_describe_sdk_settings(),
        *_describe_live(),
        *_describe_plain(),
    ):
        paths[path] = {"get": operation}
    for path, verb, operation in _describe_sessions():
        paths.setdefault(path, {})[verb] = operation
    return {
        "openapi": "3.1.0",
        "info": {"title": "Shoptrail", "version": "1", "description": _ABOUT},
        "security": [{"bearer": []}, {"basic": []}],
        "paths": paths,
        "components": {
            "schemas": schemas,
            "securitySchemes": {"bearer": _BEARER, "basic": _BASIC, "session": _COOKIE},
        },
    }


class _Described:
    """Describes RPCs, and collects the schemas of the messages in their answers."""

    def __init__(self, comments: Mapping[str, str], schemas: _Json) -> None:
        self._comments = comments
        self._schemas = schemas

    def operation(self, method: HttpMethod) -> _Json:
        rpc = method.rpc
        scopes = list(rule_of(rpc).scopes)
        described: _Json = {
            "operationId": f"{rpc.containing_service.name}_{rpc.name}",
            "tags": [rpc.containing_service.name],
            **self._summary(rpc, scopes),
            "security": [{"bearer": scopes}, {"basic": scopes}],
            "x-scopes": scopes,
            "parameters": list(self._parameters(method)),
            "responses": {
                "200": self._answer(method),
                "default": _failure("Error"),
            },
        }
        if method.has_body:
            body = self._object(rpc.input_type, without=method.variables)
            described["requestBody"] = {"content": {"application/json": {"schema": body}}}
        return described

    def _answer(self, method: HttpMethod) -> _Json:
        answer = method.rpc.output_type
        if not method.response_body:
            return _content("The answer.", self._reference(answer))
        others = [
            field
            for field in answer.fields
            if field.name not in (method.response_body, CONTENT_TYPE)
        ]
        return {
            "description": self._comments[answer.fields_by_name[method.response_body].full_name],
            "content": {"*/*": {}},
            "headers": {
                header_of(field.name): {
                    "description": self._comments[field.full_name],
                    "schema": self._schema_of_one(field),
                }
                for field in others
            },
        }

    def _summary(self, rpc: MethodDescriptor, scopes: list[str]) -> _Json:
        text = self._comments[rpc.full_name]
        needed = f"The key needs the scope {' and '.join(f'`{scope}`' for scope in scopes)}."
        return {
            "summary": text.partition("\n\n")[0].replace("\n", " "),
            "description": f"{text}\n\n{needed}",
        }

    def _parameters(self, method: HttpMethod) -> Iterator[_Json]:
        fields = method.rpc.input_type.fields_by_name
        for name in method.variables:
            schema: _Json = (
                {"enum": list(_SERVICES), "description": "Whose jobs."}
                if name == SERVICE_VARIABLE
                else self._schema(fields[name])
            )
            yield {"name": name, "in": "path", "required": True, "schema": schema}
        if method.has_body:
            return
        for field in method.rpc.input_type.fields:
            if field.name not in method.variables:
                yield {"name": field.name, "in": "query", "schema": self._schema(field)}

    def _schema(self, field: FieldDescriptor) -> _Json:
        one = self._schema_of_one(field)
        schema: _Json = {"type": "array", "items": one} if field.is_repeated else one
        return {**schema, "description": self._comments[field.full_name]}

    def _schema_of_one(self, field: FieldDescriptor) -> _Json:
        if field.message_type is not None:
            return self._schema_of_message(field.message_type)
        if field.enum_type is not None:
            return self._schema_of_enum(field.enum_type)
        if field.type == FieldDescriptor.TYPE_BYTES:
            json = {"description": "JSON, as it is."}
            return json if is_json(field) else {"type": "string", "contentEncoding": "base64"}
        if is_large_integer(field):
            return {"type": "string", "format": "int64"}
        return {"type": _TYPES.get(field.cpp_type, "number")}

    def _schema_of_message(self, message: Descriptor) -> _Json:
        if message.full_name == TIMESTAMP:
            return {"type": "string", "format": "date-time"}
        if message.full_name == DURATION:
            return {"type": "string", "pattern": r"^-?\d+(\.\d{1,9})?s$"}
        return self._reference(message)

    def _schema_of_enum(self, enum: EnumDescriptor) -> _Json:
        meanings = [
            f"- `{value.name}`: {comment}"
            for value in enum.values
            if (comment := self._comments.get(f"{enum.full_name}.{value.name}"))
        ]
        name = _schema_name(enum.full_name)
        self._schemas[name] = {
            "type": "string",
            "description": "\n".join([self._comments[enum.full_name], "", *meanings]),
            "enum": [value.name for value in enum.values],
        }
        return {"$ref": f"#/components/schemas/{name}"}

    def _reference(self, message: Descriptor) -> _Json:
        name = _schema_name(message.full_name)
        if name not in self._schemas:
            self._schemas[name] = {}  # Taken, should the message hold itself.
            self._schemas[name] = self._object(message)
            # What an answer always has; messages that are not set are left out.
            self._schemas[name]["required"] = [
                field.name for field in message.fields if not field.has_presence
            ]
        return {"$ref": f"#/components/schemas/{name}"}

    def _object(self, message: Descriptor, without: tuple[str, ...] = ()) -> _Json:
        return {
            "type": "object",
            "description": self._comments[message.full_name],
            "properties": {
                field.name: self._schema(field)
                for field in message.fields
                if field.name not in without
            },
        }


def _describe_segment() -> Iterator[tuple[str, _Json]]:
    event = {"type": "object", "description": "An event in the shape of Segment's tracking API."}
    batch = {
        "type": "object",
        "required": ["batch"],
        "properties": {
            "batch": {"type": "array", "items": event, "maxItems": MAX_EVENTS},
            "writeKey": {"type": "string", "description": "The key, if it's in no header."},
            "sentAt": {"type": "string", "format": "date-time"},
            "context": {"type": "object", "description": "Of each event that has none."},
            "integrations": {"type": "object", "description": "Of each event that has none."},
        },
    }
    for path in EVENT_PATHS:
        yield path, _segment_operation(path, "Takes an event in", event)
    for path in BATCH_PATHS:
        yield path, _segment_operation(path, "Takes events in", batch)
    dropped = _segment_operation(DROPPED_PATH, "Drops metrics of analytics.js", {})
    yield DROPPED_PATH, dropped | {"security": []}


def _segment_operation(path: str, summary: str, schema: _Json) -> _Json:
    return {
        "operationId": f"Segment{path.replace('/', '_')}",
        "tags": ["Segment"],
        "summary": summary,
        "description": "The key, with the scope `events:write`, may also stand in the body as"
        " `writeKey`, or in the query. The body is JSON, or that as gzip, of any content type.",
        "security": [{"bearer": ["events:write"]}, {"basic": ["events:write"]}, {}],
        "x-scopes": ["events:write"],
        "parameters": [_WRITE_KEY_PARAMETER],
        "requestBody": {"required": True, "content": {"application/json": {"schema": schema}}},
        "responses": {
            "200": _content("A verdict on each event.", _ref("segment.Answer")),
            "default": _failure("segment.Error"),
        },
    }


def _describe_pixels() -> Iterator[tuple[str, _Json]]:
    for path in PIXEL_PATHS:
        yield (
            path,
            {
                "operationId": f"Pixel{path.replace('/', '_')}",
                "tags": ["Segment"],
                "summary": "Takes an event in, and serves an image",
                "description": "The other parameters are the event's fields, such as"
                " `properties.subject`. Whatever becomes of the event, the answer is 200 and the"
                " image; the header `X-Failure` says why there is none.",
                "security": [{}],
                "x-scopes": ["events:write"],
                "parameters": [
                    _WRITE_KEY_PARAMETER,
                    {
                        "name": "data",
                        "in": "query",
                        "description": "The event: JSON in base64.",
                        "schema": {"type": "string"},
                    },
                ],
                "responses": {
                    "200": {"description": "The image.", "content": {"image/gif": {"schema": {}}}}
                },
            },
        )


def _describe_sdk_settings() -> Iterator[tuple[str, _Json]]:
    in_path = {
        "name": "write_key",
        "in": "path",
        "required": True,
        "schema": {"type": "string"},
    }
    for path, sdk, parameter in (
        (SETTINGS_PATH, "analytics.js", in_path),
        (SOURCE_CONFIG_PATH, "RudderStack's SDK", _WRITE_KEY_PARAMETER),
    ):
        yield (
            path,
            {
                "operationId": f"Sdk_{path.rpartition('/')[2]}",
                "tags": ["Segment"],
                "summary": f"Tells {sdk} its settings",
                "description": "For a key that works, with the scope `events:write`.",
                "security": [{"basic": ["events:write"]}, {}],
                "x-scopes": ["events:write"],
                "parameters": [parameter],
                "responses": {
                    "200": _content("The settings.", {"type": "object"}),
                    "default": _failure("segment.Error"),
                },
            },
        )


def _describe_sessions() -> Iterator[tuple[str, str, _Json]]:
    cookie = {"description": "Keeps the session, or ends it.", "schema": {"type": "string"}}
    for path, verb, summary, answer in (
        (SESSION_PATH, "post", "Opens a session for a secret key", _ref("gateway.Session")),
        (SESSION_PATH, "get", "Tells the session of whoever asks", _ref("gateway.Session")),
        (END_PATH, "post", "Ends the session in this browser", {"type": "object"}),
        (END_ALL_PATH, "post", "Ends all sessions of the key", {"type": "object"}),
    ):
        described: _Json = {
            "operationId": f"Session_{verb}{path.removeprefix(SESSION_PATH).replace('-', '_')}",
            "tags": ["Session"],
            "summary": summary,
            "description": "For the dashboard: its pages hold no key, but a cookie that stands for"
            f" one. What changes something needs the header `{HEADER}`, which other sites' pages"
            " can't send.",
            "security": [{}] if path == END_PATH or verb == "post" else [{"session": []}],
            "responses": {
                "200": _content("The answer.", answer) | {"headers": {"Set-Cookie": cookie}},
                "default": _failure("Error"),
            },
        }
        if (path, verb) == (SESSION_PATH, "get"):
            described["responses"]["204"] = {"description": "There is none, or it has ended."}
        if (path, verb) == (SESSION_PATH, "post"):
            key = {"key": {"type": "string", "description": "The text of a secret key."}}
            schema = {"type": "object", "required": ["key"], "properties": key}
            described["requestBody"] = {"content": {"application/json": {"schema": schema}}}
        yield path, verb, described


def _describe_live() -> Iterator[tuple[str, _Json]]:
    token = {
        "name": "page_token",
        "in": "query",
        "description": "The `id` of the last message that was seen. If empty, from now on.",
        "schema": {"type": "string"},
    }
    yield (
        LIVE_PATH,
        {
            "operationId": "Live",
            "tags": ["Query"],
            "summary": "Streams events as they are accepted or rejected",
            "description": "Server-sent events, at least one a second. The data is JSON: a list"
            " `accepted`, as `TailEvents` lists them, and a list `rejected`, as"
            " `ListRejectedEvents` does. The key needs the scope `events:read`.",
            "security": [{"bearer": ["events:read"]}, {"basic": ["events:read"]}],
            "x-scopes": ["events:read"],
            "parameters": [
                {"name": "store_uid", "in": "path", "required": True, "schema": {"type": "string"}},
                token,
            ],
            "responses": {
                "200": {
                    "description": "The stream.",
                    "content": {"text/event-stream": {"schema": {"type": "string"}}},
                },
                "default": _failure("Error"),
            },
        },
    )


def _describe_plain() -> Iterator[tuple[str, _Json]]:
    for path, summary, content_type in (
        ("/healthz", "Says that the process is alive", "application/json"),
        ("/readyz", "Says whether to send requests: 200 or 503", "application/json"),
        ("/metrics", "Lists metrics for Prometheus", "text/plain"),
        ("/openapi.json", "Describes the HTTP side", "application/json"),
        (GPC_PATH, "Says that Global Privacy Control is heeded", "application/json"),
    ):
        content: _Json = {content_type: {"schema": {}}}
        yield (
            path,
            {
                "operationId": f"Gateway_{path.rpartition('/')[2].partition('.')[0]}",
                "tags": ["Gateway"],
                "summary": summary,
                "security": [],
                "responses": {"default": {"description": "The answer.", "content": content}},
            },
        )


def _content(description: str, schema: _Json) -> _Json:
    return {"description": description, "content": {"application/json": {"schema": schema}}}


def _failure(schema: str) -> _Json:
    return _content("A failure.", _ref(schema)) | {"headers": {"Retry-After": _RETRY_AFTER}}


def _ref(schema: str) -> _Json:
    return {"$ref": f"#/components/schemas/{schema}"}


def _schema_name(full_name: str) -> str:
    """Such as `keys.Store`."""
    return full_name.removeprefix("shoptrail.").replace(".v1.", ".")


def _read_comments() -> dict[str, str]:
    """The comment of each element of the protos, by its full name; values by their enum's."""
    raw = resources.files("shoptrail").joinpath("descriptors.binpb").read_bytes()
    comments = {}
    for file in descriptor_pb2.FileDescriptorSet.FromString(raw).file:
        for location in file.source_code_info.location:
            name = _full_name_at(file, list(location.path))
            if name and location.leading_comments:
                comments[name] = _unindent(location.leading_comments)
    return comments


def _full_name_at(file: descriptor_pb2.FileDescriptorProto, path: list[int]) -> str | None:
    """The name of the element at a path of fields' numbers and indexes; None if it has none."""
    element: Any = file
    names = [file.package]
    for number, index in zip(path[::2], path[1::2], strict=False):
        field = element.DESCRIPTOR.fields_by_number.get(number)
        if field is None or not field.is_repeated or len(path) % 2:
            return None  # An option, a range, the syntax and the like.
        element = getattr(element, field.name)[index]
        names.append(getattr(element, "name", ""))
    return ".".join(names)


def _unindent(comment: str) -> str:
    return "\n".join(line.removeprefix(" ") for line in comment.splitlines()).strip()


if __name__ == "__main__":
    sys.stdout.buffer.write(msgspec.json.encode(describe_api()))
