"""What the test cluster can raise."""


class UnavailableError(Exception):
    """A part of the test cluster cannot be had on this machine; the message says what would help."""


class StartError(Exception):
    """A program did not come up; the message ends in its log's last lines."""
