"""Keras: an ordinary subclassed model and `fit`, one batch a step, compiled by XLA."""

import math
import time
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from iwae import config, device, hardware
from iwae.benchmark.cases import Case, updates_at_once
from peers import task

LOG_2PI = math.log(2 * math.pi)


class Gaussian(keras.layers.Layer):
    def __init__(self, hidden: list[int], units: int):
        super().__init__()
        self.hidden = [keras.layers.Dense(size, activation="tanh") for size in hidden]
        self.mean, self.log_std = keras.layers.Dense(units), keras.layers.Dense(units)

    def call(self, x: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        for layer in self.hidden:
            x = layer(x)
        return self.mean(x), self.log_std(x)


class Model(keras.Model):
    def __init__(self, layers: int, k: int):
        super().__init__()
        self.k = k
        self.sizes = config.PAPER_NETWORKS[layers]
        units, hidden = self.sizes["latent_units"], self.sizes["hidden_units"]
        self.encoder = [Gaussian(sizes, size) for sizes, size in zip(hidden, units, strict=True)]
        self.pixels = keras.Sequential(
            [keras.layers.Dense(size, activation="tanh") for size in hidden[0][::-1]]
            + [keras.layers.Dense(task.PIXELS)]
        )
        self.priors = [Gaussian(sizes[::-1], size) for sizes, size in zip(hidden[1:], units[:-1], strict=True)]
        self.bound_metric = keras.metrics.Mean(name="bound")

    def start(self, weights: task.Weights) -> None:
        self.bound(tf.zeros([1, task.PIXELS]), self.noise(1))  # builds the layers
        for variable, values in zip(self.in_order(), task.flatten(weights), strict=True):
            variable.assign(values)

    def in_order(self) -> list[keras.Variable]:
        return [v for layer in (*self.encoder, self.pixels, *self.priors) for v in layer.trainable_variables]

    def noise(self, batch: int) -> list[tf.Tensor]:
        return [tf.random.normal([self.k, batch, units]) for units in self.sizes["latent_units"]]

    def bound(self, x: tf.Tensor, noise: list[tf.Tensor]) -> tf.Tensor:
        """L_k [B] of x [B, D] for noise, each [k, B, D_l]."""
        samples, total = [], 0.0
        for layer, epsilon in zip(self.encoder, noise, strict=True):
            mean, log_std = layer(samples[-1] if samples else x)
            samples.append(mean + tf.exp(log_std) * epsilon)
            total += tf.reduce_sum(0.5 * (LOG_2PI + epsilon**2) + log_std, axis=-1)
        for z, layer, above in zip(samples[:-1], self.priors, samples[1:], strict=True):
            mean, log_std = layer(above)
            total -= tf.reduce_sum(0.5 * (LOG_2PI + ((z - mean) * tf.exp(-log_std)) ** 2) + log_std, axis=-1)
        total -= 0.5 * tf.reduce_sum(LOG_2PI + samples[-1] ** 2, axis=-1)
        logits = self.pixels(samples[0])
        crossed = tf.nn.sigmoid_cross_entropy_with_logits(tf.broadcast_to(x, tf.shape(logits)), logits)
        return tf.reduce_logsumexp(total - tf.reduce_sum(crossed, axis=-1), axis=0) - math.log(self.k)

    def train_step(self, x: tf.Tensor) -> dict[str, tf.Tensor]:
        x = tf.cast(tf.random.uniform(x.shape) < x, tf.float32)
        with tf.GradientTape() as tape:
            loss = -tf.reduce_mean(self.bound(x, self.noise(x.shape[0])))
        self.optimizer.apply_gradients(
            zip(tape.gradient(loss, self.trainable_variables), self.trainable_variables, strict=True)
        )
        self.bound_metric.update_state(-loss)
        return {"bound": self.bound_metric.result()}

    def predict_step(self, x: tf.Tensor) -> tf.Tensor:
        return self.bound(x, self.noise(x.shape[0]))


class Clock(keras.callbacks.Callback):
    """When the first batch of an epoch ended and when the last: without what `fit` and `predict` prepare."""

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        self.ended = time.perf_counter()
        if batch == 0:
            self.started = self.ended

    on_predict_batch_end = on_train_batch_end


class Program:
    def __init__(self) -> None:
        self.device = "gpu" if hardware.on_gpu() else "cpu"

    def model(self, layers: int, k: int, weights: task.Weights) -> Model:
        keras.utils.set_random_seed(5)
        model = Model(layers, k)
        model.start(weights)
        model.compile(optimizer=keras.optimizers.Adam(task.LEARNING_RATE, epsilon=task.EPSILON), jit_compile=True)
        return model

    def use_tf32(self, wanted: bool) -> None:
        device.use_tf32(wanted)

    def gradients(self, weights: task.Weights, x: np.ndarray, noise: list[np.ndarray]) -> tuple[np.ndarray, list[Any]]:
        model = self.model(len(noise), len(noise[0]), weights)

        @tf.function(jit_compile=True)
        def compute(x: tf.Tensor, noise: list[tf.Tensor]) -> Any:
            with tf.GradientTape() as tape:
                values = model.bound(x, noise)
                mean = tf.reduce_mean(values)
            return values, tape.gradient(mean, model.in_order())

        values, found = compute(tf.constant(x), [tf.constant(n) for n in noise])
        return values.numpy(), [g.numpy() for g in found]

    def train(self, case: Case, weights: task.Weights) -> task.Train:
        rows = updates_at_once(case.k, self.device == "gpu")
        model, clock = self.model(case.layers, case.k, weights), Clock()
        images = tf.data.Dataset.from_tensor_slices(task.training_images()).cache().shuffle(100 * task.BATCH)
        images = images.batch(task.BATCH, drop_remainder=True).take(rows).prefetch(tf.data.AUTOTUNE)

        def run() -> tuple[float, float]:
            history = model.fit(images, shuffle=False, verbose=0, callbacks=[clock]).history
            return (clock.ended - clock.started) / (rows - 1), history["bound"][-1]

        return run

    def evaluate(self, case: Case, weights: task.Weights, x: np.ndarray) -> task.Evaluate:
        model, clock = self.model(case.layers, case.k, weights), Clock()
        images = tf.data.Dataset.from_tensor_slices(x).batch(1, drop_remainder=True)

        def run() -> tuple[float, np.ndarray]:
            values = model.predict(images, verbose=0, callbacks=[clock])
            return (clock.ended - clock.started) / (len(x) - 1), values

        return run
