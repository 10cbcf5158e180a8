"""Several runs of one command: a preset or the default, changed and at the points of a grid, each under its name."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

from iwae import config
from iwae.cli import presets
from iwae.config import ConfigError, Experiment, MadeName
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
