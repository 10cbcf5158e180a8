"""The table of several runs: made from each run's `log.csv`, redrawn in place on a terminal."""

import math
import os
import shutil
import sys
import time
from collections.abc import Sequence

from iwae.config import Experiment
from iwae.runs import log
from iwae.runs.folder import Folder
from iwae.sections import RunError

EPOCHS_OF_THE_TIME_LEFT = 5  # it is judged from so many of the last
_COLUMNS = "{:<9} {:>9} {:>9} {:>8} {:>7}"  # after the name, and the node where there are several
_NODE = 12


def lines(
    runs: Sequence[tuple[Experiment, str]], width: int = 80, height: int | None = None, ended: bool = False
) -> list[str]:
    """A header and a line a run, each shorter than `width`; with the node of each run where there are several.

    Args:
        runs: the experiments, and how it stands with each in a word.
        height: the most lines; runs that work come first then, and the last line counts the others.
        ended: what was measured on the test examples stands in the place of speed and time left.
    """
    shown = list(runs)
    if height is not None and len(runs) + 1 > height:
        at_work = {"training", "elsewhere", "failed"}
        shown = sorted(runs, key=lambda run: run[1] not in at_work)[: max(height - 2, 1)]
    nodes = [_node(experiment) for experiment, _ in shown]
    several = len(set(nodes) - {""}) > 1
    names = max(width - 2 - len(_COLUMNS.format(*[""] * 5)) - several * (_NODE + 1), 8)
    headers = ["", "epoch", "bound", *(("NLL", "+-") if ended else ("images/s", "left"))]
    found = [_row("run", names, headers, "node" if several else None)]
    for (experiment, state), node in zip(shown, nodes, strict=True):
        cells = _cells(experiment, state)
        cells = [*cells[:3], *_measured(experiment)] if ended else cells
        found.append(_row(experiment.name, names, cells, node if several else None))
    if len(shown) < len(runs):
        states = [state for _, state in runs]
        found.append(", ".join(f"{states.count(state)} {state}" for state in dict.fromkeys(states))[: width - 1])
    return found


class Live:
    """Lines on standard output that take the place of those before them."""

    SHARE = 0.1  # of the time may go into reading the files of the runs

    def __init__(self) -> None:
        self.possible = sys.stdout.isatty() and os.environ.get("TERM") != "dumb"
        self._drawn: list[str] = []
        self._due = -math.inf

    def draw(self, runs: Sequence[tuple[Experiment, str]]) -> None:
        began = time.monotonic()
        if began < self._due:
            return
        size = shutil.get_terminal_size()
        drawn = lines(runs, size.columns, size.lines - 1)
        if drawn != self._drawn:
            self.clear()
            self._drawn = drawn
            print(*drawn, sep="\n", flush=True)
        self._due = began + (time.monotonic() - began) / self.SHARE

    def clear(self) -> None:
        if self._drawn:
            print(f"\x1b[{len(self._drawn)}A\x1b[J", end="", flush=True)
            self._drawn = []


def _row(name: str, names: int, cells: Sequence[str], node: str | None) -> str:
    place = "" if node is None else f"{_shortened(node, _NODE):<{_NODE}} "
    return f"{_shortened(name, names):<{names}} {place}{_COLUMNS.format(*cells)}".rstrip()


def _shortened(name: str, length: int) -> str:
    if len(name) <= length:
        return name
    half = max(length - 3, 0) // 2  # its end says what differs
    return (name[:half] + "..." + name[len(name) - (length - 3 - half) :])[:length]


def _node(experiment: Experiment) -> str:
    """Of the machine that a run is or was trained on, the last one; "" if not known."""
    try:
        environment = Folder(experiment.run_dir).environment()
    except RunError:  # the run itself tells
        return ""
    stretches = [environment, *environment.get("stretches", [])]
    found = [stretch["node"] for stretch in stretches if isinstance(stretch, dict) and "node" in stretch]
    return str(found[-1]).partition(".")[0] if found else ""


def _cells(experiment: Experiment, state: str) -> list[str]:
    try:
        rows = log.read(Folder(experiment.run_dir).log)
    except (OSError, RunError):  # the run itself tells
        rows = []
    total = experiment.training.passes
    if not rows:
        return [state, f"0/{total}", "", "", ""]
    last, recent = rows[-1], [row["seconds"] for row in rows[-EPOCHS_OF_THE_TIME_LEFT:]]
    bound = last["valid_bound"] if last["valid_bound"] == last["valid_bound"] else last["train_bound"]  # nan: no data
    epoch = int(last["epoch"])
    if state == "training" and epoch == total:
        state = "measuring"
    left = (total - epoch) * sum(recent) / len(recent) if state in ("training", "elsewhere") else 0
    speed = f"{last['images_per_second']:,.0f}"
    return [state, f"{epoch}/{total}", f"{bound:.2f}", speed, _time(left) if left else ""]


def _measured(experiment: Experiment) -> list[str]:
    try:
        test = Folder(experiment.run_dir).current_evaluation()["test"]
    except (OSError, RunError, KeyError):
        return ["", ""]
    return [f"{test['nll']:.2f}", f"{test['nll_stderr']:.2f}"]


def _time(seconds: float) -> str:
    minutes = round(seconds / 60)
    return f"{minutes // 60}h{minutes % 60:02d}m" if minutes >= 60 else f"{minutes}m" if minutes else f"{seconds:.0f}s"
