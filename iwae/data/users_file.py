"""A user's own data: arrays, an .npz, a .csv or a folder of images, and one clear line about what is wrong."""

import dataclasses
import io
import math
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import BinaryIO

import numpy as np
from numpy.typing import ArrayLike

from iwae.data.catalogue import ARRAYS, DatasetError, Kind, named
from iwae.data.dataset import SHUFFLE_SEED, SPLITS, Array, Dataset, assemble, pixels

KEYS = tuple(f"{what}_{split}" for what in "xy" for split in SPLITS)
IMAGES = (".png", ".jpg", ".jpeg")


def read_npz(path: Path | BinaryIO, keys: Sequence[str]) -> dict[str, Array]:
    """Those of `keys` that are in an .npz. Members are read to the end, where their checksum is; none is unpickled."""
    with zipfile.ZipFile(path) as archive:
        members = {key: f"{key}.npy" for key in keys if f"{key}.npy" in archive.namelist()}
        return {key: np.load(io.BytesIO(archive.read(member)), allow_pickle=False) for key, member in members.items()}


def load(path: Path, allow_real: bool) -> Dataset:
    """A user's dataset, as `loading.load_dataset` describes it; a DatasetError if it does not keep to that."""
    what = {".npz": "an .npz of plain arrays", ".csv": "a table of numbers"}.get(path.suffix, "a folder of images")
    try:
        if path.suffix == ".npz":
            arrays = read_npz(path, KEYS)
        else:
            arrays = _table(path, allow_real) if path.suffix == ".csv" else _pictures(path)
    except DatasetError:
        raise
    except FileNotFoundError:
        raise DatasetError(f"{path}: no such file") from None
    except Exception as error:  # readers raise many types on bytes that are none of theirs
        why = " ".join(str(error).split())
        raise DatasetError(f"{path}: expected {what}; reading it gave: {why}") from error
    return _dataset(str(path), arrays, allow_real, path.stem)


def of_arrays(given: Dataset | Mapping[str, ArrayLike], allow_real: bool) -> Dataset:
    """The dataset of arrays called as in an .npz, or of a Dataset, whose fingerprint may no longer be its own."""
    if isinstance(given, Dataset):
        shape, names = given.image_shape or given.train.shape[1:], np.array(given.classes)
        arrays = {f"x_{split}": np.reshape(getattr(given, split), (-1, *shape)) for split in SPLITS}
        labels = {f"y_{split}": y for split, y in given.labels.items() if y is not None}
        arrays |= {key: np.where(y < 0, "", names[y]) if given.classes else y for key, y in labels.items()}
        dataset = _dataset(ARRAYS, arrays, allow_real, given.name)
        return dataset if dataset.missing else dataclasses.replace(dataset, log_density=given.log_density)
    if not isinstance(given, Mapping) or not set(given) <= set(KEYS):
        found = ", ".join(map(str, given)) if isinstance(given, Mapping) else type(given).__name__
        raise DatasetError(f"expected a Dataset or a dictionary of {', '.join(KEYS)}, got {found}")
    arrays = {key: np.asarray(values) for key, values in given.items() if values is not None}
    return _dataset(ARRAYS, arrays, allow_real, ARRAYS)


def _dataset(where: str, arrays: dict[str, Array], allow_real: bool, name: str) -> Dataset:
    for key in ("x_train", "x_test"):
        if key not in arrays:
            names = np.load(where, allow_pickle=False).files if where.endswith(".npz") else arrays
            found = ", ".join(names) or "nothing"
            raise DatasetError(f"{where}: {key} is missing; expected x_train and x_test, found {found}")
    shape: tuple[int, ...] = arrays["x_train"].shape[1:]
    examples = {key: x for key, x in arrays.items() if key[0] == "x"}
    for key, x in examples.items():
        _check_shape(f"{where}: {key}", x, shape)
    are_pixels = all([_check_values(f"{where}: {key}", x, allow_real) for key, x in examples.items()])
    labels = {key: _plain(y) for key, y in arrays.items() if key[0] == "y"}
    for key, y in labels.items():
        of = f"x{key[1:]}"
        if of not in arrays:
            raise DatasetError(f"{where}: {key} is there, but {of} is missing")
        n = len(arrays[of])
        if y.dtype.kind not in "biuU" or y.shape != (n,):
            given = f"{y.dtype} {list(y.shape)}"
            raise DatasetError(f"{where}: {key}: expected integers or names [{n}], one an example, got {given}")
    classes: tuple[str, ...] = ()
    if any(y.dtype.kind == "U" for y in labels.values()):
        names, numbers = np.unique(np.concatenate([y.astype(str) for y in labels.values()]), return_inverse=True)
        parts = np.split(numbers, np.cumsum([len(y) for y in labels.values()])[:-1])
        classes, labels = tuple(map(str, names)), dict(zip(labels, parts, strict=True))
    white = 255 if any(x.dtype.kind != "f" and x.max() > 1 for x in examples.values()) else 1
    arrays = labels | {key: pixels(x, white) for key, x in examples.items()}
    missing = {key: np.isnan(arrays[key]) for key in examples}
    binary = are_pixels and all((missing[key] | np.isin(arrays[key], (0, 1))).all() for key in examples)
    kind: Kind = "binary" if binary else "grey" if are_pixels else "continuous"
    if "x_valid" not in arrays:
        n = len(arrays["x_train"])
        if n == 1:
            raise DatasetError(f"{where}: x_train: expected at least 2 examples without x_valid, which takes 1; got 1")
        for what in "xy":
            if (train := arrays.get(f"{what}_train")) is not None:
                arrays[f"{what}_train"], arrays[f"{what}_valid"] = np.split(train, [n - _tenth(n)])
    nothing = {f"{key}: example": values.all(axis=1) for key, values in missing.items()}
    nothing["x_train: column"] = np.isnan(arrays["x_train"]).all(axis=0)
    for what, empty in nothing.items():
        if empty.any():
            raise DatasetError(f"{where}: {what} {empty.argmax()}: expected a value, found all missing (NaN)")
    side = math.isqrt(shape[0])
    if are_pixels and len(shape) == 1 and side > 1 and side * side == shape[0]:
        shape = (side, side)
    shape = shape[:2] if shape[2:] == (1,) else shape
    share = float(np.mean(np.concatenate([values.ravel() for values in missing.values()])))
    return dataclasses.replace(assemble(name, arrays, kind, shape), classes=classes, missing=share)


def _tenth(n: int) -> int:
    return min(max(n // 10, 1), 10_000)


def _plain(y: Array) -> Array:
    """Labels; Python's own strings, as pandas has them, as NumPy's."""
    return y.astype(str) if y.dtype.kind == "O" and all(isinstance(name, str) for name in y.flat) else y


def _table(path: Path, allow_real: bool) -> dict[str, Array]:
    read = named("pandas:read_csv")
    first = read(path, header=None, nrows=1)
    numbered = (first == np.arange(first.shape[1])).all(axis=None)  # a header that pandas made
    headless = first.select_dtypes(exclude="number").empty and not numbered
    others_named = not headless or (first.iloc[0, 1:] == np.arange(first.shape[1] - 1)).all()
    if first.iloc[0, :1].isna().all() and others_named:  # else a value is missing
        hint = "if it numbers the rows, write the table without it (pandas: index=False)"
        raise DatasetError(f"{path}: expected a name of every column, found none of the first; {hint}")
    table = read(path, header=None if headless else 0, index_col=False)
    y = table.pop("label").to_numpy() if "label" in table else None
    split = table.pop("split").to_numpy() if "split" in table else np.full(len(table), "")
    for name, words in table.select_dtypes(exclude="number").items():
        hint = "(classes stand in a column that is called label)"
        raise DatasetError(f"{path}: column {name}: expected numbers {hint}, got {next(iter(words), None)!r}")
    x = table.to_numpy(float if allow_real else None)
    # Integers are grey values, unless the data are real numbers; an empty cell makes pandas take them for floats.
    if not allow_real and x.dtype.kind == "f" and np.isnan(x).any() and np.nanmax(x) > 1 and (x % 1 > 0).sum() == 0:
        x = np.where((x >= 0) & (x <= 255), x / 255, x)
    return _in_splits(path, x, y, split)


def _pictures(path: Path) -> dict[str, Array]:
    inside = [file.relative_to(path) for file in sorted(path.rglob("*")) if file.suffix.lower() in IMAGES]
    files = [file for file in inside if not any(part.startswith(".") for part in file.parts)]
    if not files:
        raise DatasetError(f"{path}: expected a folder of images ({', '.join(IMAGES)}), found none")
    x = [_picture(path / file) for file in files]
    for file, image in zip(files, x, strict=True):
        if image.shape != x[0].shape:
            size, first = ("{1} x {0}".format(*shape) for shape in (image.shape, x[0].shape))
            raise DatasetError(f"{path / file}: expected {first} pixels (width x height) as in {files[0]}, got {size}")
    split = [file.parts[0] if file.parts[0] in SPLITS else "" for file in files]
    classes = ["/".join(file.parts[bool(of) : -1]) for file, of in zip(files, split, strict=True)]
    if any(classes) and not all(classes):
        outside = files[classes.index("")]
        raise DatasetError(f"{path}: expected all images in folders of classes or none, found {outside}")
    return _in_splits(path, np.stack(x), np.array(classes) if any(classes) else None, np.array(split))


def _picture(path: Path) -> Array:
    try:
        with named("PIL.Image:open")(path) as image:
            if image.mode[0] in "IF":
                raise DatasetError(f"{path}: expected 8 bits a pixel, got mode {image.mode}")
            return np.asarray(image.convert("L"))
    except (OSError, SyntaxError) as error:
        raise DatasetError(f"{path}: expected an image; reading it gave: {error}") from None


def _in_splits(path: Path, x: Array, y: Array | None, split: Array) -> dict[str, Array]:
    """The arrays of an .npz: of examples [n, ...], labels [n] or None, and the split of each, or "" of all: train."""
    whole = (split == "").all()
    if not whole and not np.isin(split, SPLITS).all():
        found = ", ".join(sorted({str(name) or "none" for name in split}))
        raise DatasetError(f"{path}: expected every example in {', '.join(SPLITS)}, or all in none, found {found}")
    rows = {name: np.flatnonzero((split == name) | (whole & (name == "train"))) for name in SPLITS}
    rows["train"] = np.random.RandomState(SHUFFLE_SEED).permutation(rows["train"])  # files are often sorted by class
    if not len(rows["test"]):
        rows["train"], rows["test"] = np.split(rows["train"], [-_tenth(len(rows["train"]))])
    parts = {"x": x} if y is None else {"x": x, "y": y}
    return {f"{what}_{name}": of[chosen] for what, of in parts.items() for name, chosen in rows.items() if len(chosen)}


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
    if is_float and (bad := np.abs(x) > np.finfo(np.float32).max).any():  # NaN is a missing value
        raise DatasetError(f"{what}: expected finite float32 numbers, found {_first(x, bad)}")
    limit, expected = (1, "values in [0, 1]") if is_float else (255, "integers 0..255")
    outside = (x < 0) | (x > limit)
    if not outside.any() or (is_float and allow_real):
        return not outside.any()
    low, high = np.nanmin(x), np.nanmax(x)
    found = f"found {number(low)} to {number(high)}, first {_first(x, outside)}"
    if is_float and low >= 0 and 2 <= high <= 255:
        found += "; grey values 0..255 are to be divided by 255, or saved as uint8"
    raise DatasetError(f"{what}: expected {expected}, {found}")


def _first(x: Array, bad: Array) -> str:
    index = np.unravel_index(bad.argmax(), x.shape)
    return f"{number(x[index])} at {list(map(int, index))}"


def number(x: np.generic) -> str:
    """Short, with as many digits as tell it from its neighbours: 1 is not 1.0000001."""
    short = f"{x:g}"
    return str(x) if float(short) != x and np.isfinite(x) else short
