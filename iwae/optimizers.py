"""Adam in the eigenbasis of the gradients' covariance (SOAP: Vyas et al. 2024, arXiv:2409.11321)."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np
import tensorflow as tf


@dataclass(frozen=True)
class _Matrix:
    """The kernel of a layer with its bias as a last row, or another variable, and what Adam keeps of it."""

    numbers: list[int]  # of the variables that it is made of
    moments: tuple[keras.Variable, keras.Variable]  # of the turned gradient
    rotations: dict[int, keras.Variable]  # by side, 0 and 1; none for a side that is not turned
    covariances: dict[int, keras.Variable]  # of the gradient, by the same sides


class Soap(keras.optimizers.Optimizer):
    """Adam on rotated gradients, for networks of dense layers.

    The kernel of a layer with its bias as a last row is one matrix; its gradient G [inputs + 1, outputs] is turned to
    left^T G right, Adam's moments are those of the turned gradient, and Adam's step is turned back. The columns of
    `left` and `right` are the eigenvectors of running means of G G^T and G^T G. A side larger than `largest` is not
    turned, nor is a variable that is no matrix. The running means are brought up to date every `every` updates, the
    rotations only by `refresh`, which is called from outside the compiled training loop; until then they are identities
    and the optimizer is Adam.

    Args:
        learning_rate: number or schedule.
        beta_1, beta_2, epsilon: Adam's.
        beta_covariance: decay of the running means.
        every: updates from one term of the running means to the next.
        largest: sides larger than this are not turned.
    """

    def __init__(
        self,
        learning_rate: float | keras.optimizers.schedules.LearningRateSchedule = 3e-3,
        beta_1: float = 0.9,
        beta_2: float = 0.999,
        epsilon: float = 1e-8,
        beta_covariance: float = 0.95,
        every: int = 10,
        largest: int = 256,
        name: str = "soap",
        **kwargs: Any,
    ):
        super().__init__(learning_rate=learning_rate, name=name, **kwargs)
        self.beta_1, self.beta_2, self.epsilon = beta_1, beta_2, epsilon
        self.beta_covariance, self.every, self.largest = beta_covariance, every, largest

    def build(self, variables: Sequence[keras.Variable]) -> None:
        if self.built:
            return
        super().build(variables)
        self.matrices: list[_Matrix] = []
        numbers = list(range(len(variables)))
        while numbers:
            own = [numbers.pop(0)]
            shape = list(variables[own[0]].shape)
            if (
                len(shape) == 2 and numbers and list(variables[numbers[0]].shape) == shape[1:]
            ):  # a kernel, then its bias
                own.append(numbers.pop(0))
                shape[0] += 1
            of = f"{len(self.matrices):02d}"
            sides = {side: n for side, n in enumerate(shape) if len(shape) == 2 and n <= self.largest}
            first, second = (self.add_variable(shape, "zeros", name=f"{name}_{of}") for name in ("first", "second"))
            rotations = {i: self.add_variable((n, n), _eye, name=f"rotation{i}_{of}") for i, n in sides.items()}
            covariances = {i: self.add_variable((n, n), "zeros", name=f"covariance{i}_{of}") for i, n in sides.items()}
            self.matrices.append(_Matrix(own, (first, second), rotations, covariances))

    def apply(self, grads: Sequence[tf.Tensor], trainable_variables: Sequence[keras.Variable] | None = None) -> None:
        if trainable_variables is not None:
            self.build(trainable_variables)
        step = tf.cast(self.iterations.value + 1, tf.float32)
        rate = tf.cast(self.learning_rate, tf.float32) * tf.sqrt(1 - self.beta_2**step) / (1 - self.beta_1**step)
        due = tf.cast(self.iterations.value, tf.int32) % self.every == 0
        for matrix in self.matrices:
            own = matrix.numbers
            gradient = grads[own[0]] if len(own) == 1 else tf.concat([grads[own[0]], grads[own[1]][None]], axis=0)
            for side, covariance in matrix.covariances.items():
                covariance.assign(tf.cond(due, *self._covariance(covariance.value, gradient, side)))
            rotations = {side: rotation.value for side, rotation in matrix.rotations.items()}
            turned = _turn(gradient, rotations)
            first, second = matrix.moments
            first.assign(self.beta_1 * first.value + (1 - self.beta_1) * turned)
            second.assign(self.beta_2 * second.value + (1 - self.beta_2) * tf.square(turned))
            change = _turn(rate * first.value / (tf.sqrt(second.value) + self.epsilon), rotations, back=True)
            parts = [change] if len(own) == 1 else [change[:-1], change[-1]]
            for number, part in zip(own, parts, strict=True):
                self._trainable_variables[number].assign_sub(part)
        self.iterations.assign_add(1)

    def refresh(self) -> None:
        """Turns to the eigenvectors of the present covariances; the first moments are turned along."""
        for matrix in self.matrices:
            turns = {}
            for side, covariance in matrix.covariances.items():
                if not np.all(np.isfinite(covariance)):  # training has gone wrong, which others tell
                    continue
                rotation = matrix.rotations[side]
                new = np.linalg.eigh(covariance.numpy())[1].astype(np.float32)
                turns[side] = rotation.numpy().T @ new
                rotation.assign(new)
            first, _ = matrix.moments
            first.assign(_turn(first.value, turns))

    def get_config(self) -> dict[str, Any]:
        names = ("beta_1", "beta_2", "epsilon", "beta_covariance", "every", "largest")
        return super().get_config() | {name: getattr(self, name) for name in names}

    def _covariance(
        self, mean: tf.Tensor, gradient: tf.Tensor, side: int
    ) -> tuple[Callable[[], tf.Tensor], Callable[[], tf.Tensor]]:
        """The running mean with another term, and without."""
        decay = self.beta_covariance

        def renewed() -> tf.Tensor:
            product = tf.matmul(gradient, gradient, transpose_a=side == 1, transpose_b=side == 0)
            return decay * mean + (1 - decay) * product

        return renewed, lambda: tf.identity(mean)


def _turn(matrix: tf.Tensor, rotations: Mapping[int, tf.Tensor], back: bool = False) -> tf.Tensor:
    """left^T matrix right, or with `back` left matrix right^T; `rotations` holds those there are by side, 0 and 1."""
    if 0 in rotations:
        matrix = tf.matmul(rotations[0], matrix, transpose_a=not back)
    if 1 in rotations:
        matrix = tf.matmul(matrix, rotations[1], transpose_b=back)
    return matrix


def _eye(shape: Sequence[int], dtype: Any = None) -> tf.Tensor:
    return tf.eye(shape[0], dtype=dtype or "float32")
