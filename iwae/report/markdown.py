"""Tables and links in Markdown, and the same for a terminal."""

import os
import re
import textwrap
import urllib.parse
from collections.abc import Mapping, Sequence
from pathlib import Path

import pandas as pd


def cell(text: str) -> str:
    """Text that cannot break the table it stands in."""
    return " ".join(text.split()).replace("|", "\\|")


def link(folder: Path, base: Path, text: str = "") -> str:
    """A link to `folder` from a file in `base`; its text is the name of the folder unless another is given."""
    path = urllib.parse.quote(os.path.relpath(folder, base).replace(os.sep, "/"))
    text = (text or folder.name).replace("[", "\\[").replace("]", "\\]")
    return f"[{text}]({path})"


def table(rows: pd.DataFrame | Sequence[Mapping[str, str]]) -> str:
    """A table of texts, without the columns that have none."""
    frame = pd.DataFrame(rows).fillna("")
    frame = frame.loc[:, (frame != "").any()]
    lines: list[list[str]] = [list(map(str, frame)), ["---"] * len(frame.columns), *frame.to_numpy().tolist()]
    return "\n".join("| " + " | ".join(map(cell, line)) + " |" for line in lines)


def plain(text: str, width: int) -> str:
    """Markdown as this module writes it, for a terminal of `width` columns: no links, tables aligned, and those that
    are too wide in parts, each with the first column."""
    text = re.sub(r"(?<!\\)\[(.*?)(?<!\\)\]\([^ )]*\)", r"\1", text).replace("**", "")
    blocks = []
    for block in text.strip().split("\n\n"):
        if block.startswith("| "):
            header, _, *rows = [list(map(_unescaped, line[2:-2].split(" | "))) for line in block.splitlines()]
            frame = pd.DataFrame(rows, columns=header).set_index(header[0]).rename_axis(index=None, columns=header[0])
            lines = [line.rstrip(" \\") for line in frame.to_string(line_width=width).splitlines()]
        else:
            lines = [textwrap.fill(_unescaped(line.lstrip("# ")), width) for line in block.splitlines()]
        blocks.append("\n".join(lines))
    return "\n\n".join(blocks) + "\n"


def _unescaped(text: str) -> str:
    return re.sub(r"\\([\[\]|])", r"\1", text)
