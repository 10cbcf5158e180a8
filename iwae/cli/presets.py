"""The experiments of the paper and of its predecessors' reports, by name: `python experiments.py --list`.

A preset is a set of parameters, nothing else; whatever it does not say is the default of `iwae.config`, which is the
paper's protocol. Where a run writes, which tasks it does and its seed come from the parameters at the top of
`experiments.py`.
"""

import dataclasses
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from iwae import config
from iwae.config import ConfigError, Data, Experiment, Model, Training
from iwae.sections import did_you_mean, shown


@dataclass(frozen=True)
class Preset:
    """One run: a line about it, its parameters, and the run whose weights it starts from, if it continues one."""

    about: str
    data: Data
    model: Model
    training: Training = Training()
    continues: str | None = None


_MNIST, _FIXED = Data(name="mnist"), Data(name="binarized_mnist", binarization="fixed")

# Sizes for the synthetic datasets; `camel` as in the report it comes from, the others large enough for their data.
_SYNTHETIC: dict[str, dict[str, Any]] = {
    "camel": {"latent_units": (1,), "hidden_units": ((5, 5),)},
    "two_clusters": {"latent_units": (1,), "hidden_units": ((5, 5),)},
    "linear2dim": {"latent_units": (1,), "hidden_units": ((),)},
    "simple_2_layers": {"latent_units": (2, 2), "hidden_units": ((5, 5), (5, 5))},
    "circle": {"latent_units": (2,), "hidden_units": ((20, 20),)},
}


def _cell(data: Data, objective: str, k: int, layers: int, fast: bool = False) -> tuple[str, Preset]:
    name = f"{data.name}_{objective}_k{k}_{layers}layer{'s' if layers > 1 else ''}"
    depth = {1: "one stochastic layer", 2: "two stochastic layers"}[layers]
    about = f"{name} in less time" if fast else f"{data.name}, {objective.upper()}, k = {k}, {depth}"
    of_model, of_training = config.fast_protocol(k) if fast else ({}, {})
    model = Model(objective=objective, k=k, **config.PAPER_NETWORKS[layers], **of_model)
    return f"{name}_fast" if fast else name, Preset(about, data, model, Training(**of_training))


_TABLE_1 = [(objective, k) for k in (1, 5, 50) for objective in ("vae", "iwae")]
_APPENDIX = [("vae", 1), ("iwae", 5), ("iwae", 50)]


def _cells(data: Data, runs: list[tuple[str, int]], fast: bool = False) -> dict[str, Preset]:
    return dict(_cell(data, objective, k, layers, fast) for layers in (1, 2) for objective, k in runs)


def _table2() -> Iterator[tuple[str, Preset]]:
    """Each of two finished runs goes on with the other's objective, with the rate and the epochs of the last stage."""
    training = Training(schedule="constant", learning_rate=1e-4, epochs=3 ** (Training().stages - 1))
    ends = [("vae", 1), ("iwae", 50)]
    for (objective, k), (next_objective, next_k) in (ends, ends[::-1]):
        name, first = _cell(_MNIST, objective, k, 1)
        yield name, first
        about = f"{name}, then {next_objective.upper()}, k = {next_k}"
        model = dataclasses.replace(first.model, objective=next_objective, k=next_k)
        yield f"{name}_then_{next_objective}_k{next_k}", Preset(about, _MNIST, model, training, continues=name)


def _two_dimensional(fast: bool = False) -> Iterator[tuple[str, Preset]]:
    for objective in ("vae", "iwae"):
        of_model, of_training = config.fast_protocol(50) if fast else ({}, {})
        model = Model(objective=objective, k=50, latent_units=(2,), **of_model)
        name, about = f"mnist_{objective}_k50_2d", f"mnist, {objective.upper()}, k = 50, two latent units"
        if fast:
            name, about = f"{name}_fast", f"{name} in less time"
        yield name, Preset(about, _MNIST, model, Training(**of_training))


_CONVOLUTIONAL = Preset(
    "mnist, IWAE, k = 5, one stochastic layer, convolutions",
    _MNIST,
    Model(objective="iwae", k=5, network="conv", **config.PAPER_NETWORKS[1]),
)


def _synthetic() -> Iterator[tuple[str, Preset]]:
    for dataset, sizes in _SYNTHETIC.items():
        for objective in ("vae", "iwae"):
            model = Model(objective=objective, k=20, likelihood="gaussian", **sizes)
            about = f"{config.DATASETS[dataset]}; {objective.upper()}, k = 20"
            data = Data(name=dataset, binarization="none")
            yield f"{dataset}_{objective}_k20", Preset(about, data, model, Training(stages=5))


_TABLES: dict[str, tuple[str, dict[str, Preset]]] = {
    "table1-mnist": ("table 1 of the paper, MNIST", _cells(_MNIST, _TABLE_1)),
    "table1-omniglot": ("table 1 of the paper, OMNIGLOT", _cells(Data(name="omniglot"), _TABLE_1)),
    "table1-mnist-fast": ("MNIST by a faster protocol", _cells(_MNIST, _TABLE_1, fast=True)),
    "table1-omniglot-fast": ("OMNIGLOT by the faster protocol", _cells(Data(name="omniglot"), _TABLE_1, fast=True)),
    "table1-fixed-fast": ("fixed binarization by the faster protocol", _cells(_FIXED, _APPENDIX, fast=True)),
    "table2": ("table 2 of the paper: one objective, then the other", dict(_table2())),
    "fixed-binarization": ("appendix of the paper: MNIST, fixed binarization", _cells(_FIXED, _APPENDIX)),
    "convolutional": (
        "MNIST by convolutions, beside mnist_iwae_k5_1layer",
        {"mnist_iwae_k5_conv": _CONVOLUTIONAL},
    ),
    "latent-2d": ("two latent units, for pictures of the posterior", dict(_two_dimensional())),
    "latent-2d-fast": ("the same by the faster protocol", dict(_two_dimensional(fast=True))),
    "synthetic": ("synthetic data, density known, Gaussian likelihood", dict(_synthetic())),
}

PRESETS: dict[str, Preset] = {name: preset for _, cells in _TABLES.values() for name, preset in cells.items()}
"""Every preset by its name."""

GROUPS: dict[str, tuple[str, ...]] = {group: tuple(cells) for group, (_, cells) in _TABLES.items()}
"""The names in every group of presets, in the order in which they are run."""


def expand(names: Sequence[str]) -> list[str]:
    """The presets that names of presets and of groups stand for, each once; ConfigError for no name or another one."""
    if not names:
        raise ConfigError("preset: expected a name that --list prints, got none")
    for name in names:
        if name not in PRESETS and name not in GROUPS:
            near = did_you_mean(name, [*GROUPS, *PRESETS])
            raise ConfigError(f"preset: expected a name that --list prints, got {shown(name)}{near}")
    return list(dict.fromkeys(cell for name in names for cell in GROUPS.get(name, (name,))))


def experiment(name: str, default: Experiment) -> Experiment:
    """The experiment of the preset `name`; seed, tasks and where it reads and writes are those of `default`."""
    preset = PRESETS[name]
    data = dataclasses.replace(preset.data, path=default.data.path)
    return dataclasses.replace(
        default, name=name, data=data, model=preset.model, training=preset.training, evaluation=config.Evaluation()
    )


def listing() -> str:
    """What `--list` prints: every group with its presets, a line each."""
    width = max(map(len, PRESETS)) + 3
    lines = []
    for group, (about, cells) in _TABLES.items():
        lines.append(f"{group:{width}}{about} ({len(cells)} runs)")
        lines += [f"  {name:{width - 2}}{preset.about}" for name, preset in cells.items()]
    return "\n".join(lines)
