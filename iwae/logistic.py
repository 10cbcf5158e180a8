"""The discretized logistic distribution of 8-bit values (Salimans et al. 2017, PixelCNN++), without mixtures."""

import math
from dataclasses import dataclass
from typing import Any

import tensorflow as tf

from iwae import layers, rng

_STEP = 1 / 255
_LOG_SCALES = (-7 - math.log(2), 20.0)  # the lower one is theirs, for values from 0 to 1; no gradient beyond


@dataclass(frozen=True)
class DiscretizedLogistic:
    """Independent values v / 255, v = 0 .. 255: each has the mass of a logistic density within half a step around it,
    the lowest and the highest also what lies beyond them.

    Attributes:
        location: [..., D], where black is 0 and white is 1.
        log_scale: [..., D]; counts as at least -7.7, a ninth of a step.
    """

    location: tf.Tensor
    log_scale: tf.Tensor

    @property
    def batch_shape(self) -> tf.TensorShape:
        return self.location.shape[:-1]

    @property
    def event_shape(self) -> tf.TensorShape:
        return self.location.shape[-1:]

    def _bounded(self) -> tf.Tensor:
        return tf.clip_by_value(self.log_scale, *_LOG_SCALES)

    def log_prob(self, x: tf.Tensor, units: tf.Tensor | None = None) -> tf.Tensor:
        """Summed over the last axis: x broadcastable to [..., D] counts as the nearest 8-bit values -> [...], nats.

        `units` as in `layers.gaussian_log_prob`.

        With a and b the upper and lower end of a step in units of the scale, sigmoid(a) - sigmoid(b) is
        sigmoid(a) sigmoid(-b) (1 - exp(b - a)): no difference of numbers that are nearly the same, in any tail.
        """
        x = tf.convert_to_tensor(x)
        x = x if units is None else tf.where(units, x, 0.0)
        x, rate = tf.round(255 * x) / 255, tf.exp(-self._bounded())
        centred = x - self.location
        terms = tf.where(x < 1, -tf.nn.softplus(-(centred + _STEP / 2) * rate), 0.0)
        terms -= tf.where(x > 0, tf.nn.softplus((centred - _STEP / 2) * rate), 0.0)
        terms += tf.where((x > 0) & (x < 1), tf.math.log(-tf.math.expm1(-_STEP * rate)), 0.0)
        return layers.total(terms, units)

    def mean(self) -> tf.Tensor:
        """[..., D], up to half a step: that of the logistic variable with what is beyond 0 and 1 put there."""
        scale = tf.exp(self._bounded())
        return scale * (tf.nn.softplus(self.location / scale) - tf.nn.softplus((self.location - 1) / scale))

    def sample(self, seed: Any) -> tf.Tensor:
        """A draw [..., D]; `seed` is two integers or a tensor [2]."""
        uniform = rng.uniform(tf.shape(self.location), tf.convert_to_tensor(seed, tf.int32))
        draw = self.location + tf.exp(self._bounded()) * (tf.math.log(uniform) - tf.math.log1p(-uniform))
        return tf.clip_by_value(tf.round(255 * draw), 0.0, 255.0) / 255
