"""What runs in the other event loop goes on while the main one does not turn."""

import asyncio
import threading

import pytest

from trimtab_operator.shell.loopthread import LoopThread


def test_it_goes_on_while_the_main_loop_is_busy():
    came = threading.Event()

    async def later() -> None:
        await asyncio.sleep(0)
        came.set()

    async def main(beside: LoopThread) -> None:
        task = asyncio.create_task(beside.run(later()))
        await asyncio.sleep(0)
        assert came.wait(30), "nothing but the other thread can set it"
        await task

    with LoopThread("beside") as beside:
        asyncio.run(main(beside))


def test_answers_and_errors_come_back():
    async def answer() -> str:
        return threading.current_thread().name

    async def fail() -> None:
        raise ValueError("no")

    with LoopThread("beside") as beside:
        assert asyncio.run(beside.run(answer())) == "beside"
        with pytest.raises(ValueError, match="no"):
            asyncio.run(beside.run(fail()))


@pytest.mark.parametrize("by", ["cancelling", "the end of the thread"])
def test_nothing_is_left_running(by: str):
    ended = threading.Event()

    async def forever() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            ended.set()

    async def main(beside: LoopThread) -> None:
        task = asyncio.create_task(beside.run(forever()))
        await beside.run(asyncio.sleep(0))
        if by == "cancelling":
            task.cancel()
            await asyncio.wait([task])
            assert ended.wait(30)
        else:
            task.add_done_callback(lambda done: done.cancelled() or done.exception())

    with LoopThread("beside") as beside:
        asyncio.run(main(beside))
    assert ended.is_set()
