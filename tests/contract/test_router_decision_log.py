"""The decision log of real processes: two workers, a real client, a stop."""

import json
from pathlib import Path

import httpx
import openai

from support.engines import simulated_engine
from support.routers import router_process, wait_until
from testcluster.processes import PATIENCE_SECONDS
from trimtab_router.core.journal import read


def document(address: str) -> dict[str, object]:
    return {
        "policy": "default/log",
        "models": ["auto"],
        "tiers": [{"name": "only", "pool": "only"}],
        "pools": [{"name": "only", "servedName": "tiny", "addresses": [address]}],
        "classifier": {"defaultTier": "only"},
    }


def records(folder: Path) -> list[dict[str, object]]:
    return [json.loads(line) for file in sorted(folder.glob("*.jsonl")) for line in file.read_text().splitlines()]


def written(metrics: str) -> float:
    (line,) = [
        line
        for line in metrics.splitlines()
        if line.startswith('trimtab_router_decision_log_records_total{fate="written"')
    ]
    return float(line.rsplit(" ", 1)[1])


def test_two_workers_write_what_clients_asked_and_said(tmp_path: Path):
    secret = "a prompt that nobody shall read"
    with simulated_engine() as engine:
        content = document(engine.base_url.removeprefix("http://"))
        flags = ("--workers", "2", "--decision-log", str(tmp_path / "log"))
        with router_process(content, *flags) as router:
            ids = []
            for _ in range(6):
                with openai.OpenAI(
                    base_url=f"{router.url}/v1", api_key="key", max_retries=0, timeout=PATIENCE_SECONDS
                ) as client:
                    answer = client.chat.completions.with_raw_response.create(
                        model="auto", max_tokens=4, messages=[{"role": "user", "content": secret}]
                    )
                ids.append(answer.headers["x-request-id"])
                told = {"request_id": ids[-1], "correct": True}
                done = httpx.post(f"{router.url}/v1/feedback", json=told, timeout=PATIENCE_SECONDS, trust_env=False)
                assert done.status_code == 202
            wait_until(lambda: written(router.metrics()) == 12, router.metrics)
            assert router.stop() == 0
        found = records(tmp_path / "log")
        assert sorted(str(r["request_id"]) for r in found if r["kind"] == "decision") == sorted(ids)
        assert sorted(str(r["request_id"]) for r in found if r["kind"] == "feedback") == sorted(ids)
        assert {r["outcome"] for r in found if r["kind"] == "decision"} == {"ok"}
        assert secret not in json.dumps(found)
        assert read(map(json.dumps, found), "default/log").judged == 6


def test_standard_output_is_a_line_each(tmp_path: Path):
    with (
        simulated_engine() as engine,
        router_process(document(engine.base_url.removeprefix("http://")), "--decision-log", "-") as router,
    ):
        body = {"model": "auto", "max_tokens": 2, "messages": [{"role": "user", "content": "hello"}]}
        answer = httpx.post(f"{router.url}/v1/chat/completions", json=body, timeout=PATIENCE_SECONDS, trust_env=False)
        assert router.stop() == 0
        lines = [line for line in router.log.read_text().splitlines() if line.startswith('{"kind"')]
    (found,) = map(json.loads, lines)
    assert found["request_id"] == answer.headers["x-request-id"]


def test_a_folder_that_cannot_be_made_ends_the_start(tmp_path: Path):
    (tmp_path / "file").write_text("")
    where = str(tmp_path / "file" / "log")
    with router_process(document("127.0.0.1:1"), "--decision-log", where, ready=False) as router:
        wait_until(lambda: router.process.poll() is not None, router.log.read_text)
        assert router.process.returncode == 1
        assert f"--decision-log: {where} cannot be written" in router.log.read_text()
