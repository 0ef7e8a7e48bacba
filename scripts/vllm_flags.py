"""Write the flags of `vllm serve` that the installed vLLM knows: `PYTHON_OF_VLLM scripts/vllm_flags.py > FILE`.

The output is `crds/trimtab_crds/vllm_flags.json`; the simulated engine refuses every other flag. With `--pretend-gpu` a
build for GPUs says it on a machine without one, for another version than the locked one: `vllm_flags_0.33.json`.
"""

import argparse
import contextlib
import json
import os
import sys
from pathlib import Path

VALUES = {None: "one", "?": "optional", "+": "many", "*": "many", 0: "none"}


def parser() -> argparse.ArgumentParser:
    """vLLM's own parser of `vllm serve`; its module moved between 0.32 and 0.33."""
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    try:
        from vllm.entrypoints.launchers.cli_args import make_arg_parser
    except ImportError:
        from vllm.entrypoints.common.cli_args import make_arg_parser
    from vllm.utils.argparse_utils import FlexibleArgumentParser

    return make_arg_parser(FlexibleArgumentParser())


def entry(action: argparse.Action) -> dict[str, object]:
    """What one flag takes: names, number of values, choices, and whether values are whole numbers."""
    row: dict[str, object] = {"names": list(action.option_strings), "values": VALUES[action.nargs]}
    if action.choices:
        row["choices"] = [str(choice) for choice in action.choices]
    if action.type is int:
        row["integer"] = True
    return row


def pretend_gpu() -> None:
    """Be a machine with one H100, as `e2e/vllm/gpu_validate.py` does."""
    sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "e2e" / "vllm"))
    from gpu_validate import Device, Pretence

    pretence = Pretence()
    pretence.install()
    pretence.choose(Device((9, 0), 80.0, "H100"))


def main() -> None:
    """Print the flags as JSON, one a line."""
    if "--pretend-gpu" in sys.argv[1:]:
        pretend_gpu()
    from vllm.reasoning import ReasoningParserManager

    import vllm

    with contextlib.redirect_stdout(sys.stderr):
        actions = parser()._actions  # noqa: SLF001 - argparse has no public list
    rows = [entry(action) for action in actions if action.option_strings and action.dest != "help"]
    rows.sort(key=lambda row: str(row["names"]))
    version = vllm.__version__.split("+")[0]
    parsers = json.dumps(sorted(ReasoningParserManager.list_registered()))
    lines = ",\n".join(json.dumps(row) for row in rows)
    sys.stdout.write(f'{{"version": "{version}", "reasoning_parsers": {parsers}, "flags": [\n{lines}\n]}}\n')


if __name__ == "__main__":
    main()
