"""Gradient estimators: how the gradient of a bound is taken, each from the same log weights.

An estimator is a function (model, x [B, D], noise, weights [B]) -> (bound, gradients): the bound is sum_b weights_b
bound_b in nats, and the gradients, one for each of `model.trainable_variables`, point upwards on it.
"""

from collections.abc import Callable

import tensorflow as tf

Estimator = Callable[..., tuple[tf.Tensor, list[tf.Tensor]]]


def get(name: str) -> Estimator:
    """The estimator called `name`. Raises ValueError for a name that is not there."""
    if name not in ESTIMATORS:
        raise ValueError(f"model.estimator: expected one of {', '.join(ESTIMATORS)}, got {name!r}")
    return ESTIMATORS[name]


def reparameterized(model, x, noise, weights):
    """Backpropagation through the samples, eq. 14 of Burda et al. (2015) for the IWAE bound."""
    with tf.GradientTape() as tape:
        log_weights = model.log_weight_terms(x, noise).log_weights(model.beta)
        bound = tf.reduce_sum(weights * model.objective(log_weights))
    return bound, tape.gradient(bound, model.trainable_variables)


ESTIMATORS: dict[str, Estimator] = {
    "reparameterized": reparameterized,
}
