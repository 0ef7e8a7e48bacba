"""The real-time side of the simulated engine, in one event loop and with a GPU that is practically free."""

import asyncio
from collections.abc import Awaitable, Callable
from itertools import pairwise
from typing import Any

import httpx
import pytest

from support.exposition import Exposition
from support.sse import DONE, events, joined
from trimtab_cli.engine_sim.answers import Wish, plan_answer
from trimtab_cli.engine_sim.app import Api, build_app
from trimtab_cli.engine_sim.engine import Engine
from trimtab_cli.engine_sim.metrics import Metrics
from trimtab_cli.engine_sim.runner import Runner, Ticket
from trimtab_cli.engine_sim.settings import settings_from

FAST = "--sim-time-scale=1e9"
SLOW = "--sim-time-scale=1e-9"
BODY = {"model": "tiny", "messages": [{"role": "user", "content": "Hi"}], "max_tokens": 20}


class Simulator:
    """The whole application without a socket."""

    def __init__(self, *flags: str) -> None:
        argv = ["Qwen/Qwen3-8B", "--served-model-name=tiny", "--reasoning-parser=qwen3", *flags]
        settings = settings_from(argv, {})
        engine = Engine(settings.engine)
        self.metrics = Metrics(engine, settings.engine, model_name="tiny", max_model_len=settings.max_model_len)
        self.runner = Runner(engine, self.metrics)
        self.api = Api(settings, self.runner, self.metrics)
        transport = httpx.ASGITransport(app=build_app(self.api))
        self.client = httpx.AsyncClient(transport=transport, base_url="http://engine")

    def submit(self, output: int = 30) -> Ticket:
        answer = plan_answer("Hi", 1, Wish(max_tokens=output, ignore_eos=True))
        return self.runner.submit(answer, prompt_tokens=5, blocks=(), max_tokens=output)

    async def chat(self, **fields: Any) -> httpx.Response:
        return await self.client.post("/v1/chat/completions", json=BODY | fields)


def in_loop(check: Callable[[Simulator], Awaitable[None]], *flags: str) -> None:
    async def run() -> None:
        async with asyncio.timeout(20):
            await check(Simulator(*flags))

    asyncio.run(run())


def test_a_ticket_ends_with_all_its_tokens():
    async def check(simulator: Simulator) -> None:
        ticket = simulator.submit()
        assert simulator.runner.open_answers == 1
        await ticket.ended()
        assert (ticket.written_tokens, ticket.finish_reason) == (30, "length")
        await simulator.runner.idle()
        assert simulator.runner.open_answers == 0

    in_loop(check, FAST)


def test_runs_of_tokens_follow_each_other():
    async def check(simulator: Simulator) -> None:
        ticket, runs = simulator.submit(), [(0, 0)]
        while ticket.finish_reason is None or runs[-1][1] < 30:
            runs.append(await ticket.next_run(runs[-1][1]))
        assert all(before[1] == after[0] for before, after in pairwise(runs))
        assert await ticket.next_run(30) == (30, 30)

    in_loop(check, FAST)


def test_an_aborted_answer_ends_at_once_and_is_not_counted():
    async def check(simulator: Simulator) -> None:
        ticket = simulator.submit()
        simulator.runner.abort(ticket)
        simulator.runner.abort(ticket)
        await ticket.ended()
        await simulator.runner.idle()
        assert (ticket.finish_reason, ticket.written_tokens) == ("abort", 0)
        scrape = Exposition(simulator.metrics.render().decode())
        assert scrape.value("vllm:request_success_total") == 0
        assert scrape.value("vllm:num_requests_running") == 0

    in_loop(check, SLOW)


def test_a_shutdown_ends_every_stream_with_abort():
    async def check(simulator: Simulator) -> None:
        pending = [asyncio.create_task(simulator.chat(stream=stream)) for stream in (True, False)]
        while simulator.runner.open_answers < 2:  # noqa: ASYNC110 - a turn of the loop, no time passes
            await asyncio.sleep(0)
        simulator.runner.abort_all()
        streamed, whole = [await task for task in pending]
        chunks = events(streamed.text)
        assert chunks[-1] == DONE
        assert chunks[-2]["choices"][0]["finish_reason"] == "abort"
        assert whole.json()["choices"][0]["finish_reason"] == "abort"

    in_loop(check, SLOW)


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
def test_a_draining_engine_refuses_and_stays_healthy(stream: bool):
    async def check(simulator: Simulator) -> None:
        simulator.api.draining = True
        answer = await simulator.chat(stream=stream)
        assert "currently busy" in answer.text
        assert answer.status_code == (200 if stream else 503)
        assert (await simulator.client.get("/health")).status_code == 200

    in_loop(check, FAST)


def test_the_load_counts_answers_under_way():
    async def check(simulator: Simulator) -> None:
        tickets = [simulator.submit() for _ in range(3)]
        assert (await simulator.client.get("/load")).json() == {"server_load": 3}
        for ticket in tickets:
            simulator.runner.abort(ticket)

    in_loop(check, SLOW)


def test_too_many_prompt_tokens_in_the_queue_are_refused():
    async def check(simulator: Simulator) -> None:
        tickets = [simulator.submit(), simulator.submit()]
        answer = await simulator.chat()
        assert answer.status_code == 503
        assert "prefill token backlog limit" in answer.json()["error"]["message"]
        for ticket in tickets:
            simulator.runner.abort(ticket)

    in_loop(check, SLOW, "--max-num-seqs=1", "--max-num-queued-tokens=10")


def test_streams_of_several_samples_interleave_without_loss():
    async def check(simulator: Simulator) -> None:
        fields = {"n": 5, "temperature": 1, "thinking_token_budget": 6}
        streamed = events((await simulator.chat(**fields, stream=True)).text)
        whole = (await simulator.chat(**fields)).json()
        for choice in whole["choices"]:
            own = [c for c in streamed[:-1] if c["choices"][0]["index"] == choice["index"]]
            assert joined(own, "content") == (choice["message"]["content"] or "")
            assert joined(own, "reasoning") == choice["message"]["reasoning"]

    in_loop(check, FAST)


def test_prompts_of_a_list_are_billed_together():
    async def check(simulator: Simulator) -> None:
        body = {"model": "tiny", "prompt": ["a" * 40, "b" * 80], "max_tokens": 3, "ignore_eos": True}
        answer = await simulator.client.post("/v1/completions", json=body)
        assert answer.json()["usage"] == {
            "prompt_tokens": 30,
            "total_tokens": 36,
            "completion_tokens": 6,
            "prompt_tokens_details": None,
            "completion_tokens_details": None,
        }

    in_loop(check, FAST)


def test_undecodable_bodies_are_refused():
    async def check(simulator: Simulator) -> None:
        headers = {"content-type": "application/json"}
        answer = await simulator.client.post("/v1/completions", content=b'{"prompt": "\xff"}', headers=headers)
        assert answer.status_code == 400

    in_loop(check, FAST)
