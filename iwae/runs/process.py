"""The process of a run: signals that end it well, and a run in a process of its own.

TensorFlow keeps every program that XLA compiled until its process ends, whatever becomes of the model; many runs in one
process would fill the memory. A run that is killed for its memory costs no other run either.
"""

import contextlib
import multiprocessing
import os
import signal
import sys
import threading
import traceback
from collections.abc import Callable, Iterator
from multiprocessing.connection import Connection
from types import FrameType
from typing import Any

from iwae.config import ConfigError, Experiment
from iwae.runs.folder import RunError

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
Handler = Callable[[int, FrameType | None], None]


class Interrupted(KeyboardInterrupt):
    """A signal ended the run; `exit_status` is what a shell expects of that."""

    def __init__(self, number: int):
        super().__init__(number)
        self.exit_status = 128 + number


class Signals:
    """While this context lasts `SIGNALS` end the run with `Interrupted`: at once, or while `deferred`, when asked."""

    def __init__(self) -> None:
        self.received: int | None = None
        self._deferred = False

    def __enter__(self) -> "Signals":
        self._handlers = contextlib.ExitStack()
        self._handlers.enter_context(_handled_by(self._handle))
        return self

    def __exit__(self, *_: object) -> None:
        self._handlers.close()

    @contextlib.contextmanager
    def deferred(self) -> Iterator[None]:
        """While this context lasts the first signal is only noted in `received`."""
        self._deferred = True
        yield
        self._deferred = False

    def _handle(self, number: int, _frame: FrameType | None) -> None:
        if self._deferred and self.received is None:
            self.received = number
            with contextlib.suppress(OSError, ValueError):  # the terminal may be gone
                print("\nstopping after this block of updates, to save a checkpoint ...", file=sys.stderr, flush=True)
        else:
            raise Interrupted(number)


def run_apart(experiment: Experiment, run: Callable[[Experiment], Any]) -> None:
    """Does `run(experiment)` in a child process and waits for it.

    A signal of `SIGNALS` is handed on to the child, which then saves a checkpoint and ends.

    Args:
        experiment: of the run.
        run: a function of a module, so that the child can import it.

    Raises:
        ConfigError, RunError: what `run` raised; RunError also for any other error there and for a child that died.
        Interrupted: one of these signals came.
    """
    context = multiprocessing.get_context("spawn")
    receiver, sender = context.Pipe(duplex=False)
    child = context.Process(target=_child, args=(experiment, run, sender))
    received: list[int] = []

    def hand_on(number: int, _frame: FrameType | None) -> None:
        received.append(number)
        if child.is_alive() and child.pid is not None:
            os.kill(child.pid, number)

    with _handled_by(hand_on):
        child.start()
        sender.close()
        error = None
        with contextlib.suppress(EOFError):  # it died without a word
            error = receiver.recv()
        child.join()
    if received:
        raise Interrupted(received[0])
    if error is not None:
        raise error
    if child.exitcode:
        raise RunError(f"{experiment.run_dir}: the process of the run died ({_end_of(child.exitcode)})")


def _child(experiment: Experiment, run: Callable[[Experiment], Any], sender: Connection) -> None:
    """Runs an experiment and sends the error that ended it, or None."""
    with contextlib.suppress(OSError):
        os.setpgid(0, 0)  # so that a signal from the terminal comes once, from the parent
    threading.Thread(target=_end_with_parent, daemon=True).start()
    error: Exception | None = None
    try:
        run(experiment)
    except (ConfigError, RunError) as caught:
        error = caught
    except KeyboardInterrupt:
        pass  # the parent knows
    except Exception as caught:
        traceback.print_exc()
        error = RunError(f"{type(caught).__name__}: {caught}")
    sender.send(error)


def _end_with_parent() -> None:
    """Stops this process, as SIGTERM does, once its parent is gone."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os.kill(os.getpid(), signal.SIGTERM)


@contextlib.contextmanager
def _handled_by(handler: Handler) -> Iterator[None]:
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


def _end_of(status: int) -> str:
    return f"signal {signal.Signals(-status).name}" if status < 0 else f"exit status {status}"
