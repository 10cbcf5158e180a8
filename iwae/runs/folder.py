"""The folder of a run, `results/NAME/`: its files by name, its lock, and the one reader of what they hold."""

import contextlib
import fcntl
import hashlib
import itertools
import json
import os
import sys
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from iwae import config, files
from iwae.config import Experiment
from iwae.runs import checkpoints, log
from iwae.sections import ConfigError, RunError, differences, shown

LAST_PLOT = "active_units"  # of task plot: when it is there, they all are
LISTS = ("stretches", "changed_parameters")  # in "environment": they grow when a training goes on
LENGTHS = ("training.stages", "training.epochs")
WEIGHTS = "weights_sha256"  # in evaluation.json and in plots: of the weights that they were made with


class Busy(RunError):
    """Another process is working on the run."""


class Folder:
    """The folder of a run; it need not exist.

    Attributes:
        path: of the folder.
        experiment_json: the parameters, and under "environment" what else they were trained with.
        evaluation_json: what was measured, an object a split.
        likelihoods: L_k of each evaluated image, arrays by split.
        samples: what the model made while it learned, arrays by epoch.
        log: a row an epoch.
        weights: the final weights; beside them `checksum`, which `sha256sum --check` reads as well.
        checkpoints: a folder, to continue an interrupted run.
        plots: a folder of PNG files.
        tensorboard: a folder of TensorBoard's files.
    """

    def __init__(self, path: str | os.PathLike[str]):
        self.path = Path(path)
        self.experiment_json = self.path / "experiment.json"
        self.evaluation_json = self.path / "evaluation.json"
        self.likelihoods = self.path / "likelihoods.npz"
        self.samples = self.path / "samples.npz"
        self.log = self.path / "log.csv"
        self.weights = self.path / "model.weights.h5"
        self.checksum = self.path / "model.weights.h5.sha256"
        self.checkpoints = self.path / "checkpoints"
        self.plots = self.path / "plots"
        self.tensorboard = self.path / "tensorboard"
        self._lock = self.path / ".lock"

    def __fspath__(self) -> str:
        return str(self.path)

    def __str__(self) -> str:
        return str(self.path)

    # ---- reading ----

    def is_run(self) -> bool:
        """Whether a run has begun here: whether there are parameters."""
        return self.experiment_json.exists()

    def read_experiment(self, *, any_objective: bool = False) -> Experiment:
        """The parameters, with the defaults of those that the version which wrote them did not have.

        Args:
            any_objective: accept an objective that is not registered here.

        Raises:
            RunError: there are none, or they are damaged.
        """
        values = read_json(self.experiment_json)
        if not values:
            raise RunError(f"{self.experiment_json}: expected the parameters of a run, found none")
        values.pop("environment", None)
        try:
            return config.from_dict(
                _with_defaults(values, config.to_dict(Experiment("run"))), any_objective=any_objective
            )
        except ConfigError as error:
            raise RunError(f"{self.experiment_json}: {error}") from None

    def environment(self) -> dict[str, Any]:
        """What the run was trained with beside its parameters: versions, device, commit, data; {} if not known."""
        environment = read_json(self.experiment_json).get("environment", {})
        if not isinstance(environment, dict):
            return {}
        damaged = [name for name in LISTS if not isinstance(environment.get(name, []), list)]
        return {name: value for name, value in environment.items() if name not in damaged}

    def read_evaluation(self) -> dict[str, Any]:
        """The content of evaluation.json; {} before there is one.

        Raises:
            RunError: it is damaged, or holds something else.
        """
        values = read_json(self.evaluation_json)
        for split, entries in values.items():
            _check_evaluation(f"{self.evaluation_json}: {split}", entries)
        return values

    def current_evaluation(self) -> dict[str, Any]:
        """`read_evaluation`, without what was measured with other weights than those that are here."""
        weights = self.recorded_checksum()
        return {
            split: entries
            for split, entries in self.read_evaluation().items()
            if weights is None or entries.get(WEIGHTS, weights) == weights
        }

    def read_samples(self) -> dict[int, np.ndarray]:
        """What `write_samples` wrote; {} if there is none, or it is damaged."""
        try:
            with np.load(self.samples) as arrays:
                found = {int(name): arrays[name].astype(np.float32) for name in arrays}
        except Exception:  # zipfile, zlib and NumPy have a dozen kinds
            return {}
        sound = len({values.shape for values in found.values()}) == 1 and np.isfinite(list(found.values())).all()
        return found if sound else {}

    def has_current_plots(self) -> bool:
        """Whether all plots are there, drawn from the weights that are here; early ones do not say so and count."""
        try:
            picture = (self.plots / f"{LAST_PLOT}.png").read_bytes()
        except OSError:
            return False
        weights, note = self.recorded_checksum(), f"tEXt{WEIGHTS}\0".encode()  # as PNG has it
        return weights is None or note not in picture or note + weights.encode() in picture

    # ---- writing ----

    def write_experiment(self, experiment: Experiment, environment: Mapping[str, Any]) -> None:
        write_json(self.experiment_json, config.to_dict(experiment) | {"environment": dict(environment)})

    def write_evaluation(self, values: Mapping[str, Any]) -> None:
        write_json(self.evaluation_json, values)

    def write_likelihoods(self, arrays: Mapping[str, np.ndarray], binarization: str) -> None:
        """Writes L_k of each evaluated image, `SPLIT` [n], nats.

        `SPLIT_numbers` [n] say which images these are, if not all of the split. `binarization` says which pixels the
        test images had: runs are compared image by image where it is the same.
        """
        with files.replacing(self.likelihoods) as stream:
            np.savez_compressed(stream, **arrays, binarization=binarization)  # type: ignore[arg-type]  # keys

    def write_samples(self, images: Mapping[int, np.ndarray]) -> None:
        """Writes what the model made while it learned: by epoch, images [n, D]."""
        with files.replacing(self.samples) as stream:
            by_name = {str(epoch): values for epoch, values in images.items()}
            np.savez_compressed(stream, **by_name)  # type: ignore[arg-type]  # keys

    def write_weights(self, content: bytes) -> str:
        """Writes the weights, their checksum before them; returns it (SHA-256, hexadecimal)."""
        checksum = hashlib.sha256(content).hexdigest()
        files.write_atomically(self.checksum, f"{checksum}  {self.weights.name}\n".encode())
        files.write_atomically(self.weights, content)
        return checksum

    # ---- weights ----

    def recorded_checksum(self) -> str | None:
        """The checksum that the weights were written with; None where there is none, as in runs of an early version."""
        try:
            return self.checksum.read_bytes()[:64].decode("ascii", "replace")
        except FileNotFoundError:
            return None

    def weights_are_whole(self) -> bool:
        """Whether there are weights with the checksum they were written with; runs of an early version have none."""
        if not self.weights.exists():
            return False
        recorded = self.recorded_checksum()
        return recorded is None or recorded == hashlib.sha256(self.weights.read_bytes()).hexdigest()

    def has_trained_weights(self, needed: bool) -> bool:
        """Whether training is done. Damaged weights count if they are `needed`, or if no checkpoint can replace them.

        With a checkpoint a warning tells that they are made anew.
        """
        if not self.weights.exists():
            return False
        if needed or self.weights_are_whole() or not checkpoints.latest_update(self.checkpoints):
            return True
        warnings.warn(f"{self.weights} is damaged; it is made anew from the last checkpoint", stacklevel=2)
        return False

    # ---- the run that is here ----

    def tasks_left(self, experiment: Experiment) -> set[str]:
        """The tasks of a trained run that have not been done yet.

        Raises:
            RunError: evaluation.json is damaged.
        """
        evaluation = self.current_evaluation()
        test = evaluation.get("test", {})
        done = {
            "train": True,
            "evaluate": set(evaluation) == set(experiment.evaluation.splits)
            and all(entries["k"] == experiment.evaluation.k for entries in evaluation.values()),
            "plot": self.has_current_plots(),
            **{name: task.key in test for name, task in config.TASKS.items()},
        }
        return {task for task in experiment.tasks if not done[task]}

    def is_finished(self, experiment: Experiment) -> bool:
        """Whether nothing of an experiment is left to do here.

        Raises:
            ConfigError: the run that is here has other parameters.
        """
        if experiment.overwrite or "train" not in experiment.tasks or not self.weights_are_whole():
            return False
        experiment = self.with_kept_parameters(experiment)
        if self.check_same_parameters(experiment):  # to be trained longer
            return False
        try:
            return not self.tasks_left(experiment)
        except RunError:  # damaged: it is told, and made anew
            return False

    def with_kept_parameters(self, experiment: Experiment, of_others: bool = False) -> Experiment:
        """The experiment, with the parameters of tasks that are not asked for as they are here.

        `of_others`: also those of which another task is the first owner; a task writes down which it was done with. And
        tasks that are added to a finished run join those that are here.
        """
        if not self.is_run():
            return experiment
        asked, recorded = set(experiment.tasks), self.read_experiment()
        found = differences(recorded, experiment)
        owners = {name: set(tasks[:1] if of_others else tasks) for name, tasks in config.TASK_PARAMETERS.items()}
        kept = {name: here for name, here, _ in found if name in owners and not asked & owners[name]}
        if of_others and "train" not in asked:
            kept["tasks"] = [task for task in config.TASK_NAMES if task in asked.union(recorded.tasks)]
        return config.replace(experiment, kept)

    def check_whole(self) -> None:
        """Refuses weights and checkpoints without the parameters they belong to: they would be taken for any run's.

        Raises:
            RunError: experiment.json is missing beside them.
        """
        if not self.is_run() and (self.weights.exists() or checkpoints.latest_update(self.checkpoints)):
            raise RunError(
                f"{self.experiment_json}: expected the parameters of the run whose weights or checkpoints are there, "
                "found none; put the file back, or move the others away"
            )

    def check_same_data(self, fingerprint: str) -> None:
        """Refuses other data than the run that is here was trained on.

        Raises:
            RunError: their fingerprint is another one.
        """
        before = self.environment().get("dataset_fingerprint", fingerprint)
        if before != fingerprint:
            raise RunError(
                f"{self}: expected the data that the run was trained on (fingerprint {str(before)[:12]}...), "
                f"got others ({fingerprint[:12]}...)"
            )

    def check_same_parameters(self, experiment: Experiment) -> list[str]:
        """Refuses an experiment with other parameters than the run that is here, if there is one.

        How to evaluate may change when nothing is trained. More stages or epochs may be asked for, where the training
        so far is as it would have been with them.

        Returns:
            The changes in a training that goes on: those, or of an unfinished run what `accept_changes` lets pass.

        Raises:
            ConfigError: it names each difference and both values.
        """
        if not self.is_run():
            return []
        ignored = config.INCIDENTAL if "train" in experiment.tasks else (*config.INCIDENTAL, "evaluation.")
        here = self.read_experiment()
        found = {
            name: f"{name} was {before!r}, is {now!r}"
            for name, before, now in differences(here, experiment)
            if not name.startswith(ignored)
        }
        acceptable = not self.weights.exists() and all(
            name.startswith("training.") and name not in ("training.start_from", "training.optimizer") for name in found
        )
        update = checkpoints.latest_update(self.checkpoints) if found else 0
        of_length = "train" in experiment.tasks and found.keys() <= set(LENGTHS)
        longer = of_length and experiment.training.passes > here.training.passes
        ended = experiment.training.schedule == "cosine"  # and each of its rates would have been another
        reason = ""
        if longer and self.weights.exists():
            if ended:
                reason = "its schedule 'cosine' ended at zero"
            elif not update:
                reason = f"{self.checkpoints} has no checkpoint"
            elif here.training.early_stopping_patience and (epochs := len(log.read(self.log))) < here.training.passes:
                reason = f"it was stopped early, after epoch {epochs}, and would have been with these, too"
        if reason:
            raise ConfigError(
                f"name: {str(self)!r} cannot be trained on ({'; '.join(found.values())}): {reason}; choose another "
                f"name and --training.start-from {self}, to begin with its weights"
            )
        longer = longer and not ended
        if found and not longer and not (acceptable and experiment.accept_changes):
            raise ConfigError(
                f"name: {str(self)!r} holds a run with other parameters ({'; '.join(found.values())}); choose another "
                f"name, {'--accept-changes to continue with these, ' if acceptable else ''}or --overwrite to start "
                "afresh"
            )
        return [f"after update {update}: {change}" for change in found.values()]

    def move_aside(self, *paths: Path) -> Path | None:
        """Moves what a run wrote here into `overwritten-1/`, `overwritten-2/`, ...; other files stay where they are.

        Args:
            paths: those of the run's files; all if not given.

        Returns:
            That folder; None if there was nothing to move.
        """
        own = paths or (
            self.experiment_json, self.evaluation_json, self.likelihoods, self.samples, self.log, self.weights,
            self.checksum, self.checkpoints, self.plots, self.tensorboard,
        )  # fmt: skip
        there = [path for path in own if path.exists() or path.is_symlink()]
        if not there:
            return None
        aside = next(path for i in itertools.count(1) if not (path := self.path / f"overwritten-{i}").exists())
        aside.mkdir()
        for path in there:
            path.rename(aside / path.name)
        return aside

    @contextlib.contextmanager
    def opened(self) -> Iterator[None]:
        """Makes the folder, holds its lock, and tells errors of files in one line.

        The operating system frees the lock of a process that died. Folders in which nothing was written vanish.

        Raises:
            Busy: another process holds the lock.
            RunError: a file cannot be written or read.
        """
        made = [path for path in (self.path, *self.path.parents) if not path.exists()]
        lock = self._locked()
        try:
            for entry in (*files.left_behind(self.path), *files.left_behind(self.plots)):
                entry.unlink()
            yield
        except BrokenPipeError:  # of the terminal, no file of ours
            raise
        except OSError as error:
            kept = "; the last checkpoint is kept, and the same command, without --overwrite, continues from it"
            raise RunError(
                f"{error.filename or self}: {error.strerror or error}"
                f"{kept if checkpoints.latest_update(self.checkpoints) else ''}"
            ) from None
        finally:
            try:
                if made and os.listdir(self.path) == [self._lock.name]:
                    self._lock.unlink()
                    for folder in made:
                        folder.rmdir()
            except OSError:  # another process may come in between
                pass
            finally:
                os.close(lock)

    def _locked(self) -> int:
        """Makes the folder and its lock, and takes it; the descriptor of the lock."""
        while True:
            try:
                self.path.mkdir(parents=True, exist_ok=True)
                lock = os.open(self._lock, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o666)
            except OSError as error:
                raise RunError(f"{self}: expected a folder that can be written, got: {error.strerror}") from None
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                os.close(lock)
                raise Busy(f"{self}: another process is working on this run") from None
            except OSError as error:
                os.close(lock)
                raise RunError(f"{self}: expected a folder whose files can be locked, got: {error.strerror}") from None
            with contextlib.suppress(FileNotFoundError):
                if os.fstat(lock).st_ino == os.stat(self._lock).st_ino:
                    return lock
            os.close(lock)  # it was removed by the process that held it, with a folder that had nothing in it


def read_json(path: Path) -> dict[str, Any]:
    """The named values of a JSON file; {} if there is none.

    Raises:
        RunError: it is damaged, or holds something else.
    """
    try:
        values = json.loads(path.read_bytes())
    except FileNotFoundError:
        return {}
    except OSError as error:
        raise RunError(f"{path}: expected a file that can be read, got: {error.strerror}") from None
    except (ValueError, RecursionError) as error:
        raise RunError(f"{path}: expected JSON, got an error: {' '.join(str(error).split())}") from None
    if not isinstance(values, dict):
        raise RunError(f"{path}: expected named values, got {shown(values)}")
    return values


def write_json(path: Path, values: Mapping[str, Any]) -> None:
    """Writes named values as JSON, indented; raises ValueError for a number that is not finite."""
    files.write_atomically(path, (json.dumps(values, indent=2, allow_nan=False) + "\n").encode())


def is_number(value: Any) -> bool:
    """Whether `value` is a finite number, as JSON has them, that is one as a float too: 10^400 is not."""
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) <= sys.float_info.max


_NEEDED = ("nll", "nll_stderr", "examples", "k")
_NUMBERS = {
    "ais": ("examples", "k", "L_k", "L_k_stderr", "log_likelihood", "stderr"),
    "bidirectional": ("lower", "upper", "L_k"),
    "pareto_k": ("share_above_0.7", "effective_sample_size", "smallest_effective_sample_size"),
}


def _check_evaluation(where: str, entries: Any) -> None:
    """Raises RunError if what is read of a split's evaluation, here and in reports, is not there or is no number."""
    if not isinstance(entries, dict) or not entries:
        raise RunError(f"{where}: expected named values, got {shown(entries)}")
    for name in (*_NEEDED, "nll_active_units_only", "true_log_likelihood", "bits_per_dimension"):
        if (name in _NEEDED or name in entries) and not is_number(entries.get(name)):
            raise RunError(f"{where}: {name}: expected a number, got {shown(entries.get(name))}")
    active = entries.get("active_units")
    if not isinstance(active, list) or not active or not all(map(is_number, active)):
        raise RunError(f"{where}: active_units: expected a list of numbers, got {shown(active)}")
    for entry, names in _NUMBERS.items():
        values = entries.get(entry)
        for name in names if entry in entries else ():
            if not isinstance(values, dict) or not is_number(values.get(name)):
                raise RunError(f"{where}: {entry}.{name}: expected a number, got {shown(values)}")


def _with_defaults(values: Any, defaults: Any) -> Any:
    """The content of an experiment.json, with the defaults of parameters that its version did not have."""
    if not isinstance(values, dict) or not isinstance(defaults, dict):
        return values
    return {**defaults, **{name: _with_defaults(value, defaults.get(name, 0)) for name, value in values.items()}}
