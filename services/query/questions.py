"""Reads what requests have in common: store, range, time zone."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from importlib.resources import files
from typing import TypeAlias
from zoneinfo import ZoneInfo

from google.protobuf.message import Message

from common.errors import InvalidRequest
from common.uid import is_uid
from services.query.columns import Dimension, Filter, Property, Scope, Step
from services.query.projection import type_numbers
from services.query.quarters import quarter_of
from services.query.report_rows import Range
from services.query.reports import (
    DEFAULT_LENGTHS,
    Stretch,
    TooManyPeriods,
    boundaries_of,
    stretches_of,
)
from shoptrail.query.v1 import (
    attribution_pb2,
    carts_pb2,
    export_pb2,
    loss_pb2,
    query_pb2,
    reconciliation_pb2,
    trend_pb2,
)
from shoptrail.query.v1.report_pb2 import Interval

NOT_A_BREAKDOWN = (
    "must be page, campaign, referrer, device, country, browser, consent, trust or"
    " properties.<path>"
)

_MOST_PERIODS = 2000
_SHORTEST = timedelta(microseconds=1)
# Until 1979 some clocks differed from UTC by odd minutes; and a range without a
# beginning reaches back for weeks.
_EARLIEST = datetime(1981, 1, 1, tzinfo=UTC)
_LATEST = datetime(9998, 1, 1, tzinfo=UTC)
_MOST_FILTERS = 10
_LONGEST_PATH = 255
_SPAN = timedelta(days=30)
_FIRST_TIME = datetime(1980, 1, 8, tzinfo=UTC)
_LONGEST_CHANGE = timedelta(days=1)
"""By how much ranges of as many periods differ: islands at the date line have left out a day."""

RangeRequest: TypeAlias = (
    query_pb2.CountEventsRequest
    | query_pb2.CountMeasureRequest
    | query_pb2.CountVisitorsRequest
    | query_pb2.ReportSessionsRequest
    | query_pb2.ReportRevenueRequest
    | query_pb2.ReportProductsRequest
    | query_pb2.ReportRetentionRequest
    | trend_pb2.ReportTrendRequest
    | carts_pb2.ReportCartsRequest
    | loss_pb2.ReportLossRequest
)
SpanRequest: TypeAlias = (
    query_pb2.ReportFunnelRequest
    | query_pb2.BreakDownEventsRequest
    | query_pb2.DescribeEventsRequest
    | attribution_pb2.ReportAttributionRequest
    | reconciliation_pb2.ReconcileOrdersRequest
)


@dataclass(frozen=True, slots=True)
class Question:
    """What period of which store is asked about."""

    store_uid: str
    boundaries: Sequence[datetime]
    """Where the periods begin, and where the last of them ends."""
    previous_start: datetime
    """Where the range of the same length begins that ends where this one does begin."""

    @property
    def period_count(self) -> int:
        return len(self.boundaries) - 1

    @property
    def stretches(self) -> list[Stretch]:
        return stretches_of(self.boundaries)

    @property
    def previous(self) -> Stretch:
        """The range before, as one period."""
        first, end = quarter_of(self.previous_start), quarter_of(self.boundaries[0])
        return Stretch(0, 1, first, end - first)

    def range_in(self, generation: int) -> Range:
        """The quarters asked about."""
        first, end = quarter_of(self.boundaries[0]), quarter_of(self.boundaries[-1])
        return Range(generation, self.store_uid, first, end)


class QuestionReader:
    """Reads the store, the range and the time zone of requests."""

    def __init__(self, now: Callable[[], datetime]) -> None:
        self._now = now
        # The database's own list: a system's directory of zones holds other files too.
        self._zone_names = frozenset((files("tzdata") / "zones").read_text().split())

    def read_scope(
        self, request: SpanRequest, violations: dict[str, str], *, filters: Sequence[Filter] = ()
    ) -> Scope:
        """The range that is not made of periods; raises `InvalidRequest` as `read` does."""
        check_store(request.store_uid, violations)
        start = read_time(request, "start_time", violations)
        end = read_time(request, "end_time", violations) or self._now()
        for field, time in (("start_time", start), ("end_time", end)):
            if time is not None and not _EARLIEST <= time < _LATEST:
                violations[field] = "must be in the years 1981 to 9997"
        if start is not None and start >= end:
            violations.setdefault("start_time", "must be before the end of the range")
        if violations:
            raise InvalidRequest(violations)
        return Scope(request.store_uid, start or end - _SPAN, end, filters)

    def read(self, request: RangeRequest, violations: dict[str, str]) -> Question:
        """What is asked; raises `InvalidRequest` naming all that is wrong, beside what is known."""
        check_store(request.store_uid, violations)
        start = read_time(request, "start_time", violations)
        end = read_time(request, "end_time", violations) or self._now()
        interval = request.interval or Interval.INTERVAL_DAY
        if interval not in DEFAULT_LENGTHS:
            violations["interval"] = "must be HOUR, DAY or WEEK"
        for field, time in (("start_time", start), ("end_time", end)):
            if time is not None and not _EARLIEST <= time < _LATEST:
                violations[field] = "must be in the years 1981 to 9997"
        time_zone = request.time_zone or "UTC"
        if time_zone not in self._zone_names:
            violations["time_zone"] = "must be a name of the IANA database, such as Europe/Berlin"
        if start is not None and start >= end:
            violations.setdefault("start_time", "must be before the end of the range")
        if violations:
            raise InvalidRequest(violations)
        start = start or end - DEFAULT_LENGTHS[interval]
        zone = ZoneInfo(time_zone)
        try:
            boundaries = boundaries_of(start, end, interval=interval, zone=zone, most=_MOST_PERIODS)
        except TooManyPeriods:
            raise InvalidRequest(
                {"start_time": f"makes more than {_MOST_PERIODS} periods up to the end"}
            ) from None
        return Question(
            store_uid=request.store_uid,
            boundaries=boundaries,
            previous_start=_previous_start(boundaries, interval=interval, zone=zone),
        )


def read_step(text: str) -> Step | None:
    """The event that a text names; None if it names none."""
    kind, _, rest = text.partition(":")
    numbers = type_numbers()
    if text in numbers:
        return Step(numbers[text], "" if text == "track" else text)
    if kind == "track" or kind not in numbers:
        name = rest if kind == "track" else text
        return Step(numbers["track"], name) if name else None
    return Step(numbers[kind], kind, page=rest) if rest else None


def read_step_in(text: str, field: str, violations: dict[str, str]) -> Step | None:
    """As `read_step`; notes a violation if the text names none."""
    step = read_step(text)
    if step is None:
        violations[field] = "must be the name of an event, a type, or both such as page:/cart"
    return step


def read_breakdown(text: str) -> Dimension | Property | None:
    """What a text wants looked at; None if there is no such thing."""
    kind, _, path = text.partition(".")
    if kind == "properties" and path and len(path) <= _LONGEST_PATH:
        return Property(tuple(path.split(".")))
    return next((dimension for dimension in Dimension if dimension.value == text), None)


def read_filters(texts: Sequence[str], violations: dict[str, str]) -> list[Filter]:
    """The filters that the texts stand for; notes a violation for each that is none."""
    if len(texts) > _MOST_FILTERS:
        violations["filters"] = f"must be at most {_MOST_FILTERS}"
    filters = []
    for index, text in enumerate(texts):
        of, equals, value = text.partition("=")
        looked_at = read_breakdown(of)
        if looked_at is None or not equals:
            violations[f"filters[{index}]"] = (
                "must be such as device=mobile or properties.color=red"
            )
        else:
            filters.append(Filter(looked_at, value))
    return filters


def read_breakdown_in(text: str, violations: dict[str, str]) -> Dimension | Property | None:
    """As `read_breakdown`, None if nothing is asked for; notes a violation if there is no such."""
    breakdown = read_breakdown(text)
    if text and breakdown is None:
        violations["breakdown"] = NOT_A_BREAKDOWN
    return breakdown


def read_limit(asked: int, violations: dict[str, str], *, default: int, largest: int) -> int:
    """How many rows are wanted; notes a violation if the number is negative."""
    if asked < 0:
        violations["limit"] = "must not be negative"
    return min(asked or default, largest)


def read_duration(
    request: Message,
    field: str,
    violations: dict[str, str],
    *,
    default: timedelta,
    longest: timedelta,
    least: timedelta = _SHORTEST,
) -> timedelta:
    """The duration in a field, if it is set; notes a violation if it is out of its range."""
    if not request.HasField(field):
        return default
    try:
        duration: timedelta = getattr(request, field).ToTimedelta()
    except (ValueError, OverflowError):
        duration = timedelta()
    if not least <= duration <= longest:
        begin = f"at least {least.total_seconds():g} s" if least > _SHORTEST else "more than 0"
        violations[field] = f"must be {begin} and at most {longest.days} days"
    return duration


def check_store(store_uid: str, violations: dict[str, str]) -> None:
    """Note a violation unless it is the uid of a store."""
    if not is_uid("sto", store_uid):
        violations["store_uid"] = "is not the uid of a store"


def read_time(
    request: RangeRequest
    | SpanRequest
    | query_pb2.ListEventsRequest
    | export_pb2.ExportEventsRequest,
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


def _previous_start(
    boundaries: Sequence[datetime], *, interval: Interval.ValueType, zone: ZoneInfo
) -> datetime:
    """Where as many periods begin before the first: days have 23 or 25 hours at times."""
    begin, period_count = boundaries[0], len(boundaries) - 1
    # A day more than as long, so that there are enough periods, and some to leave out.
    start = max(begin - (boundaries[-1] - begin) - _LONGEST_CHANGE, _FIRST_TIME)
    before = boundaries_of(start, begin, interval=interval, zone=zone, most=2 * _MOST_PERIODS)[:-1]
    return before[max(len(before) - period_count, 0)]
