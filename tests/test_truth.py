"""Models whose log p(x) is known: what the log weights, the bounds and training must come to."""

import math

import keras
import numpy as np
import pytest
import reference
import tensorflow as tf
from scipy import special, stats

from iwae import batches, bounds, evaluation
from iwae.model import IWAE

B, D = 5, 7  # as in reference.LinearGaussian


@pytest.mark.parametrize("depth", [1, 2])
def test_with_the_exact_posterior_every_log_weight_is_log_p(depth):
    exact = reference.LinearGaussian(depth)
    log_weights = exact.model.log_weights(exact.x, 4, (0, 1))
    np.testing.assert_allclose(log_weights, np.broadcast_to(exact.log_p, (4, B)), atol=1e-4)  # rounding of 10 nats


@pytest.mark.parametrize("depth", [1, 2])
def test_with_another_posterior_the_bounds_rise_to_log_p(depth):
    """L_1 < L_4 < L_16 < log p(x) from the same log weights: each paired difference is beyond four standard errors."""
    spoilt, repeats, ks = reference.LinearGaussian(depth).spoil(), 800, (1, 4, 16)
    log_weights = spoilt.model.log_weights(spoilt.x, 16 * repeats, (0, 1))
    estimates = []
    for k in ks:
        groups = tf.reshape(tf.reshape(log_weights, [repeats, 16 // k, k, B]), [-1, k, B])
        bound = bounds.importance_weighted(tf.reshape(tf.transpose(groups, [1, 0, 2]), [k, -1]))
        estimates.append(np.reshape(bound, [repeats, -1]).mean(axis=1))
    estimates.append(np.full(repeats, spoilt.log_p.mean()))
    for lower, higher in zip(estimates[:-1], estimates[1:], strict=True):
        rise = higher - lower
        assert rise.mean() > 4 * rise.std() / math.sqrt(repeats)


def test_elbo_is_log_p_less_the_divergence_from_the_posterior():
    """One layer: KL(q || posterior) and KL(q || prior) of Gaussians in closed form."""
    exact, spoilt, k = reference.LinearGaussian(1), reference.LinearGaussian(1).spoil(), 5000
    x, noise = tf.constant(exact.x), reference.noise(k, B, (3,))
    ((mean, log_std),), ((other_mean, other_log_std),) = (
        [
            [np.array(values[0], np.float64) for values in (q.mean, q.log_std)]
            for q in one.model.log_weight_terms(x, noise).posterior
        ]
        for one in (spoilt, exact)
    )

    def divergence(mean_p, log_std_p):
        square = (np.exp(2 * log_std) + (mean - mean_p) ** 2) / np.exp(2 * log_std_p)
        return (0.5 * (square - 1) + log_std_p - log_std).sum(axis=-1)

    terms = spoilt.model.log_weight_terms(x, noise)
    samples = {
        "elbo": (terms.log_weights(), exact.log_p - divergence(other_mean, other_log_std)),
        "kl": (terms.log_posterior[0] - terms.log_prior[0], divergence(0.0, np.zeros(3))),
    }
    for name, (values, truth) in samples.items():
        values = values.numpy()
        error = values.std(axis=0) / math.sqrt(k)
        assert np.all(np.abs(values.mean(axis=0) - truth) < 4.5 * error), name
        assert np.all(error < 0.1)  # or it would be a weak test


@pytest.mark.parametrize("depth", [1, 2])
def test_evaluation_finds_log_p(depth):
    spoilt, k = reference.LinearGaussian(depth).spoil(), 5000
    result = evaluation.importance_sample(spoilt.model, spoilt.x, k, seed=3)
    # Delta method: the log of a mean of weights has the standard error sqrt(1 / ESS - 1 / k) and the bias -1 / (2 ESS).
    error = np.sqrt(1 / result["effective_sample_size"] - 1 / k)
    assert np.all(np.abs(result["log_likelihood_bound"] - spoilt.log_p) < 4.5 * error) and np.all(error < 0.1)


# ---- one latent unit: log p(x) by quadrature over z ----


def log_p_by_quadrature(model, x):
    """log of the integral of p(x | z) N(z; 0, 1), x [n, D], on a grid of z: [n]."""
    z, weights = np.linspace(-9, 9, 3001), reference.weights_of(model)
    joint = reference.log_likelihood(weights, x, z[:, None, None]) + stats.norm.logpdf(z)[:, None]
    return special.logsumexp(joint, axis=0) + math.log(z[1] - z[0])


@pytest.mark.parametrize("likelihood", ["bernoulli", "gaussian"])
def test_evaluation_agrees_with_quadrature(likelihood):
    model, k = IWAE(D, (1,), ((6, 4),), likelihood=likelihood, k=3), 2000
    reference.scramble(model, scale=0.7)
    x = reference.binary(B, D) if likelihood == "bernoulli" else reference.noise(1, B, (D,))[0][0]
    result = evaluation.importance_sample(model, x, k, seed=4)
    error = np.sqrt(1 / result["effective_sample_size"] - 1 / k)
    assert np.all(np.abs(result["log_likelihood_bound"] - log_p_by_quadrature(model, x)) < 4.5 * error)
    assert np.all(error < 0.2)


# ---- training ----


def fit(model, x, learning_rates, calls, batch):
    """Training through the compiled loop: one learning rate after the other, each for `calls` blocks of updates."""
    model.hold(batches.ResidentImages(x, stochastic=False))
    model.compile(optimizer=keras.optimizers.Adam(epsilon=1e-4))
    for i, rate in enumerate(learning_rates):
        model.optimizer.learning_rate.assign(rate)
        blocks = batches.index_blocks(len(x), batch, len(x) // batch, seed=i)
        model.fit(blocks, steps_per_epoch=calls, shuffle=False, verbose=0)


def test_a_trained_linear_vae_is_the_maximum_likelihood_of_probabilistic_pca():
    """Tipping & Bishop (1999), eqs. 8 and 12; the optimum of a linear VAE is the same (Lucas et al. 2019)."""
    n, q = 400, 2
    random = np.random.default_rng(0)
    x = random.standard_normal((n, q)) @ random.standard_normal((q, D)) + 0.5 * random.standard_normal((n, D)) + 0.3
    x = x.astype(np.float32)
    covariance = np.cov(x.T, bias=True)
    eigenvalues = np.linalg.eigvalsh(covariance)[::-1]
    variance = eigenvalues[q:].mean()
    best = -0.5 * (D * math.log(2 * math.pi) + np.log(eigenvalues[:q]).sum() + (D - q) * math.log(variance) + D)

    moments = x.mean(axis=0), np.ones(D)
    model = IWAE(D, (q,), ((),), objective="vae_analytic_kl", likelihood="gaussian", k=5, data_moments=moments)
    model.decoder[0].log_std.bias.assign(np.full(D, 0.5 * math.log(variance)))
    model.decoder[0].log_std.trainable = False
    model.encoder[0].log_std.kernel.assign(np.zeros((D, q)))  # the exponential of a linear layer starts anywhere
    fit(model, x, (2e-2, 2e-3), calls=150, batch=40)

    weights = reference.weights_of(model)
    kernel, bias = weights["p_x/mean/kernel"], weights["p_x/mean/bias"]
    learned = stats.multivariate_normal(moments[0] + bias, kernel.T @ kernel + variance * np.eye(D)).logpdf(x).mean()
    assert best - 0.01 < learned < best + 1e-4  # no parameters do better than the best ones
    log_weights = model.log_weights(x, 200, (0, 1)).numpy()
    elbo, error = log_weights.mean(), log_weights.mean(axis=1).std() / math.sqrt(200)
    assert learned - 0.01 - 4 * error < elbo < learned + 4 * error and error < 0.005


@pytest.mark.slow
def test_real_numbers_of_any_scale_are_learnt_as_well_as_standardized_by_hand():
    """A correlated Gaussian of one factor with scales 1 to 100: both come near its entropy; -log|scale| apart."""
    d, random = 5, np.random.default_rng(0)
    scale, factor = np.geomspace(1, 100, d), np.full((d, 1), 0.95)
    covariance = (0.05 * np.eye(d) + factor @ factor.T) * np.outer(scale, scale)
    x = random.multivariate_normal(10 * scale, covariance, 4000).astype(np.float32)
    train, test, shift = x[:3000], x[3000:], math.log(x[:3000].std(axis=0).prod())
    truth = stats.multivariate_normal(10 * scale, covariance).logpdf(test).mean()
    by_hand = (x - train.mean(axis=0)) / train.std(axis=0)
    learned = []
    for values, moments in ((x, (train.mean(axis=0), train.std(axis=0))), (by_hand, None)):
        model = IWAE(d, (1,), ((20,),), k=5, likelihood="gaussian", data_moments=moments)
        fit(model, values[:3000], (1e-2, 1e-3), calls=10, batch=20)
        result = evaluation.importance_sample(model, values[3000:], 200, seed=1)["log_likelihood_bound"]
        learned.append(result.mean() - (shift if moments is None else 0))
    assert abs(learned[0] - learned[1]) < 0.02
    assert truth - 0.1 < learned[0] < truth + 0.02, (truth, learned)


@pytest.mark.slow
def test_training_on_the_camel_comes_near_its_density():
    """E[log p(x)] = -1.358 is what no model can exceed; the IWAE comes nearer to it than the VAE."""
    random, n = np.random.default_rng(0), 10_000
    x = (random.choice([-1, 1], n) + 0.5 * random.standard_normal(n)).astype(np.float32)[:, None]
    train, test = x[: n // 2], x[n // 2 :]
    density = stats.norm.pdf(test, 1, 0.5) / 2 + stats.norm.pdf(test, -1, 0.5) / 2
    below = {}
    for objective in ("vae", "iwae"):
        model = IWAE(1, (1,), ((5, 5),), objective=objective, k=20, likelihood="gaussian")
        fit(model, train, (3e-3, 1e-3, 3e-4), calls=20, batch=20)
        difference = np.log(density[:, 0]) - log_p_by_quadrature(model, test)
        below[objective] = difference.mean()
        assert below[objective] > -4 * difference.std() / math.sqrt(len(test))
        result = evaluation.importance_sample(model, test[:50], 1000, seed=0)
        error = np.sqrt(1 / result["effective_sample_size"] - 1 / 1000)
        assert np.all(np.abs(result["log_likelihood_bound"] - log_p_by_quadrature(model, test[:50])) < 4.5 * error)
    assert below["iwae"] < 0.03 and below["iwae"] < below["vae"]
