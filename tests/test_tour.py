"""The notebook `docs/tour.ipynb`: small, with what its cells gave but no trace of the machine, and every cell runs."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

TESTS = Path(__file__).resolve().parent
TOUR = TESTS.parent / "docs" / "tour.ipynb"


def test_every_cell_has_run_and_its_outputs_are_small_and_name_no_path():
    cells = [cell for cell in json.loads(TOUR.read_text())["cells"] if cell["cell_type"] == "code"]
    assert [cell["execution_count"] for cell in cells] == list(range(1, len(cells) + 1))
    assert all(cell["outputs"] for cell in cells)
    printed = "".join(line for cell in cells for output in cell["outputs"] for line in output.get("text", ()))
    assert not re.search(r"(?<![\w.])/\w", printed), printed
    assert TOUR.stat().st_size < 300_000


@pytest.mark.slow
def test_every_cell_runs():
    command = [sys.executable, str(TESTS / "programs" / "notebook.py"), str(TOUR)]
    ended = subprocess.run(command, capture_output=True, text=True)
    assert ended.returncode == 0, ended.stderr[-2000:]
