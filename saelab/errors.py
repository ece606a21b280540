"""The one exception that is shown to people instead of a traceback."""


class UserError(Exception):
    """Something the user can put right: one clear sentence, naming the key or file and what would be right.

    The command line prints it and exits with code 2. Anything else that escapes is a bug and keeps its traceback.
    """
