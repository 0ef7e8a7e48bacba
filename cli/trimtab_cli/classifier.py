"""`trimtab classifier`: `fit` learns from a router's decision log, the rest is the classifier's own command line."""

import sys
from collections.abc import Sequence


def main(argv: Sequence[str]) -> int:
    """Run one command; its exit status."""
    if argv and argv[0] == "fit":
        from trimtab_cli import fit

        return fit.main(argv[1:])
    from trimtab_classifier.__main__ import main as run

    if not argv or argv[0] in ("-h", "--help"):
        sys.stdout.write("trimtab classifier fit --help: refit a policy's class table to a router's decision log\n\n")
    return run(list(argv))
