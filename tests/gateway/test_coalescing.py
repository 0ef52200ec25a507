"""How the events of many requests reach Ingest in few calls."""

from __future__ import annotations

import asyncio
import statistics
import time
from typing import Any

import pytest

from common.errors import DependencyUnavailable, Overloaded
from gateway.coalescer import Coalescer
from shoptrail.ingest.v1 import event_pb2, ingest_pb2
from tests.gateway.conftest import OTHER_STORE, WRITE_KEY, Clock, Mesh, Running, publishable_key


class SlowIngest:
    """Holds every call until it is let go."""

    def __init__(self, mesh: Mesh) -> None:
        self.calls: list[ingest_pb2.AppendRequest] = []
        self.called = asyncio.Event()
        self.let_go = asyncio.Event()
        self._mesh = mesh
        mesh.ingest.answers["Append"] = self._append

    async def _append(self, request: ingest_pb2.AppendRequest) -> ingest_pb2.AppendResponse:
        self.calls.append(request)
        self.called.set()
        await self.let_go.wait()
        return await self._mesh.append(request)


async def test_requests_that_wait_share_a_call_and_each_gets_its_own_verdicts(
    gateway: Running, mesh: Mesh
) -> None:
    ingest = SlowIngest(mesh)

    async def send(number: int) -> tuple[int, int]:
        good = {"event": "Viewed", "messageId": f"m{number}"}
        batch = [good] * (number % 2) + [{"messageId": "nameless"}] * (number % 3)
        response = await gateway.http.post(
            "/v1/batch", json={"batch": batch, "writeKey": WRITE_KEY}
        )
        return response.json()["accepted"], response.json()["rejected"]

    sending = [asyncio.create_task(send(number)) for number in range(61)]
    await ingest.called.wait()
    await asyncio.sleep(0.02)  # For those that come while the first call is under way.
    ingest.let_go.set()

    assert await asyncio.gather(*sending) == [(n % 2, n % 3) for n in range(61)]
    assert len(ingest.calls) < 20


async def test_an_idle_gateway_sends_at_once(gateway: Running, mesh: Mesh) -> None:
    for _ in range(3):
        await gateway.http.post("/v1/t", json={"event": "Viewed", "writeKey": WRITE_KEY})

    assert len(mesh.ingest.requests("Append")) == 3


class FakeIngest:
    """In place of the stub: answers when let go, accepting everything."""

    def __init__(self) -> None:
        self.calls: list[ingest_pb2.AppendRequest] = []
        self.let_go = asyncio.Event()
        self._arrivals: asyncio.Queue[None] = asyncio.Queue()

    async def Append(
        self, request: ingest_pb2.AppendRequest, timeout: float
    ) -> ingest_pb2.AppendResponse:
        self.calls.append(request)
        self._arrivals.put_nowait(None)
        await self.let_go.wait()
        accepted = event_pb2.VERDICT_ACCEPTED
        return ingest_pb2.AppendResponse(
            results=[
                ingest_pb2.SubmissionResult(verdicts=[accepted] * len(submission.payloads))
                for submission in request.submissions
            ]
        )

    async def next_call(self) -> None:
        """Return when one more call has come."""
        await asyncio.wait_for(self._arrivals.get(), 5)

    def sizes(self) -> list[int]:
        """How many events each call had."""
        return [
            sum(len(submission.payloads) for submission in call.submissions) for call in self.calls
        ]


def submit(
    coalescer: Coalescer, event_count: int, *, byte_count: int = 1, store_uid: str = ""
) -> asyncio.Task[ingest_pb2.SubmissionResult]:
    """Submit that many events, which are said to have so many bytes."""
    submission = ingest_pb2.Submission(store_uid=store_uid, payloads=[b"{}"] * event_count)
    return asyncio.create_task(
        coalescer.submit(submission, event_count=event_count, byte_count=byte_count)
    )


async def settle() -> None:
    """Let every task that can go on go on."""
    for _ in range(10):
        await asyncio.sleep(0)


async def test_a_call_has_at_most_500_events_unless_one_request_alone_has_more() -> None:
    ingest = FakeIngest()
    ingest.let_go.set()
    coalescer = Coalescer(ingest, time.monotonic)  # type: ignore[arg-type]  # a fake

    await asyncio.gather(*(submit(coalescer, size) for size in (300, 200, 1, 2500, 400, 101)))

    assert ingest.sizes() == [500, 1, 2500, 400, 101]


async def test_a_call_has_at_most_4_mib_unless_one_request_alone_has_more() -> None:
    ingest = FakeIngest()
    ingest.let_go.set()
    coalescer = Coalescer(ingest, time.monotonic)  # type: ignore[arg-type]  # a fake
    mib = 1024 * 1024

    sizes = [(1, 3 * mib), (2, mib), (4, 8 * mib), (8, mib)]
    await asyncio.gather(*(submit(coalescer, count, byte_count=size) for count, size in sizes))

    assert ingest.sizes() == [3, 4, 8]


async def test_a_second_call_is_made_while_many_wait_or_the_first_is_slow_but_no_third(
    clock: Clock,
) -> None:
    ingest = FakeIngest()
    coalescer = Coalescer(ingest, clock.monotonic)  # type: ignore[arg-type]  # a fake
    sending = [submit(coalescer, 1)]
    await ingest.next_call()
    sending.append(submit(coalescer, 2))
    await settle()
    assert ingest.sizes() == [1]

    sending.append(submit(coalescer, 400))
    await ingest.next_call()
    assert ingest.sizes() == [1, 402]

    clock.move_on(0.5)
    sending.append(submit(coalescer, 500))
    await settle()
    assert ingest.sizes() == [1, 402]

    ingest.let_go.set()
    await asyncio.gather(*sending)
    assert ingest.sizes() == [1, 402, 500]
    assert coalescer.count_waiting_events() == 0


async def test_few_events_need_not_wait_for_a_slow_call(clock: Clock) -> None:
    ingest = FakeIngest()
    coalescer = Coalescer(ingest, clock.monotonic)  # type: ignore[arg-type]  # a fake
    sending = [submit(coalescer, 1)]
    await ingest.next_call()
    clock.move_on(0.06)
    sending.append(submit(coalescer, 2))
    await ingest.next_call()

    assert ingest.sizes() == [1, 2]
    ingest.let_go.set()
    await asyncio.gather(*sending)


async def fill(coalescer: Coalescer, ingest: FakeIngest) -> list[asyncio.Task[Any]]:
    """Have a store send as much as it may while Ingest hangs."""
    sending = []
    for _ in range(2):
        sending.append(submit(coalescer, 2500))
        await ingest.next_call()
    sending += [submit(coalescer, 2500) for _ in range(4)]
    await settle()
    return sending


async def test_a_store_may_fill_half_of_the_room_and_leaves_the_rest_to_others() -> None:
    ingest = FakeIngest()
    coalescer = Coalescer(ingest, time.monotonic)  # type: ignore[arg-type]  # a fake
    sending = await fill(coalescer, ingest)

    assert coalescer.count_waiting_events() == 10_000
    with pytest.raises(Overloaded):
        await submit(coalescer, 1)
    sending += [submit(coalescer, 1000, store_uid="quiet") for _ in range(5)]
    await settle()
    assert coalescer.count_waiting_events() == 15_000
    with pytest.raises(Overloaded):
        await submit(coalescer, 1000, store_uid="quiet")
    with pytest.raises(Overloaded):
        await submit(coalescer, 5001, store_uid="third")

    ingest.let_go.set()
    await asyncio.gather(*sending)
    assert coalescer.count_waiting_events() == 0


async def test_who_may_have_no_more_wait_is_told_before_its_events_are_read() -> None:
    ingest = FakeIngest()
    coalescer = Coalescer(ingest, time.monotonic)  # type: ignore[arg-type]  # a fake
    coalescer.require_room("")
    sending = await fill(coalescer, ingest)

    with pytest.raises(Overloaded):
        coalescer.require_room("")
    coalescer.require_room("quiet")

    ingest.let_go.set()
    await asyncio.gather(*sending)
    coalescer.require_room("")


async def test_stores_take_turns() -> None:
    ingest = FakeIngest()
    coalescer = Coalescer(ingest, time.monotonic)  # type: ignore[arg-type]  # a fake
    sending = await fill(coalescer, ingest)
    sending += [submit(coalescer, 1, store_uid="quiet") for _ in range(2)]
    sending += [submit(coalescer, 1, store_uid="third")]
    await settle()
    ingest.let_go.set()
    await asyncio.gather(*sending)

    # After the two calls under way: the flood's next, then the others' first, and so on.
    assert [
        [submission.store_uid for submission in call.submissions] for call in ingest.calls[2:]
    ] == [[""], ["quiet", "third"], [""], ["quiet"], [""], [""]]


async def test_a_store_that_floods_does_not_slow_another(gateway: Running, mesh: Mesh) -> None:
    mesh.keys_by_text["quiet"] = publishable_key("key_3", OTHER_STORE)
    calls_per_answer = []
    ended, busy = asyncio.Event(), asyncio.Event()

    async def append_slowly(request: ingest_pb2.AppendRequest) -> ingest_pb2.AppendResponse:
        if len(mesh.ingest.calls) > 10:
            busy.set()
        await asyncio.sleep(0.005)  # What a commit takes.
        return await mesh.append(request)

    mesh.ingest.answers["Append"] = append_slowly
    batch = {"batch": [{"event": "Viewed"}] * 250, "writeKey": WRITE_KEY}

    async def flood() -> None:
        while not ended.is_set():
            await gateway.http.post("/v1/batch", json=batch)

    floods = [asyncio.create_task(flood()) for _ in range(24)]
    await busy.wait()
    for _ in range(40):
        before = len(mesh.ingest.calls)
        await gateway.http.post("/v1/t", json={"event": "Viewed", "writeKey": "quiet"})
        calls_per_answer.append(len(mesh.ingest.calls) - before)
    ended.set()
    await asyncio.gather(*floods)

    # Twelve calls' worth of the flood is always waiting; in turn, it is one or two.
    assert statistics.median(calls_per_answer) <= 5


async def test_what_waited_for_a_second_is_not_sent_any_more(clock: Clock) -> None:
    ingest = FakeIngest()
    coalescer = Coalescer(ingest, clock.monotonic)  # type: ignore[arg-type]  # a fake
    first = [submit(coalescer, 500) for _ in range(2)]
    await ingest.next_call()
    await ingest.next_call()
    late = submit(coalescer, 7)
    await settle()
    clock.move_on(1.1)
    ingest.let_go.set()

    await asyncio.gather(*first)
    with pytest.raises(DependencyUnavailable):
        await late
    assert ingest.sizes() == [500, 500]


async def test_a_request_that_is_given_up_leaves_the_others_alone() -> None:
    ingest = FakeIngest()
    coalescer = Coalescer(ingest, time.monotonic)  # type: ignore[arg-type]  # a fake
    given_up, kept = submit(coalescer, 1), submit(coalescer, 2)
    await ingest.next_call()
    given_up.cancel()
    ingest.let_go.set()

    assert len((await kept).verdicts) == 2


async def test_whenever_a_submission_comes_it_is_sent() -> None:
    ingest = FakeIngest()
    ingest.let_go.set()
    coalescer = Coalescer(ingest, time.monotonic)  # type: ignore[arg-type]  # a fake

    async def submit_after(steps: int) -> None:
        for _ in range(steps):
            await asyncio.sleep(0)
        await submit(coalescer, 1)

    for steps in range(12):
        await asyncio.wait_for(asyncio.gather(submit_after(0), submit_after(steps)), 5)


async def test_those_who_were_answered_together_are_waited_for_and_nobody_else(
    clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gateway.coalescer._LONGEST_HELD_BACK_SECONDS", 60.0)
    ingest = FakeIngest()
    coalescer = Coalescer(ingest, clock.monotonic)  # type: ignore[arg-type]  # a fake
    sending = [submit(coalescer, 1) for _ in range(10)]
    await ingest.next_call()
    clock.move_on(120.0)
    ingest.let_go.set()
    await asyncio.gather(*sending)

    for _ in range(9):
        submit(coalescer, 1)
        await settle()
    assert ingest.sizes() == [10]
    await asyncio.gather(submit(coalescer, 1))
    assert ingest.sizes() == [10, 10]


async def test_who_does_not_come_again_is_not_waited_for_long(clock: Clock) -> None:
    ingest = FakeIngest()
    ingest.let_go.set()
    coalescer = Coalescer(ingest, clock.monotonic)  # type: ignore[arg-type]  # a fake
    await asyncio.gather(*[submit(coalescer, 1) for _ in range(10)])

    await asyncio.wait_for(submit(coalescer, 1), 5)

    assert ingest.sizes() == [10, 1]
