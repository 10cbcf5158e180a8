"""What is timed, and how it is written on the command line. No TensorFlow here."""

import argparse
import itertools
from typing import Any, NamedTuple

from iwae import config

PIXELS, BATCH, EXAMPLES = 784, 20, 59_600
EVALUATION_K = 5000


class Case(NamedTuple):
    """One thing that is timed; written TASK:LAYERS:K[:OBJECTIVE[:ESTIMATOR[:BATCH]]] on the command line."""

    task: str  # train, evaluate or start
    layers: int
    k: int
    objective: str = "iwae"
    estimator: str = "reparameterized"
    batch: int = BATCH  # of an update

    def __str__(self) -> str:
        of_training = [self.objective, self.estimator, *([self.batch] if self.batch != BATCH else [])]
        return ":".join(map(str, [self.task, self.layers, self.k, *(of_training if self.task == "train" else [])]))


def updates_at_once(k: int, gpu: bool) -> int:
    """Updates that are timed together, by every program: as many as take some tenths of a second on a CPU; on a GPU,
    where they take less, as `training.updates_per_call` has them."""
    return 100 if k <= 5 or gpu else 25


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
        case = Case(task, int(layers), int(k), *rest[:2], *map(int, rest[2:]))  # type: ignore[arg-type]  # two texts
        if case.task not in ("train", "evaluate", "start") or case.layers not in config.PAPER_NETWORKS:
            raise ValueError("of tasks there are train, evaluate and start, of layers 1 and 2")
        parameters: dict[str, Any] = {"k": case.k, "objective": case.objective, "estimator": case.estimator}
        model = config.Model(**parameters, **config.PAPER_NETWORKS[case.layers])
        config.Experiment("benchmark", model=model, data=config.Data(batch_size=case.batch))
    except (ValueError, TypeError) as error:
        form = "TASK:LAYERS:K[:OBJECTIVE[:ESTIMATOR[:BATCH]]]"
        raise argparse.ArgumentTypeError(f"{text!r} is no {form}: {error}") from None
    return case
