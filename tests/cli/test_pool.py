"""`iwae.cli.pool`: runs side by side, shared out by their locks; failures, signals, the death of the driver.

The runs are stand-ins, see `programs/stand_ins.py`; one slow test trains.
"""

import contextlib
import fcntl
import json
import os
import pty
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import pytest

from iwae import config
from iwae.cli import pool, table
from iwae.config import Data, Experiment, Training
from iwae.runs import log
from iwae.runs.folder import Folder

ROOT = Path(__file__).parents[2]
Start = Callable[..., subprocess.Popen]


@pytest.fixture
def results(tmp_path: Path) -> Path:
    return tmp_path / "results"


@pytest.fixture
def start(results: Path) -> Iterator[Start]:
    processes: list[subprocess.Popen] = []

    def start(workers: int, *words: str, **options: Any) -> subprocess.Popen:
        command = [sys.executable, str(ROOT / "tests/programs/stand_ins.py"), str(results), str(workers), *words]
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE} | options
        environment = {**os.environ, "PYTHONPATH": str(ROOT)}
        processes.append(subprocess.Popen(command, env=environment, text=True, start_new_session=True, **pipes))
        return processes[-1]

    yield start
    for process in processes:
        process.kill()
        process.communicate()


def wait_for(condition: Callable[[], object], seconds: float = 30) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not come about"
        time.sleep(0.05)


def started(results: Path) -> list[str]:
    return (results / "started").read_text().split()


def is_alive(results: Path, name: str) -> bool:
    with contextlib.suppress(ProcessLookupError):
        os.kill(int((results / name / "pid").read_text()), 0)
        return True
    return False


def test_failures_stop_no_other_run_and_are_told_at_the_end(start: Start, results: Path) -> None:
    names = ("a-ok", "b-full", "c-taken", "d-fault", "e-die", "f-ok")
    process = start(2, *names)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 1
    assert sorted(started(results)) == sorted(names)
    lines = out.splitlines()
    assert lines[-1] == "== 2 of 6 runs are done"
    assert [line.split()[:2] for line in lines[-7:-1]] == [
        [name, "done" if name.endswith("ok") else "failed"] for name in names
    ]
    assert "== 4/6 d-fault: failed: ZeroDivisionError: x" in lines
    at = {name: results / name for name in names}
    assert err.splitlines() == [
        f"failed: b-full: no space (see {at['b-full']}/run.log)",
        f"failed: c-taken: name: taken (see {at['c-taken']}/run.log)",
        f"failed: d-fault: ZeroDivisionError: x (see {at['d-fault']}/run.log)",
        f"failed: e-die: {at['e-die']}: the process of the run died (signal SIGKILL) (see {at['e-die']}/run.log)",
    ]
    assert len({(folder / "pid").read_text() for folder in at.values()} | {str(process.pid)}) == 7
    assert "from a-ok" in (at["a-ok"] / "run.log").read_text()
    assert "Traceback" in (at["d-fault"] / "run.log").read_text()


def test_in_order_and_not_more_at_a_time_than_workers(start: Start, results: Path) -> None:
    process = start(1, "c-ok", "a-ok", "b-ok")
    out, _ = process.communicate(timeout=60)
    assert process.returncode == 0 and started(results) == ["c-ok", "a-ok", "b-ok"]
    events = [line.split(": ")[1] for line in out.splitlines() if re.match("== ./3 ", line)]
    assert events == ["started", "done"] * 3


def test_two_runs_at_a_time(start: Start, results: Path) -> None:
    process = start(2, "a-wait", "b-wait", "c-ok")
    wait_for(lambda: (results / "a-wait/waiting").exists() and (results / "b-wait/waiting").exists())
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=30)
    assert "c-ok" not in started(results)


def test_a_run_waits_for_the_one_it_starts_from(start: Start, results: Path) -> None:
    out, err = start(2, "a-ok@b-nap", "b-nap", "c-ok@d-full", "d-full").communicate(timeout=60)
    assert started(results).index("b-nap") < started(results).index("a-ok")
    assert out.index("b-nap: done") < out.index("a-ok: started")
    assert "c-ok" not in started(results)
    assert "failed: c-ok: training.start_from: expected the finished run" in err


def test_a_locked_run_is_looked_at_again(start: Start, results: Path) -> None:
    (results / "a-ok").mkdir(parents=True)
    with open(results / "a-ok/.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        process = start(1, "a-ok", "b-ok")
        wait_for((results / "b-ok/done").exists)
        assert started(results) == ["b-ok"] and process.poll() is None
    out, _ = process.communicate(timeout=30)
    assert process.returncode == 0 and started(results) == ["b-ok", "a-ok"]
    assert out.count("another process is working on this run") == 1


def test_two_drivers_share_the_runs(start: Start, results: Path) -> None:
    names = [f"{letter}-nap" for letter in "abcd"]
    drivers = [start(1, *names) for _ in range(2)]
    outs = [driver.communicate(timeout=60)[0] for driver in drivers]
    assert [driver.returncode for driver in drivers] == [0, 0]
    assert sorted(started(results)) == names
    assert all("4 of 4 runs are done" in out for out in outs)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("to_all", [False, True], ids=["group", "children too"])
def test_after_a_signal_every_run_saves_and_the_same_command_continues(
    start: Start, results: Path, number: int, to_all: bool
) -> None:
    """To the driver's group, as a terminal sends it, or to every process, as SLURM does."""
    names = ("a-wait", "b-wait", "c-ok")
    process = start(2, *names)
    wait_for(lambda: all((results / name / "waiting").exists() for name in names[:2]))
    children = [int((results / name / "pid").read_text()) for name in names[:2]]
    assert os.getpgid(process.pid) not in map(os.getpgid, children), "a terminal's signal would come a second time"
    os.killpg(process.pid, number)
    for child in children if to_all else []:
        os.kill(child, number)
    out, err = process.communicate(timeout=30)
    assert process.returncode == 128 + number and err == ""
    assert out.splitlines()[-1] == "== 0 of 3 runs are done; the same command continues"
    assert all((results / name / "saved").exists() for name in names[:2]) and "c-ok" not in started(results)
    assert start(2, *names).wait(timeout=60) == 0


def test_runs_end_quietly_with_a_driver_that_is_killed(start: Start, results: Path) -> None:
    names = ("a-wait", "b-wait")
    process = start(2, *names)
    wait_for(lambda: all((results / name / "waiting").exists() for name in names))
    process.kill()
    _, err = process.communicate(timeout=10)  # its pipe closes when the last child has ended
    assert err == "" and all((results / name / "saved").exists() for name in names)
    wait_for(lambda: not any(is_alive(results, name) for name in names), 5)
    assert "Traceback" not in "".join((results / name / "run.log").read_text() for name in names)
    assert start(2, *names).wait(timeout=60) == 0


def test_runs_go_on_when_nobody_reads_the_output(start: Start, results: Path) -> None:
    reader, writer = os.pipe()
    process = start(1, "a-nap", "b-ok", stdout=writer)
    os.close(reader)
    os.close(writer)
    process.communicate(timeout=60)
    assert (results / "a-nap/done").exists() and (results / "b-ok/done").exists()


def finished(results: Path, experiment: Experiment) -> Path:
    folder = Path(experiment.run_dir)
    (folder / "plots").mkdir(parents=True)
    (folder / "plots/active_units.png").touch()
    (folder / "experiment.json").write_text(json.dumps(config.to_dict(experiment)))
    (folder / "model.weights.h5").touch()
    measured = {"nll": 9.5, "nll_stderr": 0.1, "examples": 3, "k": 5000, "active_units": [1]}
    (folder / "evaluation.json").write_text(json.dumps({"test": measured}))
    return folder


def test_a_finished_run_is_left_as_it_is_without_a_process(start: Start, results: Path) -> None:
    folder = finished(results, Experiment("a-ok", results_dir=str(results)))
    out, _ = start(1, "a-ok").communicate(timeout=60)
    assert "a-ok: finished before, left as it is" in out and not (folder / "pid").exists()
    (folder / "evaluation.json").unlink()
    start(1, "a-ok").communicate(timeout=60)
    assert (folder / "pid").exists()


def test_other_parameters_in_the_folder_of_a_finished_run_are_refused(start: Start, results: Path) -> None:
    finished(results, Experiment("a-ok", results_dir=str(results), seed=2))
    process = start(1, "a-ok")
    _, err = process.communicate(timeout=60)
    assert process.returncode == 1 and "holds a run with other parameters (seed was 2, is 123)" in err


def test_a_finished_run_of_a_file_that_changed_is_told(
    results: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    np.savez(tmp_path / "x.npz", x_train=np.eye(4), x_test=np.eye(4))
    data = Data(name=str(tmp_path / "x.npz"), batch_size=1)
    experiment = Experiment("a-ok", results_dir=str(results), data=data)
    folder = finished(results, experiment)
    values = config.to_dict(experiment) | {"environment": {"dataset_fingerprint": "another"}}
    (folder / "experiment.json").write_text(json.dumps(values))
    assert pool.Pool([experiment], print).run() == 1
    assert "expected the data that the run was trained on" in capsys.readouterr().err


def test_locks_are_tried(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert pool.lock_fails(tmp_path / "new") is None
    monkeypatch.setattr(pool, "_mount_options", lambda folder: {"rw", "nolock"})
    assert pool.lock_fails(tmp_path) == (
        f"{tmp_path}: locks hold on this machine alone (mounted with nolock); start the command on one"
    )
    monkeypatch.setattr(fcntl, "flock", lambda file, how: None)
    assert "locks do not hold" in str(pool.lock_fails(tmp_path))


def test_a_run_that_has_to_be_started_again_is(
    results: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    monkeypatch.setattr(pool, "SECONDS_BETWEEN_LOOKS", 0.1)
    ends: list[Exception | None] = [pool.Again("its node\nwent"), pool.Busy("locked"), pool.Again("x"), None]

    class Scripted(pool.Pool):
        def _begun(self, experiment: Experiment) -> pool.Work:
            work = mock.Mock()
            work.error.return_value = ends.pop(0)
            return work

        def _ended(self, seconds: float) -> list[pool.Work]:
            return self._at_work()

    assert Scripted([Experiment("a", results_dir=str(results))], print).run() == 0
    events = [line.split(": ")[1] for line in capsys.readouterr().out.splitlines() if line.startswith("== 1/1 ")]
    assert events[:2] == ["started", "its node went"] and events.count("started") == 4 and events[-1] == "done"


# ---- the table ----


def with_log(results: Path, name: str, epochs: int, bound: float = -98.5) -> Experiment:
    experiment = Experiment(name, results_dir=str(results), training=Training(epochs=200, schedule="constant"))
    Path(experiment.run_dir).mkdir(parents=True)
    rows = "".join(f"{epoch},9,1e-3,-99.0,{bound},60.0,12345.6\n" for epoch in range(1, epochs + 1))
    (Path(experiment.run_dir) / "log.csv").write_text(",".join(log.COLUMNS) + "\n" + rows)
    return experiment


def test_the_table_fits_80_columns(results: Path) -> None:
    long = "mnist_iwae_k50_2layers_burda_sampled_stages5_seed124"
    runs = [
        (with_log(results, "one", 100), "training"),
        (with_log(results, long, 200, float("nan")), "training"),
        (Experiment("new"), "waiting"),
    ]
    lines = table.lines(runs)
    assert max(map(len, lines)) < 80
    assert [line.split() for line in lines] == [
        ["run", "epoch", "bound", "images/s", "left"],
        ["one", "training", "100/200", "-98.50", "12,346", "1h40m"],
        ["mnist_iwae_k50...stages5_seed124", "measuring", "200/200", "-99.00", "12,346"],
        ["new", "waiting", "0/3280"],
    ]


def test_at_the_end_the_table_has_what_was_measured(results: Path) -> None:
    run = with_log(results, "one", 200)
    entries = {"nll": 86.934, "nll_stderr": 0.244, "examples": 10, "k": 5, "active_units": [3]}
    Folder(run.run_dir).write_evaluation({"test": entries})
    lines = table.lines([(run, "done"), (Experiment("new"), "failed")], ended=True)
    assert [line.split() for line in lines] == [
        ["run", "epoch", "bound", "NLL", "+-"],
        ["one", "done", "200/200", "-98.50", "86.93", "0.24"],
        ["new", "failed", "0/3280"],
    ]


def test_where_there_are_several_nodes_the_table_says_which(results: Path) -> None:
    runs = [(with_log(results, f"run{i}", 100), "training") for i in range(3)]

    def on(number: int, **environment: Any) -> None:
        Folder(runs[number][0].run_dir).write_experiment(runs[number][0], environment)

    on(0, node="first.example.org")
    on(1, node="first", stretches=[{"from_update": 9, "threads": 1}])
    assert "first" not in "".join(table.lines(runs))
    on(1, node="first", stretches=[{"from_update": 9, "node": "a-very-long-name"}, {"from_update": 10, "threads": 1}])
    lines = table.lines(runs)
    assert max(map(len, lines)) < 80
    assert [line.split()[:3] for line in lines] == [
        ["run", "node", "epoch"],
        ["run0", "first", "training"],
        ["run1", "a-ve...-name", "training"],
        ["run2", "training", "100/200"],
    ]


def test_the_table_is_not_drawn_all_the_time(results: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    live, clock, drawn = table.Live(), [0.0], []

    def lines(*_: Any) -> list[str]:
        clock[0] += 3
        return drawn

    monkeypatch.setattr(table, "lines", lines)
    monkeypatch.setattr(table.time, "monotonic", lambda: clock[0])
    for _ in range(100):
        live.draw([])
        clock[0] += 0.5
    assert clock[0] == 100 * 0.5 + 2 * 3


def test_a_table_that_is_too_high_shows_what_works(results: Path) -> None:
    runs = [(Experiment(f"run{i}"), "training" if i == 7 else "waiting") for i in range(9)]
    lines = table.lines(runs, height=5)
    assert len(lines) == 5 and lines[1].startswith("run7 ") and lines[-1] == "8 waiting, 1 training"


def test_the_table_is_redrawn_on_a_terminal(start: Start, results: Path) -> None:
    ours, theirs = pty.openpty()
    process = start(1, "a-nap", "b-full", stdout=theirs)
    os.close(theirs)
    seen = b""
    with contextlib.suppress(OSError):  # its other end is closed
        while part := os.read(ours, 4096):
            seen += part
    os.close(ours)
    _, err = process.communicate(timeout=30)
    text = seen.decode().replace("\r", "")
    assert "\x1b[3A\x1b[J" in text and "== 1/2" not in text
    assert all(re.search(rf"^a-nap +{state} ", text, re.MULTILINE) for state in ("training", "done"))
    assert text.endswith("== 1 of 2 runs are done\n") and err.startswith("failed: b-full: no space")


# ---- real runs ----


@pytest.mark.slow
def test_runs_side_by_side_give_the_numbers_of_one_after_the_other(tmp_path: Path) -> None:
    words = (
        "--grid seed 1 2 --model.k 5 --training.epochs 2 --evaluation.k 20 --evaluation.examples 100 "
        "--tasks train evaluate --threads-per-run 1"
    ).split()

    def numbers(name: str, workers: str) -> list[Any]:
        command = [sys.executable, str(ROOT / "experiments.py"), *words, "--results-dir", name, "--workers", workers]
        subprocess.run(command, cwd=tmp_path, env={**os.environ, "PYTHONPATH": str(ROOT)}, check=True, timeout=300)
        found: list[Any] = []
        for folder in sorted((tmp_path / name).iterdir()):
            assert json.loads((folder / "experiment.json").read_text())["environment"]["threads"] == 1
            rows = log.read(folder / "log.csv")
            found.append(
                [{key: row[key] for key in row if key not in ("seconds", "images_per_second")} for row in rows]
            )
            found.append(json.loads((folder / "evaluation.json").read_text())["test"])
        return [
            {key: one[key] for key in one if "seconds" not in key} if isinstance(one, dict) else one for one in found
        ]

    together = numbers("together", "2")
    assert len(together) == 4 and together == numbers("alone", "1")
