"""All figures, each a function from NumPy arrays to a matplotlib `Figure`; it knows no model.

Every function takes `title`, the line that says run, dataset, objective and k, and raises `ValueError` for an array of
a wrong shape or with values that are not finite. Figures are made with the object-oriented interface on the Agg canvas,
so that no display is needed and nothing is kept by pyplot. Bounds, log densities and divergences are in nats; an epoch
is one pass over the training data. `save` writes a figure.
"""

import os
import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, get_args

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
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
_STYLE = {
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
    "axes.prop_cycle": matplotlib.cycler(color=LINES),
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
            any "valid_bound" and "learning_rate". A bound that is not a number leaves a gap.
        title: says run, dataset, objective and k.

    The epochs are on a logarithmic axis if there are more than 50. Dotted lines mark where the learning rate changes,
    if it is by stages and the same for all runs.
    """
    if not curves:
        raise ValueError("curves: expected at least one run, got none")
    figure, (axes,) = _figure("Learning curves", title, 8, 4.6)
    borders, last = [], 1.0
    for i, (label, columns) in enumerate(curves):
        if missing := {"epoch", "train_bound"} - set(columns):
            raise ValueError(f"curves: run {label!r} has no column {min(missing)!r}")
        epoch = _array(f"epoch of {label!r}", columns["epoch"], "epochs")
        last = max(last, epoch[-1])
        marker = "o" if len(epoch) <= 20 else None
        for j, (column, what) in enumerate({"train_bound": "training", "valid_bound": "validation"}.items()):
            if column not in columns:
                continue
            bound = _array(f"{column} of {label!r}", columns[column], "epochs", finite=False, epochs=len(epoch))
            if not np.isfinite(bound).any():
                continue
            name = what if len(curves) == 1 else f"{what}, {label}"
            name += f" ({bound[np.isfinite(bound)][-1]:.2f} at the end)"
            colour = LINES[(j if len(curves) == 1 else i) % len(LINES)]
            style = "--" if column == "train_bound" else "-"
            axes.plot(epoch, bound, style, color=colour, marker=marker, markersize=3, label=name)
        rate = _array(f"learning_rate of {label!r}", columns.get("learning_rate", np.ones(len(epoch))), "epochs")
        borders.append(tuple(epoch[1:][rate[1:] != rate[:-1]] - 0.5))
    if len(set(borders)) == 1 and 0 < len(borders[0]) <= 12:
        for border in borders[0]:
            axes.axvline(border, color=_GREY, linestyle=":", linewidth=0.9, zorder=0)
        axes.plot([], [], color=_GREY, linestyle=":", linewidth=0.9, label="the learning rate changes")
    if last > 50:
        axes.set_xscale("log")
    else:
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.set(xlabel="epoch (passes over the training data)", ylabel=r"lower bound on $\log p(x)$ (nats per example)")
    axes.grid(axis="y")
    _legend(axes, loc="lower right")
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
        labels: [n] integers or None. Up to ten classes have a colour each and their number at their median; more have a
            colour bar.
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
    if labels is None:
        axes.scatter(x, y, color=LINES[0], **style)
    else:
        labels = _array("labels", labels, "n", n=len(points))
        classes = np.unique(labels)
        if len(classes) > len(CLASSES):
            coloured = axes.scatter(x, y, c=labels[order], cmap="viridis", **style)
            figure.colorbar(coloured, ax=axes, label="class", ticks=MaxNLocator(integer=True)).solids.set_alpha(1)
        else:
            colours = np.array(CLASSES)[np.searchsorted(classes, labels)]
            axes.scatter(x, y, color=colours[order], **style)
            for colour, name in zip(CLASSES, classes, strict=False):
                axes.scatter([], [], s=36, color=colour, label=f"{name:g}")
                middle = np.median(points[labels == name], axis=0)
                box = {"boxstyle": "circle,pad=0.15", "facecolor": "white", "edgecolor": colour, "alpha": 0.9}
                axes.annotate(f"{name:g}", middle, ha="center", va="center", fontsize=9, fontweight="bold", bbox=box)
            figure.legend(loc="outside right center", title="class", handletextpad=0.2)
    axes.set(xlabel=axis_labels[0], ylabel=axis_labels[1])
    if "spread" not in axis_labels[1]:
        axes.set_aspect("equal", adjustable="datalim")
    return figure


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
    border, floor = np.log10(threshold), 1e-12
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
    panels[-1].set_xlabel(r"$\log_{10} A_u$, where $A_u = \mathrm{Var}_x(\mathrm{E}_{q(u|x)}[u])$")
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


def _size(images: Array, rows: int, columns: int, width: float, labels: float = 0.4) -> tuple[float, float]:
    """Width and height in inches of a figure that is one mosaic, with `labels` inches at its left."""
    height, across = images.shape[-2:]
    return width, (width - labels) * rows * height / (columns * across) + 1.0


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


def _legend(axes: Axes, **options: Any) -> None:
    """A legend whose entries are plain text, whatever a run is called."""
    handles, _ = axes.get_legend_handles_labels()
    for text in axes.legend(handles=handles, **options).get_texts():
        text.set_parse_math(False)
