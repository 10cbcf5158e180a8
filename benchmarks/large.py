"""Large batches and many samples, networks of the paper's size: images a second, and memory.

    python benchmarks/large.py                  speed and memory, some four minutes
    python benchmarks/large.py --only memory    peak memory of a training step, and where it passes --gib
    python benchmarks/large.py --only shares    an update of 200 images, k = 50, in shares and on two devices
    python benchmarks/large.py --only processes the same by two processes with a core each

Images a second are those of `fit` on a training set that is held on the device; the floor is what the matrix products
alone would take at the machine's own rate. Memory is the most that a process has resident in two updates of one batch,
a process for each size; it grows in proportion to k times the batch, so the two largest sizes tell where it passes a
limit.
"""

import argparse
import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

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


def in_shares(count: int, team: Any) -> tuple[Any, Callable[[], float]]:
    """The shares of a model (none if it is one) and a function that does some updates and gives the seconds of one."""
    import keras

    from iwae import batches
    from iwae.benchmark import timing
    from iwae.callbacks import State
    from iwae.model import IWAE
    from iwae.shares import Shares

    case, rows = Case("train", 1, 50, batch=200), 10
    model, images = timing.build(case)

    def equip(network: IWAE) -> None:
        network.hold(batches.ResidentImages(images, stochastic=True))
        network.compile(optimizer=keras.optimizers.Adam(1e-3, epsilon=1e-4), jit_compile=count == 1)
        network.optimizer.build(network.trainable_variables)

    equip(model)
    state = State(len(images), case.batch, rows)
    shares = Shares(model, count, case.batch, state, team, equip) if count > 1 else None
    train = timing.updates_of(model, len(images), case.batch, rows)

    def updates() -> float:
        started = time.perf_counter()
        if shares is not None:
            shares.on_train_batch_begin(0)  # as in training: the weights are told the others
        told = time.perf_counter() - started
        state.update = (state.update + rows) % state.updates
        return told / rows + train()

    return shares, updates


def side_by_side(sizes: Sequence[tuple[int, Any]], rounds: int) -> list[tuple[float, float]]:
    """Of each (shares, team) the seconds of an update, and their ratio to the first one's; they take turns."""
    updates = [in_shares(*size)[1] for size in sizes]
    for update in updates:
        update()  # compiles
    taken = np.array([[update() for update in updates] for _ in range(rounds)])
    return list(zip(np.median(taken, axis=0), np.median(taken / taken[:, :1], axis=0), strict=True))


def shares(rounds: int) -> Iterator[list[str]]:
    device.start_tensorflow(devices=2)
    from iwae.team import Team

    sizes = [(1, 1), (2, 1), (2, 2)]
    yield ["shares", "devices", "an update", "x one share"]
    for size, (seconds, ratio) in zip(sizes, side_by_side([(s, Team(d)) for s, d in sizes], rounds), strict=True):
        yield [*map(str, size), f"{1e3 * seconds:.3g} ms", f"{ratio:.2f}"]


def processes(rounds: int) -> Iterator[list[str]]:
    """Two processes of this machine in the place of two hosts, each on a core of its own."""
    ports = []
    for _ in range(2):
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            ports.append(f"127.0.0.1:{free.getsockname()[1]}")
    configured = [json.dumps({"cluster": {"worker": ports}, "task": {"type": "worker", "index": i}}) for i in range(2)]
    command = [sys.executable, __file__, "--follow"]
    with subprocess.Popen(command, env=os.environ | {"TF_CONFIG": configured[1]}) as follower:
        os.environ["TF_CONFIG"] = configured[0]
        team = started_on_own_core()
        from iwae.team import Team

        sizes = [(1, Team()), (2, Team()), (2, team)]
        try:
            found = side_by_side(sizes, rounds)
            team.tell("done")
        except BaseException:
            follower.kill()
            raise
    if follower.returncode:
        raise SystemExit(f"the second process ended with status {follower.returncode}")
    yield ["shares", "processes", "an update", "x one share"]
    for (count, of_size), (seconds, ratio) in zip(sizes, found, strict=True):
        yield [f"{count}", f"{of_size.size}", f"{1e3 * seconds:.3g} ms", f"{ratio:.2f}"]


def started_on_own_core() -> Any:
    """The team of this process, on the core that has its number."""
    index, _ = device.members()
    os.sched_setaffinity(0, {sorted(os.sched_getaffinity(0))[index]})
    device.start_tensorflow(threads=1)
    from iwae.team import of_process

    return of_process(1)


def follow() -> None:
    """What the second process does for `processes`."""
    shares, _ = in_shares(2, started_on_own_core())
    shares.follow(seed=1, wish=lambda: False)


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
    parser.add_argument("--only", choices=("speed", "memory", "shares", "processes"), help="one table")
    parser.add_argument("--rounds", type=int, default=3, help="timed rounds of all batch sizes (default 3)")
    parser.add_argument("--gib", type=float, default=16, help="memory whose k x batch is told (default 16)")
    parser.add_argument("--layers", type=int, default=1, choices=(1, 2), help="stochastic ones, for memory (default 1)")
    parser.add_argument("--markdown", action="store_true", help="print the tables for a page")
    parser.add_argument("--step", nargs=3, type=int, help=argparse.SUPPRESS)
    parser.add_argument("--follow", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if options.step:
        step(*options.step)
        return 0
    if options.follow:
        follow()
        return 0
    if options.only in ("shares", "processes"):
        show({"shares": shares, "processes": processes}[options.only](options.rounds), options.markdown)
        return 0
    if options.only != "speed":
        show(memory(options.gib, options.layers), options.markdown)
    if options.only != "memory":
        show(speed(options.rounds), options.markdown)
    return 0


if __name__ == "__main__":
    sys.exit(main())
