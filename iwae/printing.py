"""What a command prints, which may get lost without the command being stopped by it."""

import io
import os
import sys
from typing import Any


class _Lasting(io.FileIO):
    """A terminal, pipe or file to print into; once it takes no more, the null device in its place."""

    def write(self, data: Any, /) -> int:
        try:
            return super().write(data)
        except OSError:
            null = os.open(os.devnull, os.O_WRONLY)
            os.dup2(null, self.fileno())  # so that C++ code, too, goes on
            os.close(null)
            return super().write(data)


def may_get_lost() -> None:
    """From now on this process goes on when its reader is gone, the disk of its output full, or its terminal closed.

    Streams that something has put in the place of the process's own, as tests do, stay.
    """
    for name in ("stdout", "stderr"):  # in the order of their numbers: the null device gets that of a closed one
        stream = getattr(sys, name)
        if stream is None:
            setattr(sys, name, open(os.devnull, "w"))  # noqa: SIM115  # until the process ends
        elif stream is getattr(sys, f"__{name}__"):
            raw = io.BufferedWriter(_Lasting(stream.fileno(), "w", closefd=False))
            lines = stream.line_buffering
            lasting = io.TextIOWrapper(raw, stream.encoding, stream.errors, line_buffering=lines)
            setattr(sys, name, lasting)
