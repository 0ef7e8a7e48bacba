"""`python -m trimtab_cli.local`."""

import sys

from trimtab_cli.errors import UsageError
from trimtab_cli.local import main

if __name__ == "__main__":
    try:
        sys.exit(main(sys.argv[1:]))
    except UsageError as error:
        sys.exit(f"trimtab: {error}")
