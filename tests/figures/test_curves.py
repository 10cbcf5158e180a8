"""`iwae.figures.curves`: every curve is the column it is given, on the axes and with the guides that it says."""

import numpy as np
from figure_checks import TITLE, Case, Wrong, checks_of, legends
from matplotlib.figure import Figure

from iwae.figures import curves


def curve(epochs: int, rate_changes: int = 2) -> dict[str, np.ndarray]:
    epoch = np.arange(1, epochs + 1)
    bound = -90 - 100 / epoch
    rate = 1e-3 * 0.5 ** (epoch * (rate_changes + 1) // (epochs + 1))
    return {"epoch": epoch, "train_bound": bound, "valid_bound": bound - 1, "learning_rate": rate}


def tightness(n: int = 9, **changes) -> Figure:
    l_k = -90.0 - np.arange(n)
    error, k_hat = np.full(n, 0.1), np.linspace(0.1, 0.85, n) if n > 1 else np.array([0.5])
    fields = {"l_k": l_k, "l_k_stderr": error, "ais": l_k + 0.25, "ais_stderr": error, "k_hat": k_hat}
    fields["effective_sample_size"] = np.linspace(3, 500, n)
    return curves.tightness(fields | changes, TITLE)


SNR_K = np.array([1, 10, 100])
SNR = {"reparameterized": (1 / np.sqrt(SNR_K), np.sqrt(SNR_K)), "dreg": (np.sqrt(SNR_K), np.sqrt(SNR_K))}
TIMES = [
    {"estimator": name, "k": k, "ms_per_update": 1.0 + k, "flop_floor_ms": 0.5 + k, "case": "train"}
    for name in ("reparameterized", "sampled_particle")
    for k in (50, 1, 5)
]

FIGURES: dict[str, Case] = {
    "one run": (
        lambda: curves.learning_curves([("a_run$1", curve(20))], TITLE),
        "Learning curves",
        [("epoch (passes over the data)", "(nats per example)"), ("epoch (passes over the data)", "")],
        ["training (−95.00 at the end)", "validation (−96.00 at the end)", "the learning rate changes"],
    ),
    "two runs": (
        lambda: curves.learning_curves([("_one", curve(60)), ("two$^$", curve(50, 1))], TITLE),
        "Learning curves",
        [("epoch", "nats"), ("epoch", "")],
        [
            f"{what}, {run} (−{end:.2f} at the end)"
            for run, last in (("_one", 90 + 100 / 60), ("two$^$", 92))
            for what, end in (("training", last), ("validation", last + 1))
        ],
    ),
    "one epoch": (
        lambda: curves.learning_curves([("a", {"epoch": [1], "train_bound": [-3.0]})], TITLE),
        "Learning curves",
        [("epoch", "nats")],
        ["training (−3.00 at the end)"],
    ),
    "signal-to-noise": (
        lambda: curves.gradient_snr(SNR_K, SNR, TITLE),
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
        lambda: curves.time_against_k(TIMES, TITLE),
        "Time of an update",
        [("importance samples $k$", "time of an update (ms)")],
        ["reparameterized", "reparameterized: matrix products alone", "sampled_particle", "sampled_particle: matrix"],
    ),
}
WRONG: dict[str, Wrong] = {
    "no runs": (lambda: curves.learning_curves([], TITLE), "curves: expected at least one run"),
    "no column": (lambda: curves.learning_curves([("a", {"epoch": [1]})], TITLE), "'a' has no column 'train_bound'"),
    "no epochs": (lambda: curves.learning_curves([("a", {"epoch": [], "train_bound": []})], TITLE), "got .0."),
    "no number": (
        lambda: curves.learning_curves([("a", {"epoch": [1], "train_bound": [np.nan]})], TITLE),
        "curves: expected at least one bound that is a number",
    ),
    "columns of unequal length": (
        lambda: curves.learning_curves([("a", {"epoch": [1, 2], "train_bound": [1]})], TITLE),
        r"train_bound of 'a': expected shape \[epochs = 2\], got \[1\]",
    ),
    "ratios of unequal length": (
        lambda: curves.gradient_snr([1, 2], {"a": (np.ones(2), np.ones(3))}, TITLE),
        "ratios of 'a'",
    ),
    "no estimators": (lambda: curves.gradient_snr([1, 2], {}, TITLE), "ratios: expected at least one"),
    "other images": (lambda: tightness(ais=np.ones(8)), r"ais: expected shape \[n = 9\], got \[8\]"),
    "no times": (lambda: curves.time_against_k([], TITLE), "rows: expected at least one"),
    "no floor": (
        lambda: curves.time_against_k([{"k": 1, "ms_per_update": 1.0, "estimator": "a"}], TITLE),
        "without flop_floor_ms",
    ),
}


test_figures_say_what_they_show, test_what_does_not_fit_is_refused_in_one_line = checks_of(FIGURES, WRONG)


def test_learning_curves_have_a_logarithmic_axis_beyond_50_epochs_and_mark_the_stages() -> None:
    for epochs, scale in ((50, "linear"), (51, "log")):
        axes = curves.learning_curves([("a", curve(epochs))], TITLE).axes
        assert [a.get_xscale() for a in axes] == [scale, "linear"]
    first, last = curves.learning_curves([("a", curve(20))], TITLE).axes
    columns = curve(20)
    borders = [e - 0.5 for e in range(2, 21) if columns["learning_rate"][e - 1] != columns["learning_rate"][e - 2]]
    assert len(borders) == 2
    assert [line.get_xdata()[0] for line in first.get_lines()[2:]] == borders
    np.testing.assert_array_equal(first.get_lines()[1].get_ydata(), columns["valid_bound"])
    np.testing.assert_array_equal(last.get_lines()[0].get_xdata(), np.arange(10, 21))


def test_learning_curves_of_a_rate_that_falls_every_epoch_or_differs_have_no_stages() -> None:
    falling = curve(20) | {"learning_rate": 0.5 ** np.arange(20)}
    for runs in ([("a", falling)], [("a", curve(20, 2)), ("b", curve(20, 1))]):
        assert not any("learning rate" in entry for entry in legends(curves.learning_curves(runs, TITLE)))


def test_a_bound_that_is_not_a_number_leaves_a_gap_and_one_that_never_is_no_line() -> None:
    columns = curve(6)
    columns["train_bound"][-1] = np.nan
    columns["valid_bound"][:] = np.nan
    (entry, _) = legends(curves.learning_curves([("a", columns)], TITLE))
    assert entry == "training (−110.00 at the end)"


def test_guides_of_the_signal_to_noise_ratio_have_the_slopes_of_the_theorem() -> None:
    for axes, slope in zip(curves.gradient_snr(SNR_K, SNR, TITLE).axes, (-0.5, 0.5), strict=True):
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
    # Weights that hide their own spread have no bar, and no part in the error of a mean.
    assert figure.axes[1].get_title() == "mean difference 0.250 nats"
    bars = figure.axes[0].collections[0].get_segments()  # the horizontal ones
    assert [len(bar) > 0 for bar in bars] == list(k_hat <= 0.7)
    # 0.25 for every image, with the standard error of a mean of 9 of variance 0.1^2 + 0.1^2 each: 0.1414 / 3
    assert tightness(k_hat=np.full(9, 0.7)).axes[1].get_title() == "mean difference 0.250 ± 0.047 nats"
    for axes in figure.axes[1:]:
        assert len(axes.get_lines()[0].get_xdata()) == 7  # infinity and NaN have no place on the axis


def test_times_are_in_the_order_of_k() -> None:
    measured, floor = curves.time_against_k(TIMES, TITLE).axes[0].get_lines()[:2]
    np.testing.assert_array_equal(measured.get_xdata(), [1, 5, 50])
    np.testing.assert_array_equal(measured.get_ydata(), [2, 6, 51])
    np.testing.assert_array_equal(floor.get_ydata(), [1.5, 5.5, 50.5])


def test_peak_memory_has_a_panel_of_its_own() -> None:
    rows = [*TIMES, *({"case": "start", "k": k, "peak_memory_gib": 0.5 + k} for k in (5, 1))]
    _, memory = curves.time_against_k(rows, TITLE).axes
    np.testing.assert_array_equal(memory.get_lines()[0].get_xydata(), [[1, 1.5], [5, 5.5]])
