"""Curves: bounds over the epochs, gradient noise and time over k, and how tight L_k is."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator
from numpy.typing import ArrayLike

from iwae.figures import style
from iwae.figures.style import GREY, LINES, Array
from iwae.runs import log
from iwae.runs.run import Run


@style.styled
def learning_curves(curves: Sequence[tuple[str, Mapping[str, ArrayLike]]], title: str) -> Figure:
    """Training and validation bound against the epoch, for one run or for several.

    Args:
        curves: label and columns of each run, as in `log.csv`: "epoch", "train_bound" [epochs] (nats), and if there are
            any "valid_bound" and "learning_rate". A bound that is not a number leaves a gap. Of several seeds these
            are means, and "train_bound_spread" and "valid_bound_spread" [epochs] their standard deviations: a band.

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
        epoch = style.array(f"epoch of {label!r}", columns["epoch"], "epochs")
        last = max(last, epoch[-1])
        for j, (column, what) in enumerate({"train_bound": "training", "valid_bound": "validation"}.items()):
            if column not in columns:
                continue
            bound = style.array(f"{column} of {label!r}", columns[column], "epochs", finite=False, epochs=len(epoch))
            if not np.isfinite(bound).any():
                continue
            name = what if len(curves) == 1 else f"{what}, {label}"
            look: dict[str, Any] = {
                "label": f"{name} ({style.number(bound[np.isfinite(bound)][-1], 2)} at the end)",
                "color": LINES[(j if len(curves) == 1 else i) % len(LINES)],
                "linestyle": "--" if column == "train_bound" else "-",
                "marker": "o" if len(epoch) <= 20 else None,
            }
            spread = columns.get(f"{column}_spread", np.zeros(len(epoch)))
            spread = style.array(f"{column}_spread of {label!r}", spread, "epochs", finite=False, epochs=len(epoch))
            lines.append((epoch, bound, spread, look))
        rate = style.array(f"learning_rate of {label!r}", columns.get("learning_rate", np.ones(len(epoch))), "epochs")
        borders.append(tuple(epoch[1:][rate[1:] != rate[:-1]] - 0.5))
    if not lines:
        raise ValueError("curves: expected at least one bound that is a number, got none")
    stages = borders[0] if len(set(borders)) == 1 and len(borders[0]) <= 12 else ()

    zoomed = last >= 8
    ncols = 2 if max(len(look["label"]) for *_, look in lines) <= 50 else 1
    figure, panels = style.figure("Learning curves", title, 8, 4.4 + 0.2 * len(lines) / ncols, 1, 1 + zoomed)
    for axes, first in zip(panels, (0, last / 2), strict=False):
        for epoch, bound, spread, look in lines:
            shown = epoch >= first
            axes.plot(epoch[shown], bound[shown], markersize=3, **look)
            if spread.any():
                low, high = (bound - spread)[shown], (bound + spread)[shown]
                axes.fill_between(epoch[shown], low, high, color=look["color"], alpha=0.2, linewidth=0)
        for border in stages:
            if border > first:
                axes.axvline(border, color=GREY, linestyle=":", linewidth=0.9, zorder=0)
        axes.set_xlabel("epoch (passes over the data)")
        axes.xaxis.set_major_locator(MaxNLocator(steps=[1, 2, 5, 10], integer=True))
        axes.grid(axis="y")
    panels[0].set_ylabel(r"lower bound on $\log p(x)$ (nats per example)")
    if last > 50:
        panels[0].set_xscale("log")
        panels[0].xaxis.set_major_formatter("{x:g}")
    if zoomed:
        panels[0].set_title("all epochs")
        panels[1].set_title("last half")
    handles = panels[0].get_lines()[: len(lines)]
    if stages:
        handles.append(Line2D([], [], color=GREY, linestyle=":", linewidth=0.9, label="the learning rate changes"))
    style.legend(figure, handles, loc="outside lower center", ncols=ncols)
    return figure


@style.styled
def gradient_snr(k: ArrayLike, ratios: Mapping[str, tuple[Array, Array]], title: str) -> Figure:
    """Signal-to-noise ratio of the gradients against k [n] (Rainforth et al. 2018, arXiv:1802.04537).

    `ratios`: by gradient estimator, those of the encoder's and of the decoder's gradient, [n] each. Grey guides are
    the slopes of their theorem 1: 1/sqrt(k) for the encoder's, sqrt(k) for the decoder's.
    """
    k = style.array("k", k, "n")
    if not ratios:
        raise ValueError("ratios: expected at least one gradient estimator, got none")
    figure, panels = style.figure("Signal-to-noise ratio of the gradients", title, 8, 4.4, 1, 2, sharey=True)
    for j, (axes, part, power) in enumerate(zip(panels, ("encoder", "decoder"), (-0.5, 0.5), strict=True)):
        for i, (name, pair) in enumerate(ratios.items()):
            ratio = style.array(f"ratios of {name!r}", pair, "2 n", n=len(k))[j]
            axes.plot(k, ratio, color=LINES[i % len(LINES)], marker="osD^v<>"[i % 7], markersize=4, label=name)
            if i == 0:
                guide = ratio[0] / 2 * (k / k[0]) ** power
        slope = r"$\propto 1/\sqrt{k}$" if power < 0 else r"$\propto \sqrt{k}$"
        axes.plot(k, guide, color=GREY, linestyle="--", linewidth=1, zorder=0)
        middle, side = len(k) // 2, "right" if power < 0 else "left"
        axes.annotate(slope, (k[middle], guide[middle]), ha=side, va="top", color="0.35")
        axes.set(xscale="log", yscale="log", title=f"{part} gradient", xlabel="importance samples $k$")
        axes.xaxis.set_major_formatter("{x:g}")
        axes.grid()
    panels[0].set_ylabel("signal-to-noise ratio")
    style.legend(figure, panels[0].get_lines()[:-1], loc="outside lower center", ncols=min(3, len(ratios)))
    return figure


@style.styled
def tightness(values: Mapping[str, ArrayLike], title: str, k: int = 5000) -> Figure:
    """Annealed importance sampling (AIS) beside L_k for every image; their difference, and the weights' quality.

    Args:
        values: arrays [n]. "l_k" and "ais" are estimates of L_k and of log p(x) by AIS, "l_k_stderr" and "ais_stderr"
            their standard errors, nats; "k_hat" the shape of the upper tail of the weights (Vehtari et al.,
            arXiv:1507.02646), not to be trusted above 0.7, nor is "l_k_stderr", which is not drawn then; what is not
            finite counts as above and is not drawn;
            "effective_sample_size" that of the k weights, in samples.
        title: see `iwae.figures.style`.
        k: of L_k.
    """
    l_k = style.array("l_k", values["l_k"], "n")
    names = ("l_k_stderr", "ais", "ais_stderr", "effective_sample_size")
    l_k_stderr, ais, ais_stderr, samples = (style.array(name, values[name], "n", n=len(l_k)) for name in names)
    k_hat = style.array("k_hat", values["k_hat"], "n", n=len(l_k), finite=False)
    heading = f"Tightness of L_{k}: annealed importance sampling (AIS) beside it, and its weights"
    figure, (left, middle, right) = style.figure(heading, title, 11, 4.2, 1, 3)
    bars: dict[str, Any] = {"fmt": "o", "markersize": 3, "elinewidth": 0.8, "alpha": 0.8, "color": LINES[0]}
    drawn, high = np.isfinite(k_hat), ~(k_hat <= 0.7)
    l_k_stderr = np.where(high, np.nan, l_k_stderr)  # such weights hide their own spread: a bar would be too short
    left.errorbar(l_k, ais, ais_stderr, l_k_stderr, **bars)
    left.axline((l_k[0], l_k[0]), slope=1, color=GREY, linestyle="--", linewidth=1, label=f"AIS = $L_{{{k}}}$")
    left.set(xlabel=f"$L_{{{k}}}$ (nats)", ylabel=r"$\log p(x)$ by AIS (nats)", title=f"{len(l_k)} images")
    gap, error = ais - l_k, np.hypot(ais_stderr, l_k_stderr)
    middle.errorbar(k_hat[drawn], gap[drawn], error[drawn], **bars)
    right.plot(k_hat[drawn], samples[drawn], "o", markersize=3, alpha=0.8, color=LINES[0])
    for axes in (middle, right):
        label = rf"$\hat k = 0.7$ (above: {high.sum()} of {len(high)})"
        axes.axvline(0.7, color=LINES[1], linestyle="--", label=label)
        axes.set_xlabel(r"Pareto $\hat k$ of the weights")
    middle.axhline(0, color=GREY, linestyle="--", linewidth=1)
    mean = f"mean difference {style.number(gap.mean(), 3)}"
    mean += "" if high.any() else f" ± {np.sqrt(np.sum(error**2)) / len(gap):.3f}"
    middle.set_ylabel(f"AIS − $L_{{{k}}}$ (nats)")
    middle.set_title(f"{mean} nats")
    if drawn.any():  # an axis without data cannot be logarithmic
        right.set_yscale("log")
    right.set(ylabel=f"effective sample size (of {k})", title=f"smallest effective size: {samples.min():.1f}")
    handles = [*left.get_legend_handles_labels()[0], *middle.get_legend_handles_labels()[0]]
    figure.legend(handles=handles, loc="outside lower center", ncols=2)
    return figure


@style.styled
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
    panels, heading = (2, "Time of an update and peak memory") if memory else (1, "Time of an update")
    figure, (axes, *more) = style.figure(heading, title, 1 + 6 * panels, 4.6, columns=panels)
    for i, name in enumerate(dict.fromkeys(row["estimator"] for row in times)):
        values = sorted([row[column] for column in needed[:3]] for row in times if row["estimator"] == name)
        k, milliseconds, floor = style.array(f"times of {name!r}", values, "n 3").T
        colour = LINES[i % len(LINES)]
        axes.plot(k, milliseconds, color=colour, marker="osD^v<>"[i % 7], markersize=4, label=name)
        axes.plot(k, floor, color=colour, linestyle=":", linewidth=1.2, label=f"{name}: matrix products alone")
    axes.set(yscale="log", ylabel="time of an update (ms)")
    style.legend(axes)
    for below in more:
        k, gib = style.array("memory", memory, "n 2").T
        below.plot(k, gib, color=LINES[0], marker="o", markersize=4)
        below.set(ylabel="peak memory of the process (GiB)", ylim=(0, 1.15 * gib.max()))
    counts = sorted({row["k"] for row in rows})
    for each in (axes, *more):
        each.set(xscale="log", xlabel="importance samples $k$")
        each.set_xticks(counts, [str(k) for k in counts])
        each.xaxis.minorticks_off()
        each.grid()
    return figure


# ---- from a run ----


def learning_curves_of(run: Run) -> dict[str, Figure]:
    """The bounds of the run's log; no figure where there is no log.

    Raises:
        RunError: the log is damaged.
    """
    rows = log.read(run.folder.log)
    columns = {name: [row[name] for row in rows] for name in log.COLUMNS}
    return {"learning_curves": learning_curves([(run.experiment.name, columns)], run.title)} if rows else {}


OF_EVERY_RUN: tuple[style.OfRun, ...] = (learning_curves_of,)
