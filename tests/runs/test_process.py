"""`iwae.runs.process`: signals while a run saves, and a run in a process of its own whose parent is gone.

What else becomes of such processes is tested with those that start them, in `cli/test_pool.py`.
"""

import contextlib
import multiprocessing
import os
import signal
from pathlib import Path

import pytest

from iwae.config import Experiment
from iwae.runs import process
from iwae.runs.folder import Busy
from iwae.runs.process import Child, Interrupted, Signals
from iwae.sections import RunError


def busy(experiment: Experiment) -> None:
    raise Busy(f"{experiment.run_dir}: another process is working on this run")


def prints(experiment: Experiment) -> None:
    os.write(1, b"from C++\n")
    print("from Python")


def made(tmp_path: Path) -> Experiment:
    experiment = Experiment("run", results_dir=str(tmp_path))
    os.makedirs(experiment.run_dir)
    return experiment


def test_busy_travels_from_the_child(tmp_path: Path) -> None:
    error = Child(made(tmp_path), busy).error()
    assert type(error) is Busy and str(error) == f"{tmp_path}/run: another process is working on this run"


def test_what_a_child_prints_is_added_to_a_file_of_its_run(tmp_path: Path) -> None:
    experiment = made(tmp_path)
    for _ in range(2):
        assert Child(experiment, prints).error() is None
    lines = (tmp_path / "run" / process.OUTPUT).read_text().splitlines()
    assert len(lines) == 6 and lines[0].startswith("== ") and lines[4:] == ["from C++", "from Python"]


def test_a_child_that_cannot_write_is_an_error_of_its_run(tmp_path: Path) -> None:
    error = Child(Experiment("absent", results_dir=str(tmp_path)), prints).error()
    assert isinstance(error, RunError) and "No such file" in str(error)


def test_a_child_whose_parent_is_gone_does_not_fail(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture
) -> None:
    receiver, sender = multiprocessing.Pipe(duplex=False)
    receiver.close()
    monkeypatch.setattr(process, "_print_into", lambda path: None)
    monkeypatch.setattr(os, "setpgid", lambda pid, group: None)
    with sender:
        process._child(made(tmp_path), busy, sender)
    assert capfd.readouterr() == ("", "")


def test_a_signal_that_comes_by_two_ways_is_one(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [100.0]
    monkeypatch.setattr(process.time, "monotonic", lambda: now[0])
    with Signals() as signals, signals.deferred():
        signal.raise_signal(signal.SIGTERM)
        now[0] += 1
        signal.raise_signal(signal.SIGTERM)
        assert signals.received == signal.SIGTERM
        now[0] += process.SECONDS_OF_ONE_SIGNAL
        with pytest.raises(Interrupted) as caught:
            signal.raise_signal(signal.SIGINT)
    assert caught.value.exit_status == 130


def test_signals_that_do_not_cease_are_heard(monkeypatch: pytest.MonkeyPatch) -> None:
    """One a second: the third is later than the first by the time of one signal."""
    now = [100.0]
    monkeypatch.setattr(process.time, "monotonic", lambda: now[0])
    with Signals() as signals, signals.deferred(), pytest.raises(Interrupted):
        for _ in range(3):
            signal.raise_signal(signal.SIGINT)
            now[0] += 1


def test_signals_end_a_run_at_once_after_an_error_while_they_were_deferred() -> None:
    with Signals() as signals:
        with contextlib.suppress(OSError), signals.deferred():
            raise OSError
        with pytest.raises(Interrupted):
            signal.raise_signal(signal.SIGINT)
