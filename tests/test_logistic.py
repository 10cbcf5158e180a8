"""The discretized logistic distribution against differences of SciPy's distribution function in double precision."""

import numpy as np
import pytest
import tensorflow as tf
from scipy import stats

from iwae.logistic import DiscretizedLogistic
from iwae.model import IWAE

VALUES = np.arange(256) / 255
CASES = [(m, s) for m in (-0.2, 0.0, 0.3, 0.5, 1.0, 1.4) for s in (-7.0, -5.0, -3.0, 0.0, 3.0)]


def of(location, log_scale):
    return DiscretizedLogistic(tf.constant([location], tf.float32), tf.constant([log_scale], tf.float32))


def reference(location, log_scale):
    """log p of the 256 values: differences of whichever of both tails is the smaller."""
    edges = np.concatenate([[-np.inf], (np.arange(255) + 0.5) / 255, [np.inf]])
    logistic = stats.logistic(np.float32(location), np.exp(np.float64(np.float32(log_scale))))
    below, above = logistic.cdf(edges), logistic.sf(edges)
    with np.errstate(divide="ignore"):
        return np.log(np.where(edges[1:] < location, np.diff(below), -np.diff(above)))


@pytest.mark.parametrize("location, log_scale", CASES)
def test_the_density_is_that_of_the_reference_and_sums_to_one(location, log_scale):
    found = of(location, log_scale).log_prob(VALUES[:, None].astype(np.float32)).numpy().astype(np.float64)
    expected = reference(location, log_scale)
    reached = expected > -600  # beyond, its double precision ends
    assert reached.sum() > 20 and reached[0] | reached[-1] | (log_scale < -4)
    np.testing.assert_allclose(found[reached], expected[reached], rtol=1e-5, atol=3e-4)
    assert np.all(np.isfinite(found)) and np.exp(found).sum() == pytest.approx(1, abs=1e-4)


@pytest.mark.parametrize("log_scale", [-1e6, -60.0, -3.0, 60.0, 1e6])
@pytest.mark.parametrize("location", [-1e6, -2.0, 0.0, 1.0, 1e6])
def test_gradients_are_finite_at_extremes(location, log_scale):
    parameters = [tf.fill([256, 1], value) for value in (location, log_scale)]
    with tf.GradientTape() as tape:
        tape.watch(parameters)
        values = DiscretizedLogistic(*parameters).log_prob(VALUES[:, None].astype(np.float32))
    assert np.all(np.isfinite(values))
    for gradient in tape.gradient(values, parameters):
        assert np.all(np.isfinite(gradient))


def test_gradients_are_those_of_the_reference():
    step, x = 1e-3, VALUES[:, None].astype(np.float32)
    for location, log_scale in ((0.3, -3.0), (1.4, -2.0)):
        parameters = [tf.fill([256, 1], value) for value in (location, log_scale)]
        with tf.GradientTape() as tape:
            tape.watch(parameters)
            values = DiscretizedLogistic(*parameters).log_prob(x)
        of_location, of_log_scale = tape.gradient(values, parameters)
        expected = (reference(location + step, log_scale) - reference(location - step, log_scale)) / (2 * step)
        np.testing.assert_allclose(of_location[:, 0], expected, rtol=2e-3, atol=2e-2)
        expected = (reference(location, log_scale + step) - reference(location, log_scale - step)) / (2 * step)
        np.testing.assert_allclose(of_log_scale[:, 0], expected, rtol=2e-3, atol=2e-2)


def test_a_value_between_is_the_nearest_one():
    distribution = of(0.3, -3.0)
    np.testing.assert_array_equal(distribution.log_prob([100.4 / 255]), distribution.log_prob([100 / 255]))
    assert distribution.log_prob([100.6 / 255]) != distribution.log_prob([100 / 255])


@pytest.mark.parametrize("location, log_scale", CASES)
def test_means_and_samples_are_those_of_the_masses(location, log_scale):
    n = 20_000
    many = DiscretizedLogistic(*(tf.fill([n, 1], value) for value in (location, log_scale)))
    masses = np.exp(reference(location, log_scale))
    mean = masses @ VALUES
    spread = np.sqrt(masses @ (VALUES - mean) ** 2)
    assert abs(many.mean()[0, 0] - mean) < 0.5001 / 255
    draws = many.sample((1, 2)).numpy()
    np.testing.assert_allclose(draws * 255, np.round(draws * 255), atol=1e-4)
    assert draws.min() >= 0 and draws.max() <= 1 and abs(draws.mean() - mean) < 4.5 * spread / np.sqrt(n) + 1e-6
    np.testing.assert_array_equal(draws, many.sample((1, 2)))


def test_a_model_takes_floats_and_bytes_and_refuses_other_values():
    model = IWAE(6, (2,), ((3,),), likelihood="discretized_logistic", k=2)
    grey = np.random.default_rng(0).integers(0, 256, (5, 6), np.uint8)
    x = (grey / 255).astype(np.float32)
    np.testing.assert_array_equal(model.log_weights(x, 3, (1, 2)), model.log_weights(grey, 3, (1, 2)))
    model.check(grey), model.check(x)
    with pytest.raises(ValueError, match="x: expected values from 0 to 1 with likelihood 'discretized_logistic'"):
        model.check(grey.astype(np.float32))
    z = tf.random.stateless_normal([3, 5, 2], (1, 2))
    distribution = model.decode(z)
    assert (distribution.batch_shape, distribution.event_shape) == ((3, 5), (6,))
    np.testing.assert_allclose(distribution.log_prob(x), model.log_likelihood(x, z), rtol=1e-6)
    np.testing.assert_array_equal(distribution.mean(), model.decode_mean(z))


def test_the_density_is_of_the_data_whatever_their_moments():
    x = np.linspace(0, 1, 12).astype(np.float32).reshape(2, 6)
    model = IWAE(6, (2,), ((3,),), likelihood="discretized_logistic", data_moments=(np.full(6, 0.4), np.full(6, 0.2)))
    z = tf.zeros([1, 2, 2])  # zero biases: the networks give the moments
    expected = np.log(np.exp([reference(0.4, np.log(0.2))[np.round(255 * row).astype(int)] for row in x])).sum(axis=1)
    np.testing.assert_allclose(model.log_likelihood(x, z)[0], expected, rtol=1e-5)
