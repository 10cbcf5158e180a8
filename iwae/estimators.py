"""Gradient estimators: how the gradient of a bound is taken, each from the same log weights.

An estimator is a function (model, x [B, D], noise, weights [B], seed [2]) -> (bound, gradients): the bound is
sum_b weights_b bound_b in nats, and the gradients, one for each of `model.trainable_variables`, point upwards on it.
`noise` is what `IWAE.draw_noise` gives; `seed` is for randomness beyond it.
"""

from collections.abc import Callable

import tensorflow as tf

from iwae import bounds, rng

Estimator = Callable[..., tuple[tf.Tensor, list[tf.Tensor]]]


def get(name: str) -> Estimator:
    """The estimator called `name`. Raises ValueError for a name that is not there."""
    if name not in ESTIMATORS:
        raise ValueError(f"model.estimator: expected one of {', '.join(ESTIMATORS)}, got {name!r}")
    return ESTIMATORS[name]


def reparameterized(model, x, noise, weights, seed):
    """Backpropagation through all k samples; for the IWAE bound eq. 14 of Burda et al. (2015)."""
    with tf.GradientTape(persistent=model.encoder_objective is not None) as tape:
        log_weights = model.training_log_weights(model.log_weight_terms(x, noise))
        bound = tf.reduce_sum(weights * model.objective(log_weights))
        if model.encoder_objective is not None:
            encoder_bound = tf.reduce_sum(weights * model.encoder_objective(log_weights))
    gradients = tape.gradient(bound, model.trainable_variables)
    if model.encoder_objective is not None:
        encoder = model.encoder_variables
        by_variable = dict(zip((id(v) for v in encoder), tape.gradient(encoder_bound, encoder), strict=True))
        gradients = [by_variable.get(id(v), g) for v, g in zip(model.trainable_variables, gradients, strict=True)]
    return bound, gradients


def sampled(model, x, noise, weights, seed):
    """One sample an example, drawn with its normalised weight (Burda et al. 2015, end of section 3).

    k forward passes and one backward pass. Given the k samples its expectation over the draw is the gradient of eq. 14,
    so it is as unbiased as that; its variance is larger.
    """
    log_weights = model.log_weight_terms(x, noise).log_weights()
    bound = tf.reduce_sum(weights * model.objective(log_weights))
    chosen = tf.one_hot(draw_index(log_weights, seed), log_weights.shape[0], axis=0)[..., None]
    noise_of_chosen = [tf.reduce_sum(chosen * epsilon, axis=0, keepdims=True) for epsilon in noise]
    with tf.GradientTape() as tape:
        log_weight = model.log_weight_terms(x, noise_of_chosen).log_weights()[0]
        target = tf.reduce_sum(weights * log_weight)
    return bound, tape.gradient(target, model.trainable_variables)


def draw_index(log_weights: tf.Tensor, seed: tf.Tensor) -> tf.Tensor:
    """For each example the index of one sample, drawn with its normalised weight: [k, B] -> [B] of 0 .. k - 1."""
    cumulative = tf.cumsum(bounds.normalized_weights(log_weights), axis=0)
    uniform = rng.uniform(tf.shape(cumulative)[1:], seed)
    # Scaled to the last sum, which rounding leaves a little off one.
    return tf.reduce_sum(tf.cast(cumulative[:-1] <= uniform * cumulative[-1], tf.int32), axis=0)


def sticking_the_landing(model, x, noise, weights, seed):
    """Without the score term of log q, whose expectation is zero for L_1 (Roeder, Wu & Duvenaud 2017).

    Unbiased for the VAE. For the IWAE bound with k > 1 the gradient of the encoder is biased (Tucker et al. 2018);
    `dreg` is the unbiased one.
    """
    with tf.GradientTape() as tape:
        terms = model.log_weight_terms(x, noise, stop_posterior=True)
        bound = tf.reduce_sum(weights * model.objective(model.training_log_weights(terms)))
    return bound, tape.gradient(bound, model.trainable_variables)


def dreg(model, x, noise, weights, seed):
    """Doubly reparameterized gradient of the IWAE bound (Tucker et al. 2018, eq. 8), for any number of layers.

    All layers of z_i are one sample of q(z | x): the encoder's gradient is sum_i w~_i^2 (d log w_i / d z_i)
    (d z_i / d phi), with q's parameters held fixed in log w, every layer of z_i a variable of its own in the first
    derivative, and the dependence of each layer on those below it in the second. The decoder's is the usual one.
    Unbiased, and its signal-to-noise ratio does not fall as 1/sqrt(k).
    """
    with tf.GradientTape(persistent=True) as tape:
        terms = model.log_weight_terms(x, noise, stop_posterior=True)
        log_weights = terms.log_weights()
    bound = tf.reduce_sum(weights * model.objective(log_weights))
    normalized = bounds.normalized_weights(log_weights)
    decoder, depth = model.decoder_variables, len(terms.samples)
    found = tape.gradient(log_weights, [*terms.samples, *decoder], output_gradients=weights * normalized)
    of_z = [normalized[..., None] * gradient for gradient in found[:depth]]
    of_encoder = tape.gradient(terms.drawn, model.encoder_variables, output_gradients=of_z)
    variables = [id(v) for v in (*decoder, *model.encoder_variables)]
    by_variable = dict(zip(variables, (*found[depth:], *of_encoder), strict=True))
    return bound, [by_variable[id(v)] for v in model.trainable_variables]


ESTIMATORS: dict[str, Estimator] = {
    "reparameterized": reparameterized,
    "sampled": sampled,
    "sticking_the_landing": sticking_the_landing,
    "dreg": dreg,
}
