"""The latent space of a data set: the aggregate posterior as a scatter plot, and the activity of the units."""

from collections.abc import Callable, Sequence
from typing import Any, Literal, get_args

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator
from numpy.typing import ArrayLike

from iwae import evaluation, resampling
from iwae.figures import style
from iwae.figures.style import CLASSES, LINES, Array
from iwae.runs.folder import LAST_PLOT
from iwae.runs.run import Run

ScatterKind = Literal["means", "draws", "importance-resampled draws"]


@style.styled
def latent_scatter(
    points: ArrayLike,
    labels: ArrayLike | None,
    title: str,
    kind: ScatterKind,
    axis_labels: tuple[str, str],
    called: Callable[[float], str] = "{:g}".format,
) -> Figure:
    """The aggregate posterior of a data set: one point [n, 2] an example, coloured by its label.

    Args:
        points: [n, 2], see `project`.
        labels: [n] integers or None. Up to ten classes have a colour each and their name at their median, or beside
            it where another's is; more have a colour bar.
        kind: what was done to get a point from q(z|x): its mean, a draw, or a draw resampled by importance weight.
        axis_labels: of the two dimensions.
        called: the name of a label.
    """
    points = style.array("points", points, "n 2")
    figure, axes = _panel(kind, title, 6.4)
    order = np.random.default_rng(0).permutation(len(points))  # no class lies on top of the others
    look: dict[str, Any] = {"s": float(np.clip(30_000 / len(points), 4, 30)), "alpha": 0.7, "linewidths": 0}
    x, y = points[order].T
    middles: dict[str, Array] = {}
    if labels is None:
        axes.scatter(x, y, color=LINES[0], **look)
    else:
        labels = style.array("labels", labels, "n", n=len(points))
        classes = np.unique(labels)
        if len(classes) > len(CLASSES):
            coloured = axes.scatter(x, y, c=labels[order], cmap="viridis", **look)
            ticks = FuncFormatter(lambda label, _: called(label))
            opaque = matplotlib.cm.ScalarMappable(coloured.norm, coloured.cmap)
            figure.colorbar(opaque, ax=axes, label="class", ticks=MaxNLocator(integer=True), format=ticks)
        else:
            colours = np.array(CLASSES)[np.searchsorted(classes, labels)]
            axes.scatter(x, y, color=colours[order], **look)
            for colour, label in zip(CLASSES, classes, strict=False):
                axes.scatter([], [], s=36, color=colour, label=called(label))
                middles[called(label)] = np.median(points[labels == label], axis=0)
            style.legend(figure, loc="outside right center", title="class", handletextpad=0.2)
    axes.set(xlabel=axis_labels[0], ylabel=axis_labels[1])
    axes.set_aspect("equal", adjustable="datalim")
    figure.draw_without_rendering()  # where points of the data lie in the figure is known from here on
    places = axes.transData.transform(np.reshape(list(middles.values()), (-1, 2)))
    places = axes.transData.inverted().transform(_apart(places, 0.17 * figure.dpi))
    for name, colour, place in zip(middles, CLASSES, places, strict=False):
        shape = "circle" if len(name) < 3 else "round"
        box = {"boxstyle": f"{shape},pad=0.15", "facecolor": "white", "edgecolor": colour, "alpha": 0.9}
        text = axes.annotate(name, place, ha="center", va="center", fontsize=9, fontweight="bold", bbox=box)
        text.set_parse_math(False)
    return figure


@style.styled
def latent_histogram(
    points: ArrayLike,
    labels: ArrayLike | None,
    title: str,
    kind: ScatterKind,
    called: Callable[[float], str] = "{:g}".format,
) -> Figure:
    """The aggregate posterior of one latent unit, [n]: `latent_scatter` in one dimension, up to ten classes stacked."""
    points = style.array("points", points, "n")
    figure, axes = _panel(kind, title, 4.4)
    parts, names = [points], [""]
    colours: tuple[str, ...] = LINES[:1]
    if labels is not None:
        labels = style.array("labels", labels, "n", n=len(points))
        classes = np.unique(labels)
        if len(classes) <= len(CLASSES):
            colours, names = CLASSES[: len(classes)], [called(label) for label in classes]
            parts = [points[labels == label] for label in classes]
    edges = list(np.histogram_bin_edges(points, min(60, 5 + len(points) // 20)))
    axes.hist(parts, edges, stacked=True, color=colours, label=names)
    if len(parts) > 1:
        style.legend(figure, loc="outside right center", title="class")
    axes.set(xlabel="$z$", ylabel="examples")
    axes.yaxis.set_major_locator(MaxNLocator(integer=True))
    return figure


def _panel(kind: ScatterKind, title: str, height: float) -> tuple[Figure, Axes]:
    if kind not in get_args(ScatterKind):
        raise ValueError(f"kind: expected one of {', '.join(map(repr, get_args(ScatterKind)))}, got {kind!r}")
    figure, (axes,) = style.figure(f"Aggregate posterior: {kind}", title, 7.5, height)
    return figure, axes


def project(points: ArrayLike) -> tuple[Array, tuple[str, str]]:
    """Latent points [n, D], D > 1, as points of a plane [n, 2], and the labels of its two axes.

    Two dimensions stay as they are; more are projected on the two principal components, whose share of the variance
    the labels give.
    """
    points = style.array("points", points, "n D")
    if points.shape[1] == 2:
        return points, ("$z_1$", "$z_2$")
    centred = points - points.mean(axis=0)
    variances, components = np.linalg.eigh(centred.T @ centred)
    variances, components = np.maximum(variances[::-1], 0), components[:, ::-1][:, :2]
    signs = np.sign(components[np.abs(components).argmax(axis=0), [0, 1]])  # else the sign of a component is arbitrary
    shares = 100 * variances[:2] / max(variances.sum(), np.finfo(float).tiny)
    labels = [f"principal component {i} ({share:.1f} % of the variance)" for i, share in enumerate(shares, start=1)]
    return centred @ (components * signs), (labels[0], labels[1])


def _apart(places: Array, distance: float) -> Array:
    """Points of a plane [n, 2], those nearer to each other than a distance pushed apart."""
    places = places + 1e-3 * distance * np.random.default_rng(0).standard_normal(places.shape)  # none on another
    for _ in range(200):
        between = places[:, None] - places
        apart = np.linalg.norm(between, axis=-1, keepdims=True) + np.eye(len(places))[..., None] * distance
        places = places + np.sum(between / apart * np.maximum(distance - apart, 0) / 2, axis=1)
    return places


@style.styled
def active_units(variances: Sequence[ArrayLike], threshold: float, title: str) -> Figure:
    """Histograms of log10 A_u, A_u = Var_x(E_q[u|x]) (Burda et al. 2015, section 5.2).

    Args:
        variances: A_u [D] of every stochastic layer, from the data upwards.
        threshold: a unit is active if its A_u is above it.
    """
    layers = [style.array(f"variances of layer {i}", layer, "D") for i, layer in enumerate(variances, start=1)]
    if not layers or threshold <= 0:
        raise ValueError(f"expected at least one layer and a threshold above 0, got {len(layers)} and {threshold}")
    border, floor = np.log10(threshold), 1e-6 * threshold
    logs = [np.log10(np.maximum(layer, floor)) for layer in layers]
    low, high = min(border - 1, *map(np.min, logs)), max(border + 1, *map(np.max, logs))
    # A bin's edge lies on the threshold, so that no bar holds units of both kinds.
    width = max(0.1, np.ceil((high - low) / 40 * 10) / 10)
    edges = border + width * np.arange(np.floor((low - border) / width), np.ceil((high - border) / width) + 1)
    height = 1.6 + 2.2 * len(layers)
    figure, panels = style.figure("Activity of the latent units", title, 7.5, height, len(layers), sharex=True)
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
        style.legend(axes, loc="upper left", bbox_to_anchor=(1, 1))
    lowest = f" (what is below {floor:.0e} is shown there)" if min(map(np.min, layers)) < floor else ""
    panels[-1].set_xlabel(r"$\log_{10} A_u$, $A_u = \mathrm{Var}_x(\mathrm{E}_{q(u|x)}[u])$" + lowest)
    return figure


# ---- from a run ----


def latent_space_of(run: Run) -> dict[str, Figure]:
    """The aggregate posterior of the test examples in three kinds, projected alike, of each layer; the active units."""
    test, labels, seed = run.images("test"), run.dataset.labels["test"], run.experiment.seed
    means = evaluation.posterior_means(run.model, test, seed)
    draws = [layer[0].numpy() for layer in run.model.encode(test, 1, (seed, 4))]
    resampled = resampling.resample(run.model, test, resampling.PROPOSALS, seed)
    kinds: dict[str, ScatterKind] = {"": "means", "_draws": "draws", "_resampled": "importance-resampled draws"}
    figures, called = {}, run.dataset.class_name
    for i, points in enumerate(zip(means, draws, resampled, strict=True), start=1):
        suffix, title = of_layer(run, i)
        if len(points[0][0]) == 1:
            for (name, kind), values in zip(kinds.items(), points, strict=True):
                figures[f"posterior_histogram{name}{suffix}"] = latent_histogram(
                    values[:, 0], labels, title, kind, called
                )
            continue
        plane, axis_labels = project(np.concatenate(points))
        for (name, kind), values in zip(kinds.items(), np.split(plane, len(kinds)), strict=True):
            figures[f"posterior_scatter{name}{suffix}"] = latent_scatter(
                values, labels, title, kind, axis_labels, called
            )
    settings = run.experiment.evaluation
    if settings.examples is not None:  # the units are counted on the examples that are evaluated
        chosen = evaluation.spread(len(test), settings.examples)
        means = evaluation.posterior_means(run.model, test[chosen], seed)
    variances = evaluation.activity(means)
    return figures | {LAST_PLOT: active_units(variances, settings.active_unit_threshold, run.title)}


def of_layer(run: Run, i: int) -> tuple[str, str]:
    """Ending of a file's name, and title, of stochastic layer i (1: the lowest); of one layer nothing is said."""
    several = len(run.model.latent_units) > 1
    return (f"_z{i}", f"{run.title}, stochastic layer {i}") if several else ("", run.title)


OF_EVERY_RUN: tuple[style.OfRun, ...] = (latent_space_of,)
