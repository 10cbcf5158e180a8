"""MNIST, Fashion-MNIST (idx files) and binarized MNIST (amat files)."""

import gzip
from pathlib import Path

import numpy as np

from iwae.data.dataset import SPLITS, Array, with_valid


def parse(folder: Path) -> dict[str, Array]:
    """MNIST and Fashion-MNIST; the last 400 training images are valid, as in the authors' code."""
    x, y = _idx(folder / "train-images-idx3-ubyte.gz"), _idx(folder / "train-labels-idx1-ubyte.gz")
    x_test, y_test = _idx(folder / "t10k-images-idx3-ubyte.gz"), _idx(folder / "t10k-labels-idx1-ubyte.gz")
    return with_valid(x, y, 400, x_test, y_test)


def _idx(path: Path) -> Array:
    """An idx file of bytes: 0, 0, 8 (unsigned bytes), the number of axes; their lengths, big-endian; the values."""
    content = gzip.decompress(path.read_bytes())
    axes = content[3]
    shape = np.frombuffer(content, ">u4", axes, offset=4)
    return np.frombuffer(content, np.uint8, offset=4 + 4 * axes).reshape(shape)


def parse_binarized(folder: Path) -> dict[str, Array]:
    """Binarized MNIST. Training images are permuted and have no labels.

    The test images are MNIST's sorted by class (each pixel that is 0 or 255 in grey agrees with the image so paired).
    So the first thousand are nearly all zeros, and a part of that split has to be drawn at random or evenly.
    """
    images = {f"x_{split}": _amat(folder / f"binarized_mnist_{split}.amat") for split in SPLITS}
    labels = np.repeat(np.arange(10, dtype=np.uint8), [980, 1135, 1032, 1010, 982, 892, 958, 1028, 974, 1009])
    return {**images, "y_test": labels}


def _amat(path: Path) -> Array:
    """Lines of 784 digits 0 or 1 with a space (or the newline) after each: uint8 [n, 28, 28]."""
    characters = np.frombuffer(path.read_bytes(), np.uint8).reshape(-1, 28, 28, 2)
    return characters[..., 0] - ord("0")
