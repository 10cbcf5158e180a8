"""What goes on beside the updates, a Keras callback for each: they share a `State`, which is what checkpoints hold.

Their order is that of `training.train`: time, bound on held-out images, log, curves, early stopping, checkpoints; each
finds what those before it left.
"""

import contextlib
import errno
import math
import os
import re
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from tensorboard.plugins.hparams.api import hparams

from iwae import files, progress, rng
from iwae.batches import ResidentImages
from iwae.model import IWAE
from iwae.runs import checkpoints, log
from iwae.runs.folder import Folder

Logs = Mapping[str, Any]
Row = dict[str, float]


class StopRequested(Exception):
    """Training was asked to stop, and has saved everything."""


class NonFiniteWeight(ArithmeticError):
    """A weight that is not finite was about to be saved."""


@dataclass
class State:
    """Where a training is."""

    examples: int
    batch: int
    rows: int  # updates in a block
    epoch: int = 0  # finished epochs
    update: int = 0  # finished updates of the epoch under way
    seconds: float = 0.0  # of the epoch under way
    log: list[Row] = field(default_factory=list)
    best: float = -math.inf  # validation bound so far
    best_weights: dict[str, np.ndarray] = field(default_factory=dict)
    waited: int = 0  # epochs since
    stopped: bool = False  # early

    @property
    def updates(self) -> int:
        """Updates in an epoch."""
        return math.ceil(self.examples / self.batch)


class Time(keras.callbacks.Callback):
    """Counts the updates and seconds of the epoch under way, which `Checkpoints` closes."""

    def __init__(self, state: State):
        super().__init__()
        self._state = state

    def on_epoch_begin(self, epoch: int, logs: Logs | None = None) -> None:
        self._clock = time.perf_counter()

    def on_train_batch_end(self, batch: int, logs: Logs | None = None) -> None:
        self._count()
        self._state.update = min(self._state.update + self._state.rows, self._state.updates)

    def on_epoch_end(self, epoch: int, logs: Logs | None = None) -> None:
        self._count()

    def _count(self) -> None:
        now = time.perf_counter()
        self._state.seconds += now - self._clock
        self._clock = now


class Progress(keras.callbacks.Callback):
    """Moves a progress bar of all updates."""

    def __init__(self, state: State, bar: progress.Bar):
        super().__init__()
        self._state, self._bar, self._first = state, bar, state.epoch

    def on_epoch_begin(self, epoch: int, logs: Logs | None = None) -> None:
        if epoch == self._first + 1:  # the end of the first one compiled the bound on held-out images
            self._bar.forget()

    def on_train_batch_end(self, batch: int, logs: Logs | None = None) -> None:
        state, logs = self._state, logs or {}
        done = min(state.update * state.batch, state.examples)
        self._bar.update(
            state.epoch * state.updates + state.update,
            epoch=state.epoch + 1,
            bound=logs["bound"],
            speed=done / state.seconds,
        )


class Validation(keras.callbacks.Callback):
    """Puts the bound on held-out images beside the others of an epoch, as "valid_bound".

    It is the model's objective with a weight of the KL term of 1 and without closed forms, whatever is trained with;
    the noise is always the same: comparable between epochs.

    Args:
        model: an `IWAE`.
        images: [m, D], as the model is given them.
        seed: of the noise.
    """

    def __init__(self, model: IWAE, images: np.ndarray, seed: int):
        super().__init__()
        samples = model.samples_per_example
        batch = max(1, min(len(images), 1000 // samples))
        count = math.ceil(len(images) / batch)
        padded = np.zeros((count * batch, images.shape[1]), images.dtype)
        padded[: len(images)] = images
        resident = ResidentImages(padded, stochastic=False)

        @tf.function(jit_compile=True)
        def mean_bound(values: tf.Tensor) -> tf.Tensor:
            def add_batch(i: tf.Tensor, total: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
                x = tf.cast(values[i], tf.float32)
                noise = model.draw_noise(samples, batch, rng.stream(seed, i, "validate"))
                bound = model.objective(model.log_weight_terms(x, noise).log_weights())
                real = i * batch + tf.range(batch) < len(images)
                return i + 1, total + tf.reduce_sum(tf.where(real, bound, 0.0))

            return tf.while_loop(lambda i, _: i < count, add_batch, (0, 0.0))[1] / len(images)

        values = tf.reshape(resident.values, [count, batch, -1])
        self._compiled = lambda: mean_bound(values)

    def __call__(self) -> float:
        """The mean bound, nats."""
        return float(self._compiled())

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        if logs is not None:
            logs["valid_bound"] = self()


class Log(keras.callbacks.Callback):
    """Writes `log.csv`, a row an epoch, beginning with those of the checkpoint from which a run continues.

    Keras's own is not used: it would keep the rows that are after it.
    """

    def __init__(self, state: State, path: Path):
        super().__init__()
        self._state, self._path = state, path
        files.write_atomically(self._path, log.text(self._state.log).encode())

    def on_epoch_end(self, epoch: int, logs: Logs | None = None) -> None:
        state, logs = self._state, logs or {}
        row = {
            "epoch": epoch + 1,
            "updates": int(self.model.optimizer.iterations),
            "learning_rate": float(self.model.optimizer.learning_rate),
            "train_bound": logs["bound"],
            "valid_bound": logs.get("valid_bound", math.nan),
            "seconds": round(state.seconds, 3),
            "images_per_second": round(state.examples / state.seconds, 1),
        }
        state.log.append(row)
        with open(self._path, "a", newline="") as file:
            file.write(log.line(row))


class Curves(keras.callbacks.Callback):
    """Writes the curves of the log for TensorBoard into a folder; as a context manager it closes the file.

    Keras's own callback is not used: the process then grows by 5 kB an epoch.

    Args:
        state: whose log it is.
        folder: of TensorBoard's files.
        parameters: of the run, by their dotted names: TensorBoard compares runs by them.

    Raises:
        OSError: of writing, with the name of the folder.
    """

    def __init__(self, state: State, folder: Path, parameters: Mapping[str, Any]):
        super().__init__()
        self._state, self._folder = state, folder
        with self._failures_told():
            # TensorFlow takes the names of files as UTF-8, whatever the locale says.
            self._writer = tf.summary.create_file_writer(os.fsencode(folder).decode(errors="surrogateescape"))
        with self._writing():
            plain = {n: v if isinstance(v, bool | int | float) else _text(v) for n, v in parameters.items()}
            hparams(plain, trial_id=_text(folder))

    def __enter__(self) -> "Curves":
        return self

    def __exit__(self, error: type[BaseException] | None, *_: object) -> None:
        with contextlib.suppress(OSError) if error else contextlib.nullcontext(), self._failures_told():
            self._writer.close()

    def on_epoch_end(self, epoch: int, logs: Logs | None = None) -> None:
        row = self._state.log[-1]
        with self._writing():
            for name in ("train_bound", "valid_bound", "learning_rate", "images_per_second"):
                # NumPy's numbers: TensorFlow keeps every Python number it was ever given, some 2 kB each.
                tf.summary.scalar(name, np.float32(row[name]), step=np.int64(row["epoch"]))

    def show(self, name: str, images: np.ndarray, epoch: int) -> None:
        """Images [n, H, W, 1 or 3] of an epoch, values in [0, 1]."""
        with self._writing():
            tf.summary.image(name, images, step=np.int64(epoch), max_outputs=len(images))

    @contextlib.contextmanager
    def _writing(self) -> Iterator[None]:
        with self._failures_told(), self._writer.as_default():
            yield

    @contextlib.contextmanager
    def _failures_told(self) -> Iterator[None]:
        try:
            yield
        except tf.errors.OpError as error:
            reason = re.sub(r"^\{\{.*\}\} (.*; )?| \[Op:.*", "", str(error.message).splitlines()[0])  # the node, file
            raise OSError(errno.EIO, reason, str(self._folder)) from None


class Samples(keras.callbacks.Callback):
    """Keeps images that the model makes while it learns, from the same noise each time, and shows them in TensorBoard.

    It does so after epochs 1, 2, 4, ... and `total`. Those after the epoch from which a run continues are made again.

    Args:
        folder: of the run, whose `samples` grow.
        total: epochs.
        seed: of the noise.
        image_shape: [H, W] or [H, W, 3].
        curves: where they are shown.
    """

    COUNT = 10

    def __init__(self, folder: Folder, total: int, seed: int, image_shape: Sequence[int], curves: Curves):
        super().__init__()
        self._folder, self._total, self._seed, self._curves = folder, total, seed, curves
        self._shape = (self.COUNT, *image_shape, *(() if len(image_shape) == 3 else (1,)))

    def on_epoch_end(self, epoch: int, logs: Logs | None = None) -> None:
        epoch += 1
        if not _is_power_of_two(epoch) and epoch != self._total:
            return
        images = self.model.sample(self.COUNT, (self._seed, 4)).numpy()
        before = {e: kept for e, kept in self._folder.read_samples().items() if e < epoch and _is_power_of_two(e)}
        self._folder.write_samples({**before, epoch: images})
        self._curves.show("samples", np.clip(images, 0, 1).reshape(self._shape), epoch)


def _text(value: Any) -> str:
    """A value as text that is UTF-8, whatever names of files hold."""
    return str(value).encode("utf-8", "backslashreplace").decode()


def _is_power_of_two(number: int) -> bool:
    return number & (number - 1) == 0


class EarlyStopping(keras.callbacks.Callback):
    """Ends training where the validation bound rises no more, and keeps the best weights.

    Keras's own is not used: what it remembers is lost when a run is interrupted. `weights` gives the model's, by path.
    """

    def __init__(self, state: State, patience: int, threshold: float, weights: Callable[[], dict[str, np.ndarray]]):
        super().__init__()
        self._state, self._patience, self._threshold, self._weights = state, patience, threshold, weights

    def on_epoch_end(self, epoch: int, logs: Logs | None = None) -> None:
        state, bound = self._state, self._state.log[-1]["valid_bound"]
        if bound > state.best + self._threshold:
            state.best, state.waited = bound, 0
            state.best_weights = self._weights()
            return
        state.waited += 1
        if state.waited >= self._patience:
            state.stopped = self.model.stop_training = True


class Checkpoints(keras.callbacks.Callback):
    """Saves and restores everything that a run is continued from, and stops training when it is asked to.

    Args:
        model: with its optimizer.
        state: is saved and restored too.
        folder: of the checkpoints.
        total: epochs after which training ends; there is a checkpoint then.
        seconds: there is one inside an epoch at least so often.
        stop_requested: asked after every block; once it says so, a checkpoint is written and training stops.
        run: says which run this is (`runs.checkpoints`).
    """

    SHARE = 0.05  # of the time may go into checkpoints at the ends of epochs

    def __init__(
        self,
        model: IWAE,
        state: State,
        folder: Path,
        total: int,
        seconds: float,
        stop_requested: Callable[[], bool],
        run: str,
    ):
        super().__init__()
        self._network, self._state, self._folder, self._total = model, state, folder, total
        self._seconds, self._stop_requested, self._run = seconds, stop_requested, run
        self._tracked: dict[str, np.ndarray] = {}  # of the mean bound of an epoch under way, restored
        self._last = False  # whether a callback wants this epoch to be the last one
        self._saved_at, self._save_seconds = time.monotonic(), 0.0

    def on_epoch_begin(self, epoch: int, logs: Logs | None = None) -> None:
        if self._tracked:
            assign(self._network.bound_tracker.variables, self._tracked)
            self._tracked = {}

    def on_train_batch_end(self, batch: int, logs: Logs | None = None) -> None:
        state, stop = self._state, self._stop_requested()
        if self.model.stop_training:  # by a callback of the user's: Keras would leave the epoch here
            self._last, self.model.stop_training = True, False
        if state.update < state.updates and (stop or time.monotonic() - self._saved_at > self._seconds):
            self.save()
            if stop:
                raise StopRequested

    def on_epoch_end(self, epoch: int, logs: Logs | None = None) -> None:
        state = self._state
        state.epoch, state.update, state.seconds = epoch + 1, 0, 0.0
        self.model.stop_training |= self._last
        last, stop = state.epoch == self._total or self.model.stop_training, self._stop_requested()
        if last or stop or time.monotonic() - self._saved_at > self._save_seconds / self.SHARE:
            self.save()
        if stop and not last:
            raise StopRequested

    def save(self) -> None:
        """Writes a checkpoint.

        Raises:
            NonFiniteWeight: nothing is written.
        """
        started, model, state = time.monotonic(), self._network, self._state
        groups = {
            "model": named(model.variables),
            "optimizer": named(model.optimizer.variables, below_root=True),
            "tracker": named(model.bound_tracker.variables),
            "best": state.best_weights,
        }
        arrays = {f"{group}/{name}": values for group, of in groups.items() for name, values in of.items()}
        if not all(np.all(np.isfinite(values)) for values in arrays.values()):
            raise NonFiniteWeight(f"a weight is not finite after update {int(model.optimizer.iterations)}")
        arrays["log"] = np.array([[row[name] for name in log.COLUMNS] for row in state.log])
        rest = {name: getattr(state, name) for name in ("epoch", "update", "seconds", "waited", "stopped")}
        rest["best"] = state.best if math.isfinite(state.best) else None
        checkpoints.save(self._folder, int(model.optimizer.iterations), arrays, rest, self._run)
        self._saved_at = time.monotonic()
        self._save_seconds = self._saved_at - started

    def restore(self) -> None:
        """Takes up the newest checkpoint, if there is one.

        Raises:
            CheckpointError: it is not one of this run, or does not fit the model.
        """
        found = checkpoints.load(self._folder, self._run)
        if not found:
            return
        arrays, rest = found
        groups: dict[str, dict[str, np.ndarray]] = {name: {} for name in ("model", "optimizer", "tracker", "best")}
        for name, values in arrays.items():
            group, _, path = name.partition("/")
            groups.get(group, {})[path] = values
        state = self._state
        try:
            for name in ("epoch", "update", "seconds", "waited", "stopped"):
                setattr(state, name, rest[name])
            state.best = -math.inf if rest["best"] is None else rest["best"]
            state.log = log.parse(arrays["log"])
            if not 0 <= state.update < state.updates:
                raise ValueError(f"update {state.update} of {state.updates} in an epoch")
            if groups["best"]:
                assign(self._network.variables, groups["best"])  # whether it fits; its time comes at the end
            if state.update:
                assign(self._network.bound_tracker.variables, groups["tracker"])  # likewise
            assign(self._network.variables, groups["model"])
            assign(self._network.optimizer.variables, groups["optimizer"], below_root=True)
        except (KeyError, ValueError, TypeError, OverflowError) as error:
            raise checkpoints.CheckpointError(
                f"{self._folder}: expected a checkpoint of this model, got one that does not fit: {error}"
            ) from None
        state.best_weights = groups["best"]
        if state.update:
            self._tracked = groups["tracker"]


def named(variables: Sequence[keras.Variable], below_root: bool = False) -> dict[str, np.ndarray]:
    """The values of variables by their paths, which must differ.

    `below_root`: without the first part, which for an optimizer says how many there were before it in the process; and
    without its learning rate, which the schedule sets.
    """
    values = {path: variable.numpy() for path, variable in _by_path(variables, below_root)}
    assert len(values) == len(_by_path(variables, below_root)), "two variables have one path"
    return values


def assign(variables: Sequence[keras.Variable], values: Mapping[str, np.ndarray], below_root: bool = False) -> None:
    """Gives each variable the value of its path, as `named` has them.

    Raises:
        ValueError: a value is missing, left over, or of another shape.
    """
    by_path = dict(_by_path(variables, below_root))
    if wrong := sorted(set(by_path) ^ set(values)):
        raise ValueError(f"expected values for {len(by_path)} variables, got other names: {', '.join(wrong[:3])}")
    for path, variable in by_path.items():
        variable.assign(values[path])


def _by_path(variables: Sequence[keras.Variable], below_root: bool) -> list[tuple[str, keras.Variable]]:
    if not below_root:
        return [(variable.path, variable) for variable in variables]
    paths = ((variable.path.partition("/")[2], variable) for variable in variables)
    return [(path, variable) for path, variable in paths if path != "learning_rate"]
