"""Data of few dimensions beside the density that a model gives them, or beside its samples."""

from typing import NamedTuple

import numpy as np
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator
from numpy.typing import ArrayLike

from iwae import evaluation
from iwae.figures import style
from iwae.figures.style import LINES, Array
from iwae.runs.run import Run

PAIRED = 6  # columns of a table that `pairs` shows, at most


class OneDimensional(NamedTuple):
    """What `one_dimensional` shows of a model; densities are per unit of x or z."""

    x: Array  # [n], data values, increasing
    model_density: Array  # [n], p(x) at x
    encoder_mean: Array  # [n], of q(z | x), at x
    encoder_scale: Array  # [n]
    z: Array  # [m], latent values, increasing
    decoder_mean: Array  # [m], of p(x | z), at z
    decoder_scale: Array  # [m]
    posterior: Array  # [m], p(z | x) at z, for x = posterior_x
    q: Array  # [m], q(z | x) at z, for x = posterior_x
    posterior_x: float


@style.styled
def one_dimensional(shown: OneDimensional, density: ArrayLike | None, title: str) -> Figure:
    """A model of one-dimensional data with one latent unit: densities, decoder, encoder, and the posterior of one x.

    `density` [n] is the true p(x) at `shown.x`, None if it is not known.
    """
    x, z = style.array("x", shown.x, "n"), style.array("z", shown.z, "m")
    names: tuple[str, ...] = ("model_density", "encoder_mean", "encoder_scale")
    model, *encoder = [style.array(name, getattr(shown, name), "n", n=len(x)) for name in names]
    names = ("decoder_mean", "decoder_scale", "posterior", "q")
    *decoder, truth, approximation = [style.array(name, getattr(shown, name), "m", m=len(z)) for name in names]
    figure, (densities, posteriors, left, right) = style.figure("A one-dimensional model", title, 8, 6.2, 2, 2)
    if density is not None:
        densities.plot(x, style.array("density", density, "n", n=len(x)), color="black", label="data, $p(x)$")
    densities.plot(x, model, color=LINES[0], linestyle="--", label=r"model, $p_\theta(x)$")
    densities.set(title="density of the data", xlabel="$x$", ylabel="density")
    for axes, colour, at, (mean, scale) in ((left, LINES[0], z, decoder), (right, LINES[1], x, encoder)):
        axes.plot(at, mean, color=colour, label="mean")
        axes.fill_between(at, mean - scale, mean + scale, color=colour, alpha=0.25, linewidth=0, label="mean ± scale")
        free = "upper left" if mean[0] < mean[-1] else "upper right"
        style.legend(axes, loc=free, frameon=True, framealpha=0.85, edgecolor="none")
    left.set(title=r"decoder $p_\theta(x|z)$", xlabel="$z$", ylabel="$x$")
    right.set(title="encoder $q(z|x)$", xlabel="$x$", ylabel="$z$")
    posteriors.plot(z, truth, color="black", label=r"true, $p_\theta(z|x)$")
    posteriors.plot(z, approximation, color=LINES[1], linestyle="--", label="approximate, $q(z|x)$")
    posteriors.set(title=f"posterior of $x = {shown.posterior_x:.3g}$", xlabel="$z$", ylabel="density")
    for axes in (densities, posteriors):
        axes.set_ylim(0, 1.4 * axes.get_ylim()[1])  # room for the legend
        axes.legend(loc="upper left")
    return figure


@style.styled
def two_dimensional_density(
    points: ArrayLike,
    samples: ArrayLike,
    title: str,
    log_density: tuple[ArrayLike, ArrayLike, ArrayLike] | None = None,
) -> Figure:
    """Two-dimensional data [n, 2] beside samples of the model [m, 2], on the same axes.

    `log_density`, if known, is (x1 [G1], x2 [G2], values [G2, G1] in nats): the true density, drawn as three contours.
    """
    data, drawn = style.array("points", points, "n 2"), style.array("samples", samples, "m 2")
    sets = {"data": data, "samples of the model": drawn}
    figure, panels = style.figure("Data and model", title, 8, 5, 1, 2, sharex=True, sharey=True)
    for (name, values), colour, axes in zip(sets.items(), LINES, panels, strict=False):
        size = float(np.clip(8_000 / len(values), 2, 14))
        axes.scatter(values[:, 0], values[:, 1], s=size, color=colour, alpha=0.5, linewidths=0)
        axes.set(title=f"{name} ({len(values)} points)", xlabel="$x_1$", ylabel="$x_2$")
        axes.set_aspect("equal", adjustable="box")
        if log_density is not None:
            x1, x2 = (style.array(f"x{i} of log_density", log_density[i - 1], f"G{i}") for i in (1, 2))
            values = style.array("values of log_density", log_density[2], "G2 G1", finite=False, G1=len(x1), G2=len(x2))
            levels = np.nanmax(values) - np.array([4.5, 2, 0.5])
            axes.contour(x1, x2, values, levels, colors="black", linewidths=0.8, linestyles="solid")
    if log_density is not None:
        line = Line2D([], [], color="black", linewidth=0.8)
        label = "true density: log density 0.5, 2 and 4.5 nats below its maximum"
        figure.legend([line], [label], loc="outside lower center")
    return figure


@style.styled
def pairs(points: ArrayLike, samples: ArrayLike, title: str) -> Figure:
    """Data [n, D] and samples of the model [m, D] in one plot: every column as a histogram, every two as a scatter.

    Of more than `PAIRED` columns it shows the first.
    """
    data = style.array("points", points, "n D")
    drawn = style.array("samples", samples, "m D", D=data.shape[1])
    count, everything = min(data.shape[1], PAIRED), np.concatenate([data, drawn])
    of = "" if count == data.shape[1] else f": the first {count} of {data.shape[1]} columns"
    side = 1.45 * count + 0.6
    figure, panels = style.figure(f"Data and model{of}", title, side, side + 0.6, count, count, sharex="col")
    colour = np.repeat(LINES[:2], [len(data), len(drawn)])
    order = np.random.default_rng(0).permutation(len(everything))  # neither lies on top of the other
    size = float(np.clip(4_000 / len(everything), 2, 10))
    for (i, j), axes in zip(np.ndindex(count, count), panels, strict=True):
        if i < j:
            axes.remove()
            continue
        x, y = everything[order, j], everything[order, i]
        if i == j:
            edges = list(np.histogram_bin_edges(x, 30))
            for values, line in zip((data, drawn), LINES, strict=False):
                axes.hist(values[:, j], edges, density=True, histtype="step", color=line)
            axes.set_yticks([])
        else:
            axes.scatter(x, y, s=size, color=colour[order], alpha=0.5, linewidths=0)
            axes.set_ylim(span(y))
            axes.yaxis.set_major_locator(MaxNLocator(3))
            axes.tick_params(labelleft=j == 0)
        axes.set(xlim=span(x), xlabel=f"$x_{j + 1}$" if i == count - 1 else "", ylabel=f"$x_{i + 1}$" if j == 0 else "")
        axes.xaxis.set_major_locator(MaxNLocator(3))
        axes.tick_params(labelsize=8)
    sets = {f"data ({len(data)})": LINES[0], f"samples of the model ({len(drawn)})": LINES[1]}
    handles = [Line2D([], [], color=line, marker="o", markersize=4, label=name) for name, line in sets.items()]
    figure.legend(handles=handles, loc="outside lower center", ncols=2)
    return figure


# ---- from a run ----


def one_dimensional_of(run: Run, shown: OneDimensional) -> dict[str, Figure]:
    """The densities of a run's model beside the true one, if it is known; the title says how near its bound comes."""
    values, title, log_density = run.evaluation.get("test", {}), run.title, run.dataset.log_density
    density = None if log_density is None else np.exp(log_density(shown.x[:, None]))
    if "true_log_likelihood" in values:
        title += f"; L_{values['k']} = {-values['nll']:.3f}, true E[log p(x)] = {values['true_log_likelihood']:.3f}"
    return {"one_dimensional": one_dimensional(shown, density, title)}


def of_table(run: Run) -> dict[str, Figure]:
    """Up to 2000 test examples beside as many samples of the model; none of images, or of a single real dimension."""
    data, log_density, seed = run.dataset.test, run.dataset.log_density, run.experiment.seed
    complete, title = ~np.isnan(data).any(axis=1), run.title
    if not complete.all():
        data, title = data[complete], f"{title}; of the data the examples without missing values"
    wanted = run.experiment.model.likelihood == "gaussian" and data.shape[1] >= 2 and len(data)
    if run.dataset.image_shape or not wanted:
        return {}
    chosen = evaluation.spread(len(data), 2000)
    z = run.model.sample_latents(len(chosen), (seed, 2), run.images("test")[complete][chosen])
    data, draws = data[chosen], np.array(run.model.decode(z).sample(seed=(seed, 3)))
    if data.shape[1] > 2:
        return {"pairs": pairs(data, draws, title)}
    truth = None
    if log_density is not None:
        x1, x2 = (np.linspace(*span(values), 201) for values in data.T)
        points = np.stack(np.meshgrid(x1, x2), axis=-1)
        truth = (x1, x2, log_density(points.reshape(-1, 2)).reshape(points.shape[:2]))
    return {"two_dimensional_density": two_dimensional_density(data, draws, title, truth)}


def span(values: Array) -> tuple[float, float]:
    """An interval somewhat wider than that of the values."""
    low, high = float(values.min()), float(values.max())
    margin = 0.1 * (high - low) or 1.0
    return low - margin, high + margin


OF_EVERY_RUN: tuple[style.OfRun, ...] = (of_table,)
