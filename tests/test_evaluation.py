"""What evaluation reports, against the same log weights taken at once, smaller models, and closed forms."""

import contextlib
import json
import math

import keras
import numpy as np
import pytest
import reference
import tensorflow as tf
from scipy import special, stats

from iwae import config, evaluation, layers, rng
from iwae.model import IWAE

N, D, LATENT, HIDDEN = 11, 7, (5, 4), ((6,), (8, 9))


@pytest.fixture(scope="module")
def model():
    model = IWAE(D, LATENT, HIDDEN, k=3)
    reference.scramble(model, scale=0.4)
    return model


@contextlib.contextmanager
def op_by_op():
    """Compiled functions run op by op: what happens in them can be looked at, and nothing has to be compiled."""
    tf.config.run_functions_eagerly(True)
    yield
    tf.config.run_functions_eagerly(False)


@pytest.fixture
def eagerly():
    with op_by_op():
        yield


IMAGES = reference.binary(N, D)


# ---- importance sampling ----


@pytest.mark.parametrize(("k", "units"), [(3, 1), (4, 1), (5, 3), (3, 5), (5, 4), (7, 7), (1, 1), (1, 2), (250, 50)])
def test_draws_of_several_seeds_at_once_are_those_of_each(k, units):
    seeds = tf.constant([[12, -5], [3, 4], [-(2**31), 2**31 - 1]])
    at_once = tf.function(lambda: rng.normal_of_each(k, units, seeds), jit_compile=True)()
    np.testing.assert_array_equal(at_once, np.stack([rng.normal([k, units], seed) for seed in seeds], axis=1))
    np.testing.assert_array_equal(rng.fold(seeds, 7), [rng.fold(seed, 7) for seed in seeds])
    streams = rng.stream(3, tf.range(4), "evaluate")
    np.testing.assert_array_equal(streams, [rng.stream(3, number, "evaluate") for number in range(4)])


@pytest.mark.parametrize(
    ("gpu", "inputs", "network", "images"),
    [(False, 784, None, 8), (True, 784, None, 80), (True, 3072, None, 20), (True, 784, "own", 8)],
)
def test_a_gpu_evaluates_more_images_at_once_if_no_layer_is_large(gpu, inputs, network, images, monkeypatch):
    x, z = keras.Input((inputs,)), keras.Input((2,))
    encoder = keras.Model(x, [keras.layers.Dense(2)(x) for _ in range(2)])
    networks = (encoder, keras.Model(z, keras.layers.Dense(inputs)(z))) if network else None
    made = IWAE(inputs, (2,), ((3,),), network=networks)
    monkeypatch.setattr(evaluation.hardware, "on_gpu", lambda: gpu)
    assert evaluation.batch_size(made, 5000) == images


def test_images_get_the_same_values_in_batches_of_any_size(model, monkeypatch, eagerly):
    """In one batch; in batches of 4, 4 and 3; and a part of them alone."""
    k = 7
    at_once = evaluation.importance_sample(model, IMAGES, k, seed=2)
    part = evaluation.importance_sample(model, IMAGES[:5], k, seed=2)
    monkeypatch.setattr(evaluation, "batch_size", lambda *_: 4)
    in_batches = evaluation.importance_sample(model, IMAGES, k, seed=2)
    assert set(at_once) == {
        "log_likelihood_bound", "bound_1", "bound_5", "elbo", "reconstruction", "kl", "effective_sample_size",
    }  # fmt: skip
    for name, values in at_once.items():
        assert values.shape == ((N, 2) if name == "kl" else (N,))
        np.testing.assert_allclose(values, in_batches[name], atol=1e-4, err_msg=name)  # rounding of matrix products
        np.testing.assert_allclose(values[:5], part[name], atol=1e-4, err_msg=name)
    another = evaluation.importance_sample(model, IMAGES, k, seed=3)
    assert not np.any(another["elbo"] == in_batches["elbo"])


def test_chunks_add_up_to_all_samples(model, monkeypatch, eagerly):
    """Seven samples in chunks of three, the last one cut to one, against all log weights at once in float64."""
    k, chunks, terms_of = 7, [], model.log_weight_terms

    def recording(*arguments):
        chunks.append(terms_of(*arguments))
        return chunks[-1]

    monkeypatch.setattr(model, "log_weight_terms", recording)
    monkeypatch.setattr(evaluation, "CHUNK", 3)
    result = evaluation.importance_sample(model, IMAGES, k, seed=2, bounds_at=(1, 2, 5))
    assert len(chunks) == 3 and chunks[0].log_likelihood.shape == (3, N)

    def together(values_of):
        return np.concatenate([values_of(chunk) for chunk in chunks]).astype(np.float64)[:k]

    log_weights = together(lambda chunk: chunk.log_weights())
    expected = {
        "log_likelihood_bound": reference.bound(log_weights),
        "elbo": log_weights.mean(axis=0),
        "bound_1": log_weights.mean(axis=0),
        "bound_2": (reference.bound(log_weights[0:2]) + reference.bound(log_weights[3:5]))
        / 2,  # whole pairs of a chunk
        "reconstruction": together(lambda chunk: chunk.log_likelihood).mean(axis=0),
        "kl": np.stack(
            [together(lambda c, i=i: c.log_posterior[i] - c.log_prior[i]).mean(axis=0) for i in range(2)], axis=1
        ),
        "effective_sample_size": 1 / (special.softmax(log_weights, axis=0) ** 2).sum(axis=0),
    }
    assert set(result) == set(expected)  # no bound of five: a chunk has no group of five
    for name, values in expected.items():
        np.testing.assert_allclose(result[name], values, atol=1e-4, err_msg=name)
    samples = np.concatenate([chunk.samples[0] for chunk in chunks])
    assert len(np.unique(samples)) == samples.size  # no two images, samples or chunks share their noise


def test_bounds_rise_with_k_and_the_elbo_is_the_sum_of_its_terms(model):
    """From the same samples, in whole groups, the bounds of each image are in order without exception (Jensen)."""
    result = evaluation.importance_sample(model, IMAGES, 500, seed=2)
    in_order = [result[name] for name in ("bound_1", "bound_5", "bound_50", "log_likelihood_bound")]
    assert np.all(np.diff(in_order, axis=0) > 0)
    np.testing.assert_allclose(result["elbo"], result["bound_1"], atol=1e-4)
    np.testing.assert_allclose(result["reconstruction"] - result["kl"].sum(axis=1), result["elbo"], atol=1e-4)
    assert np.all(result["effective_sample_size"] > 1) and np.all(result["effective_sample_size"] < 500)


@pytest.mark.parametrize("k", [1, 9])
def test_the_exact_posterior_has_an_effective_sample_size_of_k(k, eagerly):
    exact = reference.LinearGaussian(2)
    result = evaluation.importance_sample(exact.model, exact.x, k, seed=0)
    np.testing.assert_allclose(result["effective_sample_size"], k, rtol=1e-3)
    for name in ("log_likelihood_bound", "elbo"):
        np.testing.assert_allclose(result[name], exact.log_p, atol=1e-4)


# ---- latent units ----


def smaller(model, hidden_units, units):
    """A model with those units only: the weights that lead to and from the others are dropped."""
    small = IWAE(D, [int(kept.sum()) for kept in units], hidden_units)
    one, two = (kept == 1 for kept in units)
    inputs, outputs = {"q_z2": one, "p_x": one, "p_z1": two}, {"q_z1": one, "p_z1": one, "q_z2": two}
    paths = {variable.path for variable in model.trainable_variables}
    for variable, new in zip(model.trainable_variables, small.trainable_variables, strict=True):
        layer, part, kind = variable.path.split("/")
        values = variable.numpy()
        lowest = "hidden_1" if f"{layer}/hidden_1/kernel" in paths else part
        if layer in inputs and part == lowest and kind == "kernel":
            values = values[inputs[layer]]
        if layer in outputs and not part.startswith("hidden"):
            values = values[..., outputs[layer]]
        new.assign(values)
    return small


@pytest.mark.parametrize("hidden_units", [HIDDEN, ((), ())], ids=["hidden layers", "none"])
def test_removed_units_make_a_smaller_model(hidden_units):
    model = IWAE(D, LATENT, hidden_units)
    reference.scramble(model, scale=0.2)
    units = [np.float32([1, 0, 1, 1, 0]), np.float32([0, 1, 0, 1])]
    small = smaller(model, hidden_units, units)
    noise, x = reference.noise(3, N, LATENT), tf.constant(IMAGES)
    terms = model.log_weight_terms(x, noise, units)
    expected = small.log_weight_terms(x, [e[..., kept == 1] for e, kept in zip(noise, units, strict=True)])
    np.testing.assert_allclose(terms.log_likelihood, expected.log_likelihood, rtol=1e-5)
    for name in ("log_prior", "log_posterior"):
        for one, two in zip(getattr(terms, name), getattr(expected, name), strict=True):
            np.testing.assert_allclose(one, two, rtol=1e-5, err_msg=name)


def test_posterior_means_of_the_lowest_layer_are_the_encoder_s(model):
    means = evaluation.posterior_means(model, IMAGES, seed=0)
    assert [layer.shape for layer in means] == [(N, 5), (N, 4)]
    weights = reference.weights_of(model)
    np.testing.assert_allclose(means[0], reference.network(weights, "q_z1", "mean", IMAGES), atol=1e-5)
    # Above: the mean over 100 samples of the layer below, here against 20,000 of the reference's.
    noise = reference.noise(20_000, N, LATENT)
    above = reference.network(weights, "q_z2", "mean", reference.log_weight_terms(weights, IMAGES, noise)[3][0])
    error = above.std(axis=0) * math.sqrt(1 / evaluation.ACTIVITY_SAMPLES + 1 / 20_000)
    assert np.all(np.abs(means[1] - above.mean(axis=0)) < 4.5 * error)


def with_activities(variances):
    """A model without hidden layers and images such that the posterior mean of unit u has the variance variances[u]."""
    n = 40
    x = np.zeros((n, D), np.float32)
    for u in range(len(variances)):
        x[:, u] = np.random.default_rng(u).permutation(np.repeat([0.0, 1.0], n // 2))  # variance 1/4
    model = IWAE(D, (len(variances),), ((),))
    reference.scramble(model)
    kernel = np.zeros((D, len(variances)))
    np.fill_diagonal(kernel, 2 * np.sqrt(variances))
    model.encoder[0].mean.kernel.assign(kernel)
    return model, x


def test_active_units_are_those_above_the_threshold(eagerly):
    variances = [4.0, 0.0099, 0.0101, 0.0]
    model, x = with_activities(variances)
    settings = config.Evaluation(k=6)
    summary, arrays = evaluation.evaluate(model, x, settings, seed=1, label="test")
    np.testing.assert_allclose(arrays["activity"][0], variances, rtol=1e-4, atol=1e-10)
    assert summary["active_units"] == [2]
    units = [np.float32([1, 0, 1, 0])]
    without = evaluation.importance_sample(model, x, 6, 1, (), units)["log_likelihood_bound"]
    assert summary["nll_active_units_only"] == pytest.approx(-without.mean(), rel=1e-6)
    assert summary["nll_active_units_only"] != summary["nll"]


def test_with_all_units_active_nothing_is_removed(eagerly):
    model, x = with_activities([4.0, 1.0, 2.0])
    summary, _ = evaluation.evaluate(model, x, config.Evaluation(k=6), seed=1)
    assert summary["active_units"] == [3] and summary["nll_active_units_only"] == summary["nll"]
    kept = config.Evaluation(k=6, active_unit_threshold=3.0, remove_inactive_units=False)
    summary, _ = evaluation.evaluate(model, x, kept, seed=1)
    assert summary["active_units"] == [1] and "nll_active_units_only" not in summary


# ---- the summary ----


def test_the_summary_is_that_of_the_arrays(model, eagerly):
    summary, arrays = evaluation.evaluate(model, IMAGES, config.Evaluation(k=60), seed=1)
    assert json.loads(json.dumps(summary, allow_nan=False)) == summary
    assert set(summary) == {
        "examples", "k", "nll", "nll_stderr", "bounds", "elbo", "reconstruction", "kl", "active_units",
        "nll_active_units_only", "effective_sample_size",
    }  # fmt: skip
    assert summary["examples"] == N and summary["k"] == 60
    nll = -arrays["log_likelihood_bound"]
    assert summary["nll"] == pytest.approx(nll.mean()) and summary["nll_stderr"] == pytest.approx(stats.sem(nll))
    assert list(summary["bounds"]) == ["1", "5", "50", "60"] and summary["bounds"]["60"] == -summary["nll"]
    assert summary["bounds"]["5"] == pytest.approx(arrays["bound_5"].mean())
    assert summary["kl"] == pytest.approx(arrays["kl"].mean(axis=0)) and len(summary["kl"]) == 2
    for name in ("elbo", "reconstruction", "effective_sample_size"):
        assert summary[name] == pytest.approx(arrays[name].mean(), rel=1e-5)
    assert summary["reconstruction"] - sum(summary["kl"]) == pytest.approx(summary["elbo"], rel=1e-5)


def test_one_sample_of_one_example(model, eagerly):
    summary, _ = evaluation.evaluate(model, IMAGES, config.Evaluation(k=1, examples=1), seed=1)
    assert summary["examples"] == 1 and summary["nll_stderr"] == 0 and list(summary["bounds"]) == ["1"]
    assert summary["effective_sample_size"] == pytest.approx(1)


def test_a_part_of_the_examples_is_spread_over_all(model, eagerly):
    _, arrays = evaluation.evaluate(model, IMAGES, config.Evaluation(k=2, examples=4), seed=1)
    chosen = IMAGES[evaluation.spread(N, 4)]
    expected = evaluation.importance_sample(model, chosen, 2, 1)
    np.testing.assert_array_equal(arrays["log_likelihood_bound"], expected["log_likelihood_bound"])
    assert list(evaluation.spread(11, 4)) == [0, 2, 5, 8] and list(evaluation.spread(3, 5)) == [0, 1, 2]


def test_standard_error():
    values = np.random.default_rng(0).standard_normal(50)
    assert evaluation.standard_error(values) == pytest.approx(stats.sem(values))
    assert evaluation.standard_error(values[:1]) == 0


@pytest.mark.slow
def test_three_stochastic_layers_train_and_are_evaluated():
    model = IWAE(D, (4, 3, 2), ((6,), (8,), (9,)), k=3)
    settings = config.Evaluation(k=50)
    with op_by_op():
        before, _ = evaluation.evaluate(model, IMAGES, settings, seed=0)
    model.compile(optimizer=keras.optimizers.Adam(0.02), jit_compile=False)
    model.fit(np.tile(IMAGES, (60, 1)), batch_size=N, shuffle=False, verbose=0)
    with op_by_op():
        after, _ = evaluation.evaluate(model, IMAGES, settings, seed=0)
    assert after["nll"] < before["nll"] - 0.3
    for summary in (before, after):
        assert len(summary["kl"]) == len(summary["active_units"]) == 3
        assert summary["bounds"]["1"] < summary["bounds"]["5"] < summary["bounds"]["50"] < 0


def test_an_image_without_a_finite_bound_is_named(model, monkeypatch):
    def broken(images, numbers, seed):
        bound = np.where(numbers == 3, np.nan, -1.0).astype(np.float32)
        return {"log_likelihood_bound": bound, "kl": np.zeros([len(numbers), 1], np.float32)}

    monkeypatch.setattr(evaluation, "compile_importance_sampling", lambda *_: broken)
    with pytest.raises(evaluation.NonFiniteLogWeight, match=r"1 of 5 images .* first of image 3: .*bound nan"):
        evaluation.importance_sample(model, np.zeros([5, 7], np.float32), 4, seed=1)


def test_a_removed_unit_of_density_zero_counts_nothing():
    z, mean, log_std = tf.zeros([1, 2]), tf.constant([[0.0, 1.0]]), tf.constant([[0.0, -100.0]])
    kept = layers.gaussian_log_prob(z, mean, log_std, tf.constant([1.0, 0.0]))
    np.testing.assert_allclose(kept, [-0.5 * layers.LOG_2PI], rtol=1e-6)
