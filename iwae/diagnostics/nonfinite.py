"""Why a training went wrong: updates done once more, one at a time, with a look at every tensor on the way.

Training itself looks at the bound alone, so that its compiled loop costs nothing more. Only when that is not finite is
the last block of updates repeated here, from the weights before it.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import tensorflow as tf


def first(model, block: np.ndarray, before: Sequence[tf.Tensor]) -> tuple[int, list[str]] | None:
    """The first update after which something is not finite, and what it is; None if all stays finite.

    The names are in the order of computation: images, then the network from the data upwards and down again, bound,
    gradients, weights. Of the first of these that is not finite, all are named.

    Args:
        model: an `IWAE` with its optimizer, on `ResidentImages`. Its variables change.
        block: indices [S, B] of the updates, as `training.index_blocks` yields them.
        before: what `snapshot` gave before the first of these updates.
    """
    for variable, value in zip(_states(model), before, strict=True):
        variable.assign(value)
    updates = int(model.optimizer.iterations)
    bad = [name for name, variable in _weights(model) if not np.all(np.isfinite(variable.numpy()))]
    if bad:
        return updates, bad
    groups: list[list[str]] = []

    @tf.function(jit_compile=True)  # as the update itself is
    def finite(indices):
        stages = list(_stages(model, indices))
        groups[:] = [[name for name, _ in stage] for stage in stages]
        return [tf.stack([tf.reduce_all(tf.math.is_finite(values)) for _, values in stage]) for stage in stages]

    for i, indices in enumerate(block[block[:, 0] >= 0], start=1):
        results = finite(tf.constant(indices))
        for names, flags in zip(groups, results, strict=True):
            if not np.all(flags):
                return updates + i, [name for name, flag in zip(names, flags.numpy(), strict=True) if not flag]
    return None


def snapshot(model) -> Callable[[], list[tf.Tensor]]:
    """A function that returns the values, on their device, of all that an update starts from.

    One call into TensorFlow: a quarter of a millisecond for one layer, where a block of 100 updates takes 100.
    """
    return tf.function(lambda: [tf.identity(variable.value) for variable in _states(model)], autograph=False)


def _states(model) -> list:
    return [*model.variables, *model.optimizer.variables]


def _stages(model, indices) -> Iterator[list[tuple[str, tf.Tensor]]]:
    """One update, as `IWAE.train_step` does it: its tensors with their names, those computed together in one list."""
    valid = tf.cast(indices >= 0, tf.float32)
    x = model.images.batch(tf.maximum(indices, 0), model._update_seed("binarize"))
    noise = model.draw_noise(model.samples_per_example, x.shape[0], model._update_seed("posterior"))
    yield [("the training images", x)]
    terms = model.log_weight_terms(x, noise)
    layers = range(1, len(noise) + 1)
    for i, (mean, log_std), z in zip(layers, terms.posterior, terms.samples, strict=True):
        yield [(f"the mean of q(z{i})", mean), (f"the log standard deviation of q(z{i})", log_std)]
        yield [(f"the samples z{i}", z)]
    for i, values in zip(layers, terms.log_posterior, strict=True):
        yield [(f"log q(z{i})", values)]
    for i, values in reversed(list(zip(layers, terms.log_prior, strict=True))):
        yield [(f"log p(z{i})", values)]
    yield [("log p(x | z1)", terms.log_likelihood)]
    bound, gradients = model.estimator(model, x, noise, valid / tf.reduce_sum(valid), model._update_seed("estimator"))
    yield [("the bound", bound)]
    names = [name for name, _ in _weights(model)]
    yield [(f"the gradient of {name}", gradient) for name, gradient in zip(names, gradients, strict=True)]
    model.optimizer.apply([-gradient for gradient in gradients], model.trainable_variables)
    yield [(name, variable.value) for name, variable in _weights(model)]


def _weights(model) -> list[tuple[str, Any]]:
    """The trainable variables with names that say where they are, as in `q_z1/hidden_2/kernel`."""
    named = {
        id(variable): f"{layer.name}/{variable.path}"
        for layer in (*model.encoder, *model.decoder)
        for variable in layer.trainable_variables
    }
    return [(named[id(variable)], variable) for variable in model.trainable_variables]
