"""Children: started again when they end, gone when told to, or when their parent is."""

import asyncio
import os
import select
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from deploy.local.processes import Child, Program, StartError, kept_running, run_to_end, together

STAYS = "import signal; print('up', flush=True); signal.pause()"
IGNORES_SIGTERM = f"import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN); {STAYS}"


def python(code: str, directory: Path, name: str = "child") -> Program:
    return Program(name, (sys.executable, "-c", code), log=directory / f"{name}.log")


def is_up(program: Program) -> Callable[[], Awaitable[bool]]:
    async def answer() -> bool:
        return "up" in program.log.read_text()

    return answer


@asynccontextmanager
async def up(
    program: Program,
    *,
    patience_seconds: float = 5.0,
    on_restart: Callable[[], None] | None = None,
) -> AsyncIterator[Child]:
    child = Child(program, on_restart=on_restart)
    async with kept_running(child, patience_seconds=patience_seconds):
        await child.wait_until(is_up(program), within_seconds=10)
        yield child


def is_gone(pid: int | None) -> bool:
    assert pid is not None
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    return False


async def test_a_killed_child_is_started_again(tmp_path: Path) -> None:
    restarted = asyncio.Event()
    async with up(python(STAYS, tmp_path), on_restart=restarted.set) as child:
        killed = child.pid
        child.kill()

        async with asyncio.timeout(10):
            await restarted.wait()

        assert is_gone(killed)
        assert not is_gone(child.pid)


async def test_a_stopped_child_stays_away_until_it_is_started(tmp_path: Path) -> None:
    program = python(STAYS, tmp_path)
    async with up(program) as child:
        await child.stop(patience_seconds=5)
        assert is_gone(child.pid)

        await child.start()
        await child.wait_until(is_up(program), within_seconds=10)
        assert not is_gone(child.pid)


async def test_a_child_that_does_not_heed_is_killed(tmp_path: Path) -> None:
    async with up(python(IGNORES_SIGTERM, tmp_path), patience_seconds=0.1) as child:
        pass
    assert is_gone(child.pid)


async def test_a_child_is_stopped_when_the_block_fails(tmp_path: Path) -> None:
    with pytest.raises(ZeroDivisionError):
        async with up(python(STAYS, tmp_path)) as child:
            raise ZeroDivisionError
    assert is_gone(child.pid)


async def test_a_child_that_ends_while_it_starts_is_reported_with_its_log(tmp_path: Path) -> None:
    with pytest.raises(StartError, match=r"child ended while it started(.|\n)*no such port"):
        async with up(python("raise SystemExit('no such port')", tmp_path)):
            pass


async def test_a_child_that_is_never_ready_is_reported(tmp_path: Path) -> None:
    async def never() -> bool:
        return False

    async with up(python(STAYS, tmp_path)) as child:
        with pytest.raises(StartError, match=r"child was not ready within 0\.05 s(.|\n)*up"):
            await child.wait_until(never, within_seconds=0.05)


async def test_ctrl_c_in_the_terminal_does_not_reach_a_child(tmp_path: Path) -> None:
    async with up(python(STAYS, tmp_path)) as child:
        assert child.pid is not None
        assert os.getsid(child.pid) != os.getsid(0)


def test_a_child_ends_when_its_parent_is_killed(tmp_path: Path) -> None:
    parent = f"""
import asyncio, sys
from pathlib import Path
from deploy.local.processes import Child, Program
async def main():
    log = Path({str(tmp_path)!r}) / "child.log"
    program = Program("child", (sys.executable, "-c", {STAYS!r}), log=log)
    child = Child(program)
    await child.start()
    async def is_up():
        return "up" in log.read_text()
    await child.wait_until(is_up, within_seconds=10)
    print(child.pid, flush=True)
    await asyncio.Event().wait()
asyncio.run(main())
"""
    with subprocess.Popen([sys.executable, "-c", parent], stdout=subprocess.PIPE) as launcher:
        assert launcher.stdout is not None
        child = os.pidfd_open(int(launcher.stdout.readline()))
        launcher.send_signal(signal.SIGKILL)

    # A process's descriptor can be read once it has ended.
    ended, _, _ = select.select([child], [], [], 10)
    os.close(child)
    assert ended


async def test_a_program_that_fails_is_reported_with_its_log(tmp_path: Path) -> None:
    await run_to_end(python("print('done')", tmp_path))
    with pytest.raises(StartError, match=r"child ended with 3(.|\n)*half done"):
        await run_to_end(python("print('half done'); raise SystemExit(3)", tmp_path))


async def test_when_one_of_several_fails_the_others_are_ended(tmp_path: Path) -> None:
    stays = python(STAYS, tmp_path, name="stays")
    fails = python("raise SystemExit(1)", tmp_path, name="fails")

    async with asyncio.timeout(10):
        with pytest.raises(StartError, match="fails ended with 1"):
            await together(run_to_end(stays), run_to_end(fails))


async def test_the_log_of_the_run_before_is_kept(tmp_path: Path) -> None:
    await run_to_end(python("print('first')", tmp_path))
    await run_to_end(python("print('second')", tmp_path))

    assert [(tmp_path / name).read_text() for name in ("child.log.1", "child.log")] == [
        "first\n",
        "second\n",
    ]
