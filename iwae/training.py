"""Training: the schedule, the images on the device, blocks of shuffled indices, callbacks, checkpoints.

How a run flows: `index_blocks` yields blocks of shuffled indices [S, B] -> Keras `fit` -> `IWAE.train_step` runs S
updates in one compiled loop on `ResidentImages` -> callbacks (validation, log, checkpoint, progress) at block and epoch
ends. Everything random depends on the experiment's seed and on the number of the update or epoch alone, so a continued
run is the uninterrupted one.
"""

import csv
import gc
import io
import math
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf

from iwae import progress, rng
from iwae.diagnostics import nonfinite
from iwae.runs import checkpoints, log

# Grey values are kept as thresholds for 15 random bits: exact at 0 and 1, off by at most 1.6e-5 between, in half the
# memory of floats.
_THRESHOLD_BITS = 15


class ResidentImages:
    """Images on the device, from which batches are taken by index inside the compiled training loop.

    Args:
        images: [n, D]; grey values in [0, 1] with `stochastic`, else what the model is to be given.
        stochastic: every time an image is used, each pixel is drawn anew from Bernoulli(grey value).
    """

    def __init__(self, images: np.ndarray, stochastic: bool):
        self.stochastic = stochastic
        if stochastic:
            images = np.round(images * 2.0**_THRESHOLD_BITS).astype(np.uint16)
        elif np.all((images == 0) | (images == 1)):
            images = images.astype(np.uint8)
        self.values = tf.constant(images)

    def batch(self, indices: tf.Tensor, seed: tf.Tensor) -> tf.Tensor:
        """Images [B, D], float32, for indices [B]; `seed` [2] decides the binarization."""
        values = tf.gather(self.values, indices)
        if not self.stochastic:
            return tf.cast(values, tf.float32)
        bits = tf.bitwise.right_shift(rng.words(values.shape, seed), tf.constant(32 - _THRESHOLD_BITS, tf.uint32))
        return tf.cast(tf.cast(bits, tf.int32) < tf.cast(values, tf.int32), tf.float32)


def index_blocks(
    examples: int, batch: int, rows: int, seed: int, first_epoch: int = 0, first_update: int = 0
) -> Iterator[tuple[np.ndarray]]:
    """Endless blocks of indices [rows, batch], shuffled anew each epoch by (seed, epoch).

    An epoch uses every example once; it is padded with -1 at its end, to whole batches and whole blocks. The first one
    may start after some of its updates, with blocks of the same or of another length.
    """
    epoch, start = first_epoch, first_update
    while True:
        updates = start + blocks_per_epoch(examples, batch, rows, start) * rows
        order = np.full(updates * batch, -1, np.int32)
        order[:examples] = np.random.default_rng([seed, epoch]).permutation(examples)
        for block in order[start * batch :].reshape(-1, rows, batch):
            yield (block,)  # the form Keras wants: (inputs,)
        epoch, start = epoch + 1, 0


def blocks_per_epoch(examples: int, batch: int, rows: int, first_update: int = 0) -> int:
    """Blocks of `rows` updates that an epoch of `examples` takes from an update on; the last one may be padded."""
    return math.ceil((math.ceil(examples / batch) - first_update) / rows)


def epochs(settings) -> int:
    """Passes over the data of `config.Training`: `epochs`, or all of the paper's stages, (3^stages - 1) / 2."""
    return settings.epochs if settings.epochs is not None else (3**settings.stages - 1) // 2


def learning_rate(settings, epoch: int) -> float:
    """Learning rate of an epoch, counted from 0, under a schedule of `config.Training` that goes by epochs.

    "burda": stage i = 0, 1, ... lasts 3^i epochs at learning_rate * 10^(-i/7) (Burda et al. 2015, section 5).
    "multistep": learning_rate times gamma for each of the milestones that has been reached.
    """
    if settings.schedule == "burda":
        stage = next(i for i in range(epoch + 1) if epoch < (3 ** (i + 1) - 1) // 2)
        return settings.learning_rate * 10 ** (-stage / 7)
    if settings.schedule == "multistep":
        return settings.learning_rate * settings.gamma ** sum(epoch >= milestone for milestone in settings.milestones)
    return settings.learning_rate


def cosine(settings, updates: int) -> keras.optimizers.schedules.CosineDecay:
    """Learning rate by update under schedule "cosine", with `updates` updates an epoch; zero after the last one."""
    warmup = settings.warmup_epochs * updates
    return keras.optimizers.schedules.CosineDecay(
        initial_learning_rate=0.0 if warmup else settings.learning_rate,
        decay_steps=settings.epochs * updates - warmup,
        warmup_target=settings.learning_rate if warmup else None,
        warmup_steps=warmup,
    )


class StopRequested(Exception):
    """Training was asked to stop, and has saved everything."""


class NonFiniteBound(ArithmeticError):
    """The bound or a weight became infinite or not a number; the message says where first, and what may help."""


def train(
    model,
    images: np.ndarray,
    valid: np.ndarray,
    settings,
    *,
    stochastic: bool,
    batch: int,
    seed: int,
    folder: Path,
    beta: float = 1.0,
    beta_warmup_epochs: int = 0,
    stop_requested: Callable[[], bool] = lambda: False,
) -> None:
    """Trains `model` under `config.Training`, or continues it from the newest checkpoint in `folder`.

    Args:
        model: an `IWAE`, not compiled.
        images: [n, D]. Grey values in [0, 1] with `stochastic`, else what the model is given.
        valid: [m, D], binarized; the bound on them is logged each epoch. May be empty.
        settings: `config.Training`.
        stochastic: binarize anew each time an image is used.
        batch: B.
        seed: of order, binarization and noise.
        folder: of the run; gets `checkpoints/`, `log.csv` and `tensorboard/`.
        beta, beta_warmup_epochs: weight of the KL term, reached linearly from 0 over so many epochs.
        stop_requested: asked after every block; once it says so, a checkpoint is written and training stops.

    Raises:
        NonFiniteBound: at the update where the bound is not finite; the last checkpoint stays.
        StopRequested: `stop_requested` said so; everything is saved.
    """
    model.hold(ResidentImages(images, stochastic))
    updates = math.ceil(len(images) / batch)
    by_update = settings.schedule == "cosine"
    optimizer = keras.optimizers.Adam(
        cosine(settings, updates) if by_update else settings.learning_rate,
        beta_1=settings.beta_1, beta_2=settings.beta_2, epsilon=settings.epsilon,
    )  # fmt: skip
    optimizer.build(model.trainable_variables)
    model.compile(optimizer=optimizer)
    rows, total = min(settings.updates_per_call, updates), epochs(settings)

    def set_rates(epoch: int) -> None:
        if not by_update:
            optimizer.learning_rate.assign(learning_rate(settings, epoch))
        model.beta.assign(beta * min(1.0, epoch / beta_warmup_epochs) if beta_warmup_epochs else beta)

    validation = ValidationBound(model, valid, seed) if len(valid) else None
    keeper = Bookkeeper(model, settings, validation, len(images), batch, rows, seed, folder, set_rates, stop_requested)
    keeper.restore()
    variables = {"epoch": "epoch {value}", "bound": "{value:.2f} nats", "speed": "{value:,.0f} images/s"}
    done = keeper.epoch * updates + keeper.update
    with keeper.events, progress.Bar(total * updates, "train", done, **variables) as keeper.bar:
        # An epoch that was interrupted in its middle is finished first, by a `fit` of its own with fewer steps.
        ended: Exception | None = None
        while keeper.epoch < total and not keeper.stopped and ended is None:
            try:
                model.fit(
                    index_blocks(len(images), batch, rows, seed, keeper.epoch, keeper.update),
                    epochs=keeper.epoch + 1 if keeper.update else total,
                    initial_epoch=keeper.epoch,
                    steps_per_epoch=blocks_per_epoch(len(images), batch, rows, keeper.update),
                    shuffle=False,
                    verbose=0,
                    callbacks=[keeper],
                )
            except (StopRequested, NonFiniteBound, OSError) as error:
                ended = error.with_traceback(None)  # which would keep the frame of `fit`
        if ended is not None:
            gc.collect()  # an iterator that lives to the end of the process makes TensorFlow complain there
            raise ended
    if keeper.best_weights is not None:
        _assign(model.variables, keeper.best_weights)


class Events:
    """The curves of `log.csv` for TensorBoard, in a folder; as a context manager it closes the file.

    Keras's own callback is not used: the process then grows by 5 kB an epoch.
    """

    def __init__(self, folder: Path):
        # TensorFlow takes the names of files as UTF-8, whatever the locale says.
        self._writer = tf.summary.create_file_writer(os.fsencode(folder).decode(errors="surrogateescape"))

    def write(self, row: dict) -> None:
        """`row` is one of `log.csv`."""
        with self._writer.as_default():
            for name in ("train_bound", "valid_bound", "learning_rate", "images_per_second"):
                # NumPy's numbers: TensorFlow keeps every Python number it was ever given, some 2 kB each.
                tf.summary.scalar(name, np.float32(row[name]), step=np.int64(row["epoch"]))

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self._writer.close()


class Bookkeeper(keras.callbacks.Callback):
    """What goes on beside the updates: rates, validation, log, checkpoints, early stopping, progress, stopping.

    `epoch` counts finished epochs, `update` finished updates of the epoch under way.
    """

    CHECKPOINT_SECONDS = 60.0  # a checkpoint inside an epoch at least this often
    LARGE_DATA = 100.0  # data beyond this are told of when training goes wrong: the networks expect about 1
    CHECKPOINT_SHARE = 0.05  # at the end of an epoch, unless checkpoints would take more than this share of the time

    def __init__(self, model, settings, validation, examples, batch, rows, seed, folder, set_rates, stop_requested):
        super().__init__()
        self.network, self.settings, self.validation, self.examples = model, settings, validation, examples
        self.batch, self.rows, self.seed, self.folder = batch, rows, seed, Path(folder)
        self.set_rates, self.stop_requested = set_rates, stop_requested
        self.epoch, self.update, self.seconds = 0, 0, 0.0
        self.tracked = None  # state of the mean bound of a half epoch, restored
        self.best, self.best_weights, self.waited, self.stopped = -math.inf, None, 0, False
        self.saved_at, self.save_seconds = time.monotonic(), 0.0
        self.log, self.log_rows, self.events = self.folder / "log.csv", [], Events(self.folder / "tensorboard")
        self.updates = math.ceil(examples / batch)  # in an epoch
        self.snapshot = nonfinite.snapshot(model)
        self.bar: progress.Bar

    # ---- Keras calls these ----

    def on_epoch_begin(self, epoch, logs=None):
        self.set_rates(epoch)
        if self.tracked is not None:
            _assign(self.network.bound_tracker.variables, self.tracked)
            self.tracked = None
        self.clock = time.perf_counter()

    def on_train_batch_begin(self, batch, logs=None):
        self.before = self.snapshot()  # in case this block goes wrong
        self.block_epoch, self.block_start = self.epoch, self.update

    def on_train_batch_end(self, batch, logs=None):
        if logs["nonfinite_update"]:
            raise self._non_finite(f"the bound is not finite at update {int(logs['nonfinite_update'])}")
        self._count_seconds()
        self.update = min(self.update + self.rows, self.updates)
        done = min(self.update * self.batch, self.examples)
        self.bar.update(
            self.epoch * self.updates + self.update,
            epoch=self.epoch + 1,
            bound=logs["bound"],
            speed=done / self.seconds,
        )
        stop = self.stop_requested()
        if self.update < self.updates and (stop or time.monotonic() - self.saved_at > self.CHECKPOINT_SECONDS):
            self.save()
            if stop:
                raise StopRequested

    def on_epoch_end(self, epoch, logs=None):
        self._count_seconds()
        row = {
            "epoch": epoch + 1,
            "updates": int(self.network.optimizer.iterations),
            "learning_rate": float(self.network.optimizer.learning_rate),
            "train_bound": logs["bound"],
            "valid_bound": self.validation() if self.validation else math.nan,
            "seconds": round(self.seconds, 3),
            "images_per_second": round(self.examples / self.seconds, 1),
        }
        self._write_row(row)
        self.epoch, self.update, self.seconds = epoch + 1, 0, 0.0
        self._judge(row["valid_bound"])
        last, stop = self.epoch == epochs(self.settings) or self.stopped, self.stop_requested()
        if last or stop or time.monotonic() - self.saved_at > self.save_seconds / self.CHECKPOINT_SHARE:
            self.save()
        if stop and not last:
            raise StopRequested

    # ---- state ----

    def save(self) -> None:
        started = time.monotonic()
        arrays = _named("model", self.network.variables) | _named("optimizer", self.network.optimizer.variables)
        arrays |= _named("tracker", self.network.bound_tracker.variables)
        if self.best_weights is not None:
            arrays |= {f"best/{i:03d}": values for i, values in enumerate(self.best_weights)}
        state = {
            "epoch": self.epoch,
            "update": self.update,
            "seconds": self.seconds,
            "waited": self.waited,
            "best": self.best if math.isfinite(self.best) else None,
            "stopped": self.stopped,
        }
        if not all(np.all(np.isfinite(values)) for values in arrays.values()):
            raise self._non_finite(f"a weight is not finite after update {int(self.network.optimizer.iterations)}")
        arrays["log"] = np.array([[row[name] for name in log.COLUMNS] for row in self.log_rows])
        checkpoints.save(self.folder / "checkpoints", int(self.network.optimizer.iterations), arrays, state)
        self.saved_at = time.monotonic()
        self.save_seconds = self.saved_at - started

    def restore(self) -> None:
        """Takes up the newest checkpoint, if there is one, and cuts the log back to it."""
        found = checkpoints.load(self.folder / "checkpoints")
        if found:
            arrays, state = found
            self.epoch, self.update, self.seconds = state["epoch"], state["update"], state["seconds"]
            self.waited, self.stopped = state["waited"], state["stopped"]
            self.best = -math.inf if state["best"] is None else state["best"]
            _assign(self.network.variables, _numbered("model", arrays))
            _assign(self.network.optimizer.variables, _numbered("optimizer", arrays))
            self.best_weights = _numbered("best", arrays) or None
            if self.update:
                self.tracked = _numbered("tracker", arrays)
            if "log" in arrays:
                self.log_rows = log.rows(arrays["log"])
            else:  # a checkpoint of an earlier version
                self.log_rows = [row for row in log.read(self.log) if row["epoch"] <= self.epoch]
        text = io.StringIO()
        writer = csv.DictWriter(text, log.COLUMNS, lineterminator="\n")
        writer.writeheader()
        writer.writerows(self.log_rows)
        checkpoints.write_atomically(self.log, text.getvalue().encode())

    def _judge(self, bound: float) -> None:
        if self.settings.early_stopping_patience is None:
            return
        if bound > self.best + self.settings.early_stopping_threshold:
            self.best, self.waited = bound, 0
            self.best_weights = [variable.numpy().copy() for variable in self.network.variables]
        else:
            self.waited += 1
            if self.waited >= self.settings.early_stopping_patience:
                self.stopped = self.network.stop_training = True

    def _write_row(self, row: dict) -> None:
        self.log_rows.append(row)
        with open(self.log, "a", newline="") as file:
            csv.DictWriter(file, log.COLUMNS, lineterminator="\n").writerow(row)
        self.events.write(row)

    def _non_finite(self, what: str) -> NonFiniteBound:
        """The error, after a look at where it began: the last block of updates is done once more."""
        indices = index_blocks(self.examples, self.batch, self.rows, self.seed, self.block_epoch, self.block_start)
        block = next(indices)[0]
        what += f" (epoch {self.block_epoch + 1})"
        found = nonfinite.first(self.network, block, self.before)
        if found:
            update, names = found
            rest = f" and {len(names) - 3} more" if len(names) > 3 else ""
            what += f"; not finite first, at update {update}: {', '.join(names[:3])}{rest}"
        largest = float(tf.reduce_max(tf.abs(tf.cast(self.network.images.values, tf.float32))))
        if not math.isfinite(largest):
            advice = "the training data hold values that are not finite"
        elif largest > self.LARGE_DATA and not self.network.images.stochastic:
            advice = f"the training data reach {largest:.3g}: scale them to about 1 (or try a smaller learning rate)"
        else:
            advice = f"try a training.learning_rate smaller than {self.settings.learning_rate:g}, with --accept-changes"
        return NonFiniteBound(f"{what}; {advice}")

    def _count_seconds(self) -> None:
        now = time.perf_counter()
        self.seconds += now - self.clock
        self.clock = now


class ValidationBound:
    """The model's objective on held-out images, always with the same noise: comparable between epochs.

    Args:
        model: an `IWAE`.
        images: [m, D], as the model is given them.
        seed: of the noise.
    """

    def __init__(self, model, images: np.ndarray, seed: int):
        samples = model.samples_per_example
        batch = max(1, min(len(images), 1000 // samples))
        count = math.ceil(len(images) / batch)
        padded = np.zeros((count * batch, images.shape[1]), images.dtype)
        padded[: len(images)] = images
        resident = ResidentImages(padded, stochastic=False)

        @tf.function(jit_compile=True)
        def mean_bound(values):
            def add_batch(i, total):
                x = tf.cast(values[i], tf.float32)
                noise = model.draw_noise(samples, batch, rng.stream(seed, i, "validate"))
                bound = model.objective(model.log_weight_terms(x, noise).log_weights())
                real = i * batch + tf.range(batch) < len(images)
                return i + 1, total + tf.reduce_sum(tf.where(real, bound, 0.0))

            return tf.while_loop(lambda i, _: i < count, add_batch, (0, 0.0))[1] / len(images)

        values = tf.reshape(resident.values, [count, batch, -1])
        self._compiled = lambda: mean_bound(values)

    def __call__(self) -> float:
        return float(self._compiled())


def _assign(variables, values) -> None:
    for variable, value in zip(variables, values, strict=True):
        variable.assign(value)


def _named(group: str, variables) -> dict[str, np.ndarray]:
    return {f"{group}/{i:03d}": variable.numpy() for i, variable in enumerate(variables)}


def _numbered(group: str, arrays: dict[str, np.ndarray]) -> list[np.ndarray]:
    return [arrays[name] for name in sorted(arrays) if name.startswith(f"{group}/")]
