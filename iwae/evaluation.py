"""Evaluation: log p(x) by L_k with many samples, the terms of the bound, active units, quality of the weights.

The k samples of an image are drawn in chunks inside one compiled function with a running log-sum-exp, so memory does
not grow with k. The noise of an image depends on the seed and on the number of the image alone: batches of any size
give the same result, and the last, smaller one counts exactly.
"""

import contextlib
import math
from collections.abc import Callable, Iterator, Sequence
from concurrent import futures
from typing import Any

import numpy as np
import tensorflow as tf

from iwae import batches, bounds, hardware, progress, rng, shares
from iwae.config import Evaluation
from iwae.layers import Network
from iwae.model import IWAE
from iwae.team import Team

BOUNDS = (1, 5, 50)  # L_k reported beside the one with all samples
CHUNK = 250  # samples of an image drawn at once
ROWS, ROWS_OF_GPU = 2000, 20_000  # samples x images at once; the latter with MNIST's pixels
ACTIVITY_SAMPLES = 100  # samples of the layers below over which the posterior mean of a unit is averaged


ENTRIES = (
    "examples", "k", "nll", "nll_stderr", "bounds", "elbo", "reconstruction", "kl", "active_units",
    "effective_sample_size", "nll_active_units_only", "true_log_likelihood", "bits_per_dimension",
    "weights_sha256", "binarization",
)  # fmt: skip
"""What an evaluation writes into the entry of a split in evaluation.json; tasks add others."""


class NonFiniteLogWeight(ArithmeticError):
    """A log weight is infinite or not a number; no mean over images can be trusted."""


def importance_sample(
    model: IWAE,
    images: np.ndarray,
    k: int,
    seed: int,
    bounds_at: Sequence[int] = BOUNDS,
    units: list[np.ndarray] | None = None,
    label: str | None = None,
    team: Team | None = None,
    batch: int | None = None,
) -> dict[str, np.ndarray]:
    """L_k and what belongs to it for each image.

    Args:
        model: an `IWAE`.
        images: [n, D].
        k: importance samples an image.
        seed: of the noise.
        bounds_at: further, smaller k whose L_k is estimated from the same samples, each as the mean over all groups of
            that size.
        units: for each stochastic layer [D_l] of 0 and 1: units with 0 are removed from the model. None: all stay.
        label: of the progress bar; None for no bar.
        team: among whose devices the images are dealt out; its other processes are told to `follow`. None: one device.
        batch: images at once. None: `batch_size`.

    Raises:
        NonFiniteLogWeight: a result is not finite; the message tells the image.

    Returns:
        Arrays [n], in nats: "log_likelihood_bound" (L_k), "bound_J" for each J of `bounds_at` up to k, "elbo" (L_1),
        "reconstruction" (E_q[log p(x | z_1)]), "kl" [n, layers] (E_q[log q(z_l | .) - log p(z_l | .)]), and in samples
        "effective_sample_size".
    """
    team, n, batch = team or Team(), len(images), batch or batch_size(model, k)
    if team.size > 1 and team.index == 0:
        more: dict[str, Any] = {} if units is None else {f"units_{i}": values for i, values in enumerate(units)}
        more |= {"images": images, "k": k, "seed": seed, "bounds_at": np.array(bounds_at, int), "batch": batch}
        team.tell("importance_sample", **more, **shares.values(model.variables))
    numbers = list(batches.filled(n, min(n, batch)))
    turns = -(-len(numbers) // team.size)
    own = [numbers[min(turn * team.size + team.index, len(numbers) - 1)] for turn in range(turns)]
    models = shares.copies(model, team.devices)
    for copy in models[1:]:
        copy.set_weights(model.get_weights())
    programs = [compile_importance_sampling(copy, k, bounds_at, units) for copy in models]

    def of_batch(turn: int) -> dict[str, np.ndarray]:
        place = turn % len(models)
        with tf.device(team.devices[place]):
            return programs[place](images[own[turn]], own[turn], seed)

    results = []
    with progress.Bar(n, label) as bar:
        for turn, result in enumerate(_side_by_side(of_batch, turns, len(models))):
            results.append(result)
            bar.update(min(n, (turn + 1) * team.size * len(own[0])))
    arrays = {}
    for name in results[0]:
        of_all = team.gather(tf.stack([result[name] for result in results])).numpy()  # [processes, turns, batch, ...]
        arrays[name] = np.swapaxes(of_all, 0, 1).reshape(-1, *of_all.shape[3:])[:n]
    team.work_done()
    wrong = np.flatnonzero(
        ~np.all([np.isfinite(values.reshape(n, -1)).all(axis=1) for values in arrays.values()], axis=0)
    )
    if len(wrong):
        raise NonFiniteLogWeight(
            f"the log weights of {len(wrong)} of {n} images are not finite, first of image {wrong[0]}: "
            f"{', '.join(f'{name} {values[wrong[0]]}' for name, values in arrays.items())}"
        )
    return arrays


def follow(model: IWAE, message: dict[str, np.ndarray], team: Team) -> None:
    """Takes part in the `importance_sample` of the first process, which its message tells of."""
    shares.assign(model.variables, message)
    units = [message[f"units_{i}"] for i in range(len(model.latent_units)) if f"units_{i}" in message]
    k, seed, bounds_at, batch = (message[name].tolist() for name in ("k", "seed", "bounds_at", "batch"))
    with contextlib.suppress(NonFiniteLogWeight):  # the first process tells
        importance_sample(model, message["images"], k, seed, bounds_at, units or None, team=team, batch=batch)


def _side_by_side(work: Callable[[int], Any], count: int, threads: int) -> Iterator[Any]:
    """`work` of 0 .. count - 1, in this order, some at a time."""
    if threads == 1:
        yield from map(work, range(count))
        return
    pool = futures.ThreadPoolExecutor(threads)
    try:
        yield from pool.map(work, range(count))
    finally:
        pool.shutdown(cancel_futures=True)


def batch_size(model: IWAE, k: int) -> int:
    """Images that are evaluated at once with k samples each; on a GPU more, if the outputs of no layer are large."""
    rows = ROWS
    if hardware.on_gpu() and all(isinstance(part, Network) for part in model.decoder):
        rows = max(ROWS, ROWS_OF_GPU * 784 // max(784, model.input_dim))
    return max(1, rows // min(k, CHUNK))


def compile_importance_sampling(
    model: IWAE, k: int, bounds_at: Sequence[int] = BOUNDS, units: list[np.ndarray] | None = None
) -> Callable[[np.ndarray, np.ndarray, int], dict[str, np.ndarray]]:
    """`importance_sample` for one batch: a compiled function of (images [B, D], numbers of the images [B], seed)."""
    chunk, depth = min(k, CHUNK), len(model.latent_units)
    chunks = math.ceil(k / chunk)
    last = k - (chunks - 1) * chunk
    bounds_at = [j for j in bounds_at if j <= chunk]
    counts = {"elbo": k, "reconstruction": k, **{f"kl_{i}": k for i in range(depth)}}  # of what each is the mean
    counts |= {f"bound_{j}": (chunks - 1) * (chunk // j) + last // j for j in bounds_at}

    def noise_of_chunk(c: tf.Tensor, numbers: tf.Tensor, seed: tf.Tensor) -> list[tf.Tensor]:
        """[chunk, B, D_l] for each layer, from a seed for each image, layer and chunk."""
        seeds = rng.fold(rng.stream(seed, numbers, "evaluate"), c)
        return [rng.normal_of_each(chunk, size, rng.fold(seeds, i)) for i, size in enumerate(model.latent_units)]

    @tf.function(jit_compile=True)
    def compiled(x: tf.Tensor, numbers: tf.Tensor, seed: tf.Tensor) -> dict[str, tf.Tensor]:
        def body(
            c: tf.Tensor, lse: tf.Tensor, lse_squared: tf.Tensor, sums: dict[str, tf.Tensor]
        ) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor, dict[str, tf.Tensor]]:
            terms = model.log_weight_terms(x, noise_of_chunk(c, numbers, seed), units)
            log_weights = terms.log_weights()
            used = tf.minimum(chunk, k - c * chunk)  # the last chunk may be cut
            masked = tf.where(tf.range(chunk)[:, None] < used, log_weights, -math.inf)
            found = {"elbo": (log_weights, used), "reconstruction": (terms.log_likelihood, used)}
            for i, (q, p) in enumerate(zip(terms.log_posterior, terms.log_prior, strict=True)):
                found[f"kl_{i}"] = q - p, used
            for j in bounds_at:
                groups = tf.reshape(log_weights[: chunk // j * j], [chunk // j, j, -1])
                found[f"bound_{j}"] = tf.reduce_logsumexp(groups, axis=1) - math.log(j), used // j
            for name, (values, rows) in found.items():
                counted = tf.where(tf.range(values.shape[0])[:, None] < rows, values, 0.0)
                sums = sums | {name: sums[name] + tf.reduce_sum(counted, axis=0)}
            return (
                c + 1,
                bounds.log_add_exp(lse, tf.reduce_logsumexp(masked, axis=0)),
                bounds.log_add_exp(lse_squared, tf.reduce_logsumexp(2 * masked, axis=0)),
                sums,
            )

        nothing, zeros = tf.fill([len(numbers)], -math.inf), tf.zeros([len(numbers)])
        start = (0, nothing, nothing, {name: zeros for name in counts})
        _, lse, lse_squared, sums = tf.while_loop(lambda c, *_: c < chunks, body, start)
        means = {name: sums[name] / count for name, count in counts.items()}
        kl = tf.stack([means.pop(f"kl_{i}") for i in range(depth)], axis=1)
        log_likelihood_bound, size = lse - math.log(k), tf.exp(2 * lse - lse_squared)
        return means | {"log_likelihood_bound": log_likelihood_bound, "kl": kl, "effective_sample_size": size}

    def call(images: np.ndarray, numbers: np.ndarray, seed: int) -> dict[str, np.ndarray]:
        values = compiled(tf.constant(images, tf.float32), tf.constant(numbers, tf.int32), tf.constant(seed, tf.int32))
        return {name: value.numpy() for name, value in values.items()}

    return call


def posterior_means(model: IWAE, images: np.ndarray, seed: int, batch: int = 100) -> list[np.ndarray]:
    """E_q[z_l | x] for each stochastic layer, from the data upwards: images [n, D] -> each [n, D_l].

    For the lowest layer this is the encoder's mean; above, the mean of q(z_l | z_{l-1}), averaged over samples of
    the layers below. Where a flow bends q it is a mean over 100 draws.
    """
    bent = any(hasattr(encoder, "posterior_of") for encoder in model.encoder)
    samples = 1 if len(model.latent_units) == 1 and not bent else ACTIVITY_SAMPLES

    @tf.function(jit_compile=True)
    def compiled(x: tf.Tensor, number: tf.Tensor) -> list[tf.Tensor]:
        noise = model.draw_noise(samples // 2 if bent else samples, batch, rng.stream(seed, number, "evaluate"))
        if bent:  # in pairs e, -e, so that of a unit that is nearly Gaussian the mean is nearly exact
            noise = [tf.concat([e, -e], axis=0) for e in noise]
        terms = model.log_weight_terms(x, noise)
        return [tf.reduce_mean(q.expectation(z), axis=0) for q, z in zip(terms.posterior, terms.samples, strict=True)]

    results = []
    for numbers in batches.filled(len(images), batch):
        results.append(compiled(tf.constant(images[numbers], tf.float32), tf.constant(numbers[0], tf.int32)))
    return [np.concatenate(layer)[: len(images)] for layer in zip(*results, strict=True)]


def activity(means: list[np.ndarray]) -> list[np.ndarray]:
    """A_u = Var_x(E_q[u | x]) of every latent unit (Burda et al. 2015, section 5.2): each [n, D_l] -> [D_l].

    Above the lowest layer it is too large by a hundredth of the variance of the mean within an image, at most 0.01 or
    so: `posterior_means` averages over 100 samples.
    """
    return [np.var(layer.astype(np.float64), axis=0) for layer in means]


def evaluate(
    model: IWAE,
    images: np.ndarray,
    settings: Evaluation,
    seed: int,
    label: str = "evaluate",
    team: Team | None = None,
) -> tuple[dict[str, Any], dict[str, Any]]:
    """The entry of `evaluation.json` for one split, and the arrays behind it.

    Args:
        model: an `IWAE`.
        images: [n, D], binarized.
        settings: `config.Evaluation`.
        seed: of the noise.
        label: of the progress bar.
        team: see `importance_sample`.

    Returns:
        The summary, in nats but for "bits_per_dimension" of 8-bit values: means over the images, "nll_stderr" the
        standard error of "nll" over the images. And the arrays of `importance_sample`, with "activity" and
        "posterior_mean" a list with an entry a layer.
    """
    if settings.examples is not None:
        images = images[spread(len(images), settings.examples)]
    k = settings.k
    per_image = importance_sample(model, images, k, seed, label=label, team=team)
    means = posterior_means(model, images, seed)
    variances = activity(means)
    active = [variance > settings.active_unit_threshold for variance in variances]
    log_likelihood = per_image["log_likelihood_bound"].astype(np.float64)
    mean = {name: float(np.mean(values, dtype=np.float64)) for name, values in per_image.items() if name != "kl"}
    summary = {
        "examples": len(images),
        "k": k,
        "nll": -mean["log_likelihood_bound"],
        "nll_stderr": standard_error(log_likelihood),
        "bounds": {str(j): mean[f"bound_{j}"] for j in BOUNDS if f"bound_{j}" in per_image and j != k}
        | {str(k): mean["log_likelihood_bound"]},
        "elbo": mean["elbo"],
        "reconstruction": mean["reconstruction"],
        "kl": per_image["kl"].mean(axis=0, dtype=np.float64).tolist(),
        "active_units": [int(units.sum()) for units in active],
        "effective_sample_size": mean["effective_sample_size"],
    }
    if model.likelihood == "discretized_logistic":
        known = np.count_nonzero(~np.isnan(images[:, : model.input_dim])) / len(images)  # of an image
        summary["bits_per_dimension"] = summary["nll"] / (known * math.log(2))
    if settings.remove_inactive_units:
        summary["nll_active_units_only"] = summary["nll"]
        if not all(units.all() for units in active):
            units = [values.astype(np.float32) for values in active]
            removed = importance_sample(model, images, k, seed, (), units, f"{label}, active units only", team)
            summary["nll_active_units_only"] = -float(np.mean(removed["log_likelihood_bound"], dtype=np.float64))
    return summary, {**per_image, "activity": variances, "posterior_mean": means}


def spread(n: int, count: int) -> np.ndarray:
    """`count` indices spread evenly over 0 .. n - 1 (all n if there are fewer): datasets may be sorted by class."""
    count = min(n, count)
    return np.arange(count) * n // count


def standard_error(values: np.ndarray) -> float:
    """Standard error of the mean of values [n]; of a single value it is not known: NaN would not be JSON, so 0."""
    return float(np.std(values, ddof=1) / math.sqrt(len(values))) if len(values) > 1 else 0.0
