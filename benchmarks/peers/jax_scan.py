"""JAX: `lax.scan` over updates in one jitted function, the training set on the device, Adam by hand."""

import functools
import math
import time
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from iwae.benchmark.cases import Case, updates_at_once
from peers import task

LOG_2PI = math.log(2 * math.pi)
jax.config.update("jax_default_matmul_precision", "highest")  # float32 on a GPU too


@jax.custom_vjp
def bernoulli_log_prob(x, features, kernel, bias):
    """log Bernoulli(x; sigmoid(features kernel + bias)): x [B, D], features [k, B, H] -> [k, B]."""
    return _forward(x, features, kernel, bias)[0]


def _forward(x, features, kernel, bias):
    logits = features @ kernel + bias
    factors = 1 + jnp.exp(-jnp.abs(logits))
    for _ in range(4):  # one logarithm for 16 pixels, as in `iwae.layers`
        half = factors.shape[-1] // 2
        factors = factors[..., :half] * factors[..., half:]
    linear = jnp.sum(x * logits - jnp.maximum(logits, 0), axis=-1)
    residual = x - jax.nn.sigmoid(logits)
    return linear - jnp.sum(jnp.log(factors), axis=-1), (x, features, kernel, residual)


def _backward(kept, upstream):
    x, features, kernel, residual = kept
    weighted = upstream[..., None] * features
    of_kernel = jnp.einsum("kbh,kbd->hd", weighted, residual)
    of_bias = jnp.einsum("kb,kbd->d", upstream, residual)
    return jnp.zeros_like(x), upstream[..., None] * (residual @ kernel.T), of_kernel, of_bias


bernoulli_log_prob.defvjp(_forward, _backward)


def hidden(network, inputs):
    for kernel, bias in network:
        inputs = jnp.tanh(inputs @ kernel + bias)
    return inputs


def gaussian(network, inputs):
    """Mean and log standard deviation."""
    features = hidden(network[:-2], inputs)
    return [features @ kernel + bias for kernel, bias in network[-2:]]


def log_weights(weights, x, noise):
    """x [B, D], noise for each layer [k, B, D_l] -> [k, B], nats."""
    encoder, decoder = weights
    samples, total = [], 0.0
    for network, epsilon in zip(encoder, noise, strict=True):
        mean, log_std = gaussian(network, samples[-1] if samples else x)
        samples.append(mean + jnp.exp(log_std) * epsilon)
        total += jnp.sum(0.5 * (LOG_2PI + epsilon**2) + log_std, axis=-1)
    for z, network, above in zip(samples[:-1], decoder[1:], samples[1:], strict=True):
        mean, log_std = gaussian(network, above)
        total -= jnp.sum(0.5 * (LOG_2PI + ((z - mean) * jnp.exp(-log_std)) ** 2) + log_std, axis=-1)
    total -= jnp.sum(0.5 * (LOG_2PI + samples[-1] ** 2), axis=-1)
    features = hidden(decoder[0][:-1], samples[0])
    return total + bernoulli_log_prob(x, features, *decoder[0][-1])


def bound(weights, x, noise):
    """The mean of L_k over the batch, and L_k itself [B]."""
    values = jax.nn.logsumexp(log_weights(weights, x, noise), axis=0) - math.log(noise[0].shape[0])
    return jnp.mean(values), values


def draw_noise(key, k, batch, weights):
    sizes = [network[-1][1].shape[0] for network in weights[0]]
    keys = jax.random.split(key, len(sizes))
    return [jax.random.normal(key, (k, batch, size)) for key, size in zip(keys, sizes, strict=True)]


@functools.partial(jax.jit, static_argnames="k", donate_argnums=0)
def run_updates(state, images, indices, key, k):
    def update(state, index):
        weights, first, second, step = state
        of_images, of_noise = jax.random.split(jax.random.fold_in(key, step))
        x = jax.random.bernoulli(of_images, images[index]).astype(jnp.float32)
        noise = draw_noise(of_noise, k, len(index), weights)
        (value, _), gradients = jax.value_and_grad(bound, has_aux=True)(weights, x, noise)
        step = step + 1
        first = jax.tree.map(lambda m, g: m + (1 - task.BETA_1) * (g - m), first, gradients)
        second = jax.tree.map(lambda v, g: v + (1 - task.BETA_2) * (g * g - v), second, gradients)
        rate = task.LEARNING_RATE * jnp.sqrt(1 - task.BETA_2**step) / (1 - task.BETA_1**step)
        weights = jax.tree.map(lambda w, m, v: w + rate * m / (jnp.sqrt(v) + task.EPSILON), weights, first, second)
        return (weights, first, second, step), value

    return lax.scan(update, state, indices)


@functools.partial(jax.jit, static_argnames="k")
def bound_of_many(weights, x, key, k):
    """L_k [B] with a running log-sum-exp over chunks of the samples."""

    def chunk(total, number):
        noise = draw_noise(jax.random.fold_in(key, number), task.CHUNK, len(x), weights)
        return jnp.logaddexp(total, jax.nn.logsumexp(log_weights(weights, x, noise), axis=0)), None

    total, _ = lax.scan(chunk, jnp.full(len(x), -jnp.inf), jnp.arange(k // task.CHUNK))
    return total - math.log(k)


class Program:
    def __init__(self) -> None:
        self.device = jax.default_backend()

    def use_tf32(self, wanted: bool) -> None:
        jax.config.update("jax_default_matmul_precision", "tensorfloat32" if wanted else "highest")

    def gradients(self, weights: task.Weights, x: np.ndarray, noise: list[np.ndarray]) -> tuple[np.ndarray, list[Any]]:
        (_, values), found = jax.jit(jax.value_and_grad(bound, has_aux=True))(weights, x, noise)
        return np.asarray(values), [np.asarray(g) for g in task.flatten(found)]

    def train(self, case: Case, weights: task.Weights) -> task.Train:
        rows = updates_at_once(case.k, self.device == "gpu")
        images = jnp.asarray(task.training_images())
        weights = jax.tree.map(jnp.asarray, weights)
        state = weights, *(jax.tree.map(jnp.zeros_like, weights) for _ in range(2)), 0
        generator, key = np.random.default_rng(4), jax.random.key(5)

        def run() -> tuple[float, float]:
            nonlocal state
            started = time.perf_counter()
            indices = generator.permutation(len(images))[: rows * task.BATCH].reshape(rows, task.BATCH)
            state, values = run_updates(state, images, indices, key, k=case.k)
            mean = float(jnp.mean(values))  # waits
            return (time.perf_counter() - started) / rows, mean

        return run

    def evaluate(self, case: Case, weights: task.Weights, x: np.ndarray) -> task.Evaluate:
        weights = jax.tree.map(jnp.asarray, weights)

        def run() -> tuple[float, np.ndarray]:
            started = time.perf_counter()
            values = np.asarray(bound_of_many(weights, x, jax.random.key(6), k=case.k))
            return (time.perf_counter() - started) / len(x), values

        return run
