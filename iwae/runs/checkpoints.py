"""Checkpoints: everything needed to continue a run bit for bit, in files that are noticed when they are damaged.

A checkpoint is two files, `UPDATES.npz` (arrays by name) and `UPDATES.json` (what else there is to know, and a sha256
over both). Each is written whole, the .json last: a checkpoint without it does not exist. Nothing is ever unpickled,
and no file is touched whose name is not of that form.
"""

import hashlib
import io
import json
import math
import re
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from iwae import files
from iwae.runs import log
from iwae.sections import INT32_MAX, RunError, shown

FORMAT = 2  # arrays by the path of their variable; format 1 numbered them
KEPT = 2
_NAME = re.compile(r"\d{10}\.(npz|json)")


class CheckpointError(RunError):
    """There are checkpoints, but none can be continued from; the message is one line."""


def save(folder: Path, updates: int, arrays: Mapping[str, np.ndarray], state: Mapping[str, Any], run: str = "") -> Path:
    """Writes a checkpoint after `updates` updates, and removes all but the newest two. Returns its .npz.

    Args:
        folder: of the checkpoints.
        updates: number of updates, which is its name.
        arrays: by name.
        state: what else there is to know, as JSON has it.
        run: says which run this is a checkpoint of; `load` wants the same.
    """
    folder.mkdir(parents=True, exist_ok=True)
    buffer = io.BytesIO()
    np.savez(buffer, **arrays)  # type: ignore[arg-type]  # keys, not options
    content = buffer.getvalue()
    path = folder / f"{updates:010d}.npz"
    files.write_atomically(path, content)
    record = {**state, "updates": updates, "format": FORMAT, "run": run}
    record["sha256"] = _checksum(content, record)
    files.write_atomically(path.with_suffix(".json"), json.dumps(record, indent=1).encode())
    # Those with more updates are ones that this training did not continue from: they are damaged.
    kept = {record.stem for record in [r for r in _records(folder) if int(r.stem) <= updates][-KEPT:]}
    for entry in (*(entry for entry in _ours(folder) if entry.stem not in kept), *files.left_behind(folder)):
        entry.unlink()
    return path


def load(folder: Path, run: str | None = None) -> tuple[dict[str, np.ndarray], dict[str, Any]] | None:
    """The newest checkpoint that is whole: its arrays and its state. None if there never was one.

    A damaged one is named in a warning and the one before is taken. `run` is what `save` was told; None: any.

    Raises:
        CheckpointError: there are checkpoints and all are damaged, or the newest whole one is of another run or format.
        OSError: one cannot be read, for want of permission for instance, which is no damage.
    """
    records = _records(folder)[::-1]
    for record in records:
        try:
            state = json.loads(record.read_bytes())
            content = record.with_suffix(".npz").read_bytes()
            if state["sha256"] != _checksum(content, state):
                raise ValueError("its contents do not have the checksum they were written with")
            with np.load(io.BytesIO(content), allow_pickle=False) as arrays:
                found = dict(arrays)
            if state.get("format") == FORMAT:
                _check(state, found, int(record.stem))
        except (FileNotFoundError, ValueError, KeyError, TypeError, ArithmeticError, RecursionError) as error:
            warnings.warn(f"checkpoint {record.with_suffix('')} is damaged and left out: {error}", stacklevel=2)
            continue
        if state.get("format") != FORMAT:
            raise CheckpointError(
                f"{record}: expected a checkpoint of format {FORMAT}, got format {state.get('format', 1)}, of another "
                "version of this program: continue the run with that version"
            )
        if run is not None and state.get("run") != run:
            raise CheckpointError(
                f"{record}: expected a checkpoint of this run, got one of a run with other parameters or data"
            )
        return found, state
    if records:
        raise CheckpointError(
            f"{folder}: expected a checkpoint that can be read, got {len(records)} that are all damaged; "
            "start afresh with --overwrite"
        )
    return None


def latest_update(folder: Path) -> int:
    """The number of updates in the newest checkpoint; 0 if there is none."""
    return max((int(record.stem) for record in _records(folder)), default=0)


def _records(folder: Path) -> list[Path]:
    """The .json of every checkpoint, in order."""
    return [path for path in _ours(folder) if path.suffix == ".json"]


def _ours(folder: Path) -> list[Path]:
    return sorted(path for path in folder.glob("*") if _NAME.fullmatch(path.name) and not path.is_dir())


def _check(state: Mapping[str, Any], arrays: Mapping[str, np.ndarray], updates: int) -> None:
    """Raises an error if what a training says of itself is not there or cannot be: a checksum proves no sense."""
    for name in ("epoch", "update", "waited", "updates"):
        if type(state[name]) is not int or not 0 <= state[name] <= INT32_MAX:
            raise ValueError(f"{name} is {shown(state[name])}")
    for name in ("seconds", "best"):
        if not (
            type(state[name]) in (int, float) and math.isfinite(state[name]) or (name, state[name]) == ("best", None)
        ):
            raise ValueError(f"{name} is {shown(state[name])}")
    if type(state["stopped"]) is not bool or state["seconds"] < 0:
        raise ValueError(f"stopped is {shown(state['stopped'])}, seconds {shown(state['seconds'])}")
    if state["updates"] != updates or state["update"] > updates:
        raise ValueError(f"{shown(state['updates'])} updates, {state['update']} of them in the epoch under way")
    if len(log.parse(arrays["log"])) != state["epoch"]:
        raise ValueError(f"{state['epoch']} epochs, with {len(arrays['log'])} rows of the log")


def _checksum(content: bytes, record: Mapping[str, Any]) -> str:
    """sha256 over the arrays' file and the record without its own checksum, in one spelling."""
    rest = {name: value for name, value in record.items() if name != "sha256"}
    return hashlib.sha256(content + json.dumps(rest, sort_keys=True).encode()).hexdigest()
