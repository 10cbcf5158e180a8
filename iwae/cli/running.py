"""Runs what a command line asked for: one experiment in this process, several each in a process of its own.

Imported when something is to be run, since it needs NumPy; TensorFlow comes with `iwae.run`.
"""

import sys
import traceback
from collections.abc import Callable, Sequence
from typing import Any

import iwae
from iwae.config import ConfigError, Experiment
from iwae.runs.folder import Folder, RunError
from iwae.runs.process import run_apart


def execute(experiments: Sequence[Experiment]) -> int:
    """Runs experiments and tells an error in one line.

    Returns:
        The exit status: 0, 2 for a parameter that cannot be used, 1 for a run that failed, 130 after Ctrl-C.
    """
    try:
        if len(experiments) > 1:
            return run_all(experiments, run_in_child)
        run(experiments[0])
    except (ConfigError, RunError) as error:
        print(f"error: {_one_line(error)}", file=sys.stderr)
        return 2 if isinstance(error, ConfigError) else 1
    except KeyboardInterrupt as error:
        return getattr(error, "exit_status", 130)
    return 0


def run(experiment: Experiment) -> None:
    """`iwae.run` as a function that a child process finds without TensorFlow in its parent."""
    iwae.run(experiment)


def run_in_child(experiment: Experiment) -> None:
    """`run` in a process of its own; a finished run is left as it is without one."""
    if Folder(experiment.run_dir).is_finished(experiment):
        print(f"{experiment.run_dir}: finished before, left as it is", flush=True)
    else:
        run_apart(experiment, run)


def run_all(experiments: Sequence[Experiment], run: Callable[[Experiment], Any]) -> int:
    """Runs one experiment after the other, whatever becomes of them, and says at the end which failed.

    Finished runs are left as they are and unfinished ones continued, for that is what `run` does.

    Returns:
        The exit status: 1 if any failed, else 0.
    """
    failed: list[tuple[str, Exception]] = []
    for i, experiment in enumerate(experiments, start=1):
        print(f"== {i}/{len(experiments)} {experiment.name}", flush=True)
        try:
            run(experiment)
        except Exception as error:  # a fault in one run must not cost the others
            if isinstance(error, ConfigError | RunError):
                print(f"error: {_one_line(error)}", file=sys.stderr)
            else:
                traceback.print_exc()
            failed.append((experiment.name, error))
    print(f"== {len(experiments) - len(failed)} of {len(experiments)} runs are done", flush=True)
    for name, reason in failed:
        print(f"failed: {name}: {_one_line(reason)}", file=sys.stderr)
    return 1 if failed else 0


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())
