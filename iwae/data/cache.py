"""The folder of downloaded datasets, and whether a file in it is what upstream publishes.

Its layout: `<cache>/<dataset>/<file name as upstream>`; `loading` keeps the parsed arrays beside them. A file reaches
its final name only complete, verified and flushed to disk, so a cache may be shared by several processes, killed at any
moment, or made read-only once it is complete.
"""

import hashlib
import os
from pathlib import Path

import platformdirs

from iwae.data.catalogue import DatasetError, RemoteFile


def expanded(path: str | os.PathLike[str]) -> Path:
    """The path with its `~` or `~user` resolved; a DatasetError if it can be no path."""
    if "\0" in os.fspath(path):
        raise DatasetError(f"expected a path, got {os.fspath(path)!r}")
    try:
        return Path(path).expanduser()
    except RuntimeError:
        raise DatasetError(f"{os.fspath(path)}: expected the home folder of a user, found none") from None


def cache_dir(data_dir: str | os.PathLike[str] | None = None) -> Path:
    """The cache folder: the argument, else `IWAE_DATA_DIR`, else the operating system's; DatasetError as `expanded`."""
    given = data_dir or os.environ.get("IWAE_DATA_DIR")
    return expanded(given) if given else Path(platformdirs.user_cache_dir("iwae"))


def defect(path: Path, file: RemoteFile) -> str | None:
    """What is wrong with the copy of `file` at `path`, both identities named; None if it is right."""
    if not path.is_file():
        return "missing"
    size = path.stat().st_size
    found, expected = f"{size} bytes", str(file.size)
    if file.size in (None, size):
        digest = hashlib.sha256() if file.digest_name == "sha256" else hashlib.sha1(b"blob %d\0" % size)
        with open(path, "rb") as stream:
            while block := stream.read(1 << 20):
                digest.update(block)
        if digest.hexdigest() == file.digest:
            return None
        found, expected = f"{file.digest_name} {digest.hexdigest()}", file.digest
    with open(path, "rb") as stream:
        is_html = stream.read(256).lstrip().lower().startswith((b"<!doctype", b"<html"))
    return f"{found}, expected {expected}" + " (a web page, as a login or proxy page sends)" * is_html
