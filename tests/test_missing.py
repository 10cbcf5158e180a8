"""Missing pixels, which are NaN: log p(x_known) against truth, gradients, imputation, and a run from start to end."""

import keras
import numpy as np
import pytest
import reference
import tensorflow as tf
from scipy import special, stats
from tiny import experiment

import iwae
from iwae import batches, evaluation, verbs
from iwae.data.loading import load_dataset
from iwae.data.users_file import of_arrays
from iwae.diagnostics import tightness
from iwae.model import IWAE

D = 6


def holes(x, seed=0, share=0.4):
    """x [n, D] with NaN in some places, in no row everywhere."""
    x, missing = np.array(x, np.float32), np.random.default_rng(seed).random(np.shape(x)) < share
    missing[np.arange(len(x)), np.arange(len(x)) % x.shape[1]] = False
    x[missing] = np.nan
    return x


@pytest.fixture(scope="module", params=[1, 2])
def linear(request):
    """A linear-Gaussian model with a wide q, images with holes, and the mean and covariance of the complete images."""
    exact = reference.LinearGaussian(request.param, n=12)
    model, weights, lowest = exact.model, reference.weights_of(exact.model), exact.model.encoder[0]
    kernel, noise = weights["p_x/mean/kernel"], np.exp(2 * weights["p_x/log_std/bias"])
    mean = exact.z_mean @ kernel + weights["p_x/mean/bias"]
    lowest.mean.kernel.assign(0.3 * lowest.mean.kernel)
    lowest.mean.bias.assign(exact.z_mean - mean @ lowest.mean.kernel)
    lowest.log_std.bias.assign(0.5 * np.log(1.3 * exact.z_variance))
    shift, scale = np.linspace(-3, 3, 7), np.linspace(0.5, 4, 7)
    model.data_mean.assign(shift)
    model.data_std.assign(scale)
    model.missing = True
    covariance = np.outer(scale, scale) * (kernel.T @ (exact.z_variance[:, None] * kernel) + np.diag(noise))
    return model, holes(shift + scale * exact.x), shift + scale * mean, covariance


def test_the_bound_is_of_the_known_pixels(linear):
    model, x, mean, covariance = linear
    truth = []
    for row, known in zip(x, ~np.isnan(x), strict=True):
        truth.append(stats.multivariate_normal(mean[known], covariance[np.ix_(known, known)]).logpdf(row[known]))
    values, _ = verbs.estimate_log_likelihood(model, x, k=10_000)
    np.testing.assert_allclose(values, truth, atol=0.05)


def test_missing_pixels_are_imputed_by_their_mean_given_the_others(linear):
    model, x, mean, covariance = linear
    found, known = verbs.impute(model, x, k=10_000), ~np.isnan(x)
    np.testing.assert_array_equal(found[known], x[known])
    for row, at, imputed in zip(x, known, found, strict=True):
        gain = np.linalg.solve(covariance[np.ix_(at, at)], covariance[np.ix_(at, ~at)])
        expected = mean[~at] + (row[at] - mean[at]) @ gain
        deviation = np.sqrt(np.diag(covariance)[~at])
        np.testing.assert_allclose((imputed[~at] - expected) / deviation, 0, atol=0.1)


def a_model(likelihood, missing=True, **options):
    model = IWAE(D, (3, 2), ((5,), (4,)), likelihood=likelihood, k=4, **options)
    model.missing = missing
    reference.scramble(model)
    return model


def test_bernoulli_pixels_that_are_missing_count_nothing():
    model, x = a_model("bernoulli"), holes(reference.binary(5, D))
    noise = reference.noise(4, 5, (3, 2))
    terms = model.log_weight_terms(tf.constant(x), [tf.constant(values) for values in noise])
    weights, known = reference.weights_of(model), ~np.isnan(x)
    filled = np.nan_to_num(x)
    *_, samples = reference.log_weight_terms(weights, filled, noise)  # zero at the networks' input
    np.testing.assert_allclose(terms.samples[0], samples[0], atol=1e-5)
    logits = reference.network(weights, "p_x", "logits", samples[0])
    each = filled * special.log_expit(logits) + (1 - filled) * special.log_expit(-logits)
    np.testing.assert_allclose(terms.log_likelihood, (each * known).sum(-1), atol=1e-4)


def test_8_bit_values_that_are_missing_count_nothing():
    model, x = a_model("discretized_logistic"), holes(np.random.default_rng(1).integers(0, 256, (5, D)) / 255)
    known, z = ~np.isnan(x), tf.random.stateless_normal([4, 5, 3], (1, 2))
    of_each = [
        model.decode(z).log_prob(np.where(np.arange(D) == d, x[:, d : d + 1], 0.5), np.arange(D) == d) for d in range(D)
    ]
    expected = sum(np.where(known[:, d], values, 0) for d, values in enumerate(of_each))
    np.testing.assert_allclose(model.log_likelihood(tf.constant(x, tf.float32), z), expected, rtol=1e-4)
    summary, _ = evaluation.evaluate(model, np.float32(x), iwae.Evaluation(k=5, remove_inactive_units=False), 1, None)
    assert summary["bits_per_dimension"] == pytest.approx(summary["nll"] / (known.sum() / 5) / np.log(2))


@pytest.mark.slow
def test_the_bracket_is_of_the_values_that_are_known():
    """log p of fewer binary pixels is nearer to zero."""
    model = a_model("bernoulli")
    missing = np.tile(np.where(np.arange(D) > 0, np.nan, 0), (4, 1))
    found = {
        name: tightness.bidirectional(model, 4, 20, 20, 2, 1, like=m) for name, m in (("", None), ("one", missing))
    }
    assert np.all(found["one"]["l_k"] > found[""]["l_k"] + 0.5) and np.all(
        found["one"]["lower"] > found[""]["lower"] + 0.5
    )


@pytest.mark.parametrize("likelihood", ["bernoulli", "gaussian"])
@pytest.mark.parametrize("estimator", ["reparameterized", "dreg"])
def test_a_pixel_that_is_missing_everywhere_has_no_gradient(likelihood, estimator):
    model, x = a_model(likelihood, estimator=estimator), holes(reference.binary(5, D))
    x[:, 2] = np.nan
    noise = [tf.constant(values) for values in reference.noise(4, 5, (3, 2))]
    fifths = tf.fill([5], 0.2)
    _, gradients = model.estimator(model, model.objective, tf.constant(x), noise, fifths, fifths)
    found = {v.path: g.numpy() for v, g in zip(model.trainable_variables, gradients, strict=True)}
    assert all(np.isfinite(gradient).all() for gradient in found.values())
    of_pixels = {path: gradient for path, gradient in found.items() if path.startswith("p_x/") and "hidden" not in path}
    of_pixels["q_z1/hidden_1/kernel"] = found["q_z1/hidden_1/kernel"].T
    assert len(of_pixels) == (3 if likelihood == "bernoulli" else 5)
    for gradient in of_pixels.values():
        assert not gradient[..., 2].any() and gradient[..., [0, 1, 3, 4, 5]].any(axis=None)


@pytest.mark.parametrize("likelihood", ["bernoulli", "gaussian"])
def test_complete_images_have_the_same_weights_and_cost_nothing_without_missing(likelihood):
    x, noise = tf.constant(reference.binary(5, D)), [tf.constant(e) for e in reference.noise(4, 5, (3, 2))]
    graphs, values = {}, {}
    for missing in (True, False):
        model = a_model(likelihood, missing)
        function = tf.function(lambda x, of=model: of.log_weight_terms(x, noise).log_weights())
        graphs[missing] = {operation.type for operation in function.get_concrete_function(x).graph.get_operations()}
        values[missing] = function(x)
    np.testing.assert_allclose(values[True], values[False], rtol=1e-4)
    assert "IsNan" in graphs[True] and "IsNan" not in graphs[False]


def test_a_model_takes_nan_only_if_it_is_told_so(tmp_path):
    x = holes(reference.binary(40, D))
    model = a_model("bernoulli")
    model.compile("adam")
    assert np.isfinite(model.fit(x, verbose=0).history["bound"]).all()
    model.save(tmp_path / "m.keras")
    again = keras.models.load_model(tmp_path / "m.keras")
    np.testing.assert_allclose(again.log_weights(x, 3, (0, 1)), model.log_weights(x, 3, (0, 1)), rtol=1e-5)
    with pytest.raises(ValueError, match=r"got nan \(a model whose `missing` is True takes it for a missing value\)"):
        verbs.impute(a_model("bernoulli", missing=False), x)


@pytest.mark.parametrize("stochastic", [True, False])
def test_missing_pixels_on_the_device(stochastic):
    x = holes(reference.binary(20, D))
    numbers = np.arange(20)[::-1]
    found = batches.ResidentImages(x, stochastic).batch(tf.constant(numbers), tf.constant([1, 2]))
    np.testing.assert_array_equal(found, x[numbers])


def test_a_dataset_with_missing_values(tmp_path):
    x = holes(np.random.default_rng(0).random((40, D)))
    data = of_arrays({"x_train": x, "x_test": x[:4], "x_valid": x[:2]}, False)
    assert data.kind == "grey" and data.missing == pytest.approx(np.isnan(np.concatenate([x, x[:4], x[:2]])).mean())
    np.testing.assert_allclose(data.train_mean, [column[~np.isnan(column)].mean() for column in x.T], rtol=1e-5)
    np.testing.assert_allclose(data.train_std, [column[~np.isnan(column)].std() for column in x.T], rtol=1e-5)
    assert of_arrays({"x_train": np.round(x), "x_test": np.round(x)}, False).kind == "binary"
    (tmp_path / "m.csv").write_text("a,b\n" + "1.5,2\n,3\n2,\n" * 9)
    table = load_dataset(tmp_path / "m.csv", allow_real=True)
    assert table.missing == pytest.approx(1 / 3) and load_dataset("digits").missing == 0


@pytest.mark.slow  # ten seconds
def test_a_run_with_missing_pixels(tmp_path):
    digits = load_dataset("digits")
    given = {
        "x_train": holes(digits.train[:200]).reshape(-1, 8, 8),
        "x_test": holes(digits.test[:30]).reshape(-1, 8, 8),
    }
    with pytest.warns(UserWarning, match=r"39\.1 % of the values are missing \(NaN\): likelihoods and bounds"):
        run = iwae.run(experiment(tmp_path), dataset=given)
    assert run.model.missing and np.isnan(run.images("test")).mean() > 0.3
    assert set(np.unique(run.images("test")[~np.isnan(run.images("test"))])) == {0, 1}
    assert 0 < run.evaluation["test"]["nll"] < 64 * np.log(2) and (run.folder.plots / "imputations.png").exists()
