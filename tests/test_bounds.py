"""Bounds of log weights [k, B] against NumPy and SciPy in float64, and against each other."""

import dataclasses
import math

import numpy as np
import pytest
import tensorflow as tf
from scipy import special

from iwae import bounds, config

K, B = 6, 5
NAMES = [name for name in config.OBJECTIVES if name in config.BUILT_IN_OBJECTIVES]
OPTIONS = {"alpha": 0.3, "groups": 2, "mixture": 0.25}


def log_weights(scale=3.0, k=K, seed=0):
    return (scale * np.random.default_rng(seed).standard_normal((k, B)) - 90).astype(np.float32)


def log_mean_exp(values):
    return special.logsumexp(values.astype(np.float64), axis=0) - math.log(len(values))


# What each one is. Float32 has 24 bits: about 90 * 6e-8 = 5e-6 nats of rounding in one number of size 90.


def test_elbo_is_the_mean_over_samples():
    w = log_weights()
    np.testing.assert_allclose(bounds.elbo(w), w.astype(np.float64).mean(axis=0), atol=3e-5)


@pytest.mark.parametrize("scale", [0.01, 3.0, 30.0])
def test_iwae_is_the_log_of_the_mean_weight(scale):
    w = log_weights(scale)
    np.testing.assert_allclose(bounds.importance_weighted(w), log_mean_exp(w), atol=3e-5)


@pytest.mark.parametrize("offset", [-1e4, 1e4])
def test_iwae_neither_overflows_nor_underflows(offset):
    w = (log_weights() + offset).astype(np.float32)
    np.testing.assert_allclose(bounds.importance_weighted(w), log_mean_exp(w), rtol=1e-6)


@pytest.mark.parametrize("alpha", [-1.0, 0.0, 0.5, 3.0])
def test_renyi_is_its_formula(alpha):
    w = log_weights()
    expected = log_mean_exp((1 - alpha) * w.astype(np.float64)) / (1 - alpha)
    np.testing.assert_allclose(bounds.Renyi(alpha)(w), expected, atol=1e-4)


def test_renyi_lies_between_its_limits():
    w = log_weights()
    np.testing.assert_allclose(bounds.Renyi(0.0)(w), bounds.importance_weighted(w), atol=3e-5)
    # First order in 1 - alpha: L_1 + (1 - alpha) Var / 2, with a variance below 3 * 3^2; the rest is rounding / 0.001.
    np.testing.assert_allclose(bounds.Renyi(0.999)(w), bounds.elbo(w), atol=0.001 * 27 / 2 + 5e-6 / 0.001)
    in_order = np.stack([bounds.Renyi(alpha)(w) for alpha in (-1.0, 0.0, 0.5, 2.0, 5.0)])
    assert np.all(np.diff(in_order, axis=0) < 0)


@pytest.mark.parametrize("groups", [1, 2, 3, 6])
def test_miwae_is_the_mean_over_groups(groups):
    w = log_weights()
    expected = np.mean([log_mean_exp(w[g::groups]) for g in range(groups)], axis=0)
    np.testing.assert_allclose(bounds.Miwae(groups)(w), expected, atol=3e-5)


def test_miwae_has_the_vae_and_the_iwae_at_its_ends():
    w = log_weights()
    np.testing.assert_allclose(bounds.Miwae(1)(w), bounds.importance_weighted(w), atol=3e-5)
    np.testing.assert_allclose(bounds.Miwae(K)(w), bounds.elbo(w), atol=3e-5)


def test_piwae_and_ciwae():
    w = log_weights()
    np.testing.assert_array_equal(bounds.Piwae()(w), bounds.importance_weighted(w))
    np.testing.assert_allclose(bounds.Ciwae(0.25)(w), 0.25 * w.mean(axis=0) + 0.75 * log_mean_exp(w), atol=3e-5)


# What all have in common


@pytest.mark.parametrize("name", NAMES)
def test_one_bound_an_example(name):
    bound = bounds.get(name, **OPTIONS)
    w = log_weights()
    together = bound(w).numpy()
    assert together.shape == (B,) and together.dtype == np.float32
    one_by_one = np.concatenate([bound(w[:, [b]]) for b in range(B)])
    np.testing.assert_allclose(together, one_by_one, atol=3e-5)


@pytest.mark.parametrize("name", NAMES)
def test_a_constant_weight_is_its_own_bound(name):
    constant = np.full((K, B), -87.5, np.float32)
    np.testing.assert_allclose(bounds.get(name, **OPTIONS)(constant), np.full(B, -87.5), atol=3e-5)


@pytest.mark.parametrize("name", NAMES)
def test_a_factor_of_the_weights_is_added_to_the_bound(name):
    bound, w = bounds.get(name, **OPTIONS), log_weights()
    np.testing.assert_allclose(bound(w + np.float32(8)), bound(w) + 8, atol=3e-5)


@pytest.mark.parametrize("name", [name for name in NAMES if name not in ("miwae", "piwae")])
def test_all_are_the_log_weight_where_there_is_one_sample(name):
    w = log_weights(k=1)
    np.testing.assert_allclose(bounds.get(name, **OPTIONS)(w), w[0], atol=3e-5)


def test_order_of_the_bounds():
    w = log_weights()
    in_order = [w.min(axis=0), bounds.elbo(w), bounds.Miwae(2)(w), bounds.importance_weighted(w), w.max(axis=0)]
    assert np.all(np.diff(np.stack(in_order), axis=0) > 0)


# Weights


def test_normalized_weights():
    w = log_weights()
    expected = special.softmax(w.astype(np.float64), axis=0)
    np.testing.assert_allclose(bounds.normalized_weights(w), expected, atol=1e-5)
    np.testing.assert_allclose(np.sum(bounds.normalized_weights(w), axis=0), np.ones(B), atol=1e-6)


def test_gradient_of_the_iwae_bound_is_the_normalized_weights():
    w = tf.constant(log_weights())
    with tf.GradientTape() as tape:
        tape.watch(w)
        bound = tf.reduce_sum(bounds.importance_weighted(w))
    np.testing.assert_allclose(tape.gradient(bound, w), bounds.normalized_weights(w), atol=1e-6)


def test_effective_sample_size():
    w = log_weights()
    weights = np.exp(w.astype(np.float64) + 90)
    expected = weights.sum(axis=0) ** 2 / (weights**2).sum(axis=0)
    np.testing.assert_allclose(bounds.effective_sample_size(w), expected, rtol=1e-4)


def test_effective_sample_size_has_its_limits():
    np.testing.assert_allclose(bounds.effective_sample_size(np.full((K, B), -90, np.float32)), K, rtol=1e-4)
    one_counts = np.full((K, B), -190, np.float32)
    one_counts[2] = -90
    np.testing.assert_allclose(bounds.effective_sample_size(one_counts), 1, rtol=1e-4)


def test_log_add_exp():
    a, b = np.float32([-3.0, 500.0, -np.inf, -np.inf]), np.float32([-2.0, 499.0, 4.0, -np.inf])
    np.testing.assert_allclose(bounds.log_add_exp(a, b), np.logaddexp(a, b), rtol=1e-6)


# Names


def test_every_objective_has_its_function():
    for name in NAMES:
        bounds.get(name)


def test_unknown_objective_is_refused():
    with pytest.raises(ValueError, match=r"model\.objective: expected one of .*iwae.*, got 'elbow'"):
        bounds.get("elbow")


@pytest.fixture
def registry(monkeypatch):
    """What a test registers is forgotten after it."""
    monkeypatch.setattr(bounds, "_REGISTERED", dict(bounds._REGISTERED))
    monkeypatch.setattr(config, "OBJECTIVES", dict(config.OBJECTIVES))


def test_a_bound_of_the_user(registry):
    @bounds.register("median", "the median log weight")
    def median(log_weights):
        return tf.sort(log_weights, axis=0)[log_weights.shape[0] // 2]

    w = log_weights()
    np.testing.assert_array_equal(bounds.get("median", **OPTIONS)(w), np.sort(w, axis=0)[K // 2])
    assert bounds.of(config.Model(objective="median")) is median and bounds.name_of(median) == "median"
    assert config.OBJECTIVES["median"] == "the median log weight"


def test_a_bound_of_the_user_with_a_parameter_has_it_from_the_model_s_of_the_same_name(registry):
    @bounds.register("tempered", "the mean log weight times mixture")
    @dataclasses.dataclass(frozen=True)
    class Tempered:
        mixture: float = 0.5

        def __call__(self, log_weights):
            return self.mixture * tf.reduce_mean(log_weights, axis=0)

    w = log_weights()
    bound = bounds.of(config.Model(objective="tempered", mixture=0.25))
    np.testing.assert_allclose(bound(w), 0.25 * bounds.elbo(w), atol=3e-5)
    assert bounds.name_of(bound) == {"name": "tempered", "mixture": 0.25}


@pytest.mark.parametrize("name", NAMES)
def test_the_name_of_a_bound_makes_it_again(name):
    bound = bounds.get(name, **OPTIONS)
    made = bounds.name_of(bound)
    assert bound == (bounds.get(made) if isinstance(made, str) else bounds.get(**made))


def test_a_bound_without_a_name_is_told():
    with pytest.raises(ValueError, match=r"^objective: expected a bound that is registered .*, got <function"):
        bounds.name_of(lambda log_weights: log_weights[0])


# Derivatives


@pytest.mark.parametrize("name", [name for name in NAMES if name != "piwae"])
def test_curvature_is_the_second_derivative_in_each_log_weight(name):
    """By automatic differentiation, twice; of each log weight alone."""
    bound, w = bounds.get(name, **OPTIONS), tf.constant(log_weights(1.0))
    with tf.GradientTape() as outer:
        outer.watch(w)
        with tf.GradientTape() as inner:
            inner.watch(w)
            total = tf.reduce_sum(bound(w))
        first = inner.gradient(total, w)
    hessian = outer.jacobian(first, w, unconnected_gradients=tf.UnconnectedGradients.ZERO).numpy()  # [K, B, K, B]
    np.testing.assert_allclose(bound.curvature(w), np.einsum("kbkb->kb", hessian), atol=1e-5)


@pytest.mark.parametrize("distance", [0, 1e-9, -1e-9, 1e-5])
def test_renyi_near_one_is_the_elbo(distance):
    """Where float32 cannot tell 1 - alpha from 0, the quotient would be anything."""
    w = log_weights()
    np.testing.assert_allclose(bounds.Renyi(1 - distance)(w), bounds.elbo(w), atol=1e-3)
