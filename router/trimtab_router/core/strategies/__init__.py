"""How one query's budget is spent: each strategy is a pure script of attempts.

A script is a generator. It yields the attempts to start now (none: wait), gets the next one that ended, and returns
the attempt whose answer is given. It neither sends nor waits; `shell/conductor.py` does.
"""
