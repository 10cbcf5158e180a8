"""What the tests compare with: the model once more, in NumPy and float64, and models whose log p(x) is known.

Axis order [k, B, D]. Written from the paper's formulas; only the weights are taken from the model under test.
"""

import math

import numpy as np
from scipy import special, stats

from iwae.model import IWAE


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


# ---- linear-Gaussian models: p(z_2) = N(0, I), p(z_1 | z_2) = N(C z_2 + c, R), p(x | z_1) = N(A z_1 + a, S) ----
# R and S are diagonal. The exact posterior of the model has the form of q only if it is diagonal given the layer below:
# the columns of A are orthogonal in the metric S^-1, and C has one entry a row at most.


def set_linear(model, name, kernel, bias, variance):
    layer = next(layer for layer in (*model.encoder, *model.decoder) if layer.name == name)
    layer.mean.kernel.assign(kernel)
    layer.mean.bias.assign(bias)
    layer.log_std.kernel.assign(np.zeros(kernel.shape))
    layer.log_std.bias.assign(0.5 * np.log(variance))


def gaussian_posterior(model, x):
    """Mean [n, E] and covariance [E, E] of p(z_1, ..., z_L | x), and log p(x) [n], of a model without hidden layers.

    The joint Gaussian is built from the top, each layer in front of those above it, and conditioned on x [n, D].
    """
    weights, depth = weights_of(model), len(model.latent_units)
    mean, covariance = np.zeros(model.latent_units[-1]), np.eye(model.latent_units[-1])
    for name in [*(f"p_z{i}" for i in range(depth - 1, 0, -1)), "p_x"]:
        kernel = weights[f"{name}/mean/kernel"]
        kernel = np.pad(kernel, ((0, len(mean) - len(kernel)), (0, 0)))
        cross, noise = covariance @ kernel, np.diag(np.exp(2 * weights[f"{name}/log_std/bias"]))
        covariance = np.block([[kernel.T @ cross + noise, cross.T], [cross, covariance]])
        mean = np.concatenate([kernel.T @ mean + weights[f"{name}/mean/bias"], mean])
    of_x, of_z = slice(model.input_dim), slice(model.input_dim, None)
    gain = np.linalg.solve(covariance[of_x, of_x], covariance[of_x, of_z])
    log_p = stats.multivariate_normal(mean[of_x], covariance[of_x, of_x]).logpdf(x)
    return mean[of_z] + (x - mean[of_x]) @ gain, covariance[of_z, of_z] - covariance[of_z, of_x] @ gain, log_p


class LinearGaussian:
    """A model with one or two stochastic layers of 3 (and 2) units, with the exact posterior as q, and log p(x).

    `x` [n, 7] are draws from it, `log_p` [n] their log p(x); z_1 has the independent marginals `z_mean`, `z_variance`.
    """

    def __init__(self, depth, n=5):
        D = 7
        random = np.random.default_rng(0)
        a, noise = random.standard_normal(D), random.uniform(0.2, 0.8, D)
        orthogonal = np.linalg.qr(random.standard_normal((D, 3)))[0]
        A = np.sqrt(noise)[:, None] * orthogonal * [2.0, 1.0, 0.5]
        if depth == 1:
            mean_1, variance_1 = np.zeros(3), np.ones(3)
        else:
            C, mean_1 = np.array([[1.5, 0], [0, 0.7], [0, 0]]), random.standard_normal(3)
            noise_1 = np.array([0.5, 0.4, 0.9])
            variance_1 = np.diag(C @ C.T) + noise_1
        # p(z_1 | x): precision 1 / variance_1 + A' S^-1 A, which is diagonal
        precision = 1 / variance_1 + np.diag((A.T / noise) @ A)
        gain = (A.T / noise) / precision[:, None]
        shift = (mean_1 / variance_1) / precision - gain @ a
        self.model = IWAE(D, (3, 2)[:depth], ((), ())[:depth], likelihood="gaussian", k=4)
        set_linear(self.model, "q_z1", gain.T, shift, 1 / precision)
        set_linear(self.model, "p_x", A.T, a, noise)
        if depth == 2:
            precision = 1 + np.diag((C.T / noise_1) @ C)
            gain = (C.T / noise_1) / precision[:, None]
            set_linear(self.model, "q_z2", gain.T, -gain @ mean_1, 1 / precision)
            set_linear(self.model, "p_z1", C.T, mean_1, noise_1)
        self.z_mean, self.z_variance = mean_1, variance_1
        mean = A @ mean_1 + a
        marginal = stats.multivariate_normal(mean, (A * variance_1) @ A.T + np.diag(noise))
        self.x = marginal.rvs(n, random_state=1).astype(np.float32)
        self.log_p = marginal.logpdf(self.x)

    def spoil(self):
        """Another q: its means shifted, its scales changed."""
        for layer in self.model.encoder:
            layer.mean.bias.assign_add(np.full(layer.mean.bias.shape, 0.3))
            layer.log_std.bias.assign_add(np.linspace(-0.1, 0.4, layer.log_std.bias.shape[0]))
        return self
