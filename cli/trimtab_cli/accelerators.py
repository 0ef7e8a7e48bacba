"""`trimtab accelerators`: the built-in catalogue that `spec.accelerator.name` chooses from."""

import argparse
import json
import sys
from collections.abc import Sequence
from typing import Any

from trimtab_crds.accelerators import CATALOGUE, Accelerator


def main(argv: Sequence[str]) -> int:
    """Print the catalogue; exit status 0."""
    parser = argparse.ArgumentParser(
        prog="trimtab accelerators",
        description="List the accelerators that pools and GPU budgets can name.",
        epilog="example: trimtab accelerators -o json",
    )
    parser.add_argument("-o", "--output", choices=("json", "table"), default="table", help="default: table")
    args = parser.parse_args(argv)
    if args.output == "json":
        sys.stdout.write(json.dumps([_as_dict(a) for a in CATALOGUE.values()], indent=2) + "\n")
    else:
        _print_table()
    return 0


def _as_dict(accelerator: Accelerator) -> dict[str, Any]:
    """`bandwidth` is in gigabytes per second, `tflops` dense per type."""
    return {
        "name": accelerator.name,
        "compute_capability": accelerator.compute_capability,
        "memory_gib": accelerator.memory_gib,
        "bandwidth": accelerator.bandwidth_gb_per_second,
        "tflops": dict(accelerator.tflops),
        "resource": accelerator.resource,
        "labels": dict(accelerator.labels),
    }


def _print_table() -> None:
    from rich import box
    from rich.table import Table

    from trimtab_cli.output import console

    heads = ("name", "compute capability", "memory GiB", "bandwidth GB/s", "bf16 TFLOP/s", "node labels")
    table = Table(*heads, box=box.SIMPLE_HEAD)
    for accelerator in CATALOGUE.values():
        table.add_row(
            accelerator.name,
            accelerator.compute_capability,
            f"{accelerator.memory_gib:g}",
            f"{accelerator.bandwidth_gb_per_second:g}",
            f"{accelerator.tflops['bf16']:g}",
            "\n".join(f"{key}={value}" for key, value in accelerator.labels.items()),
        )
    console().print(table)
