"""The command line of `experiments.py`, made from the sections of `iwae.config`.

Every parameter is an option of the same dotted name. What the words mean is decided by `iwae.config`, so that a mistake
gives the same single line here and from Python, before TensorFlow is imported and before anything is written.
"""

import argparse
import ast
import collections
import functools
import inspect
import itertools
import os
import re
import sys
import textwrap
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any, NoReturn

from iwae import config, printing
from iwae.cli import predecessor, presets, sweeps
from iwae.config import ConfigError, Experiment
from iwae.sections import Kind, RunError, did_you_mean, flatten, join, kinds, shown, written

_DESCRIPTION = """Trains, evaluates and plots an importance weighted or a variational autoencoder.

The defaults are the parameters at the top of experiments.py.

"Paper" is Burda, Grosse & Salakhutdinov, Importance Weighted Autoencoders, ICLR 2016."""

# What is run, beside the parameters: metavar and help.
_CHOICES = {
    "list": ("", "Print the presets, the experiments of the paper and of its predecessors, and stop."),
    "preset": ("NAME ...", "Run presets, or groups of them; every other option is a change to each."),
    "file": ("FILE", "Run the experiment of a file of the PyTorch predecessor; the file is executed, as Python does."),
    "run": ("FOLDER", "The run that lies there, results/NAME; every other option is a change to its parameters."),
    "grid": (
        "PARAMETER VALUE ...",
        "Run each of the values: --grid model.k 1 5 50 --grid seed 1 2 3 are nine runs. A list is one value, 100,50.",
    ),
    "workers": ("N", "Of several runs, how many at a time, each in a process of its own; one if not given."),
    "cluster": ("ADDRESS", "Run on a Ray cluster, HOST:PORT or auto, whose nodes share the results folder; needs Ray."),
    "cpus_per_run": ("NUMBER", "Cores of a node that a run on a cluster takes; if not given, --threads-per-run, or 1."),
    "gpus_per_run": ("NUMBER", "GPUs of a node that a run on a cluster takes, such as 0.1; none if not given."),
    "threads_per_run": (
        "N",
        "CPU threads of each run, on which the last bits of its results depend; if not given, the cores / workers, or "
        "on a cluster --cpus-per-run.",
    ),
    "devices": (
        "N",
        "GPUs, or where there are none CPU devices, on which each run is trained and evaluated at once; a divisor of "
        "--training.shares, unless nothing is trained. One if not given. Changes no result.",
    ),
}

_COUNTS = ("workers", "threads_per_run", "devices")

# The sections and the parameters by their dotted names.
_SECTIONS: dict[str, type] = {"": Experiment}
_SECTIONS |= {name: kind.type for name, kind in kinds(Experiment).items() if kind.is_section}
_EVERY = {join(path, name): kind for path, section in _SECTIONS.items() for name, kind in kinds(section).items()}
_PARAMETERS = {name: kind for name, kind in _EVERY.items() if not kind.is_section}


def main(experiment: Callable[[], Experiment], arguments: Sequence[str] | None = None) -> NoReturn:
    """Runs what the words of a command line ask for (default: those of this process) and ends the process.

    `experiment` makes the experiment that holds the defaults; called here so that a mistake in it is told in one line.
    """
    printing.may_get_lost()
    arguments = sys.argv[1:] if arguments is None else arguments
    try:
        experiments, notes = plan(arguments, _made(experiment))
        where = _where(read_words(arguments))
        for planned in experiments:
            if "train" in planned.tasks:
                planned.training.check_devices(where["devices"] or 1)
    except ConfigError as error:
        print(f"error: {' '.join(str(error).split())}", file=sys.stderr)
        sys.exit(2)
    for note in notes:
        print(f"note: {note}", file=sys.stderr)
    from iwae.cli import running  # the lazy door to NumPy and TensorFlow

    sys.exit(running.execute(experiments, **where))


def _made(experiment: Callable[[], Experiment]) -> Experiment:
    try:
        return experiment()
    except TypeError as error:
        raise ConfigError(f"experiments.py: expected the parameters of an experiment, got an error: {error}") from None


def plan(arguments: Sequence[str], default: Experiment) -> tuple[list[Experiment], list[str]]:
    """The experiments that a command line asks for, all of them checked, and lines to tell about them.

    `--help` and `--list` print and exit; a ConfigError says which option or value is refused.
    """
    options = read_words(arguments)
    if "help" in options or "list" in options:
        print(_help(default) if "help" in options else presets.listing(), flush=True)
        sys.exit(0)
    sources = [name for name in ("preset", "file", "run") if name in options]
    if len(sources) > 1:
        raise ConfigError(f"{sources[1]}: expected either --{sources[0]} or --{sources[1]}, got both")
    last = {name: given[-1] for name, given in options.items()}
    grid = _grid(options.get("grid", []), last)
    changes = {name: _value(name, words) for name, words in last.items() if name not in _CHOICES}

    start, notes = default, list[str]()
    if "file" in last:
        start, notes = predecessor.read(_only("file", last["file"]), default)
    if "run" in last:
        start = _of_run(_only("run", last["run"]))
    if "preset" in last:
        cells = presets.expand(last["preset"])
        if "name" in changes and len(cells) > 1:
            raise ConfigError(f"name: expected none with {len(cells)} presets, got {shown(changes['name'])}")
        experiments = [sweeps.of_preset(cell, default, changes, point) for cell in cells for point in grid]
    else:
        experiments = [sweeps.changed(start, changes, point) for point in grid]
    name, times = collections.Counter(experiment.name for experiment in experiments).most_common(1)[0]
    if times > 1:
        raise ConfigError(f"grid: expected values that differ, got the run {name} twice")
    return experiments, list(dict.fromkeys([*notes, *itertools.chain(*map(_without_effect, experiments))]))


def _of_run(path: str) -> Experiment:
    """The parameters of the run in a folder, under the name that the folder has; ConfigError if it holds none."""
    from iwae.runs.folder import Folder  # another door to NumPy

    folder, name = os.path.split(os.path.normpath(path))
    if name in (".", ".."):
        folder, name = os.path.split(os.path.abspath(path))
    try:
        found = Folder(path).read_experiment()
    except RunError as error:
        raise ConfigError(f"run: expected the folder of a run, got {shown(path)} ({error})") from None
    # How it was made says nothing about what is to be done with it now.
    asked = {"name": name, "results_dir": folder or ".", "overwrite": False, "accept_changes": False}
    return config.replace(found, asked)


def _without_effect(experiment: Experiment) -> list[str]:
    """A line about each parameter that changes nothing beside the others, but need not be a mistake."""
    training, lines = experiment.training, []
    if beyond := [after for after in training.milestones if after > (training.epochs or after)]:
        lines.append(f"training.milestones: {written(beyond)} ignored, after the {training.epochs} training.epochs")
    if training.first_k is not None and training.first_k_epochs >= training.passes:
        lines.append(f"model.k: {experiment.model.k} ignored in training, which ends within training.first_k_epochs")
    defaults = (config.Training().stages, config.DEFAULT.training.stages)
    if training.schedule != "burda" and training.stages not in defaults:
        lines.append(f"training.stages: {training.stages} ignored, training.schedule is {training.schedule!r}")
    return lines


# ---- words to values ----


def _where(options: Mapping[str, list[list[str]]]) -> dict[str, Any]:
    """Where and how many at a time: the arguments of `running.execute`."""
    found: dict[str, Any] = {name: _count(name, options.get(name)) for name in _COUNTS}
    found |= {name: _share(name, options.get(name)) for name in ("cpus_per_run", "gpus_per_run")}
    if "cluster" not in options:
        for name in ("cpus_per_run", "gpus_per_run"):
            if name in options:
                raise ConfigError(f"{name}: expected --cluster ADDRESS beside it, got none")
        return found
    if "workers" in options:
        raise ConfigError("workers: expected either --workers or --cluster, got both")
    address = _only("cluster", options["cluster"][-1])
    if address != "auto" and not re.fullmatch(r"[^:/\s]+:\d+", address):
        raise ConfigError(f"cluster: expected the address of a Ray cluster, HOST:PORT or auto, got {shown(address)}")
    return found | {"cluster": address}


def _share(name: str, given: list[list[str]] | None) -> float | None:
    if given is None:
        return None
    number = _scalar(_only(name, given[-1]), float)
    if not isinstance(number, float) or not (0.01 <= number <= 1 or (1 < number < 1e4 and number.is_integer())):
        raise ConfigError(f"{name}: expected a number from 0.01 to 1 or an integer, got {shown(given[-1][0])}")
    return number


def _count(name: str, given: list[list[str]] | None) -> int | None:
    if given is None:
        return None
    word = _only(name, given[-1])
    if not word.isdecimal() or int(word) < 1:
        raise ConfigError(f"{name}: expected an integer >= 1, got {shown(word)}")
    return int(word)


def read_words(arguments: Sequence[str]) -> dict[str, list[list[str]]]:
    """The words after each option, by its name, as often as it is given: `{"model.k": [["5"]]}`.

    A ConfigError names an option that does not exist or a word that belongs to none.
    """
    known = {"help", *_CHOICES, *_PARAMETERS}
    options: dict[str, list[list[str]]] = {}
    words: list[str] | None = None  # of the last option
    for word in arguments:
        if not word.startswith("-") or isinstance(_scalar(word, float), float):
            if words is None:
                raise ConfigError(f"{shown(word)}: expected an option such as --model.k 5, got a word without one")
            words.append(word)
            continue
        option, equals, value = word.partition("=")
        name = "help" if option == "-h" else option[2:].replace("-", "_")
        if name not in known or not (option.startswith("--") or option == "-h"):
            near = _near(option.lstrip("-"), [_option(name) for name in (*_CHOICES, *_PARAMETERS)])
            raise ConfigError(f"{shown(option)[1:-1]}: expected an option that --help lists, got an unknown one{near}")
        words = [value] if equals else []
        options.setdefault(name, []).append(words)
    return options


def _grid(options: list[list[str]], given: Collection[str]) -> list[dict[str, Any]]:
    """Every point of the grid, the value of each of its parameters, none of which is `given` otherwise."""
    axes: dict[str, list[Any]] = {}
    for option in options:
        if len(option) < 2:
            expected = "a parameter and its values, such as --grid model.k 1 5 50"
            raise ConfigError(f"grid: expected {expected}, got {_told(option)}")
        name = option[0].replace("-", "_")
        if name not in _PARAMETERS:
            near = _near(name, list(_PARAMETERS))
            raise ConfigError(f"grid: expected the name of a parameter, got {shown(option[0])}{near}")
        if name == "name":
            raise ConfigError("grid: expected a parameter other than name, to which the values are added, got name")
        if name in given or name in axes:
            raise ConfigError(f"grid: expected each parameter once, got {name} twice")
        layers = name == "model.hidden_units"  # there a word is the list of one layer
        axes[name] = [_value(name, value.split("/") if layers else [value]) for value in option[1:]]
    return [dict(zip(axes, point, strict=True)) for point in itertools.product(*axes.values())]


def _value(name: str, words: Sequence[str]) -> Any:
    """The words as a value for a parameter. A word that does not fit stays text, which `iwae.config` then refuses."""
    kind = _PARAMETERS[name]
    none = [word.lower() for word in words] == ["none"]
    if none and (kind.optional or name == "name"):  # which is made if it is not given
        return None
    if kind.type is tuple and kind.item.type is tuple:
        lists = [[] if word.lower() == "none" else word.split(",") for word in words]
        return [[_scalar(part, kind.item.item.type) for part in parts] for parts in lists]
    if kind.type is tuple:
        return [] if none else [_scalar(part, kind.item.type) for word in words for part in word.split(",")]
    return True if kind.type is bool and not words else _scalar(_only(name, words), kind.type)


def _only(name: str, words: Sequence[str]) -> str:
    if len(words) != 1:
        raise ConfigError(f"{name}: expected one value, got {_told(words)}")
    return words[0]


def _told(words: Sequence[str]) -> str:
    return shown(" ".join(words)) if words else "none"


def _scalar(word: str, type: Callable) -> Any:
    if type is bool:
        return {"true": True, "yes": True, "false": False, "no": False}.get(word.lower(), word)
    try:
        return type(word)
    except ValueError:
        return word


def _near(word: str, known: Sequence[str]) -> str:
    """As `did_you_mean`, but a word that is the last part of dotted names means those."""
    same_end = [repr(name) for name in known if name.replace("-", "_").endswith(f".{word}".replace("-", "_"))]
    if same_end:
        return f" (did you mean {' or '.join(same_end)}?)"
    return did_you_mean(_option(word) if known[0].startswith("--") else word, known)


# ---- help ----


class _Formatter(argparse.RawDescriptionHelpFormatter):
    def _split_lines(self, text: str, width: int) -> list[str]:
        return textwrap.wrap(text, width, break_on_hyphens=False)


def _help(default: Experiment) -> str:
    parser = argparse.ArgumentParser(
        "experiments.py",
        "experiments.py [--preset NAME ... | --file FILE | --run FOLDER]\n       [--PARAMETER VALUE ...] [--grid ...]",
        _DESCRIPTION,
        formatter_class=_Formatter,
    )
    group = parser.add_argument_group("runs")
    for name, (metavar, text) in _CHOICES.items():
        group.add_argument(_option(name), metavar=metavar, help=text)
    values = flatten(default)
    for path, section in _SECTIONS.items():
        group = parser.add_argument_group(path or "experiment", inspect.cleandoc(section.__doc__ or ""))
        for last, text in help_texts(section).items():
            name = join(path, last)
            kind = _PARAMETERS[name]
            if name == "tasks":
                text += "".join(f" {task}: {of.about}." for task, of in config.TASKS.items())
            elif kind.rule.choices and kind.rule.expected:
                text += f" Expects {kind.rule.expected}."
            about = f"{text} (default: {written(values[name])})".replace("%", "%%")
            group.add_argument(_option(name), metavar=_metavar(kind), help=about)
    return parser.format_help().rstrip()


@functools.cache
def help_texts(section: type) -> dict[str, str]:
    """The text below each field of a section, as one line."""
    (body,) = ast.parse(textwrap.dedent(inspect.getsource(section))).body
    assert isinstance(body, ast.ClassDef)
    texts = {}
    for field, text in itertools.pairwise(body.body):
        if isinstance(field, ast.AnnAssign) and isinstance(text, ast.Expr) and isinstance(text.value, ast.Constant):
            texts[ast.unparse(field.target)] = " ".join(str(text.value.value).split())
    return texts


def _option(name: str) -> str:
    return "--" + name.replace("_", "-")


def _metavar(kind: Kind) -> str:
    if kind.type is tuple:
        text = "INT,INT,... ..." if kind.item.type is tuple else f"{_metavar(kind.item)} ..."
    elif kind.rule.choices and not kind.rule.expected:
        text = "{" + ",".join(kind.rule.choices) + "}"
    else:
        text = {int: "INT", float: "FLOAT", bool: "[True|False]", str: "TEXT"}[kind.type]
    return f"{text}|None" if kind.optional else text
