"""What all programs do alike: the paper's networks, images, weights to start from, the numbers of a run.

Weights are two lists of networks, encoders and decoders, each with a network a stochastic layer from the data upwards.
A network is a list of (kernel [I, O], bias [O]): tanh layers, then one head (logits) or two (mean, log std).
"""

from collections.abc import Callable
from typing import Any, Protocol

import numpy as np

from iwae import config
from iwae.benchmark.cases import BATCH, PIXELS, Case

LEARNING_RATE, BETA_1, BETA_2, EPSILON = 1e-3, 0.9, 0.999, 1e-4
CHUNK = 250  # samples of an image at once in evaluation, for all programs

Weights = tuple[list[list[Any]], list[list[Any]]]
Train = Callable[[], tuple[float, float]]  # -> seconds an update, mean bound (nats) over the updates of this call
Evaluate = Callable[[], tuple[float, np.ndarray]]  # -> seconds an image, L_k of each image


class Program(Protocol):
    device: str  # "cpu" or "gpu"

    def use_tf32(self, wanted: bool) -> None:
        """Whether a GPU multiplies in TF32 in what is compiled or, where nothing is compiled, run from now on."""

    def gradients(self, weights: Weights, x: np.ndarray, noise: list[np.ndarray]) -> tuple[np.ndarray, list[Any]]:
        """L_k [B] of x [B, D] for given noise, each [k, B, D_l], and the gradients of its mean, see `flatten`."""

    def train(self, case: Case, weights: Weights) -> Train:
        """Updates of `BATCH` images; the first call starts from `weights` and compiles."""

    def evaluate(self, case: Case, weights: Weights, x: np.ndarray) -> Evaluate:
        """L_k of x [n, D], k = `case.k`."""


def training_images() -> np.ndarray:
    """Grey images [n, D], those of `timing.build`: speed does not depend on what they show."""
    return np.random.default_rng(1).random((100 * BATCH, PIXELS), np.float32) * 0.3


def binary_images(count: int) -> np.ndarray:
    return np.random.default_rng(1).binomial(1, 0.5, (count, PIXELS)).astype(np.float32)


def noise(layers: int, k: int, batch: int) -> list[np.ndarray]:
    generator = np.random.default_rng(2)
    units = config.PAPER_NETWORKS[layers]["latent_units"]
    return [generator.standard_normal((k, batch, size), np.float32) for size in units]


def start(layers: int, scale: float = 1.0) -> Weights:
    """Glorot-uniform kernels times `scale`, and biases that are not zero, so that one forgotten is seen."""
    generator = np.random.default_rng(3)

    def network(inputs: int, hidden: list[int], heads: list[int]) -> list[Any]:
        layers = []
        for outputs in (*hidden, *heads):
            limit = scale * np.sqrt(6 / (inputs + outputs))
            kernel = generator.uniform(-limit, limit, (inputs, outputs)).astype(np.float32)
            layers.append((kernel, generator.uniform(-0.1, 0.1, outputs).astype(np.float32)))
            inputs = outputs if len(layers) <= len(hidden) else inputs  # the heads stand side by side
        return layers

    sizes = config.PAPER_NETWORKS[layers]
    encoder, decoder, below = [], [], PIXELS
    for i, (units, hidden) in enumerate(zip(sizes["latent_units"], sizes["hidden_units"], strict=True)):
        encoder.append(network(below, hidden, [units, units]))
        decoder.append(network(units, hidden[::-1], [PIXELS] if i == 0 else [below, below]))
        below = units
    return encoder, decoder


def flatten(weights: Weights) -> list[Any]:
    return [values for part in weights for network in part for layer in network for values in layer]
