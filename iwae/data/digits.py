"""The handwritten digits that come with scikit-learn, shuffled once and for all."""

from pathlib import Path

import numpy as np
from sklearn.datasets import load_digits

from iwae.data.dataset import SHUFFLE_SEED, SPLITS, Array


def parse(_: Path) -> dict[str, Array]:
    """1,797 images of 8x8 pixels, each 0..16."""
    images, labels = load_digits(return_X_y=True)
    order = np.random.RandomState(SHUFFLE_SEED).permutation(len(images))
    arrays = {}
    for split, rows in zip(SPLITS, np.split(order, [1297, 1497]), strict=True):
        arrays[f"x_{split}"] = images[rows].astype(np.uint8).reshape(-1, 8, 8)
        arrays[f"y_{split}"] = labels[rows]
    return arrays
