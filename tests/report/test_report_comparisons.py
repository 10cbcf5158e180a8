"""Runs beside runs: one parameter, the same images, learning curves."""

import json
import math
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from report_runs import TEST, make, read, rows_of

from iwae.report import comparisons, curves, records
from iwae.report.__main__ import main


def test_runs_that_differ_in_one_parameter_are_compared_on_it(tmp_path: Path) -> None:
    nll = {("vae", 1): 87.0, ("vae", 5): 86.6, ("iwae", 5): 86.1, ("iwae", 50): 85.0}
    runs = [
        read(tmp_path / f"{objective}{k}", f"mnist_{objective}_k{k}_1layer", test={"nll": value})
        for (objective, k), value in nll.items()
    ]
    runs += [
        read(tmp_path / f"iwae50_{seed}", "mnist_iwae_k50_1layer", {"seed": seed}, {"nll": 85 + seed / 10})
        for seed in (1, 2)
    ]
    runs.append(read(tmp_path / "digits", "mnist_iwae_k50_1layer", {"data.name": "digits"}))
    text = comparisons.comparisons(runs)
    assert re.findall("^### (.*)$", text, re.M) == ["model.k", "model.objective"]
    iwae, vae = rows_of(text, "### model.k")
    assert iwae == {"objective": "iwae", "k 1": "", "k 5": "86.100 ± 0.240", "k 50": "85.100, sd 0.100 (3 seeds)"}
    assert vae == {"objective": "vae", "k 1": "87.000 ± 0.240", "k 5": "86.600 ± 0.240", "k 50": ""}
    assert rows_of(text, "### model.objective") == [
        {"objective iwae": "86.100 ± 0.240", "objective vae": "86.600 ± 0.240"}
    ]


def test_the_network_is_one_parameter(tmp_path: Path) -> None:
    runs = [read(tmp_path / name, name) for name in ("mnist_iwae_k5_1layer", "mnist_iwae_k5_2layers")]
    (row,) = rows_of(comparisons.comparisons(runs), "### network")
    assert set(row) == {"network 200,200 - 50", "network 200,200 100,100 - 100,50"}
    for network, own in (("flow", "4"), ("conv", "32,64")):
        other = read(tmp_path / network, "mnist_iwae_k5_1layer", {"model.network": network})
        (row,) = rows_of(comparisons.comparisons([runs[0], other]), "### network")
        assert set(row) == {"network 200,200 - 50", f"network {network} {own} - 200,200 - 50"}


def test_fewer_examples_are_told_in_a_comparison(tmp_path: Path) -> None:
    runs = [
        read(tmp_path / "a", "mnist_iwae_k5_1layer"),
        read(tmp_path / "b", "mnist_iwae_k50_1layer", test={"examples": 1000}),
    ]
    (row,) = rows_of(comparisons.comparisons(runs))
    assert row == {"k 5": "86.500 ± 0.240", "k 50": "86.500 ± 0.240 (1,000 examples)"}


def test_columns_say_which_k_and_nothing_of_what_has_no_effect(tmp_path: Path) -> None:
    cosine = {"training.schedule": "cosine", "training.epochs": 40}
    runs = [
        read(tmp_path / f"{k}_{seconds}_{name}", f"mnist_{name}_k50_1layer", changes, {"k": k})
        for k, seconds, changes in ((5000, 0, {}), (500, 1, cosine | {"model.estimator": "dreg"}))
        for name in ("vae", "iwae")
    ]
    rows = rows_of(comparisons.comparisons(runs), "### model.objective")
    assert [(row["evaluation.k"], row["schedule"], row["stages"]) for row in rows] == [
        ("500", "cosine", ""),
        ("5000", "burda", "8"),
    ]


def test_nothing_to_compare(tmp_path: Path) -> None:
    assert comparisons.comparisons([]) == ""
    assert comparisons.comparisons([read(tmp_path / "a"), read(tmp_path / "b", changes={"seed": 2})]) == ""


def test_learning_curves_of_several_runs_are_in_one_file(tmp_path: Path) -> None:
    for i, k in enumerate((1, 5)):
        make(
            tmp_path / "results" / f"run{k}",
            f"mnist_iwae_k{k}_1layer",
            bounds=np.linspace(-100, -90 + i, 30),
            epochs=30,
        )
    path = tmp_path / "curves.png"
    assert main(["--results_dir", str(tmp_path / "results"), "--curves", str(path)]) == 0
    assert path.read_bytes()[1:4] == b"PNG"


def test_learning_curves_of_seeds_are_a_mean_with_its_spread(tmp_path: Path) -> None:
    bounds = np.random.default_rng(0).normal(size=(3, 12))
    runs = [
        read(tmp_path / f"run{i}", changes={"seed": i}, bounds=row[: 12 - i], epochs=12 - i, evaluated=i < 2)
        for i, row in enumerate(bounds)
    ]
    other = read(tmp_path / "other", "mnist_iwae_k1_1layer", bounds=np.zeros(12), epochs=12)
    columns = curves.mean_columns(runs)
    np.testing.assert_allclose(columns["train_bound"], bounds[:, :10].mean(axis=0), atol=1e-12)
    np.testing.assert_allclose(columns["train_bound_spread"], bounds[:, :10].std(axis=0, ddof=1), atol=1e-12)
    figure = curves.curves([*runs, other])
    labels = [text.get_text() for text in figure.legends[0].get_texts()]
    assert any(label.startswith("training, objective vae, 3 seeds") for label in labels)
    assert any(label.startswith("validation, objective iwae (") for label in labels)
    assert [len(axes.collections) for axes in figure.axes] == [2, 2]  # a band for each bound of the seeds


def test_learning_curves_of_two_datasets_are_refused(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    for name in ("mnist_iwae_k5_1layer", "camel_iwae_k20"):
        make(tmp_path / name, name)
    assert main(["--results_dir", str(tmp_path), "--curves", str(tmp_path / "x.png"), "--write"]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: curves: expected runs of one dataset, got camel, mnist")
    assert not (tmp_path / "x.png").exists() and not (tmp_path / "README.md").exists()


def test_a_run_whose_bounds_are_no_numbers_has_no_curve(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    make(tmp_path / "lost", bounds=[math.nan, math.inf], epochs=2)
    assert main(["--results_dir", str(tmp_path), "--curves", str(tmp_path / "x.png")]) == 2
    assert capsys.readouterr().err.startswith("error: curves: expected at least one bound that is a number")
    assert not (tmp_path / "x.png").exists()


def test_a_name_that_is_no_pictures_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    make(tmp_path / "run")
    for name, message in {"x.word": "expected the name of a picture", "no/x.png": "No such file"}.items():
        assert main(["--results_dir", str(tmp_path), "--curves", str(tmp_path / name)]) == 2
        (line,) = capsys.readouterr().err.splitlines()
        assert line.startswith("error: ") and message in line
    assert [path.name for path in tmp_path.iterdir()] == ["run"]


# ---- VAE and IWAE on the same images ----


def save(folder: Path, values: Any, numbers: Any = None, binarization: str = "b") -> None:
    """Values of each image [n], and the evaluation whose mean they have."""
    arrays = {"test": np.asarray(values, np.float32), "binarization": np.array(binarization)}
    arrays |= {} if numbers is None else {"test_numbers": numbers}
    np.savez(folder / "likelihoods.npz", **arrays)
    test = TEST | {"examples": len(values), "nll": -float(np.mean(values))}
    (folder / "evaluation.json").write_text(json.dumps({"test": test}))


def test_vae_and_iwae_are_compared_image_by_image(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    images = random.normal(-90, 25, 300)
    difference = random.normal(0.5, 0.2, 300)
    order = random.permutation(300)
    vae, iwae = (make(tmp_path / name, f"mnist_{name}_k5_2layers") for name in ("vae", "iwae"))
    save(vae, images)
    save(iwae, (images + difference)[order], order)
    found, problems = records.find([], tmp_path)
    assert problems == []
    (row,) = rows_of(comparisons.paired(found, tmp_path), "## VAE and IWAE on the same images")
    stderr = difference.std(ddof=1) / 300**0.5
    assert row == {
        "data": "mnist",
        "layers": "2",
        "k": "5",
        "VAE": "[vae](vae)",
        "IWAE": "[iwae](iwae)",
        "images": "300",
        "IWAE less VAE": f"{-difference.mean():+.3f} ± {stderr:.3f}",
    }
    assert stderr < 0.02 < images.std() / 300**0.5


@pytest.mark.parametrize(
    ("preset", "changes", "numbers", "binarization"),
    [
        ("mnist_iwae_k5_1layer", {}, [0, 1, 2, 4], "b"),
        ("mnist_iwae_k5_1layer", {}, None, "other"),
        ("mnist_iwae_k50_1layer", {}, None, "b"),
        ("mnist_iwae_k5_2layers", {}, None, "b"),
        ("mnist_iwae_k5_1layer", {"training.stages": 4}, None, "b"),
        ("mnist_vae_k5_1layer", {"seed": 3}, None, "b"),
    ],
)
def test_only_runs_of_the_same_images_and_all_else_alike_are_paired(
    tmp_path: Path, preset: str, changes: dict[str, Any], numbers: Any, binarization: str
) -> None:
    save(make(tmp_path / "vae", "mnist_vae_k5_1layer"), [-90, -80, -70, -60])
    save(make(tmp_path / "other", preset, changes), [-91, -80, -70, -60], numbers, binarization)
    make(tmp_path / "without", "mnist_iwae_k5_1layer")
    found, problems = records.find([], tmp_path)
    assert problems == [] and len(found) == 3
    assert comparisons.paired(found, tmp_path) == ""


NUMBERS = np.arange(4)
BAD_LIKELIHOODS = {
    "no zip": b"PK\x03\x04 and no more",
    "empty": b"",
    "fewer": {"test": np.full(3, -90.0, np.float32), "test_numbers": NUMBERS[:3], "binarization": np.array("b")},
    "twice": {"test": np.full(4, -90.0, np.float32), "test_numbers": NUMBERS * 0, "binarization": np.array("b")},
    "NaN": {"test": np.full(4, np.nan, np.float32), "test_numbers": NUMBERS, "binarization": np.array("b")},
    "of another model": {"test": np.full(4, -91, np.float32), "test_numbers": NUMBERS, "binarization": np.array("b")},
    "text": {"test": np.array(["a"] * 4), "test_numbers": NUMBERS, "binarization": np.array("b")},
    "two-dimensional": {"test": np.full((2, 2), -90.0), "test_numbers": NUMBERS, "binarization": np.array("b")},
    "no archive": np.lib.format.magic(1, 0) + b"v\0{'descr': '<f8', 'fortran_order': False, 'shape': (0,), }",
    "objects": {"test": np.array([None] * 4), "test_numbers": NUMBERS, "binarization": np.array("b")},
    "a folder": None,
}


@pytest.mark.parametrize("damage", BAD_LIKELIHOODS)
def test_damaged_values_are_told_in_one_line_and_the_run_stays(
    tmp_path: Path, capsys: pytest.CaptureFixture, damage: str
) -> None:
    content, folder = BAD_LIKELIHOODS[damage], make(tmp_path / "run", test={"examples": 4, "nll": 90})
    path = folder / "likelihoods.npz"
    if content is None:
        path.mkdir()
    elif isinstance(content, bytes):
        path.write_bytes(content)
    else:
        np.savez(path, **content)
    assert main(["--results_dir", str(tmp_path)]) == 0
    out, err = capsys.readouterr()
    assert rows_of(out)[0]["run"].startswith("[run]")
    (line,) = err.splitlines()
    assert line.startswith(f"left out: {path}: expected L_k of the 4 test images evaluated, their mean -90.000, got: ")


def test_values_cut_short_at_any_byte_are_told(tmp_path: Path) -> None:
    folder = make(tmp_path / "run")
    save(folder, np.linspace(-100, -80, 50))
    content = (folder / "likelihoods.npz").read_bytes()
    for end in range(0, len(content), 23):
        (folder / "likelihoods.npz").write_bytes(content[:end])
        assert records.read(folder).likelihoods is None and records.read(folder).problem
    (folder / "likelihoods.npz").write_bytes(content)
    assert records.read(folder).problem == ""
