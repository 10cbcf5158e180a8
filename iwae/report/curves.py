"""Learning curves of several runs in one figure."""

import dataclasses
from collections.abc import Mapping, Sequence

import pandas as pd
from matplotlib.figure import Figure

from iwae.figures.curves import learning_curves
from iwae.report.comparisons import one_each_seed, parameters, same_but_seed, short, varying
from iwae.report.records import Record, ReportError


def curves(records: Sequence[Record]) -> Figure:
    """The learning curves of runs in one figure; of runs that differ in their seed alone, mean and spread.

    Raises:
        ReportError: there are none, none has a bound that is a number, or they are of several datasets, whose bounds
            have no common scale.
    """
    if not records:
        raise ReportError("curves: expected at least one run with a log, found none")
    datasets = sorted({record.data for record in records})
    if len(datasets) > 1:
        raise ReportError(f"curves: expected runs of one dataset, got {', '.join(datasets)}; name the runs to draw")
    cells = same_but_seed(dataclasses.replace(record, test={}) for record in records)  # evaluated or not
    frame = pd.DataFrame([parameters(members[0]) for members in cells])
    names = varying(frame)
    labels = [", ".join(f"{short(name)} {row[name]}" for name in names) for _, row in frame.iterrows()]
    if not all(0 < len(label) <= 40 for label in labels):
        labels = [members[0].folder.name for members in cells]
    title, lines = datasets[0], []
    for label, members in zip(labels, map(one_each_seed, cells), strict=True):
        of = f", {len(members)} seeds" if len(members) > 1 else ""
        lines.append((label + of, mean_columns(members)))
    if len(records) == 1:
        title = f"{records[0].folder.name} ({title})"
    elif {"model.objective", "model.k"} & set(names):
        title += "; the bound that each run maximizes"
    if any("train_bound_spread" in columns for _, columns in lines):
        title += "; of several seeds, mean ± standard deviation"
    try:
        return learning_curves(lines, title)
    except ValueError as error:
        raise ReportError(str(error)) from None


def mean_columns(members: Sequence[Record]) -> Mapping[str, pd.Series]:
    """The columns of a log [epochs]; of several, the mean over them and the spread (standard deviation) of the bounds,
    as far as all of them go."""
    logs = [pd.DataFrame(record.log) for record in members]
    columns = logs[0].head(min(map(len, logs)))
    if len(members) > 1:
        by_row = pd.concat(logs).groupby(level=0)
        for name in ("train_bound", "valid_bound"):
            columns = columns.assign(**{name: by_row[name].mean(), f"{name}_spread": by_row[name].std()})
    return {str(name): column for name, column in columns.items()}
