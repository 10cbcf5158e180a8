"""A run in a process of its own.

TensorFlow keeps every program that XLA compiled until its process ends, whatever becomes of the model; many runs in one
process would fill the memory. A run that is killed for its memory costs no other run either.
"""

import contextlib
import multiprocessing
import os
import signal
import threading
import traceback
from collections.abc import Callable, Iterator
from multiprocessing.connection import Connection
from typing import Any

from iwae.config import ConfigError, Experiment
from iwae.experiment import Interrupted, RunError, is_finished, run

SIGNALS = (signal.SIGINT, signal.SIGTERM)


def run_apart(experiment: Experiment) -> None:
    """Does in a child process what `run` does, and waits for it; a finished run is left as it is without one.

    SIGINT and SIGTERM are handed on to the child, which then saves a checkpoint and ends.

    Raises:
        ConfigError, RunError: what `run` raised; RunError also for any other error there and for a child that died.
        Interrupted: one of these signals came.
    """
    if is_finished(experiment):
        print(f"{experiment.run_dir}: finished before, left as it is", flush=True)
        return
    context = multiprocessing.get_context("spawn")
    receiver, sender = context.Pipe(duplex=False)
    child = context.Process(target=_child, args=(experiment, sender))
    received: list[int] = []

    def hand_on(number: int, _frame: Any) -> None:
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


def _child(experiment: Experiment, sender: Connection) -> None:
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
def _handled_by(handler: Callable[[int, Any], None]) -> Iterator[None]:
    previous = {}
    with contextlib.suppress(ValueError):  # handlers belong to the main thread; elsewhere all stays as it is
        for number in SIGNALS:
            previous[number] = signal.signal(number, handler)
    try:
        yield
    finally:
        for number, before in previous.items():
            signal.signal(number, before)


def _end_of(status: int) -> str:
    return f"signal {signal.Signals(-status).name}" if status < 0 else f"exit status {status}"
