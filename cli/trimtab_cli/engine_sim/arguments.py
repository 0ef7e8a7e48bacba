"""The command line of `vllm serve`, as far as a parser can know it, plus the simulator's own `--sim-*` flags.

`trimtab_crds.vllmflags` lists every flag of the vLLM version it names. A flag outside that list is
refused, as vLLM refuses it. Flags of vLLM without an effect on the simulation are accepted: the argv is vLLM's, not
ours.
"""

import argparse
import json
from collections.abc import Sequence
from typing import Any, Never

from trimtab_cli.engine_sim.presets import PRESETS
from trimtab_crds.vllmflags import known_flags

_VALUES = {"one": None, "optional": "?", "many": "+"}
_DESCRIPTION = """\
A simulated vLLM. Takes the flags of `vllm serve MODEL` (vLLM {version}) and the --sim-* flags below; vLLM's other flags
are checked and accepted. Answers are deterministic pseudo-words; timing, queueing, cache hits and metrics follow the
capacity model."""
_EXAMPLE = "example: trimtab engine-sim Qwen/Qwen3-8B --port 8000 --reasoning-parser qwen3 --sim-time-scale 10"


class ArgumentError(ValueError):
    """The command line is wrong; the message names the flag, the value and the fix."""


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> Never:
        raise ArgumentError(f"{message}; `trimtab engine-sim --help` and `vllm serve --help=all` list the flags")


def build_parser() -> argparse.ArgumentParser:
    """The parser. `--help` shows the simulator's own flags; those of vLLM are in vLLM's help."""
    parser = _Parser(
        prog="trimtab engine-sim",
        description=_DESCRIPTION.format(version=known_flags().version),
        epilog=_EXAMPLE,
        allow_abbrev=False,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        usage="trimtab engine-sim MODEL [flags of vllm serve] [--sim-*]",
    )
    parser.add_argument("model_tag", metavar="MODEL", nargs="?", help="Hugging Face id or a folder with config.json")
    for row in known_flags().flags:
        _add(parser, row)
    _add_own(parser)
    return parser


def _add(parser: argparse.ArgumentParser, row: dict[str, Any]) -> None:
    """One flag of vLLM. `-tp 2`, `--flag value`, `--flag=value` and `--no-flag` work as they do there."""
    names: list[str] = row["names"]
    dest = next((name for name in names if name.startswith("--")), names[0]).lstrip("-").replace("-", "_")
    if row["values"] != "none":
        kind = int if row.get("integer") else str
        parser.add_argument(
            *names, dest=dest, nargs=_VALUES[row["values"]], choices=_choices(row, kind), type=kind,
            help=argparse.SUPPRESS, metavar=dest.upper(),
        )  # fmt: skip
        return
    negative = [name for name in names if name.startswith("--no-")]
    positive = [name for name in names if name not in negative]
    parser.add_argument(*positive, dest=dest, action="store_const", const=True, help=argparse.SUPPRESS)
    if negative:
        parser.add_argument(*negative, dest=dest, action="store_const", const=False, help=argparse.SUPPRESS)


def _choices(row: dict[str, Any], kind: type[int] | type[str]) -> list[Any] | None:
    return [kind(choice) for choice in row["choices"]] if "choices" in row else None


def _add_own(parser: argparse.ArgumentParser) -> None:
    own = parser.add_argument_group("simulation")
    own.add_argument(
        "--sim-accelerator", default="nvidia-h100-80gb", metavar="NAME", help="GPU from the catalogue (%(default)s)"
    )
    own.add_argument("--sim-gpus", type=int, metavar="N", help="GPUs of the replica (tensor x pipeline parallel size)")
    own.add_argument(
        "--sim-shape",
        metavar="PRESET|FILE|JSON",
        help=f"shape of the model: {', '.join(PRESETS)}; a config.json; or an InferencePool's model.shape as JSON "
        "(the MODEL's own config.json, or the preset in its name, or qwen3-8b)",
    )
    own.add_argument(
        "--sim-time-scale", type=float, default=1.0, metavar="X", help="run X times faster than the GPU would (1)"
    )
    own.add_argument(
        "--sim-startup-seconds", type=float, default=0.0, metavar="S", help="time until the port opens (0)"
    )
    own.add_argument("--sim-seed", type=int, default=0, metavar="N", help="seed of the answers (0)")
    own.add_argument(
        "--sim-acceptance", type=float, metavar="P", help="acceptance of a drafted token (by speculation method)"
    )


def parse(argv: Sequence[str]) -> argparse.Namespace:
    """The command line as a namespace: absent flags are None.

    Raises ArgumentError. `--help` exits, as in every argparse program.
    """
    return build_parser().parse_args(_fold(argv))


def _fold(argv: Sequence[str]) -> list[str]:
    """The spellings that vLLM's parser adds to argparse's, in plain ones.

    Underscores in names become dashes, `-O3` and `-O 3` an optimization level, and dotted keys
    (`--speculative-config.method ngram`) one JSON object.
    """
    known = {name for row in known_flags().flags for name in row["names"]}
    words: list[str] = []
    folded: dict[str, dict[str, Any]] = {}
    rest = iter(argv)
    for word in rest:
        name, equals, value = word.partition("=")
        flag, dot, key = name.partition(".")
        flag = flag.replace("_", "-") if flag.startswith("--") else flag
        if dot and flag in known:
            _put(folded.setdefault(flag, {}), key.replace("-", "_"), value if equals else next(rest, ""))
        elif word.startswith("-O"):
            words.append(f"--optimization-level={word[2:].lstrip('.=') or next(rest, '')}")
        else:
            words.append(flag + dot + key + equals + value if word.startswith("--") else word)
    return words + [f"{flag}={json.dumps(document)}" for flag, document in folded.items()]


def _put(document: dict[str, Any], key: str, value: str) -> None:
    head, dot, tail = key.partition(".")
    if dot:
        _put(document.setdefault(head, {}), tail, value)
        return
    try:
        document[head] = json.loads(value)
    except ValueError:
        document[head] = value
