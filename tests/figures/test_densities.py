"""`iwae.figures.densities`: what is drawn of models of one and two dimensions."""

import numpy as np
from figure_checks import TITLE, Case, Wrong, checks_of
from matplotlib.colors import to_hex
from matplotlib.figure import Figure

from iwae.figures import densities
from iwae.figures.style import LINES

RANDOM = np.random.default_rng(5)


def one_dimensional(n: int = 12, m: int = 15, known: bool = True, **changes) -> Figure:
    x, z = np.linspace(-3, 3, n), np.linspace(-4, 4, m)
    fields = {
        "x": x,
        "model_density": np.exp(-0.9 * x**2),
        "encoder_mean": x,
        "encoder_scale": np.ones(n),
        "z": z,
        "decoder_mean": np.tanh(z),
        "decoder_scale": np.full(m, 0.5),
        "posterior": np.exp(-(z**2)),
        "q": np.exp(-(z**2) / 2),
        "posterior_x": 0.02,
    }
    density = np.exp(-(x**2)) if known else None
    return densities.one_dimensional(densities.OneDimensional(**(fields | changes)), density, TITLE)


def two_dimensional(known: bool) -> Figure:
    x1, x2 = np.linspace(-3, 3, 21), np.linspace(-4, 4, 23)
    log_density = (x1, x2, -0.5 * (x1[None, :] ** 2 + x2[:, None] ** 2))
    data, samples = RANDOM.normal(size=(30, 2)), RANDOM.normal(size=(20, 2))
    return densities.two_dimensional_density(data, samples, TITLE, log_density if known else None)


FIGURES: dict[str, Case] = {
    "one dimension": (
        one_dimensional,
        "A one-dimensional model",
        [("$x$", "density"), ("$z$", "density"), ("$z$", "$x$"), ("$x$", "$z$")],
        ["data", "model", "true", "approximate", "mean", "mean ± scale", "mean", "mean ± scale"],
    ),
    "unknown density": (
        lambda: one_dimensional(known=False),
        "A one-dimensional model",
        4 * [None],
        ["model", "true", "approximate", "mean", "mean ± scale", "mean", "mean ± scale"],
    ),
    "two dimensions": (
        lambda: two_dimensional(True),
        "Data and model",
        [("$x_1$", "$x_2$"), ("$x_1$", "$x_2$")],
        ["true density"],
    ),
    "a table": (
        lambda: densities.pairs(RANDOM.normal(size=(30, 3)), RANDOM.normal(size=(20, 3)), TITLE),
        "Data and model",
        [("", "$x_1$"), ("", "$x_2$"), ("", ""), ("$x_1$", "$x_3$"), ("$x_2$", ""), ("$x_3$", "")],
        ["data (30)", "samples of the model (20)"],
    ),
    "a wide table": (
        lambda: densities.pairs(RANDOM.normal(size=(1, 9)), RANDOM.normal(size=(1, 9)), TITLE),
        "the first 6 of 9 columns",
        21 * [None],
        ["data", "samples"],
    ),
    "two dimensions, unknown": (lambda: two_dimensional(False), "Data and model", 2 * [None], []),
}
WRONG: dict[str, Wrong] = {
    "other columns": (lambda: densities.pairs(np.ones((5, 3)), np.ones((5, 4)), TITLE), r"expected shape \[m, D = 3\]"),
    "on another grid": (lambda: one_dimensional(q=np.ones(12)), r"q: expected shape \[m = 15\], got \[12\]"),
}


test_figures_say_what_they_show, test_what_does_not_fit_is_refused_in_one_line = checks_of(FIGURES, WRONG)


def test_data_and_samples_of_a_table_are_told_apart_in_every_panel() -> None:
    data, samples = np.arange(12.0).reshape(4, 3), -np.arange(6.0).reshape(2, 3)
    figure = densities.pairs(data, samples, TITLE)
    below = {(axes.get_xlabel(), axes.get_ylabel()): axes for axes in figure.axes}["$x_1$", "$x_3$"]
    (scatter,) = below.collections
    colours = [to_hex(colour[:3]).upper() for colour in scatter.get_facecolors()]
    at = dict(zip(map(tuple, scatter.get_offsets().data.tolist()), colours, strict=True))
    assert at == {(x[0], x[2]): LINES[0] for x in data.tolist()} | {(x[0], x[2]): LINES[1] for x in samples.tolist()}
    for values, line in zip((data, samples), figure.axes[0].patches, strict=True):
        steps = line.get_xy()
        assert steps[:, 0].min() == -3 and steps[:, 0].max() == 9
        assert to_hex(line.get_edgecolor()).upper() == LINES[int(values is samples)]
