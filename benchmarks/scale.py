"""How long the paper's tables would take on machines that nobody here has: a model on paper, for docs/scale.md.

    python benchmarks/scale.py

It runs nothing. What was measured is marked so, with its command; everything else is computed or assumed, and says so.
"""

import heapq
import statistics
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from iwae import config  # noqa: E402
from iwae.cli import presets  # noqa: E402
from iwae.data.catalogue import CATALOGUE  # noqa: E402

SEEDS, BATCH, FULL_PASSES = 3, 20, 3280
CELLS = [cell for group in ("table1-mnist", "table1-omniglot", "fixed-binarization") for cell in presets.GROUPS[group]]

# On two cores with products at 212 GFLOP/s, measured: python -m iwae.benchmark (those of docs/speed.md are twice as
# fast). ms an update, `reparameterized`, by layers and k:
TWO_CORES = {(1, 1): 0.67, (1, 5): 1.4, (1, 50): 8.6, (2, 1): 0.83, (2, 5): 1.9, (2, 50): 12.7}
EVALUATION = {1: 15e-3, 2: 23e-3}  # and s an image of L_5000, by layers
ONE_CORE = 2.0  # times as long on one core as on two. Assumed
# The same on an H100 (docs/speed.md, "On a GPU"); k = 5 by benchmarks/compare.py, on another day:
GPU = {(1, 1): 0.245, (1, 5): 0.233, (1, 50): 0.285, (2, 1): 0.448, (2, 5): 0.474, (2, 50): 0.488}
GPU_EVALUATION = {1: 0.128e-3, 2: 0.180e-3}
# s a pass for the new coordinates of rotated Adam. Measured on one core (docs/protocol.md); assumed to be so elsewhere
COORDINATES = 1.0
START = 8.0  # s until a run trains. Measured with a prototype on Ray and an idle machine: 7 to 8
# MB, by layers: the weights and two moments of each, 4 bytes a number. Computed
CHECKPOINT = {1: 425_284 * 12e-6, 2: 521_084 * 12e-6}
# s of the driver for a run's line in the live table, with a log of 3,280 epochs. Measured: the command in docs/scale.md
DRAWING = 6.3e-3

# One run on two processes of one machine: ms an update of 20 images, and the gain with 200. Measured with a prototype
# that is not here, nor is its k known.
TWO_PROCESSES, ONE_PROCESS, GAIN_AT_200 = 10.0, 7.4, 1.8
NOT_HALVED = TWO_PROCESSES - ONE_PROCESS / 2  # ms: adding up the gradients, and waiting for each other
WIRE = 1.4  # ms more between hosts: 1.7 MB of gradients at 10 Gbit/s. Computed
GPU_EXCHANGE = 0.2  # ms between two GPUs of a host. Assumed
PER_IMAGE = {1: 36.9 / 2000, 50: 8.04 / 20}  # ms on two cores, by k. Measured: python benchmarks/large.py
FLOPS = {1: 0.66 / 2.73 / 20 * 212e6, 50: 8.04 / 1.38 / 20 * 212e6}  # an image: its floor there, at 212 GFLOP/s
GPU_RATE = 20e9  # FLOP/ms of float32 products of these sizes. Assumed; docs/speed.md has 7e9 with 20 images and k = 50


def ms_per_update(layers: int, k: int, place: str) -> float:
    if place == "GPU":
        return GPU[layers, k]
    return TWO_CORES[layers, k] * (ONE_CORE if place == "core" else 1)


def seconds(cell: str, place: str, fast: bool) -> tuple[float, float]:
    """Of a run on a GPU, a core or two cores, from its start to L_5000 of the test images; and MB/s of checkpoints."""
    preset = presets.PRESETS[cell]
    layers, k = len(preset.model.latent_units), preset.model.k
    train, _, test = CATALOGUE[preset.data.name].sizes or (0, 0, 0)
    settings = config.fast_protocol(k)[1] if fast else {"epochs": FULL_PASSES}
    epochs, few = settings["epochs"], settings.get("first_k_epochs", 0)
    milliseconds = few * ms_per_update(layers, 5, place) + (epochs - few) * ms_per_update(layers, k, place)
    training = train // BATCH * milliseconds / 1e3 + fast * epochs * COORDINATES
    image = GPU_EVALUATION[layers] if place == "GPU" else EVALUATION[layers] * (ONE_CORE if place == "core" else 1)
    return START + training + test * image, CHECKPOINT[layers] / min(training / epochs, 60)


def schedule(times: list[float], workers: int) -> float:
    """Until all are done, the longest first, each as soon as a worker is free; seconds."""
    free = [0.0] * workers
    for time in sorted(times, reverse=True):
        heapq.heapreplace(free, free[0] + time)
    return max(free)


def hours(time: float) -> str:
    return f"{time / 3600:,.0f} h" if time >= 36_000 else f"{time / 3600:.1f} h"


def main() -> None:
    runs = len(CELLS) * SEEDS
    print(f"{len(CELLS)} cells, {SEEDS} seeds: {runs} runs\n")
    print("| | protocol | all done after | longest run | start-up, of all | more help up to | checkpoints, MB/s |")
    print("| --- | --- | --- | --- | --- | --- | --- |")
    for machines, place in [(1, "GPU"), (8, "GPU"), (64, "GPU"), (10, "core"), (100, "core"), (1000, "two cores")]:
        workers = min(runs, machines // 2 if place == "two cores" else machines)
        for fast in (False, True):
            times, rates = zip(*(seconds(cell, place, fast) for cell in CELLS * SEEDS), strict=True)
            useful = next(n for n in range(1, runs + 1) if schedule(times, n) < 1.02 * max(times))
            name = f"{machines:,} {'GPU' if place == 'GPU' else 'core'}{'s' * (machines > 1)}"
            print(f"| {name} | {'fast' if fast else 'full'} | {hours(schedule(times, workers))}", end=" ")
            print(f"| {hours(max(times))} | {START * runs / sum(times):.1%} | {useful} runs at a time", end=" ")
            print(f"| {workers * statistics.mean(rates):.1f} |")
    print(f"\nThe live table, drawn once: {runs * DRAWING:.1f} s for {runs} runs, {1000 * DRAWING:.1f} s for 1,000")
    one = ONE_PROCESS / 20
    print(f"\nTwo processes: pay from batch {2 * NOT_HALVED / one:.0f}; at 200 the model says that they are", end=" ")
    print(f"{200 * one / (100 * one + NOT_HALVED):.1f} times as fast, measured: {GAIN_AT_200}\n")
    print("| | exchange | k = 1: pays from batch | k = 50: pays from batch |\n| --- | --- | --- | --- |")
    gpu = {k: flops / GPU_RATE for k, flops in FLOPS.items()}
    for what, exchange, image in (
        ("two hosts of two cores", NOT_HALVED + WIRE, PER_IMAGE),
        ("two GPUs of one host", GPU_EXCHANGE, gpu),
    ):
        print(f"| {what} | {exchange:.1f} ms | {2 * exchange / image[1]:,.0f} | {2 * exchange / image[50]:,.0f} |")


if __name__ == "__main__":
    main()
