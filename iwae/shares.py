"""One training on several devices: the batch of an update is cut into shares, whose gradients are added up.

Every device has a model of its own, with its optimizer and the training set. What is random is drawn on each for the
whole batch and cut as the batch is, and sums are in the order of the shares: a run depends on their number, but not on
the devices. Only vectors of the length of all weights go between devices.

Keras's `fit` under a strategy of TensorFlow would not do: each replica draws the noise of a whole batch of its own, all
of them the same, gradients of means over replicas are added up, and XLA knows no sum over the CPUs of a host.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import keras
import tensorflow as tf

from iwae.batches import ResidentImages
from iwae.model import IWAE

Program = Callable[..., tf.Tensor]


class Shares(keras.callbacks.Callback):
    """Makes the updates of a model from shares of their batches; as a callback, keeps its copies equal.

    Args:
        model: an `IWAE` that holds its training set, with its optimizer, on the first device. From now on its updates
            are those of `update`; it must be compiled without XLA, in which there is no way to another device.
        shares: S.
        batch: B, a multiple of S.
        devices: their names; S is a multiple of their number.
        prepare: gives a copy of the model the same training set and optimizer, on the device that is set.
    """

    def __init__(self, model: IWAE, shares: int, batch: int, devices: Sequence[str], prepare: Callable[[IWAE], object]):
        super().__init__()
        self._shares, self._batch, self._devices, self._networks = shares, batch, devices, [model]
        for device in devices[1:]:
            with tf.device(device):
                copy = type(model).from_config(model.get_config())
                prepare(copy)
            self._networks.append(copy)
        for device, network in zip(devices, self._networks, strict=True):
            with tf.device(device):  # where a variable stays; a tensor would go around with the loop over updates
                assert isinstance(network.images, ResidentImages)
                network.images.values = tf.Variable(network.images.values, trainable=False)
        self._programs = [_programs(network, batch // shares) for network in self._networks]
        self._equalize = tf.function(self._assign, autograph=False)
        model.hold(model.images, self.update)

    def update(self, indices: tf.Tensor) -> tf.Tensor:
        """As `IWAE.update_from`: one update of every copy, from indices [B] of the whole batch."""
        indices = tf.ensure_shape(indices, [self._batch])
        of_shares, bounds = [], []
        for share in range(self._shares):
            i = share * len(self._devices) // self._shares
            self._networks[i].samples_per_example = samples = self._networks[0].samples_per_example
            with tf.device(self._devices[i]):
                of_shares.append(self._programs[i][0](indices, tf.constant(share), samples))
        for device, (_, apply) in zip(self._devices, self._programs, strict=True):
            with tf.device(device):
                bounds.append(apply(of_shares))
        return bounds[0]

    def on_train_batch_begin(self, batch: int, logs: Mapping[str, Any] | None = None) -> None:
        """Copies what a checkpoint or a callback has given the model, such as another learning rate."""
        if len(self._networks) > 1:
            self._equalize()

    def _assign(self) -> None:
        first, *copies = ([*network.variables, *network.optimizer.variables] for network in self._networks)
        for copy in copies:
            for variable, value in zip(copy, first, strict=True):
                variable.assign(value.value)


def _programs(model: IWAE, size: int) -> tuple[Program, Program]:
    """Compiled, on the device on which they are called: from indices [B], the number of a share of `size` examples and
    `samples_per_example` to its gradients and its part of the bound, as one vector; and from those of all shares to an
    update of the model and the bound."""

    @tf.function(jit_compile=True, autograph=False)
    def gradients(indices: tf.Tensor, share: tf.Tensor, samples: int) -> tf.Tensor:
        def cut(values: tf.Tensor, axis: int) -> tf.Tensor:
            parts = tf.reshape(values, [*values.shape[:axis], -1, size, *values.shape[axis + 1 :]])
            return tf.gather(parts, share, axis=axis)

        x, noise, weights, uniform = model.inputs_of_update(*model.batch_of_update(indices))
        own = cut(x, 0), [cut(values, 1) for values in noise], cut(weights, 0), cut(uniform, 0)
        bound, found = model.estimator(model, model.objective, *own)
        return tf.concat([tf.reshape(values, [-1]) for values in (*found, bound)], axis=0)

    @tf.function(jit_compile=True, autograph=False)
    def apply(of_shares: list[tf.Tensor]) -> tf.Tensor:
        variables = model.trainable_variables
        *found, bound = tf.split(sum(of_shares[1:], of_shares[0]), [*(math.prod(v.shape) for v in variables), 1])
        model.apply_gradients([tf.reshape(values, v.shape) for values, v in zip(found, variables, strict=True)])
        return bound[0]

    return gradients, apply
