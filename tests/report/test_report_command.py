"""The command, and runs that cannot be read."""

import json
import math
import subprocess
import sys
from pathlib import Path

import pytest
from report_runs import TEST, make, read, rows_of

from iwae import config
from iwae.report import protocol, records, tables
from iwae.report.__main__ import BEGIN, END, main
from iwae.runs import log

DAMAGE = {
    "no experiment.json": ("experiment.json", None, "expected the parameters of a run, found none"),
    "no log": ("log.csv", None, "expected a row for each epoch, found none"),
    "empty experiment": ("experiment.json", "", "expected JSON, got an error"),
    "cut experiment": ("experiment.json", '{"name": "x", "data": {', "expected JSON, got an error"),
    "deep": ("experiment.json", "[" * 100_000, "expected JSON, got an error"),
    "a list": ("experiment.json", "[]", "expected named values"),
    "wrong value": ("experiment.json", '{"name": "x", "model": {"k": 0}}', "model.k: expected an integer >= 1, got 0"),
    "wrong section": ("experiment.json", '{"name": "x", "model": 3}', "model: expected named parameters"),
    "unknown parameter": ("experiment.json", '{"name": "x", "sede": 1}', "sede: expected the name of a parameter"),
    "cut evaluation": ("evaluation.json", '{"test": {"nll": 86.', "expected JSON, got an error"),
    "not UTF-8": ("evaluation.json", b"\xff\xfe\x00", "expected JSON, got an error"),
    "no test split": ("evaluation.json", json.dumps({"train": TEST}), "expected an evaluation of the split 'test'"),
    "split is no object": ("evaluation.json", '{"test": 3}', "test: expected named values, got 3"),
    "no nll": ("evaluation.json", '{"test": {"examples": 3}}', "nll: expected a number, got None"),
    "nll is NaN": (
        "evaluation.json",
        json.dumps({"test": TEST | {"nll": math.nan}}),
        "nll: expected a number, got nan",
    ),
    "nll is text": ("evaluation.json", json.dumps({"test": TEST | {"nll": "86"}}), "nll: expected a number, got '86'"),
    "no list": ("evaluation.json", json.dumps({"test": TEST | {"active_units": 3}}), "active_units: expected a list"),
    "half a tightness": ("evaluation.json", json.dumps({"test": TEST | {"ais": {"k": 3}}}), "ais.examples: expected a"),
    "header only": ("log.csv", ",".join(log.COLUMNS) + "\n", "expected a row for each epoch, found none"),
    "other columns": ("log.csv", "a,b\n1,2\n", "expected the columns epoch,updates,"),
    "binary log": ("log.csv", b"\xff\xfe\x00\x81", "expected text, got other bytes"),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_damaged_run_gives_one_line_and_the_others_are_reported(
    tmp_path: Path, capsys: pytest.CaptureFixture, damage: str
) -> None:
    file, content, message = DAMAGE[damage]
    make(tmp_path / "whole")
    path = make(tmp_path / "damaged") / file
    path.unlink()
    if content is not None:
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
    assert main(["--results_dir", str(tmp_path)]) == 0
    out, err = capsys.readouterr()
    assert [row["run"] for row in rows_of(out)][0].startswith("[whole]")
    (line,) = [line for line in out.splitlines() if line.startswith("- ")]
    assert line.startswith(f"- {path}: ") and message in line
    assert err == f"left out: {line[2:]}\n"


def test_a_log_that_was_cut_short_loses_its_last_line_only(tmp_path: Path) -> None:
    folder = make(tmp_path / "run", bounds=range(-40, 0), epochs=40)
    text = (folder / "log.csv").read_text()
    (folder / "log.csv").write_text(text[: text.rindex(",")])
    assert records.read(folder).passes == 39


def test_a_run_that_is_not_evaluated_yet_is_named(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    make(tmp_path / "young", evaluated=False, epochs=12)
    assert main(["--results_dir", str(tmp_path)]) == 0
    assert "- young: not evaluated yet, 12 passes trained" in capsys.readouterr().out


def test_a_run_of_an_earlier_version_has_the_defaults(tmp_path: Path) -> None:
    folder = make(tmp_path / "run")
    values = json.loads((folder / "experiment.json").read_text())
    del values["evaluation"]["active_unit_threshold"], values["model"]["groups"], values["environment"]
    (folder / "experiment.json").write_text(json.dumps(values))
    record = records.read(folder)
    assert protocol.departures(record) == [] and record.device == "?"


def test_an_objective_of_the_user_is_reported_without_a_published_value(
    tmp_path: Path,
) -> None:
    """In code that is not at hand here; reading it registers nothing."""
    known = dict(config.OBJECTIVES)
    folder = make(tmp_path / "run", "mnist_iwae_k5_1layer")
    text = (folder / "experiment.json").read_text()
    (folder / "experiment.json").write_text(text.replace('"objective": "iwae"', '"objective": "median"'))
    (row,) = rows_of(tables.tables([records.read(folder)], tmp_path))
    assert row["objective"] == "median" and "published" not in row and "departures" not in row
    assert config.OBJECTIVES == known


def test_it_writes_readme_of_the_results_with_links_from_there(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    results = tmp_path / "results"
    make(results / "run a", changes={"name": "x"})
    (results / "unrelated").mkdir()
    assert main(["--results_dir", str(results), "--write"]) == 0
    text = (results / "README.md").read_text()
    assert text == capsys.readouterr().out
    assert text.startswith("# Results\n") and "[run a](run%20a)" in text
    assert main(["--results_dir", str(results), "--write"]) == 0
    assert (results / "README.md").read_text() == text


def test_it_replaces_what_lies_between_the_markers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make(tmp_path / "results" / "run")
    monkeypatch.chdir(tmp_path)
    readme = tmp_path / "README.md"
    readme.write_text(f"before\n{BEGIN}\nold\n{END}\nafter ü\n", encoding="utf-8")
    assert main(["--readme", "README.md"]) == 0
    text = readme.read_text(encoding="utf-8")
    assert text.startswith(f"before\n{BEGIN}\n\n| layers | k | VAE | IWAE |") and text.endswith(f"\n{END}\nafter ü\n")
    assert "[86.50 (86.76)](results/run)" in text and "old" not in text
    assert main(["--readme", "README.md"]) == 0
    assert readme.read_text(encoding="utf-8") == text


@pytest.mark.parametrize(
    "text",
    [
        "none",
        BEGIN,
        END,
        END + BEGIN,
        BEGIN * 2 + END,
        BEGIN + END * 2,
    ],
)
def test_a_file_without_the_two_markers_is_left_as_it_is(
    tmp_path: Path, capsys: pytest.CaptureFixture, text: str
) -> None:
    make(tmp_path / "results" / "run")
    (tmp_path / "README.md").write_text(text)
    arguments = ["--results_dir", str(tmp_path / "results"), "--readme", str(tmp_path / "README.md")]
    assert main(arguments) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"error: {tmp_path / 'README.md'}: expected the lines {BEGIN} and {END}")
    assert (tmp_path / "README.md").read_text() == text


def test_runs_by_path_and_by_name(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    for name in ("a", "b", "c"):
        make(tmp_path / name)
    assert main(["--results_dir", str(tmp_path), "a", str(tmp_path / "b"), "nope", "a"]) == 0
    out, err = capsys.readouterr()
    assert [row["run"].split("]")[0] for row in rows_of(out)] == ["[a", "[b"]
    assert err == f"left out: {tmp_path / 'nope' / 'experiment.json'}: expected the parameters of a run, found none\n"


@pytest.mark.parametrize(
    ("folder", "message"), [("nope", "expected a folder of runs"), ("", "expected at least one run")]
)
def test_no_run_at_all_is_an_error(tmp_path: Path, capsys: pytest.CaptureFixture, folder: str, message: str) -> None:
    assert main(["--results_dir", str(tmp_path / folder)]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: ") and message in line


def test_what_a_name_holds_cannot_break_the_table(tmp_path: Path) -> None:
    record = read(tmp_path / "a|b](c", changes={"name": "x"})
    (row,) = rows_of(tables.tables([record], tmp_path))
    assert row["run"] == r"[a\|b\](c](a%7Cb%5D%28c)"


def test_a_terminal_gets_plain_tables_and_files_get_markdown(
    tmp_path: Path, capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    make(tmp_path / "run")
    arguments = ["--results_dir", str(tmp_path)]
    assert main([*arguments, "--write"]) == 0
    written = capsys.readouterr().out
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    assert main([*arguments, "--write"]) == 0
    plain = capsys.readouterr().out
    assert plain.startswith("MNIST, stochastic binarization (table 1)\n\nrun ") and "|" not in plain
    assert (tmp_path / "README.md").read_text() == written and "| [run](run) |" in written
    assert main([*arguments, "--markdown"]) == 0
    assert capsys.readouterr().out.startswith("## MNIST, stochastic binarization (table 1)\n\n| run ")


def test_the_papers_table_alone(tmp_path: Path, capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch) -> None:
    make(tmp_path / "run")
    monkeypatch.chdir(tmp_path.parent)
    assert main(["--results_dir", tmp_path.name, "--paper-table"]) == 0
    row, of_five, *_ = rows_of(capsys.readouterr().out)
    assert row["VAE"] == row["IWAE"] == f"[86.50 (86.76)]({tmp_path.name}/run)"  # k = 1: one and the same bound
    assert of_five["VAE"] == "(86.47)"


def test_neither_tensorflow_nor_weights_are_needed(tmp_path: Path) -> None:
    make(tmp_path / "results" / "run")
    code = (
        "import sys; from iwae.report.__main__ import main; status = main(sys.argv[1:]); "
        "sys.exit(status or any(name in sys.modules for name in ('tensorflow', 'keras')))"
    )
    arguments = ["--results_dir", str(tmp_path / "results"), "--write"]
    command = [sys.executable, "-W", "error", "-c", code, *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, cwd=Path(__file__).parents[2])
    assert (done.returncode, done.stderr) == (0, "")
