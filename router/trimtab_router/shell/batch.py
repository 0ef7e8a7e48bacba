"""One classifier run for all requests of an event-loop tick."""

import logging
from collections import deque
from collections.abc import Callable, Sequence
from typing import Protocol

from trimtab_classifier.features import Query
from trimtab_router.core.scores import Scores

LARGE_BYTES = 16 * 1024
"""Bodies above it are not held for a batch: their features cost more than the run (docs/decisions/0040)."""
MAX_BATCH = 32
"""Bound on how long one run keeps the event loop."""
_log = logging.getLogger(__name__)
Done = Callable[[Scores | None], None]


class Scorer(Protocol):
    """What the batch needs of a classifier."""

    def score(self, queries: Sequence[Query]) -> Sequence[Scores]:
        """Scores in the order of the queries."""


class Batch:
    """Collects the queries of a tick. A query that waits beyond the deadline gets no scores."""

    def __init__(
        self, scorer: Scorer, call_soon: Callable[[Callable[[], None]], object], clock: Callable[[], float]
    ) -> None:
        self._scorer = scorer
        self._call_soon = call_soon
        self._clock = clock
        self._waiting: deque[tuple[float, Query, Done]] = deque()
        self._complained_at = float("-inf")
        self.deadline_seconds = 0.05

    def submit(self, query: Query, body_bytes: int, done: Done) -> None:
        """`done` gets the scores, at once for a large body, else at the end of the tick; None on a miss."""
        if body_bytes > LARGE_BYTES:
            self._run([(self._clock(), query, done)])
            return
        if not self._waiting:
            self._call_soon(self._flush)
        self._waiting.append((self._clock(), query, done))

    def _flush(self) -> None:
        batch = [self._waiting.popleft() for _ in range(min(MAX_BATCH, len(self._waiting)))]
        if self._waiting:
            self._call_soon(self._flush)
        self._run(batch)

    def _run(self, batch: list[tuple[float, Query, Done]]) -> None:
        latest = self._clock() - self.deadline_seconds
        late = [entry for entry in batch if entry[0] < latest]
        timely = [entry for entry in batch if entry[0] >= latest] if late else batch
        scores = self._score([query for _, query, _ in timely]) if timely else []
        latest = self._clock() - self.deadline_seconds
        for _, _, done in late:
            done(None)
        for (since, _, done), score in zip(timely, scores, strict=True):
            done(score if since >= latest else None)

    def _score(self, queries: list[Query]) -> Sequence[Scores | None]:
        try:
            return self._scorer.score(queries)
        except Exception:  # noqa: BLE001 - a query must never fail because its prediction does
            if self._clock() - self._complained_at > 60:
                self._complained_at = self._clock()
                _log.exception("the classifier failed; queries go to the default tier")
            return [None] * len(queries)
