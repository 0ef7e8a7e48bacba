"""What the router knows of one request before any score: the planner's first input."""

from dataclasses import dataclass
from typing import Final, Literal

Route = Literal["chat", "completions"]
EFFORTS: Final = {"none": 0, "minimal": 10, "low": 33, "medium": 66, "high": 85, "xhigh": 95, "max": 100}
"""`reasoning_effort` on the scale of budgets, 1-100; 0 answers without thinking."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """Facts of one request; every number has been validated."""

    route: Route = "chat"
    model: str
    prompt_tokens: int = 0
    """Estimated: the engine has the tokenizer, the router has not."""
    prompt_chars: int = 0
    turns: int = 1
    tools: bool = False
    json_schema: bool = False
    stream: bool = False
    max_tokens: int | None = None
    """The client's own cap on all generated tokens."""
    thinking_token_budget: int | None = None
    """The client's own bound on thinking; -1 is no bound of its own."""
    pool: str | None = None
    """The pool that `model` names directly."""
    tier: str | None = None
    """`x-trimtab-tier`."""
    budget: int | None = None
    """1-100, by hand."""
    budget_field: Literal["x-trimtab-budget", "trimtab.budget"] = "x-trimtab-budget"
    effort: str | None = None
    """`reasoning_effort`, where the policy obeys it."""

    answers: int = 1
    """Answers that the engine writes for it, each with `max_tokens` of its own."""
    greedy: bool = False
    """Temperature 0: samples would all be the same; only looked for where a policy samples."""
    one_attempt: str = ""
    """The field for which no answer can be made of several attempts; only looked for where a policy wants that."""
    tenant: str | None = None
    """Whose limits hold."""
    top: int | None = None
    """Index of the strongest tier that the tenant may use; None is any."""
    draw: int = 0
    """Hash of the query's text, where the policy explores."""

    @property
    def by_hand(self) -> bool:
        """The request chose itself, so no score is needed."""
        return not (self.pool is None and self.tier is None and self.budget is None and self.effort is None)
