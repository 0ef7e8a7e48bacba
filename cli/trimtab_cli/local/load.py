"""The built-in load: open-loop arrivals whose mix shifts from easy to hard, and a count of what came back.

Arrivals do not wait for answers, as real users do not; only the number of open requests is bounded, so that a stalled
fleet does not fill this machine's memory. Arrival times and queries depend on the seed alone.
"""

import asyncio
import json
import random
import time
from collections import Counter, deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import Any, cast

import httpx
import yaml

Body = dict[str, Any]
Usage = Mapping[str, Any]

MAX_OPEN = 256
#: A tenth of the answers is streamed, as a chat would.
STREAMED_SHARE = 0.1
ANSWER_SECONDS = 300.0
#: Length of one easy-to-hard-to-easy cycle when there is no end.
CYCLE_SECONDS = 150.0
#: (share of the time, share of hard queries): easy first, hard from the middle on.
_ONCE = ((0.0, 0.0), (0.22, 0.0), (0.42, 1.0), (1.0, 1.0))
_CYCLE = ((0.0, 0.0), (0.25, 0.0), (0.4, 1.0), (0.7, 1.0), (0.85, 0.0), (1.0, 0.0))


def hard_share(elapsed_seconds: float, for_seconds: float | None) -> float:
    """How hard the mix is at that time, 0 to 1."""
    if for_seconds is None:
        return _interpolate(_CYCLE, elapsed_seconds % CYCLE_SECONDS / CYCLE_SECONDS)
    return _interpolate(_ONCE, min(1.0, elapsed_seconds / for_seconds))


def _interpolate(points: Sequence[tuple[float, float]], x: float) -> float:
    for (x0, y0), (x1, y1) in pairwise(points):
        if x <= x1:
            return y0 + (y1 - y0) * (x - x0) / (x1 - x0)
    return points[-1][1]


def choose_prompt(draw: random.Random, hard: float) -> str:
    """A query: mostly easy ones at 0, mostly hard ones at 1, some of each always."""
    weights = (0.8 - 0.7 * hard, 0.15 + 0.05 * hard, 0.05 + 0.65 * hard)
    return draw.choice(prompts()[draw.choices(("easy", "medium", "hard"), weights)[0]])


@cache
def prompts() -> Mapping[str, Sequence[str]]:
    """The queries that ship with Trimtab, by difficulty."""
    text = (Path(__file__).parent / "prompts.yaml").read_text(encoding="utf-8")
    return cast("Mapping[str, Sequence[str]]", yaml.safe_load(text))


@dataclass(slots=True)
class Tally:
    """What was asked and answered. `unfinished` ones were open when the run was cut short."""

    requests: int = 0
    failed: int = 0
    unfinished: int = 0
    skipped: int = 0
    answered: int = 0
    prompt_tokens: int = 0
    output_tokens: int = 0
    thinking_tokens: int = 0
    by_tier: Counter[str] = field(default_factory=Counter)
    by_class: Counter[str] = field(default_factory=Counter)
    errors: Counter[str] = field(default_factory=Counter)
    latencies: deque[float] = field(default_factory=lambda: deque(maxlen=500))

    def answer(self, headers: httpx.Headers, usage: Usage, seconds: float) -> None:
        """Count an answer."""
        self.answered += 1
        self.by_tier[headers.get("x-trimtab-tier", "unknown")] += 1
        self.by_class[headers.get("x-trimtab-class", "unknown")] += 1
        self.prompt_tokens += _int(usage.get("prompt_tokens"))
        self.output_tokens += _int(usage.get("completion_tokens"))
        details = usage.get("completion_tokens_details")
        self.thinking_tokens += _int(details.get("reasoning_tokens")) if isinstance(details, dict) else 0
        self.latencies.append(seconds)

    def fail(self, why: str) -> None:
        """Count a failure and its cause."""
        self.failed += 1
        self.errors[why] += 1


def _int(value: object) -> int:
    return value if isinstance(value, int) else 0


class Load:
    """Sends requests to one router until it is stopped."""

    def __init__(
        self,
        url: str,
        model: str,
        *,
        requests_per_second: float,
        seed: int,
        for_seconds: float | None,
        key: str = "",
        clock: Callable[[], float] = time.monotonic,
        transport: httpx.AsyncBaseTransport | None = None,
    ) -> None:
        self._url = f"{url}/chat/completions"
        self._model = model
        self._rate = requests_per_second
        self._draw = random.Random(seed)
        self._for_seconds = for_seconds
        self._clock = clock
        self._started = clock()
        self._open: set[asyncio.Task[None]] = set()
        limits = httpx.Limits(max_connections=MAX_OPEN, max_keepalive_connections=32)
        self._client = httpx.AsyncClient(
            limits=limits,
            timeout=ANSWER_SECONDS,
            trust_env=False,
            transport=transport,
            headers={"authorization": f"Bearer {key}"} if key else None,
        )
        self.tally = Tally()

    @property
    def hard_share(self) -> float:
        """How hard the mix is now."""
        return hard_share(self._clock() - self._started, self._for_seconds)

    @property
    def open_requests(self) -> int:
        """Requests without a complete answer."""
        return len(self._open)

    async def run(self) -> None:
        """Send until cancelled; open answers go on, `finish` waits for them."""
        self._started = due = self._clock()
        while True:
            due += self._draw.expovariate(self._rate)
            await asyncio.sleep(max(0.0, due - self._clock()))
            prompt, streamed = choose_prompt(self._draw, self.hard_share), self._draw.random() < STREAMED_SHARE
            if len(self._open) >= MAX_OPEN:
                self.tally.skipped += 1
                continue
            task = asyncio.create_task(self._ask(prompt, streamed=streamed))
            self._open.add(task)
            task.add_done_callback(self._open.discard)

    async def finish(self, grace_seconds: float) -> None:
        """Wait for open answers; what is still open after the grace counts as unfinished."""
        if self._open:
            await asyncio.wait(self._open, timeout=grace_seconds)
        left = list(self._open)
        self.tally.unfinished += len(left)
        for task in left:
            task.cancel()
        await asyncio.gather(*left, return_exceptions=True)
        await self._client.aclose()

    async def _ask(self, prompt: str, *, streamed: bool) -> None:
        body: Body = {"model": self._model, "messages": [{"role": "user", "content": prompt}]}
        self.tally.requests += 1
        started = self._clock()
        try:
            headers, usage = await (self._stream(body) if streamed else self._whole(body))
        except (httpx.HTTPError, ValueError, KeyError) as error:
            self.tally.fail(f"{type(error).__name__}: {error}"[:200])
            return
        self.tally.answer(headers, usage, self._clock() - started)

    async def _whole(self, body: Body) -> tuple[httpx.Headers, Usage]:
        answer = await self._client.post(self._url, json=body)
        answer.raise_for_status()
        usage: Usage = answer.json()["usage"]
        return answer.headers, usage

    async def _stream(self, body: Body) -> tuple[httpx.Headers, Usage]:
        """A streamed answer must end with [DONE]; its usage comes in the last chunk."""
        usage: Usage | None = None
        asked = {**body, "stream": True, "stream_options": {"include_usage": True}}
        async with self._client.stream("POST", self._url, json=asked) as answer:
            answer.raise_for_status()
            async for line in answer.aiter_lines():
                if line == "data: [DONE]":
                    return answer.headers, usage or {}
                if line.startswith("data: ") and ('"usage"' in line or '"error"' in line):
                    chunk = json.loads(line[6:])
                    if "error" in chunk:
                        raise ValueError(f"error in the stream: {chunk['error']}")
                    usage = chunk.get("usage") or usage
        raise ValueError("the stream ended without [DONE]")
