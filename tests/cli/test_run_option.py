"""`--run results/NAME`: the parameters of a run that is there, changed by what else is given."""

import dataclasses
from pathlib import Path

import pytest

from iwae.cli import command_line, running
from iwae.config import ConfigError, Experiment, Model
from iwae.runs.folder import Folder
from iwae.runs.process import Interrupted

DEFAULT = Experiment("default")


def test_a_run_gives_its_parameters_and_the_folder_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = Experiment("old", results_dir="elsewhere", overwrite=True, seed=7, model=Model(k=3))
    (tmp_path / "moved").mkdir()
    Folder(tmp_path / "moved").write_experiment(made, {})
    words = ["--run", f"{tmp_path / 'moved'}/", "--tasks", "posterior", "tightness", "--evaluation.k", "100"]
    (found,), _ = command_line.plan(words, DEFAULT)
    monkeypatch.chdir(tmp_path / "moved")
    (here,), _ = command_line.plan(["--run", ".", *words[2:]], DEFAULT)
    assert here == found
    expected = dataclasses.replace(
        made, name="moved", results_dir=str(tmp_path), overwrite=False, tasks=("posterior", "tightness"),
        evaluation=dataclasses.replace(made.evaluation, k=100),
    )  # fmt: skip
    assert found == expected


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("--run nowhere --tasks posterior", "run: expected the folder of a run, got 'nowhere' .*found none"),
        ("--run", "run: expected one value, got none"),
        ("--run a --preset table2", "run: expected either --preset or --run, got both"),
    ],
)
def test_a_wrong_run_is_refused_in_one_line(words: str, message: str) -> None:
    with pytest.raises(ConfigError, match=f"^{message}") as told:
        command_line.plan(words.split(), DEFAULT)
    assert "\n" not in str(told.value)


@pytest.mark.parametrize(("error", "lines"), [(KeyboardInterrupt(), 1), (Interrupted(2), 1), (Interrupted(2, True), 0)])
def test_a_signal_is_told_in_one_line(
    error: KeyboardInterrupt, lines: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture, tmp_path: Path
) -> None:
    """By whoever knows best what is kept: the training, or else this line."""

    def interrupted(*_: object) -> None:
        raise error

    monkeypatch.setattr(running, "run", interrupted)
    assert running.execute([dataclasses.replace(DEFAULT, results_dir=str(tmp_path))]) == 130
    assert capsys.readouterr().err.split("\n")[1:] == ["stopped; the same command continues", ""] * lines
