"""Is L_k tight? Annealed importance sampling (AIS) beside it, a bracket from simulated data, and the weights' tails.

Wu, Burda, Salakhutdinov & Grosse 2017, "On the quantitative analysis of decoder-based generative models"; Vehtari et
al., "Pareto smoothed importance sampling" (arXiv:1507.02646). All in nats.
"""

import math
import warnings
from collections.abc import Mapping
from typing import Any

import numpy as np
import tensorflow as tf
from matplotlib.figure import Figure
from scipy import special

from iwae import bounds, evaluation, rng
from iwae.config import Evaluation
from iwae.diagnostics import annealing
from iwae.figures import curves
from iwae.model import IWAE
from iwae.runs.run import Run

try:
    from arviz_stats.base import array_stats
except ImportError:  # Python 3.10 has the larger package only
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it announces its successor
        import arviz

    def _psislw(log_weights: np.ndarray) -> tuple[Any, Any]:
        return arviz.psislw(log_weights)

else:

    def _psislw(log_weights: np.ndarray) -> tuple[Any, Any]:
        return array_stats.psislw(-log_weights)  # it wants log likelihoods, whose inverse is the weight


ENTRIES = ("ais", "bidirectional", "pareto_k", "warning")  # of evaluation.json
TRUSTED = 0.7  # Pareto k-hat above which weights are not to be trusted (Vehtari et al.)
LARGEST = 10.0
"""Pareto k-hat above which it counts as infinite. From 1 on weights have no mean, and with a tail of shape 10 the
largest of them is on average 10 nats above the next and stands alone: a larger number says no more. Near 100, where
weights leave the range of float64, versions of ArviZ do not even agree on it: some give a number, some NaN."""
ROUNDING = 1e-3  # nats by which log weights may differ that ought to be one number: float32


def log_mean_weight(log_weights: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """log 1/k sum_i w_i for log weights [k, n] and its standard error by the delta method: -> [n], [n]."""
    log_weights = log_weights.astype(np.float64)
    k = len(log_weights)
    log_mean = special.logsumexp(log_weights, axis=0) - np.log(k)
    spread = np.std(np.exp(log_weights - log_mean), axis=0, ddof=1) if k > 1 else np.zeros(log_weights.shape[1])
    return log_mean, spread / np.sqrt(k)


def pareto_k(log_weights: np.ndarray) -> np.ndarray:
    """Pareto k-hat of the upper tail of log weights [k, n], by ArviZ: -> [n].

    Infinite where no tail can be fitted, or only one above `LARGEST`; minus infinity where all weights are one number,
    as if q were the posterior.
    """
    if len(log_weights) < 25:  # ArviZ fits a fifth of them, and at least five
        return np.full(log_weights.shape[1], np.inf)
    return np.array([_k_hat(weights) for weights in log_weights.astype(np.float64).T])


def _k_hat(log_weights: np.ndarray) -> float:
    if np.ptp(log_weights) < ROUNDING:
        return -math.inf
    try:
        with np.errstate(divide="raise"):
            found = float(_psislw(log_weights)[1])
    except (FloatingPointError, ValueError):  # beside the largest most of the tail is zero, or it is all one number
        return math.inf
    return found if found <= LARGEST else math.inf  # NaN too


def importance_weights(model: IWAE, images: np.ndarray, k: int, seed: int) -> np.ndarray:
    """log weights [k, n] of k draws from q for each image [n, D]."""

    @tf.function(jit_compile=True)
    def compiled(x: tf.Tensor, seed: tf.Tensor) -> tf.Tensor:
        return model.log_weights(x, k, seed)[:, 0]

    numbers = range(len(images))
    columns = [
        compiled(tf.constant(images[i : i + 1], tf.float32), rng.stream(seed, i, "weights")).numpy() for i in numbers
    ]
    return np.stack(columns, axis=1)


def per_image(
    model: IWAE, images: np.ndarray, k: int, steps: int, chains: int, seed: int, label: str | None = None
) -> dict[str, np.ndarray]:
    """L_k and AIS side by side for each image [n, D].

    Args:
        model: an `IWAE`.
        images: [n, D].
        k: importance samples of L_k.
        steps, chains: of AIS (`annealing.sample`).
        seed: of all noise.
        label: of the progress bar; None for no bar.

    Returns:
        Arrays [n]: "l_k" and "ais", estimates of log p(x) that are lower bounds on average, with their standard errors
        "l_k_stderr" and "ais_stderr"; of the k weights "k_hat" and "effective_sample_size".
    """
    log_weights = importance_weights(model, images, k, seed)
    l_k, l_k_stderr = log_mean_weight(log_weights)
    ais, ais_stderr = log_mean_weight(annealing.sample(model, images, chains, steps, seed, label=label).log_weights)
    return {
        "l_k": l_k,
        "l_k_stderr": l_k_stderr,
        "ais": ais,
        "ais_stderr": ais_stderr,
        "k_hat": pareto_k(log_weights),
        "effective_sample_size": bounds.effective_sample_size(log_weights).numpy(),
    }


def simulate(model: IWAE, n: int, seed: int, like: np.ndarray | None = None) -> tuple[np.ndarray, np.ndarray]:
    """n examples [n, D] drawn from the model, and the noise [n, E] each was made from: a draw from its posterior.

    Of a conditional model they have the condition of the examples `like` [n, D + C].
    """
    noise = rng.normal([1, n, sum(model.latent_units)], rng.stream(seed, 0, "simulate"))
    (x,) = model.decode(model.joined(annealing.latents(model, noise, like)[0], like)).sample(seed=(seed, 1))
    return np.asarray(model.joined(x, like)), noise[0].numpy()


def bidirectional(
    model: IWAE,
    n: int,
    k: int,
    steps: int,
    chains: int,
    seed: int,
    label: str | None = None,
    like: np.ndarray | None = None,
) -> dict[str, np.ndarray]:
    """Bidirectional Monte Carlo on n examples simulated from the model: the truth lies between two averages.

    `like` [n, D]: examples, each with the condition of the simulated one; and the values that are missing in them (NaN)
    are then taken away from these, whose noise stays a draw from their posterior.

    Returns:
        Arrays [n]: "lower" (AIS forwards) and "upper" (backwards from an exact draw of the posterior), whose means are
        below and above log p(x), and "l_k" on the same examples.
    """
    images, draws = simulate(model, n, seed, like)
    images = images if like is None else np.where(np.isnan(like), np.nan, images)
    forwards = annealing.sample(model, images, chains, steps, seed, label=label and f"{label}, simulated")
    backwards = annealing.sample(
        model,
        images,
        chains,
        steps,
        seed + 1,
        posterior_draws=draws,
        step_sizes=forwards.step_sizes,
        label=label and f"{label}, backwards",
    )
    return {
        "lower": log_mean_weight(forwards.log_weights)[0],
        "upper": -log_mean_weight(backwards.log_weights)[0],
        "l_k": log_mean_weight(importance_weights(model, images, k, seed))[0],
    }


def summarize(
    values: Mapping[str, np.ndarray], bracket: Mapping[str, np.ndarray], settings: Evaluation
) -> dict[str, Any]:
    """What `evaluation.json` holds of `per_image` and `bidirectional`; `settings` is `config.Evaluation`.

    A "stderr" of an estimate is that of the Monte Carlo noise: it says nothing of other images, and of L_k it is too
    small where weights have a k-hat above 0.7: with 5 effective samples of 5,000 less than half of what it should be.
    """
    n, k = len(values["l_k"]), settings.k
    how = {"steps": settings.ais_steps, "chains": settings.ais_chains}
    error = {name: float(np.sqrt(np.sum(values[f"{name}_stderr"] ** 2)) / n) for name in ("ais", "l_k")}
    mean = {name: float(np.mean(array)) for name, array in values.items()}
    not_trusted = int(np.sum(~(values["k_hat"] <= TRUSTED)))
    finite = values["k_hat"][np.isfinite(values["k_hat"])]
    gap = bracket["upper"] - bracket["lower"]
    result: dict[str, Any] = {
        "ais": {
            "examples": n,
            **how,
            "log_likelihood": mean["ais"],
            "stderr": error["ais"],
            "k": k,
            "L_k": mean["l_k"],
            "L_k_stderr": error["l_k"],
        },
        "bidirectional": {
            "examples": len(gap),
            **how,
            "lower": float(bracket["lower"].mean()),
            "upper": float(bracket["upper"].mean()),
            "gap": float(gap.mean()),
            "gap_stderr": evaluation.standard_error(gap),
            "k": k,
            "L_k": float(bracket["l_k"].mean()),
        },
        "pareto_k": {
            "examples": n,
            "k": k,
            "median": float(np.median(finite)) if len(finite) else None,
            "largest": float(finite.max()) if len(finite) else None,
            "share_above_0.7": not_trusted / n,
            "effective_sample_size": mean["effective_sample_size"],
            "smallest_effective_sample_size": float(values["effective_sample_size"].min()),
        },
    }
    if not_trusted:
        result["warning"] = (
            f"the weights of {not_trusted} of {n} examples have a Pareto k-hat above {TRUSTED}: "
            f"their L_{k} is not to be trusted"
        )
    return result


def run(run: Run) -> tuple[dict[str, Any], dict[str, Figure]]:
    """Task "tightness": AIS beside L_k, bidirectional Monte Carlo on simulated examples, and Pareto k-hat.

    -> the entries of evaluation.json and the figures, by name.
    """
    settings, test = run.experiment.evaluation, run.images("test")
    images = test[evaluation.spread(len(test), settings.tightness_examples)]
    how = (settings.k, settings.ais_steps, settings.ais_chains, run.experiment.seed, "annealed importance sampling")
    values = per_image(run.model, images, *how)
    bracket = bidirectional(run.model, len(images), *how, like=images)
    return summarize(values, bracket, settings), _figures(values, run.title, settings.k)


def told(entries: Mapping[str, Any]) -> list[str]:
    """What `run` measured, in a few lines for the terminal."""
    ais, bracket, k_hat = (entries[name] for name in ("ais", "bidirectional", "pareto_k"))
    of_k = "" if k_hat["median"] is None else f"median {k_hat['median']:.2f}, largest {k_hat['largest']:.2f}, "
    least = "at least " if k_hat["share_above_0.7"] else ""  # weights without two moments hide their own spread
    return [
        f"tightness, {ais['examples']} test examples, in nats:",
        f"  L_{ais['k']} {ais['L_k']:.2f} +- {least}{ais['L_k_stderr']:.2f}; annealed importance sampling "
        f"{ais['log_likelihood']:.2f} +- {ais['stderr']:.2f} ({ais['steps']} steps, {ais['chains']} chains)",
        f"  on simulated examples log p(x) is from {bracket['lower']:.2f} to {bracket['upper']:.2f}, "
        f"L_{bracket['k']} {bracket['L_k']:.2f}",
        f"  Pareto k-hat: {of_k}above {TRUSTED} for {k_hat['share_above_0.7']:.0%} of the examples",
    ]


def _figures(values: Mapping[str, np.ndarray], title: str, k: int) -> dict[str, Figure]:
    """The figure of the images whose numbers are finite; {} and a warning if it cannot be: the numbers took hours."""
    drawn = np.all([np.isfinite(array) for name, array in values.items() if name != "k_hat"], axis=0)
    try:
        return {"tightness": curves.tightness({name: array[drawn] for name, array in values.items()}, title, k)}
    except ValueError as error:
        warnings.warn(f"tightness: no figure ({error})", stacklevel=3)
        return {}
