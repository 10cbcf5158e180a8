"""Several runs on one device at once: the updates a second of all of them together.

    python benchmarks/together.py                           1, 2, 4 and 8 runs of one layer, k = 50
    python benchmarks/together.py --runs 1 2 --cases train:1:1 train:2:50
    python benchmarks/together.py --markdown                the same for a page

Every run has a process of its own with one thread, as with `experiments.py --workers`, and shares the GPU if there is
one. All are compiled before any is timed; then as many as the row says work at the same time, and what they do is
counted.
"""

import argparse
import multiprocessing
import sys
import time
from collections.abc import Iterator, Sequence
from multiprocessing.connection import Connection
from pathlib import Path

# The processes of the runs start from here too.
sys.path[:0] = [str(Path(__file__).parent), str(Path(__file__).parents[1])]

from large import show  # noqa: E402

from iwae import device, printing  # noqa: E402
from iwae.benchmark.cases import Case, parse_case  # noqa: E402

UPDATES = 100  # of a block, as `training.updates_per_call` is


def serve(case: Case, connection: Connection) -> None:
    """What a run does: it compiles, says on what, and then counts the updates that end before a given time."""
    device.start_tensorflow(threads=1)
    from iwae import hardware
    from iwae.benchmark import timing

    model, images = timing.build(case)
    update = timing.updates_of(model, len(images), case.batch, UPDATES)
    update()
    connection.send(hardware.describe())
    while (until := connection.recv()) is not None:
        count, started = 0, time.time()
        while time.time() < until:
            update()
            count += UPDATES
        connection.send(count / (time.time() - started))


def measure(case: Case, runs: Sequence[int], seconds: float) -> tuple[str, list[float]]:
    """The device, and for each number of runs their updates a second, all together."""
    context = multiprocessing.get_context("spawn")
    pipes = [context.Pipe() for _ in range(max(runs))]
    processes = [context.Process(target=serve, args=(case, child), daemon=True) for _, child in pipes]
    for process in processes:
        process.start()
    for _, child in pipes:
        child.close()
    ours = [connection for connection, _ in pipes]
    found = []
    try:
        described = [connection.recv() for connection in ours]
        for count in runs:
            until = time.time() + seconds
            for connection in ours[:count]:
                connection.send(until)
            found.append(sum(connection.recv() for connection in ours[:count]))
        for connection in ours:
            connection.send(None)
    except (EOFError, OSError):
        raise SystemExit("a run's process ended, see above") from None
    for process in processes:
        process.join()
    return described[0], found


def rows(cases: Sequence[Case], runs: Sequence[int], seconds: float) -> Iterator[list[str]]:
    yield ["layers", "k", "runs at once", "updates a second", "of one run", "beside one run"]
    where = ""
    for case in cases:
        where, found = measure(case, runs, seconds)
        alone = dict(zip(runs, found, strict=True)).get(1)
        for count, together in zip(runs, found, strict=True):
            beside = f"{together / alone:.2f}" if alone else "-"
            yield [f"{case.layers}", f"{case.k}", f"{count}", f"{together:,.0f}", f"{together / count:,.0f}", beside]
    yield [where]


def main() -> None:
    printing.may_get_lost()
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--runs", nargs="+", type=int, default=[1, 2, 4, 8], help="how many at once (default 1 2 4 8)")
    parser.add_argument("--cases", nargs="+", type=parse_case, default=[Case("train", 1, 50)], help="as iwae.benchmark")
    parser.add_argument("--seconds", type=float, default=10, help="time of each row (default 10)")
    parser.add_argument("--markdown", action="store_true", help="a Markdown table")
    options = parser.parse_args()
    if min(options.runs) < 1 or options.seconds <= 0 or any(case.task != "train" for case in options.cases):
        parser.error("expected --runs of at least 1, --seconds above 0 and --cases of training")
    show(rows(options.cases, options.runs, options.seconds), options.markdown)


if __name__ == "__main__":
    main()
