"""Several runs of one command: a preset or the default, changed and at the points of a grid, each under its name."""

import dataclasses
from collections.abc import Mapping
from typing import Any

from iwae import config
from iwae.cli import presets
from iwae.config import ConfigError, Experiment, MadeName
from iwae.sections import differences, flatten, name_ending


def changed(start: Experiment, changes: Mapping[str, Any], point: Mapping[str, Any]) -> Experiment:
    """`start` with changes and at a point of the grid, which its name says; ConfigError if a value is refused."""
    experiment = config.replace(start, {**changes, **point})
    said = isinstance(experiment.name, MadeName)
    ending = name_ending(flatten(experiment), {name for name in point if not (said and config.in_a_name(name))})
    return dataclasses.replace(experiment, name=experiment.name + ending) if ending else experiment


def of_preset(cell: str, default: Experiment, changes: Mapping[str, Any], point: Mapping[str, Any]) -> Experiment:
    """The preset `cell` with changes and at a point of the grid, under a name that says what differs from the preset.

    A preset that continues another one starts from the run of that preset with the same changes, and its name says
    what they changed in either. It takes as many epochs as the last stage, 3^(stages - 1), of that run. A ConfigError
    says which value is refused.
    """
    preset, start = presets.PRESETS[cell], presets.experiment(cell, default)
    experiment = config.replace(start, {**changes, **point})
    said, training = _changed_by(start, experiment) | set(point), experiment.training
    own: dict[str, Any] = {}
    if preset.continues is not None:
        own = {"training.stages": preset.training.stages}
        if training.epochs == preset.training.epochs:
            own["training.epochs"] = 3 ** (training.stages - 1)
        if training.start_from is None:
            others = {name: value for name, value in changes.items() if name != "name"}
            try:
                first = of_preset(preset.continues, default, others, point)
            except ConfigError as error:
                raise ConfigError(f"{error} (in {preset.continues}, which {cell} continues)") from None
            said |= _changed_by(presets.experiment(preset.continues, default), first)
            own["training.start_from"] = first.run_dir
    ending = name_ending(flatten(experiment), set(point) if "name" in changes else said)
    return config.replace(experiment, own | {"name": experiment.name + ending})


def _changed_by(before: Experiment, after: Experiment) -> set[str]:
    return {name for name, _, _ in differences(before, after) if config.in_a_name(name)}
