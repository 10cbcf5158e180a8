"""A posterior bent by a flow: its splines, its density, what is done with it, and a run from start to end."""

import json
import subprocess
import sys

import keras
import numpy as np
import pytest
import reference
import tensorflow as tf
import tensorflow_probability as tfp
import tiny
from scipy import stats

import iwae
from iwae import bounds, estimators, evaluation, flows, layers
from iwae.config import ConfigError
from iwae.diagnostics import grid
from iwae.flows import SplineFlow
from iwae.model import IWAE

D, K, B = 6, 4, 5
SHAPES = {1: ((1,), ((7,),)), 2: ((2,), ((),)), 5: ((5,), ((7,),)), "two layers": ((5, 3), ((7,), (6,)))}
X = tf.constant(reference.binary(B, D))


def a_model(shape=2, couplings=4, **options):
    model = IWAE(D, *SHAPES[shape], k=K, network=SplineFlow(couplings), **options)
    reference.scramble(model)
    for variable in model.trainable_variables:
        if variable.path.endswith("shape/kernel"):  # a hundred inputs each: parameters of about one come of them
            variable.assign(0.3 * variable / flows.GAIN)
    return model


def noise(model, k=K, batch=B):
    return [tf.constant(values) for values in reference.noise(k, batch, model.latent_units)]


# ---- the splines ----


def test_a_spline_is_that_of_tensorflow_probability():
    random = np.random.default_rng(0)
    parameters = random.standard_normal((300, 3 * flows.BINS - 1)).astype(np.float32)
    values = random.uniform(-1.3 * flows.REACH, 1.3 * flows.REACH, 300).astype(np.float32)
    widths, heights, slopes = np.split(parameters, [flows.BINS, 2 * flows.BINS], axis=1)
    rest = 1 - flows.BINS * flows.LEAST
    theirs = tfp.bijectors.RationalQuadraticSpline(
        *(2 * flows.REACH * (flows.LEAST + rest * tf.nn.softmax(sizes)) for sizes in (widths, heights)),
        flows.LEAST + tf.nn.softplus(slopes + np.float32(np.log(np.expm1(1 - flows.LEAST)))),
        range_min=-flows.REACH,
    )
    moved, log_slope = flows.spline(parameters, values)
    np.testing.assert_allclose(moved, theirs.forward(values), atol=1e-4)
    np.testing.assert_allclose(log_slope, theirs.forward_log_det_jacobian(values, event_ndims=0), atol=1e-4)
    back, log_slope_back = flows.spline(parameters, moved, inverse=True)
    np.testing.assert_allclose(back, values, atol=1e-4)
    np.testing.assert_allclose(log_slope_back, -log_slope, atol=1e-3)
    assert np.ptp(log_slope) > 2 and np.all(log_slope[np.abs(values) > flows.REACH] == 0)


def test_the_steepest_splines_stay_finite():
    """A steep bin of the least width between flat ones, up to its knots."""
    for size in (3.0, 6.0, 9.0, 30.0):
        high_in_middle = -size * np.ones(flows.BINS, np.float32)
        high_in_middle[3] = size
        parameters = tf.constant(
            np.concatenate([-high_in_middle, high_in_middle, -size * np.ones(flows.BINS - 1)]), tf.float32
        )
        for inverse in (False, True):
            values = tf.linspace(-flows.REACH, flows.REACH, 40_001)
            with tf.GradientTape() as tape:
                tape.watch(values)
                moved, log_slope = flows.spline(tf.tile(parameters[None], [40_001, 1]), values, inverse)
            assert np.isfinite(moved).all() and np.isfinite(log_slope).all(), (size, inverse)
            assert np.isfinite(tape.gradient(log_slope, values)).all(), (size, inverse)
            assert np.diff(moved).min() > -1e-3 and np.abs(moved).max() < 1.001 * flows.REACH


def test_the_spline_of_zeros_is_the_identity():
    values = tf.linspace(-9.0, 9.0, 101)
    for inverse in (False, True):
        moved, log_slope = flows.spline(tf.zeros([101, 3 * flows.BINS - 1]), values, inverse)
        np.testing.assert_allclose(moved, values, atol=1e-5)
        np.testing.assert_allclose(log_slope, 0, atol=1e-5)


# ---- the density ----


def jacobian(q, epsilon):
    """dz / d epsilon of each draw: [K, B, D, D]."""
    with tf.GradientTape(persistent=True) as tape:
        tape.watch(epsilon)
        z = tf.unstack(q.draw(epsilon)[0], axis=-1)
    return np.stack([tape.gradient(values, epsilon) for values in z], axis=-2)


def test_a_new_flow_is_the_gaussian_of_its_encoder():
    model = IWAE(D, *SHAPES["two layers"], network=SplineFlow(2))
    for by_inverse in (False, True):
        terms = model.log_weight_terms(X, noise(model), stop_posterior=by_inverse)
        for q, z, log_q, epsilon in zip(terms.posterior, terms.samples, terms.log_posterior, noise(model), strict=True):
            gaussian = layers.Gaussian(q.mean, q.log_std)
            np.testing.assert_allclose(z, gaussian.draw(epsilon)[0], atol=1e-5)
            np.testing.assert_allclose(log_q, gaussian.log_prob(z), atol=1e-4)


@pytest.mark.parametrize("units", [1, 2, 5])
def test_the_density_of_a_draw_is_that_of_its_noise_over_the_determinant(units):
    model = a_model(units)
    q, (epsilon,) = model.posterior(X), noise(model)
    z, log_q = q.draw(epsilon)
    expected = stats.norm.logpdf(epsilon).sum(-1) - np.linalg.slogdet(jacobian(q, epsilon))[1]
    np.testing.assert_allclose(log_q, expected, atol=1e-3)
    np.testing.assert_allclose(q.log_prob(z), expected, atol=5e-3)  # by the inverse, in float32
    away = np.abs(log_q - layers.Gaussian(q.mean, q.log_std).log_prob(z))
    assert away.max() > 0.3  # it is bent


@pytest.mark.parametrize("units", [1, 2])
def test_the_density_integrates_to_one(units):
    q = a_model(units).posterior(X[:1])
    axis = np.linspace(-8, 8, 1601 if units == 1 else 801)
    points = np.stack(np.meshgrid(*[axis] * units), axis=-1).reshape(-1, 1, units).astype(np.float32)
    total = np.exp(q.log_prob(tf.constant(points)), dtype=float).sum() * (axis[1] - axis[0]) ** units
    assert total == pytest.approx(1, abs=5e-3)


def test_units_that_are_removed_are_zero_and_count_in_no_density():
    """What is left is a density of the others: it integrates to one over them, and their noise alone decides."""
    model, units = a_model(2), [tf.constant([0.0, 1.0])]
    q = model.posterior(X[:1])
    (epsilon,) = noise(model, batch=1)
    z, log_q = q.draw(epsilon, units[0])
    others, same = q.draw(epsilon + tf.constant([9.0, 0.0]), units[0])
    assert not z[..., 0].numpy().any()
    np.testing.assert_array_equal(z, others)
    np.testing.assert_allclose(log_q, same, atol=1e-6)
    np.testing.assert_allclose(q.log_prob(z, units[0]), log_q, atol=1e-3)
    axis = np.linspace(-8, 8, 1601)
    points = tf.constant(np.stack([0 * axis, axis], axis=-1)[:, None], tf.float32)
    total = np.exp(q.log_prob(points, units[0]), dtype=float).sum() * (axis[1] - axis[0])
    assert total == pytest.approx(1, abs=5e-3)
    found = model.log_weight_terms(X[:1], noise(model, batch=1), units)
    np.testing.assert_allclose(found.log_posterior[0], log_q, atol=1e-5)
    larger, kept = a_model(5), tf.constant([1.0, 0.0, 1.0, 1.0, 0.0])
    z, log_q = larger.posterior(X).draw(noise(larger)[0], kept)
    assert np.all((z.numpy() == 0).all(axis=(0, 1)) == (kept.numpy() == 0))
    np.testing.assert_allclose(larger.posterior(X).log_prob(z, kept), log_q, atol=5e-3)


# ---- what is done with it ----


def test_divergence_on_a_grid_is_the_gap_of_the_elbo():
    model = a_model(2)
    (found,) = grid.on_grid(model, X[:1].numpy(), seed=0, points=400)
    log_weights = model.log_weights(X[:1], 100_000, (1, 2)).numpy()
    gap = found.log_evidence - log_weights.mean()
    assert found.kl[1] == pytest.approx(gap, abs=0.1)  # the grid is coarse for it
    of_prior = model.log_likelihood(
        X[:1], tf.constant(np.random.default_rng(0).standard_normal((100_000, 1, 2)), tf.float32)
    )
    assert found.log_evidence == pytest.approx(float(bounds.importance_weighted(of_prior)[0]), abs=0.02)
    assert found.kl[100] < 0.5 * found.kl[1]


def test_posterior_means_are_means_of_draws():
    model = a_model("two layers")
    means = evaluation.posterior_means(model, X.numpy(), seed=0)
    for layer, draws in zip(means, model.encode(X, 20_000, (3, 4)), strict=True):
        mean, std = np.mean(draws, axis=0), np.std(draws, axis=0)
        assert np.max(np.abs(layer - mean) / std) < 5 / np.sqrt(evaluation.ACTIVITY_SAMPLES)
    gaussian = IWAE(D, (2,), ((7,),), network=SplineFlow(2))  # not trained: its means are exact
    found = evaluation.posterior_means(gaussian, X.numpy(), seed=0)[0]
    np.testing.assert_allclose(found, gaussian.posterior_parameters(X)[0], atol=1e-5)


@pytest.mark.parametrize("estimator", estimators.ESTIMATORS)
def test_every_estimator_reaches_every_weight(estimator):
    model = a_model("two layers", estimator=estimator)
    arguments = noise(model), tf.fill([B], 1 / B), tf.linspace(0.1, 0.9, B)
    _, gradients = model.estimator(model, bounds.importance_weighted, X, *arguments)
    for variable, gradient in zip(model.trainable_variables, gradients, strict=True):
        assert np.any(gradient != 0) and np.all(np.isfinite(gradient)), variable.path


@pytest.mark.slow
def test_training_bends_the_posterior_towards_the_true_one():
    """z_1^2 + z_2 is seen, in noise: the true posterior is curved, which no Gaussian is."""
    values, divergence = np.float32([[-0.5], [0.0], [0.5]]), {}
    for name, network in (("gaussian", None), ("flow", SplineFlow(2))):
        model = IWAE(1, (2,), ((16,),), "vae", k=20, likelihood="gaussian", network=network)
        model.decoder[0].trainable = False
        model.decoder[0].call = lambda z: (z[..., :1] ** 2 + z[..., 1:], tf.fill([tf.shape(z)[0], 1], -1.5))
        model.compile(optimizer=keras.optimizers.Adam(keras.optimizers.schedules.CosineDecay(0.01, 600)))
        model.fit(np.repeat(values, 200, axis=0), batch_size=60, epochs=60, verbose=0)
        divergence[name] = [found.kl[1] for found in grid.on_grid(model, values, seed=0)]
    flow, gaussian = np.array(divergence["flow"]), np.array(divergence["gaussian"])
    assert np.all(gaussian > 0.3) and np.all(flow < gaussian / 2), divergence


def test_a_model_given_classes_may_have_one():
    model = iwae.ConditionalIWAE(D, (2,), ((7,),), k=K, classes=3, prior="labels", network=SplineFlow(2))
    reference.scramble(model)
    x = tf.constant(model.with_labels(X.numpy(), np.arange(B) % 3))
    one, other = (model.log_weight_terms(x, noise(model), stop_posterior=stop) for stop in (False, True))
    np.testing.assert_allclose(one.log_weights(), other.log_weights(), atol=1e-3)
    others = tf.concat([x[:, :D], x[:, D + 1 :], x[:, D : D + 1]], axis=1)
    assert np.abs(model.posterior(others.numpy()).log_prob(one.samples[0]) - one.log_posterior[0]).max() > 0.1


def test_a_saved_model_gives_the_same_log_weights(tmp_path):
    model = a_model("two layers")
    model.save(tmp_path / "model.keras")
    program = f"import iwae.model, keras; keras.models.load_model({str(tmp_path / 'model.keras')!r})"
    subprocess.run([sys.executable, "-c", program], check=True, capture_output=True)
    loaded = keras.models.load_model(tmp_path / "model.keras")
    assert loaded.get_config()["network"]["config"] == {"couplings": 4}
    assert type(SplineFlow(np.int64(2)).get_config()["couplings"]) is int
    np.testing.assert_array_equal(loaded.log_weights(X, K, (1, 2)), model.log_weights(X, K, (1, 2)))


@pytest.mark.parametrize("couplings", [0, 1.5, "2"])
def test_other_numbers_of_couplings_are_refused(couplings):
    with pytest.raises(ValueError, match=r"couplings: expected an integer >= 1, got"):
        SplineFlow(couplings)


def test_the_closed_form_of_the_divergence_is_refused():
    with pytest.raises(ValueError, match="objective: expected one for posteriors that are no Gaussians"):
        IWAE(D, (2,), ((7,),), "vae_analytic_kl", network=SplineFlow())
    with pytest.raises(ConfigError, match="model.objective: expected 'vae' with model.network 'flow'"):
        iwae.Model(objective="vae_analytic_kl", network="flow")


@pytest.mark.slow
def test_a_run_from_start_to_end(tmp_path):
    changes = {
        "model.network": "flow",
        "model.couplings": 2,
        "model.estimator": "dreg",
        "training.optimizer": "rotated_adam",
    }
    run = iwae.run(tiny.experiment(tmp_path, **changes))
    test = json.loads((tmp_path / "tiny" / "evaluation.json").read_text())["test"]
    assert -test["bounds"]["1"] >= test["nll"] > 0 and test["active_units"]
    assert {"posterior_input.png", "posterior_scatter.png"} <= {path.name for path in run.folder.plots.iterdir()}
    loaded, x = iwae.load_run(tmp_path / "tiny"), run.images("test")[:9]
    np.testing.assert_array_equal(loaded.model.log_weights(x, 3, (1, 2)), run.model.log_weights(x, 3, (1, 2)))


def test_a_run_is_trained_and_another_flow_does_not_start_from_it(tmp_path):
    changes = {"model.network": "flow", "model.couplings": 1, "tasks": ["train", "evaluate"]}
    assert iwae.run(tiny.experiment(tmp_path, **changes)).evaluation["test"]["nll"] > 0
    others = {"name": "other", "model.network": "flow", "training.start_from": str(tmp_path / "tiny")}
    with pytest.raises(ConfigError, match=r"model.couplings: expected 1 as in training.start_from .*, got 4"):
        iwae.run(tiny.experiment(tmp_path, **others))
