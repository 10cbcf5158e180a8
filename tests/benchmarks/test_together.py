"""Several runs on one device at once: each number of runs has a row, and what cannot be counted is refused."""

import subprocess
import sys
from pathlib import Path

import pytest

PROGRAM = Path(__file__).resolve().parents[2] / "benchmarks" / "together.py"


def run(*words: str) -> subprocess.CompletedProcess:
    return subprocess.run([sys.executable, PROGRAM, *words], capture_output=True, text=True, timeout=300)


@pytest.mark.slow
def test_each_number_of_runs_has_a_row():
    ended = run("--runs", "1", "2", "--cases", "train:1:1", "--seconds", "0.2", "--markdown")
    assert ended.returncode == 0, ended.stderr
    rows = [line.strip("| ").split(" | ") for line in ended.stdout.splitlines() if line.startswith("| 1 ")]
    assert [row[:3] for row in rows] == [["1", "1", "1"], ["1", "1", "2"]] and rows[0][-1] == "1.00"
    for row in rows:
        together, each = (float(number.replace(",", "")) for number in row[3:5])
        assert each > 0 and abs(together - int(row[2]) * each) <= int(row[2])


@pytest.mark.parametrize("words", [["--runs", "0"], ["--seconds", "0"], ["--cases", "evaluate:1:5"]])
def test_what_cannot_be_counted_is_refused(words):
    ended = run(*words)
    assert ended.returncode == 2 and "expected --runs of at least 1" in ended.stderr
