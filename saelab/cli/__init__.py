"""The command line: one command per stage of the road.

Nothing heavy is imported here: a command's module loads when the command runs, torch when the stage does.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence

from saelab.errors import EXIT_USER_ERROR, UserError, tell
from saelab.ranks import SaidElsewhereError

EXIT_INTERRUPTED = 130


def main(arguments: Sequence[str] | None = None) -> None:
    """Run `saelab` with `arguments` (default: the process's own) and exit.

    Exit codes: 0 done, 2 a mistake of the user's (one sentence on stderr), 130 Ctrl-C. Bugs keep their traceback.
    """
    from cyclopts import CycloptsError

    from saelab.cli.commands import app

    try:
        _require_one_process(sys.argv[1:] if arguments is None else arguments)
        app(arguments, exit_on_error=False, print_error=False)
    except (UserError, CycloptsError) as error:
        if not _said_elsewhere(error):
            tell(error)
        sys.exit(EXIT_USER_ERROR)
    except KeyboardInterrupt:
        print("saelab: stopped; the same command continues where it can", file=sys.stderr)
        sys.exit(EXIT_INTERRUPTED)
    except BrokenPipeError:  # `saelab inspect … | head`: the reader has gone, which is not an error
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    sys.exit(0)


def _require_one_process(arguments: Sequence[str]) -> None:
    """Refuse, under torchrun, what each process would do whole: all would write the same files at once."""
    from saelab.cli.commands import COMMANDS, DIVIDED

    size, command = os.environ.get("WORLD_SIZE", "1"), next(iter(arguments), "")
    if size == "1" or command in DIVIDED or command not in COMMANDS:
        return
    kind = UserError if os.environ.get("RANK", "0") == "0" else SaidElsewhereError
    raise kind(
        f"`saelab {command}` runs in one process, and torchrun started {size} (environment variable WORLD_SIZE); "
        f"only {', '.join(DIVIDED[:-1])} and {DIVIDED[-1]} share their work"
    )


def _said_elsewhere(error: Exception) -> bool:
    """Under torchrun: whether another rank says this. What is wrong with the words themselves, all ranks find."""
    return isinstance(error, SaidElsewhereError) or (
        not isinstance(error, UserError) and os.environ.get("RANK", "0") != "0"
    )
