"""Densities against SciPy, with their gradients; noise; initial weights."""

import math

import keras
import numpy as np
import pytest
import tensorflow as tf
from reference import network, weights_of
from scipy import special, stats

from iwae import hardware, layers, rng

K, B, D = 3, 5, 7
SUBSET = np.float32([1, 0, 1, 1, 0, 0, 1])


def gaussian(seed=0, mean_shape=(K, B, D)):
    random = np.random.default_rng(seed)
    z, mean = random.standard_normal((K, B, D)), random.standard_normal(mean_shape)
    return [tf.constant(values, tf.float32) for values in (z, mean, 0.7 * random.standard_normal(mean_shape))]


# Densities. Seven float32 terms of size ten leave some 1e-5 nats of rounding.


@pytest.mark.parametrize("mean_shape", [(K, B, D), (1, B, D)])
def test_gaussian_density(mean_shape):
    z, mean, log_std = gaussian(mean_shape=mean_shape)
    expected = stats.norm.logpdf(z, mean, np.exp(log_std)).sum(axis=-1)
    assert expected.shape == (K, B)
    np.testing.assert_allclose(layers.gaussian_log_prob(z, mean, log_std), expected, rtol=1e-5)


def test_standard_gaussian_density():
    z, _, _ = gaussian()
    np.testing.assert_allclose(layers.standard_gaussian_log_prob(z), stats.norm.logpdf(z).sum(axis=-1), rtol=1e-5)


def test_units_left_out_do_not_count():
    z, mean, log_std = gaussian()
    kept = SUBSET == 1
    terms = stats.norm.logpdf(z, mean, np.exp(log_std))[..., kept].sum(axis=-1)
    np.testing.assert_allclose(layers.gaussian_log_prob(z, mean, log_std, SUBSET), terms, rtol=1e-5)
    epsilon = (z - mean) / tf.exp(log_std)
    np.testing.assert_allclose(layers.gaussian_log_prob_of_noise(epsilon, log_std, SUBSET), terms, rtol=1e-5)
    standard = stats.norm.logpdf(z)[..., kept].sum(axis=-1)
    np.testing.assert_allclose(layers.standard_gaussian_log_prob(z, SUBSET), standard, rtol=1e-5)


@pytest.mark.parametrize("units", [None, SUBSET])
def test_density_from_noise_is_the_density_at_the_sample_with_its_gradient(units):
    epsilon, mean, log_std = gaussian(mean_shape=(1, B, D))
    with tf.GradientTape(persistent=True) as tape:
        tape.watch([mean, log_std])
        at_sample = layers.gaussian_log_prob(mean + tf.exp(log_std) * epsilon, mean, log_std, units)
        of_noise = layers.gaussian_log_prob_of_noise(epsilon, log_std, units)
        sums = [tf.reduce_sum(tf.square(values)) for values in (at_sample, of_noise)]
    np.testing.assert_allclose(of_noise, at_sample, rtol=1e-5)
    # The gradient of the mean cancels: zero up to the rounding of terms of size 100.
    np.testing.assert_allclose(tape.gradient(sums[0], mean), np.zeros((1, B, D)), atol=1e-3)
    assert tape.gradient(sums[1], mean) is None
    np.testing.assert_allclose(*[tape.gradient(s, log_std) for s in sums], rtol=1e-4, atol=1e-3)


def bernoulli_log_prob(x, logits):
    """The density for given logits: the linear layer passes them through."""
    pixels = logits.shape[-1]
    return layers.bernoulli_log_prob(tf.constant(x, tf.float32), tf.constant(logits), tf.eye(pixels), tf.zeros(pixels))


@pytest.mark.parametrize("kind", ["binary", "grey"])
@pytest.mark.parametrize("pixels", [1, 7, 12, 784])  # products of 1, 1, 4 and 16 factors
def test_bernoulli_density(kind, pixels):
    random = np.random.default_rng(1)
    shape = B, pixels
    x = random.integers(0, 2, shape) if kind == "binary" else random.uniform(size=shape)
    logits = 3 * random.standard_normal((K, *shape)).astype(np.float32)
    p = special.expit(logits.astype(np.float64))
    expected = (x * np.log(p) + (1 - x) * np.log(1 - p)).sum(axis=-1)
    if kind == "binary":
        np.testing.assert_allclose(expected, stats.bernoulli.logpmf(x, p).sum(axis=-1))
    values = bernoulli_log_prob(x, logits)
    assert values.shape == (K, B)
    np.testing.assert_allclose(values, expected, rtol=1e-5)


@pytest.mark.parametrize("copies", [1, 16])
def test_bernoulli_density_for_logits_of_any_size(copies):
    logits = np.float32([-1e4, -200, -50, 0, 50, 200, 1e4])
    right, wrong = (logits > 0).astype(np.float32), (logits <= 0).astype(np.float32)
    repeated = np.repeat(logits[None, :, None], copies, axis=-1)
    # The likely pixel has log(1 / (1 + exp(-|logit|))), the other one |logit| less.
    likely = bernoulli_log_prob(np.repeat(right[:, None], copies, axis=-1), repeated)[0].numpy() / copies
    unlikely = bernoulli_log_prob(np.repeat(wrong[:, None], copies, axis=-1), repeated)[0].numpy() / copies
    np.testing.assert_allclose(likely, -np.log1p(np.exp(-np.abs(logits))), atol=1e-7)
    np.testing.assert_allclose(unlikely, likely - np.abs(logits), rtol=1e-6)


def test_gradients_of_the_bernoulli_density_are_those_of_the_cross_entropy():
    random = np.random.default_rng(2)

    def normal(*shape):
        return tf.constant(random.standard_normal(shape), tf.float32)

    x = tf.constant(random.integers(0, 2, (B, D)), tf.float32)
    features, kernel, bias, upstream = normal(K, B, 5), normal(5, D), normal(D), normal(K, B)
    with tf.GradientTape(persistent=True) as tape:
        tape.watch([x, features, kernel, bias])
        ours = tf.reduce_sum(upstream * layers.bernoulli_log_prob(x, features, kernel, bias))
        logits = features @ kernel + bias
        keras_has = -keras.ops.binary_crossentropy(tf.broadcast_to(x, logits.shape), logits, from_logits=True)
        theirs = tf.reduce_sum(upstream * tf.reduce_sum(keras_has, axis=-1))
    for variable in (features, kernel, bias):
        np.testing.assert_allclose(tape.gradient(ours, variable), tape.gradient(theirs, variable), atol=1e-5)
    assert tape.gradient(ours, x) is None


def test_samples_worked_on_in_parts_give_the_same(monkeypatch):
    random = np.random.default_rng(3)
    layer = layers.BernoulliLayer((4,), D, np.random.SeedSequence(0))
    layer.build((None, 3))
    x = tf.constant(random.integers(0, 2, (B, D)), tf.float32)
    inputs = tf.constant(random.standard_normal((6, B, 3)), tf.float32)

    def density_and_gradients():
        with tf.GradientTape() as tape:
            values = layer.log_prob(x, inputs)
        return [values, *tape.gradient(values, layer.trainable_variables)]

    whole = density_and_gradients()
    for rows, parts in ((2 * B, 3), (4 * B, 1), (B, 6), (1, 6)):
        monkeypatch.setattr(layers, "PART_ROWS", rows)
        assert layers._parts(6, B) == parts
        for one, other in zip(whole, density_and_gradients(), strict=True):
            np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-5)
    monkeypatch.setattr(hardware, "on_gpu", lambda: True)
    assert layers._parts(6, B) == 1


# Noise


def test_noise_is_standard_normal():
    n = 40_000
    values = np.array(rng.normal([n], tf.constant([1, 2])), np.float64)
    # Standard errors of mean, mean square and mean fourth power: 1, sqrt(2), sqrt(96) over sqrt(n); four of them.
    assert abs(values.mean()) < 4 / math.sqrt(n)
    assert abs((values**2).mean() - 1) < 4 * math.sqrt(2 / n)
    assert abs((values**4).mean() - 3) < 4 * math.sqrt(96 / n)


def test_a_seed_gives_its_numbers_and_another_one_others():
    seed = tf.constant([5, 6])
    first = rng.normal([4, 3], seed)
    np.testing.assert_array_equal(first, rng.normal([4, 3], seed))
    others = [tf.constant([6, 5]), rng.fold(seed, 1), rng.fold(seed, 2), rng.fold([6, 5], 1)]
    for other in others:
        assert not np.any(np.equal(first, rng.normal([4, 3], other)))


def test_random_numbers_are_the_same_inside_a_compiled_function_and_outside():
    def draw():
        seed = rng.fold(tf.constant([7, 8]), 3)
        return rng.normal([5, 2], seed), rng.uniform([6], seed), rng.words([6], seed)

    alone, traced, compiled = draw(), tf.function(draw)(), tf.function(draw, jit_compile=True)()
    tf.config.run_functions_eagerly(True)
    try:
        one_by_one = draw()
    finally:
        tf.config.run_functions_eagerly(False)
    for others in (traced, compiled, one_by_one):
        for number, other in zip(alone, others, strict=True):
            np.testing.assert_array_equal(number, other)


def test_uniform_numbers_and_random_bits_are_uniform():
    n = 40_000
    for values in (rng.uniform([n], [1, 2]).numpy(), rng.words([n], [1, 2]).numpy() / 2.0**32):
        assert 0 <= values.min() and values.max() < 1
        assert stats.kstest(values, "uniform").pvalue > 1e-4


def test_streams_of_one_seed_are_independent():
    n = 10_000
    one, two = (np.array(rng.normal([n], rng.fold(tf.constant([3, 4]), i))) for i in (1, 2))
    assert abs(np.corrcoef(one, two)[0, 1]) < 4 / math.sqrt(n)  # its standard error is 1 / sqrt(n)


# Layers


def gaussian_layer(hidden, units=7, seed=0, **options):
    layer = layers.GaussianLayer(hidden, units, np.random.SeedSequence(seed), name="q_z1", **options)
    layer.build((None, 9))
    return layer


def test_a_gaussian_layer_computes_tanh_layers_and_two_linear_heads():
    layer = gaussian_layer((6, 4))
    random = np.random.default_rng(3)
    for variable in layer.trainable_variables:
        variable.assign(random.standard_normal(variable.shape))
    inputs = random.standard_normal((5, 9)).astype(np.float32)
    weights = weights_of(layer)
    for output, head in zip(layer(inputs), ("mean", "log_std"), strict=True):
        np.testing.assert_allclose(output, network(weights, "q_z1", head, inputs.astype(np.float64)), atol=1e-5)


def test_initial_weights_are_glorot_uniform_and_biases_zero():
    layer = gaussian_layer((200, 100), units=50)
    for variable in layer.trainable_variables:
        values = variable.numpy()
        if variable.name == "bias":
            assert not values.any()
            continue
        limit = math.sqrt(6 / sum(values.shape))
        assert np.abs(values).max() <= limit and np.abs(values).max() > 0.95 * limit
        # Standard errors for n uniform numbers: of the mean limit / sqrt(3 n), of the mean square limit^2 / sqrt(11 n).
        assert abs(values.mean()) < 4 * limit / math.sqrt(3 * values.size)
        assert abs((values**2).mean() - limit**2 / 3) < 4 * limit**2 / math.sqrt(11 * values.size)


def test_layers_of_one_size_start_differently_and_from_the_seed():
    layer, again, other = gaussian_layer((9, 9)), gaussian_layer((9, 9)), gaussian_layer((9, 9), seed=1)
    one, two = (hidden.kernel.numpy() for hidden in layer.hidden)
    assert not np.any(one == two)
    np.testing.assert_array_equal(one, again.hidden[0].kernel)
    assert not np.any(one == other.hidden[0].kernel.numpy())


def test_bernoulli_bias_is_the_logit_of_the_clipped_mean():
    mean = np.float32([0, 0.0005, 0.25, 0.5, 0.75, 1])
    layer = layers.BernoulliLayer((4,), 6, np.random.SeedSequence(0), mean=mean)
    layer.build((None, 2))
    expected = special.logit([0.001, 0.001, 0.25, 0.5, 0.75, 0.999])
    np.testing.assert_allclose(layer.logits.bias, expected, rtol=1e-4)


def test_a_gaussian_layer_of_data_starts_with_a_scale_of_one():
    """The data are standardized where it stands for them: the model's own scale is told in test_model."""
    _, log_std = gaussian_layer((4,), of_data=True)(np.random.default_rng(0).standard_normal((5, 9)).astype("f"))
    assert np.all(log_std.numpy() == 0)
