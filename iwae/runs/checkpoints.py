"""Checkpoints: everything needed to continue a run bit for bit, in files that are noticed when they are damaged.

A checkpoint is two files, `UPDATES.npz` (arrays by name) and `UPDATES.json` (what else there is to know, and a sha256
over both). Each is written under a temporary name, flushed to the disk and renamed, the .json last: a checkpoint
without it does not exist. Nothing is ever unpickled.
"""

import hashlib
import io
import json
import os
import warnings
from pathlib import Path

import numpy as np

KEPT = 2


class CheckpointError(RuntimeError):
    """There are checkpoints, but none can be trusted."""


def write_atomically(path: Path, content: bytes) -> None:
    """Writes a file so that, whatever happens, `path` holds either what it held before or all of `content`."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        with open(temporary, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except OSError as error:
        raise OSError(error.errno, error.strerror, str(path)) from None  # writing alone does not name the file
    finally:
        temporary.unlink(missing_ok=True)
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)  # the rename itself
    finally:
        os.close(folder)


def save(folder: Path, updates: int, arrays: dict[str, np.ndarray], state: dict) -> Path:
    """Writes a checkpoint after `updates` updates; leaves nothing in `folder` but the newest two. Returns its .npz."""
    folder.mkdir(parents=True, exist_ok=True)
    buffer = io.BytesIO()
    np.savez(buffer, **arrays)  # type: ignore[arg-type]
    content = buffer.getvalue()
    path = folder / f"{updates:010d}.npz"
    write_atomically(path, content)
    record = {**state, "updates": updates}
    record["sha256"] = _checksum(content, record)
    write_atomically(path.with_suffix(".json"), json.dumps(record, indent=1).encode())
    kept = [newest.stem for newest in sorted(folder.glob("*.json"))[-KEPT:]]
    for entry in folder.iterdir():
        if entry.stem not in kept:
            entry.unlink()  # older ones, and what a killed process left half written
    return path


def load(folder: Path) -> tuple[dict[str, np.ndarray], dict] | None:
    """The newest checkpoint that is whole: its arrays and its state. None if there never was one.

    A damaged one is named in a warning and the one before is taken.

    Raises:
        CheckpointError: there are checkpoints and all are damaged.
    """
    records = sorted(folder.glob("*.json"), reverse=True)
    for record in records:
        try:
            state = json.loads(record.read_bytes())
            content = record.with_suffix(".npz").read_bytes()
            if state["sha256"] != _checksum(content, state):
                raise ValueError("its contents do not have the checksum they were written with")
            with np.load(io.BytesIO(content), allow_pickle=False) as arrays:
                return dict(arrays), state
        except (OSError, ValueError, KeyError, TypeError) as error:
            warnings.warn(f"checkpoint {record.with_suffix('')} is damaged and left out: {error}", stacklevel=2)
    if records:
        raise CheckpointError(
            f"{folder}: expected a checkpoint that can be read, got {len(records)} that are all damaged; "
            "start afresh with --overwrite"
        )
    return None


def latest_update(folder: Path) -> int:
    """The number of updates in the newest checkpoint; 0 if there is none."""
    return max((int(record.stem) for record in folder.glob("*.json")), default=0)


def _checksum(content: bytes, record: dict) -> str:
    """sha256 over the arrays' file and the record without its own checksum, in one spelling."""
    rest = {name: value for name, value in record.items() if name != "sha256"}
    return hashlib.sha256(content + json.dumps(rest, sort_keys=True).encode()).hexdigest()
