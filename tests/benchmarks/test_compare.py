"""The comparison with other libraries: what it computes agrees, and what does not agree is not timed."""

import importlib.util
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"
ONE = {"this project": [np.array([-100.0, -90.0])]}


@pytest.fixture
def compare(monkeypatch):
    monkeypatch.setattr(sys, "path", [str(BENCHMARKS), *sys.path])
    import compare

    return compare


def test_a_program_that_differs_is_named(compare):
    assert compare.disagreements(ONE | {"peer": [np.array([-100.0, -90.0001])]}, 1e-5) == []
    for wrong in ([-100.0, -90.1], [-100.0], [np.nan, -90.0]):
        (message,) = compare.disagreements(ONE | {"peer": [np.array(wrong)]}, 1e-5)
        assert message.startswith("peer differs")
        with pytest.raises(SystemExit, match="not timed: bound: peer differs"):
            compare.refuse("bound", [message])


@pytest.mark.parametrize("markdown", [False, True])
def test_the_table_has_ratios_to_our_time(compare, markdown):
    seconds = {compare.Case("train", 1, 50): {"this project": [0.01, 0.02, 0.01], "peer": [0.03, 0.04, 0.02]}}
    text = list(compare.lines(seconds, ["this project", "peer"], markdown))
    assert "k = 50, 1 layer" in text[-1] and "10 ms" in text[-1] and "2.00 (2.00-2.50)" in text[-1]


def test_unknown_cases_are_refused(compare, capsys):
    with pytest.raises(SystemExit):
        compare.main(["--cases", "train:3:1"])
    assert "expected some of train:1:1" in capsys.readouterr().err


@pytest.mark.slow
@pytest.mark.skipif(
    not all(importlib.util.find_spec(name) for name in ("jax", "torch")),
    reason="jax or torch is not installed (the extra `benchmarks`)",
)
def test_all_programs_give_the_same_bound_and_gradient():
    command = [sys.executable, str(BENCHMARKS / "compare.py"), "--check", "--programs", "JAX scan", "PyTorch eager"]
    ended = subprocess.run([*command, "Keras fit"], capture_output=True, text=True)
    assert ended.returncode == 0, ended.stderr
    assert ended.stderr.count("4 programs agree on the bound and on its gradient") == 2
