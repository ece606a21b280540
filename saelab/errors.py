"""The one exception that is shown to people instead of a traceback."""

import sys

EXIT_USER_ERROR = 2


class UserError(Exception):
    """Something the user can put right: one clear sentence, naming the key or file and what would be right.

    The command line prints it and exits with code 2. Anything else that escapes is a bug and keeps its traceback.
    """


def tell(error: Exception) -> None:
    """Say it in one line on stderr."""
    print(f"saelab: {' '.join(str(error).split())}", file=sys.stderr, flush=True)
