"""An experiment from start to end in a temporary folder; done again, changed, overwritten, interrupted, loaded."""

import fcntl
import json
import math
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import h5py
import keras
import numpy as np
import pytest
import tensorflow as tf
from tiny import experiment

import iwae
from iwae import config, evaluation, training
from iwae.data import loading
from iwae.experiment import build_model
from iwae.runs import log
from iwae.runs.folder import Folder
from iwae.runs.run import _SEEDS, finished, load_data, prepared_images
from iwae.sections import RunError

ROOT = Path(iwae.__file__).parents[1]


@pytest.fixture(scope="module")
def done(tmp_path_factory):
    """The result of a whole run and its folder. Tests leave it as it is."""
    results = tmp_path_factory.mktemp("results")
    return iwae.run(experiment(results)), results / "tiny"


def state(folder):
    """Every file below a folder: time of change and contents."""
    files = (path for path in sorted(folder.rglob("*")) if path.is_file())
    return {str(path.relative_to(folder)): (path.stat().st_mtime_ns, path.read_bytes()) for path in files}


def changed(before, after):
    return {name for name in before | after if before.get(name) != after.get(name)}


# ---- the whole path ----


def test_everything_is_there(done):
    _, folder = done
    names = set(state(folder))
    assert {"experiment.json", "log.csv", "evaluation.json", "model.weights.h5"} <= names
    assert any(name.startswith("checkpoints/") for name in names)
    assert any(name.startswith("tensorboard/") for name in names)
    assert not [name for name in names if "part" in name]
    with h5py.File(folder / "model.weights.h5") as file:
        assert "optimizer" not in file  # moments, twice as large as the weights
    figures = {"learning_curves", "samples", "reconstructions", "posterior_scatter", "active_units"}
    assert {f"plots/{name}.png" for name in figures} <= names
    for path in (folder / "plots").iterdir():
        assert path.read_bytes().startswith(b"\x89PNG") and path.stat().st_size > 5000, path.name


def test_the_parameters_and_the_surroundings_are_written_down(done):
    result, folder = done
    values = json.loads((folder / "experiment.json").read_text())
    environment = values.pop("environment")
    assert config.from_dict(values) == result.experiment
    assert set(environment) >= {
        "python",
        "tensorflow",
        "keras",
        "numpy",
        "node",
        "device",
        "git_commit",
        "dataset_fingerprint",
    }
    assert environment["dataset_fingerprint"] == result.dataset.fingerprint


def test_the_log_and_the_evaluation_are_written_down(done):
    result, folder = done
    (row,) = log.read(folder / "log.csv")
    assert row["epoch"] == 1 and row["updates"] == -(-len(result.dataset.train) // 100)
    values = json.loads((folder / "evaluation.json").read_text())
    assert values == result.evaluation and set(values) == {"test"}
    assert values["test"]["examples"] == 20 and values["test"]["k"] == 5
    assert 10 < values["test"]["nll"] < 64 * np.log(2)  # 64 pixels: more than a bound that knows nothing


def test_a_second_call_does_nothing(done, capsys):
    result, folder = done
    before = state(folder)
    again = iwae.run(result.experiment)
    after = state(folder)
    assert changed(before, after) <= {"experiment.json", ".lock"}
    assert after["experiment.json"][1] == before["experiment.json"][1]  # also where it was trained, and with which code
    assert again.evaluation == result.evaluation
    for one, two in zip(again.model.variables, result.model.variables, strict=True):
        np.testing.assert_array_equal(one, two)
    assert "NLL" in capsys.readouterr().out


def test_tasks_asked_for_are_done_again_and_no_others(done):
    result, folder = done
    before = state(folder)
    iwae.run(config.replace(result.experiment, {"tasks": ("evaluate", "plot")}))
    after = state(folder)
    redone = changed(before, after) - {"experiment.json", ".lock"}
    results = {"evaluation.json", "likelihoods.npz"}
    assert results <= redone and all(name.startswith("plots/") for name in redone - results)
    assert {name for name in before if name.startswith("plots/")} <= redone
    assert after["evaluation.json"][1] == before["evaluation.json"][1]  # the same seed gives the same numbers
    iwae.run(result.experiment)  # and asked for as before, it is the finished run it was
    assert changed(after, state(folder)) <= {"experiment.json", ".lock"}


def test_a_finished_run_answers_without_tensorflow(done):
    """So is a changed parameter refused."""
    result, _ = done
    program = (
        "import json, sys; from iwae import config; from iwae.cli import running\n"
        "given = config.from_dict(json.loads(sys.argv[1]))\n"
        "print(running.execute([given]), running.execute([config.replace(given, {'model.k': 3})]))\n"
        "print(sorted({'tensorflow', 'keras'} & set(sys.modules)))"
    )
    words = [sys.executable, "-c", program, json.dumps(config.to_dict(result.experiment))]
    ended = subprocess.run(words, capture_output=True, text=True, check=True)
    assert ended.stdout == f"{result.summary()}\n0 2\n[]\n"
    assert "model.k was 2, is 3" in ended.stderr and len(ended.stderr.splitlines()) == 1


def test_a_finished_run_of_a_file_that_changed_is_refused_without_tensorflow(tmp_path):
    """The file is as `Data.name` has it: the results are not of what is in it now."""
    np.savez(tmp_path / "own.npz", x_train=np.eye(20, 4, dtype=np.uint8), x_test=np.eye(4, dtype=np.uint8))
    made = experiment(tmp_path, **{"data.name": str(tmp_path / "own.npz"), "data.batch_size": 5, "tasks": ["train"]})
    folder = Folder(made.run_dir)
    folder.path.mkdir()
    folder.write_experiment(made, {"dataset_fingerprint": load_data(made).fingerprint})
    folder.write_weights(b"weights")
    assert finished(made) == f"tiny (own, IWAE, k = 2): {folder}"
    np.savez(tmp_path / "own.npz", x_train=1 - np.eye(20, 4, dtype=np.uint8), x_test=np.eye(4, dtype=np.uint8))
    with pytest.raises(RunError, match="expected the data that the run was trained on"):
        finished(made)
    assert finished(config.replace(made, {"tasks": ["train", "evaluate"]})) is None


def test_a_run_on_arrays_keeps_their_fingerprint_and_wants_them_again(tmp_path):
    given = {"x_train": np.eye(40, 4), "x_test": np.eye(4), "y_test": ["a", "b", "c", "d"]}
    asked = experiment(tmp_path, **{"data.batch_size": 20, "tasks": ["train", "evaluate"]})
    result = iwae.run(asked, dataset=given)
    values, folder = json.loads(result.folder.experiment_json.read_text()), result.folder
    assert values["data"]["name"] == "arrays" and result.title == "tiny (arrays, IWAE, k = 2)"
    assert values["environment"]["dataset_fingerprint"] == load_data(asked, given).fingerprint
    loaded = iwae.load_run(folder, dataset=given)
    assert loaded.evaluation == result.evaluation and loaded.dataset.classes == ("a", "b", "c", "d")
    assert finished(result.experiment) == result.summary()
    others = given | {"x_test": 1 - np.eye(4)}
    for refused in (lambda: iwae.load_run(folder, others), lambda: iwae.run(asked, dataset=others)):
        with pytest.raises(RunError, match="expected the data that the run was trained on"):
            refused()
    for refused in (lambda: iwae.load_run(folder), lambda: iwae.run(result.experiment)):
        with pytest.raises(iwae.ConfigError, match=r"hand them over again, .*iwae.load_run\(folder, dataset=\.\.\.\)"):
            refused()
    with pytest.raises(iwae.ConfigError, match="data.name was 'arrays', is 'digits'"):
        iwae.run(asked)
    with pytest.raises(iwae.ConfigError, match="^dataset: arrays: x_test is missing"):
        iwae.run(asked, dataset={"x_train": np.eye(4)})


@pytest.fixture
def copied(done, tmp_path):
    """The experiment and the folder of a copy of the run."""
    result, folder = done
    shutil.copytree(folder, tmp_path / "tiny")
    return config.replace(result.experiment, {"results_dir": str(tmp_path)}), tmp_path / "tiny"


def test_an_evaluation_with_fewer_samples_does_not_replace_one_with_more(copied, capsys):
    made, folder = copied
    before = state(folder)
    less = iwae.run(config.replace(made, {"tasks": ("evaluate",), "evaluation.k": 2, "evaluation.examples": 30}))
    assert less.evaluation["test"]["k"] == 2
    after = state(folder)
    for name in ("evaluation.json", "likelihoods.npz"):
        assert after[f"overwritten-1/{name}"][1] == before[name][1] != after[name][1]
    assert f"L_5 of 20 test examples: kept in {folder / 'overwritten-1'}\n" in capsys.readouterr().out
    iwae.run(config.replace(made, {"tasks": ("evaluate",), "evaluation.examples": 30}))  # more of both
    assert not (folder / "overwritten-2").exists()


def test_a_task_with_its_own_parameters_leaves_the_run_as_it_is(copied, capsys):
    made, folder = copied
    few = {"evaluation.k": 3, "evaluation.tightness_examples": 2, "evaluation.ais_steps": 2, "evaluation.snr_k": [1, 2]}
    few |= {"evaluation.snr_samples": 8, "evaluation.posterior_inputs": [0, 1], "tasks": ("tightness", "snr")}
    test = iwae.run(config.replace(made, few)).evaluation["test"]
    assert (test["k"], test["ais"]["k"]) == (5, 3)
    out = capsys.readouterr().out
    assert re.search(r"tightness, 2 test examples, in nats:\n  L_3 -\d+\.\d\d \+- .*annealed.*\n.*L_3.*\n  Pareto", out)
    assert re.search(r"gradient, 2 test examples:\n  estimator +k = +1 +2\n  reparameterized +encoder +\d", out)
    assert finished(made) is not None  # nothing is left to do: no L_5000 is measured anew
    recorded = Folder(folder).read_experiment()
    assert recorded.tasks == ("train", "evaluate", "plot", "tightness", "snr") and finished(recorded) is not None


@pytest.mark.parametrize(
    "schedule",
    [
        {},
        pytest.param({"schedule": "multistep", "milestones": [1, 3], "epochs": 2}, marks=pytest.mark.slow),
        pytest.param({"schedule": "constant", "epochs": 2, "optimizer": "rotated_adam"}, marks=pytest.mark.slow),
    ],
)
def test_a_finished_run_is_trained_on_as_if_asked_at_once(tmp_path, schedule):
    short = {f"training.{name}": value for name, value in schedule.items()} | {"tasks": ("train", "evaluate")}
    longer = short | {"training.epochs": 4} if schedule else short | {"training.stages": 2}
    first = iwae.run(experiment(tmp_path, **short))
    before, folder = state(first.folder.path), first.folder.path
    on = iwae.run(experiment(tmp_path, **longer))
    once = iwae.run(experiment(tmp_path / "at once", **longer))
    for one, two in zip(on.model.variables, once.model.variables, strict=True):
        np.testing.assert_array_equal(one, two)
    nll, at_once, of_first = (result.evaluation["test"]["nll"] for result in (on, once, first))
    assert nll == at_once != of_first
    assert [row["train_bound"] for row in log.read(on.folder.log)] == [
        row["train_bound"] for row in log.read(once.folder.log)
    ]
    name = "epochs was 2, is 4" if schedule else "stages was 1, is 2"
    (change,) = on.folder.environment()["changed_parameters"]
    assert re.fullmatch(rf"after update \d+: training\.{name}", change)
    for name in ("model.weights.h5", "evaluation.json"):
        assert state(folder)[f"overwritten-1/{name}"][1] == before[name][1]
    assert finished(experiment(tmp_path, **longer)) is not None


def test_a_task_that_is_interrupted_leaves_the_parameters_of_what_is_there(copied, monkeypatch):
    """So that the same command does it, and what lies there is never taken for what was asked."""
    made, folder = copied
    before = state(folder)
    other = {"evaluation.examples": 60, "evaluation.active_unit_threshold": 1e6}
    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr(evaluation, "evaluate", raising(KeyboardInterrupt))
        iwae.run(config.replace(made, {"tasks": ["evaluate", "plot"], **other}))
    assert changed(before, state(folder)) <= {".lock"}
    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr("iwae.diagnostics.plot.figures_of", raising(KeyboardInterrupt))
        iwae.run(config.replace(made, {"tasks": ["evaluate", "plot"], **other, "evaluation.posterior_inputs": (1,)}))
    here = Folder(folder).read_experiment().evaluation
    assert (here.examples, here.active_unit_threshold, here.posterior_inputs) == (60, 1e6, ())
    assert Folder(folder).read_evaluation()["test"]["examples"] == 60


def test_a_run_that_cannot_be_trained_on_says_what_to_do(copied):
    made, folder = copied
    stopped = {"training.schedule": "constant", "training.epochs": 3, "training.early_stopping_patience": 1}
    Folder(folder).write_experiment(config.replace(made, stopped), {})
    before = state(folder)  # with the log of one epoch
    words = r"\(training.epochs was 3, is 9\): it was stopped early, after epoch 1, and .*; choose .*start-from .*tiny,"
    with pytest.raises(iwae.ConfigError, match=words):
        iwae.run(config.replace(made, stopped | {"training.epochs": 9}))
    assert state(folder) == before
    Folder(folder).write_experiment(made, {})
    shutil.rmtree(folder / "checkpoints")
    before = state(folder)
    words = (
        r"cannot be trained on \(training.stages was 1, is 2\): .*checkpoints has no checkpoint; .*start-from .*tiny,"
    )
    with pytest.raises(iwae.ConfigError, match=words):
        iwae.run(config.replace(made, {"training.stages": 2}))
    folder = Folder(folder)
    cosine = {"training.schedule": "cosine", "training.epochs": 1}
    folder.write_experiment(config.replace(made, cosine), folder.environment())
    with pytest.raises(iwae.ConfigError, match=r"epochs was 1, is 2\): its schedule 'cosine' ended at zero; choose"):
        iwae.run(config.replace(made, cosine | {"training.epochs": 2}))
    assert changed(before, state(folder.path)) <= {".lock", "experiment.json"}
    with pytest.raises(iwae.ConfigError, match=r"holds a run with other parameters"):  # shorter
        iwae.run(config.replace(made, {"training.epochs": 1, "training.schedule": "constant"}))


def test_callbacks_are_called_in_training(tmp_path):
    class Epochs(keras.callbacks.Callback):
        def __init__(self):
            super().__init__()
            self.bounds = []

        def on_epoch_end(self, epoch, logs=None):
            self.bounds.append(logs["valid_bound"])

    epochs, made = Epochs(), experiment(tmp_path, **{"tasks": ["train"], "training.stages": 2})
    result = iwae.run(made, callbacks=[epochs])
    assert epochs.bounds == [row["valid_bound"] for row in log.read(result.folder.log)] and len(epochs.bounds) == 4


@pytest.mark.slow
def test_a_callback_ends_training_with_an_epoch_that_is_whole(tmp_path, capsys):
    """Although it says so after the first block; asked for more epochs the run goes on."""

    class Stop(keras.callbacks.Callback):
        def on_train_batch_end(self, batch, logs=None):
            self.model.stop_training = True

    changes = {"tasks": ["train"], "training.schedule": "constant", "training.updates_per_call": 4}
    made = experiment(tmp_path, **changes, **{"training.epochs": 3})
    result = iwae.run(made, callbacks=[Stop()])
    assert "stopped early, after epoch 1 of 3: a callback wanted it" in capsys.readouterr().err
    (row,) = log.read(result.folder.log)
    assert row["updates"] == math.ceil(len(result.dataset.train) / made.data.batch_size) > 4
    assert finished(made) is not None
    iwae.run(config.replace(made, {"training.epochs": 4}))
    assert [row["epoch"] for row in log.read(result.folder.log)] == [1, 2, 3, 4]


def test_a_run_is_loaded(done):
    result, folder = done
    loaded = iwae.load_run(folder)
    assert loaded.experiment.model == result.experiment.model and loaded.evaluation == result.evaluation
    assert loaded.dataset.fingerprint == result.dataset.fingerprint
    x = loaded.images("test")[:3]
    assert set(np.unique(x)) == {0.0, 1.0}
    np.testing.assert_array_equal(x, loaded.images("test")[:3])  # one binarization
    np.testing.assert_array_equal(loaded.model.log_weights(x, 4, (1, 2)), result.model.log_weights(x, 4, (1, 2)))


def test_training_starts_from_another_run(done, tmp_path):
    result, folder = done
    start = experiment(tmp_path, **{"training.start_from": str(folder), "model.objective": "vae", "model.k": 1})
    model = build_model(start, result.dataset)
    for one, two in zip(model.trainable_variables, result.model.trainable_variables, strict=True):
        np.testing.assert_array_equal(one, two)
    other = experiment(tmp_path, **{"training.start_from": str(folder), "model.latent_units": (3,)})
    with pytest.raises(iwae.ConfigError, match=r"model\.latent_units: expected \(2,\) .*got \(3,\)"):
        build_model(other, result.dataset)


@pytest.mark.slow
def test_a_run_goes_on_without_the_one_that_it_started_from(done, tmp_path):
    """Its checkpoint holds all weights."""
    shutil.copytree(done[1], tmp_path / "first")
    start = {"training.start_from": str(tmp_path / "first"), "tasks": ["train"]}
    made = experiment(tmp_path, name="second", **start)
    longer = config.replace(made, {"training.stages": 2})
    once = iwae.run(config.replace(longer, {"name": "once"}))
    iwae.run(made)
    shutil.rmtree(tmp_path / "first")
    for one, two in zip(iwae.run(longer).model.variables, once.model.variables, strict=True):
        np.testing.assert_array_equal(one, two)


def test_the_likelihood_of_each_image_is_kept(done):
    result, folder = done
    with np.load(folder / "likelihoods.npz") as file:
        values, numbers, binarization = file["test"], file["test_numbers"], str(file["binarization"])
    entry = result.evaluation["test"]
    assert -values.mean(dtype=np.float64) == pytest.approx(entry["nll"], rel=1e-12)
    assert binarization == entry["binarization"]
    x = result.images("test")[numbers]  # and they are those of these images
    again = evaluation.importance_sample(result.model, x, entry["k"], result.experiment.seed)["log_likelihood_bound"]
    np.testing.assert_array_equal(values, again)


def test_the_numbers_of_images_are_kept_where_not_all_were_evaluated(tmp_path):
    result = iwae.run(experiment(tmp_path, tasks=("train", "evaluate"), **{"evaluation.examples": None}))
    with np.load(tmp_path / "tiny" / "likelihoods.npz") as file:
        assert set(file.files) == {"test", "binarization"} and len(file["test"]) == len(result.images("test"))


def test_test_images_have_the_same_pixels_for_all_seeds_and_training_images_have_not(done):
    dataset = done[0].dataset
    of_seed = [experiment("results", seed=seed, **{"data.binarization": "fixed"}) for seed in (1, 2)]
    for split, same in (("train", False), ("valid", True), ("test", True)):
        one, other = (prepared_images(dataset, split, each) for each in of_seed)
        assert np.array_equal(one, other) is same
    n = len(dataset.valid)
    grey = np.full((n, 64), 0.5, np.float32)
    halves = [loading.binarize(grey, "fixed", _SEEDS[split]) for split in ("valid", "test")]
    assert np.mean(halves[0] == halves[1]) < 0.55  # each split has numbers of its own


# ---- what is refused ----


def test_a_changed_parameter_is_refused_by_name_with_both_values(done):
    result, folder = done
    before = state(folder)
    with pytest.raises(iwae.ConfigError, match=r"model\.k was 2, is 3; .*training\.learning_rate was 0\.001, is 0\.01"):
        iwae.run(config.replace(result.experiment, {"model.k": 3, "training.learning_rate": 0.01}))
    assert changed(before, state(folder)) <= {".lock"}


def test_a_parameter_of_a_task_that_is_not_asked_for_may_differ(done):
    result, folder = done
    asked = set(result.experiment.tasks)
    others = {"evaluation.snr_samples": 7, "evaluation.ais_chains": 3, "evaluation.tightness_examples": 2}
    assert not asked & {"snr", "tightness"}
    assert Folder(folder).is_finished(config.replace(result.experiment, others))
    assert iwae.run(config.replace(result.experiment, others)).experiment == result.experiment  # as they were
    for task, name in (("snr", "evaluation.snr_samples"), ("tightness", "evaluation.ais_chains")):
        with pytest.raises(iwae.ConfigError, match=re.escape(name)):
            Folder(folder).is_finished(config.replace(result.experiment, {name: others[name], "tasks": (*asked, task)}))


def test_overwrite_starts_afresh(done, tmp_path):
    """The run before is moved aside, whole; files that are none of ours stay where they are."""
    folder = tmp_path / "tiny"
    (folder / "plots").mkdir(parents=True)
    old = config.to_dict(experiment(tmp_path, seed=6))
    (folder / "experiment.json").write_text(json.dumps(old))
    (folder / "model.weights.h5").write_bytes(b"old")
    (folder / "plots" / "old.png").write_bytes(b"old")
    (folder / "notes.txt").write_bytes(b"mine")
    new = experiment(tmp_path, tasks=("train",))
    with pytest.raises(iwae.ConfigError, match=r"seed was 6, is 5.*--overwrite"):
        iwae.run(new)
    assert (folder / "model.weights.h5").read_bytes() == b"old"
    fresh = iwae.run(config.replace(new, {"overwrite": True}))
    assert not (folder / "plots").exists() and not (folder / "evaluation.json").exists()
    assert (folder / "notes.txt").read_bytes() == b"mine"
    aside = folder / "overwritten-1"
    assert json.loads((aside / "experiment.json").read_text()) == old
    assert (aside / "model.weights.h5").read_bytes() == (aside / "plots" / "old.png").read_bytes() == b"old"
    result, _ = done
    for one, two in zip(fresh.model.variables, result.model.variables, strict=True):
        np.testing.assert_array_equal(one, two)  # the same seed gives the same run


@pytest.mark.parametrize(
    "refused",
    [{"data.batch_size": 5000}, {"tasks": ("evaluate",)}, {"training.start_from": "nowhere"}, {"data.name": "no.npz"}],
)
def test_a_refused_overwrite_leaves_the_run_as_it_is(done, tmp_path, refused):
    _, folder = done
    copy = shutil.copytree(folder, tmp_path / "tiny")
    before = state(copy)
    with pytest.raises((iwae.ConfigError, iwae.RunError)):
        iwae.run(experiment(tmp_path, overwrite=True, **refused))
    assert changed(before, state(copy)) <= {".lock"}


def test_a_refused_command_leaves_no_folder(tmp_path):
    with pytest.raises(iwae.ConfigError, match="no such file"):
        iwae.run(experiment(tmp_path, **{"data.name": str(tmp_path / "missing.npz")}))
    assert not list(tmp_path.iterdir())


def test_a_missing_file_leaves_no_folder_behind(tmp_path):
    with pytest.raises(iwae.ConfigError, match="no such file"):
        iwae.run(experiment(tmp_path / "new" / "results", **{"data.name": str(tmp_path / "missing.npz")}))
    assert not any(tmp_path.iterdir())


def test_a_folder_in_use_is_refused(tmp_path):
    (tmp_path / "tiny").mkdir()
    with open(tmp_path / "tiny" / ".lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with pytest.raises(iwae.RunError, match=r"tiny: another process is working on this run"):
            iwae.run(experiment(tmp_path))


def test_tasks_without_a_training_are_refused(tmp_path):
    with pytest.raises(iwae.RunError, match=r"model\.weights\.h5: expected the weights .*add 'train' to tasks"):
        iwae.run(experiment(tmp_path, tasks=("evaluate",)))


@pytest.mark.parametrize("content", [None, {}])
def test_a_folder_without_a_run_is_not_loaded(tmp_path, content):
    if content is not None:
        (tmp_path / "experiment.json").write_text(json.dumps(content))
    with pytest.raises(iwae.RunError, match=r"experiment\.json"):
        iwae.load_run(tmp_path)


def test_batches_larger_than_the_data_are_refused(tmp_path):
    with pytest.raises(iwae.ConfigError, match=r"data\.batch_size: expected at most the \d+ .*digits, got 5000"):
        iwae.run(experiment(tmp_path, **{"data.batch_size": 5000}))


def test_a_bound_that_is_not_finite_is_told_in_one_line(tmp_path, monkeypatch):
    error = training.NonFiniteBound("the bound is not finite at update 7 (epoch 2)")
    monkeypatch.setattr(training, "train", raising(error))
    with pytest.raises(iwae.RunError, match=r"^the bound is not finite at update 7 \(epoch 2\) \(run .*tiny\)$"):
        iwae.run(experiment(tmp_path))
    assert not (tmp_path / "tiny" / "model.weights.h5").exists()


@pytest.mark.slow
def test_a_lack_of_memory_is_told_in_one_line(tmp_path, capsys):
    """As TensorFlow tells it in `fit`, and NumPy in an evaluation."""

    def exhaust(*_, **__):
        raise tf.errors.ResourceExhaustedError(None, None, "Out of memory while trying to allocate 13.18GiB.\n\t[[x]]")

    made = experiment(tmp_path, **{"tasks": ["train"], "training.updates_per_call": 4})
    with pytest.raises(
        iwae.RunError, match=r"^\S+tiny: expected more memory \(for 13\.18GiB at once\); .* data\.batch"
    ):
        iwae.run(made, callbacks=[keras.callbacks.LambdaCallback(on_train_batch_end=exhaust)])
    assert "train 100%" not in capsys.readouterr().err  # the bar stays where it was
    iwae.run(made)
    with pytest.MonkeyPatch.context() as patched, pytest.raises(iwae.RunError, match=r"memory \(for 72\.8 TiB at"):
        patched.setattr(evaluation, "evaluate", raising(MemoryError("Unable to allocate 72.8 TiB for an array")))
        iwae.run(config.replace(made, {"tasks": ["train", "evaluate"]}))


def raising(error):
    def fail(*_, **__):
        raise error

    return fail


# ---- interruption ----


@pytest.mark.slow
def test_the_script_is_interrupted_and_continued(tmp_path):
    """SIGTERM in the middle of training, then the same command and Ctrl-C, then the same command to its end."""
    epochs = 80
    command = [
        *(sys.executable, "experiments.py", "--name", "tiny", "--results-dir", str(tmp_path), "--tasks", "train"),
        *("--data.batch-size", "100", "--model.k", "2", "--model.hidden-units", "16"),
        *("--training.schedule", "constant", "--training.epochs", str(epochs), "--training.updates-per-call", "4"),
    ]
    file = tmp_path / "tiny" / "log.csv"
    seen = 0
    for number, status in ((signal.SIGTERM, 143), (signal.SIGINT, 130)):
        process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        while len(log.read(file)) <= seen + 1 and process.poll() is None:
            time.sleep(0.005)
        process.send_signal(number)
        _, errors = process.communicate(timeout=60)
        assert process.returncode == status, errors
        assert "stopped; a checkpoint is in" in errors and "Traceback" not in errors
        assert not (tmp_path / "tiny" / "model.weights.h5").exists()
        rows = log.read(file)
        assert seen < len(rows) < epochs
        seen = len(rows)
    last = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert last.returncode == 0, last.stderr
    rows = log.read(file)
    assert [row["epoch"] for row in rows] == list(range(1, epochs + 1))
    assert [row["updates"] for row in rows] == [rows[0]["updates"] * epoch for epoch in range(1, epochs + 1)]
    assert (tmp_path / "tiny" / "model.weights.h5").exists()
