"""Signals that ask a program to stop: noted, and heeded between compiled calls."""

import contextlib
import signal
import threading
from collections.abc import Iterator

from launch.command import Interrupted

STOPPING = (signal.SIGINT, signal.SIGTERM)


@contextlib.contextmanager
def handlers_kept() -> Iterator[None]:
    """Puts back the handlers of these signals that the body has replaced."""
    before = {number: signal.getsignal(number) for number in STOPPING}
    try:
        yield
    finally:
        if threading.current_thread() is threading.main_thread():
            for number, handler in before.items():
                signal.signal(number, handler)


class Signals:
    """Notes SIGINT and SIGTERM while it is entered; a second one acts at once.

    Outside the main thread nothing is noted.

    Attributes:
      caught: number of the signal, None where there was none.
    """

    caught: int | None = None

    def __enter__(self) -> "Signals":
        self._before = {}
        if threading.current_thread() is threading.main_thread():
            for number in STOPPING:
                self._before[number] = signal.signal(number, self._note)
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def heed(self) -> None:
        """Raises `Interrupted` where a signal was noted."""
        if self.caught is not None:
            raise Interrupted(self.caught)

    def _note(self, number: int, _frame: object) -> None:
        self.caught = number
        signal.signal(number, self._before[number])
