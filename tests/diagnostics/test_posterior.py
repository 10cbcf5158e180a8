"""Posterior densities on a grid and resampled draws, against Gaussian posteriors and quadrature."""

import dataclasses
import math

import keras
import numpy as np
import pytest
import reference
from scipy import stats

from iwae import resampling
from iwae.diagnostics import grid as by_quadrature
from iwae.diagnostics import posterior, quadrature
from iwae.model import IWAE

KS = (1, 10, 100)
X = np.float32([[0.5, 1.0, -0.3], [-1.2, 0.4, 2.0]])


def gaussian_model():
    """Two latent units whose posterior is a correlated Gaussian; q has another mean and no correlation."""
    model = IWAE(3, (2,), ((),), likelihood="gaussian")
    kernel, bias, variance = [[1.0, -0.5, 0.8], [0.3, 1.2, 0.6]], [0.1, -0.2, 0.3], [0.5, 0.8, 0.4]
    reference.set_linear(model, "p_x", np.array(kernel), np.array(bias), np.array(variance))
    means, covariance, _ = reference.gaussian_posterior(model, np.vstack([np.zeros(3), np.eye(3)]))
    variance = 1.5 * np.diag(covariance)
    reference.set_linear(model, "q_z1", means[1:] - means[0], means[0] + [0.2, -0.3], variance)
    return model


@dataclasses.dataclass
class Gaussian:
    """A model, what `on_grid` finds for `X`, and the truth."""

    model: IWAE
    grids: list[by_quadrature.GridPosterior]
    p: list  # p(z | x) of each input
    q: list  # q(z | x)
    log_p: np.ndarray


@pytest.fixture(scope="module")
def gaussian():
    model = gaussian_model()
    means, covariance, log_p = reference.gaussian_posterior(model, X)
    q_means, q_log_stds = (np.array(values, np.float64) for values in model.encoder[0](X))
    p = [stats.multivariate_normal(mean, covariance) for mean in means]
    q = [stats.multivariate_normal(*of) for of in zip(q_means, np.exp(2 * q_log_stds), strict=True)]
    return Gaussian(model, by_quadrature.on_grid(model, X, seed=0, ks=KS), p, q, log_p)


def points(grid):
    return np.stack(np.meshgrid(*grid.axes), axis=-1)


# ---- two latent units ----


def test_the_true_posterior_is_the_gaussian_one(gaussian):
    for grid, p in zip(gaussian.grids, gaussian.p, strict=True):
        expected = p.pdf(points(grid))
        np.testing.assert_allclose(grid.true, expected, atol=1e-4 * expected.max())  # float32, and exp(-12) outside


def test_the_quadrature_finds_log_p(gaussian):
    np.testing.assert_allclose([grid.log_evidence for grid in gaussian.grids], gaussian.log_p, atol=1e-4)


def test_with_one_sample_q_iw_is_q(gaussian):
    for grid, q in zip(gaussian.grids, gaussian.q, strict=True):
        np.testing.assert_allclose(grid.q_iw[1], q.pdf(points(grid)), rtol=1e-5)


@pytest.mark.parametrize("k", KS)
def test_q_iw_integrates_to_one(gaussian, k):
    """Up to what of q is beyond four standard deviations, 2 x 6e-5, and the noise of the draws.

    Once k is large the integral of a group's estimate is p(x) over the mean of k weights, so all groups together have
    the standard error of a mean of `DRAWS` weights, from their relative variance: the integral of p^2 / q, less one.
    """
    for grid, q in zip(gaussian.grids, gaussian.q, strict=True):
        variance = np.sum(grid.true**2 / q.pdf(points(grid))) * grid.cell - 1
        error = math.sqrt(variance / by_quadrature.DRAWS)
        assert error < 0.01
        assert abs(np.sum(grid.q_iw[k]) * grid.cell - 1) < 5e-4 + (k > 1) * 4.5 * error


def test_the_divergence_of_q_is_that_of_gaussians(gaussian):
    for grid, p, q in zip(gaussian.grids, gaussian.p, gaussian.q, strict=True):
        ratio, difference = np.linalg.solve(p.cov, q.cov), p.mean - q.mean
        square = difference @ np.linalg.solve(p.cov, difference)
        expected = 0.5 * (np.trace(ratio) - np.log(np.linalg.det(ratio)) - 2 + square)
        assert grid.kl[1] == pytest.approx(expected, abs=5e-3)  # of q four standard deviations are on the grid


def test_the_divergence_of_q_iw_falls_with_k(gaussian):
    for grid in gaussian.grids:
        assert grid.kl[1] > 3 * grid.kl[10] > 9 * grid.kl[100] >= 0


def test_resampled_draws_have_the_mean_of_q_iw(gaussian):
    """Each input's own, also in the last batch, which is not full."""
    k, n = 10, 5300
    (draws,) = resampling.resample(gaussian.model, np.repeat(X, n, axis=0), k, seed=3)
    for found, grid, q in zip(draws.reshape(len(X), n, 2), gaussian.grids, gaussian.q, strict=True):
        mean = np.sum(points(grid) * grid.q_iw[k][..., None], axis=(0, 1)) / np.sum(grid.q_iw[k])
        error = found.std(axis=0) / math.sqrt(n)
        assert np.all(np.abs(found.mean(axis=0) - mean) < 4.5 * error)
        assert np.all(np.abs(q.mean - mean) > 9 * error)  # or it would be a weak test


def test_the_layers_of_a_resampled_draw_belong_together():
    """With q the exact posterior, draws of both layers have its covariance."""
    linear, n = reference.LinearGaussian(2), 4000
    drawn = np.hstack(resampling.resample(linear.model, np.repeat(linear.x[:1], n, axis=0), k=5, seed=0))
    _, covariance, _ = reference.gaussian_posterior(linear.model, linear.x[:1])
    variance = np.diag(covariance)
    error = np.sqrt((np.outer(variance, variance) + covariance**2) / n)
    assert np.all(np.abs(np.cov(drawn.T) - covariance) < 4.5 * error)
    assert np.max(np.abs(covariance / error)[:3, 3:]) > 9  # or it would be a weak test


def two_narrow_modes(std):
    """x = tanh(10 (z - a)) - tanh(10 (z - b)) + 0.1 e is 1 at z = a, a point of the first grid, and b, between two.

    The posterior of x = 1 has two modes of width 0.01; q = N(0, std) whatever x is.
    """
    first = np.linspace(-by_quadrature.REACH, by_quadrature.REACH, by_quadrature.COARSE)
    a, b = first[47], (first[51] + first[52]) / 2
    model = IWAE(1, (1,), ((2,),), likelihood="gaussian")
    reference.set_linear(model, "q_z1", np.zeros((2, 1)), np.zeros(1), np.full(1, std**2))
    reference.set_linear(model, "p_x", np.array([[1.0], [-1.0]]), np.zeros(1), np.full(1, 0.01))
    hidden = model.decoder[0].hidden[0]
    hidden.kernel.assign([[10.0, 10.0]])
    hidden.bias.assign([-10 * a, -10 * b])
    return model


def log_p_of_two_narrow_modes(model):
    z = np.linspace(-1, 1, 20_001)
    joint = reference.log_likelihood(reference.weights_of(model), [[1.0]], z[:, None]) + stats.norm.logpdf(z)
    return np.logaddexp.reduce(joint) + math.log(z[1] - z[0])


def test_modes_narrower_than_the_first_grid_are_found():
    model = two_narrow_modes(std=0.3)
    (grid,) = by_quadrature.on_grid(model, np.float32([[1.0]]), seed=0, ks=(1,), points=400)
    assert grid.log_evidence == pytest.approx(log_p_of_two_narrow_modes(model), abs=1e-3)


# ---- warnings and refusals ----


def centred_q(std):
    """x = z + std e, with q = N(0, I) whatever x is."""
    model = IWAE(2, (2,), ((),), likelihood="gaussian")
    reference.set_linear(model, "p_x", np.eye(2), np.zeros(2), np.full(2, std**2))
    reference.set_linear(model, "q_z1", np.zeros((2, 2)), np.zeros(2), np.ones(2))
    return model


@pytest.mark.parametrize(
    ("std", "x", "expected"),
    [
        (0.3, [20.0, 0.0], r"% of the posterior lies at the border of its grid"),
        (0.01, [0.3, -0.4], "too coarse for the posterior: .* and -1.96 on a closer grid"),
    ],
)
def test_a_grid_that_misses_the_posterior_is_warned_of(std, x, expected):
    with pytest.warns(UserWarning, match=expected):
        by_quadrature.on_grid(centred_q(std), np.float32([x]), seed=0, ks=(1,))


@pytest.mark.parametrize("latent", [(3,), (2, 2)])
def test_other_models_are_refused(latent):
    model = IWAE(3, latent, [()] * len(latent))
    with pytest.raises(ValueError, match="expected one stochastic layer of 1 or 2 units"):
        by_quadrature.on_grid(model, X, seed=0)


# ---- one latent unit ----


@pytest.fixture(scope="module")
def curved():
    """A model that is not linear, its input, and its posterior on a grid."""
    model, x = IWAE(1, (1,), ((5,),), likelihood="gaussian"), np.float32([[0.7]])
    reference.scramble(model, scale=0.8)
    (grid,) = by_quadrature.on_grid(model, x, seed=0, ks=(1, 2), points=400)
    return model, x, grid


def test_one_latent_unit_agrees_with_the_other_quadrature(curved):
    model, x, grid = curved
    assert grid.log_evidence == pytest.approx(quadrature.log_marginal(model, x[:, 0])[0], abs=1e-4)


def test_q_iw_of_two_samples_is_its_double_integral(curved):
    """q_IW(z) = q(z) E[2 w(z) / (w(z) + w(z_2))], the expectation over z_2 from q by quadrature."""
    *_, grid = curved
    q, ratio = grid.q_iw[1], grid.true / grid.q_iw[1]  # w(z) / p(x)
    share = 2 * ratio[:, None] / (ratio[:, None] + ratio)
    expected = np.sum(share * q, axis=1) * grid.cell
    spread = np.sqrt(np.maximum(np.sum(share**2 * q, axis=1) * grid.cell - expected**2, 0))
    error = spread / math.sqrt(by_quadrature.DRAWS / 2) + 2e-4  # groups of two draws; of q 6e-5 is off the grid
    assert np.all(np.abs(grid.q_iw[2] / q - expected) < 5 * error)
    assert np.ptp(expected) > 0.5  # or it would be a weak test


def test_the_quadrature_is_for_networks_of_one_s_own_too():
    def network():
        x = keras.Input((1,))
        return keras.Model(x, [keras.layers.Dense(1)(x), keras.layers.Dense(1, kernel_initializer="zeros")(x)])

    model = IWAE(1, (1,), ((),), likelihood="gaussian", network=(network(), network()))
    assert quadrature.applies(model)
    found = quadrature.one_dimensional(model, np.linspace(-12, 12, 801), posterior_x=0.5)
    assert np.sum(found.model_density) * 24 / 800 == pytest.approx(1, abs=1e-3)


@pytest.mark.parametrize(
    ("likelihood", "inputs", "latent"), [("bernoulli", 1, 1), ("gaussian", 2, 1), ("gaussian", 1, 2)]
)
def test_the_quadrature_is_for_one_gaussian_dimension_of_data_and_latent_space(likelihood, inputs, latent):
    assert not quadrature.applies(IWAE(inputs, (latent,), ((),), likelihood=likelihood))


def test_a_large_r_hat_is_explained():
    for r_hat, lines in (([1.0, 1.1], 1), ([1.0, 5.98], 2)):
        told = posterior.told({"posterior": {"inputs": [3, 4], "r_hat": r_hat}})
        assert len(told) == lines and f"at most {max(r_hat):.2f}" in told[0]
