"""Runs what a command line asked for: one experiment in this process, several each in a process of its own.

Imported when something is to be run, since it needs NumPy; TensorFlow comes with `iwae.run`.
"""

import contextlib
import functools
import sys
from collections.abc import Sequence

import iwae
from iwae import device
from iwae.cli.pool import Pool, cores, one_line
from iwae.config import ConfigError, Experiment
from iwae.runs.folder import RunError
from iwae.runs.run import finished


def execute(experiments: Sequence[Experiment], workers: int = 1, threads: int | None = None) -> int:
    """Runs experiments and tells an error in one line.

    Args:
        workers: of several experiments, how many at a time.
        threads: of one operation of each; None: all cores, shared among the workers of several experiments.

    Returns:
        The exit status: 0, 2 for a parameter that cannot be used, 1 for a run that failed, 130 after Ctrl-C.
    """
    try:
        if len(experiments) > 1:
            threads = threads or max(1, cores() // workers)
            return Pool(experiments, functools.partial(run, threads=threads), workers).run()
        if (told := finished(experiments[0])) is not None:
            print(told)
            return 0
        (run if threads is None else functools.partial(run, threads=threads))(experiments[0])
    except (ConfigError, RunError) as error:
        print(f"error: {one_line(error)}", file=sys.stderr)
        return 2 if isinstance(error, ConfigError) else 1
    except KeyboardInterrupt as error:
        if not getattr(error, "told", False):
            with contextlib.suppress(OSError):  # the terminal may be gone
                print("\nstopped; the same command continues", file=sys.stderr)
        return getattr(error, "exit_status", 130)
    return 0


def run(experiment: Experiment, threads: int | None = None) -> None:
    """`iwae.run` as a function that a child process finds without TensorFlow in its parent."""
    if threads is not None:
        device.start_tensorflow(threads)
    iwae.run(experiment)
