"""`iwae.plots`: every figure says what it shows, shows what it is given, and refuses what does not fit, in one line."""

import subprocess
import sys
from collections.abc import Callable

import matplotlib
import numpy as np
import pytest
from matplotlib.figure import Figure

from iwae.figures import plots

TITLE = "a_run$^$ (digits, IWAE, k = 7)"  # as mathematics this would be an error
RANDOM = np.random.default_rng(5)
H, W = 6, 4


def images(*shape: int) -> np.ndarray:
    return np.random.default_rng(1).uniform(size=(*shape, H, W))


def curve(epochs: int, rate_changes: int = 2) -> dict[str, np.ndarray]:
    epoch = np.arange(1, epochs + 1)
    bound = -90 - 100 / epoch
    rate = 1e-3 * 0.5 ** (epoch * (rate_changes + 1) // (epochs + 1))
    return {"epoch": epoch, "train_bound": bound, "valid_bound": bound - 1, "learning_rate": rate}


def posterior_row(draws: int = 5, sizes: tuple[int, int] = (9, 11), **changes) -> plots.PosteriorRow:
    z1, z2 = np.linspace(-2, 2, sizes[0]), np.linspace(-3, 4, sizes[1])
    true = np.exp(-0.5 * (z1[None, :] ** 2 + (z2[:, None] - z1[None, :]) ** 2))
    fields = {
        "label": "test image 3",
        "image": images(),
        "z1": z1,
        "z2": z2,
        "densities": {"p(z|x)": true, "q(z|x)": 0.5 * true, "q_IW": 2 * true},
        "kl": {"q(z|x)": 1.234, "q_IW": 0.5},
        "draws": RANDOM.normal(size=(draws, 2)),
        "reconstructions": images(draws),
    }
    return plots.PosteriorRow(**(fields | changes))


def latent_pair(image: np.ndarray | None, sets: tuple[str, ...] = ("HMC", "q")) -> plots.LatentPair:
    draws = {name: RANDOM.normal(size=(8 + i, 2)) for i, name in enumerate(sets)}
    return plots.LatentPair("test image 3", ("$z_4$", "$z_9$"), draws, image)


def one_dimensional(n: int = 12, m: int = 15, **changes) -> Figure:
    x, z = np.linspace(-3, 3, n), np.linspace(-4, 4, m)
    fields = {
        "x": x,
        "density": np.exp(-(x**2)),
        "model_density": np.exp(-0.9 * x**2),
        "encoder_mean": x,
        "encoder_scale": np.ones(n),
        "z": z,
        "decoder_mean": np.tanh(z),
        "decoder_scale": np.full(m, 0.5),
        "posterior": np.exp(-(z**2)),
        "q": np.exp(-(z**2) / 2),
        "posterior_x": 0.02,
        "title": TITLE,
    }
    return plots.one_dimensional(**(fields | changes))


def two_dimensional(known: bool) -> Figure:
    x1, x2 = np.linspace(-3, 3, 21), np.linspace(-4, 4, 23)
    log_density = (x1, x2, -0.5 * (x1[None, :] ** 2 + x2[:, None] ** 2))
    data, samples = RANDOM.normal(size=(30, 2)), RANDOM.normal(size=(20, 2))
    return plots.two_dimensional_density(data, samples, TITLE, log_density if known else None)


def tightness(n: int = 9, **changes) -> Figure:
    l_k = -90.0 - np.arange(n)
    error, k_hat = np.full(n, 0.1), np.linspace(0.1, 0.85, n) if n > 1 else np.array([0.5])
    fields = {"l_k": l_k, "l_k_stderr": error, "ais": l_k + 0.25, "ais_stderr": error, "k_hat": k_hat}
    fields["effective_sample_size"] = np.linspace(3, 500, n)
    return plots.tightness(**(fields | changes), title=TITLE)


SNR_K = np.array([1, 10, 100])
SNR = {"reparameterized": (1 / np.sqrt(SNR_K), np.sqrt(SNR_K)), "dreg": (np.sqrt(SNR_K), np.sqrt(SNR_K))}
TIMES = [
    {"estimator": name, "k": k, "ms_per_update": 1.0 + k, "flop_floor_ms": 0.5 + k, "case": "train"}
    for name in ("reparameterized", "sampled_particle")
    for k in (50, 1, 5)
]
POINTS, LABELS = RANDOM.normal(size=(40, 2)), np.arange(40) % 10

# name: figure, words of its titles, (x label, y label) of its axes in order (None: not looked at), entries of legends
FIGURES: dict[str, tuple[Callable[[], Figure], str, list[tuple[str, str] | None], list[str]]] = {
    "one run": (
        lambda: plots.learning_curves([("a_run$1", curve(20))], TITLE),
        "Learning curves",
        [("epoch (passes over the data)", "(nats per example)"), ("epoch (passes over the data)", "")],
        ["training (−95.00 at the end)", "validation (−96.00 at the end)", "the learning rate changes"],
    ),
    "two runs": (
        lambda: plots.learning_curves([("_one", curve(60)), ("two$^$", curve(50, 1))], TITLE),
        "Learning curves",
        [("epoch", "nats"), ("epoch", "")],
        [
            f"{what}, {run} (−{end:.2f} at the end)"
            for run, last in (("_one", 90 + 100 / 60), ("two$^$", 92))
            for what, end in (("training", last), ("validation", last + 1))
        ],
    ),
    "one epoch": (
        lambda: plots.learning_curves([("a", {"epoch": [1], "train_bound": [-3.0]})], TITLE),
        "Learning curves",
        [("epoch", "nats")],
        ["training (−3.00 at the end)"],
    ),
    "samples": (lambda: plots.samples(images(23), TITLE), "Samples from the prior", [("probabilities", "")], []),
    "one sample": (lambda: plots.samples(images(1), TITLE), "Samples", [("probabilities", "")], []),
    "reconstructions": (
        lambda: plots.reconstructions(images(13), images(13), TITLE),
        "Test images and their reconstructions",
        [("probabilities", "")],
        [],
    ),
    "one reconstruction": (
        lambda: plots.reconstructions(images(1), images(1), TITLE),
        "Test images",
        [("probabilities", "")],
        [],
    ),
    "ten classes": (
        lambda: plots.latent_scatter(POINTS, LABELS, TITLE, "means", ("$z_1$", "$z_2$")),
        "Aggregate posterior: means",
        [("$z_1$", "$z_2$")],
        [str(label) for label in range(10)],
    ),
    "one point": (
        lambda: plots.latent_scatter(POINTS[:1], [4], TITLE, "draws", ("a", "b")),
        "Aggregate posterior: draws",
        [("a", "b")],
        ["4"],
    ),
    "no labels": (
        lambda: plots.latent_scatter(POINTS, None, TITLE, "importance-resampled draws", ("a", "b")),
        "Aggregate posterior: importance-resampled draws",
        [("a", "b")],
        [],
    ),
    "eleven classes": (
        lambda: plots.latent_scatter(POINTS, np.arange(40) % 11, TITLE, "means", ("a", "b")),
        "Aggregate posterior",
        [("a", "b"), ("", "class")],
        [],
    ),
    "active units": (
        lambda: plots.active_units([[0.5, 0.0101, 0.0099, 1e-5, 0.0], [0.01, 0.9]], 0.01, TITLE),
        "Activity of the latent units",
        [("", "latent units"), ("below 1e-08", "latent units")],
        ["2 of 5 units active", "3 inactive", "threshold 0.01", "1 of 2 units active", "1 inactive", "threshold 0.01"],
    ),
    "one unit": (
        lambda: plots.active_units([[0.5]], 0.01, TITLE),
        "Activity",
        [(r"\log_{10} A_u", "latent units")],
        ["1 of 1 units active", "0 inactive", "threshold 0.01"],
    ),
    "posteriors": (
        lambda: plots.posterior_input([posterior_row(), posterior_row(draws=20)], TITLE),
        "The posterior of an input",
        2 * [("", "test image 3"), ("$z_1$", "$z_2$"), ("KL = 1.23 nats", ""), ("KL = 0.50 nats", ""), ("", "")],
        ["95 % of the true posterior", "resampled draws", "KL(density ‖ true posterior)"],
    ),
    "uniform posterior": (
        lambda: plots.posterior_input([posterior_row(draws=1, densities={"p": np.ones((11, 9))})], TITLE),
        "The posterior of an input",
        [None, ("$z_1$", "$z_2$"), None],
        ["95 %", "draws", "KL"],
    ),
    "pairs": (
        lambda: plots.latent_pairs([latent_pair(images()), latent_pair(images())], TITLE),
        "pairs of latent units",
        2 * [("", "test image 3"), ("$z_4$", "$z_9$"), ("$z_4$", "")],
        ["grey: HMC"],
    ),
    "pairs without images": (
        lambda: plots.latent_pairs([latent_pair(None)], TITLE),
        "pairs of latent units",
        [("$z_4$", "test image 3\n$z_9$"), ("$z_4$", "")],
        ["grey: HMC"],
    ),
    "grid": (
        lambda: plots.latent_grid(images(3, 5), np.linspace(-2, 2, 5), np.arange(3), TITLE),
        "Decoded grid of the latent plane",
        [("$z_1$", "$z_2$")],
        [],
    ),
    "interpolations": (
        lambda: plots.interpolations(images(3, 5), TITLE),
        "Interpolations",
        [("fraction of the way", "")],
        [],
    ),
    "one dimension": (
        one_dimensional,
        "A one-dimensional model",
        [("$x$", "density"), ("$z$", "density"), ("$z$", "$x$"), ("$x$", "$z$")],
        ["data", "model", "true", "approximate", "mean", "mean ± scale", "mean", "mean ± scale"],
    ),
    "unknown density": (
        lambda: one_dimensional(density=None),
        "A one-dimensional model",
        4 * [None],
        ["model", "true", "approximate", "mean", "mean ± scale", "mean", "mean ± scale"],
    ),
    "two dimensions": (
        lambda: two_dimensional(True),
        "Data and model",
        [("$x_1$", "$x_2$"), ("$x_1$", "$x_2$")],
        ["true density"],
    ),
    "two dimensions, unknown": (lambda: two_dimensional(False), "Data and model", 2 * [None], []),
    "signal-to-noise": (
        lambda: plots.gradient_snr(SNR_K, SNR, TITLE),
        "Signal-to-noise ratio of the gradients",
        [("importance samples $k$", "signal-to-noise ratio"), ("importance samples $k$", "")],
        ["reparameterized", "dreg"],
    ),
    "tightness": (
        tightness,
        "Tightness of L_5000",
        [
            ("$L_{5000}$ (nats)", "by AIS (nats)"),
            (r"Pareto $\hat k$", "AIS − $L_{5000}$ (nats)"),
            (r"Pareto $\hat k$", "effective sample size (of 5000)"),
        ],
        ["AIS = $L_{5000}$", r"$\hat k = 0.7$ (above: 2 of 9)"],
    ),
    "tightness of one image": (lambda: tightness(1), "Tightness", 3 * [None], ["AIS", "(above: 0 of 1)"]),
    "time": (
        lambda: plots.time_against_k(TIMES, TITLE),
        "Time of an update",
        [("importance samples $k$", "time of an update (ms)")],
        ["reparameterized", "reparameterized: matrix products alone", "sampled_particle", "sampled_particle: matrix"],
    ),
}


def legends(figure: Figure) -> list[str]:
    every = [axes.get_legend() for axes in figure.axes] + figure.legends
    return [text.get_text() for legend in every if legend for text in legend.get_texts()]


@pytest.mark.parametrize("name", FIGURES)
def test_figures_say_what_they_show(name: str, caplog) -> None:
    make, heading, labels, entries = FIGURES[name]
    before = dict(matplotlib.rcParams)
    figure = make()
    figure.canvas.draw()  # warnings, also those of the layout, are errors
    assert not caplog.records
    assert dict(matplotlib.rcParams) == before
    title = figure.get_suptitle()
    assert heading in title and title.replace("\n", " ").endswith(TITLE)
    assert len(figure.axes) == len(labels)
    for axes, expected in zip(figure.axes, labels, strict=True):
        for given, wanted in zip((axes.get_xlabel(), axes.get_ylabel()), expected or (), strict=False):
            assert wanted in given if wanted else not given, (given, wanted)
    inside = figure.get_tightbbox().padded(-0.01)  # inches
    assert min(inside.min) >= 0 and (inside.max <= figure.get_size_inches()).all()
    found = legends(figure)
    assert len(found) == len(entries) and all(e in f for e, f in zip(entries, found, strict=True)), found


def test_the_titles_of_a_posterior_are_no_wider_than_their_panels() -> None:
    """The layout makes no room for them: that of the last panel would leave the figure."""
    names = ("$p(z|x)$", "$q(z|x)$", "$q_{IW}$, k = 10", "$q_{IW}$, k = 100")
    densities = {name: np.full((11, 9), 870.0) for name in names}  # with long labels of ticks panels are small
    z2, square = np.linspace(-3.2, -2.9, 11), {"image": np.ones((6, 6)), "reconstructions": np.ones((5, 6, 6))}
    row = posterior_row(densities=densities, z2=z2, **square)
    figure = plots.posterior_input([row], TITLE)
    figure.canvas.draw()
    for axes in figure.axes:
        assert axes.title.get_window_extent().width <= axes.get_window_extent().width, axes.get_title()


WRONG: dict[str, tuple[Callable[[], object], str]] = {
    "no runs": (lambda: plots.learning_curves([], TITLE), "curves: expected at least one run"),
    "no column": (lambda: plots.learning_curves([("a", {"epoch": [1]})], TITLE), "'a' has no column 'train_bound'"),
    "no epochs": (lambda: plots.learning_curves([("a", {"epoch": [], "train_bound": []})], TITLE), "got .0."),
    "columns of unequal length": (
        lambda: plots.learning_curves([("a", {"epoch": [1, 2], "train_bound": [1]})], TITLE),
        r"train_bound of 'a': expected shape \[epochs = 2\], got \[1\]",
    ),
    "flat images": (lambda: plots.samples(images(), TITLE), r"images: expected shape \[n, H, W\], got \[6, 4\]"),
    "no images": (lambda: plots.samples(np.ones((0, 6, 4)), TITLE), r"got \[0, 6, 4\]"),
    "words": (lambda: plots.samples("words", TITLE), "images: expected numbers"),
    "not a number": (lambda: plots.samples(images(2) * np.nan, TITLE), "images: expected finite numbers, got 48"),
    "other reconstructions": (
        lambda: plots.reconstructions(images(3), images(2), TITLE),
        r"reconstructions: expected shape \[n = 3, H = 6, W = 4\], got \[2, 6, 4\]",
    ),
    "points in space": (
        lambda: plots.latent_scatter(np.ones((5, 3)), None, TITLE, "means", ("", "")),
        r"shape \[n, 2\], got \[5, 3\]",
    ),
    "other labels": (
        lambda: plots.latent_scatter(POINTS, LABELS[1:], TITLE, "means", ("", "")),
        r"shape \[n = 40\], got \[39\]",
    ),
    "kind": (lambda: plots.latent_scatter(POINTS, None, TITLE, "mean", ("", "")), "kind: expected one of 'means'"),
    "project": (lambda: plots.project(np.ones(5)), r"points: expected shape \[n, D\], got \[5\]"),
    "threshold": (lambda: plots.active_units([[1.0]], 0.0, TITLE), "a threshold above 0, got 1 and 0.0"),
    "no layers": (lambda: plots.active_units([], 0.01, TITLE), "at least one layer"),
    "variances": (lambda: plots.active_units([[1.0], [[1.0]]], 0.01, TITLE), "variances of layer 2: expected shape"),
    "no rows": (lambda: plots.posterior_input([], TITLE), "rows: expected"),
    "rows of unequal length": (
        lambda: plots.posterior_input([posterior_row(), posterior_row(densities={"p": np.ones((11, 9))})], TITLE),
        r"same number \(at least 1\) of densities in all, got \[1, 3\]",
    ),
    "transposed density": (
        lambda: plots.posterior_input([posterior_row(densities={"p": np.ones((9, 11))})], TITLE),
        r"density 'p' of row 0: expected shape \[G2 = 11, G1 = 9\], got \[9, 11\]",
    ),
    "no mass": (
        lambda: plots.posterior_input([posterior_row(densities={"p": np.zeros((11, 9))})], TITLE),
        "the first not 0",
    ),
    "negative density": (
        lambda: plots.posterior_input([posterior_row(densities={"p": -np.ones((11, 9))})], TITLE),
        "none below 0",
    ),
    "uneven grid": (
        lambda: plots.posterior_input([posterior_row(z1=np.arange(9.0) ** 2)], TITLE),
        "z1 of row 0: expected at least",
    ),
    "falling grid": (
        lambda: plots.posterior_input([posterior_row(z2=-np.arange(11.0))], TITLE),
        "z2 of row 0: expected at least",
    ),
    "other draws": (
        lambda: plots.posterior_input([posterior_row(reconstructions=images(4))], TITLE),
        r"reconstructions of row 0: expected shape \[m = 5, H = 6, W = 4\], got \[4, 6, 4\]",
    ),
    "no pairs": (lambda: plots.latent_pairs([], TITLE), "rows: expected at least one"),
    "some images": (lambda: plots.latent_pairs([latent_pair(None), latent_pair(images())], TITLE), "all or none"),
    "other sets": (
        lambda: plots.latent_pairs([latent_pair(None), latent_pair(None, ("HMC", "p"))], TITLE),
        "the same names",
    ),
    "transposed grid": (
        lambda: plots.latent_grid(images(3, 5), np.arange(3), np.arange(5), TITLE),
        r"z1: expected shape \[c = 5\]",
    ),
    "one way": (lambda: plots.interpolations(images(3), TITLE), r"images: expected shape \[n_pairs, steps, H, W\]"),
    "on another grid": (lambda: one_dimensional(q=np.ones(12)), r"q: expected shape \[m = 15\], got \[12\]"),
    "ratios of unequal length": (
        lambda: plots.gradient_snr([1, 2], {"a": (np.ones(2), np.ones(3))}, TITLE),
        "ratios of 'a'",
    ),
    "no estimators": (lambda: plots.gradient_snr([1, 2], {}, TITLE), "ratios: expected at least one"),
    "other images": (lambda: tightness(ais=np.ones(8)), r"ais: expected shape \[n = 9\], got \[8\]"),
    "no times": (lambda: plots.time_against_k([], TITLE), "rows: expected at least one"),
    "no floor": (
        lambda: plots.time_against_k([{"k": 1, "ms_per_update": 1.0, "estimator": "a"}], TITLE),
        "without flop_floor_ms",
    ),
}


@pytest.mark.parametrize("name", WRONG)
def test_what_does_not_fit_is_refused_in_one_line(name: str) -> None:
    make, message = WRONG[name]
    with pytest.raises(ValueError, match=message) as error:
        make()
    assert "\n" not in str(error.value)


def test_learning_curves_have_a_logarithmic_axis_beyond_50_epochs_and_mark_the_stages() -> None:
    for epochs, scale in ((50, "linear"), (51, "log")):
        axes = plots.learning_curves([("a", curve(epochs))], TITLE).axes
        assert [a.get_xscale() for a in axes] == [scale, "linear"]
    first, last = plots.learning_curves([("a", curve(20))], TITLE).axes
    columns = curve(20)
    borders = [e - 0.5 for e in range(2, 21) if columns["learning_rate"][e - 1] != columns["learning_rate"][e - 2]]
    assert len(borders) == 2
    assert [line.get_xdata()[0] for line in first.get_lines()[2:]] == borders
    np.testing.assert_array_equal(first.get_lines()[1].get_ydata(), columns["valid_bound"])
    np.testing.assert_array_equal(last.get_lines()[0].get_xdata(), np.arange(10, 21))


def test_learning_curves_of_a_rate_that_falls_every_epoch_or_differs_have_no_stages() -> None:
    falling = curve(20) | {"learning_rate": 0.5 ** np.arange(20)}
    for runs in ([("a", falling)], [("a", curve(20, 2)), ("b", curve(20, 1))]):
        assert not any("learning rate" in entry for entry in legends(plots.learning_curves(runs, TITLE)))


def test_a_bound_that_is_not_a_number_leaves_a_gap_and_one_that_never_is_no_line() -> None:
    columns = curve(6)
    columns["train_bound"][-1] = np.nan
    columns["valid_bound"][:] = np.nan
    (entry, _) = legends(plots.learning_curves([("a", columns)], TITLE))
    assert entry == "training (−110.00 at the end)"


def shown(axes) -> np.ndarray:
    (image,) = axes.get_images()
    return np.ma.filled(image.get_array(), np.nan)


def test_samples_are_shown_row_by_row() -> None:
    given = images(23)
    mosaic = shown(plots.samples(given, TITLE).axes[0])
    assert mosaic.shape == (5 * H, 5 * W)
    np.testing.assert_array_equal(mosaic[:H, W : 2 * W], given[1])
    np.testing.assert_array_equal(mosaic[4 * H :, 2 * W : 3 * W], given[22])
    assert np.isnan(mosaic[4 * H :, 3 * W :]).all()


def test_an_image_is_above_its_own_reconstruction() -> None:
    given, decoded = images(13), 1 - images(13)
    axes = plots.reconstructions(given, decoded, TITLE).axes[0]
    mosaic = shown(axes)
    np.testing.assert_array_equal(mosaic[:H, 3 * W : 4 * W], given[3])
    np.testing.assert_array_equal(mosaic[H : 2 * H, 3 * W : 4 * W], decoded[3])
    np.testing.assert_array_equal(mosaic[2 * H : 3 * H, 2 * W : 3 * W], given[12])
    np.testing.assert_array_equal(mosaic[3 * H :, 2 * W : 3 * W], decoded[12])
    rows = {label.get_text(): int(at // H) for at, label in zip(axes.get_yticks(), axes.get_yticklabels(), strict=True)}
    assert rows == {"image": 2, "reconstruction": 3}  # the last of each


def test_projection_on_the_plane_of_the_principal_components() -> None:
    from sklearn.decomposition import PCA

    points = np.random.default_rng(2).normal(size=(50, 5)) * [1, 4, 2, 3, 0.5] + 10
    reference = PCA(2).fit(points)
    plane, labels = plots.project(points)
    np.testing.assert_allclose(np.abs(plane), np.abs(reference.transform(points)), atol=1e-10)
    for label, share in zip(labels, reference.explained_variance_ratio_, strict=True):
        assert f"({100 * share:.1f} % of the variance)" in label
    mirrored, _ = plots.project(points * [-1, 1, 1, 1, 1])
    np.testing.assert_allclose(np.abs(mirrored), np.abs(plane), atol=1e-10)


def test_projection_of_one_and_two_dimensions_and_of_one_point() -> None:
    np.testing.assert_array_equal(plots.project(POINTS)[0], POINTS)
    line = np.random.default_rng(3).normal(size=(2000, 1))
    spread, _ = plots.project(line)
    np.testing.assert_array_equal(spread[:, 0], line[:, 0])
    middle, tail = np.abs(line[:, 0]) < 0.5, np.abs(line[:, 0]) > 2
    assert spread[middle, 1].max() > 0.8 and spread[tail, 1].max() < 0.3 and spread[:, 1].min() >= 0
    for dimensions in (1, 2, 7):
        plane, labels = plots.project(np.ones((1, dimensions)))
        assert plane.shape == (1, 2) and np.isfinite(plane).all() and len(labels) == 2


def test_points_have_the_colour_of_their_label() -> None:
    labels = np.array([3, 8] * 20)
    figure = plots.latent_scatter(POINTS, labels, TITLE, "means", ("a", "b"))
    scatter = figure.axes[0].collections[0]
    wanted = {3: plots.CLASSES[0], 8: plots.CLASSES[1]}
    at = {tuple(point): label for point, label in zip(POINTS, labels, strict=True)}
    for point, colour in zip(scatter.get_offsets().data, scatter.get_facecolors(), strict=True):
        assert matplotlib.colors.to_hex(colour[:3]) == wanted[at[tuple(point)]]
    assert [text.get_text() for text in figure.axes[0].texts] == ["3", "8"]
    np.testing.assert_allclose(figure.axes[0].texts[1].xy, np.median(POINTS[1::2], axis=0), atol=0.01)


@pytest.mark.parametrize("shape", [(5, 11, 28, 28), (5, 11, 8, 8)])
def test_the_label_below_interpolations_is_whole(shape: tuple[int, ...]) -> None:
    figure = plots.interpolations(np.ones(shape), TITLE)
    figure.canvas.draw()
    assert figure.get_tightbbox().y0 > 0.03  # inches


def test_numbers_of_classes_do_not_lie_on_each_other() -> None:
    """Three classes have one median; the fourth is far away, and its number at its own."""
    labels, points = np.repeat([0, 1, 2, 3], 40), np.concatenate([POINTS] * 3 + [POINTS + 9])
    figure = plots.latent_scatter(points, labels, TITLE, "means", ("a", "b"))
    figure.canvas.draw()
    texts = figure.axes[0].texts
    boxes = [text.get_bbox_patch().get_window_extent() for text in texts]
    centres = np.array([(box.x0 + box.x1, box.y0 + box.y1) for box in boxes]) / 2
    for i, j in ((0, 1), (0, 2), (1, 2)):
        assert np.hypot(*(centres[i] - centres[j])) > 0.9 * boxes[0].width
    np.testing.assert_allclose(texts[3].xy, np.median(points[labels == 3], axis=0), atol=0.01)


def test_no_bar_of_the_histogram_holds_active_and_inactive_units() -> None:
    variances = 10 ** np.random.default_rng(4).uniform(-5, 0, 200)
    (axes,) = plots.active_units([variances], 0.013, TITLE).axes
    border = np.log10(0.013)
    bars = [bar for bar in axes.patches if bar.get_height()]
    assert sum(bar.get_height() for bar in bars) == 200
    active = sum(bar.get_height() for bar in bars if bar.get_x() > border - 1e-9)
    assert active == (variances > 0.013).sum()
    assert all(bar.get_x() > border - 1e-9 or bar.get_x() + bar.get_width() < border + 1e-9 for bar in bars)


def test_panels_of_a_row_share_axes_and_colours_and_the_line_holds_95_percent() -> None:
    row = posterior_row(draws=2, sizes=(81, 121))
    row.draws[0] = 10  # outside the grid
    panels = plots.posterior_input([row], TITLE).axes[1:4]
    for panel, density in zip(panels, row.densities.values(), strict=True):
        (image,) = panel.get_images()
        assert image.norm.vmin == 0 and image.norm.vmax == max(d.max() for d in row.densities.values())
        assert image.origin == "lower"
        np.testing.assert_array_equal(image.get_array(), density)
        assert panel.get_xlim() == panels[0].get_xlim() and panel.get_ylim() == panels[0].get_ylim()
        np.testing.assert_allclose(image.get_extent(), [-2.025, 2.025, -3 - 3.5 / 120, 4 + 3.5 / 120])
        (contour,) = [c for c in panel.collections if hasattr(c, "levels")]
        truth = row.densities["p(z|x)"]
        held = truth[truth > contour.levels[0]].sum() / truth.sum()
        assert 0.95 - truth.max() / truth.sum() <= held <= 0.95  # within the mass of one cell of the grid
    np.testing.assert_array_equal(np.array(panels[-1].get_lines()[0].get_data()).T, row.draws)


def test_the_grid_of_the_latent_plane_grows_to_the_right_and_upwards() -> None:
    given = images(3, 5)
    (axes,) = plots.latent_grid(given, [-2, -1, 0, 1, 2], [7, 8, 9], TITLE).axes
    mosaic = shown(axes)
    np.testing.assert_array_equal(mosaic[2 * H :, :W], given[0, 0])
    np.testing.assert_array_equal(mosaic[:H, 4 * W :], given[2, 4])
    ticks = dict(zip([label.get_text() for label in axes.get_yticklabels()], axes.get_yticks(), strict=True))
    assert 0 <= ticks["9.00"] < H and 2 * H <= ticks["7.00"] < 3 * H
    assert [label.get_text() for label in axes.get_xticklabels()] == ["−2.00", "−1.00", "0.00", "1.00", "2.00"]


def test_interpolations_run_from_left_to_right() -> None:
    given = images(3, 5)
    (axes,) = plots.interpolations(given, TITLE).axes
    np.testing.assert_array_equal(shown(axes)[H : 2 * H, 4 * W :], given[1, 4])
    assert [label.get_text() for label in axes.get_xticklabels()] == ["0", "0.25", "0.5", "0.75", "1"]


def test_guides_of_the_signal_to_noise_ratio_have_the_slopes_of_the_theorem() -> None:
    for axes, slope in zip(plots.gradient_snr(SNR_K, SNR, TITLE).axes, (-0.5, 0.5), strict=True):
        k, guide = axes.get_lines()[-1].get_data()
        np.testing.assert_allclose(np.diff(np.log(guide)) / np.diff(np.log(k)), slope)
        assert axes.get_xscale() == axes.get_yscale() == "log"
        for line, (encoder, decoder) in zip(axes.get_lines()[:-1], SNR.values(), strict=True):
            np.testing.assert_array_equal(line.get_ydata(), encoder if slope < 0 else decoder)


def test_tightness_counts_images_whose_weights_are_not_to_be_trusted() -> None:
    k_hat = np.array([0.1, 0.2, 0.7, 0.71, np.inf, np.nan, 0.3, 0.4, 0.5])
    figure = tightness(k_hat=k_hat)
    figure.canvas.draw()
    assert any("above: 3 of 9" in entry for entry in legends(figure))
    # 0.25 for every image, with the standard error of a mean of 9 of variance 0.1^2 + 0.1^2 each: 0.1414 / 3
    assert figure.axes[1].get_title() == "mean difference 0.250 ± 0.047 nats"
    for axes in figure.axes[1:]:
        assert len(axes.get_lines()[0].get_xdata()) == 7  # infinity and NaN have no place on the axis


def test_points_of_one_dimension_lie_below_the_histogram_of_their_own_kind() -> None:
    """Many narrow points are no reason for a peak among wide ones: there as many lie high far from it as near."""
    wide = np.linspace(-1, 1, 2001)[:, None]
    (alone,), _ = plots.project_alike([wide])
    (beside, _), _ = plots.project_alike([wide, wide / 100])
    np.testing.assert_array_equal(beside, alone)


def test_times_are_in_the_order_of_k() -> None:
    measured, floor = plots.time_against_k(TIMES, TITLE).axes[0].get_lines()[:2]
    np.testing.assert_array_equal(measured.get_xdata(), [1, 5, 50])
    np.testing.assert_array_equal(measured.get_ydata(), [2, 6, 51])
    np.testing.assert_array_equal(floor.get_ydata(), [1.5, 5.5, 50.5])


def test_peak_memory_has_a_panel_of_its_own() -> None:
    rows = [*TIMES, *({"case": "start", "k": k, "peak_memory_gib": 0.5 + k} for k in (5, 1))]
    _, memory = plots.time_against_k(rows, TITLE).axes
    np.testing.assert_array_equal(memory.get_lines()[0].get_xydata(), [[1, 1.5], [5, 5.5]])


def test_save_writes_the_whole_file_or_leaves_the_old_one(tmp_path, monkeypatch) -> None:
    path = tmp_path / "samples.png"
    figure = plots.samples(images(2), TITLE)
    plots.save(figure, path)
    written = path.read_bytes()
    assert written.startswith(b"\x89PNG") and not figure.axes
    with open(path, "rb") as reader:
        plots.save(plots.samples(images(3), TITLE), path)
        assert reader.read() == written  # renamed, not written into
    plots.save(plots.samples(images(2), TITLE), path)
    assert path.read_bytes() == written

    def fail_half_way(self, name, **options):
        with open(name, "wb") as file:
            file.write(b"half")
        raise OSError("no space left")

    monkeypatch.setattr(Figure, "savefig", fail_half_way)
    with pytest.raises(OSError, match="no space left"):
        plots.save(plots.samples(images(3), TITLE), path)
    assert path.read_bytes() == written and list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("name", ["reconstructions", "posteriors", "ten classes"])
def test_saved_pictures_are_wide_enough_for_a_page_of_800_pixels(name: str, tmp_path) -> None:
    plots.save(FIGURES[name][0](), tmp_path / "a.png")
    header = (tmp_path / "a.png").read_bytes()[16:20]
    assert 1000 <= int.from_bytes(header, "big") <= 2000


def test_import_brings_neither_tensorflow_nor_pyplot_and_changes_no_setting() -> None:
    code = """import sys, matplotlib
def settings():  # to look at the backend would import pyplot
    return {name: matplotlib.rcParams[name] for name in matplotlib.rcParams if name != "backend"}
before = settings()
import iwae.figures.plots
print([name for name in ("tensorflow", "matplotlib.pyplot", "sklearn") if name in sys.modules], settings() == before)"""
    output = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert output == "[] True\n"
