"""Datasets by name: downloaded, bundled, synthetic, or a user's .npz. Nothing here downloads.

| name | train / valid / test | values |
|---|---|---|
| `mnist`, `fashion_mnist` | 59,600 / 400 / 10,000 | grey; valid: the last training images, as in the authors' code |
| `binarized_mnist` | 50,000 / 10,000 / 10,000 | binary, one fixed binarization (Larochelle & Murray) |
| `omniglot` | 23,000 / 1,345 / 8,070 | grey; valid: the last after a fixed shuffle, as there |
| `digits` | 1,297 / 200 / 300 | grey, 8x8; scikit-learn's bundled digits, shuffled once and for all |
| `camel`, `two_close_clusters` | n / n//10 / n | 1-D: normal clusters at -1 and 1, sd 0.5 |
| `two_clusters` | the same | 1-D: clusters at -2 and 2, sd 0.5 |
| `simple_2_layers` | the same | 2-D: clusters at (+-2, +-2), sd 0.7 |
| `linear2dim` | the same | 2-D: (2z + 1 + e1, -2z + 1 + e2); z, e1, e2 standard normal |
| `circle` | the same | 2-D: a circle of radius 3, uniform in the angle, with normal noise of sd 0.4 |

The test images of `binarized_mnist` lie in the order of their upstream file: MNIST's test images sorted by class (each
pixel that is 0 or 255 in grey agrees with the image so paired). So its first thousand examples are nearly all zeros,
and a part of that split has to be drawn at random or evenly. Its training images are permuted; they have no labels.
"""

from __future__ import annotations

import contextlib
import gzip
import hashlib
import io
import math
import os
import shlex
import zipfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from iwae.data import download

Array = np.ndarray
Kind = Literal["binary", "grey", "continuous"]
LogDensity = Callable[[Array], Array]

SPLITS = ("train", "valid", "test")
KEYS = tuple(f"{what}_{split}" for what in "xy" for split in SPLITS)  # of a user's .npz
DERIVED = ("fingerprint", "train_mean", "train_std")
SHUFFLE_SEED = 123  # of the fixed shuffles, as in the authors' code; no parameter changes it
PARSED = "parsed-1.npz"  # the number changes with what is in it


class DatasetError(ValueError):
    """A dataset that is missing or unusable; the message is one line."""


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


def load_dataset(
    name: str | os.PathLike[str],
    data_dir: str | os.PathLike[str] | None = None,
    *,
    seed: int = 123,
    synthetic_examples: int = 10_000,
    allow_real: bool = False,
) -> Dataset:
    """Load a dataset by its name, or a user's .npz by its path.

    A user's file has `x_train`, `x_test` and, if there are any, `x_valid`, `y_train`, `y_valid`, `y_test`. Examples are
    [n, D] or [n, height, width]; pixels are integers 0..255 or floats in [0, 1] (integers that are all 0 or 1 are
    binary pixels); labels are integers [n]. Pixels [n, D] with a square D are square images. Without `x_valid`, the
    last tenth of `x_train` is valid: at most 10,000 examples and at least one.

    Args:
        name: A name of the table above, or a path that ends in .npz.
        data_dir: The cache of downloaded datasets, see `iwae.download.cache_dir`.
        seed: Of synthetic data; no other dataset depends on it.
        synthetic_examples: Training and test examples of synthetic data; a tenth of that, at least one, for valid.
        allow_real: Take a user's floats outside [0, 1] as real numbers (`continuous`), not as a mistake. This is what a
            Gaussian likelihood can use.

    Raises:
        DatasetError: No such dataset, not downloaded yet (the message gives the command), or a file that does not
            keep to the above.
    """
    name = os.fspath(name)
    if name in _SYNTHETIC:
        return _synthetic(name, seed, synthetic_examples)
    if name == "digits":
        return _digits()
    if name in download.FILES:
        return _downloaded(name, data_dir)
    if name.endswith(".npz"):
        return _users_file(Path(name).expanduser(), allow_real)
    names = ", ".join([*download.FILES, "digits", *_SYNTHETIC])
    raise DatasetError(f"dataset: expected one of {names} or the path of an .npz file, got {name!r}")


def binarize(
    images: Array, how: Literal["stochastic", "fixed", "threshold", "none"], seed: int | Sequence[int]
) -> Array:
    """Binary pixels from grey values, drawn once.

    Args:
        images: [n, D] (or any shape), values in [0, 1].
        how: `stochastic` and `fixed` draw each pixel from Bernoulli(its grey value), here by the same numbers: they
            differ in whether training draws again. `threshold` sets pixels of at least 0.5. `none` changes nothing.
        seed: The same seed gives the same pixels; of no effect for `threshold` and `none`.

    Returns:
        float32, the shape of `images`; 0 and 1 except for `none`.

    Raises:
        ValueError: An unknown `how`, or (but for `none`) values outside [0, 1].
    """
    images = np.asarray(images, np.float32)
    if how == "none":
        return images
    if how not in ("stochastic", "fixed", "threshold"):
        raise ValueError(f"binarization: expected stochastic, fixed, threshold or none, got {how!r}")
    if images.size and not (images.min() >= 0 and images.max() <= 1):  # NaN fails, too
        raise ValueError(
            f"binarization: expected values in [0, 1] (or 'none'), got {images.min():g} to {images.max():g}"
        )
    if how == "threshold":
        return (images >= 0.5).astype(np.float32)
    # Uniforms in [0, 1): a grey value of 0 is never set, 1 always is.
    return (np.random.default_rng(seed).random(images.shape, np.float32) < images).astype(np.float32)


# Assembling


def _dataset(
    name: str,
    examples: Mapping[str, Array],
    labels: Mapping[str, Array | None],
    kind: Kind,
    image_shape: tuple[int, int] | None,
    log_density: LogDensity | None = None,
    derived: Mapping[str, Array] | None = None,
) -> Dataset:
    """From the examples of each split, float32 [n, D]; `derived`: what `_derived` gave for them, if it is known."""
    derived = derived or _derived(examples)
    return Dataset(
        name=name,
        **examples,
        labels={split: None if (y := labels.get(split)) is None else y.astype(np.int64) for split in SPLITS},
        image_shape=image_shape,
        kind=kind,
        fingerprint=str(derived["fingerprint"]),
        train_mean=derived["train_mean"],
        train_std=derived["train_std"],
        log_density=log_density,
    )


def _derived(examples: Mapping[str, Array]) -> dict[str, Array]:
    digest = hashlib.sha256()
    for split in SPLITS:
        x = np.ascontiguousarray(examples[split], "<f4")
        digest.update(f"{split} {x.shape}".encode())
        digest.update(x.data)
    mean = examples["train"].mean(axis=0, dtype=np.float64)
    std = examples["train"].std(axis=0, dtype=np.float64)
    return {
        "fingerprint": np.array(digest.hexdigest()),
        "train_mean": mean.astype(np.float32),
        "train_std": std.astype(np.float32),
    }


def _pixels(x: Array, largest: int) -> Array:
    """float32 [n, D] in [0, 1] from [n, ...]: integers 0..largest, or floats that are in [0, 1] already."""
    flat = x.reshape(len(x), math.prod(x.shape[1:]))
    if x.dtype.kind == "f":
        return np.ascontiguousarray(flat, np.float32)
    return np.divide(flat, np.float32(largest), dtype=np.float32)


# Downloaded datasets


def _downloaded(name: str, data_dir: str | os.PathLike[str] | None) -> Dataset:
    path = download.cache_dir(data_dir) / name / PARSED
    try:
        arrays = _read_npz(path, (*KEYS, "largest", *DERIVED))
        examples = _parsed_examples(arrays)
        derived = {key: arrays[key] for key in DERIVED}
    except Exception:  # whatever a missing or damaged file makes its reader raise, the upstream files are the remedy
        arrays = _parse(name, data_dir)
        examples = _parsed_examples(arrays)
        derived = _derived(examples)
        with contextlib.suppress(OSError), download.replacing(path) as stream:  # a read-only cache goes without
            np.savez(stream, **{**arrays, **derived})  # type: ignore[arg-type]  # keys, not options
    return _dataset(
        name,
        examples,
        {split: arrays.get(f"y_{split}") for split in SPLITS},
        kind="binary" if name == "binarized_mnist" else "grey",
        image_shape=arrays["x_train"].shape[1:],
        derived=derived,
    )


def _parsed_examples(arrays: Mapping[str, Array]) -> dict[str, Array]:
    return {split: _pixels(arrays[f"x_{split}"], int(arrays["largest"])) for split in SPLITS}


def _parse(name: str, data_dir: str | os.PathLike[str] | None) -> dict[str, Array]:
    """The arrays of a user's .npz, from the upstream files in the cache, each verified; and the largest pixel value."""
    folder = download.cache_dir(data_dir) / name
    for file in download.FILES[name]:
        path = folder / file.name
        try:
            wrong = download.defect(path, file)
        except OSError as error:
            wrong = f"unreadable ({error.strerror})"
        if wrong:
            option = f" --data-dir {shlex.quote(os.fspath(data_dir))}" if data_dir else ""
            raise DatasetError(f"{name}: {path} is {wrong}; run: python datasets_download.py {name}{option}")
    return _PARSERS[name](folder)


def _parse_mnist(folder: Path) -> dict[str, Array]:
    """MNIST and Fashion-MNIST; the last 400 training images are valid, as in the authors' code."""
    x, y = _idx(folder / "train-images-idx3-ubyte.gz"), _idx(folder / "train-labels-idx1-ubyte.gz")
    return {
        "largest": np.array(255),
        "x_train": x[:-400],
        "y_train": y[:-400],
        "x_valid": x[-400:],
        "y_valid": y[-400:],
        "x_test": _idx(folder / "t10k-images-idx3-ubyte.gz"),
        "y_test": _idx(folder / "t10k-labels-idx1-ubyte.gz"),
    }


def _idx(path: Path) -> Array:
    """An idx file of bytes: 0, 0, 8 (unsigned bytes), the number of axes; their lengths, big-endian; the values."""
    content = gzip.decompress(path.read_bytes())
    axes = content[3]
    shape = np.frombuffer(content, ">u4", axes, offset=4)
    return np.frombuffer(content, np.uint8, offset=4 + 4 * axes).reshape(shape)


def _parse_binarized_mnist(folder: Path) -> dict[str, Array]:
    images = {f"x_{split}": _amat(folder / f"binarized_mnist_{split}.amat") for split in SPLITS}
    # The test file is MNIST's test set sorted by class: so many images of 0, of 1, ...
    labels = np.repeat(np.arange(10, dtype=np.uint8), [980, 1135, 1032, 1010, 982, 892, 958, 1028, 974, 1009])
    return {"largest": np.array(1), **images, "y_test": labels}


def _amat(path: Path) -> Array:
    """Lines of 784 digits 0 or 1 with a space (or the newline) after each: uint8 [n, 28, 28]."""
    characters = np.frombuffer(path.read_bytes(), np.uint8).reshape(-1, 28, 28, 2)
    return characters[..., 0] - ord("0")


def _parse_omniglot(folder: Path) -> dict[str, Array]:
    """`chardata.mat`: a column an image, its pixels column by column; labels (the alphabet) are one-hot columns."""
    import scipy.io

    content = scipy.io.loadmat(folder / "chardata.mat")
    x, y = _columns(content["data"]), content["target"].argmax(axis=0)
    order = np.random.RandomState(SHUFFLE_SEED).permutation(len(x))
    train, valid = order[:-1345], order[-1345:]
    return {
        "largest": np.array(255),
        "x_train": x[train],
        "y_train": y[train],
        "x_valid": x[valid],
        "y_valid": y[valid],
        "x_test": _columns(content["testdata"]),
        "y_test": content["testtarget"].argmax(axis=0),
    }


def _columns(data: Array) -> Array:
    """[784, n] in [0, 1] -> upright images [n, 28, 28]: uint8 where that loses nothing, else float32."""
    images = data.T.reshape(-1, 28, 28).transpose(0, 2, 1)
    levels = np.rint(images * 255)
    return levels.astype(np.uint8) if np.allclose(images * 255, levels, rtol=0, atol=1e-3) else np.float32(images)


_PARSERS: dict[str, Callable[[Path], dict[str, Array]]] = {
    "mnist": _parse_mnist,
    "fashion_mnist": _parse_mnist,
    "binarized_mnist": _parse_binarized_mnist,
    "omniglot": _parse_omniglot,
}


# Bundled


def _digits() -> Dataset:
    from sklearn.datasets import load_digits

    images, labels = load_digits(return_X_y=True)
    order = np.random.RandomState(SHUFFLE_SEED).permutation(len(images))
    parts = dict(zip(SPLITS, np.split(order, [1297, 1497]), strict=True))
    return _dataset(
        "digits",
        {split: (images[rows] / 16).astype(np.float32) for split, rows in parts.items()},
        {split: labels[rows] for split, rows in parts.items()},
        kind="grey",
        image_shape=(8, 8),
    )


# A user's file


def _read_npz(path: Path, keys: Sequence[str]) -> dict[str, Array]:
    """Those of `keys` that are in an .npz. Members are read to the end, where their checksum is; none is unpickled."""
    with zipfile.ZipFile(path) as archive:
        members = {key: f"{key}.npy" for key in keys if f"{key}.npy" in archive.namelist()}
        return {key: np.load(io.BytesIO(archive.read(member)), allow_pickle=False) for key, member in members.items()}


def _users_file(path: Path, allow_real: bool) -> Dataset:
    try:
        arrays = _read_npz(path, KEYS)
    except FileNotFoundError:
        raise DatasetError(f"{path}: no such file") from None
    except Exception as error:  # readers of zip and npy raise many types on bytes that are neither
        why = " ".join(str(error).split())
        raise DatasetError(f"{path}: expected an .npz of plain arrays; reading it gave: {why}") from error
    for key in ("x_train", "x_test"):
        if key not in arrays:
            found = ", ".join(np.load(path, allow_pickle=False).files) or "nothing"
            raise DatasetError(f"{path}: {key} is missing; expected x_train and x_test, found {found}")
    raw = {split: arrays[f"x_{split}"] for split in SPLITS if f"x_{split}" in arrays}
    for split, x in raw.items():
        _check_shape(f"{path}: x_{split}", x, raw["train"].shape[1:])
    inside = [_check_values(f"{path}: x_{split}", x, allow_real) for split, x in raw.items()]
    labels = {split: arrays[f"y_{split}"] for split in SPLITS if f"y_{split}" in arrays}
    for split, y in labels.items():
        if split in raw or split != "valid":
            _check_labels(f"{path}: y_{split}", y, len(raw[split]))
        else:
            raise DatasetError(f"{path}: y_valid is there, but x_valid is missing")
    if "valid" not in raw:
        count = min(max(len(raw["train"]) // 10, 1), 10_000)
        if len(raw["train"]) == count:
            raise DatasetError(f"{path}: x_train: expected at least 2 examples without x_valid, which takes 1; got 1")
        for part in (raw, labels):
            if "train" in part:
                part["train"], part["valid"] = part["train"][:-count], part["train"][-count:]
    return _from_users_arrays(path.stem, raw, labels, pixels=all(inside))


def _from_users_arrays(name: str, raw: Mapping[str, Array], labels: Mapping[str, Array], pixels: bool) -> Dataset:
    integers = [x for x in raw.values() if x.dtype.kind != "f"]
    largest = 255 if any(x.max() > 1 for x in integers) else 1
    examples = {split: _pixels(x, largest) for split, x in raw.items()}
    shape: tuple[int, ...] = raw["train"].shape[1:]
    side = math.isqrt(shape[0])
    if pixels and len(shape) == 1 and side > 1 and side * side == shape[0]:
        shape = (side, side)
    binary = pixels and all(((x == 0) | (x == 1)).all() for x in examples.values())
    kind: Kind = "binary" if binary else "grey" if pixels else "continuous"
    return _dataset(name, examples, labels, kind, image_shape=(shape[0], shape[1]) if len(shape) == 2 else None)


def _check_shape(what: str, x: Array, expected: tuple[int, ...]) -> None:
    if x.ndim not in (2, 3) or 0 in x.shape:
        raise DatasetError(f"{what}: expected [n, D] or [n, height, width] with at least one example, got {_shape(x)}")
    if x.shape[1:] != expected:
        raise DatasetError(f"{what}: expected [n, {', '.join(map(str, expected))}] as x_train, got {_shape(x)}")


def _shape(x: Array) -> str:
    return f"[{', '.join(map(str, x.shape))}]"


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
    hint = (
        "; grey values 0..255 are to be divided by 255, or saved as uint8"
        if is_float and x.min() >= 0 and x.max() <= 255
        else ""
    )
    raise DatasetError(
        f"{what}: expected {expected}, found {x.min():g} to {x.max():g}, first {_first(x, outside)}{hint}"
    )


def _first(x: Array, bad: Array) -> str:
    index = np.unravel_index(bad.argmax(), x.shape)
    return f"{x[index]:g} at [{', '.join(map(str, index))}]"


def _check_labels(what: str, y: Array, count: int) -> None:
    if y.dtype.kind not in "biu" or y.shape != (count,):
        raise DatasetError(f"{what}: expected integers [{count}], one an example, got {y.dtype} {_shape(y)}")


# Synthetic data


@dataclass(frozen=True)
class _Clusters:
    """A mixture, in equal parts, of normal densities with one standard deviation."""

    means: tuple[tuple[float, ...], ...]
    sd: float

    def draw(self, random: np.random.Generator, count: int) -> tuple[Array, Array | None]:
        means = np.array(self.means)
        labels = random.integers(len(means), size=count)
        return means[labels] + self.sd * random.standard_normal((count, means.shape[1])), labels

    def log_density(self, x: Array) -> Array:
        means = np.array(self.means)
        squares = np.sum((np.asarray(x, np.float64)[:, None] - means) ** 2, axis=-1)
        normal = -0.5 * squares / self.sd**2 - means.shape[1] * (math.log(self.sd) + 0.5 * math.log(2 * math.pi))
        return np.logaddexp.reduce(normal, axis=1) - math.log(len(means))


class _Line:
    """x = (2z + 1 + e1, -2z + 1 + e2): normal, with mean (1, 1) and covariance [[5, -4], [-4, 5]]."""

    def draw(self, random: np.random.Generator, count: int) -> tuple[Array, Array | None]:
        z = random.standard_normal((count, 1))
        return z * [2, -2] + 1 + random.standard_normal((count, 2)), None

    def log_density(self, x: Array) -> Array:
        # Along and across the line, (x1 - x2) / sqrt 2 and (x1 + x2) / sqrt 2 are independent, variances 9 and 1.
        a, b = (np.asarray(x, np.float64) - 1).T
        return -((a - b) ** 2) / 36 - (a + b) ** 2 / 4 - math.log(3) - math.log(2 * math.pi)


class _Circle:
    """A point of the circle of radius 3, uniform in the angle, and normal noise of standard deviation 0.4."""

    radius, sd = 3.0, 0.4

    def draw(self, random: np.random.Generator, count: int) -> tuple[Array, Array | None]:
        angle = random.uniform(0, 2 * math.pi, count)
        on_circle = self.radius * np.stack([np.cos(angle), np.sin(angle)], axis=1)
        return on_circle + self.sd * random.standard_normal((count, 2)), None

    def log_density(self, x: Array) -> Array:
        """The integral over the angle is a Bessel function: 2 pi I_0(t) = integral of exp(t cos a) over a."""
        from scipy.special import i0e  # exp(-t) I_0(t)

        distance = np.linalg.norm(np.asarray(x, np.float64), axis=1)
        bessel = np.log(i0e(distance * self.radius / self.sd**2))
        return bessel - 0.5 * ((distance - self.radius) / self.sd) ** 2 - math.log(2 * math.pi * self.sd**2)


# As in the predecessor; its `two_close_clusters` is the `camel` density under another name.
_CAMEL = _Clusters(means=((-1.0,), (1.0,)), sd=0.5)
_SYNTHETIC: dict[str, Any] = {
    "camel": _CAMEL,
    "linear2dim": _Line(),
    "two_clusters": _Clusters(means=((-2.0,), (2.0,)), sd=0.5),
    "two_close_clusters": _CAMEL,
    "simple_2_layers": _Clusters(means=((-2.0, -2.0), (-2.0, 2.0), (2.0, -2.0), (2.0, 2.0)), sd=0.7),
    "circle": _Circle(),
}


def _synthetic(name: str, seed: int, count: int) -> Dataset:
    if count < 1:
        raise DatasetError(f"synthetic_examples: expected at least 1, got {count}")
    source = _SYNTHETIC[name]
    counts = {"train": count, "valid": max(count // 10, 1), "test": count}
    drawn = {
        split: source.draw(np.random.default_rng([seed, number]), counts[split]) for number, split in enumerate(SPLITS)
    }
    return _dataset(
        name,
        {split: x.astype(np.float32) for split, (x, _) in drawn.items()},
        {split: y for split, (_, y) in drawn.items()},
        kind="continuous",
        image_shape=None,
        log_density=source.log_density,
    )
