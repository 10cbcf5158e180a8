"""What the tests of figures share: a title, images, and the two tests that every figure must pass."""

from collections.abc import Callable

import matplotlib
import numpy as np
import pytest
from matplotlib._pylab_helpers import Gcf
from matplotlib.figure import Figure

TITLE = "a_run$^$ (digits, IWAE, k = 7)"  # as mathematics this would be an error
H, W = 6, 4

Case = tuple[Callable[[], Figure], str, list[tuple[str, str] | None], list[str]]
"""Makes a figure; words of its titles; (x label, y label) of its axes in order, None: not looked at; legends."""
Wrong = tuple[Callable[[], object], str]
"""Makes a figure of what does not fit; the message."""


def images(*shape: int) -> np.ndarray:
    return np.random.default_rng(1).uniform(size=(*shape, H, W))


def legends(figure: Figure) -> list[str]:
    every = [axes.get_legend() for axes in figure.axes] + figure.legends
    return [text.get_text() for legend in every if legend for text in legend.get_texts()]


def says_what_it_shows(make: Callable[[], Figure], heading: str, labels: list, entries: list[str]) -> None:
    before = dict(matplotlib.rcParams)
    figure = make()
    figure.canvas.draw()  # warnings, also those of the layout, are errors
    assert dict(matplotlib.rcParams) == before and not Gcf.figs  # nothing is kept by pyplot
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


def refuses(make: Callable[[], object], message: str) -> None:
    with pytest.raises(ValueError, match=message) as error:
        make()
    assert "\n" not in str(error.value)


def checks_of(figures: dict[str, Case], wrong: dict[str, Wrong]) -> tuple[Callable, Callable]:
    """The tests that figures say what they show, and that what does not fit is refused."""

    @pytest.mark.parametrize("name", figures)
    def test_figures_say_what_they_show(name: str, caplog: pytest.LogCaptureFixture) -> None:
        says_what_it_shows(*figures[name])
        assert not caplog.records

    @pytest.mark.parametrize("name", wrong)
    def test_what_does_not_fit_is_refused_in_one_line(name: str) -> None:
        refuses(*wrong[name])

    return test_figures_say_what_they_show, test_what_does_not_fit_is_refused_in_one_line
