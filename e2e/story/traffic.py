"""Prompts of the story and the OpenAI SDK that sends them."""

import itertools
import json
import threading
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import httpx2
from openai import DefaultHttpxClient, OpenAI

from testcluster.processes import PATIENCE_SECONDS

#: 0 + 0.5 + 1 + ... + 32 seconds.
CONNECT_RETRIES = 8
PROMPTS = json.loads((Path(__file__).parent / "prompts.json").read_text())


def prompts(*sources: str) -> list[str]:
    """The prompts of these sources."""
    return [p for source in sources for p in PROMPTS[source]["prompts"]]


def long_document(tokens: int) -> str:
    """A document of about that many tokens (4 characters each) with a question at its end."""
    line = "Section {n}: the committee met, heard the report on item {n}, and adjourned without a vote.\n"
    lines = itertools.takewhile(lambda n: n * len(line) < tokens * 4, itertools.count())
    return "".join(line.format(n=n) for n in lines) + "\nWhat did the committee decide in section 12?"


@dataclass(frozen=True, slots=True)
class Answer:
    """What the router said of an answer, and what the engine counted."""

    tier: str
    query_class: str
    budget: str
    reason: str
    pool: str
    reasoning_tokens: int
    completion_tokens: int
    text: str


@contextmanager
def client(address: str) -> Iterator[OpenAI]:
    """The SDK as a user has it, without the machine's proxy settings.

    The SDK itself retries nothing, so that no error of the router is hidden. Connecting is tried again: a Service
    refuses while its endpoint is taken out, as Kubernetes does where a machine froze for longer than its probes wait.
    """
    transport = httpx2.HTTPTransport(trust_env=False, retries=CONNECT_RETRIES)
    with (
        DefaultHttpxClient(trust_env=False, transport=transport) as http,
        OpenAI(
            base_url=f"{address}/v1", api_key="unused", max_retries=0, timeout=PATIENCE_SECONDS, http_client=http
        ) as sdk,
    ):
        yield sdk


def ask(sdk: OpenAI, prompt: str, **options: Any) -> Answer:
    """One answer, not streamed."""
    raw = sdk.chat.completions.with_raw_response.create(
        model="auto", messages=[{"role": "user", "content": prompt}], **options
    )
    answer, header = raw.parse(), raw.headers
    usage = answer.usage
    assert usage is not None
    details = usage.completion_tokens_details
    return Answer(
        tier=header["x-trimtab-tier"],
        query_class=header["x-trimtab-class"],
        budget=header["x-trimtab-budget"],
        reason=header["x-trimtab-reason"],
        pool=header["x-trimtab-pool"],
        reasoning_tokens=(details.reasoning_tokens or 0) if details else 0,
        completion_tokens=usage.completion_tokens,
        text=answer.choices[0].message.content or "",
    )


def read_stream(sdk: OpenAI, prompt: str, *, tier: str) -> str:
    """Read a streamed answer of a tier to its end; why it ended, empty where it was cut."""
    with sdk.chat.completions.create(
        model="auto",
        messages=[{"role": "user", "content": prompt}],
        stream=True,
        extra_headers={"x-trimtab-tier": tier},
    ) as stream:
        reasons = [choice.finish_reason for chunk in stream for choice in chunk.choices if choice.finish_reason]
    return reasons[-1] if reasons else ""


class _Repeated(ABC):
    """Threads that repeat one piece of work until the block ends."""

    def __init__(self, threads: int) -> None:
        self._stop, self._pool, self._threads = threading.Event(), ThreadPoolExecutor(threads), threads
        self._futures: list[Future[None]] = []

    def __enter__(self) -> Self:
        """Start."""
        self._futures = [self._pool.submit(self._repeat, i) for i in range(self._threads)]
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Let open answers end; the first failure of any thread is raised unless the block failed itself."""
        self._stop.set()
        self._pool.shutdown(wait=True)
        if kind is None:
            for future in self._futures:
                future.result()

    def _repeat(self, thread: int) -> None:
        while not self._stop.is_set():
            self._once(thread)

    @abstractmethod
    def _once(self, thread: int) -> None: ...


class Streams(_Repeated):
    """Readers of streamed answers of a tier, one after another until the block ends; every end is kept."""

    def __init__(self, sdk: OpenAI, asked: Sequence[str], *, readers: int, tier: str) -> None:
        super().__init__(readers)
        self._sdk, self._tier = sdk, tier
        self._prompts = [itertools.cycle([*asked[i % len(asked) :], *asked[: i % len(asked)]]) for i in range(readers)]
        self.ends: list[str] = []

    def _once(self, thread: int) -> None:
        self.ends.append(read_stream(self._sdk, next(self._prompts[thread]), tier=self._tier))


class Load(_Repeated):
    """A bounded number of askers that repeat prompts until the block ends; every answer is kept."""

    def __init__(self, sdk: OpenAI, asked: Sequence[str], *, askers: int) -> None:
        super().__init__(askers)
        self._sdk, self._prompts, self._lock = sdk, itertools.cycle(asked), threading.Lock()
        self.answers: list[Answer] = []

    def _once(self, thread: int) -> None:
        with self._lock:
            prompt = next(self._prompts)
        answer = ask(self._sdk, prompt)
        with self._lock:
            self.answers.append(answer)
