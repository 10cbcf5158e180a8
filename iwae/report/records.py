"""The runs: what each left in its folder. Neither TensorFlow nor the weights are needed to read it."""

import contextlib
import dataclasses
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from iwae import config
from iwae.config import Experiment
from iwae.report.published import Cell
from iwae.runs import log
from iwae.runs.folder import Folder
from iwae.sections import RunError


class ReportError(ValueError):
    """A run or a file that cannot be used; the message is one line."""


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
    likelihoods: pd.Series | None = None  # L_k in nats by number of the test image; its name: the binarization
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
        """The dataset; of a user's file or folder, the name of that."""
        return os.path.basename(self.experiment.data.name.rstrip("/"))

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

    ReportError if there is nothing at all.
    """
    folders = [Path(name) if Path(name).is_dir() else results_dir / name for name in names]
    if not names:
        if not results_dir.is_dir():
            raise ReportError(f"{results_dir}: expected a folder of runs, found none")
        folders = sorted(path for path in results_dir.iterdir() if _holds_a_run(path))
        if not folders:
            raise ReportError(f"{results_dir}: expected at least one run, found none")
    records, problems = [], []
    for folder in dict.fromkeys(folders):
        try:
            records.append(read(folder))
        except ReportError as error:
            problems.append(str(error))
    return records, problems + [record.problem for record in records if record.problem]


def _holds_a_run(path: Path) -> bool:
    """Whether there is any file of a run, even of one that is damaged."""
    folder = Folder(path)
    return any(file.exists() for file in (folder.experiment_json, folder.evaluation_json, folder.log))


def read(folder: Path) -> Record:
    """The run that lies in `folder`; ReportError if a file is damaged, or without a log or a description."""
    record = _read(folder)
    start = record.experiment.training.start_from
    if start is None:
        return record
    for place in (folder.parent / Path(start).name, Path(start)):  # results may have moved, together
        with contextlib.suppress(ReportError):
            return dataclasses.replace(record, first=_read(place))
    return record


def _read(path: Path) -> Record:
    folder = Folder(path)
    try:
        experiment, environment = folder.read_experiment(any_objective=True), folder.environment()
        evaluation = folder.read_evaluation()
        rows = log.read(folder.log)
    except (RunError, OSError, ValueError) as error:
        raise ReportError(" ".join(str(error).split())) from None
    if evaluation and "test" not in evaluation:
        raise ReportError(f"{folder.evaluation_json}: expected an evaluation of the split 'test', found none")
    if not rows:
        raise ReportError(f"{folder.log}: expected a row for each epoch, found none")
    device, fingerprint = environment.get("device") or "?", environment.get("dataset_fingerprint", "")
    changed = tuple(map(str, environment.get("changed_parameters", ())))
    test = evaluation.get("test", {})
    likelihoods, problem = _likelihoods(folder.likelihoods, test)
    return Record(
        path, experiment, str(device), test, rows, str(fingerprint), changed, likelihoods=likelihoods, problem=problem
    )


def _likelihoods(path: Path, test: Mapping[str, Any]) -> tuple[pd.Series | None, str]:
    """L_k of each test image, if it is there; or a line that says why it cannot be used."""
    if not test or not path.exists():
        return None, ""
    try:
        with open(path, "rb") as stream, np.load(stream) as file:
            values = file["test"].astype(np.float64, casting="safe")
            numbers = file["test_numbers"] if "test_numbers" in file else np.arange(len(values))
            found = pd.Series(values, numbers, name=str(file["binarization"])).sort_index()
        if len(found) != test["examples"] or not found.index.is_unique:
            raise ValueError(f"{len(found)} values of {found.index.nunique()} images")
        if not abs(values.mean() + test["nll"]) < 1e-3:
            raise ValueError(f"a mean of {values.mean():.3f}")
        return found, ""
    except Exception as error:  # readers of zip and npy raise many types on bytes that are neither
        expected = f"L_k of the {test['examples']} test images evaluated, their mean {-test['nll']:.3f}"
        return None, f"{path}: expected {expected}, got: {' '.join(str(error).split())}"
