"""Tables and links in Markdown, and the same for a terminal."""

import os
import re
import textwrap
import urllib.parse
from pathlib import Path

import pandas as pd


def cell(text: str) -> str:
    """Text that cannot break the table it stands in."""
    return " ".join(text.split()).replace("|", "\\|")


def link(text: str, folder: Path, base: Path) -> str:
    """A link to `folder` from a file in `base`."""
    path = urllib.parse.quote(os.path.relpath(folder, base).replace(os.sep, "/"))
    text = text.replace("[", "\\[").replace("]", "\\]")
    return f"[{text}]({path})"


def table(frame: pd.DataFrame) -> str:
    """A table of texts, without the columns that have none."""
    frame = frame.loc[:, (frame != "").any()]
    lines = [frame.columns, ["---"] * len(frame.columns), *frame.itertuples(index=False)]
    return "\n".join("| " + " | ".join(map(cell, line)) + " |" for line in lines)


def plain(text: str, width: int) -> str:
    """Markdown as this module writes it, for a terminal of `width` columns: no links, tables aligned, and those too
    wide in parts, each with the first column."""
    blocks = []
    for block in text.strip().split("\n\n"):
        block = re.sub(r"(?<!\\)\[(.*?)(?<!\\)\]\([^ )]*\)", r"\1", block).replace("**", "")
        if block.startswith("| "):
            header, _, *rows = [line[2:-2].split(" | ") for line in block.splitlines()]
            frame = pd.DataFrame([[_unescaped(text) for text in row] for row in rows], columns=header)
            frame = frame.set_index(header[0]).rename_axis(index=None, columns=header[0])
            blocks.append(frame.to_string(line_width=width))
        else:
            lines = block.lstrip("# ").splitlines()
            blocks.append("\n".join(textwrap.fill(_unescaped(line), width) for line in lines))
    return "\n\n".join(blocks) + "\n"


def _unescaped(text: str) -> str:
    return re.sub(r"\\([\[\]|])", r"\1", text)
