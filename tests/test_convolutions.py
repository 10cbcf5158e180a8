"""Convolutional networks: images of any size, the same numbers for a seed, and a whole run in colour."""

import json
import subprocess
import sys

import keras
import numpy as np
import pytest
import tensorflow as tf
import tiny

import iwae
from iwae import ConfigError, config, layers
from iwae.convolutions import networks
from iwae.model import IWAE

SIZES = {"latent_units": (4, 2), "hidden_units": ((6,), ())}


def model_of(shape, likelihood="bernoulli", seed=1, **options):
    network = networks(shape, **SIZES, channels=(3, 5), likelihood=likelihood, mean=None, seed=seed)
    return IWAE(int(np.prod(shape)), **SIZES, likelihood=likelihood, network=network, **options)


@pytest.mark.parametrize(
    "shape, likelihood", [((28, 28), "bernoulli"), ((9, 6, 3), "discretized_logistic"), ((1, 7), "gaussian")]
)
def test_images_of_any_size(shape, likelihood):
    model = model_of(shape, likelihood)
    x = np.random.default_rng(0).integers(0, 2, (5, int(np.prod(shape)))).astype(np.float32)
    values = model.log_weights(x, 3, (1, 2))
    assert values.shape == (3, 5) and np.all(np.isfinite(values))
    np.testing.assert_array_equal(values, model_of(shape, likelihood).log_weights(x, 3, (1, 2)))
    assert not np.any(values == model_of(shape, likelihood, seed=2).log_weights(x, 3, (1, 2)))
    assert [z.shape for z in model.encode(x, 3, (1, 2))] == [(3, 5, 4), (3, 5, 2)]
    assert model.sample(2).shape == (2, x.shape[1])


@pytest.mark.parametrize("kind", [layers.Conv2D, layers.Conv2DTranspose])
@pytest.mark.parametrize("shape", [(8, 6, 1), (7, 8, 3), (1, 5, 2)])
def test_products_make_the_convolution_that_keras_makes(kind, shape, monkeypatch):
    """Outputs and all gradients; on a GPU Keras's own is used."""
    layer = kind(4, activation="elu")
    random = np.random.default_rng(0)
    x = tf.constant(random.normal(size=(3, *shape)), tf.float32)
    layer.build(x.shape)
    layer.bias.assign(random.normal(size=4))
    found = []
    for gpu in (False, True):
        monkeypatch.setattr("iwae.hardware.on_gpu", lambda gpu=gpu: gpu)
        with tf.GradientTape() as tape:
            tape.watch(x)
            y = layer(x)
            loss = tf.reduce_sum(y * tf.constant(np.random.default_rng(1).normal(size=y.shape), tf.float32))
        found.append([y, *tape.gradient(loss, [x, *(v.value for v in layer.trainable_variables)])])
    assert tuple(layer.compute_output_shape(x.shape)) == tuple(found[0][0].shape)
    for ours, keras_own in zip(*found, strict=True):
        np.testing.assert_allclose(ours, keras_own, atol=2e-5)


def test_a_pixel_reaches_the_code_and_a_code_every_pixel():
    model, blank = model_of((8, 8)), np.zeros((1, 64), np.float32)
    codes = model.posterior_parameters(np.concatenate([blank, np.eye(64, dtype=np.float32)]))[0].numpy()
    assert len(np.unique(codes, axis=0)) == 65  # no two pixels are taken for the same
    change = model.decode_mean(np.float32([[1, 0, 0, 0]])) - model.decode_mean(np.zeros((1, 4), np.float32))
    assert np.all(np.abs(change) > 0)


def test_a_saved_model_gives_the_same_log_weights(tmp_path):
    """And loads where nothing but `iwae.model` was imported."""
    model, x = model_of((8, 8)), np.eye(64, dtype=np.float32)[:5]
    model.save(tmp_path / "model.keras")
    program = f"import iwae.model, keras; keras.models.load_model({str(tmp_path / 'model.keras')!r})"
    subprocess.run([sys.executable, "-c", program], check=True, capture_output=True)
    loaded = keras.models.load_model(tmp_path / "model.keras")
    np.testing.assert_array_equal(loaded.log_weights(x, 3, (1, 2)), model.log_weights(x, 3, (1, 2)))


def test_pixels_start_at_their_mean():
    network = networks((8, 8), (2,), ((3,),), (4,), "bernoulli", np.full(64, 0.2), 1)
    at_zero = IWAE(64, (2,), ((3,),), network=network).decode_mean(np.zeros((1, 2), np.float32))
    np.testing.assert_allclose(at_zero, 0.2, atol=1e-6)


CHANGES = {
    "data.binarization": "none", "data.batch_size": 20, "model.network": "conv", "model.channels": (4, 6),
    "model.likelihood": "discretized_logistic", "training.epochs": 1,
}  # fmt: skip


@pytest.mark.slow
def test_a_run_of_coloured_images(tmp_path, capsys):
    random = np.random.default_rng(0)
    images = {
        f"x_{split}": random.integers(0, 256, (n, 5, 6, 3), np.uint8) for split, n in (("train", 50), ("test", 9))
    }
    np.savez(tmp_path / "colours.npz", **images)
    run = iwae.run(tiny.experiment(tmp_path, **CHANGES, **{"data.name": str(tmp_path / "colours.npz")}))
    test = json.loads((tmp_path / "tiny" / "evaluation.json").read_text())["test"]
    assert test["bits_per_dimension"] == pytest.approx(test["nll"] / 90 / np.log(2))
    assert f"{test['bits_per_dimension']:.4f} bits per dimension" in capsys.readouterr().out
    assert {"samples.png", "reconstructions.png", "posterior_input.png"} <= {p.name for p in run.folder.plots.iterdir()}
    loaded, x = iwae.load_run(tmp_path / "tiny"), run.images("test")
    np.testing.assert_array_equal(loaded.model.log_weights(x, 3, (1, 2)), run.model.log_weights(x, 3, (1, 2)))


def test_data_that_are_no_images_are_refused(tmp_path):
    np.savez(tmp_path / "rows.npz", x_train=np.ones((50, 10)), x_test=np.ones((9, 10)))
    experiment = config.replace(tiny.experiment(tmp_path, **CHANGES), {"data.name": str(tmp_path / "rows.npz")})
    with pytest.raises(ConfigError, match=r"model.network: expected 'mlp' with .*rows.npz.*, got 'conv'"):
        iwae.run(experiment)
    assert not (tmp_path / "tiny").exists()
