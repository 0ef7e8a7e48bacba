"""The live view: one screen of 100 columns and 30 rows that shows demand turning into replicas. Pure drawing."""

from collections.abc import Iterable, Sequence

from rich import box
from rich.console import Group, RenderableType
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from trimtab_cli.local.snapshot import GpuRow, Snapshot, TierRow
from trimtab_crds.routingpolicy import Move
from trimtab_operator.core.fleet import PoolState

WIDTH, HEIGHT = 100, 30
_BARS = "▁▂▃▄▅▆▇█"
_MOVES_SHOWN = 6
_WHY = {
    "MissingData": "waiting for a window of data",
    "WaitingForGpus": "waiting for GPUs",
    "BelowGainThreshold": "gain too small",
    "Cooldown": "resting after a move",
    "Budget": "GPU budget",
    "MaxReplicas": "at its maximum",
    "MinReplicas": "at its minimum",
    "UnknownCapacity": "no model.shape",
    "DryRun": "dry run",
    "Off": "rebalancing is off",
}


def render(snapshot: Snapshot) -> RenderableType:
    """The whole screen."""
    screen = Group(_tiers(snapshot.tiers), _totals(snapshot), _decisions(snapshot))
    return Panel(screen, title=_title(snapshot), title_align="left", border_style="cyan", width=WIDTH)


def _title(snapshot: Snapshot) -> Text:
    end = "" if snapshot.for_seconds is None else f" of {clock(snapshot.for_seconds)}"
    title = Text(" trimtab ", style="bold cyan")
    title.append(f"{snapshot.policy}  {clock(snapshot.elapsed_seconds)}{end}  {snapshot.phase} ", style="default")
    return title


def clock(seconds: float) -> str:
    """`01:30`."""
    return f"{int(seconds) // 60:02d}:{int(seconds) % 60:02d}"


def _tiers(rows: Iterable[TierRow]) -> Table:
    table = Table(box=box.SIMPLE_HEAD, expand=True, padding=(0, 1), header_style="bold")
    table.add_column("tier")
    table.add_column("model", no_wrap=True)
    table.add_column("requests/min", width=27)
    table.add_column("replicas", width=14, no_wrap=True)
    table.add_column("covered", justify="right")
    table.add_column("held back by", no_wrap=True)
    for row in rows:
        asked = "-" if row.requests_per_minute is None else str(row.requests_per_minute)
        demand = Text(f"{asked:>4} ").append(sparkline(row.demand[-22:]), style="cyan")
        table.add_row(
            Text(row.name, style="bold"), row.model, demand, replicas(row.state), _covered(row.coverage_percent),
            Text(_WHY.get(row.limited_by, row.limited_by), style="dim"),
        )  # fmt: skip
    return table


def sparkline(values: Sequence[int | None]) -> str:
    """One character per value, scaled to the largest; a gap where a value is missing."""
    top = max((value for value in values if value is not None), default=0)
    return "".join(_bar(value, top) for value in values)


def _bar(value: int | None, top: int) -> str:
    if value is None:
        return " "
    return _BARS[0] if top == 0 else _BARS[min(7, value * 7 // top)]


def replicas(state: PoolState) -> Text:
    """A sign per replica: full ones answer, half ones start, empty ones end."""
    text = Text()
    for sign, count, style in (
        ("●", state.ready, "green"),
        ("◐", state.starting, "yellow"),
        ("○", state.draining, "red"),
    ):
        text.append(sign * count, style=style)
    if text.cell_len > 14:
        return Text(f"{state.ready}● {state.starting}◐ {state.draining}○")
    return text


def _covered(percent: int | None) -> Text:
    if percent is None:
        return Text("-", style="dim")
    style = "green" if percent >= 100 else "yellow" if percent >= 60 else "red"
    return Text(f"{percent} %", style=style)


def _totals(snapshot: Snapshot) -> Table:
    table = Table.grid(padding=(0, 2), expand=True)
    table.add_column(ratio=1)
    table.add_column(ratio=1)
    tally = snapshot.tally
    load = "no built-in load" if snapshot.hard_share is None else f"mix {mix_bar(snapshot.hard_share)}"
    left = Group(
        *(_gpus(row) for row in snapshot.gpus),
        Text(f" spend     {snapshot.cost_per_hour:.2f} an hour, {snapshot.spent:.4f} so far"),
        Text(" ● answers  ◐ starts  ○ ends", style="dim"),
    )
    failed = Text(f"{tally.failed} failed", style="red" if tally.failed else "green")
    right = Group(
        Text(f"{load}"),
        Text(
            f"{snapshot.requests_per_second:.1f} answers/s, {snapshot.open_requests} open, {tally.answered} in all, "
        ).append(failed),
        Text(f"{tally.output_tokens:,} tokens out, {tally.thinking_tokens:,} of them thought"),
    )
    table.add_row(left, right)
    return table


def mix_bar(hard: float) -> str:
    """Easy to hard, as a slider."""
    at = round(hard * 20)
    return f"easy {'─' * at}●{'─' * (20 - at)} hard"


def _gpus(row: GpuRow) -> Text:
    if row.budget is None:
        return Text(f" GPUs      {row.held} of {row.accelerator}, no budget")
    full = "■" * min(row.held, 20) + "·" * max(0, min(row.budget, 20) - row.held)
    return Text(" GPUs      ").append(full, style="magenta").append(f" {row.held} of {row.budget} {row.accelerator}")


def _decisions(snapshot: Snapshot) -> Group:
    lines = [Text(), Text(" decisions", style="bold")]
    lines += [_move(move) for move in snapshot.history[-_MOVES_SHOWN:]]
    if snapshot.decision:
        lines.append(Text(f" now       {snapshot.decision}", style="cyan", no_wrap=True, overflow="ellipsis"))
    lines += [Text(f" note      {note}", style="yellow", no_wrap=True, overflow="ellipsis") for note in snapshot.notes]
    lines += [Text(), Text(f" {snapshot.url}   demand from {snapshot.source}   Ctrl-C ends it", style="dim")]
    return Group(*lines)


def _move(move: Move) -> Text:
    grows = move.to_replicas > move.from_replicas
    text = Text(f" {move.time[11:19]}  ", no_wrap=True, overflow="ellipsis")
    text.append(f"{move.pool} {move.from_replicas} → {move.to_replicas}", style="green" if grows else "yellow")
    return text.append(f"  {move.reason}", style="dim")


def plain_line(snapshot: Snapshot) -> str:
    """The same in one line, for logs and pipes."""
    tiers = "  ".join(
        f"{row.name} {row.state.ready}+{row.state.starting}-{row.state.draining}"
        f" {'-' if row.requests_per_minute is None else row.requests_per_minute}/min"
        for row in snapshot.tiers
    )
    budget = sum(row.budget or 0 for row in snapshot.gpus)
    tally = snapshot.tally
    counts = f"answered {tally.answered} failed {tally.failed} moves {snapshot.moves}"
    gpus = f"GPUs {snapshot.gpus_held}/{budget or '-'}"
    return f"{clock(snapshot.elapsed_seconds)}  {tiers}  {gpus}  {counts}  {snapshot.decision or snapshot.phase}"
