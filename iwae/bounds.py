"""Bounds on log p(x): pure functions from log weights [k, B] to one bound per example [B], in nats.

A log weight is log w_i = log p(x, z_i) - log q(z_i | x) with z_i drawn from q(z | x); axis 0 holds the k samples,
axis 1 the B examples. Nothing here knows a model: any log weights will do. An objective is a bound with a name; the
name is what `Model.objective` says. Adding one takes a function and its registration:

    @iwae.bounds.register("median", "the median log weight (an example)")
    def median(log_weights):
        return tf.sort(log_weights, axis=0)[log_weights.shape[0] // 2]
"""

import functools
import inspect
import math
from collections.abc import Callable

import tensorflow as tf

from iwae import config

_FUNCTIONS: dict[str, Callable[..., tf.Tensor]] = {}


def register(
    name: str, description: str | None = None
) -> Callable[[Callable[..., tf.Tensor]], Callable[..., tf.Tensor]]:
    """Makes a function of log weights [k, B] -> [B] available as `Model.objective=name`.

    Keyword parameters of the function that are named like a field of `config.Model` (alpha, groups, mixture) are filled
    in from there. `description` is one line for `iwae.config.OBJECTIVES`; those there already need none.
    """

    def add(function: Callable[..., tf.Tensor]) -> Callable[..., tf.Tensor]:
        config.OBJECTIVES.setdefault(name, description or name)
        _FUNCTIONS[name] = function
        return function

    return add


def objective(name: str, **options: float) -> Callable[[tf.Tensor], tf.Tensor]:
    """The registered bound `name` with its own parameters taken from `options`.

    Raises:
        ValueError: no objective of this name is registered.
    """
    if name not in _FUNCTIONS:
        raise ValueError(f"model.objective: expected one of {', '.join(sorted(_FUNCTIONS))}, got {name!r}")
    accepted = inspect.signature(_FUNCTIONS[name]).parameters
    return functools.partial(_FUNCTIONS[name], **{key: value for key, value in options.items() if key in accepted})


@register("vae")
@register("vae_analytic_kl")  # of log weights whose KL term is in closed form (IWAE.training_log_weights)
def elbo(log_weights: tf.Tensor) -> tf.Tensor:
    """L_1 estimated by the mean of k log weights (Burda et al. 2015, eq. 3). [k, B] -> [B], nats."""
    return tf.reduce_mean(log_weights, axis=0)


@register("iwae")
def importance_weighted(log_weights: tf.Tensor) -> tf.Tensor:
    """L_k = log 1/k sum_i w_i (Burda et al. 2015, eq. 8). [k, B] -> [B], nats."""
    return tf.reduce_logsumexp(log_weights, axis=0) - math.log(log_weights.shape[0])


@register("renyi")
def renyi(log_weights: tf.Tensor, alpha: float) -> tf.Tensor:
    """Renyi bound 1 / (1 - alpha) log 1/k sum_i w_i^(1 - alpha) (Li & Turner 2016, eq. 9). [k, B] -> [B], nats.

    alpha = 0 is the IWAE bound; alpha -> 1 is L_1.
    """
    return importance_weighted((1 - alpha) * log_weights) / (1 - alpha)


@register("miwae")
def miwae(log_weights: tf.Tensor, groups: int) -> tf.Tensor:
    """Mean over groups of the bound L_k of each group (Rainforth et al. 2018). [groups * k, B] -> [B], nats."""
    total, batch = log_weights.shape[0], tf.shape(log_weights)[1]
    grouped = tf.reshape(log_weights, [total // groups, groups * batch])  # axis 0 holds the samples of a group
    return tf.reduce_mean(tf.reshape(importance_weighted(grouped), [groups, batch]), axis=0)


@register("piwae")
def piwae(log_weights: tf.Tensor) -> tf.Tensor:
    """L_(groups * k), the target of the decoder; the encoder's is `miwae` (Rainforth et al. 2018). -> [B], nats."""
    return importance_weighted(log_weights)


ENCODER_OBJECTIVES = {"piwae": "miwae"}
"""Objectives whose encoder is trained on another one."""


@register("ciwae")
def ciwae(log_weights: tf.Tensor, mixture: float) -> tf.Tensor:
    """mixture * L_1 + (1 - mixture) * L_k (Rainforth et al. 2018). [k, B] -> [B], nats."""
    return mixture * elbo(log_weights) + (1 - mixture) * importance_weighted(log_weights)


def normalized_weights(log_weights: tf.Tensor) -> tf.Tensor:
    """w~_i = w_i / sum_j w_j (Burda et al. 2015, eq. 14). [k, B] -> [k, B]; each column sums to one."""
    return tf.nn.softmax(log_weights, axis=0)


def effective_sample_size(log_weights: tf.Tensor) -> tf.Tensor:
    """(sum_i w_i)^2 / sum_i w_i^2, between 1 and k. [k, B] -> [B], in samples."""
    return tf.exp(2 * tf.reduce_logsumexp(log_weights, axis=0) - tf.reduce_logsumexp(2 * log_weights, axis=0))


def log_add_exp(a: tf.Tensor, b: tf.Tensor) -> tf.Tensor:
    """log(exp(a) + exp(b)), elementwise; either may be minus infinity."""
    return tf.reduce_logsumexp(tf.stack([a, b]), axis=0)
