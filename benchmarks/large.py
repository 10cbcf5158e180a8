"""Large batches and many samples, networks of the paper's size: images a second, and memory.

    python benchmarks/large.py                  both tables, some four minutes
    python benchmarks/large.py --only memory    peak memory of a training step, and where it passes --gib
    python benchmarks/large.py --only shares    an update of 200 images, k = 50, in shares and on two devices

Images a second are those of `fit` on a training set that is held on the device; the floor is what the matrix products
alone would take at the machine's own rate. Memory is the most that a process has resident in two updates of one batch,
a process for each size; it grows in proportion to k times the batch, so the two largest sizes tell where it passes a
limit.
"""

import argparse
import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np

sys.path[:0] = [str(Path(__file__).parent), str(Path(__file__).parents[1])]

from peers import task  # noqa: E402

from iwae import config, device  # noqa: E402
from iwae.benchmark.cases import Case  # noqa: E402

BATCHES, SAMPLES = (20, 100, 500, 2000), (1, 50)
MEMORY = [(50, 20), (500, 20), (5000, 20), (5000, 40), (5000, 80)]  # k, batch


def speed(rounds: int) -> Iterator[list[str]]:
    device.start_tensorflow()
    from iwae.benchmark import timing  # after TensorFlow's start, here and below

    cases = [Case("train", 1, k, batch=batch) for k in SAMPLES for batch in BATCHES]
    rows = {(row["k"], row["batch"]): row for row in timing.measure(cases, rounds)}
    yield ["k", "batch", "images a second", "an update", "x floor", "beside batch 20"]
    for (k, batch), row in rows.items():
        each, ratio = row["ms_per_update"], row["ratio_to_floor"]
        gain = batch / each / (BATCHES[0] / rows[k, BATCHES[0]]["ms_per_update"])
        yield [f"{k}", f"{batch}", f"{1e3 * batch / each:,.0f}", f"{each:.3g} ms", f"{ratio:.2f}", f"{gain:.2f}"]


def shares(rounds: int) -> Iterator[list[str]]:
    device.start_tensorflow(devices=2)
    import keras

    from iwae import batches, hardware
    from iwae.benchmark import timing
    from iwae.model import IWAE
    from iwae.shares import Shares

    case = Case("train", 1, 50, batch=200)

    def prepared(count: int, devices: int) -> Callable[[], float]:
        model, images = timing.build(case)

        def equip(network: IWAE) -> None:
            network.hold(batches.ResidentImages(images, stochastic=True))
            network.compile(optimizer=keras.optimizers.Adam(1e-3, epsilon=1e-4), jit_compile=count == 1)
            network.optimizer.build(network.trainable_variables)

        equip(model)
        if count > 1:
            Shares(model, count, case.batch, hardware.devices(devices), equip)
        return timing.updates_of(model, len(images), case.batch, rows=10)

    updates = {size: prepared(*size) for size in ((1, 1), (2, 1), (2, 2))}
    for update in updates.values():
        update()  # compiles
    taken: dict[tuple[int, int], list[float]] = {size: [] for size in updates}
    for _ in range(rounds):
        for size, update in updates.items():
            taken[size].append(update())
    yield ["shares", "devices", "an update", "x one share"]
    for size, seconds in taken.items():
        ratio = np.median(np.divide(seconds, taken[1, 1]))
        yield [*map(str, size), f"{1e3 * np.median(seconds):.3g} ms", f"{ratio:.2f}"]


def memory(gib: float, layers: int) -> Iterator[list[str]]:
    yield ["k", "batch", "peak memory", "an update"]
    points = []
    for k, batch in MEMORY:
        command = [sys.executable, __file__, "--step", str(layers), str(k), str(batch)]
        found = json.loads(
            subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout.splitlines()[-1]
        )
        points.append((k * batch, found["gib"]))
        yield [f"{k}", f"{batch}", f"{found['gib']:.2f} GiB", f"{found['seconds']:.3g} s"]
    (few, less), (many, more) = points[-2:]
    each = (more - less) / (many - few)
    limit = many + (gib - more) / each
    yield [f"{each * 2**20:.1f} KiB a sample: {gib:g} GiB are passed at k x batch = {limit:,.0f}"]


def step(layers: int, k: int, batch: int) -> None:
    """What a process of its own does for `memory`."""
    device.start_tensorflow()
    import keras

    from iwae.benchmark import timing
    from iwae.model import IWAE

    model = IWAE(task.PIXELS, k=k, **config.PAPER_NETWORKS[layers])
    model.compile(optimizer=keras.optimizers.Adam(task.LEARNING_RATE, epsilon=task.EPSILON))
    images = task.binary_images(batch)
    model.train_on_batch(images)  # compiles
    started = time.perf_counter()
    model.train_on_batch(images)
    print(json.dumps({"seconds": time.perf_counter() - started, "gib": timing.peak_memory()}))


def show(rows: Iterator[list[str]], markdown: bool) -> None:
    header: list[str] = []
    for i, row in enumerate(rows):
        header = header or row
        if len(row) == 1:
            print(f"\n{row[0]}")
        elif markdown:
            print(f"| {' | '.join(row)} |" + (f"\n|{' --- |' * len(row)}" if i == 0 else ""), flush=True)
        else:
            widths = [max(10, len(title) + 3) for title in header]
            print("".join(cell.rjust(width) for cell, width in zip(row, widths, strict=True)), flush=True)
    print()


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="benchmarks/large.py", description=__doc__.split("\n")[0])
    parser.add_argument("--only", choices=("speed", "memory", "shares"), help="one table; the last one only so")
    parser.add_argument("--rounds", type=int, default=3, help="timed rounds of all batch sizes (default 3)")
    parser.add_argument("--gib", type=float, default=16, help="memory whose k x batch is told (default 16)")
    parser.add_argument("--layers", type=int, default=1, choices=(1, 2), help="stochastic ones, for memory (default 1)")
    parser.add_argument("--markdown", action="store_true", help="print the tables for a page")
    parser.add_argument("--step", nargs=3, type=int, help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if options.step:
        step(*options.step)
        return 0
    if options.only == "shares":
        show(shares(options.rounds), options.markdown)
        return 0
    if options.only != "speed":
        show(memory(options.gib, options.layers), options.markdown)
    if options.only != "memory":
        show(speed(options.rounds), options.markdown)
    return 0


if __name__ == "__main__":
    sys.exit(main())
