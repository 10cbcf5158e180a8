"""Speed of training and evaluation, beside what the machine's own matrix product would take.

    python -m iwae.benchmark                    a table of all cases
    python -m iwae.benchmark --quick            a few cases, under a minute
    python -m iwae.benchmark --cases train:1:50:iwae:sampled evaluate:1:5000
    python -m iwae.benchmark --json             one JSON object a line
    python -m iwae.benchmark --plot FILE.png    time of an update and peak memory against k (five minutes)

The floor of a case is its matrix-product work, counted from the sizes of the model's layers, over the rate of a large
float32 matrix product that is measured in the same process, between the repeats of the case: so a machine that is busy
with something else slows both. Data are random images of MNIST's size, since speed does not depend on their content.
"""

import argparse
import contextlib
import itertools
import json
import resource
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from iwae import config, device

if TYPE_CHECKING:  # TensorFlow starts later, see `device`
    import keras

    from iwae.model import IWAE

PIXELS, BATCH, EXAMPLES = 784, 20, 59_600
EVALUATION_K = 5000


class Case(NamedTuple):
    """One thing that is timed; written TASK:LAYERS:K[:OBJECTIVE[:ESTIMATOR]] on the command line."""

    task: str  # train, evaluate or start
    layers: int
    k: int
    objective: str = "iwae"
    estimator: str = "reparameterized"

    def __str__(self) -> str:
        parts = [self.task, self.layers, self.k]
        return ":".join(map(str, parts + ([self.objective, self.estimator] if self.task == "train" else [])))


def all_cases() -> list[Case]:
    cases = []
    for layers, k, objective in itertools.product(config.PAPER_NETWORKS, (1, 5, 50), ("vae", "iwae")):
        cases.append(Case("train", layers, k, objective))
        if objective == "iwae":
            estimators = ("sampled", "sticking_the_landing", "dreg")
            cases += [Case("train", layers, k, objective, name) for name in estimators]
    return cases + [Case("evaluate", layers, EVALUATION_K) for layers in config.PAPER_NETWORKS] + [Case("start", 1, 50)]


SCALING_K = (1, 2, 5, 10, 20, 50, 100, 200, 500)
QUICK = [Case("train", 1, 1), Case("train", 1, 50), Case("train", 1, 50, "iwae", "sampled"), Case("evaluate", 1, 5000)]


def multiplications(model: "IWAE") -> tuple[int, int]:
    """Multiply-adds of the matrix products of one forward pass: (once an image, once an importance sample)."""

    def of(layer: "keras.Layer") -> int:
        return sum(int(np.prod(v.shape)) for v in layer.trainable_variables if len(v.shape) == 2)

    return of(model.encoder[0]), sum(of(layer) for layer in (*model.encoder[1:], *model.decoder))


def arithmetic(case: Case, model: "IWAE") -> float:
    """Floating-point operations of the matrix products: of one update, or of one image that is evaluated.

    A backward pass costs two forward ones. The sampled estimator goes forward with all k samples and forward and
    backward with one.
    """
    image, sample = multiplications(model)
    if case.task == "evaluate":
        return 2.0 * (image + case.k * sample)
    if case.estimator == "sampled":
        return 2.0 * BATCH * (image + case.k * sample + 3 * (image + sample))
    return 2.0 * BATCH * 3 * (image + case.k * sample)


def matrix_product_rate(size: int = 2048, seconds: float = 0.1) -> Callable[[], float]:
    """A function that measures the rate of a size x size float32 matrix product, in operations a second."""
    import tensorflow as tf

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


def prepare(case: Case) -> tuple["IWAE", Callable[[], float]]:
    """The model of a case and a function that runs it a few times and gives the seconds of one."""
    import keras
    import tensorflow as tf

    from iwae import batches, evaluation
    from iwae.model import IWAE

    generator = np.random.default_rng(1)
    images = generator.random((EXAMPLES if case.task == "start" else 100 * BATCH, PIXELS), np.float32) * 0.3
    model = IWAE(
        PIXELS,
        k=case.k,
        objective=case.objective,
        estimator=case.estimator,
        data_moments=(images.mean(axis=0), images.std(axis=0)),
        **config.PAPER_NETWORKS[case.layers],
    )
    if case.task == "evaluate":
        binary = (images[: evaluation.batch_size(case.k)] > 0.15).astype(np.float32)
        compiled = evaluation.compile_importance_sampling(model, case.k)
        numbers = np.arange(len(binary))

        def evaluate() -> float:
            started = time.perf_counter()
            compiled(binary, numbers, 1)
            return (time.perf_counter() - started) / len(binary)

        return model, evaluate
    model.hold(batches.ResidentImages(images, stochastic=True))
    model.compile(optimizer=keras.optimizers.Adam(1e-3, epsilon=1e-4))
    rows = 100 if case.k <= 5 else 25
    # As `fit` calls it, which is not what `train_on_batch` does: its threads are others, with memory of their own.
    blocks = iter(
        tf.data.Dataset.from_generator(
            lambda: batches.index_blocks(len(images), BATCH, rows, seed=1),
            output_signature=(tf.TensorSpec([None, BATCH], tf.int32),),
        ).prefetch(tf.data.AUTOTUNE)
    )
    model.make_train_function()
    update: Any = model.train_function

    def train() -> float:
        started = time.perf_counter()
        float(update(blocks)["bound"])  # a number, so it waits for the device
        return (time.perf_counter() - started) / rows

    return model, train


def measure(cases: Sequence[Case], repeats: int) -> Iterator[dict[str, Any]]:
    """Times the cases; the repeats of all cases take turns, so that a slow minute of the machine meets them all."""
    timed = [case for case in cases if case.task != "start"]
    rate = matrix_product_rate()
    prepared = {}
    for case in timed:
        started = time.perf_counter()
        model, run = prepare(case)
        run()  # traces and compiles
        prepared[case] = (model, run, time.perf_counter() - started)
    seconds: dict[Case, list[float]] = {case: [] for case in timed}
    ratios: dict[Case, list[float]] = {case: [] for case in timed}
    for _, case in itertools.product(range(repeats), timed):
        model, run, _ = prepared[case]
        before = rate()
        seconds[case].append(run())
        ratios[case].append(seconds[case][-1] * 0.5 * (before + rate()) / arithmetic(case, model))
    for case in timed:
        taken, ratio = float(np.median(seconds[case])), float(np.median(ratios[case]))
        low, high = np.percentile(seconds[case], [25, 75])
        unit = {"ms_per_update": 1e3 * taken} if case.task == "train" else {"seconds_per_image": taken}
        yield {
            "case": case.task,
            "layers": case.layers,
            "k": case.k,
            "batch": BATCH if case.task == "train" else evaluation_batch(case.k),
            "objective": case.objective,
            "estimator": case.estimator,
            **unit,
            "quartiles_ms": [1e3 * float(low), 1e3 * float(high)],
            "flop_floor_ms": 1e3 * taken / ratio,
            "ratio_to_floor": ratio,
            "compile_seconds": prepared[case][2],
        }
    for case in cases:
        if case.task == "start":
            yield first_update(case)


def evaluation_batch(k: int) -> int:
    from iwae import evaluation

    return evaluation.batch_size(k)


def first_update(case: Case) -> dict[str, Any]:
    """Seconds from the start of a process to its first update, and its peak memory after some hundred more."""
    code = f"import sys; from iwae import benchmark; benchmark.child(benchmark.Case{tuple(case)!r}, float(sys.argv[1]))"
    command = [sys.executable, "-c", code, repr(time.time())]
    lines = subprocess.run(command, check=True, capture_output=True, text=True).stdout.splitlines()
    return {"case": case.task, "layers": case.layers, "k": case.k, "batch": BATCH, **json.loads(lines[-1])}


def child(case: Case, started: float) -> None:
    """What `first_update` runs in a process of its own."""
    device.start_tensorflow()
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


def table(rows: Sequence[dict[str, Any]]) -> str:
    """The rows as text for the terminal."""
    lines = [f"{'case':46s} {'time':>16s} {'quartiles':>19s} {'floor':>10s} {'x floor':>8s} {'compile':>8s}"]
    for row in rows:
        if row["case"] == "start":
            lines.append(
                f"{'process start to first updates, k = ' + str(row['k']):46s} {row['seconds_to_first_block']:14.1f} s"
                f"   peak memory {row['peak_memory_gib']:.2f} GiB"
            )
            continue
        train = row["case"] == "train"
        name = f"{row['case']}, {row['layers']} layer{'s' * (row['layers'] > 1)}, k = {row['k']}"
        name += f", {row['objective']}, {row['estimator']}" if train else ""
        milliseconds = row["ms_per_update"] if train else 1e3 * row["seconds_per_image"]
        low, high = row["quartiles_ms"]
        lines.append(
            f"{name:46s} {milliseconds:8.3f} ms/{'update' if train else 'image '} {low:8.3f} - {high:8.3f} "
            f"{row['flop_floor_ms']:7.3f} ms {row['ratio_to_floor']:8.2f} {row['compile_seconds']:6.1f} s"
        )
    return "\n".join(lines)


def parse_case(text: str) -> Case:
    try:
        task, layers, k, *rest = text.split(":")
        case = Case(task, int(layers), int(k), *rest)
        if case.task not in ("train", "evaluate", "start") or case.layers not in config.PAPER_NETWORKS:
            raise ValueError("of tasks there are train, evaluate and start, of layers 1 and 2")
        parameters: dict[str, Any] = {"k": case.k, "objective": case.objective, "estimator": case.estimator}
        config.Experiment("benchmark", model=config.Model(**parameters, **config.PAPER_NETWORKS[case.layers]))
    except (ValueError, TypeError) as error:
        raise argparse.ArgumentTypeError(f"{text!r} is no TASK:LAYERS:K[:OBJECTIVE[:ESTIMATOR]]: {error}") from None
    return case


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m iwae.benchmark", description=__doc__.split("\n")[0])
    parser.add_argument("--json", action="store_true", help="one JSON object a line instead of the table")
    parser.add_argument("--quick", action="store_true", help="a few cases, under a minute")
    parser.add_argument("--repeats", type=int, default=9, help="timed repeats of every case (default 9)")
    parser.add_argument("--cases", nargs="+", type=parse_case, metavar="TASK:LAYERS:K[:OBJECTIVE[:ESTIMATOR]]")
    parser.add_argument("--plot", metavar="FILE.png", help="draw time and peak memory against k, k = 1 ... 500")
    options = parser.parse_args(arguments)
    if options.plot and (options.cases or options.quick):
        parser.error("argument --plot: it has cases of its own; give it without --cases and --quick")
    device.start_tensorflow()
    cases = options.cases or (QUICK if options.quick else all_cases())
    if options.plot:
        estimators = ("reparameterized", "sampled")
        cases = [Case("train", 1, k, "iwae", name) for name, k in itertools.product(estimators, SCALING_K)]
        cases += [Case("start", 1, k) for k in SCALING_K]
    rows = []
    for row in measure(cases, 3 if options.quick else options.repeats):
        rows.append(row)
        if options.json:
            print(json.dumps(row), flush=True)
    if not options.json:
        print(table(rows))
    if options.plot:
        from iwae import hardware
        from iwae.figures import curves, style

        title = f"IWAE, one stochastic layer, MNIST's size, batch {BATCH}, {hardware.describe()}"
        style.save(curves.time_against_k(rows, title), Path(options.plot))
    return 0


if __name__ == "__main__":
    sys.exit(main())
