"""The shapes of the PyTorch predecessor's twenty experiment files, each run from the file to its plots."""

import re
from pathlib import Path

import numpy as np
import pytest
from test_predecessor import SHAPES, text_of

from iwae.cli import command_line, predecessor
from iwae.config import Experiment
from iwae.data import loading
from iwae.data.dataset import SPLITS
from iwae.runs import log

QUICK = ("two_clusters",)  # the others take most of their time to compile


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A cache of datasets in which binarized MNIST has but a few random images."""
    folder = tmp_path_factory.mktemp("data")
    random = np.random.default_rng(0)
    images = {
        f"x_{split}": random.integers(0, 2, (n, 28, 28), np.uint8)
        for split, n in zip(SPLITS, (70, 20, 30), strict=True)
    }
    (folder / "binarized_mnist").mkdir()
    path = folder / "binarized_mnist" / loading.PARSED
    loading.write_parsed(path, loading.CATALOGUE["binarized_mnist"], images)
    return folder


def tiny(shape: tuple) -> str:
    """The text of a file of this shape: all layers and samples as they are, but few units, examples and epochs."""
    name, data, kind, dimension, latent, hidden, decoder, k, samples = shape
    fewer = [min(units, 3) for units in latent] if isinstance(latent, list) else latent
    narrow = [[min(units, 4) for units in layer] for layer in hidden]
    text = text_of((name, data, kind, dimension, fewer, narrow, decoder, k, None if samples is None else 60))
    return re.sub("'total_epochs': 3280", "'total_epochs': 3", text)


@pytest.mark.parametrize(
    "shape",
    [pytest.param(shape, marks=() if shape[0] in QUICK else pytest.mark.slow, id=shape[0]) for shape in SHAPES],
)
def test_every_shape_of_file_is_run_for_three_epochs(
    tmp_path: Path, data_dir: Path, monkeypatch: pytest.MonkeyPatch, shape: tuple
) -> None:
    monkeypatch.setenv("IWAE_DATA_DIR", str(data_dir))
    path = tmp_path / "file.py"
    path.write_text(tiny(shape))
    words = ["--file", str(path), "--results_dir", str(tmp_path / "results"), "--evaluation.k", "20"]
    with pytest.raises(SystemExit) as ended:
        command_line.main(lambda: Experiment("default"), words)
    assert ended.value.code == 0
    folder = tmp_path / "results" / shape[0]
    rows = log.read(folder / "log.csv")
    assert [row["epoch"] for row in rows] == [1, 2, 3]
    assert all(np.isfinite(row["train_bound"]) and np.isfinite(row["valid_bound"]) for row in rows)
    plots = {path.stem for path in (folder / "plots").glob("*.png")}
    density = {1: "one_dimensional", 2: "two_dimensional_density"}.get(shape[3])
    one_unit = predecessor.read(path, Experiment("default"))[0].model.latent_units == (1,)
    if density is not None and (shape[3] == 2 or one_unit):
        assert density in plots
    assert {"learning_curves", "active_units"} < plots
