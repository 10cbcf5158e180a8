"""Several runs of one command: changes to a preset or to the default at every point of a grid, each under its name."""

import dataclasses
import sys
import traceback
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from iwae import config
from iwae.cli import presets
from iwae.config import ConfigError, Experiment, MadeName
from iwae.experiment import RunError
from iwae.sections import differences, flatten, name_ending


def changed(start: Experiment, changes: Mapping[str, Any], point: Mapping[str, Any]) -> Experiment:
    """`start` with changes and at a point of the grid, which its name says.

    Raises:
        ConfigError: for a value that is refused.
    """
    experiment = config.replace(start, {**changes, **point})
    said = isinstance(experiment.name, MadeName)
    ending = name_ending(flatten(experiment), {name for name in point if not (said and config.in_a_name(name))})
    return dataclasses.replace(experiment, name=experiment.name + ending) if ending else experiment


def of_preset(cell: str, default: Experiment, changes: Mapping[str, Any], point: Mapping[str, Any]) -> Experiment:
    """The preset `cell` with changes and at a point of the grid, under a name that says what differs from the preset.

    A preset that continues another one starts from the run of that preset with the same changes, and its name says
    what they changed in either.

    Raises:
        ConfigError: for a value that is refused.
    """
    start = presets.experiment(cell, default)
    experiment = config.replace(start, {**changes, **point})
    said = _changed_by(start, experiment) | set(point)
    before, first = presets.PRESETS[cell].continues, None
    if before is not None and experiment.training.start_from is None:
        others = {name: value for name, value in changes.items() if name != "name"}
        try:
            first = of_preset(before, default, others, point)
        except ConfigError as error:
            raise ConfigError(f"{error} (in {before}, which {cell} continues)") from None
        said |= _changed_by(presets.experiment(before, default), first)
    ending = name_ending(flatten(experiment), set(point) if "name" in changes else said)
    named = dataclasses.replace(experiment, name=experiment.name + ending)
    return presets.continuation(cell, named, first)


def _changed_by(before: Experiment, after: Experiment) -> set[str]:
    return {name for name, _, _ in differences(before, after) if config.in_a_name(name)}


def refuse_repeats(experiments: Sequence[Experiment]) -> None:
    """Refuses two runs under one name: the values of a grid do not differ."""
    names = [experiment.name for experiment in experiments]
    for name in names:
        if names.count(name) > 1:
            raise ConfigError(f"grid: expected values that differ, got the run {name} twice")


def run_all(experiments: Sequence[Experiment], run: Callable[[Experiment], Any]) -> int:
    """Runs one experiment after the other, whatever becomes of them, and says at the end which failed.

    Finished runs are left as they are and unfinished ones continued, for that is what `run` does.

    Returns:
        The exit status: 1 if any failed, else 0.
    """
    failed: list[tuple[str, Exception]] = []
    for i, experiment in enumerate(experiments, start=1):
        print(f"== {i}/{len(experiments)} {experiment.name}", flush=True)
        try:
            run(experiment)
        except (ConfigError, RunError) as error:
            print(f"error: {one_line(error)}", file=sys.stderr)
            failed.append((experiment.name, error))
        except Exception as error:  # a fault in one run must not cost the others
            traceback.print_exc()
            failed.append((experiment.name, error))
    print(f"== {len(experiments) - len(failed)} of {len(experiments)} runs are done", flush=True)
    for name, reason in failed:
        print(f"failed: {name}: {one_line(reason)}", file=sys.stderr)
    return 1 if failed else 0


def one_line(error: Exception) -> str:
    """The message of an error without line breaks."""
    return " ".join(str(error).split())
