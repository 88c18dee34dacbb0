"""Errors that a person can act on: the command line prints one sentence and exits with 2."""


class UserError(Exception):
    """Bad input: the message says what is wrong, where, and what to do, in one sentence."""
