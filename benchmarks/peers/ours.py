"""This project, as its own benchmark runs it."""

import time
from typing import Any

import numpy as np
import tensorflow as tf

from iwae import config, device, evaluation, hardware
from iwae.benchmark import timing
from iwae.benchmark.cases import Case
from iwae.model import IWAE
from peers import task


def assign(model: IWAE, weights: task.Weights) -> None:
    for variable, values in zip(model.encoder_variables + model.decoder_variables, task.flatten(weights), strict=True):
        variable.assign(values)


class Program:
    def __init__(self) -> None:
        self.device = "gpu" if hardware.on_gpu() else "cpu"
        self.rate = timing.matrix_product_rate()

    def use_tf32(self, wanted: bool) -> None:
        device.use_tf32(wanted)

    def gradients(self, weights: task.Weights, x: np.ndarray, noise: list[np.ndarray]) -> tuple[np.ndarray, list[Any]]:
        model = IWAE(task.PIXELS, k=len(noise[0]), **config.PAPER_NETWORKS[len(noise)])
        assign(model, weights)

        @tf.function(jit_compile=True)
        def compute(x: tf.Tensor, noise: list[tf.Tensor]) -> Any:
            values = model.objective(model.log_weight_terms(x, noise).log_weights())
            shares = tf.fill([x.shape[0]], 1 / x.shape[0])
            _, found = model.estimator(model, model.objective, x, noise, shares, tf.zeros_like(shares))
            return values, found

        values, found = compute(tf.constant(x), [tf.constant(n) for n in noise])
        of = {id(v): g.numpy() for v, g in zip(model.trainable_variables, found, strict=True)}
        return values.numpy(), [of[id(v)] for v in model.encoder_variables + model.decoder_variables]

    def train(self, case: Case, weights: task.Weights) -> task.Train:
        model, update = timing.prepare(case)
        assign(model, weights)

        def run() -> tuple[float, float]:
            model.bound_tracker.reset_state()
            return update(), float(model.bound_tracker.result())

        return run

    def evaluate(self, case: Case, weights: task.Weights, x: np.ndarray) -> task.Evaluate:
        model = IWAE(task.PIXELS, k=case.k, **config.PAPER_NETWORKS[case.layers])
        assign(model, weights)
        compiled, numbers = evaluation.compile_importance_sampling(model, case.k), np.arange(len(x))

        def run() -> tuple[float, np.ndarray]:
            started = time.perf_counter()
            values = compiled(x, numbers, 1)["log_likelihood_bound"]
            return (time.perf_counter() - started) / len(x), values

        return run
