"""`trimtab classifier fit`: a policy's class table and quality knob, refitted to what its routers logged.

Shows old and new side by side. Nothing is written unless `--write` names a file, and what is written changes nothing
until somebody applies it.
"""

import argparse
import copy
import json
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import yaml

from trimtab_cli.errors import UsageError
from trimtab_cli.files import Document, read_documents
from trimtab_crds.load import SpecInvalid, load
from trimtab_crds.routingpolicy import RoutingPolicy
from trimtab_crds.strategyspec import StrategyType
from trimtab_router.core.curve import Curve
from trimtab_router.core.fit import MIN_JUDGED, ClassLine, Estimate, Option, Proposal, curves, propose, step_gain, worth
from trimtab_router.core.journal import Journal, read
from trimtab_router.core.ladder import quality_of
from trimtab_router.core.outcomes import Arm, wilson
from trimtab_router.core.plan import STRATEGY_NAMES

Manifest = dict[str, Any]
MAX_OUTCOMES = 128
"""As many as a policy may have."""


def main(argv: Sequence[str]) -> int:
    """Print the proposal, and write it where asked; exit status 0."""
    args = _arguments(argv)
    document = _policy(args.policy) if args.policy else None
    if args.write and document is None:
        raise UsageError("--write: needs --policy FILE, the RoutingPolicy that is to be changed")
    key = f"{document.namespace}/{document.name}" if document else None
    journal = read(_lines(args.sources), key)
    _need(journal, key)
    proposal = propose(journal.observations, may_lose=args.may_lose / 100, min_judged=args.min_judged)
    refitted = _refit(document.manifest, proposal) if document else None
    retired = _retired(document.manifest, proposal) if document else {}
    knobs = None if document is None or refitted is None else (_quality(document.manifest), _quality(refitted))
    if args.output == "json":
        sys.stdout.write(json.dumps(_as_dict(journal, proposal, knobs, retired), indent=2, ensure_ascii=False) + "\n")
    else:
        _print(journal, proposal, knobs, retired)
    if args.write:
        _write(Path(args.write), refitted or {})
    return 0


def _arguments(argv: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="trimtab classifier fit",
        description="Refit a policy's class table and quality knob to the decision log of its routers, with feedback.",
        epilog="example: trimtab classifier fit --from decisions/ --policy policy.yaml --write refitted.yaml",
    )
    parser.add_argument(
        "--from",
        dest="sources",
        metavar="PATH",
        action="append",
        required=True,
        help="a file or folder of decision logs, - for standard input (kubectl logs); may be given again",
    )
    parser.add_argument("--policy", metavar="FILE", help="the RoutingPolicy that wrote the log; others' lines are left")
    parser.add_argument(
        "--may-lose",
        type=_points,
        default=0.0,
        metavar="POINTS",
        help="percentage points of right answers that may be lost for cost; negative asks for better ones (default: 0)",
    )
    parser.add_argument(
        "--min-judged",
        type=_count,
        default=MIN_JUDGED,
        metavar="N",
        help=f"judged answers of a class and arm before it can be proposed (default: {MIN_JUDGED})",
    )
    parser.add_argument("--write", metavar="FILE", help="write the changed policy to this file, ready to apply")
    parser.add_argument("-o", "--output", choices=("table", "json"), default="table", help="default: table")
    return parser.parse_args(argv)


def _points(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = 101.0
    if not -100 <= value <= 100:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of percentage points from -100 to 100")
    return value


def _count(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number above 0")
    return int(text)


def _policy(path: str) -> Document:
    """The one RoutingPolicy of the file, valid."""
    found = [d for d in read_documents([path]) if d.kind == "RoutingPolicy"]
    if len(found) != 1:
        raise UsageError(f"--policy {path}: {len(found)} RoutingPolicies in it; give a file with exactly one")
    try:
        load(found[0].manifest)
    except SpecInvalid as error:
        raise UsageError(f"{found[0].where}: RoutingPolicy {found[0].name}: {'; '.join(error.problems)}") from None
    return found[0]


def _lines(sources: Sequence[str]) -> Iterator[str]:
    for source in sources:
        if source == "-":
            yield from sys.stdin
            continue
        path = Path(source)
        files = sorted(path.glob("*.jsonl")) if path.is_dir() else [path]
        if not files:
            raise UsageError(f"--from {source}: the folder has no .jsonl file; name the router's --decision-log folder")
        for file in files:
            try:
                with file.open(encoding="utf-8", errors="replace") as handle:
                    yield from handle
            except OSError as error:
                raise UsageError(f"--from {file}: cannot be read: {error.strerror}") from None


def _need(journal: Journal, key: str | None) -> None:
    skipped = journal.skipped.words()
    of = f" of policy {key}" if key else ""
    if not journal.observations:
        raise UsageError(f"--from: no decision{of} that the classifier scored ({skipped or 'no line at all'})")
    if not journal.judged:
        raise UsageError(
            f"--from: {len(journal.observations)} decisions{of} but no feedback on them; send POST /v1/feedback "
            "with the x-request-id of answers"
        )
    if not any(o.cost for o in journal.observations):
        raise UsageError(
            "--from: every cost is 0: the pools' capacity was unknown; set model.shape and accelerator on the pools"
        )


def _quality(manifest: Manifest) -> int:
    policy = load(manifest)
    return policy.spec.quality if isinstance(policy, RoutingPolicy) else 0


def _refit(manifest: Manifest, proposal: Proposal) -> Manifest:
    """The policy with new lines for the classes that change, and a knob that asks the same price everywhere.

    Arms that the policy cannot run any more (`_retired`) are left out of it.
    """
    out = copy.deepcopy(manifest)
    out.pop("status", None)
    spec = out["spec"]
    tiers, rules = _tiers(spec), _rules(spec)
    for line in proposal.lines:
        arm, old = line.proposed.arm, rules.get(line.name)
        if line.changes and arm is not None and _can_run(arm, tiers, old):
            rules[line.name] = _rule(line.name, arm, tiers[arm.tier], old)
    if rules:
        spec["classes"] = list(rules.values())
    learned = _outcomes(proposal, spec)
    if learned:
        spec["outcomes"] = learned
    threshold = step_gain(proposal, list(tiers))
    if threshold is not None and any(line.changes for line in proposal.lines):
        spec["quality"] = quality_of(threshold)
    return out


def _tiers(spec: Manifest) -> dict[str, Manifest]:
    return {tier["name"]: tier for tier in spec["tiers"]}


def _rules(spec: Manifest) -> dict[str, Manifest]:
    return {rule["name"]: rule for rule in spec.get("classes") or []}


def _retired(manifest: Manifest, proposal: Proposal) -> dict[str, list[str]]:
    """By class, arms that were tried and that the policy cannot run any more."""
    tiers, rules = _tiers(manifest["spec"]), _rules(manifest["spec"])
    found = {
        line.name: [str(o.arm) for o in line.tried if o.arm and not _can_run(o.arm, tiers, rules.get(line.name))]
        for line in proposal.lines
    }
    return {name: arms for name, arms in found.items() if arms}


def _can_run(arm: Arm, tiers: dict[str, Manifest], rule: Manifest | None) -> bool:
    """The policy has the arm's tier, and that or the class's own line spends the budget as the arm did."""
    return arm.tier in tiers and arm.strategy in (_strategy(tiers[arm.tier]), _own_strategy(rule))


def _can_plan(arm: Arm, spec: Manifest) -> bool:
    """The planner may choose the arm: a single answer, or a strategy of its tier or of a class line that names it."""
    tiers = _tiers(spec)
    named = [_own_strategy(rule) for rule in _rules(spec).values() if rule["tier"] == arm.tier]
    return arm.tier in tiers and arm.strategy in ("single", _strategy(tiers[arm.tier]), *named)


def _strategy(part: Manifest) -> str:
    """As the log names it."""
    return STRATEGY_NAMES[StrategyType((part.get("strategy") or {}).get("type", "Single"))]


def _own_strategy(rule: Manifest | None) -> str | None:
    return _strategy(rule) if rule and rule.get("strategy") else None


def _outcomes(proposal: Proposal, spec: Manifest) -> list[Manifest]:
    """What was learned, for the planner: shares of right answers as counts, those of most judged answers first."""
    found, tiers = [], _tiers(spec)
    for line in proposal.lines:
        for option in line.tried:
            right, wrong = worth(option.quality)
            if option.arm is not None and _can_plan(option.arm, spec) and right + wrong:
                found.append((option.judged, _outcome(line, option.arm, tiers) | {"right": right, "wrong": wrong}))
    found.sort(key=lambda item: -item[0])
    return sorted((entry for _, entry in found[:MAX_OUTCOMES]), key=lambda e: (e["className"], e["right"] + e["wrong"]))


def _outcome(line: ClassLine, arm: Arm, tiers: dict[str, Manifest]) -> Manifest:
    """A combination as `outcomes` names it: the strategy only where it is not the tier's own."""
    entry = {"className": line.name, "tier": arm.tier, "thinkingTokens": arm.thinking_tokens}
    if arm.strategy != _strategy(tiers[arm.tier]):
        entry["strategy"] = next(str(kind) for kind, name in STRATEGY_NAMES.items() if name == arm.strategy)
    return entry | {"gainMilli": _milli(line.gain)}


def _milli(gain: float) -> int:
    return min(1000, max(-1000, round(gain * 1000)))


def _rule(name: str, arm: Arm, tier: Manifest, old: Manifest | None) -> Manifest:
    """A class line: what the old one says, on the arm's tier, with its budget where that is not the tier's own."""
    rule: Manifest = {"name": name, **(old or {}), "tier": tier["name"]}
    before = rule.pop("budget", None) or {}
    if arm.strategy != _own_strategy(old):
        rule.pop("strategy", None)
    own = tier.get("budget") or {}
    if arm.thinking_tokens == own.get("thinkingTokens", 0):
        return rule
    same = old is not None and old["tier"] == tier["name"] and before.get("thinkingTokens", 0) == arm.thinking_tokens
    output = before.get("outputTokens") if same else own.get("outputTokens")
    rule["budget"] = {"thinkingTokens": arm.thinking_tokens} | ({} if output is None else {"outputTokens": output})
    return rule


def _write(path: Path, manifest: Manifest) -> None:
    load(manifest)
    try:
        path.write_text(yaml.safe_dump(manifest, sort_keys=False, width=110), encoding="utf-8")
    except OSError as error:
        raise UsageError(f"--write {path}: cannot be written: {error.strerror}") from None
    sys.stdout.write(f"wrote {path}; look at it, then: kubectl apply -f {path}\n")


def _as_dict(
    journal: Journal, proposal: Proposal, knobs: tuple[int, int] | None, retired: dict[str, list[str]]
) -> Manifest:
    return {
        "decisions": len(journal.observations),
        "judged": journal.judged,
        "skipped": journal.skipped.words(),
        "quality_change": _estimate(proposal.quality),
        "cost_change": _estimate(proposal.cost),
        "cost_now": proposal.cost_now,
        "quality_knob": None if knobs is None else {"now": knobs[0], "proposed": knobs[1]},
        "classes": [_line_as_dict(line) | {"retired": retired.get(line.name, [])} for line in proposal.lines],
    }


def _line_as_dict(line: ClassLine) -> Manifest:
    return {
        "class": line.name,
        "share": line.share,
        "decisions": line.decisions,
        "arms": {str(arm): share for arm, share in line.arms.items()},
        "now": _option(line.now),
        "proposed": _option(line.proposed) if line.changes else None,
        "untried": [str(arm) for arm in line.untried],
        "budgets": [_curve(tier, strategy, curve) for (tier, strategy), curve in curves(line).items()],
    }


def _curve(tier: str, strategy: str, curve: Curve) -> Manifest:
    """What doubling the least and up to the most thinking budget is worth."""
    worths = {f"{tokens:g}": curve.doubling(tokens) for tokens in (curve.low, curve.high / 2)}
    return {
        "tier": tier,
        "strategy": strategy,
        "form": curve.form,
        "thinking_tokens": [curve.low, curve.high],
        "doubling": {k: {"mean": v.mean, "low": v.low, "high": v.high} for k, v in worths.items() if v is not None},
    }


def _option(option: Option) -> Manifest:
    return {
        "arm": None if option.arm is None else str(option.arm),
        "judged": option.judged,
        "right": option.right,
        "wilson": list(wilson(option.right, option.judged)),
        "quality": _estimate(option.quality),
        "cost": _estimate(option.cost),
    }


def _estimate(value: Estimate) -> Manifest:
    low, high = value.interval()
    return {"mean": value.mean, "low": low, "high": high}


def _print(journal: Journal, proposal: Proposal, knobs: tuple[int, int] | None, retired: dict[str, list[str]]) -> None:
    from rich import box
    from rich.table import Table

    from trimtab_cli.output import console

    out = console()
    out.print(f"{len(journal.observations)} decisions, {journal.judged} of them judged")
    if journal.skipped.words():
        out.print(f"left out: {journal.skipped.words()}")
    table = Table("class", "share", "now", "right", "cost", "proposed", "right", "cost", box=box.SIMPLE_HEAD)
    for line in proposal.lines:
        table.add_row(*_row(line), style="bold" if line.changes else "dim")
    out.print(table)
    for line in proposal.lines:
        if line.untried:
            arms = ", ".join(map(str, line.untried))
            out.print(f"{line.name}: too few judged answers on all kinds of its queries to propose {arms}")
    for line in proposal.lines:
        for (tier, strategy), curve in curves(line).items():
            out.print(f"{line.name} on {tier}, {strategy}: {_worth(curve)}")
    for name, gone in retired.items():
        out.print(f"{name}: the policy no longer runs {', '.join(gone)}, so nothing is written for it")
    out.print(f"right answers: {_interval(proposal.quality, 100)} percentage points")
    out.print(f"cost of a request: {_interval(proposal.cost, 100 / proposal.cost_now)} %")
    if knobs is not None:
        out.print(f"quality, for classes without a line: {knobs[0]} now, {knobs[1]} proposed")


def _worth(curve: Curve) -> str:
    """The form of accuracy against the thinking budget, and what the last doubling that was measured adds."""
    value, half = curve.doubling(curve.high / 2), curve.high / 2
    words = f"{curve.form} from {curve.low:g} to {curve.high:g} thinking tokens"
    if value is None:
        return f"{words}, nothing twice another"
    low, mean, high = (100 * part for part in (value.low, value.mean, value.high))
    return f"{words}; {half:g} doubled adds {mean:+.1f} percentage points, 95 % between {low:+.1f} and {high:+.1f}"


def _row(line: ClassLine) -> list[str]:
    now = ", ".join(f"{arm} {share:.0%}" for arm, share in sorted(line.arms.items(), key=lambda item: -item[1])[:3])
    row = [line.name, f"{line.share:.0%}", now, _share(line.now.quality), f"{line.now.cost.mean:.3g}"]
    if not line.changes:
        return [*row, "as now", "", ""]
    return [*row, str(line.proposed.arm), _share(line.proposed.quality), f"{line.proposed.cost.mean:.3g}"]


def _share(value: Estimate) -> str:
    low, high = value.interval()
    return f"{value.mean:.2f} ({max(low, 0):.2f}-{min(high, 1):.2f})"


def _interval(value: Estimate, scale: float) -> str:
    low, high = value.interval()
    return f"{value.mean * scale:+.1f}, 95 % between {low * scale:+.1f} and {high * scale:+.1f}"
