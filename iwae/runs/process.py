"""The process of a run: signals that end it well, and a run in a process of its own.

TensorFlow keeps every program that XLA compiled until its process ends, whatever becomes of the model; many runs in one
process would fill the memory. A run that is killed for its memory costs no other run either.
"""

import contextlib
import io
import math
import multiprocessing
import os
import platform
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from multiprocessing import resource_tracker
from multiprocessing.connection import Connection
from types import FrameType
from typing import Any

from iwae.config import ConfigError, Experiment
from iwae.runs.folder import Busy
from iwae.sections import RunError
from iwae.signals import SIGNALS, handled_by

SECONDS_OF_ONE_SIGNAL = (
    2.0  # SLURM sends it to a run and to its parent, which hands it on: the second is no second wish
)
OUTPUT = "run.log"  # in the folder of a run, what its own process printed


class Interrupted(KeyboardInterrupt):
    """A signal ended the run; `exit_status` is what a shell expects of that. `told`: a line has said so."""

    def __init__(self, number: int, told: bool = False):
        super().__init__(number)
        self.exit_status, self.told = 128 + number, told


class Stopped(RunError):
    """A signal ended a run that ran for another process."""


class Signals:
    """While this context lasts `SIGNALS` end the run with `Interrupted`: at once, or while `deferred`, when asked."""

    def __init__(self) -> None:
        self.received: int | None = None
        self._last = -math.inf
        self._deferred = False

    def __enter__(self) -> "Signals":
        self._handlers = contextlib.ExitStack()
        self._handlers.enter_context(handled_by(self._handle))
        return self

    def __exit__(self, *_: object) -> None:
        self._handlers.close()

    @contextlib.contextmanager
    def deferred(self) -> Iterator[None]:
        """While this context lasts the first signal is only noted in `received`."""
        self._deferred = True
        try:
            yield
        finally:
            self._deferred = False

    def _handle(self, number: int, _frame: FrameType | None) -> None:
        now = time.monotonic()
        if now - self._last < SECONDS_OF_ONE_SIGNAL:
            return
        self._last = now
        if self._deferred and self.received is None:
            self.received = number
            with contextlib.suppress(OSError, ValueError):  # the terminal may be gone
                print("\nstopping after this block of updates, to save a checkpoint ...", file=sys.stderr, flush=True)
        else:
            raise Interrupted(number)


class Child:
    """`run(experiment)` in a process of its own, which ends with this one; what it prints is added to `run.log`.

    Args:
        experiment: of the run, whose folder is there.
        run: a function of a module, so that the child can import it.
    """

    def __init__(self, experiment: Experiment, run: Callable[[Experiment], Any]):
        self._folder = experiment.run_dir
        context = multiprocessing.get_context("spawn")
        self.ended, sender = context.Pipe(duplex=False)  # can be read once the run has ended
        self._process = context.Process(target=_child, args=(experiment, run, sender))
        resource_tracker.ensure_running()  # would unblock them
        before = signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)  # the child's until it can end well
        try:
            self._process.start()
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)
        sender.close()

    def send(self, number: int) -> None:
        """Sends the process a signal of `SIGNALS`: the run saves a checkpoint and ends."""
        if self._process.is_alive() and self._process.pid is not None:
            os.kill(self._process.pid, number)

    def error(self) -> Exception | None:
        """Waits for the end. ConfigError or RunError: what `run` raised, or that the process died."""
        error = None
        with contextlib.suppress(EOFError):  # it died without a word
            error = self.ended.recv()
        self._process.join()
        if error is None and self._process.exitcode:
            return RunError(f"{self._folder}: the process of the run died ({_end_of(self._process.exitcode)})")
        return error


def _child(experiment: Experiment, run: Callable[[Experiment], Any], sender: Connection) -> None:
    """Runs an experiment and sends the error that ended it, or None."""
    with contextlib.suppress(OSError):
        os.setpgid(0, 0)  # so that a signal from the terminal comes once, from the parent
    threading.Thread(target=_end_with_parent, daemon=True).start()
    error = outcome(experiment, run)
    with contextlib.suppress(OSError):  # the parent may be gone
        sender.send(error)


def outcome(experiment: Experiment, run: Callable[[Experiment], Any]) -> Exception | None:
    """Runs an experiment in a process that has nothing else to do: the error that ended it, or None.

    What it prints is added to `run.log` in its folder, which is there; signals that were blocked are not any more.
    """
    error: Exception | None = None
    try:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)
        _print_into(os.path.join(experiment.run_dir, OUTPUT))
        run(experiment)
    except (ConfigError, RunError) as caught:
        error = caught
        if not isinstance(caught, Busy):
            print(f"error: {caught}", file=sys.stderr)
    except KeyboardInterrupt:
        error = Stopped(f"{experiment.run_dir}: stopped by a signal; the same command continues")
    except Exception as caught:
        traceback.print_exc()
        error = RunError(f"{type(caught).__name__}: {caught}")
    return error


def _print_into(path: str) -> None:
    """Adds to a file what this process, C++ code too, prints from now on."""
    file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o666)
    for number, stream in ((1, sys.stdout), (2, sys.stderr)):
        os.dup2(file, number)
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(line_buffering=True)
    os.close(file)
    print(f"== {time.strftime('%Y-%m-%d %H:%M:%S')} {platform.node()}, process {os.getpid()}")


def _end_with_parent() -> None:
    """Stops this process, as SIGTERM does, once its parent is gone."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os.kill(os.getpid(), signal.SIGTERM)


def _end_of(status: int) -> str:
    return f"signal {signal.Signals(-status).name}" if status < 0 else f"exit status {status}"
