"""Stochastic layers: networks that give the parameters of a conditional distribution, and their densities in nats.

Every density is summed over the dimensions of the variable (the last axis); the leading axes, [k, B] or [B], stay.
"""

import math
from collections.abc import Sequence

import keras
import numpy as np
import tensorflow as tf

LOG_2PI = math.log(2 * math.pi)


def _sum(terms: tf.Tensor, units: tf.Tensor | None) -> tf.Tensor:
    """Sum over the last axis. The density of a removed unit may be zero: minus infinity times 0 would be no number."""
    return tf.reduce_sum(terms if units is None else tf.where(tf.cast(units, tf.bool), terms, 0.0), axis=-1)


def gaussian_log_prob(z: tf.Tensor, mean: tf.Tensor, log_std: tf.Tensor, units: tf.Tensor | None = None) -> tf.Tensor:
    """log N(z; mean, diag(exp(log_std))^2), summed over the last axis.

    Args:
        z: [..., D].
        mean, log_std: broadcastable to z.
        units: [D] of 0 and 1, or None. Units with 0 are left out of the sum: they are no part of the model.

    Returns:
        [...], nats.
    """
    terms = -0.5 * (LOG_2PI + tf.square((z - mean) * tf.exp(-log_std))) - log_std
    return _sum(terms, units)


def gaussian_log_prob_of_noise(epsilon: tf.Tensor, log_std: tf.Tensor, units: tf.Tensor | None = None) -> tf.Tensor:
    """log N(z; mean, diag(exp(log_std))^2) at z = mean + exp(log_std) epsilon, summed over the last axis.

    The same number as `gaussian_log_prob(z, mean, log_std)` and the same gradient, in which what flows through z and
    what flows through mean cancels, at a fraction of the work. [..., D] -> [...], nats.
    """
    terms = -0.5 * (LOG_2PI + tf.square(epsilon)) - log_std
    return _sum(terms, units)


def standard_gaussian_log_prob(z: tf.Tensor, units: tf.Tensor | None = None) -> tf.Tensor:
    """log N(z; 0, I), summed over the last axis: [..., D] -> [...], nats. `units` as in `gaussian_log_prob`."""
    terms = -0.5 * (LOG_2PI + tf.square(z))
    return _sum(terms, units)


@tf.custom_gradient
def bernoulli_log_prob(x: tf.Tensor, logits: tf.Tensor) -> tuple[tf.Tensor, object]:
    """log Bernoulli(x; sigmoid(logits)), summed over the last axis; right for logits of any size.

    Args:
        x: [B, D], values in [0, 1].
        logits: [k, B, D].

    Returns:
        [k, B], nats. The gradient flows to the logits only: (x - sigmoid(logits)), in one pass.
    """
    # softplus written out: XLA on a CPU is faster on it than on tf.nn.softplus (`python -m iwae.benchmark`).
    softplus = tf.maximum(logits, 0.0) + tf.math.log(1.0 + tf.exp(-tf.abs(logits)))

    def gradient(upstream: tf.Tensor) -> tuple[None, tf.Tensor]:
        return None, upstream[..., None] * (x - tf.sigmoid(logits))

    return tf.reduce_sum(x * logits - softplus, axis=-1), gradient


def fold_seed(seed: tf.Tensor, number: int | tf.Tensor) -> tf.Tensor:
    """Another seed [2] made from `seed` [2] and an integer, for an independent stream of random numbers."""
    return tf.random.experimental.stateless_fold_in(seed, number, alg="philox")


def normal(shape: Sequence[int], seed: tf.Tensor) -> tf.Tensor:
    """Standard normal noise of `shape` from a seed [2]; the same seed gives the same numbers.

    The algorithm is named because the default one is some 30 times slower inside XLA on a CPU. Inside XLA and
    outside it one seed gives two different streams.
    """
    return tf.random.stateless_normal(shape, seed, alg="philox")


class Network(keras.layers.Layer):
    """Tanh hidden layers, [N, inputs] -> [N, hidden_units[-1]]; Glorot-uniform weights, zero biases."""

    def __init__(self, hidden_units: Sequence[int], seeds: np.random.SeedSequence, **kwargs):
        super().__init__(**kwargs)
        self.hidden = [
            keras.layers.Dense(units, activation="tanh", kernel_initializer=glorot(seeds), name=f"hidden_{i + 1}")
            for i, units in enumerate(hidden_units)
        ]

    def build(self, input_shape):
        for layer in self.hidden:
            layer.build(input_shape)
            input_shape = layer.compute_output_shape(input_shape)
        for head in self.heads():
            head.build(input_shape)
        self.built = True

    def heads(self) -> list[keras.layers.Layer]:
        """The linear layers on top of the hidden ones."""
        return []

    def features(self, inputs: tf.Tensor) -> tf.Tensor:
        for layer in self.hidden:
            inputs = layer(inputs)
        return inputs


class GaussianLayer(Network):
    """A conditional Gaussian with diagonal covariance: inputs [N, I] -> (mean [N, D], log standard deviation [N, D]).

    The standard deviation is exp(linear), as in the paper.

    Args:
        hidden_units: sizes of the tanh layers.
        units: D.
        seeds: where the initial weights come from.
        mean, std: [D] or None. What the layer gives before it is trained, when it stands for the data: starting at the
            data's own mean and scale, with weights of the scale at zero, the density can neither overflow nor underflow
            in the first updates.

    Without hidden layers the weights of the scale start at zero as well: nothing would bound the exponent.
    """

    def __init__(self, hidden_units, units, seeds, mean=None, std=None, **kwargs):
        super().__init__(hidden_units, seeds, **kwargs)
        self.mean = keras.layers.Dense(
            units, kernel_initializer=glorot(seeds), bias_initializer=_constant(mean), name="mean"
        )
        self.log_std = keras.layers.Dense(
            units,
            kernel_initializer=glorot(seeds) if std is None and hidden_units else "zeros",
            bias_initializer=_constant(None if std is None else np.log(std)),
            name="log_std",
        )

    def heads(self):
        return [self.mean, self.log_std]

    def call(self, inputs):
        features = self.features(inputs)
        return self.mean(features), self.log_std(features)


class BernoulliLayer(Network):
    """Conditionally independent binary pixels: inputs [N, I] -> logits [N, D].

    Args:
        hidden_units, seeds: as in `GaussianLayer`.
        units: D.
        mean: [D] or None. Pixel means of the training data; the initial bias is their logit, clipped to
            [0.001, 0.999] first, as in the authors' code.
    """

    def __init__(self, hidden_units, units, seeds, mean=None, **kwargs):
        super().__init__(hidden_units, seeds, **kwargs)
        if mean is not None:
            mean = np.clip(mean, 0.001, 0.999)
            mean = np.log(mean / (1 - mean))
        self.logits = keras.layers.Dense(
            units, kernel_initializer=glorot(seeds), bias_initializer=_constant(mean), name="logits"
        )

    def heads(self):
        return [self.logits]

    def call(self, inputs):
        return self.logits(self.features(inputs))


def glorot(seeds: np.random.SeedSequence) -> keras.initializers.Initializer:
    """Glorot & Bengio's uniform initializer with a seed of its own, so that layers of one size do not start alike."""
    return keras.initializers.GlorotUniform(seed=int(seeds.spawn(1)[0].generate_state(1)[0]))


def _constant(values: np.ndarray | None):
    if values is None:
        return "zeros"
    return lambda shape, dtype=None: tf.reshape(tf.constant(np.asarray(values), dtype=dtype or "float32"), shape)
