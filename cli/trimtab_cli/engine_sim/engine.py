"""The simulated engine's scheduler: continuous batching with chunked prefill, preemption and a prefix cache.

A state machine without clock or I/O. Time is whatever the caller passes as `now`, in seconds; it must not go back.
One step at a time: it takes prompt tokens up to `max_batched_tokens` and one token (more with speculation) for every
decoding sequence, lasts what the capacity model says, and only when it is over do its tokens exist. Order is first
come, first served. The cache bounds what runs: a sequence is admitted when its prompt fits, and when running ones
outgrow the cache the youngest is preempted and computed again later, as in vLLM.
"""

from collections import deque
from dataclasses import dataclass, field
from enum import StrEnum

from trimtab_cli.engine_sim.prefixes import PrefixCache
from trimtab_cli.engine_sim.speculation import NO_SPECULATION, Speculation
from trimtab_crds.capacity import Replica, step_seconds


class Rejection(StrEnum):
    """Why a request was not queued; the label of `vllm:admission_rejections_total`."""

    QUEUED_REQUESTS = "max_num_queued_reqs"
    QUEUED_TOKENS = "max_num_queued_tokens"


@dataclass(frozen=True, slots=True)
class EngineConfig:
    """What the scheduler is bound by. `time_scale` is simulated seconds per second of the caller's clock."""

    replica: Replica
    max_sequences: int
    max_batched_tokens: int
    kv_capacity_tokens: int
    max_queued_requests: int | None = None
    max_queued_tokens: int | None = None
    block_tokens: int = 16
    prefix_caching: bool = True
    speculation: Speculation = NO_SPECULATION
    time_scale: float = 1.0


@dataclass(slots=True, eq=False)
class Sequence:
    """One answer being written. Times are those of the caller's clock; None until they happen."""

    key: int
    prompt_tokens: int
    output_tokens: int
    blocks: tuple[int, ...] = ()
    arrived_at: float = 0.0
    scheduled_at: float | None = None
    first_token_at: float | None = None
    last_token_at: float | None = None
    finished_at: float | None = None
    external_tokens: int = 0
    """Of the prompt, from its start: what another engine has computed."""
    cached_tokens: int = 0
    """Of the prompt: what this engine's prefix cache had."""
    fetched_tokens: int = 0
    """Of the prompt: what came from another engine beyond that."""
    computed_tokens: int = 0
    written_tokens: int = 0
    preemptions: int = 0
    aborted: bool = False

    @property
    def context_tokens(self) -> int:
        """Prompt and what is written."""
        return self.prompt_tokens + self.written_tokens

    @property
    def decoding(self) -> bool:
        """Whether all that is known of it is computed, so that the next step writes."""
        return self.computed_tokens >= self.context_tokens

    @property
    def done(self) -> bool:
        """Whether it wrote everything."""
        return self.written_tokens >= self.output_tokens


@dataclass(frozen=True, slots=True)
class Emission:
    """Tokens that one sequence got in a step, and when it got the ones before (None: these are its first)."""

    sequence: Sequence
    tokens: int
    previous_at: float | None


@dataclass(slots=True)
class StepReport:
    """What one finished step did."""

    at: float
    prefill_tokens: int = 0
    emissions: list[Emission] = field(default_factory=list)
    finished: list[Sequence] = field(default_factory=list)
    admitted: list[Sequence] = field(default_factory=list)
    preempted: int = 0
    drafts: int = 0
    draft_tokens: int = 0
    accepted_by_position: list[int] = field(default_factory=list)


@dataclass(slots=True)
class _Step:
    ends_at: float
    report: StepReport
    prefills: list[tuple[Sequence, int]]
    decoding: list[Sequence]
    draft_tokens: int


class Engine:
    """The scheduler. Call `advance(now)` before every other method, and again after `submit`."""

    def __init__(self, config: EngineConfig) -> None:
        self._config = config
        self._prefixes = PrefixCache(config.kv_capacity_tokens // config.block_tokens if config.prefix_caching else 0)
        self._waiting: deque[Sequence] = deque()
        self._running: list[Sequence] = []
        self._step: _Step | None = None
        self.kept_tokens = 0
        """Caches that other engines will fetch; they take room."""

    @property
    def running(self) -> int:
        """Sequences in the batch."""
        return len(self._running)

    @property
    def waiting(self) -> int:
        """Sequences in the queue."""
        return len(self._waiting)

    @property
    def idle(self) -> bool:
        """Whether nothing runs or waits."""
        return not self._running and not self._waiting

    @property
    def kv_usage(self) -> float:
        """Share of the cache that running sequences hold, 0 to 1."""
        return min(1.0, self._held_tokens() / self._config.kv_capacity_tokens)

    @property
    def next_event_at(self) -> float | None:
        """When the step that runs now ends; None while idle."""
        return self._step.ends_at if self._step else None

    def rejection(self, sequences: int, tokens: int) -> Rejection | None:
        """Why that many more sequences with that many prompt tokens would not be queued; None if they would."""
        free = self._config.max_sequences - len(self._running) if not self._waiting else 0
        queued = len(self._waiting) + max(0, sequences - max(0, free))
        limit = self._config.max_queued_requests
        if limit is not None and queued > limit:
            return Rejection.QUEUED_REQUESTS
        limit = self._config.max_queued_tokens
        if limit is not None and tokens + sum(s.prompt_tokens for s in self._waiting) > limit:
            return Rejection.QUEUED_TOKENS
        return None

    def submit(self, sequence: Sequence, now: float) -> None:
        """Queue a sequence. Ask `rejection` first; the caller checked that it fits the context window."""
        sequence.arrived_at = now
        self._waiting.append(sequence)

    def abort(self, sequence: Sequence, now: float) -> None:
        """Forget a sequence whose client left; a step that is under way still lasts as long."""
        sequence.aborted = True
        sequence.finished_at = now
        if sequence in self._waiting:
            self._waiting.remove(sequence)
        elif sequence in self._running:
            self._running.remove(sequence)

    def advance(self, now: float) -> list[StepReport]:
        """Finish every step that ends by `now` and begin the next; what the finished ones did, in order."""
        reports: list[StepReport] = []
        begins_at = now
        while True:
            if self._step is None:
                self._step = self._begin(begins_at)
            if self._step is None or self._step.ends_at > now:
                return reports
            begins_at = self._step.ends_at
            reports.append(self._finish(self._step))
            self._step = None

    def _begin(self, now: float) -> _Step | None:
        report = StepReport(at=now)
        report.preempted = self._preempt()
        decoding = [sequence for sequence in self._running if sequence.decoding]
        prefills = self._prefills(self._config.max_batched_tokens - len(decoding), report, now)
        if not decoding and not prefills:
            return None
        draft_tokens = self._config.speculation.draft_tokens(len(decoding))
        seconds = self._seconds(prefills, decoding, draft_tokens) / self._config.time_scale
        report.at = now + seconds
        report.prefill_tokens = sum(tokens for _, tokens in prefills)
        return _Step(report.at, report, prefills, decoding, draft_tokens)

    def _preempt(self) -> int:
        preempted = 0
        while len(self._running) > 1 and self._held_tokens() + len(self._running) > self._config.kv_capacity_tokens:
            victim = self._running.pop()
            victim.computed_tokens = victim.cached_tokens = victim.external_tokens = victim.fetched_tokens = 0
            victim.preemptions += 1
            self._waiting.appendleft(victim)
            preempted += 1
        return preempted

    def _prefills(self, budget: int, report: StepReport, now: float) -> list[tuple[Sequence, int]]:
        prefills = []
        for sequence in self._running:
            if budget > 0 and not sequence.decoding:
                tokens = min(budget, sequence.context_tokens - sequence.computed_tokens)
                prefills.append((sequence, tokens))
                budget -= tokens
        # Nothing is admitted in the step of a preemption: it would take the room that was just made.
        while budget > 0 and self._waiting and not report.preempted and self._fits(self._waiting[0]):
            sequence = self._admit(now)
            report.admitted.append(sequence)
            tokens = min(budget, sequence.context_tokens - sequence.computed_tokens)
            prefills.append((sequence, tokens))
            budget -= tokens
        return prefills

    def _fits(self, sequence: Sequence) -> bool:
        if len(self._running) >= self._config.max_sequences:
            return False
        return not self._running or (
            self._held_tokens() + len(self._running) + sequence.context_tokens < self._config.kv_capacity_tokens
        )

    def _admit(self, now: float) -> Sequence:
        sequence = self._waiting.popleft()
        sequence.scheduled_at = now
        hits = self._prefixes.match(sequence.blocks) * self._config.block_tokens
        # The last prompt token is always computed: its output is the first token of the answer.
        sequence.cached_tokens = min(
            hits, (sequence.prompt_tokens - 1) // self._config.block_tokens * self._config.block_tokens
        )
        # What another engine has computed counts as fetched to the last token, although that one is computed again.
        sequence.fetched_tokens = max(min(sequence.external_tokens, sequence.prompt_tokens) - sequence.cached_tokens, 0)
        known = sequence.cached_tokens + sequence.fetched_tokens
        sequence.computed_tokens = min(known, sequence.prompt_tokens - 1)
        self._running.append(sequence)
        return sequence

    def _held_tokens(self) -> int:
        return self.kept_tokens + sum(sequence.context_tokens for sequence in self._running)

    def _seconds(self, prefills: list[tuple[Sequence, int]], decoding: list[Sequence], draft_tokens: int) -> float:
        kv_tokens = sum(sequence.context_tokens for sequence in decoding)
        fresh = sum(tokens for _, tokens in prefills)
        drafted = draft_tokens * len(decoding)
        positions = sum(tokens * sequence.computed_tokens for sequence, tokens in prefills) + draft_tokens * kv_tokens
        seconds = step_seconds(
            self._config.replica,
            prefill_tokens=fresh + drafted,
            decode_sequences=len(decoding),
            kv_tokens=kv_tokens,
            prefill_position=positions / max(1, fresh + drafted),
        )
        return seconds * (1 + self._config.speculation.draft_cost * (draft_tokens > 0))

    def _finish(self, step: _Step) -> StepReport:
        report = step.report
        for sequence, tokens in step.prefills:
            sequence.computed_tokens += tokens
            if sequence.decoding and not sequence.aborted:
                self._prefixes.add(sequence.blocks)
                self._emit(sequence, 1, report)
        for sequence in step.decoding:
            if not sequence.aborted:
                self._emit(sequence, 1 + self._accepted(sequence, step), report)
        if report.finished:
            self._running = [sequence for sequence in self._running if not sequence.done]
        return report

    def _accepted(self, sequence: Sequence, step: _Step) -> int:
        if not step.draft_tokens:
            return 0
        report = step.report
        accepted = self._config.speculation.accepted(sequence.key, sequence.written_tokens, step.draft_tokens)
        report.drafts += 1
        report.draft_tokens += step.draft_tokens
        positions = report.accepted_by_position
        positions.extend([0] * (step.draft_tokens - len(positions)))
        for position in range(accepted):
            positions[position] += 1
        return accepted

    @staticmethod
    def _emit(sequence: Sequence, tokens: int, report: StepReport) -> None:
        tokens = min(tokens, sequence.output_tokens - sequence.written_tokens)
        report.emissions.append(Emission(sequence, tokens, sequence.last_token_at))
        sequence.written_tokens += tokens
        # What it wrote was computed on the way, but for the token that the next step starts from.
        sequence.computed_tokens = sequence.context_tokens
        sequence.last_token_at = report.at
        if sequence.first_token_at is None:
            sequence.first_token_at = report.at
        if sequence.done:
            sequence.finished_at = report.at
            report.finished.append(sequence)
