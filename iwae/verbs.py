"""What is done with a trained model, on arrays of any length: the work is cut into parts that fit into memory.

Images are [n, D], or [n, ...] with D numbers each; `seed` is one integer, and the same one gives the same numbers.
"""

import numpy as np
from numpy.typing import ArrayLike

from iwae import evaluation, resampling
from iwae.model import IWAE

PART = 1000  # latent vectors that are decoded at once


def reconstruct(model: IWAE, x: ArrayLike, k: int = 1, seed: int = 0) -> np.ndarray:
    """E[x | z_1] for one draw z_1 of the posterior of each image: [n, D]; for Bernoulli pixels their probabilities.

    The draw is from q(z | x); with k > 1 it is one of k such draws, picked by its importance weight.
    """
    images = _images(model, x)
    return _decoded(model, model.joined(resampling.resample(model, images, k, seed)[0], images))


def embed(model: IWAE, x: ArrayLike, k: int = 1, seed: int = 0) -> list[np.ndarray]:
    """Posterior means of every stochastic layer, from the data upwards: each [n, D_l].

    Those of q(z | x), above the lowest layer averaged over samples of the layers below; with k > 1 those of the true
    posterior, estimated by k draws of q(z | x) and their normalised importance weights.
    """
    images = _images(model, x)
    if k == 1:
        return evaluation.posterior_means(model, images, seed)
    return resampling.weighted_mean(model, images, k, seed)


def impute(model: IWAE, x: ArrayLike, k: int = 1000, seed: int = 0) -> np.ndarray:
    """x [n, D] of a model with `missing`, each NaN replaced by its mean given the pixels that are known.

    E[x_missing | x_known] by k draws of q and their normalised importance weights (Mattei & Frellsen 2019).
    """
    images = _images(model, x)
    (mean,) = resampling.weighted_mean(
        model, images, k, seed, lambda samples, x: [model.decode_mean(model.joined(samples[0], x))]
    )
    pixels = images[:, : model.input_dim]
    return np.where(np.isnan(pixels), mean, pixels)


def interpolate(model: IWAE, x1: ArrayLike, x2: ArrayLike, steps: int = 10, seed: int = 0) -> np.ndarray:
    """E[x | z_1] on the straight line from the posterior mean of z_1 (`embed`) of images x1 to that of x2.

    Both ends are among the steps: x1, x2 [n, ...] -> [steps, n, D]. Of a conditional model the class goes along.
    """
    start, end = (np.asarray(model.joined(embed(model, x, seed=seed)[0], model.as_images(x))) for x in (x1, x2))
    return np.stack([_decoded(model, start + part * (end - start)) for part in np.linspace(0, 1, steps)])


def estimate_log_likelihood(
    model: IWAE, x: ArrayLike, k: int = 5000, seed: int = 0, label: str | None = None
) -> tuple[np.ndarray, float]:
    """log p(x) of each image by L_k, a lower bound in expectation: [n], and the standard error of their mean; nats.

    `label` is of a progress bar; None for no bar.

    Raises:
        evaluation.NonFiniteLogWeight: a result is not finite; the message tells the image.
    """
    result = evaluation.importance_sample(model, _images(model, x), k, seed, (), label=label)["log_likelihood_bound"]
    return result, evaluation.standard_error(result.astype(np.float64))


def _images(model: IWAE, x: ArrayLike) -> np.ndarray:
    model.check(x, stacklevel=4)
    return model.as_images(x).numpy()


def _decoded(model: IWAE, z: np.ndarray) -> np.ndarray:
    z = np.asarray(z, np.float32)
    parts = [model.decode_mean(z[start : start + PART]) for start in range(0, len(z), PART)]
    return np.concatenate(parts)
