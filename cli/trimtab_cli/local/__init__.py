"""`trimtab up`: the whole loop on one machine, without Kubernetes and without a GPU.

The same manifests, operator core, rebalancer and router as in a cluster; what Kubernetes does there, a small process
runner does here.
"""

import asyncio
import sys
from collections.abc import Sequence

from trimtab_cli.local.app import run
from trimtab_cli.local.engines import EngineFailed
from trimtab_cli.local.inputs import read_inputs
from trimtab_cli.local.options import parse
from trimtab_cli.local.report import report_json, report_of, summary
from trimtab_cli.local.router import RouterFailed
from trimtab_cli.local.screen import Screen, write_svg


def main(argv: Sequence[str]) -> int:
    """Run `trimtab up`: 0 when every request was answered, 1 when one failed or a part could not run."""
    options = parse(argv)
    inputs = read_inputs(options)
    try:
        with Screen(plain=options.plain) as screen:
            last = asyncio.run(run(inputs, options, screen))
    except (EngineFailed, RouterFailed) as error:
        sys.stderr.write(f"trimtab up: {error}\n")
        return 1
    if options.report is not None:
        options.report.write_text(report_json(report_of(last)))
    if options.svg is not None:
        write_svg(last, options.svg)
    sys.stdout.write(summary(last))
    return 1 if last.tally.failed else 0
