"""`iwae.cli.cluster`: runs on a Ray cluster of two nodes, both on this machine, which are killed in all ways.

Most runs are stand-ins, see `programs/stand_ins.py`; the last test trains.
"""

import importlib.util
import itertools
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import types
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import tiny
from test_pool import ROOT, Start, is_alive, started, wait_for

from iwae.cli import command_line, running
from iwae.config import ConfigError
from iwae.runs import log

SECONDS = 600  # for what takes seconds on an idle machine
needs_ray = pytest.mark.skipif(importlib.util.find_spec("ray") is None, reason="ray is not here: pip install ray")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("--cluster here", "cluster: expected the address of a Ray cluster, HOST:PORT or auto, got 'here'"),
        ("--cluster", "cluster: expected one value, got none"),
        ("--cluster auto --workers 2", "workers: expected either --workers or --cluster, got both"),
        ("--gpus-per-run 0.1", "gpus_per_run: expected --cluster ADDRESS beside it, got none"),
        (
            "--cluster auto --gpus-per-run 1.5",
            "gpus_per_run: expected a number from 0.01 to 1 or an integer, got '1.5'",
        ),
        ("--cluster auto --cpus-per-run 0", "cpus_per_run: expected a number from 0.01 to 1 or an integer, got '0'"),
        (
            "--cluster auto --cpus-per-run nan",
            "cpus_per_run: expected a number from 0.01 to 1 or an integer, got 'nan'",
        ),
    ],
)
def test_a_wrong_cluster_is_refused(words: str, message: str, capsys: pytest.CaptureFixture) -> None:
    with pytest.raises(SystemExit, match="^2$"):
        command_line.main(lambda: tiny.TINY, words.split())
    assert capsys.readouterr().err == f"error: {message}\n"


def test_without_ray_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    monkeypatch.delitem(sys.modules, "iwae.cli.cluster", raising=False)
    assert running.execute([tiny.TINY], cluster="auto") == 2
    line = "error: cluster: expected the package ray, found none; pip install ray\n"
    assert capsys.readouterr().err == line


@pytest.fixture
def cluster_module(monkeypatch: pytest.MonkeyPatch) -> Any:
    """The module, with an empty one for Ray."""
    monkeypatch.setitem(sys.modules, "ray", types.ModuleType("ray"))
    monkeypatch.delitem(sys.modules, "iwae.cli.cluster", raising=False)
    yield importlib.import_module("iwae.cli.cluster")
    sys.modules.pop("iwae.cli.cluster")


def test_the_longest_runs_come_first_with_those_that_start_from_them(cluster_module: Any) -> None:
    few, many, deep, first, next = (
        tiny.experiment("r", name=name, **changes)
        for name, changes in {
            "few": {"model.k": 1},
            "many": {"model.k": 50},
            "deep": {"model.k": 50, "model.latent_units": (2, 2), "model.hidden_units": ((16,), (16,))},
            "first": {"model.k": 40},
            "next": {"model.k": 40, "training.start_from": "r/./first"},
        }.items()
    )
    assert cluster_module.longest_first([few, next, many, deep, first]) == [first, deep, many, next, few]
    short = tiny.experiment("r", name="short", **{"model.k": 50, "training.epochs": 4, "training.schedule": "constant"})
    long = tiny.experiment("r", name="long", **{"model.k": 5, "training.epochs": 40, "training.schedule": "constant"})
    assert cluster_module.longest_first([short, long]) == [long, short]


@pytest.mark.parametrize(
    ("there", "need", "times"), [(8, 2, 4), (7, 2, 3), (1, 2, 0), (2, 0.1, 20), (2, 0.6, 2), (0, 0.5, 0)]
)
def test_a_part_of_a_gpu_is_of_one_gpu(cluster_module: Any, there: float, need: float, times: int) -> None:
    assert cluster_module._times(there, need) == times


def test_a_run_that_may_be_started_again_must_not_overwrite(cluster_module: Any) -> None:
    with pytest.raises(ConfigError, match="^overwrite: expected False on a cluster"):
        cluster_module.ClusterPool([tiny.experiment("r", overwrite=True)], print, "auto", 1)


# ---- with Ray ----


@pytest.fixture
def results(tmp_path: Path) -> Path:
    return tmp_path / "results"


@pytest.fixture(scope="module")
def nodes() -> Iterator[Any]:
    """A cluster of a head, on which nothing runs, and two nodes with a core each, closed to others by a token.

    Each has an address of its own, and a command belongs to the head. Not 127.0.0.1, for which Ray takes another one.
    """
    place = tempfile.mkdtemp(prefix="iwae-ray-")  # short: the names of sockets are
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_TMPDIR", place)
        (Path(place) / "ray").mkdir()
        patch.setenv("RAY_AUTH_MODE", "token")
        patch.setenv("RAY_AUTH_TOKEN", os.urandom(24).hex())
        patch.setenv("RAY_USAGE_STATS_ENABLED", "0")
        patch.setenv("RAY_worker_niceness", "0")
        patch.setenv("PYTHONPATH", str(ROOT))
        from ray.cluster_utils import Cluster

        head = {"node_ip_address": "127.0.0.2", "num_cpus": 0, "include_dashboard": False}
        cluster = Cluster(True, head_node_args=head)
        addresses = (f"127.0.0.{number}" for number in itertools.count(3))
        cluster.add = lambda: cluster.add_node(num_cpus=1, node_ip_address=next(addresses))
        for _ in range(2):
            cluster.add()
        yield cluster
        cluster.shutdown()
    shutil.rmtree(place, ignore_errors=True)


@pytest.fixture
def start(results: Path) -> Iterator[Start]:
    processes: list[subprocess.Popen] = []

    def start(*command: str | Path) -> subprocess.Popen:
        pipes: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
        processes.append(subprocess.Popen([sys.executable, *map(str, command)], start_new_session=True, **pipes))
        return processes[-1]

    yield start
    for process in processes:
        process.kill()
        process.communicate()


@pytest.fixture
def stand_ins(start: Start, results: Path, nodes: Any) -> Start:
    return lambda *names: start(ROOT / "tests/programs/stand_ins.py", results, nodes.address, *names)


def waits(results: Path, *names: str) -> Callable[[], bool]:
    return lambda: all((results / name / "waiting").exists() for name in names)


def pid(results: Path, name: str) -> int:
    return int((results / name / "pid").read_text())


def kill_node_of(process: int) -> None:
    parent = int(Path(f"/proc/{process}/stat").read_text().rpartition(") ")[2].split()[1])
    assert "raylet" in Path(f"/proc/{parent}/cmdline").read_text()
    os.kill(parent, signal.SIGKILL)
    os.waitpid(parent, 0)  # for its workers, who look whether it is there, a zombie is


@needs_ray
@pytest.mark.slow
def test_a_run_whose_process_dies_or_is_told_to_stop_is_started_again(stand_ins: Start, results: Path) -> None:
    process = stand_ins("a-hold", "b-hold", "c-ok@a-hold", "d-fault")
    wait_for(waits(results, "a-hold", "b-hold"), SECONDS)
    os.kill(pid(results, "a-hold"), signal.SIGKILL)
    os.kill(pid(results, "b-hold"), signal.SIGTERM)
    out, err = process.communicate(timeout=SECONDS)
    assert "== 3 of 4 runs are done" in out
    assert err == f"failed: d-fault: ZeroDivisionError: x (see {results}/d-fault/run.log)\n"
    assert process.returncode == 1
    assert sorted(started(results)) == ["a-hold", "a-hold", "b-hold", "b-hold", "c-ok", "d-fault"]
    assert out.index("a-hold: done") < out.index("c-ok: started")
    assert (results / "b-hold/saved").exists() and not (results / "a-hold/saved").exists()
    assert out.count("b-hold: stopped by a signal on its node; it is started again") == 1
    assert "from c-ok" in (results / "c-ok/run.log").read_text()


@needs_ray
@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_after_a_signal_every_run_saves_and_the_same_command_continues(
    stand_ins: Start, results: Path, number: int
) -> None:
    names = ("a-wait", "b-wait", "c-ok")
    process = stand_ins(*names)
    wait_for(waits(results, *names[:2]), SECONDS)
    os.killpg(process.pid, number)
    out, err = process.communicate(timeout=SECONDS)
    assert err == "" and process.returncode == 128 + number
    assert out.splitlines()[-1] == "== 0 of 3 runs are done; the same command continues"
    assert all((results / name / "saved").exists() for name in names[:2]) and "c-ok" not in started(results)
    again = stand_ins(*names)
    assert again.communicate(timeout=SECONDS)[1] == "" and again.returncode == 0


@needs_ray
@pytest.mark.slow
def test_runs_end_with_a_command_that_is_killed_and_the_same_continues(stand_ins: Start, results: Path) -> None:
    names = ("a-hold", "b-hold", "c-ok")
    process = stand_ins(*names)
    wait_for(waits(results, *names[:2]), SECONDS)
    process.kill()
    wait_for(lambda: not any(is_alive(results, name) for name in names[:2]), SECONDS)
    assert not any((results / name / "saved").exists() for name in names)  # Ray kills them
    again = stand_ins(*names)
    assert again.communicate(timeout=SECONDS)[1] == "" and again.returncode == 0
    assert sorted(started(results)) == ["a-hold", "a-hold", "b-hold", "b-hold", "c-ok"]


@needs_ray
@pytest.mark.slow
def test_a_run_whose_node_dies_is_started_on_another(stand_ins: Start, results: Path, nodes: Any) -> None:
    process = stand_ins("a-hold")
    wait_for(waits(results, "a-hold"), SECONDS)
    kill_node_of(pid(results, "a-hold"))
    out, err = process.communicate(timeout=SECONDS)
    assert err == "" and process.returncode == 0 and started(results) == ["a-hold"] * 2
    nodes.add()


@needs_ray
@pytest.mark.slow
def test_what_no_node_can_do_is_refused(nodes: Any, capfd: pytest.CaptureFixture, results: Path) -> None:
    command = [sys.executable, ROOT / "experiments.py", "--results-dir", results, "--cluster", nodes.address]
    for words, expected in (("--cpus-per-run 2", "2 CPUs and 0 GPUs"), ("--gpus-per-run 0.1", "1 CPUs and 0.1 GPUs")):
        assert subprocess.run([*command, *words.split()], timeout=SECONDS).returncode == 2
        found = "0 CPUs and 0 GPUs, 1 CPUs and 0 GPUs"
        assert capfd.readouterr().err == f"error: cluster: expected a node with {expected}, got {found}\n"
    assert not results.exists()


@needs_ray
@pytest.mark.slow
def test_killed_and_continued_runs_give_the_numbers_of_one_after_the_other(
    start: Start, nodes: Any, results: Path
) -> None:
    words = (
        "--grid seed 1 2 --model.k 5 --training.epochs 6 --training.checkpoint-seconds 0.1 --evaluation.k 20 "
        "--training.updates-per-call 8 --evaluation.examples 100 --tasks train evaluate --threads-per-run 1"
    ).split()
    command = (ROOT / "experiments.py", *words, "--results-dir")

    def processes(folder: Path) -> list[int]:
        return [int(number) for number in re.findall(r"^==.* process (\d+)$", (folder / "run.log").read_text(), re.M)]

    def runs(count: int) -> list[Path]:
        return [folder for folder in sorted(results.glob("*")) if len(list(folder.glob("checkpoints/*"))) >= count]

    process = start(*command, results, "--cluster", nodes.address)
    wait_for(lambda: len(runs(1)) == 2, SECONDS)
    first, second = runs(1)
    os.kill(processes(first)[-1], signal.SIGKILL)
    kill_node_of(processes(second)[-1])
    wait_for(lambda: max(len(processes(folder)) for folder in (first, second)) >= 2, SECONDS)
    os.killpg(process.pid, signal.SIGINT)
    out, err = process.communicate(timeout=SECONDS)
    assert process.returncode == 130 and "the same command continues" in out and err == ""
    again = start(*command, results, "--cluster", nodes.address)
    assert again.communicate(timeout=SECONDS)[1] == "" and again.returncode == 0
    alone = start(*command, results.with_name("alone"), "--workers", "1")
    assert alone.wait(timeout=SECONDS) == 0
    for folder in (first, second):
        other = results.with_name("alone") / folder.name
        environment = json.loads((folder / "experiment.json").read_text())["environment"]
        changed = set().union(*environment.get("stretches", []))
        assert environment["threads"] == 1 and environment["node"]
        assert changed <= {"from_update", "git_commit"}  # someone may commit meanwhile
        logs = [log.read(path / "log.csv") for path in (folder, other)]
        for row in (*logs[0], *logs[1]):
            del row["seconds"], row["images_per_second"]
        assert len(logs[0]) == 6 and logs[0] == logs[1]
        sums = [(path / "model.weights.h5.sha256").read_text() for path in (folder, other)]
        assert sums[0] == sums[1]
