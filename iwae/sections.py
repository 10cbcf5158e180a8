"""Sections of parameters: frozen dataclasses that check themselves when they are made. Which parameters: `iwae.config`.

What a single value may be is said by the annotation of its field, a type and a `Rule`; what values must be together is
said by the functions in `_rules`. A wrong value is refused with a `ConfigError` of one line that names the parameter by
its dotted path, what was expected and what was given.
"""

import dataclasses
import difflib
import functools
import math
import numbers
import os
import re
import struct
import types
import typing
import zlib
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Literal, NoReturn, TypeVar

INT32_MAX = 2**31 - 1


class ConfigError(ValueError):
    """A parameter that cannot be used; the message is one line that names it."""


class RunError(RuntimeError):
    """A run that cannot go on; the message is one line that says what to do."""


@dataclass(frozen=True, eq=False)
class Rule:
    """What one value must fulfil beyond its type.

    Attributes:
        expected: in words; default: one of `choices`.
        holds: whether a value fulfils it. A float must as float32 too, which is what TensorFlow computes with.
        choices: names from which the one that was perhaps meant is suggested.
        convert: applied to a value of the right type before `holds`.
        float32: False for a rule of which float32 needs no account.
        hint: the end of the message about a number, or about a name that is near none of the choices.
    """

    expected: str = ""
    holds: Callable[[Any], bool] = lambda value: True
    choices: Collection[str] = ()
    convert: Callable[[Any], Any] = lambda value: value
    float32: bool = True
    hint: str = ""


@dataclass(frozen=True)
class Kind:
    """What an annotation says: type, that of a list's items, rule, whether None is a value, what else there is."""

    type: Any
    item: Any = None
    rule: Rule = Rule()
    optional: bool = False
    tags: tuple[Any, ...] = ()

    @property
    def is_section(self) -> bool:
        """Whether it is a section of its own."""
        return isinstance(self.type, type) and issubclass(self.type, Section)


def _kind(annotation: Any) -> Kind:
    origin, arguments = typing.get_origin(annotation), typing.get_args(annotation)
    if origin in (typing.Union, types.UnionType):
        return dataclasses.replace(_kind(arguments[0]), optional=True)
    if origin is Annotated:
        *_, rule = _kind(arguments[0]).rule, *(entry for entry in arguments[1:] if isinstance(entry, Rule))
        return dataclasses.replace(_kind(arguments[0]), rule=rule, tags=arguments[1:])
    if origin is Literal:
        return Kind(str, rule=Rule(holds=lambda value: value in arguments, choices=arguments))
    return Kind(tuple, item=_kind(arguments[0])) if origin is tuple else Kind(annotation)


def kinds(section: type) -> dict[str, Kind]:
    """What the value of every field of a section may be."""
    return _kinds(section)


@functools.cache
def _kinds(section: type) -> dict[str, Kind]:
    hints = typing.get_type_hints(section, include_extras=True)
    return {entry.name: _kind(hints[entry.name]) for entry in dataclasses.fields(section)}


class Section:
    """A frozen dataclass whose fields are checked, and converted where nothing is lost, when it is made."""

    _path: ClassVar[str] = ""
    _rules: ClassVar[tuple[Callable[[Any], None], ...]] = ()

    def __new__(cls, *_: Any, **values: Any) -> Any:
        refuse_unknown(cls._path, values, kinds(cls))
        return super().__new__(cls)

    def __post_init__(self) -> None:
        for name, kind in kinds(type(self)).items():
            object.__setattr__(self, name, _converted(join(self._path, name), getattr(self, name), kind))
        for rule in self._rules:
            rule(self)

    def refuse(self, name: str, expected: str) -> NoReturn:
        """Refuses the value of a parameter that does not fit the others."""
        value = shown(plain(getattr(self, name)))
        raise ConfigError(f"{join(self._path, name)}: expected {expected}, got {value}")

    def keeps_default(self, name: str, where: str) -> None:
        """Refuses another value than the default for a parameter that changes nothing `where`."""
        default, value = self.__dataclass_fields__[name].default, getattr(self, name)  # type: ignore[attr-defined]
        if value != default:
            raise ConfigError(f"{join(self._path, name)}: expected {written(default)} {where}, got {written(value)}")


def join(path: str, name: str) -> str:
    """The dotted name of a parameter."""
    return f"{path}.{name}" if path else name


# ---- a value, checked ----


def in_float32(number: Any) -> float:
    """The float32 nearest to a real number, which may be infinite or zero."""
    try:
        return struct.unpack("f", struct.pack("f", float(number)))[0]
    except OverflowError:
        return math.inf


def _converted(path: str, value: Any, kind: Kind) -> Any:
    """`value` as what `kind` says: integers as floats, lists as tuples, NumPy numbers as Python's; ConfigError if that
    would lose anything, or if the rule does not hold."""
    if value is None and kind.optional:
        return None
    converted: Any = None
    is_number = isinstance(value, numbers.Real) and not isinstance(value, bool)
    if kind.type is tuple and isinstance(value, list | tuple):
        converted = tuple(_converted(f"{path}[{i}]", item, kind.item) for i, item in enumerate(value))
    elif kind.type is int and is_number and isinstance(value, numbers.Integral) and abs(int(value)) <= INT32_MAX:
        converted = int(value)
    elif kind.type is float and is_number and math.isfinite(in_float32(value)):
        converted = float(value)
    elif kind.type not in (tuple, int, float) and isinstance(value, kind.type):
        converted = kind.rule.convert(value)
    single = in_float32(converted) if kind.type is float and kind.rule.float32 and converted is not None else converted
    if converted is None or not (kind.rule.holds(converted) and kind.rule.holds(single)):
        raise _refusal(path, value, kind)
    return converted


_TYPE_NAMES = {int: "an integer", float: "a finite number", bool: "True or False", str: "a string", tuple: "a list"}


def _refusal(path: str, value: Any, kind: Kind) -> ConfigError:
    rule, why = kind.rule, ""
    of_type = _TYPE_NAMES.get(kind.type, f"parameters of the class {kind.type.__name__}")
    expected = rule.expected or (f"one of {', '.join(rule.choices)}" if rule.choices else of_type)
    if isinstance(value, str) and rule.choices:
        why = did_you_mean(value, rule.choices) or rule.hint
    elif kind.type is int and isinstance(value, numbers.Integral) and abs(int(value)) > INT32_MAX:
        why = f" (the largest is {INT32_MAX})"
    elif kind.type is float and isinstance(value, float):
        why, single = rule.hint, in_float32(value)
        if not math.isfinite(single):
            why = f" (it must be finite{' in float32' if math.isfinite(value) else ''})"
        elif rule.holds(value):
            why = f" (which is {single:g} in float32)"
    return ConfigError(f"{path}: expected {expected}{' or None' if kind.optional else ''}, got {shown(value)}{why}")


# ---- sections as dictionaries ----


_Section = TypeVar("_Section", bound=Section)


def flatten(section: Section, path: str = "") -> dict[str, Any]:
    """Every parameter by its dotted name, as in `{"seed": 123, "data.name": "digits", ...}`."""
    flat: dict[str, Any] = {}
    for name in kinds(type(section)):
        value = getattr(section, name)
        flat |= flatten(value, join(path, name)) if isinstance(value, Section) else {join(path, name): value}
    return flat


def differences(a: Section, b: Section) -> list[tuple[str, Any, Any]]:
    """The parameters in which two of the same kind differ: dotted name, value in `a`, value in `b`."""
    in_b = flatten(b)
    return [(name, value, in_b[name]) for name, value in flatten(a).items() if value != in_b[name]]


def plain(value: Any) -> Any:
    """`value`, a section too, as dictionaries, lists and plain values, as JSON has them."""
    if isinstance(value, Section):
        return {name: plain(getattr(value, name)) for name in kinds(type(value))}
    return [plain(item) for item in value] if isinstance(value, list | tuple) else value


def from_mapping(path: str, values: Any, section: type) -> Any:
    """The section that `plain` made `values` of; `path` is its dotted name.

    Raises:
        ConfigError: for a key that is unknown or missing and for a value that is refused.
    """
    if not isinstance(values, Mapping):
        raise ConfigError(f"{path or 'experiment'}: expected named parameters (a dictionary), got {shown(values)}")
    refuse_unknown(path, values, kinds(section))
    arguments = {}
    for name, kind in kinds(section).items():
        inner = join(path, name)
        if name not in values:
            raise ConfigError(f"{inner}: expected a value, got none (the parameter is missing)")
        arguments[name] = from_mapping(inner, values[name], kind.type) if kind.is_section else values[name]
    return section(**arguments)


def refuse_unknown(path: str, keys: Iterable, known: Collection[str], what: str = "the name of a parameter") -> None:
    """Refuses keys, of any type, that are not among the known ones."""
    for key in keys:
        if key not in known:
            near = did_you_mean(key, known) if isinstance(key, str) else ""
            name = key if isinstance(key, str) and key.isidentifier() else shown(key)
            raise ConfigError(f"{join(path, name)}: expected {what}, got an unknown one{near}")


def replace(section: _Section, changes: Mapping[str, Any]) -> _Section:
    """`section` with other values for the parameters named in `changes`, as in `{"seed": 7, "model.k": 5}`.

    Raises:
        ConfigError: for a name that is no parameter's and for a value that is refused.
    """
    values, known = plain(section), flatten(section)
    for name, value in changes.items():
        if name not in known:
            near = did_you_mean(name, known)
            raise ConfigError(f"{name}: expected the name of a parameter, got an unknown one{near}")
        *path, last = name.split(".")
        (values[path[0]] if path else values)[last] = value
    return from_mapping("", values, type(section))


# ---- words ----


def written(value: Any) -> str:
    """`value` as it is written on the command line: `0.5`, `100,50`, `200,200 100,100`, `none` for an empty list."""
    if not isinstance(value, list | tuple):
        return str(value)
    nested = any(isinstance(item, list | tuple) for item in value)
    return (" " if nested else ",").join(map(written, value)) or "none"


def data_name(value: str) -> str:
    """The name of a dataset; of a user's file or folder, its own without the ending."""
    return os.path.basename(value.rstrip("/")).removesuffix(".npz").removesuffix(".csv")


def name_part(name: str, value: Any) -> str:
    """The value of a parameter as a part of a run's name; of a user's dataset, the name of the file."""
    text = data_name(value) if name == "data.name" else written(value)
    return re.sub(r"[^A-Za-z0-9_.+]+", "-", text.replace(" ", "_"))


def name_ending(values: Mapping[str, Any], names: Collection[str]) -> str:
    """The end of a run's name that says what the parameters `names` are, the seed last: `_k5_objective-vae_seed7`."""
    text = ""
    for name in sorted(names, key=lambda name: (name == "seed", list(values).index(name))):
        section, _, last = name.rpartition(".")
        last = "data" if name == "data.name" else f"{section}_{last}" if section in ("data", "evaluation") else last
        part = name_part(name, values[name])
        text += f"_{last}{part}" if part[0].isdigit() else f"_{last}-{part}"
    return text


def shown(value: Any) -> str:
    """`repr(value)` in one line of at most 80 characters."""
    try:
        text = " ".join(repr(value).split())
    except Exception:  # a value whose repr fails must still be refused in one line
        text = f"a value of type {type(value).__name__}"
    return text if len(text) <= 80 else f"{text[:77]}..."


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """The end of a message about an unknown word: ` (did you mean 'x'?)`, or nothing if no known word is near."""
    by_lower_case = {name.lower(): name for name in known}
    near = difflib.get_close_matches(word.lower(), by_lower_case, n=1)
    return f" (did you mean {by_lower_case[near[0]]!r}?)" if near else ""


def either(names: Iterable[str]) -> str:
    """`'a' or 'b'`."""
    return " or ".join(map(repr, names))


# ---- kinds of values ----


class Unregistered(str):
    """The name of an objective whose code is not at hand: it can be read and told, but not trained."""


class MadeName(str):
    """A run's name that was made from its parameters, and is made anew when these are replaced."""

    def __new__(cls, name: str) -> "MadeName":
        short = name if len(name) <= 150 else f"{name[:140]}_{zlib.crc32(name.encode()):08x}"
        return super().__new__(cls, short)


def _is_folder_name(name: str) -> bool:
    return (
        name.isprintable()
        and not set(name) & set('/\\:*?"<>|')
        and name == name.strip(" ")
        and name.strip(".") != ""
        and len(name.encode()) <= 200
    )


def _is_path(text: str) -> bool:
    return text.strip() != "" and "\0" not in text and not text.startswith("~")


def expanded(path: str) -> str:
    """`path` with ~ and ~user replaced by that user's home folder; as it is if there is no such user."""
    return path if "\0" in path else os.path.expanduser(path)


def _increases(items: tuple[int, ...]) -> bool:
    return all(a < b for a, b in zip(items, items[1:], strict=False))


Count = Annotated[int, Rule("an integer >= 1", lambda n: n >= 1)]
CountOrZero = Annotated[int, Rule("an integer >= 0", lambda n: n >= 0)]
Seed = Annotated[int, Rule(f"an integer from 0 to {INT32_MAX}", lambda n: n >= 0)]
Positive = Annotated[float, Rule("a number > 0", lambda x: x > 0)]
NonNegative = Annotated[float, Rule("a number >= 0", lambda x: x >= 0)]
Fraction = Annotated[float, Rule("a number from 0 to 1", lambda x: 0 <= x <= 1)]
Decay = Annotated[float, Rule("a number >= 0 and < 1", lambda x: 0 <= x < 1)]
LearningRate = Annotated[
    float, Rule("a number > 0", lambda x: x >= 9e-11, hint=" (the least that changes float32 weights is 1e-10)")
]
FolderName = Annotated[str, Rule("a name that can be a folder's (no path, no special characters)", _is_folder_name)]
Path = Annotated[str, Rule("a path, where ~ is a home folder that exists", _is_path, convert=expanded)]
Increasing = Annotated[tuple[Count, ...], Rule("a list of increasing integers", _increases)]
SomeIncreasing = Annotated[
    tuple[Count, ...],
    Rule("a list of at least one integer, increasing", lambda items: len(items) > 0 and _increases(items)),
]
_Item = TypeVar("_Item")
Selection = Annotated[
    tuple[_Item, ...],
    Rule("a list of at least one item and no repeats", lambda items: 0 < len(items) == len(set(items))),
]
