"""Every recipe against the real vLLM's own rules: its parser, its configuration and its choice of attention backend.

The matrix (`support.recipematrix`) is asked once; run with `-s` to see its figures.
"""

import re
from collections import Counter, defaultdict
from collections.abc import Mapping
from dataclasses import dataclass

import pytest

from support.modelshapes import folder, models
from support.recipematrix import ACCELERATORS, Case, cases, kind_of
from support.vllmchecker import Question, Verdict, ask
from testcluster import vllm, vllmnext
from testcluster.errors import UnavailableError
from testcluster.pytesting import unavailable, visible
from trimtab_crds.accelerators import CATALOGUE
from trimtab_crds.recipespec import Preset
from trimtab_operator.core.facts import engine_defaults
from trimtab_operator.core.reasoningparsers import parsers_of

pytestmark = [pytest.mark.contract, pytest.mark.timeout(1800)]

SOURCE = re.compile(r"\(source: [^()]+\)$")
FIELD_AND_FIX = re.compile(r"(model|recipe|accelerator|engine)\.\w+.*[;:] \w+")
#: Flags that change how much one step takes.
STEP_FLAGS = frozenset({"--max-num-seqs", "--max-num-batched-tokens", "--max-model-len"})


@dataclass(frozen=True, slots=True)
class Judged:
    """A case with vLLM's verdict."""

    case: Case
    verdict: Verdict

    def __str__(self) -> str:
        said = "; ".join(self.case.resolution.reasons) or "accepted"
        return f"{self.case.id}\n  Trimtab: {said}\n  vLLM: {self.verdict.stage}: {self.verdict.message[:300]}"


def question(*argv: str, model: str = "Qwen/Qwen3-8B") -> Question:
    return Question(folder(model), argv, CATALOGUE["nvidia-h100-80gb"], 1)


STAGES = {
    "nothing special": (question(), "ok"),
    "an unknown flag": (question("--no-such-flag"), "parse"),
    "an unknown value": (question("--kv-cache-dtype", "fp9"), "parse config"),
    "heads that do not divide": (question("--tensor-parallel-size", "3"), "config"),
    "no backend for the cache": (question("--kv-cache-dtype", "nvfp4"), "backend"),
    "no backend for latent attention with it": (
        question("--kv-cache-dtype", "fp8_e5m2", model="deepseek-ai/DeepSeek-V3"),
        "backend",
    ),
    "a backend without latent attention": (
        question("--attention-backend", "flash_attn", model="deepseek-ai/DeepSeek-V3"),
        "backend",
    ),
}
NO_SUCH_PARSER = question("--reasoning-parser", "nosuchparser")


@pytest.fixture(scope="module")
def all_cases() -> list[Case]:
    return cases()


@pytest.fixture(scope="module")
def verdicts(request: pytest.FixtureRequest, all_cases: list[Case]) -> Mapping[Question, Verdict]:
    try:
        version, progress = vllmnext.asked(), visible(request.config)
        home = vllmnext.install(version, progress) if version else vllm.install(progress)
    except UnavailableError as error:
        unavailable(error)
    python = home / "bin" / "python"
    return ask(python, [*(c.question for c in all_cases), *(q for q, _ in STAGES.values()), NO_SUCH_PARSER])


@pytest.fixture(scope="module")
def matrix(all_cases: list[Case], verdicts: Mapping[Question, Verdict]) -> list[Judged]:
    judged = [Judged(case, verdicts[case.question]) for case in all_cases]
    print("\n" + figures(judged, len(verdicts)))
    return judged


def test_the_matrix_is_as_wide_as_promised(all_cases: list[Case]):
    accelerators = {case.question.accelerator.name for case in all_cases}
    assert len(models()) >= 12
    assert len(accelerators) >= 6
    for preset in Preset:
        assert {case.question.accelerator.name for case in all_cases if case.name == preset.value} == accelerators


def test_what_we_accept_vllm_configures(matrix: list[Judged]):
    faults = [j for j in matrix if j.case.resolution.accepted and not j.verdict.accepted]
    assert not faults, listed(faults)


def test_what_vllm_refuses_we_refuse_with_a_field_and_a_fix(matrix: list[Judged]):
    refused = [j for j in matrix if not j.verdict.accepted]
    assert {j.verdict.stage for j in refused} >= {"config"}
    for judged in refused:
        assert judged.case.resolution.reasons, str(judged)
        assert all(FIELD_AND_FIX.match(reason) for reason in judged.case.resolution.reasons), str(judged)


def test_what_we_alone_refuse_names_its_source(matrix: list[Judged]):
    unfounded = [j for j in matrix if j.verdict.accepted for r in j.case.resolution.reasons if not SOURCE.search(r)]
    assert not unfounded, listed(unfounded)


def test_the_engine_takes_the_step_that_we_plan_with(matrix: list[Judged]):
    found = {
        (j.case.question.accelerator.name, j.verdict.sequences, j.verdict.batched_tokens)
        for j in matrix
        if j.verdict.accepted and not STEP_FLAGS & set(j.case.question.argv)
    }
    assert found == {(name, *engine_defaults(CATALOGUE[name])) for name in ACCELERATORS}


def test_the_reasoning_parsers_are_vllms(verdicts: Mapping[Question, Verdict]):
    available = verdicts[NO_SUCH_PARSER].message.rpartition("Available parsers: ")[2].rstrip('"')
    assert set(available.split(", ")) == parsers_of(vllmnext.asked() or vllm.version())


@pytest.mark.parametrize(("asked", "stage"), STAGES.values(), ids=list(STAGES))
def test_the_checker_tells_the_stages_apart(verdicts: Mapping[Question, Verdict], asked: Question, stage: str):
    assert verdicts[asked].stage in stage.split(), "0.33 leaves values to the configuration"


def listed(faults: list[Judged]) -> str:
    """One example of every kind of fault."""
    kinds: dict[str, list[Judged]] = defaultdict(list)
    for fault in faults:
        kinds[kind_of("; ".join(fault.case.resolution.reasons) + fault.verdict.message)].append(fault)
    return f"{len(faults)} faults\n" + "\n".join(f"{len(same)} times: {same[0]}" for same in kinds.values())


def figures(matrix: list[Judged], asked: int) -> str:
    """The table of docs: combinations by what both say, and our refusals by reason."""
    both: Mapping[tuple[bool, bool], int] = Counter((j.case.resolution.accepted, j.verdict.accepted) for j in matrix)
    words = {True: "accepted", False: "refused"}
    lines = [f"{len(matrix)} recipes, {asked} different questions to vLLM {vllmnext.asked() or vllm.version()}"]
    lines += [f"{n:6} {words[ours]} by us, {words[theirs]} by it" for (ours, theirs), n in sorted(both.items())]
    reasons = Counter(
        (kind_of(reason), judged.verdict.accepted) for judged in matrix for reason in judged.case.resolution.reasons
    )
    for (reason, theirs), number in reasons.most_common():
        lines.append(f"{number:6} {'(vLLM accepts) ' if theirs else ''}{reason}")
    return "\n".join(lines)
