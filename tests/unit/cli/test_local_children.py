"""Real child processes: none outlives its parent, whatever ends it."""

import asyncio
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from trimtab_cli.local.children import Child, Children
from trimtab_cli.local.watchdog import main as watchdog

PATIENCE_SECONDS = 20
STUBBORN = "trap '' TERM; echo ready; while :; do sleep 0.05; done"


def alive(pid: int) -> bool:
    """A process that exists and is not a zombie of ours."""
    try:
        return "\nState:\tZ" not in Path(f"/proc/{pid}/status").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return False


async def until(happened: Callable[[], bool]) -> None:
    async with asyncio.timeout(PATIENCE_SECONDS):
        while True:
            if happened():
                return
            await asyncio.sleep(0.01)


async def started(children: Children, script: str, name: str = "child") -> Child:
    """A shell that said `ready`."""
    child = await children.start(name, ["sh", "-c", script])
    await until(lambda: "ready" in child.log.read_text())
    return child


def test_status_and_last_words() -> None:
    async def run() -> None:
        async with Children(logs=None) as children:
            child = await children.start("child", ["sh", "-c", "echo one; echo two; echo three >&2; exit 7"])
            assert await child.ended() == 7
            assert child.status == 7
            assert child.last_words(lines=2) == "two | three"

    asyncio.run(run())


def test_a_quiet_child_has_no_last_words() -> None:
    async def run() -> None:
        async with Children(logs=None) as children:
            child = await children.start("child", ["true"])
            await child.ended()
            assert child.last_words() == "it printed nothing"

    asyncio.run(run())


def test_environment_is_added() -> None:
    async def run() -> None:
        async with Children(logs=None) as children:
            child = await children.start("child", ["sh", "-c", 'echo "$COLOUR $HOME"'], {"COLOUR": "blue"})
            await child.ended()
            assert child.last_words() == f"blue {os.environ['HOME']}"

    asyncio.run(run())


def test_no_such_program_is_an_error() -> None:
    async def run() -> None:
        async with Children(logs=None) as children:
            with pytest.raises(FileNotFoundError):
                await children.start("child", ["/no/such/program"])

    asyncio.run(run())


def test_stop_asks_first() -> None:
    async def run() -> None:
        async with Children(logs=None) as children:
            child = await started(children, "trap 'exit 3' TERM; echo ready; while :; do sleep 0.05; done")
            await child.stop(PATIENCE_SECONDS)
            assert child.status == 3

    asyncio.run(run())


def test_stop_kills_what_does_not_listen() -> None:
    async def run() -> None:
        async with Children(logs=None) as children:
            child = await started(children, STUBBORN)
            await child.stop(0.05)
            assert child.status == -signal.SIGKILL

    asyncio.run(run())


def test_leaving_ends_children_and_grandchildren_and_removes_the_folder() -> None:
    async def run() -> None:
        async with Children(logs=None) as children:
            folder = children.folder
            child = await started(children, "sleep 1000 & echo $!; echo ready; wait")
            grandchild = int(child.log.read_text().split()[0])
            assert alive(grandchild)
        await until(lambda: not alive(child.pid) and not alive(grandchild))
        assert not folder.exists()

    asyncio.run(run())


def test_logs_are_kept_where_asked(tmp_path: Path) -> None:
    async def run() -> None:
        async with Children(logs=tmp_path / "logs") as children:
            await (await children.start("engine", ["echo", "hello"])).ended()

    asyncio.run(run())
    assert (tmp_path / "logs" / "engine.log").read_text() == "hello\n"


PARENT = """
import asyncio, sys
from trimtab_cli.local.children import Children

async def run():
    async with Children(logs=None) as children:
        child = await children.start("child", ["sleep", "1000"])
        print(child.pid, children.folder, flush=True)
        await asyncio.Event().wait()

asyncio.run(run())
"""


def test_a_killed_parent_leaves_no_child_and_no_folder() -> None:
    with subprocess.Popen([sys.executable, "-c", PARENT], stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        pid, folder = parent.stdout.readline().split()
        assert alive(int(pid))
        parent.kill()
    deadline = time.monotonic() + PATIENCE_SECONDS
    while (alive(int(pid)) or Path(folder).exists()) and time.monotonic() < deadline:
        time.sleep(0.02)
    assert not alive(int(pid))
    assert not Path(folder).exists()


def test_the_watchdog_spares_what_ended_by_itself(tmp_path: Path) -> None:
    folder = tmp_path / "work"
    folder.mkdir()
    with subprocess.Popen(["sleep", "1000"], start_new_session=True) as spared:
        with subprocess.Popen(["sleep", "1000"], start_new_session=True) as left:
            watchdog(str(folder), [f"+{spared.pid}\n", f"+{left.pid}\n", f"-{spared.pid}\n"])
            assert left.wait(PATIENCE_SECONDS) == -signal.SIGTERM
        assert spared.poll() is None
        spared.kill()
    assert not folder.exists()
