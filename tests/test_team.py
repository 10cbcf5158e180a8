"""Several processes, named by TF_CONFIG, that train and evaluate one model: the same run as in one process."""

import contextlib
import io
import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
from tiny import experiment

import iwae
from iwae import config, device, team
from iwae.device import members
from iwae.runs import checkpoints
from iwae.team import Team

CHANGES = {"training.shares": 4, "training.updates_per_call": 2, "evaluation.examples": 300}  # several blocks, batches
PROGRAM = f"""
import json, sys
sys.path.insert(0, {str(Path(__file__).parent)!r})
from iwae.cli import command_line
from tiny import experiment
folder, changes, *words = sys.argv[1:]
command_line.main(lambda: experiment(folder, **json.loads(changes)), words)
"""


def start(folder, words=(), processes=2, of_second=(), **changes):
    """The same command for each of the processes, which have begun."""
    sockets = [socket.socket() for _ in range(processes)]
    for free in sockets:
        free.bind(("127.0.0.1", 0))
    cluster = {"worker": [f"127.0.0.1:{free.getsockname()[1]}" for free in sockets]}
    for free in sockets:
        free.close()
    command = [sys.executable, "-c", PROGRAM, str(folder), json.dumps({**CHANGES, **changes}), *words]
    return [
        subprocess.Popen(
            command + list(of_second if i == 1 else ()), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
            env={name: value for name, value in os.environ.items() if name != "TF_CPP_MIN_LOG_LEVEL"}
            | {"TF_CONFIG": json.dumps({"cluster": cluster, "task": {"type": "worker", "index": i}})},
        )
        for i in range(processes)
    ]  # fmt: skip


def ended(processes):
    """Exit status and standard error of each, which must end by itself."""
    try:
        errors = [process.communicate(timeout=240)[1] for process in processes]
    finally:
        for process in processes:
            process.kill()
    return [(process.returncode, error) for process, error in zip(processes, errors, strict=True)]


def assert_same_run(one, other):
    """All that is random or computed, to the last bit; times differ."""
    (first, _), (second, _) = (checkpoints.load(Path(run, "tiny", "checkpoints")) for run in (one, other))
    assert first.keys() == second.keys()
    for name in first.keys() - {"log"}:
        np.testing.assert_array_equal(first[name], second[name], err_msg=name)
    for name in ("evaluation.json", "model.weights.h5.sha256"):
        assert Path(one, "tiny", name).read_text() == Path(other, "tiny", name).read_text()


def wait_for_updates(processes, folder, updates=2):
    for _ in range(2400):
        if any(process.poll() is not None for process in processes):
            break
        if checkpoints.latest_update(Path(folder, "tiny", "checkpoints")) >= updates:
            return
        time.sleep(0.1)
    raise AssertionError(ended(processes))


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    folder = tmp_path_factory.mktemp("alone")
    iwae.run(experiment(folder, **CHANGES))
    return folder


@pytest.mark.slow
def test_two_processes_make_the_run_of_one(alone, tmp_path):
    (first, _), (second, told) = ended(start(tmp_path))
    assert (first, second) == (0, 0), told
    assert re.search(r"^process 1 of 2, counted from 0 \(127\.0\.0\.1:\d+\), waits for the others", told, re.MULTILINE)
    assert_same_run(alone, tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("here", [0, 1])
def test_ctrl_c_ends_a_process_that_waits_for_the_others(tmp_path, here):
    processes = start(tmp_path)
    processes[1 - here].kill()
    told = next((line for line in processes[here].stderr if "waits for the others" in line), "")
    address = re.search(r"\((.+):(\d+)\)", told)
    assert address, processes[here].wait()
    host, port = address.groups()
    for _ in range(600):
        with contextlib.suppress(OSError), socket.create_connection((host, int(port))):
            break
        time.sleep(0.1)
    processes[here].send_signal(signal.SIGINT)
    assert ended(processes)[here][0] == -signal.SIGINT


@pytest.mark.slow
@pytest.mark.parametrize("gone", [0, 1])
def test_a_killed_process_ends_all_in_one_line_and_the_same_command_continues(tmp_path, gone):
    longer = {"training.epochs": 15, "training.schedule": "constant", "training.checkpoint_seconds": 0.01}
    iwae.run(experiment(tmp_path / "alone", **CHANGES, **longer))
    processes = start(tmp_path, **longer)
    wait_for_updates(processes, tmp_path)
    processes[gone].kill()
    results = ended(processes)
    status, told = results[1 - gone]
    assert results[gone][0] == -signal.SIGKILL and status == 1
    errors = [line for line in told.splitlines() if line.startswith("error: ")]
    assert errors == [
        f"error: TF_CONFIG: expected 2 processes to the end, but another one than this, number {1 - gone}, is gone; "
        "the same command for each continues"
    ]
    assert "Traceback" not in told
    done = checkpoints.latest_update(tmp_path / "tiny" / "checkpoints")
    assert 0 < done < 15 * 13
    assert [status for status, _ in ended(start(tmp_path, **longer))] == [0, 0]
    assert_same_run(tmp_path / "alone", tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("asked", [0, 1])
def test_a_signal_to_any_process_saves_the_run(tmp_path, asked):
    longer = {"training.epochs": 2000, "training.schedule": "constant"}
    processes = start(tmp_path, **longer)
    wait_for_updates(processes, tmp_path)
    before = checkpoints.latest_update(tmp_path / "tiny" / "checkpoints")
    processes[asked].send_signal(signal.SIGTERM)
    (status, told), (other, _) = ended(processes)
    assert status == 128 + signal.SIGTERM and "the same command continues" in told
    assert other == (128 + signal.SIGTERM if asked else 1)
    assert before < checkpoints.latest_update(tmp_path / "tiny" / "checkpoints") < 2000 * 13


@pytest.mark.slow
@pytest.mark.parametrize("asked", [0, 1])
def test_a_signal_in_the_evaluation_ends_all(tmp_path, asked):
    processes = start(tmp_path, **{"evaluation.k": 500_000})
    for _ in range(2400):
        if Path(tmp_path, "tiny", "model.weights.h5").exists():
            break
        time.sleep(0.1)
    time.sleep(5)
    processes[asked].send_signal(signal.SIGTERM)
    results = ended(processes)
    assert results[asked][0] in (128 + signal.SIGTERM, -signal.SIGTERM), results
    assert results[1 - asked][0] == 1 and results[1 - asked][1].splitlines()[-1].startswith("error: TF_CONFIG: ")


@pytest.mark.slow
def test_other_parameters_in_another_process_are_refused(tmp_path):
    (first, told), (second, other) = ended(start(tmp_path, of_second=("--seed", "6")))
    assert (first, second) == (1, 1)
    assert "expected what the first process has, got others: seed 5, here 6" in other
    assert told.splitlines()[-1].startswith("error: TF_CONFIG: ")


@pytest.mark.slow
def test_what_fails_in_the_first_process_is_told_by_it_and_ends_the_other(tmp_path):
    Path(tmp_path, "tiny").write_text("no folder")
    (first, told), (second, other) = ended(start(tmp_path))
    assert (first, second) == (1, 1)
    assert "error: " in told and "expected a folder that can be written" in told
    assert other.splitlines()[-1].endswith("the first process ended before the run was done; it says why")


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({"cluster": {"worker": ["a:1", "b:2"]}, "task": {"type": "worker", "index": 1}}, (1, ["a:1", "b:2"])),
        (
            {"cluster": {"worker": ["a:1"], "chief": ["c:3"]}, "task": {"type": "worker", "index": 0}},
            (1, ["c:3", "a:1"]),
        ),
        (
            {"cluster": {"worker": ["a:1"], "chief": ["c:3"]}, "task": {"type": "chief", "index": 0}},
            (0, ["c:3", "a:1"]),
        ),
    ],
)
def test_members_of_a_cluster(monkeypatch, given, expected):
    monkeypatch.setenv("TF_CONFIG", json.dumps(given))
    assert members() == expected


@pytest.mark.parametrize(
    "given",
    [
        "{", "[]", '{"cluster": {"worker": ["a:1"]}}',
        '{"cluster": {"worker": ["a:1"]}, "task": {"type": "worker", "index": 1}}',
        '{"cluster": {"worker": ["a:1"]}, "task": {"type": "worker", "index": -1}}',
        '{"cluster": {"worker": ["a:1", "a:1"]}, "task": {"type": "worker", "index": 0}}',
        '{"cluster": {"worker": ["a"]}, "task": {"type": "worker", "index": 0}}',
        '{"cluster": {"ps": ["a:1"], "worker": ["a:2"]}, "task": {"type": "worker", "index": 0}}',
    ],
)  # fmt: skip
def test_another_cluster_is_refused_in_one_line(monkeypatch, given):
    monkeypatch.setenv("TF_CONFIG", given)
    with pytest.raises(config.ConfigError, match="^TF_CONFIG: expected '.*', got '"):
        device.members()


@pytest.mark.parametrize("given", ["", "{}"])
def test_without_a_cluster_a_process_is_alone(monkeypatch, given):
    monkeypatch.setenv("TF_CONFIG", given)
    assert members() == (0, [])


def two_in_threads():
    """Two teams of one process, which meet in memory."""
    meet, given = threading.Barrier(2), [None, None]

    class Half(Team):
        def _gathered(self, values):
            assert values.shape.num_elements() * values.dtype.size <= team.PIECE
            given[self.index] = values
            meet.wait(timeout=60)
            both = tf.stack(given)
            meet.wait(timeout=60)
            return both

    return Half(index=0, size=2), Half(index=1, size=2)


@pytest.mark.parametrize("more", [None, -1, 0, 1, team.PIECE])
def test_a_message_of_any_length_arrives_as_it_was(more):
    """`more`: bytes beyond one piece; None: a few bytes in all."""
    overhead = io.BytesIO()
    np.savez(overhead, what=np.array("work"), k=np.array(7), values=np.zeros(1000, np.uint8))
    size = 5 if more is None else team.PIECE + more + 1000 - len(overhead.getvalue())
    values = np.random.default_rng(0).integers(0, 256, size, np.uint8)
    stream = io.BytesIO()
    np.savez(stream, what=np.array("work"), k=np.array(7), values=values)
    assert more is None or len(stream.getvalue()) == team.PIECE + more
    leader, other = two_in_threads()
    with ThreadPoolExecutor(1) as pool:
        heard = pool.submit(other.hear, True)
        leader.tell("work", k=7, values=values)
        what, arrays = heard.result(timeout=60)
    assert (what, arrays["k"]) == ("work", 7) and leader.wished
    np.testing.assert_array_equal(arrays["values"], values)


def test_shares_that_cannot_be_dealt_out_are_refused():
    config.Training(shares=4).check_devices(2, 2)
    with pytest.raises(config.ConfigError, match="^training.shares: expected a multiple of 4, .*, got 6$"):
        config.Training(shares=6).check_devices(2, 2)
