"""Pictures that a model makes: samples, reconstructions, and what points of the latent space decode to."""

from collections.abc import Sequence

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from numpy.typing import ArrayLike

from iwae import evaluation, resampling, verbs
from iwae.conditional import ConditionalIWAE
from iwae.figures import style
from iwae.figures.posterior import chosen_inputs
from iwae.figures.style import Array
from iwae.runs.run import Run, label_values

LATENT_GRID = np.linspace(-3, 3, 20)


@style.styled
def samples(means: ArrayLike, draws: ArrayLike, title: str) -> Figure:
    """Images made from draws of the prior: E[x|z] in a grid, and beside it draws from p(x|z).

    Both are [n, H, W], or here and below in colour [n, H, W, 3].
    """
    means = style.pictures("means", means, "n H W")
    count, *shape = means.shape
    draws = style.pictures("draws", draws, "n H W", n=count, H=shape[0], W=shape[1])
    columns = min(count, max(5, int(np.ceil(np.sqrt(count)))))
    rows = -(-count // columns)
    size = _size(means.shape[1:], rows, 2 * columns, 9.5)
    figure, panels = style.figure("Samples from the prior", title, *size, columns=2)
    names = (f"E[x|z]: {_means(means, 1)}", "a draw of every pixel from p(x|z)")
    for axes, images, name in zip(panels, (means, draws), names, strict=True):
        grid = np.full((rows * columns, *shape), np.nan)
        grid[:count] = images
        style.mosaic(axes, grid.reshape(rows, columns, *shape))
        axes.set_xlabel(name)
    return figure


@style.styled
def samples_over_training(images: ArrayLike, epochs: ArrayLike, title: str) -> Figure:
    """Images [r, n, H, W] that a model made after r numbers of epochs, a row each, in a column from the same noise."""
    images = style.pictures("images", images, "r n H W")
    epochs = style.array("epochs", epochs, "r", r=len(images))
    rows, columns, height = images.shape[:3]
    size = _size(images.shape[2:], rows, columns, 7, labels=0.7, ticks=0.2)
    figure, (axes,) = style.figure("Samples while it learned", title, *size)
    style.mosaic(axes, images)
    axes.set_yticks((np.arange(rows) + 0.5) * height - 0.5, [f"{epoch:,.0f}" for epoch in epochs])
    axes.set(ylabel="epochs", xlabel=f"E[x|z], {_means(images, 2)}; in a column the same noise")
    return figure


@style.styled
def reconstructions(images: ArrayLike, reconstructions: ArrayLike, title: str, what: str = "reconstruction") -> Figure:
    """Images [n, H, W] in rows of up to ten, each above its reconstruction [n, H, W] (pixel means).

    Missing pixels of the images are NaN. `what` the others are called.
    """
    images = style.pictures("images", images, "n H W", finite=False)
    count, height, width, *colours = images.shape
    reconstructions = style.pictures("reconstructions", reconstructions, "n H W", n=count, H=height, W=width)
    columns = min(count, 10)
    rows = -(-count // columns)
    grid = np.full((2, rows * columns, height, width, *colours), np.nan)
    grid[:, :count] = images, reconstructions
    grid = grid.reshape(2, rows, columns, height, width, *colours).swapaxes(0, 1)
    grid = grid.reshape(2 * rows, columns, height, width, *colours)
    size = _size(images.shape[1:], 2 * rows, columns, 8, labels=1.2)
    figure, (axes,) = style.figure(f"Test images and their {what}s", title, *size)
    style.mosaic(axes, grid)
    axes.hlines(np.arange(2, 2 * rows, 2) * height - 0.5, -0.5, columns * width - 0.5, color="black", linewidth=1.2)
    axes.set_yticks((np.arange(2 * rows) + 0.5) * height - 0.5, ["image", what] * rows)
    missing = ", missing pixels light blue" if np.isnan(images).any() else ""
    axes.set_xlabel(f"{what}s are {_means(images, 1)}{missing}")
    return figure


@style.styled
def interpolations(images: ArrayLike, title: str) -> Figure:
    """Decoded images [n_pairs, steps, H, W] on the straight way between two latent codes, a row a pair."""
    images = style.pictures("images", images, "n_pairs steps H W")
    rows, columns, _, width = images.shape[:4]
    size = _size(images.shape[2:], rows, columns, 8, ticks=0.3)
    figure, (axes,) = style.figure("Interpolations between two test images", title, *size)
    style.mosaic(axes, images)
    axes.set_anchor("N")  # the layout makes no room for both ticks and a label below an image
    some = slice(None, None, -(-columns // 11))
    share = np.linspace(0, 1, columns)[some]
    axes.set_xticks(((np.arange(columns) + 0.5) * width - 0.5)[some], [f"{step:.2g}" for step in share])
    axes.set_xlabel(f"fraction of the way between the latent codes; {_means(images, 2)}")
    return figure


@style.styled
def latent_grid(images: ArrayLike, z1: ArrayLike, z2: ArrayLike, title: str) -> Figure:
    """Decoded images [r, c, H, W] (pixel means) of a grid of a two-dimensional latent space.

    Image [i, j] is that of (z1[j], z2[i]); z1 [c] and z2 [r] grow to the right and upwards.
    """
    images = style.pictures("images", images, "r c H W")
    rows, columns, height, width = images.shape[:4]
    z1, z2 = style.array("z1", z1, "c", c=columns), style.array("z2", z2, "r", r=rows)
    figure, (axes,) = style.figure(
        "Decoded grid of the latent plane", title, *_size(images.shape[2:], rows, columns, 7, 0.7)
    )
    style.mosaic(axes, images[::-1])
    at_columns, at_rows = (np.arange(columns) + 0.5) * width - 0.5, (rows - np.arange(rows) - 0.5) * height - 0.5
    for axis, z, at in ((axes.xaxis, z1, at_columns), (axes.yaxis, z2, at_rows)):
        ticks = MaxNLocator(8, steps=[1, 2, 5, 10]).tick_values(z[0], z[-1])
        ticks = ticks[(ticks >= z[0]) & (ticks <= z[-1])]
        axis.set_ticks(np.interp(ticks, z, at), [f"{tick:g}".replace("-", "−") for tick in ticks])
    axes.set(xlabel="$z_1$", ylabel="$z_2$")
    return figure


@style.styled
def samples_by_class(images: ArrayLike, names: Sequence[str], title: str) -> Figure:
    """Images [n_classes, columns, H, W] (pixel means), a row a class called as `names` say, a column the same noise."""
    images = style.pictures("images", images, "n_classes columns H W")
    rows, columns, height, _ = images.shape[:4]
    if len(names) != rows:
        raise ValueError(f"names: expected one of each of {rows} classes, got {len(names)}")
    labels = 0.4 + 0.08 * max(map(len, names))
    size = _size(images.shape[2:], rows, columns, 6.5, labels)
    figure, (axes,) = style.figure("Samples from the prior, by class", title, *size)
    style.mosaic(axes, images)
    axes.set_yticks((np.arange(rows) + 0.5) * height - 0.5, names, parse_math=False)
    axes.set(ylabel="class", xlabel=f"a column: the same noise; {_means(images, 2)}")
    return figure


def _means(images: Array, leading: int) -> str:
    return "pixel means (white 0, black 1)" if images.ndim == leading + 2 else "means of the colours"


def _size(
    image: tuple[int, ...], rows: int, columns: int, width: float, labels: float = 0.4, ticks: float = 0.0
) -> tuple[float, float]:
    """Width and height in inches of a figure that is one mosaic, with `labels` inches at its left, `ticks` below."""
    height, across = image[:2]
    return width, (width - labels) * rows * height / (columns * across) + 0.9 + ticks


# ---- from a run: no figure if its data are no images ----


def samples_of(run: Run) -> dict[str, Figure]:
    """64 images from the prior: what the decoder says of every pixel, and pixels as the data have them."""
    seed = run.experiment.seed
    if run.dataset.image_shape is None:
        return {}
    z = run.model.sample_latents(64, (seed, 0))
    means, draws = run.model.decode_mean(z), run.model.decode(z).sample(seed=(seed, 3))
    return {"samples": samples(run.pictures(means), run.pictures(draws), run.title)}


def samples_by_class_of(run: Run) -> dict[str, Figure]:
    """Ten images of each class, or of twenty, from the prior, with the same noise for all classes; of a condition."""
    model = run.model
    if run.dataset.image_shape is None or not isinstance(model, ConditionalIWAE):
        return {}
    chosen = evaluation.spread(model.classes, 20)
    images = [run.pictures(model.sample(10, (run.experiment.seed, 0), np.repeat(label, 10))) for label in chosen]
    names = [run.dataset.class_name(label) for label in label_values(run.dataset)[chosen]]
    return {"samples_by_class": samples_by_class(np.stack(images), names, run.title)}


def samples_over_training_of(run: Run) -> dict[str, Figure]:
    """Ten images from the prior after 1, 2, 4, ... epochs."""
    kept = run.folder.read_samples()
    if run.dataset.image_shape is None or not kept:
        return {}
    return {"samples_over_training": samples_over_training(run.pictures(list(kept.values())), list(kept), run.title)}


def reconstructions_of(run: Run) -> dict[str, Figure]:
    """40 test images beside E[x | z_1], for z_1 a draw of q, and for one of many draws, picked by its weight."""
    seed, test = run.experiment.seed, run.images("test")
    if run.dataset.image_shape is None:
        return {}
    chosen, k = test[evaluation.spread(len(test), 40)], resampling.PROPOSALS

    def beside(z: ArrayLike, title: str) -> Figure:
        means = run.model.decode_mean(run.model.joined(z, chosen))
        return reconstructions(run.pictures(chosen), run.pictures(means), title)

    resampled = resampling.resample(run.model, chosen, k, seed)[0]
    title = f"{run.title}; of one of {k} draws from q(z|x), picked by its weight"
    return {
        "reconstructions": beside(run.model.encode(chosen, 1, (seed, 1))[0][0], run.title),
        "reconstructions_resampled": beside(resampled, title),
    }


def imputations_of(run: Run) -> dict[str, Figure]:
    """Up to 40 test images with missing pixels, and what is imputed; none if no pixels are missing."""
    test = run.images("test")
    test = test[np.isnan(test).any(axis=1)]
    if run.dataset.image_shape is None or not len(test):
        return {}
    chosen = test[evaluation.spread(len(test), 40)]
    imputed = verbs.impute(run.model, chosen, seed=run.experiment.seed)
    title = f"{run.title}; the mean of the missing pixels given the others"
    return {"imputations": reconstructions(run.pictures(chosen), run.pictures(imputed), title, "imputation")}


def interpolations_of(run: Run) -> dict[str, Figure]:
    """Straight ways between the codes, and conditions, of the chosen inputs, two by two."""
    numbers = chosen_inputs(run)
    if run.dataset.image_shape is None or len(numbers) < 2:
        return {}
    ends = run.images("test")[numbers[: len(numbers) // 2 * 2]]
    # Codes are resampled draws: q's mean may be far from where the image is.
    codes = resampling.resample(run.model, ends, resampling.PROPOSALS, run.experiment.seed)[-1]
    codes = np.asarray(run.model.joined(codes, ends))
    pairs, way = codes.reshape(-1, 2, codes.shape[1]), np.linspace(0, 1, 11)[:, None]
    steps = pairs[:, :1] + way * (pairs[:, 1:] - pairs[:, :1])
    return {"interpolations": interpolations(_from_the_top(run, steps), run.title)}


def latent_grid_of(run: Run) -> dict[str, Figure]:
    """The latent plane of a model with two latent units and no condition."""
    if run.dataset.image_shape is None or run.model.latent_units != (2,) or run.model.classes:
        return {}
    plane = np.stack(np.meshgrid(LATENT_GRID, LATENT_GRID), axis=-1)
    return {"latent_grid": latent_grid(_from_the_top(run, plane), LATENT_GRID, LATENT_GRID, run.title)}


def _from_the_top(run: Run, z: Array) -> Array:
    """E[x] where all layers below z [..., D_L], or with a condition [..., D_L + C], are at their means: [..., H, W]."""
    flat = z.reshape(-1, z.shape[-1]).astype(np.float32)
    below, condition = np.split(flat, [run.model.latent_units[-1]], axis=1)
    for decoder in run.model.decoder[:0:-1]:
        below, _ = decoder(below)
    means = np.asarray(run.model.decode_mean(np.concatenate([below, condition], axis=1)))
    return run.pictures(means.reshape(*z.shape[:-1], -1))


OF_EVERY_RUN: tuple[style.OfRun, ...] = (
    samples_of,
    samples_by_class_of,
    samples_over_training_of,
    reconstructions_of,
    imputations_of,
    interpolations_of,
    latent_grid_of,
)
