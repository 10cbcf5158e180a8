"""A few SIGKILLs at random moments of a run, which then ends as if nothing had been. See `kill_anywhere.py`."""

import subprocess
import sys
from pathlib import Path

import pytest


@pytest.mark.slow
def test_a_killed_run_ends_like_an_uninterrupted_one():
    script = Path(__file__).parent / "programs" / "kill_anywhere.py"
    done = subprocess.run([sys.executable, script, "--kills", "4", "--seed", "9"], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "4 kills" in done.stdout and "identical" in done.stdout
