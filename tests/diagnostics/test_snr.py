"""The signal-to-noise ratio of gradient estimators, where it is known and as Rainforth et al. (2018) say."""

import numpy as np
import pytest
import reference
import tensorflow as tf

from iwae import estimators, rng
from iwae.diagnostics import snr
from iwae.model import IWAE

X = reference.binary(4, 7)
KS = (1, 256)
PAIR = ("reparameterized", "dreg")


@pytest.fixture(scope="module")
def model():
    return IWAE(7, (2,), ((),))


@pytest.fixture(scope="module")
def ratios():
    """Of a q so near the posterior that the theorem's large k are not beyond 256."""
    exact = reference.LinearGaussian(1)
    layer = exact.model.encoder[0]
    layer.mean.bias.assign_add(np.full(3, 0.3))
    layer.log_std.bias.assign_add(np.full(3, 0.2))
    return snr.signal_to_noise(exact.model, exact.x, KS, samples=300 * KS[1], seed=0, names=PAIR)


def test_a_known_ratio_is_found(monkeypatch):
    """Gradients of N(0.3, 3^2) for every weight of the encoder and N(3, 3^2) for the decoder: ratios 0.1 and 1."""
    model, x = IWAE(700, (2,), ((),)), reference.binary(1, 700)

    def known(of, objective, x, noise, weights, uniform):
        seed = tf.cast(tf.stack([uniform[0], 0.0]) * 2**24, tf.int32)  # of all its bits
        encoder = {id(v) for v in model.encoder_variables}
        means = [0.3 if id(v) in encoder else 3.0 for v in model.trainable_variables]
        draws = [3 * rng.normal(v.shape, rng.fold(seed, i)) for i, v in enumerate(model.trainable_variables)]
        return tf.constant(0.0), [mean + draw for mean, draw in zip(means, draws, strict=True)]

    monkeypatch.setitem(estimators.ESTIMATORS, "known", known)
    found = snr.signal_to_noise(model, x, (1,), samples=100, seed=0, names=("known",))["known"]
    # From 100 repeats of the encoder's 2804 weights |E g|^2, as large as what noise adds to the square of their mean,
    # has a relative standard error of sqrt(2 / 2804 + 4 / 2804) = 4.6 %; the ratio half of it. The decoder's is less.
    np.testing.assert_allclose(found[:, 0], [0.1, 1], rtol=4.5 * 0.023)


# In theory 256 times the samples divide or multiply a ratio by sqrt(256) = 16; here it is 10 to 18. Of 300 repeats a
# ratio has a standard error of at most 1 / sqrt(300) = 6 % from its noise and, where it is above 0.5, some 12 % from
# its signal, which the estimators share: a factor of 4 is many such errors away.


def test_the_encoder_s_ratio_falls_with_k_if_reparameterized(ratios):
    one, many = ratios["reparameterized"][0]
    assert many < one / 4


def test_the_encoder_s_ratio_rises_with_k_if_doubly_reparameterized(ratios):
    one, many = ratios["dreg"][0]
    assert many > 4 * one


@pytest.mark.parametrize("name", PAIR)
def test_the_decoder_s_ratio_rises_with_k(ratios, name):
    one, many = ratios[name][1]
    assert many > 4 * one


@pytest.mark.parametrize("latent", [(2,), (2, 2)])
def test_every_estimator_has_its_ratios(latent):
    model = IWAE(7, latent, [()] * len(latent))
    found = snr.signal_to_noise(model, X, (2,), samples=20, seed=0)
    assert set(found) == set(estimators.ESTIMATORS)
    assert all(values.shape == (2, 1) and np.all(np.isfinite(values)) for values in found.values())


def test_the_seed_says_all(model):
    one, same, other = (
        snr.signal_to_noise(model, X, (2,), samples=20, seed=seed, names=("dreg",))["dreg"] for seed in (1, 1, 2)
    )
    np.testing.assert_array_equal(one, same)
    assert np.all(one != other)


def test_no_gradient_has_no_signal(model, monkeypatch):
    def none(of, objective, x, noise, weights, uniform):
        return tf.constant(0.0), [tf.zeros(v.shape) for v in model.trainable_variables]

    monkeypatch.setitem(estimators.ESTIMATORS, "none", none)
    found = snr.signal_to_noise(model, X, (2,), samples=20, seed=0, names=("none",))["none"]
    np.testing.assert_array_equal(found, 0)
