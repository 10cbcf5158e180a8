"""Draws that stand nearer to the posterior than those of q: one of k, picked by its importance weight."""

from collections.abc import Callable

import numpy as np
import tensorflow as tf

from iwae import batches, bounds, estimators, rng
from iwae.model import IWAE

PROPOSALS = 100  # draws from q, of which one is picked, where a figure shows resampled draws
ROWS = 10_000  # samples in one matrix product
Of = Callable[[list[tf.Tensor], tf.Tensor], list[tf.Tensor]]


def resample(model: IWAE, images: np.ndarray, k: int, seed: int) -> list[np.ndarray]:
    """One draw of q_IW for each image [n, D] by sampling importance resampling: k from q, one picked by its weight.

    q_IW is the posterior that an IWAE of k samples has as a VAE (Cremer, Morris & Duvenaud 2017).

    -> for each stochastic layer, from the data upwards, [n, D_l]. Repeat an image to have several draws.
    """

    def picked(log_weights: tf.Tensor, seed: tf.Tensor) -> tf.Tensor:
        uniform = rng.uniform(tf.shape(log_weights)[1:], seed)
        return tf.one_hot(estimators.draw_index(log_weights, uniform), k, axis=0)

    return _summed(model, images, k, seed, picked)


def weighted_mean(model: IWAE, images: np.ndarray, k: int, seed: int, of: Of = lambda z, _: z) -> list[np.ndarray]:
    """E[z | x] for each image [n, D] by self-normalised importance sampling with k draws from q.

    -> for each stochastic layer, from the data upwards, [n, D_l]; or E[f(z, x) | x] of what `of` makes of these layers,
    each [k, B, D_l], and images [B, D].
    """
    return _summed(model, images, k, seed, lambda log_weights, _: bounds.normalized_weights(log_weights), of)


def _summed(
    model: IWAE,
    images: np.ndarray,
    k: int,
    seed: int,
    shares: Callable[[tf.Tensor, tf.Tensor], tf.Tensor],
    of: Of = lambda z, _: z,
) -> list[np.ndarray]:
    """The sum of k draws from q, or of what is made `of` them, by their shares [k, B], of log weights and a seed."""
    batch = min(len(images), max(1, ROWS // k))

    @tf.function(jit_compile=True)
    def compiled(x: tf.Tensor, seed: tf.Tensor) -> list[tf.Tensor]:
        terms = model.log_weight_terms(x, model.draw_noise(k, batch, rng.fold(seed, 0)))
        of_samples = shares(terms.log_weights(), rng.fold(seed, 1))
        return [tf.reduce_sum(of_samples[..., None] * z, axis=0) for z in of(terms.samples, x)]

    results = []
    for numbers in batches.filled(len(images), batch):
        results.append(compiled(tf.constant(images[numbers], tf.float32), rng.stream(seed, numbers[0], "resample")))
    return [np.concatenate(layer)[: len(images)] for layer in zip(*results, strict=True)]
