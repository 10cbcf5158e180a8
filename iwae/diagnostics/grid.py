"""The posterior p(z | x) of given inputs by quadrature, and what stands for it: q and q_IW, on a grid.

q(z | x) is what the recognition network gives. An IWAE with k samples is a VAE whose posterior is q_IW, the density of
one of k draws from q picked by its normalized weight (Cremer, Morris & Duvenaud 2017, "Reinterpreting
importance-weighted autoencoders"); k = 1 is q. Hamiltonian Monte Carlo on the true posterior of models of any size is
in `iwae.diagnostics.annealing`.
"""

import dataclasses
import math
import warnings
from collections.abc import Callable, Sequence

import numpy as np
import tensorflow as tf
from scipy import special

from iwae.model import IWAE

REACH = 8.0  # of the first, coarse grid, in standard deviations of the prior around its mean
COARSE = 100  # points of the coarse grids along each dimension
NATS = 12.0  # the fine grid holds what lies at most so much below the highest density
SCALES = 4.0  # and so many standard deviations of q
BORDER_MASS = 1e-3  # posterior probability at the border of the grid above which there is a warning
COARSENESS = 0.02  # nats by which log p(x) may depend on the grid before there is a warning
DRAWS = 100_000  # from q, in groups over which q_IW is averaged
ROWS = 10_000  # samples in one matrix product

Axes = tuple[np.ndarray, ...]
LogDensity = Callable[[np.ndarray, np.ndarray], np.ndarray]


@dataclasses.dataclass(frozen=True)
class GridPosterior:
    """The posterior of one input on a grid; densities [G2, G1] as of `np.meshgrid`, or [G1] for one latent unit."""

    axes: Axes  # evenly spaced points along each latent dimension: [G1], [G2]
    log_evidence: float  # log p(x) by quadrature, nats
    true: np.ndarray  # p(z | x), per unit of area (length)
    q_iw: dict[int, np.ndarray]  # q_IW by k; that of k = 1 is q
    kl: dict[int, float]  # KL(q_IW || p(z | x)) by k, nats

    @property
    def cell(self) -> float:
        """Area (length) of a cell: the integral of a density is its sum times this."""
        return math.prod(float(axis[1] - axis[0]) for axis in self.axes)


def applies(model: IWAE) -> bool:
    """Whether `on_grid` can be had of `model`: one stochastic layer of one or two units."""
    return len(model.latent_units) == 1 and model.latent_units[0] <= 2


def on_grid(
    model: IWAE, images: np.ndarray, seed: int, ks: Sequence[int] = (1, 10, 100), points: int = 200
) -> list[GridPosterior]:
    """The true posterior of each image [n, D], and q_IW for each of `ks`, on a grid of `points` along each dimension.

    The true one is normalized by quadrature. The grid is laid around the mass of both; there is a warning if some of
    the posterior's is found at its border, or if a grid around q too is too coarse for the posterior. q_IW is, with
    weights w(z) = p(x, z) / q(z | x) and z_2 ... z_k from q,

        q_IW(z) = q(z | x) E[ k w(z) / (w(z) + w(z_2) + ... + w(z_k)) ]

    averaged over groups of `DRAWS` draws, an unbiased estimate at every point.

    Raises:
        ValueError: `applies` is false.
    """
    if not applies(model):
        raise ValueError(f"model: expected one stochastic layer of 1 or 2 units, got latent_units {model.latent_units}")
    densities = _by_rows(lambda x, z: _log_joint(model, x, z)), _by_rows(lambda x, z: model.posterior(x).log_prob(z))
    return [_on_grid(model, *densities, image, [seed, i], ks, points) for i, image in enumerate(images)]


def _on_grid(
    model: IWAE,
    log_joint: LogDensity,
    log_q: LogDensity,
    image: np.ndarray,
    seed: list[int],
    ks: Sequence[int],
    points: int,
) -> GridPosterior:
    (units,), random = model.latent_units, np.random.default_rng(seed)
    noise = tf.constant(random.standard_normal((DRAWS, 1, units)), tf.float32)
    draws = model.posterior(image[None]).draw(noise)
    drawn, log_q_of_drawn = (values.numpy()[:, 0].astype(np.float64) for values in draws)
    joint_of_drawn = log_joint(image, drawn)
    reach = tf.constant([[-REACH], [REACH]]) * tf.ones([1, units])
    of_prior = model.from_prior(reach, image[None]).numpy().astype(np.float64)
    axes, closer = _axes_around_mass(lambda z: log_joint(image, z), drawn, joint_of_drawn, of_prior, points)
    z = _points(axes)
    joint, q = log_joint(image, z), log_q(image, z)
    log_evidence = _log_integral(joint, axes)
    log_true = joint - log_evidence
    log_weights = joint_of_drawn - log_q_of_drawn
    q_iw = {k: np.exp(q) * _share(joint - q, log_weights, k) for k in ks}
    shape = tuple(len(axis) for axis in axes[::-1])
    result = GridPosterior(
        axes=axes,
        log_evidence=log_evidence,
        true=np.exp(log_true).reshape(shape),
        q_iw={k: density.reshape(shape) for k, density in q_iw.items()},
        kl={k: _divergence(density, log_true) for k, density in q_iw.items()},
    )
    at_border = 1 - result.true[(slice(1, -1),) * len(shape)].sum() * result.cell
    if at_border > BORDER_MASS:
        warnings.warn(f"{at_border:.1%} of the posterior lies at the border of its grid: some is outside", stacklevel=3)
    elif abs(log_evidence - closer) > COARSENESS:
        warnings.warn(
            f"{points} points a side around q are too coarse for the posterior: "
            f"log p(x) is {log_evidence:.2f} nats on them and {closer:.2f} on a closer grid",
            stacklevel=3,
        )
    return result


def _share(log_weight: np.ndarray, log_weights: np.ndarray, k: int) -> np.ndarray:
    """E[k w / (w + w_2 + ... + w_k)] for log w [G], by the mean over groups of log weights [DRAWS] of draws from q."""
    if k == 1:
        return np.ones(len(log_weight))
    others = np.logaddexp.reduce(log_weights[: DRAWS // k * k].reshape(k, -1)[1:], axis=0)
    # A smooth function of one number: proportional to w where w is small, one where it is large, tabulated between.
    low, high = np.min(others) - 12, np.max(others) + 12
    table = np.linspace(low, high, 300)
    values = np.log(np.mean(special.expit(table[:, None] - others), axis=1))
    return k * np.exp(np.interp(log_weight, table, values) + np.minimum(log_weight - low, 0))


def _log_joint(model: IWAE, x: tf.Tensor, z: tf.Tensor) -> tf.Tensor:
    return model.log_likelihood(x, z) + model.log_prior(z, x)


def _by_rows(of: Callable[[tf.Tensor, tf.Tensor], tf.Tensor]) -> LogDensity:
    """A log density `of` x [1, D] and z [N, 1, d], [N, 1], compiled: a function of x [D] and z [N, d] -> [N], nats."""

    @tf.function(jit_compile=True, autograph=False)
    def of_rows(x: tf.Tensor, z: tf.Tensor) -> tf.Tensor:
        return of(x[None], z[:, None])[:, 0]

    def log_density(x: np.ndarray, z: np.ndarray) -> np.ndarray:
        parts = np.arange(-(-len(z) // ROWS) * ROWS) % len(z)  # filled up, so that one shape is compiled, and cut
        rows = z.astype(np.float32)[parts].reshape(-1, ROWS, z.shape[1])
        x = tf.constant(x, tf.float32)
        return np.concatenate([of_rows(x, tf.constant(part)) for part in rows])[: len(z)].astype(np.float64)

    return log_density


def _axes_around_mass(
    log_joint: Callable[[np.ndarray], np.ndarray],
    drawn: np.ndarray,
    joint_of_drawn: np.ndarray,
    of_prior: np.ndarray,
    points: int,
) -> tuple[Axes, float]:
    """Axes of a grid around what matters of the posterior and of q; log p(x) on one around the former alone.

    What matters is found on three coarse grids, each finer, and among draws of q, which hit a mode that is narrower
    than the first grid's spacing.
    """
    low, high = of_prior
    mean, std = drawn.mean(axis=0), drawn.std(axis=0)
    for _ in range(3):
        grid = _points(_axes(low, high, COARSE))
        z, values = np.concatenate([grid, drawn]), np.concatenate([log_joint(grid), joint_of_drawn])
        dense = z[values > values.max() - NATS]
        step = (high - low) / (COARSE - 1)
        low, high = dense.min(axis=0) - step, dense.max(axis=0) + step
    closer = _axes(low, high, COARSE)
    axes = _axes(np.minimum(low, mean - SCALES * std), np.maximum(high, mean + SCALES * std), points)
    return axes, _log_integral(log_joint(_points(closer)), closer)


def _log_integral(values: np.ndarray, axes: Axes) -> float:
    """Logarithm of the integral of exp(values), [G] at the points of a grid."""
    return float(np.logaddexp.reduce(values)) + sum(math.log(axis[1] - axis[0]) for axis in axes)


def _axes(low: np.ndarray, high: np.ndarray, points: int) -> Axes:
    return tuple(np.linspace(a, b, points) for a, b in zip(low, high, strict=True))


def _points(axes: Axes) -> np.ndarray:
    """All points of a grid, the first dimension running fastest: [G, d]."""
    return np.stack([values.ravel() for values in np.meshgrid(*axes)], axis=-1)


def _divergence(density: np.ndarray, log_true: np.ndarray) -> float:
    """KL(density || true) by quadrature on points [G], the density normalized there; nats."""
    density = density / density.sum()
    inside = density > 0
    true = log_true[inside] - np.logaddexp.reduce(log_true)
    return float(np.sum(density[inside] * (np.log(density[inside]) - true)))
