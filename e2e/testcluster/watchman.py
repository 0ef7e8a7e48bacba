"""`python -m testcluster.watchman FOLDER`: waits for the end of its standard input, then tears FOLDER down."""

import sys
from pathlib import Path

from testcluster.teardown import tear_down


def main() -> None:
    """Block until the starter is gone; a normal teardown leaves nothing to do."""
    sys.stdin.buffer.read()
    tear_down(Path(sys.argv[1]))


if __name__ == "__main__":
    main()
