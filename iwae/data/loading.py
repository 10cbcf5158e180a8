"""Datasets by name or from a user's files, as arrays. Nothing here downloads."""

import contextlib
import hashlib
import io
import os
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal

import numpy as np

from iwae.data import synthetic, users_file
from iwae.data.cache import cache_dir, defect, expanded
from iwae.data.catalogue import ARRAYS, CATALOGUE, DatasetError, Entry, named
from iwae.data.dataset import DERIVED, Array, Dataset, assemble
from iwae.files import replacing

PARSED = "parsed-2.npz"  # the number changes with what is in it
SEAL = hashlib.sha256().digest_size * 2  # bytes: hexadecimal digits


def load_dataset(
    name: str | os.PathLike[str],
    data_dir: str | os.PathLike[str] | None = None,
    *,
    seed: int = 123,
    synthetic_examples: int = 10_000,
    allow_real: bool = False,
) -> Dataset:
    """Load a dataset by its name, or a user's own by its path.

    A user's .npz has `x_train`, `x_test` and, if there are any, `x_valid`, `y_train`, `y_valid`, `y_test`. Examples are
    [n, D], [n, height, width] or in colour [n, height, width, 3]; pixels are integers 0..255 or floats in [0, 1]
    (integers that are all 0 or 1 are binary pixels); labels are integers or names [n]. Pixels [n, D] with a square D
    are square images. Without `x_valid`, the last tenth of `x_train` is: at most 10,000 examples and at least one.

    A .csv has an example a row; with a header, column `label` has labels and `split` says train, valid or test. A
    folder has grey images of one size, PNG or JPEG (others are made grey), in subfolders of its subfolders `train`,
    `valid` and `test` or of its own that are called as the classes, or without classes. Training examples of both are
    shuffled once and for all; where there is no test, the last tenth of them is.

    Floats that are NaN, and empty cells of a .csv, are values that are missing.

    Args:
        name: A name of `iwae.config.DATASETS`, or a path that ends in .npz or .csv, or of a folder, with a / in it.
        data_dir: Folder of the downloaded datasets. None: IWAE_DATA_DIR, else the system's cache folder.
        seed: Of synthetic data; no other dataset depends on it.
        synthetic_examples: Training and test examples of synthetic data; a tenth of that, at least one, for valid.
        allow_real: Take a user's floats outside [0, 1] as real numbers (`continuous`), not as a mistake. This is what a
            Gaussian likelihood can use.

    Raises:
        DatasetError: No such dataset, not downloaded yet (the message gives the command), or a file that does not
            keep to the above.
    """
    name = os.fspath(name)
    if name in CATALOGUE:
        entry = CATALOGUE[name]
        return synthetic.generate(entry, seed, synthetic_examples) if entry.synthetic else _parsed(entry, data_dir)
    if name.endswith((".npz", ".csv")) or "/" in name:
        return users_file.load(expanded(name), allow_real)
    if name == ARRAYS:
        again = "iwae.run(experiment, dataset=...), iwae.load_run(folder, dataset=...)"
        raise DatasetError(f"expected the arrays of the run, which no file keeps: hand them over again, {again}")
    own = "the path of an .npz or .csv file or of a folder, with a / in it"
    raise DatasetError(f"dataset: expected one of {', '.join(CATALOGUE)} or {own}, got {name!r}")


def binarize(
    images: Array, how: Literal["stochastic", "fixed", "threshold", "none"], seed: int | Sequence[int]
) -> Array:
    """Binary pixels from grey values, drawn once.

    Args:
        images: [n, D] (or any shape), values in [0, 1]; NaN stays NaN.
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
    if ((images < 0) | (images > 1)).any():
        least, most = map(users_file.number, (np.nanmin(images), np.nanmax(images)))
        raise ValueError(f"binarization: expected values in [0, 1] (or 'none'), got {least} to {most}")
    # Uniforms in [0, 1): a grey value of 0 is never set, 1 always is.
    threshold = how == "threshold"
    ones = images >= 0.5 if threshold else np.random.default_rng(seed).random(images.shape, np.float32) < images
    binary = ones.astype(np.float32)
    binary[np.isnan(images)] = np.nan
    return binary


def _parsed(entry: Entry, data_dir: str | os.PathLike[str] | None) -> Dataset:
    """A dataset of files or of a package; what was parsed from files is kept beside them."""

    def dataset(arrays: Mapping[str, Array]) -> Dataset:
        return assemble(entry.name, arrays, entry.kind, entry.shape, entry.white)

    if not entry.files:
        return dataset(named(entry.parser)(Path()))
    folder = cache_dir(data_dir) / entry.name
    try:
        return dataset(_read_parsed(folder / PARSED, entry))
    except Exception:  # whatever a missing or damaged file makes its reader raise, the upstream files are the remedy
        arrays = _parse(entry, folder, data_dir)
    found = dataset(arrays)
    with contextlib.suppress(OSError):  # a read-only cache goes without
        write_parsed(folder / PARSED, entry, arrays | {key: np.asarray(getattr(found, key)) for key in DERIVED})
    return found


def _parse(entry: Entry, folder: Path, data_dir: str | os.PathLike[str] | None) -> dict[str, Array]:
    """The arrays of a user's .npz, from the upstream files in the cache, each verified."""
    for file in entry.files:
        path = folder / file.name
        try:
            wrong = defect(path, file)
        except OSError as error:
            wrong = f"unreadable ({error.strerror})"
        if wrong:
            option = f" --data-dir {shlex.quote(os.fspath(data_dir))}" if data_dir else ""
            command = f"python datasets_download.py {entry.name}{option}"
            raise DatasetError(f"{entry.name}: {path} is {wrong}; run: {command}")
    return named(entry.parser)(folder)


def write_parsed(path: Path, entry: Entry, arrays: Mapping[str, Array]) -> None:
    """Write what was parsed from the files of `entry`, and what is `DERIVED`: an .npz with a seal at its end.

    The seal binds every byte to the upstream files that the catalogue names: what was changed since, or comes from
    other files or another parser, is not read again.
    """
    buffer = io.BytesIO()
    np.savez(buffer, **arrays)  # type: ignore[arg-type]  # keys, not options
    with replacing(path) as stream:
        stream.write(buffer.getbuffer())
        stream.write(_seal(entry, buffer.getbuffer()))


def _read_parsed(path: Path, entry: Entry) -> dict[str, Array]:
    content = path.read_bytes()
    if content[-SEAL:] != _seal(entry, memoryview(content)[:-SEAL]):
        raise ValueError("changed since it was written, or from other files")
    return users_file.read_npz(io.BytesIO(content), (*users_file.KEYS, *DERIVED))


def _seal(entry: Entry, body: memoryview) -> bytes:
    digest = hashlib.sha256(" ".join([entry.parser, *(file.digest for file in entry.files)]).encode())
    digest.update(body)
    return digest.hexdigest().encode()
