"""Bounds on log p(x): pure functions from log weights [k, B] to one bound per example [B], in nats.

A log weight is log w_i = log p(x, z_i) - log q(z_i | x) with z_i drawn from q(z | x); axis 0 holds the k samples,
axis 1 the B examples. Nothing here knows a model: any log weights will do. An objective is a bound with a name; the
name is what `Model.objective` says. A bound of your own takes a function and its registration:

    @iwae.bounds.register("median", "the median log weight (an example)")
    def median(log_weights):
        return tf.sort(log_weights, axis=0)[log_weights.shape[0] // 2]

A bound with parameters is a frozen dataclass with `__call__`; where a field has the name of one of `config.Model`, that
is its value. What else a bound may have, and what it is taken for where it has none:

    curvature(log_weights)  second derivative of the bound in each log weight alone, [k, B]; needed by `dreg`
    groups                  groups of k samples that it wants (1)
    for_encoder             another bound that the encoder is trained on (none)
    analytic_kl             the log weights are to have the KL divergence in closed form (False)
"""

import dataclasses
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

import tensorflow as tf

from iwae import config

Bound = Callable[[tf.Tensor], tf.Tensor]


class TwiceDifferentiable(Protocol):
    """A bound of which `iwae.estimators.dreg` can be taken."""

    def __call__(self, log_weights: tf.Tensor) -> tf.Tensor: ...

    def curvature(self, log_weights: tf.Tensor) -> tf.Tensor:
        """d^2 bound / d (log w_i)^2 for each sample: [k, B] -> [k, B]."""


_REGISTERED: dict[str, Any] = {}
_Registered = TypeVar("_Registered")


def register(name: str, description: str | None = None) -> Callable[[_Registered], _Registered]:
    """Makes a bound, a function or a dataclass of such, available as `Model.objective=name`.

    `description` is one line for `iwae.config.OBJECTIVES`; those there already need none.
    """

    def add(bound: _Registered) -> _Registered:
        config.OBJECTIVES.setdefault(name, description or name)
        _REGISTERED[name] = bound
        return bound

    return add


def get(name: str, **parameters: Any) -> Bound:
    """The bound registered as `name`, with its own parameters taken from `parameters`; others are ignored.

    Raises:
        ValueError: no objective of this name is registered.
    """
    if name not in _REGISTERED:
        raise ValueError(f"model.objective: expected one of {', '.join(sorted(_REGISTERED))}, got {name!r}")
    bound = _REGISTERED[name]
    if not isinstance(bound, type):
        return bound
    names = {field.name for field in dataclasses.fields(bound)}  # type: ignore[arg-type]
    return bound(**{key: value for key, value in parameters.items() if key in names})


def of(settings: config.Model) -> Bound:
    """The bound that parameters of a model name."""
    return get(
        settings.objective, **{field.name: getattr(settings, field.name) for field in dataclasses.fields(settings)}
    )


def name_of(bound: Bound) -> str | dict[str, Any]:
    """The inverse of `get`: the name, or a dictionary of name and parameters, as JSON has it.

    Raises:
        ValueError: the bound is not registered.
    """
    for name, registered in _REGISTERED.items():
        if bound is registered:
            return name
        if type(bound) is registered:
            return {"name": name, **dataclasses.asdict(bound)} if dataclasses.fields(bound) else name  # type: ignore
    raise ValueError(f"objective: expected a bound that is registered (iwae.bounds.register), got {bound!r}")


def as_bound(objective: str | dict[str, Any] | Bound) -> Bound:
    """The bound of that name, of what `name_of` gave, or itself; raises ValueError for what is none."""
    if isinstance(objective, str):
        return get(objective)
    if isinstance(objective, dict):
        return get(**objective)
    if not callable(objective):
        raise ValueError(f"objective: expected the name of a bound or one of iwae.bounds, got {objective!r}")
    return objective


@register("vae")
@dataclass(frozen=True)
class Elbo:
    """L_1 estimated by the mean of k log weights (Burda et al. 2015, eq. 3)."""

    def __call__(self, log_weights: tf.Tensor) -> tf.Tensor:
        return tf.reduce_mean(log_weights, axis=0)

    def curvature(self, log_weights: tf.Tensor) -> tf.Tensor:
        return tf.zeros_like(log_weights)


@register("vae_analytic_kl")
@dataclass(frozen=True)
class AnalyticElbo(Elbo):
    """L_1 of log weights whose KL term is in closed form; one stochastic layer."""

    analytic_kl = True


@register("iwae")
@dataclass(frozen=True)
class ImportanceWeighted:
    """L_k = log 1/k sum_i w_i (Burda et al. 2015, eq. 8)."""

    def __call__(self, log_weights: tf.Tensor) -> tf.Tensor:
        return tf.reduce_logsumexp(log_weights, axis=0) - math.log(log_weights.shape[0])

    def curvature(self, log_weights: tf.Tensor) -> tf.Tensor:
        normalized = normalized_weights(log_weights)
        return normalized * (1 - normalized)


elbo = Elbo()
"""L_1, the mean of log weights [k, B]: -> [B], nats."""

importance_weighted = ImportanceWeighted()
"""L_k, the log mean of the weights, of log weights [k, B]: -> [B], nats."""


@register("renyi")
@dataclass(frozen=True)
class Renyi:
    """Renyi bound 1 / (1 - alpha) log 1/k sum_i w_i^(1 - alpha) (Li & Turner 2016, eq. 9).

    alpha = 0 is the IWAE bound; alpha -> 1 is L_1, and is taken for it where float32 could not tell them apart.
    """

    alpha: float = 0.5
    LIMIT = 1e-4  # of |1 - alpha|: nearer, the rounding of the logarithm is larger than the difference

    def __call__(self, log_weights: tf.Tensor) -> tf.Tensor:
        order = 1 - self.alpha
        if abs(order) < self.LIMIT:
            return elbo(log_weights)
        return importance_weighted(order * log_weights) / order

    def curvature(self, log_weights: tf.Tensor) -> tf.Tensor:
        order = 1 - self.alpha
        return order * importance_weighted.curvature(order * log_weights)


@register("miwae")
@dataclass(frozen=True)
class Miwae:
    """Mean over groups of the bound L_k of each group of k samples (Rainforth et al. 2018)."""

    groups: int = 1

    def __call__(self, log_weights: tf.Tensor) -> tf.Tensor:
        return tf.reduce_mean(importance_weighted(self._grouped(log_weights)), axis=0)

    def curvature(self, log_weights: tf.Tensor) -> tf.Tensor:
        of_groups = importance_weighted.curvature(self._grouped(log_weights))
        return tf.reshape(of_groups, tf.shape(log_weights)) / self.groups

    def _grouped(self, log_weights: tf.Tensor) -> tf.Tensor:
        """[groups * k, B] -> [k, groups, B]: sample i of group g is number i * groups + g."""
        return tf.reshape(log_weights, [log_weights.shape[0] // self.groups, self.groups, -1])


@register("piwae")
@dataclass(frozen=True)
class Piwae(ImportanceWeighted):
    """L_(groups * k) for the decoder; the encoder's bound is `Miwae` (Rainforth et al. 2018)."""

    groups: int = 1

    @property
    def for_encoder(self) -> Miwae:
        return Miwae(self.groups)


@register("ciwae")
@dataclass(frozen=True)
class Ciwae:
    """mixture * L_1 + (1 - mixture) * L_k (Rainforth et al. 2018)."""

    mixture: float = 0.5

    def __call__(self, log_weights: tf.Tensor) -> tf.Tensor:
        return self.mixture * elbo(log_weights) + (1 - self.mixture) * importance_weighted(log_weights)

    def curvature(self, log_weights: tf.Tensor) -> tf.Tensor:
        return (1 - self.mixture) * importance_weighted.curvature(log_weights)


def normalized_weights(log_weights: tf.Tensor) -> tf.Tensor:
    """w~_i = w_i / sum_j w_j (Burda et al. 2015, eq. 14). [k, B] -> [k, B]; each column sums to one."""
    return tf.nn.softmax(log_weights, axis=0)


def effective_sample_size(log_weights: tf.Tensor) -> tf.Tensor:
    """(sum_i w_i)^2 / sum_i w_i^2, between 1 and k. [k, B] -> [B], in samples."""
    return tf.exp(2 * tf.reduce_logsumexp(log_weights, axis=0) - tf.reduce_logsumexp(2 * log_weights, axis=0))


def log_add_exp(a: tf.Tensor, b: tf.Tensor) -> tf.Tensor:
    """log(exp(a) + exp(b)), elementwise; either may be minus infinity."""
    return tf.reduce_logsumexp(tf.stack([a, b]), axis=0)
