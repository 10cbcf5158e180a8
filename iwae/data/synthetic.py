"""Synthetic data of known density, as in the predecessor."""

import math
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from iwae.data.catalogue import DatasetError, Entry, named
from iwae.data.dataset import SPLITS, Array, Dataset, assemble


class Density(Protocol):
    """What an entry of the catalogue names."""

    def draw(self, random: np.random.Generator, count: int) -> tuple[Array, Array | None]:
        """Examples [count, D], and the number of the cluster that each is from [count], or None."""

    def log_density(self, x: Array) -> Array:
        """log p(x), x [n, D] -> [n], nats."""


def generate(entry: Entry, seed: int, count: int) -> Dataset:
    """`count` examples for train and for test, a tenth of that, at least one, for valid; each split its own stream."""
    if count < 1:
        raise DatasetError(f"synthetic_examples: expected at least 1, got {count}")
    density: Density = named(entry.parser)
    arrays = {}
    for stream, (split, size) in enumerate(zip(SPLITS, (count, max(count // 10, 1), count), strict=True)):
        arrays[f"x_{split}"], labels = density.draw(np.random.default_rng([seed, stream]), size)
        if labels is not None:
            arrays[f"y_{split}"] = labels
    return assemble(entry.name, arrays, entry.kind, entry.shape, log_density=density.log_density)


@dataclass(frozen=True)
class _Clusters:
    """A mixture, in equal parts, of normal densities with one standard deviation."""

    means: tuple[tuple[float, ...], ...]
    sd: float

    def draw(self, random: np.random.Generator, count: int) -> tuple[Array, Array | None]:
        means = np.array(self.means)
        labels = random.integers(len(means), size=count)
        return means[labels] + self.sd * random.standard_normal((count, means.shape[1])), labels

    def log_density(self, x: Array) -> Array:
        means = np.array(self.means)
        squares = np.sum((np.asarray(x, np.float64)[:, None] - means) ** 2, axis=-1)
        normal = -0.5 * squares / self.sd**2 - means.shape[1] * (math.log(self.sd) + 0.5 * math.log(2 * math.pi))
        return np.logaddexp.reduce(normal, axis=1) - math.log(len(means))


class _Line:
    """x = (2z + 1 + e1, -2z + 1 + e2), z, e1, e2 standard normal: mean (1, 1) and covariance [[5, -4], [-4, 5]]."""

    def draw(self, random: np.random.Generator, count: int) -> tuple[Array, Array | None]:
        z = random.standard_normal((count, 1))
        return z * [2, -2] + 1 + random.standard_normal((count, 2)), None

    def log_density(self, x: Array) -> Array:
        # Along and across the line, (x1 - x2) / sqrt 2 and (x1 + x2) / sqrt 2 are independent, variances 9 and 1.
        a, b = (np.asarray(x, np.float64) - 1).T
        return -((a - b) ** 2) / 36 - (a + b) ** 2 / 4 - math.log(3) - math.log(2 * math.pi)


class _Circle:
    """A point of the circle of radius 3, uniform in the angle, and normal noise of standard deviation 0.4."""

    radius, sd = 3.0, 0.4

    def draw(self, random: np.random.Generator, count: int) -> tuple[Array, Array | None]:
        angle = random.uniform(0, 2 * math.pi, count)
        on_circle = self.radius * np.stack([np.cos(angle), np.sin(angle)], axis=1)
        return on_circle + self.sd * random.standard_normal((count, 2)), None

    def log_density(self, x: Array) -> Array:
        """The integral over the angle is a Bessel function: 2 pi I_0(t) = integral of exp(t cos a) over a."""
        i0e = named("scipy.special:i0e")  # exp(-t) I_0(t)
        distance = np.linalg.norm(np.asarray(x, np.float64), axis=1)
        bessel = np.log(i0e(distance * self.radius / self.sd**2))
        return bessel - 0.5 * ((distance - self.radius) / self.sd) ** 2 - math.log(2 * math.pi * self.sd**2)


CAMEL = _Clusters(means=((-1.0,), (1.0,)), sd=0.5)  # the predecessor's `two_close_clusters` is the same density
TWO_CLUSTERS = _Clusters(means=((-2.0,), (2.0,)), sd=0.5)
FOUR_CLUSTERS = _Clusters(means=((-2.0, -2.0), (-2.0, 2.0), (2.0, -2.0), (2.0, 2.0)), sd=0.7)
LINE = _Line()
CIRCLE = _Circle()
