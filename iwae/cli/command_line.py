"""The command line of `experiments.py`, made from the dataclasses of `iwae.config`.

Every parameter is an option of the same dotted name. tyro reads the words and writes the `--help`; what the words mean
is decided by `iwae.config`, so that a mistake gives the same single line here and from Python, before TensorFlow is
imported and before anything is written.
"""

import ast
import dataclasses
import functools
import inspect
import itertools
import os
import sys
import textwrap
import traceback
import types
import typing
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal, NoReturn

from iwae import config
from iwae.cli import predecessor, presets
from iwae.config import ConfigError, Experiment
from iwae.experiment import RunError, run
from iwae.runs.process import run_apart

_DESCRIPTION = """Trains, evaluates and plots an importance weighted or a variational autoencoder.

The defaults are the parameters at the top of experiments.py.

"Paper" is Burda, Grosse & Salakhutdinov, Importance Weighted Autoencoders, ICLR 2016."""

# What is run, beside the parameters: metavar and help.
_CHOICES = {
    "list": ("", "Print the presets, the experiments of the paper and of its predecessors, and stop."),
    "preset": ("NAME ...", "Run presets, or groups of them; every other option is a change to each."),
    "file": ("FILE", "Run an experiment file of the PyTorch predecessor, a dictionary `experiment = {...}`."),
}
_GRID = (
    "PARAMETER VALUE ...",
    "Run each of the values: --grid model.k 1 5 50 --grid seed 1 2 3 are nine runs. A list is one value, 100,50.",
)


@dataclass(frozen=True)
class _Words:
    """The words given on the command line after one option."""

    words: tuple[str, ...]


def main(experiment: Callable[[], Experiment], arguments: Sequence[str] | None = None) -> NoReturn:
    """Runs what the command line asks for and ends the process.

    Args:
        experiment: makes the experiment that holds the defaults; called here so that a mistake in it is told in one
            line too.
        arguments: the words of the command line without the program's name; default: those of this process.

    The exit status is 0, 2 for a parameter that cannot be used, 1 for a run that failed, 130 after Ctrl-C.
    """
    try:
        experiments, notes = plan(sys.argv[1:] if arguments is None else arguments, _made(experiment))
    except ConfigError as error:
        _end(2, error)
    except BrokenPipeError:  # the reader of --help has gone; nothing is left to flush at exit
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(0)
    for note in notes:
        print(f"note: {note}", file=sys.stderr)
    try:
        if len(experiments) > 1:
            sys.exit(run_all(experiments, run_apart))
        run(experiments[0])
    except ConfigError as error:
        _end(2, error)
    except RunError as error:
        _end(1, error)
    except KeyboardInterrupt as error:
        sys.exit(getattr(error, "exit_status", 130))
    sys.exit(0)


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
            print(f"error: {_one_line(error)}", file=sys.stderr)
            failed.append((experiment.name, error))
        except Exception as error:  # a fault in one run must not cost the others
            traceback.print_exc()
            failed.append((experiment.name, error))
    print(f"== {len(experiments) - len(failed)} of {len(experiments)} runs are done", flush=True)
    for name, reason in failed:
        print(f"failed: {name}: {_one_line(reason)}", file=sys.stderr)
    return 1 if failed else 0


def plan(arguments: Sequence[str], default: Experiment) -> tuple[list[Experiment], list[str]]:
    """The experiments that a command line asks for, all of them checked, and lines to tell about them.

    `--help` and `--list` print and exit.

    Raises:
        ConfigError: for an unknown option and for a value that is refused.
    """
    words, choices = read_words(arguments, default)
    if "list" in choices:
        print(presets.listing(), flush=True)
        sys.exit(0)
    if "preset" in choices and "file" in choices:
        raise ConfigError("file: expected either --preset or --file, got both")
    grid = _grid(choices["grid"], words)

    notes: list[str] = []
    variants: list[tuple[Experiment, str | None]] = [(default, None)]
    if "file" in choices:
        start, notes = predecessor.read(_only("file", choices["file"]), default)
        variants = [(with_words(start, words), None)]
    elif "preset" in choices:
        cells = presets.expand(choices["preset"])
        if "name" in words and len(cells) > 1:
            raise ConfigError(f"name: expected none with {len(cells)} presets, got {config.shown(words['name'][0])}")
        variants = [(presets.experiment(cell, default), cell) for cell in cells]
    experiments = [_variant(start, cell, words, point) for start, cell in variants for point in grid]
    names = [experiment.name for experiment in experiments]
    for name in names:
        if names.count(name) > 1:
            raise ConfigError(f"grid: expected values that differ, got the run {name} twice")
    return experiments, notes


def _variant(start: Experiment, cell: str | None, words: Mapping, point: Mapping[str, Sequence[str]]) -> Experiment:
    """`start` with what the command line changes in it, and at one point of the grid, under a name that says so."""
    changed = with_words(start, {**words, **point})
    changes = {name for name, _, _ in config.differences(start, changed) if cell is not None and config.in_a_name(name)}
    ending = config.ending(changed, changes | set(point))
    if isinstance(changed.name, config.MadeName):
        own = config.ending(changed, {name for name in point if not config.in_a_name(name)})
    else:
        own = ending if "name" not in words else config.ending(changed, point)
    changed = dataclasses.replace(changed, name=changed.name + own) if own else changed
    return changed if cell is None else presets.continuation(cell, changed, ending)


def _grid(options: Sequence[Sequence[str]], words: Mapping[str, Sequence[str]]) -> list[dict[str, tuple[str, ...]]]:
    """Every point of the grid: the words for each of its parameters."""
    axes: dict[str, list[tuple[str, ...]]] = {}
    for option in options:
        if len(option) < 2:
            raise ConfigError(
                "grid: expected a parameter and its values, such as --grid model.k 1 5 50, got "
                f"{config.shown(' '.join(option)) if option else 'none'}"
            )
        name = option[0].replace("-", "_")
        if name not in _parameters():
            near = _did_you_mean(name, list(_parameters()))
            raise ConfigError(f"grid: expected the name of a parameter, got {config.shown(option[0])}{near}")
        if name == "name":
            raise ConfigError("grid: expected a parameter other than name, to which the values are added, got name")
        if name in words or name in axes:
            raise ConfigError(f"grid: expected each parameter once, got {name} twice")
        split = "/" if name == "model.hidden_units" else None  # there a word is the list of one layer
        axes[name] = [tuple(value.split(split)) if split else (value,) for value in option[1:]]
    return [dict(zip(axes, point, strict=True)) for point in itertools.product(*axes.values())]


def read_words(arguments: Sequence[str], default: Experiment) -> tuple[dict[str, Any], dict[str, Any]]:
    """The words after each option that is there.

    Returns:
        Those of the parameters, by dotted name, `{"model.k": ("5",)}`, and those that choose what is run, by name; for
        `grid`, which can be given several times, a list.

    Raises:
        ConfigError: for an option that does not exist and for a word that belongs to none.
    """
    import tyro

    registry = tyro.constructors.ConstructorRegistry()
    registry.struct_rule(_section_rule)
    tree, unknown = tyro.cli(
        Experiment,
        prog="experiments.py",
        description=_DESCRIPTION,
        args=list(arguments),
        default=default,
        return_unknown_args=True,
        registry=registry,
    )
    if unknown:
        raise _unknown_word(unknown[0])
    values = typing.cast("dict[str, Any]", tree)
    grid = values.pop("grid")
    words = {name: value.words for name, value in _leaves(values) if isinstance(value, _Words)}
    choices: dict[str, Any] = {name: words.pop(name) for name in _CHOICES if name in words}
    return words, choices | {"grid": grid}


def with_words(experiment: Experiment, words: Mapping[str, Sequence[str]]) -> Experiment:
    """`experiment` with parameters replaced by what is written in `words`, by dotted name.

    Raises:
        ConfigError: for a value that is refused.
    """
    return config.replace(experiment, {name: _value(name, given) for name, given in words.items()})


def _made(experiment: Callable[[], Experiment]) -> Experiment:
    try:
        return experiment()
    except TypeError as error:
        raise ConfigError(f"experiments.py: expected the parameters of an experiment, got an error: {error}") from None


def _end(status: int, error: Exception) -> NoReturn:
    print(f"error: {_one_line(error)}", file=sys.stderr)
    sys.exit(status)


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())


# ---- words to values ----


@functools.cache
def _parameters() -> dict[str, Any]:
    """The annotation of every parameter by its dotted name."""
    return dict(_leaves(_annotation_tree(Experiment)))


def _annotation_tree(section: type) -> dict[str, Any]:
    hints = typing.get_type_hints(section, include_extras=True)
    names = [field.name for field in dataclasses.fields(section)]
    return {n: _annotation_tree(hints[n]) if dataclasses.is_dataclass(hints[n]) else hints[n] for n in names}


def _leaves(tree: Mapping[str, Any], prefix: str = "") -> Iterable[tuple[str, Any]]:
    for name, value in tree.items():
        if isinstance(value, Mapping):
            yield from _leaves(value, f"{prefix}{name}.")
        else:
            yield prefix + name, value


def _value(name: str, words: Sequence[str]) -> Any:
    """The words as a value for a parameter. A word that does not fit stays text, which `iwae.config` then refuses."""
    annotation, optional = _bare(_parameters()[name])
    none = [word.lower() for word in words] == ["none"]
    if optional and none:
        return None
    if typing.get_origin(annotation) is tuple:
        item, _ = _bare(typing.get_args(annotation)[0])
        if typing.get_origin(item) is tuple:
            return [[] if word.lower() == "none" else _items(word, typing.get_args(item)[0]) for word in words]
        return [] if none else [value for word in words for value in _items(word, item)]
    if annotation is bool and not words:
        return True
    return _scalar(_only(name, words), annotation)


def _only(name: str, words: Sequence[str]) -> str:
    if len(words) != 1:
        raise ConfigError(f"{name}: expected one value, got {config.shown(' '.join(words)) if words else 'none'}")
    return words[0]


def _items(word: str, annotation: Any) -> list[Any]:
    return [_scalar(part, _bare(annotation)[0]) for part in word.split(",")]


def _scalar(word: str, annotation: Any) -> Any:
    if annotation is bool:
        return {"true": True, "yes": True, "false": False, "no": False}.get(word.lower(), word)
    if annotation in (int, float):
        try:
            return annotation(word)
        except ValueError:
            return word
    return word


def _bare(annotation: Any) -> tuple[Any, bool]:
    """The type in `Annotated[type, ...]` or `type | None`, and whether None is allowed."""
    optional = False
    while True:
        origin, arguments = typing.get_origin(annotation), typing.get_args(annotation)
        if origin in (typing.Union, types.UnionType):
            optional, annotation = True, arguments[0]
        elif origin is Annotated:
            annotation = arguments[0]
        else:
            return annotation, optional


def _unknown_word(word: str) -> ConfigError:
    if not word.startswith("-"):
        return ConfigError(f"{config.shown(word)}: expected an option such as --model.k 5, got a word without one")
    name = word.split("=")[0]
    near = _did_you_mean(name.lstrip("-"), [_option(known) for known in (*_CHOICES, "grid", *_parameters())])
    return ConfigError(f"{config.shown(name)[1:-1]}: expected an option that --help lists, got an unknown one{near}")


def _did_you_mean(word: str, known: Sequence[str]) -> str:
    """As `config.did_you_mean`, but a word that is the last part of dotted names means those."""
    same_end = [repr(name) for name in known if name.replace("-", "_").endswith(f".{word}".replace("-", "_"))]
    if same_end:
        return f" (did you mean {' or '.join(same_end)}?)"
    return config.did_you_mean(_option(word) if known[0].startswith("--") else word, known)


# ---- values to words, for --help ----


def _section_rule(info: Any) -> Any:
    """tyro's description of a section."""
    section: type = info.type
    if not dataclasses.is_dataclass(section):
        return None
    from tyro.conf import UseAppendAction, arg
    from tyro.constructors import StructConstructorSpec, StructFieldSpec

    fields = []
    if section is Experiment:
        for name, (metavar, text) in _CHOICES.items():
            fields.append(StructFieldSpec(name, _words_type(metavar, ""), "", text))
        metavar, text = _GRID
        repeated: Any = UseAppendAction[Annotated[list[list[str]], arg(metavar=metavar)]]
        fields.append(StructFieldSpec("grid", repeated, [], text))
    helps = help_texts(section)
    for name, annotation in _annotation_tree(section).items():
        default = getattr(info.default, name)
        if isinstance(annotation, dict):
            fields.append(StructFieldSpec(name, type(default), default))
        else:
            words_type = _words_type(_metavar(annotation), f"(default: {config.written(default)})")
            fields.append(StructFieldSpec(name, words_type, "", helps[name]))
    return StructConstructorSpec(instantiate=dict, fields=tuple(fields))


def _words_type(metavar: str, hint: str) -> Any:
    """The type that makes tyro take any number of words for an option and keep them as they are."""
    from tyro.conf import arg
    from tyro.constructors import PrimitiveConstructorSpec

    spec: Any = PrimitiveConstructorSpec(
        nargs="*",
        metavar=metavar,
        instance_from_str=lambda words: _Words(tuple(words)),
        is_instance=lambda value: True,
        str_from_instance=lambda text: [text],
    )
    return Annotated[str, spec, arg(help_behavior_hint=hint)]


@functools.cache
def help_texts(section: type) -> dict[str, str]:
    """The text below each field of a dataclass, as one line."""
    (body,) = ast.parse(textwrap.dedent(inspect.getsource(section))).body
    assert isinstance(body, ast.ClassDef)
    texts = {}
    for field, text in zip(body.body, body.body[1:], strict=False):
        if isinstance(field, ast.AnnAssign) and isinstance(text, ast.Expr) and isinstance(text.value, ast.Constant):
            texts[ast.unparse(field.target)] = " ".join(str(text.value.value).split())
    return texts


def _option(name: str) -> str:
    return "--" + name.replace("_", "-")


def _metavar(annotation: Any) -> str:
    annotation, optional = _bare(annotation)
    origin, arguments = typing.get_origin(annotation), typing.get_args(annotation)
    if origin is Literal:
        text = "{" + ",".join(arguments) + "}"
    elif origin is tuple:
        item, _ = _bare(arguments[0])
        text = "INT,INT,... ..." if typing.get_origin(item) is tuple else f"{_metavar(item)} ..."
    else:
        text = {int: "INT", float: "FLOAT", bool: "[True|False]", str: "TEXT"}[annotation]
    return f"{text}|None" if optional else text
