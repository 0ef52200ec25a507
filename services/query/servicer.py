"""Serves `shoptrail.query.v1.Query`: counts a store's events, and lists them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.resources import files
from zoneinfo import ZoneInfo

from google.protobuf.timestamp_pb2 import Timestamp

from common.db import Database
from common.errors import InvalidRequest
from common.interceptors.wrap import Context
from common.page_token import PageTokens, read_page_size
from common.uid import is_uid
from services.query import repository
from services.query.freshness import Cursor, Sightings
from services.query.projection import RecordedEvent, type_name
from services.query.quarters import quarter_of
from services.query.reports import DEFAULT_LENGTHS, TooManyPeriods, boundaries_of, stretches_of
from services.query.repository import Place, Selection
from shoptrail.query.v1 import query_pb2, query_pb2_grpc, report_pb2
from shoptrail.query.v1.report_pb2 import Interval

SERVICE = query_pb2.DESCRIPTOR.services_by_name["Query"].full_name

_MOST_PERIODS = 2000
_MOST_SERIES = 1000
_MOST_NAMES = 50
_PAGE_SIZE, _LARGEST_PAGE_SIZE = 50, 500
_PAGE_BYTES = 4 * 1024 * 1024
# Until 1979 some clocks differed from UTC by odd minutes; and a range without a
# beginning reaches back for weeks.
_EARLIEST = datetime(1981, 1, 1, tzinfo=UTC)
_LATEST = datetime(9998, 1, 1, tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class _CountQuestion:
    """What `CountEvents` is asked."""

    store_uid: str
    boundaries: Sequence[datetime]
    names: Sequence[str]


@dataclass(frozen=True, slots=True)
class _ListQuestion:
    """What `ListEvents` is asked."""

    start_time: datetime | None
    end_time: datetime | None
    after: tuple[datetime, int] | None
    page_size: int


class QueryServicer(query_pb2_grpc.QueryServicer):
    """Checks a request, then answers it from one snapshot of the read models."""

    def __init__(
        self,
        database: Database,
        *,
        sightings: Sightings,
        page_tokens: PageTokens,
        now: Callable[[], datetime],
    ) -> None:
        self._database = database
        self._sightings = sightings
        self._page_tokens = page_tokens
        self._now = now
        # The database's own list: a system's directory of zones holds other files too.
        self._zone_names = frozenset((files("tzdata") / "zones").read_text().split())

    async def CountEvents(
        self, request: query_pb2.CountEventsRequest, context: Context
    ) -> query_pb2.CountEventsResponse:
        question = self._read_count_question(request)
        boundaries = question.boundaries
        selection = Selection(
            store_uid=question.store_uid,
            first_quarter=quarter_of(boundaries[0]),
            end_quarter=quarter_of(boundaries[-1]),
            names=question.names,
        )
        async with self._database.read() as snapshot:
            cursors = await repository.list_cursors(snapshot)
            ranked = await repository.rank_names(snapshot, selection, limit=_MOST_SERIES)
            total_count = (
                sum(count for _, count in ranked)
                if len(ranked) < _MOST_SERIES
                else await repository.count_all(snapshot, selection)
            )
            series = {name: [0] * (len(boundaries) - 1) for name, _ in ranked}
            for stretch in stretches_of(boundaries) if series else ():
                for name, period, count in await repository.count_by_period(
                    snapshot, store_uid=question.store_uid, stretch=stretch, names=list(series)
                ):
                    series[name][period] = count
        return query_pb2.CountEventsResponse(
            period_times=[_as_timestamp(time) for time in boundaries[:-1]],
            series=[
                report_pb2.EventCountSeries(name=name, total_count=count, counts=series[name])
                for name, count in ranked
            ],
            total_count=total_count,
            as_of=self._as_of(cursors),
        )

    async def ListEvents(
        self, request: query_pb2.ListEventsRequest, context: Context
    ) -> query_pb2.ListEventsResponse:
        question = self._read_list_question(request)
        async with self._database.read() as snapshot:
            cursors = await repository.list_cursors(snapshot)
            places = await repository.list_places(
                snapshot,
                store_uid=request.store_uid,
                name=request.name,
                start_time=question.start_time,
                end_time=question.end_time,
                after=question.after,
                limit=question.page_size + 1,
            )
            page = _page_of(places[: question.page_size])
            events = await repository.get_events(
                snapshot, store_uid=request.store_uid, ids=[place.id for place in page]
            )
        response = query_pb2.ListEventsResponse(
            events=[_as_message(event) for event in events], as_of=self._as_of(cursors)
        )
        if len(page) < len(places):
            last = page[-1]
            response.next_page_token = self._page_tokens.seal(
                request, [last.occur_time.isoformat(), last.id]
            )
        return response

    def _read_count_question(self, request: query_pb2.CountEventsRequest) -> _CountQuestion:
        """What is asked; raises `InvalidRequest` naming everything wrong at once."""
        violations: dict[str, str] = {}
        _check_store(request.store_uid, violations)
        start = _read_time(request, "start_time", violations)
        end = _read_time(request, "end_time", violations) or self._now()
        interval = request.interval or Interval.INTERVAL_DAY
        if interval not in DEFAULT_LENGTHS:
            violations["interval"] = "must be HOUR, DAY or WEEK"
        for field, time in (("start_time", start), ("end_time", end)):
            if time is not None and not _EARLIEST <= time < _LATEST:
                violations[field] = "must be in the years 1981 to 9997"
        time_zone = request.time_zone or "UTC"
        if time_zone not in self._zone_names:
            violations["time_zone"] = "must be a name of the IANA database, such as Europe/Berlin"
        if len(request.names) > _MOST_NAMES:
            violations["names"] = f"must be at most {_MOST_NAMES}"
        if start is not None and start >= end:
            violations.setdefault("start_time", "must be before the end of the range")
        if violations:
            raise InvalidRequest(violations)
        try:
            boundaries = boundaries_of(
                start or end - DEFAULT_LENGTHS[interval],
                end,
                interval=interval,
                zone=ZoneInfo(time_zone),
                most=_MOST_PERIODS,
            )
        except TooManyPeriods:
            raise InvalidRequest(
                {"start_time": f"makes more than {_MOST_PERIODS} periods up to the end"}
            ) from None
        return _CountQuestion(request.store_uid, boundaries, tuple(request.names))

    def _read_list_question(self, request: query_pb2.ListEventsRequest) -> _ListQuestion:
        """What is asked; raises `InvalidRequest` naming everything wrong at once."""
        violations: dict[str, str] = {}
        _check_store(request.store_uid, violations)
        start = _read_time(request, "start_time", violations)
        end = _read_time(request, "end_time", violations)
        if start is not None and end is not None and start >= end:
            violations["start_time"] = "must be before end_time"
        try:
            page_size = read_page_size(
                request.page_size, default=_PAGE_SIZE, largest=_LARGEST_PAGE_SIZE
            )
        except InvalidRequest as error:
            violations |= error.violations
        if violations:
            raise InvalidRequest(violations)
        place = self._page_tokens.open(request)
        after = (datetime.fromisoformat(place[0]), int(place[1])) if place else None
        return _ListQuestion(start, end, after, page_size)

    def _as_of(self, cursors: Sequence[Cursor]) -> report_pb2.AsOf:
        freshness = self._sightings.freshness_of(cursors)
        return report_pb2.AsOf(
            time=_as_timestamp(freshness.time) if freshness.time else None,
            position=freshness.event_count,
        )


def _page_of(places: Sequence[Place]) -> list[Place]:
    """The first of the places whose payloads fit a page together, and at least one."""
    page: list[Place] = []
    size = 0
    for place in places:
        size += place.payload_bytes
        if page and size > _PAGE_BYTES:
            break
        page.append(place)
    return page


def _check_store(store_uid: str, violations: dict[str, str]) -> None:
    if not is_uid("sto", store_uid):
        violations["store_uid"] = "is not the uid of a store"


def _read_time(
    request: query_pb2.CountEventsRequest | query_pb2.ListEventsRequest,
    field: str,
    violations: dict[str, str],
) -> datetime | None:
    """The time in a field, if it is set; notes a violation if it is none."""
    if not request.HasField(field):  # type: ignore[arg-type]  # a name of a field
        return None
    try:
        time: datetime = getattr(request, field).ToDatetime(tzinfo=UTC)
    except ValueError:
        violations[field] = "is not a time"
        return None
    return time


def _as_message(event: RecordedEvent) -> report_pb2.RecordedEvent:
    type_of_event = type_name(event.type)
    return report_pb2.RecordedEvent(
        uid=event.uid,
        message_id=event.message_id,
        type=type_of_event,
        name=event.name if type_of_event == "track" else event.page_name,
        user_id=event.user_id,
        anonymous_id=event.anonymous_id,
        occur_time=_as_timestamp(event.occur_time),
        receive_time=_as_timestamp(event.receive_time),
        payload=event.payload,
    )


def _as_timestamp(time: datetime) -> Timestamp:
    message = Timestamp()
    message.FromDatetime(time)
    return message
