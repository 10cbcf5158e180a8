"""Experiment files of the PyTorch predecessor: a Python file with a dictionary `experiment = {...}`.

Such a file is a program, which its user runs in any case: it is executed here, by `runpy`, with all that it does.
"""

import dataclasses
import os
import runpy
import traceback
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from iwae import config
from iwae.config import ConfigError, Experiment
from iwae.data.catalogue import CATALOGUE
from iwae.sections import did_you_mean, join, refuse_unknown, shown

_REQUIRED = """
    name data.name model.type model.Z_dim model.H_dim model.num_samples training.total_epochs
""".split()

# Our name of a parameter for theirs, where the value stays as it is, and where it is converted.
_OURS = {
    "name": "name",
    "seed": "seed",
    "data.batch_size": "data.batch_size",
    "data.n_samples": "data.synthetic_examples",
    "model.num_samples": "model.k",
    "training.scheduler.gamma": "training.gamma",
    "training.scheduler.milestones": "training.milestones",
    "training.optimizer.lr": "training.learning_rate",
    "training.optimizer.beta1": "training.beta_1",
    "training.optimizer.beta2": "training.beta_2",
    "training.optimizer.epsilon": "training.epsilon",
    "training.early_stopping.patience": "training.early_stopping_patience",
    "training.early_stopping.threshold": "training.early_stopping_threshold",
    "training.total_epochs": "training.epochs",
}
_WITHOUT_OURS = ("data.name", "data.path", "data.num_workers", "model.X_dim", "model.encoder_type")
_CONVERTED = {
    "model.type": "model.objective",
    "model.Z_dim": "model.latent_units",
    "model.H_dim": "model.hidden_units",
    "model.decoder_type": "model.likelihood",
}

_KEYS = {*_OURS, *_CONVERTED, *_WITHOUT_OURS}


def read(path: str | os.PathLike, default: Experiment) -> tuple[Experiment, list[str]]:
    """The experiment of a file of the PyTorch predecessor, which is executed, and a line about each ignored key.

    What the predecessor has no word for (tasks, the folder of the results, the evaluation) is as in `default`. A
    ConfigError says what is wrong with the file, a key or a value.
    """
    try:
        Path(path).read_bytes()
    except OSError as error:
        raise ConfigError(f"file: expected a file that can be read, got {str(path)!r}: {error.strerror}") from None
    try:
        theirs = runpy.run_path(os.fspath(path)).get("experiment")
    except (Exception, SystemExit) as error:
        raise ConfigError(f"{path}: expected a file that Python can run, got {_told(error, path)}") from None
    try:
        if theirs is None:
            raise ConfigError("experiment: expected a dictionary of this name in the file, got none")
        return convert(_plain(theirs), default)
    except ConfigError as error:
        raise ConfigError(f"{path}: {error}") from None
    except RecursionError:
        raise ConfigError(f"{path}: expected a plain dictionary, got one too deeply nested to be read") from None


def _told(error: BaseException, path: str | os.PathLike) -> str:
    """An error that a file raised, in one line with the last line of the file that led to it."""
    trace = traceback.extract_tb(error.__traceback__)
    lines = [f"line {frame.lineno}: " for frame in trace if frame.filename == os.fspath(path)]
    return f"{''.join(lines[-1:])}{type(error).__name__}: {' '.join(str(error).split())}"[:300]


def _plain(value: Any) -> Any:
    """`value` with tuples as lists, and NumPy's arrays and numbers as Python's."""
    if isinstance(value, Mapping):
        return {key: _plain(item) for key, item in value.items()}
    if hasattr(value, "tolist"):
        value = value.tolist()
    return [_plain(item) for item in value] if isinstance(value, list | tuple) else value


def convert(theirs: Mapping[str, Any], default: Experiment) -> tuple[Experiment, list[str]]:
    """As `read`, from the dictionary itself."""
    given = _leaves(theirs)
    for name in _REQUIRED:
        if name not in given:
            raise ConfigError(f"{name}: expected a value, got none (the key is missing)")

    changes = {_OURS[name]: value for name, value in given.items() if name in _OURS}
    notes = []
    changes["training.schedule"] = "multistep" if given.get("training.scheduler.milestones") else "constant"
    if changes["training.schedule"] == "constant" and changes.pop("training.gamma", None) is not None:
        notes.append("training.scheduler.gamma: no meaning without milestones, ignored")

    dataset = _dataset(given["data.name"])
    synthetic = CATALOGUE[dataset].synthetic
    likelihood = _choice("model.decoder_type", given.get("model.decoder_type", "Bernoulli"), "Gaussian", "Bernoulli")
    _choice("model.encoder_type", given.get("model.encoder_type", "Gaussian"), "Gaussian")
    continuous = synthetic or likelihood == "gaussian"
    changes |= {
        "data.name": dataset,
        "data.binarization": "none" if continuous else "fixed" if dataset == "binarized_mnist" else "stochastic",
        "model.objective": _choice("model.type", given["model.type"], "VAE", "IWAE"),
        "model.likelihood": likelihood,
    }
    dimension = CATALOGUE[dataset].dimension
    if (theirs_is := given.get("model.X_dim", dimension)) != dimension:
        raise ConfigError(f"model.X_dim: expected {dimension}, the dimension of {dataset}, got {shown(theirs_is)}")
    latent = given["model.Z_dim"]
    changes["model.latent_units"] = latent if isinstance(latent, list) else [latent]
    changes["model.hidden_units"] = _hidden(given["model.H_dim"], len(changes["model.latent_units"]))

    if "data.num_workers" in given:
        notes.append("data.num_workers: no meaning here, ignored (the examples lie in memory)")
    if "data.n_samples" in given and not synthetic:
        del changes["data.synthetic_examples"]
        notes.append(f"data.n_samples: no meaning for {dataset}, ignored")
    if isinstance(path := given.get("data.path"), str) and os.path.isdir(path) and not synthetic:
        changes["data.path"] = path
    elif path is not None:
        reason = "synthetic data are drawn" if synthetic else "no such folder, so datasets are looked for as usual"
        notes.append(f"data.path: {shown(path)} ignored ({reason})")

    data = config.Data(path=default.data.path)
    start = dataclasses.replace(default, data=data, model=config.Model(), training=config.Training())
    try:
        return config.replace(start, changes), notes
    except ConfigError as error:
        raise ConfigError(_in_their_words(str(error))) from None


def _in_their_words(message: str) -> str:
    """A message about one of our parameters with the name that it has in the file."""
    for theirs, ours in (_OURS | _CONVERTED).items():
        if message.startswith((f"{ours}:", f"{ours}[")):
            return theirs + message[len(ours) :]
    return message


def _leaves(values: Any, path: str = "") -> dict[str, Any]:
    """Every value that is no dictionary, by its dotted name."""
    if not isinstance(values, Mapping):
        raise ConfigError(f"{path or 'experiment'}: expected a dictionary, got {shown(values)}")
    prefix = join(path, "")
    known = {name.removeprefix(prefix).split(".")[0] for name in _KEYS if name.startswith(prefix)}
    refuse_unknown(path, values, known, "a known key")
    leaves: dict[str, Any] = {}
    for key, value in values.items():
        name = join(path, key)
        leaves |= {name: value} if name in _KEYS else _leaves(value, name)
    return leaves


def _dataset(name: Any) -> str:
    plain = {known.replace("_", ""): known for known in CATALOGUE}
    wanted = name.lower().replace("_", "").replace("-", "") if isinstance(name, str) else ""
    if wanted not in plain:
        near = did_you_mean(wanted, CATALOGUE)
        raise ConfigError(f"data.name: expected one of {', '.join(plain.values())}, got {shown(name)}{near}")
    return plain[wanted]


def _choice(name: str, value: Any, *choices: str) -> str:
    if not isinstance(value, str) or value.lower() not in {choice.lower() for choice in choices}:
        raise ConfigError(f"{name}: expected {' or '.join(map(repr, choices))}, got {shown(value)}")
    return value.lower()


def _hidden(value: Any, layers: int) -> Any:
    """Their hidden sizes as a list for each stochastic layer: `5`, `[5, 5]` and `[]` stand for one or for none."""
    if value == []:
        return [[]] * layers
    if not isinstance(value, list):
        return [[value]]
    return value if any(isinstance(item, list) for item in value) else [value]
