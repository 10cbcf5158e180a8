"""The tables: a row a run in the paper's groups, and whether L_k is tight; the whole report."""

import enum
import statistics
from collections.abc import Iterable, Sequence
from pathlib import Path

from iwae import config
from iwae.report import markdown, protocol
from iwae.report.comparisons import comparisons, one_each_seed, paired, parameters, same_but_seed
from iwae.report.published import NAMES, PAPER, SECOND, SECOND_SOURCE
from iwae.report.records import Record

HEAD = "# Results\n\nMade by `python -m iwae.report --write` from the files of the runs; not to be edited.\n\n"


class Group(enum.IntEnum):
    """The kinds of tables, in their order."""

    TABLE_1_MNIST = 1
    TABLE_1_OMNIGLOT = 2
    APPENDIX = 3
    TABLE_2 = 4
    OTHER = 5
    USERS_FILE = 6
    PLANE = 7
    SYNTHETIC = 8

    @property
    def of_the_paper(self) -> bool:
        return self <= Group.TABLE_2


def group_of(record: Record) -> tuple[Group, str]:
    """Where a run belongs, and the title of its table."""
    name = record.experiment.data.name
    if name in config.SYNTHETIC_DATASETS:
        return Group.SYNTHETIC, "Synthetic data of known density"
    if name not in config.DATASETS:
        kind = "stand-in data" if "standin" in record.data.replace("-", "").replace("_", "") else "a user's file"
        return Group.USERS_FILE, f"{record.data} ({kind}), binarization: {record.binarization}"
    if record.experiment.training.start_from is not None:
        return Group.TABLE_2, "One objective after the other (table 2)"
    if record.experiment.model.latent_units == (2,):
        return Group.PLANE, f"{NAMES.get(name, name)}, two latent units"
    if name == "binarized_mnist":
        return Group.APPENDIX, "MNIST, fixed binarization of Larochelle & Murray (appendix)"
    if name == "mnist" and record.binarization == "stochastic":
        return Group.TABLE_1_MNIST, "MNIST, stochastic binarization (table 1)"
    if name == "omniglot" and record.binarization == "stochastic":
        return Group.TABLE_1_OMNIGLOT, "OMNIGLOT, stochastic binarization (table 1)"
    return Group.OTHER, f"{name}, binarization: {record.binarization}"


class Marks(dict[str, str]):
    """A letter for each departure, in the order in which they are met."""

    def of(self, texts: Iterable[str]) -> str:
        return ", ".join(self.setdefault(text, letters(len(self))) for text in texts)

    def __str__(self) -> str:
        return "; ".join(f"{letter}: {markdown.cell(text)}" for text, letter in self.items())


def letters(number: int) -> str:
    """a, b, ..., z, aa, ab, ..."""
    text = ""
    while number >= 0:
        text = chr(ord("a") + number % 26) + text
        number = number // 26 - 1
    return text


def report(records: Sequence[Record], problems: Sequence[str], base: Path) -> str:
    """Markdown: all tables, and what is not in them; links are relative to the folder `base`."""
    waiting = [f"{r.folder.name}: not evaluated yet, {_passes(r)} passes trained" for r in records if not r.test]
    left = "\n".join(f"- {markdown.cell(line)}" for line in [*waiting, *problems])
    parts = [tables(records, base), paired(records, base), comparisons(records)]
    return "\n\n".join(filter(None, [*parts, left and f"## Not in the tables\n\n{left}"])) + "\n"


def tables(records: Iterable[Record], base: Path) -> str:
    """Markdown: a table for each group of evaluated runs, with links relative to `base`, and the legend below."""
    records = sorted((record for record in records if record.test), key=_order)
    if not records:
        return "No run has been evaluated yet."
    groups: dict[tuple[Group, str], list[Record]] = {}
    for record in records:
        groups.setdefault(group_of(record), []).append(record)
    marks, parts = Marks(), []
    for (group, title), members in sorted(groups.items()):
        parts += [f"## {markdown.cell(title)}", _table(group, members, base, marks)]
    parts += tightness(records, base)
    parts.append(
        "NLL is minus the mean of L_k over test examples, in nats, ± its standard error over them; *inactive removed* "
        "is the same with the inactive units set to zero (with several layers those may still be of use, see "
        "docs/protocol.md). Active units and latent units are counted from "
        "the data upwards. Difference: NLL less the published value, of runs evaluated on all test examples."
    )
    if any(map(protocol.published, records)):
        parts.append(
            f"Published values: {PAPER}, tables 1 and 2 and the appendix on fixed binarization; for `camel` the report "
            "of the PyTorch predecessor."
        )
    if any(map(_second, records)):
        parts.append(SECOND_SOURCE)
    if marks:
        parts.append(f"Departures from the paper's protocol: {marks}.")
    return "\n\n".join(parts)


def _order(record: Record) -> tuple:
    objectives, model = [*config.OBJECTIVES, record.experiment.model.objective], record.experiment.model
    by_cell = (record.data, record.layers, model.k, objectives.index(model.objective), record.passes)
    return *by_cell, list(parameters(record).items()), record.experiment.seed, record.folder.name


def _table(group: Group, records: Sequence[Record], base: Path, marks: Marks) -> str:
    digits = 3 if group is Group.SYNTHETIC else 2
    rows: list[dict[str, str]] = []
    for cell in same_but_seed(records):
        rows += [_row(record, group, base, marks, digits) for record in cell]
        seeds = one_each_seed(cell)
        if len(seeds) > 1:
            values = [record.test["nll"] for record in seeds]
            mean, sd = statistics.mean(values), f"sd {statistics.stdev(values):.{digits}f}"
            row = {"run": f"**mean of {len(seeds)} seeds**", "NLL": f"**{mean:.{digits}f}**, {sd}"}
            rows.append(row | {"published": rows[-1]["published"], "difference": _difference(mean, seeds[0])})
    if len({record.data for record in records}) == 1:
        rows = [row | {"data": ""} for row in rows]
    return markdown.table(rows)


def _row(record: Record, group: Group, base: Path, marks: Marks, digits: int) -> dict[str, str]:
    """The texts of a run by column; "" where a column has nothing to say."""
    test, model = record.test, record.experiment.model
    removed, truth = test.get("nll_active_units_only"), test.get("true_log_likelihood")
    measured = group.of_the_paper or group is Group.USERS_FILE  # by the paper's protocol
    return {
        "run": markdown.link(record.folder, base),
        "data": record.data,
        "layers": str(record.layers),
        "latent units": "" if group.of_the_paper else "+".join(map(str, model.latent_units)),
        "objective": model.objective,
        "k": str(model.k),
        "starts from": _start(record),
        "NLL": f"{test['nll']:.{digits}f} ± {test['nll_stderr']:.{digits}f}",
        "inactive removed": "" if removed is None else f"{removed:.{digits}f}",
        "true density": "" if truth is None else f"{-truth:.{digits}f}",
        "above it": "" if truth is None else f"{test['nll'] + truth:+.{digits}f}",
        "active units": "+".join(map(str, test["active_units"])),
        "published": str(protocol.published(record) or ""),
        "difference": _difference(test["nll"], record),
        "nbip/IWAE": _second(record),
        "passes": _passes(record),
        "departures": marks.of(protocol.departures(record)) if measured else "",
        "estimate": f"L_{test['k']}, {test['examples']:,} examples",
        "training time": duration(record.seconds),
        "device": record.device,
    }


def _start(record: Record) -> str:
    start = record.experiment.training.start_from
    if record.first is None or start is None:
        return "" if start is None else Path(start).name
    model, nll = record.first.experiment.model, record.first.test.get("nll")
    return f"{model.objective}, k = {model.k}" + ("" if nll is None else f": {nll:.2f}")


def _passes(record: Record) -> str:
    return (f"{record.first.passes:,} + " if record.first else "") + f"{record.passes:,}"


def _difference(nll: float, record: Record) -> str:
    value = protocol.published(record)
    return "" if value is None or not protocol.on_all_examples(record) else f"{nll - value.nll:+.2f}"


def _second(record: Record) -> str:
    """The second implementation's value, beside the paper's of table 1."""
    return str(SECOND.get(record.cell, "")) if record.first is None and protocol.published(record) else ""


def duration(seconds: float) -> str:
    if seconds < 60:
        return f"{seconds:.0f} s"
    hours, minutes = divmod(round(seconds / 60), 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min"


def tightness(records: Iterable[Record], base: Path) -> list[str]:
    """Markdown: heading, table and legend of the runs whose task "tightness" was done; nothing if there are none."""
    rows = []
    asked = [record for record in records if "ais" in record.test]
    for record in sorted(asked, key=lambda record: record.folder):
        ais, bracket, tail = (record.test[name] for name in ("ais", "bidirectional", "pareto_k"))
        samples, least = tail["effective_sample_size"], tail["smallest_effective_sample_size"]
        row = {
            "run": markdown.link(record.folder, base),
            "images": str(ais["examples"]),
            "k": str(ais["k"]),
            "L_k": f"{ais['L_k']:.3f} ± {ais['L_k_stderr']:.3f}",
            "AIS": f"{ais['log_likelihood']:.3f} ± {ais['stderr']:.3f}",
            "simulated: truth within": f"{bracket['lower']:.3f} to {bracket['upper']:.3f}",
            "simulated: L_k": f"{bracket['L_k']:.3f}",
            "k-hat above 0.7": f"{tail['share_above_0.7']:.0%}",
            "effective samples (least)": f"{samples:.0f} ({least:.1f})",
        }
        rows.append(row)
    if not rows:
        return []
    legend = (
        "Means of estimates of log p(x) over the same test images, in nats, ± the standard error of the sampling: L_k "
        "and annealed importance sampling (AIS), both too low on average, so the higher is nearer to the truth. On as "
        "many images simulated from the model bidirectional Monte Carlo encloses the truth. The weights of an image "
        "with a Pareto k-hat above 0.7 are not to be trusted, nor is the ± of L_k with them: it is too small."
    )
    return ["## Is L_k tight?", markdown.table(rows), legend]
