"""The command line of `experiments.py`, made from the dataclasses of `iwae.config`.

Every parameter is an option of the same dotted name. tyro reads the words and writes the `--help`; what the words mean
is decided by `iwae.config`, so that a mistake gives the same single line here and from Python, before TensorFlow is
imported and before anything is written.
"""

import ast
import dataclasses
import functools
import inspect
import os
import sys
import textwrap
import types
import typing
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal, NoReturn

from iwae import config
from iwae.config import ConfigError, Experiment

_DESCRIPTION = """Trains, evaluates and plots an importance weighted or a variational autoencoder.

The defaults are the parameters at the top of experiments.py.

"Paper" is Burda, Grosse & Salakhutdinov, Importance Weighted Autoencoders, ICLR 2016."""


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
        chosen = parse(sys.argv[1:] if arguments is None else arguments, _made(experiment))
        from iwae.run import RunError, run  # here, so that neither --help nor a mistake waits for TensorFlow
    except ConfigError as error:
        _end(2, error)
    except BrokenPipeError:  # the reader of --help has gone; nothing is left to flush at exit
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(0)
    try:
        run(chosen)
    except ConfigError as error:
        _end(2, error)
    except RunError as error:
        _end(1, error)
    except KeyboardInterrupt:
        sys.exit(130)
    sys.exit(0)


def parse(arguments: Sequence[str], default: Experiment) -> Experiment:
    """The experiment of a command line: `default` with the parameters that the words in `arguments` give.

    `--help` prints the options and exits.

    Raises:
        ConfigError: for an unknown option and for a value that is refused.
    """
    return with_words(default, read_words(arguments, default))


def read_words(arguments: Sequence[str], default: Experiment) -> dict[str, tuple[str, ...]]:
    """The words after each option that is there, by the dotted name of the parameter: `{"model.k": ("5",)}`.

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
    return {name: value.words for name, value in _leaves(tree) if isinstance(value, _Words)}


def with_words(experiment: Experiment, words: Mapping[str, Sequence[str]]) -> Experiment:
    """`experiment` with parameters replaced by what is written in `words`, by dotted name.

    Raises:
        ConfigError: for a value that is refused.
    """
    values = config.to_dict(experiment)
    for name, given in words.items():
        *sections, last = name.split(".")
        functools.reduce(dict.__getitem__, sections, values)[last] = _value(name, given, _parameters()[name])
    return config.from_dict(values)


def _made(experiment: Callable[[], Experiment]) -> Experiment:
    try:
        return experiment()
    except TypeError as error:
        raise ConfigError(f"experiments.py: expected the parameters of an experiment, got an error: {error}") from None


def _end(status: int, error: Exception) -> NoReturn:
    print(f"error: {' '.join(str(error).split())}", file=sys.stderr)
    sys.exit(status)


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


def _value(name: str, words: Sequence[str], annotation: Any) -> Any:
    """The words as a value for `annotation`. A word that does not fit stays text, which `iwae.config` then refuses."""
    annotation, optional = _bare(annotation)
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
    if len(words) != 1:
        raise ConfigError(f"{name}: expected one value, got {config.shown(' '.join(words)) if words else 'none'}")
    return _scalar(words[0], annotation)


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
    options = [_option(known) for known in _parameters()]
    bare = name.lstrip("-").replace("_", "-")
    same_end = [repr(option) for option in options if option.endswith(f".{bare}")]
    near = f" (did you mean {' or '.join(same_end)}?)" if same_end else config.did_you_mean(f"--{bare}", options)
    return ConfigError(f"{config.shown(name)[1:-1]}: expected an option that --help lists, got an unknown one{near}")


# ---- values to words, for --help ----


def _section_rule(info: Any) -> Any:
    """tyro's description of a section: every option takes any number of words, which are kept as they are."""
    if not dataclasses.is_dataclass(info.type):
        return None
    from tyro.constructors import PrimitiveConstructorSpec, StructConstructorSpec, StructFieldSpec

    helps = help_texts(info.type)
    fields = []
    for name, annotation in _annotation_tree(info.type).items():
        default = getattr(info.default, name)
        if isinstance(annotation, dict):
            field_type: Any = type(default)
        else:
            spec = PrimitiveConstructorSpec(
                nargs="*",
                metavar=_metavar(annotation),
                instance_from_str=lambda words: _Words(tuple(words)),
                is_instance=lambda value: True,
                str_from_instance=lambda text: [text],
            )
            field_type, default = Annotated[str, spec], _written(default)
        fields.append(StructFieldSpec(name=name, type=field_type, default=default, helptext=helps.get(name)))
    return StructConstructorSpec(instantiate=dict, fields=tuple(fields))


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


def _written(value: Any) -> str:
    """`value` as it would be written on the command line."""
    if not isinstance(value, tuple):
        return str(value)
    items = [",".join(map(str, item)) or "none" if isinstance(item, tuple) else str(item) for item in value]
    return " ".join(items) or "none"
