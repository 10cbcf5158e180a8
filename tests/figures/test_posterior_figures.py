"""`iwae.figures.posterior`: densities of an input share axes and colours; draws lie where they are given."""

import numpy as np
from figure_checks import TITLE, Case, Wrong, checks_of, images

from iwae.diagnostics.grid import GridPosterior
from iwae.figures import posterior

RANDOM = np.random.default_rng(5)


def posterior_row(draws: int = 5, sizes: tuple[int, int] = (9, 11), **changes) -> posterior.PosteriorRow:
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
    return posterior.PosteriorRow(**(fields | changes))


def latent_pair(image: np.ndarray | None, sets: tuple[str, ...] = ("HMC", "q")) -> posterior.LatentPair:
    draws = {name: RANDOM.normal(size=(8 + i, 2)) for i, name in enumerate(sets)}
    return posterior.LatentPair("test image 3", ("$z_4$", "$z_9$"), draws, image)


FIGURES: dict[str, Case] = {
    "posteriors": (
        lambda: posterior.posterior_input([posterior_row(), posterior_row(draws=20)], TITLE),
        "The posterior of an input",
        2 * [("", "test image 3"), ("$z_1$", "$z_2$"), ("KL = 1.23 nats", ""), ("KL = 0.50 nats", ""), ("", "")],
        ["95 % of the true posterior", "resampled draws", "KL(density ‖ true posterior)"],
    ),
    "uniform posterior": (
        lambda: posterior.posterior_input([posterior_row(draws=1, densities={"p": np.ones((11, 9))})], TITLE),
        "The posterior of an input",
        [None, ("$z_1$", "$z_2$"), None],
        ["95 %", "draws", "KL"],
    ),
    "pairs": (
        lambda: posterior.latent_pairs([latent_pair(images()), latent_pair(images())], TITLE),
        "pairs of latent units",
        2 * [("", "test image 3"), ("$z_4$", "$z_9$"), ("$z_4$", "")],
        ["grey: HMC"],
    ),
    "pairs without images": (
        lambda: posterior.latent_pairs([latent_pair(None)], TITLE),
        "pairs of latent units",
        [("$z_4$", "test image 3\n$z_9$"), ("$z_4$", "")],
        ["grey: HMC"],
    ),
}
WRONG: dict[str, Wrong] = {
    "no rows": (lambda: posterior.posterior_input([], TITLE), "rows: expected"),
    "rows of unequal length": (
        lambda: posterior.posterior_input([posterior_row(), posterior_row(densities={"p": np.ones((11, 9))})], TITLE),
        r"same number \(at least 1\) of densities in all, got \[1, 3\]",
    ),
    "transposed density": (
        lambda: posterior.posterior_input([posterior_row(densities={"p": np.ones((9, 11))})], TITLE),
        r"density 'p' of row 0: expected shape \[G2 = 11, G1 = 9\], got \[9, 11\]",
    ),
    "no mass": (
        lambda: posterior.posterior_input([posterior_row(densities={"p": np.zeros((11, 9))})], TITLE),
        "the first not 0",
    ),
    "negative density": (
        lambda: posterior.posterior_input([posterior_row(densities={"p": -np.ones((11, 9))})], TITLE),
        "none below 0",
    ),
    "uneven grid": (
        lambda: posterior.posterior_input([posterior_row(z1=np.arange(9.0) ** 2)], TITLE),
        "z1 of row 0: expected at least",
    ),
    "falling grid": (
        lambda: posterior.posterior_input([posterior_row(z2=-np.arange(11.0))], TITLE),
        "z2 of row 0: expected at least",
    ),
    "other draws": (
        lambda: posterior.posterior_input([posterior_row(reconstructions=images(4))], TITLE),
        r"reconstructions of row 0: expected shape \[m = 5, H = 6, W = 4\], got \[4, 6, 4\]",
    ),
    "no pairs": (lambda: posterior.latent_pairs([], TITLE), "rows: expected at least one"),
    "some images": (lambda: posterior.latent_pairs([latent_pair(None), latent_pair(images())], TITLE), "all or none"),
    "other sets": (
        lambda: posterior.latent_pairs([latent_pair(None), latent_pair(None, ("HMC", "p"))], TITLE),
        "the same names",
    ),
}


test_figures_say_what_they_show, test_what_does_not_fit_is_refused_in_one_line = checks_of(FIGURES, WRONG)


def test_the_titles_of_a_posterior_are_no_wider_than_their_panels() -> None:
    """The layout makes no room for them: that of the last panel would leave the figure."""
    names = ("$p(z|x)$", "$q(z|x)$", "$q_{IW}$, k = 10", "$q_{IW}$, k = 100")
    densities = {name: np.full((11, 9), 870.0) for name in names}  # with long labels of ticks panels are small
    z2, square = np.linspace(-3.2, -2.9, 11), {"image": np.ones((6, 6)), "reconstructions": np.ones((5, 6, 6))}
    row = posterior_row(densities=densities, z2=z2, **square)
    figure = posterior.posterior_input([row], TITLE)
    figure.canvas.draw()
    for axes in figure.axes:
        assert axes.title.get_window_extent().width <= axes.get_window_extent().width, axes.get_title()


def test_panels_of_a_row_share_axes_and_colours_and_the_line_holds_95_percent() -> None:
    row = posterior_row(draws=2, sizes=(81, 121))
    row.draws[0] = 10  # outside the grid
    panels = posterior.posterior_input([row], TITLE).axes[1:4]
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


def test_the_part_of_a_grid_that_is_shown_holds_all_pieces_of_the_posterior_and_q() -> None:
    axes = np.linspace(-10, 10, 201), np.linspace(-20, 20, 301)
    z1, z2 = np.meshgrid(*axes)

    def normal(at: tuple[float, float], std: float) -> np.ndarray:
        return np.exp(-0.5 * ((z1 - at[0]) ** 2 + (z2 - at[1]) ** 2) / std**2) / (2 * np.pi * std**2)

    true, q = 0.9 * normal((0, 0), 0.5) + 0.1 * normal((-3, 9), 0.4), normal((1, 0), 1)
    shown = posterior._around_what_matters(GridPosterior(axes, 0.0, true, {1: q, 10: true}, {1: 0.0, 10: 0.0}))
    for whole, part in ((true, shown.true), (q, shown.q_iw[1])):
        level = posterior._level(whole, 0.95)
        assert np.sum(part >= level) == np.sum(whole >= level)
        assert max(values.max() for values in (part[0], part[-1], part[:, 0], part[:, -1])) < level
    line = shown.true[shown.true >= posterior._level(shown.true, 0.95)]
    np.testing.assert_allclose(line.sum() / true.sum(), 0.95, atol=0.005)  # of the part, and so of the whole
    wide = [axis[-1] - axis[0] for axis in shown.axes]
    assert 7 < wide[0] < 9 and 12 < wide[1] < 16  # of 20 and 40
    assert shown.true.shape == (len(shown.axes[1]), len(shown.axes[0]))
