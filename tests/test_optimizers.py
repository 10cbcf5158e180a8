"""`iwae.optimizers.Soap`: Adam where nothing is turned, and Adam in other coordinates where it is."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from iwae.optimizers import Soap

RATE = 0.01


def dense(seed=0):
    """A layer's kernel [4, 3] and bias [3], and a variable of another kind."""
    random = np.random.default_rng(seed)
    return [keras.Variable(random.standard_normal(shape), dtype="float32") for shape in ((4, 3), (3,), (2, 2, 2))]


def gradients(seed):
    random = np.random.default_rng(seed)
    return [tf.constant(random.standard_normal(shape), tf.float32) for shape in ((4, 3), (3,), (2, 2, 2))]


@pytest.mark.parametrize("largest", [0, 256])
def test_without_rotations_it_is_adam(largest):
    """None is ever made with `largest` 0, and none before the first `refresh`."""
    one, other = dense(), dense()
    soap = Soap(RATE, epsilon=1e-4, largest=largest)
    adam = keras.optimizers.Adam(RATE, epsilon=1e-4)
    for step in range(5):
        soap.apply(gradients(step), one)
        adam.apply(gradients(step), other)
    for a, b in zip(one, other, strict=True):
        np.testing.assert_allclose(a, b, rtol=2e-3)  # its epsilon is added before the correction of the moments' bias


def test_a_refresh_turns_to_the_eigenvectors_of_the_gradients_covariance():
    soap, variables = Soap(RATE, every=1), dense()
    for step in range(30):
        soap.apply(gradients(step), variables)
    before = {matrix.numbers[0]: matrix.moments[0].numpy() for matrix in soap.matrices}
    soap.refresh()
    matrix, other = soap.matrices
    assert matrix.numbers == [0, 1] and other.numbers == [2] and not other.rotations
    for side, size in ((0, 5), (1, 3)):
        rotation, covariance = matrix.rotations[side].numpy(), matrix.covariances[side].numpy()
        np.testing.assert_allclose(rotation.T @ rotation, np.eye(size), atol=1e-5)
        diagonal = rotation.T @ covariance @ rotation
        np.testing.assert_allclose(diagonal, np.diag(np.diag(diagonal)), atol=1e-4)
    turned_back = matrix.rotations[0].numpy() @ matrix.moments[0].numpy() @ matrix.rotations[1].numpy().T
    np.testing.assert_allclose(turned_back, before[0], atol=1e-6)  # the same direction, in other coordinates


def test_it_is_adam_in_other_coordinates():
    """For given rotations: the turned kernel and bias, stepped by Adam along the turned gradients, and turned back."""
    random = np.random.default_rng(0)
    left, right = (np.linalg.qr(random.standard_normal((n, n)))[0].astype(np.float32) for n in (5, 3))
    variables = dense()
    soap = Soap(RATE, epsilon=1e-4)
    soap.build(variables)
    for rotation, values in zip(soap.matrices[0].rotations.values(), (left, right), strict=True):
        rotation.assign(values)

    def joined(kernel, bias):
        return np.concatenate([kernel, np.array(bias)[None]])

    turned = keras.Variable(left.T @ joined(*variables[:2]) @ right)
    adam = keras.optimizers.Adam(RATE, epsilon=1e-4)
    for step in range(5):
        soap.apply(gradients(step), variables)
        adam.apply([tf.constant(left.T @ joined(*gradients(step)[:2]) @ right)], [turned])
    np.testing.assert_allclose(joined(*variables[:2]), left @ turned.numpy() @ right.T, atol=1e-4)
