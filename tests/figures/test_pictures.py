"""`iwae.figures.pictures`: every image is at its place."""

import numpy as np
import pytest
from figure_checks import TITLE, Case, H, W, Wrong, checks_of, images
from matplotlib.figure import Figure

from iwae.figures import pictures


def samples(count: int) -> Figure:
    return pictures.samples(images(count), np.round(images(count)), TITLE)


def coloured(*shape: int) -> np.ndarray:
    return np.moveaxis(images(*shape, 3), -3, -1)


FIGURES: dict[str, Case] = {
    "samples": (lambda: samples(23), "Samples from the prior", [("pixel means", ""), ("draw of every pixel", "")], []),
    "one sample": (lambda: samples(1), "Samples", [("pixel means", ""), ("draw", "")], []),
    "samples over training": (
        lambda: pictures.samples_over_training(images(3, 10), [1, 2, 1093], TITLE),
        "Samples while it learned",
        [("same noise", "epochs")],
        [],
    ),
    "reconstructions": (
        lambda: pictures.reconstructions(images(13), images(13), TITLE),
        "Test images and their reconstructions",
        [("pixel means", "")],
        [],
    ),
    "one reconstruction": (
        lambda: pictures.reconstructions(images(1), images(1), TITLE),
        "Test images",
        [("pixel means", "")],
        [],
    ),
    "grid": (
        lambda: pictures.latent_grid(images(3, 5), np.linspace(-2, 2, 5), np.arange(3), TITLE),
        "Decoded grid of the latent plane",
        [("$z_1$", "$z_2$")],
        [],
    ),
    "coloured samples": (
        lambda: pictures.samples(coloured(23), coloured(23), TITLE),
        "Samples",
        [("means of the colours", ""), ("draw of every pixel", "")],
        [],
    ),
    "coloured reconstructions": (
        lambda: pictures.reconstructions(coloured(13), coloured(13), TITLE),
        "Test images",
        [("colours", "")],
        [],
    ),
    "coloured interpolations": (
        lambda: pictures.interpolations(coloured(3, 5), TITLE),
        "Interpolations",
        [("means of the colours", "")],
        [],
    ),
    "coloured grid": (
        lambda: pictures.latent_grid(coloured(3, 5), np.arange(5), np.arange(3), TITLE),
        "grid",
        [("$z_1$", "$z_2$")],
        [],
    ),
    "samples by class": (
        lambda: pictures.samples_by_class(images(3, 5), ["1", "$x", "a long name"], TITLE),
        "Samples from the prior, by class",
        [("a column: the same noise; pixel means", "class")],
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
    "flat images": (lambda: pictures.samples(images(), 1, TITLE), r"means: expected shape \[n, H, W\], got \[6, 4\]"),
    "no images": (lambda: pictures.samples(np.ones((0, 6, 4)), 1, TITLE), r"got \[0, 6, 4\]"),
    "words": (lambda: pictures.samples("words", 1, TITLE), "means: expected numbers"),
    "not a number": (lambda: pictures.samples(images(2) * np.nan, 1, TITLE), "means: expected finite numbers, got 48"),
    "other draws": (lambda: pictures.samples(images(3), images(2), TITLE), r"draws: expected shape \[n = 3, H"),
    "other reconstructions": (
        lambda: pictures.reconstructions(images(3), images(2), TITLE),
        r"reconstructions: expected shape \[n = 3, H = 6, W = 4\], got \[2, 6, 4\]",
    ),
    "transposed grid": (
        lambda: pictures.latent_grid(images(3, 5), np.arange(3), np.arange(5), TITLE),
        r"z1: expected shape \[c = 5\]",
    ),
    "names": (lambda: pictures.samples_by_class(images(3, 5), ["1"], TITLE), "one of each of 3 classes, got 1"),
    "one way": (lambda: pictures.interpolations(images(3), TITLE), r"images: expected shape \[n_pairs, steps, H, W\]"),
}


test_figures_say_what_they_show, test_what_does_not_fit_is_refused_in_one_line = checks_of(FIGURES, WRONG)


def shown(axes) -> np.ndarray:
    (image,) = axes.get_images()
    return np.ma.filled(image.get_array(), np.nan)


def test_samples_are_shown_row_by_row_their_draws_at_the_same_places() -> None:
    means, draws = images(23), np.round(images(23))
    for axes, given in zip(pictures.samples(means, draws, TITLE).axes, (means, draws), strict=True):
        mosaic = shown(axes)
        assert mosaic.shape == (5 * H, 5 * W)
        np.testing.assert_array_equal(mosaic[:H, W : 2 * W], given[1])
        np.testing.assert_array_equal(mosaic[4 * H :, 2 * W : 3 * W], given[22])
        assert not mosaic[4 * H :, 3 * W :].any()  # white


def test_colours_are_shown_and_what_is_empty_is_white() -> None:
    given = coloured(23)
    (image,) = pictures.samples(given, given, TITLE).axes[0].get_images()
    mosaic = np.asarray(image.get_array())
    assert mosaic.shape == (5 * H, 5 * W, 3)
    np.testing.assert_array_equal(mosaic[:H, W : 2 * W], given[1])
    assert np.all(mosaic[4 * H :, 3 * W :] == 1)


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
    assert set(ticks) >= {"7", "8", "9"} and 0 <= ticks["9"] < H and 2 * H <= ticks["7"] < 3 * H
    ticks = dict(zip([label.get_text() for label in axes.get_xticklabels()], axes.get_xticks(), strict=True))
    assert set(ticks) >= {"−2", "2"} and 0 <= ticks["−2"] < W and 4 * W <= ticks["2"] < 5 * W


def test_the_grid_has_ticks_at_whole_numbers_between_its_images_too() -> None:
    (axes,) = pictures.latent_grid(images(20, 20), np.linspace(-3, 3, 20), np.linspace(-3, 3, 20), TITLE).axes
    assert [label.get_text() for label in axes.get_xticklabels()] == ["−3", "−2", "−1", "0", "1", "2", "3"]
    assert axes.get_xticks()[[0, 3, 6]].tolist() == [W / 2 - 0.5, 10 * W - 0.5, 19.5 * W - 0.5]


def test_interpolations_run_from_left_to_right() -> None:
    given = images(3, 5)
    (axes,) = pictures.interpolations(given, TITLE).axes
    np.testing.assert_array_equal(shown(axes)[H : 2 * H, 4 * W :], given[1, 4])
    assert [label.get_text() for label in axes.get_xticklabels()] == ["0", "0.25", "0.5", "0.75", "1"]
