"""Tables of runs, in Markdown, beside the published numbers, and learning curves of several runs in one plot.

    python -m iwae.report                       every run under results/
    python -m iwae.report results/A results/B   these runs
    python -m iwae.report --write               writes results/README.md as well
    python -m iwae.report --readme README.md    writes the tables between two marker comments of a file
    python -m iwae.report A B --curves AB.png   learning curves of these runs in one plot

A run is read from its `experiment.json`, `evaluation.json` and `log.csv`; neither TensorFlow nor the weights are
needed. A run that cannot be read is named in one line, and the others are reported all the same.
"""

import argparse
import dataclasses
import json
import math
import os
import statistics
import sys
import urllib.parse
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from iwae import config
from iwae.cli import presets
from iwae.config import Experiment
from iwae.experiment import with_defaults
from iwae.runs import log

if TYPE_CHECKING:
    from matplotlib.figure import Figure

BEGIN, END = "<!-- results: begin -->", "<!-- results: end -->"
FILES = ("experiment.json", "evaluation.json", "log.csv")


class ReportError(ValueError):
    """A run or a file that cannot be used; the message is one line."""


# ---- published numbers: NLL on the test set by L_5000, in nats, and active units ----


class Published(NamedTuple):
    """A published value and the active units beside it, "" where none are given."""

    nll: float
    active_units: str = ""

    def __str__(self) -> str:
        return f"{self.nll:.2f}" + (f" ({self.active_units})" if self.active_units else "")


SOURCES = (
    "Published values: Burda, Grosse & Salakhutdinov, Importance Weighted Autoencoders, ICLR 2016 (arXiv:1509.00519), "
    "tables 1 and 2 and the appendix on fixed binarization; for `camel` the report of the PyTorch predecessor."
)

# Table 1: layers, k, then MNIST VAE, MNIST IWAE, OMNIGLOT VAE, OMNIGLOT IWAE.
_TABLE_1 = """
1  1   86.76 19    86.76 19    108.11 28    108.11 28
1  5   86.47 20    85.54 22    107.62 28    106.12 34
1  50  86.35 20    84.78 25    107.80 28    104.67 41
2  1   85.33 16+5  85.33 16+5  107.58 28+4  107.56 30+5
2  5   85.01 17+5  83.89 21+5  106.31 30+5  104.79 38+6
2  50  84.78 17+5  82.90 26+7  106.30 30+5  103.38 44+7
"""
# Appendix, fixed binarization: layers, objective, k.
_FIXED = """
1 vae  1   88.71 19
1 iwae 5   87.63 22
1 iwae 50  87.10 24
2 vae  1   88.08 16+5
2 iwae 5   86.17 21+5
2 iwae 50  85.32 24+7
"""


def _cells() -> dict[tuple[str, str, int, int], Published]:
    """By dataset, objective, k and layers."""
    cells = {}
    for line in _TABLE_1.strip().splitlines():
        layers, k, *values = line.split()
        columns = [(data, objective) for data in ("mnist", "omniglot") for objective in ("vae", "iwae")]
        for (data, objective), nll, active in zip(columns, values[::2], values[1::2], strict=True):
            cells[data, objective, int(k), int(layers)] = Published(float(nll), active)
    for line in _FIXED.strip().splitlines():
        layers, objective, k, nll, active = line.split()
        cells["binarized_mnist", objective, int(k), int(layers)] = Published(float(nll), active)
    return cells


CELLS = _cells()
"""Table 1 and the appendix: by dataset, objective, k and number of stochastic layers."""

CONTINUED = {("vae", 1, "iwae", 50): Published(84.88, "22"), ("iwae", 50, "vae", 1): Published(86.02, "23")}
"""Table 2, MNIST, one layer: by objective and k of the first run and of its continuation."""

CAMEL = {"vae": Published(1.52), "iwae": Published(1.37)}
"""The PyTorch predecessor's report; its IWAE has k = 20."""

PASSES = 3280
TEST_EXAMPLES = {"mnist": 10_000, "binarized_mnist": 10_000, "omniglot": 8_070}
_PAPER_NAMES = {"mnist": "MNIST", "omniglot": "OMNIGLOT", "binarized_mnist": "MNIST"}


# ---- runs ----


@dataclass(frozen=True)
class Record:
    """What a run left behind; `test` is {} before it is evaluated, `first` the run whose weights it started from."""

    folder: Path
    experiment: Experiment
    device: str
    test: Mapping[str, Any]
    log: Sequence[Mapping[str, float]]
    fingerprint: str = ""  # of the data
    changed: tuple[str, ...] = ()  # parameters that were changed while it was trained, each with what it was
    first: "Record | None" = None

    @property
    def passes(self) -> int:
        return int(self.log[-1]["epoch"]) if self.log else 0

    @property
    def data(self) -> str:
        """The dataset; of a user's file, the name of the file."""
        return os.path.basename(self.experiment.data.name)

    @property
    def layers(self) -> int:
        return len(self.experiment.model.latent_units)

    @property
    def objective(self) -> str:
        """The objective; the closed form of a term makes no other one."""
        name = self.experiment.model.objective
        return "vae" if name in config.VAE_OBJECTIVES else name

    @property
    def binarization(self) -> str:
        """`binarized_mnist` is binary: whatever is said of its binarization, its pixels are the fixed ones."""
        return "fixed" if self.experiment.data.name == "binarized_mnist" else self.experiment.data.binarization


def read(folder: Path) -> Record:
    """The run that lies in `folder`.

    Raises:
        ReportError: a file is damaged, or there is no log or no description.
    """
    record = _read(folder)
    start = record.experiment.training.start_from
    if start is None:
        return record
    for place in (folder.parent / Path(start).name, Path(start)):  # results may have moved, together
        try:
            return dataclasses.replace(record, first=_read(place))
        except ReportError:
            continue
    return record


def _read(folder: Path) -> Record:
    values = _json(folder / "experiment.json")
    environment = values.pop("environment", {})
    model = values.get("model")
    if isinstance(model, dict) and isinstance(name := model.get("objective"), str):
        config.OBJECTIVES.setdefault(name, "registered by the user")  # in code that is not at hand here
    try:
        experiment = config.from_dict(with_defaults(values))
    except config.ConfigError as error:
        raise ReportError(f"{folder / 'experiment.json'}: {error}") from None
    evaluation = _json(folder / "evaluation.json") if (folder / "evaluation.json").exists() else {}
    test = evaluation.get("test", {})
    if evaluation:
        _check(folder / "evaluation.json", test)
    try:
        rows = log.read(folder / "log.csv")
    except (OSError, ValueError) as error:
        raise ReportError(f"{folder / 'log.csv'}: expected a table that can be read, got: {error}") from None
    if not rows:
        raise ReportError(f"{folder / 'log.csv'}: expected a row for each epoch, found none")
    if not isinstance(environment, dict):
        environment = {}
    changed = environment.get("changed_parameters", [])
    return Record(
        folder,
        experiment,
        device=str(environment.get("device") or "?"),
        test=test,
        log=rows,
        fingerprint=str(environment.get("dataset_fingerprint", "")),
        changed=tuple(map(str, changed)) if isinstance(changed, list) else (),
    )


def _json(path: Path) -> dict[str, Any]:
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ReportError(f"{path}: expected the file of a run, found none") from None
    except OSError as error:
        raise ReportError(f"{path}: expected a file that can be read, got: {error.strerror}") from None
    except (ValueError, RecursionError) as error:
        raise ReportError(f"{path}: expected JSON, got an error: {' '.join(str(error).split())}") from None
    if not isinstance(values, dict):
        raise ReportError(f"{path}: expected named values, got {config.shown(values)}")
    return values


def _check(path: Path, test: Any) -> None:
    if not isinstance(test, dict) or not test:
        raise ReportError(f"{path}: expected an evaluation of the split 'test', found none")
    for name in ("nll", "nll_stderr", "examples", "k", "nll_active_units_only", "true_log_likelihood"):
        needed = name in ("nll", "nll_stderr", "examples", "k")
        if (needed or name in test) and not _is_number(test.get(name)):
            raise ReportError(f"{path}: {name}: expected a number, got {config.shown(test.get(name))}")
    for entry in ("ais", "bidirectional", "pareto_k") if "ais" in test else ():
        values = test.get(entry)
        wanted = {
            "ais": ("examples", "k", "L_k", "L_k_stderr", "log_likelihood", "stderr"),
            "bidirectional": ("lower", "upper", "L_k"),
            "pareto_k": ("share_above_0.7", "effective_sample_size", "smallest_effective_sample_size"),
        }[entry]
        for name in wanted:
            if not isinstance(values, dict) or not _is_number(values.get(name)):
                raise ReportError(f"{path}: {entry}.{name}: expected a number, got {config.shown(values)}")
    active = test.get("active_units")
    if not isinstance(active, list) or not all(map(_is_number, active)):
        raise ReportError(f"{path}: active_units: expected a list of numbers, got {config.shown(active)}")


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def find(names: Sequence[str], results_dir: Path) -> tuple[list[Record], list[str]]:
    """The runs `names` (folders, or names under `results_dir`; none: all there), and a line about each unreadable one.

    Raises:
        ReportError: nothing there at all.
    """
    if names:
        folders = [Path(name) if Path(name).is_dir() else results_dir / name for name in names]
    else:
        if not results_dir.is_dir():
            raise ReportError(f"{results_dir}: expected a folder of runs, found none")
        folders = sorted(path for path in results_dir.iterdir() if any((path / file).exists() for file in FILES))
        if not folders:
            raise ReportError(f"{results_dir}: expected at least one run, found none")
    records, problems = [], []
    for folder in dict.fromkeys(folders):
        try:
            records.append(read(folder))
        except ReportError as error:
            problems.append(str(error))
    return records, problems


# ---- what a run is compared with ----


def published(record: Record) -> Published | None:
    """The published value that belongs beside a run; None if there is none for its data, objective, k and depth."""
    model, data = record.experiment.model, record.experiment.data.name
    if record.experiment.data.name in ("camel", "two_close_clusters"):
        same = (model.latent_units, model.hidden_units) == ((1,), ((5, 5),)) and record.first is None
        return CAMEL.get(record.objective) if same and (record.objective == "vae" or model.k == 20) else None
    likelihood = model.likelihood == "bernoulli" and model.beta == 1
    if not likelihood or _is_plane(record) or record.binarization != _paper_binarization(record):
        return None
    if record.experiment.training.start_from is not None:
        first = record.first
        if first is None or published(first) is None or {data, first.data} != {"mnist"} or record.layers != 1:
            return None
        return CONTINUED.get((first.objective, first.experiment.model.k, record.objective, model.k))
    return CELLS.get((data, record.objective, model.k, record.layers))


def departures(record: Record) -> list[str]:
    """Everything in which a run on the paper's datasets departs from the paper's protocol, each in a few words."""
    found = _departures_in_training(record)
    if record.experiment.training.start_from is not None:
        first = record.first
        before = _departures_in_training(first) if first else ["not found"]
        if first and first.data != record.data:
            before.append(f"data.name {first.data} (here: {record.data})")
        if first and first.experiment.training.start_from is not None:
            before.append(f"training.start_from {Path(first.experiment.training.start_from).name} (paper: none)")
        found += [f"first run: {text}" for text in before]
    threshold, paper = record.experiment.evaluation.active_unit_threshold, config.Evaluation()
    k, examples = record.test["k"], record.test["examples"]
    all_examples = TEST_EXAMPLES.get(record.experiment.data.name, examples)
    if k != paper.k:
        found.append(f"L_{k} (paper: L_{paper.k})")
    if examples != all_examples:
        found.append(f"{examples:,} test examples (paper: all {all_examples:,})")
    if threshold != paper.active_unit_threshold:
        found.append(f"evaluation.active_unit_threshold {threshold} (paper: {paper.active_unit_threshold})")
    return found


def _departures_in_training(record: Record) -> list[str]:
    given, paper = config.flatten(record.experiment), config.flatten(_protocol(record))
    training = record.experiment.training
    passes = PASSES if training.start_from is None else 3 ** (presets.PAPER_STAGES - 1)
    found = [f"{record.passes:,} passes over the data (paper: {passes:,})"] * (record.passes != passes)
    length = {f"training.{name}" for name in ("stages", "epochs", "start_from", "updates_per_call")}
    ignored = length | {"training.gamma", "training.milestones"}
    if training.schedule == "multistep":
        ignored.add("training.schedule")
        steps = f"multistep, times {training.gamma:.3g} after epochs {_shown(training.milestones)}"
        found.append(f"training.schedule {steps} (paper: {paper['training.schedule']})")
    if training.early_stopping_patience is None:
        ignored.add("training.early_stopping_threshold")
    compared = [name for name in given if name.startswith(("model.", "training.")) or name == "data.batch_size"]
    if record.binarization != _paper_binarization(record):
        found.append(f"data.binarization {record.binarization} (paper: {_paper_binarization(record)})")
    found += [
        f"{name} {_shown(given[name])} (paper: {_shown(paper[name])})"
        for name in compared
        if name not in ignored and given[name] != paper[name]
    ]
    return found + [text for text in record.changed if not any(f" {name} was " in text for name in length)]


def _paper_binarization(record: Record) -> str:
    return "fixed" if record.experiment.data.name == "binarized_mnist" else "stochastic"


def _protocol(record: Record) -> Experiment:
    """The paper's protocol for the objective, k and depth of a run; for other depths than 1 and 2, its own sizes."""
    model = record.experiment.model
    layers = {1: "1layer", 2: "2layers"}.get(record.layers)
    sizes = presets.PRESETS[f"mnist_vae_k1_{layers}"].model if layers else model
    training = config.Training()
    if record.experiment.training.start_from is not None:
        training = presets.PRESETS["mnist_vae_k1_1layer_then_iwae_k50"].training
    same = {name: getattr(model, name) for name in ("k", "alpha", "groups", "mixture")}
    paper = config.Model(
        objective=record.objective, latent_units=sizes.latent_units, hidden_units=sizes.hidden_units, **same
    )
    return Experiment("paper", model=paper, training=training)


def _is_plane(record: Record) -> bool:
    return record.experiment.model.latent_units == (2,)


def _shown(value: Any) -> str:
    """A value as it is written on the command line: 100,50 or, for a list of lists, 200,200/100,100."""
    if isinstance(value, tuple):
        separator = "/" if any(isinstance(item, tuple) for item in value) else ","
        return separator.join(_shown(item) for item in value) or "none"
    return str(value)


# ---- tables ----


# The order of the tables.
_TABLE_1_MNIST, _TABLE_1_OMNIGLOT, _APPENDIX, _TABLE_2, _OTHER, _USERS_FILE, _PLANE, _SYNTHETIC = range(8)
_OF_THE_PAPER = (_TABLE_1_MNIST, _TABLE_1_OMNIGLOT, _APPENDIX, _TABLE_2)


def _group(record: Record) -> tuple[int, str]:
    """Where a run belongs: a number for the order, and the title of its table."""
    name = record.experiment.data.name
    if name in config.SYNTHETIC_DATASETS:
        return _SYNTHETIC, "Synthetic data of known density"
    if name.endswith(".npz"):
        kind = "stand-in data" if "standin" in record.data.replace("-", "").replace("_", "") else "a user's file"
        return _USERS_FILE, f"{record.data} ({kind}), binarization: {record.binarization}"
    if record.experiment.training.start_from is not None:
        return _TABLE_2, "One objective after the other (table 2)"
    if _is_plane(record):
        return _PLANE, f"{_PAPER_NAMES.get(name, name)}, two latent units"
    if name == "binarized_mnist":
        return _APPENDIX, "MNIST, fixed binarization of Larochelle & Murray (appendix)"
    if name == "mnist" and record.binarization == "stochastic":
        return _TABLE_1_MNIST, "MNIST, stochastic binarization (table 1)"
    if name == "omniglot" and record.binarization == "stochastic":
        return _TABLE_1_OMNIGLOT, "OMNIGLOT, stochastic binarization (table 1)"
    return _OTHER, f"{name}, binarization: {record.binarization}"


def _marked(record: Record) -> bool:
    """Whether the paper's protocol is what a run is measured by."""
    return _group(record)[0] in (*_OF_THE_PAPER, _USERS_FILE)


class _Marks(dict[str, str]):
    """A letter for each departure, in the order in which they are met."""

    def of(self, record: Record) -> str:
        texts = departures(record) if _marked(record) else []
        return ", ".join(self.setdefault(text, _letters(len(self))) for text in texts)

    def legend(self) -> str:
        return "; ".join(f"{letter}: {_cell(text)}" for text, letter in self.items())


def _letters(number: int) -> str:
    """a, b, ..., z, aa, ab, ..."""
    letters = ""
    while number >= 0:
        letters = chr(ord("a") + number % 26) + letters
        number = number // 26 - 1
    return letters


def tables(records: Sequence[Record], base: Path, level: int = 2) -> str:
    """Markdown: a table for each group of evaluated runs, with the legend below.

    Args:
        records: the runs; those that are not evaluated are left out.
        base: the folder that links are relative to.
        level: of the headings.
    """
    groups: dict[tuple[int, str], list[Record]] = {}
    for record in records:
        if record.test:
            groups.setdefault(_group(record), []).append(record)
    marks = _Marks()
    parts = []
    for (_, title), members in sorted(groups.items()):
        parts += [f"{'#' * level} {_cell(title)}", _table(sorted(members, key=_order), base, marks)]
    if not parts:
        return "No run has been evaluated yet."
    parts += tightness(records, base, level)
    legend = [
        "NLL is minus the mean of L_k over test examples, in nats, ± its standard error over them; *inactive removed* "
        "is the same with the inactive units taken out of the model. Active units and latent units are counted from "
        "the data upwards. Difference: NLL less the published value."
    ]
    if any(map(published, records)):
        legend.append(SOURCES)
    if marks:
        legend.append(f"Departures from the paper's protocol: {marks.legend()}.")
    return "\n\n".join(parts + legend)


def tightness(records: Sequence[Record], base: Path, level: int = 2) -> list[str]:
    """Markdown: heading, table and legend of the runs whose task "tightness" was done; nothing if there are none."""
    rows = []
    for record in records:
        if "ais" not in record.test:
            continue
        ais, bracket, tail = (record.test[name] for name in ("ais", "bidirectional", "pareto_k"))
        rows.append(
            [
                _link(record, base),
                f"{ais['examples']}",
                f"{ais['k']}",
                f"{ais['L_k']:.3f} ± {ais['L_k_stderr']:.3f}",
                f"{ais['log_likelihood']:.3f} ± {ais['stderr']:.3f}",
                f"{bracket['lower']:.3f} to {bracket['upper']:.3f}",
                f"{bracket['L_k']:.3f}",
                f"{tail['share_above_0.7']:.0%}",
                f"{tail['effective_sample_size']:.0f} ({tail['smallest_effective_sample_size']:.1f})",
            ]
        )
    if not rows:
        return []
    headers = [
        "run", "images", "k", "L_k", "AIS", "simulated: truth within", "simulated: L_k", "k-hat above 0.7",
        "effective samples (least)",
    ]  # fmt: skip
    legend = (
        "Means of estimates of log p(x) over the same test images, in nats, ± the standard error of the sampling: L_k "
        "and annealed importance sampling (AIS), both too low on average, so the higher is nearer to the truth. On as "
        "many images simulated from the model bidirectional Monte Carlo encloses the truth. The weights of an image "
        "with a Pareto k-hat above 0.7 are not to be trusted."
    )
    return [f"{'#' * level} Is L_k tight?", _markdown(headers, rows), legend]


def _order(record: Record) -> tuple:
    objectives = list(config.OBJECTIVES)
    model = record.experiment.model
    by_cell = (record.data, record.layers, model.k, objectives.index(model.objective), record.passes)
    return *by_cell, sorted(map(str, _parameters(record).items())), record.experiment.seed, record.folder.name


def _table(records: Sequence[Record], base: Path, marks: _Marks) -> str:
    rank, _ = _group(records[0])
    digits = 3 if rank == _SYNTHETIC else 2

    def nll(record: Record) -> str:
        return f"{record.test['nll']:.{digits}f} ± {record.test['nll_stderr']:.{digits}f}"

    def removed(record: Record) -> str:
        value = record.test.get("nll_active_units_only")
        return "" if value is None else f"{value:.{digits}f}"

    def truth(record: Record) -> str:
        value = record.test.get("true_log_likelihood")
        return "" if value is None else f"{-value:.{digits}f}"

    def excess(record: Record) -> str:
        value = record.test.get("true_log_likelihood")
        return "" if value is None else f"{record.test['nll'] + value:+.{digits}f}"

    several = len({record.data for record in records}) > 1
    columns: list[tuple[str, Callable[[Record], str]]] = [
        ("run", lambda record: _link(record, base)),
        ("data", lambda record: record.data if several else ""),
        ("layers", lambda record: str(record.layers)),
        ("latent units", lambda record: "" if rank in _OF_THE_PAPER else _sizes(record)),
        ("objective", lambda record: record.experiment.model.objective),
        ("k", lambda record: str(record.experiment.model.k)),
        ("starts from", _start),
        ("NLL", nll),
        ("inactive removed", removed),
        ("true density", truth),
        ("above it", excess),
        ("active units", lambda record: "+".join(str(units) for units in record.test["active_units"])),
        ("published", lambda record: str(published(record) or "")),
        ("difference", lambda record: _difference(record.test["nll"], record)),
        ("passes", _passes),
        ("departures", marks.of),
        ("estimate", lambda record: f"L_{record.test['k']}, {record.test['examples']:,} examples"),
        ("training time", lambda record: _duration(sum(row["seconds"] for row in record.log))),
        ("device", lambda record: record.device),
    ]
    rows = []
    for cell in _cells_of(records).values():
        rows += [{header: write(record) for header, write in columns} for record in cell]
        seeds = _seeds_of(cell)
        if len(seeds) > 1:
            values = [record.test["nll"] for record in seeds]
            mean = f"**{statistics.mean(values):.{digits}f}**, sd {statistics.stdev(values):.{digits}f}"
            rows.append(
                dict.fromkeys(rows[0], "")
                | {"run": f"**mean of {len(seeds)} seeds**", "NLL": mean, "published": rows[-1]["published"]}
                | {"difference": _difference(statistics.mean(values), cell[0])}
            )
    used = [header for header, _ in columns if any(row[header] for row in rows)]
    return _markdown(used, [[row[header] for header in used] for row in rows])


def _markdown(headers: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [headers, ["---"] * len(headers), *rows]
    return "\n".join("| " + " | ".join(map(_cell, line)) + " |" for line in lines)


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")


def _link(record: Record, base: Path) -> str:
    path = os.path.relpath(record.folder, base).replace(os.sep, "/")
    name = record.folder.name.replace("[", "\\[").replace("]", "\\]")
    return f"[{name}]({urllib.parse.quote(path)})"


def _sizes(record: Record) -> str:
    return "+".join(str(units) for units in record.experiment.model.latent_units)


def _start(record: Record) -> str:
    start = record.experiment.training.start_from
    if record.first is None or start is None:
        return "" if start is None else Path(start).name
    model, nll = record.first.experiment.model, record.first.test.get("nll")
    return f"{model.objective}, k = {model.k}" + ("" if nll is None else f": {nll:.2f}")


def _passes(record: Record) -> str:
    return (f"{record.first.passes:,} + " if record.first else "") + f"{record.passes:,}"


def _difference(nll: float, record: Record) -> str:
    value = published(record)
    return "" if value is None else f"{nll - value.nll:+.2f}"


def _duration(seconds: float) -> str:
    if seconds < 60:
        return f"{seconds:.0f} s"
    hours, minutes = divmod(round(seconds / 60), 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min"


# ---- runs that differ in one parameter ----

# What makes no other run; and the network, whose lists belong together, is one parameter.
_NO_DIFFERENCE = {
    "name", "tasks", "results_dir", "overwrite", "accept_changes", "data.path", "training.updates_per_call",
}  # fmt: skip
_DATA = "fingerprint of the data"  # files of one name may hold different data
_CHANGED = "changed while trained"
_NETWORK = ("model.latent_units", "model.hidden_units")
# A change in these is a change of what is measured: such runs are not set beside each other.
_OTHER_QUESTION = {
    "data.name",
    "data.binarization",
    "data.synthetic_examples",
    "model.likelihood",
    "evaluation.k",
    _CHANGED,
}


def _parameters(record: Record) -> dict[str, str]:
    """What makes a run what it is, but for its seed, as text by name."""
    values = config.flatten(record.experiment)
    result = {
        name: _shown(value)
        for name, value in values.items()
        if name not in _NO_DIFFERENCE | {"seed", *_NETWORK} and not name.startswith("evaluation.")
    }
    result["data.name"], result["data.binarization"] = record.data, record.binarization
    if record.first:
        first = record.first.experiment.model
        result["training.start_from"] = f"{first.objective}, k = {first.k}, {record.first.passes} passes"
    result["network"] = " - ".join(_shown(values[name]) for name in _NETWORK[::-1])
    result["evaluation.k"] = str(record.test.get("k"))
    result[_DATA] = record.fingerprint
    result[_CHANGED] = "; ".join(record.changed)
    return result


def _cells_of(records: Iterable[Record]) -> dict[tuple[tuple[str, str], ...], list[Record]]:
    """Runs that differ in their seed alone, together."""
    cells: dict[tuple[tuple[str, str], ...], list[Record]] = {}
    for record in records:
        cells.setdefault(tuple(sorted(_parameters(record).items())), []).append(record)
    return cells


def _seeds_of(members: Sequence[Record]) -> list[Record]:
    """One run for each seed, of those that were evaluated on the most examples."""
    most = max(record.test.get("examples", 0) for record in members)
    by_seed: dict[int, Record] = {}
    for record in members:
        if record.test.get("examples", 0) == most:
            by_seed.setdefault(record.experiment.seed, record)
    return list(by_seed.values())


def _varying(cells: Iterable[tuple[tuple[str, str], ...]]) -> list[str]:
    """The parameters that are not the same in all cells, but for those that a name says already."""
    rows = [dict(cell) for cell in cells]
    return [name for name in rows[0] if len({row[name] for row in rows}) > 1 and name != _DATA] if rows else []


def comparisons(records: Sequence[Record], level: int = 2) -> str:
    """Markdown: for each parameter a table of the runs that differ in it alone; "" if there are none."""
    records = [record for record in records if record.test]
    cells, parts = _cells_of(records), []
    most: dict[str, int] = {}  # examples, by dataset
    for record in records:
        most[record.data] = max(record.test["examples"], most.get(record.data, 0))
    for parameter in _varying(cells):
        if parameter in _OTHER_QUESTION:
            continue
        rows: dict[tuple[tuple[str, str], ...], dict[str, list[Record]]] = {}
        for key, members in cells.items():
            rest = tuple(item for item in key if item[0] != parameter)
            rows.setdefault(rest, {})[dict(key)[parameter]] = members
        rows = {rest: by_value for rest, by_value in rows.items() if len(by_value) > 1}
        if not rows:
            continue
        values = sorted({value for by_value in rows.values() for value in by_value}, key=_natural)
        others = _varying(rows)
        table = [
            [*(dict(rest)[name] for name in others), *(_compared(by_value.get(value, []), most) for value in values)]
            for rest, by_value in sorted(
                rows.items(), key=lambda row: [_natural(dict(row[0])[name]) for name in others]
            )
        ]
        heading = [*map(_short, others), *(f"{_short(parameter)} {value}" for value in values)]
        parts += [f"{'#' * (level + 1)} {parameter}", _markdown(heading, table)]
    if not parts:
        return ""
    text = (
        "NLL in nats ± standard error over the test examples; of several seeds, their mean and standard deviation. "
        "Each row holds runs that are the same but for this parameter (and their seeds)."
    )
    return "\n\n".join([f"{'#' * level} Runs that differ in one parameter", text, *parts])


def _compared(members: Sequence[Record], most: Mapping[str, int]) -> str:
    """The NLL of runs that differ in their seed alone; and on how many examples, if on fewer than others."""
    if not members:
        return ""
    seeds = _seeds_of(members)
    values, examples = [record.test["nll"] for record in seeds], seeds[0].test["examples"]
    of = f" ({examples:,} examples)" if examples < most[seeds[0].data] else ""
    if len(values) > 1:
        return f"{statistics.mean(values):.3f}, sd {statistics.stdev(values):.3f} ({len(values)} seeds){of}"
    return f"{values[0]:.3f} ± {seeds[0].test['nll_stderr']:.3f}{of}"


def _short(name: str) -> str:
    return name.rpartition(".")[2]


def _natural(text: str) -> tuple[bool, float, str]:
    """Numbers in their order, before words."""
    try:
        return False, float(text), text
    except ValueError:
        return True, 0.0, text


# ---- the whole ----


def report(records: Sequence[Record], problems: Sequence[str], base: Path) -> str:
    """All of it as one Markdown document, which says how it was made."""
    parts = [
        "# Results",
        "Made by `python -m iwae.report --write` from the files of the runs; not to be edited.",
        tables(records, base),
        comparisons(records),
    ]
    waiting = [
        f"{record.folder.name}: not evaluated yet, {_passes(record)} passes trained"
        for record in records
        if not record.test
    ]
    if problems or waiting:
        parts.append("## Not in the tables\n\n" + "\n".join(f"- {_cell(line)}" for line in [*waiting, *problems]))
    return "\n\n".join(filter(None, parts)) + "\n"


def between_markers(text: str, content: str, name: str) -> str:
    """`text` with what lies between the two marker comments replaced by `content`.

    Raises:
        ReportError: the markers are not there once each, in order; `name` says where.
    """
    before, begin, rest = text.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not end or BEGIN in rest or END in before + after:
        raise ReportError(f"{name}: expected the lines {BEGIN} and {END}, once each and in this order")
    return f"{before}{begin}\n\n{content}\n\n{end}{after}"


def curves(records: Sequence[Record]) -> "Figure":
    """The learning curves of runs in one figure; of runs that differ in their seed alone, mean and spread.

    Raises:
        ReportError: there are none.
    """
    from iwae.figures import plots

    if not records:
        raise ReportError("curves: expected at least one run with a log, found none")
    cells = _cells_of(dataclasses.replace(record, test={}) for record in records)  # evaluated or not
    varying = _varying(cells)
    labels = [", ".join(f"{_short(name)} {dict(key)[name]}" for name in varying) for key in cells]
    if not all(0 < len(label) <= 40 for label in labels):
        labels = [members[0].folder.name for members in cells.values()]
    seeds = [_seeds_of(members) for members in cells.values()]
    lines = [
        (label if len(members) == 1 else f"{label}, {len(members)} seeds", _mean_columns(members))
        for label, members in zip(labels, seeds, strict=True)
    ]
    title = ", ".join(dict.fromkeys(record.data for record in records))
    if len(records) == 1:
        title = f"{records[0].folder.name} ({title})"
    elif {"model.objective", "model.k"} & set(varying):
        title += "; the bound that each run maximizes"
    if any(len(members) > 1 for members in seeds):
        title += "; of several seeds, mean ± standard deviation"
    return plots.learning_curves(lines, title)


def _mean_columns(members: Sequence[Record]) -> dict[str, list[float]]:
    """The columns of a log; of several, the mean over them and the spread (standard deviation) of the bounds."""
    epochs = min(len(record.log) for record in members)
    columns: dict[str, list[float]] = {name: [row[name] for row in members[0].log[:epochs]] for name in log.COLUMNS}
    if len(members) > 1:
        for name in ("train_bound", "valid_bound"):
            runs = [[row[name] for row in record.log[:epochs]] for record in members]
            columns[name] = [statistics.mean(values) for values in zip(*runs, strict=True)]
            columns[f"{name}_spread"] = [statistics.stdev(values) for values in zip(*runs, strict=True)]
    return columns


def main(arguments: Sequence[str] | None = None) -> int:
    """The command; returns its exit status."""
    parser = argparse.ArgumentParser(prog="python -m iwae.report", description="Tables of runs, in Markdown.")
    parser.add_argument("runs", nargs="*", metavar="RUN", help="folder of a run, or its name (default: all)")
    parser.add_argument("--results_dir", default="results", help="folder that holds the runs (default: results)")
    parser.add_argument("--write", action="store_true", help="write RESULTS_DIR/README.md as well")
    parser.add_argument("--readme", metavar="FILE", help=f"write the tables between {BEGIN} and {END} of this file")
    parser.add_argument("--curves", metavar="FILE.png", help="draw the learning curves of the runs in one plot")
    options = parser.parse_args(arguments)
    results_dir = Path(options.results_dir)
    try:
        records, problems = find(options.runs, results_dir)
        base = results_dir if options.write else Path()
        text = report(records, problems, base)
        if options.write:
            _write(results_dir / "README.md", text)
        if options.readme:
            path = Path(options.readme)
            content = tables(records, path.parent, level=3)
            try:
                old = path.read_text(encoding="utf-8")
            except OSError as error:
                raise ReportError(f"{path}: expected a file that can be read, got: {error.strerror}") from None
            _write(path, between_markers(old, content, str(path)))
        if options.curves:
            from iwae.figures import plots

            plots.save(curves(records), options.curves)
    except (ReportError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    print(text, end="")
    for problem in problems:
        print(f"left out: {problem}", file=sys.stderr)
    return 0


def _write(path: Path, text: str) -> None:
    from iwae.runs import checkpoints

    checkpoints.write_atomically(path, text.encode())


if __name__ == "__main__":
    sys.exit(main())
