"""Why a training went wrong: updates done once more, one at a time, with a look at every tensor on the way.

Training itself looks at the bound alone, so that its compiled loop costs nothing more. Only when that is not finite is
the last block of updates repeated here, from the weights before it.
"""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from iwae import batches, device
from iwae.callbacks import State
from iwae.config import Training
from iwae.model import IWAE

LARGE_DATA = 100.0  # data beyond this are told of when training goes wrong: the networks expect about 1


class NonFiniteBound(ArithmeticError):
    """The bound or a weight became infinite or not a number; the message says where first, and what may help."""


class Watch(keras.callbacks.Callback):
    """Ends training with `NonFiniteBound` where the bound is not finite; before the other callbacks but `Time`.

    Args:
        model: an `IWAE` with its optimizer, on `batches.ResidentImages`.
        state: of the training.
        seed: of the order of the images.
        settings: `config.Training`.
    """

    def __init__(self, model: IWAE, state: State, seed: int, settings: Training):
        super().__init__()
        self._network, self._state, self._seed, self._settings = model, state, seed, settings
        self._snapshot = snapshot(model)

    def on_train_batch_begin(self, batch: int, logs: Mapping[str, Any] | None = None) -> None:
        self._before = self._snapshot()  # in case this block goes wrong
        self._epoch, self._update = self._state.epoch, self._state.update

    def on_train_batch_end(self, batch: int, logs: Mapping[str, Any] | None = None) -> None:
        if logs and logs["nonfinite_update"]:
            raise self.error(f"the bound is not finite at update {int(logs['nonfinite_update'])}")

    def error(self, what: str) -> NonFiniteBound:
        """The error, after a look at where it began: the last block of updates is done once more."""
        state = self._state
        blocks = batches.index_blocks(state.examples, state.batch, state.rows, self._seed, self._epoch, self._update)
        what += f" (epoch {self._epoch + 1})"
        with device.tf32(self._settings.tf32):
            found = first_nonfinite(self._network, next(blocks)[0], self._before)
        if found:
            update, names = found
            rest = f" and {len(names) - 3} more" if len(names) > 3 else ""
            what += f"; not finite first, at update {update}: {', '.join(names[:3])}{rest}"
        return NonFiniteBound(f"{what}; {self._advice()}")

    def _advice(self) -> str:
        images = self._network.images
        assert isinstance(images, batches.ResidentImages)
        largest = float(tf.reduce_max(tf.abs(self._network.standardized(tf.cast(images.values, tf.float32)))))
        if not math.isfinite(largest):
            return "the training data hold values that are not finite"
        if largest > LARGE_DATA and not images.stochastic:
            return f"the training data reach {largest:.3g}: scale them to about 1 (or try a smaller learning rate)"
        smaller = f"training.learning_rate smaller than {self._settings.learning_rate:g}"
        return f"try a {smaller}; with --name NAME and --accept-changes this run goes on with it"


def first_nonfinite(model: IWAE, block: np.ndarray, before: Sequence[tf.Tensor]) -> tuple[int, list[str]] | None:
    """The first update after which something is not finite, and what it is; None if all stays finite.

    The names are in the order of computation: images, then the network from the data upwards and down again, bound,
    gradients, weights. Of the first of these that is not finite, all are named.

    Args:
        model: an `IWAE` with its optimizer, on `batches.ResidentImages`. Its variables change.
        block: indices [S, B] of the updates, as `batches.index_blocks` yields them.
        before: what `snapshot` gave before the first of these updates.
    """
    for variable, value in zip(_states(model), before, strict=True):
        variable.assign(value)
    updates = int(model.optimizer.iterations)
    bad = [variable.path for variable in model.trainable_variables if not np.all(np.isfinite(variable.numpy()))]
    if bad:
        return updates, bad
    groups: list[list[str]] = []

    @tf.function(jit_compile=True)  # as the update itself is
    def finite(indices: tf.Tensor) -> list[tf.Tensor]:
        stages = list(_stages(model, indices))
        groups[:] = [[name for name, _ in stage] for stage in stages]
        return [tf.stack([tf.reduce_all(tf.math.is_finite(values)) for _, values in stage]) for stage in stages]

    for i, indices in enumerate(block, start=1):
        results = finite(tf.constant(indices))
        for names, flags in zip(groups, results, strict=True):
            if not np.all(flags):
                return updates + i, [name for name, flag in zip(names, flags.numpy(), strict=True) if not flag]
    return None


def snapshot(model: IWAE) -> Callable[[], list[tf.Tensor]]:
    """A function that returns the values, on their device, of all that an update starts from.

    One call into TensorFlow: a quarter of a millisecond for one layer, where a block of 100 updates takes 100.
    """
    return tf.function(lambda: [tf.identity(variable.value) for variable in _states(model)], autograph=False)


def _states(model: IWAE) -> list[keras.Variable]:
    return [*model.variables, *model.optimizer.variables]


def _stages(model: IWAE, indices: tf.Tensor) -> Iterator[list[tuple[str, tf.Tensor]]]:
    """The stages of one update, with what the network computes between: named tensors, those of one stage in a list."""
    x, valid = model.batch_of_update(indices)
    yield [("the training images", model.standardized(x))]
    stop = model.estimator_name in ("sticking_the_landing", "dreg")  # which take the density at a draw, by its inverse
    terms = model.log_weight_terms(x, model.noise_of_update(x.shape[0]), stop_posterior=stop)
    layers = range(1, len(terms.samples) + 1)
    for i, q, z in zip(layers, terms.posterior, terms.samples, strict=True):
        yield [(f"the mean of q(z{i})", q.mean), (f"the log standard deviation of q(z{i})", q.log_std)]
        yield [(f"the samples z{i}", z)]
    for i, values in zip(layers, terms.log_posterior, strict=True):
        yield [(f"log q(z{i})", values)]
    for i, values in reversed(list(zip(layers, terms.log_prior, strict=True))):
        yield [(f"log p(z{i})", values)]
    yield [("log p(x | z1)", terms.log_likelihood)]
    bound, gradients = model.gradients_of_update(x, valid)
    yield [("the bound", bound)]
    variables = model.trainable_variables
    yield [(f"the gradient of {v.path}", gradient) for v, gradient in zip(variables, gradients, strict=True)]
    model.apply_gradients(gradients)
    yield [(variable.path, variable.value) for variable in variables]
