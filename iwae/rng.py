"""Random numbers: functions of a seed [2] (two int32) alone, with no state to lose; the same inside XLA and outside.

The generator is Threefry (Salmon et al. 2011), because inside XLA on a CPU 50,000 normal numbers take it 0.14 ms,
against 0.7 ms for Philox and some 20 ms for TensorFlow's default, whose numbers also differ inside XLA and outside.
TensorFlow has Threefry in XLA only: so every function of one seed is compiled where it is called by itself, and becomes
a part of a compiled function that calls it. For several seeds at once the generator is our own, with the same numbers.
"""

import functools
import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import tensorflow as tf

_ROTATIONS = (13, 15, 26, 6), (17, 29, 16, 24)  # of Threefry-2x32
_LOWEST = np.nextafter(np.float32(-1), np.float32(0))  # at -1 the normal number would be minus infinity


def _compiled(function: Callable[..., tf.Tensor]) -> Callable[..., tf.Tensor]:
    program = tf.function(function, jit_compile=True)

    @functools.wraps(function)
    def call(shape: Sequence[int] | tf.Tensor, *numbers: Any) -> tf.Tensor:
        numbers = tuple(tf.convert_to_tensor(n, tf.int32) for n in numbers)
        if tf.executing_eagerly():  # so it is where `tf.config.run_functions_eagerly` is on, but not for a traced one
            return program.get_concrete_function(tuple(map(int, shape)), *numbers)(*numbers)
        return program(shape, *numbers)

    return call


STREAMS = {
    "binarize": 1, "posterior": 2, "test": 3, "evaluate": 4, "validate": 5, "estimator": 6, "simulate": 7, "weights": 8,
    "tune": 9, "start": 10, "anneal": 11, "resample": 12, "coordinates": 13,
}  # fmt: skip
"""What random numbers are for; each has a stream of its own."""


def stream(seed: int | tf.Tensor, number: int | tf.Tensor, name: str) -> tf.Tensor:
    """The seed [2] of a stream: `seed` is the experiment's, `number` that of the update, image or batch.

    Of several numbers [n] it is a seed for each, [n, 2].
    """
    number = tf.cast(number, tf.int32)
    return fold(tf.stack([tf.broadcast_to(tf.cast(seed, tf.int32), tf.shape(number)), number], axis=-1), STREAMS[name])


def fold(seed: tf.Tensor, number: int | tf.Tensor) -> tf.Tensor:
    """Another seed made from `seed` [2] or each of several [n, 2] and an integer, for an independent stream of random
    numbers."""
    seed = tf.convert_to_tensor(seed, tf.int32)
    if seed.shape.rank != 2:
        return _fold((), seed, number)
    first = tf.bitcast(_words_of_each(1, 1, seed)[0, :, 0], tf.int32)
    return tf.stack([first, tf.broadcast_to(tf.cast(number, tf.int32), tf.shape(first))], axis=-1)


@_compiled
def _fold(shape: Sequence[int], seed: tf.Tensor, number: tf.Tensor) -> tf.Tensor:
    return tf.random.experimental.stateless_fold_in(seed, number, alg="threefry")


@_compiled
def words(shape: Sequence[int], seed: tf.Tensor) -> tf.Tensor:
    """Words of 32 random bits, uint32, of `shape`."""
    return tf.random.stateless_uniform(shape, seed, minval=None, maxval=None, dtype=tf.uint32, alg="threefry")


@_compiled
def uniform(shape: Sequence[int], seed: tf.Tensor) -> tf.Tensor:
    """Uniform numbers in [0, 1) of `shape`."""
    return tf.random.stateless_uniform(shape, seed, alg="threefry")


@_compiled
def normal(shape: Sequence[int], seed: tf.Tensor) -> tf.Tensor:
    """Standard normal numbers of `shape`, by inversion of the distribution function; none is beyond 5.5."""
    numbers = tf.random.stateless_uniform(shape, seed, minval=_LOWEST, maxval=1.0, alg="threefry")
    return math.sqrt(2) * tf.math.erfinv(numbers)


def normal_of_each(k: int, units: int, seeds: tf.Tensor) -> tf.Tensor:
    """The numbers of `normal([k, units], seed)` for each of several seeds [n, 2], drawn at once: [k, n, units].

    For compiled functions: outside XLA the last bits differ. With `tf.map_fn`, one seed after the other, they take
    twice as long on a CPU, and a quarter of an evaluation on a GPU.
    """
    bits = tf.bitwise.right_shift(_words_of_each(k, units, seeds), tf.constant(9, tf.uint32))
    fraction = tf.bitcast(tf.bitwise.bitwise_or(bits, tf.constant(0x3F800000, tf.uint32)), tf.float32) - 1.0
    return math.sqrt(2) * tf.math.erfinv(fraction * (1.0 - _LOWEST) + _LOWEST)


def _words_of_each(rows: int, columns: int, seeds: tf.Tensor) -> tf.Tensor:
    """The numbers of `words([rows, columns], seed)` for each of several seeds [n, 2]: uint32 [rows, n, columns].

    XLA lays the two words that a count gives side by side along the first axis of even length, or else along the longer
    one, of whose last pair one is left out.
    """
    along_rows = rows % 2 == 0 or (columns % 2 == 1 and rows >= columns)
    of_rows, of_columns = (-(-rows // 2), columns) if along_rows else (rows, -(-columns // 2))
    # A sum instead of one range, of which XLA would divide to find the places.
    counts = (tf.range(of_rows) * of_columns)[:, None, None] + tf.range(of_columns)
    keys = [tf.cast(key, tf.uint32)[:, None] for key in tf.unstack(seeds, axis=-1)]
    pairs = tf.stack(_threefry(keys, tf.cast(counts, tf.uint32)), axis=1 if along_rows else 3)
    shape = [of_rows * (1 + along_rows), -1, of_columns * (2 - along_rows)]
    return tf.reshape(pairs, shape)[:rows, :, :columns]


def _threefry(keys: Sequence[tf.Tensor], counts: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """Threefry-2x32 with 20 rounds of the counts and zero, all uint32 (Salmon et al. 2011)."""
    schedule = (*keys, keys[0] ^ keys[1] ^ tf.constant(0x1BD11BDA, tf.uint32))
    a, b = counts + schedule[0], schedule[1]
    for group in range(5):
        for rotation in _ROTATIONS[group % 2]:
            a = a + b
            left, right = (tf.constant(n, tf.uint32) for n in (rotation, 32 - rotation))
            b = a ^ (tf.bitwise.left_shift(b, left) | tf.bitwise.right_shift(b, right))
        a = a + schedule[(group + 1) % 3]
        b = b + schedule[(group + 2) % 3] + tf.constant(group + 1, tf.uint32)
    return a, b
