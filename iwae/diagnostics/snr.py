"""Signal-to-noise ratio of the gradient estimators against the number of importance samples k.

Rainforth et al. 2018, "Tighter variational bounds are not necessarily better": for the encoder it falls as 1 / sqrt(k),
for the decoder it rises as sqrt(k). Tucker et al. 2018 cure the former (`iwae.estimators.dreg`).
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import tensorflow as tf
from matplotlib.figure import Figure

from iwae import bounds, estimators, progress, rng
from iwae.figures import curves
from iwae.figures.posterior import chosen_inputs
from iwae.model import IWAE
from iwae.runs.run import Run

ENTRIES = ("gradient_snr",)  # of evaluation.json
MAX_REPEATS = 1000
UNBIASED = ("dreg", "sampled", "reparameterized")


def signal_to_noise(
    model: IWAE,
    images: np.ndarray,
    ks: Sequence[int],
    samples: int,
    seed: int,
    names: Sequence[str] | None = None,
    label: str | None = None,
) -> dict[str, np.ndarray]:
    """Signal-to-noise ratio of the gradient of the mean of L_k over the images, whatever the model was trained on.

    For all weights of the encoder (and of the decoder) together it is |E g| / sqrt(E |g - E g|^2), g being the gradient
    that one draw of the noise gives. |E g|^2 is estimated without bias. Unbiased estimators have the same E g, so it is
    taken from `dreg` for all of them where that is one of `names`: the others would need far more repeats to see it.

    Args:
        model: an `IWAE`.
        images: [B, D].
        ks: numbers of importance samples.
        samples: importance samples an image drawn for each of them, in gradients of k samples each, of which there are
            2 at least and `MAX_REPEATS` at most.
        seed: of all noise.
        names: of the estimators; None: all of them.
        label: of the progress bar; None for no bar.

    Returns:
        By estimator, [2, len(ks)]: the ratios of the encoder's and of the decoder's gradient.
    """
    names = tuple(names or estimators.ESTIMATORS)
    x, results = tf.constant(images, tf.float32), []
    beta = model.beta.numpy()
    model.beta.assign(1.0)  # of L_k, whatever the model was trained on
    try:
        with progress.Bar(len(ks), label) as bar:
            for k in ks:
                results.append(_ratios(model, x, k, min(MAX_REPEATS, max(2, samples // k)), seed, names))
                bar.advance()
    finally:
        model.beta.assign(beta)
    return {name: np.stack([result[name] for result in results], axis=1) for name in names}


def _ratios(
    model: IWAE, x: tf.Tensor, k: int, repeats: int, seed: int, names: tuple[str, ...]
) -> dict[str, np.ndarray]:
    """By estimator [2], for the encoder and the decoder."""
    variables = model.trainable_variables
    parts = [{id(v) for v in part} for part in (model.encoder_variables, model.decoder_variables)]

    def squares(gradients: Sequence[tf.Tensor]) -> tf.Tensor:
        """Squared length of what belongs to the encoder and to the decoder: [2]."""
        return tf.stack(
            [
                tf.add_n([tf.reduce_sum(g**2) for g, v in zip(gradients, variables, strict=True) if id(v) in part])
                for part in parts
            ]
        )

    @tf.function(jit_compile=False)
    def compiled(x: tf.Tensor, seed: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        weights = tf.fill([x.shape[0]], 1 / x.shape[0])

        def repeat(
            i: tf.Tensor, sums: list[list[tf.Tensor]], sums_of_squares: tf.Tensor
        ) -> tuple[tf.Tensor, list[list[tf.Tensor]], tf.Tensor]:
            seeds = [rng.fold(rng.fold(seed, i), j) for j in range(2)]
            noise, uniform = model.draw_noise(k, x.shape[0], seeds[0]), rng.uniform(x.shape[:1], seeds[1])
            gradients = [
                estimators.get(name)(model, bounds.importance_weighted, x, noise, weights, uniform)[1] for name in names
            ]
            sums = tf.nest.map_structure(tf.add, sums, gradients)
            return i + 1, sums, sums_of_squares + tf.stack([squares(g) for g in gradients])

        zeros = [[tf.zeros(v.shape) for v in variables] for _ in names]
        start = (0, zeros, tf.zeros([len(names), 2]))
        _, sums, sums_of_squares = tf.while_loop(lambda i, *_: i < repeats, repeat, start)
        return tf.stack([squares(g) for g in sums]), sums_of_squares

    of_sums, sums_of_squares = (values.numpy().astype(np.float64) for values in compiled(x, tf.constant([seed, k])))
    signals = (of_sums - sums_of_squares) / (repeats * (repeats - 1))
    ratios = {}
    for i, name in enumerate(names):
        own = signals[i]
        shared = signals[names.index("dreg")] if name in UNBIASED and "dreg" in names else own
        variance = sums_of_squares[i] / repeats - own
        # Where no gradient flows there is no signal: 0, not 0 / 0.
        ratios[name] = np.sqrt(np.maximum(shared, 0) / np.maximum(variance, np.finfo(np.float64).tiny))
    return ratios


def run(run: Run) -> tuple[dict[str, Any], dict[str, Figure]]:
    """Task "snr": the ratios over k, for the chosen inputs.

    -> the entries of evaluation.json and the figures, by name.
    """
    settings, numbers = run.experiment.evaluation, chosen_inputs(run)
    ratios = signal_to_noise(
        run.model,
        run.images("test")[numbers],
        settings.snr_k,
        settings.snr_samples,
        run.experiment.seed,
        label="signal to noise",
    )
    pairs = {name: (encoder, decoder) for name, (encoder, decoder) in ratios.items()}
    values = {name: dict(zip(("encoder", "decoder"), pair.tolist(), strict=True)) for name, pair in ratios.items()}
    entry = {"inputs": numbers.tolist(), "samples": settings.snr_samples, "k": list(settings.snr_k), **values}
    return {"gradient_snr": entry}, {"gradient_snr": curves.gradient_snr(settings.snr_k, pairs, run.title)}


def told(entries: Mapping[str, Any]) -> list[str]:
    """What `run` measured, as a table for the terminal."""
    found = entries["gradient_snr"]
    rows = [("estimator", "k =", *map(str, found["k"]))]
    for name in (name for name in estimators.ESTIMATORS if name in found):
        rows += [(name, part, *(f"{value:.3g}" for value in found[name][part])) for part in ("encoder", "decoder")]
    lines = ["  " + f"{name:<21}{part:<8}" + "".join(f"{cell:>8}" for cell in cells) for name, part, *cells in rows]
    return [f"signal to noise of the gradient, {len(found['inputs'])} test examples:", *lines]
