"""The model once more, in NumPy and float64, written from the paper's formulas: what the tests compare with.

Axis order [k, B, D]. Only the weights are taken from the model under test.
"""

import math

import numpy as np
from scipy import special, stats


def noise(k, batch, latent_units, seed=0):
    """Standard normal numbers for each stochastic layer: [k, batch, D_l], float32."""
    random = np.random.default_rng(seed)
    return [random.standard_normal((k, batch, units)).astype(np.float32) for units in latent_units]


def binary(batch, dimensions, seed=0):
    """Random binary images [batch, dimensions], float32."""
    return np.random.default_rng(seed).integers(0, 2, (batch, dimensions)).astype(np.float32)


def scramble(model, seed=0, scale=0.3):
    """Gives every trainable variable random values, so that no bias and no weight is zero."""
    random = np.random.default_rng(seed)
    for variable in model.trainable_variables:
        variable.assign(scale * random.standard_normal(variable.shape))


def weights_of(model):
    """The trainable weights as float64 arrays, by path."""
    return {variable.path: variable.numpy().astype(np.float64) for variable in model.trainable_variables}


def network(weights, layer, head, inputs):
    """A linear layer `head` on tanh layers hidden_1, hidden_2, ... of the stochastic layer called `layer`."""
    i = 1
    while f"{layer}/hidden_{i}/kernel" in weights:
        inputs = np.tanh(inputs @ weights[f"{layer}/hidden_{i}/kernel"] + weights[f"{layer}/hidden_{i}/bias"])
        i += 1
    return inputs @ weights[f"{layer}/{head}/kernel"] + weights[f"{layer}/{head}/bias"]


def log_weight_terms(weights, x, noise):
    """log p(x | z_1) [k, B]; for each layer log p(z_l | z_{l+1}), log q(z_l | z_{l-1}), z_l; from the data upwards."""
    below, samples, log_posterior = np.asarray(x, np.float64), [], []
    for i, epsilon in enumerate(noise, start=1):
        mean, std = network(weights, f"q_z{i}", "mean", below), np.exp(network(weights, f"q_z{i}", "log_std", below))
        below = mean + std * epsilon
        samples.append(below)
        log_posterior.append(stats.norm.logpdf(below, mean, std).sum(-1))
    log_prior = []
    for i, (z, above) in enumerate(zip(samples[:-1], samples[1:], strict=True), start=1):
        mean, std = network(weights, f"p_z{i}", "mean", above), np.exp(network(weights, f"p_z{i}", "log_std", above))
        log_prior.append(stats.norm.logpdf(z, mean, std).sum(-1))
    log_prior.append(stats.norm.logpdf(samples[-1]).sum(-1))
    return log_likelihood(weights, x, samples[0]), log_prior, log_posterior, samples


def log_likelihood(weights, x, z):
    """log p(x | z_1): x [B, D], z_1 [k, B, D_1] -> [k, B]."""
    x = np.asarray(x, np.float64)
    if "p_x/logits/kernel" in weights:
        logits = network(weights, "p_x", "logits", z)
        return (x * special.log_expit(logits) + (1 - x) * special.log_expit(-logits)).sum(-1)
    mean, std = network(weights, "p_x", "mean", z), np.exp(network(weights, "p_x", "log_std", z))
    return stats.norm.logpdf(x, mean, std).sum(-1)


def log_weights(weights, x, noise):
    """log w [k, B]."""
    likelihood, prior, posterior, _ = log_weight_terms(weights, x, noise)
    return likelihood + sum(prior) - sum(posterior)


def bound(log_weights):
    """L_k: [k, B] -> [B]."""
    return special.logsumexp(log_weights, axis=0) - math.log(len(log_weights))
