"""Writing files whole: a file reaches its name complete and flushed to the disk, or not at all."""

import contextlib
import os
import re
import secrets
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

_TEMPORARY = re.compile(r"\..+\.\d+-[0-9a-f]{8}\.part")


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[BinaryIO]:
    """A new binary file that takes the place of `path` when the block ends well, and vanishes when it does not.

    It is written under a temporary name in the same folder, flushed to the disk, and renamed: whatever happens, `path`
    holds either what it held before or all that was written.

    Raises:
        OSError: of writing, with the name of the file.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}-{secrets.token_hex(4)}.part")
    try:
        with open(temporary, "xb") as stream:
            yield stream
            stream.flush()
            os.fsync(stream.fileno())
        os.replace(temporary, path)
        folder = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)  # the rename itself
        finally:
            os.close(folder)
    except BaseException as error:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)
        if isinstance(error, OSError) and error.filename in (None, str(temporary)):  # writing alone names no file
            raise OSError(error.errno, error.strerror or str(error), str(path)) from None
        raise


def write_atomically(path: Path, content: bytes) -> None:
    """Writes a file so that, whatever happens, `path` holds either what it held before or all of `content`."""
    with replacing(path) as stream:
        stream.write(content)


def left_behind(folder: Path) -> list[Path]:
    """What killed processes left of files that they were writing in `folder`; no name that is not of our making."""
    with contextlib.suppress(OSError):
        return [entry for entry in folder.iterdir() if _TEMPORARY.fullmatch(entry.name) and not entry.is_dir()]
    return []
