"""Training: Keras's `fit` on blocks of updates, and what goes on beside them.

How a run flows: `batches.index_blocks` yields blocks of shuffled indices [S, B] -> Keras `fit` -> `IWAE.train_step`
runs S updates in one compiled loop on `batches.ResidentImages` -> `callbacks` at block and epoch ends. Everything
random depends on the experiment's seed and on the number of the update or epoch alone, so a continued run is the
uninterrupted one.
"""

import contextlib
import functools
import gc
import math
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from iwae import batches, callbacks, device, hardware, progress, rotated, schedule
from iwae.callbacks import State, StopRequested
from iwae.config import ConfigError, Training
from iwae.flows import FlowLayer
from iwae.model import IWAE
from iwae.nonfinite import NonFiniteBound, Watch
from iwae.runs.folder import Folder
from iwae.shares import Shares
from iwae.team import Message, Team


def train(
    model: IWAE,
    images: np.ndarray,
    valid: np.ndarray,
    settings: Training,
    *,
    stochastic: bool,
    batch: int,
    seed: int,
    folder: Folder,
    beta: float = 1.0,
    beta_warmup_epochs: int = 0,
    stop_requested: Callable[[], bool] = lambda: False,
    run: str = "",
    image_shape: Sequence[int] | None = None,
    parameters: Mapping[str, Any] = MappingProxyType({}),
    others: Sequence[keras.callbacks.Callback] = (),
    team: Team | None = None,
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
        folder: of the run; gets `checkpoints/`, `log.csv`, `tensorboard/` and, of images, `samples.npz`.
        beta, beta_warmup_epochs: weight of the KL term, reached linearly from 0 over so many epochs.
        stop_requested: asked after every block; once it says so, a checkpoint is written and training stops.
        run: says which run this is; a checkpoint of another one is refused.
        image_shape: [H, W] or [H, W, 3] of what the model makes; None if that are no images.
        parameters: of the run, by their dotted names, for TensorBoard.
        others: callbacks of Keras that are called before a checkpoint is written; a batch is a block of updates. With
            `stop_training` they end training after the epoch.
        team: among whose devices the shares of a batch are dealt out; they divide `settings.shares`. None: one device.

    Raises:
        NonFiniteBound: at the update where the bound is not finite; the last checkpoint stays.
        StopRequested: `stop_requested` said so; everything is saved.
        CheckpointError: there are checkpoints that this run cannot be continued from.
    """
    team = team or Team()
    total = settings.passes
    state, prepare = _start(images, settings, stochastic, batch)
    updates, optimizer = state.updates, prepare(model)

    def plain_weights() -> dict[str, np.ndarray]:
        rotated_ones = optimizer.plain_weights() if isinstance(optimizer, rotated.RotatedAdam) else {}
        return callbacks.named(model.variables) | rotated_ones

    def set_beta(epoch: int, _: object = None) -> None:
        model.beta.assign(beta * min(1.0, epoch / beta_warmup_epochs) if beta_warmup_epochs else beta)

    def set_k(epoch: int, _: object = None) -> None:
        few = settings.first_k is not None and epoch < settings.first_k_epochs
        model.train_with(settings.first_k if few else None)

    checkpoints = callbacks.Checkpoints(
        model, state, folder.checkpoints, total, settings.checkpoint_seconds,
        lambda: stop_requested() or team.wished, run,
    )  # fmt: skip
    checkpoints.restore()
    watch = Watch(model, state, seed, settings)
    variables = {"epoch": "epoch {value}", "bound": "{value:.2f} nats", "speed": "{value:,.0f} images/s"}
    done = state.epoch * updates + state.update
    halted = False  # by a callback
    ended: Exception | None = None
    _tell(progress.starting(str(folder), total, len(images), state.epoch, hardware.describe()))
    with (
        _let_go_at_the_end(model, optimizer),
        callbacks.Curves(state, folder.tensorboard, parameters) as curves,
        progress.Bar(total * updates, "train", done, **variables) as bar,
    ):
        beside = [
            keras.callbacks.LambdaCallback(on_epoch_begin=set_beta),
            keras.callbacks.LambdaCallback(on_epoch_begin=set_k),
            callbacks.Time(state),
            watch,
            callbacks.Progress(state, bar),
            callbacks.Log(state, folder.log),
            curves,
            *others,
            checkpoints,
        ]
        if settings.schedule != "cosine":
            beside.insert(0, keras.callbacks.LearningRateScheduler(lambda e, _: schedule.learning_rate(settings, e)))
        if isinstance(optimizer, rotated.RotatedAdam):
            beside.insert(beside.index(watch), rotated.NewCoordinates(model, state, seed))
        if image_shape is not None:
            beside.insert(beside.index(curves) + 1, callbacks.Samples(folder, total, seed, image_shape, curves))
        if len(valid):
            beside.insert(beside.index(watch), callbacks.Validation(model, valid, seed))
        if settings.early_stopping_patience is not None:
            stopping = callbacks.EarlyStopping(
                state, settings.early_stopping_patience, settings.early_stopping_threshold, plain_weights
            )
            beside.insert(beside.index(checkpoints), stopping)
        if settings.shares > 1:
            beside.append(Shares(model, settings.shares, batch, state, team, prepare))
            beside.insert(0, keras.callbacks.LambdaCallback(on_train_batch_end=lambda batch, logs: team.work_done()))
        if settings.tf32:  # for the updates alone
            beside.insert(
                0, keras.callbacks.LambdaCallback(on_train_batch_end=lambda batch, logs: device.use_tf32(False))
            )
            beside.append(
                keras.callbacks.LambdaCallback(on_train_batch_begin=lambda batch, logs: device.use_tf32(True))
            )
        # An epoch that was interrupted in its middle is finished first, by a `fit` of its own with fewer steps.
        while state.epoch < total and not (state.stopped or halted) and ended is None:
            try:
                model.fit(
                    batches.index_blocks(len(images), batch, state.rows, seed, state.epoch, state.update),
                    epochs=state.epoch + 1 if state.update else total,
                    initial_epoch=state.epoch,
                    steps_per_epoch=batches.blocks_per_epoch(len(images), batch, state.rows, state.update),
                    shuffle=False,
                    verbose=0,
                    callbacks=beside,
                )
                halted = model.stop_training
            except callbacks.NonFiniteWeight as error:
                ended = watch.error(str(error))
            except (StopRequested, NonFiniteBound, OSError, MemoryError, tf.errors.ResourceExhaustedError) as error:
                ended = error.with_traceback(None)  # which would keep the frame of `fit`
        if ended is not None:  # raised here, so that the bar ends as it stands
            raise ended
    if state.stopped or (halted and state.epoch < total):
        why = "the bound on validation images rises no more" if state.stopped else "a callback wanted it"
        _tell(f"stopped early, after epoch {state.epoch} of {total}: {why}")
    if state.best_weights and settings.early_stopping_patience is not None:
        callbacks.assign(model.variables, state.best_weights)


def follow(
    model: IWAE,
    images: np.ndarray,
    settings: Training,
    *,
    stochastic: bool,
    batch: int,
    seed: int,
    team: Team,
    stop_requested: Callable[[], bool],
) -> Message:
    """Takes part in the training that the first process of `team` does with the same arguments: what it tells next."""
    state, prepare = _start(images, settings, stochastic, batch)
    with _let_go_at_the_end(model, prepare(model)), device.tf32(settings.tf32):
        return Shares(model, settings.shares, batch, state, team, prepare).follow(seed, stop_requested)


def _start(
    images: np.ndarray, settings: Training, stochastic: bool, batch: int
) -> tuple[State, Callable[[IWAE], keras.optimizers.Adam]]:
    """A training at its start, and what gives a model the training set and its optimizer, on the device that is set."""
    updates = math.ceil(len(images) / batch)

    def prepare(model: IWAE) -> keras.optimizers.Adam:
        model.hold(batches.ResidentImages(images, stochastic))
        adam: Callable[..., keras.optimizers.Adam] = keras.optimizers.Adam
        if settings.optimizer == "rotated_adam":
            adam = functools.partial(rotated.RotatedAdam, rotated.groups_of(model))
        optimizer = adam(
            schedule.cosine(settings, updates) if settings.schedule == "cosine" else settings.learning_rate,
            beta_1=settings.beta_1, beta_2=settings.beta_2, epsilon=settings.epsilon,
        )  # fmt: skip
        optimizer.build(model.trainable_variables)
        model.compile(optimizer=optimizer, jit_compile=settings.shares == 1)
        return optimizer

    return State(len(images), batch, rows=batches.rows_of_blocks(updates, settings.updates_per_call)), prepare


def check_memory(model: IWAE, batch: int) -> None:
    """Refuses an update that cannot fit into the memory of a CPU: there the system would end the process, unheard.

    Of every sample the outputs of all layers are kept, and their gradients made, or by the estimator `sampled` the
    largest output alone. It is less than what an update takes: of the paper's networks 74 % with one layer, 95 % with
    two (`benchmarks/large.py --layers 2`).

    Raises:
        ConfigError: it names k, and the largest that may fit.
    """
    first = model.encoder[0]
    couplings = first.couplings if isinstance(first, FlowLayer) else ()
    parts = (*couplings, *model.encoder[1:], *model.decoder)
    outputs = [v.shape[-1] for part in parts for v in part.trainable_variables if len(v.shape) == 2]
    each = 4 * max(outputs, default=0) if model.estimator_name == "sampled" else 8 * sum(outputs)
    each *= batch * model.samples_per_example // model.k  # the latter are groups of k
    available = hardware.memory()
    if each * model.k > available:
        place = f"with a batch of {batch} and {available / 2**30:.3g} GiB of memory"
        raise ConfigError(f"model.k: expected at most {int(available / each):,} {place}, got {model.k:,}")


@contextlib.contextmanager
def _let_go_at_the_end(model: IWAE, optimizer: keras.optimizers.Adam) -> Iterator[None]:
    """Leaves the model without the training set, for the plain coordinates, however its training ends.

    But for the updates, products are full float32 ones.
    """
    try:
        with device.tf32(False):
            yield
    finally:
        model.hold(None)
        model.train_with(None)
        plain = optimizer.plain_adam() if isinstance(optimizer, rotated.RotatedAdam) else optimizer
        model.compile(optimizer=plain)  # through XLA, which shares do without
        gc.collect()  # an iterator that lives to the end of the process makes TensorFlow complain there


def _tell(line: str) -> None:
    with contextlib.suppress(OSError):  # training does not depend on its terminal
        print(line, file=sys.stderr, flush=True)
