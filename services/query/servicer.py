"""Serves `shoptrail.query.v1.Query`: reports on a store, and lists its events."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from decimal import Decimal

from google.protobuf.duration_pb2 import Duration
from google.protobuf.timestamp_pb2 import Timestamp
from sqlalchemy.ext.asyncio import AsyncConnection

from common.db import Database
from common.errors import InvalidRequest, WrongState
from common.interceptors.wrap import Context
from common.page_token import PageTokens, read_page_size
from services.query import change_repository, report_rows, repository, silence
from services.query.amounts import as_amount
from services.query.answers import attribution, carts, describe, export, loss, reconciliation, trend
from services.query.columns import EventColumns, Scope
from services.query.freshness import Cursor, Sightings, keeps_up
from services.query.identities import anonymous_subject, user_subject
from services.query.orders import Trust
from services.query.projection import (
    RecordedEvent,
    ids_after,
    place_of,
    type_name,
    type_numbers,
)
from services.query.questions import (
    NOT_A_BREAKDOWN,
    Question,
    QuestionReader,
    check_store,
    read_breakdown,
    read_duration,
    read_filters,
    read_step_in,
    read_time,
)
from services.query.report_rows import RevenueSums, SessionSums
from services.query.repository import Place, Selection
from services.query.session_sums import SessionDimension
from services.query.subject_answers import SubjectAnswers
from services.query.tallies import EVENT_TYPES, Measure
from shoptrail.query.v1 import (
    attribution_pb2,
    carts_pb2,
    export_pb2,
    loss_pb2,
    query_pb2,
    query_pb2_grpc,
    reconciliation_pb2,
    report_pb2,
    trend_pb2,
)
from shoptrail.query.v1.report_pb2 import ProductRanking, SessionBreakdown

SERVICE = query_pb2.DESCRIPTOR.services_by_name["Query"].full_name

_MOST_SERIES = 1000
_MOST_NAMES = 50
_MOST_ROWS = 100
_MOST_CURRENCIES = 200
_PRODUCTS, _MOST_PRODUCTS = 50, 500
_MOST_STEPS = 10
_MOST_COHORTS = 100
_WINDOW, _LONGEST_WINDOW = timedelta(days=7), timedelta(days=366)
_BREAKDOWN_ROWS, _MOST_BREAKDOWN_ROWS = 100, 1000
_PAGE_SIZE, _LARGEST_PAGE_SIZE = 50, 500
_MOST_DESCRIPTIONS = 500
_LONGEST_TAIL = timedelta(seconds=2)
_TAIL_PAUSE_SECONDS = 0.1
_TAIL_EVENTS = 20_000
_PAGE_BYTES = 4 * 1024 * 1024
_SESSION_DIMENSIONS = {
    SessionBreakdown.SESSION_BREAKDOWN_ENTRY_PAGE: SessionDimension.ENTRY_PAGE,
    SessionBreakdown.SESSION_BREAKDOWN_EXIT_PAGE: SessionDimension.EXIT_PAGE,
    SessionBreakdown.SESSION_BREAKDOWN_CAMPAIGN: SessionDimension.CAMPAIGN,
    SessionBreakdown.SESSION_BREAKDOWN_REFERRER: SessionDimension.REFERRER,
}
_RANKED_MEASURES = {
    ProductRanking.PRODUCT_RANKING_VIEWS: Measure.PRODUCT_VIEWS,
    ProductRanking.PRODUCT_RANKING_ADDITIONS: Measure.PRODUCT_ADDITIONS,
}


@dataclass(frozen=True, slots=True)
class _ListQuestion:
    """What `ListEvents` is asked."""

    start_time: datetime | None
    end_time: datetime | None
    after: tuple[datetime, int] | None
    page_size: int


@dataclass(frozen=True, slots=True)
class _Counted:
    """Tallies over time, the greatest first."""

    ranked: list[tuple[int, str, int]]
    """Measure, name and sum."""
    counts: dict[tuple[int, str], list[int]]
    total_count: int
    previous: dict[tuple[int, str], int]
    previous_total_count: int
    cursors: Sequence[Cursor]


class QueryServicer(query_pb2_grpc.QueryServicer):
    """Checks a request, then answers it from one snapshot of the read models."""

    def __init__(
        self,
        database: Database,
        *,
        sightings: Sightings,
        columns: EventColumns,
        page_tokens: PageTokens,
        now: Callable[[], datetime],
    ) -> None:
        self._database = database
        self._sightings = sightings
        self._columns = columns
        self._page_tokens = page_tokens
        self._questions = QuestionReader(now)
        self._subjects = SubjectAnswers(database, page_tokens=page_tokens)
        self._now = now

    async def CountEvents(
        self, request: query_pb2.CountEventsRequest, context: Context
    ) -> query_pb2.CountEventsResponse:
        violations: dict[str, str] = {}
        numbers = type_numbers()
        _check_names(request.names, violations)
        if any(name not in numbers for name in request.types):
            violations["types"] = f"must be of {', '.join(numbers)}"
        question = self._questions.read(request, violations)
        measures = [numbers[name] for name in request.types] or EVENT_TYPES
        counted = await self._count(question, measures, request.names)
        return query_pb2.CountEventsResponse(
            period_times=_as_timestamps(question),
            series=[
                report_pb2.EventCountSeries(
                    name=name,
                    type=type_name(number),
                    total_count=count,
                    counts=counted.counts[number, name],
                    previous_count=counted.previous.get((number, name), 0),
                )
                for number, name, count in counted.ranked
            ],
            total_count=counted.total_count,
            previous_total_count=counted.previous_total_count,
            as_of=self._as_of(counted.cursors),
        )

    async def CountMeasure(
        self, request: query_pb2.CountMeasureRequest, context: Context
    ) -> query_pb2.CountMeasureResponse:
        violations: dict[str, str] = {}
        _check_names(request.names, violations)
        if request.measure not in set(map(int, Measure)):
            violations["measure"] = "is required, and must be one that there is"
        question = self._questions.read(request, violations)
        counted = await self._count(question, [request.measure], request.names)
        return query_pb2.CountMeasureResponse(
            period_times=_as_timestamps(question),
            series=[
                report_pb2.MeasureSeries(
                    name=name,
                    total_count=count,
                    counts=counted.counts[measure, name],
                    previous_count=counted.previous.get((measure, name), 0),
                )
                for measure, name, count in counted.ranked
            ],
            total_count=counted.total_count,
            previous_total_count=counted.previous_total_count,
            as_of=self._as_of(counted.cursors),
        )

    async def CountVisitors(
        self, request: query_pb2.CountVisitorsRequest, context: Context
    ) -> query_pb2.CountVisitorsResponse:
        question = self._questions.read(request, {})
        copied = await self._columns.cursors()
        async with self._database.read() as snapshot:
            live = await repository.find_live_generation(snapshot)
            cursors = await repository.list_cursors(snapshot, live)
            asked, previous = question.range_in(live), question.previous
            # In the columns, people are found in a fraction of the time; but those of events that
            # have expired are in the figures alone.
            by_columns = keeps_up(copied, cursors) and not await change_repository.carries_people(
                snapshot, asked.store_uid, previous.first_quarter, asked.end_quarter
            )
            if not by_columns:
                visitors = await report_rows.count_visitors(
                    snapshot, asked, question.stretches, previous
                )
        if by_columns:
            cursors = copied
            visitors = await self._columns.visitors(
                asked.store_uid, question.boundaries, previous_start=question.previous_start
            )
        return query_pb2.CountVisitorsResponse(
            period_times=_as_timestamps(question),
            counts=visitors.periods,
            visitor_count=visitors.total,
            previous_visitor_count=visitors.previous,
            as_of=self._as_of(cursors),
        )

    async def ReportSessions(
        self, request: query_pb2.ReportSessionsRequest, context: Context
    ) -> query_pb2.ReportSessionsResponse:
        violations: dict[str, str] = {}
        if request.breakdown and request.breakdown not in _SESSION_DIMENSIONS:
            violations["breakdown"] = "must be ENTRY_PAGE, EXIT_PAGE, CAMPAIGN or REFERRER"
        question = self._questions.read(request, violations)
        found: dict[int, SessionSums] = {}
        rows: list[tuple[str, SessionSums]] = []
        async with self._database.read() as snapshot:
            live = await repository.find_live_generation(snapshot)
            cursors = await repository.list_cursors(snapshot, live)
            asked = question.range_in(live)
            for stretch in question.stretches:
                found |= await report_rows.sum_sessions(snapshot, asked, stretch)
            previous = await report_rows.sum_sessions(snapshot, asked, question.previous)
            if request.breakdown:
                dimension = _SESSION_DIMENSIONS[request.breakdown]
                rows = await report_rows.rank_sessions(snapshot, asked, dimension, limit=_MOST_ROWS)
        nothing = SessionSums()
        return query_pb2.ReportSessionsResponse(
            period_times=_as_timestamps(question),
            periods=[
                _as_session_figures(found.get(period, nothing))
                for period in range(question.period_count)
            ],
            total=_as_session_figures(sum(found.values(), nothing)),
            previous=_as_session_figures(previous.get(0, nothing)),
            rows=[
                report_pb2.SessionRow(name=name, figures=_as_session_figures(sums))
                for name, sums in rows
            ],
            as_of=self._as_of(cursors),
        )

    async def ReportRevenue(
        self, request: query_pb2.ReportRevenueRequest, context: Context
    ) -> query_pb2.ReportRevenueResponse:
        violations: dict[str, str] = {}
        if request.trust and request.trust not in set(map(int, Trust)):
            violations["trust"] = "must be CLAIMED or CONFIRMED"
        question = self._questions.read(request, violations)
        trusts = [request.trust] if request.trust else list(Trust)
        found: dict[tuple[str, int], RevenueSums] = {}
        async with self._database.read() as snapshot:
            live = await repository.find_live_generation(snapshot)
            cursors = await repository.list_cursors(snapshot, live)
            asked = question.range_in(live)
            for stretch in question.stretches:
                found |= await report_rows.sum_revenue(snapshot, asked, stretch, trusts)
            previous = await report_rows.sum_revenue(snapshot, asked, question.previous, trusts)
        # What was taken back again leaves rows without anything.
        currencies = sorted(
            {
                currency
                for sums_by in (found, previous)
                for (currency, _), sums in sums_by.items()
                if sums != RevenueSums()
            }
        )
        nothing = RevenueSums()
        return query_pb2.ReportRevenueResponse(
            period_times=_as_timestamps(question),
            currencies=[
                _as_currency_revenue(
                    currency,
                    [
                        found.get((currency, period), nothing)
                        for period in range(question.period_count)
                    ],
                    previous.get((currency, 0), nothing),
                )
                for currency in currencies[:_MOST_CURRENCIES]
            ],
            as_of=self._as_of(cursors),
        )

    async def ReportProducts(
        self, request: query_pb2.ReportProductsRequest, context: Context
    ) -> query_pb2.ReportProductsResponse:
        violations: dict[str, str] = {}
        ranking = request.ranking or ProductRanking.PRODUCT_RANKING_ORDERS
        by_orders = ranking == ProductRanking.PRODUCT_RANKING_ORDERS
        if not by_orders and ranking not in _RANKED_MEASURES:
            violations["ranking"] = "must be ORDERS, VIEWS or ADDITIONS"
        if request.limit < 0:
            violations["limit"] = "must not be negative"
        question = self._questions.read(request, violations)
        limit = min(request.limit or _PRODUCTS, _MOST_PRODUCTS)
        async with self._database.read() as snapshot:
            live = await repository.find_live_generation(snapshot)
            cursors = await repository.list_cursors(snapshot, live)
            asked = question.range_in(live)
            product_ids = (
                await report_rows.rank_products_by_orders(snapshot, asked, limit=limit)
                if by_orders
                else await report_rows.rank_products_by_measure(
                    snapshot, asked, _RANKED_MEASURES[ranking], limit=limit
                )
            )
            counts = await report_rows.sum_product_measures(snapshot, asked, product_ids)
            sales = await report_rows.sum_product_sales(snapshot, asked, product_ids)
            names = await report_rows.get_product_names(snapshot, asked, product_ids)
            before = asked.within(question.previous)
            counts_before = await report_rows.sum_product_measures(snapshot, before, product_ids)
            sales_before = await report_rows.sum_product_sales(snapshot, before, product_ids)
        return query_pb2.ReportProductsResponse(
            products=[
                _as_product_figures(
                    product_id,
                    names.get(product_id, ""),
                    counts=counts,
                    sales=sales,
                    counts_before=counts_before,
                    sales_before=sales_before,
                )
                for product_id in product_ids
            ],
            as_of=self._as_of(cursors),
        )

    async def ReportFunnel(
        self, request: query_pb2.ReportFunnelRequest, context: Context
    ) -> query_pb2.ReportFunnelResponse:
        violations: dict[str, str] = {}
        filters = read_filters(request.filters, violations)
        if not 1 <= len(request.steps) <= _MOST_STEPS:
            violations["steps"] = f"must be 1 to {_MOST_STEPS}"
        steps = [
            step
            for index, text in enumerate(request.steps)
            if (step := read_step_in(text, f"steps[{index}]", violations)) is not None
        ]
        window = read_duration(
            request, "window", violations, default=_WINDOW, longest=_LONGEST_WINDOW
        )
        breakdown = read_breakdown(request.breakdown)
        if request.breakdown and breakdown is None:
            violations["breakdown"] = NOT_A_BREAKDOWN
        scope = self._questions.read_scope(request, violations, filters=filters)
        cursors = await self._columns.cursors()
        rows = await self._columns.funnel(
            scope, steps, window=window, breakdown=breakdown, limit=_MOST_ROWS
        )
        return query_pb2.ReportFunnelResponse(
            rows=[
                report_pb2.FunnelRow(value=row.value, person_counts=row.person_counts)
                for row in rows
            ],
            as_of=self._as_of(cursors),
        )

    async def ReportRetention(
        self, request: query_pb2.ReportRetentionRequest, context: Context
    ) -> query_pb2.ReportRetentionResponse:
        violations: dict[str, str] = {}
        filters = read_filters(request.filters, violations)
        first = read_step_in(request.first, "first", violations) if request.first else None
        again = read_step_in(request.again, "again", violations) if request.again else None
        question = self._questions.read(request, violations)
        if question.period_count > _MOST_COHORTS:
            raise InvalidRequest(
                {"start_time": f"makes more than {_MOST_COHORTS} periods up to the end"}
            )
        scope = Scope(question.store_uid, question.boundaries[0], question.boundaries[-1], filters)
        cursors = await self._columns.cursors()
        cohorts = await self._columns.retention(
            scope, question.boundaries, first=first, again=again
        )
        return query_pb2.ReportRetentionResponse(
            period_times=_as_timestamps(question),
            cohorts=[
                report_pb2.Cohort(
                    person_count=cohort.person_count, return_counts=cohort.return_counts
                )
                for cohort in cohorts
            ],
            as_of=self._as_of(cursors),
        )

    async def BreakDownEvents(
        self, request: query_pb2.BreakDownEventsRequest, context: Context
    ) -> query_pb2.BreakDownEventsResponse:
        violations: dict[str, str] = {}
        filters = read_filters(request.filters, violations)
        step = read_step_in(request.event, "event", violations) if request.event else None
        breakdown = read_breakdown(request.breakdown)
        if breakdown is None:
            violations["breakdown"] = NOT_A_BREAKDOWN
        if request.limit < 0:
            violations["limit"] = "must not be negative"
        scope = self._questions.read_scope(request, violations, filters=filters)
        limit = min(request.limit or _BREAKDOWN_ROWS, _MOST_BREAKDOWN_ROWS)
        cursors = await self._columns.cursors()
        assert breakdown is not None  # noqa: S101 - else there was a violation
        rows = await self._columns.break_down(scope, step, breakdown, limit=limit)
        return query_pb2.BreakDownEventsResponse(
            rows=[
                report_pb2.BreakdownRow(
                    value=row.value, event_count=row.event_count, person_count=row.person_count
                )
                for row in rows
            ],
            as_of=self._as_of(cursors),
        )

    async def DescribeEvents(
        self, request: query_pb2.DescribeEventsRequest, context: Context
    ) -> query_pb2.DescribeEventsResponse:
        scope = self._questions.read_scope(request, {})
        cursors = await self._columns.cursors()
        found = await self._columns.describe(scope, limit=_MOST_DESCRIPTIONS)
        async with self._database.read() as snapshot:
            live = await repository.find_live_generation(snapshot)
            silent = await silence.find_silent_events(
                snapshot, live, request.store_uid, now=self._now()
            )
        return query_pb2.DescribeEventsResponse(
            events=[
                describe.as_description(one, silent.get((one.type, one.name))) for one in found
            ],
            as_of=self._as_of(cursors),
        )

    async def ReportTrend(
        self, request: trend_pb2.ReportTrendRequest, context: Context
    ) -> trend_pb2.ReportTrendResponse:
        cursors = await self._columns.cursors()
        response = await trend.answer(request, self._questions, self._columns)
        response.as_of.CopyFrom(self._as_of(cursors))
        return response

    async def ReportLoss(
        self, request: loss_pb2.ReportLossRequest, context: Context
    ) -> loss_pb2.ReportLossResponse:
        cursors = await self._columns.cursors()
        response = await loss.answer(request, self._questions, self._columns)
        response.as_of.CopyFrom(self._as_of(cursors))
        return response

    async def ReportCarts(
        self, request: carts_pb2.ReportCartsRequest, context: Context
    ) -> carts_pb2.ReportCartsResponse:
        cursors = await self._columns.cursors()
        response = await carts.answer(request, self._questions, self._columns, now=self._now())
        response.as_of.CopyFrom(self._as_of(cursors))
        return response

    async def ReportAttribution(
        self, request: attribution_pb2.ReportAttributionRequest, context: Context
    ) -> attribution_pb2.ReportAttributionResponse:
        cursors = await self._columns.cursors()
        response = await attribution.answer(request, self._questions, self._columns)
        response.as_of.CopyFrom(self._as_of(cursors))
        return response

    async def ReconcileOrders(
        self, request: reconciliation_pb2.ReconcileOrdersRequest, context: Context
    ) -> reconciliation_pb2.ReconcileOrdersResponse:
        cursors = await self._columns.cursors()
        response = await reconciliation.answer(
            request, self._questions, self._columns, self._page_tokens
        )
        response.as_of.CopyFrom(self._as_of(cursors))
        return response

    async def ExportEvents(
        self, request: export_pb2.ExportEventsRequest, context: Context
    ) -> export_pb2.ExportEventsResponse:
        return await export.answer(request, self._database, self._page_tokens)

    async def ListVisitorEvents(
        self, request: query_pb2.ListVisitorEventsRequest, context: Context
    ) -> query_pb2.ListVisitorEventsResponse:
        violations: dict[str, str] = {}
        check_store(request.store_uid, violations)
        if bool(request.user_id) == bool(request.anonymous_id):
            violations["user_id"] = "must be given, or anonymous_id, and not both"
        page_size = _read_page_size(request.page_size, violations)
        if violations:
            raise InvalidRequest(violations)
        place = self._page_tokens.open(request)
        subject = (
            user_subject(request.user_id)
            if request.user_id
            else anonymous_subject(request.anonymous_id)
        )
        cursors = await self._columns.cursors()
        found = await self._columns.timeline(
            request.store_uid,
            subject,
            after=(datetime.fromisoformat(place[0]), int(place[1])) if place else None,
            limit=page_size + 1,
        )
        asked = found[:page_size]
        async with self._database.read() as snapshot:
            ids = [identifier for _, identifier in asked]
            places = await repository.get_places(snapshot, store_uid=request.store_uid, ids=ids)
            page = _page_of(places)
            events = await repository.get_events(
                snapshot, store_uid=request.store_uid, ids=[one.id for one in page]
            )
        response = query_pb2.ListVisitorEventsResponse(
            events=[_as_message(event) for event in events], as_of=self._as_of(cursors)
        )
        if len(page) < len(places) or len(asked) < len(found):
            # Of what the columns have, some may have left the listing.
            last = (page[-1].occur_time, page[-1].id) if len(page) < len(places) else asked[-1]
            response.next_page_token = self._page_tokens.seal(
                request, [last[0].isoformat(), last[1]]
            )
        return response

    async def TailEvents(
        self, request: query_pb2.TailEventsRequest, context: Context
    ) -> query_pb2.TailEventsResponse:
        violations: dict[str, str] = {}
        check_store(request.store_uid, violations)
        page_size = _read_page_size(request.page_size, violations)
        wait = _read_wait(request, violations)
        if violations:
            raise InvalidRequest(violations)
        token = self._page_tokens.open(request)
        reached = {int(shard): int(position) for shard, position in token} if token else {}
        end = asyncio.get_running_loop().time() + wait.total_seconds()
        while True:
            async with self._database.read() as snapshot:
                live = await repository.find_live_generation(snapshot)
                cursors = await repository.list_cursors(snapshot, live)
                if token is None:
                    reached = {cursor.shard: cursor.position for cursor in cursors}
                page = await _tail(
                    snapshot, request.store_uid, cursors, reached, page_size=page_size
                )
                events = await repository.get_events(
                    snapshot, store_uid=request.store_uid, ids=[place.id for place in page]
                )
            waited = asyncio.get_running_loop().time() >= end
            if events or waited or token is None:
                return query_pb2.TailEventsResponse(
                    events=[_as_message(event) for event in sorted(events, key=_id_of)],
                    next_page_token=self._page_tokens.seal(
                        request, [[shard, position] for shard, position in sorted(reached.items())]
                    ),
                )
            await asyncio.sleep(_TAIL_PAUSE_SECONDS)

    async def RebuildFigures(
        self, request: query_pb2.RebuildFiguresRequest, context: Context
    ) -> query_pb2.RebuildFiguresResponse:
        async with self._database.begin() as transaction:
            generation = await repository.begin_generation(transaction)
            if generation is not None:
                await change_repository.carry_over(transaction, generation)
        if generation is None:
            raise WrongState("The figures are being rebuilt already, or there are none yet.")
        return query_pb2.RebuildFiguresResponse(generation=generation)

    async def CountSubject(
        self, request: query_pb2.CountSubjectRequest, context: Context
    ) -> query_pb2.CountSubjectResponse:
        return await self._subjects.count(request)

    async def EraseSubject(
        self, request: query_pb2.EraseSubjectRequest, context: Context
    ) -> query_pb2.EraseSubjectResponse:
        return await self._subjects.erase(request)

    async def ExportSubject(
        self, request: query_pb2.ExportSubjectRequest, context: Context
    ) -> query_pb2.ExportSubjectResponse:
        return await self._subjects.export(request)

    async def _count(
        self, question: Question, measures: Sequence[int], names: Sequence[str]
    ) -> _Counted:
        """The tallies asked about, from one snapshot."""
        async with self._database.read() as snapshot:
            live = await repository.find_live_generation(snapshot)
            cursors = await repository.list_cursors(snapshot, live)
            asked = question.range_in(live)
            selection = Selection(
                generation=live,
                store_uid=question.store_uid,
                first_quarter=asked.first_quarter,
                end_quarter=asked.end_quarter,
                measures=measures,
                names=tuple(names),
            )
            ranked = await repository.rank_names(snapshot, selection, limit=_MOST_SERIES)
            total_count = (
                sum(count for _, _, count in ranked)
                if len(ranked) < _MOST_SERIES
                else await repository.count_all(snapshot, selection)
            )
            counts = {(measure, name): [0] * question.period_count for measure, name, _ in ranked}
            of_ranked = replace(selection, names=tuple({name for _, name, _ in ranked}))
            for stretch in question.stretches if counts else ():
                for measure, name, period, count in await repository.count_by_period(
                    snapshot, of_ranked, stretch
                ):
                    if (measure, name) in counts:
                        counts[measure, name][period] = count
            previous = {
                (measure, name): count
                for measure, name, _, count in await repository.count_by_period(
                    snapshot, selection, question.previous
                )
            }
        previous_total_count = sum(previous.values())
        return _Counted(ranked, counts, total_count, previous, previous_total_count, cursors)

    async def ListEvents(
        self, request: query_pb2.ListEventsRequest, context: Context
    ) -> query_pb2.ListEventsResponse:
        question = self._read_list_question(request)
        async with self._database.read() as snapshot:
            live = await repository.find_live_generation(snapshot)
            cursors = await repository.list_cursors(snapshot, live)
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

    def _read_list_question(self, request: query_pb2.ListEventsRequest) -> _ListQuestion:
        """What is asked; raises `InvalidRequest` naming everything wrong at once."""
        violations: dict[str, str] = {}
        check_store(request.store_uid, violations)
        start = read_time(request, "start_time", violations)
        end = read_time(request, "end_time", violations)
        if start is not None and end is not None and start >= end:
            violations["start_time"] = "must be before end_time"
        page_size = _read_page_size(request.page_size, violations)
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


async def _tail(
    snapshot: AsyncConnection,
    store_uid: str,
    cursors: Sequence[Cursor],
    reached: dict[int, int],
    *,
    page_size: int,
) -> list[Place]:
    """What follows the positions reached, which are moved on."""
    places: list[Place] = []
    for cursor in cursors:
        # A shard that was not there when the tail began is listed from its beginning.
        begin = reached.setdefault(cursor.shard, 0)
        # So many events of other stores at most are passed over in one go.
        stop = min(cursor.position, begin + _TAIL_EVENTS)
        after_id, _ = ids_after(cursor.shard, begin)
        before_id = ids_after(cursor.shard, stop)[0] + 1
        found = await repository.list_places_between(
            snapshot, store_uid, after_id, before_id, limit=page_size - len(places) + 1
        )
        page = _page_of([*places, *found[: page_size - len(places)]])[len(places) :]
        places += page
        if len(page) < len(found):
            if page:
                reached[cursor.shard] = place_of(page[-1].id)[1]
            break
        reached[cursor.shard] = max(begin, stop)
    return places


def _id_of(event: RecordedEvent) -> int:
    return event.id


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


def _check_names(names: Sequence[str], violations: dict[str, str]) -> None:
    if len(names) > _MOST_NAMES:
        violations["names"] = f"must be at most {_MOST_NAMES}"


def _read_page_size(asked: int, violations: dict[str, str]) -> int:
    try:
        return read_page_size(asked, default=_PAGE_SIZE, largest=_LARGEST_PAGE_SIZE)
    except InvalidRequest as error:
        violations |= error.violations
        return 0


def _read_wait(request: query_pb2.TailEventsRequest, violations: dict[str, str]) -> timedelta:
    try:
        wait = request.wait.ToTimedelta()
    except (ValueError, OverflowError):
        wait = timedelta(-1)
    if not timedelta() <= wait <= _LONGEST_TAIL:
        violations["wait"] = f"must be at most {_LONGEST_TAIL.seconds} s, and not negative"
    return wait


def _as_session_figures(sums: SessionSums) -> report_pb2.SessionFigures:
    duration = Duration()
    duration.FromTimedelta(timedelta(microseconds=sums.duration))
    return report_pb2.SessionFigures(
        session_count=sums.session_count,
        bounce_count=sums.bounce_count,
        page_count=sums.page_count,
        duration=duration,
    )


def _as_currency_revenue(
    currency: str, periods: Iterable[RevenueSums], previous: RevenueSums
) -> report_pb2.CurrencyRevenue:
    figures = list(periods)
    return report_pb2.CurrencyRevenue(
        currency=currency,
        total=_as_revenue_figures(sum(figures, RevenueSums())),
        previous=_as_revenue_figures(previous),
        periods=[_as_revenue_figures(sums) for sums in figures],
    )


def _as_revenue_figures(sums: RevenueSums) -> report_pb2.RevenueFigures:
    # Rounded half to even, as whole numbers of the smallest unit are.
    average = round(Decimal(sums.gross) / sums.order_count) if sums.order_count else None
    return report_pb2.RevenueFigures(
        order_count=sums.order_count,
        gross=as_amount(sums.gross),
        refund_count=sums.refund_count,
        refunded=as_amount(sums.refunded),
        cancellation_count=sums.cancellation_count,
        cancelled=as_amount(sums.cancelled),
        net=as_amount(sums.gross - sums.refunded - sums.cancelled),
        average_order="" if average is None else as_amount(average),
    )


def _as_product_figures(
    product_id: str,
    name: str,
    *,
    counts: dict[tuple[str, int], int],
    sales: dict[tuple[str, str], tuple[int, int, int]],
    counts_before: dict[tuple[str, int], int],
    sales_before: dict[tuple[str, str], tuple[int, int, int]],
) -> report_pb2.ProductFigures:
    views, clicks, additions, removals = (
        counts.get((product_id, measure), 0) for measure in report_rows.PRODUCT_MEASURES
    )
    sold = {currency: sums for (sold_id, currency), sums in sales.items() if sold_id == product_id}
    order_count = sum(orders for orders, _, _ in sold.values())
    return report_pb2.ProductFigures(
        product_id=product_id,
        name=name,
        view_count=views,
        click_count=clicks,
        addition_count=additions,
        removal_count=removals,
        order_count=order_count,
        quantity=sum(quantity for _, quantity, _ in sold.values()),
        revenue=[
            report_pb2.Money(currency=currency, amount=as_amount(amount))
            for currency, (_, _, amount) in sold.items()
            if amount
        ],
        view_to_cart_rate=additions / views if views else None,
        cart_to_order_rate=order_count / additions if additions else None,
        previous_view_count=counts_before.get((product_id, Measure.PRODUCT_VIEWS), 0),
        previous_order_count=sum(
            orders for (sold_id, _), (orders, _, _) in sales_before.items() if sold_id == product_id
        ),
    )


def _as_timestamps(question: Question) -> list[Timestamp]:
    """When the periods begin."""
    return [_as_timestamp(time) for time in question.boundaries[:-1]]


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
        device=event.device,
        browser=event.browser,
        consent=event.consent,
        trust=event.trust,  # type: ignore[arg-type]  # the same numbers
    )


def _as_timestamp(time: datetime) -> Timestamp:
    message = Timestamp()
    message.FromDatetime(time)
    return message
