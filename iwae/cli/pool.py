"""Several runs of one command, side by side, each in a process of its own.

The runs are shared out by the locks of their folders alone: the same command, started again or on other machines with
the same folder, takes what nobody else works on.
"""

import contextlib
import dataclasses
import fcntl
import math
import os
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Collection, Sequence
from multiprocessing import connection
from pathlib import Path
from typing import Any, Protocol

from iwae.cli import table
from iwae.config import ConfigError, Experiment
from iwae.runs.folder import Busy, Folder
from iwae.runs.process import OUTPUT, Child, Interrupted
from iwae.runs.run import is_finished
from iwae.sections import RunError
from iwae.signals import handled_by

SECONDS_BETWEEN_LOOKS = 5.0  # at a run that another process works on
_SECONDS_A_TURN = 0.2
_LOCAL_LOCKS = {"nolock", "local_lock=all", "local_lock=flock", "localflock"}  # options of a mount: of NFS, of Lustre


class Work(Protocol):
    """One run under way."""

    def send(self, number: int) -> None:
        """Sends a signal of `signals.SIGNALS`: the run saves a checkpoint and ends."""

    def error(self) -> Exception | None:
        """Of the run, once it has ended; None if there was none."""


class Again(RunError):
    """A run that has to be started once more; the message says why."""


@dataclasses.dataclass
class Job:
    """A run and how it stands with it: waiting, training, elsewhere, done, failed, stopped."""

    experiment: Experiment
    state: str = "waiting"
    reason: str = ""
    looked_at: float = -math.inf
    work: Work | None = None

    def fail(self, error: Exception) -> None:
        self.state, self.reason = "failed", one_line(error)


def one_line(error: Exception) -> str:
    return " ".join(str(error).split())


class Pool:
    """Runs experiments, `workers` at a time, in their order, whatever becomes of the others.

    Finished runs are left as they are and unfinished ones continued. A run that another process works on is looked at
    again later, and one that starts from another run waits for that. After a signal every run saves and ends.

    Args:
        run: of one experiment; a function of a module.
    """

    def __init__(self, experiments: Sequence[Experiment], run: Callable[[Experiment], Any], workers: int = 1):
        self._jobs = [Job(experiment) for experiment in experiments]
        self._by_folder = {os.path.normpath(job.experiment.run_dir): job for job in self._jobs}
        self._run, self._workers = run, workers
        self._signals: list[int] = []
        self._live = table.Live()

    def run(self) -> int:
        """Returns 0, or 1 if a run failed; raises Interrupted after a signal, when all have ended."""
        for folder in dict.fromkeys(job.experiment.results_dir for job in self._jobs):
            if (reason := lock_fails(Path(folder))) is not None:
                print(f"warning: {reason}", file=sys.stderr)
        with handled_by(lambda number, _: self._signals.append(number)):
            try:
                handed_on = 0
                while self._at_work() or (self._open() and not self._signals):
                    for number in self._signals[handed_on:]:
                        handed_on += 1
                        for work in self._at_work():
                            work.send(number)
                    self._start()
                    if self._live.possible:
                        self._draw()
                    ended = self._ended(_SECONDS_A_TURN)
                    for job in self._jobs:
                        if job.work is not None and job.work in ended:
                            self._collect(job, job.work)
            finally:
                for work in self._at_work():  # an error of this program
                    work.send(signal.SIGTERM)
        self._tell_the_end()
        if self._signals:
            raise Interrupted(self._signals[0], told=True)
        return 1 if any(job.state == "failed" for job in self._jobs) else 0

    # ---- where the runs run: on another kind of place these three are others ----

    def _room(self) -> int:
        """How many runs there is room for, those at work among them."""
        return self._workers

    def _begun(self, experiment: Experiment) -> Work:
        return Child(experiment, self._run)

    def _ended(self, seconds: float) -> Collection[Work]:
        """Waits for so long, or until a run has ended: those that have."""
        children = {child.ended: child for child in self._at_work() if isinstance(child, Child)}
        return [children[end] for end in connection.wait(list(children), seconds) if end in children]

    # ---- who is next ----

    def _at_work(self) -> list[Work]:
        return [job.work for job in self._jobs if job.work is not None]

    def _open(self) -> list[Job]:
        return [job for job in self._jobs if job.state in ("waiting", "elsewhere") and job.work is None]

    def _start(self) -> None:
        """Starts runs while there is room for them."""
        room = self._room()
        for job in self._open():
            if len(self._at_work()) >= room or self._signals:
                return
            if time.monotonic() - job.looked_at < SECONDS_BETWEEN_LOOKS or self._is_held_back(job):
                continue
            before, folder = job.state, Folder(job.experiment.run_dir)
            try:
                folder.path.mkdir(parents=True, exist_ok=True)  # opened() would take a new one away again
                with folder.opened():  # cheaper than a process that finds it locked
                    finished = is_finished(folder, job.experiment)
            except Busy:
                self._leave(job)
                continue
            except OSError as error:
                job.fail(RunError(f"{folder}: expected a folder that can be written, got: {error.strerror}"))
            except (ConfigError, RunError) as error:
                job.fail(error)
            else:
                if finished:
                    job.state = "done"
                    self._say(job, "done elsewhere" if before == "elsewhere" else "finished before, left as it is")
                    continue
                job.work, job.state = self._begun(job.experiment), "training"
                self._say(job, "started")
                continue
            self._say(job, f"failed: {job.reason}")

    def _is_held_back(self, job: Job) -> bool:
        """Whether the run that a run starts from is one of these, and not finished. If it failed, so does this one."""
        start = job.experiment.training.start_from
        first = None if start is None else self._by_folder.get(os.path.normpath(start))
        if first is not None and first.state == "failed":
            job.fail(RunError(f"training.start_from: expected the finished run {start}, got one that failed"))
            self._say(job, f"failed: {job.reason}")
        return first is not None and first.state != "done"

    def _leave(self, job: Job) -> None:
        job.looked_at = time.monotonic()
        if job.state != "elsewhere":
            job.state = "elsewhere"
            self._say(job, "another process is working on this run; it is looked at again later")

    def _collect(self, job: Job, work: Work) -> None:
        error, job.work = work.error(), None
        if error is None:
            job.state = "done"
        elif isinstance(error, Busy):
            self._leave(job)
            return
        elif self._signals:
            job.state = "stopped"
        elif isinstance(error, Again):
            job.looked_at, job.state = time.monotonic(), "waiting"
            self._say(job, one_line(error))
            return
        else:
            job.fail(error)
        self._say(job, f"failed: {job.reason}" if job.state == "failed" else job.state)

    # ---- what is told ----

    def _say(self, job: Job, event: str) -> None:
        if not self._live.possible:
            number = self._jobs.index(job) + 1
            print(f"== {number}/{len(self._jobs)} {job.experiment.name}: {event}", flush=True)

    def _draw(self) -> None:
        self._live.draw(self._rows())

    def _rows(self) -> list[tuple[Experiment, str]]:
        return [(job.experiment, job.state) for job in self._jobs]

    def _tell_the_end(self) -> None:
        done = sum(job.state == "done" for job in self._jobs)
        self._live.clear()
        print(*table.lines(self._rows(), ended=True), sep="\n")
        going_on = "; the same command continues" if self._signals else ""
        print(f"== {done} of {len(self._jobs)} runs are done{going_on}", flush=True)
        for job in self._jobs:
            if job.state == "failed":
                output = Path(job.experiment.run_dir, OUTPUT)
                more = f" (see {output})" if output.exists() else ""
                print(f"failed: {job.experiment.name}: {job.reason}{more}", file=sys.stderr)


def lock_fails(folder: Path) -> str | None:
    """Tries whether a file in `folder`, locked once, is seen as locked: None, or why it is not, in one line.

    What other machines see cannot be tried here: the options of the mount tell, on Linux.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=folder, prefix=".lock") as first, open(first.name, "rb+") as second:
            fcntl.flock(first, fcntl.LOCK_EX | fcntl.LOCK_NB)
            with contextlib.suppress(BlockingIOError):
                fcntl.flock(second, fcntl.LOCK_EX | fcntl.LOCK_NB)
                return f"{folder}: locks do not hold on this file system; start one command at a time"
    except OSError as error:
        return f"{folder}: expected a folder whose files can be locked, got: {error.strerror}"
    local = _LOCAL_LOCKS & _mount_options(folder)
    if local:
        return f"{folder}: locks hold on this machine alone (mounted with {min(local)}); start the command on one"
    return None


def _mount_options(folder: Path) -> set[str]:
    """Of the file system of `folder`; none where the system does not list them."""
    found: tuple[int, set[str]] = 0, set()
    with contextlib.suppress(OSError):
        for line in Path("/proc/self/mounts").read_text().splitlines():
            _, place, _, options, *_ = line.split(" ")
            if folder.resolve().is_relative_to(place.encode().decode("unicode_escape")) and len(place) >= found[0]:
                found = len(place), set(options.split(","))
    return found[1]
