"""The model against its NumPy twin (reference.py), its gradients against eq. 14, and its use as a Keras model."""

import re

import keras
import numpy as np
import pytest
import reference
import tensorflow as tf

from iwae import bounds, hardware, rng
from iwae.convolutions import networks
from iwae.data.loading import load_dataset
from iwae.model import IWAE

K, B, D = 3, 5, 7
# One, two and three stochastic layers, no two sizes alike.
DEPTHS = {1: ((2,), ((6, 4),)), 2: ((4, 2), ((6,), (5, 3))), 3: ((8, 4, 2), ((9, 6), (10,), (11,)))}


def make(depth=1, likelihood="bernoulli", seed=0, scrambled=True, **options):
    latent, hidden = DEPTHS[depth]
    model = IWAE(D, latent, hidden, likelihood=likelihood, seed=seed, **{"k": K, **options})
    if scrambled:
        reference.scramble(model, seed)
    return model


def data(likelihood="bernoulli"):
    if likelihood == "bernoulli":
        return tf.constant(reference.binary(B, D))
    return tf.constant(np.random.default_rng(0).standard_normal((B, D)), tf.float32)


# Densities. Float32 leaves about 1e-5 nats in sums of some forty terms.


@pytest.mark.parametrize("likelihood", ["bernoulli", "gaussian"])
@pytest.mark.parametrize("depth", DEPTHS)
def test_terms_of_the_log_weights_are_those_of_the_reference(depth, likelihood):
    model, x, noise = make(depth, likelihood), data(likelihood), reference.noise(K, B, DEPTHS[depth][0])
    terms = model.log_weight_terms(x, noise)
    weights = reference.weights_of(model)
    log_likelihood, log_prior, log_posterior, samples = reference.log_weight_terms(weights, x, noise)
    np.testing.assert_allclose(terms.log_likelihood, log_likelihood, rtol=1e-5, atol=1e-4)
    for ours, theirs in ((terms.log_prior, log_prior), (terms.log_posterior, log_posterior), (terms.samples, samples)):
        assert len(ours) == len(theirs) == depth
        for one, other in zip(ours, theirs, strict=True):
            np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-4)
    np.testing.assert_allclose(terms.log_weights(), reference.log_weights(weights, x, noise), rtol=1e-5, atol=1e-4)


def test_the_kl_term_has_the_weight_beta():
    terms = make().log_weight_terms(data(), reference.noise(K, B, (2,)))
    kl = terms.log_posterior[0] - terms.log_prior[0]
    np.testing.assert_allclose(terms.log_weights(0.25), terms.log_likelihood - 0.25 * kl, atol=1e-4)
    np.testing.assert_array_equal(terms.log_weights(0.0), terms.log_likelihood)


def test_analytic_kl_is_the_mean_of_the_sampled_one():
    k = 10_000
    model = make(objective="vae_analytic_kl")
    terms = model.log_weight_terms(data(), reference.noise(k, B, (2,)))
    analytic = (terms.log_likelihood - model.training_log_weights(terms, model.objective)).numpy()
    np.testing.assert_allclose(analytic, np.broadcast_to(analytic[0], (k, B)), atol=1e-5)  # no noise in it
    sampled = (terms.log_posterior[0] - terms.log_prior[0]).numpy()
    assert np.all(np.abs(sampled.mean(axis=0) - analytic[0]) < 4 * sampled.std(axis=0) / np.sqrt(k))


def test_log_weights_are_those_of_their_noise_and_seed():
    model, x = make(2), data()
    values = model.log_weights(x, 4, (8, 9))
    assert values.shape == (4, B)
    noise = model.draw_noise(4, B, tf.constant([8, 9]))
    np.testing.assert_allclose(values, reference.log_weights(reference.weights_of(model), x, noise), atol=1e-4)
    np.testing.assert_array_equal(values, model.log_weights(x, 4, tf.constant([8, 9])))
    assert not np.any(np.equal(values, model.log_weights(x, 4, (9, 8))))


def test_noise_of_the_layers_is_not_the_same():
    model = IWAE(D, (2, 2), ((3,), (3,)), k=K)
    one, two = model.draw_noise(K, B, tf.constant([0, 0]))
    assert one.shape == two.shape == (K, B, 2)
    assert not np.any(np.equal(one, two))


def test_encode_gives_samples_of_every_layer():
    model, x = make(3), data()
    samples = model.encode(x, 4, (1, 2))
    noise = model.draw_noise(4, B, tf.constant([1, 2]))
    expected = reference.log_weight_terms(reference.weights_of(model), x, noise)[3]
    for one, other in zip(samples, expected, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-4)


@pytest.mark.parametrize("likelihood", ["bernoulli", "gaussian"])
def test_decode_gives_the_distribution_of_the_data(likelihood):
    model, x = make(1, likelihood), data(likelihood)
    z = np.random.default_rng(1).standard_normal((K, B, 2)).astype(np.float32)
    distribution = model.decode(z)
    assert distribution.batch_shape == (K, B) and distribution.event_shape == (D,)
    expected = reference.log_likelihood(reference.weights_of(model), x, z)
    np.testing.assert_allclose(distribution.log_prob(x), expected, atol=1e-4)
    np.testing.assert_allclose(model.decode_mean(z), distribution.mean(), atol=1e-5)
    assert model.decode_mean(z[0, 0]).shape == (D,)


@pytest.mark.parametrize("depth", [1, 2])
def test_samples_are_those_of_the_prior(depth):
    exact, n = reference.LinearGaussian(depth), 10_000
    z = exact.model.sample_latents(n, (3, 4)).numpy()
    assert z.shape == (n, 3)
    assert np.all(np.abs(z.mean(axis=0) - exact.z_mean) < 4.5 * np.sqrt(exact.z_variance / n))
    assert np.all(np.abs(z.var(axis=0) / exact.z_variance - 1) < 4.5 * np.sqrt(2 / n))
    assert np.all(np.abs(np.corrcoef(z.T)[np.triu_indices(3, 1)]) < 4.5 / np.sqrt(n))
    np.testing.assert_array_equal(exact.model.sample(n, (3, 4)), exact.model.decode_mean(z))


# Gradients


@pytest.mark.parametrize("depth", DEPTHS)
def test_gradient_is_eq_14_for_every_weight(depth):
    """sum_i w~_i grad log w_i with the weights from the reference and one gradient a sample."""
    model, x, noise = make(depth), data(), reference.noise(K, B, DEPTHS[depth][0])
    of_examples = np.float32([0.1, 0.3, 0.2, 0.0, 0.4])
    bound, gradients = model.estimator(model, model.objective, x, noise, tf.constant(of_examples), None)
    log_weights = reference.log_weights(reference.weights_of(model), x, noise)
    np.testing.assert_allclose(bound, of_examples @ reference.bound(log_weights), atol=1e-4)

    normalized = np.exp(log_weights) / np.exp(log_weights).sum(axis=0)
    with tf.GradientTape() as tape:
        ours = model.log_weight_terms(x, noise).log_weights()
    jacobians = tape.jacobian(ours, model.trainable_variables)
    for variable, gradient, jacobian in zip(model.trainable_variables, gradients, jacobians, strict=True):
        weighted = np.einsum("b,kb,kb...->...", of_examples, normalized, jacobian)
        np.testing.assert_allclose(gradient, weighted, atol=2e-5, err_msg=variable.path)


@pytest.mark.parametrize("likelihood", ["bernoulli", "gaussian"])
@pytest.mark.parametrize("depth", DEPTHS)
def test_gradient_is_the_slope_of_the_reference(depth, likelihood):
    """Along one random direction in each weight tensor, by central differences in float64."""
    model, x, noise = make(depth, likelihood), data(likelihood), reference.noise(K, B, DEPTHS[depth][0])
    _, gradients = model.estimator(model, model.objective, x, noise, tf.fill([B], 1 / B), None)
    weights, random, h = reference.weights_of(model), np.random.default_rng(1), 1e-5
    for variable, gradient in zip(model.trainable_variables, gradients, strict=True):
        direction = random.standard_normal(variable.shape)

        def mean_bound(step, path=variable.path, direction=direction):
            moved = weights | {path: weights[path] + step * direction}
            return reference.bound(reference.log_weights(moved, x, noise)).mean()

        slope = (mean_bound(h) - mean_bound(-h)) / (2 * h)
        np.testing.assert_allclose(np.sum(gradient * direction), slope, atol=1e-4, rtol=1e-4, err_msg=variable.path)


@pytest.mark.parametrize("k", [1, K])
def test_l_1_of_iwae_is_the_vae(k):
    """With one sample both objectives are one; with more, only the bound of the mean of the log weights is L_1."""
    x, noise, weights = data(), reference.noise(k, B, (2,)), tf.fill([B], 1 / B)
    results = {}
    for objective in ("vae", "iwae"):
        model = make(objective=objective, k=k)
        results[objective] = model.estimator(model, model.objective, x, noise, weights, None)
    (vae, vae_gradients), (iwae, iwae_gradients) = results.values()
    if k == 1:
        np.testing.assert_allclose(vae, iwae, rtol=1e-6)
        for one, other in zip(vae_gradients, iwae_gradients, strict=True):
            np.testing.assert_allclose(one, other, atol=1e-6)
    else:
        log_weights = reference.log_weights(reference.weights_of(model), x, noise)
        np.testing.assert_allclose(vae, log_weights.mean(), atol=1e-4)
        assert iwae > vae + 0.01


# Start


def test_the_decoder_mirrors_the_encoder():
    """x - 200 - 190 - z1 (100) - 110 - 105 - z2 (50), and back: the sizes of the paper, made all different."""
    model = IWAE(784, (100, 50), ((200, 190), (110, 105)))
    sizes = {"q_z1": [784, 200, 190, 100], "q_z2": [100, 110, 105, 50]}
    sizes |= {"p_z1": [50, 105, 110, 100], "p_x": [100, 190, 200, 784]}
    found = {}
    for variable in model.trainable_variables:
        layer, part, kind = variable.path.split("/")
        if kind == "kernel" and part != "log_std":
            found.setdefault(layer, [variable.shape[0]]).append(variable.shape[1])
    assert found == sizes


def test_initial_weights_depend_on_the_seed_alone():
    one, again, other = (make(2, seed=seed, scrambled=False) for seed in (1, 1, 2))
    for a, b, c in zip(one.trainable_variables, again.trainable_variables, other.trainable_variables, strict=True):
        np.testing.assert_array_equal(a, b)
        assert a.name == "bias" or not np.any(a.numpy() == c.numpy())


@pytest.mark.parametrize(("mean", "std"), [(1e4, 1e3), (5.0, 1.0), (-3.0, 0.0)])
def test_a_gaussian_model_starts_with_a_density_of_the_data(mean, std):
    """Whatever the scale of the data, the bound is finite and near that of data and noise of one scale."""
    random = np.random.default_rng(0)
    x = (mean + std * random.standard_normal((B, D))).astype(np.float32)
    model = make(likelihood="gaussian", scrambled=False, data_moments=(np.full(D, mean), np.full(D, std)))
    bound = bounds.elbo(model.log_weights(x, 50, (0, 0))).numpy()
    entropy = D * (np.log(std or 1.0) + 0.5 * np.log(2 * np.pi))
    assert np.all(np.abs(bound + entropy) < 20 + D)  # a few nats of mean squares and KL


def test_a_gaussian_model_gives_densities_of_the_data_as_they_are(tmp_path):
    """It is the model of standardized data, and Jacobian; the moments are saved with the weights."""
    mean, std = np.linspace(-50, 90, D), np.geomspace(0.1, 1000, D)
    model = make(likelihood="gaussian", data_moments=(mean, std))
    standard = make(likelihood="gaussian")
    model.save_weights(tmp_path / "model.weights.h5")
    again = make(likelihood="gaussian", seed=5)
    again.load_weights(tmp_path / "model.weights.h5")
    z = data("gaussian").numpy()
    x = (mean + std * z).astype(np.float32)
    for each in (model, again):
        log_weights = each.log_weights(x, K, (1, 2))
        np.testing.assert_allclose(log_weights, standard.log_weights(z, K, (1, 2)) - np.log(std).sum(), rtol=1e-3)
        (latents,) = each.encode(x, K, (1, 2))
        np.testing.assert_allclose(latents, standard.encode(z, K, (1, 2))[0], rtol=1e-3, atol=1e-3)
        np.testing.assert_allclose(each.decode(latents).log_prob(x), each.log_likelihood(x, latents), rtol=1e-3)
        np.testing.assert_allclose(
            each.sample(4, (0, 1)), mean + std * standard.sample(4, (0, 1)), rtol=1e-4, atol=1e-4
        )
        np.testing.assert_allclose(
            each.posterior_parameters(x)[0], standard.posterior_parameters(z)[0], rtol=1e-3, atol=1e-3
        )


def test_real_numbers_far_from_unit_scale_without_moments_are_warned_of():
    x = 30 + data("gaussian").numpy()
    with pytest.warns(UserWarning, match=r"x: expected data of mean 0 .* got values of the order 30.*data_moments=\("):
        make(likelihood="gaussian").check(x)
    make(likelihood="gaussian", data_moments=(x.mean(axis=0), x.std(axis=0))).check(x)
    make(likelihood="gaussian").check(x - 30)


def test_wrong_arguments_are_refused_in_one_line():
    wrong = [
        ({"input_dim": 0}, r"input_dim: expected an integer >= 1, got 0"),
        ({"k": 0}, r"k: expected an integer >= 1, got 0"),
        ({"latent_units": (3, 2)}, r"hidden_units: expected one list of sizes for each stochastic layer \(2 .*got 1"),
        ({"latent_units": (), "hidden_units": ()}, r"hidden_units: expected one list"),
        ({"objective": "elbow"}, r"model\.objective: expected one of .*got 'elbow'"),
        ({"estimator": "guess"}, r"model\.estimator: expected one of .*got 'guess'"),
        ({"likelihood": "poisson"}, r"likelihood: expected one of bernoulli, .*, got 'poisson'"),
        ({"data_moments": (np.zeros(D + 1), np.ones(D))}, r"data_moments: expected a mean of shape \(7,\), got \(8,\)"),
        ({"data_moments": (np.zeros(D), np.ones((1, D)))}, r"data_moments: expected a standard .* got \(1, 7\)"),
    ]
    for change, message in wrong:
        with pytest.raises(ValueError, match=message):
            IWAE(**{"input_dim": D, "latent_units": (2,), "hidden_units": ((4,),), **change})


def test_wrong_data_is_refused_in_one_line():
    model = make()
    with pytest.raises(ValueError, match=r"x: expected shape \[B, 7\], got \[5, 8\]"):
        model.log_weights(np.zeros((5, 8)), K, (0, 0))
    with pytest.raises(ValueError, match=r"x: expected shape \[B, 7\], got \[7\]"):
        model.encode(np.zeros(7), K, (0, 0))
    with pytest.raises(ValueError, match=r"seed: expected two integers, got shape \[\]"):
        model.log_weights(data(), K, 3)


# As a Keras model


def images():
    """Two patterns and their flaws, [12, D]."""
    patterns = np.repeat([[1, 1, 1, 0, 0, 0, 1], [0, 0, 0, 1, 1, 1, 1]], 6, axis=0).astype(np.float32)
    patterns[::3, :2] = 1 - patterns[::3, :2]
    return patterns


@pytest.fixture(scope="module")
def fitted():
    """A model fitted to the images, and its history."""
    model = make(k=4, scrambled=False)
    model.compile(optimizer=keras.optimizers.Adam(0.02))
    return model, model.fit(images(), batch_size=4, epochs=50, shuffle=False, verbose=0).history["bound"]


def test_fit_raises_the_bound(fitted):
    _, history = fitted
    assert len(history) == 50
    assert np.mean(history[:2]) < -4 and np.mean(history[-5:]) > -3.5  # 7 log 2 = 4.9 nats know nothing


def test_an_update_on_a_gpu_is_the_same(monkeypatch):
    """There nothing makes the steps wait for each other. Not with Adam, whose steps do not tell a gradient's size."""

    def bounds_of_epochs(gpu):
        monkeypatch.setattr(hardware, "on_gpu", lambda: gpu)
        model = make(k=4, scrambled=False)
        model.compile(optimizer=keras.optimizers.SGD(0.05))
        return model.fit(images(), batch_size=4, epochs=5, shuffle=False, verbose=0).history["bound"]

    np.testing.assert_allclose(bounds_of_epochs(True), bounds_of_epochs(False), rtol=1e-4)


def test_evaluate_gives_the_mean_bound(fitted):
    """The noise of a batch depends on the number of the examples before it."""
    model, _ = fitted
    value = model.evaluate(images(), batch_size=4, verbose=0, return_dict=True)["bound"]
    batches = [(tf.constant(images()[i : i + 4]), rng.stream(model.seed, i, "test")) for i in (0, 4, 8)]
    log_weights = [model.log_weight_terms(x, model.draw_noise(4, 4, seed)).log_weights() for x, seed in batches]
    assert value == pytest.approx(np.mean([reference.bound(values.numpy()) for values in log_weights]), rel=1e-5)


def test_predict_gives_the_log_weights_of_every_image(fitted):
    """The last of three batches is not full; the noise is that of its place in the batch."""
    model, _ = fitted
    values = model.predict(images(), batch_size=5, verbose=0)
    expected = [model.log_weights(images()[i : i + 5], 4, (model.seed, 0)).numpy().T for i in (0, 5, 10)]
    np.testing.assert_allclose(values, np.concatenate(expected), rtol=1e-5)


def test_weights_are_saved_and_loaded(fitted, tmp_path):
    model, _ = fitted
    model.save_weights(tmp_path / "model.weights.h5")
    other = make(k=4, seed=9)
    other.load_weights(tmp_path / "model.weights.h5")
    for one, two in zip(model.variables, other.variables, strict=True):
        np.testing.assert_array_equal(one, two)
    np.testing.assert_array_equal(model.log_weights(images(), K, (1, 1)), other.log_weights(images(), K, (1, 1)))


def test_binary_images_may_be_integers():
    histories = []
    for dtype in (np.float32, np.uint8):
        model = make()
        model.compile(optimizer=keras.optimizers.Adam(0.01), jit_compile=False, run_eagerly=True)
        history = model.fit(images().astype(dtype), batch_size=12, epochs=2, shuffle=False, verbose=0)
        histories.append(history.history["bound"])
    assert histories[0] == histories[1]


def batches(*arrays):
    return tf.data.Dataset.from_tensor_slices(arrays if len(arrays) > 1 else arrays[0]).batch(4)


def numbered(x):
    while True:
        yield (x,)


NAN = np.where(np.arange(D) == 3, np.nan, images())
WRONG_IMAGES = [
    ((255 * images()).astype(np.uint8), r"expected values from 0 to 1 .* got 0 to 255 \(divide .* by 255\)$"),
    (batches((255 * images()).astype(np.uint8)), r"expected values from 0 to 1 .* got 0 to 255"),
    (numbered(255 * images()[:4]), r"expected values from 0 to 1 .* got 0.0 to 255.0"),
    (-images(), r"expected values from 0 to 1 .* got -1.0"),
    (NAN, r"expected finite numbers, got nan"),
    (batches(NAN), r"expected finite numbers, got nan"),
    (np.full((2, D), np.inf), r"expected finite numbers, got inf"),
    (images()[:, 1:], r"expected shape \[B, 7\], got \[12, 6\]"),
    (images()[0], r"expected shape \[B, 7\], got \[7\]"),
    (np.zeros((0, D)), r"expected numbers, got no examples"),
]


@pytest.mark.parametrize(("x", "message"), WRONG_IMAGES)
def test_fit_evaluate_and_predict_refuse_wrong_images_in_one_line(fitted, x, message):
    model, _ = fitted
    for use in (model.fit, model.evaluate, model.predict):
        with pytest.raises(ValueError, match=f"^x: {message}") as told:
            use(numbered(255 * images()[:4]) if hasattr(x, "send") else x, verbose=0)
        assert "\n" not in str(told.value)


def test_grey_values_are_told_with_a_remedy(fitted):
    model, _ = fitted
    with pytest.warns(UserWarning, match="grey values as Bernoulli targets.* draw binary pixels first: x = ") as told:
        model.predict(0.5 * images(), verbose=0)
    assert told[0].filename == __file__


def test_any_numbers_suit_a_gaussian_likelihood():
    model = make(likelihood="gaussian")
    model.check(images() - 2)


@pytest.mark.parametrize("given", [{"loss": "mse"}, {"metrics": ["mae"]}, {"weighted_metrics": ["mae"]}])
def test_a_loss_or_metrics_are_refused(given):
    ((name, value),) = given.items()
    with pytest.raises(ValueError, match=re.escape(f"{name}: expected none, for the bound")):
        make().compile(optimizer="adam", **given)
    with pytest.raises(ValueError, match="^loss: expected none, .* got 'mse'"):
        make().compile("adam", "mse")


def test_weights_of_examples_are_refused(fitted):
    model, _ = fitted
    ones = np.ones(12, np.float32)
    for use, words in (
        (model.fit, {"x": images(), "sample_weight": ones}),
        (model.evaluate, {"x": images(), "sample_weight": ones}),
        (model.fit, {"x": images(), "validation_data": (images(), images(), ones)}),
        (model.fit, {"x": batches(images(), images(), ones), "shuffle": False}),
    ):
        with pytest.raises(ValueError, match="^sample_weight: expected none, .* got some$"):
            use(**words, verbose=0)


def test_images_with_rows_and_columns_are_flattened():
    x = np.concatenate([images(), images()[:, :1]], axis=1)  # [12, 8]
    found = []
    for data in (x, x.reshape(12, 2, 4), batches(x.reshape(12, 2, 4, 1))):
        model = IWAE(8, (2,), ((4,),), k=K)
        model.compile(optimizer=keras.optimizers.Adam(0.01), jit_compile=False)
        history = model.fit(data, batch_size=None if found[1:] else 4, epochs=1, shuffle=False, verbose=0)
        found.append(history.history["bound"][0])
    np.testing.assert_allclose(found, found[0], rtol=1e-6)


def test_validation_data_and_every_kind_of_batches_are_taken(fitted):
    model, _ = fitted
    history = model.fit(
        batches(images(), images()), validation_data=(images(),), epochs=2, shuffle=False, verbose=0
    ).history
    assert len(history["val_bound"]) == 2
    assert model.predict(batches(images()), verbose=0).shape == (12, 4)


# Saved whole


def convolutional():
    """An encoder and a decoder for images of 8 x 8 with two latent units."""
    keras.utils.set_random_seed(0)
    pixels, z = keras.Input((64,)), keras.Input((2,))
    h = keras.layers.Reshape((8, 8, 1))(pixels)
    h = keras.layers.Flatten()(keras.layers.Conv2D(8, 3, strides=2, padding="same", activation="relu")(h))
    encoder = keras.Model(pixels, [keras.layers.Dense(2)(h), keras.layers.Dense(2)(h)])
    h = keras.layers.Reshape((4, 4, 8))(keras.layers.Dense(128, activation="relu")(z))
    h = keras.layers.Conv2DTranspose(1, 3, strides=2, padding="same")(h)
    return encoder, keras.Model(z, keras.layers.Flatten()(h))


@pytest.mark.parametrize("options", [{"estimator": "dreg"}, {"objective": bounds.Piwae()}, {}])
def test_an_encoder_and_a_decoder_share_variables_only_where_their_gradients_are_one(options):
    """With one gradient of all, that of a common variable is the sum over its places in both."""
    shared = keras.layers.Dense(2, name="shared")
    pixels, z = keras.Input([2]), keras.Input([2])
    networks = (
        keras.Model(pixels, [shared(pixels), keras.layers.Dense(2)(pixels)]),
        keras.Model(z, shared(z)),
    )
    if options:
        with pytest.raises(ValueError, match="^network: expected an encoder and a decoder without common variables"):
            IWAE(2, latent_units=(2,), hidden_units=((),), network=networks, **options)
    else:
        assert len(IWAE(2, latent_units=(2,), hidden_units=((),), network=networks).trainable_variables) == 4


SAVED = {
    "default": {},
    "renyi": {"objective": bounds.Renyi(alpha=0.3)},
    "two layers": {"latent_units": (3, 2), "hidden_units": ((5,), (4,))},
    "gaussian": {"likelihood": "gaussian", "data_moments": (np.full(64, 0.3), np.full(64, 0.5))},
    "convolutional": {"network": convolutional},
    "8 bits": {"likelihood": "discretized_logistic", "data_moments": (np.full(64, 0.3), np.full(64, 0.5))},
    "8 bits by convolutions": {
        "likelihood": "discretized_logistic",
        "network": lambda: networks((8, 8), (2,), ((5,),), (4, 8), "discretized_logistic", None, 1),
    },
}


@pytest.mark.parametrize("case", SAVED)
def test_a_loaded_model_is_the_saved_one_and_trains_on(case, tmp_path):
    options = {"latent_units": (2,), "hidden_units": ((5,),), "k": 3, **SAVED[case]}
    if "network" in options:
        options["network"] = options["network"]()
    model = IWAE(64, **options)
    x = (load_dataset("digits").train[:200] > 0.5).astype(np.float32)
    model.compile(optimizer=keras.optimizers.Adam(0.003), jit_compile=case == "default")
    history = model.fit(x, batch_size=20, epochs=4, verbose=0).history["bound"]
    assert history[-1] > history[0] + 1
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    np.testing.assert_array_equal(model.log_weights(x, K, (1, 2)), loaded.log_weights(x, K, (1, 2)))
    assert loaded.objective == model.objective and loaded.optimizer.iterations == 40
    for each in (model, loaded):
        each.fit(x, batch_size=20, epochs=1, shuffle=False, verbose=0)
    for one, two in zip(model.variables, loaded.variables, strict=True):
        np.testing.assert_array_equal(one, two)
