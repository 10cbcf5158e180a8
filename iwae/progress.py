"""Progress bars on standard error: one line that moves on a terminal, a line every ten seconds in a log file."""

import collections
import datetime
import sys
import time
from collections.abc import Mapping
from types import TracebackType
from typing import Any

import progressbar
from progressbar.bar import ProgressBarMixinBase

SECONDS_ON_A_TERMINAL, SECONDS_IN_A_FILE = 0.1, 10.0
SECONDS_OF_THE_TIME_LEFT = 20  # it is judged from so many of the last: an epoch's end, which is slower, counts in part
SECONDS_WITHOUT_IT = 3  # after the first update, which compiles and says nothing about those to come


class Bar:
    """A progress bar over `total` steps; as a context manager it ends with the block.

    Args:
        total: number of steps.
        label: what is going on, shown first; None: no bar is shown.
        done: steps that an earlier process has done; the time left is judged without them.
        variables: name -> format string with {value}, each shown, and set by `update(step, name=value)`.
    """

    def __init__(self, total: int, label: str | None, done: int = 0, **variables: str):
        self._total, self._step = total, done
        self._last: dict[str, Any] = {}
        self._started, self._seen = time.monotonic(), collections.deque[tuple[float, int]]()
        self._interval = SECONDS_ON_A_TERMINAL if sys.stderr.isatty() else SECONDS_IN_A_FILE
        self._drawn = time.monotonic()
        self._bar = None if label is None else _start(total, label, done, variables)

    def update(self, step: int, **values: Any) -> None:
        """Shows that `step` steps are done, at most so often as the output can bear."""
        now = time.monotonic()
        self._seen.append((now, step))
        while len(self._seen) > 2 and now - self._seen[1][0] > SECONDS_OF_THE_TIME_LEFT:
            self._seen.popleft()
        self._step, self._last = step, values | {"left": self._time_left()}
        if self._bar is not None and now - self._drawn >= self._interval and step < self._total:
            self._drawn = now
            self._bar.update(step, **self._last)

    def advance(self) -> None:
        """One step more is done."""
        self.update(self._step + 1)

    def forget(self) -> None:
        """The time left is judged from here on: something was compiled, which says nothing about the steps to come."""
        self._seen.clear()

    def _time_left(self) -> str | None:
        (then, first), (now, step) = self._seen[0], self._seen[-1]
        if now - then < SECONDS_WITHOUT_IT or step <= first:
            return None
        return f"{_duration((self._total - step) * (now - then) / (step - first))} left"

    def __enter__(self) -> "Bar":
        return self

    def __exit__(
        self, error: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bar is None:
            return
        if error is None:
            self._last["left"] = f"in {_duration(time.monotonic() - self._started)}"
        self._bar.variables.update(self._last)  # drawn with the last state, and that once
        if error is not None and self._step > self._bar.value:
            self._bar.update(self._step, force=True)
        self._bar.finish(dirty=error is not None)


def _start(total: int, label: str, done: int, variables: Mapping[str, str]) -> progressbar.ProgressBar:
    widgets: list[Any] = [label, " ", progressbar.Percentage(), " ", progressbar.Bar(), " "]
    for name, pattern in variables.items():
        widgets += [_Variable(name, pattern), "  "]
    widgets.append(_Variable("left", "{value}"))
    bar = progressbar.ProgressBar(max_value=total, widgets=widgets, fd=sys.stderr).start()
    if done:
        bar.update(done, force=True)
    return bar


def starting(run: str, epochs: int, examples: int, done: int, device: str) -> str:
    """One line about a training before its first bar: the run, its epochs and how many of them are done, the device."""
    goes_on = f" from epoch {done + 1}" if done else ""
    return f"{run}: {epochs:,} epochs of {examples:,} examples{goes_on}, on {device}; the first update compiles"


def _duration(seconds: float) -> str:
    return str(datetime.timedelta(seconds=round(seconds)))


class _Variable(progressbar.Variable):
    """A value of the bar in a format of its own; nothing while it has none."""

    def __init__(self, name: str, pattern: str):
        super().__init__(name)
        self.pattern = pattern

    def __call__(self, progress: ProgressBarMixinBase, data: dict[str, Any], format: str | None = None) -> str:
        value = data["variables"][self.name]
        return "" if value is None else self.pattern.format(value=value)
