"""A prompt read by one real vLLM and answered by another, which fetches the cache by NIXL: `make vllm-nixl`.

The same router and the same requests as in test_disaggregated.py; here they show that the simulated engines do as vLLM
does.
"""

import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from support.engines import free_port, simulated_engine
from support.exposition import Exposition
from support.manifests import pool_manifest
from support.routers import RouterProcess, router_process
from support.sse import DONE, events, joined
from testcluster import nixl, vllm
from testcluster.errors import UnavailableError
from testcluster.processes import PATIENCE_SECONDS
from testcluster.progress import Progress
from testcluster.pytesting import unavailable, visible
from trimtab_crds.inferencepool import InferencePool
from trimtab_operator.core.recipe import resolve

pytestmark = [
    pytest.mark.contract,
    pytest.mark.timeout(1800),
    pytest.mark.skipif(nixl.VARIABLE not in os.environ, reason=f"{nixl.VARIABLE} is not set: two engines and 200 MB"),
]

PROMPT = "The quick brown fox jumps over the lazy dog. " * 40
SOURCES = ("local_compute", "local_cache_hit", "external_kv_transfer")


def flags(role: str) -> list[str]:
    pool = InferencePool.model_validate(pool_manifest(spec__recipe={"disaggregation": {"role": role}}))
    found = resolve(pool).flags
    at = found.index("--kv-transfer-config")
    return list(found[at : at + 2])


@contextmanager
def real(tmp: Path, progress: Progress) -> Iterator[tuple[str, str]]:
    """Two real engines, the one that reads first; their addresses."""
    packages = nixl.install(progress)
    with ExitStack() as stack:
        found = []
        for role in ("Prefill", "Decode"):
            state = tmp / role
            state.mkdir()
            env = nixl.environment(packages, free_port())
            server = stack.enter_context(vllm.serve(state, progress, flags(role), env=env))
            found.append(server.base_url)
        yield found[0], found[1]


@contextmanager
def simulated() -> Iterator[tuple[str, str]]:
    with ExitStack() as stack:
        found = []
        for role in ("Prefill", "Decode"):
            env = {k: v for k, v in nixl.environment(Path(), free_port()).items() if k.startswith("VLLM_")}
            more = ("--reasoning-parser=qwen3", "--max-model-len=8192", *flags(role))
            found.append(stack.enter_context(simulated_engine(*more, env=env)).base_url)
        yield found[0], found[1]


@pytest.fixture(scope="module", params=["simulated", "real"])
def engines(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, str]]:
    if request.param == "simulated":
        with simulated() as pair:
            yield pair
        return
    try:
        with real(tmp_path_factory.mktemp("nixl"), visible(request.config)) as pair:
            yield pair
    except UnavailableError as error:
        unavailable(error)


@pytest.fixture(scope="module")
def router(engines: tuple[str, str]) -> Iterator[RouterProcess]:
    def pool(name: str, url: str) -> dict[str, Any]:
        address = url.removeprefix("http://")
        return {
            "name": name, "servedName": "tiny", "addresses": [address], "contextTokens": 8192, "reasoning": True,
        }  # fmt: skip

    document = {
        "policy": "default/divided",
        "models": ["auto"],
        "tiers": [{"name": "low", "pool": "answerer", "prefillPool": "reader", "outputTokens": 24}],
        "pools": [pool("answerer", engines[1]), pool("reader", engines[0])],
        "classifier": {"defaultTier": "low", "outOfDomainPercent": 100},
    }
    with router_process(document) as running:
        yield running


def ask(url: str, prompt: str, **more: Any) -> httpx.Response:
    messages = [{"role": "user", "content": prompt}]
    body = {"model": "auto", "messages": messages, "temperature": 0, "max_tokens": 24, **more}
    response = httpx.post(f"{url}/v1/chat/completions", json=body, timeout=PATIENCE_SECONDS, trust_env=False)
    assert response.status_code == 200, response.text
    return response


def sources(url: str) -> dict[str, float]:
    seen = Exposition(httpx.get(f"{url}/metrics", timeout=PATIENCE_SECONDS, trust_env=False).text)
    names = {s: seen.value("vllm:prompt_tokens_by_source_total", source=s) for s in SOURCES}
    peer = seen.value("vllm:prompt_tokens_cached_by_source_total", source="p2p")
    hits = [seen.value(f"vllm:external_prefix_cache_{what}_total") for what in ("queries", "hits")]
    return names | {"p2p": peer, "queries": hits[0], "hits": hits[1]}


def risen(url: str, before: dict[str, float]) -> dict[str, float]:
    return {name: value - before[name] for name, value in sources(url).items()}


def test_prompts_are_computed_by_the_reader_and_fetched_by_the_other(engines, router):
    before = [sources(url) for url in engines]
    response = ask(router.url, "one " + PROMPT)
    assert response.headers["x-trimtab-prefill"] == "reader"
    tokens = response.json()["usage"]["prompt_tokens"]
    nothing = dict.fromkeys(SOURCES, 0.0) | {"p2p": 0, "queries": tokens, "hits": 0}
    assert risen(engines[0], before[0]) == nothing | {"local_compute": tokens}
    assert risen(engines[1], before[1]) == nothing | {"external_kv_transfer": tokens, "p2p": tokens, "hits": tokens}


def test_the_answer_is_the_one_of_an_engine_alone(engines, router):
    divided = ask(router.url, "two " + PROMPT).json()
    same = {"thinking_token_budget": 0, "chat_template_kwargs": {"enable_thinking": False}}
    alone = ask(engines[1], "two " + PROMPT, model="tiny", **same).json()
    assert divided["choices"][0]["message"] == alone["choices"][0]["message"]


def test_a_stream_stays_a_stream(engines, router):
    before = sources(engines[1])
    response = ask(router.url, "three " + PROMPT, stream=True, stream_options={"include_usage": True})
    assert response.headers["x-trimtab-prefill"] == "reader"
    found = events(response.text)
    assert found[-1] == DONE
    assert joined(found, "content")
    assert risen(engines[1], before)["external_kv_transfer"] == found[-2]["usage"]["prompt_tokens"]


def test_what_the_reader_says_has_the_same_fields(engines):
    said = ask(engines[0], "four", model="tiny", max_tokens=1, kv_transfer_params={"do_remote_decode": True}).json()
    params = said["kv_transfer_params"]
    assert set(params) == {
        *("do_remote_prefill", "do_remote_decode", "remote_block_ids", "remote_engine_id", "remote_request_id"),
        *("remote_host", "remote_port", "tp_size", "dcp_size", "pp_size", "remote_num_tokens"),
        *("remote_blocks_expiry_time", "transfer_mode", "remote_prefill_cached_tokens"),
    }
    assert (params["do_remote_prefill"], params["do_remote_decode"]) == (True, False)
    assert params["remote_num_tokens"] == said["usage"]["prompt_tokens"]
    assert params["remote_request_id"].startswith(f"{said['id']}-")
    assert len(params["remote_block_ids"]) == 1


def test_a_cache_that_is_gone_is_computed_again(engines):
    prompt = "five " + PROMPT
    said = ask(engines[0], prompt, model="tiny", max_tokens=1, kv_transfer_params={"do_remote_decode": True}).json()
    params = said["kv_transfer_params"] | {"remote_port": free_port()}
    assert ask(engines[1], prompt, model="tiny", kv_transfer_params=params).json()["usage"]["completion_tokens"] > 0
