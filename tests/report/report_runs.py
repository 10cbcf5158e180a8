"""Files of runs without weights, for the tests of reports, and the rows of a report's tables."""

import json
from pathlib import Path
from typing import Any

from iwae import config
from iwae.cli import presets
from iwae.config import Experiment
from iwae.report import records
from iwae.runs import log

DEFAULT = Experiment("default")
TEST = {
    "examples": 10_000,
    "k": 5000,
    "nll": 86.5,
    "nll_stderr": 0.24,
    "binarization": "0123456789abcdef",
    "active_units": [19],
    "nll_active_units_only": 86.51,
}


def make(
    folder: Path,
    preset: str | None = "mnist_vae_k1_1layer",
    changes: dict[str, Any] | None = None,
    test: dict[str, Any] | None = None,
    epochs: int | None = None,
    bounds: Any = (-100.0, -90.0),
    evaluated: bool = True,
    environment: dict[str, Any] | None = None,
) -> Path:
    """The files of a run, without weights: by default a cell of table 1 under the whole protocol of the paper."""
    experiment = DEFAULT if preset is None else presets.experiment(preset, DEFAULT)
    experiment = config.replace(experiment, {"name": folder.name, **(changes or {})})
    if epochs is None:
        settings = experiment.training
        epochs = settings.epochs or (3**settings.stages - 1) // 2
    folder.mkdir(parents=True)
    values = config.to_dict(experiment) | {"environment": {"device": "CPU, 2 cores, x86_64"} | (environment or {})}
    (folder / "experiment.json").write_text(json.dumps(values))
    if evaluated:
        (folder / "evaluation.json").write_text(json.dumps({"test": TEST | (test or {})}))
    rows = [",".join(log.COLUMNS)]
    for i, bound in enumerate(bounds, start=1):
        epoch = round(epochs * i / len(bounds))
        rows.append(f"{epoch},{epoch * 10},0.001,{bound},{bound - 1},1800,100")
    (folder / "log.csv").write_text("\n".join(rows) + "\n")
    return folder


def read(folder: Path, *arguments: Any, **options: Any) -> records.Record:
    return records.read(make(folder, *arguments, **options))


def rows_of(text: str, heading: str = "") -> list[dict[str, str]]:
    """The rows of the first table after `heading`, by column."""
    lines = text[text.index(heading) :].splitlines()
    start = next(i for i, line in enumerate(lines) if line.startswith("| "))
    table = []
    for line in lines[start:]:
        if not line.startswith("| "):
            break
        table.append([cell.strip() for cell in line.strip("|").split(" | ")])
    headers, _, *rows = table
    return [dict(zip(headers, row, strict=True)) for row in rows]


def continued(folder: Path, start: str, objective: str, k: int, **options: Any) -> Path:
    changes = {"training.start_from": start, "model.objective": objective, "model.k": k}
    return make(folder, "mnist_vae_k1_1layer_then_iwae_k50", changes, **options)
