"""`log.csv`, a row an epoch: its columns, and reading it."""

import csv
from pathlib import Path

COLUMNS = ("epoch", "updates", "learning_rate", "train_bound", "valid_bound", "seconds", "images_per_second")
"""Passes over the data and updates so far, learning rate, bounds in nats an example, time and speed of the epoch."""


def read(path: Path) -> list[dict[str, float]]:
    """The rows of a `log.csv`; a last line that was cut short is left out. An absent file has none."""
    rows: list[dict[str, float]] = []
    if path.exists():
        with open(path, newline="", encoding="utf-8") as file:
            for row in csv.DictReader(file):
                try:
                    values = {name: float(row[name]) for name in COLUMNS}
                except (KeyError, TypeError, ValueError):
                    break
                rows.append(values | {"epoch": int(values["epoch"]), "updates": int(values["updates"])})
    return rows
