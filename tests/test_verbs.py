"""What is done with a trained model: `iwae.verbs` against plain formulas, and `sample`."""

import numpy as np
import pytest
import reference
import tensorflow as tf

from iwae import rng, verbs
from iwae.model import IWAE

D, K = 16, 7


@pytest.fixture(scope="module", params=[1, 2])
def model(request):
    model = IWAE(D, (3, 2)[: request.param], ((6,), (5,))[: request.param], k=4)
    reference.scramble(model, 0)
    return model


X = reference.binary(5, D).reshape(5, 4, 4)


def terms_of(model):
    """Those of the draws that `resampling` takes for the first part of the images."""
    seed = rng.stream(3, 0, "resample")
    return model.log_weight_terms(tf.constant(X.reshape(5, D)), model.draw_noise(K, 5, rng.fold(seed, 0)))


def test_reconstructions_are_the_means_of_one_of_the_draws(model):
    found, terms = verbs.reconstruct(model, X, K, seed=3), terms_of(model)
    candidates = model.decode_mean(terms.samples[0]).numpy()  # [k, n, D]
    distance = np.abs(candidates - found).max(axis=-1)
    assert found.shape == (5, D) and np.all(distance.min(axis=0) < 1e-5)
    assert verbs.reconstruct(model, X).shape == (5, D)


def test_embeddings_are_posterior_means(model):
    terms = terms_of(model)
    means = verbs.embed(model, X)
    np.testing.assert_allclose(means[0], terms.posterior[0].mean[0], atol=1e-5)
    assert [layer.shape for layer in means] == [(5, units) for units in model.latent_units]
    shares = tf.nn.softmax(terms.log_weights(), axis=0).numpy()
    for found, samples in zip(verbs.embed(model, X, K, seed=3), terms.samples, strict=True):
        np.testing.assert_allclose(found, np.einsum("kb,kbd->bd", shares, samples), atol=1e-4)


def test_interpolation_starts_and_ends_at_the_images(model):
    found = verbs.interpolate(model, X[:2], X[2:4], steps=3)
    assert found.shape == (3, 2, D)
    ends = model.decode_mean(verbs.embed(model, X)[0]).numpy()
    np.testing.assert_allclose(found[0], ends[:2], atol=1e-2 if len(model.latent_units) > 1 else 1e-5)
    middle = (verbs.embed(model, X[:2])[0] + verbs.embed(model, X[2:4])[0]) / 2
    np.testing.assert_allclose(found[1], model.decode_mean(middle), atol=1e-5)


def test_estimated_log_likelihood_is_that_of_a_model_whose_truth_is_known():
    exact = reference.LinearGaussian(2).spoil()
    values, stderr = verbs.estimate_log_likelihood(exact.model, exact.x, k=2000)
    np.testing.assert_allclose(values, exact.log_p, atol=0.2)
    assert stderr == pytest.approx(values.std(ddof=1) / np.sqrt(len(values)), rel=1e-4)


def test_samples_have_a_seed_of_the_model(model):
    np.testing.assert_array_equal(model.sample(3), model.sample(3, (model.seed, 0)))


def test_wrong_images_are_refused_in_one_line(model):
    with pytest.raises(ValueError, match="x: expected values from 0 to 1 with likelihood 'bernoulli', got 0.0 to 255"):
        verbs.embed(model, 255 * X)
