"""`iwae.diagnostics.tightness`: L_k, AIS, the bracket and Pareto k-hat, beside a known log p(x)."""

import math
import types
import warnings

import numpy as np
import pytest
import reference

from iwae.diagnostics import annealing, tightness

K, STEPS, CHAINS, IMAGES = 1000, 60, 50, 40
SETTINGS = types.SimpleNamespace(k=K, ais_steps=STEPS, ais_chains=CHAINS)


@pytest.fixture(scope="module")
def spoilt():
    return reference.LinearGaussian(1, n=IMAGES).spoil()


@pytest.fixture(scope="module")
def values(spoilt):
    return tightness.per_image(spoilt.model, spoilt.x, K, STEPS, CHAINS, seed=1)


@pytest.fixture(scope="module")
def bracket(spoilt):
    return tightness.bidirectional(spoilt.model, IMAGES, K, STEPS, CHAINS, seed=1)


# ---- estimates ----


@pytest.mark.parametrize("name", ["l_k", "ais"])
def test_both_estimates_find_log_p(spoilt, values, name):
    error = values[f"{name}_stderr"]
    # The logarithm of a mean is low by half its variance. None of 40 standard normal numbers is above 4.5, surely.
    assert np.all(np.abs(values[name] + error**2 / 2 - spoilt.log_p) < 4.5 * error)
    assert np.all(error < 0.25)  # or it would be a weak test


def test_the_truth_lies_in_the_bracket(spoilt, bracket):
    """On average over the simulated images; and p(x) and 1 / p(x) are estimated without bias: 4.5 standard errors."""
    x, _ = tightness.simulate(spoilt.model, IMAGES, seed=1)  # those of `bidirectional`
    *_, log_p = reference.gaussian_posterior(spoilt.model, x)
    for below in (log_p - bracket["lower"], bracket["upper"] - log_p, log_p - bracket["l_k"]):
        error, ratios = below.std() / math.sqrt(IMAGES), np.exp(-below)
        assert -4.5 * error < below.mean() < 0.1 and error < 0.02
        assert abs(ratios.mean() - 1) < 4.5 * ratios.std() / math.sqrt(IMAGES)


def test_backwards_the_chains_start_where_the_images_come_from(spoilt, monkeypatch):
    """From elsewhere they would be near the posterior after some steps, and the bracket only a little wrong."""
    calls = []

    def sample(model, images, chains, steps, seed, posterior_draws=None, step_sizes=None, label=None):
        calls.append((images, posterior_draws))
        return annealing.Annealed(np.zeros((chains, len(images))), np.zeros(0), np.zeros(0))

    monkeypatch.setattr(annealing, "sample", sample)
    tightness.bidirectional(spoilt.model, IMAGES, K, STEPS, CHAINS, seed=1)
    x, noise = tightness.simulate(spoilt.model, IMAGES, seed=1)
    (forwards, nowhere), (backwards, start) = calls
    assert nowhere is None
    for found, expected in ((forwards, x), (backwards, x), (start, noise)):
        np.testing.assert_array_equal(found, expected)


def test_log_mean_weight():
    weights = np.array([[1.0, 4.0], [3.0, 4.0]])
    log_mean, error = tightness.log_mean_weight(np.log(weights).astype(np.float32))
    np.testing.assert_allclose(log_mean, np.log([2, 4]), rtol=1e-6)
    np.testing.assert_allclose(error, [math.sqrt(2) / 2 / math.sqrt(2), 0], atol=1e-6)  # std / mean / sqrt(2)


def test_simulated_images_come_from_their_noise(spoilt):
    x, noise = tightness.simulate(spoilt.model, 2000, seed=5)
    weights = reference.weights_of(spoilt.model)
    mean, log_std = (reference.network(weights, "p_x", head, noise) for head in ("mean", "log_std"))
    standardized = (x - mean) / np.exp(log_std)
    assert np.all(np.abs(noise.mean(axis=0)) < 4.5 / math.sqrt(2000))
    assert np.all(np.abs(standardized.mean(axis=0)) < 4.5 / math.sqrt(2000))
    assert np.all(np.abs(standardized.var(axis=0) - 1) < 4.5 * math.sqrt(2 / 2000))


# ---- whether to trust the weights ----


def k_hat_of(exact, k=2000):
    return tightness.pareto_k(tightness.importance_weights(exact.model, exact.x, k, seed=0))


@pytest.mark.parametrize("shape", [0.2, 0.5, 1.0])
def test_k_hat_is_the_shape_of_a_pareto_tail(shape):
    """w = u^-shape for uniform u. From the 3 sqrt(k) weights in the tail its error is (1 + shape) over their root."""
    k = 5000
    found = tightness.pareto_k(-shape * np.log(np.random.default_rng(0).uniform(size=(k, 20))))
    error = (1 + shape) / math.sqrt(3 * math.sqrt(k))
    # a tenth for the prior of the fit, which draws towards 0.5 as 10 weights would
    assert abs(found.mean() - shape) < 4.5 * error / math.sqrt(20) + 0.05 and np.all(
        np.abs(found - shape) < 4.5 * error
    )


def test_a_q_much_too_narrow_is_not_trusted():
    """At a fifth of the posterior's scale w has a tail of shape 1 - 1/25: not even its variance is finite.

    That of an image is found within 2 / sqrt(134) = 0.17, and the mean of 40 within 0.03.
    """
    narrow = reference.LinearGaussian(1, n=40)
    scale = narrow.model.encoder[0].log_std.bias
    scale.assign_add(np.full(scale.shape, math.log(0.2)))
    assert np.mean(k_hat_of(narrow)) > tightness.TRUSTED + 0.1


@pytest.mark.parametrize("spoil", [False, True])
def test_the_posterior_and_what_is_near_it_are_trusted(spoil):
    exact = reference.LinearGaussian(1, n=10)
    assert np.all(k_hat_of(exact.spoil() if spoil else exact) < tightness.TRUSTED)


@pytest.mark.parametrize(("k", "nats"), [(24, 1), (1000, 1000)])
def test_weights_too_few_or_too_far_apart_for_a_fit_are_not_trusted(k, nats):
    log_weights = nats * np.random.default_rng(0).standard_normal((k, 3))
    assert np.all(tightness.pareto_k(log_weights) == np.inf)


@pytest.mark.parametrize(
    ("given", "expected"),
    [(0.3, 0.3), (-0.1, -0.1), (10.0, 10.0), (10.1, np.inf), (102.1, np.inf), (np.inf, np.inf), (np.nan, np.inf)],
)
def test_what_arviz_makes_of_weights_beyond_a_fit_is_infinite_in_all_its_versions(monkeypatch, given, expected):
    """Of normal log weights of 1000 nats 0.23 makes 75, 102 or infinity, 0.8 of arviz-stats an error, and 1.3 NaN."""
    monkeypatch.setattr(tightness, "_psislw", lambda log_weights: (log_weights, np.array(given)))
    np.testing.assert_array_equal(tightness.pareto_k(np.arange(50.0).reshape(25, 2)), expected)


@pytest.mark.parametrize("error", [FloatingPointError, ValueError])
def test_no_fit_is_infinite(monkeypatch, error):
    def refuse(log_weights):
        raise error

    monkeypatch.setattr(tightness, "_psislw", refuse)
    assert np.all(tightness.pareto_k(np.arange(50.0).reshape(25, 2)) == np.inf)


# ---- what `evaluation.json` holds ----


def test_the_summary_is_that_of_the_images(values, bracket):
    found = tightness.summarize(values, bracket, SETTINGS)
    assert found["ais"]["log_likelihood"] == pytest.approx(values["ais"].mean())
    assert found["ais"]["stderr"] == pytest.approx(np.sqrt(np.mean(values["ais_stderr"] ** 2) / IMAGES))
    assert found["ais"]["L_k"] == pytest.approx(values["l_k"].mean())
    gap = bracket["upper"] - bracket["lower"]
    assert found["bidirectional"]["gap"] == pytest.approx(gap.mean())
    assert found["bidirectional"]["gap_stderr"] == pytest.approx(gap.std(ddof=1) / math.sqrt(IMAGES))
    assert found["pareto_k"]["largest"] == pytest.approx(values["k_hat"].max())
    assert found["pareto_k"]["share_above_0.7"] == np.mean(values["k_hat"] > 0.7)


def test_weights_to_be_trusted_are_not_warned_of(values, bracket):
    assert "warning" not in tightness.summarize(values | {"k_hat": np.full(IMAGES, 0.7)}, bracket, SETTINGS)


@pytest.mark.parametrize("k_hat", [0.71, np.inf, np.nan])
def test_weights_not_to_be_trusted_are_warned_of(values, bracket, k_hat):
    some = np.where(np.arange(IMAGES) < 4, k_hat, 0.3)
    found = tightness.summarize(values | {"k_hat": some}, bracket, SETTINGS)
    assert found["pareto_k"]["share_above_0.7"] == 0.1
    assert found["warning"].startswith(f"the weights of 4 of {IMAGES} examples have a Pareto k-hat above 0.7")
    assert " +- at least " in tightness.told(found)[1].partition("annealed")[0]  # they hide their own spread
    trusted = tightness.summarize(values | {"k_hat": np.full(IMAGES, 0.3)}, bracket, SETTINGS)
    assert " at least " not in tightness.told(trusted)[1]


# ---- the task ----


@pytest.fixture
def task(values, bracket, monkeypatch):
    """A function that does the task, with some of the values of the images changed: entries, figures, warnings."""

    def do(**changes):
        monkeypatch.setattr(tightness, "per_image", lambda *_: values | changes)
        monkeypatch.setattr(tightness, "bidirectional", lambda *_, **__: bracket)
        settings = types.SimpleNamespace(tightness_examples=IMAGES, **vars(SETTINGS))
        experiment = types.SimpleNamespace(evaluation=settings, seed=1)
        run = types.SimpleNamespace(
            experiment=experiment, images=lambda _: np.zeros((IMAGES, 3)), model=None, title="a run"
        )
        with warnings.catch_warnings(record=True) as seen:
            warnings.simplefilter("always")
            return *tightness.run(run), [str(warning.message) for warning in seen]

    return do


def test_the_task_gives_numbers_and_a_figure(task):
    entries, figures, warned = task()
    assert set(entries) == {"ais", "bidirectional", "pareto_k"} and set(figures) == {"tightness"} and not warned


@pytest.mark.parametrize("k_hat", [np.inf, -np.inf])
def test_numbers_stay_where_no_k_hat_can_be_shown(task, values, k_hat):
    """As with fewer than 25 weights, or where q is the posterior. There is a figure, or a warning in its place."""
    entries, figures, warned = task(k_hat=np.full(IMAGES, k_hat))
    assert entries["ais"]["log_likelihood"] == pytest.approx(values["ais"].mean())
    assert entries["pareto_k"]["largest"] is None
    assert ("tightness" in figures) != bool(warned)


def test_the_figure_shows_the_images_whose_numbers_are_finite(task, values):
    _, figures, warned = task(effective_sample_size=np.where(np.arange(IMAGES) < 3, np.nan, 5.0))
    assert figures["tightness"].axes[0].get_title() == f"{IMAGES - 3} images" and not warned


def test_without_a_finite_number_there_is_a_warning_and_no_figure(task):
    entries, figures, (warned,) = task(effective_sample_size=np.full(IMAGES, np.nan))
    assert entries["ais"] and not figures and warned.startswith("tightness: no figure (")
