"""What a run did: the JSON report, and the summary that people read."""

import json
from statistics import quantiles

from trimtab_cli.local.snapshot import Snapshot

Report = dict[str, object]


def report_of(snapshot: Snapshot) -> Report:
    """The report. Counts are whole numbers; `requests` are those sent, `failed` those without a good answer."""
    tally = snapshot.tally
    return {
        "policy": snapshot.policy,
        "seconds": round(snapshot.elapsed_seconds, 1),
        "requests": tally.requests,
        "answered": tally.answered,
        "failed": tally.failed,
        "unfinished": tally.unfinished,
        "skipped": tally.skipped,
        "errors": dict(tally.errors),
        "by_tier": dict(sorted(tally.by_tier.items())),
        "by_class": dict(sorted(tally.by_class.items())),
        "tokens": {
            "prompt": tally.prompt_tokens,
            "output": tally.output_tokens,
            "thinking": tally.thinking_tokens,
        },
        "latency_seconds": _latency(list(tally.latencies)),
        "moves": snapshot.moves,
        "decisions": [move.model_dump(by_alias=True) for move in snapshot.history],
        "gpu_budget": sum(row.budget or 0 for row in snapshot.gpus),
        "gpus_peak": sum(row.peak for row in snapshot.gpus),
        "cost": round(snapshot.spent, 6),
        "demand_source": snapshot.source,
    }


def _latency(seconds: list[float]) -> dict[str, float]:
    if len(seconds) < 2:
        return {}
    cuts = quantiles(seconds, n=100, method="inclusive")
    return {"p50": round(cuts[49], 3), "p95": round(cuts[94], 3)}


def report_json(report: Report) -> str:
    """The text of the report file."""
    return json.dumps(report, indent=2) + "\n"


def summary(snapshot: Snapshot) -> str:
    """The last lines of a run."""
    tally = snapshot.tally
    tiers = ", ".join(f"{name} {count}" for name, count in sorted(tally.by_tier.items())) or "none"
    lines = [
        f"{tally.requests} requests in {snapshot.elapsed_seconds:.0f} s, {tally.failed} failed; by tier: {tiers}",
        f"{snapshot.moves} replica moves; GPUs: at most "
        + ", ".join(f"{row.peak} of {'no budget' if row.budget is None else row.budget}" for row in snapshot.gpus)
        + f"; cost {snapshot.spent:.4f}",
    ]
    lines += [f"failed {count} times: {why}" for why, count in tally.errors.most_common(5)]
    return "\n".join(lines) + "\n"
