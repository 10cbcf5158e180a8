"""The command line of `experiments.py`: what it understands, its one-line errors, its help, its exit status."""

import contextlib
import dataclasses
import os
import re
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from wrong_configurations import WRONG, changed

from iwae import config
from iwae.cli import command_line, running
from iwae.config import ConfigError, Evaluation, Experiment, Model, Training
from iwae.runs.process import Interrupted
from iwae.sections import RunError

ROOT = Path(__file__).parents[2]
DEFAULT = Experiment("run")


def written(value: Any) -> list[str]:
    """The words for a value, as a user would write them; independent of the module under test."""
    if not isinstance(value, list):
        return [str(value)]
    return [",".join(map(str, item)) if isinstance(item, list) else str(item) for item in value]


def parse(words: Sequence[str], default: Experiment) -> Experiment:
    (experiment,), _ = command_line.plan(words, default)
    return experiment


def on_command_line(changes: dict[str, Any]) -> list[str]:
    return [word for name, value in changes.items() for word in (f"--{name}", *written(value))]


@pytest.mark.parametrize(("changes", "named"), WRONG)
def test_wrong_option_is_refused_in_one_line_that_names_the_parameter(changes: dict, named: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse(on_command_line(changes), DEFAULT)
    message = str(caught.value)
    assert message.startswith(f"{named}: expected ")
    assert "\n" not in message


@pytest.mark.parametrize(
    ("words", "changes"),
    [
        (["--model.k", "5"], {"model.k": 5}),
        (["--model.k=5"], {"model.k": 5}),
        (["--model.latent-units", "50", "20", "--model.hidden-units", "200,200", "100,100"], None),
        (["--model.latent_units", "50", "20", "--model.hidden_units", "200,200", "100,100"], None),
        (["--model.latent-units", "50,20", "--model.hidden-units", "200,200", "100,100"], None),
        (["--model.hidden-units", "none"], {"model.hidden_units": [[]]}),
        (["--tasks", "evaluate", "plot"], {"tasks": ["evaluate", "plot"]}),
        (["--tasks", "evaluate,plot", "--seed", "7"], {"tasks": ["evaluate", "plot"], "seed": 7}),
        (["--training.epsilon", "1", "--training.epsilon", "2"], {"training.epsilon": 2.0}),
        (["--training.epsilon", "1e-5"], {"training.epsilon": 1e-5}),
        (["--name=--run"], {"name": "--run"}),
        (["--overwrite"], {"overwrite": True}),
        (["--overwrite", "True"], {"overwrite": True}),
        (["--overwrite", "--model.k", "5"], {"overwrite": True, "model.k": 5}),
        (["--evaluation.remove-inactive-units", "false"], {"evaluation.remove_inactive_units": False}),
        (["--evaluation.examples", "100"], {"evaluation.examples": 100}),
        (["--training.learning-rate", "1e-4"], {"training.learning_rate": 1e-4}),
        (["--training.epsilon", "1"], {"training.epsilon": 1.0}),
        (["--model.objective", "renyi", "--model.alpha", "-1.5"], {"model.objective": "renyi", "model.alpha": -1.5}),
        (["--model.objective", "renyi", "--model.alpha", "-1e-5"], {"model.objective": "renyi", "model.alpha": -1e-5}),
        (["--data.name", "my data/x.npz"], {"data.name": "my data/x.npz"}),
        (["--data.path", "cache"], {"data.path": "cache"}),
        ([], {}),
    ],
)
def test_words_are_understood(words: list[str], changes: dict | None) -> None:
    if changes is None:
        changes = {"model.latent_units": [50, 20], "model.hidden_units": [[200, 200], [100, 100]]}
    expected = config.from_dict(changed(config.to_dict(DEFAULT), changes))
    assert parse(words, DEFAULT) == expected


def test_a_made_name_follows_the_words_and_a_given_one_stays() -> None:
    assert parse([], Experiment()).name == Experiment().name
    assert parse(["--model.k", "5"], config.replace(config.DEFAULT, {"name": None})).name == "digits_iwae_k5"
    assert parse(["--model.k", "5"], config.DEFAULT).name == "digits_iwae_k50"
    assert parse(["--model.k", "5", "--name", "mine"], Experiment()).name == "mine"
    assert parse(["--model.k", "5", "--name", "None"], config.DEFAULT).name == "digits_iwae_k5"


def test_parameters_without_effect_are_told(capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch) -> None:
    words = "--training.schedule multistep --training.milestones 3 9 20 --training.epochs 9 --training.stages 4"
    assert run_main(monkeypatch, lambda experiment: None, words.split()) == 0
    assert capsys.readouterr().err.splitlines() == [
        "note: training.milestones: 20 ignored, after the 9 training.epochs",
        "note: training.stages: 4 ignored, training.schedule is 'multistep'",
    ]
    words = "--model.k 7 --training.stages 2 --training.first-k 5 --training.first-k-epochs 4"
    assert run_main(monkeypatch, lambda experiment: None, words.split()) == 0
    told = "note: model.k: 7 ignored in training, which ends within training.first_k_epochs"
    assert capsys.readouterr().err.splitlines() == [told]


def test_none_and_empty_lists_can_be_given_back() -> None:
    training = Training(schedule="multistep", epochs=9, milestones=(3, 6), start_from="results/other")
    default = Experiment("run", training=training, evaluation=Evaluation(examples=5))
    words = ["--training.schedule", "burda", "--training.epochs", "None", "--training.milestones", "none"]
    words += ["--training.start-from", "none", "--evaluation.examples", "none"]
    assert parse(words, default) == DEFAULT


def test_what_is_not_given_keeps_its_default() -> None:
    default = Experiment("other", seed=9, model=Model(objective="vae", k=1, beta=2.0), training=Training(stages=3))
    assert parse([], default) == default
    assert config.differences(default, parse(["--model.k", "4"], default)) == [("model.k", 1, 4)]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--model.kk", "5"], "--model.kk: expected an option .* unknown one \\(did you mean '--model.k'\\?\\)"),
        (["--modle.k=5"], "--modle.k: .*did you mean '--model.k'"),
        (["--k", "5"], "--k: .*did you mean '--model.k' or '--evaluation.k'"),
        (["--batch_size", "5"], "--batch_size: .*did you mean '--data.batch-size'"),
        (["--no-overwrite"], "--no-overwrite: .*did you mean '--overwrite'"),
        (["-x"], "-x: expected an option"),
        (["5"], "'5': expected an option such as --model.k 5, got a word without one"),
        (["--model.k"], "model.k: expected one value, got none"),
        (["--model.k", "5", "6"], "model.k: expected one value, got '5 6'"),
        (["--name", "two\nlines", "more"], "name: expected one value, got "),
        (["--model.k", "--model.likelihood", "bernoulli"], "model.k: expected one value, got none"),
    ],
)
def test_unknown_and_incomplete_options_are_refused(words: list[str], message: str) -> None:
    with pytest.raises(ConfigError, match=f"^{message}"):
        parse(words, DEFAULT)


@settings(deadline=None)
@given(st.lists(st.text() | st.sampled_from(["--model.k", "--name", "--tasks", "--overwrite", "--", "-", "=", "--="])))
def test_any_words_are_an_experiment_or_refused(words: list[str]) -> None:
    if {"-h", "--help"} & set(words):
        return
    try:
        assert isinstance(parse(words, DEFAULT), Experiment)
    except ConfigError as error:
        assert "\n" not in str(error)


def test_help_explains_every_parameter(capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "100")
    with pytest.raises(SystemExit) as ended:
        parse(["--help"], DEFAULT)
    assert ended.value.code == 0
    text = re.sub("\x1b[^m]*m", "", capsys.readouterr().out)
    assert max(map(len, text.splitlines())) <= 100
    text = " ".join(text.replace("│", " ").split())
    where = ("workers", "threads_per_run", "devices", "cluster", "cpus_per_run", "gpus_per_run")
    for name in ("list", "preset", "file", "run", "grid", *where, *config.flatten(DEFAULT)):
        assert f"--{name.replace('_', '-')} " in text
    for section in (Experiment, config.Data, Model, Training, Evaluation):
        explained = command_line.help_texts(section)
        groups = {"data", "model", "training", "evaluation"}
        assert set(explained) == {field.name for field in dataclasses.fields(section)} - groups
        assert all(help_text in text for help_text in explained.values())
    assert text.count("(default: ") == len(config.flatten(DEFAULT))


# ---- main ----


def run_main(monkeypatch: pytest.MonkeyPatch, run: Any, words: Sequence[str], default: Any = lambda: DEFAULT) -> Any:
    """The exit status of `main` with a stand-in for the function that trains."""
    monkeypatch.setattr(running, "run", run)
    with pytest.raises(SystemExit) as ended:
        command_line.main(default, words)
    return ended.value.code


def raising(error: BaseException) -> Any:
    def run(experiment: Experiment) -> None:
        raise error

    return run


def test_main_runs_the_experiment(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[Experiment] = []
    assert run_main(monkeypatch, seen.append, ["--model.k", "5"]) == 0
    assert [experiment.model.k for experiment in seen] == [5]


@pytest.mark.parametrize(
    ("error", "status", "line"),
    [
        (ConfigError("name: expected another, got this"), 2, "error: name: expected another, got this\n"),
        (RunError("results/run/log.csv: no space\nleft"), 1, "error: results/run/log.csv: no space left\n"),
        (KeyboardInterrupt(), 130, "\nstopped; the same command continues\n"),
        (Interrupted(signal.SIGTERM), 143, "\nstopped; the same command continues\n"),
    ],
)
def test_main_tells_an_error_in_one_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture, error: BaseException, status: int, line: str
) -> None:
    assert run_main(monkeypatch, raising(error), []) == status
    assert capsys.readouterr().err == line


@pytest.mark.parametrize(
    ("default", "line"),
    [
        (lambda: Experiment("run", model=Model(k=0)), "error: model.k: expected an integer >= 1, got 0\n"),
        (lambda: Experiment("run", model=Model(kk=5)), "error: model.kk: expected the name of a parameter, .*\n"),
        (
            lambda: Experiment("run", name="run"),
            "error: experiments.py: expected the parameters of an experiment, .*'name'\n",
        ),
    ],
)
def test_a_mistake_in_the_edited_parameters_is_told_in_one_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture, default: Any, line: str
) -> None:
    assert run_main(monkeypatch, raising(AssertionError("must not run")), [], default) == 2
    assert re.fullmatch(line, capsys.readouterr().err)


# ---- several runs ----


def names(words: str, default: Experiment = DEFAULT) -> list[str]:
    return [experiment.name for experiment in command_line.plan(words.split(), default)[0]]


def test_grid_is_every_combination_and_names_say_which() -> None:
    experiments, _ = command_line.plan("--grid model.k 1 5 --grid seed 7 8 9 --training.stages 2".split(), DEFAULT)
    assert [(e.name, e.model.k, e.seed) for e in experiments] == [
        (f"run_k{k}_seed{seed}", k, seed) for k in (1, 5) for seed in (7, 8, 9)
    ]
    assert {e.training.stages for e in experiments} == {2}


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("--grid model.latent-units 50 20", ["run_latent_units50", "run_latent_units20"]),
        ("--grid model.hidden_units 10,10 none", ["run_hidden_units10-10", "run_hidden_units-none"]),
        ("--grid model.objective vae iwae", ["run_objective-vae", "run_objective-iwae"]),
        ("--grid evaluation.k 1 5", ["run_evaluation_k1", "run_evaluation_k5"]),
        ("--grid data.name mnist my/own.npz", ["run_data-mnist", "run_data-own"]),
        ("--grid training.learning_rate 1e-3 1e-4", ["run_learning_rate0.001", "run_learning_rate0.0001"]),
        ("--name other --grid seed 1", ["other_seed1"]),
    ],
)
def test_names_of_a_grid(words: str, expected: list[str]) -> None:
    assert names(words) == expected


def test_names_of_a_grid_over_a_default_that_is_named_by_its_parameters() -> None:
    default = config.replace(config.DEFAULT, {"name": None})
    assert names("--grid model.k 5 50 --grid seed 123 7", default) == [
        "digits_iwae_k5", "digits_iwae_k5_seed7", "digits_iwae_k50", "digits_iwae_k50_seed7",
    ]  # fmt: skip
    assert names("--grid evaluation.k 1 5", default) == [
        "digits_iwae_k50_evaluation_k1",
        "digits_iwae_k50_evaluation_k5",
    ]
    assert names("--grid model.k 5 --name own", default) == ["own_k5"]


def test_grid_over_two_layers_of_hidden_units() -> None:
    words = "--model.latent-units 4 3 --grid model.hidden_units 9,8/7 6/none"
    experiments, _ = command_line.plan(words.split(), DEFAULT)
    assert [e.model.hidden_units for e in experiments] == [((9, 8), (7,)), ((6,), ())]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("--grid", "grid: expected a parameter and its values, .* got none"),
        ("--grid seed", "grid: expected a parameter and its values, .* got 'seed'"),
        ("--grid model.kk 1", "grid: expected the name of a parameter, got 'model.kk' \\(did you mean 'model.k'"),
        ("--grid k 1", "grid: .*did you mean 'model.k' or 'evaluation.k'"),
        ("--grid seed 1 2 --seed 3", "grid: expected each parameter once, got seed twice"),
        ("--grid seed 1 2 --grid seed 3", "grid: expected each parameter once, got seed twice"),
        ("--grid name a b", "grid: expected a parameter other than name"),
        ("--grid seed 1 1", "grid: expected values that differ, got the run run_seed1 twice"),
        ("--grid training.epsilon 0.1 1e-1", "grid: expected values that differ, got the run run_epsilon0.1 twice"),
        ("--grid model.k 1 x", "model.k: expected an integer >= 1, got 'x'"),
        ("--grid model.latent_units 5 5,4", "model.hidden_units: expected as many lists"),
        ("--preset table2 --name x", "name: expected none with 4 presets, got 'x'"),
        ("--preset", "preset: expected a name that --list prints, got none"),
        ("--preset table2 --file x.py", "file: expected either --preset or --file, got both"),
        ("--file", "file: expected one value, got none"),
    ],
)
def test_wrong_choice_of_runs_is_refused(words: str, message: str) -> None:
    with pytest.raises(ConfigError, match=f"^{message}"):
        command_line.plan(words.split(), DEFAULT)


@pytest.mark.parametrize(
    ("words", "workers", "threads"),
    [("", 1, 2), ("--workers 2", 2, 1), ("--workers 8", 8, 1), ("--workers 2 --threads-per-run 3", 2, 3)],
)
def test_several_runs_go_to_the_pool(monkeypatch: pytest.MonkeyPatch, words: str, workers: int, threads: int) -> None:
    seen: list[Any] = []

    class Pool:
        def __init__(self, experiments: list[Experiment], run: Any, workers: int):
            seen.extend([[experiment.seed for experiment in experiments], workers, run.keywords["threads"]])

        def run(self) -> int:
            return 0

    monkeypatch.setattr(running, "Pool", Pool)
    monkeypatch.setattr(running, "cores", lambda: 2)
    assert run_main(monkeypatch, seen.append, ["--grid", "seed", "1", "2", *words.split()]) == 0
    assert seen == [[1, 2], workers, threads]


@pytest.mark.parametrize("option", ["workers", "threads-per-run", "devices"])
@pytest.mark.parametrize("word", ["0", "-1", "x", "1.5", ""])
def test_a_wrong_number_of_workers_or_threads_is_refused(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture, option: str, word: str
) -> None:
    assert run_main(monkeypatch, raising(AssertionError("must not run")), [f"--{option}={word}"]) == 2
    line = f"error: {option.replace('-', '_')}: expected an integer >= 1, got '{word}'\n"
    assert capsys.readouterr().err == line


def test_devices_divide_the_shares(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture) -> None:
    seen: list[Any] = []

    def run(experiment: Experiment, **given: int) -> None:
        seen.append((experiment.training.shares, given))

    words = ["--training.shares", "4", "--devices"]
    assert run_main(monkeypatch, run, [*words, "2"]) == 0
    assert run_main(monkeypatch, run, [*words, "4", "--threads-per-run", "1"]) == 0
    assert seen == [(4, {"devices": 2}), (4, {"devices": 4, "threads": 1})]
    assert run_main(monkeypatch, raising(AssertionError("must not run")), [*words, "3"]) == 2
    assert capsys.readouterr().err == "error: devices: expected a divisor of training.shares, 4, got 3\n"


def test_a_signal_to_several_runs_is_told_by_the_exit_status(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(running.Pool, "run", raising(Interrupted(signal.SIGINT)))
    assert run_main(monkeypatch, raising(AssertionError("must not run")), ["--grid", "seed", "1", "2"]) == 130


# ---- the script, in a process of its own ----

# Runs the script with the words that follow and prints, at the end, which heavy modules were imported.
OBSERVED = """
import atexit, runpy, sys
heavy = ("tensorflow", "keras", "tensorflow_probability", "numpy", "matplotlib")
atexit.register(lambda: print("imported:", *[name for name in heavy if name in sys.modules]))
sys.path.insert(0, {root!r})
sys.argv = ["experiments.py", *{words!r}]
runpy.run_path({script!r}, run_name="__main__")
"""


def script(folder: Path, *words: str) -> subprocess.CompletedProcess:
    code = OBSERVED.format(root=str(ROOT), words=list(words), script=str(ROOT / "experiments.py"))
    return subprocess.run([sys.executable, "-c", code], cwd=folder, capture_output=True, text=True, timeout=60)


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (["--preset", "tabel2"], "error: preset: expected a name that --list prints, .*did you mean 'table2'\\?\\)"),
        (["--grid", "model.k", "1", "0"], "error: model.k: expected an integer >= 1, got 0"),
        (["--file", "none.py"], "error: file: expected a file that can be read, got 'none.py': .*"),
        (["--model.k", "0"], "error: model.k: expected an integer >= 1, got 0"),
        (["--data.name", "mnits"], "error: data.name: expected .*got 'mnits' \\(did you mean 'mnist'\\?\\)"),
        (
            ["--model.latent-units", "50", "--model.hidden-units", "200", "100"],
            "error: model.hidden_units: expected .*",
        ),
        (["--model.kk", "5"], "error: --model.kk: expected .* \\(did you mean '--model.k'\\?\\)"),
        (["--name", "two\nlines"], "error: name: expected .*"),
        (["--training.learning_rate", "fast"], "error: training.learning_rate: expected a number > 0, got 'fast'"),
    ],
)
def test_script_refuses_before_anything_is_imported_or_written(tmp_path: Path, words: list[str], line: str) -> None:
    result = script(tmp_path, *words)
    assert result.returncode == 2
    assert re.fullmatch(line + "\n", result.stderr)
    assert result.stdout == "imported:\n"
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("word", ["--help", "--list"])
def test_script_help_imports_nothing_heavy(tmp_path: Path, word: str) -> None:
    result = script(tmp_path, word)
    assert (result.returncode, result.stderr) == (0, "")
    assert result.stdout.endswith("\nimported:\n")
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("word", ["--help", "--list"])
def test_script_help_survives_a_reader_that_leaves(tmp_path: Path, word: str) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    with contextlib.closing(os.fdopen(writer, "w")) as closed:
        words = [sys.executable, str(ROOT / "experiments.py"), word]
        result = subprocess.run(words, cwd=tmp_path, stdout=closed, stderr=subprocess.PIPE, text=True, timeout=60)
    assert (result.returncode, result.stderr) == (0, "")
