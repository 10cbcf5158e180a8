"""`iwae.diagnostics.annealing`: annealed importance sampling and HMC against log p(x) and posteriors in closed form."""

import math

import numpy as np
import pytest
import reference
from scipy import special

from iwae.diagnostics import annealing, quadrature, tightness
from iwae.model import IWAE

IMAGES, CHAINS, STEPS = 40, 200, 60


@pytest.fixture(autouse=True, scope="module")
def in_two_batches():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(annealing, "IMAGES", IMAGES // 2)
        yield


# Slow, for the compiling; `test_tightness.py` has a quick look at annealed importance sampling forwards and backwards.
@pytest.fixture(scope="module", params=[pytest.param(depth, marks=pytest.mark.slow) for depth in (1, 2)])
def linear(request):
    return reference.LinearGaussian(request.param, n=IMAGES)


@pytest.fixture(scope="module")
def hmc(linear):
    return annealing.hamiltonian_monte_carlo(linear.model, linear.x, CHAINS // 2, draws=10, seed=0, steps=STEPS)


@pytest.fixture(scope="module")
def camel():
    """Two humps: x = tanh(4 z) + 0.5 e. The latent unit is hardly informed of by the x of a hump."""
    model = IWAE(1, (1,), ((1,),), likelihood="gaussian")
    decoder = model.decoder[0]
    decoder.hidden[0].kernel.assign([[4.0]])
    decoder.mean.kernel.assign([[1.0]])
    decoder.log_std.bias.assign([math.log(0.5)])
    return model


def is_one(ratios):
    """Whether the mean of independent numbers is one within 4.5 standard errors, of which 0.01 is the most allowed."""
    error = ratios.std() / math.sqrt(ratios.size)
    assert error < 0.01  # or it would be a weak test
    return abs(ratios.mean() - 1) < 4.5 * error


def test_the_schedule_rises_from_prior_to_posterior():
    betas = annealing.schedule()
    assert betas[0] == 0 and betas[-1] == 1 and np.all(np.diff(betas) > 0)


def test_latents_are_those_of_the_generative_network():
    exact = reference.LinearGaussian(2)
    lower, upper = reference.noise(3, 5, (3, 2))
    z_1, z_2 = annealing.latents(exact.model, np.concatenate([lower, upper], axis=-1))
    weights = reference.weights_of(exact.model)
    np.testing.assert_array_equal(z_2, upper)
    mean, log_std = (reference.network(weights, "p_z1", head, upper) for head in ("mean", "log_std"))
    np.testing.assert_allclose(z_1, mean + np.exp(log_std) * lower, rtol=1e-5, atol=1e-6)


def test_resampling_takes_a_chain_as_often_as_its_weight_says():
    random = np.random.default_rng(0)
    log_weights, states = random.normal(-500, 1, (40, 3)), np.arange(120.0).reshape(40, 3, 1)
    picked = annealing._resampled(annealing.Annealed(log_weights, states, None), 20, random)
    counts = np.array([[np.sum(picked[:, image] == state) for image, state in enumerate(of)] for of in states])
    np.testing.assert_array_equal(counts.sum(axis=0), 20)
    assert np.all(np.abs(counts - 20 * special.softmax(log_weights, axis=0)) < 1)


def test_the_weights_have_the_mean_p(linear):
    """E[w] = p(x) for any number of steps: all chains of all images together are a test of the bias."""
    annealed = annealing.sample(linear.model, linear.x, CHAINS, STEPS, seed=0)
    assert is_one(np.exp(annealed.log_weights - linear.log_p))


def test_backwards_the_weights_have_the_mean_of_one_over_p(linear):
    """Chains of an image share the exact draw of its posterior that they start from: one independent number each."""
    x, draws = tightness.simulate(linear.model, IMAGES, seed=0)
    *_, log_p = reference.gaussian_posterior(linear.model, x)
    sizes = np.full([annealing.SEGMENTS, IMAGES], 0.4, np.float32)
    how = {"posterior_draws": draws, "step_sizes": sizes}
    annealed = annealing.sample(linear.model, x, CHAINS, STEPS, seed=0, **how)
    ratios = np.exp(annealed.log_weights + log_p).mean(axis=0)
    error = ratios.std() / math.sqrt(IMAGES)
    assert error < 0.05 and abs(ratios.mean() - 1) < 4.5 * error


def test_hmc_draws_from_the_posterior(linear, hmc):
    """Whitened by the true mean and covariance, draws have the mean zero and the covariance of a standard Gaussian."""
    mean, covariance, _ = reference.gaussian_posterior(linear.model, linear.x)
    z = np.concatenate(hmc.latents, axis=-1)  # [draws, C, n, E]
    white = np.linalg.solve(np.linalg.cholesky(covariance), (z - mean)[..., None])[..., 0]
    products = white[..., :, None] * white[..., None, :] - np.eye(white.shape[-1])
    for values in (white, products):
        of_chains = values.mean(axis=(0, 2))  # chains are independent
        error = of_chains.std(axis=0) / math.sqrt(len(of_chains))
        assert np.all(np.abs(of_chains.mean(axis=0)) < 4.5 * error) and np.all(error < 0.02)


def test_hmc_mixes(linear, hmc):
    """No chain stays where it was, nor jumps to and fro, as with a fixed length of path: half a period of some unit.

    The mean over a chain of 10 independent draws has a tenth of the variance of one; six times that is allowed, where
    chains that stay have ten times. Over 100 chains it is known to some 30 %, as squares have long tails.
    """
    assert np.all(hmc.r_hat < 1.5)
    mean, covariance, _ = reference.gaussian_posterior(linear.model, linear.x)
    squares = (np.concatenate(hmc.latents, axis=-1) - mean) ** 2 / np.diag(covariance)  # mean 1, variance 2
    of_chains = squares.mean(axis=0)  # [C, n, E]
    assert np.all(of_chains.var(axis=0) < 6 * 2 / len(squares))


@pytest.mark.slow
def test_ais_agrees_with_quadrature(camel):
    x = np.linspace(-2.5, 2.5, IMAGES).astype(np.float32)
    annealed = annealing.sample(camel, x[:, None], CHAINS, STEPS, seed=0)
    assert is_one(np.exp(annealed.log_weights - quadrature.log_marginal(camel, x)))
