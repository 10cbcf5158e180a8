"""A few of the operations on files of a run made to fail; `tests/programs/faults.py` does them all."""

import subprocess
import sys
from pathlib import Path

import pytest


@pytest.mark.slow
def test_a_run_whose_files_fail_ends_with_the_same_numbers() -> None:
    script = Path(__file__).resolve().parents[1] / "programs" / "faults.py"
    done = subprocess.run([sys.executable, script, "--every", "20", "--deaths", "2"], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    assert " 0 that differ" in done.stdout
