"""Figures of a run: what its model makes of its test examples, as arrays for `iwae.plots`, by the name of the file."""

from typing import TYPE_CHECKING

import numpy as np
from matplotlib.figure import Figure

from iwae import evaluation
from iwae.diagnostics import posterior
from iwae.figures import plots

if TYPE_CHECKING:
    from iwae.diagnostics.annealing import Draws
    from iwae.experiment import Run

RESAMPLED_FROM = 100  # draws from q, of which one is picked by its weight
DRAWS = 200  # shown on top of a posterior
LATENT_GRID = np.linspace(-3, 3, 20)


def chosen_inputs(run: "Run") -> np.ndarray:
    """Numbers of the test examples whose posterior is shown (`evaluation.posterior_inputs`)."""
    given, labels = run.experiment.evaluation.posterior_inputs, run.dataset.labels["test"]
    if given:
        return np.array(given)
    if labels is None:
        return evaluation.spread(len(run.dataset.test), 10)
    _, first = np.unique(labels, return_index=True)
    return first[evaluation.spread(len(first), 10)]


def latent_scatter(run: "Run", means: list[np.ndarray]) -> dict[str, Figure]:
    """The aggregate posterior of the test examples in three kinds, projected alike, for each stochastic layer.

    `means` are those of `evaluation.posterior_means`.
    """
    test, seed = run.images("test"), run.experiment.seed
    draws = [layer[0].numpy() for layer in run.model.encode(test, 1, (seed, 4))]
    resampled = posterior.resample(run.model, test, RESAMPLED_FROM, seed)
    kinds: dict[str, plots.ScatterKind] = {"": "means", "_draws": "draws", "_resampled": "importance-resampled draws"}
    figures = {}
    for i, points in enumerate(zip(means, draws, resampled, strict=True), start=1):
        planes, axis_labels = plots.project_alike(points)
        suffix, title = _of_layer(run, i)
        for (name, kind), values in zip(kinds.items(), planes, strict=True):
            figures[f"posterior_scatter{name}{suffix}"] = plots.latent_scatter(
                values, run.dataset.labels["test"], title, kind, axis_labels
            )
    return figures


def decoded(run: "Run") -> dict[str, Figure]:
    """What latent points decode to: resampled draws, ways between two images, the latent plane. {} if not images."""
    model, shape, test = run.model, run.dataset.image_shape, run.images("test")
    if shape is None:
        return {}

    def from_the_top(z):
        """E[x] where all layers below z [..., D_L] are at their means: [..., H, W]."""
        below = z.reshape(-1, z.shape[-1]).astype(np.float32)
        for decoder in model.decoder[:0:-1]:
            below, _ = decoder(below)
        return np.reshape(model.decode_mean(below), (*z.shape[:-1], *shape))

    def resampled(images):
        return posterior.resample(model, images, RESAMPLED_FROM, run.experiment.seed)

    chosen = test[evaluation.spread(len(test), 40)]
    images = np.reshape(model.decode_mean(resampled(chosen)[0]), (-1, *shape))
    title = f"{run.title}; of one of {RESAMPLED_FROM} draws from q(z|x), picked by its weight"
    figures = {"reconstructions_resampled": plots.reconstructions(chosen.reshape(-1, *shape), images, title)}
    numbers = chosen_inputs(run)
    if len(numbers) > 1:
        ends = resampled(test[numbers[: len(numbers) // 2 * 2]])[-1]  # q's mean may be far from where the image is
        pairs, way = ends.reshape(-1, 2, ends.shape[1]), np.linspace(0, 1, 11)[:, None]
        steps = pairs[:, :1] + way * (pairs[:, 1:] - pairs[:, :1])
        figures["interpolations"] = plots.interpolations(from_the_top(steps), run.title)
    if model.latent_units == (2,):
        plane = np.stack(np.meshgrid(LATENT_GRID, LATENT_GRID), axis=-1)
        figures["latent_grid"] = plots.latent_grid(from_the_top(plane), LATENT_GRID, LATENT_GRID, run.title)
    return figures


def posterior_input(run: "Run", numbers: np.ndarray, grids: list[posterior.GridPosterior]) -> dict[str, Figure]:
    """True posterior, q, q_IW and resampled draws of test images; {} if not images with two latent units."""
    model, shape = run.model, run.dataset.image_shape
    if shape is None or model.latent_units != (2,):
        return {}
    images = run.images("test")[numbers]
    best = max(grids[0].q_iw)
    (resampled,) = posterior.resample(model, np.repeat(images, DRAWS, axis=0), best, run.experiment.seed)
    rows = []
    for number, image, grid, draws in zip(numbers, images, grids, _by_input(resampled, numbers), strict=True):
        shown = grid.cropped()
        names = {k: "$q(z|x)$" if k == 1 else f"$q_{{IW}}$, k = {k}" for k in grid.q_iw}
        rows.append(
            plots.PosteriorRow(
                label=_label(run, number),
                image=image.reshape(shape),
                z1=shown.axes[0],
                z2=shown.axes[1],
                densities={"$p(z|x)$": shown.true} | {names[k]: density for k, density in shown.q_iw.items()},
                kl={names[k]: kl for k, kl in grid.kl.items()},
                draws=draws,
                reconstructions=np.reshape(model.decode_mean(draws), (-1, *shape)),
            )
        )
    return {"posterior_input": plots.posterior_input(rows, run.title)}


def latent_pairs(run: "Run", numbers: np.ndarray, truth: "Draws") -> dict[str, Figure]:
    """Draws from the true posterior of test examples beside those of q and q_IW: the two most active units of a layer.

    Layers of one unit have no figure.
    """
    model, seed, shape, test = run.model, run.experiment.seed, run.dataset.image_shape, run.images("test")
    n = truth.latents[0].shape[0] * truth.latents[0].shape[1]
    repeated = np.repeat(test[numbers], n, axis=0)
    draws = {  # for each layer [inputs, draws, D_l]
        "HMC on $p(z|x)$": [layer.reshape(n, len(numbers), -1).swapaxes(0, 1) for layer in truth.latents],
        "$q(z|x)$": [_by_input(layer[0], numbers) for layer in model.encode(repeated, 1, (seed, 5))],
        f"$q_{{IW}}$, k = {RESAMPLED_FROM}": [
            _by_input(layer, numbers) for layer in posterior.resample(model, repeated, RESAMPLED_FROM, seed)
        ],
    }
    figures = {}
    for i, activity in enumerate(evaluation.activity(evaluation.posterior_means(model, test, seed))):
        if len(activity) < 2:
            continue
        pair = np.sort(np.argsort(activity)[-2:])
        rows = [
            plots.LatentPair(
                label=f"{_label(run, number)}\n$\\hat{{R}}$ = {truth.r_hat[j]:.2f}",
                axis_labels=(f"$z_{{{pair[0] + 1}}}$", f"$z_{{{pair[1] + 1}}}$"),
                draws={name: layers[i][j][:, pair] for name, layers in draws.items()},
                image=test[number].reshape(shape) if shape else None,
            )
            for j, number in enumerate(numbers)
        ]
        suffix, title = _of_layer(run, i + 1)
        figures[f"latent_pairs{suffix}"] = plots.latent_pairs(rows, title)
    return figures


def _by_input(values, numbers):
    return np.reshape(values, (len(numbers), -1, values.shape[-1]))


def _of_layer(run, i):
    """Suffix of a file's name and title for stochastic layer i, of several."""
    several = len(run.model.latent_units) > 1
    return (f"_z{i}", f"{run.title}, stochastic layer {i}") if several else ("", run.title)


def _label(run, number):
    labels = run.dataset.labels["test"]
    return f"test {number}" if labels is None else f"test {number}, class {labels[number]}"
