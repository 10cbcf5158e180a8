"""Examples in three splits, and how they are put together from arrays."""

import hashlib
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from iwae.data.catalogue import Kind

Array = np.ndarray

SPLITS = ("train", "valid", "test")
DERIVED = ("fingerprint", "train_mean", "train_std")  # as in Dataset
SHUFFLE_SEED = 123  # of the fixed shuffles, as in the authors' code; no parameter changes it


@dataclass(frozen=True, eq=False)
class Dataset:
    """Examples in three splits.

    Attributes:
        name: Its name; of a user's file, the file name without .npz.
        train: Float32 [n, D]: pixels in [0, 1], row by row (`binary`, `grey`), or real numbers (`continuous`).
        valid: As `train`.
        test: As `train`.
        labels: By split name, int64 [n] or None.
        image_shape: (height, width) or in colour (height, width, 3), whose product is D; None if they are no images.
        kind: `binary` if every value is 0 or 1, `grey` for other pixels, `continuous` for real numbers.
        fingerprint: SHA-256, hexadecimal, of the values of the three splits.
        train_mean: Float32 [D], over the training examples.
        train_std: Float32 [D], over the training examples (divisor n).
        missing: The share of values that are not known, which are NaN.
        log_density: The true log p(x) of synthetic data, x [n, D] -> [n], nats; None where it is not known.
        classes: Names of the labels 0, 1, ..., where they have names.
    """

    name: str
    train: Array
    valid: Array
    test: Array
    labels: Mapping[str, Array | None]
    image_shape: tuple[int, ...] | None
    kind: Kind
    fingerprint: str
    train_mean: Array
    train_std: Array
    log_density: Callable[[Array], Array] | None = None
    classes: tuple[str, ...] = ()
    missing: float = 0.0

    def class_name(self, label: float) -> str:
        """What a label is called."""
        return self.classes[int(label)] if 0 <= label < len(self.classes) else f"{label:g}"


def assemble(
    name: str, arrays: Mapping[str, Array], kind: Kind, shape: tuple[int, ...], white: int = 1, log_density: Any = None
) -> Dataset:
    """From the arrays of a user's .npz (`loading.load_dataset`) with `x_valid`, and what is `DERIVED` if it is there.

    `shape` is that of an example, `white` the largest pixel value of integers.
    """
    examples = {split: pixels(arrays[f"x_{split}"], white) for split in SPLITS}
    labels = {split: arrays[f"y_{split}"].astype(np.int64) if f"y_{split}" in arrays else None for split in SPLITS}
    if not all(key in arrays for key in DERIVED):
        train = examples["train"]
        moments = (np.nanmean, np.nanstd) if np.isnan(train).any() else (np.mean, np.std)
        mean, std = (np.asarray(moment(train, axis=0, dtype=np.float64)) for moment in moments)
        arrays = {"fingerprint": np.array(_fingerprint(examples)), "train_mean": mean, "train_std": std}
    return Dataset(
        name=name,
        train=examples["train"],
        valid=examples["valid"],
        test=examples["test"],
        labels=labels,
        image_shape=shape if len(shape) > 1 else None,
        kind=kind,
        fingerprint=str(arrays["fingerprint"]),
        train_mean=arrays["train_mean"].astype(np.float32),
        train_std=arrays["train_std"].astype(np.float32),
        log_density=log_density,
    )


def _fingerprint(examples: Mapping[str, Array]) -> str:
    digest = hashlib.sha256()
    for split, x in examples.items():
        digest.update(f"{split} {x.shape}".encode())
        digest.update(np.ascontiguousarray(x, "<f4").data)
    return digest.hexdigest()


def with_valid(x: Array, y: Array, count: int, x_test: Array, y_test: Array) -> dict[str, Array]:
    """The arrays of a user's .npz; the last `count` of `x`, with labels `y`, are valid, the others train."""
    train = {"x_train": x[:-count], "y_train": y[:-count], "x_valid": x[-count:], "y_valid": y[-count:]}
    return train | {"x_test": x_test, "y_test": y_test}


def pixels(x: Array, white: int) -> Array:
    """float32 [n, D] in [0, 1] from [n, ...]: integers 0..white, or floats, which stay as they are."""
    flat = x.reshape(len(x), math.prod(x.shape[1:]))
    if x.dtype.kind == "f":
        return np.ascontiguousarray(flat, np.float32)
    return np.divide(flat, np.float32(white), dtype=np.float32)
