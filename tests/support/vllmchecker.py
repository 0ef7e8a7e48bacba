"""Asks the real vLLM many questions at once, by `e2e/vllm/gpu_validate.py`."""

import json
import os
import subprocess
import tempfile
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from testcluster import vllmnext
from testcluster.paths import ROOT, cache_home
from trimtab_crds.accelerators import Accelerator

_PROGRAM = ROOT / "e2e" / "vllm" / "gpu_validate.py"
_TIMEOUT_SECONDS = 900


@dataclass(frozen=True, slots=True)
class Question:
    """Flags for one model on one kind of GPU. `packages` are Python packages that the engine's image has."""

    model_dir: Path
    argv: tuple[str, ...]
    accelerator: Accelerator
    gpus: int
    packages: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Verdict:
    """How far vLLM came (ok, parse, config or backend), what it said, and what one step takes where it is ok."""

    stage: str
    message: str
    sequences: int
    batched_tokens: int

    @property
    def accepted(self) -> bool:
        """Whether vLLM refused nothing."""
        return self.stage == "ok"


def ask(python: Path, questions: Iterable[Question]) -> Mapping[Question, Verdict]:
    """vLLM's verdict on every question, each different one asked once; `python` is that of an installed vLLM."""
    asked = list(dict.fromkeys(questions))
    lines = "".join(_line(number, question) for number, question in enumerate(asked))
    with tempfile.TemporaryFile("w+") as complaints:
        done = subprocess.run(
            [str(python), str(_PROGRAM)],
            input=lines,
            stdout=subprocess.PIPE,
            stderr=complaints,
            env=_environment(),
            text=True,
            check=False,
            timeout=_TIMEOUT_SECONDS,
        )
        complaints.seek(0)
        said = complaints.read()[-4000:]
    answers = [json.loads(line) for line in done.stdout.splitlines()]
    if done.returncode != 0 or len(answers) != len(asked):
        raise RuntimeError(f"{_PROGRAM.name}: status {done.returncode}, {len(answers)} of {len(asked)} answers\n{said}")
    return {asked[a.pop("id")]: Verdict(**a) for a in answers}


def _line(number: int, question: Question) -> str:
    line = {
        "id": number,
        "model_dir": str(question.model_dir),
        "argv": question.argv,
        "compute_capability": question.accelerator.compute_capability,
        "gib": question.accelerator.memory_gib,
        "name": question.accelerator.name,
        "gpus": question.gpus,
        "packages": question.packages,
    }
    return json.dumps(line) + "\n"


def _environment() -> dict[str, str]:
    """Ours without vLLM's variables, and a place where vLLM keeps what it found out about model classes."""
    version = vllmnext.asked()
    suffix = f"-{version}" if version else ""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("VLLM_")}
    return kept | {"VLLM_CACHE_ROOT": str(cache_home() / f"vllm-model-classes{suffix}")}
