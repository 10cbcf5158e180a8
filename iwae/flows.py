"""A posterior that is no Gaussian: one that a normalizing flow bends (Rezende & Mohamed 2015), as a network of `IWAE`.

    epsilon ~ N(0, I) -> coupling 1 -> coupling 2 -> ... -> u,    z = mean(x) + exp(log_std(x)) u

A coupling moves one half of u, each unit by an increasing rational-quadratic spline whose shape is a function of the
other half and of the encoder's last hidden layer (neural spline flows: Durkan et al. 2019, arXiv:1906.04032). It has a
density and an inverse in closed form; at first it is the identity, so that training begins with the Gaussian.
"""

import functools
import math
import numbers
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from iwae import layers
from iwae.layers import Gaussian

BINS = 8  # of a spline
REACH = 5.0  # splines bend u between -REACH and REACH, and leave it as it is beyond
HIDDEN = 100  # tanh units between what a coupling is told and the shape of its splines
GAIN = 0.03  # factor on the outputs of `of_shape`: at 1 a rate that suits the other layers makes the splines jump
LEAST = 0.01  # width and height of a bin as a part of all, and slope at its ends: float32 must tell them apart


class Coupling(keras.layers.Layer):
    """One coupling: units [..., D] -> [..., D], an invertible function given a context [..., C].

    Args:
        units: D.
        number: of the coupling in its flow; which half it moves goes by that, in turn up to four different ones.
        seeds: where the initial weights come from.
    """

    def __init__(self, units: int, number: int, seeds: np.random.SeedSequence, **kwargs: Any):
        super().__init__(**kwargs)
        self.shift = math.floor(units * (0, 1 / 2, 1 / 4, 3 / 4)[number % 4])
        self.kept = units // 2  # the others are moved; a single unit is
        self.of_context = layers.Dense(HIDDEN, kernel_initializer=layers.glorot(seeds), name="context")
        self.of_kept = layers.Dense(HIDDEN, kernel_initializer=layers.glorot(seeds), name="kept")
        self.of_shape = layers.Dense((units - self.kept) * (3 * BINS - 1), kernel_initializer="zeros", name="shape")

    def build(self, input_shape: Sequence[int | None]) -> None:
        """`input_shape` is that of the context."""
        self.of_context.build(input_shape)
        if self.kept:
            self.of_kept.build((None, self.kept))
        self.of_shape.build((None, HIDDEN))
        self.built = True

    def move(
        self, u: tf.Tensor, context: tf.Tensor, units: tf.Tensor | None, stop_weights: bool, inverse: bool = False
    ) -> tuple[tf.Tensor, tf.Tensor]:
        """u [k, B, D] moved, or moved back, given a context [1, B, C] or [k, B, C]; and the log |det| of it, [k, B].

        `units` [D] of 0 and 1 or None: those with 0 are kept at 0 and count in no determinant.
        """
        u = tf.roll(u, -self.shift, axis=-1)
        here = None if units is None else tf.roll(units, -self.shift, axis=-1)
        kept, moved = u[..., : self.kept], u[..., self.kept :]
        hidden = layers.apply(self.of_context, context, stop_weights)
        if self.kept:
            hidden += layers.apply(self.of_kept, kept, stop_weights)
        shape = GAIN * layers.apply(self.of_shape, tf.tanh(hidden), stop_weights)
        leading = [-1 if size is None else size for size in shape.shape[:-1]]
        shape = tf.reshape(shape, [*leading, moved.shape[-1], 3 * BINS - 1])
        moved, log_det = spline(shape, moved, inverse)
        if here is not None:
            moved = moved * here[..., self.kept :]
        u = tf.roll(tf.concat([kept, moved], axis=-1), self.shift, axis=-1)
        return u, layers.total(log_det, None if here is None else here[..., self.kept :])


def spline(parameters: tf.Tensor, values: tf.Tensor, inverse: bool = False) -> tuple[tf.Tensor, tf.Tensor]:
    """An increasing rational-quadratic spline or its inverse, elementwise, and the logarithm of its slope.

    Durkan et al. 2019, eq. 4 to 8: between two knots, with the slopes there, a quotient of two quadratic polynomials.
    TensorFlow Probability's is the same, but XLA takes several times as long to compile it.

    Args:
        parameters: any numbers [..., 3 BINS - 1] for the widths and heights of the bins and the slopes between them;
            those of zeros are the identity.
        values: [...].
    """
    widths, heights, slopes = tf.split(parameters, [BINS, BINS, BINS - 1], axis=-1)
    widths, heights = (2 * REACH * (LEAST + (1 - LEAST * BINS) * tf.nn.softmax(logits)) for logits in (widths, heights))
    slopes = LEAST + tf.nn.softplus(slopes + math.log(math.expm1(1 - LEAST)))
    ones = tf.ones_like(slopes[..., :1])
    lefts, lowers = (tf.cumsum(sizes, axis=-1, exclusive=True) - REACH for sizes in (widths, heights))
    inside = tf.abs(values) < REACH
    within = tf.where(inside, values, 0.0)
    beyond = tf.cast(within[..., None] >= (lowers if inverse else lefts)[..., 1:], tf.float32)
    first = tf.ones_like(beyond[..., :1])
    in_bin = tf.concat([first, beyond], axis=-1) - tf.concat([beyond, 0 * first], axis=-1)  # 1 for the bin of a value
    width, height, left, lower, before, after = (
        tf.reduce_sum(in_bin * each, axis=-1)
        for each in (
            widths, heights, lefts, lowers, tf.concat([ones, slopes], axis=-1), tf.concat([slopes, ones], axis=-1),
        )
    )  # fmt: skip
    middle = height / width
    bend = before + after - 2 * middle
    if inverse:
        up = within - lower
        a, b, c = height * (middle - before) + up * bend, height * before - up * bend, -middle * up
        least = (2 * REACH * LEAST * LEAST) ** 2  # which rounding may take away, and the sign with it
        at = 2 * c / (-b - tf.sqrt(tf.maximum(tf.square(b) - 4 * a * c, least)))  # of the bin's width, 0 to 1
        moved = left + width * at
    else:
        at = (within - left) / width
        moved = lower + height * (middle * at**2 + before * at * (1 - at)) / (middle + bend * at * (1 - at))
    slope = middle**2 * (after * at**2 + 2 * middle * at * (1 - at) + before * (1 - at) ** 2)
    log_slope = tf.math.log(slope) - 2 * tf.math.log(middle + bend * at * (1 - at))
    return tf.where(inside, moved, values), tf.where(inside, -log_slope if inverse else log_slope, 0.0)


@dataclass(frozen=True)
class Bent(Gaussian):
    """What a flow makes of a Gaussian; `mean` and `log_std` are those of the latter."""

    context: tf.Tensor
    couplings: Sequence[Coupling]
    stop_weights: bool

    def draw(self, epsilon: tf.Tensor, units: tf.Tensor | None = None) -> tuple[tf.Tensor, tf.Tensor]:
        u = epsilon if units is None else epsilon * units
        _, log_q = super().draw(epsilon, units)
        for coupling in self.couplings:
            u, log_det = coupling.move(u, self.context, units, self.stop_weights)
            log_q -= log_det
        z = self.mean + tf.exp(self.log_std) * u
        return z if units is None else z * units, log_q

    def log_prob(self, z: tf.Tensor, units: tf.Tensor | None = None) -> tf.Tensor:
        u = (z - self.mean) * tf.exp(-self.log_std)
        if units is not None:
            u = tf.where(tf.cast(units, tf.bool), u, 0.0)
        log_dets = []
        for coupling in reversed(self.couplings):
            u, log_det = coupling.move(u, self.context, units, self.stop_weights, inverse=True)
            log_dets.append(log_det)
        return layers.gaussian_log_prob_of_noise(u, self.log_std, units) + tf.add_n(log_dets)

    def expectation(self, z: tf.Tensor) -> tf.Tensor:
        return z


class FlowLayer(layers.GaussianLayer):
    """An encoder as `GaussianLayer` is one, but for the couplings that bend its Gaussian.

    Inputs [N, I] -> mean [N, D], log standard deviation [N, D], and the last hidden layer: what the couplings are told.
    """

    def __init__(
        self, hidden_units: Sequence[int], units: int, seeds: np.random.SeedSequence, couplings: int, **kwargs: Any
    ):
        super().__init__(hidden_units, units, seeds, **kwargs)
        self.couplings = [Coupling(units, i, seeds, name=f"coupling_{i + 1}") for i in range(couplings)]

    def build(self, input_shape: Sequence[int | None]) -> None:
        super().build(input_shape)
        context = self.hidden[-1].units if self.hidden else input_shape[-1]
        for coupling in self.couplings:
            coupling.build((None, context))

    def call(self, inputs: tf.Tensor) -> tuple[tf.Tensor, ...]:
        features = self.features(inputs)
        return self.mean(features), self.log_std(features), features

    def posterior_of(self, outputs: tuple[tf.Tensor, ...], stop_weights: bool) -> Bent:
        mean, log_std, context = outputs
        return Bent(mean, log_std, context, self.couplings, stop_weights)


@keras.saving.register_keras_serializable("iwae")
@dataclass(frozen=True)
class SplineFlow:
    """`IWAE(..., network=SplineFlow(4))`: the tanh networks, each posterior bent by so many couplings."""

    couplings: int = 4

    def __post_init__(self) -> None:
        if not isinstance(self.couplings, numbers.Integral) or isinstance(self.couplings, bool) or self.couplings < 1:
            raise ValueError(f"couplings: expected an integer >= 1, got {self.couplings!r}")

    def networks(self, *arguments: Any) -> tuple[list[keras.Layer], list[keras.Layer]]:
        """Encoder and decoder of the arguments of `layers.tanh_networks`."""
        return layers.tanh_networks(*arguments, encoder_layer=functools.partial(FlowLayer, couplings=self.couplings))

    def get_config(self) -> dict[str, Any]:
        return {"couplings": int(self.couplings)}  # as JSON has it

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> "SplineFlow":
        return cls(**config)
