"""Caches that one simulated engine keeps and another fetches."""

import asyncio
import json
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from support.engines import free_port
from support.exposition import Exposition
from trimtab_cli.engine_sim.arguments import ArgumentError
from trimtab_cli.engine_sim.engine import Engine, EngineConfig, Sequence
from trimtab_cli.engine_sim.metrics import Metrics
from trimtab_cli.engine_sim.settings import Settings, Transfer, settings_from
from trimtab_cli.engine_sim.transfers import TransferFailed, Transfers
from trimtab_crds.accelerators import CATALOGUE
from trimtab_crds.capacity import ModelShape, Replica

REPLICA = Replica(ModelShape(8_000_000_000, 8_000_000_000, 32, 8, 128), CATALOGUE["nvidia-h100-80gb"])
CONFIG = EngineConfig(REPLICA, max_sequences=4, max_batched_tokens=512, kv_capacity_tokens=1_000)


# the command line


def parsed(config: Any, **environ: str) -> Settings:
    text = config if isinstance(config, str) else json.dumps(config)
    return settings_from(["Qwen/Qwen3-8B", "--kv-transfer-config", text], environ)


NIXL = {"kv_connector": "NixlConnector", "kv_role": "kv_both"}


def test_the_connector_and_its_side_channel():
    environ = {"VLLM_NIXL_SIDE_CHANNEL_HOST": "10.0.0.1", "VLLM_NIXL_SIDE_CHANNEL_PORT": "7000"}
    found = parsed(NIXL | {"engine_id": "e", "kv_load_failure_policy": "recompute"}, **environ)
    assert found.transfer == Transfer("e", "10.0.0.1", 7000, recompute=True)
    assert found.without_effect == ()


def test_defaults_of_the_connector_are_vllms():
    found = parsed(NIXL).transfer
    assert found is not None
    assert (found.host, found.port, found.recompute, len(found.engine_id)) == ("localhost", 5600, False, 36)


@pytest.mark.parametrize("config", [{}, {"kv_role": "kv_both"}])
def test_without_a_connector_nothing_is_transferred(config: Any):
    assert parsed(config).transfer is None


REFUSED = {
    "no role": ({"kv_connector": "NixlConnector"}, "Please specify kv_role when kv_connector is set"),
    "no such role": (NIXL | {"kv_role": "both"}, "Unsupported kv_role: both"),
    "another connector": (NIXL | {"kv_connector": "MooncakeConnector"}, "is not simulated; use NixlConnector"),
    "no such field": (NIXL | {"port": 1}, "has no field 'port'"),
    "no such policy": (NIXL | {"kv_load_failure_policy": "ignore"}, "use recompute or fail"),
    "no JSON": ("{", "is not JSON"),
}


@pytest.mark.parametrize(("config", "part"), REFUSED.values(), ids=list(REFUSED))
def test_what_vllm_refuses(config: Any, part: str):
    with pytest.raises(ArgumentError, match=part):
        parsed(config)


@pytest.mark.parametrize("port", ["x", "0", "70000"])
def test_the_side_channels_port_is_a_port(port: str):
    with pytest.raises(ArgumentError, match="VLLM_NIXL_SIDE_CHANNEL_PORT is"):
        parsed(NIXL, VLLM_NIXL_SIDE_CHANNEL_PORT=port)


# two engines


def together(story: Callable[[Transfers, Transfers, list[int]], Awaitable[None]], **how: float) -> None:
    """Runs the story of an engine that reads, one that answers, and the room that the first one's caches take."""

    async def run() -> None:
        room: list[int] = []
        made = [Transfer(name, "127.0.0.1", free_port(), tensor=2) for name in ("p", "d")]
        reader, answerer = (Transfers(t, block_tokens=16, room=room.append, **how) for t in made)
        await reader.listen()
        try:
            async with asyncio.timeout(20):
                await story(reader, answerer, room)
        finally:
            reader.close()
            answerer.close()

    asyncio.run(run())


def test_a_cache_is_kept_until_it_is_fetched_once():
    async def story(reader: Transfers, answerer: Transfers, room: list[int]) -> None:
        params = reader.keep("chatcmpl-1", "digest", 100)
        assert room == [100]
        assert [len(group) for group in params["remote_block_ids"]] == [7]
        named = ("do_remote_prefill", "do_remote_decode", "remote_engine_id", "tp_size", "remote_num_tokens")
        assert [params[name] for name in named] == [True, False, "p", 2, 100]
        assert await answerer.fetch(params, "digest") == 100
        assert room == [100, 0]
        with pytest.raises(TransferFailed, match="it was fetched, or its lease has ended"):
            await answerer.fetch(params, "digest")

    together(story)


def test_the_cache_of_another_prompt_is_not_given():
    async def story(reader: Transfers, answerer: Transfers, room: list[int]) -> None:
        params = reader.keep("chatcmpl-1", "digest", 100)
        with pytest.raises(TransferFailed, match="the cache of another prompt"):
            await answerer.fetch(params, "other")
        assert room == [100]

    together(story)


@pytest.mark.parametrize("missing", ["remote_block_ids", "remote_request_id", "remote_host", "remote_port"])
def test_what_must_be_told(missing: str):
    async def story(reader: Transfers, answerer: Transfers, _: list[int]) -> None:
        params = reader.keep("chatcmpl-1", "digest", 100)
        del params[missing]
        with pytest.raises(TransferFailed, match=f"kv_transfer_params has no {missing}"):
            await answerer.fetch(params, "digest")

    together(story)


def test_an_engine_that_is_not_there():
    async def story(reader: Transfers, answerer: Transfers, _: list[int]) -> None:
        params = reader.keep("chatcmpl-1", "digest", 100) | {"remote_port": free_port()}
        with pytest.raises(TransferFailed):
            await answerer.fetch(params, "digest")

    together(story)


@pytest.mark.parametrize("line", [b"{\n", b"[]\n", b"\n", b"{}\n"])
def test_whoever_asks_wrongly_gets_nothing(line: bytes):
    async def story(reader: Transfers, answerer: Transfers, _: list[int]) -> None:
        params = reader.keep("chatcmpl-1", "digest", 100)
        stream, writer = await asyncio.open_connection("127.0.0.1", params["remote_port"])
        writer.write(line)
        assert b"tokens" not in await stream.read()
        writer.close()
        assert await answerer.fetch(params, "digest") == 100

    together(story)


def test_a_lease_ends():
    async def story(reader: Transfers, answerer: Transfers, room: list[int]) -> None:
        params = reader.keep("chatcmpl-1", "digest", 100)
        while room[-1]:  # noqa: ASYNC110 - nobody announces it
            await asyncio.sleep(0)
        with pytest.raises(TransferFailed, match="its lease has ended"):
            await answerer.fetch(params, "digest")

    together(story, lease_seconds=0.0)


# the scheduler


def run(engine: Engine) -> None:
    engine.advance(0.0)
    while (at := engine.next_event_at) is not None:
        engine.advance(at)


def test_of_a_fetched_prompt_only_the_last_token_is_computed():
    engine = Engine(CONFIG)
    fetched, own = Sequence(1, 100, 5, external_tokens=100), Sequence(2, 100, 5)
    engine.submit(fetched, 0.0)
    engine.submit(own, 0.0)
    engine.advance(0.0)
    (first, *_) = engine.advance(engine.next_event_at or 0.0)
    assert first.prefill_tokens == 1 + 100
    assert (fetched.fetched_tokens, fetched.cached_tokens, own.fetched_tokens) == (100, 0, 0)


def test_what_the_engine_has_itself_is_not_fetched():
    engine = Engine(CONFIG)
    engine.submit(Sequence(1, 100, 1, blocks=(1, 2, 3)), 0.0)
    run(engine)
    again = Sequence(2, 100, 1, blocks=(1, 2, 3), external_tokens=100)
    engine.submit(again, 1e3)
    engine.advance(1e3)
    assert (again.cached_tokens, again.fetched_tokens) == (48, 52)


def test_caches_for_others_take_room():
    engine = Engine(CONFIG)
    engine.kept_tokens = 950
    assert engine.kv_usage == 0.95
    for key in (1, 2):
        engine.submit(Sequence(key, 40, 5), 0.0)
    engine.advance(0.0)
    assert (engine.running, engine.waiting) == (1, 1), "one may always run"
    run(engine)
    assert engine.idle


def test_sources_of_prompts_are_counted():
    engine = Engine(CONFIG)
    metrics = Metrics(engine, CONFIG, model_name="tiny", max_model_len=1000, transfers=True)
    engine.submit(Sequence(1, 100, 1, external_tokens=100), 0.0)
    engine.advance(0.0)
    for report in engine.advance(engine.next_event_at or 0.0):
        metrics.step(report)
    seen = Exposition(metrics.render().decode())
    sources = ("local_compute", "external_kv_transfer")
    by = {s: seen.value("vllm:prompt_tokens_by_source_total", source=s) for s in sources}
    assert by == {"local_compute": 0, "external_kv_transfer": 100}
    assert seen.value("vllm:prompt_tokens_cached_total") == 100
    assert seen.value("vllm:prompt_tokens_cached_by_source_total", source="p2p") == 100
    assert seen.value("vllm:external_prefix_cache_queries_total") == 100
    assert seen.value("vllm:external_prefix_cache_hits_total") == 100
