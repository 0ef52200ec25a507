"""Finds out what an event's context says: where the visit came from, with what, and on what terms.

The context is Segment's: https://segment.com/docs/connections/spec/common/#context
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import lru_cache
from typing import Any
from urllib.parse import parse_qsl

import msgspec

from services.ingest.addresses import AddressStorage, reduce_address
from services.ingest.user_agents import describe_user_agent, is_of_browser

_LONGEST_TEXT = 255
_LONGEST_URL = 2048
_MOST_CONSENT_BYTES = 4096
_MOST_PARAMETERS = 100
_REMEMBERED = 2000
_HOST = re.compile(r"https?://(?:[^/?#@]*@)?(\[[0-9A-Fa-f:.]+\]|[^/?#:@\[\]]+)", re.IGNORECASE)
# Whoever sends these is the visitor, and no server on the visitor's behalf.
_CHANNELS_OF_VISITORS = frozenset({"browser", "web", "mobile", "client"})


class Page(msgspec.Struct):
    """The page that the visitor sees."""

    url: str | None = None
    search: str | None = None
    referrer: str | None = None


class Campaign(msgspec.Struct):
    """What brought the visitor, as the SDK has read it from the page's address."""

    source: str | None = None
    medium: str | None = None
    name: str | None = None
    term: str | None = None
    content: str | None = None


class EventContext(msgspec.Struct, rename="camel"):
    """The parts of an event's `context` that are read."""

    ip: str | None = None
    user_agent: str | None = None
    page: Page | None = None
    campaign: Campaign | None = None
    consent: msgspec.Raw = msgspec.Raw()
    direct: bool | None = None
    channel: str | None = None


NO_CONTEXT = EventContext()

_UTM = {
    "utm_source": "source",
    "utm_medium": "medium",
    "utm_campaign": "name",
    "utm_term": "term",
    "utm_content": "content",
}
_decoder = msgspec.json.Decoder(EventContext)


def read_context(context: bytes) -> EventContext | None:
    """The context; None if it isn't shaped as one."""
    try:
        return _decoder.decode(context)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None


def describe_context(
    context: EventContext,
    *,
    client_ip: str,
    user_agent: str,
    gpc: bool,
    storage: AddressStorage,
) -> tuple[dict[str, Any], bytes]:
    """What the context says: members of a JSON object, and more of them as JSON already.

    `client_ip` and `user_agent` are those of the connection. They count as the
    visitor's unless a server has sent the event.
    """
    members: dict[str, Any] = {}
    from_visitor = (
        not user_agent
        or is_of_browser(user_agent)
        or context.direct is True
        or context.channel in _CHANNELS_OF_VISITORS
    )
    agent = context.user_agent or (user_agent if from_visitor else "")
    address = context.ip or (client_ip if from_visitor else "")
    if address:
        kept = reduce_address(address, storage)
        if kept:
            members["ip"] = kept
    if context.campaign or context.page:
        _describe_origin(context, members)
    consent = bytes(context.consent)
    if consent and consent != b"null" and len(consent) <= _MOST_CONSENT_BYTES:
        members["consent"] = context.consent
    if gpc:
        members["gpc"] = True
    return members, describe_user_agent(agent) if agent else b""


def _describe_origin(context: EventContext, members: dict[str, Any]) -> None:
    campaign = _describe_campaign(context.campaign, context.page)
    if campaign:
        members["campaign"] = campaign
    url = context.page.referrer if context.page else None
    if url:
        referrer = _describe_referrer(url[:_LONGEST_URL])
        if referrer:
            members["referrer"] = referrer


def _describe_campaign(campaign: Campaign | None, page: Page | None) -> Mapping[str, str]:
    if campaign:
        given = {
            name: value[:_LONGEST_TEXT]
            for name in _UTM.values()
            if (value := getattr(campaign, name))
        }
        if given:
            return given
    if page is None:
        return {}
    query = page.search or (page.url or "").partition("?")[2]
    return _read_query(query[:_LONGEST_URL]) if "utm_" in query else {}


# Many visitors come by the same few links.
@lru_cache(maxsize=_REMEMBERED)
def _read_query(query: str) -> Mapping[str, str]:
    try:
        pairs = parse_qsl(query.lstrip("?").partition("#")[0], max_num_fields=_MOST_PARAMETERS)
    except ValueError:
        return {}
    return {_UTM[name]: value[:_LONGEST_TEXT] for name, value in pairs if name in _UTM}


@lru_cache(maxsize=_REMEMBERED)
def _describe_referrer(url: str) -> Mapping[str, str]:
    host = _HOST.match(url)
    return {"url": url, "host": host[1].lower()} if host else {}
