"""A run with all that belongs to it."""

import dataclasses
import hashlib
import math
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NoReturn, TypeAlias

import numpy as np
from numpy.typing import ArrayLike

from iwae.config import DATASETS, ConfigError, Experiment
from iwae.data import loading, users_file
from iwae.data.catalogue import ARRAYS
from iwae.data.dataset import SPLITS
from iwae.runs.folder import Folder
from iwae.sections import RunError, data_name

if TYPE_CHECKING:
    from iwae.model import IWAE

Own: TypeAlias = loading.Dataset | Mapping[str, ArrayLike]  # a user's, handed over in Python


@dataclass(frozen=True)
class Run:
    """A run: parameters, folder, data, model, and what was measured.

    `evaluation` is the content of evaluation.json, {} before there is one.
    """

    experiment: Experiment
    folder: Folder
    dataset: loading.Dataset
    model: "IWAE"
    evaluation: dict[str, Any]

    def images(self, split: str) -> np.ndarray:
        """The images [n, D] of a split as the model is given them: binarized once, if they are to be.

        Of a conditional model with their classes, [n, D + C].
        """
        return prepared_images(self.dataset, split, self.experiment)

    def pictures(self, values: ArrayLike) -> np.ndarray:
        """Images [..., D], or examples [..., D + C], as [..., H, W] or in colour [..., H, W, 3]."""
        shape, values = self.dataset.image_shape or (), np.asarray(values)
        return values[..., : math.prod(shape)].reshape(*values.shape[:-1], *shape)

    @property
    def title(self) -> str:
        """Run, dataset, objective and k, for the titles of figures."""
        return _title(self.experiment)

    def with_evaluation(self, evaluation: dict[str, Any]) -> "Run":
        """The run with another evaluation, which is written to its folder."""
        self.folder.write_evaluation(evaluation)
        return dataclasses.replace(self, evaluation=evaluation)

    def summary(self) -> str:
        """What the run gave, in a few lines for the terminal."""
        return _summary(self.experiment, self.folder, self.evaluation)


def finished(experiment: Experiment) -> str | None:
    """The summary of a run that is there and of which nothing is left to do, told without TensorFlow; else None.

    Raises:
        ConfigError, RunError: as `iwae.run`.
    """
    folder = Folder(experiment.run_dir)
    if not folder.is_run():
        return None
    with folder.opened():
        return _summary(experiment, folder, folder.current_evaluation()) if is_finished(folder, experiment) else None


def is_finished(folder: Folder, experiment: Experiment) -> bool:
    """Whether nothing is left to do of a run, in a folder that is open.

    Raises:
        ConfigError, RunError: as `iwae.run`; a user's file may have changed.
    """
    done = folder.is_finished(experiment)
    if done and experiment.data.name not in (*DATASETS, ARRAYS):
        folder.check_same_data(load_data(experiment).fingerprint)
    return done


def _title(experiment: Experiment) -> str:
    model = experiment.model
    data = data_name(experiment.data.name) + (" given labels" if model.condition == "labels" else "")
    return f"{experiment.name} ({data}, {model.objective.upper()}, k = {model.k})"


def _summary(experiment: Experiment, folder: Folder, evaluation: dict[str, Any]) -> str:
    lines = [f"{_title(experiment)}: {folder}"]
    for split, values in evaluation.items():
        active = "+".join(str(units) for units in values["active_units"])
        digits = 3 if "true_log_likelihood" in values else 2
        lines.append(
            f"  {split}: NLL {values['nll']:.{digits}f} +- {values['nll_stderr']:.{digits}f} nats "
            f"(L_{values['k']}, {values['examples']} examples), active units {active}"
        )
        if "bits_per_dimension" in values:
            lines.append(f"  {split}: {values['bits_per_dimension']:.4f} bits per dimension")
        if "true_log_likelihood" in values:
            lines.append(
                f"  {split}: the true density gives {-values['true_log_likelihood']:.3f} nats on the same data"
            )
    plots = sorted(folder.plots.glob("*.png"))
    if plots:
        lines.append(f"  {len(plots)} plots in {folder.plots}")
    return "\n".join(lines)


def load_data(experiment: Experiment, given: Own | None = None) -> loading.Dataset:
    """The dataset of an experiment, or the one of the arrays that are `given`.

    Raises:
        ConfigError: the parameters do not fit the data.
        RunError: a file cannot be read.
    """
    data, allow_real = experiment.data, experiment.model.likelihood == "gaussian"
    try:
        if given is not None:
            dataset = users_file.of_arrays(given, allow_real)
        else:
            dataset = loading.load_dataset(
                data.name,
                data.path,
                seed=experiment.seed,
                synthetic_examples=data.synthetic_examples,
                allow_real=allow_real,
            )
    except ValueError as error:
        raise ConfigError(f"{'data.name' if given is None else 'dataset'}: {error}") from None
    except OSError as error:
        raise RunError(str(error)) from None
    if experiment.model.network == "conv" and dataset.image_shape is None:
        raise ConfigError(
            f"model.network: expected 'mlp' with {data.name}, whose examples are no [height, width] or "
            "[height, width, 3], got 'conv'"
        )
    if data.batch_size > len(dataset.train):
        raise ConfigError(
            f"data.batch_size: expected at most the {len(dataset.train)} training examples of {data.name}, "
            f"got {data.batch_size}"
        )
    if max(experiment.evaluation.posterior_inputs, default=0) >= len(dataset.test):
        raise ConfigError(
            f"evaluation.posterior_inputs: expected numbers below {len(dataset.test)}, the test examples of "
            f"{data.name}, got {max(experiment.evaluation.posterior_inputs)}"
        )
    if experiment.model.condition == "labels":
        dataset = _conditioned(dataset, data.name)
    if dataset.missing:
        share = f"{100 * dataset.missing:.3g} % of the values are missing (NaN)"
        warnings.warn(f"{share}: likelihoods and bounds are those of the others", stacklevel=2)
    if dataset.kind == "grey" and data.binarization == "none" and experiment.model.likelihood == "bernoulli":
        warnings.warn("grey values as Bernoulli targets: the bounds are not log likelihoods", stacklevel=2)
    return dataset


def _conditioned(dataset: loading.Dataset, name: str) -> loading.Dataset:
    """A dataset whose labels are part of the data: its fingerprint is theirs, too, and log p(x) not what is sought."""

    def refuse(expected: str, given: str) -> NoReturn:
        raise ConfigError(f"model.condition: expected {expected} with 'labels', got {given} ({name})")

    digest = hashlib.sha256(dataset.fingerprint.encode())
    for split in SPLITS:
        labels = dataset.labels[split]
        if labels is None:
            refuse("a label of every example", f"none of the {split} examples")
        known = label_values(dataset)
        for label in np.unique(labels):
            if label < 0 or not dataset.class_name(label):
                refuse("a label of every example", f"{label} among those of {split}, which says that there is none")
            if label not in known:
                refuse("training examples of every class", f"none of {dataset.class_name(label)!r}, as in {split}")
        digest.update(np.ascontiguousarray(labels, "<i8").data)
    return dataclasses.replace(dataset, fingerprint=digest.hexdigest(), log_density=None)


def label_values(dataset: loading.Dataset) -> np.ndarray:
    """The labels [C] of the classes of a conditional model, in their order."""
    return np.unique(np.asarray(dataset.labels["train"]))


_SEEDS = {"valid": (1509, 519, 1), "test": (1509, 519, 2)}  # of binarizations; any numbers would do


def prepared_images(
    dataset: loading.Dataset, split: str, experiment: Experiment, as_they_are: bool = False
) -> np.ndarray:
    """The images [n, D] of a split with the binarization of the experiment; stochastic becomes one fixed draw.

    That of the validation and test images is the same for all experiments, whose results can so be compared.
    `as_they_are`: not binarized. A conditional model has their classes, one-hot, behind them: [n, D + C].
    """
    how, seed, images = experiment.data.binarization, _SEEDS.get(split, experiment.seed), getattr(dataset, split)
    if not as_they_are:
        images = loading.binarize(images, "fixed" if how == "stochastic" else how, seed)
    labels = dataset.labels[split]
    if experiment.model.condition == "none" or labels is None:
        return images
    return np.concatenate([images, labels[:, None] == label_values(dataset)], axis=1, dtype=np.float32)
