"""`python -m trimtab_cli.engine_sim MODEL [flags]`."""

import sys

from trimtab_cli.engine_sim import main

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
