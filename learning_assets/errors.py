"""Errors that a person can act on: the command line prints one sentence and exits with 2."""


class UserError(Exception):
    """Bad input: the message says what is wrong, where, and what to do, in one sentence."""


class DatabaseAwayError(UserError):
    """A database that does not answer, or stopped in the middle: it may answer in a moment.

    The command line says its sentence like any other; a run under Dagster tries again first.
    """
