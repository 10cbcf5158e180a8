"""Adam in coordinates in which the inputs of every dense layer are centred and uncorrelated.

Adam gives every weight a step of its own size, which helps as far as the weights are the right axes. The inputs of a
tanh layer are correlated and have a mean, so the bound is a narrow ridge along sums of weights. Here the inputs of each
dense layer are centred and turned to the principal axes of their covariance, and Adam trains the kernel and bias that
act on these. The model is the same function at every moment, and its weights are ordinary ones at the end. The nearest
relatives: Natural Neural Networks (Desjardins et al. 2015), which whiten the inputs in the same way for plain gradient
descent, and EKFAC (George et al. 2018), which scales gradients in the eigenbases of both sides of a layer.
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
    """The dense layers of a model, those that have the same inputs together, from the data upwards.

    Networks of a user's own have none, nor have the couplings of a flow: for them `RotatedAdam` is Adam.
    """
    networks = [network for network in (*model.encoder, *model.decoder) if isinstance(network, Network)]
    return [group for network in networks for group in (*([layer] for layer in network.hidden), network.heads())]


class RotatedAdam(keras.optimizers.Adam):
    """Adam that keeps the coordinates of dense layers among its variables, so that a checkpoint holds them.

    Args:
        groups: dense layers, those that have the same inputs together. Their kernels and biases are the ones for these
            coordinates from `build` to `plain_adam`.
    """

    def __init__(self, groups: Sequence[Sequence[Dense]], *args: Any, **kwargs: Any):
        super().__init__(*args, **kwargs)
        self.groups = groups

    def build(self, variables: Sequence[keras.Variable]) -> None:
        if self.built:
            return
        super().build(variables)
        for group in self.groups:
            inputs, name = group[0].kernel.shape[0], group[0].kernel.path.replace("/", "_")
            coordinates = Coordinates(
                self.add_variable((inputs,), name=f"{name}_centre"),
                self.add_variable((inputs, inputs), keras.initializers.Identity(), name=f"{name}_axes"),
            )
            for layer in group:
                layer.coordinates = coordinates

    def change_coordinates(self, group: Sequence[Dense], centre: tf.Tensor, axes: tf.Tensor) -> None:
        """Goes over to centre [I] and axes [I, I]: the layers stay the same functions, and Adam's moments go with them.

        With R = axes^T old_axes and s = (centre - old_centre) axes, kernel and bias become R kernel and bias + s R
        kernel, and a gradient of the kernel G becomes R G - s^T g, where g is that of the bias.
        """
        old = group[0].coordinates
        assert old is not None
        turn = tf.matmul(axes, tf.convert_to_tensor(old.axes), transpose_a=True)
        shift = tf.linalg.matvec(axes, centre - old.centre, transpose_a=True)
        for layer in group:
            kernel = tf.matmul(turn, tf.convert_to_tensor(layer.kernel))
            layer.kernel.assign(kernel)
            layer.bias.assign(layer.bias + tf.linalg.matvec(kernel, shift, transpose_a=True))
            of_kernel, of_bias = (self._get_variable_index(variable) for variable in (layer.kernel, layer.bias))
            momentum, velocity = self._momentums[of_kernel], self._velocities[of_kernel]
            of_shift = shift[:, None] * self._momentums[of_bias][None]
            momentum.assign(tf.matmul(turn, tf.convert_to_tensor(momentum)) - of_shift)
            # Exact where gradients are uncorrelated in the old coordinates, and the centre stays.
            velocity.assign(tf.matmul(tf.square(turn), tf.convert_to_tensor(velocity)))
        old.centre.assign(centre)
        old.axes.assign(axes)

    def plain_weights(self) -> dict[str, np.ndarray]:
        """The ordinary kernels and biases of the layers by their paths."""
        weights: dict[str, np.ndarray] = {}
        for layer in (layer for group in self.groups for layer in group):
            _, kernel, bias = layer.operands(tf.zeros([layer.units, layer.kernel.shape[0]]))
            weights |= {layer.kernel.path: kernel.numpy(), layer.bias.path: bias.numpy()}
        return weights

    def plain_adam(self) -> keras.optimizers.Adam:
        """Makes the layers ordinary ones again, and gives Keras's own optimizer that goes on from here."""
        for group in self.groups:
            inputs = group[0].kernel.shape[0]
            self.change_coordinates(group, tf.zeros(inputs), tf.eye(inputs))
            for layer in group:
                layer.coordinates = None
        adam = keras.optimizers.Adam.from_config(self.get_config() | {"name": "adam"})
        adam.build(self._trainable_variables)
        for variable, own in zip(adam.variables, self.variables, strict=False):  # coordinates come last
            variable.assign(own)
        return adam


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
        order = np.random.default_rng([self._seed, epoch, rng.STREAMS["coordinates"]])
        numbers = order.choice(self._state.examples, count, replace=False)
        seed = rng.stream(self._seed, epoch, "coordinates")
        x = model.images.batch(tf.constant(numbers, tf.int32), rng.fold(seed, 0))
        sees_data = groups_of(model)[:1] if isinstance(model.encoder[0], Network) else []
        groups = [group for group in model.optimizer.groups if epoch == 0 or group not in sees_data]
        for group in groups:
            group[0].inputs_seen = []
        model.log_weight_terms(x, model.draw_noise(1, count, seed))
        for group in groups:
            (inputs,), group[0].inputs_seen = group[0].inputs_seen, None
            centre = tf.reduce_mean(inputs, axis=0)
            covariance = tf.matmul(inputs - centre, inputs - centre, transpose_a=True) / count
            if not np.all(np.isfinite(covariance)):
                continue  # training tells what went wrong, and where
            with tf.device("CPU"):  # in the threads that the run has, which NumPy's would not keep to
                _, axes = tf.linalg.eigh(tf.cast(covariance, tf.float64))
            model.optimizer.change_coordinates(group, centre, tf.cast(axes, tf.float32))
