"""All figures, each a function from NumPy arrays to a matplotlib `Figure`; it knows no model.

Every function takes `title`, the line that says run, dataset, objective and k, and raises `ValueError` for an array of
a wrong shape or with values that are not finite. Figures are made with the object-oriented interface on the Agg canvas,
so that no display is needed and nothing is kept by pyplot. Bounds, log densities and divergences are in nats; an epoch
is one pass over the training data. `save` writes a figure.
"""

import os
import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

import matplotlib
import numpy as np
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import PowerNorm
from matplotlib.figure import Figure
from matplotlib.image import AxesImage
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator
from numpy.typing import ArrayLike

Array = np.ndarray
ScatterKind = Literal["means", "draws", "importance-resampled draws"]

LINES = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
"""Colours of curves, told apart with any colour vision (Okabe & Ito 2008)."""

CLASSES = (
    *("#3f90da", "#ffa90e", "#bd1f01", "#94a4a2", "#832db6"),
    *("#a96b59", "#e76300", "#b9ac70", "#717581", "#92dadd"),
)
"""Colours of up to ten classes (Petroff 2021, arXiv:2107.02270: ordered, tested for colour vision deficiencies)."""

_DPI = 160  # an 8 inch figure has 1280 pixels: sharp at the 800 a README shows, where 9 points are 12.5 pixels high
_GREY = "0.55"
_STYLE: dict[Any, Any] = {
    "font.size": 10,
    "axes.titlesize": 10,
    "axes.labelsize": 10,
    "figure.titlesize": 11,
    "legend.fontsize": 9,
    "legend.frameon": False,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "grid.color": "0.9",
    "grid.linewidth": 0.6,
    "lines.linewidth": 1.6,
    "text.usetex": False,
}
_styled = matplotlib.rc_context(_STYLE)


def save(figure: Figure, path: str | Path) -> None:
    """Writes a figure under a temporary name in the same folder, renames it to `path`, and clears it.

    The folder must exist; the ending of `path` says the format. An existing file stays whole until the new one is.
    """
    path = Path(path)
    temporary = path.with_name(f".{path.stem}.{os.getpid()}.part{path.suffix}")
    try:
        with matplotlib.rc_context(_STYLE):
            figure.savefig(temporary, dpi=_DPI)
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
        figure.clear()


@_styled
def learning_curves(curves: Sequence[tuple[str, Mapping[str, ArrayLike]]], title: str) -> Figure:
    """Training and validation bound against the epoch, for one run or for several.

    Args:
        curves: label and columns of each run, as in `log.csv`: "epoch", "train_bound" [epochs] (nats), and if there are
            any "valid_bound" and "learning_rate". A bound that is not a number leaves a gap. Of several seeds these
            are means, and "train_bound_spread" and "valid_bound_spread" [epochs] their standard deviations: a band.
        title: says run, dataset, objective and k.

    The epochs are on a logarithmic axis if there are more than 50; a second panel shows the last half of them, where
    the differences are small. Dotted lines mark where the learning rate changes, if it is by stages and the same for
    all runs.
    """
    if not curves:
        raise ValueError("curves: expected at least one run, got none")
    lines, borders, last = [], [], 1.0
    for i, (label, columns) in enumerate(curves):
        if missing := {"epoch", "train_bound"} - set(columns):
            raise ValueError(f"curves: run {label!r} has no column {min(missing)!r}")
        epoch = _array(f"epoch of {label!r}", columns["epoch"], "epochs")
        last = max(last, epoch[-1])
        for j, (column, what) in enumerate({"train_bound": "training", "valid_bound": "validation"}.items()):
            if column not in columns:
                continue
            bound = _array(f"{column} of {label!r}", columns[column], "epochs", finite=False, epochs=len(epoch))
            if not np.isfinite(bound).any():
                continue
            name = what if len(curves) == 1 else f"{what}, {label}"
            style: dict[str, Any] = {
                "label": f"{name} ({_number(bound[np.isfinite(bound)][-1], 2)} at the end)",
                "color": LINES[(j if len(curves) == 1 else i) % len(LINES)],
                "linestyle": "--" if column == "train_bound" else "-",
                "marker": "o" if len(epoch) <= 20 else None,
            }
            spread = columns.get(f"{column}_spread", np.zeros(len(epoch)))
            spread = _array(f"{column}_spread of {label!r}", spread, "epochs", finite=False, epochs=len(epoch))
            lines.append((epoch, bound, spread, style))
        rate = _array(f"learning_rate of {label!r}", columns.get("learning_rate", np.ones(len(epoch))), "epochs")
        borders.append(tuple(epoch[1:][rate[1:] != rate[:-1]] - 0.5))
    stages = borders[0] if len(set(borders)) == 1 and len(borders[0]) <= 12 else ()

    zoomed = last >= 8
    ncols = 2 if max(len(style["label"]) for *_, style in lines) <= 50 else 1
    figure, panels = _figure("Learning curves", title, 8, 4.4 + 0.2 * len(lines) / ncols, 1, 1 + zoomed)
    for axes, first in zip(panels, (0, last / 2), strict=False):
        for epoch, bound, spread, style in lines:
            shown = epoch >= first
            axes.plot(epoch[shown], bound[shown], markersize=3, **style)
            if spread.any():
                low, high = (bound - spread)[shown], (bound + spread)[shown]
                axes.fill_between(epoch[shown], low, high, color=style["color"], alpha=0.2, linewidth=0)
        for border in stages:
            if border > first:
                axes.axvline(border, color=_GREY, linestyle=":", linewidth=0.9, zorder=0)
        axes.set_xlabel("epoch (passes over the data)")
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.grid(axis="y")
    panels[0].set_ylabel(r"lower bound on $\log p(x)$ (nats per example)")
    if last > 50:
        panels[0].set_xscale("log")
    if zoomed:
        panels[0].set_title("all epochs")
        panels[1].set_title("last half")
    handles = panels[0].get_lines()[: len(lines)]
    if stages:
        handles.append(Line2D([], [], color=_GREY, linestyle=":", linewidth=0.9, label="the learning rate changes"))
    _legend(figure, handles, loc="outside lower center", ncols=ncols)
    return figure


@_styled
def samples(images: ArrayLike, title: str) -> Figure:
    """A grid of images drawn from the prior: [n, H, W], the probability of every pixel."""
    images = _array("images", images, "n H W")
    columns = min(len(images), max(5, int(np.ceil(np.sqrt(len(images))))))
    rows = -(-len(images) // columns)
    grid = np.full((rows * columns, *images.shape[1:]), np.nan)
    grid[: len(images)] = images
    figure, (axes,) = _figure("Samples from the prior", title, *_size(images, rows, columns, 6.5))
    _mosaic(axes, grid.reshape(rows, columns, *images.shape[1:]))
    axes.set_xlabel("pixel probabilities (white 0, black 1)")
    return figure


@_styled
def reconstructions(images: ArrayLike, reconstructions: ArrayLike, title: str) -> Figure:
    """Images [n, H, W] in rows of up to ten, each above its reconstruction [n, H, W] (pixel probabilities)."""
    images = _array("images", images, "n H W")
    pairs = np.stack([images, _array("reconstructions", reconstructions, "n H W", like=images)])
    _, count, height, width = pairs.shape
    columns = min(count, 10)
    rows = -(-count // columns)
    grid = np.full((2, rows * columns, height, width), np.nan)
    grid[:, :count] = pairs
    grid = grid.reshape(2, rows, columns, height, width).transpose(1, 0, 2, 3, 4)
    grid = grid.reshape(2 * rows, columns, height, width)
    figure, (axes,) = _figure("Test images and their reconstructions", title, *_size(images, 2 * rows, columns, 8, 1.2))
    _mosaic(axes, grid)
    axes.hlines(np.arange(2, 2 * rows, 2) * height - 0.5, -0.5, columns * width - 0.5, color="black", linewidth=1.2)
    axes.set_yticks((np.arange(2 * rows) + 0.5) * height - 0.5, ["image", "reconstruction"] * rows)
    axes.set_xlabel("reconstructions are pixel probabilities (white 0, black 1)")
    return figure


def project_alike(kinds: Sequence[ArrayLike]) -> tuple[list[Array], tuple[str, str]]:
    """`project` for several kinds of points, each [n, D], on the same axes; one dimension has a histogram a kind."""
    if np.shape(kinds[0])[1] == 1:
        planes = [project(points) for points in kinds]
        return [plane for plane, _ in planes], planes[0][1]
    plane, labels = project(np.concatenate(kinds))
    return np.split(plane, len(kinds)), labels


def project(points: ArrayLike) -> tuple[Array, tuple[str, str]]:
    """Latent points [n, D] as points of a plane [n, 2], and the labels of its two axes.

    Two dimensions stay as they are, one is spread at random over the height of its histogram, and more are projected on
    the two principal components, whose share of the variance the labels give.
    """
    points = _array("points", points, "n D")
    dimensions = points.shape[1]
    if dimensions == 1:
        counts, edges = np.histogram(points, bins=min(100, 1 + len(points) // 20))
        height = counts[np.clip(np.searchsorted(edges, points[:, 0], "right") - 1, 0, len(counts) - 1)] / counts.max()
        spread = np.random.default_rng(0).uniform(0, height)
        return np.stack([points[:, 0], spread], axis=1), ("$z$", "spread at random below the histogram")
    if dimensions == 2:
        return points, ("$z_1$", "$z_2$")
    centred = points - points.mean(axis=0)
    variances, components = np.linalg.eigh(centred.T @ centred)
    variances, components = np.maximum(variances[::-1], 0), components[:, ::-1][:, :2]
    signs = np.sign(components[np.abs(components).argmax(axis=0), [0, 1]])  # else the sign of a component is arbitrary
    shares = 100 * variances[:2] / max(variances.sum(), np.finfo(float).tiny)
    labels = [f"principal component {i} ({share:.1f} % of the variance)" for i, share in enumerate(shares, start=1)]
    return centred @ (components * signs), (labels[0], labels[1])


@_styled
def latent_scatter(
    points: ArrayLike, labels: ArrayLike | None, title: str, kind: ScatterKind, axis_labels: tuple[str, str]
) -> Figure:
    """The aggregate posterior of a data set: one point [n, 2] an example, coloured by its label.

    Args:
        points: [n, 2], see `project`.
        labels: [n] integers or None. Up to ten classes have a colour each and their number at their median, or beside
            it where another's is; more have a colour bar.
        title: says run, dataset, objective and k.
        kind: what was done to get a point from q(z|x): its mean, a draw, or a draw resampled by importance weight.
        axis_labels: of the two dimensions.
    """
    points = _array("points", points, "n 2")
    if kind not in get_args(ScatterKind):
        raise ValueError(f"kind: expected one of {', '.join(map(repr, get_args(ScatterKind)))}, got {kind!r}")
    figure, (axes,) = _figure(f"Aggregate posterior: {kind}", title, 7.5, 6.4)
    order = np.random.default_rng(0).permutation(len(points))  # no class lies on top of the others
    style: dict[str, Any] = {"s": float(np.clip(30_000 / len(points), 4, 30)), "alpha": 0.7, "linewidths": 0}
    x, y = points[order].T
    middles: dict[str, Array] = {}
    if labels is None:
        axes.scatter(x, y, color=LINES[0], **style)
    else:
        labels = _array("labels", labels, "n", n=len(points))
        classes = np.unique(labels)
        if len(classes) > len(CLASSES):
            coloured = axes.scatter(x, y, c=labels[order], cmap="viridis", **style)
            opaque = matplotlib.cm.ScalarMappable(coloured.norm, coloured.cmap)
            figure.colorbar(opaque, ax=axes, label="class", ticks=MaxNLocator(integer=True))
        else:
            colours = np.array(CLASSES)[np.searchsorted(classes, labels)]
            axes.scatter(x, y, color=colours[order], **style)
            for colour, name in zip(CLASSES, classes, strict=False):
                axes.scatter([], [], s=36, color=colour, label=f"{name:g}")
                middles[f"{name:g}"] = np.median(points[labels == name], axis=0)
            figure.legend(loc="outside right center", title="class", handletextpad=0.2)
    axes.set(xlabel=axis_labels[0], ylabel=axis_labels[1])
    if "spread" not in axis_labels[1]:
        axes.set_aspect("equal", adjustable="datalim")
    figure.draw_without_rendering()  # where points of the data lie in the figure is known from here on
    places = axes.transData.transform(np.reshape(list(middles.values()), (-1, 2)))
    places = axes.transData.inverted().transform(_apart(places, 0.17 * figure.dpi))
    for name, colour, place in zip(middles, CLASSES, places, strict=False):
        box = {"boxstyle": "circle,pad=0.15", "facecolor": "white", "edgecolor": colour, "alpha": 0.9}
        axes.annotate(name, place, ha="center", va="center", fontsize=9, fontweight="bold", bbox=box)
    return figure


def _apart(places: Array, distance: float) -> Array:
    """Points of a plane [n, 2], those nearer to each other than a distance pushed apart."""
    places = places + 1e-3 * distance * np.random.default_rng(0).standard_normal(places.shape)  # none on another
    for _ in range(200):
        between = places[:, None] - places
        apart = np.linalg.norm(between, axis=-1, keepdims=True) + np.eye(len(places))[..., None] * distance
        places = places + np.sum(between / apart * np.maximum(distance - apart, 0) / 2, axis=1)
    return places


@_styled
def active_units(variances: Sequence[ArrayLike], threshold: float, title: str) -> Figure:
    """Histograms of log10 A_u, A_u = Var_x(E_q[u|x]) (Burda et al. 2015, section 5.2).

    Args:
        variances: A_u [D] of every stochastic layer, from the data upwards.
        threshold: a unit is active if its A_u is above it.
        title: says run, dataset, objective and k.
    """
    layers = [_array(f"variances of layer {i}", layer, "D") for i, layer in enumerate(variances, start=1)]
    if not layers or threshold <= 0:
        raise ValueError(f"expected at least one layer and a threshold above 0, got {len(layers)} and {threshold}")
    border, floor = np.log10(threshold), 1e-6 * threshold
    logs = [np.log10(np.maximum(layer, floor)) for layer in layers]
    low, high = min(border - 1, *map(np.min, logs)), max(border + 1, *map(np.max, logs))
    # A bin's edge lies on the threshold, so that no bar holds units of both kinds.
    width = max(0.1, np.ceil((high - low) / 40 * 10) / 10)
    edges = border + width * np.arange(np.floor((low - border) / width), np.ceil((high - border) / width) + 1)
    figure, panels = _figure(
        "Activity of the latent units", title, 7.5, 1.6 + 2.2 * len(layers), len(layers), sharex=True
    )
    for i, (axes, log, layer) in enumerate(zip(panels, logs, layers, strict=True), start=1):
        active = layer > threshold
        inactive = len(layer) - active.sum()
        axes.hist(log[active], edges, color=LINES[0], label=f"{active.sum()} of {len(layer)} units active")
        axes.hist(log[~active], edges, color="0.75", label=f"{inactive} inactive")
        axes.axvline(border, color=LINES[1], linestyle="--", label=f"threshold {threshold:g}")
        axes.set_ylabel("latent units")
        axes.yaxis.set_major_locator(MaxNLocator(integer=True))
        if len(layers) > 1:
            axes.set_title(f"stochastic layer {i} ($z_{{{i}}}$)", loc="left")
        _legend(axes, loc="upper left", bbox_to_anchor=(1, 1))
    lowest = f" (what is below {floor:.0e} is shown there)" if min(map(np.min, layers)) < floor else ""
    panels[-1].set_xlabel(r"$\log_{10} A_u$, $A_u = \mathrm{Var}_x(\mathrm{E}_{q(u|x)}[u])$" + lowest)
    return figure


@dataclass(frozen=True)
class PosteriorRow:
    """What `posterior_input` shows of one input; densities are per unit area of the latent plane.

    Args:
        label: names the input.
        image: [H, W].
        z1: [G1], the evenly spaced points of the grid along the first latent dimension, increasing.
        z2: [G2], along the second.
        densities: by panel title, each [G2, G1] (as of `np.meshgrid(z1, z2)`). The first is the true posterior;
            the last is the one the draws come from.
        kl: by panel title, KL(density || true posterior) in nats; a panel without one shows none.
        draws: [m, 2], by sampling importance resampling.
        reconstructions: [m, H, W], pixel probabilities of the draws; the first 16 are shown.
    """

    label: str
    image: Array
    z1: Array
    z2: Array
    densities: Mapping[str, Array]
    kl: Mapping[str, float]
    draws: Array
    reconstructions: Array


@_styled
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
    figure, axes = _figure(heading, title, width, 1.75 * len(rows) + 0.9, len(rows), count + 2)
    figure.set_layout_engine("constrained", w_pad=0.02, wspace=0.01, h_pad=0.03)
    for i, row in enumerate(rows):
        picture, *maps, decoded = axes[i * (count + 2) : (i + 1) * (count + 2)]
        image = _array(f"image of row {i}", row.image, "H W")
        draws = _array(f"draws of row {i}", row.draws, "m 2")
        m, (height, across) = min(16, len(draws)), image.shape
        images = _array(f"reconstructions of row {i}", row.reconstructions, "m H W", m=len(draws), H=height, W=across)
        z1, z2 = (_even(f"{name} of row {i}", getattr(row, name)) for name in ("z1", "z2"))
        densities = [
            _array(f"density {name!r} of row {i}", values, "G2 G1", G1=len(z1), G2=len(z2))
            for name, values in row.densities.items()
        ]
        _mosaic(picture, image[None, None])
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
            panel.xaxis.set_major_locator(MaxNLocator(3))
            panel.yaxis.set_major_locator(MaxNLocator(4))
        maps[-1].plot(*draws.T, "o", color="black", markersize=2, markeredgecolor="white", markeredgewidth=0.3)
        bar = figure.colorbar(shown, cax=maps[-1].inset_axes((1.05, 0, 0.07, 1)), ticks=[0, highest / 4, highest])
        bar.ax.set_yticklabels(["0", f"{highest / 4:.2g}", f"{highest:.2g}"], fontsize=8)
        side = int(np.ceil(np.sqrt(m)))
        grid = np.full((side * side, height, across), np.nan)
        grid[:m] = images[:m]
        _mosaic(decoded, grid.reshape(side, side, height, across), lines=0.5)
        if i == 0:
            picture.set_title("input")
            decoded.set_title("draws,\ndecoded")  # wider than its panel it would leave the figure
    entries = [
        Line2D([], [], color=LINES[1], linewidth=1, label="holds 95 % of the true posterior"),
        Line2D([], [], color="black", marker="o", linestyle="", markersize=3, label="resampled draws"),
        Line2D([], [], linestyle="", label="colour: density; KL: KL(density ‖ true posterior)"),
    ]
    figure.legend(
        handles=entries, loc="outside lower center", ncols=3 if count > 3 else 1, columnspacing=1.2, handlelength=1.2
    )
    return figure


@dataclass(frozen=True)
class LatentPair:
    """A row of `latent_pairs`: draws of two latent units given one input.

    Args:
        label: names the input.
        axis_labels: name the two units.
        draws: by panel title, each [m, 2]; the first are the ground truth. The titles are the same in all rows.
        image: the input [H, W]; None if it is no image. In all rows or in none.
    """

    label: str
    axis_labels: tuple[str, str]
    draws: Mapping[str, Array]
    image: Array | None = None


@_styled
def latent_pairs(rows: Sequence[LatentPair], title: str) -> Figure:
    """Draws of pairs of latent units given an input, by several methods, over those of the first (the ground truth)."""
    names = list(rows[0].draws) if rows else []
    images = [row.image for row in rows if row.image is not None]
    if not names or any(list(row.draws) != names for row in rows) or len(images) not in (0, len(rows)):
        raise ValueError("rows: expected at least one, all with draws of the same names and all or none with an image")
    columns = len(names) + bool(images)
    figure, axes = _figure(
        "The posterior of an input: pairs of latent units",
        title,
        2.1 * columns + 0.6,
        2.1 * len(rows) + 1.0,
        len(rows),
        columns,
    )
    for i, row in enumerate(rows):
        panels = axes[i * columns : (i + 1) * columns]
        if row.image is not None:
            picture, *panels = panels
            _mosaic(picture, _array(f"image of row {i}", row.image, "H W")[None, None])
            picture.set_ylabel(row.label)
        draws = [_array(f"draws {name!r} of row {i}", row.draws[name], "m 2") for name in names]
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


@_styled
def latent_grid(images: ArrayLike, z1: ArrayLike, z2: ArrayLike, title: str) -> Figure:
    """Decoded images [r, c, H, W] (pixel probabilities) of a grid of a two-dimensional latent space.

    Image [i, j] is that of (z1[j], z2[i]); z1 [c] and z2 [r] grow to the right and upwards.
    """
    images = _array("images", images, "r c H W")
    rows, columns, height, width = images.shape
    z1, z2 = _array("z1", z1, "c", c=columns), _array("z2", z2, "r", r=rows)
    figure, (axes,) = _figure("Decoded grid of the latent plane", title, *_size(images, rows, columns, 7, 0.7))
    _mosaic(axes, images[::-1])
    some = [slice(None, None, -(-count // 10)) for count in (columns, rows)]
    axes.set_xticks(((np.arange(columns) + 0.5) * width - 0.5)[some[0]], [_number(z, 2) for z in z1[some[0]]])
    axes.set_yticks(((rows - np.arange(rows) - 0.5) * height - 0.5)[some[1]], [_number(z, 2) for z in z2[some[1]]])
    axes.set(xlabel="$z_1$", ylabel="$z_2$")
    return figure


@_styled
def interpolations(images: ArrayLike, title: str) -> Figure:
    """Decoded images [n_pairs, steps, H, W] on the straight way between two latent codes, a row a pair."""
    images = _array("images", images, "n_pairs steps H W")
    rows, columns, _, width = images.shape
    size = _size(images, rows, columns, 8, ticks=0.3)
    figure, (axes,) = _figure("Interpolations between two test images", title, *size)
    _mosaic(axes, images)
    axes.set_anchor("N")  # the layout makes no room for both ticks and a label below an image
    some = slice(None, None, -(-columns // 11))
    share = np.linspace(0, 1, columns)[some]
    axes.set_xticks(((np.arange(columns) + 0.5) * width - 0.5)[some], [f"{step:.2g}" for step in share])
    axes.set_xlabel("fraction of the way between the latent codes (pixel probabilities: white 0, black 1)")
    return figure


@_styled
def one_dimensional(
    *,
    x: ArrayLike,
    density: ArrayLike | None,
    model_density: ArrayLike,
    encoder_mean: ArrayLike,
    encoder_scale: ArrayLike,
    z: ArrayLike,
    decoder_mean: ArrayLike,
    decoder_scale: ArrayLike,
    posterior: ArrayLike,
    q: ArrayLike,
    posterior_x: float,
    title: str,
) -> Figure:
    """A model of one-dimensional data with one latent unit: densities, decoder, encoder, and the posterior of one x.

    Args:
        x: [n] data values, increasing.
        density: [n] true p(x) at x, or None if it is not known.
        model_density: [n] the model's p(x).
        encoder_mean, encoder_scale: [n] of q(z|x), at x.
        z: [m] latent values, increasing.
        decoder_mean, decoder_scale: [m] of p(x|z), at z.
        posterior, q: [m] p(z|x) and q(z|x) at z, for x = posterior_x.
        title: says run, dataset, objective and k.
    """
    x, z = _array("x", x, "n"), _array("z", z, "m")
    names = {"model_density": model_density, "encoder_mean": encoder_mean, "encoder_scale": encoder_scale}
    model, *encoder = [_array(name, value, "n", n=len(x)) for name, value in names.items()]
    names = {"decoder_mean": decoder_mean, "decoder_scale": decoder_scale, "posterior": posterior, "q": q}
    *decoder, truth, approximation = [_array(name, value, "m", m=len(z)) for name, value in names.items()]
    figure, (densities, posteriors, left, right) = _figure("A one-dimensional model", title, 8, 6.2, 2, 2)
    if density is not None:
        densities.plot(x, _array("density", density, "n", n=len(x)), color="black", label="data, $p(x)$")
    densities.plot(x, model, color=LINES[0], linestyle="--", label=r"model, $p_\theta(x)$")
    densities.set(title="density of the data", xlabel="$x$", ylabel="density")
    for axes, colour, at, (mean, scale) in ((left, LINES[0], z, decoder), (right, LINES[1], x, encoder)):
        axes.plot(at, mean, color=colour, label="mean")
        axes.fill_between(at, mean - scale, mean + scale, color=colour, alpha=0.25, linewidth=0, label="mean ± scale")
        free = "upper left" if mean[0] < mean[-1] else "upper right"
        _legend(axes, loc=free, frameon=True, framealpha=0.85, edgecolor="none")
    left.set(title=r"decoder $p_\theta(x|z)$", xlabel="$z$", ylabel="$x$")
    right.set(title="encoder $q(z|x)$", xlabel="$x$", ylabel="$z$")
    posteriors.plot(z, truth, color="black", label=r"true, $p_\theta(z|x)$")
    posteriors.plot(z, approximation, color=LINES[1], linestyle="--", label="approximate, $q(z|x)$")
    posteriors.set(title=f"posterior of $x = {posterior_x:.3g}$", xlabel="$z$", ylabel="density")
    for axes in (densities, posteriors):
        axes.set_ylim(0, 1.4 * axes.get_ylim()[1])  # room for the legend
        axes.legend(loc="upper left")
    return figure


@_styled
def two_dimensional_density(
    points: ArrayLike,
    samples: ArrayLike,
    title: str,
    log_density: tuple[ArrayLike, ArrayLike, ArrayLike] | None = None,
) -> Figure:
    """Two-dimensional data [n, 2] beside samples of the model [m, 2], on the same axes.

    `log_density`, if known, is (x1 [G1], x2 [G2], values [G2, G1] in nats): the true density, drawn as three contours.
    """
    sets = {"data": _array("points", points, "n 2"), "samples of the model": _array("samples", samples, "m 2")}
    figure, panels = _figure("Data and model", title, 8, 5, 1, 2, sharex=True, sharey=True)
    for (name, values), colour, axes in zip(sets.items(), LINES, panels, strict=False):
        size = float(np.clip(8_000 / len(values), 2, 14))
        axes.scatter(values[:, 0], values[:, 1], s=size, color=colour, alpha=0.5, linewidths=0)
        axes.set(title=f"{name} ({len(values)} points)", xlabel="$x_1$", ylabel="$x_2$")
        axes.set_aspect("equal", adjustable="box")
        if log_density is not None:
            x1, x2 = (_array(f"x{i} of log_density", log_density[i - 1], f"G{i}") for i in (1, 2))
            values = _array("values of log_density", log_density[2], "G2 G1", finite=False, G1=len(x1), G2=len(x2))
            levels = np.nanmax(values) - np.array([4.5, 2, 0.5])
            axes.contour(x1, x2, values, levels, colors="black", linewidths=0.8, linestyles="solid")
    if log_density is not None:
        line = Line2D([], [], color="black", linewidth=0.8)
        label = "true density: log density 0.5, 2 and 4.5 nats below its maximum"
        figure.legend([line], [label], loc="outside lower center")
    return figure


@_styled
def gradient_snr(k: ArrayLike, ratios: Mapping[str, tuple[Array, Array]], title: str) -> Figure:
    """Signal-to-noise ratio of the gradients against k [n] (Rainforth et al. 2018, arXiv:1802.04537).

    `ratios`: by gradient estimator, those of the encoder's and of the decoder's gradient, [n] each. Grey guides are
    the slopes of their theorem 1: 1/sqrt(k) for the encoder's, sqrt(k) for the decoder's.
    """
    k = _array("k", k, "n")
    if not ratios:
        raise ValueError("ratios: expected at least one gradient estimator, got none")
    figure, panels = _figure("Signal-to-noise ratio of the gradients", title, 8, 4.4, 1, 2, sharey=True)
    for j, (axes, part, power) in enumerate(zip(panels, ("encoder", "decoder"), (-0.5, 0.5), strict=True)):
        for i, (name, pair) in enumerate(ratios.items()):
            ratio = _array(f"ratios of {name!r}", pair, "2 n", n=len(k))[j]
            axes.plot(k, ratio, color=LINES[i % len(LINES)], marker="osD^v<>"[i % 7], markersize=4, label=name)
            if i == 0:
                guide = ratio[0] / 2 * (k / k[0]) ** power
        slope = r"$\propto 1/\sqrt{k}$" if power < 0 else r"$\propto \sqrt{k}$"
        axes.plot(k, guide, color=_GREY, linestyle="--", linewidth=1, zorder=0)
        middle, side = len(k) // 2, "right" if power < 0 else "left"
        axes.annotate(slope, (k[middle], guide[middle]), ha=side, va="top", color="0.35")
        axes.set(xscale="log", yscale="log", title=f"{part} gradient", xlabel="importance samples $k$")
        axes.grid()
    panels[0].set_ylabel("signal-to-noise ratio")
    _legend(figure, panels[0].get_lines()[:-1], loc="outside lower center", ncols=min(3, len(ratios)))
    return figure


@_styled
def tightness(
    l_k: ArrayLike,
    l_k_stderr: ArrayLike,
    ais: ArrayLike,
    ais_stderr: ArrayLike,
    k_hat: ArrayLike,
    effective_sample_size: ArrayLike,
    title: str,
    k: int = 5000,
) -> Figure:
    """Annealed importance sampling (AIS) beside L_k for every image; their difference, and the weights' quality.

    Args:
        l_k, l_k_stderr: [n] estimates of L_k and their standard errors, nats.
        ais, ais_stderr: [n] estimates of log p(x) by AIS and their standard errors, nats.
        k_hat: [n] shape of the upper tail of the weights (Vehtari et al., arXiv:1507.02646): above 0.7 they are not to
            be trusted. What is not finite counts as above, and is not drawn.
        effective_sample_size: [n] of the k weights, in samples.
        title: says run, dataset, objective and k.
        k: of L_k.
    """
    l_k = _array("l_k", l_k, "n")
    names = {"l_k_stderr": l_k_stderr, "ais": ais, "ais_stderr": ais_stderr}
    l_k_stderr, ais, ais_stderr = (_array(name, value, "n", n=len(l_k)) for name, value in names.items())
    k_hat = _array("k_hat", k_hat, "n", n=len(l_k), finite=False)
    samples = _array("effective_sample_size", effective_sample_size, "n", n=len(l_k))
    heading = f"Tightness of L_{k}: annealed importance sampling (AIS) beside it, and its weights"
    figure, (left, middle, right) = _figure(heading, title, 11, 4.2, 1, 3)
    bars: dict[str, Any] = {"fmt": "o", "markersize": 3, "elinewidth": 0.8, "alpha": 0.8, "color": LINES[0]}
    left.errorbar(l_k, ais, ais_stderr, l_k_stderr, **bars)
    left.axline((l_k[0], l_k[0]), slope=1, color=_GREY, linestyle="--", linewidth=1, label=f"AIS = $L_{{{k}}}$")
    left.set(xlabel=f"$L_{{{k}}}$ (nats)", ylabel=r"$\log p(x)$ by AIS (nats)", title=f"{len(l_k)} images")
    gap, error = ais - l_k, np.hypot(ais_stderr, l_k_stderr)
    drawn, high = np.isfinite(k_hat), ~(k_hat <= 0.7)
    middle.errorbar(k_hat[drawn], gap[drawn], error[drawn], **bars)
    right.plot(k_hat[drawn], samples[drawn], "o", markersize=3, alpha=0.8, color=LINES[0])
    for axes in (middle, right):
        label = rf"$\hat k = 0.7$ (above: {high.sum()} of {len(high)})"
        axes.axvline(0.7, color=LINES[1], linestyle="--", label=label)
        axes.set_xlabel(r"Pareto $\hat k$ of the weights")
    middle.axhline(0, color=_GREY, linestyle="--", linewidth=1)
    mean, standard_error = gap.mean(), np.sqrt(np.sum(error**2)) / len(gap)
    middle.set_ylabel(f"AIS − $L_{{{k}}}$ (nats)")
    middle.set_title(f"mean difference {_number(mean, 3)} ± {standard_error:.3f} nats")
    right.set(yscale="log", ylabel=f"effective sample size (of {k})", title=f"smallest: {samples.min():.1f}")
    handles = [*left.get_legend_handles_labels()[0], *middle.get_legend_handles_labels()[0]]
    figure.legend(handles=handles, loc="outside lower center", ncols=2)
    return figure


@_styled
def time_against_k(rows: Sequence[Mapping[str, Any]], title: str) -> Figure:
    """Time of an update against k, measured and the machine's own limit, for every gradient estimator; peak memory.

    `rows` are those of `iwae.benchmark`: of training, with "k", "ms_per_update", "flop_floor_ms" (milliseconds) and
    "estimator"; and of processes, with "k" and "peak_memory_gib": where there are any, they get a panel of their own.
    """
    memory = sorted([row["k"], row["peak_memory_gib"]] for row in rows if "peak_memory_gib" in row)
    times = [row for row in rows if "peak_memory_gib" not in row]
    needed = ("k", "ms_per_update", "flop_floor_ms", "estimator")
    for row in times:
        if missing := [name for name in needed if name not in row]:
            raise ValueError(f"rows: expected {', '.join(needed)} in each, got one without {missing[0]}")
    if not times:
        raise ValueError("rows: expected at least one, got none")
    panels = 1 + bool(memory)
    figure, (axes, *more) = _figure(
        "Time of an update" + (" and peak memory" if memory else ""), title, 1 + 6 * panels, 4.6, columns=panels
    )
    for i, name in enumerate(dict.fromkeys(row["estimator"] for row in times)):
        values = sorted([row[column] for column in needed[:3]] for row in times if row["estimator"] == name)
        k, milliseconds, floor = _array(f"times of {name!r}", values, "n 3").T
        colour = LINES[i % len(LINES)]
        axes.plot(k, milliseconds, color=colour, marker="osD^v<>"[i % 7], markersize=4, label=name)
        axes.plot(k, floor, color=colour, linestyle=":", linewidth=1.2, label=f"{name}: matrix products alone")
    axes.set(yscale="log", ylabel="time of an update (ms)")
    _legend(axes)
    for below in more:
        k, gib = _array("memory", memory, "n 2").T
        below.plot(k, gib, color=LINES[0], marker="o", markersize=4)
        below.set(ylabel="peak memory of the process (GiB)", ylim=(0, 1.15 * gib.max()))
    counts = sorted({row["k"] for row in rows})
    for each in (axes, *more):
        each.set(xscale="log", xlabel="importance samples $k$")
        each.set_xticks(counts, [str(k) for k in counts])
        each.xaxis.minorticks_off()
        each.grid()
    return figure


def _figure(
    heading: str, title: str, width: float, height: float, rows: int = 1, columns: int = 1, **options: Any
) -> tuple[Figure, list[Axes]]:
    """A figure with two title lines, what is shown and of which run, and its axes row by row."""
    figure = Figure((width, height), layout="constrained")
    FigureCanvasAgg(figure)
    lines = [line for text in (heading, title) for line in textwrap.wrap(text, int(11 * width))]
    figure.suptitle("\n".join(lines), parse_math=False)  # a run may be called "a$b"
    return figure, list(figure.subplots(rows, columns, squeeze=False, **options).flat)


def _array(
    name: str, value: ArrayLike, shape: str, like: Array | None = None, finite: bool = True, **sizes: int
) -> Array:
    """`value` as float64; of the shape of `like`, or with the named dimensions of `shape`, none of them empty.

    A dimension that is a number, or whose name is in `sizes`, must have that size.
    """
    try:
        array = np.asarray(value, np.float64)
    except (TypeError, ValueError):
        raise ValueError(f"{name}: expected numbers [{shape.replace(' ', ', ')}], got {type(value).__name__}") from None
    names = shape.split()
    wanted = [int(n) if n.isdigit() else sizes.get(n) for n in names] if like is None else list(like.shape)
    fits = array.ndim == len(wanted) and all(w in (None, n) for w, n in zip(wanted, array.shape, strict=True))
    if not fits or array.size == 0:
        expected = ", ".join(
            n if w is None or n == str(w) else f"{n} = {w}" for n, w in zip(names, wanted, strict=True)
        )
        raise ValueError(f"{name}: expected shape [{expected}], got {list(array.shape)}")
    if finite and not np.isfinite(array).all():
        raise ValueError(f"{name}: expected finite numbers, got {np.sum(~np.isfinite(array))} that are not")
    return array


def _size(
    images: Array, rows: int, columns: int, width: float, labels: float = 0.4, ticks: float = 0.0
) -> tuple[float, float]:
    """Width and height in inches of a figure that is one mosaic, with `labels` inches at its left, `ticks` below."""
    height, across = images.shape[-2:]
    return width, (width - labels) * rows * height / (columns * across) + 0.9 + ticks


def _mosaic(axes: Axes, images: Array, lines: float = 0.8) -> None:
    """Shows images [r, c, H, W] in one panel: white 0, black 1, thin lines between; NaN images stay empty."""
    rows, columns, height, width = images.shape
    axes.imshow(
        images.transpose(0, 2, 1, 3).reshape(rows * height, columns * width),
        cmap="Greys",
        vmin=0,
        vmax=1,
        interpolation="nearest",
    )
    bottom, right = rows * height - 0.5, columns * width - 0.5
    axes.hlines(np.arange(rows + 1) * height - 0.5, -0.5, right, color="0.8", linewidth=lines)
    axes.vlines(np.arange(columns + 1) * width - 0.5, -0.5, bottom, color="0.8", linewidth=lines)
    axes.set(xlim=(-0.6, right + 0.1), ylim=(bottom + 0.1, -0.6), xticks=[], yticks=[])
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)


def _legend(owner: Axes | Figure, handles: Sequence[Artist] | None = None, **options: Any) -> None:
    """A legend whose entries are plain text, whatever a run is called."""
    legend = owner.legend(**options) if handles is None else owner.legend(handles=handles, **options)
    for text in legend.get_texts():
        text.set_parse_math(False)


def _even(name: str, value: ArrayLike) -> Array:
    """The evenly spaced, increasing points of a grid, [G] with G > 1."""
    points = _array(name, value, "G")
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


def _number(value: float, digits: int) -> str:
    """A number with a true minus sign."""
    return f"{value:.{digits}f}".replace("-", "−")
