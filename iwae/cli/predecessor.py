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
from iwae.sections import did_you_mean, shown

# Every key that may be there; None: it needs no further look, a dictionary: the keys below it.
_KEYS: dict[str, Any] = {
    "name": None,
    "seed": None,
    "data": dict.fromkeys(("name", "batch_size", "path", "num_workers", "n_samples")),
    "model": dict.fromkeys(("type", "X_dim", "Z_dim", "H_dim", "encoder_type", "decoder_type", "num_samples")),
    "training": {
        "scheduler": dict.fromkeys(("gamma", "milestones")),
        "optimizer": dict.fromkeys(("lr", "beta1", "beta2", "epsilon")),
        "early_stopping": dict.fromkeys(("patience", "threshold")),
        "total_epochs": None,
    },
}
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
_CONVERTED = {
    "model.type": "model.objective",
    "model.Z_dim": "model.latent_units",
    "model.H_dim": "model.hidden_units",
    "model.decoder_type": "model.likelihood",
}

_DIMENSIONS = {
    "mnist": 784,
    "binarized_mnist": 784,
    "fashion_mnist": 784,
    "omniglot": 784,
    "digits": 64,
    "camel": 1,
    "two_close_clusters": 1,
    "two_clusters": 1,
    "linear2dim": 2,
    "simple_2_layers": 2,
    "circle": 2,
}


def read(path: str | os.PathLike, default: Experiment) -> tuple[Experiment, list[str]]:
    """The experiment of a file of the PyTorch predecessor, which is executed, and a line about each ignored key.

    What the predecessor has no word for (tasks, the folder of the results, the evaluation) is as in `default`.

    Raises:
        ConfigError: for a file that cannot be read or that raises an error, an unknown or missing key, a value that is
            refused.
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
    lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == os.fspath(path)]
    if isinstance(error, SyntaxError):
        lines, error = [error.lineno], SyntaxError(error.msg)
    where = f"line {lines[-1]}: " if lines else ""
    return f"{where}{type(error).__name__}: {' '.join(str(error).split())}"[:300]


def _plain(value: Any) -> Any:
    """`value` with tuples as lists, and NumPy's arrays and numbers as Python's."""
    if isinstance(value, Mapping):
        return {key: _plain(item) for key, item in value.items()}
    if hasattr(value, "tolist"):
        value = value.tolist()
    return [_plain(item) for item in value] if isinstance(value, list | tuple) else value


def convert(theirs: Mapping[str, Any], default: Experiment) -> tuple[Experiment, list[str]]:
    """As `read`, from the dictionary itself."""
    given = dict(_leaves(theirs, _KEYS, ""))
    for name in _REQUIRED:
        if name not in given:
            raise ConfigError(f"{name}: expected a value, got none (the key is missing)")

    changes = {_OURS[name]: value for name, value in given.items() if name in _OURS}
    notes = []
    if given.get("training.scheduler.milestones"):
        changes["training.schedule"] = "multistep"
    else:
        changes["training.schedule"] = "constant"
        if changes.pop("training.gamma", None) is not None:
            notes.append("training.scheduler.gamma: no meaning without milestones, ignored")

    dataset = _dataset(given["data.name"])
    synthetic = dataset in config.SYNTHETIC_DATASETS
    likelihood = _choice("model.decoder_type", given.get("model.decoder_type", "Bernoulli"), "Gaussian", "Bernoulli")
    _choice("model.encoder_type", given.get("model.encoder_type", "Gaussian"), "Gaussian")
    continuous = synthetic or likelihood == "gaussian"
    changes |= {
        "data.name": dataset,
        "data.binarization": "none" if continuous else "fixed" if dataset == "binarized_mnist" else "stochastic",
        "model.objective": _choice("model.type", given["model.type"], "VAE", "IWAE"),
        "model.likelihood": likelihood,
    }
    if given.get("model.X_dim", _DIMENSIONS[dataset]) != _DIMENSIONS[dataset]:
        expected = f"{_DIMENSIONS[dataset]}, the dimension of {dataset}"
        raise ConfigError(f"model.X_dim: expected {expected}, got {shown(given['model.X_dim'])}")
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

    start = dataclasses.replace(
        default, data=config.Data(path=default.data.path), model=config.Model(), training=config.Training()
    )
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


def _leaves(values: Any, keys: Mapping[str, Any], prefix: str) -> list[tuple[str, Any]]:
    if not isinstance(values, Mapping):
        raise ConfigError(f"{prefix.rstrip('.') or 'experiment'}: expected a dictionary, got {shown(values)}")
    leaves: list[tuple[str, Any]] = []
    for key, value in values.items():
        if key not in keys:
            near = did_you_mean(key, keys) if isinstance(key, str) else ""
            name = f"{prefix}{key}" if isinstance(key, str) and key.isidentifier() else shown(key)
            raise ConfigError(f"{name}: expected a known key, got an unknown one{near}")
        leaves += _leaves(value, keys[key], f"{prefix}{key}.") if keys[key] else [(prefix + key, value)]
    return leaves


def _dataset(name: Any) -> str:
    plain = {known.replace("_", ""): known for known in config.DATASETS}
    wanted = name.lower().replace("_", "").replace("-", "") if isinstance(name, str) else ""
    if wanted not in plain:
        near = did_you_mean(wanted, config.DATASETS)
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
