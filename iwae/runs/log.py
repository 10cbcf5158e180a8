"""`log.csv`, a row an epoch: its columns, and reading it."""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from iwae.sections import RunError

COLUMNS = ("epoch", "updates", "learning_rate", "train_bound", "valid_bound", "seconds", "images_per_second")
"""Passes over the data and updates so far, learning rate, bounds in nats an example, time and speed of the epoch."""


def line(row: Mapping[str, float]) -> str:
    """A row as it is written."""
    return ",".join(str(row[name]) for name in COLUMNS) + "\n"


def text(rows: Iterable[Mapping[str, float]]) -> str:
    """A whole `log.csv`."""
    return ",".join(COLUMNS) + "\n" + "".join(map(line, rows))


def parse(values: Iterable[Sequence]) -> list[dict[str, float]]:
    """Rows by column from numbers [n, 7], or from their texts. Raises ValueError for anything else."""
    found = []
    for numbers in values:
        row: dict[str, float] = {name: float(number) for name, number in zip(COLUMNS, numbers, strict=True)}
        found.append(row | {"epoch": int(row["epoch"]), "updates": int(row["updates"])})
    return found


def read(path: Path) -> list[dict[str, float]]:
    """The rows of a `log.csv`; a last line that was cut short is left out. An absent file has none.

    Raises:
        RunError: the file is damaged.
    """
    if not path.exists():
        return []
    try:
        text = path.read_bytes().decode()
    except UnicodeDecodeError as error:
        raise RunError(f"{path}: expected text, got other bytes ({error})") from None
    lines = text[: text.rfind("\n") + 1].splitlines()
    if lines and lines[0] != ",".join(COLUMNS):
        raise RunError(f"{path}: expected the columns {','.join(COLUMNS)}, got {lines[0][:80]!r}")
    found: list[dict[str, float]] = []
    for number, line in enumerate(lines[1:], start=2):
        try:
            found += parse([line.split(",")])
        except (ValueError, OverflowError):
            raise RunError(f"{path}: expected {len(COLUMNS)} numbers in line {number}, got {line[:80]!r}") from None
    return found
