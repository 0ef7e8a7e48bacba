"""Write the flags of `vllm serve` that the installed vLLM knows: `PYTHON_OF_VLLM scripts/vllm_flags.py > FILE`.

The output is `crds/trimtab_crds/vllm_flags.json`; the simulated engine refuses every other flag.
"""

import argparse
import contextlib
import json
import os
import sys

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


def main() -> None:
    """Print the flags as JSON, one a line."""
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
