"""Exact quantities of a model with one latent unit and one-dimensional data, by quadrature over the latent unit."""

from collections.abc import Callable
from typing import Any

import numpy as np
import tensorflow as tf

from iwae.figures.densities import OneDimensional
from iwae.model import IWAE

Array = np.ndarray
REACH = 8.0  # the prior's mass outside of +-8 standard deviations is 1e-15
POINTS = 4001  # of the grid over z; also resolves what is 0.01 wide


def applies(model: IWAE) -> bool:
    """Whether `model` has one-dimensional Gaussian data, no condition, no flow and one layer of one unit."""
    plain = not model.classes and not hasattr(model.encoder[0], "posterior_of")
    return plain and model.input_dim == 1 and model.latent_units == (1,) and model.likelihood == "gaussian"


def log_marginal(model: IWAE, x: Array) -> Array:
    """log p(x) = log of the integral of N(z; 0, 1) p(x | z) over z: x [n] -> [n], nats."""
    z = _grid()
    mean, scale = _conditional(model.likelihood_parameters, z)
    log_step = np.log(z[1] - z[0])
    prior = _log_normal(z, 0.0, 1.0)
    return np.concatenate(
        [
            np.logaddexp.reduce(prior + _log_normal(part[:, None], mean, scale), axis=1) + log_step
            for part in np.array_split(np.asarray(x, np.float64), -(-len(x) // 500))  # 16 MB a part
        ]
    )


def one_dimensional(model: IWAE, x: Array, posterior_x: float, reach: float = 4.0) -> OneDimensional:
    """The densities of a model that `applies` accepts.

    Args:
        model: an `IWAE`.
        x: [n], data values, increasing.
        posterior_x: the value whose posterior is computed.
        reach: z is shown from -reach to reach.
    """
    z = _grid()
    mean, scale = _conditional(model.likelihood_parameters, z)
    joint = _log_normal(z, 0.0, 1.0) + _log_normal(posterior_x, mean, scale)
    posterior = np.exp(joint - np.logaddexp.reduce(joint) - np.log(z[1] - z[0]))
    (q_mean,), (q_scale,) = _conditional(model.posterior_parameters, np.array([posterior_x]))
    encoder_mean, encoder_scale = _conditional(model.posterior_parameters, x)
    shown = np.abs(z) <= reach
    return OneDimensional(
        x=x,
        model_density=np.exp(log_marginal(model, x)),
        encoder_mean=encoder_mean,
        encoder_scale=encoder_scale,
        z=z[shown],
        decoder_mean=mean[shown],
        decoder_scale=scale[shown],
        posterior=posterior[shown],
        q=np.exp(_log_normal(z[shown], q_mean, q_scale)),
        posterior_x=posterior_x,
    )


def _grid() -> Array:
    return np.linspace(-REACH, REACH, POINTS)


def _conditional(parameters: Callable[[tf.Tensor], Any], inputs: Array) -> tuple[Array, Array]:
    """Mean and standard deviation [n] of a Gaussian of one unit for inputs [n]; `parameters` is a method of `IWAE`."""
    mean, log_std = parameters(tf.constant(inputs, tf.float32)[:, None])
    return np.asarray(mean[:, 0], np.float64), np.exp(np.asarray(log_std[:, 0], np.float64))


def _log_normal(value: Array | float, mean: Array | float, scale: Array | float) -> Array:
    return -0.5 * (np.log(2 * np.pi) + ((value - mean) / scale) ** 2) - np.log(scale)
