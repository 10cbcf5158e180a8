"""Draws that stand nearer to the posterior than those of q: one of k, picked by its importance weight."""

import numpy as np
import tensorflow as tf

from iwae import estimators, rng
from iwae.model import IWAE

PROPOSALS = 100  # draws from q, of which one is picked, where a figure shows resampled draws
ROWS = 10_000  # samples in one matrix product


def resample(model: IWAE, images: np.ndarray, k: int, seed: int) -> list[np.ndarray]:
    """One draw of q_IW for each image [n, D] by sampling importance resampling: k from q, one picked by its weight.

    q_IW is the posterior that an IWAE of k samples has as a VAE (Cremer, Morris & Duvenaud 2017).

    -> for each stochastic layer, from the data upwards, [n, D_l]. Repeat an image to have several draws.
    """
    batch = min(len(images), max(1, ROWS // k))

    @tf.function(jit_compile=True)
    def compiled(x: tf.Tensor, seed: tf.Tensor) -> list[tf.Tensor]:
        terms = model.log_weight_terms(x, model.draw_noise(k, batch, rng.fold(seed, 0)))
        picked = tf.one_hot(estimators.draw_index(terms.log_weights(), rng.fold(seed, 1)), k, axis=0)
        return [tf.reduce_sum(picked[..., None] * z, axis=0) for z in terms.samples]

    results = []
    for start in range(0, len(images), batch):
        chosen = np.minimum(np.arange(start, start + batch), len(images) - 1)  # the last batch is filled up, then cut
        values = compiled(tf.constant(images[chosen], tf.float32), rng.stream(seed, start, "resample"))
        results.append([value.numpy()[: len(images) - start] for value in values])
    return [np.concatenate(layer) for layer in zip(*results, strict=True)]
