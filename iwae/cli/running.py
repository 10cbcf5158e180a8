"""Runs what a command line asked for: one experiment in this process, several each in a process of its own.

Imported when something is to be run, since it needs NumPy; TensorFlow comes with `iwae.run`.
"""

import functools
import sys
from collections.abc import Callable, Sequence

import iwae
from iwae import device
from iwae.cli.pool import Pool, one_line
from iwae.config import ConfigError, Experiment
from iwae.device import cores
from iwae.runs.run import finished
from iwae.sections import RunError


def execute(
    experiments: Sequence[Experiment],
    workers: int | None = None,
    threads_per_run: int | None = None,
    cluster: str | None = None,
    cpus_per_run: float | None = None,
    gpus_per_run: float | None = None,
    devices: int | None = None,
) -> int:
    """Runs experiments and tells an error in one line.

    Args:
        workers: of several experiments, how many at a time; None: one.
        threads_per_run: of one operation of each; None: all cores, shared among the workers of several experiments, or
            on a cluster the cores that it takes.
        cluster: address of a Ray cluster to run on.
        cpus_per_run, gpus_per_run: how much of its nodes a run takes; None: a core for each thread, no GPU.
        devices: on which each run is trained; None: one.

    Returns:
        The exit status: 0, 2 for a parameter that cannot be used, 1 for a run that failed, 130 after Ctrl-C.
    """
    threads, workers = threads_per_run, workers or 1
    of_each: Callable[..., None] = run if devices is None else functools.partial(run, devices=devices)
    try:
        processes = len(device.members()[1])
        if processes > 1 and (cluster is not None or len(experiments) > 1):
            raise ConfigError(f"TF_CONFIG: expected one run for its {processes} processes, got several or a cluster")
        if cluster is not None:
            from iwae.cli.cluster import ClusterPool  # the lazy door to Ray

            threads = threads or max(1, int(cpus_per_run or 1))
            of_each = functools.partial(of_each, threads=threads)
            return ClusterPool(experiments, of_each, cluster, cpus_per_run or threads, gpus_per_run or 0).run()
        if len(experiments) > 1:
            threads = threads or max(1, cores() // workers)
            return Pool(experiments, functools.partial(of_each, threads=threads), workers).run()
        if processes <= 1 and (told := finished(experiments[0])) is not None:
            print(told)
            return 0
        (of_each if threads is None else functools.partial(of_each, threads=threads))(experiments[0])
    except (ConfigError, RunError) as error:
        print(f"error: {one_line(error)}", file=sys.stderr)
        return 2 if isinstance(error, ConfigError) else 1
    except KeyboardInterrupt as error:
        if not getattr(error, "told", False):
            print("\nstopped; the same command continues", file=sys.stderr)
        return getattr(error, "exit_status", 130)
    return 0


def run(experiment: Experiment, threads: int | None = None, devices: int = 1) -> None:
    """`iwae.run` as a function that a child process finds without TensorFlow in its parent."""
    if threads is not None or devices > 1:
        try:
            device.start_tensorflow(threads, devices)
        except RuntimeError:
            given = "threads_per_run" if threads is not None else "devices"
            raise ConfigError(f"{given}: expected TensorFlow not to compute before it, in experiments.py") from None
    iwae.run(experiment, devices=devices)
