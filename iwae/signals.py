"""The signals that end a run, from a terminal, a cluster's scheduler or a closed window, and who gets them."""

import contextlib
import signal
from collections.abc import Callable, Iterator
from types import FrameType

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
Handler = Callable[[int, FrameType | None], None] | signal.Handlers


@contextlib.contextmanager
def handled_by(handler: Handler) -> Iterator[None]:
    """While this context lasts `handler` gets the signals of `SIGNALS`; `signal.SIG_DFL` ends the process at once."""
    previous = {}
    with contextlib.suppress(ValueError):  # handlers belong to the main thread; elsewhere all stays as it is
        for number in SIGNALS:
            if number != signal.SIGHUP or signal.getsignal(number) != signal.SIG_IGN:  # which is what nohup asks for
                previous[number] = signal.signal(number, handler)
    try:
        yield
    finally:
        for number, before in previous.items():
            signal.signal(number, before)
