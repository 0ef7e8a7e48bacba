"""The one error that the command line reports as a sentence instead of a traceback."""


class UsageError(Exception):
    """What the user gave cannot be worked with; the message is one line that says what and how to mend it."""
