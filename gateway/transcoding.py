"""Serves RPCs over HTTP as JSON, where their protos say so (`shoptrail.access.v1.http`)."""

from __future__ import annotations

import re
from base64 import b64encode
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any
from urllib.parse import parse_qsl

import grpc
import msgspec
from google.protobuf import json_format
from google.protobuf.descriptor import (
    Descriptor,
    EnumDescriptor,
    FieldDescriptor,
    MethodDescriptor,
)
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass
from google.rpc import status_pb2

from common.access import methods_of, path_of
from common.context import CLIENT_NETWORK, KEY_SCOPES, KEY_STORE_UID, KEY_UID, REQUEST_ID, Key
from common.errors import InvalidRequest, RouteUnknown
from common.network import network_of
from gateway.body import read_body
from gateway.errors import error_response
from gateway.exchange import Request, Response
from gateway.senders import Senders
from gateway.sessions import Sessions
from shoptrail.access.v1 import access_pb2
from shoptrail.ingest.v1 import ingest_pb2
from shoptrail.keys.v1 import keys_pb2
from shoptrail.maintenance.v1 import maintenance_pb2, privacy_pb2
from shoptrail.query.v1 import query_pb2

SERVICES = tuple(
    file.services_by_name[name].full_name
    for file, name in (
        (ingest_pb2.DESCRIPTOR, "Ingest"),
        (query_pb2.DESCRIPTOR, "Query"),
        (keys_pb2.DESCRIPTOR, "Keys"),
        (maintenance_pb2.DESCRIPTOR, "Maintenance"),
        (privacy_pb2.DESCRIPTOR, "Privacy"),
    )
)
# The variable of Maintenance's paths that names a service instead of a field.
SERVICE_VARIABLE = "service"
# The field that says what the body is, where that is another field.
CONTENT_TYPE = "content_type"

TIMESTAMP = "google.protobuf.Timestamp"
DURATION = "google.protobuf.Duration"

_VARIABLE = re.compile(r"\{(\w+)\}")
# What an RPC may take, in seconds, if not as long as the others of its service.
_SECONDS = {"shoptrail.maintenance.v1.Maintenance.RunCron": 55.0}
_SECONDS_OF_SERVICE = {"shoptrail.query.v1.Query": 10.0}
_DEFAULT_SECONDS = 3.0
_MAX_PARAMETERS = 200

_INTEGERS = frozenset(
    {FieldDescriptor.CPPTYPE_INT32, FieldDescriptor.CPPTYPE_INT64}
    | {FieldDescriptor.CPPTYPE_UINT32, FieldDescriptor.CPPTYPE_UINT64}
)
_LARGE_INTEGERS = (FieldDescriptor.CPPTYPE_INT64, FieldDescriptor.CPPTYPE_UINT64)


@dataclass(frozen=True, slots=True)
class HttpMethod:
    """An RPC, and where HTTP finds it."""

    rpc: MethodDescriptor
    verb: str
    template: str
    response_body: str = ""
    """The field of the response that is the body; if empty, the body is all of it."""

    @property
    def variables(self) -> tuple[str, ...]:
        """The names of the variables in the path."""
        return tuple(_VARIABLE.findall(self.template))

    @property
    def has_body(self) -> bool:
        """Whether the request's fields stand in a JSON body, and not in the query."""
        return self.verb in ("POST", "PATCH")


def http_methods() -> Iterator[HttpMethod]:
    """Every RPC that is served over HTTP."""
    for service in SERVICES:
        for rpc in methods_of(service):
            route = rpc.GetOptions().Extensions[access_pb2.http]
            verb = route.WhichOneof("pattern")
            if verb:
                yield HttpMethod(
                    rpc,
                    verb=verb.upper(),
                    template=getattr(route, verb),
                    response_body=route.response_body,
                )


class Transcoder:
    """Finds the RPC that serves a path."""

    def __init__(
        self, channels: Mapping[str, grpc.aio.Channel], sessions: Sessions, senders: Senders
    ) -> None:
        """`channels` are by the names that paths use: `ingest`, `query` and so on."""
        self._routes = [
            (
                method.verb,
                _pattern_of(method.template),
                _TranscodedRoute(method, channels, sessions, senders),
            )
            for method in http_methods()
        ]

    def find(self, verb: str, path: str) -> tuple[_TranscodedRoute, Mapping[str, str]] | None:
        """The route, and its variables' values in the path; None if nothing is served there."""
        for served, pattern, route in self._routes:
            if served == verb and (found := pattern.fullmatch(path)):
                return route, found.groupdict()
        return None


class _TranscodedRoute:
    def __init__(
        self,
        method: HttpMethod,
        channels: Mapping[str, grpc.aio.Channel],
        sessions: Sessions,
        senders: Senders,
    ) -> None:
        self.name = method.template
        self.logged = True
        self._method = method
        self._sessions = sessions
        self._senders = senders
        rpc = method.rpc
        self._request_class = GetMessageClass(rpc.input_type)
        owner = rpc.containing_service.full_name
        self._seconds = _SECONDS.get(rpc.full_name) or _SECONDS_OF_SERVICE.get(
            owner, _DEFAULT_SECONDS
        )
        self._owner = owner.split(".")[1]
        self._calls: dict[str, Callable[..., Any]] = {
            name: channel.unary_unary(
                path_of(rpc),
                request_serializer=self._request_class.SerializeToString,
                response_deserializer=GetMessageClass(rpc.output_type).FromString,
            )
            for name, channel in channels.items()
        }

    async def answer(self, request: Request, variables: Mapping[str, str]) -> Response:
        fields = dict(variables)
        service = fields.pop(SERVICE_VARIABLE, self._owner)
        if service not in self._calls:
            raise RouteUnknown
        key = await self._sessions.find_key(request)
        message = await self._read(request, fields)
        answer = await self._calls[service](
            message,
            timeout=self._seconds,
            metadata=metadata_of(key, request, self._senders),
        )
        if self._method.response_body:
            return _bare(answer, self._method.response_body)
        return Response(200, msgspec.json.encode(to_json(answer)))

    def refuse(self, failure: status_pb2.Status) -> Response:
        return error_response(failure)

    async def _read(self, request: Request, fields: Mapping[str, str]) -> Message:
        """The RPC's request. Raises `InvalidRequest` naming everything that's wrong."""
        message = self._request_class(**fields)
        taken = self._method.rpc.input_type
        violations = dict.fromkeys(fields, "stands in the path already")
        parameters = _read_query(request.query)
        if self._method.has_body:
            wrong = dict.fromkeys(parameters, "is not a parameter: fields stand in the body")
            given = _read_object(await read_body(request.body))
        else:
            wrong = {}
            given = _from_parameters(parameters, taken)
        for name, value in given.items():
            field = taken.fields_by_name.get(name)
            if name in violations:
                wrong[name] = violations[name]
            elif field is None:
                wrong[name] = "is not a field of this request"
            elif not _set(message, field, value):
                wrong[name] = _expectation(field)
        if wrong:
            raise InvalidRequest(wrong)
        return message


def header_of(name: str) -> str:
    """The header that holds a field where the body is another one."""
    return name.replace("_", "-").title()


def _bare(message: Message, body: str) -> Response:
    """The answer whose body is a field of the message; the others are headers."""
    headers = tuple(
        (header_of(field.name).encode(), str(getattr(message, field.name)).encode())
        for field in message.DESCRIPTOR.fields
        if field.name not in (body, CONTENT_TYPE)
    )
    content_type: str = getattr(message, CONTENT_TYPE)
    return Response(
        200, getattr(message, body), content_type=content_type.encode(), headers=headers
    )


def to_json(message: Message) -> dict[str, Any]:
    """The message as ProtoJSON writes it, with fields named as in the proto.

    Fields with their default value are there, but messages that are not set aren't.
    64-bit integers are strings. Bytes with the option `(shoptrail.access.v1.json)`
    stand as the JSON that they are.
    """
    return {
        name: convert(getattr(message, name))
        for name, has_presence, convert in _plan_of(message.DESCRIPTOR)
        if not has_presence or message.HasField(name)
    }


def is_json(field: FieldDescriptor) -> bool:
    """Whether the bytes of the field are a JSON text."""
    stands_as_json: bool = field.GetOptions().Extensions[access_pb2.json]
    return stands_as_json


def is_large_integer(field: FieldDescriptor) -> bool:
    """Whether JSON has the field's number as a string."""
    return field.cpp_type in _LARGE_INTEGERS


_Convert = Callable[[Any], Any]


@cache
def _plan_of(descriptor: Descriptor) -> Sequence[tuple[str, bool, _Convert]]:
    return [
        (
            field.name,
            field.has_presence,
            _each(_conversion_of(field)) if field.is_repeated else _conversion_of(field),
        )
        for field in descriptor.fields
    ]


def _each(convert: _Convert) -> _Convert:
    return lambda values: [convert(value) for value in values]


def _conversion_of(field: FieldDescriptor) -> _Convert:
    if field.message_type is not None:
        if field.message_type.full_name in (TIMESTAMP, DURATION):
            return lambda value: value.ToJsonString()
        return to_json
    if field.enum_type is not None:
        names = {value.number: value.name for value in field.enum_type.values}
        return lambda value: names.get(value, value)
    if field.type == FieldDescriptor.TYPE_BYTES:
        if is_json(field):
            return lambda value: msgspec.Raw(value or b"null")
        return lambda value: b64encode(value).decode()
    return str if is_large_integer(field) else lambda value: value


def _pattern_of(template: str) -> re.Pattern[str]:
    """Matches the template's paths. Values have no `:`, which parts them from a verb."""
    parts = _VARIABLE.split(template)  # Text and names of variables take turns.
    return re.compile(
        "".join(
            f"(?P<{part}>[^/:]+)" if index % 2 else re.escape(part)
            for index, part in enumerate(parts)
        )
    )


def metadata_of(key: Key, request: Request, senders: Senders) -> tuple[tuple[str, str], ...]:
    """What a service is told of the key for which the gateway calls, and of the request."""
    return (
        (REQUEST_ID, request.request_id),
        (CLIENT_NETWORK, network_of(senders.find_ip(request))),
        (KEY_UID, key.uid),
        (KEY_STORE_UID, key.store_uid),
        (KEY_SCOPES, ",".join(sorted(key.scopes))),
    )


def _read_query(query: bytes) -> dict[str, list[str]]:
    if not query:
        return {}
    try:
        pairs = parse_qsl(query.decode(), keep_blank_values=True, max_num_fields=_MAX_PARAMETERS)
    except UnicodeDecodeError:
        raise InvalidRequest({"query": "is not UTF-8"}) from None
    except ValueError:
        raise InvalidRequest({"query": f"has more than {_MAX_PARAMETERS} parameters"}) from None
    parameters: dict[str, list[str]] = {}
    for name, value in pairs:
        parameters.setdefault(name, []).append(value)
    return parameters


def _read_object(body: bytes) -> dict[str, Any]:
    if not body:
        return {}
    try:
        return msgspec.json.decode(body, type=dict[str, Any])
    except msgspec.DecodeError as error:
        raise InvalidRequest({"body": str(error)}) from None
    except (UnicodeDecodeError, RecursionError):
        raise InvalidRequest({"body": "is not JSON in UTF-8, or nested too deeply"}) from None


def _from_parameters(parameters: Mapping[str, list[str]], descriptor: Descriptor) -> dict[str, Any]:
    """The parameters' values as they would stand in a JSON body."""
    given: dict[str, Any] = {}
    for name, texts in parameters.items():
        field = descriptor.fields_by_name.get(name)
        values = [_from_text(text, field) for text in texts]
        # A list where no list is taken is refused as any other wrong value.
        given[name] = values if len(values) > 1 or (field and field.is_repeated) else values[0]
    return given


def _from_text(text: str, field: FieldDescriptor | None) -> Any:
    if field is None:
        return text
    if field.cpp_type == FieldDescriptor.CPPTYPE_BOOL:
        return {"true": True, "false": False}.get(text.lower(), text)
    if field.message_type is not None:
        return text.replace(" ", "+")  # What an unescaped `+` of a zone has become.
    return text


def _set(message: Message, field: FieldDescriptor, value: Any) -> bool:
    """Set the field to what stands in JSON; returns whether it could be."""
    if field.enum_type is not None:
        value = (
            [_full_name(entry, field.enum_type) for entry in value]
            if isinstance(value, list)
            else _full_name(value, field.enum_type)
        )
    try:
        json_format.ParseDict({field.name: value}, message)
    except (json_format.ParseError, ValueError, TypeError):
        return False
    return True


def _full_name(value: Any, enum: EnumDescriptor) -> Any:
    """The enum value's whole name, if it was given without its prefix."""
    if not isinstance(value, str):
        return value
    prefix = _prefix_of(enum)
    name = value.upper()
    return name if name.startswith(prefix) else prefix + name


def _prefix_of(enum: EnumDescriptor) -> str:
    return enum.values_by_number[0].name.removesuffix("UNSPECIFIED")


def _expectation(field: FieldDescriptor) -> str:
    expected = "a string"
    if field.message_type is not None and field.message_type.full_name == TIMESTAMP:
        expected = "a time such as 2026-01-31T12:00:00Z"
    elif field.message_type is not None and field.message_type.full_name == DURATION:
        expected = "a duration such as 1.5s"
    elif field.message_type is not None:
        expected = "an object with this message's fields"
    elif field.enum_type is not None:
        prefix = _prefix_of(field.enum_type)
        names = [value.name.removeprefix(prefix) for value in field.enum_type.values[1:]]
        expected = f"one of {', '.join(names)}"
    elif field.cpp_type in _INTEGERS:
        expected = "a whole number within its range"
    elif field.cpp_type == FieldDescriptor.CPPTYPE_BOOL:
        expected = "true or false"
    return f"must be a list, each {expected}" if field.is_repeated else f"must be {expected}"
