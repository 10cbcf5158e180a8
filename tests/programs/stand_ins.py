"""Runs stand-ins for experiments in a pool: python stand_ins.py RESULTS WORKERS NAME-WHAT[@RUN TO START FROM] ...

WORKERS may be the address of a Ray cluster. WHAT a run does is in `DEEDS`. Each start is a line in RESULTS/started. A
run that is done does nothing when run again.
"""

import os
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path

from iwae import printing
from iwae.cli import pool
from iwae.config import ConfigError, Experiment, Training
from iwae.runs.folder import Folder
from iwae.runs.process import Interrupted, Signals
from iwae.sections import RunError


def wait(folder: Path) -> None:
    """Until a signal, after which saving takes a while; run again, it continues and is done."""
    if not (folder / "saved").exists():
        with Signals() as signals, signals.deferred():
            (folder / "waiting").touch()
            while signals.received is None:
                time.sleep(0.05)
            time.sleep(0.2)
            print("saving")
            (folder / "saved").touch()
            raise Interrupted(signals.received)


def hold(folder: Path) -> None:
    """As `wait`, unless it was started before, however that ended."""
    if not (folder / "waiting").exists():
        wait(folder)


def fail(error: Exception) -> Callable[[Path], None]:
    def deed(folder: Path) -> None:
        raise error

    return deed


DEEDS: dict[str, Callable[[Path], None]] = {
    "ok": lambda folder: print("from", folder.name),
    "nap": lambda folder: time.sleep(0.5),
    "wait": wait,
    "hold": hold,
    "die": lambda folder: os.kill(os.getpid(), signal.SIGKILL),
    "full": fail(RunError("no\nspace")),
    "taken": fail(ConfigError("name: taken")),
    "fault": fail(ZeroDivisionError("x")),
}


def run(experiment: Experiment) -> None:
    folder = Folder(experiment.run_dir)
    with folder.opened():
        if (folder.path / "done").exists():
            return
        with open(folder.path.parent / "started", "a") as started:
            started.write(experiment.name + "\n")
        (folder.path / "pid").write_text(str(os.getpid()))
        DEEDS[experiment.name.partition("-")[2]](folder.path)
        (folder.path / "done").touch()


def experiment(results: str, word: str) -> Experiment:
    name, _, start = word.partition("@")
    return Experiment(
        name, results_dir=results, training=Training(start_from=f"{results}/./{start}" if start else None)
    )


if __name__ == "__main__":
    printing.may_get_lost()  # as the command does
    pool.SECONDS_BETWEEN_LOOKS = 0.1
    results, workers, *words = sys.argv[1:]
    experiments = [experiment(results, word) for word in words]
    try:
        if ":" in workers:
            from iwae.cli.cluster import ClusterPool

            sys.exit(ClusterPool(experiments, run, workers, cpus=1).run())
        sys.exit(pool.Pool(experiments, run, int(workers)).run())
    except Interrupted as error:
        sys.exit(error.exit_status)
