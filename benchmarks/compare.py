"""This project beside the same work written for JAX, PyTorch and plain Keras.

    python benchmarks/compare.py                the table of eight cases, some four minutes
    python benchmarks/compare.py --markdown     the same for a page
    python benchmarks/compare.py --check        only whether all programs compute the same
    python benchmarks/compare.py --tf32         on a GPU: updates with products in TF32, in all programs

Every program has a process of its own, on the same cores; they take turns, one round after the other, so that a slow
minute of the machine meets them all. Nothing is timed unless all programs give the same bound and the same gradient
from the same weights, images and noise, and, with noise of their own, the same bound while they train and the same
L_5000. It needs the extra `benchmarks`: pip install --editable ".[benchmarks]".
"""

import argparse
import contextlib
import importlib.util
import multiprocessing
import os
import sys
from collections.abc import Iterator, Sequence
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np

# The programs' processes start from here too.
sys.path[:0] = [str(Path(__file__).parent), str(Path(__file__).parents[1])]

from peers import task  # noqa: E402

from iwae import device  # noqa: E402
from iwae.benchmark.cases import Case  # noqa: E402

PROGRAMS: dict[str, tuple[str, dict[str, Any]]] = {
    "this project": ("ours", {}),
    "JAX scan": ("jax_scan", {}),
    "PyTorch compiled": ("pytorch", {"compiled": True}),
    "PyTorch eager": ("pytorch", {"compiled": False}),
    "Keras fit": ("keras_fit", {}),
}
OURS = "this project"
TRAINING = [Case("train", layers, k) for layers in (1, 2) for k in (1, 5, 50)]
EVALUATION = [Case("evaluate", layers, 5000) for layers in (1, 2)]
EVALUATED = {"cpu": 8, "gpu": 80}  # images of an evaluation at once, as `evaluation.batch_size` has them
# Rounding: of a sum over hundreds of pixels in float32, and of gradients beside their largest entry.
BOUND_TOLERANCE, GRADIENT_TOLERANCE = 2e-5, 1e-4
# Chance: of the mean bound over the first updates; Adam's epsilon, which PyTorch puts elsewhere, moves it as well.
TRAINING_TOLERANCE = 0.03
EVALUATION_TOLERANCE = 2e-4  # of the mean of L_5000 of 8 images: four standard errors of a difference, two layers


class Worker:
    """A program in a process of its own."""

    def __init__(self, name: str, tf32: bool = False):
        context = multiprocessing.get_context("spawn")
        self.connection, child = context.Pipe()
        self.process = context.Process(target=serve, args=(*PROGRAMS[name], tf32, child), daemon=True)
        self.process.start()
        child.close()
        self.name = name

    def call(self, what: str, *arguments: Any) -> Any:
        return call_all([self], what, *arguments)[self.name]


def call_all(workers: Sequence[Worker], what: str, *arguments: Any) -> dict[str, Any]:
    """The answers of all programs, which work at the same time: not for what is timed."""
    answers = {}
    try:
        for worker in workers:
            worker.connection.send((what, arguments))
        for worker in workers:
            answers[worker.name] = worker.connection.recv()
    except (EOFError, OSError):
        raise SystemExit(f"{worker.name}: its process ended, see above") from None
    return answers


def serve(module: str, options: dict[str, Any], tf32: bool, connection: Connection) -> None:
    """What a worker does: it holds what was prepared, and runs it when asked; updates in TF32 if wanted."""
    if module in ("ours", "keras_fit"):
        device.start_tensorflow()  # with full float32 products, and a GPU's memory as it is needed
    program: task.Program = importlib.import_module(f"peers.{module}").Program(**options)
    prepared: dict[Case, Any] = {}
    with contextlib.suppress(EOFError):
        while True:
            what, arguments = connection.recv()
            if what == "device":
                answer: Any = program.device
            elif what == "rate":
                answer = program.rate()  # type: ignore[attr-defined]
            elif what == "gradients":
                answer = program.gradients(*arguments)
            else:
                case = arguments[0]
                program.use_tf32(tf32 and case.task == "train")
                if what != "run":
                    prepared[case] = getattr(program, what)(*arguments)  # the first call compiles
                answer = prepared[case]()
                program.use_tf32(False)
            connection.send(answer)


def disagreements(results: dict[str, Any], tolerance: float) -> list[str]:
    """The programs whose numbers are not those of this project, with the largest difference beside the largest value.

    `results` has a list of arrays for each program; arrays are compared one by one.
    """
    wrong = []
    for name, arrays in results.items():
        pairs = list(zip(arrays, results[OURS], strict=True))
        off = max(float(np.max(np.abs(a - b)) / np.max(np.abs(b))) if a.shape == b.shape else np.inf for a, b in pairs)
        if not off <= tolerance:
            wrong.append(f"{name} differs by {off:.2g} of the value, expected at most {tolerance:g}")
    return wrong


def refuse(what: str, wrong: Sequence[str]) -> None:
    if wrong:
        raise SystemExit(f"not timed: {what}: " + "; ".join(wrong))


def check(workers: Sequence[Worker]) -> None:
    """Same weights, images and noise: the bound and its gradient; ends the program where they are not the same."""
    devices = call_all(workers, "device")
    if len(set(devices.values())) > 1:
        raise SystemExit(f"not timed: expected all programs on one kind of device, got {devices}")
    for layers in (1, 2):
        given = task.start(layers), task.binary_images(task.BATCH), task.noise(layers, 5, task.BATCH)
        results = call_all(workers, "gradients", *given)
        what = f"{layers} layer{'s' * (layers > 1)}, k = 5"
        refuse(f"bound, {what}", disagreements({n: [b] for n, (b, _) in results.items()}, BOUND_TOLERANCE))
        refuse(f"gradient, {what}", disagreements({n: g for n, (_, g) in results.items()}, GRADIENT_TOLERANCE))
        print(f"{what}: {len(results)} programs agree on the bound and on its gradient", file=sys.stderr, flush=True)


def prepare(workers: Sequence[Worker], case: Case) -> None:
    """Compiles a case everywhere and compares what the programs give with random numbers of their own."""
    if case.task == "train":
        given: tuple[Any, ...] = case, task.start(case.layers)
    else:
        given = case, task.start(case.layers, scale=0.25), task.binary_images(EVALUATED[workers[0].call("device")])
    results = {name: [np.mean(bound)] for name, (_, bound) in call_all(workers, case.task, *given).items()}
    refuse(str(case), disagreements(results, TRAINING_TOLERANCE if case.task == "train" else EVALUATION_TOLERANCE))
    print(f"{case}: compiled", file=sys.stderr, flush=True)


def measure(workers: Sequence[Worker], cases: Sequence[Case], rounds: int) -> tuple[dict[Case, Any], list[float]]:
    """Seconds {case: {program: [round]}}, and the rate of a matrix product in each round, in operations a second."""
    seconds: dict[Case, dict[str, list[float]]] = {case: {worker.name: [] for worker in workers} for case in cases}
    rates = []
    for turn in range(rounds):
        rates.append(next(worker for worker in workers if worker.name == OURS).call("rate"))
        for case in cases:
            for i in range(len(workers)):
                worker = workers[(i + turn) % len(workers)]  # each has each place
                seconds[case][worker.name].append(worker.call("run", case)[0])
    return seconds, rates


def lines(seconds: dict[Case, Any], names: Sequence[str], markdown: bool) -> Iterator[str]:
    """The table: ours in milliseconds, of each peer the time over ours, median and quartiles over the rounds."""
    peers = [name for name in names if name != OURS]
    rows = [["", "ours", *peers]]
    for case, times in seconds.items():
        name = f"k = {case.k}" if case.task == "train" else f"L_{case.k}"
        row = [f"{name}, {case.layers} layer{'s' * (case.layers > 1)}", f"{1e3 * np.median(times[OURS]):.3g} ms"]
        for name in peers:
            low, median, high = np.percentile(np.divide(times[name], times[OURS]), [25, 50, 75])
            row.append(f"{median:.2f} ({low:.2f}-{high:.2f})")
        rows.append(row)
    if markdown:
        rows.insert(1, ["---"] * len(rows[0]))
        yield from (f"| {' | '.join(row)} |" for row in rows)
    else:
        widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
        yield from (
            "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows
        )


def use_cores(count: int | None) -> int:
    """All processes started later run on the same cores; the number of them, which is that of their threads."""
    if not hasattr(os, "sched_setaffinity"):
        if count is not None:
            raise SystemExit("--threads: expected none, for this system does not set the cores of a process")
        return os.cpu_count() or 1
    cores = sorted(os.sched_getaffinity(0))
    if count is not None and not 1 <= count <= len(cores):
        raise SystemExit(f"--threads: expected 1 to {len(cores)}, got {count}")
    os.sched_setaffinity(0, cores[:count])
    return len(cores[:count])


def start(names: Sequence[str], tf32: bool = False) -> list[Worker]:
    # What `iwae.device` sets for itself: all programs get the allocator that keeps freed memory.
    os.environ |= {"MALLOC_TOP_PAD_": str(64 << 20), "MALLOC_MMAP_THRESHOLD_": str(32 << 20)}
    os.environ |= {"XLA_PYTHON_CLIENT_PREALLOCATE": "false", "TF_CPP_MIN_LOG_LEVEL": "2", "KERAS_BACKEND": "tensorflow"}
    missing = [n for n in ("jax", "torch") if importlib.util.find_spec(n) is None]
    if missing:
        raise SystemExit(f'{" and ".join(missing)}: not installed; pip install --editable ".[benchmarks]"')
    return [Worker(name, tf32) for name in names]


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="benchmarks/compare.py", description=__doc__.split("\n")[0])
    parser.add_argument("--check", action="store_true", help="compare what the programs compute, and time nothing")
    parser.add_argument("--markdown", action="store_true", help="print the table for a page")
    parser.add_argument("--rounds", type=int, default=9, help="rounds in which the programs take turns (default 9)")
    parser.add_argument("--threads", type=int, help="cores for each program (default: all that this process may use)")
    parser.add_argument(
        "--tf32", action="store_true", help="on a GPU: updates with products in TF32 (gradients are checked without)"
    )
    parser.add_argument("--programs", nargs="+", choices=list(PROGRAMS)[1:], default=list(PROGRAMS)[1:], help="peers")
    parser.add_argument("--cases", nargs="+", metavar="TASK:LAYERS:K", help="of the eight, such as train:1:50")
    options = parser.parse_args(arguments)
    known = {f"{case.task}:{case.layers}:{case.k}": case for case in (*TRAINING, *EVALUATION)}
    if options.cases and not set(options.cases) <= known.keys():
        parser.error(f"argument --cases: expected some of {', '.join(known)}, got {' '.join(options.cases)}")
    threads = use_cores(options.threads)
    workers = start([OURS, *options.programs], options.tf32)
    check(workers)
    if options.check:
        return 0
    cases = [known[name] for name in options.cases or known]
    for case in cases:
        prepare(workers, case)
    seconds, rates = measure(workers, cases, options.rounds)
    print("\n".join(lines(seconds, [worker.name for worker in workers], options.markdown)))
    low, median, high = np.percentile(rates, [25, 50, 75]) / 1e9
    print(
        f"\nOurs: an update of {task.BATCH} images, IWAE bound{', in TF32' * options.tf32}; L_5000: an image. "
        f"Peers: their time over ours,\nmedian (quartiles) of {options.rounds} rounds. "
        f"{workers[0].call('device').upper()}, {threads} threads,\n"
        f"whose float32 matrix product runs at {median:.0f} GFLOP/s ({low:.0f}-{high:.0f})."
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
