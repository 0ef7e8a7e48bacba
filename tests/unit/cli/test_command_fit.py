"""`trimtab classifier fit`: what it shows, what it writes, and that it changes nothing by itself."""

import json
from pathlib import Path

import pytest
import yaml

from support.commands import Trimtab
from support.decisions import decision_line, logged, told
from support.manifests import policy_manifest
from trimtab_crds.load import load

EASY_CHATS = {"chat": 0.9, "math": 0.4}


def world(name: str, tier: str, _: float) -> float:
    return 0.8 if name == "math" and tier == "high" else EASY_CHATS[name]


@pytest.fixture
def trimtab(capsys: pytest.CaptureFixture[str]) -> Trimtab:
    return Trimtab(capsys)


@pytest.fixture
def log(tmp_path: Path) -> Path:
    """A folder of two files, as two workers leave it."""
    folder, lines = tmp_path / "decisions", list(logged(3000, world))
    folder.mkdir()
    (folder / "decisions-1-1-000001.jsonl").write_text("\n".join(lines[:2000]) + "\n")
    (folder / "decisions-2-1-000001.jsonl").write_text("\n".join(lines[2000:]) + '\n{"kind": "deci')
    return folder


def policy_file(path: Path, **spec: object) -> Path:
    file = path / "policy.yaml"
    file.write_text(yaml.safe_dump(policy_manifest(name="chat", **{f"spec__{k}": v for k, v in spec.items()})))
    return file


def test_old_and_new_stand_side_by_side_with_intervals(trimtab: Trimtab, log: Path):
    ran = trimtab("classifier", "fit", "--from", log, "--may-lose", 1)
    assert ran.status == 0
    assert "3000 decisions, 3000 of them judged\nleft out: 1 broken lines" in ran.out
    [chat] = [line for line in ran.out.splitlines() if line.strip().startswith("chat")]
    assert "low/0 " in chat.split("high/4096")[0]
    assert chat.count("(0.") == 2
    [math] = [line for line in ran.out.splitlines() if line.strip().startswith("math")]
    assert "as now" in math
    assert "percentage points" in ran.out
    assert "cost of a request: -4" in ran.out


def test_json_has_the_same(trimtab: Trimtab, log: Path, tmp_path: Path):
    policy = policy_file(tmp_path)
    found = json.loads(
        trimtab("classifier", "fit", "--from", log, "--may-lose", 1, "--policy", policy, "-o", "json").out
    )
    chat, math = found["classes"]
    assert (chat["class"], chat["proposed"]["arm"], math["proposed"]) == ("chat", "low/0", None)
    low, high = chat["proposed"]["wilson"]
    assert low < chat["proposed"]["right"] / chat["proposed"]["judged"] < high
    change = found["quality_change"]
    assert change["low"] < change["mean"] < change["high"]
    assert found["cost_change"]["high"] < 0
    assert found["quality_knob"]["now"] == 50
    assert 1 <= found["quality_knob"]["proposed"] <= 99


def test_nothing_is_written_unless_told(trimtab: Trimtab, log: Path, tmp_path: Path):
    policy = policy_file(tmp_path)
    before = {file: file.read_bytes() for file in tmp_path.rglob("*") if file.is_file()}
    trimtab("classifier", "fit", "--from", log, "--policy", policy, "--may-lose", 1)
    assert {file: file.read_bytes() for file in tmp_path.rglob("*") if file.is_file()} == before


def test_the_written_policy_is_the_old_one_with_the_new_lines(trimtab: Trimtab, log: Path, tmp_path: Path):
    old = {"name": "code", "tier": "high", "budget": {"thinkingTokens": 64, "outputTokens": 32}}
    policy = policy_file(tmp_path, classes=[old, {"name": "chat", "tier": "high"}])
    out = tmp_path / "refitted.yaml"
    ran = trimtab("classifier", "fit", "--from", log, "--policy", policy, "--may-lose", 1, "--write", out)
    assert f"wrote {out}; look at it, then: kubectl apply -f {out}" in ran.out
    before, after = yaml.safe_load(policy.read_text()), yaml.safe_load(out.read_text())
    load(after)
    assert after["spec"].pop("classes") == [old, {"name": "chat", "tier": "low"}]
    knob = after["spec"].pop("quality")
    del before["spec"]["classes"]
    assert 1 <= knob <= 99
    learned = {(o["className"], o["tier"]): o for o in after["spec"].pop("outcomes")}
    assert learned.keys() == {(name, tier) for name in ("chat", "math") for tier in ("low", "high")}
    shares = {key: o["right"] / (o["right"] + o["wrong"]) for key, o in learned.items()}
    assert shares["math", "high"] == pytest.approx(0.8, abs=0.05)
    assert shares["math", "low"] == pytest.approx(0.4, abs=0.05)
    assert learned["math", "low"]["gainMilli"] == pytest.approx(100, abs=5)
    assert {**after["spec"], "quality": None} == {**before["spec"], "quality": None}
    assert after["metadata"] == before["metadata"]


def test_a_budget_that_is_not_the_tiers_own_is_written_out(trimtab: Trimtab, tmp_path: Path):
    lines = list(logged(3000, world, tiers={"low": 128, "high": 4096}))
    (tmp_path / "one.jsonl").write_text("\n".join(lines))
    rule = {"name": "chat", "tier": "low", "budget": {"thinkingTokens": 128, "outputTokens": 77}}
    policy, out = policy_file(tmp_path, classes=[rule]), tmp_path / "out.yaml"
    arguments = ("--from", tmp_path / "one.jsonl", "--policy", policy, "--may-lose", 1, "--write", out)
    assert trimtab("classifier", "fit", *arguments).status == 0
    assert yaml.safe_load(out.read_text())["spec"]["classes"] == [rule]


def fitted(trimtab: Trimtab, path: Path, *, ran_as: str = "single", **rule: object) -> tuple[str, dict[str, object]]:
    """What is printed, and the line of class chat that is written, where the log's arms had that strategy."""
    lines = [line.replace('"strategy": "single"', f'"strategy": "{ran_as}"') for line in logged(3000, world)]
    (path / "one.jsonl").write_text("\n".join(lines))
    policy, out = policy_file(path, classes=[{"name": "chat", "tier": "high", **rule}]), path / "out.yaml"
    ran = trimtab(
        *("classifier", "fit", "--from", path / "one.jsonl"),
        *("--policy", policy, "--may-lose", 1, "--write", out),
    )
    [chat] = [r for r in yaml.safe_load(out.read_text())["spec"]["classes"] if r["name"] == "chat"]
    return ran.out, chat


def test_what_else_a_class_line_says_is_kept(trimtab: Trimtab, tmp_path: Path):
    rest = {"ceiling": {"tokens": 9000}, "escalate": False}
    assert fitted(trimtab, tmp_path, **rest)[1] == {"name": "chat", "tier": "low", **rest}


def test_a_class_keeps_its_strategy_where_that_was_tried(trimtab: Trimtab, tmp_path: Path):
    vote = {"strategy": {"type": "SelfConsistency", "samples": 5}}
    out, chat = fitted(trimtab, tmp_path, ran_as="self-consistency", **vote)
    assert chat == {"name": "chat", "tier": "low", **vote}
    assert "chat: the policy no longer runs" not in out
    assert "math: the policy no longer runs low/0 self-consistency, high/4096 self-consistency" in " ".join(out.split())


def test_outcomes_name_the_strategy_where_it_is_not_the_tiers(trimtab: Trimtab, tmp_path: Path):
    """Single answers were tried where the tiers vote now: the planner may still choose them."""
    vote = {"type": "SelfConsistency", "samples": 4}
    tiers = [tier | {"strategy": vote} for tier in policy_manifest()["spec"]["tiers"]]
    (tmp_path / "one.jsonl").write_text("\n".join(logged(3000, world)))
    policy, out = policy_file(tmp_path, tiers=tiers), tmp_path / "out.yaml"
    arguments = ("--from", tmp_path / "one.jsonl", "--policy", policy, "--write", out)
    assert trimtab("classifier", "fit", *arguments).status == 0
    written = yaml.safe_load(out.read_text())
    assert {outcome["strategy"] for outcome in written["spec"]["outcomes"]} == {"Single"}
    load(written)


def test_what_the_policy_no_longer_runs_is_named_and_not_written(trimtab: Trimtab, tmp_path: Path):
    out, chat = fitted(trimtab, tmp_path, ran_as="self-consistency")
    assert chat == {"name": "chat", "tier": "high"}
    assert "chat: the policy no longer runs" in out


def test_the_log_may_come_from_a_pipe(trimtab: Trimtab, log: Path, monkeypatch: pytest.MonkeyPatch):
    with (log / "decisions-1-1-000001.jsonl").open() as pipe:
        monkeypatch.setattr("sys.stdin", pipe)
        ran = trimtab("classifier", "fit", "--from", "-")
    assert ran.out.startswith("1000 decisions, 1000 of them judged")


def one(path: Path, *records: object) -> Path:
    file = path / "one.jsonl"
    file.write_text("\n".join(json.dumps(record) for record in records))
    return file


def test_what_is_missing_is_named(trimtab: Trimtab, log: Path, tmp_path: Path):
    def refused(*words: object) -> str:
        return trimtab.refused("classifier", "fit", *words)

    absent, empty = tmp_path / "absent.jsonl", tmp_path / "empty"
    empty.mkdir()
    assert refused("--from", absent) == f"--from {absent}: cannot be read: No such file or directory"
    assert refused("--from", empty) == (
        f"--from {empty}: the folder has no .jsonl file; name the router's --decision-log folder"
    )
    assert refused("--from", log, "--write", "x") == (
        "--write: needs --policy FILE, the RoutingPolicy that is to be changed"
    )
    assert refused("--from", one(tmp_path, decision_line("a"))) == (
        "--from: 1 decisions but no feedback on them; send POST /v1/feedback with the x-request-id of answers"
    )
    assert refused("--from", one(tmp_path, decision_line("a", cost=0.0), told("a", 1))) == (
        "--from: every cost is 0: the pools' capacity was unknown; set model.shape and accelerator on the pools"
    )
    assert refused("--from", one(tmp_path, decision_line("a", outcome="timeout"))) == (
        "--from: no decision that the classifier scored (1 not answered)"
    )
    other = tmp_path / "other.yaml"
    other.write_text(yaml.safe_dump(policy_manifest(name="other")))
    assert refused("--from", one(tmp_path, decision_line("a")), "--policy", other) == (
        "--from: no decision of policy default/other that the classifier scored (1 of other policies)"
    )


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--may-lose", "many"], "'many' is not a number of percentage points from -100 to 100"),
        (["--min-judged", "0"], "'0' is not a whole number above 0"),
    ],
    ids=["points", "count"],
)
def test_a_wrong_number_is_named(trimtab: Trimtab, log: Path, words: list[str], message: str):
    ran = trimtab("classifier", "fit", "--from", log, *words)
    assert (ran.status, message in ran.err) == (2, True)


def test_the_help_of_the_classifier_names_fit(trimtab: Trimtab):
    ran = trimtab("classifier", "--help")
    assert ran.status == 0
    assert "fit" in ran.out
    assert "eval" in ran.out


def test_budgets_that_were_tried_say_what_doubling_is_worth(trimtab: Trimtab, tmp_path: Path):
    shares = {256: 0.4, 512: 0.5, 1024: 0.6, 2048: 0.7}
    lines = []
    for number in range(4000):
        tokens = list(shares)[number % 4]
        name = f"r{number}"
        right = (number * 7919 % 1000) < 1000 * shares[tokens]
        lines += [
            decision_line(name, tier="high", thinking_tokens=tokens, gain=number % 50 / 100),
            told(name, float(right)),
        ]
    log = tmp_path / "log.jsonl"
    log.write_text("\n".join(map(json.dumps, lines)))
    ran = trimtab("classifier", "fit", "--from", log)
    assert "math on high, single: log-linear from 256 to 2048 thinking tokens; 1024 doubled adds +10" in ran.out
    [line] = json.loads(trimtab("classifier", "fit", "--from", log, "-o", "json").out)["classes"]
    [budget] = line["budgets"]
    assert (budget["tier"], budget["form"], budget["thinking_tokens"]) == ("high", "log-linear", [256, 2048])
    assert budget["doubling"]["1024"]["low"] < 0.1 < budget["doubling"]["1024"]["high"]
