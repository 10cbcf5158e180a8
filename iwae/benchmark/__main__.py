"""Speed of training and evaluation, beside what the machine's own matrix product would take.

    python -m iwae.benchmark                    a table of all cases
    python -m iwae.benchmark --quick            a few cases, under a minute
    python -m iwae.benchmark --cases train:1:50:iwae:sampled evaluate:1:5000
    python -m iwae.benchmark --json             one JSON object a line
    python -m iwae.benchmark --plot FILE.png    time of an update and peak memory against k (five minutes)
    python -m iwae.benchmark --kernels          what XLA makes of an update: the kernels that a GPU would start

The floor of a case has two parts. One is its matrix-product work, counted from the sizes of the model's layers, over
the rate of a large float32 matrix product. The other, in training, is the time in which the optimizer's arrays are read
and written. Both are measured in the same process, between the repeats of the case: so a machine that is busy with
something else slows them too. Data are random images of MNIST's size, since speed does not depend on their content.
"""

import argparse
import itertools
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from iwae import device, printing
from iwae.benchmark.cases import BATCH, KERNELS, QUICK, SCALING_K, Case, all_cases, parse_case


def table(rows: Sequence[dict[str, Any]]) -> str:
    """The rows as text for the terminal."""
    lines = [
        f"{'case':46s} {'time':>16s} {'quartiles':>17s} {'products':>9s} {'optimizer':>9s} {'x both':>7s} "
        f"{'compile':>8s}"
    ]
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
        name += f", batch {row['batch']}" if train and row["batch"] != BATCH else ""
        milliseconds = row["ms_per_update"] if train else 1e3 * row["seconds_per_image"]
        low, high = row["quartiles_ms"]
        lines.append(
            f"{name:46s} {milliseconds:8.3f} ms/{'update' if train else 'image '} {low:7.3f} - {high:7.3f} "
            f"{row['flop_floor_ms']:9.3f} {row['optimizer_floor_ms']:9.3f} {row['ratio_to_both']:7.2f} "
            f"{row['compile_seconds']:6.1f} s"
        )
    return "\n".join(lines)


def draw(rows: Sequence[dict[str, Any]], path: Path) -> None:
    from iwae import hardware
    from iwae.figures import curves, style

    title = f"IWAE, one stochastic layer, MNIST's size, batch {BATCH}, {hardware.describe()}"
    style.save(curves.time_against_k(rows, title), path)


def main(arguments: Sequence[str] | None = None) -> int:
    printing.may_get_lost()
    parser = argparse.ArgumentParser(prog="python -m iwae.benchmark", description=__doc__.split("\n")[0])
    parser.add_argument("--json", action="store_true", help="one JSON object a line instead of the table")
    parser.add_argument("--quick", action="store_true", help="a few cases, under a minute")
    parser.add_argument("--repeats", type=int, default=9, help="timed repeats of every case (default 9)")
    parser.add_argument("--cases", nargs="+", type=parse_case, metavar="TASK:LAYERS:K[:OBJECTIVE[:ESTIMATOR[:BATCH]]]")
    parser.add_argument("--plot", metavar="FILE.png", help="draw time and peak memory against k, k = 1 ... 500")
    parser.add_argument("--kernels", action="store_true", help="count the instructions of an update, time nothing")
    parser.add_argument("--tf32", action="store_true", help="on a GPU: updates with products in TF32 (training.tf32)")
    options = parser.parse_args(arguments)
    if options.plot and (options.cases or options.quick or options.kernels):
        parser.error("argument --plot: it has cases of its own; give it without --cases, --quick and --kernels")
    if options.kernels and options.tf32:
        parser.error("argument --tf32: expected without --kernels")
    if options.kernels and any(case.task != "train" for case in options.cases or ()):
        parser.error("argument --kernels: expected cases of training, got others in --cases")
    device.start_tensorflow()  # before anything imports TensorFlow
    from iwae.benchmark import kernels, timing

    cases = options.cases or (QUICK if options.quick else KERNELS if options.kernels else all_cases())
    if options.plot:
        estimators = ("reparameterized", "sampled")
        cases = [Case("train", 1, k, "iwae", name) for name, k in itertools.product(estimators, SCALING_K)]
        cases += [Case("start", 1, k) for k in SCALING_K]
    rows = []
    repeats = 3 if options.quick else options.repeats
    for row in kernels.measure(cases) if options.kernels else timing.measure(cases, repeats, options.tf32):
        rows.append(row)
        if options.json:
            print(json.dumps(row), flush=True)
    if not options.json:
        print((kernels.table if options.kernels else table)(rows))
    if options.plot:
        draw(rows, Path(options.plot))
    return 0


if __name__ == "__main__":
    sys.exit(main())
