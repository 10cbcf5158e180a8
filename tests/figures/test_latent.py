"""`iwae.figures.latent`: projections, colours and numbers of classes, and the histogram of active units."""

import matplotlib
import numpy as np
from figure_checks import TITLE, Case, Wrong, checks_of

from iwae.figures import latent, style

POINTS, LABELS = np.random.default_rng(5).normal(size=(40, 2)), np.arange(40) % 10

FIGURES: dict[str, Case] = {
    "ten classes": (
        lambda: latent.latent_scatter(POINTS, LABELS, TITLE, "means", ("$z_1$", "$z_2$")),
        "Aggregate posterior: means",
        [("$z_1$", "$z_2$")],
        [str(label) for label in range(10)],
    ),
    "one point": (
        lambda: latent.latent_scatter(POINTS[:1], [4], TITLE, "draws", ("a", "b")),
        "Aggregate posterior: draws",
        [("a", "b")],
        ["4"],
    ),
    "names of classes": (
        lambda: latent.latent_scatter(
            POINTS, LABELS % 2, TITLE, "means", ("a", "b"), lambda c: ("$5", "a long $")[int(c)]
        ),
        "Aggregate posterior: means",
        [("a", "b")],
        ["$5", "a long $"],
    ),
    "no labels": (
        lambda: latent.latent_scatter(POINTS, None, TITLE, "importance-resampled draws", ("a", "b")),
        "Aggregate posterior: importance-resampled draws",
        [("a", "b")],
        [],
    ),
    "eleven classes": (
        lambda: latent.latent_scatter(POINTS, np.arange(40) % 11, TITLE, "means", ("a", "b")),
        "Aggregate posterior",
        [("a", "b"), ("", "class")],
        [],
    ),
    "one dimension": (
        lambda: latent.latent_histogram(POINTS[:, 0], LABELS, TITLE, "means"),
        "Aggregate posterior: means",
        [("$z$", "examples")],
        [str(label) for label in range(10)],
    ),
    "one value": (
        lambda: latent.latent_histogram([1.5], None, TITLE, "draws"),
        "Aggregate posterior: draws",
        [("$z$", "examples")],
        [],
    ),
    "active units": (
        lambda: latent.active_units([[0.5, 0.0101, 0.0099, 1e-5, 0.0], [0.01, 0.9]], 0.01, TITLE),
        "Activity of the latent units",
        [("", "latent units"), ("below 1e-08", "latent units")],
        ["2 of 5 units active", "3 inactive", "threshold 0.01", "1 of 2 units active", "1 inactive", "threshold 0.01"],
    ),
    "one unit": (
        lambda: latent.active_units([[0.5]], 0.01, TITLE),
        "Activity",
        [(r"\log_{10} A_u", "latent units")],
        ["1 of 1 units active", "0 inactive", "threshold 0.01"],
    ),
}
WRONG: dict[str, Wrong] = {
    "points in space": (
        lambda: latent.latent_scatter(np.ones((5, 3)), None, TITLE, "means", ("", "")),
        r"shape \[n, 2\], got \[5, 3\]",
    ),
    "other labels": (
        lambda: latent.latent_scatter(POINTS, LABELS[1:], TITLE, "means", ("", "")),
        r"shape \[n = 40\], got \[39\]",
    ),
    "kind": (lambda: latent.latent_scatter(POINTS, None, TITLE, "mean", ("", "")), "kind: expected one of 'means'"),
    "project": (lambda: latent.project(np.ones(5)), r"points: expected shape \[n, D\], got \[5\]"),
    "threshold": (lambda: latent.active_units([[1.0]], 0.0, TITLE), "a threshold above 0, got 1 and 0.0"),
    "no layers": (lambda: latent.active_units([], 0.01, TITLE), "at least one layer"),
    "variances": (lambda: latent.active_units([[1.0], [[1.0]]], 0.01, TITLE), "variances of layer 2: expected shape"),
}


test_figures_say_what_they_show, test_what_does_not_fit_is_refused_in_one_line = checks_of(FIGURES, WRONG)


def test_projection_on_the_plane_of_the_principal_components() -> None:
    from sklearn.decomposition import PCA

    points = np.random.default_rng(2).normal(size=(50, 5)) * [1, 4, 2, 3, 0.5] + 10
    reference = PCA(2).fit(points)
    plane, labels = latent.project(points)
    np.testing.assert_allclose(np.abs(plane), np.abs(reference.transform(points)), atol=1e-10)
    for label, share in zip(labels, reference.explained_variance_ratio_, strict=True):
        assert f"({100 * share:.1f} % of the variance)" in label
    mirrored, _ = latent.project(points * [-1, 1, 1, 1, 1])
    np.testing.assert_allclose(np.abs(mirrored), np.abs(plane), atol=1e-10)


def test_projection_of_two_dimensions_and_of_one_point() -> None:
    np.testing.assert_array_equal(latent.project(POINTS)[0], POINTS)
    for dimensions in (2, 7):
        plane, labels = latent.project(np.ones((1, dimensions)))
        assert plane.shape == (1, 2) and np.isfinite(plane).all() and len(labels) == 2


def test_one_dimension_is_a_histogram_of_all_classes_one_above_the_other() -> None:
    """Class 8 has two of three examples; more classes than there are colours are not told apart."""
    points, labels = np.linspace(-1, 1, 300), np.where(np.arange(300) % 3, 8, 3)
    (axes,) = latent.latent_histogram(points, labels, TITLE, "means").axes
    below, above = ([bar.get_height() for bar in bars] for bars in axes.containers)
    assert (sum(below), sum(above)) == (100, 200)
    assert [bar.get_y() for bar in axes.containers[1]] == below
    assert matplotlib.colors.to_hex(axes.containers[1][0].get_facecolor()[:3]) == style.CLASSES[1]
    edges, counts = [bar.get_x() for bar in axes.containers[0]], np.add(below, above)
    assert np.histogram(points, [*edges, 1])[0].tolist() == counts.tolist()
    (axes,) = latent.latent_histogram(points, np.arange(300) % 11, TITLE, "means").axes
    assert len(axes.containers) == 1 and sum(bar.get_height() for bar in axes.patches) == 300


def test_points_have_the_colour_of_their_label() -> None:
    labels = np.array([3, 8] * 20)
    figure = latent.latent_scatter(POINTS, labels, TITLE, "means", ("a", "b"))
    scatter = figure.axes[0].collections[0]
    wanted = {3: style.CLASSES[0], 8: style.CLASSES[1]}
    at = {tuple(point): label for point, label in zip(POINTS, labels, strict=True)}
    for point, colour in zip(scatter.get_offsets().data, scatter.get_facecolors(), strict=True):
        assert matplotlib.colors.to_hex(colour[:3]) == wanted[at[tuple(point)]]
    assert [text.get_text() for text in figure.axes[0].texts] == ["3", "8"]
    np.testing.assert_allclose(figure.axes[0].texts[1].xy, np.median(POINTS[1::2], axis=0), atol=0.01)


def test_numbers_of_classes_do_not_lie_on_each_other() -> None:
    """Three classes have one median; the fourth is far away, and its number at its own."""
    labels, points = np.repeat([0, 1, 2, 3], 40), np.concatenate([POINTS] * 3 + [POINTS + 9])
    figure = latent.latent_scatter(points, labels, TITLE, "means", ("a", "b"))
    figure.canvas.draw()
    texts = figure.axes[0].texts
    boxes = [text.get_bbox_patch().get_window_extent() for text in texts]
    centres = np.array([(box.x0 + box.x1, box.y0 + box.y1) for box in boxes]) / 2
    for i, j in ((0, 1), (0, 2), (1, 2)):
        assert np.hypot(*(centres[i] - centres[j])) > 0.9 * boxes[0].width
    np.testing.assert_allclose(texts[3].xy, np.median(points[labels == 3], axis=0), atol=0.01)


def test_no_bar_of_the_histogram_holds_active_and_inactive_units() -> None:
    variances = 10 ** np.random.default_rng(4).uniform(-5, 0, 200)
    (axes,) = latent.active_units([variances], 0.013, TITLE).axes
    border = np.log10(0.013)
    bars = [bar for bar in axes.patches if bar.get_height()]
    assert sum(bar.get_height() for bar in bars) == 200
    active = sum(bar.get_height() for bar in bars if bar.get_x() > border - 1e-9)
    assert active == (variances > 0.013).sum()
    assert all(bar.get_x() > border - 1e-9 or bar.get_x() + bar.get_width() < border + 1e-9 for bar in bars)
