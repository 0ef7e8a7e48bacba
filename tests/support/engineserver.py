"""An engine under test, simulated or real: how it is asked, and what both are started with."""

from dataclasses import dataclass
from typing import Any

import httpx

from support.exposition import Exposition

WINDOW = 8192
SIMULATED = (
    "--sim-time-scale=8",
    "--reasoning-parser=qwen3",
    "--shutdown-timeout=300",
    f"--max-model-len={WINDOW}",
    "--max-num-seqs=16",
)
KEY = "sekrit"
STRICT = (
    f"--api-key={KEY}",
    "--max-num-seqs=1",
    "--max-num-queued-reqs=1",
    "--enable-prompt-tokens-details",
    "--enable-request-id-headers",
    "--shutdown-timeout=300",
    "--reasoning-parser=",
)
QUESTION = [{"role": "user", "content": "What is 17 times 23? Think step by step."}]
#: Long enough for a hit with the 128-token blocks of vLLM on a CPU.
DOCUMENT = [{"role": "user", "content": "The quick brown fox jumps over the lazy dog again. " * 60}]


@dataclass(frozen=True, slots=True)
class Server:
    """An engine under test."""

    client: httpx.Client
    pid: int

    def chat(self, **fields: Any) -> httpx.Response:
        body = {"model": "tiny", "messages": QUESTION, "max_tokens": 64, "temperature": 0} | fields
        return self.client.post("/v1/chat/completions", json=_present(body))

    def complete(self, **fields: Any) -> httpx.Response:
        body = {"model": "tiny", "prompt": "Once upon a time", "max_tokens": 4, "temperature": 0} | fields
        return self.client.post("/v1/completions", json=_present(body))

    def metrics(self) -> Exposition:
        return Exposition(self.client.get("/metrics").text)


def _present(body: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in body.items() if value is not ...}


def error_of(response: httpx.Response) -> dict[str, Any]:
    """vLLM's error object: exactly these keys, and the code is the status."""
    body = response.json()
    assert set(body) == {"error"}
    assert set(body["error"]) == {"message", "type", "param", "code"}
    assert body["error"]["code"] == response.status_code
    return body["error"]
