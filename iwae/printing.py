"""What a command prints, which may get lost without the command being stopped by it."""

import io
import os
import select
import sys
from typing import Any


class _Lasting(io.FileIO):
    """A terminal, pipe or file to print into; once it takes no more, the null device in its place."""

    def write(self, data: Any, /) -> int:
        try:
            while (written := super().write(data)) is None:  # a pipe that is full, and does not wait by itself
                select.select([], [self], [])
            return written
        except OSError:
            null = os.open(os.devnull, os.O_WRONLY)
            os.dup2(null, self.fileno())  # so that C++ code, too, goes on
            os.close(null)
            return super().write(data)


def may_get_lost() -> None:
    """From now on this process goes on when its reader is gone, the disk of its output full, or its terminal closed.

    Streams that something has put in the place of the process's own, as tests do, stay.
    """
    for name in ("stdin", "stdout", "stderr"):  # as they are numbered: the null device gets the number of a closed one
        stream = getattr(sys, name)
        if stream is None:
            setattr(sys, name, open(os.devnull, "r" if name == "stdin" else "w"))  # noqa: SIM115  # until the end
        elif name != "stdin" and stream is getattr(sys, f"__{name}__"):
            raw = io.BufferedWriter(_Lasting(stream.fileno(), "w", closefd=False))
            buffering = {"line_buffering": stream.line_buffering, "write_through": stream.write_through}
            setattr(sys, name, io.TextIOWrapper(raw, stream.encoding, stream.errors, **buffering))
