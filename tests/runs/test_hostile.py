"""The short form of `tests/programs/hostile.py`, and files of a run with values of any kind anywhere in them."""

import json
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

PROGRAMS = Path(__file__).resolve().parents[1] / "programs"
sys.path.insert(0, str(PROGRAMS))

import hostile  # noqa: E402
from hostile_cases import cases  # noqa: E402

from iwae import config  # noqa: E402


def test_the_table_is_long_enough() -> None:
    names = [(case.group, case.name, case.program, str(case.words)) for case in cases()]
    assert len(set(names)) == len(names) >= 200


def test_hostile_cases_come_out_as_expected(capsys: pytest.CaptureFixture) -> None:
    status = hostile.main(["--short"])
    assert status == 0, "\n".join(line for line in capsys.readouterr().out.splitlines() if "as expected (" not in line)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a finished run, `results/tiny`."""
    results = tmp_path_factory.mktemp("place") / "results"
    status, output = hostile.call("experiments.py", [], config.replace(hostile.TINY, {"results_dir": str(results)}))
    assert status == 0, output
    return results.parent


ANYTHING = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(10**400), 10**400)
    | st.sampled_from([0, -1, 1.5, 1e300, 10**400, 2**31])
    | st.floats()
    | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)


def replaced(values: Any, draw: st.DrawFn) -> Any:
    """`values` with anything in the place of one of its parts, or without it."""
    if not isinstance(values, dict | list) or not values or draw(st.integers(0, 9)) == 0:
        return draw(ANYTHING)
    key = draw(st.sampled_from(sorted(values) if isinstance(values, dict) else range(len(values))))
    if isinstance(values, dict) and draw(st.integers(0, 9)) == 0:
        return {name: value for name, value in values.items() if name != key}
    copy = dict(values) if isinstance(values, dict) else list(values)
    copy[key] = replaced(values[key], draw)
    return copy


@pytest.mark.parametrize("file", ["experiment.json", "evaluation.json"])
@settings(max_examples=60, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_any_value_anywhere_is_used_or_told_in_one_line(place: Path, file: str, data: st.DataObject) -> None:
    """By the command that trained the run, and by the report."""
    path, results = place / "results" / "tiny" / file, str(place / "results")
    whole = path.read_text()
    asked = config.replace(hostile.TINY, {"results_dir": results, "tasks": ("train",)})
    try:
        path.write_text(json.dumps(data.draw(st.composite(lambda draw: replaced(json.loads(whole), draw))())))
        for program, words in (("iwae.report", ["--results_dir", results]), ("experiments.py", [])):
            status, output = hostile.call(program, words, asked)
            errors = [line for line in output.splitlines() if line.startswith("error: ")]
            assert status in (0, 1, 2) and len(errors) == bool(status) and "Traceback" not in output, (status, output)
    finally:
        path.write_text(whole)
