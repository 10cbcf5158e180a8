"""Convolutional networks for images, as `IWAE(network=...)` takes them: Keras models, so that Keras can save them."""

import math
from collections.abc import Callable, Sequence
from typing import Any

import keras
import numpy as np

from iwae.layers import Conv2D, Conv2DTranspose, glorot


def networks(
    image_shape: Sequence[int],
    latent_units: Sequence[int],
    hidden_units: Sequence[Sequence[int]],
    channels: Sequence[int],
    likelihood: str,
    mean: np.ndarray | None,
    seed: int,
    classes: int = 0,
) -> tuple[list[keras.Model], list[keras.Model]]:
    """Encoder and decoder, a Keras model for every stochastic layer, from the data upwards.

    Below the first stochastic layer stand convolutions of stride 2 with these `channels` and ELUs, each of which halves
    the sides (rounded up), then the tanh layers of `hidden_units`. The decoder mirrors them with transposed
    convolutions, cut to the sizes of the encoder. Layers above the first are as those of `layers.tanh_networks`.

    Args:
        image_shape: (height, width) or (height, width, 3).
        mean: pixel means of the training data or None: Bernoulli logits start at the logit of their mean.
        classes: C, of a condition: so many columns come behind the pixels, and behind z_1.
        others: those of `iwae.model.IWAE`.
    """
    seeds, colours = np.random.SeedSequence(seed), (*image_shape, 1)[2]
    sides = [tuple(image_shape[:2])]
    for _ in channels:
        sides.append((-(-sides[-1][0] // 2), -(-sides[-1][1] // 2)))

    def elu(layer: Callable[..., keras.Layer], size: int, name: str, **options: Any) -> keras.Layer:
        return layer(size, activation="elu", kernel_initializer=glorot(seeds), name=name, **options)

    def dense(x: keras.KerasTensor, hidden: Sequence[int], name: str) -> keras.KerasTensor:
        for i, units in enumerate(hidden, start=1):
            layer = keras.layers.Dense(units, "tanh", kernel_initializer=glorot(seeds), name=f"{name}_hidden_{i}")
            x = layer(x)
        return x

    def gaussian(x: keras.KerasTensor, hidden: Sequence[int], units: int, name: str) -> list[keras.KerasTensor]:
        x = dense(x, hidden, name)
        of_scale = glorot(seeds) if hidden else "zeros"  # without tanh nothing would bound the exponent
        return [
            keras.layers.Dense(units, kernel_initializer=initializer, name=f"{name}_{parameter}")(x)
            for parameter, initializer in (("mean", glorot(seeds)), ("log_std", of_scale))
        ]

    pixels = math.prod(image_shape)
    x = keras.Input((pixels + classes,))
    h = keras.layers.Reshape((*sides[0], colours))(x[:, :pixels] if classes else x)
    for i, count in enumerate(channels, start=1):
        h = elu(Conv2D, count, f"q_z1_convolution_{i}")(h)
    h = keras.layers.Flatten()(h)
    h = keras.layers.Concatenate()([h, x[:, pixels:]]) if classes else h
    encoder = [keras.Model(x, gaussian(h, hidden_units[0], latent_units[0], "q_z1"))]

    z, smallest = keras.Input((latent_units[0] + classes,)), (*sides[-1], channels[-1])
    h = elu(keras.layers.Dense, math.prod(smallest), "p_x_picture")(dense(z, hidden_units[0][::-1], "p_x"))
    h = keras.layers.Reshape(smallest)(h)
    for i in range(len(channels) - 1, 0, -1):
        h = _cut(elu(Conv2DTranspose, channels[i - 1], f"p_x_convolution_{i + 1}")(h), sides[i])
    of_data = ("logits",) if likelihood == "bernoulli" else ("mean", "log_std")
    bias = 0.0
    if likelihood == "bernoulli" and mean is not None:
        grey = np.clip(np.mean(mean), 0.001, 0.999)
        bias = float(np.log(grey / (1 - grey)))
    heads = [
        Conv2DTranspose(
            colours,
            kernel_initializer="zeros" if parameter == "log_std" else glorot(seeds),  # so that the scale is one
            bias_initializer=keras.initializers.Constant(bias),
            name=f"p_x_{parameter}",
        )
        for parameter in of_data
    ]
    outputs = [keras.layers.Flatten()(_cut(head(h), sides[0])) for head in heads]
    decoder = [keras.Model(z, outputs if len(outputs) > 1 else outputs[0])]

    for i, hidden in enumerate(hidden_units[1:], start=1):
        below, above = latent_units[i - 1 : i + 1]
        x, z = keras.Input((below,)), keras.Input((above,))
        encoder.append(keras.Model(x, gaussian(x, hidden, above, f"q_z{i + 1}")))
        decoder.append(keras.Model(z, gaussian(z, hidden[::-1], below, f"p_z{i}")))
    return encoder, decoder


def _cut(images: keras.KerasTensor, sides: Sequence[int]) -> keras.KerasTensor:
    """The upper left part of images, which twice the sides of smaller ones may exceed by one."""
    return keras.layers.Cropping2D([(0, images.shape[1] - sides[0]), (0, images.shape[2] - sides[1])])(images)
