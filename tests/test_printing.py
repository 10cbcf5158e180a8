"""A command goes on when nobody can be told: its reader is gone, the disk of its output full, its terminal closed."""

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
TALK = """
import os, sys
from iwae import printing
printing.may_get_lost()
for stream in (sys.stdout, sys.stderr):
    for _ in range(2):
        print("x" * 100_000, file=stream, flush=True)
    os.write(1, b"from C++")
file = os.open(sys.argv[1], os.O_WRONLY | os.O_CREAT)  # must not get the number of a closed stream
print("to the terminal", flush=True)
print("to the terminal", file=sys.stderr)
os.write(file, b"done")
"""


@pytest.fixture
def no_reader() -> Iterator[int]:
    reading, writing = os.pipe()
    os.close(reading)
    yield writing
    os.close(writing)


@pytest.fixture
def full_disk() -> Iterator[int]:
    full = os.open("/dev/full", os.O_WRONLY)
    yield full
    os.close(full)


def closed() -> None:
    for number in (0, 1, 2):
        os.close(number)


def outcome(words: list[str], output: int | None, before: Callable[[], None] | None = None) -> int:
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    streams = {} if output is None else {"stdout": output, "stderr": output}
    return subprocess.run(
        [sys.executable, *words], env=environment, preexec_fn=before, timeout=300, **streams
    ).returncode


@pytest.mark.parametrize("output", ["no_reader", "full_disk", None])
def test_what_is_printed_may_get_lost(tmp_path: Path, request: pytest.FixtureRequest, output: str | None) -> None:
    descriptor = output and request.getfixturevalue(output)
    assert outcome(["-c", TALK, str(tmp_path / "file")], descriptor, None if output else closed) == 0
    assert (tmp_path / "file").read_bytes() == b"done"


def test_several_runs_do_not_need_a_reader(tmp_path: Path, no_reader: int) -> None:
    names = ("a-ok", "b-ok", "c-ok")
    assert outcome([str(ROOT / "tests/programs/stand_ins.py"), str(tmp_path), "2", *names], no_reader) == 0
    assert all((tmp_path / name / "done").exists() for name in names)


def test_a_slow_reader_that_shares_a_pipe_which_does_not_wait_is_waited_for() -> None:
    reading, writing = os.pipe()
    os.set_blocking(writing, False)
    words = ["-c", "from iwae import printing; printing.may_get_lost(); print('x' * 200_000, flush=True)"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    with subprocess.Popen([sys.executable, *words], env=environment, stdout=writing) as process:
        os.close(writing)
        with open(reading, "rb") as stream:
            assert stream.read().count(b"x") == 200_000
    assert process.returncode == 0


@pytest.mark.slow
@pytest.mark.parametrize("output", ["no_reader", "full_disk", None])
def test_a_run_does_not_need_a_terminal(tmp_path: Path, request: pytest.FixtureRequest, output: str | None) -> None:
    words = ["--training.stages", "1", "--model.k", "2", "--evaluation.k", "50", "--tasks", "train", "evaluate"]
    command = [str(ROOT / "experiments.py"), "--name", "mute", "--results-dir", str(tmp_path), *words]
    descriptor = output and request.getfixturevalue(output)
    assert outcome(command, descriptor, None if output else closed) == 0
    assert (tmp_path / "mute/evaluation.json").exists()
