"""OMNIGLOT as the authors' code has it: `chardata.mat`."""

from pathlib import Path

import numpy as np
import scipy.io

from iwae.data.dataset import SHUFFLE_SEED, Array, with_valid


def parse(folder: Path) -> dict[str, Array]:
    """A column an image, its pixels column by column; labels (the alphabet) are one-hot columns."""
    content = scipy.io.loadmat(folder / "chardata.mat")
    x, y = _columns(content["data"]), content["target"].argmax(axis=0)
    order = np.random.RandomState(SHUFFLE_SEED).permutation(len(x))
    x_test, y_test = _columns(content["testdata"]), content["testtarget"].argmax(axis=0)
    return with_valid(x[order], y[order], 1345, x_test, y_test)


def _columns(data: Array) -> Array:
    """[784, n] in [0, 1] -> upright images [n, 28, 28]: uint8 where that loses nothing, else float32."""
    images = data.T.reshape(-1, 28, 28).transpose(0, 2, 1)
    levels = np.rint(images * 255)
    return levels.astype(np.uint8) if np.allclose(images * 255, levels, rtol=0, atol=1e-3) else np.float32(images)
