"""Checkpoints: written whole or not at all, read whole or refused."""

import json
import os
import warnings
from pathlib import Path

import numpy as np
import pytest

from iwae import files
from iwae.runs import checkpoints
from iwae.runs.checkpoints import CheckpointError

ARRAYS = {
    "model/000": np.float32([[1.5, -2], [3, np.pi]]),
    "model/001": np.float32(7),
    "optimizer/000": np.int64([2**40]),
    "tracker/000": np.zeros((0, 3), np.float32),
    "log": np.ones((3, 7)),
}
STATE = {"epoch": 3, "update": 1, "seconds": 12.25, "waited": 0, "best": None, "stopped": False}


def save(folder, updates, arrays=ARRAYS):
    return checkpoints.save(folder, updates, arrays, STATE)


def loaded_quietly(folder):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return checkpoints.load(folder)


def names(folder):
    return sorted(entry.name for entry in folder.iterdir())


def test_what_is_saved_is_loaded(tmp_path):
    save(tmp_path / "new" / "folder", 12)
    arrays, state = checkpoints.load(tmp_path / "new" / "folder")
    assert list(arrays) == list(ARRAYS)
    for name, values in ARRAYS.items():
        assert arrays[name].dtype == values.dtype and arrays[name].shape == values.shape
        np.testing.assert_array_equal(arrays[name], values)
    assert {name: state[name] for name in STATE} == STATE and state["updates"] == 12


def test_there_is_none(tmp_path):
    assert checkpoints.load(tmp_path) is None
    assert checkpoints.load(tmp_path / "not there") is None


def test_the_newest_is_loaded_and_two_are_kept(tmp_path):
    for updates in (9, 80, 700):
        save(tmp_path, updates)
    assert checkpoints.load(tmp_path)[1]["updates"] == 700
    assert names(tmp_path) == [f"{updates:010d}.{kind}" for updates in (80, 700) for kind in ("json", "npz")]


def test_what_a_killed_process_left_is_removed(tmp_path):
    save(tmp_path, 1)
    (tmp_path / "0000000002.npz").write_bytes(b"its .json was never written")
    (tmp_path / ".0000000002.json.99-0123abcd.part").write_bytes(b"{")
    assert checkpoints.load(tmp_path)[1]["updates"] == 1
    save(tmp_path, 3)
    assert names(tmp_path) == [f"{updates:010d}.{kind}" for updates in (1, 3) for kind in ("json", "npz")]


def test_files_of_others_stay(tmp_path):
    """Also those that sort late, folders, and what only looks like ours."""
    others = ("notes.json", "99999999999.json", "zzzz.npz", ".depart", "my.part", "0000000009.json.bak")
    for name in others:
        (tmp_path / name).write_text("mine")
    (tmp_path / "0000000007.npz").mkdir()
    for updates in (1, 2, 3):
        save(tmp_path, updates)
    assert all((tmp_path / name).read_text() == "mine" for name in others) and (tmp_path / "0000000007.npz").is_dir()
    assert checkpoints.load(tmp_path)[1]["updates"] == 3 == checkpoints.latest_update(tmp_path)


def test_a_checkpoint_of_another_run_is_refused(tmp_path):
    checkpoints.save(tmp_path, 1, ARRAYS, STATE, run="seed 77")
    assert checkpoints.load(tmp_path, "seed 77")
    with pytest.raises(CheckpointError, match="expected a checkpoint of this run, got one of a run with other param"):
        checkpoints.load(tmp_path, "seed 5")


def test_a_checkpoint_of_the_format_before_is_refused(tmp_path, monkeypatch):
    """Its arrays were numbered: they could get into the wrong variables."""
    monkeypatch.setattr(checkpoints, "FORMAT", 1)
    save(tmp_path, 1)
    monkeypatch.undo()
    with pytest.raises(CheckpointError, match="expected a checkpoint of format 2, got format 1, of another version"):
        checkpoints.load(tmp_path)


def test_what_cannot_be_read_for_want_of_permission_is_no_damage(tmp_path, monkeypatch):
    save(tmp_path, 1)

    def denied(path):
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(Path, "read_bytes", denied)
    with pytest.raises(PermissionError):
        checkpoints.load(tmp_path)


def flip_a_byte(path):
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def cut_short(path):
    path.write_bytes(path.read_bytes()[:-7])


def empty(path):
    path.write_bytes(b"")


def another_state(path):
    path.write_text(path.read_text().replace('"epoch": 3', '"epoch": 7'))


def no_json(path):
    path.write_bytes(b"\xff\xfe not json")


def other_json(path):
    path.write_text("[1, 2]")


def no_checksum(path):
    path.write_text(json.dumps(STATE))


DAMAGES = [
    (".npz", flip_a_byte),
    (".npz", cut_short),
    (".npz", empty),
    (".npz", os.unlink),
    (".json", flip_a_byte),
    (".json", cut_short),
    (".json", empty),
    (".json", no_json),
    (".json", other_json),
    (".json", no_checksum),
    (".json", another_state),
]


@pytest.mark.parametrize(("kind", "damage"), DAMAGES, ids=[f"{kind[1:]}-{f.__name__}" for kind, f in DAMAGES])
def test_a_damaged_one_is_named_and_the_one_before_taken(tmp_path, kind, damage):
    save(tmp_path, 1)
    newest = save(tmp_path, 2)
    damage(newest.with_suffix(kind))
    with pytest.warns(UserWarning, match=r"checkpoint .*0000000002 is damaged and left out: "):
        arrays, state = checkpoints.load(tmp_path)
    assert state["updates"] == 1
    np.testing.assert_array_equal(arrays["model/000"], ARRAYS["model/000"])


@pytest.mark.parametrize(
    ("arrays", "state"),
    [
        *(({}, {name: value}) for name in ("epoch", "update", "waited") for value in ("x", None, -1, 10**400, True)),
        *(({}, {name: value}) for name in ("seconds", "best") for value in ("x", [], float("nan"))),
        ({}, {"seconds": None}),
        ({}, {"stopped": 0}),
        ({}, {"update": 3}),
        ({}, {"epoch": 2}),
        ({"log": np.ones((3, 6))}, {}),
        ({"log": np.full((3, 7), np.inf)}, {}),
        ({"log": np.array(["x"])}, {}),
    ],
)
def test_one_that_makes_no_sense_is_damaged(tmp_path, arrays, state):
    """Though its checksum is right."""
    save(tmp_path, 1)
    checkpoints.save(tmp_path, 2, ARRAYS | arrays, STATE | state)
    with pytest.warns(UserWarning, match=r"checkpoint .*0000000002 is damaged and left out: "):
        assert checkpoints.load(tmp_path)[1]["updates"] == 1


def test_all_damaged_is_an_error(tmp_path):
    for updates in (1, 2):
        flip_a_byte(save(tmp_path, updates))
    with pytest.raises(CheckpointError, match=r"expected a checkpoint that can be read, got 2 .* damaged; .*overwrite"):
        loaded_quietly(tmp_path)


def test_nothing_is_unpickled(tmp_path):
    """Not even from a file whose checksum is right."""
    harmful = {"model/000": np.array([{"a": 1}], dtype=object)}
    with pytest.raises(CheckpointError):
        save(tmp_path, 1, harmful)
        loaded_quietly(tmp_path)


def test_a_failed_write_leaves_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "file"
    files.write_atomically(path, b"before")

    def full(_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        files.write_atomically(path, b"after")
    assert path.read_bytes() == b"before" and names(tmp_path) == ["file"]


@pytest.mark.parametrize("writes", [0, 1])
def test_a_save_that_is_broken_off_leaves_the_checkpoint_before(tmp_path, monkeypatch, writes):
    """Whether it ends before the arrays or between them and the .json."""
    save(tmp_path, 1)
    replace, done = os.replace, []

    def replace_or_die(*paths):
        if len(done) == writes:
            raise KeyboardInterrupt
        done.append(replace(*paths))

    monkeypatch.setattr(os, "replace", replace_or_die)
    with pytest.raises(KeyboardInterrupt):
        save(tmp_path, 2)
    assert checkpoints.load(tmp_path)[1]["updates"] == 1
