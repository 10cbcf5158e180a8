"""What all figures share: colours, sizes, the check of arrays, panels of images, and the one way to a file.

Every drawing function of this folder takes NumPy arrays and `title`, the line that says run, dataset, objective and k.
It raises `ValueError`, in one line, for an array of a wrong shape or with values that are not finite. Figures are made
with the object-oriented interface on the Agg canvas, so that no display is needed and nothing is kept by pyplot.
Bounds, log densities and divergences are in nats; an epoch is one pass over the training data.
"""

import textwrap
import warnings
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from numpy.typing import ArrayLike

from iwae import files
from iwae.runs.folder import LAST_PLOT, WEIGHTS, Folder
from iwae.runs.run import Run

Array = np.ndarray
OfRun = Callable[[Run], dict[str, Figure]]
"""Takes from a run the arrays it draws; the figures by the name of their file, none where they do not apply."""

LINES = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
"""Colours of curves, told apart with any colour vision (Okabe & Ito 2008)."""

CLASSES = tuple("#3f90da #ffa90e #bd1f01 #94a4a2 #832db6 #a96b59 #e76300 #b9ac70 #717581 #92dadd".split())
"""Colours of up to ten classes (Petroff 2021, arXiv:2107.02270: ordered, tested for colour vision deficiencies)."""

DPI = 160  # an 8 inch figure has 1280 pixels: sharp at the 800 a README shows, where 9 points are 12.5 pixels high
GREY = "0.55"
_STYLE: dict[Any, Any] = {
    "font.size": 10, "axes.titlesize": 10, "axes.labelsize": 10, "figure.titlesize": 11, "text.usetex": False,
    "legend.fontsize": 9, "legend.frameon": False, "lines.linewidth": 1.6,
    "axes.spines.top": False, "axes.spines.right": False,
    "axes.axisbelow": True, "grid.color": "0.9", "grid.linewidth": 0.6,
}  # fmt: skip
styled = matplotlib.rc_context(_STYLE)


def save(figure: Figure, path: str | Path, **notes: str) -> None:
    """Writes a figure and clears it; an existing file stays whole until the new one is.

    The folder must exist; the ending of `path` says the format. A PNG file takes notes, texts by a name.
    """
    path = Path(path)
    with files.replacing(path) as stream, matplotlib.rc_context(_STYLE):
        figure.savefig(stream, format=path.suffix[1:], dpi=DPI, metadata=notes or None)
    with warnings.catch_warnings():  # matplotlib before 3.11 warns of its own limits where logarithmic axes are shared
        warnings.simplefilter("ignore", UserWarning)
        figure.clear()


def save_all(figures: Mapping[str, Figure], folder: Folder) -> None:
    """Writes figures as NAME.png among the plots of a run, each with the checksum of the weights it was drawn from.

    Other files there stay, and `LAST_PLOT` is written last.
    """
    folder.plots.mkdir(exist_ok=True)
    for name in sorted(figures, key=lambda name: name == LAST_PLOT):
        save(figures[name], folder.plots / f"{name}.png", **{WEIGHTS: folder.recorded_checksum() or "not known"})


def figure(
    heading: str, title: str, width: float, height: float, rows: int = 1, columns: int = 1, **options: Any
) -> tuple[Figure, list[Axes]]:
    """A figure with two title lines, what is shown and of which run, and its axes row by row."""
    figure = Figure((width, height), layout="constrained")
    FigureCanvasAgg(figure)
    lines = [line for text in (heading, title) for line in textwrap.wrap(text, int(11 * width))]
    figure.suptitle("\n".join(lines), parse_math=False)  # a run may be called "a$b"
    return figure, list(figure.subplots(rows, columns, squeeze=False, **options).flat)


def array(name: str, value: ArrayLike, shape: str, finite: bool = True, **sizes: int) -> Array:
    """`value` as float64, with the dimensions that `shape` names, none of them empty.

    A dimension that is a number, or whose name is in `sizes`, must have that size.
    """
    try:
        array = np.asarray(value, np.float64)
    except (TypeError, ValueError):
        raise ValueError(f"{name}: expected numbers [{shape.replace(' ', ', ')}], got {type(value).__name__}") from None
    names = shape.split()
    wanted = [int(n) if n.isdigit() else sizes.get(n) for n in names]
    fits = array.ndim == len(wanted) and all(w in (None, n) for w, n in zip(wanted, array.shape, strict=True))
    if not fits or array.size == 0:
        expected = ", ".join(
            n if w is None or n == str(w) else f"{n} = {w}" for n, w in zip(names, wanted, strict=True)
        )
        raise ValueError(f"{name}: expected shape [{expected}], got {list(array.shape)}")
    if finite and not np.isfinite(array).all():
        raise ValueError(f"{name}: expected finite numbers, got {np.sum(~np.isfinite(array))} that are not")
    return array


def pictures(name: str, value: ArrayLike, shape: str, **sizes: Any) -> Array:
    """`array` of images, whose `shape` ends in "H W", or of coloured ones, which have three channels behind that."""
    return array(name, value, f"{shape} 3" if np.ndim(value) > len(shape.split()) else shape, **sizes)


def mosaic(axes: Axes, images: Array, lines: float = 0.8) -> None:
    """Shows images [r, c, H, W] in one panel: white 0, black 1, thin lines between; coloured ones are [r, c, H, W, 3].

    Images of NaN alone stay empty; other pixels that are NaN are missing, and light blue.
    """
    rows, columns, height, width, *colours = images.shape
    nothing = np.isnan(images).all(axis=tuple(range(2, images.ndim)), keepdims=True)
    images = np.where(nothing, 1.0 if colours else 0.0, images)
    picture = images.swapaxes(1, 2).reshape(rows * height, columns * width, *colours)
    if colours:
        picture = np.where(np.isnan(picture), matplotlib.colors.to_rgb(LINES[5]), np.clip(picture, 0, 1))
    greys = matplotlib.colormaps["Greys"].with_extremes(bad=LINES[5])
    axes.imshow(picture, cmap=greys, vmin=0, vmax=1, interpolation="nearest")
    bottom, right = rows * height - 0.5, columns * width - 0.5
    axes.hlines(np.arange(rows + 1) * height - 0.5, -0.5, right, color="0.8", linewidth=lines)
    axes.vlines(np.arange(columns + 1) * width - 0.5, -0.5, bottom, color="0.8", linewidth=lines)
    axes.set(xlim=(-0.6, right + 0.1), ylim=(bottom + 0.1, -0.6), xticks=[], yticks=[])
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)


def legend(owner: Axes | Figure, handles: Sequence[Artist] | None = None, **options: Any) -> None:
    """A legend whose entries are plain text, whatever a run is called."""
    legend = owner.legend(**options) if handles is None else owner.legend(handles=handles, **options)
    for text in legend.get_texts():
        text.set_parse_math(False)


def number(value: float, digits: int) -> str:
    """A number with a true minus sign."""
    return f"{value:.{digits}f}".replace("-", "−")
