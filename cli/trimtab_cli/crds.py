"""`trimtab crds`: both CustomResourceDefinitions as YAML, ready for `kubectl apply -f -`."""

import argparse
import sys
from collections.abc import Sequence


def main(argv: Sequence[str]) -> int:
    """Print the definitions; exit status 0."""
    parser = argparse.ArgumentParser(
        prog="trimtab crds",
        description="Print both CustomResourceDefinitions as YAML.",
        epilog="example: trimtab crds | kubectl apply --server-side -f -",
    )
    parser.parse_args(argv)

    import yaml

    from trimtab_crds.manifests import definitions

    sys.stdout.write(yaml.safe_dump_all(definitions().values(), sort_keys=False, width=110))
    return 0
