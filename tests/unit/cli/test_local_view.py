"""What the live view, the plain lines and the report say."""

import io
import json

import pytest
from rich.console import Console

from support.rebalancing import observed_pool
from trimtab_cli.local.load import Tally
from trimtab_cli.local.report import report_json, report_of, summary
from trimtab_cli.local.screen import Screen, write_svg
from trimtab_cli.local.snapshot import GpuRow, Ledger, Snapshot, TierRow, cost_per_hour, tier_row
from trimtab_cli.local.view import HEIGHT, WIDTH, clock, mix_bar, plain_line, render, replicas, sparkline
from trimtab_crds.routingpolicy import Demand, Move, ReplicaCounts, TierStatus
from trimtab_operator.core.fleet import PoolState, pool_state
from trimtab_operator.core.tickreport import TickReport


def state(ready: int = 2, starting: int = 1, draining: int = 1) -> PoolState:
    pool = observed_pool("low").pool
    return pool_state(pool, desired=ready + starting, ready=ready, starting=starting, draining=draining)


def row(name: str = "low", **changes: object) -> TierRow:
    values = {
        "name": name,
        "model": "Qwen3-8B",
        "state": state(),
        "wanted": 3,
        "coverage_percent": 87,
        "limited_by": "Budget",
        "requests_per_minute": 120,
        "demand": (None, 0, 60, 120),
    }
    return TierRow(**values | changes)


def move(number: int = 0) -> Move:
    return Move(
        time=f"2026-01-02T03:04:{number:02d}Z", pool="high", from_replicas=1, to_replicas=2, reason="demand for high"
    )


def snapshot(**changes: object) -> Snapshot:
    tally = Tally(requests=41, answered=40, failed=1, prompt_tokens=400, output_tokens=12_000, thinking_tokens=9_000)
    tally.by_tier.update({"low": 30, "high": 10})
    tally.by_class.update({"math": 40})
    tally.errors.update({"HTTPStatusError: 503": 1})
    tally.latencies.extend([1.0, 2.0, 3.0])
    values = {
        "policy": "quickstart",
        "url": "http://127.0.0.1:8080/v1",
        "source": "the router's metrics",
        "phase": "serving",
        "elapsed_seconds": 42.4,
        "for_seconds": 90.0,
        "hard_share": 0.5,
        "tiers": (row("low"), row("medium", coverage_percent=None, requests_per_minute=None), row("high")),
        "gpus": (GpuRow("nvidia-l4-24gb", 7, 8, 8),),
        "cost_per_hour": 4.9,
        "spent": 0.0571,
        "requests_per_second": 5.5,
        "open_requests": 7,
        "tally": tally,
        "moves": 9,
        "history": tuple(move(i) for i in range(9)),
        "decision": "nvidia-l4-24gb: change low 4 to 3, high 1 to 2 (demand served +20 points)",
    }
    return Snapshot(**values | changes)


def drawn(shown: Snapshot) -> list[str]:
    console = Console(width=WIDTH, height=HEIGHT, file=io.StringIO(), record=True)
    console.print(render(shown))
    return console.export_text().splitlines()


def test_the_screen_fits_into_a_hundred_by_thirty() -> None:
    lines = drawn(snapshot(notes=("no demand data for low: starting", "a budget is too small")))
    assert len(lines) <= HEIGHT
    assert all(len(line) <= WIDTH for line in lines)


@pytest.mark.parametrize(
    "text",
    [
        "quickstart  00:42 of 01:30  serving",
        "120  ▁▄█",
        "●●◐○",
        "87 %",
        "GPU budget",
        "■■■■■■■· 7 of 8 nvidia-l4-24gb",
        "4.90 an hour, 0.0571 so far",
        "5.5 answers/s, 7 open, 40 in all, 1 failed",
        "12,000 tokens out, 9,000 of them thought",
        "easy ──────────●────────── hard",
        "03:04:08  high 1 → 2  demand for high",
        "change low 4 to 3, high 1 to 2",
        "http://127.0.0.1:8080/v1",
    ],
)
def test_the_screen_shows(text: str) -> None:
    assert text in "\n".join(drawn(snapshot()))


def test_only_the_last_moves_are_shown() -> None:
    text = "\n".join(drawn(snapshot()))
    assert "03:04:02" not in text
    assert text.index("03:04:03") < text.index("03:04:08")


def test_a_run_without_load_and_budget_is_shown_too() -> None:
    text = "\n".join(drawn(snapshot(hard_share=None, gpus=(GpuRow("nvidia-l4-24gb", 2, 2, None),), for_seconds=None)))
    assert "no built-in load" in text
    assert "2 of nvidia-l4-24gb, no budget" in text
    assert "00:42  serving" in text


@pytest.mark.parametrize(
    ("values", "line"),
    [((), ""), ((0, 0), "▁▁"), ((0, 7, 14), "▁▄█"), ((None, 5, None), " █ "), ((1, 100), "▁█")],
)
def test_sparkline(values: tuple[int | None, ...], line: str) -> None:
    assert sparkline(values) == line


@pytest.mark.parametrize(
    ("counts", "signs"), [((3, 0, 0), "●●●"), ((1, 2, 1), "●◐◐○"), ((0, 0, 0), ""), ((20, 1, 0), "20● 1◐ 0○")]
)
def test_replicas_are_signs_until_there_are_too_many(counts: tuple[int, int, int], signs: str) -> None:
    assert replicas(state(*counts)).plain == signs


@pytest.mark.parametrize(("seconds", "text"), [(0, "00:00"), (59.9, "00:59"), (61, "01:01"), (3_600, "60:00")])
def test_clock(seconds: float, text: str) -> None:
    assert clock(seconds) == text


@pytest.mark.parametrize(("hard", "at"), [(0.0, 5), (0.5, 15), (1.0, 25)])
def test_mix_bar(hard: float, at: int) -> None:
    assert mix_bar(hard).index("●") == at


def test_plain_line_is_one_line() -> None:
    assert plain_line(snapshot()) == (
        "00:42  low 2+1-1 120/min  medium 2+1-1 -/min  high 2+1-1 120/min  GPUs 7/8  "
        "answered 40 failed 1 moves 9  nvidia-l4-24gb: change low 4 to 3, high 1 to 2 (demand served +20 points)"
    )


def test_without_a_terminal_a_line_is_printed_now_and_then(capsys: pytest.CaptureFixture[str]) -> None:
    with Screen(plain=False) as screen:
        screen.show(snapshot())
        screen.show(snapshot())
    assert capsys.readouterr().out == plain_line(snapshot()) + "\n"


def test_the_report_has_what_tools_rely_on() -> None:
    report = json.loads(report_json(report_of(snapshot())))
    expected = {
        "requests": 41,
        "failed": 1,
        "by_tier": {"high": 10, "low": 30},
        "by_class": {"math": 40},
        "moves": 9,
        "gpu_budget": 8,
        "gpus_peak": 8,
        "tokens": {"prompt": 400, "output": 12_000, "thinking": 9_000},
    }
    assert {key: report[key] for key in expected} == expected
    assert report["latency_seconds"] == {"p50": 2.0, "p95": 2.9}
    assert report["decisions"][0]["fromReplicas"] == 1
    assert report["errors"] == {"HTTPStatusError: 503": 1}


def test_a_run_without_answers_has_a_report_and_a_summary() -> None:
    empty = snapshot(tally=Tally(), history=(), moves=0)
    assert report_of(empty)["latency_seconds"] == {}
    assert summary(empty).startswith("0 requests in 42 s, 0 failed; by tier: none\n")


def test_the_summary_names_failures() -> None:
    assert summary(snapshot()).splitlines() == [
        "41 requests in 42 s, 1 failed; by tier: high 10, low 30",
        "9 replica moves; GPUs: at most 8 of 8; cost 0.0571",
        "failed 1 times: HTTPStatusError: 503",
    ]


def test_svg_is_a_picture(tmp_path_factory: pytest.TempPathFactory) -> None:
    path = tmp_path_factory.mktemp("svg") / "live.svg"
    write_svg(snapshot(), path)
    text = path.read_text()
    assert text.startswith("<svg")
    assert "quickstart" in text


def test_the_ledger_adds_up_money_and_rate() -> None:
    ledger = Ledger()
    for second in range(5):
        ledger.advance(second, cost_per_hour=3_600, answered=2 * second)
    assert ledger.spent == pytest.approx(4)
    assert ledger.requests_per_second == pytest.approx(2)


def test_the_ledger_keeps_each_report_once() -> None:
    ledger, report = Ledger(), tick_report(60)
    for each in (None, report, report, tick_report(None)):
        ledger.remember(each)
    assert ledger.demand("low") == (60, None)
    assert ledger.demand("other") == ()


def tick_report(requests_per_minute: int | None) -> TickReport:
    return TickReport((status(requests_per_minute),), (), "", None, None, None, "")


def status(requests_per_minute: int | None) -> TierStatus:
    asked = None
    if requests_per_minute is not None:
        asked = Demand(requests_per_minute=requests_per_minute, prompt_tokens_per_minute=0, output_tokens_per_minute=0)
    counts = ReplicaCounts(desired=5, ready=1, starting=0, draining=0)
    return TierStatus(name="low", pool="low", demand=asked, replicas=counts, coverage_percent=50, limited_by="Budget")


def test_a_row_before_and_after_the_first_look() -> None:
    pool = observed_pool("low").pool
    before, after = tier_row("low", pool, state(), None, ()), tier_row("low", pool, state(), status(60), (60,))
    assert (before.model, before.wanted, before.requests_per_minute, before.limited_by) == ("Qwen3-8B", 3, None, "")
    assert (after.wanted, after.requests_per_minute, after.coverage_percent) == (5, 60, 50)


def test_every_held_gpu_costs() -> None:
    pool = observed_pool("low", spec__cost={"gpuHourMilli": 500}).pool
    assert cost_per_hour({"low": pool}, {"low": state(2, 1, 1)}) == 2.0
