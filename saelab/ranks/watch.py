"""`Watch`: signs of life, and an end when another rank is lost, whatever the main thread is doing."""

from __future__ import annotations

import os
import signal
import sys
import threading
from itertools import count

from saelab.errors import EXIT_USER_ERROR, UserError, tell
from saelab.ranks.ranks import Ranks, SaidElsewhereError

_BEAT_S = 1.0
_GRACE_S = 10.0


class Watch:
    """A thread that beats, and looks after the other ranks.

    A rank that waits inside torch for one that is stopped, or on another machine, or in a GPU's kernel, never comes
    back to Python, where it could look itself. So the thread interrupts the main one, as SIGTERM does. If that is not
    heard in time, it says what is wrong and ends the process: all that is lost is what came after the last checkpoint.

    Attributes:
        trouble: what the thread has found.
    """

    def __init__(self, ranks: Ranks) -> None:
        self.ranks = ranks
        self.trouble: UserError | None = None
        self._ending, self._stop = threading.Event(), threading.Event()
        self._thread = threading.Thread(target=self._run, name="saelab-watch", daemon=True)

    def begin(self) -> None:
        """From now on; SIGTERM must raise in the main thread."""
        self._thread.start()

    def leave_alone(self) -> None:
        """The main thread is on its way out: go on beating, but don't interrupt it."""
        self._ending.set()

    def stop(self) -> None:
        """No more."""
        self._stop.set()
        if self._thread.is_alive():
            self._thread.join()

    def _run(self) -> None:
        try:
            for number in count():
                self.ranks.beat(number)
                if not self._ending.is_set():
                    self.ranks.look()
                if self._stop.wait(_BEAT_S):
                    return
        except UserError as trouble:
            self.trouble = trouble
            if not self._ending.is_set():
                self._interrupt(trouble)

    def _interrupt(self, trouble: UserError) -> None:
        is_ours = not isinstance(trouble, SaidElsewhereError) and self.ranks.fail(str(trouble))
        main = threading.main_thread().ident
        assert main is not None  # it has begun
        signal.pthread_kill(main, signal.SIGTERM)
        if self._ending.wait(_GRACE_S):
            return
        if is_ours:
            tell(trouble)
        sys.stdout.flush()
        os._exit(EXIT_USER_ERROR)
