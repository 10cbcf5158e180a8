"""Examples in three splits, and how they are put together from arrays."""

import hashlib
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np

from iwae.data.catalogue import Kind

Array = np.ndarray
LogDensity = Callable[[Array], Array]

SPLITS = ("train", "valid", "test")
SHUFFLE_SEED = 123  # of the fixed shuffles, as in the authors' code; no parameter changes it


@dataclass(frozen=True, eq=False)
class Dataset:
    """Examples in three splits.

    Attributes:
        name: Its name; of a user's file, the file name without .npz.
        train, valid, test: float32 [n, D]: pixels in [0, 1], row by row (`binary`, `grey`), or real numbers
            (`continuous`).
        labels: By split name, int64 [n] or None.
        image_shape: (height, width) with height * width = D; None if the examples are not images.
        kind: `binary` if every value is 0 or 1, `grey` for other pixels, `continuous` for real numbers.
        fingerprint: SHA-256, hexadecimal, of the values of the three splits.
        train_mean, train_std: float32 [D], over the training examples (divisor n).
        log_density: The true log p(x) of synthetic data, x [n, D] -> [n], nats; None where it is not known.
    """

    name: str
    train: Array
    valid: Array
    test: Array
    labels: Mapping[str, Array | None]
    image_shape: tuple[int, int] | None
    kind: Kind
    fingerprint: str
    train_mean: Array
    train_std: Array
    log_density: LogDensity | None = None


def assemble(
    name: str,
    examples: Mapping[str, Array],
    labels: Mapping[str, Array | None],
    kind: Kind,
    shape: tuple[int, ...],
    log_density: LogDensity | None = None,
    known: Mapping[str, Array] | None = None,
) -> Dataset:
    """From the examples of each split, float32 [n, D], each of `shape`; `known`: what `derived` gave for them."""
    known = known or derived(examples)
    return Dataset(
        name=name,
        **examples,
        labels={split: None if (y := labels.get(split)) is None else y.astype(np.int64) for split in SPLITS},
        image_shape=(shape[0], shape[1]) if len(shape) == 2 else None,
        kind=kind,
        fingerprint=str(known["fingerprint"]),
        train_mean=known["train_mean"],
        train_std=known["train_std"],
        log_density=log_density,
    )


def derived(examples: Mapping[str, Array]) -> dict[str, Array]:
    """Fingerprint, mean and standard deviation of the examples of the three splits, each float32 [n, D]."""
    digest = hashlib.sha256()
    for split in SPLITS:
        x = np.ascontiguousarray(examples[split], "<f4")
        digest.update(f"{split} {x.shape}".encode())
        digest.update(x.data)
    moments = {
        "train_mean": examples["train"].mean(axis=0, dtype=np.float64).astype(np.float32),
        "train_std": examples["train"].std(axis=0, dtype=np.float64).astype(np.float32),
    }
    return {"fingerprint": np.array(digest.hexdigest()), **moments}


def pixels(x: Array, white: int) -> Array:
    """float32 [n, D] in [0, 1] from [n, ...]: integers 0..white, or floats, which stay as they are."""
    flat = x.reshape(len(x), math.prod(x.shape[1:]))
    if x.dtype.kind == "f":
        return np.ascontiguousarray(flat, np.float32)
    return np.divide(flat, np.float32(white), dtype=np.float32)
