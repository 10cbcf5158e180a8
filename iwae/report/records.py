"""The runs: what each left in its folder. Neither TensorFlow nor the weights are needed to read it."""

import dataclasses
import json
import math
import os
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from iwae import config
from iwae.config import Experiment
from iwae.experiment import with_defaults
from iwae.report.published import Cell
from iwae.runs import log

FILES = ("experiment.json", "evaluation.json", "log.csv")


class ReportError(ValueError):
    """A run or a file that cannot be used; the message is one line."""


@dataclass(frozen=True)
class Likelihoods:
    """L_k of each evaluated test image, [n] in nats, by its number in the split, [n] increasing."""

    values: np.ndarray
    numbers: np.ndarray
    binarization: str  # fingerprint of the binarized images


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
    likelihoods: Likelihoods | None = None
    problem: str = ""  # a line about a file that is damaged and that the rest can do without

    @property
    def passes(self) -> int:
        return int(self.log[-1]["epoch"]) if self.log else 0

    @property
    def seconds(self) -> float:
        """Time of the training."""
        return sum(row["seconds"] for row in self.log)

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
    def cell(self) -> Cell:
        """Where the run would stand in the paper's tables."""
        return self.experiment.data.name, self.objective, self.experiment.model.k, self.layers

    @property
    def binarization(self) -> str:
        """`binarized_mnist` is binary: whatever is said of its binarization, its pixels are the fixed ones."""
        return "fixed" if self.experiment.data.name == "binarized_mnist" else self.experiment.data.binarization


def find(names: Sequence[str], results_dir: Path) -> tuple[list[Record], list[str]]:
    """The runs `names` (folders, or names under `results_dir`; none: all there), and a line about each damaged one.

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
    return records, problems + [record.problem for record in records if record.problem]


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
    likelihoods, problem = None, ""
    try:
        likelihoods = _likelihoods(folder / "likelihoods.npz", test)
    except ReportError as error:
        problem = str(error)
    return Record(
        folder,
        experiment,
        device=str(environment.get("device") or "?"),
        test=test,
        log=rows,
        fingerprint=str(environment.get("dataset_fingerprint", "")),
        changed=tuple(map(str, changed)) if isinstance(changed, list) else (),
        likelihoods=likelihoods,
        problem=problem,
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


# Numbers that an evaluation must hold; and those that it holds if there is an entry of task tightness.
_NUMBERS = ("nll", "nll_stderr", "examples", "k")
_TIGHTNESS = {
    "ais": ("examples", "k", "L_k", "L_k_stderr", "log_likelihood", "stderr"),
    "bidirectional": ("lower", "upper", "L_k"),
    "pareto_k": ("share_above_0.7", "effective_sample_size", "smallest_effective_sample_size"),
}


def _check(path: Path, test: Any) -> None:
    if not isinstance(test, dict) or not test:
        raise ReportError(f"{path}: expected an evaluation of the split 'test', found none")
    for name in (*_NUMBERS, *({"nll_active_units_only", "true_log_likelihood"} & set(test))):
        if not _is_number(test.get(name)):
            raise ReportError(f"{path}: {name}: expected a number, got {config.shown(test.get(name))}")
    for entry, names in _TIGHTNESS.items() if "ais" in test else ():
        values = test.get(entry)
        for name in names:
            if not isinstance(values, dict) or not _is_number(values.get(name)):
                raise ReportError(f"{path}: {entry}.{name}: expected a number, got {config.shown(values)}")
    active = test.get("active_units")
    if not isinstance(active, list) or not all(map(_is_number, active)):
        raise ReportError(f"{path}: active_units: expected a list of numbers, got {config.shown(active)}")


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _likelihoods(path: Path, test: Mapping[str, Any]) -> Likelihoods | None:
    """The values of each image, by number, if they are there and those of the evaluation `test`."""
    if not test or not path.exists():
        return None
    try:
        with np.load(path, allow_pickle=False) as file:
            values, numbers, binarization = (file[name] for name in ("test", "test_numbers", "binarization"))
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
        text = " ".join(str(error).split())
        raise ReportError(f"{path}: expected arrays test, test_numbers, binarization, got an error: {text}") from None
    shape = (test["examples"],)
    whole = values.shape == numbers.shape == shape and values.dtype.kind == "f" and numbers.dtype.kind in "iu"
    if not whole or len(np.unique(numbers)) < len(numbers) or not np.isfinite(values).all():
        raise ReportError(f"{path}: expected a finite number for each of the {shape[0]} images evaluated, got others")
    values = values.astype(np.float64)
    if abs(values.mean() + test["nll"]) > 1e-3:
        raise ReportError(f"{path}: expected the mean {-test['nll']:.3f} of evaluation.json, got {values.mean():.3f}")
    order = np.argsort(numbers)
    return Likelihoods(values[order], numbers[order], str(binarization))
