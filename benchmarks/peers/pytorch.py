"""PyTorch: modules of linear layers, Adam's fused form; eager, or with the bound and its gradient compiled."""

import math
import time
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from iwae import config
from iwae.benchmark.cases import Case, updates_at_once
from peers import task

LOG_2PI = math.log(2 * math.pi)


class Network(nn.Module):
    def __init__(self, layers: list[tuple[np.ndarray, np.ndarray]], heads: int):
        super().__init__()
        linear = [nn.Linear(*kernel.shape) for kernel, _ in layers]
        for layer, (kernel, bias) in zip(linear, layers, strict=True):
            layer.weight.data = torch.tensor(kernel.T.copy())
            layer.bias.data = torch.tensor(bias)
        self.hidden, self.heads = nn.ModuleList(linear[:-heads]), nn.ModuleList(linear[-heads:])

    def forward(self, x: torch.Tensor) -> list[torch.Tensor]:
        for layer in self.hidden:
            x = torch.tanh(layer(x))
        return [head(x) for head in self.heads]


class Model(nn.Module):
    def __init__(self, weights: task.Weights):
        super().__init__()
        self.encoder = nn.ModuleList(Network(layers, heads=2) for layers in weights[0])
        self.decoder = nn.ModuleList(Network(layers, heads=2 if i else 1) for i, layers in enumerate(weights[1]))

    def log_weights(self, x: torch.Tensor, noise: list[torch.Tensor]) -> torch.Tensor:
        """x [B, D], noise for each layer [k, B, D_l] -> [k, B], nats."""
        samples, total = [], 0.0
        for network, epsilon in zip(self.encoder, noise, strict=True):
            mean, log_std = network(samples[-1] if samples else x)
            samples.append(mean + log_std.exp() * epsilon)
            total = total + (0.5 * (LOG_2PI + epsilon**2) + log_std).sum(-1)
        for z, network, above in zip(samples[:-1], list(self.decoder)[1:], samples[1:], strict=True):
            mean, log_std = network(above)
            total = total - (0.5 * (LOG_2PI + ((z - mean) * torch.exp(-log_std)) ** 2) + log_std).sum(-1)
        total = total - 0.5 * (LOG_2PI + samples[-1] ** 2).sum(-1)
        (logits,) = self.decoder[0](samples[0])
        pixels = functional.binary_cross_entropy_with_logits(logits, x.expand_as(logits), reduction="none")
        return total - pixels.sum(-1)

    def forward(self, x: torch.Tensor, noise: list[torch.Tensor]) -> torch.Tensor:
        """L_k [B]."""
        return torch.logsumexp(self.log_weights(x, noise), 0) - math.log(len(noise[0]))


class Program:
    def __init__(self, compiled: bool) -> None:
        self.compiled = compiled
        self.device = "gpu" if torch.cuda.is_available() else "cpu"
        self.where = {"gpu": "cuda", "cpu": "cpu"}[self.device]

    def model(self, weights: task.Weights) -> Model:
        torch.manual_seed(5)
        return Model(weights).to(self.where)

    def faster(self, function: Any) -> Any:
        return torch.compile(function, dynamic=False, fullgraph=True) if self.compiled else function

    def noise(self, layers: int, k: int, batch: int) -> list[torch.Tensor]:
        return [
            torch.randn(k, batch, units, device=self.where) for units in config.PAPER_NETWORKS[layers]["latent_units"]
        ]

    def use_tf32(self, wanted: bool) -> None:
        torch.set_float32_matmul_precision("high" if wanted else "highest")

    def gradients(self, weights: task.Weights, x: np.ndarray, noise: list[np.ndarray]) -> tuple[np.ndarray, list[Any]]:
        model = self.model(weights)
        given = [torch.tensor(values, device=self.where) for values in (x, *noise)]
        values = self.faster(model)(given[0], given[1:])
        values.mean().backward()
        # nn.Linear keeps its kernel as [O, I].
        return values.detach().cpu().numpy(), [p.grad.cpu().numpy().T for p in model.parameters()]

    def train(self, case: Case, weights: task.Weights) -> task.Train:
        rows, model = updates_at_once(case.k, self.device == "gpu"), self.model(weights)
        images = torch.tensor(task.training_images(), device=self.where)
        bound = self.faster(model)
        optimizer = torch.optim.Adam(
            model.parameters(), task.LEARNING_RATE, (task.BETA_1, task.BETA_2), task.EPSILON, maximize=True, fused=True
        )

        def run() -> tuple[float, float]:
            started = time.perf_counter()
            total = torch.zeros((), device=self.where)
            for indices in torch.randperm(len(images), device=self.where)[: rows * task.BATCH].split(task.BATCH):
                optimizer.zero_grad()
                value = bound(torch.bernoulli(images[indices]), self.noise(case.layers, case.k, task.BATCH)).mean()
                value.backward()
                optimizer.step()
                total += value.detach()
            mean = float(total) / rows  # waits
            return (time.perf_counter() - started) / rows, mean

        return run

    def evaluate(self, case: Case, weights: task.Weights, x: np.ndarray) -> task.Evaluate:
        model, images = self.model(weights), torch.tensor(x, device=self.where)
        log_weights = self.faster(model.log_weights)

        @torch.no_grad()
        def run() -> tuple[float, np.ndarray]:
            started = time.perf_counter()
            total = torch.full((len(x),), -math.inf, device=self.where)
            for _ in range(case.k // task.CHUNK):
                values = log_weights(images, self.noise(case.layers, task.CHUNK, len(x)))
                total = torch.logaddexp(total, torch.logsumexp(values, 0))
            result = (total - math.log(case.k)).cpu().numpy()
            return (time.perf_counter() - started) / len(x), result

        return run
