"""Kills a run at random moments with SIGKILL, continues it each time, and compares the end with an uninterrupted run.

    python tests/programs/kill_anywhere.py --kills 20 --seed 1

The run is the default experiment made small, with checkpoints several times a second. What must be equal: every array
of the final weights and of the last checkpoint, bit for bit; log.csv but for its two columns of times, and with these
too for the epochs that a checkpoint held at the time of a kill, for they were not to be trained again; evaluation.json
byte for byte. The exit status is 1 if anything differs.
"""

import argparse
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import h5py
import numpy as np

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from iwae.runs import checkpoints, log  # noqa: E402

SMALL = (
    *("--training.epochs", "20", "--training.updates-per-call", "8", "--model.k", "5"),
    *("--evaluation.k", "500", "--evaluation.examples", "50", "--training.checkpoint-seconds", "0.1"),
)

# In the order in which a run comes to them, with how often each is drawn.
MOMENTS = {
    "start": 2,
    "compilation": 2,
    "training": 4,
    "checkpoint": 5,
    "weights": 2,
    "evaluation": 3,
    "plotting": 2,
}


class Process:
    """The run in a process of its own, and what can be seen of it in its folder."""

    def __init__(self, results: Path):
        self.folder = results / "run"
        self.started = time.time()
        self.output = tempfile.TemporaryFile()  # noqa: SIM115
        command = [sys.executable, __file__, "--child", str(results)]
        self.popen = subprocess.Popen(command, stdout=self.output, stderr=subprocess.STDOUT, cwd=results)

    def new(self, name: str) -> bool:
        """Whether this process made or changed the file."""
        try:
            return (self.folder / name).stat().st_mtime > self.started
        except FileNotFoundError:
            return False

    def has_come_to(self, moment: str) -> bool:
        begun = self.new("experiment.json")
        return {
            "start": True,
            "compilation": begun,
            "training": self.new("checkpoints"),
            "checkpoint": self.new("checkpoints"),
            "weights": self.new("model.weights.h5.sha256") or self.new("model.weights.h5"),
            "evaluation": begun and (self.folder / "model.weights.h5").exists(),
            "plotting": begun and (self.folder / "evaluation.json").exists(),
        }[moment]

    def wait_for(self, moment: str) -> bool:
        """False if the process ended before."""
        while not self.has_come_to(moment):
            if self.popen.poll() is not None:
                return False
            time.sleep(0.0005)
        return True

    def wait(self) -> None:
        status = self.popen.wait()
        if status:
            self.output.seek(0)
            raise SystemExit(f"the run ended with status {status}:\n{self.output.read().decode()}")

    def kill(self) -> bool:
        """False if the process ended before."""
        self.popen.send_signal(signal.SIGKILL)
        return self.popen.wait() == -signal.SIGKILL


def uninterrupted(results: Path) -> dict[str, float]:
    """Does the run in one go; returns how long it stays at each moment, in seconds."""
    process, arrived = Process(results), {}
    for moment in MOMENTS:
        assert process.wait_for(moment)
        arrived[moment] = time.time()
    process.wait()
    arrived["end"] = time.time()
    arrived["checkpoint"] = arrived["training"]
    durations = {
        name: arrived[after] - arrived[name] for name, after in zip(MOMENTS, [*list(MOMENTS)[1:], "end"], strict=True)
    }
    durations["training"] = (arrived["weights"] - arrived["training"]) / 4  # several kills within it
    durations["checkpoint"] = durations["weights"] = 0.02
    return durations


def kill(process: Process, moment: str, durations: dict[str, float], draw: random.Random) -> bool:
    """Kills a process somewhere in `moment`; False if it ended before."""
    if not process.wait_for(moment):
        return False
    if moment == "checkpoint":  # not the first one; then any instant while it is written
        time.sleep(draw.uniform(0, durations["training"]))
        before = (process.folder / "checkpoints").stat().st_mtime_ns
        while (process.folder / "checkpoints").stat().st_mtime_ns == before and process.popen.poll() is None:
            time.sleep(0.0002)
    time.sleep(draw.uniform(0, durations[moment]))
    return process.kill()


def plan(kills: int, draw: random.Random) -> list[str]:
    """Moments in the order in which a run comes to them, the start anywhere between."""
    moments = draw.choices(list(MOMENTS), list(MOMENTS.values()), k=kills)
    later = sorted((moment for moment in moments if moment != "start"), key=list(MOMENTS).index)
    for _ in range(kills - len(later)):
        later.insert(draw.randint(0, len(later)), "start")
    return later


def lines_kept(folder: Path) -> list[str]:
    """The lines of log.csv, with the header, of the epochs that the newest whole checkpoint holds."""
    found = checkpoints.load(folder / "checkpoints")
    return log_lines(folder)[: 1 + found[1]["epoch"]] if found else []


def log_lines(folder: Path) -> list[str]:
    path = folder / "log.csv"
    return path.read_text().splitlines() if path.exists() else []


def differences(folder: Path, reference: Path) -> list[str]:
    """What in a finished run is not as in the uninterrupted one."""
    found = []
    weights, expected = (h5_arrays(path / "model.weights.h5") for path in (folder, reference))
    if not same(weights, expected):
        found.append("model.weights.h5")
    (arrays, state), (arrays_expected, state_expected) = (
        checkpoints.load(path / "checkpoints") for path in (folder, reference)
    )
    times = {"seconds", "sha256"}
    if not same(arrays | {"log": 0}, arrays_expected | {"log": 0}) or any(
        state[name] != state_expected[name] for name in state_expected.keys() - times
    ):
        found.append("the last checkpoint")
    rows, rows_expected = (
        [[row[name] for name in log.COLUMNS if name not in ("seconds", "images_per_second")] for row in log.read(path)]
        for path in (folder / "log.csv", reference / "log.csv")
    )
    if rows != rows_expected:
        found.append("log.csv")
    if (folder / "evaluation.json").read_bytes() != (reference / "evaluation.json").read_bytes():
        found.append("evaluation.json")
    if sorted(path.name for path in folder.rglob("*.png")) != sorted(path.name for path in reference.rglob("*.png")):
        found.append("plots")
    left = [str(path.relative_to(folder)) for path in folder.rglob("*part*")]
    return found + [f"left behind: {name}" for name in left]


def h5_arrays(path: Path) -> dict[str, np.ndarray]:
    arrays = {}
    with h5py.File(path) as file:
        file.visititems(lambda name, item: arrays.update({name: item[()]}) if isinstance(item, h5py.Dataset) else None)
    return arrays


def same(a: dict, b: dict) -> bool:
    return a.keys() == b.keys() and all(np.asarray(a[name]).tobytes() == np.asarray(b[name]).tobytes() for name in a)


def run_child(results: str) -> None:
    """The default experiment made small, as `python experiments.py` would do it."""
    import experiments
    from iwae.cli import command_line

    command_line.main(experiments.experiment, ["--name", "run", "--results-dir", results, *SMALL])


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--child", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.child:
        run_child(arguments.child)

    draw, started, failed = random.Random(arguments.seed), time.time(), 0
    moments = plan(arguments.kills, draw)
    with tempfile.TemporaryDirectory() as folder:
        reference = Path(folder) / "uninterrupted"
        reference.mkdir()
        durations = uninterrupted(reference)
        print("seconds at each moment:", {name: round(seconds, 2) for name, seconds in durations.items()}, flush=True)
        rounds = done = 0
        while done < len(moments) or not rounds:
            rounds += 1
            results, kept = Path(folder) / f"killed{rounds}", []
            results.mkdir()
            while done < len(moments):
                process = Process(results)
                if not kill(process, moments[done], durations, draw):
                    process.wait()
                    durations[moments[done]] /= 2  # it came to its end before: the machine was slower at first
                    break  # the kill is for the next round
                seconds = time.time() - process.started
                kept.append(lines_kept(process.folder))
                done += 1
                print(
                    f"kill {done}: {moments[done - 1]}, after {seconds:.1f} s, "
                    f"{max(0, len(kept[-1]) - 1)} epochs in the checkpoint",
                    flush=True,
                )
            Process(results).wait()
            found = differences(results / "run", reference / "run")
            lines = log_lines(results / "run")
            if any(lines[: len(before)] != before for before in kept):
                found.append("log.csv: epochs that a checkpoint held were trained again")
            print(f"round {rounds}: {'; '.join(found) or 'identical'}", flush=True)
            failed += bool(found)
    print(f"{done} kills in {rounds} rounds, {failed} rounds that differ, {time.time() - started:.0f} s")
    return 1 if failed else 0


if __name__ == "__main__":
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    sys.exit(main())
