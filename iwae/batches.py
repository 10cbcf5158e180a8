"""The training images on the device, and the order in which they are used."""

import math
from collections.abc import Iterator

import numpy as np
import tensorflow as tf

from iwae import rng

# Grey values are kept as thresholds for 15 random bits: exact at 0 and 1, off by at most 1.6e-5 between, in half the
# memory of floats.
_THRESHOLD_BITS = 15
_MISSING = 2**16 - 1  # stands for NaN among the thresholds


class ResidentImages:
    """Images on the device, from which batches are taken by index inside the compiled training loop.

    Args:
        images: [n, D]; grey values in [0, 1] with `stochastic`, else what the model is to be given. NaN stays NaN.
        stochastic: every time an image is used, each pixel is drawn anew from Bernoulli(grey value).
    """

    def __init__(self, images: np.ndarray, stochastic: bool):
        missing = np.isnan(images)
        self.stochastic, self.any_missing = stochastic, bool(missing.any())
        if stochastic:
            images = np.where(missing, _MISSING, np.round(images * 2.0**_THRESHOLD_BITS)).astype(np.uint16)
        elif np.all((images == 0) | (images == 1)):
            images = images.astype(np.uint8)
        self.values = tf.constant(images)

    def batch(self, indices: tf.Tensor, seed: tf.Tensor) -> tf.Tensor:
        """Images [B, D], float32, for indices [B]; `seed` [2] decides the binarization."""
        values = tf.gather(self.values, indices)
        if not self.stochastic:
            return tf.cast(values, tf.float32)
        bits = tf.bitwise.right_shift(rng.words(values.shape, seed), tf.constant(32 - _THRESHOLD_BITS, tf.uint32))
        drawn = tf.cast(tf.cast(bits, tf.int32) < tf.cast(values, tf.int32), tf.float32)
        return tf.where(tf.cast(values, tf.int32) == _MISSING, math.nan, drawn) if self.any_missing else drawn


def index_blocks(
    examples: int, batch: int, rows: int, seed: int, first_epoch: int = 0, first_update: int = 0
) -> Iterator[tuple[np.ndarray]]:
    """Endless blocks of indices [rows, batch], shuffled anew each epoch by (seed, epoch).

    An epoch uses every example once; its last batch is padded with -1, and its last block may have fewer rows. The
    first epoch may start after some of its updates, with blocks of the same or of another length.
    """
    epoch, start = first_epoch, first_update
    while True:
        updates = math.ceil(examples / batch)
        order = np.full(updates * batch, -1, np.int32)
        order[:examples] = np.random.default_rng([seed, epoch]).permutation(examples)
        for first in range(start, updates, rows):
            yield (order.reshape(-1, batch)[first : first + rows],)  # the form Keras wants: (inputs,)
        epoch, start = epoch + 1, 0


def blocks_per_epoch(examples: int, batch: int, rows: int, first_update: int = 0) -> int:
    """Blocks of `rows` updates that an epoch of `examples` takes from an update on; the last one may be shorter."""
    return math.ceil((math.ceil(examples / batch) - first_update) / rows)


def rows_of_blocks(updates: int, wanted: int) -> int:
    """Updates in a block: about as many as wanted, so that an epoch is whole blocks if it can be.

    A last block of another length is compiled by itself.
    """
    divisors = (rows for rows in range(wanted, wanted + wanted // 2 + 1) if updates % rows == 0)
    return next(divisors, min(wanted, updates))


def filled(n: int, size: int) -> Iterator[np.ndarray]:
    """The indices 0 .. n - 1 in batches [size]. The last one is filled up with the last index: results are cut to n."""
    for start in range(0, n, size):
        yield np.minimum(np.arange(start, start + size), n - 1)
