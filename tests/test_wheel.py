"""The built wheel in an empty environment: everything a user needs is in it, and does what a user would try."""

import os
import shutil
import subprocess
import sys
import venv
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


@pytest.mark.slow
def test_the_wheel_has_all_that_the_default_experiment_needs(tmp_path):
    def done(*command, **options):
        clean = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
        result = subprocess.run(command, cwd=tmp_path, env=clean, capture_output=True, text=True, **options)
        assert result.returncode == 0, result.stderr[-2000:]
        return result.stdout

    source = tmp_path / "source"  # a build writes beside the code
    shutil.copytree(ROOT / "iwae", source / "iwae", ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("setup.py", "pyproject.toml"):
        shutil.copy(ROOT / name, source)
    done(sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--wheel-dir", tmp_path, source)
    (wheel,) = tmp_path.glob("iwae-*.whl")
    venv.create(tmp_path / "environment", with_pip=True)
    programs = tmp_path / "environment" / "bin"
    done(programs / "python", "-m", "pip", "install", "--quiet", wheel)
    shutil.copy(ROOT / "experiments.py", tmp_path)

    where = done(programs / "python", "-c", "import iwae; print(iwae.__file__)")
    assert Path(where.strip()).is_relative_to(tmp_path / "environment")
    assert (Path(where.strip()).parent / "py.typed").exists()
    assert "usage: datasets_download" in done(programs / "datasets_download", "--help")
    done(programs / "python", "experiments.py", "--training.stages", "1", "--evaluation.k", "50")
    assert (tmp_path / "results" / "digits_iwae_k50_stages1" / "plots" / "active_units.png").exists()
    shutil.copy(ROOT / "tests" / "programs" / "trial.py", tmp_path)
    assert done(programs / "python", "trial.py").count(": ok, ") == 7
