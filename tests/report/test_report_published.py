"""The published numbers, and what of a run departs from the paper's protocol."""

from pathlib import Path
from typing import Any

import pytest
from report_runs import read, rows_of

from iwae.cli import presets
from iwae.report import protocol, tables
from iwae.report.published import CELLS, SECOND


def test_every_cell_of_the_paper_has_its_value() -> None:
    groups = [
        name for group in ("table1-mnist", "table1-omniglot", "fixed-binarization") for name in presets.GROUPS[group]
    ]
    cells = [presets.PRESETS[name] for name in groups]
    keys = {(cell.data.name, cell.model.objective, cell.model.k, len(cell.model.latent_units)) for cell in cells}
    assert keys == set(CELLS) and len(keys) == 30
    assert str(CELLS["mnist", "vae", 1, 1]) == "86.76 (19)"
    assert str(CELLS["mnist", "iwae", 50, 2]) == "82.90 (26+7)"
    assert str(CELLS["omniglot", "vae", 5, 2]) == "106.31 (30+5)"
    assert str(CELLS["omniglot", "iwae", 50, 1]) == "104.67 (41)"
    assert str(CELLS["binarized_mnist", "iwae", 5, 2]) == "86.17 (21+5)"


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
        for (data, objective, *_), value in CELLS.items()
        if (data, objective in objectives) == (dataset, True)
    ]
    assert len(values) == 6 and sum(values) == pytest.approx(total, abs=1e-6)


def test_the_second_implementation_has_a_value_for_each_cell_of_mnist_and_its_sums() -> None:
    assert set(SECOND) == {cell for cell in CELLS if cell[0] == "mnist"}
    sums = {("vae", 1): 258.51, ("iwae", 1): 256.12, ("vae", 2): 252.80, ("iwae", 2): 251.13}
    for (objective, layers), total in sums.items():
        values = [SECOND["mnist", objective, k, layers].nll for k in (1, 5, 50)]
        assert values == sorted(values, reverse=True) and sum(values) == pytest.approx(total, abs=1e-6)


@pytest.mark.parametrize("dataset", ["mnist", "omniglot", "binarized_mnist"])
@pytest.mark.parametrize("layers", [1, 2])
def test_more_samples_and_iwae_are_better_in_the_published_numbers(dataset: str, layers: int) -> None:
    """A typing error would most likely break the order that the paper's tables have."""
    values = [CELLS[dataset, "vae" if k == 1 else "iwae", k, layers].nll for k in (1, 5, 50)]
    assert values == sorted(values, reverse=True)


def test_a_run_under_the_whole_protocol_has_no_mark(tmp_path: Path) -> None:
    record = read(tmp_path / "whole")
    assert protocol.departures(record) == []
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
    found = protocol.departures(record)
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
    assert protocol.departures(record) == [change] * marked


@pytest.mark.parametrize("k", [1, 5, 50])
def test_the_fast_protocol_is_one_departure_beside_its_passes(tmp_path: Path, k: int) -> None:
    record = read(tmp_path / "fast", f"mnist_iwae_k{k}_2layers_fast")
    passes, fast = protocol.departures(record)
    assert passes.endswith(" passes over the data (paper: 3,280)") and fast.startswith("the fast protocol")
    other = read(tmp_path / "other", f"mnist_iwae_k{k}_2layers_fast", {"training.learning_rate": 1e-3})
    assert "training.optimizer rotated_adam (paper: adam)" in protocol.departures(other)


def test_two_layers_are_measured_by_the_two_layer_protocol(tmp_path: Path) -> None:
    record = read(tmp_path / "run", "mnist_iwae_k50_2layers", test={"active_units": [26, 7]})
    assert protocol.departures(record) == []
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
    assert [tables.letters(i) for i in (0, 25, 26, 51, 52, 701, 702)] == ["a", "z", "aa", "az", "ba", "zz", "aaa"]
