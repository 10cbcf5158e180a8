"""`iwae.figures.style` and `iwae.diagnostics.plot`: figures are written whole, and those of a run are all there."""

import dataclasses
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import test_latent
import test_pictures
import test_posterior_figures
from matplotlib.figure import Figure

from iwae import config
from iwae.data import users_file
from iwae.diagnostics import plot
from iwae.figures import curves, densities, latent, pictures, style
from iwae.model import IWAE
from iwae.runs.folder import LAST_PLOT, Folder
from iwae.runs.run import Run
from iwae.sections import RunError


def test_save_writes_the_whole_file_or_leaves_the_old_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "samples.png"
    figure = test_pictures.samples(2)
    style.save(figure, path)
    written = path.read_bytes()
    assert written.startswith(b"\x89PNG") and not figure.axes
    with open(path, "rb") as reader:
        style.save(test_pictures.samples(3), path)
        assert reader.read() == written  # renamed, not written into
    style.save(test_pictures.samples(2), path)
    assert path.read_bytes() == written

    def fail_half_way(self, stream, **options):
        stream.write(b"half")
        raise OSError("no space left")

    monkeypatch.setattr(Figure, "savefig", fail_half_way)
    with pytest.raises(OSError, match="no space left"):
        style.save(test_pictures.samples(3), path)
    assert path.read_bytes() == written and list(tmp_path.iterdir()) == [path]


def test_the_last_plot_is_written_last(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    written: list[str] = []
    monkeypatch.setattr(style, "save", lambda figure, path, **notes: written.append(path.name))
    style.save_all({LAST_PLOT: Figure(), "a": Figure(), "z": Figure()}, Folder(tmp_path))
    assert written == ["a.png", "z.png", f"{LAST_PLOT}.png"]


def test_plots_of_other_weights_do_not_count(tmp_path: Path) -> None:
    folder = Folder(tmp_path)
    folder.write_weights(b"these")
    assert not folder.has_current_plots()
    style.save_all({LAST_PLOT: test_pictures.samples(2)}, folder)
    assert folder.has_current_plots()
    folder.write_weights(b"those")
    assert not folder.has_current_plots()
    style.save(test_pictures.samples(2), folder.plots / f"{LAST_PLOT}.png")
    assert folder.has_current_plots()  # of an early version


@pytest.mark.parametrize(
    "case",
    [
        test_pictures.FIGURES["reconstructions"],
        test_posterior_figures.FIGURES["posteriors"],
        test_latent.FIGURES["ten classes"],
    ],
)
def test_saved_pictures_are_wide_enough_for_a_page_of_800_pixels(case: tuple, tmp_path: Path) -> None:
    style.save(case[0](), tmp_path / "a.png")
    header = (tmp_path / "a.png").read_bytes()[16:20]
    assert 1000 <= int.from_bytes(header, "big") <= 2000


@pytest.mark.parametrize(
    ("modules", "unwanted"),
    [
        ("curves, style", ("tensorflow", "matplotlib.pyplot", "sklearn")),  # all that a report needs
        ("densities, latent, pictures, posterior", ()),  # these take their arrays from a model
    ],
)
def test_import_brings_nothing_heavy_and_changes_no_setting(modules: str, unwanted: tuple[str, ...]) -> None:
    code = f"""import sys, matplotlib
def settings():  # to look at the backend would import pyplot
    return {{name: matplotlib.rcParams[name] for name in matplotlib.rcParams if name != "backend"}}
before = settings()
from iwae.figures import {modules}
print([name for name in {unwanted} if name in sys.modules], settings() == before)"""
    output = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert output == "[] True\n"


# ---- of a run: a model that was never trained will do ----


def run_of(folder: Path, likelihood: str, test: np.ndarray, latent_units: tuple[int, ...]) -> Run:
    hidden = ((4,),) * len(latent_units)
    grey = likelihood == "bernoulli"
    values = {"latent_units": latent_units, "hidden_units": hidden, "likelihood": likelihood}
    experiment = config.Experiment(
        "few", data=config.Data("few.npz", binarization="none"), model=config.Model(**values)
    )
    x = test.reshape(-1, 3, 4) if grey else test
    labels = {"y_test": np.arange(len(test)) % 4} if grey else {}
    data = users_file.of_arrays({"x_train": x, "x_test": x, **labels}, allow_real=not grey)
    (folder / "log.csv").write_text(
        "epoch,updates,learning_rate,train_bound,valid_bound,seconds,images_per_second\n1,13,0.001,-40,-39,1.5,800\n"
    )
    return Run(experiment, Folder(folder), data, IWAE(test.shape[1], **values), {})


def posteriors(how: str, ending: str = "") -> set[str]:
    return {f"posterior_{how}{kind}{ending}" for kind in ("", "_draws", "_resampled")}


EVERY = {"learning_curves", LAST_PLOT}
OF_IMAGES = {"samples", "reconstructions", "reconstructions_resampled", "interpolations"}


def test_units_are_counted_on_the_examples_that_are_evaluated(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    test = np.random.default_rng(0).integers(0, 2, (12, 12)).astype(np.float32)
    run = run_of(tmp_path, "bernoulli", test, (3,))
    run = dataclasses.replace(run, experiment=config.replace(run.experiment, {"evaluation.examples": 4}))
    seen: list[list[np.ndarray]] = []
    monkeypatch.setattr(latent, "active_units", lambda variances, *_: seen.append(variances))
    latent.latent_space_of(run)
    means = run.model.posterior_parameters(test[::3])[0].numpy()
    np.testing.assert_allclose(seen[0][0], means.var(axis=0), rtol=1e-4)


def test_figures_of_images_and_two_layers(tmp_path: Path) -> None:
    test = np.random.default_rng(0).integers(0, 2, (12, 12)).astype(np.float32)
    made = plot.figures_of(run_of(tmp_path, "bernoulli", test, (3, 2)))
    assert set(made) == EVERY | OF_IMAGES | posteriors("scatter", "_z1") | posteriors("scatter", "_z2")
    assert all("few (few, IWAE, k = 50)" in figure.get_suptitle().replace("\n", " ") for figure in made.values())
    assert "stochastic layer 2" in made["posterior_scatter_z2"].get_suptitle()
    assert len(test_pictures.shown(made["interpolations"].axes[0])) == 2 * 3  # four classes: two pairs


@pytest.mark.parametrize(
    ("dimensions", "density"), [(1, "one_dimensional"), (2, "two_dimensional_density"), (3, "pairs")]
)
def test_figures_of_densities(tmp_path: Path, dimensions: int, density: str) -> None:
    test = np.random.default_rng(0).normal(size=(12, dimensions)).astype(np.float32)
    made = plot.figures_of(run_of(tmp_path, "gaussian", test, (1,)))
    assert set(made) == EVERY | posteriors("histogram") | {density}


def test_every_file_of_the_drawer_is_asked_for_its_figures() -> None:
    for module in (curves, densities, latent, pictures):
        assert module.OF_EVERY_RUN and set(module.OF_EVERY_RUN) <= set(plot.FIGURES)


def test_two_figures_of_one_name_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plot, "FIGURES", (lambda run: {"a": Figure()}, lambda run: {"a": Figure(), "b": Figure()}))
    with pytest.raises(ValueError, match="expected one of each name, got two called 'a'"):
        plot.figures_of(None)  # type: ignore[arg-type]


def test_a_damaged_log_is_told(tmp_path: Path) -> None:
    run = run_of(tmp_path, "gaussian", np.zeros((3, 1), np.float32), (1,))
    (tmp_path / "log.csv").write_text("no log\n")
    with pytest.raises(RunError, match="log.csv: expected the columns epoch"):
        curves.learning_curves_of(run)
    (tmp_path / "log.csv").unlink()
    assert curves.learning_curves_of(run) == {}
