"""Models of images given their classes: beside models of each class by hand, the truth, and a run from start to end."""

import dataclasses
import os
import signal

import keras
import numpy as np
import pytest
import reference
import tensorflow as tf
from scipy import special, stats
from tiny import experiment

import iwae
from iwae import batches, bounds, estimators, verbs
from iwae.conditional import ConditionalIWAE
from iwae.convolutions import networks
from iwae.data.loading import load_dataset
from iwae.diagnostics import annealing, grid, tightness
from iwae.model import IWAE
from iwae.runs.process import Interrupted
from iwae.runs.run import label_values, load_data, prepared_images
from iwae.sections import RunError

D, C, K, SIZES = 6, 3, 4, {1: ((3,), ((5,),)), 2: ((3, 2), ((5,), (4,)))}
LABELS = np.array([0, 2, 2, 0, 2])  # no example is of class 1


def a_model(depth=1, **options):
    model = ConditionalIWAE(D, *SIZES[depth], k=K, classes=C, **options)
    reference.scramble(model)
    return model


def examples(model):
    return tf.constant(model.with_labels(reference.binary(5, D), LABELS))


def noise(depth):
    return [tf.constant(values) for values in reference.noise(K, 5, SIZES[depth][0])]


def of_class(model, label, likelihood):
    """The model without a condition that has the columns of one class in its biases; its prior is N(0, I)."""
    depth = len(model.latent_units)
    alone, values = IWAE(D, *SIZES[depth], k=K, likelihood=likelihood), reference.weights_of(model)
    for layer, inputs in (("q_z1", D), ("p_x", SIZES[depth][0][0])):
        kernel = values[f"{layer}/hidden_1/kernel"]
        values[f"{layer}/hidden_1/bias"] = values[f"{layer}/hidden_1/bias"] + kernel[inputs + label]
        values[f"{layer}/hidden_1/kernel"] = kernel[:inputs]
    for variable in alone.trainable_variables:
        variable.assign(values[variable.path])
    return alone


@pytest.mark.parametrize("prior", ["standard", "labels"])
@pytest.mark.parametrize("likelihood", ["bernoulli", "gaussian"])
@pytest.mark.parametrize("depth", [1, 2])
def test_log_weights_are_those_of_a_model_of_each_class(depth, likelihood, prior):
    model = a_model(depth, likelihood=likelihood, prior=prior)
    x, values = examples(model), reference.weights_of(model)
    found = model.log_weight_terms(x, noise(depth))
    samples = model.encode(x, K, (1, 2))
    for i, label in enumerate(LABELS):
        alone = of_class(model, label, likelihood)
        terms = alone.log_weight_terms(x[:, :D], noise(depth))
        expected = terms.log_weights()[:, i].numpy().astype(float)
        if prior == "labels":
            top = terms.samples[-1][:, i].numpy()
            mean, log_std = (
                values[f"p_z/{name}/kernel"][label] + values[f"p_z/{name}/bias"] for name in ("mean", "log_std")
            )
            expected += stats.norm.logpdf(top, mean, np.exp(log_std)).sum(-1) - stats.norm.logpdf(top).sum(-1)
        np.testing.assert_allclose(found.log_weights()[:, i], expected, rtol=1e-4, atol=1e-4)
        np.testing.assert_allclose(samples[0][:, i], alone.encode(x[:, :D], K, (1, 2))[0][:, i], atol=1e-5)
        means = model.decode_mean(model.joined(samples[0], x))
        np.testing.assert_allclose(means[:, i], alone.decode_mean(samples[0])[:, i], atol=1e-5)


@pytest.mark.parametrize("estimator", estimators.ESTIMATORS)
def test_the_gradient_reaches_the_columns_of_the_classes_that_are_there(estimator):
    """Those of others are zero; and the decoder's part, with that of the prior, does not depend on how q's is had."""
    model = a_model(2, estimator=estimator, prior="labels")
    arguments = (examples(model), noise(2), tf.fill([5], 0.2), tf.linspace(0.1, 0.9, 5))

    def gradients(of):
        _, values = of(model, bounds.importance_weighted, *arguments)
        return {v.path: g.numpy() for v, g in zip(model.trainable_variables, values, strict=True)}

    found = gradients(model.estimator)
    kernels = {"q_z1/hidden_1/kernel": D, "p_x/hidden_1/kernel": 3, "p_z/mean/kernel": 0, "p_z/log_std/kernel": 0}
    for path, first in kernels.items():
        columns = found[path][first:]
        assert columns.shape[0] == C and not columns[1].any() and columns[[0, 2]].all(), path
    if estimator != "sampled":  # which is so on average over its draws
        usual = gradients(estimators.reparameterized)
        for path in usual:
            assert path.startswith("q_") or np.allclose(found[path], usual[path], rtol=1e-3, atol=1e-5), path


# ---- a linear-Gaussian model, whose log p(x | y) is known: z ~ N(m_y, s_y^2), x ~ N(z A + y V + a, noise) ----


class Truth:
    def __init__(self):
        random = np.random.default_rng(0)
        self.model = ConditionalIWAE(3, (2,), ((),), likelihood="gaussian", k=K, classes=C, prior="labels")
        reference.scramble(self.model, scale=0.5)
        values = reference.weights_of(self.model)
        for layer in ("p_x", "q_z1"):  # linear: the scale does not depend on the inputs
            values[f"{layer}/log_std/kernel"] = 0 * values[f"{layer}/log_std/kernel"]
        # Priors far apart, beyond 8 of a standard one; and q is the prior, but wider.
        values["p_z/mean/kernel"] *= 8
        values["p_z/log_std/kernel"] *= 0.5
        values["q_z1/mean/kernel"] = np.concatenate([np.zeros((3, 2)), values["p_z/mean/kernel"]])
        values |= {"q_z1/mean/bias": values["p_z/mean/bias"], "q_z1/log_std/bias": np.log([2.0, 2.0])}
        for variable in self.model.trainable_variables:
            variable.assign(values[variable.path])
        kernel, self.labels = values["p_x/mean/kernel"], random.integers(0, C, 12)
        self.prior_mean = (values["p_z/mean/kernel"] + values["p_z/mean/bias"])[self.labels]
        self.prior_std = np.exp(values["p_z/log_std/kernel"] + values["p_z/log_std/bias"])[self.labels]
        self.mean = self.prior_mean @ kernel[:2] + kernel[2:][self.labels] + values["p_x/mean/bias"]
        noise = np.diag(np.exp(2 * values["p_x/log_std/bias"]))
        self.laws = [
            stats.multivariate_normal(mean, (kernel[:2].T * std**2) @ kernel[:2] + noise)
            for mean, std in zip(self.mean, self.prior_std, strict=True)
        ]
        pixels = np.stack([law.rvs(random_state=random) for law in self.laws])
        self.x = self.model.with_labels(pixels.astype(np.float32), self.labels)

    def log_p(self, x):
        return np.array([law.logpdf(row[:3]) for law, row in zip(self.laws, x, strict=True)])


@pytest.fixture(scope="module")
def truth():
    return Truth()


@pytest.mark.slow
def test_everything_that_estimates_log_p_finds_it(truth):
    expected = truth.log_p(truth.x)
    assert np.ptp(expected) > 1 and np.abs(truth.prior_mean).max() > 8
    np.testing.assert_allclose(verbs.estimate_log_likelihood(truth.model, truth.x, 10_000)[0], expected, atol=0.1)
    found = [one.log_evidence for one in grid.on_grid(truth.model, truth.x[:3], 1)]
    np.testing.assert_allclose(found, expected[:3], atol=1e-3)
    annealed = annealing.sample(truth.model, truth.x, 30, 40, 1).log_weights
    np.testing.assert_allclose(special.logsumexp(annealed, axis=0) - np.log(30), expected, atol=0.3)


def test_simulated_examples_keep_their_classes_and_are_bracketed(truth):
    simulated, _ = tightness.simulate(truth.model, 12, 1, truth.x)
    np.testing.assert_array_equal(simulated[:, 3:], truth.x[:, 3:])
    expected, found = truth.log_p(simulated), tightness.bidirectional(truth.model, 12, 1000, 40, 30, 1, like=truth.x)
    assert found["lower"].mean() - 0.05 < expected.mean() < found["upper"].mean() + 0.05
    np.testing.assert_allclose(found["l_k"], expected, atol=0.3)


def test_samples_are_of_their_classes(truth):
    for label in range(C):
        row = list(truth.labels).index(label)
        images = truth.model.sample(20_000, (1, 2), np.full(20_000, label)).numpy()
        np.testing.assert_allclose(images.mean(axis=0), truth.mean[row], atol=0.05)
    in_turn = truth.model.sample_latents(7, (1, 2))
    np.testing.assert_array_equal(in_turn[:, 2:], np.eye(C)[[0, 1, 2, 0, 1, 2, 0]])
    np.testing.assert_array_equal(truth.model.sample(7, (1, 2)), truth.model.decode_mean(in_turn))


# ---- as a Keras model ----


def test_it_is_fitted_saved_and_loaded(tmp_path):
    model = a_model(2, prior="labels")
    x = model.with_labels(reference.binary(40, D).reshape(40, 2, 3), np.arange(40) % C)
    before = model.prior_network.mean.kernel.numpy()
    model.compile("adam")
    assert np.isfinite(model.fit(x, verbose=0).history["bound"]).all()
    assert np.all(model.prior_network.mean.kernel.numpy() != before)
    model.save(tmp_path / "m.keras")
    again = keras.models.load_model(tmp_path / "m.keras")
    np.testing.assert_allclose(again.log_weights(x, 3, (0, 1)), model.log_weights(x, 3, (0, 1)), rtol=1e-5)
    assert again.sample(2, labels=[1, 2]).shape == (2, D) and verbs.reconstruct(again, x, 5).shape == (40, D)
    np.testing.assert_allclose(verbs.interpolate(model, x[:2], x[2:4], 3)[-1], verbs_ends(model, x[2:4]), atol=1e-2)


def verbs_ends(model, x):
    return model.decode_mean(model.joined(verbs.embed(model, x)[0], x))


def test_convolutions_are_told_the_classes_too(tmp_path):
    sizes = {"latent_units": (2,), "hidden_units": ((4,),)}
    network = networks((3, 2), **sizes, channels=(2,), likelihood="bernoulli", mean=None, seed=1, classes=C)
    model = ConditionalIWAE(D, **sizes, k=K, classes=C, network=network)
    x, other = (model.with_labels(reference.binary(2, D), labels) for labels in ([0, 1], [0, 2]))
    found, of_others = (np.array(model.posterior_parameters(tf.constant(values))) for values in (x, other))
    assert np.allclose(found[:, 0], of_others[:, 0]) and not np.isclose(found[:, 1], of_others[:, 1]).any()
    images = model.sample(2, labels=[0, 1]).numpy(), model.sample(2, labels=[0, 2]).numpy()
    assert np.allclose(images[0][0], images[1][0]) and not np.isclose(images[0][1], images[1][1]).any()
    model.save(tmp_path / "m.keras")
    again = keras.models.load_model(tmp_path / "m.keras")
    np.testing.assert_allclose(again.log_weights(x, 3, (0, 1)), model.log_weights(x, 3, (0, 1)), rtol=1e-5)


@pytest.mark.parametrize(
    ("use", "message"),
    [
        (lambda m: m.with_labels(reference.binary(3, D), [0, 1]), r"labels: expected 3 integers, got int64 \[2\]"),
        (lambda m: m.with_labels(reference.binary(2, D), [0, C]), "labels: expected 0 to 2, got 3"),
        (lambda m: m.with_labels(reference.binary(2, D), [0, -1]), "labels: expected 0 to 2, got -1"),
        (lambda m: m.with_labels(reference.binary(2, D), ["a", "b"]), "labels: expected 2 integers, got <U1"),
        (lambda m: m.log_weights(reference.binary(2, D), 1, (0, 1)), r"x: expected \[B, 6 \+ 3\].*got shape \[2, 6\]"),
        (lambda m: m.log_weights(np.ones((2, D + C), np.uint8), 1, (0, 1)), "got dtype uint8"),
        (lambda m: m.check(reference.binary(2, D + C) * 0), "got other numbers in the last 3 columns"),
        (lambda m: m.check(m.with_labels(255 * reference.binary(2, D), [0, 1])), "expected values from 0 to 1"),
        (lambda m: m.decode_mean(tf.zeros([2, 3])), r"z: expected \[\.\.\., 3 \+ 3\] as `joined`.*got shape \[2, 3\]"),
        (lambda _: a_model(prior="own"), "prior: expected one of standard, labels, got 'own'"),
        (lambda _: a_model(prior="labels", objective="vae_analytic_kl"), "prior: expected 'standard' with objective"),
        (lambda _: ConditionalIWAE(D, classes=0), "classes: expected an integer >= 1, got 0"),
        (lambda _: ConditionalIWAE(D, classes=2.5), "classes: expected an integer >= 1, got 2.5"),
        (lambda m: m.sample(5, labels=[0]), r"labels: expected 5 integers, got int64 \[1\]"),
        (lambda m: m.sample(2, labels=1), r"labels: expected 2 integers, got int64 \[\]"),
    ],
)
def test_what_it_cannot_use_is_told_in_one_line(use, message):
    with pytest.raises(ValueError, match=message) as caught:
        use(a_model())
    assert "\n" not in str(caught.value)


def test_missing_pixels_are_imputed_beside_the_classes():
    model = a_model()
    model.missing = True
    images = reference.binary(5, D)
    images[:, 1] = np.nan
    x = model.with_labels(images, LABELS)
    found = verbs.impute(model, x, 50)
    assert found.shape == (5, D) and np.all((found[:, 1] > 0) & (found[:, 1] < 1))
    np.testing.assert_array_equal(np.delete(found, 1, axis=1), np.delete(images, 1, axis=1))


# ---- a run ----

FAST = {"training.optimizer": "rotated_adam", "model.estimator": "dreg"}
CONDITION = {"model.condition": "labels", "model.prior": "labels", "data.batch_size": 5}


def test_the_classes_stand_behind_the_pixels_which_are_those_of_any_run(tmp_path):
    plain, given = experiment(tmp_path), experiment(tmp_path, **CONDITION)
    dataset = load_data(given, dataclasses.replace(load_dataset("digits"), classes=tuple("abcdefghij")))
    for split in ("train", "valid", "test"):
        found = prepared_images(dataset, split, given)
        np.testing.assert_array_equal(found[:, :64], prepared_images(load_data(plain), split, plain))
        np.testing.assert_array_equal(found[:, 64:], np.eye(10)[dataset.labels[split]])
    grey = prepared_images(dataset, "train", given, as_they_are=True)
    numbers = np.arange(50)
    batch = batches.ResidentImages(grey, stochastic=True).batch(tf.constant(numbers), tf.constant([1, 2])).numpy()
    np.testing.assert_array_equal(batch[:, 64:], grey[numbers, 64:])
    assert set(np.unique(batch)) == {0, 1}


def some_digits(**changes):
    digits = load_dataset("digits")
    arrays = {f"x_{split}": getattr(digits, split)[:60] for split in ("train", "valid", "test")}
    return arrays | {f"y_{split}": digits.labels[split][:60] for split in ("train", "valid", "test")} | changes


def without(arrays, key):
    return {name: values for name, values in arrays.items() if name != key}


def test_classes_that_are_not_numbered_from_0_are():
    arrays = some_digits()
    arrays |= {key: 3 * y + 5 for key, y in arrays.items() if key[0] == "y"}
    dataset = load_data(experiment("unused", **CONDITION), arrays)
    assert list(label_values(dataset)) == [3 * label + 5 for label in range(10)]
    assert prepared_images(dataset, "test", experiment("unused", **CONDITION))[:, 64:].sum() == 60


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        (
            without(some_digits(), "y_test"),
            "expected a label of every example with 'labels', got none of the test examples",
        ),
        (
            some_digits(y_valid=np.full(60, -1)),
            "expected a label of every example with 'labels', got -1 among those of",
        ),
        (
            some_digits(y_test=np.full(60, 10)),
            "expected training examples of every class.*got none of '10', as in test",
        ),
    ],
)
def test_data_without_the_labels_it_takes_are_refused(tmp_path, arrays, message):
    with pytest.raises(iwae.ConfigError, match=f"^model.condition: {message}"):
        iwae.run(experiment(tmp_path, **CONDITION), dataset=arrays)
    assert not list(tmp_path.rglob("*.json"))


class Kill(keras.callbacks.Callback):
    def on_train_batch_end(self, batch, logs=None):
        if batch == 1:
            os.kill(os.getpid(), signal.SIGTERM)


@pytest.mark.slow
def test_a_run_that_was_killed_and_continued_is_the_same(tmp_path):
    """And what it is continued with must be the same: the labels, whether they are a condition, the prior."""
    changes = {**CONDITION, "training.updates_per_call": 4, **FAST, "tasks": ["train", "evaluate"]}
    arrays = some_digits()
    whole = iwae.run(experiment(tmp_path, name="whole", **changes), dataset=arrays)
    killed = experiment(tmp_path, name="killed", **changes)
    with pytest.raises(Interrupted):
        iwae.run(killed, callbacks=[Kill()], dataset=arrays)
    assert not (tmp_path / "killed" / "model.weights.h5").exists()
    with pytest.raises(RunError, match="expected the data that the run was trained on"):
        iwae.run(killed, dataset=arrays | {"y_train": arrays["y_train"][::-1]})
    with pytest.raises(iwae.ConfigError, match="model.prior"):
        iwae.run(experiment(tmp_path, name="killed", **changes | {"model.prior": "standard"}), dataset=arrays)
    continued = iwae.run(killed, dataset=arrays)
    for a, b in zip(whole.model.variables, continued.model.variables, strict=True):
        np.testing.assert_array_equal(a, b)
    assert whole.evaluation["test"] | {"weights_sha256": ""} == continued.evaluation["test"] | {"weights_sha256": ""}
    again = iwae.load_run(tmp_path / "whole", dataset=arrays)
    np.testing.assert_array_equal(again.model.sample(3, labels=[4, 4, 4]), whole.model.sample(3, labels=[4, 4, 4]))
    assert "arrays given labels" in again.title


@pytest.mark.slow  # a minute or two
def test_digits_given_their_classes(tmp_path):
    """It tells more of an image, and every figure and task is there."""
    changes = {"model.hidden_units": [[50]], "training.stages": 3, "tasks": ["train", "evaluate", "plot"]}
    changes |= {"evaluation.examples": None, "evaluation.k": 100, "data.batch_size": 5, "model.k": 5}
    plain = iwae.run(experiment(tmp_path, name="plain", **changes | {"tasks": ["train", "evaluate"]}))
    changes |= {"tasks": ["train", "evaluate", "plot", "posterior", "tightness", "snr"], "evaluation.snr_k": [1, 5]}
    changes |= {"evaluation.snr_samples": 100, "evaluation.tightness_examples": 5, "evaluation.ais_steps": 40}
    for prior in ("standard", "labels"):
        given = iwae.run(experiment(tmp_path, name=prior, **changes | CONDITION | {"model.prior": prior}))
        test = given.evaluation["test"]
        assert test["nll"] < plain.evaluation["test"]["nll"] - 1
        assert test["binarization"] == plain.evaluation["test"]["binarization"]
        assert {"posterior", "ais", "bidirectional", "gradient_snr"} <= set(test)
        names = {path.stem for path in given.folder.plots.iterdir()}
        assert {"samples_by_class", "samples", "reconstructions", "interpolations", "posterior_input"} <= names
        assert test["nll"] == pytest.approx(-evaluation_of(given), abs=0.2)


def evaluation_of(run):
    return verbs.estimate_log_likelihood(run.model, run.images("test"), 100, seed=9)[0].mean()
