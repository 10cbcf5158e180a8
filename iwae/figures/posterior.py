"""The posterior of chosen inputs: on a grid of a latent plane, or as draws of pairs of latent units."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import PowerNorm
from matplotlib.figure import Figure
from matplotlib.image import AxesImage
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator
from numpy.typing import ArrayLike

from iwae import evaluation, resampling
from iwae.figures import style
from iwae.figures.latent import of_layer
from iwae.figures.style import LINES, Array
from iwae.runs.run import Run

if TYPE_CHECKING:
    from iwae.diagnostics.grid import GridPosterior

DRAWS = 50  # shown on top of a posterior, which they must not hide
ROUND = (1, 2, 5, 10)  # steps of ticks, whose labels are short


@dataclass(frozen=True)
class PosteriorRow:
    """What `posterior_input` shows of one input; densities are per unit area of the latent plane.

    The first density is that of the true posterior; the last is the one the draws come from.
    """

    label: str  # names the input
    image: Array  # [H, W]
    z1: Array  # [G1], the evenly spaced points of the grid along the first latent dimension, increasing
    z2: Array  # [G2], along the second
    densities: Mapping[str, Array]  # by panel title, each [G2, G1] (as of `np.meshgrid(z1, z2)`)
    kl: Mapping[str, float]  # by panel title, KL(density || true posterior), nats; a panel without one shows none
    draws: Array  # [m, 2], by sampling importance resampling
    reconstructions: Array  # [m, H, W], pixel means of the draws; the first 16 are shown


@style.styled
def posterior_input(rows: Sequence[PosteriorRow], title: str) -> Figure:
    """The posterior of chosen inputs, a row each: image, p(z|x), its approximations, and what draws of them decode to.

    In a row all densities have the same axes and colours, and a line around the smallest region that holds 95 % of the
    true posterior, so that what an approximation misses is seen. The approximation by k resampled draws, q_IW, is that
    of Cremer et al. 2017 (arXiv:1704.02916).
    """
    panels = {len(row.densities) for row in rows}
    if len(panels) != 1 or panels == {0}:
        raise ValueError(f"rows: expected the same number (at least 1) of densities in all, got {sorted(panels)}")
    (count,) = panels
    width = max(7, 1.4 * (count + 2))
    heading = "The posterior of an input: true, variational and importance resampled"
    figure, axes = style.figure(heading, title, width, 1.75 * len(rows) + 0.9, len(rows), count + 2)
    figure.set_layout_engine("constrained", w_pad=0.02, wspace=0.01, h_pad=0.03)
    for i, row in enumerate(rows):
        picture, *maps, decoded = axes[i * (count + 2) : (i + 1) * (count + 2)]
        image = style.pictures(f"image of row {i}", row.image, "H W", finite=False)
        draws = style.array(f"draws of row {i}", row.draws, "m 2")
        m, (height, across) = min(16, len(draws)), image.shape[:2]
        sizes = {"m": len(draws), "H": height, "W": across}
        images = style.pictures(f"reconstructions of row {i}", row.reconstructions, "m H W", **sizes)
        z1, z2 = (_even(f"{name} of row {i}", getattr(row, name)) for name in ("z1", "z2"))
        densities = [
            style.array(f"density {name!r} of row {i}", values, "G2 G1", G1=len(z1), G2=len(z2))
            for name, values in row.densities.items()
        ]
        style.mosaic(picture, image[None, None])
        picture.set_ylabel(row.label)
        if min(density.min() for density in densities) < 0 or not densities[0].any():
            raise ValueError(f"densities of row {i}: expected none below 0, and the first not 0 on the whole grid")
        highest, level = max(density.max() for density in densities), _level(densities[0], 0.95)
        for j, (name, density, panel) in enumerate(zip(row.densities, densities, maps, strict=True)):
            shown = _density(panel, z1, z2, density, highest)
            if level < densities[0].max():
                panel.contour(z1, z2, densities[0], [level], colors=LINES[1], linewidths=1)
            if name in row.kl:
                panel.set_xlabel(f"KL = {row.kl[name]:.2f} nats")
            panel.tick_params(labelsize=8, labelleft=j == 0)
            if j == 0:
                panel.set(xlabel="$z_1$", ylabel="$z_2$")
            if i == 0 or list(row.densities) != list(rows[i - 1].densities):
                panel.set_title(name)
            panel.set_box_aspect(1)
            panel.autoscale(False)  # a draw outside the grid does not widen its panel
            panel.xaxis.set_major_locator(MaxNLocator(3, steps=ROUND))
            panel.yaxis.set_major_locator(MaxNLocator(4, steps=ROUND))
        maps[-1].plot(*draws.T, "o", color="black", markersize=2, markeredgecolor="white", markeredgewidth=0.3)
        bar = figure.colorbar(shown, cax=maps[-1].inset_axes((1.05, 0, 0.07, 1)), ticks=[0, highest / 4, highest])
        rounded = [f"{float(f'{tick:.2g}'):g}" for tick in bar.get_ticks()]  # 160, where .2g says 1.6e+02
        bar.ax.set_yticklabels(rounded, fontsize=8)
        side = int(np.ceil(np.sqrt(m)))
        grid = np.full((side * side, *image.shape), np.nan)
        grid[:m] = images[:m]
        style.mosaic(decoded, grid.reshape(side, side, *image.shape), lines=0.5)
        if i == 0:
            picture.set_title("input")
            decoded.set_title("draws,\ndecoded")  # wider than its panel it would leave the figure
    entries = [
        Line2D([], [], color=LINES[1], linewidth=1, label="holds 95 % of the true posterior"),
        Line2D([], [], color="black", marker="o", linestyle="", markersize=3, label="resampled draws"),
        Line2D([], [], linestyle="", label="colour: density; KL: KL(density ‖ true posterior)"),
    ]
    ncols = 3 if count > 3 else 1
    figure.legend(handles=entries, loc="outside lower center", ncols=ncols, columnspacing=1.2, handlelength=1.2)
    return figure


@dataclass(frozen=True)
class LatentPair:
    """A row of `latent_pairs`: draws of two latent units given one input."""

    label: str  # names the input
    axis_labels: tuple[str, str]  # name the two units
    draws: Mapping[str, Array]  # by panel title (the same in all rows), each [m, 2]; the first are the ground truth
    image: Array | None = None  # the input [H, W]; None if it is no image; in all rows or in none


@style.styled
def latent_pairs(rows: Sequence[LatentPair], title: str) -> Figure:
    """Draws of pairs of latent units given an input, by several methods, over those of the first (the ground truth)."""
    names = list(rows[0].draws) if rows else []
    images = [row.image for row in rows if row.image is not None]
    if not names or any(list(row.draws) != names for row in rows) or len(images) not in (0, len(rows)):
        raise ValueError("rows: expected at least one, all with draws of the same names and all or none with an image")
    columns = len(names) + bool(images)
    size = 2.1 * columns + 0.6, 2.1 * len(rows) + 1.0
    heading = "The posterior of an input: pairs of latent units"
    figure, axes = style.figure(heading, title, *size, len(rows), columns)
    for i, row in enumerate(rows):
        panels = axes[i * columns : (i + 1) * columns]
        if row.image is not None:
            picture, *panels = panels
            style.mosaic(picture, style.pictures(f"image of row {i}", row.image, "H W", finite=False)[None, None])
            picture.set_ylabel(row.label)
        draws = [style.array(f"draws {name!r} of row {i}", row.draws[name], "m 2") for name in names]
        everything = np.concatenate(draws)
        low, high = everything.min(axis=0), everything.max(axis=0)
        margin = 0.05 * np.where(high > low, high - low, 1)
        for j, (name, points, panel) in enumerate(zip(names, draws, panels, strict=True)):
            if j:
                panel.plot(*draws[0].T, "o", color="0.8", markersize=2, markeredgewidth=0)
                panel.tick_params(labelleft=False)
            panel.plot(*points.T, "o", color=LINES[j % len(LINES)], markersize=2, alpha=0.6, markeredgewidth=0)
            (left, bottom), (right, top) = low - margin, high + margin
            panel.set(xlim=(left, right), ylim=(bottom, top), xlabel=row.axis_labels[0])
            panel.set_box_aspect(1)
            if i == 0:
                panel.set_title(name)
        panels[0].set_ylabel(row.axis_labels[1] if images else f"{row.label}\n{row.axis_labels[1]}")
    handle = Line2D([], [], color="0.8", marker="o", linestyle="", markersize=4, label=f"grey: {names[0]}")
    figure.legend(handles=[handle], loc="outside lower center")
    return figure


def _even(name: str, value: ArrayLike) -> Array:
    """The evenly spaced, increasing points of a grid, [G] with G > 1."""
    points = style.array(name, value, "G")
    steps = np.diff(points)
    if not len(steps) or steps.min() <= 0 or not np.allclose(steps, steps.mean(), rtol=1e-3):
        raise ValueError(f"{name}: expected at least two evenly spaced, increasing points of a grid")
    return points


def _density(axes: Axes, x: Array, y: Array, density: Array, highest: float) -> AxesImage:
    """Shows a density [len(y), len(x)] on a grid of cell centres, colours from 0 to `highest`.

    The colours follow the square root, so that a wide density can be seen beside a narrow one.
    """
    dx, dy = (x[1] - x[0]) / 2, (y[1] - y[0]) / 2
    extent = (x[0] - dx, x[-1] + dx, y[0] - dy, y[-1] + dy)
    norm = PowerNorm(0.5, vmin=0, vmax=highest)
    return axes.imshow(density, cmap="Blues", norm=norm, origin="lower", extent=extent, aspect="auto")


def _level(density: Array, share: float) -> float:
    """The value of a density on an even grid above which `share` of its mass lies."""
    values = np.sort(density, axis=None)[::-1]
    mass = np.cumsum(values)
    return float(values[np.searchsorted(mass, share * mass[-1])])


# ---- from a run ----


def chosen_inputs(run: Run) -> Array:
    """Numbers of the test examples whose posterior is shown: `evaluation.posterior_inputs`, or one of each class."""
    given, labels = run.experiment.evaluation.posterior_inputs, run.dataset.labels["test"]
    if given:
        return np.array(given)
    if labels is None:
        return evaluation.spread(len(run.dataset.test), 10)
    _, first = np.unique(labels, return_index=True)
    return first[evaluation.spread(len(first), 10)]


def posterior_input_of(run: Run, numbers: Array, grids: Sequence["GridPosterior"]) -> dict[str, Figure]:
    """True posterior, q, q_IW and resampled draws of the test images with these numbers [n], whose n `grids` are given.

    No figure if they are no images, or the model has other than two latent units.
    """
    if run.dataset.image_shape is None or run.model.latent_units != (2,):
        return {}
    images = run.images("test")[numbers]
    repeated, best = np.repeat(images, DRAWS, axis=0), max(grids[0].q_iw)
    (resampled,) = resampling.resample(run.model, repeated, best, run.experiment.seed)
    rows = []
    for number, image, grid, draws in zip(numbers, images, grids, _by_input(resampled, numbers), strict=True):
        shown = _around_what_matters(grid)
        names = {k: "$q(z|x)$" if k == 1 else f"$q_{{IW}}$, k = {k}" for k in grid.q_iw}
        rows.append(
            PosteriorRow(
                label=_label(run, number),
                image=run.pictures(image),
                z1=shown.axes[0],
                z2=shown.axes[1],
                densities={"$p(z|x)$": shown.true} | {names[k]: density for k, density in shown.q_iw.items()},
                kl={names[k]: kl for k, kl in grid.kl.items()},
                draws=draws,
                reconstructions=run.pictures(run.model.decode_mean(run.model.joined(draws, image))),
            )
        )
    return {"posterior_input": posterior_input(rows, run.title)}


def _around_what_matters(grid: "GridPosterior") -> "GridPosterior":
    """The part of a grid around the regions that hold 99 % of the true posterior, 95 % of each q_IW, with a margin."""
    regions = [values >= _level(values, 0.95) for values in grid.q_iw.values()]
    matters = np.any([grid.true >= _level(grid.true, 0.99), *regions], axis=0)
    part = []
    for points in np.nonzero(matters):
        margin = 1 + np.ptp(points) // 20
        part.append(slice(max(points.min() - margin, 0), points.max() + margin + 1))
    return replace(
        grid,
        axes=tuple(axis[along] for axis, along in zip(grid.axes, part[::-1], strict=True)),
        true=grid.true[tuple(part)],
        q_iw={k: density[tuple(part)] for k, density in grid.q_iw.items()},
    )


def latent_pairs_of(run: Run, numbers: Array, truth: Sequence[Array], r_hat: Array) -> dict[str, Figure]:
    """Draws from the true posterior of test examples beside those of q and q_IW: the two most active units of a layer.

    `numbers` [n] are those of the examples, `truth` their draws by Hamiltonian Monte Carlo, for each layer
    [..., n, D_l], and `r_hat` [n] the potential scale reduction of these. Layers of one unit have no figure.
    """
    model, seed, shape, test = run.model, run.experiment.seed, run.dataset.image_shape, run.images("test")
    exact, k = [np.reshape(layer, (-1, *layer.shape[-2:])).swapaxes(0, 1) for layer in truth], resampling.PROPOSALS
    repeated = np.repeat(test[numbers], exact[0].shape[1], axis=0)
    draws = {  # for each layer [n, m, D_l]
        "HMC on $p(z|x)$": exact,
        "$q(z|x)$": [_by_input(layer[0], numbers) for layer in model.encode(repeated, 1, (seed, 5))],
        f"$q_{{IW}}$, k = {k}": [_by_input(layer, numbers) for layer in resampling.resample(model, repeated, k, seed)],
    }
    figures = {}
    for i, activity in enumerate(evaluation.activity(evaluation.posterior_means(model, test, seed))):
        if len(activity) < 2:
            continue
        pair = np.sort(np.argsort(activity)[-2:])
        rows = [
            LatentPair(
                label=f"{_label(run, number)}\n$\\hat{{R}}$ = {r_hat[j]:.2f}",
                axis_labels=(f"$z_{{{pair[0] + 1}}}$", f"$z_{{{pair[1] + 1}}}$"),
                draws={name: layers[i][j][:, pair] for name, layers in draws.items()},
                image=run.pictures(test[number]) if shape else None,
            )
            for j, number in enumerate(numbers)
        ]
        suffix, title = of_layer(run, i + 1)
        figures[f"latent_pairs{suffix}"] = latent_pairs(rows, title)
    return figures


def _by_input(values: ArrayLike, numbers: Array) -> Array:
    """Draws [n m, D] as [n, m, D]."""
    return np.reshape(values, (len(numbers), -1, np.shape(values)[-1]))


def _label(run: Run, number: int) -> str:
    labels = run.dataset.labels["test"]
    if labels is None:
        return f"test {number}"
    name = run.dataset.class_name(labels[number]).replace("$", r"\$")  # a formula stands beside it
    return f"test {number}, class {name}"
