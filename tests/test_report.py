"""`iwae.report`: runs beside the published numbers, what is marked on them, and runs that cannot be read."""

import json
import math
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from iwae import config
from iwae.cli import presets
from iwae.config import Experiment
from iwae.report import tables
from iwae.runs import log

DEFAULT = Experiment("default")
TEST = {
    "examples": 10_000,
    "k": 5000,
    "nll": 86.5,
    "nll_stderr": 0.24,
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


def read(folder: Path, *arguments: Any, **options: Any) -> tables.Record:
    return tables.read(make(folder, *arguments, **options))


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


# ---- beside the published numbers ----


def test_every_cell_of_the_paper_has_its_value() -> None:
    groups = [
        name for group in ("table1-mnist", "table1-omniglot", "fixed-binarization") for name in presets.GROUPS[group]
    ]
    cells = [presets.PRESETS[name] for name in groups]
    keys = {(cell.data.name, cell.model.objective, cell.model.k, len(cell.model.latent_units)) for cell in cells}
    assert keys == set(tables.CELLS) and len(keys) == 30
    assert str(tables.CELLS["mnist", "vae", 1, 1]) == "86.76 (19)"
    assert str(tables.CELLS["mnist", "iwae", 50, 2]) == "82.90 (26+7)"
    assert str(tables.CELLS["omniglot", "vae", 5, 2]) == "106.31 (30+5)"
    assert str(tables.CELLS["omniglot", "iwae", 50, 1]) == "104.67 (41)"
    assert str(tables.CELLS["binarized_mnist", "iwae", 5, 2]) == "86.17 (21+5)"


@pytest.mark.parametrize(
    ("dataset", "objectives", "total"),
    [
        ("mnist", ("vae",), 514.70),
        ("mnist", ("iwae",), 509.20),
        ("omniglot", ("vae",), 643.72),
        ("omniglot", ("iwae",), 634.63),
        ("binarized_mnist", ("vae", "iwae"), 523.01),
    ],
)
def test_columns_of_the_paper_have_the_sum_they_have_there(
    dataset: str, objectives: tuple[str, ...], total: float
) -> None:
    values = [
        value.nll
        for (data, objective, *_), value in tables.CELLS.items()
        if (data, objective in objectives) == (dataset, True)
    ]
    assert len(values) == 6 and sum(values) == pytest.approx(total, abs=1e-6)


@pytest.mark.parametrize("dataset", ["mnist", "omniglot", "binarized_mnist"])
@pytest.mark.parametrize("layers", [1, 2])
def test_more_samples_and_iwae_are_better_in_the_published_numbers(dataset: str, layers: int) -> None:
    """A typing error would most likely break the order that the paper's tables have."""
    values = [tables.CELLS[dataset, "vae" if k == 1 else "iwae", k, layers].nll for k in (1, 5, 50)]
    assert values == sorted(values, reverse=True)


def test_a_run_under_the_whole_protocol_has_no_mark(tmp_path: Path) -> None:
    record = read(tmp_path / "whole")
    assert tables.departures(record) == []
    text = tables.tables([record], tmp_path)
    assert "Departures" not in text and "arXiv:1509.00519" in text
    (row,) = rows_of(text, "## MNIST, stochastic binarization (table 1)")
    assert row["run"] == "[whole](whole)"
    assert (row["layers"], row["objective"], row["k"]) == ("1", "vae", "1")
    assert (row["NLL"], row["inactive removed"], row["active units"]) == ("86.50 ± 0.24", "86.51", "19")
    assert (row["published"], row["difference"]) == ("86.76 (19)", "-0.26")
    assert (row["passes"], row["training time"], row["device"]) == ("3,280", "1 h 0 min", "CPU, 2 cores, x86_64")
    assert row["estimate"] == "L_5000, 10,000 examples"
    assert "departures" not in row


@pytest.mark.parametrize(
    ("changes", "test", "marks"),
    [
        ({"training.stages": 4}, {}, ["40 passes over the data (paper: 3,280)"]),
        ({"training.epochs": 100}, {}, ["100 passes over the data (paper: 3,280)"]),
        ({"model.latent_units": [100]}, {}, ["model.latent_units 100 (paper: 50)"]),
        ({"model.hidden_units": [[300, 100]]}, {}, ["model.hidden_units 300,100 (paper: 200,200)"]),
        ({"model.objective": "vae_analytic_kl"}, {}, ["model.objective vae_analytic_kl (paper: vae)"]),
        (
            {"model.estimator": "sticking_the_landing"},
            {},
            ["model.estimator sticking_the_landing (paper: reparameteri"],
        ),
        ({"model.beta_warmup_epochs": 9}, {}, ["model.beta_warmup_epochs 9 (paper: 0)"]),
        ({"training.learning_rate": 0.01}, {}, ["training.learning_rate 0.01 (paper: 0.001)"]),
        ({"training.beta_1": 0.99}, {}, ["training.beta_1 0.99 (paper: 0.9)"]),
        ({"training.schedule": "constant", "training.epochs": 3280}, {}, ["training.schedule constant (paper: burda)"]),
        (
            {"training.schedule": "multistep", "training.epochs": 3280, "training.milestones": [1, 4]},
            {},
            ["training.schedule multistep, times 0.1 after epochs 1,4 (paper: burda)"],
        ),
        ({"training.early_stopping_patience": 5}, {}, ["training.early_stopping_patience 5 (paper: None)"]),
        ({"data.batch_size": 100}, {}, ["data.batch_size 100 (paper: 20)"]),
        ({}, {"k": 50}, ["L_50 (paper: L_5000)"]),
        ({}, {"examples": 1000}, ["1,000 test examples (paper: all 10,000)"]),
        ({"evaluation.active_unit_threshold": 0.1}, {}, ["evaluation.active_unit_threshold 0.1 (paper: 0.01)"]),
        ({"training.updates_per_call": 7, "seed": 9, "data.path": "x", "evaluation.splits": ["valid", "test"]}, {}, []),
    ],
)
def test_every_departure_from_the_protocol_is_marked(
    tmp_path: Path, changes: dict[str, Any], test: dict[str, Any], marks: list[str]
) -> None:
    record = read(tmp_path / "run", changes=changes, test=test)
    found = tables.departures(record)
    assert len(found) == len(marks) and all(text.startswith(mark) for text, mark in zip(found, marks, strict=True))
    text = tables.tables([record], tmp_path)
    (row,) = rows_of(text)
    assert row["published"] == "86.76 (19)"
    assert row.get("departures", "") == ("a" if marks else "")
    assert all(f"a: {mark}" in text for mark in marks)


@pytest.mark.parametrize(
    ("change", "marked"),
    [
        ("after update 13: training.learning_rate was 0.01, is 0.001", True),
        ("after update 13: training.gamma was 1e+30, is 0.1", True),
        ("after update 13: training.stages was 5, is 8", False),  # the passes that were trained say it
    ],
)
def test_parameters_changed_while_trained_are_marked(tmp_path: Path, change: str, marked: bool) -> None:
    record = read(tmp_path / "run", environment={"changed_parameters": [change]})
    assert tables.departures(record) == [change] * marked


def test_two_layers_are_measured_by_the_two_layer_protocol(tmp_path: Path) -> None:
    record = read(tmp_path / "run", "mnist_iwae_k50_2layers", test={"active_units": [26, 7]})
    assert tables.departures(record) == []
    (row,) = rows_of(tables.tables([record], tmp_path))
    assert (row["active units"], row["published"]) == ("26+7", "82.90 (26+7)")


def test_one_departure_has_one_letter_in_all_tables(tmp_path: Path) -> None:
    records = [
        read(tmp_path / "a", changes={"training.stages": 4}),
        read(tmp_path / "b", changes={"training.stages": 4, "data.batch_size": 30}),
        read(tmp_path / "c", "binarized_mnist_vae_k1_1layer", {"data.batch_size": 30}),
    ]
    text = tables.tables(records, tmp_path)
    first, second = rows_of(text, "table 1")
    (third,) = rows_of(text, "(appendix)")
    assert (first["departures"], second["departures"], third["departures"]) == ("a", "a, b", "b")
    assert text.endswith("a: 40 passes over the data (paper: 3,280); b: data.batch_size 30 (paper: 20).")


def test_letters_go_on_after_z() -> None:
    assert [tables._letters(i) for i in (0, 25, 26, 51, 52, 701, 702)] == ["a", "z", "aa", "az", "ba", "zz", "aaa"]


# ---- groups ----


@pytest.mark.parametrize(
    ("preset", "changes", "heading", "value"),
    [
        ("mnist_iwae_k5_1layer", {}, "MNIST, stochastic binarization (table 1)", "85.54 (22)"),
        ("omniglot_iwae_k50_2layers", {}, "OMNIGLOT, stochastic binarization (table 1)", "103.38 (44+7)"),
        *(
            ("binarized_mnist_iwae_k5_1layer", {"data.binarization": how}, "MNIST, fixed binarization of", "87.63 (22)")
            for how in ("fixed", "stochastic", "none", "threshold")
        ),
        ("mnist_iwae_k5_1layer", {"data.binarization": "fixed"}, "mnist, binarization: fixed", None),
        ("mnist_iwae_k5_1layer", {"data.binarization": "none"}, "mnist, binarization: none", None),
        ("mnist_iwae_k5_1layer", {"model.k": 7}, "MNIST, stochastic binarization (table 1)", None),
        ("mnist_vae_k1_1layer", {"model.beta": 0.5}, "MNIST, stochastic binarization (table 1)", None),
        ("mnist_iwae_k5_1layer", {"model.objective": "miwae"}, "MNIST, stochastic binarization (table 1)", None),
        ("mnist_iwae_k50_2d", {}, "MNIST, two latent units", None),
        ("mnist_iwae_k50_2layers", {"model.latent_units": [100, 2]}, "MNIST, stochastic bina", "82.90 (26+7)"),
        ("mnist_iwae_k5_1layer", {"data.name": "digits"}, "digits, binarization: stochastic", None),
        (
            "mnist_iwae_k5_1layer",
            {"data.name": "far/own.npz"},
            "own.npz (a user's file), binarization: stochastic",
            None,
        ),
        ("omniglot_iwae_k5_1layer", {"data.name": "x/o28_standin.npz"}, "o28_standin.npz (stand-in data), bina", None),
        ("camel_iwae_k20", {}, "Synthetic data of known density", "1.37"),
        ("camel_vae_k20", {"model.k": 1}, "Synthetic data of known density", "1.52"),
        ("camel_iwae_k20", {"model.k": 5}, "Synthetic data of known density", None),
        ("circle_vae_k20", {}, "Synthetic data of known density", None),
    ],
)
def test_a_run_is_in_its_group_with_its_published_value(
    tmp_path: Path, preset: str, changes: dict[str, Any], heading: str, value: str | None
) -> None:
    record = read(tmp_path / "run", preset, changes)
    text = tables.tables([record], tmp_path)
    (row,) = rows_of(text, f"## {heading}")
    assert row.get("published") == value and ("difference" in row) == (value is not None)
    assert ("arXiv:1509.00519" in text) == (value is not None)


def test_synthetic_data_have_the_true_density_beside_the_bound(tmp_path: Path) -> None:
    test = {"nll": 1.3642, "nll_stderr": 0.006, "true_log_likelihood": -1.3601, "active_units": [1]}
    (row,) = rows_of(tables.tables([read(tmp_path / "run", "camel_iwae_k20", test=test)], tmp_path))
    assert (row["NLL"], row["true density"], row["above it"]) == ("1.364 ± 0.006", "1.360", "+0.004")


TIGHTNESS = {
    "ais": {"examples": 100, "k": 5000, "L_k": -88.12, "L_k_stderr": 0.021, "log_likelihood": -88.07, "stderr": 0.034},
    "bidirectional": {"lower": -80.31, "upper": -80.22, "L_k": -80.4},
    "pareto_k": {"share_above_0.7": 0.07, "effective_sample_size": 312.4, "smallest_effective_sample_size": 2.35},
}


def test_what_says_whether_the_bound_is_tight_has_a_table(tmp_path: Path) -> None:
    records = [read(tmp_path / "asked", test=TIGHTNESS), read(tmp_path / "not_asked")]
    (row,) = rows_of(tables.tables(records, tmp_path), "Is L_k tight?")
    assert row == {
        "run": "[asked](asked)",
        "images": "100",
        "k": "5000",
        "L_k": "-88.120 ± 0.021",
        "AIS": "-88.070 ± 0.034",
        "simulated: truth within": "-80.310 to -80.220",
        "simulated: L_k": "-80.400",
        "k-hat above 0.7": "7%",
        "effective samples (least)": "312 (2.4)",
    }
    assert "Is L_k tight?" not in tables.tables(records[1:], tmp_path)


def continued(folder: Path, start: str, objective: str, k: int, **options: Any) -> Path:
    changes = {"training.start_from": start, "model.objective": objective, "model.k": k}
    return make(folder, "mnist_vae_k1_1layer_then_iwae_k50", changes, **options)


@pytest.mark.parametrize(
    ("first", "then", "value"), [(("vae", 1), ("iwae", 50), 84.88), (("iwae", 50), ("vae", 1), 86.02)]
)
def test_table_2_knows_the_run_it_continues(tmp_path: Path, first: tuple, then: tuple, value: float) -> None:
    """Found beside the continuation, though its path has changed since."""
    make(tmp_path / "first", f"mnist_{first[0]}_k{first[1]}_1layer", test={"nll": 86.9})
    record = tables.read(continued(tmp_path / "then", "elsewhere/first", *then))
    assert tables.published(record) is not None and tables.published(record).nll == value  # type: ignore[union-attr]
    assert tables.departures(record) == []
    (row,) = rows_of(tables.tables([record], tmp_path), "## One objective after the other (table 2)")
    assert row["starts from"] == f"{first[0]}, k = {first[1]}: 86.90"
    assert row["passes"] == "3,280 + 2,187"


def test_departures_of_the_first_run_are_marked_too(tmp_path: Path) -> None:
    make(tmp_path / "first", changes={"training.stages": 4}, evaluated=False)
    record = tables.read(continued(tmp_path / "then", str(tmp_path / "first"), "iwae", 50))
    assert tables.departures(record) == ["first run: 40 passes over the data (paper: 3,280)"]


@pytest.mark.parametrize(
    ("changes", "mark"),
    [
        ({"data.name": "fashion_mnist"}, "first run: data.name fashion_mnist (here: mnist)"),
        ({"data.binarization": "threshold"}, "first run: data.binarization threshold (paper: stochastic)"),
        ({"training.start_from": "results/zeroth"}, "first run: training.start_from zeroth (paper: none)"),
    ],
)
def test_another_first_run_is_marked_and_compared_with_nothing(
    tmp_path: Path, changes: dict[str, Any], mark: str
) -> None:
    make(tmp_path / "first", changes=changes)
    record = tables.read(continued(tmp_path / "then", str(tmp_path / "first"), "iwae", 50))
    assert tables.published(record) is None and mark in tables.departures(record)


def test_other_binarization_of_a_continued_run_is_marked(tmp_path: Path) -> None:
    make(tmp_path / "first")
    changes = {"training.start_from": str(tmp_path / "first"), "data.binarization": "threshold"}
    record = read(tmp_path / "then", "mnist_vae_k1_1layer_then_iwae_k50", changes)
    assert tables.published(record) is None
    assert tables.departures(record) == ["data.binarization threshold (paper: stochastic)"]


def test_a_continued_run_without_its_first_run_is_compared_with_nothing(tmp_path: Path) -> None:
    record = tables.read(continued(tmp_path / "then", "gone", "iwae", 50))
    assert tables.published(record) is None
    assert tables.departures(record) == ["first run: not found"]
    (row,) = rows_of(tables.tables([record], tmp_path))
    assert row["starts from"] == "gone" and "published" not in row


def test_rows_are_in_the_order_of_the_paper(tmp_path: Path) -> None:
    names = ["mnist_iwae_k50_1layer", "mnist_vae_k1_2layers", "mnist_iwae_k5_1layer", "mnist_vae_k5_1layer"]
    records = [read(tmp_path / name, name) for name in names]
    rows = rows_of(tables.tables(records, tmp_path))
    assert [(row["layers"], row["k"], row["objective"]) for row in rows] == [
        ("1", "5", "vae"),
        ("1", "5", "iwae"),
        ("1", "50", "iwae"),
        ("2", "1", "vae"),
    ]


# ---- several seeds, one parameter ----


def test_seeds_have_mean_and_spread(tmp_path: Path) -> None:
    values = [86.0, 86.5, 87.3]
    records = [read(tmp_path / f"run{i}", changes={"seed": i}, test={"nll": nll}) for i, nll in enumerate(values)]
    records.append(read(tmp_path / "other", "mnist_iwae_k5_1layer", {"seed": 1}))
    *rows, mean, other = rows_of(tables.tables(records, tmp_path))
    assert [row["run"] for row in rows] == [f"[run{i}](run{i})" for i in range(3)]
    assert mean["run"] == "**mean of 3 seeds**"
    assert mean["NLL"] == f"**{np.mean(values):.2f}**, sd {np.std(values, ddof=1):.2f}"
    assert mean["difference"] == f"{np.mean(values) - 86.76:+.2f}"
    assert other["run"] == "[other](other)"


def test_the_spread_is_of_different_seeds_on_the_same_data(tmp_path: Path) -> None:
    """Not of one run under two names, of fewer examples, or of another file of the same name."""
    changes = {"data.name": "own.npz"}
    make(tmp_path / "a", changes=changes, test={"nll": 86.0})
    make(tmp_path / "copy_of_a", changes=changes, test={"nll": 86.0})
    make(tmp_path / "fewer", changes=changes | {"seed": 2}, test={"nll": 80.0, "examples": 1000})
    make(
        tmp_path / "other", changes=changes | {"seed": 3}, test={"nll": 50.0}, environment={"dataset_fingerprint": "x"}
    )
    records, _ = tables.find([], tmp_path)
    assert "seeds" not in tables.tables(records, tmp_path)
    make(tmp_path / "seed4", changes=changes | {"seed": 4}, test={"nll": 87.0})
    records, _ = tables.find([], tmp_path)
    (mean,) = [row for row in rows_of(tables.tables(records, tmp_path)) if "seeds" in row["run"]]
    assert (mean["run"], mean["NLL"]) == ("**mean of 2 seeds**", "**86.50**, sd 0.71")


def test_runs_that_differ_in_one_parameter_are_compared_on_it(tmp_path: Path) -> None:
    nll = {("vae", 1): 87.0, ("vae", 5): 86.6, ("iwae", 5): 86.1, ("iwae", 50): 85.0}
    records = [
        read(tmp_path / f"{objective}{k}", f"mnist_{objective}_k{k}_1layer", test={"nll": value})
        for (objective, k), value in nll.items()
    ]
    records += [
        read(tmp_path / f"iwae50_{seed}", "mnist_iwae_k50_1layer", {"seed": seed}, {"nll": 85 + seed / 10})
        for seed in (1, 2)
    ]
    records.append(read(tmp_path / "digits", "mnist_iwae_k50_1layer", {"data.name": "digits"}))
    text = tables.comparisons(records)
    assert re.findall("^### (.*)$", text, re.M) == ["model.k", "model.objective"]
    iwae, vae = rows_of(text, "### model.k")
    assert iwae == {"objective": "iwae", "k 1": "", "k 5": "86.100 ± 0.240", "k 50": "85.100, sd 0.100 (3 seeds)"}
    assert vae == {"objective": "vae", "k 1": "87.000 ± 0.240", "k 5": "86.600 ± 0.240", "k 50": ""}
    assert rows_of(text, "### model.objective") == [
        {"objective iwae": "86.100 ± 0.240", "objective vae": "86.600 ± 0.240"}
    ]


def test_the_network_is_one_parameter(tmp_path: Path) -> None:
    records = [read(tmp_path / name, name) for name in ("mnist_iwae_k5_1layer", "mnist_iwae_k5_2layers")]
    (row,) = rows_of(tables.comparisons(records), "### network")
    assert set(row) == {"network 200,200 - 50", "network 200,200/100,100 - 100,50"}


def test_fewer_examples_are_told_in_a_comparison(tmp_path: Path) -> None:
    records = [
        read(tmp_path / "a", "mnist_iwae_k5_1layer"),
        read(tmp_path / "b", "mnist_iwae_k50_1layer", test={"examples": 1000}),
    ]
    (row,) = rows_of(tables.comparisons(records))
    assert row == {"k 5": "86.500 ± 0.240", "k 50": "86.500 ± 0.240 (1,000 examples)"}


def test_nothing_to_compare(tmp_path: Path) -> None:
    assert tables.comparisons([]) == ""
    assert tables.comparisons([read(tmp_path / "a"), read(tmp_path / "b", changes={"seed": 2})]) == ""


# ---- runs that cannot be read ----

DAMAGE = {
    "no experiment.json": ("experiment.json", None, "expected the file of a run, found none"),
    "no log": ("log.csv", None, "expected a row for each epoch, found none"),
    "empty experiment": ("experiment.json", "", "expected JSON, got an error"),
    "cut experiment": ("experiment.json", '{"name": "x", "data": {', "expected JSON, got an error"),
    "deep": ("experiment.json", "[" * 100_000, "expected JSON, got an error"),
    "a list": ("experiment.json", "[]", "expected named values"),
    "wrong value": ("experiment.json", '{"name": "x", "model": {"k": 0}}', "model.k: expected an integer >= 1, got 0"),
    "wrong section": ("experiment.json", '{"name": "x", "model": 3}', "model: expected named parameters"),
    "unknown parameter": ("experiment.json", '{"name": "x", "sede": 1}', "sede: expected the name of a parameter"),
    "cut evaluation": ("evaluation.json", '{"test": {"nll": 86.', "expected JSON, got an error"),
    "not UTF-8": ("evaluation.json", b"\xff\xfe\x00", "expected JSON, got an error"),
    "no test split": ("evaluation.json", '{"train": {}}', "expected an evaluation of the split 'test'"),
    "split is no object": ("evaluation.json", '{"test": 3}', "expected an evaluation of the split 'test'"),
    "no nll": ("evaluation.json", '{"test": {"examples": 3}}', "nll: expected a number, got None"),
    "nll is NaN": (
        "evaluation.json",
        json.dumps({"test": TEST | {"nll": math.nan}}),
        "nll: expected a number, got nan",
    ),
    "nll is text": ("evaluation.json", json.dumps({"test": TEST | {"nll": "86"}}), "nll: expected a number, got '86'"),
    "no list": ("evaluation.json", json.dumps({"test": TEST | {"active_units": 3}}), "active_units: expected a list"),
    "half a tightness": ("evaluation.json", json.dumps({"test": TEST | {"ais": {"k": 3}}}), "ais.examples: expected a"),
    "header only": ("log.csv", ",".join(log.COLUMNS) + "\n", "expected a row for each epoch, found none"),
    "other columns": ("log.csv", "a,b\n1,2\n", "expected the columns epoch,updates,"),
    "binary log": ("log.csv", b"\xff\xfe\x00\x81", "expected a table that can be read"),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_damaged_run_gives_one_line_and_the_others_are_reported(
    tmp_path: Path, capsys: pytest.CaptureFixture, damage: str
) -> None:
    file, content, message = DAMAGE[damage]
    make(tmp_path / "whole")
    path = make(tmp_path / "damaged") / file
    path.unlink()
    if content is not None:
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
    assert tables.main(["--results_dir", str(tmp_path)]) == 0
    out, err = capsys.readouterr()
    assert [row["run"] for row in rows_of(out)][0].startswith("[whole]")
    (line,) = [line for line in out.splitlines() if line.startswith("- ")]
    assert line.startswith(f"- {path}: ") and message in line
    assert err == f"left out: {line[2:]}\n"


def test_a_log_that_was_cut_short_loses_its_last_line_only(tmp_path: Path) -> None:
    folder = make(tmp_path / "run", bounds=range(-40, 0), epochs=40)
    text = (folder / "log.csv").read_text()
    (folder / "log.csv").write_text(text[: text.rindex(",")])
    assert tables.read(folder).passes == 39


def test_a_run_that_is_not_evaluated_yet_is_named(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    make(tmp_path / "young", evaluated=False, epochs=12)
    assert tables.main(["--results_dir", str(tmp_path)]) == 0
    assert "- young: not evaluated yet, 12 passes trained" in capsys.readouterr().out


def test_a_run_of_an_earlier_version_has_the_defaults(tmp_path: Path) -> None:
    folder = make(tmp_path / "run")
    values = json.loads((folder / "experiment.json").read_text())
    del values["evaluation"]["active_unit_threshold"], values["model"]["groups"], values["environment"]
    (folder / "experiment.json").write_text(json.dumps(values))
    record = tables.read(folder)
    assert tables.departures(record) == [] and record.device == "?"


def test_an_objective_of_the_user_is_reported_without_a_published_value(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(config, "OBJECTIVES", dict(config.OBJECTIVES))
    folder = make(tmp_path / "run", "mnist_iwae_k5_1layer")
    text = (folder / "experiment.json").read_text()
    (folder / "experiment.json").write_text(text.replace('"objective": "iwae"', '"objective": "median"'))
    (row,) = rows_of(tables.tables([tables.read(folder)], tmp_path))
    assert row["objective"] == "median" and "published" not in row


# ---- the command ----


def test_it_writes_readme_of_the_results_with_links_from_there(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    results = tmp_path / "results"
    make(results / "run a", changes={"name": "x"})
    (results / "unrelated").mkdir()
    assert tables.main(["--results_dir", str(results), "--write"]) == 0
    text = (results / "README.md").read_text()
    assert text == capsys.readouterr().out
    assert text.startswith("# Results\n") and "[run a](run%20a)" in text
    assert tables.main(["--results_dir", str(results), "--write"]) == 0
    assert (results / "README.md").read_text() == text


def test_it_replaces_what_lies_between_the_markers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make(tmp_path / "results" / "run")
    monkeypatch.chdir(tmp_path)
    readme = tmp_path / "README.md"
    readme.write_text(f"before\n{tables.BEGIN}\nold\n{tables.END}\nafter ü\n", encoding="utf-8")
    assert tables.main(["--readme", "README.md"]) == 0
    text = readme.read_text(encoding="utf-8")
    assert text.startswith(f"before\n{tables.BEGIN}\n\n### MNIST, ") and text.endswith(f"\n{tables.END}\nafter ü\n")
    assert "[run](results/run)" in text and "old" not in text
    assert tables.main(["--readme", "README.md"]) == 0
    assert readme.read_text(encoding="utf-8") == text


@pytest.mark.parametrize(
    "text",
    [
        "none",
        tables.BEGIN,
        tables.END,
        tables.END + tables.BEGIN,
        tables.BEGIN * 2 + tables.END,
        tables.BEGIN + tables.END * 2,
    ],
)
def test_a_file_without_the_two_markers_is_left_as_it_is(
    tmp_path: Path, capsys: pytest.CaptureFixture, text: str
) -> None:
    make(tmp_path / "results" / "run")
    (tmp_path / "README.md").write_text(text)
    arguments = ["--results_dir", str(tmp_path / "results"), "--readme", str(tmp_path / "README.md")]
    assert tables.main(arguments) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"error: {tmp_path / 'README.md'}: expected the lines {tables.BEGIN} and {tables.END}")
    assert (tmp_path / "README.md").read_text() == text


def test_runs_by_path_and_by_name(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    for name in ("a", "b", "c"):
        make(tmp_path / name)
    assert tables.main(["--results_dir", str(tmp_path), "a", str(tmp_path / "b"), "nope", "a"]) == 0
    out, err = capsys.readouterr()
    assert [row["run"].split("]")[0] for row in rows_of(out)] == ["[a", "[b"]
    assert err == f"left out: {tmp_path / 'nope' / 'experiment.json'}: expected the file of a run, found none\n"


@pytest.mark.parametrize(
    ("folder", "message"), [("nope", "expected a folder of runs"), ("", "expected at least one run")]
)
def test_no_run_at_all_is_an_error(tmp_path: Path, capsys: pytest.CaptureFixture, folder: str, message: str) -> None:
    assert tables.main(["--results_dir", str(tmp_path / folder)]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: ") and message in line


def test_what_a_name_holds_cannot_break_the_table(tmp_path: Path) -> None:
    record = read(tmp_path / "a|b](c", changes={"name": "x"})
    (row,) = rows_of(tables.tables([record], tmp_path))
    assert row["run"] == r"[a\|b\](c](a%7Cb%5D%28c)"


def test_learning_curves_of_several_runs_are_in_one_file(tmp_path: Path) -> None:
    for i, k in enumerate((1, 5)):
        make(
            tmp_path / "results" / f"run{k}",
            f"mnist_iwae_k{k}_1layer",
            bounds=np.linspace(-100, -90 + i, 30),
            epochs=30,
        )
    path = tmp_path / "curves.png"
    assert tables.main(["--results_dir", str(tmp_path / "results"), "--curves", str(path)]) == 0
    assert path.read_bytes()[1:4] == b"PNG"


def test_learning_curves_of_seeds_are_a_mean_with_its_spread(tmp_path: Path) -> None:
    bounds = np.random.default_rng(0).normal(size=(3, 12))
    records = [
        read(tmp_path / f"run{i}", changes={"seed": i}, bounds=row[: 12 - i], epochs=12 - i, evaluated=i < 2)
        for i, row in enumerate(bounds)
    ]
    other = read(tmp_path / "other", "mnist_iwae_k1_1layer", bounds=np.zeros(12), epochs=12)
    columns = tables._mean_columns(records)
    np.testing.assert_allclose(columns["train_bound"], bounds[:, :10].mean(axis=0), atol=1e-12)
    np.testing.assert_allclose(columns["train_bound_spread"], bounds[:, :10].std(axis=0, ddof=1), atol=1e-12)
    figure = tables.curves([*records, other])
    labels = [text.get_text() for text in figure.legends[0].get_texts()]
    assert any(label.startswith("training, objective vae, 3 seeds") for label in labels)
    assert any(label.startswith("validation, objective iwae (") for label in labels)
    assert [len(axes.collections) for axes in figure.axes] == [2, 2]  # a band for each bound of the seeds


def test_neither_tensorflow_nor_weights_are_needed(tmp_path: Path) -> None:
    make(tmp_path / "results" / "run")
    code = (
        "import sys; from iwae import report; status = tables.main(sys.argv[1:]); "
        "sys.exit(status or any(name in sys.modules for name in ('tensorflow', 'keras', 'matplotlib')))"
    )
    arguments = ["--results_dir", str(tmp_path / "results"), "--write"]
    command = [sys.executable, "-W", "error", "-c", code, *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, cwd=Path(__file__).parents[1])
    assert (done.returncode, done.stderr) == (0, "")
