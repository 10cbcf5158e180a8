"""`iwae.figures.pictures`: every image is at its place."""

import numpy as np
import pytest
from figure_checks import TITLE, Case, H, W, Wrong, checks_of, images

from iwae.figures import pictures

FIGURES: dict[str, Case] = {
    "samples": (lambda: pictures.samples(images(23), TITLE), "Samples from the prior", [("probabilities", "")], []),
    "one sample": (lambda: pictures.samples(images(1), TITLE), "Samples", [("probabilities", "")], []),
    "reconstructions": (
        lambda: pictures.reconstructions(images(13), images(13), TITLE),
        "Test images and their reconstructions",
        [("probabilities", "")],
        [],
    ),
    "one reconstruction": (
        lambda: pictures.reconstructions(images(1), images(1), TITLE),
        "Test images",
        [("probabilities", "")],
        [],
    ),
    "grid": (
        lambda: pictures.latent_grid(images(3, 5), np.linspace(-2, 2, 5), np.arange(3), TITLE),
        "Decoded grid of the latent plane",
        [("$z_1$", "$z_2$")],
        [],
    ),
    "interpolations": (
        lambda: pictures.interpolations(images(3, 5), TITLE),
        "Interpolations",
        [("fraction of the way", "")],
        [],
    ),
}
WRONG: dict[str, Wrong] = {
    "flat images": (lambda: pictures.samples(images(), TITLE), r"images: expected shape \[n, H, W\], got \[6, 4\]"),
    "no images": (lambda: pictures.samples(np.ones((0, 6, 4)), TITLE), r"got \[0, 6, 4\]"),
    "words": (lambda: pictures.samples("words", TITLE), "images: expected numbers"),
    "not a number": (lambda: pictures.samples(images(2) * np.nan, TITLE), "images: expected finite numbers, got 48"),
    "other reconstructions": (
        lambda: pictures.reconstructions(images(3), images(2), TITLE),
        r"reconstructions: expected shape \[n = 3, H = 6, W = 4\], got \[2, 6, 4\]",
    ),
    "transposed grid": (
        lambda: pictures.latent_grid(images(3, 5), np.arange(3), np.arange(5), TITLE),
        r"z1: expected shape \[c = 5\]",
    ),
    "one way": (lambda: pictures.interpolations(images(3), TITLE), r"images: expected shape \[n_pairs, steps, H, W\]"),
}


test_figures_say_what_they_show, test_what_does_not_fit_is_refused_in_one_line = checks_of(FIGURES, WRONG)


def shown(axes) -> np.ndarray:
    (image,) = axes.get_images()
    return np.ma.filled(image.get_array(), np.nan)


def test_samples_are_shown_row_by_row() -> None:
    given = images(23)
    mosaic = shown(pictures.samples(given, TITLE).axes[0])
    assert mosaic.shape == (5 * H, 5 * W)
    np.testing.assert_array_equal(mosaic[:H, W : 2 * W], given[1])
    np.testing.assert_array_equal(mosaic[4 * H :, 2 * W : 3 * W], given[22])
    assert not mosaic[4 * H :, 3 * W :].any()  # white


def test_an_image_is_above_its_own_reconstruction() -> None:
    given, decoded = images(13), 1 - images(13)
    axes = pictures.reconstructions(given, decoded, TITLE).axes[0]
    mosaic = shown(axes)
    np.testing.assert_array_equal(mosaic[:H, 3 * W : 4 * W], given[3])
    np.testing.assert_array_equal(mosaic[H : 2 * H, 3 * W : 4 * W], decoded[3])
    np.testing.assert_array_equal(mosaic[2 * H : 3 * H, 2 * W : 3 * W], given[12])
    np.testing.assert_array_equal(mosaic[3 * H :, 2 * W : 3 * W], decoded[12])
    rows = {label.get_text(): int(at // H) for at, label in zip(axes.get_yticks(), axes.get_yticklabels(), strict=True)}
    assert rows == {"image": 2, "reconstruction": 3}  # the last of each


@pytest.mark.parametrize("shape", [(5, 11, 28, 28), (5, 11, 8, 8)])
def test_the_label_below_interpolations_is_whole(shape: tuple[int, ...]) -> None:
    figure = pictures.interpolations(np.ones(shape), TITLE)
    figure.canvas.draw()
    assert figure.get_tightbbox().y0 > 0.03  # inches


def test_the_grid_of_the_latent_plane_grows_to_the_right_and_upwards() -> None:
    given = images(3, 5)
    (axes,) = pictures.latent_grid(given, [-2, -1, 0, 1, 2], [7, 8, 9], TITLE).axes
    mosaic = shown(axes)
    np.testing.assert_array_equal(mosaic[2 * H :, :W], given[0, 0])
    np.testing.assert_array_equal(mosaic[:H, 4 * W :], given[2, 4])
    ticks = dict(zip([label.get_text() for label in axes.get_yticklabels()], axes.get_yticks(), strict=True))
    assert 0 <= ticks["9.00"] < H and 2 * H <= ticks["7.00"] < 3 * H
    assert [label.get_text() for label in axes.get_xticklabels()] == ["−2.00", "−1.00", "0.00", "1.00", "2.00"]


def test_interpolations_run_from_left_to_right() -> None:
    given = images(3, 5)
    (axes,) = pictures.interpolations(given, TITLE).axes
    np.testing.assert_array_equal(shown(axes)[H : 2 * H, 4 * W :], given[1, 4])
    assert [label.get_text() for label in axes.get_xticklabels()] == ["0", "0.25", "0.5", "0.75", "1"]
