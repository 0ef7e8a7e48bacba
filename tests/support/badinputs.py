"""Every bad manifest that a test sends: in Python, by the command line, to an API server."""

from support.badfields import BAD_POLICIES, BAD_POOLS
from support.brokenrules import BROKEN_RULES

BAD_INPUTS = (*BROKEN_RULES, *BAD_POOLS, *BAD_POLICIES)
