"""A user's own data: an .npz, and one clear line about what is wrong with it."""

import io
import math
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import BinaryIO

import numpy as np

from iwae.data.catalogue import DatasetError, Kind
from iwae.data.dataset import SPLITS, Array, Dataset, assemble, pixels

KEYS = tuple(f"{what}_{split}" for what in "xy" for split in SPLITS)


def read_npz(path: Path | BinaryIO, keys: Sequence[str]) -> dict[str, Array]:
    """Those of `keys` that are in an .npz. Members are read to the end, where their checksum is; none is unpickled."""
    with zipfile.ZipFile(path) as archive:
        members = {key: f"{key}.npy" for key in keys if f"{key}.npy" in archive.namelist()}
        return {key: np.load(io.BytesIO(archive.read(member)), allow_pickle=False) for key, member in members.items()}


def load(path: Path, allow_real: bool) -> Dataset:
    """The dataset of an .npz, as `loading.load_dataset` describes it; a DatasetError if it does not keep to that."""
    try:
        arrays = read_npz(path, KEYS)
    except FileNotFoundError:
        raise DatasetError(f"{path}: no such file") from None
    except Exception as error:  # readers of zip and npy raise many types on bytes that are neither
        why = " ".join(str(error).split())
        raise DatasetError(f"{path}: expected an .npz of plain arrays; reading it gave: {why}") from error
    for key in ("x_train", "x_test"):
        if key not in arrays:
            found = ", ".join(np.load(path, allow_pickle=False).files) or "nothing"
            raise DatasetError(f"{path}: {key} is missing; expected x_train and x_test, found {found}")
    shape: tuple[int, ...] = arrays["x_train"].shape[1:]
    examples = {key: x for key, x in arrays.items() if key[0] == "x"}
    for key, x in examples.items():
        _check_shape(f"{path}: {key}", x, shape)
    are_pixels = all([_check_values(f"{path}: {key}", x, allow_real) for key, x in examples.items()])
    for key, y in arrays.items():
        of = f"x{key[1:]}"
        if of not in arrays:
            raise DatasetError(f"{path}: {key} is there, but {of} is missing")
        n = len(arrays[of])
        if key != of and (y.dtype.kind not in "biu" or y.shape != (n,)):
            given = f"{y.dtype} {list(y.shape)}"
            raise DatasetError(f"{path}: {key}: expected integers [{n}], one an example, got {given}")
    white = 255 if any(x.dtype.kind != "f" and x.max() > 1 for x in examples.values()) else 1
    arrays |= {key: pixels(x, white) for key, x in examples.items()}
    binary = are_pixels and all(((arrays[key] == 0) | (arrays[key] == 1)).all() for key in examples)
    kind: Kind = "binary" if binary else "grey" if are_pixels else "continuous"
    if "x_valid" not in arrays:
        n = len(arrays["x_train"])
        if n == 1:
            raise DatasetError(f"{path}: x_train: expected at least 2 examples without x_valid, which takes 1; got 1")
        for what in "xy":
            if (train := arrays.get(f"{what}_train")) is not None:
                arrays[f"{what}_train"], arrays[f"{what}_valid"] = np.split(train, [n - min(max(n // 10, 1), 10_000)])
    side = math.isqrt(shape[0])
    if are_pixels and len(shape) == 1 and side > 1 and side * side == shape[0]:
        shape = (side, side)
    return assemble(path.stem, arrays, kind, shape[:2] if shape[2:] == (1,) else shape)


def _check_shape(what: str, x: Array, expected: tuple[int, ...]) -> None:
    if (x.ndim not in (2, 3) and x.shape[3:] not in ((1,), (3,))) or 0 in x.shape:
        shapes = "[n, D] or [n, height, width] or [n, height, width, 3]"
        raise DatasetError(f"{what}: expected {shapes} with at least one example, got {list(x.shape)}")
    if x.shape[1:] != expected:
        raise DatasetError(f"{what}: expected [n, {', '.join(map(str, expected))}] as x_train, got {list(x.shape)}")


def _check_values(what: str, x: Array, allow_real: bool) -> bool:
    """Whether all values are pixels; an error if there are others that may not be."""
    if x.dtype.kind not in "biuf":
        raise DatasetError(f"{what}: expected integers 0..255 or floats, got dtype {x.dtype}")
    is_float = x.dtype.kind == "f"
    if is_float and (bad := ~(np.abs(x) <= np.finfo(np.float32).max)).any():  # NaN, too
        raise DatasetError(f"{what}: expected finite float32 numbers, found {_first(x, bad)}")
    limit, expected = (1, "values in [0, 1]") if is_float else (255, "integers 0..255")
    outside = (x < 0) | (x > limit)
    if not outside.any() or (is_float and allow_real):
        return not outside.any()
    found = f"found {number(x.min())} to {number(x.max())}, first {_first(x, outside)}"
    if is_float and x.min() >= 0 and 2 <= x.max() <= 255:
        found += "; grey values 0..255 are to be divided by 255, or saved as uint8"
    raise DatasetError(f"{what}: expected {expected}, {found}")


def _first(x: Array, bad: Array) -> str:
    index = np.unravel_index(bad.argmax(), x.shape)
    return f"{number(x[index])} at {list(map(int, index))}"


def number(x: np.generic) -> str:
    """Short, with as many digits as tell it from its neighbours: 1 is not 1.0000001."""
    short = f"{x:g}"
    return str(x) if float(short) != x and np.isfinite(x) else short
