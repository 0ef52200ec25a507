"""Child processes that are kept running until they are told to stop."""

import asyncio
import logging
import os
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

log = logging.getLogger(__name__)

# `python -m` finds our code there.
_CHECKOUT = Path(__file__).parents[2]
_LEASH = Path(__file__).with_name("leash.py")
_FIRST_DELAY_SECONDS = 0.2
_LONGEST_DELAY_SECONDS = 5.0
# A child that lived this long had started well; its next end is a new trouble.
_STEADY_SECONDS = 10.0
_PROBE_INTERVAL_SECONDS = 0.02
_TAIL_LINE_COUNT = 20


class StartError(Exception):
    """A program didn't come up. The message says which, and how its log ends."""


@dataclass(frozen=True, slots=True)
class Program:
    """What to run. The log gets its output; the one of the run before is kept as `<log>.1`."""

    name: str
    arguments: tuple[str, ...]
    log: Path
    environment: Mapping[str, str] = field(default_factory=dict)
    """Added to the launcher's own."""


class Child:
    """A program that is started again whenever it ends, until it is stopped.

    It lives in a session of its own, so that Ctrl-C in a terminal reaches the launcher only,
    and ends with the thread that started it.
    """

    def __init__(self, program: Program, *, on_restart: Callable[[], None] | None = None) -> None:
        self._program = program
        self._on_restart = on_restart
        self._process: asyncio.subprocess.Process | None = None
        self._watch: asyncio.Task[None] | None = None
        self._end_count = 0

    @property
    def name(self) -> str:
        """The program's name."""
        return self._program.name

    @property
    def pid(self) -> int | None:
        """The process id, which changes with each start. None before the first."""
        return self._process.pid if self._process else None

    async def start(self) -> None:
        """Start the program. It may not be ready, or end at once: see `wait_until`."""
        _begin_log(self._program)
        self._end_count = 0
        self._process = await _spawn(self._program)
        self._watch = asyncio.create_task(self._keep_running(self._process))

    async def wait_until(
        self, ready: Callable[[], Awaitable[bool]], *, within_seconds: float
    ) -> None:
        """Wait until `ready` says so, which is asked again and again.

        Raises `StartError` if the program ends, or the time does.
        """
        try:
            async with asyncio.timeout(within_seconds):
                while not await ready():
                    self.require_alive()
                    await asyncio.sleep(_PROBE_INTERVAL_SECONDS)
        except TimeoutError:
            raise self.failure(f"was not ready within {within_seconds:g} s") from None

    def require_alive(self) -> None:
        """Raise `StartError` if the program has ended since `start`."""
        if self._end_count:
            raise self.failure("ended while it started")

    def failure(self, what: str) -> StartError:
        """The error that says what befell the program, and how its log ends."""
        return _failure(self._program, what)

    def kill(self) -> None:
        """End the program at once, without waiting to see it end."""
        if self._process is not None:
            with suppress(ProcessLookupError):
                self._process.kill()

    async def stop(self, *, patience_seconds: float) -> None:
        """Ask the program to end, and kill it if it hasn't by then. It may be started again."""
        if self._watch is not None:
            self._watch.cancel()
            await asyncio.wait([self._watch])
        if self._process is None:
            return
        with suppress(ProcessLookupError):
            self._process.terminate()
        try:
            async with asyncio.timeout(patience_seconds):
                await self._process.wait()
        except TimeoutError:
            log.warning("process killed", extra={"program": self.name})
        finally:
            self.kill()
            await self._process.wait()

    async def _keep_running(self, process: asyncio.subprocess.Process) -> None:
        loop = asyncio.get_running_loop()
        delay = _FIRST_DELAY_SECONDS
        while True:
            started_at = loop.time()
            exit_code = await process.wait()
            self._end_count += 1
            log.warning("process ended", extra={"program": self.name, "exit_code": exit_code})
            if loop.time() - started_at > _STEADY_SECONDS:
                delay = _FIRST_DELAY_SECONDS
            await asyncio.sleep(delay)
            delay = min(2 * delay, _LONGEST_DELAY_SECONDS)
            self._process = process = await _spawn(self._program)
            if self._on_restart is not None:
                self._on_restart()


@asynccontextmanager
async def kept_running(*children: Child, patience_seconds: float) -> AsyncIterator[None]:
    """Run the children for the block; at the end they are stopped, side by side."""
    try:
        for child in children:
            await child.start()
        yield
    finally:
        await asyncio.gather(*(child.stop(patience_seconds=patience_seconds) for child in children))


async def run_to_end(program: Program) -> None:
    """Run the program once. Raises `StartError` if it fails."""
    _begin_log(program)
    process = await _spawn(program)
    try:
        exit_code = await process.wait()
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    if exit_code != 0:
        raise _failure(program, f"ended with {exit_code}")


async def together(*works: Coroutine[Any, Any, None]) -> None:
    """Do all side by side; when one fails, cancel the others and raise its error."""
    try:
        async with asyncio.TaskGroup() as group:
            for work in works:
                group.create_task(work)
    except ExceptionGroup as errors:
        raise errors.exceptions[0] from None


def _begin_log(program: Program) -> None:
    program.log.parent.mkdir(parents=True, exist_ok=True)
    with suppress(FileNotFoundError):
        program.log.replace(f"{program.log}.1")


def _failure(program: Program, what: str) -> StartError:
    lines = program.log.read_text(errors="replace").splitlines()[-_TAIL_LINE_COUNT:]
    return StartError("\n".join([f"{program.name} {what}. {program.log} ends:", *lines]))


def on_leash(*command: str) -> tuple[str, ...]:
    """The command that runs another one, which is killed when this process ends."""
    # -I and -S: the leash needs nothing but the standard library, and starts twice as fast.
    return sys.executable, "-I", "-S", str(_LEASH), str(os.getpid()), *command


async def _spawn(program: Program) -> asyncio.subprocess.Process:
    with program.log.open("ab") as output:
        return await asyncio.create_subprocess_exec(
            *on_leash(*program.arguments),
            cwd=_CHECKOUT,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            env={**os.environ, **program.environment},
            start_new_session=True,
        )
