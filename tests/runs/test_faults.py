"""Damaged files, a full disk, numbers gone wrong: one clear line, nothing lost, nothing half-believed."""

import json
import os
import resource
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import tiny

import iwae
from iwae import config
from iwae.runs import checkpoints, log
from iwae.runs.folder import Folder
from iwae.sections import RunError

ROOT = Path(iwae.__file__).parents[1]


def experiment(results_dir, **changes):
    return tiny.experiment(results_dir, **{"tasks": ("train", "evaluate"), **changes})


@pytest.fixture(scope="module")
def done(tmp_path_factory):
    results = tmp_path_factory.mktemp("results")
    return iwae.run(experiment(results)).folder.path


@pytest.fixture
def folder(done, tmp_path):
    """A copy of a finished run in `tmp_path`."""
    return shutil.copytree(done, tmp_path / "tiny")


def measured(evaluation):
    """An evaluation without the checksum of the weights' file, in which Keras counts the layers of a process."""
    return {
        split: {name: value for name, value in entries.items() if name != "weights_sha256"}
        for split, entries in evaluation.items()
    }


def flip_a_byte(path):
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def cut_short(path):
    path.write_bytes(path.read_bytes()[:-100])


# ---- damaged files of a finished run ----


@pytest.mark.parametrize("damage", [flip_a_byte, cut_short])
def test_damaged_weights_are_made_anew_from_the_checkpoint(done, folder, damage):
    weights = folder / "model.weights.h5"
    damage(weights)
    with pytest.raises(iwae.RunError, match=r"model\.weights\.h5: expected the bytes that were written"):
        iwae.load_run(folder)
    with pytest.raises(iwae.RunError, match=r"model\.weights\.h5: expected the bytes that were written"):
        iwae.run(experiment(folder.parent, tasks=("evaluate",)))
    with pytest.warns(UserWarning, match=r"model\.weights\.h5 is damaged; it is made anew from the last checkpoint"):
        run = iwae.run(experiment(folder.parent))
    before = iwae.load_run(done)
    for one, two in zip(iwae.load_run(folder).model.variables, before.model.variables, strict=True):
        np.testing.assert_array_equal(one, two)
    assert measured(run.evaluation) == measured(before.evaluation)


def test_damaged_weights_without_a_checkpoint_are_refused(folder):
    flip_a_byte(folder / "model.weights.h5")
    shutil.rmtree(folder / "checkpoints")
    with pytest.raises(iwae.RunError, match=r"model\.weights\.h5: expected the bytes that were written"):
        iwae.run(experiment(folder.parent))


def test_weights_of_another_model_are_refused(folder):
    (folder / "model.weights.h5.sha256").unlink()  # a run of an earlier version
    (folder / "model.weights.h5").write_bytes(b"these are no weights")
    with pytest.raises(iwae.RunError, match=r"model\.weights\.h5: expected the weights of this model, got an error"):
        iwae.load_run(folder)


@pytest.mark.parametrize("content", [b'{"test": {"exam', b"\xff\xfe", b"[]"])
def test_a_damaged_evaluation_is_named_and_made_anew(done, folder, content):
    (folder / "evaluation.json").write_bytes(content)
    with pytest.raises(iwae.RunError, match=r"evaluation\.json: expected (JSON|named values), got"):
        iwae.load_run(folder)
    assert not Folder(folder).is_finished(experiment(folder.parent))
    with pytest.warns(UserWarning, match=r"evaluation\.json: expected (JSON|named values), got.*; it is made anew"):
        iwae.run(experiment(folder.parent))
    assert (folder / "evaluation.json").read_bytes() == (done / "evaluation.json").read_bytes()


@pytest.mark.parametrize(
    "content", [b'{"name": "ti', b"\xff\xfe", b"[]", b'{"name": 3}', b'{"training": {"stages": 0}}']
)
def test_damaged_parameters_are_named(folder, content):
    (folder / "experiment.json").write_bytes(content)
    for act in (lambda: iwae.load_run(folder), lambda: iwae.run(experiment(folder.parent))):
        with pytest.raises(iwae.RunError, match=r"experiment\.json: .*expected ") as error:
            act()
        assert "\n" not in str(error.value)


HEADER = ",".join(log.COLUMNS)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (f"{HEADER}\n1,13,0.001,-40,-39\n2,26,0.001,-40,-39,1,1\n", r"expected 7 numbers in line 2, got '1,13,"),
        (f"{HEADER}\n1,13,0.001,-40,x,1,1\n", r"expected 7 numbers in line 2"),
        ("epoch,updates\n1,13\n", r"expected the columns epoch,updates,learning_rate"),
        ("\x00\xff\n", r"expected "),
    ],
)
def test_a_damaged_log_is_named(tmp_path, text, message):
    path = tmp_path / "log.csv"
    path.write_bytes(text.encode("latin-1"))
    with pytest.raises(RunError, match=rf"log\.csv: {message}"):
        log.read(path)


def test_the_last_line_of_a_log_may_be_cut_short(tmp_path):
    path = tmp_path / "log.csv"
    path.write_text(f"{HEADER}\n1,13,0.001,-40,-39,1.5,800\n2,26,0.001,-38,-37,1.5,80")  # 800, or 8000?
    (row,) = log.read(path)
    assert row["epoch"] == 1 and row["images_per_second"] == 800


def test_a_log_lost_while_training_comes_back_from_the_checkpoint(done, folder):
    (folder / "model.weights.h5").unlink()
    (folder / "log.csv").write_bytes(b"\x00\x01")
    iwae.run(experiment(folder.parent))
    assert (folder / "log.csv").read_bytes() == (done / "log.csv").read_bytes()


def test_what_a_killed_process_left_is_removed(folder):
    """And nothing else: a name must be of our making."""
    (folder / ".experiment.json.99-0123abcd.part").write_bytes(b"half")
    others = (".depart", ".apart.d", "part_two", ".experiment.json.part")
    for name in others:
        (folder / name).write_bytes(b"mine")
    iwae.run(experiment(folder.parent))
    assert not (folder / ".experiment.json.99-0123abcd.part").exists()
    assert all((folder / name).read_bytes() == b"mine" for name in others)


# ---- what does not belong together ----


def test_an_evaluation_of_other_weights_is_made_anew(done, folder, capsys):
    """Weights and checkpoints deleted, as in a fresh clone, and trained again; and weights of another training.

    What was measured with the weights that are gone is moved aside.
    """
    planted = json.loads((folder / "evaluation.json").read_text())
    planted["test"]["nll"] = 1.0
    for old in ("", "0" * 64):
        if old:
            planted["test"]["weights_sha256"] = old
        else:
            (folder / "model.weights.h5").unlink()
            shutil.rmtree(folder / "checkpoints")
        (folder / "evaluation.json").write_text(json.dumps(planted))
        assert not Folder(folder).is_finished(experiment(folder.parent))
        was_there = {name: (folder / name).read_bytes() for name in ("evaluation.json", "log.csv", "experiment.json")}
        run = iwae.run(experiment(folder.parent))
        if not old:
            assert {name: (folder / "overwritten-1" / name).read_bytes() for name in was_there} == was_there
            assert "tiny: trained anew, its weights being gone or damaged; what" in capsys.readouterr().err
        assert measured(run.evaluation) == measured(json.loads((done / "evaluation.json").read_text()))
        assert run.evaluation["test"]["weights_sha256"] == Folder(folder).recorded_checksum() != "0" * 64
    assert Folder(folder).is_finished(experiment(folder.parent))


@pytest.mark.parametrize("lost", [(), ("model.weights.h5",)])
def test_weights_without_their_parameters_are_no_run_s(folder, lost):
    for name in ("experiment.json", *lost):
        (folder / name).unlink()
    with pytest.raises(iwae.RunError, match=r"experiment\.json: expected the parameters of the run whose weights"):
        iwae.run(experiment(folder.parent, seed=77))


def test_a_checkpoint_of_another_seed_is_refused(folder):
    (folder / "model.weights.h5").unlink()
    values = json.loads((folder / "experiment.json").read_text())
    (folder / "experiment.json").write_text(json.dumps(values | {"seed": 77}))
    with pytest.raises(iwae.RunError, match="expected a checkpoint of this run, got one of a run with other"):
        iwae.run(experiment(folder.parent, seed=77))


def test_a_refused_checkpoint_costs_no_evaluation(folder):
    """What is refused is refused before anything is written."""
    (folder / "model.weights.h5").unlink()
    flip_a_byte(next((folder / "checkpoints").glob("*.npz")))
    before = {name: (folder / name).read_bytes() for name in ("experiment.json", "evaluation.json", "log.csv")}
    with pytest.warns(UserWarning, match="is damaged and left out"):
        with pytest.raises(iwae.RunError, match="that are all damaged"):
            iwae.run(experiment(folder.parent, tasks=("train",)))
    assert {name: (folder / name).read_bytes() for name in before} == before


def test_other_data_than_the_run_was_trained_on_are_refused(folder):
    values = json.loads((folder / "experiment.json").read_text())
    values["environment"]["dataset_fingerprint"] = "0" * 64
    (folder / "experiment.json").write_text(json.dumps(values))
    for act in (lambda: iwae.load_run(folder), lambda: iwae.run(experiment(folder.parent))):
        with pytest.raises(iwae.RunError, match=r"expected the data that the run was trained on \(fingerprint 0000"):
            act()


def test_a_training_that_goes_on_under_other_conditions_says_so(folder):
    (folder / "model.weights.h5").unlink()
    values = json.loads((folder / "experiment.json").read_text())
    values["environment"]["tensorflow"] = "2.0"
    (folder / "experiment.json").write_text(json.dumps(values))
    with pytest.warns(UserWarning, match=r"goes on after update 13 under other conditions \(tensorflow was 2\.0, is "):
        iwae.run(experiment(folder.parent))
    environment = json.loads((folder / "experiment.json").read_text())["environment"]
    assert environment["tensorflow"] == "2.0"
    (stretch,) = environment["stretches"]
    assert stretch["from_update"] == 13 and list(stretch) == ["from_update", "tensorflow"]


def test_another_node_alone_is_noted_without_a_warning(folder):
    (folder / "model.weights.h5").unlink()
    values = json.loads((folder / "experiment.json").read_text())
    here, values["environment"]["node"] = values["environment"]["node"], "elsewhere"
    (folder / "experiment.json").write_text(json.dumps(values))
    iwae.run(experiment(folder.parent))
    environment = json.loads((folder / "experiment.json").read_text())["environment"]
    assert environment["node"] == "elsewhere" and environment["stretches"] == [{"from_update": 13, "node": here}]


# ---- where nothing can be written ----


@pytest.mark.slow
def test_a_full_disk_is_told_with_the_file(tmp_path):
    """A limit on the size of files stands for it: the first checkpoint does not fit."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, before[1]))
    try:
        with pytest.raises(iwae.RunError, match=r"checkpoints/0000000013\.npz: File too large$"):
            iwae.run(experiment(tmp_path))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert not list((tmp_path / "tiny" / "checkpoints").iterdir())
    iwae.run(experiment(tmp_path, tasks=("train",)))
    assert (tmp_path / "tiny" / "model.weights.h5").exists()


def test_a_folder_that_cannot_be_made_is_told(tmp_path):
    (tmp_path / "file").write_text("no folder")
    with pytest.raises(iwae.RunError, match=r"file/tiny: expected a folder that can be written, got: Not a directory"):
        iwae.run(experiment(tmp_path / "file"))


# ---- surroundings ----


@pytest.mark.slow
def test_a_run_needs_no_display_no_home_no_utf8_and_no_folder_of_its_own(tmp_path):
    """The default experiment made small, from another folder, its results under a name that is not ASCII."""
    options = "--name tiny --training.epochs 1 --model.k 2 --evaluation.k 5 --evaluation.examples 20".split()
    strange = {"HOME": "/proc/none", "LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    kept = {
        name: value for name, value in os.environ.items() if name not in ("DISPLAY", "XDG_CACHE_HOME", "MPLBACKEND")
    }
    done = subprocess.run(
        [sys.executable, ROOT / "experiments.py", *options, "--results-dir", "r\u00e9sultats"],
        cwd=tmp_path, env=kept | strange, capture_output=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr.decode()
    folder = tmp_path / "r\u00e9sultats" / "tiny"
    assert (folder / "plots" / "active_units.png").exists() and list((folder / "tensorboard").rglob("events*"))
    assert b"Traceback" not in done.stderr and b"GeneratorDataset" not in done.stderr


# ---- numbers gone wrong ----


@pytest.mark.slow
def test_a_run_gone_wrong_continues_with_other_training_parameters(tmp_path):
    training = {"training.schedule": "multistep", "training.epochs": 2, "training.milestones": (1,)}
    wrong = experiment(tmp_path, tasks=("train",), **training, **{"training.gamma": 1e30})
    with pytest.raises(
        iwae.RunError, match=r"not finite at update 1[4-9] \(epoch 2\); not finite first.*samples z1; try"
    ):
        iwae.run(wrong)
    folder = tmp_path / "tiny"
    assert checkpoints.latest_update(folder / "checkpoints") == 13
    (row,) = log.read(folder / "log.csv")

    better = config.replace(wrong, {"training.gamma": 0.1})
    with pytest.raises(
        iwae.ConfigError, match=r"training\.gamma was 1e\+30, is 0\.1\); .*--accept-changes to continue"
    ):
        iwae.run(better)
    with pytest.raises(iwae.ConfigError, match=r"model\.k was 2, is 3") as error:
        iwae.run(config.replace(better, {"model.k": 3, "accept_changes": True}))
    assert "accept-changes" not in str(error.value)
    with pytest.raises(iwae.ConfigError, match=r"optimizer was 'adam', is 'rotated_adam'"):  # has other variables
        iwae.run(config.replace(better, {"training.optimizer": "rotated_adam", "accept_changes": True}))
    iwae.run(config.replace(better, {"accept_changes": True}))
    rows = log.read(folder / "log.csv")
    assert rows[0] == row and [row["epoch"] for row in rows] == [1, 2]
    environment = json.loads((folder / "experiment.json").read_text())["environment"]
    assert environment["changed_parameters"] == ["after update 13: training.gamma was 1e+30, is 0.1"]
    iwae.run(better)  # from now on these are its parameters
    with pytest.raises(iwae.ConfigError, match=r"training\.gamma was 0\.1, is 0\.2"):  # of a finished run none changes
        iwae.run(config.replace(better, {"training.gamma": 0.2, "accept_changes": True}))
