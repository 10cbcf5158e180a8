"""Trains for a long time with a checkpoint every few seconds and watches the process from outside.

    python tests/programs/soak.py --minutes 60

The default experiment, with epochs enough not to end. Resident memory must stay flat (after a warm-up of a fifth of the
time it may grow by 2 % and the log's own 1 kB an epoch), the number of open files must not grow, and after SIGTERM each
epoch must be in log.csv once. The exit status is 1 if any of this does not hold.
"""

import argparse
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from iwae.runs import checkpoints, log  # noqa: E402

FOREVER = (
    *("--training.schedule", "constant", "--training.epochs", "1000000", "--training.updates-per-call", "10"),
    *("--training.checkpoint-seconds", "3"),
)


def run_child(results: str) -> None:
    import experiments
    from iwae.cli import command_line

    command_line.main(experiments.experiment, ["--name", "soak", "--results-dir", results, *FOREVER])


def resident(pid: int) -> float:
    """Resident memory of a process in MB; 0 of one that has just ended."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next((int(line.split()[1]) / 1000 for line in lines if line.startswith("VmRSS:")), 0.0)


def watch(child: subprocess.Popen, folder: Path, seconds: float, saved: set, samples: list) -> None:
    """Adds the updates of all checkpoints that are seen to `saved`, and memory (MB) and open files to `samples`."""
    while not log.read(folder / "log.csv"):
        if child.poll() is not None:
            raise SystemExit(f"the run ended with status {child.returncode}")
        time.sleep(0.5)
    started = shown = time.monotonic()
    while time.monotonic() - started < seconds and child.poll() is None:
        time.sleep(1)
        saved.add(checkpoints.latest_update(folder / "checkpoints"))
        samples.append((resident(child.pid), len(list(Path(f"/proc/{child.pid}/fd").iterdir()))))
        if time.monotonic() - shown > 30 or len(samples) == 1:
            shown = time.monotonic()
            memory, files = samples[-1]
            print(
                f"{(shown - started) / 60:5.1f} min: {memory:.0f} MB, {files} open files, "
                f"{len(log.read(folder / 'log.csv'))} epochs, {len(saved)} checkpoints seen",
                flush=True,
            )


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=60.0)
    parser.add_argument("--child", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.child:
        run_child(arguments.child)

    failed = []
    with tempfile.TemporaryDirectory() as results:
        folder, saved, samples = Path(results) / "soak", set(), []
        command = [sys.executable, __file__, "--child", results]
        with subprocess.Popen(command, stderr=subprocess.DEVNULL) as child:
            try:
                watch(child, folder, 60 * arguments.minutes, saved, samples)
                child.send_signal(signal.SIGTERM)
                if child.wait() != 128 + signal.SIGTERM:
                    failed.append(f"exit status {child.returncode}")
            finally:
                child.kill()
        rows = log.read(folder / "log.csv")
        _, state = checkpoints.load(folder / "checkpoints") or (None, {})

    if len(saved) < 2:
        failed.append("fewer than two checkpoints were seen")
    steady = samples[len(samples) // 5 :]
    memory, files = zip(*steady, strict=True)
    growth, allowed = max(memory[-10:]) - max(memory[:10]), 0.02 * memory[0] + 0.001 * len(rows)
    if growth > allowed:
        failed.append(f"memory grew by {growth:.1f} MB, of which {allowed:.1f} are allowed")
    before, after = min(files[:10]), min(files[-10:])  # a checkpoint that is being written is one more for a moment
    if after > before:
        failed.append(f"open files grew from {before} to {after}")
    epochs = range(1, len(rows) + 1)
    if [row["epoch"] for row in rows] != list(epochs) or state.get("epoch") != len(rows):
        failed.append(f"log.csv has {len(rows)} rows, the checkpoint {state.get('epoch')} epochs")
    if [row["updates"] for row in rows] != [rows[0]["updates"] * epoch for epoch in epochs]:
        failed.append("log.csv: the number of updates is not that of the epochs")
    print(
        f"{len(rows)} epochs, {len(saved)} checkpoints seen; memory {memory[0]:.0f} -> {memory[-1]:.0f} MB "
        f"(largest {max(memory):.0f}), open files {files[0]} -> {files[-1]}: {'; '.join(failed) or 'all well'}"
    )
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
