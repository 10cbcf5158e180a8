"""One training on several devices and processes: a batch is cut into shares, whose gradients are added up.

Every device has a model of its own, with its optimizer and the training set. What is random is drawn on each for the
whole batch and cut as the batch is, and sums are in the order of the shares: a run depends on their number, but not on
the devices. Only vectors of the length of all weights go between devices.

Several processes (`iwae.team`) have as many devices each. The first one trains, with all that goes on beside it; the
others do the same updates from the same weights, which they are told before each block of updates.

Keras's `fit` under a strategy of TensorFlow would not do: each replica draws the noise of a whole batch of its own, all
of them the same, gradients of means over replicas are added up, and XLA knows no sum over the CPUs of a host.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from iwae import batches
from iwae.batches import ResidentImages
from iwae.callbacks import State
from iwae.model import IWAE
from iwae.team import Message, Team

Program = Callable[..., tf.Tensor]


class Shares(keras.callbacks.Callback):
    """Makes the updates of a model from shares of their batches; as a callback, keeps its copies equal.

    Args:
        model: an `IWAE` that holds its training set, with its optimizer, on the first device. From now on its updates
            are those of `update`; it must be compiled without XLA, in which there is no way to another device.
        shares: S.
        batch: B, a multiple of S.
        state: of the training.
        team: of whose devices, in all processes together, S is a multiple.
        prepare: gives a copy of the model the same training set and optimizer, on the device that is set.
    """

    def __init__(
        self, model: IWAE, shares: int, batch: int, state: State, team: Team, prepare: Callable[[IWAE], object]
    ):
        super().__init__()
        self._shares, self._batch, self._state, self._team = shares, batch, state, team
        self._networks = copies(model, team.devices)
        for device, network in zip(team.devices, self._networks, strict=True):
            if network is not model:
                with tf.device(device):
                    prepare(network)
            with tf.device(device):  # where a variable stays; a tensor would go around with the loop over updates
                assert isinstance(network.images, ResidentImages)
                network.images.values = tf.Variable(network.images.values, trainable=False)
        self._programs = [_programs(network, batch // shares) for network in self._networks]
        self._equalize = tf.function(self._assign, autograph=False)
        self._followed = tf.function(lambda indices, _: model.train_step((indices,)), autograph=False)
        model.hold(model.images, self.update)

    def update(self, indices: tf.Tensor) -> tf.Tensor:
        """As `IWAE.update_from`: one update of every copy, from indices [B] of the whole batch."""
        indices = tf.ensure_shape(indices, [self._batch])
        of_shares, bounds = [], []
        own = self._shares // self._team.size
        for share in range(own):
            i = share * len(self._networks) // own
            self._networks[i].samples_per_example = samples = self._networks[0].samples_per_example
            with tf.device(self._team.devices[i]):
                number = tf.constant(self._team.index * own + share)
                of_shares.append(self._programs[i][0](indices, number, samples))
        if self._team.size > 1:
            of_all = self._team.gather(tf.stack(of_shares))
            of_shares = tf.unstack(tf.reshape(of_all, [self._shares, of_all.shape[-1]]))
        for device, (_, apply) in zip(self._team.devices, self._programs, strict=True):
            with tf.device(device):
                bounds.append(apply(of_shares))
        return bounds[0]

    def on_train_batch_begin(self, batch: int, logs: Mapping[str, Any] | None = None) -> None:
        """Copies what a checkpoint or a callback has given the model, such as another learning rate."""
        if len(self._networks) > 1:
            self._equalize()
        if self._team.size > 1:
            first, state = self._networks[0], self._state
            position = [state.epoch, state.update, first.samples_per_example]
            self._team.tell("block", position=position, **values(_variables(first)))

    def follow(self, seed: int, wish: Callable[[], bool]) -> Message:
        """Does the updates of the first process in another one; what that tells after the last block of them.

        `seed` is that of the order of the images; `wish` says whether this process wants training to stop.
        """
        first, state = self._networks[0], self._state
        while (message := self._team.hear(wish()))[0] == "block":
            epoch, update, first.samples_per_example = map(int, message[1].pop("position"))
            assign(_variables(first), message[1])
            if len(self._networks) > 1:
                self._equalize()
            blocks = batches.index_blocks(state.examples, state.batch, state.rows, seed, epoch, update)
            self._followed(tf.constant(next(blocks)[0]), first.samples_per_example)
        return message

    def _assign(self) -> None:
        first, *others = map(_variables, self._networks)
        for other in others:
            for variable, value in zip(other, first, strict=True):
                variable.assign(value.value)


def copies(model: IWAE, devices: Sequence[str]) -> list[IWAE]:
    """The model, for the first of the devices, and one like it on each of the others, with weights of its own."""
    found = [model]
    for device in devices[1:]:
        with tf.device(device):
            found.append(type(model).from_config(model.get_config()))
    return found


def values(variables: Sequence[keras.Variable]) -> dict[str, np.ndarray]:
    """The values of variables, named by their places, for a message to another process."""
    return {f"variable_{i}": variable.numpy() for i, variable in enumerate(variables)}


def assign(variables: Sequence[keras.Variable], message: Mapping[str, np.ndarray]) -> None:
    """Gives variables the `values` of others like them."""
    for i, variable in enumerate(variables):
        variable.assign(message[f"variable_{i}"])


def _variables(model: IWAE) -> list[keras.Variable]:
    return [*model.variables, *model.optimizer.variables]


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
