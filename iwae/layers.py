"""Stochastic layers: networks that give the parameters of a conditional distribution, and their densities in nats.

Every density is summed over the dimensions of the variable (the last axis); the leading axes, [k, B] or [B], stay.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from iwae import hardware

LOG_2PI = math.log(2 * math.pi)
PART_ROWS, MOST_PARTS = 500, 8  # see `_parts`
# Of convolutions; 4 by 4: every pixel is reached by as many weights.
_WINDOW: dict[str, Any] = {"kernel_size": 4, "strides": 2, "padding": "same", "use_bias": True}
_CORNERS = ((0, 0), (0, 1), (1, 0), (1, 1))


def total(terms: tf.Tensor, units: tf.Tensor | None) -> tf.Tensor:
    """Sum over the last axis. The density of a removed unit may be zero: minus infinity times 0 would be no number."""
    return tf.reduce_sum(terms if units is None else tf.where(tf.cast(units, tf.bool), terms, 0.0), axis=-1)


def gaussian_log_prob(z: tf.Tensor, mean: tf.Tensor, log_std: tf.Tensor, units: tf.Tensor | None = None) -> tf.Tensor:
    """log N(z; mean, diag(exp(log_std))^2), summed over the last axis.

    Args:
        z: [..., D].
        mean, log_std: broadcastable to z.
        units: [D] or [..., D] of 0 and 1, or None. Units with 0 are left out of the sum: they are no part of the model,
            or not known.

    Returns:
        [...], nats.
    """
    terms = -0.5 * (LOG_2PI + tf.square((z - mean) * tf.exp(-log_std))) - log_std
    return total(terms, units)


def gaussian_log_prob_of_noise(epsilon: tf.Tensor, log_std: tf.Tensor, units: tf.Tensor | None = None) -> tf.Tensor:
    """log N(z; mean, diag(exp(log_std))^2) at z = mean + exp(log_std) epsilon, summed over the last axis.

    The same number as `gaussian_log_prob(z, mean, log_std)` and the same gradient, in which what flows through z and
    what flows through mean cancels, at a fraction of the work. [..., D] -> [...], nats.
    """
    terms = -0.5 * (LOG_2PI + tf.square(epsilon)) - log_std
    return total(terms, units)


def standard_gaussian_log_prob(z: tf.Tensor, units: tf.Tensor | None = None) -> tf.Tensor:
    """log N(z; 0, I), summed over the last axis: [..., D] -> [...], nats. `units` as in `gaussian_log_prob`."""
    terms = -0.5 * (LOG_2PI + tf.square(z))
    return total(terms, units)


@dataclass(frozen=True)
class Gaussian:
    """A distribution of latent variables: N(mean, diag(exp(log_std))^2), both [..., D].

    One that is no Gaussian is made of one: a subclass with its own `draw`, `log_prob` and `expectation` (`flows.Bent`).
    """

    mean: tf.Tensor
    log_std: tf.Tensor

    def draw(self, epsilon: tf.Tensor, units: tf.Tensor | None = None) -> tuple[tf.Tensor, tf.Tensor]:
        """The draw that standard normal noise [k, B, D] makes, [k, B, D], and its log density [k, B] in nats.

        `units` as in `gaussian_log_prob`; those with 0 are 0.
        """
        z = self.mean + tf.exp(self.log_std) * epsilon
        return z if units is None else z * units, gaussian_log_prob_of_noise(epsilon, self.log_std, units)

    def log_prob(self, z: tf.Tensor, units: tf.Tensor | None = None) -> tf.Tensor:
        """Log density at z [k, B, D]: [k, B], nats. `units` as in `gaussian_log_prob`."""
        return gaussian_log_prob(z, self.mean, self.log_std, units)

    def expectation(self, z: tf.Tensor) -> tf.Tensor:
        """E[z]; or where it is not known, draws z [k, B, D] of it, whose mean stands for it."""
        return self.mean


@tf.custom_gradient
def bernoulli_log_prob(
    x: tf.Tensor, features: tf.Tensor, kernel: tf.Tensor, bias: tf.Tensor
) -> tuple[tf.Tensor, Callable[[tf.Tensor], tuple[tf.Tensor | None, ...]]]:
    """log Bernoulli(x; sigmoid(a)) with logits a = features kernel + bias, summed over the last axis.

    Right for logits of any size. The linear layer is a part of it for the sake of its gradients: the factor [k, B] that
    comes from above goes to the features, not to the many more pixels.

    Args:
        x: [B, D], values in [0, 1]. No gradient flows to it.
        features: [k, B, H].
        kernel, bias: [H, D] and [D].

    Returns:
        [k, B], nats.
    """
    flat = tf.reshape(features, [-1, features.shape[-1]])
    logits = tf.matmul(flat, kernel) + bias
    by_sample = tf.reshape(logits, tf.concat([tf.shape(features)[:-1], bias.shape], axis=0))
    residual = tf.reshape(x - tf.sigmoid(by_sample), tf.shape(logits))  # d log Bernoulli / d logits

    def gradient(upstream: tf.Tensor) -> tuple[tf.Tensor | None, ...]:
        factor = tf.reshape(upstream, [-1, 1])
        of_features = factor * tf.matmul(residual, kernel, transpose_b=True)
        # The bias's column of ones joins the matrix product: a product with a vector alone takes XLA a millisecond.
        of_both = tf.matmul(factor * tf.pad(flat, [[0, 0], [0, 1]], constant_values=1.0), residual, transpose_a=True)
        return None, tf.reshape(of_features, tf.shape(features)), of_both[:-1], of_both[-1]

    # sum_d x_d a_d - softplus(a_d), softplus(a) = max(a, 0) + log(1 + exp(-|a|)); the logarithm is taken of products of
    # up to 16 such factors, of which none is above 2.
    factors = 1.0 + tf.exp(-tf.abs(by_sample))
    for _ in range(4):
        if factors.shape[-1] % 2 == 0:
            half = factors.shape[-1] // 2
            factors = factors[..., :half] * factors[..., half:]
    linear = tf.reduce_sum(x * by_sample - tf.maximum(by_sample, 0.0), axis=-1)
    return linear - tf.reduce_sum(tf.math.log(factors), axis=-1), gradient


def bernoulli_log_prob_of_logits(x: tf.Tensor, logits: tf.Tensor, units: tf.Tensor | None = None) -> tf.Tensor:
    """log Bernoulli(x; sigmoid(logits)), summed over the last axis: x [B, D], logits [k, B, D] -> [k, B], nats.

    `units` as in `gaussian_log_prob`.
    """
    softplus = tf.maximum(logits, 0.0) + tf.math.log1p(tf.exp(-tf.abs(logits)))
    return total(x * logits - softplus, units)


@dataclass(frozen=True)
class Coordinates:
    """Of the inputs [N, I] of a dense layer: (inputs - centre) axes, with centre [I] and orthogonal axes [I, I]."""

    centre: keras.Variable
    axes: keras.Variable


class Dense(keras.layers.Dense):
    """Keras's own, whose kernel and bias may be those for other coordinates of its inputs (`iwae.rotated`)."""

    coordinates: Coordinates | None = None
    inputs_seen: list[tf.Tensor] | None = None
    """Where the inputs [N, I] are noted, if anywhere."""

    def operands(self, inputs: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
        """Inputs [N, I], kernel and bias whose plain linear layer is this one's."""
        if self.inputs_seen is not None:
            self.inputs_seen.append(inputs)
        kernel, bias = tf.convert_to_tensor(self.kernel), tf.convert_to_tensor(self.bias)
        if self.coordinates is None:
            return inputs, kernel, bias
        centre, axes = (tf.convert_to_tensor(v) for v in (self.coordinates.centre, self.coordinates.axes))
        if inputs.shape[0] is not None and inputs.shape[0] < self.units:  # whichever is the smaller product
            return tf.matmul(inputs - centre, axes), kernel, bias
        kernel = tf.matmul(axes, kernel)
        return inputs, kernel, bias - tf.linalg.matvec(kernel, centre, transpose_a=True)

    def call(self, inputs: tf.Tensor, training: bool | None = None) -> tf.Tensor:
        inputs, kernel, bias = self.operands(inputs)
        return self.activation(tf.matmul(inputs, kernel) + bias)


@keras.saving.register_keras_serializable("iwae")
class Conv2D(keras.layers.Conv2D):
    """Keras's own with `_WINDOW`: images [N, H, W, C] -> [N, ceil(H / 2), ceil(W / 2), filters].

    On a CPU by matrix products: XLA's convolution is naive there inside the compiled loop over updates, where with it
    the preset `mnist_iwae_k5_conv` has 77 images a second (`log.csv`, one core) instead of 1,000.
    """

    def __init__(self, filters: int, **options: Any):
        super().__init__(filters, **(options | _WINDOW))

    def call(self, inputs: tf.Tensor) -> tf.Tensor:
        if hardware.on_gpu():
            return super().call(inputs)
        height, width, channels = inputs.shape[1:]
        h, w = -(-height // 2), -(-width // 2)
        padded = tf.pad(inputs, [[0, 0], [1, 2 * h + 1 - height], [1, 2 * w + 1 - width], [0, 0]])
        # A window of 4 by 4 pixels is one of 2 by 2 blocks, of 2 by 2 pixels each.
        blocks = tf.transpose(tf.reshape(padded, [-1, h + 1, 2, w + 1, 2, channels]), [0, 1, 3, 2, 4, 5])
        blocks = tf.reshape(blocks, [-1, h + 1, w + 1, 4 * channels])
        windows = tf.concat([blocks[:, i : i + h, j : j + w] for i, j in _CORNERS], axis=-1)
        kernel = tf.reshape(self.kernel, [2, 2, 2, 2, channels, self.filters])
        kernel = tf.reshape(tf.transpose(kernel, [0, 2, 1, 3, 4, 5]), [16 * channels, self.filters])
        outputs = tf.matmul(tf.reshape(windows, [-1, 16 * channels]), kernel) + self.bias
        return self.activation(tf.reshape(outputs, [-1, h, w, self.filters]))


@keras.saving.register_keras_serializable("iwae")
class Conv2DTranspose(keras.layers.Conv2DTranspose):
    """Keras's own with `_WINDOW`: images [N, H, W, C] -> [N, 2 H, 2 W, filters]; on a CPU as `Conv2D`."""

    def __init__(self, filters: int, **options: Any):
        super().__init__(filters, **(options | _WINDOW))

    def call(self, inputs: tf.Tensor) -> tf.Tensor:
        if hardware.on_gpu():
            return super().call(inputs)
        h, w, channels = inputs.shape[1:]
        kernel = tf.reshape(self.kernel, [2, 2, 2, 2, self.filters, channels])
        kernel = tf.reshape(tf.transpose(kernel, [0, 2, 5, 1, 3, 4]), [2, 2, channels, 4 * self.filters])
        flat = tf.reshape(inputs, [-1, channels])
        # Every pixel is spread over 2 by 2 blocks, of 2 by 2 pixels each, which those of its neighbours overlap.
        spread = [
            tf.pad(
                tf.reshape(tf.matmul(flat, kernel[i, j]), [-1, h, w, 4 * self.filters]),
                [[0, 0], [i, 1 - i], [j, 1 - j], [0, 0]],
            )
            for i, j in _CORNERS
        ]
        blocks = tf.reshape(tf.add_n(spread), [-1, h + 1, w + 1, 2, 2, self.filters])
        outputs = tf.reshape(tf.transpose(blocks, [0, 1, 3, 2, 4, 5]), [-1, 2 * h + 2, 2 * w + 2, self.filters])
        return self.activation(outputs[:, 1:-1, 1:-1] + self.bias)


class Network(keras.layers.Layer):
    """Tanh hidden layers, [N, inputs] -> [N, hidden_units[-1]]; Glorot-uniform weights, zero biases."""

    def __init__(self, hidden_units: Sequence[int], seeds: np.random.SeedSequence, **kwargs: Any):
        super().__init__(**kwargs)
        self.hidden = [
            Dense(units, activation="tanh", kernel_initializer=glorot(seeds), name=f"hidden_{i + 1}")
            for i, units in enumerate(hidden_units)
        ]

    def build(self, input_shape: Sequence[int | None]) -> None:
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
        of_data: it stands for the data. The weights of the scale then start at zero, so that it is one and the density
            can neither overflow nor underflow in the first updates.

    Without hidden layers they start at zero as well: nothing would bound the exponent.
    """

    def __init__(
        self,
        hidden_units: Sequence[int],
        units: int,
        seeds: np.random.SeedSequence,
        of_data: bool = False,
        **kwargs: Any,
    ):
        super().__init__(hidden_units, seeds, **kwargs)
        self.mean = Dense(units, kernel_initializer=glorot(seeds), name="mean")
        flat = of_data or not hidden_units
        self.log_std = Dense(units, kernel_initializer="zeros" if flat else glorot(seeds), name="log_std")

    def heads(self) -> list[keras.layers.Layer]:
        return [self.mean, self.log_std]

    def call(self, inputs: tf.Tensor) -> tuple[tf.Tensor, ...]:
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

    def __init__(
        self,
        hidden_units: Sequence[int],
        units: int,
        seeds: np.random.SeedSequence,
        mean: np.ndarray | None = None,
        **kwargs: Any,
    ):
        super().__init__(hidden_units, seeds, **kwargs)
        if mean is not None:
            mean = np.clip(mean, 0.001, 0.999)
            mean = np.log(mean / (1 - mean))
        self.logits = Dense(units, kernel_initializer=glorot(seeds), bias_initializer=_constant(mean), name="logits")

    def heads(self) -> list[keras.layers.Layer]:
        return [self.logits]

    def log_prob(self, x: tf.Tensor, inputs: tf.Tensor) -> tf.Tensor:
        """log p(x | inputs): x [B, D], inputs [k, B, I] -> [k, B], nats."""
        features, kernel, bias = self.logits.operands(self.features(tf.reshape(inputs, [-1, inputs.shape[-1]])))
        features = tf.reshape(features, tf.concat([tf.shape(inputs)[:-1], features.shape[-1:]], axis=0))
        parts = tf.split(features, _parts(*inputs.shape[:2]))
        return tf.concat([bernoulli_log_prob(x, part, kernel, bias) for part in parts], axis=0)

    def call(self, inputs: tf.Tensor) -> tf.Tensor:
        return self.logits(self.features(inputs))


def _parts(k: int, batch: int | None) -> int:
    """Into how many parts the samples are cut where the pixels' logits are worked on.

    On a CPU some 500 rows at a time stay in the caches (8.2 ms an update instead of 8.5 at k = 50). A GPU takes all at
    once, and so does a batch whose size is not known.
    """
    if batch is None or hardware.on_gpu():
        return 1
    most = min(MOST_PARTS, max(1, k * batch // PART_ROWS))  # each part is compiled
    return max(parts for parts in range(1, most + 1) if k % parts == 0)


def apply(layer: keras.Layer, inputs: tf.Tensor, stop_weights: bool = False) -> Any:
    """A layer on [B, I] or [k, B, I]: outputs [1, B, D] or [k, B, D]. Flattened first: one large matrix product."""
    leading = [1, *inputs.shape[:-1]] if inputs.shape.rank == 2 else list(inputs.shape[:-1])
    leading = [-1 if size is None else size for size in leading]
    flat = tf.reshape(inputs, [-1, inputs.shape[-1]])
    if stop_weights:
        weights = [tf.stop_gradient(v) for v in layer.trainable_variables]
        outputs, _ = layer.stateless_call(weights, layer.non_trainable_variables, flat)
    else:
        outputs = layer(flat)
    return tf.nest.map_structure(lambda values: tf.reshape(values, [*leading, values.shape[-1]]), outputs)


def posterior(encoder: keras.Layer, inputs: tf.Tensor, stop_weights: bool = False) -> Gaussian:
    """q(z | inputs) as an encoder gives it for inputs [B, I] or [k, B, I]; made of tensors [1, B, D] or [k, B, D].

    It is Gaussian, unless the encoder has a method `posterior_of(outputs, stop_weights)`, which makes it of its
    outputs. The first two of these are mean and log standard deviation all the same, and with `stop_weights` no
    gradient may flow to the weights that it uses (as in `apply`).
    """
    outputs = apply(encoder, inputs, stop_weights)
    return encoder.posterior_of(outputs, stop_weights) if hasattr(encoder, "posterior_of") else Gaussian(*outputs)


def glorot(seeds: np.random.SeedSequence) -> keras.initializers.Initializer:
    """Glorot & Bengio's uniform initializer with a seed of its own, so that layers of one size do not start alike."""
    return keras.initializers.GlorotUniform(seed=int(seeds.spawn(1)[0].generate_state(1)[0]))


def _constant(values: np.ndarray | None) -> str | Callable[..., tf.Tensor]:
    if values is None:
        return "zeros"
    return lambda shape, dtype=None: tf.reshape(tf.constant(np.asarray(values), dtype=dtype or "float32"), shape)


def tanh_networks(
    input_dim: int,
    latent_units: Sequence[int],
    hidden_units: Sequence[Sequence[int]],
    likelihood: str,
    mean: np.ndarray | None,
    seed: int,
    *,
    encoder_layer: Callable[..., GaussianLayer] = GaussianLayer,
) -> tuple[list[keras.layers.Layer], list[keras.layers.Layer]]:
    """The paper's encoder and decoder, each a layer for every stochastic layer, from the data upwards.

    Args: those of `iwae.model.IWAE`; `mean` is that of the data, [D] or None, and an `encoder_layer` is made with the
    arguments of `GaussianLayer`.
    """
    seeds = np.random.SeedSequence(seed)
    encoder = [
        encoder_layer(hidden, units, seeds, name=f"q_z{i + 1}")
        for i, (hidden, units) in enumerate(zip(hidden_units, latent_units, strict=True))
    ]
    below = hidden_units[0][::-1]
    outermost: Network
    if likelihood == "bernoulli":
        outermost = BernoulliLayer(below, input_dim, seeds, mean=mean, name="p_x")
    else:
        outermost = GaussianLayer(below, input_dim, seeds, of_data=True, name="p_x")
    upper = [
        GaussianLayer(hidden[::-1], units, seeds, name=f"p_z{i + 1}")
        for i, (hidden, units) in enumerate(zip(hidden_units[1:], latent_units[:-1], strict=True))
    ]
    return encoder, [outermost, *upper]


def check_networks(encoder: list[Any], decoder: list[Any], latent_units: tuple[int, ...]) -> None:
    """Raises ValueError if there is not a Keras layer or model as each for every stochastic layer."""
    for name, parts in (("encoder", encoder), ("decoder", decoder)):
        if len(parts) != len(latent_units) or not all(isinstance(part, keras.Layer) for part in parts):
            raise ValueError(
                f"network: expected a Keras layer or model as {name} of each of {len(latent_units)} stochastic layers, "
                f"got {parts!r}"
            )


def check_outputs(what: str, layer: keras.Layer, inputs: int, sizes: Sequence[int]) -> None:
    """Builds a layer; raises ValueError if it does not give tensors [N, size] for [N, inputs]."""
    outputs = tf.nest.flatten(layer(tf.zeros([1, inputs])))
    if hasattr(layer, "posterior_of"):  # to which it gives more
        outputs = outputs[: len(sizes)]
    found = [list(output.shape) for output in outputs]
    if found != [[1, size] for size in sizes]:
        expected = " and ".join(f"[N, {size}]" for size in sizes)
        raise ValueError(f"network: expected {expected} from {what} for [N, {inputs}], got {found} for [1, {inputs}]")
