"""What is timed, and how it is written on the command line. No TensorFlow here."""

import argparse
import itertools
from typing import Any, NamedTuple

from iwae import config

PIXELS, BATCH, EXAMPLES = 784, 20, 59_600
EVALUATION_K = 5000


class Case(NamedTuple):
    """One thing that is timed; written TASK:LAYERS:K[:OBJECTIVE[:ESTIMATOR]] on the command line."""

    task: str  # train, evaluate or start
    layers: int
    k: int
    objective: str = "iwae"
    estimator: str = "reparameterized"

    def __str__(self) -> str:
        parts = [self.task, self.layers, self.k]
        return ":".join(map(str, parts + ([self.objective, self.estimator] if self.task == "train" else [])))


def all_cases() -> list[Case]:
    cases = []
    for layers, k, objective in itertools.product(config.PAPER_NETWORKS, (1, 5, 50), ("vae", "iwae")):
        cases.append(Case("train", layers, k, objective))
        if objective == "iwae":
            estimators = ("sampled", "sticking_the_landing", "dreg")
            cases += [Case("train", layers, k, objective, name) for name in estimators]
    return cases + [Case("evaluate", layers, EVALUATION_K) for layers in config.PAPER_NETWORKS] + [Case("start", 1, 50)]


SCALING_K = (1, 2, 5, 10, 20, 50, 100, 200, 500)
KERNELS = [
    Case("train", layers, k, "iwae", name)
    for layers, k, name in itertools.product(config.PAPER_NETWORKS, (1, 5, 50), ("reparameterized", "dreg"))
]
QUICK = [Case("train", 1, 1), Case("train", 1, 50), Case("train", 1, 50, "iwae", "sampled"), Case("evaluate", 1, 5000)]


def parse_case(text: str) -> Case:
    try:
        task, layers, k, *rest = text.split(":")
        case = Case(task, int(layers), int(k), *rest)
        if case.task not in ("train", "evaluate", "start") or case.layers not in config.PAPER_NETWORKS:
            raise ValueError("of tasks there are train, evaluate and start, of layers 1 and 2")
        parameters: dict[str, Any] = {"k": case.k, "objective": case.objective, "estimator": case.estimator}
        config.Experiment("benchmark", model=config.Model(**parameters, **config.PAPER_NETWORKS[case.layers]))
    except (ValueError, TypeError) as error:
        raise argparse.ArgumentTypeError(f"{text!r} is no TASK:LAYERS:K[:OBJECTIVE[:ESTIMATOR]]: {error}") from None
    return case
