"""The command `learning`: what a person types, and what is printed.

Errors are one sentence on standard error; bad input ends with code 2. Nothing is computed here.
"""

from __future__ import annotations

import os
import sys
import traceback
from collections.abc import Sequence
from typing import Any

import psycopg
import typer

from learning_assets.cli.book import reset
from learning_assets.cli.doctor import doctor
from learning_assets.cli.effectiveness import effectiveness
from learning_assets.cli.older import import_older
from learning_assets.cli.plan import plan
from learning_assets.cli.replay import replay
from learning_assets.cli.report import report
from learning_assets.cli.run import run
from learning_assets.cli.sets import diff, pin, rollback, sets, unpin
from learning_assets.cli.show import lessons, lookup, overrides
from learning_assets.cli.ui import ui
from learning_assets.cli.vetoes import unveto, veto, vetoes
from learning_assets.errors import UserError
from learning_assets.sources.files import MappingNeededError

BAD_INPUT, BROKEN, INTERRUPTED = 2, 1, 130
DEBUG_VARIABLE = "LEARNING_DEBUG"

_UsageError: Any = typer.BadParameter.__base__
"""Unknown options and the like: typer has its own copy of click, without a public name for it."""

app = typer.Typer(
    name="learning",
    help="Learns from closed trades in which scopes a pattern earns more or less than usual.",
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)


@app.callback()
def _everywhere(
    debug: bool = typer.Option(False, "--debug", hidden=True, help="Show tracebacks."),
) -> None:
    if debug:
        os.environ[DEBUG_VARIABLE] = "1"


_COMMANDS = (
    *(run, ui, overrides, lessons, lookup),
    *(sets, diff, rollback, pin, unpin, replay),
    *(veto, vetoes, unveto),
    *(effectiveness, report, plan, doctor, reset),
)
for command in _COMMANDS:
    app.command()(command)
app.command("import")(import_older)


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command and exit: 0 done, 1 something needs a person, 2 bad input."""
    given = list(sys.argv[1:] if arguments is None else arguments) or ["--help"]
    sys.exit(_run(given))


def _run(arguments: list[str]) -> int:
    try:
        result = typer.main.get_command(app).main(
            arguments, prog_name="learning", standalone_mode=False
        )
    except _UsageError as error:
        return _say(_usage_sentence(error), BAD_INPUT)
    except (typer.Abort, KeyboardInterrupt):
        return _say("stopped", INTERRUPTED)
    except MappingNeededError as error:
        return _propose(error)
    except UserError as error:
        return _say(str(error), BAD_INPUT)
    except BrokenPipeError:
        # Whoever reads the output has seen enough.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except (OSError, psycopg.Error) as error:
        return _say(f"{type(error).__name__}: {_first_line(error)} (--debug shows more)", BROKEN)
    if result == INTERRUPTED:  # typer has caught it
        return _say("stopped", INTERRUPTED)
    return result if isinstance(result, int) else 0


def _usage_sentence(error: Any) -> str:
    command = error.ctx.command_path if error.ctx else "learning"
    return f"{error.format_message().rstrip('.')}: `{command} --help` lists what there is"


def _first_line(error: Exception) -> str:
    return next(iter(str(error).strip().splitlines()), "no message")


def _say(sentence: str, code: int) -> int:
    if os.environ.get(DEBUG_VARIABLE):
        traceback.print_exc()
    sys.stderr.write(f"learning: {' '.join(sentence.split())}\n")
    return code


def _propose(error: MappingNeededError) -> int:
    """The proposed mapping on standard output, so that it can be sent to a file."""
    sys.stdout.write(error.proposal.rstrip("\n") + "\n")
    return _say(
        f"{error}; a mapping to start from is on standard output: send it to a file "
        "(`> mapping.toml`), correct it, and add `--mapping mapping.toml`",
        BAD_INPUT,
    )
