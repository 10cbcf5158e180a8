"""Gradient estimators: how the gradient of a bound is taken, each from the same log weights.

An estimator is a function (model, objective, x [B, D], noise, weights [B], uniform [B]) -> (bound, gradients): the
bound is sum_b weights_b bound_b in nats, and the gradients, one for each of `model.trainable_variables`, point upwards
on it. `objective` is one of `iwae.bounds`, `noise` what `IWAE.draw_noise` gives; `uniform`, numbers in [0, 1), is for
randomness beyond it.
"""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import tensorflow as tf

from iwae import bounds
from iwae.bounds import Bound

if TYPE_CHECKING:
    from iwae.model import IWAE

Inputs = tuple[tf.Tensor, list[tf.Tensor], tf.Tensor, tf.Tensor]  # x, noise, weights, uniform
Result = tuple[tf.Tensor, list[tf.Tensor]]
Estimator = Callable[["IWAE", Bound, tf.Tensor, list[tf.Tensor], tf.Tensor, tf.Tensor], Result]


def get(name: str) -> Estimator:
    """The estimator called `name`. Raises ValueError for a name that is not there."""
    if name not in ESTIMATORS:
        raise ValueError(f"model.estimator: expected one of {', '.join(ESTIMATORS)}, got {name!r}")
    return ESTIMATORS[name]


def check(name: str, objective: Bound) -> None:
    """Raises ValueError if the estimator `name` is not one for `objective`."""
    if name == "sampled" and type(objective) is not bounds.ImportanceWeighted:
        raise ValueError(f"estimator: expected 'sampled' with the objective iwae only, got it with {objective!r}")
    for_encoder = getattr(objective, "for_encoder", objective)
    analytic = getattr(objective, "analytic_kl", False)
    if name == "dreg" and (analytic or not hasattr(for_encoder, "curvature")):
        raise ValueError(f"estimator: expected 'dreg' with a bound that has a curvature, got it with {objective!r}")
    if name == "sticking_the_landing" and (analytic or type(objective) not in (bounds.Elbo, bounds.ImportanceWeighted)):
        raise ValueError(f"estimator: expected 'sticking_the_landing' with vae or iwae, got it with {objective!r}")


def reparameterized(
    model: "IWAE", objective: Bound, x: tf.Tensor, noise: list[tf.Tensor], weights: tf.Tensor, uniform: tf.Tensor
) -> Result:
    """Backpropagation through all k samples; for the IWAE bound eq. 14 of Burda et al. (2015)."""
    for_encoder = getattr(objective, "for_encoder", None)
    with tf.GradientTape(persistent=for_encoder is not None) as tape:
        log_weights = model.training_log_weights(model.log_weight_terms(x, noise), objective)
        bound = tf.reduce_sum(weights * objective(log_weights))
        if for_encoder is not None:
            encoder_bound = tf.reduce_sum(weights * for_encoder(log_weights))
    if for_encoder is None:
        return bound, tape.gradient(bound, model.trainable_variables)
    of_encoder = tape.gradient(encoder_bound, model.encoder_variables)
    return bound, _in_order(model, of_encoder, tape.gradient(bound, model.decoder_variables))


def sampled(
    model: "IWAE", objective: Bound, x: tf.Tensor, noise: list[tf.Tensor], weights: tf.Tensor, uniform: tf.Tensor
) -> Result:
    """One sample an example, drawn with its normalised weight (Burda et al. 2015, end of section 3); IWAE only.

    k forward passes and one backward pass. Given the k samples its expectation over the draw is the gradient of eq. 14,
    so it is as unbiased as that; its variance is larger. The weight beta of the KL term is of no effect.
    """
    log_weights = model.log_weight_terms(x, noise).log_weights()
    bound = tf.reduce_sum(weights * objective(log_weights))
    chosen = tf.one_hot(draw_index(log_weights, uniform), log_weights.shape[0], axis=0)[..., None]
    noise_of_chosen = [tf.reduce_sum(chosen * epsilon, axis=0, keepdims=True) for epsilon in noise]
    with tf.GradientTape() as tape:
        log_weight = model.log_weight_terms(x, noise_of_chosen).log_weights()[0]
        target = tf.reduce_sum(weights * log_weight)
    return bound, tape.gradient(target, model.trainable_variables)


def draw_index(log_weights: tf.Tensor, uniform: tf.Tensor) -> tf.Tensor:
    """For each example the index of one sample, drawn with its normalised weight: [k, B] -> [B] of 0 .. k - 1.

    `uniform` [B]: what decides it, numbers in [0, 1).
    """
    cumulative = tf.cumsum(bounds.normalized_weights(log_weights), axis=0)
    # Scaled to the last sum, which rounding leaves a little off one.
    return tf.reduce_sum(tf.cast(cumulative[:-1] <= uniform * cumulative[-1], tf.int32), axis=0)


def sticking_the_landing(
    model: "IWAE", objective: Bound, x: tf.Tensor, noise: list[tf.Tensor], weights: tf.Tensor, uniform: tf.Tensor
) -> Result:
    """Without the score term of log q, whose expectation is zero for L_1 (Roeder, Wu & Duvenaud 2017).

    Unbiased for the VAE, where it is `dreg`. For the IWAE bound with k > 1 the encoder's gradient is biased (Tucker et
    al. 2018).
    """
    with tf.GradientTape() as tape:
        terms = model.log_weight_terms(x, noise, stop_posterior=True)
        bound = tf.reduce_sum(weights * objective(model.training_log_weights(terms, objective)))
    return bound, tape.gradient(bound, model.trainable_variables)


def dreg(
    model: "IWAE", objective: Bound, x: tf.Tensor, noise: list[tf.Tensor], weights: tf.Tensor, uniform: tf.Tensor
) -> Result:
    """Doubly reparameterized gradient (Tucker et al. 2018, eq. 8): any number of layers, any bound with a curvature.

    All layers of z_i are one sample of q(z | x). With c_i the derivative of the bound in log w_i, the encoder's
    gradient is sum_i (c_i - d c_i / d log w_i) (d log w_i / d z_i) (d z_i / d phi), with q's parameters held fixed in
    log w, every layer of z_i a variable of its own in the derivative of log w_i, and each layer's dependence on those
    below it in that of z_i. For L_k the factor is w~_i^2; for L_1, 1 / k, and this is sticking the landing. The
    decoder's gradient is the usual one. Unbiased, and its signal-to-noise ratio does not fall as 1/sqrt(k).
    """
    for_encoder: Any = getattr(objective, "for_encoder", objective)  # a bounds.TwiceDifferentiable
    with tf.GradientTape(persistent=True) as tape:
        terms = model.log_weight_terms(x, noise, stop_posterior=True)
        log_weights = terms.log_weights(model.beta)
        bound = tf.reduce_sum(weights * objective(log_weights))
        encoder_bound = bound if for_encoder is objective else tf.reduce_sum(weights * for_encoder(log_weights))
    once = tape.gradient(bound, log_weights)
    twice = tape.gradient(encoder_bound, log_weights) - weights * model.beta * for_encoder.curvature(log_weights)
    depth = len(terms.samples)
    found = tape.gradient(log_weights, [*terms.samples, *model.decoder_variables], output_gradients=once)
    if for_encoder is objective:  # one backward pass through the decoder serves both
        of_z = [tf.math.divide_no_nan(twice, once)[..., None] * gradient for gradient in found[:depth]]
    else:
        of_z = tape.gradient(log_weights, terms.samples, output_gradients=twice)
    of_encoder = tape.gradient(terms.drawn, model.encoder_variables, output_gradients=of_z)
    return bound, _in_order(model, of_encoder, found[depth:])


def _in_order(model: "IWAE", of_encoder: Sequence[tf.Tensor], of_decoder: Sequence[tf.Tensor]) -> list[tf.Tensor]:
    """Gradients of the encoder's and of the decoder's variables in the order of `model.trainable_variables`."""
    variables = (*model.encoder_variables, *model.decoder_variables)
    by_variable = {id(v): g for v, g in zip(variables, (*of_encoder, *of_decoder), strict=True)}
    return [by_variable[id(v)] for v in model.trainable_variables]


ESTIMATORS: dict[str, Estimator] = {
    "reparameterized": reparameterized,
    "sampled": sampled,
    "sticking_the_landing": sticking_the_landing,
    "dreg": dreg,
}
