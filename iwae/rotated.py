"""Adam in coordinates in which the inputs of every dense layer are centred and uncorrelated.

Adam gives every weight a step of its own size, which helps as far as the weights are the right axes. The inputs of a
tanh layer are correlated and have a mean, so the loss is a narrow valley along sums of weights. Here the inputs of each
dense layer are centred and turned to the principal axes of their covariance, and Adam trains the kernel and bias that
act on these (Adam in one of the two eigenbases of SOAP, Vyas et al. 2024, or of EKFAC, George et al. 2018; here that of
the inputs, which are seen in the forward pass). The model is the same function at every moment; at the end it is
ordinary weights again.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from iwae import rng
from iwae.callbacks import State
from iwae.layers import Coordinates, Dense, Network
from iwae.model import IWAE

IMAGES = 5_000  # whose layer inputs the axes are taken from


def groups_of(model: IWAE) -> list[list[Dense]]:
    """The dense layers of a model, those that have the same inputs together; the one that sees the data is first.

    Networks of a user's own have none: for them `RotatedAdam` is Adam.
    """
    networks = [network for network in (*model.encoder, *model.decoder) if isinstance(network, Network)]
    return [group for network in networks for group in (*([layer] for layer in network.hidden), network.heads())]


class RotatedAdam(keras.optimizers.Adam):
    """Adam that keeps the coordinates of dense layers among its variables, so that a checkpoint holds them.

    Args:
        groups: dense layers, those that have the same inputs together. Their kernels and biases are the ones for these
            coordinates from `build` to `restore_plain`.
    """

    def __init__(self, groups: Sequence[Sequence[Dense]], *args: Any, **kwargs: Any):
        super().__init__(*args, **kwargs)
        self.groups = groups

    def build(self, variables: Sequence[keras.Variable]) -> None:
        super().build(variables)
        for group in self.groups:
            inputs, name = group[0].kernel.shape[0], group[0].kernel.path.replace("/", "_")
            coordinates = Coordinates(
                self.add_variable((inputs,), name=f"{name}_centre"),
                self.add_variable((inputs, inputs), keras.initializers.Identity(), name=f"{name}_axes"),
            )
            for layer in group:
                layer.coordinates = coordinates

    def change_coordinates(self, group: Sequence[Dense], centre: np.ndarray, axes: np.ndarray) -> None:
        """Goes over to other ones: the layers stay the same functions, and the moments go with their kernels."""
        coordinates = group[0].coordinates
        assert coordinates is not None
        turn = axes.T @ coordinates.axes.numpy()
        shift = (centre - coordinates.centre.numpy()) @ axes
        for layer in group:
            kernel = turn @ layer.kernel.numpy()
            layer.kernel.assign(kernel)
            layer.bias.assign(layer.bias.numpy() + shift @ kernel)
            index = self._get_variable_index(layer.kernel)
            for moments, turned in ((self._momentums, turn), (self._velocities, turn**2)):
                # Of the squares this is exact where gradients are uncorrelated in the old coordinates.
                moments[index].assign(turned @ moments[index].numpy())
        coordinates.centre.assign(centre)
        coordinates.axes.assign(axes)

    def plain_weights(self) -> dict[str, np.ndarray]:
        """The ordinary kernels and biases of the layers by their paths."""
        weights: dict[str, np.ndarray] = {}
        for layer in (layer for group in self.groups for layer in group):
            assert layer.coordinates is not None
            kernel = layer.coordinates.axes.numpy() @ layer.kernel.numpy()
            bias = layer.bias.numpy() - layer.coordinates.centre.numpy() @ kernel
            weights |= {layer.kernel.path: kernel, layer.bias.path: bias}
        return weights

    def restore_plain(self) -> None:
        """Makes the layers ordinary ones again: the end of training."""
        for group in self.groups:
            inputs = group[0].kernel.shape[0]
            self.change_coordinates(group, np.zeros(inputs, np.float32), np.eye(inputs, dtype=np.float32))
            for layer in group:
                layer.coordinates = None


class NewCoordinates(keras.callbacks.Callback):
    """Takes the coordinates anew from the layers' inputs at the start of every epoch.

    Those of the layer that sees the data are taken once, for its inputs do not change.

    Args:
        model: an `IWAE` that holds its training set, with a `RotatedAdam`.
        state: of the training.
        seed: of the images that are looked at, their binarization and the noise.
    """

    def __init__(self, model: IWAE, state: State, seed: int):
        super().__init__()
        self._network, self._state, self._seed = model, state, seed

    def on_epoch_begin(self, epoch: int, logs: Mapping[str, Any] | None = None) -> None:
        if self._state.update:
            return  # in the middle of one: they are those of the checkpoint
        model, count = self._network, min(IMAGES, self._state.examples)
        assert model.images is not None
        numbers = np.random.default_rng([self._seed, epoch]).choice(self._state.examples, count, replace=False)
        seed = rng.stream(self._seed, epoch, "coordinates")
        x = model.images.batch(tf.constant(numbers, tf.int32), rng.fold(seed, 0))
        groups = model.optimizer.groups[1 if epoch else 0 :]
        for group in groups:
            group[0].inputs_seen = []
        model.log_weight_terms(x, model.draw_noise(1, count, seed))
        for group in groups:
            (inputs,), group[0].inputs_seen = group[0].inputs_seen, None
            centre = tf.reduce_mean(inputs, axis=0)
            covariance = tf.matmul(inputs - centre, inputs - centre, transpose_a=True) / count
            _, axes = np.linalg.eigh(covariance.numpy().astype(np.float64))
            model.optimizer.change_coordinates(group, centre.numpy(), axes.astype(np.float32))
