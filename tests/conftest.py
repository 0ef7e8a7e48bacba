"""What holds for every test."""

from hypothesis import settings

# A deadline per example is a timed assertion: on a busy machine it fails without a fault.
settings.register_profile("trimtab", deadline=None)
settings.load_profile("trimtab")
