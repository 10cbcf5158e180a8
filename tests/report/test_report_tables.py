"""The tables of the paper's groups, of seeds, and whether L_k is tight."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from report_runs import continued, make, read, rows_of

from iwae.report import markdown, protocol, records, tables
from iwae.report.paper import paper_table
from iwae.report.published import TEST_EXAMPLES


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
    examples = TEST_EXAMPLES.get(preset.split("_")[0], 10_000)
    record = read(tmp_path / "run", preset, changes, {"examples": examples})
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


@pytest.mark.parametrize(
    ("first", "then", "value"), [(("vae", 1), ("iwae", 50), 84.88), (("iwae", 50), ("vae", 1), 86.02)]
)
def test_table_2_knows_the_run_it_continues(tmp_path: Path, first: tuple, then: tuple, value: float) -> None:
    """Found beside the continuation, though its path has changed since."""
    make(tmp_path / "first", f"mnist_{first[0]}_k{first[1]}_1layer", test={"nll": 86.9})
    record = records.read(continued(tmp_path / "then", "elsewhere/first", *then))
    assert protocol.published(record) is not None and protocol.published(record).nll == value  # type: ignore[union-attr]
    assert protocol.departures(record) == []
    (row,) = rows_of(tables.tables([record], tmp_path), "## One objective after the other (table 2)")
    assert row["starts from"] == f"{first[0]}, k = {first[1]}: 86.90"
    assert row["passes"] == "3,280 + 2,187"


def test_departures_of_the_first_run_are_marked_too(tmp_path: Path) -> None:
    make(tmp_path / "first", changes={"training.stages": 4}, evaluated=False)
    record = records.read(continued(tmp_path / "then", str(tmp_path / "first"), "iwae", 50))
    assert protocol.departures(record) == ["first run: 40 passes over the data (paper: 3,280)"]


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
    record = records.read(continued(tmp_path / "then", str(tmp_path / "first"), "iwae", 50))
    assert protocol.published(record) is None and mark in protocol.departures(record)


def test_other_binarization_of_a_continued_run_is_marked(tmp_path: Path) -> None:
    make(tmp_path / "first")
    changes = {"training.start_from": str(tmp_path / "first"), "data.binarization": "threshold"}
    record = read(tmp_path / "then", "mnist_vae_k1_1layer_then_iwae_k50", changes)
    assert protocol.published(record) is None
    assert protocol.departures(record) == ["data.binarization threshold (paper: stochastic)"]


def test_a_conditional_run_is_compared_with_nothing(tmp_path: Path) -> None:
    """Its NLL is that of p(x | y)."""
    record = read(tmp_path / "plain", "mnist_iwae_k5_1layer")
    assert protocol.published(record) is not None
    record = read(tmp_path / "given", "mnist_iwae_k5_1layer", {"model.condition": "labels"})
    assert protocol.published(record) is None


def test_a_continued_run_without_its_first_run_is_compared_with_nothing(tmp_path: Path) -> None:
    record = records.read(continued(tmp_path / "then", "gone", "iwae", 50))
    assert protocol.published(record) is None
    assert protocol.departures(record) == ["first run: not found"]
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
    found, _ = records.find([], tmp_path)
    assert "seeds" not in tables.tables(found, tmp_path)
    make(tmp_path / "seed4", changes=changes | {"seed": 4}, test={"nll": 87.0})
    found, _ = records.find([], tmp_path)
    (mean,) = [row for row in rows_of(tables.tables(found, tmp_path)) if "seeds" in row["run"]]
    assert (mean["run"], mean["NLL"]) == ("**mean of 2 seeds**", "**86.50**, sd 0.71")


def test_a_run_evaluated_on_a_part_of_the_images_has_no_difference(tmp_path: Path) -> None:
    part = read(tmp_path / "part", test={"examples": 2000})
    (row,) = rows_of(tables.tables([part], tmp_path))
    assert row["published"] == "86.76 (19)" and row["departures"] == "a" and "difference" not in row
    whole = [read(tmp_path / f"whole{i}", changes={"seed": i}, test={"nll": 86 + i}) for i in range(2)]
    *rows, mean = rows_of(tables.tables([part, *whole], tmp_path))
    assert [row["difference"] for row in rows] == ["-0.76", "+0.24", ""]
    assert (mean["run"], mean["difference"]) == ("**mean of 2 seeds**", "-0.26")
    parts = [read(tmp_path / f"part{i}", changes={"seed": i}, test={"examples": 2000}) for i in range(2)]
    assert "difference" not in rows_of(tables.tables(parts, tmp_path))[-1]


def test_the_second_implementation_stands_beside_table_1_alone(tmp_path: Path) -> None:
    text = tables.tables([read(tmp_path / "a", "mnist_iwae_k50_1layer")], tmp_path)
    assert rows_of(text)[0]["nbip/IWAE"] == "84.59" and "github.com/nbip/IWAE" in text
    for name in ("mnist_iwae_k50_2d", "binarized_mnist_iwae_k5_1layer", "camel_iwae_k20"):
        assert "nbip" not in tables.tables([read(tmp_path / name, name)], tmp_path)


# ---- the paper's own table ----


def test_the_papers_table_has_one_run_a_cell_chosen_by_its_length_not_its_result(tmp_path: Path) -> None:
    short = {"training.stages": 4}
    records = [
        read(tmp_path / "short", "mnist_iwae_k50_2layers", short, {"nll": 80}),
        read(tmp_path / "whole", "mnist_iwae_k50_2layers", {"seed": 2}, {"nll": 83.5}),
        read(tmp_path / "seed3", "mnist_iwae_k50_2layers", {"seed": 3}, {"nll": 82}),
        read(tmp_path / "part", "mnist_iwae_k50_2layers", {"seed": 1}, {"nll": 79, "examples": 9999}),
        read(tmp_path / "other_network", "mnist_iwae_k50_2layers", {"model.latent_units": [200, 50]}),
        read(tmp_path / "other_bound", "mnist_iwae_k50_2layers", {"seed": 0}, {"k": 50}),
        read(tmp_path / "closed_form", "mnist_vae_k1_1layer", {"model.objective": "vae_analytic_kl"}),
        read(tmp_path / "plane", "mnist_vae_k50_2d"),
        read(tmp_path / "waiting", "mnist_vae_k5_1layer", evaluated=False),
        read(tmp_path / "vae", "mnist_vae_k50_2layers", {"data.batch_size": 100} | short, {"examples": 500}),
    ]
    text = paper_table(records, tmp_path.parent)
    rows = rows_of(text)
    assert [(row["layers"], row["k"]) for row in rows] == [(layers, k) for layers in "12" for k in ("1", "5", "50")]
    assert rows[5] == {
        "layers": "2",
        "k": "50",
        "VAE": f"[86.50 (84.78)]({tmp_path.name}/vae) a, b",
        "IWAE": f"[83.50 (82.90)]({tmp_path.name}/whole)",
        "nbip/IWAE": "83.89 / 82.82",
        "passes": "40 / 3,280",
        "training time": "1 h 0 min / 1 h 0 min",
    }
    assert rows[0] == {"layers": "1", "k": "1", "VAE": "(86.76)", "IWAE": "(86.76)"} | {
        "nbip/IWAE": "86.35 / 86.35",
        "passes": "- / -",
        "training time": "- / -",
    }
    assert "a: data.batch_size 100 (paper: 20); b: 500 test examples (paper: all 10,000)." in text
    assert "github.com/nbip/IWAE" in text


def test_the_papers_table_prefers_the_pixels_that_all_runs_share(tmp_path: Path) -> None:
    """Runs of an early version had test pixels of their own: they stand there only as long as there is no other."""
    records = [
        read(tmp_path / "fast", "mnist_vae_k1_1layer_fast", test={"nll": 87.0}),
        read(tmp_path / "early", "mnist_vae_k1_1layer", test={"nll": 86.0}),
    ]
    records[1].test.pop("binarization")
    text = paper_table(records, tmp_path)
    assert rows_of(text)[0]["VAE"] == "[87.00 (86.76)](fast) a"
    assert "a: the fast protocol (docs/protocol.md)." in text


def test_the_papers_table_names_the_data_where_there_are_several(tmp_path: Path) -> None:
    names = ("mnist_iwae_k5_1layer", "omniglot_vae_k1_2layers")
    rows = rows_of(paper_table([read(tmp_path / name, name) for name in names], tmp_path))
    assert [row["data"] for row in rows] == ["MNIST"] * 6 + ["OMNIGLOT"] * 6
    assert rows[0]["nbip/IWAE"] == "86.35 / 86.35" and rows[9]["nbip/IWAE"] == ""
    assert rows[9]["VAE"] == "[86.50 (107.58)](omniglot_vae_k1_2layers) a"
    text = paper_table([read(tmp_path / "camel", "camel_iwae_k20")], tmp_path)
    assert text == "No run of table 1 has been evaluated yet."


# ---- in a terminal ----


def test_a_terminal_gets_aligned_columns_without_links(tmp_path: Path) -> None:
    names = {"a|b](c": "mnist_vae_k1_1layer", "longer [name]": "mnist_iwae_k50_1layer"}
    records = [read(tmp_path / name, preset, {"name": "x"}) for name, preset in names.items()]
    text = markdown.plain(tables.tables(records, tmp_path), 400)
    title, _, header, *rows, _, legend = text.splitlines()[:7]
    assert title == "MNIST, stochastic binarization (table 1)" and legend.startswith("NLL is minus the mean")
    assert [row[: header.index("layers") - 1].strip() for row in rows] == list(names)
    for column in ("layers", "k", "NLL", "published", "passes"):
        end = header.index(f" {column}") + 1 + len(column)
        assert all(row[end - 1] != " " and row[end] == " " for row in rows)
    assert "86.50 ± 0.24" in rows[0] and "](" not in text.replace(*names, 1)


def test_a_narrow_terminal_gets_the_table_in_parts(tmp_path: Path) -> None:
    text = markdown.plain(tables.tables([read(tmp_path / "run")], tmp_path), 60)
    lines = text.splitlines()
    assert max(map(len, lines)) <= 60
    assert sum(line.split()[:1] == ["run"] for line in lines) >= 3 and "difference" in text and "-0.26" in text
