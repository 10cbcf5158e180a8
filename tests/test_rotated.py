"""Adam in coordinates of the layers' inputs: the same functions throughout, continued bit for bit, plain at the end."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from test_training import assert_same, grey_images, stop_when_asked, train, without_times

from iwae import batches, callbacks, rng, rotated
from iwae.model import IWAE

X = np.round(grey_images(6, seed=3))


def log_weights(model):
    return model.log_weights(X, 3, (1, 2)).numpy()


@pytest.fixture(params=[1, 2], ids=["one layer", "two layers"])
def model(request):
    """In new coordinates, with what it gave before; two updates done."""
    model = IWAE(7, (3, 2)[: request.param], ((6, 4), (5,))[: request.param], k=3, seed=5)
    before, images = log_weights(model), grey_images(200)
    model.hold(batches.ResidentImages(images, stochastic=True))
    optimizer = rotated.RotatedAdam(rotated.groups_of(model), 0.01)
    optimizer.build(model.trainable_variables)
    model.compile(optimizer=optimizer)
    new_coordinates = rotated.NewCoordinates(model, callbacks.State(len(images), 20, rows=2), seed=5)
    new_coordinates.on_epoch_begin(0)
    return model, before, new_coordinates


def test_every_dense_layer_has_coordinates_and_heads_share_them(model):
    model, _, _ = model
    layers = [layer for part in (*model.encoder, *model.decoder) for layer in (*part.hidden, *part.heads())]
    assert all(layer.coordinates is not None for layer in layers)
    assert len(layers) * 2 + 1 == len(model.variables)  # beta
    for part in model.encoder:
        assert part.mean.coordinates is part.log_std.coordinates is not part.hidden[-1].coordinates


def test_the_function_stays_the_same_until_the_weights_are_plain_again(model):
    model, before, new_coordinates = model
    np.testing.assert_allclose(log_weights(model), before, rtol=1e-5, atol=1e-5)
    model.fit(batches.index_blocks(200, 20, 2, seed=5), steps_per_epoch=1, epochs=1, verbose=0, shuffle=False)
    trained = log_weights(model)
    assert np.abs(trained - before).max() > 1e-3
    new_coordinates.on_epoch_begin(1)
    np.testing.assert_allclose(log_weights(model), trained, rtol=1e-5, atol=1e-5)
    plain = model.optimizer.plain_weights()
    adam = model.optimizer.plain_adam()
    np.testing.assert_allclose(log_weights(model), trained, rtol=1e-5, atol=1e-5)
    for variable in model.trainable_variables:
        np.testing.assert_allclose(variable.numpy(), plain[variable.path], atol=1e-6)
    assert all(group[0].coordinates is None for group in rotated.groups_of(model))
    assert type(adam) is keras.optimizers.Adam and int(adam.iterations) == 2


def test_inputs_are_centred_and_uncorrelated_in_their_coordinates(model):
    model, _, _ = model
    layer = model.encoder[0].hidden[1]
    below = model.encoder[0].hidden[0]
    x = model.images.batch(np.arange(200), (1, 2))
    inputs = below(x)
    turned = (inputs - layer.coordinates.centre) @ layer.coordinates.axes.value
    covariance = np.cov(turned.numpy().T)
    assert np.abs(np.corrcoef(inputs.numpy().T) - np.eye(6)).max() > 0.5
    assert np.abs(covariance - np.diag(np.diag(covariance))).max() < 0.1 * covariance.max()
    assert np.abs(turned.numpy().mean(axis=0)).max() < 0.1


def test_few_rows_and_many_are_the_same_layer(model):
    """Either the inputs are turned or the kernel, whichever is less work."""
    model, _, _ = model
    layer = model.encoder[0].hidden[1]
    inputs = np.random.default_rng(0).normal(size=(20, 6)).astype(np.float32)
    rows = np.concatenate([layer(inputs[i : i + 2]) for i in range(0, 20, 2)])
    np.testing.assert_allclose(layer(inputs), rows, atol=1e-6)


def test_the_moments_go_with_the_kernel():
    """Three updates with one gradient, in new coordinates from the first on or after it: one momentum in the end.

    In a layer's coordinates the gradient of its kernel is that of the centred, turned inputs.
    """
    random = np.random.default_rng(3)
    inputs, of_outputs = random.normal(size=(20, 6)).astype("f"), random.normal(size=(20, 4)).astype("f")
    centre, (axes, _) = inputs.mean(axis=0), np.linalg.qr(random.normal(size=(6, 6)).astype("f"))
    moments = []
    for turned_after in (0, 1):
        model = IWAE(7, (3,), ((6, 4),), seed=5)
        optimizer = rotated.RotatedAdam(rotated.groups_of(model), 0.01)
        optimizer.build(model.trainable_variables)
        group = rotated.groups_of(model)[1]
        (layer,) = group
        for step in range(3):
            if step == turned_after:
                optimizer.change_coordinates(group, tf.constant(centre), tf.constant(axes))
            own = (inputs - layer.coordinates.centre.numpy()) @ layer.coordinates.axes.numpy()
            given = {layer.kernel.path: own.T @ of_outputs, layer.bias.path: of_outputs.sum(axis=0)}
            gradients = [given.get(v.path, np.zeros(v.shape, "f")) for v in model.trainable_variables]
            optimizer.apply([tf.constant(gradient) for gradient in gradients], model.trainable_variables)
        moments.append(optimizer._momentums[optimizer._get_variable_index(layer.kernel)].numpy())
    np.testing.assert_allclose(*moments, atol=1e-5)


@pytest.mark.parametrize("estimator", ["reparameterized", "sampled", "sticking_the_landing", "dreg"])
@pytest.mark.parametrize("batch", [1, 30], ids=["inputs turned", "kernels turned"])
def test_every_estimator_s_gradient_is_that_of_the_plain_layers_in_their_coordinates(estimator, batch):
    """A kernel's becomes A^T G - s^T g with axes A, centre times axes s and the bias's gradient g, which stays."""
    model = IWAE(7, (3, 2), ((6, 4), (5,)), k=3, estimator=estimator, seed=5)
    x, noise = tf.constant(np.round(grey_images(batch))), model.draw_noise(3, batch, tf.constant([1, 2]))

    def gradients():
        weights, uniform = tf.fill([batch], 1 / batch), rng.uniform([batch], (3, 4))
        _, found = model.estimator(model, model.objective, x, noise, weights, uniform)
        return {v.path: gradient.numpy() for v, gradient in zip(model.trainable_variables, found, strict=True)}

    plain, groups, random = gradients(), rotated.groups_of(model), np.random.default_rng(1)
    optimizer = rotated.RotatedAdam(groups, 0.01)
    optimizer.build(model.trainable_variables)
    for group in groups:
        inputs = group[0].kernel.shape[0]
        axes, _ = np.linalg.qr(random.normal(size=(inputs, inputs)))
        optimizer.change_coordinates(
            group, tf.constant(random.normal(size=inputs), "float32"), tf.constant(axes, "float32")
        )
    turned = gradients()
    for layer in (layer for group in groups for layer in group):
        centre, axes = layer.coordinates.centre.numpy(), layer.coordinates.axes.numpy()
        expected = axes.T @ plain[layer.kernel.path] - np.outer(centre @ axes, plain[layer.bias.path])
        np.testing.assert_allclose(turned[layer.bias.path], plain[layer.bias.path], atol=2e-4)
        np.testing.assert_allclose(turned[layer.kernel.path], expected, atol=2e-4)


ROTATED = {"optimizer": "rotated_adam", "schedule": "cosine", "epsilon": 1e-8, "first_k": 2, "first_k_epochs": 2}


@pytest.mark.slow
def test_a_continued_run_is_the_uninterrupted_one(tmp_path):
    """With all of the fast protocol but the estimator. Its model can be saved and loaded as any."""
    model, rows = train(tmp_path / "whole", **ROTATED)
    assert type(model.optimizer) is keras.optimizers.Adam and int(model.optimizer.iterations) == 20
    model.save(tmp_path / "x.keras")
    np.testing.assert_allclose(log_weights(keras.models.load_model(tmp_path / "x.keras")), log_weights(model))
    assert rows[-1]["valid_bound"] > rows[0]["valid_bound"]
    for times in (1, 7):
        train(tmp_path / "stopped", stop_when_asked(times), **ROTATED)
    continued, continued_rows = train(tmp_path / "stopped", **ROTATED)
    assert_same(model, continued)
    assert without_times(continued_rows) == without_times(rows)


@pytest.mark.slow
def test_early_stopping_keeps_the_best_weights(tmp_path):
    """They are plain, whatever the coordinates were then."""
    seen = {}

    def watch(model):
        seen[int(model.optimizer.iterations)] = log_weights(model)
        return False

    changes = {"optimizer": "rotated_adam", "schedule": "multistep", "milestones": (2,), "gamma": 50, "epochs": 9}
    model, rows = train(tmp_path, watch, early_stopping_patience=2, **changes)
    best = rows[np.argmax([row["valid_bound"] for row in rows])]["updates"]
    assert best < rows[-1]["updates"]
    np.testing.assert_allclose(log_weights(model), seen[best], atol=1e-4)
