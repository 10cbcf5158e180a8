"""`iwae.runs.process`: several runs, each in a process of its own; what becomes of errors, signals and finished runs.

The runs here are stand-ins, put in place by a script that the child process imports as its main module.
"""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from iwae import config
from iwae.config import Experiment

SCRIPT = """
import json, os, signal, sys, time
from pathlib import Path

import iwae
from iwae.cli import running
from iwae.config import ConfigError, Experiment
from iwae.runs.folder import RunError
from iwae.runs.process import Signals


def run(experiment):
    folder = Path(experiment.run_dir)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "pid").write_text(str(os.getpid()))
    what = WHAT[experiment.seed]
    if what == "wait":
        with Signals():
            (folder / "waiting").touch()
            try:
                time.sleep(60)
            finally:
                time.sleep(0.2)
                (folder / "saved").touch()
    elif what == "die":
        os.kill(os.getpid(), signal.SIGKILL)
    elif what is not None:
        raise what


WHAT = {1: None, 2: RunError("no space"), 3: ConfigError("name: taken"), 4: ZeroDivisionError("x"), 5: "die", 6: "wait"}
iwae.run = run

if __name__ == "__main__":
    experiments = [Experiment(f"run{seed}", seed=int(seed), results_dir=sys.argv[1]) for seed in sys.argv[2:]]
    sys.exit(running.run_all(experiments, running.run_in_child))
"""


@pytest.fixture
def start(tmp_path: Path):
    (tmp_path / "script.py").write_text(SCRIPT)
    root = str(Path(__file__).parents[1])
    processes = []

    def start(*seeds: int) -> subprocess.Popen:
        command = [sys.executable, str(tmp_path / "script.py"), str(tmp_path / "results"), *map(str, seeds)]
        environment = {**os.environ, "PYTHONPATH": root}
        process = subprocess.Popen(
            command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
        )
        processes.append(process)
        return process

    yield start
    for process in processes:
        process.kill()
        process.communicate()


def wait_for(path: Path, seconds: float = 30) -> None:
    end = time.monotonic() + seconds
    while not path.exists():
        assert time.monotonic() < end, f"{path.name} did not appear"
        time.sleep(0.05)


def test_each_run_has_a_process_and_its_error_is_told(start, tmp_path: Path) -> None:
    process = start(1, 2, 3, 4, 5, 1)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 1
    assert out.splitlines()[-1] == "== 2 of 6 runs are done"
    assert [line for line in err.splitlines() if line.startswith("failed")] == [
        "failed: run2: no space",
        "failed: run3: name: taken",
        "failed: run4: ZeroDivisionError: x",
        f"failed: run5: {tmp_path / 'results' / 'run5'}: the process of the run died (signal SIGKILL)",
    ]
    pids = {(tmp_path / "results" / f"run{seed}" / "pid").read_text() for seed in (1, 2, 3, 4, 5)}
    assert len(pids) == 5 and str(process.pid) not in pids


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_reaches_the_run_once_and_ends_all(start, tmp_path: Path, number: int) -> None:
    """To the whole group, as a terminal sends it: the run still ends in its own time, and the next one never starts."""
    process = start(6, 1)
    wait_for(tmp_path / "results" / "run6" / "waiting")
    child = int((tmp_path / "results" / "run6" / "pid").read_text())
    assert os.getpgid(child) != os.getpgid(process.pid), "the terminal's signal would come a second time"
    os.killpg(process.pid, number)
    process.wait(timeout=30)
    assert process.returncode != 0
    assert (tmp_path / "results" / "run6" / "saved").exists()
    assert not (tmp_path / "results" / "run1").exists()


def test_a_run_does_not_outlive_its_parent(start, tmp_path: Path) -> None:
    process = start(6)
    wait_for(tmp_path / "results" / "run6" / "waiting")
    process.kill()
    wait_for(tmp_path / "results" / "run6" / "saved")


def test_a_finished_run_is_left_as_it_is(start, tmp_path: Path) -> None:
    folder = tmp_path / "results" / "run1"
    (folder / "plots").mkdir(parents=True)
    (folder / "plots" / "active_units.png").touch()
    experiment = Experiment("run1", seed=1, results_dir=str(tmp_path / "results"))
    (folder / "experiment.json").write_text(config.to_json(experiment))
    (folder / "model.weights.h5").touch()
    (folder / "evaluation.json").write_text(
        '{"test": {"nll": 9.5, "nll_stderr": 0.1, "examples": 3, "k": 5, "active_units": [1]}}'
    )
    out, _ = start(1).communicate(timeout=60)
    assert "run1: finished before, left as it is" in out and not (folder / "pid").exists()
    (folder / "evaluation.json").unlink()
    start(1).communicate(timeout=60)
    assert (folder / "pid").exists()


def test_other_parameters_in_the_folder_of_a_finished_run_are_refused(start, tmp_path: Path) -> None:
    folder = tmp_path / "results" / "run1"
    folder.mkdir(parents=True)
    (folder / "experiment.json").write_text(config.to_json(Experiment("run1", seed=2)))
    (folder / "model.weights.h5").touch()
    process = start(1)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 1 and "holds a run with other parameters (seed was 2, is 1)" in err
