"""Task "plot": the figures of every run. Those that need the true posterior are here, above `iwae.figures`."""

import numpy as np
from matplotlib.figure import Figure

from iwae.diagnostics import grid, quadrature
from iwae.figures import curves, densities, latent, pictures, style
from iwae.figures.posterior import chosen_inputs, posterior_input_of
from iwae.runs.run import Run


def one_dimensional(run: Run) -> dict[str, Figure]:
    """The densities of a model of one-dimensional data; {} for other models."""
    if run.dataset.image_shape is not None or not quadrature.applies(run.model):
        return {}
    data = run.dataset.test
    x = np.linspace(*densities.span(data[:, 0]), 401)
    shown = quadrature.one_dimensional(run.model, x, posterior_x=float(np.median(data)))
    return densities.one_dimensional_of(run, shown)


def posterior_input(run: Run) -> dict[str, Figure]:
    """True posterior beside q and q_IW for the chosen inputs; {} if not images with two latent units."""
    if run.dataset.image_shape is None or run.model.latent_units != (2,):
        return {}
    numbers = chosen_inputs(run)
    return posterior_input_of(run, numbers, grid.on_grid(run.model, run.images("test")[numbers], run.experiment.seed))


FIGURES: tuple[style.OfRun, ...] = (
    *(*curves.OF_EVERY_RUN, *pictures.OF_EVERY_RUN, *densities.OF_EVERY_RUN, *latent.OF_EVERY_RUN),
    *(one_dimensional, posterior_input),
)


def figures_of(run: Run) -> dict[str, Figure]:
    """All of them, by the name of the file; `style.save_all` writes them.

    Raises:
        RunError: the log is damaged.
        ValueError: two figures have one name.
    """
    made: dict[str, Figure] = {}
    for draw in FIGURES:
        drawn = draw(run)
        if twice := made.keys() & drawn.keys():
            raise ValueError(f"figures: expected one of each name, got two called {min(twice)!r}")
        made |= drawn
    return made
