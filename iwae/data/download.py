"""Fetch datasets into the cache, verifying every file before it is used: the command `datasets_download`."""

import argparse
import contextlib
import os
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from iwae import printing
from iwae.data.cache import cache_dir, defect
from iwae.data.catalogue import CATALOGUE, DatasetError, RemoteFile, named
from iwae.files import left_behind

ROUNDS = 4  # over all sources of a file
STALE = 600.0  # seconds after which an untouched temporary file counts as left behind by a killed process
LONGEST = 604_800.0  # seconds, a week: what operating systems can surely wait
EXPECTED_SECONDS = f"expected more than 0 and at most {LONGEST:.0f} seconds"
DEFAULT = ("mnist", "binarized_mnist", "omniglot")


class DownloadError(RuntimeError):
    """A file could not be fetched or written; the message says which, what was tried, and what to do."""


def fetch(
    name: str,
    data_dir: str | os.PathLike[str] | None = None,
    *,
    mirror: str | None = None,
    timeout: float = 20.0,
    transfer_timeout: float = 3600.0,
    wait: float = 1.0,
) -> int:
    """Make the files of a dataset present and right in the cache.

    Files already there and right are not asked for again; damaged ones are replaced. Each round asks the mirror, then
    every upstream source, until one gives the right bytes; there are `ROUNDS` rounds.

    Args:
        name: A dataset of the catalogue.
        data_dir: The cache, see `cache.cache_dir`.
        mirror: Each file is asked for at `mirror/<file name>` first. Default: `IWAE_MIRROR`.
        timeout: Seconds without a byte after which an attempt is given up.
        transfer_timeout: Seconds after which an attempt is given up whatever comes; that source is not asked again.
        wait: Seconds before the second round; doubled before each further one.

    Returns:
        The number of files transferred.

    Raises:
        ValueError: The mirror is not an http or https address, a time is out of range, no such home folder.
        DownloadError: No source gave the right bytes, or the cache cannot be written. The cache has no half file.
    """
    mirror = _checked_mirror(mirror)
    for option, seconds in (("timeout", timeout), ("transfer_timeout", transfer_timeout)):
        if not 0 < seconds <= LONGEST:
            raise ValueError(f"{option}: {EXPECTED_SECONDS}, got {seconds:g}")
    folder = cache_dir(data_dir) / name
    transferred = 0
    for file in CATALOGUE[name].files:
        path = folder / file.name
        try:
            wrong = defect(path, file)
            if wrong is None:
                continue
            if wrong != "missing":
                print(f"{path}: {wrong}; fetching it again", file=sys.stderr)
            folder.mkdir(parents=True, exist_ok=True)
            _remove_left_behind(folder)
            _fetch_file(file, path, mirror, timeout, transfer_timeout, wait)
        except OSError as error:
            raise DownloadError(
                f"{name}: {path}: {error.strerror or error}. Make room or access there, or choose "
                "another folder with --data-dir DIR or IWAE_DATA_DIR=DIR"
            ) from error
        transferred += 1
    return transferred


def _fetch_file(
    file: RemoteFile, path: Path, mirror: str | None, timeout: float, transfer_timeout: float, wait: float
) -> None:
    from_net = named("iwae.data.transfer")  # imports requests
    shown = from_net.without_password
    sources = [f"{mirror.rstrip('/')}/{file.name}", *file.urls] if mirror else [*file.urls]
    reasons: dict[str, list[str]] = {url: [] for url in sources}
    for attempt in range(ROUNDS):
        if attempt and sources:
            time.sleep(wait * 2 ** (attempt - 1))
        for url in list(sources):
            try:
                from_net.transfer(url, file, path, timeout, transfer_timeout)
            except from_net.Refused as error:
                if not reasons[url]:
                    print(f"  {shown(url)}: {error}", file=sys.stderr)
                reasons[url].append(str(error))
                if error.final:
                    sources.remove(url)
            else:
                print(f"{path}: fetched from {shown(url)}, verified", file=sys.stderr)
                return
    tried = [f"  {shown(url)}: {'; '.join(dict.fromkeys(why))} ({len(why)}x)" for url, why in reasons.items()]
    size = f"{file.size} bytes, " if file.size else ""
    what_to_do = (
        f"{path.parent.name}: {file.name} could not be fetched: try again later, give another source (--mirror URL or "
        f"IWAE_MIRROR=URL, asked at URL/{file.name}), or put it there yourself: {path} "
        f"({size}{file.digest_name} {file.digest})"
    )
    raise DownloadError("\n".join([what_to_do, *tried]))


def _checked_mirror(mirror: str | None) -> str | None:
    mirror = mirror or os.environ.get("IWAE_MIRROR") or None
    if mirror and not (mirror.lower().startswith(("http://", "https://")) and mirror.isprintable()):
        shown = named("iwae.data.transfer:without_password")(mirror)
        raise ValueError(f"--mirror (IWAE_MIRROR): expected an address that starts with http(s)://, got {shown!r}")
    return mirror


def _seconds(text: str) -> float:
    value = float(text)
    if not 0 < value <= LONGEST:
        raise argparse.ArgumentTypeError(f"{EXPECTED_SECONDS}, got {text}")
    return value


def _remove_left_behind(folder: Path) -> None:
    """Remove what killed processes left; a transfer in progress touches its file now and then."""
    for left in left_behind(folder):
        with contextlib.suppress(OSError):
            if time.time() - left.stat().st_mtime > STALE:
                left.unlink()


def main(arguments: Sequence[str] | None = None, wait: float = 1.0) -> int:
    """The command `datasets_download`: fetch, parse, and tell what is cached.

    Returns:
        Exit status: 0, 1 if a dataset failed, 2 for wrong usage, 130 if interrupted.
    """
    printing.may_get_lost()
    known = [name for name, entry in CATALOGUE.items() if entry.files]
    parser = argparse.ArgumentParser(
        prog="datasets_download", description="Fetch datasets into the cache, verified; nothing is fetched twice."
    )

    def add(name: str, metavar: str, help: str, **options: Any) -> None:
        parser.add_argument(name, metavar=metavar, help=help, **options)

    add("names", "NAME", f"of {', '.join(known)} (default: {' '.join(DEFAULT)})", nargs="*")
    add("--data-dir", "DIR", "the cache (default: IWAE_DATA_DIR, else the system's cache)")
    add("--mirror", "URL", "ask at URL/<file name> first, then upstream (default: IWAE_MIRROR)")
    add("--timeout", "SECONDS", "give up a silent server (default: 20)", type=_seconds, default=20.0)
    slow = "give up a source that takes longer for one file (default: 3600)"
    add("--transfer-timeout", "SECONDS", slow, type=_seconds, default=3600.0)
    options = vars(parser.parse_args(arguments))
    names, data_dir = options.pop("names"), options["data_dir"]
    for name in names:
        if name not in known:
            parser.error(f"NAME: expected one of {', '.join(known)}, got {name!r}")
    try:
        _checked_mirror(options["mirror"])
        cache_dir(data_dir)
    except ValueError as error:
        parser.error(str(error))

    load_dataset = named("iwae.data.loading:load_dataset")
    asked, failed = dict.fromkeys(names or DEFAULT), []
    for name in asked:
        try:
            fetch(name, **options, wait=wait)
            load_dataset(name, data_dir)  # parses what is new
        except (DownloadError, DatasetError) as error:
            print(str(error).splitlines()[0], file=sys.stderr)  # what was tried is told already
            failed.append(name)
        except KeyboardInterrupt:
            print("interrupted; what is complete is kept, the same command goes on from there", file=sys.stderr)
            return 130
    if len(failed) < len(asked):
        print(_table(known, data_dir))
    return 1 if failed else 0


def _table(names: Sequence[str], data_dir: str | None) -> str:
    """What is cached, a row a dataset."""
    load_dataset, folder = named("iwae.data.loading:load_dataset"), cache_dir(data_dir)
    rows = {}
    for name in names:
        paths = [folder / name / file.name for file in CATALOGUE[name].files]
        try:
            size = sum(path.stat().st_size for path in paths)
            data = load_dataset(name, data_dir)
        except (OSError, DatasetError):
            rows[name] = ["not cached", "", "", "", "", ""]
            continue
        splits = (data.train, data.valid, data.test)
        means = "  ".join(f"{x.mean(dtype='float64'):.6f}" for x in splits)
        rows[name] = [str(len(paths)), f"{size:,}", *(f"{len(x):,}" for x in splits), means]
    columns = ["files", "bytes", "train", "valid", "test", "pixel mean (train, valid, test)"]
    table = named("pandas:DataFrame").from_dict(rows, orient="index", columns=columns).rename_axis(columns="dataset")
    return f"cache: {folder}\n{table.to_string()}"
