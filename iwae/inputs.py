"""What a model is given through Keras, looked at before it is used: bad images are told in one line."""

import inspect
import itertools
import types
import warnings
from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import tensorflow as tf


def check_shape(shape: Any, dimensions: int) -> None:
    """Raises ValueError if it is not that of images [B, D], or [B, ...] with D numbers each."""
    shape = tf.TensorShape(shape)
    if shape.rank < 2 or shape[1:].num_elements() != dimensions:
        raise ValueError(f"x: expected shape [B, {dimensions}], got {list(shape)}")


def check_pixels(values: np.ndarray, likelihood: str, stacklevel: int) -> None:
    """Raises ValueError for values outside [0, 1], but for uint8 under a discretized logistic likelihood.

    Under a Bernoulli one it warns, `stacklevel` calls up, of those between.
    """
    low, high = _range(values)
    if likelihood == "discretized_logistic" and values.dtype == np.uint8:
        return
    if low < 0 or high > 1:
        hint = " (divide grey values by 255)" if low >= 0 and high <= 255 else ""
        raise ValueError(f"x: expected values from 0 to 1 with likelihood {likelihood!r}, got {low} to {high}{hint}")
    if likelihood == "bernoulli" and not np.all((values == 0) | (values == 1)):
        warnings.warn(
            "x: grey values as Bernoulli targets: the bounds are not log likelihoods; draw binary pixels first: "
            "x = np.random.default_rng(0).random(x.shape) < x",
            stacklevel=stacklevel,
        )


def check_real(values: np.ndarray, as_given: bool, stacklevel: int) -> None:
    """Raises ValueError for what is not finite; warns, `stacklevel` calls up, of a scale that is far from one.

    The latter if they are used `as_given`, by a model that does not know the moments of its data.
    """
    _range(values)
    flat = values.reshape(len(values), -1)
    size = np.sqrt(np.mean(np.square(flat, dtype=np.float64), axis=0))
    if as_given and len(flat) > 1 and (size.max() > 10 or size.max() < 0.1):
        warnings.warn(
            "x: expected data of mean 0 and standard deviation 1 without data_moments, got values of the order "
            f"{size.max():.3g}; IWAE(..., data_moments=(x.mean(0), x.std(0))) standardizes them",
            stacklevel=stacklevel,
        )


def _range(values: np.ndarray) -> tuple[Any, Any]:
    """The lowest and the highest; raises ValueError if there is none or one is not finite."""
    if not values.size or values.dtype.kind not in "buif":
        raise ValueError(f"x: expected numbers, got {f'dtype {values.dtype}' if values.size else 'no examples'}")
    low, high = values.min(), values.max()
    if not np.isfinite(low) or not np.isfinite(high):
        hint = " (a model whose `missing` is True takes it for a missing value)" if np.isnan(low) else ""
        raise ValueError(f"x: expected finite numbers, got {low if not np.isfinite(low) else high}{hint}")
    return low, high


def first_images(data: Any) -> tuple[Any, Any]:
    """The images of an array whole, of anything that gives batches those of the first; and the data to use then."""
    first = data
    if isinstance(data, tf.data.Dataset):
        first = next(iter(data.take(1)), None)
    elif isinstance(data, keras.utils.PyDataset):
        first = data[0]
    elif isinstance(data, types.GeneratorType):
        first = next(data, None)
        data = (batch for batch in itertools.chain([first], data))
    return images_in(first), data


def images_in(data: Any) -> Any:
    """x of what Keras makes steps from; raises ValueError for weights of examples."""
    x, _, sample_weight = keras.utils.unpack_x_y_sample_weight(data)
    if sample_weight is not None:
        raise ValueError("sample_weight: expected none, for every example counts the same, got some")
    return x


def arguments(method: Callable[..., Any], *args: Any, **kwargs: Any) -> dict[str, Any]:
    """Arguments of a method of Keras by their names; raises ValueError for weights of examples, which it may drop."""
    given = inspect.signature(method).bind(*args, **kwargs).arguments
    for name in ("sample_weight", "class_weight"):
        if given.get(name) is not None:
            raise ValueError(f"{name}: expected none, for every example counts the same, got some")
    return given | given.pop("kwargs", {})
