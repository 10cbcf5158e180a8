"""Times the cases, each beside the floor of its matrix products and of its optimizer's memory traffic. TensorFlow must
have been started (`iwae.device`)."""

import contextlib
import itertools
import json
import resource
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from iwae import batches, config, device, evaluation, hardware
from iwae.benchmark.cases import EXAMPLES, PIXELS, Case, updates_at_once
from iwae.model import IWAE


def multiplications(model: IWAE) -> tuple[int, int]:
    """Multiply-adds of the matrix products of one forward pass: (once an image, once an importance sample)."""

    def of(layer: keras.Layer) -> int:
        return sum(int(np.prod(v.shape)) for v in layer.trainable_variables if len(v.shape) == 2)

    return of(model.encoder[0]), sum(of(layer) for layer in (*model.encoder[1:], *model.decoder))


def arithmetic(case: Case, model: IWAE) -> float:
    """Floating-point operations of the matrix products: of one update, or of one image that is evaluated.

    A backward pass costs two forward ones. The sampled estimator goes forward with all k samples and forward and
    backward with one.
    """
    image, sample = multiplications(model)
    if case.task == "evaluate":
        return 2.0 * (image + case.k * sample)
    if case.estimator == "sampled":
        return 2.0 * case.batch * (image + case.k * sample + 3 * (image + sample))
    return 2.0 * case.batch * 3 * (image + case.k * sample)


def matrix_product_rate(size: int = 2048, seconds: float = 0.1) -> Callable[[], float]:
    """A function that measures the rate of a size x size float32 matrix product, in operations a second."""
    a = tf.random.stateless_normal([size, size], (1, 2))
    product = tf.function(lambda: tf.reduce_sum(tf.matmul(a, a)[0]))
    product().numpy()

    def measure() -> float:
        started, count = time.perf_counter(), 0
        while time.perf_counter() - started < seconds:
            product().numpy()  # waits for the device
            count += 1
        return count * 2 * size**3 / (time.perf_counter() - started)

    return measure


def optimizer_traffic(model: IWAE, times: int = 50) -> Callable[[], float]:
    """A function that measures the seconds in which the weights and Adam's two moments are read and written once, and
    the gradients read: as four arrays of all weights, in a compiled loop that only adds."""
    gradients = tf.ones([sum(int(np.prod(variable.shape)) for variable in model.trainable_variables)])

    @tf.function(jit_compile=True)
    def move(gradients: tf.Tensor) -> tf.Tensor:
        arrays = [i * gradients for i in (1.0, 2.0, 3.0)]  # XLA would keep one of equal ones
        moved = tf.while_loop(lambda *_: True, lambda *a: [b + gradients for b in a], arrays, maximum_iterations=times)
        return tf.add_n([array[0] for array in moved])

    move(gradients).numpy()  # compiles

    def measure() -> float:
        started = time.perf_counter()
        move(gradients).numpy()  # waits for the device
        return (time.perf_counter() - started) / times

    return measure


def build(case: Case) -> tuple[IWAE, np.ndarray]:
    """The model of a case and the images that it is timed with."""
    generator = np.random.default_rng(1)
    images = generator.random((EXAMPLES if case.task == "start" else 100 * case.batch, PIXELS), np.float32) * 0.3
    model = IWAE(
        PIXELS,
        k=case.k,
        objective=case.objective,
        estimator=case.estimator,
        data_moments=(images.mean(axis=0), images.std(axis=0)),
        **config.PAPER_NETWORKS[case.layers],
    )
    if case.task != "evaluate":
        model.hold(batches.ResidentImages(images, stochastic=True))
        model.compile(optimizer=keras.optimizers.Adam(1e-3, epsilon=1e-4))
        model.optimizer.build(model.trainable_variables)
    return model, images


def prepare(case: Case) -> tuple[IWAE, Callable[[], float]]:
    """The model of a case and a function that runs it a few times and gives the seconds of one."""
    model, images = build(case)
    if case.task == "evaluate":
        binary = (images[: evaluation.batch_size(model, case.k)] > 0.15).astype(np.float32)
        compiled = evaluation.compile_importance_sampling(model, case.k)
        numbers = np.arange(len(binary))

        def evaluate() -> float:
            started = time.perf_counter()
            compiled(binary, numbers, 1)
            return (time.perf_counter() - started) / len(binary)

        return model, evaluate
    return model, updates_of(model, len(images), case.batch, updates_at_once(case.k, hardware.on_gpu()))


def updates_of(model: IWAE, examples: int, batch: int, rows: int) -> Callable[[], float]:
    """A function that does a block of updates of a model, which holds its images, and gives the seconds of one."""
    # As `fit` calls it, which is not what `train_on_batch` does: its threads are others, with memory of their own.
    dataset = tf.data.Dataset.from_generator(
        lambda: batches.index_blocks(examples, batch, rows, seed=1),
        output_signature=(tf.TensorSpec([None, batch], tf.int32),),
    ).prefetch(2)
    options = tf.data.Options()
    # The thread that tunes a dataset sleeps, longer each time, up to a minute; its end is waited for when we are done.
    options.autotune.enabled = False
    blocks = iter(dataset.with_options(options))
    model.make_train_function()
    update: Any = model.train_function

    def train() -> float:
        started = time.perf_counter()
        float(update(blocks)["bound"])  # a number, so it waits for the device
        return (time.perf_counter() - started) / rows

    return train


def measure(cases: Sequence[Case], repeats: int, tf32: bool = False) -> Iterator[dict[str, Any]]:
    """Times the cases; the repeats of all cases take turns, so that a slow minute of the machine meets them all.

    With `tf32` updates are compiled with products in TF32, as `training.tf32` has them; the floor's are not.
    """
    timed = [case for case in cases if case.task != "start"]
    rate = matrix_product_rate()
    prepared = {}
    for case in timed:
        started = time.perf_counter()
        model, run = prepare(case)
        with device.tf32(tf32 and case.task == "train"):
            run()  # traces and compiles
        compiling = time.perf_counter() - started
        prepared[case] = (model, run, optimizer_traffic(model) if case.task == "train" else lambda: 0.0, compiling)
    # Of each repeat: seconds, those of the matrix products alone, and those of the optimizer's memory traffic alone.
    found: dict[Case, list[tuple[float, float, float]]] = {case: [] for case in timed}
    for _, case in itertools.product(range(repeats), timed):
        model, run, traffic, _ = prepared[case]
        before, seconds, optimizer = rate(), run(), traffic()
        found[case].append((seconds, arithmetic(case, model) / (0.5 * (before + rate())), optimizer))
    for case in timed:
        model, (seconds, products, optimizer) = prepared[case][0], np.array(found[case]).T
        taken, ratio = float(np.median(seconds)), float(np.median(seconds / products))
        low, high = np.percentile(seconds, [25, 75])
        unit = {"ms_per_update": 1e3 * taken} if case.task == "train" else {"seconds_per_image": taken}
        yield {
            "case": case.task,
            "layers": case.layers,
            "k": case.k,
            "batch": case.batch if case.task == "train" else evaluation.batch_size(model, case.k),
            "objective": case.objective,
            "estimator": case.estimator,
            "tf32": tf32 and case.task == "train",
            **unit,
            "quartiles_ms": [1e3 * float(low), 1e3 * float(high)],
            "flop_floor_ms": 1e3 * taken / ratio,
            "ratio_to_floor": ratio,
            "optimizer_floor_ms": 1e3 * float(np.median(optimizer)),
            "ratio_to_both": float(np.median(seconds / (products + optimizer))),
            "compile_seconds": prepared[case][-1],
        }
    for case in cases:
        if case.task == "start":
            yield first_update(case)


def first_update(case: Case) -> dict[str, Any]:
    """Seconds from the start of a process to its first update, and its peak memory after some hundred more."""
    code = "import sys; from iwae import device; device.start_tensorflow(); from iwae.benchmark import timing; "
    code += f"timing.child(timing.Case{tuple(case)!r}, float(sys.argv[1]))"
    command = [sys.executable, "-c", code, repr(time.time())]
    lines = subprocess.run(command, check=True, capture_output=True, text=True).stdout.splitlines()
    return {"case": case.task, "layers": case.layers, "k": case.k, "batch": case.batch, **json.loads(lines[-1])}


def child(case: Case, started: float) -> None:
    """What `first_update` runs in a process of its own."""
    model, run = prepare(case)
    run()
    first = time.time() - started
    for _ in range(4):
        run()
    print(json.dumps({"seconds_to_first_block": first, "peak_memory_gib": peak_memory()}))


def peak_memory() -> float:
    """The most memory that this process had resident at once, in GiB."""
    with contextlib.suppress(OSError, StopIteration):  # Linux, where the figure below counts the parent process too
        lines = Path("/proc/self/status").read_text().splitlines()
        return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM:")) / 2**20
    unit = 1 if sys.platform == "darwin" else 2**10
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 2**30
