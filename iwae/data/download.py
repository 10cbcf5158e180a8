"""Fetch datasets into a cache folder, verifying every file before it is used.

Layout of the cache: `<cache>/<dataset>/<file name as upstream>`; `iwae.datasets` keeps the parsed arrays beside them.
A file reaches its final name only complete, verified and flushed to disk, so a cache may be shared by several
processes, killed at any moment, or made read-only once it is complete.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import os
import secrets
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

ROUNDS = 4  # over all sources of a file
WAIT = 1.0  # seconds before the second round; doubled before each further one
STALE = 600.0  # seconds after which an untouched temporary file counts as left behind by a killed process


class DownloadError(RuntimeError):
    """A file could not be fetched or written; the message says which, what was tried, and what to do."""


class _Refused(Exception):
    """An answer that is not the file."""


@dataclass(frozen=True)
class RemoteFile:
    """A file as upstream publishes it.

    Attributes:
        name: File name, the same in the cache, upstream and at a mirror.
        urls: Where to ask, best first.
        digest: Hexadecimal: SHA-256 (64 digits), or the git blob id (40 digits; SHA-1 of `blob <size>\\0` and the
            contents) where a git repository is the source and nothing else is published.
        size: Bytes, or None if not published.
    """

    name: str
    urls: tuple[str, ...]
    digest: str
    size: int | None = None

    @property
    def digest_name(self) -> str:
        """What `digest` is, for messages."""
        return "sha256" if len(self.digest) == 64 else "git blob id"


def _files(folders: Sequence[str], *rows: tuple[str, int | None, str]) -> tuple[RemoteFile, ...]:
    return tuple(RemoteFile(name, tuple(f + name for f in folders), digest, size) for name, size, digest in rows)


FILES: dict[str, tuple[RemoteFile, ...]] = {
    "mnist": _files(
        (
            "https://storage.googleapis.com/cvdf-datasets/mnist/",
            "https://ossci-loading.s3.amazonaws.com/mnist/",
        ),
        ("train-images-idx3-ubyte.gz", 9912422, "440fcabf73cc546fa21475e81ea370265605f56be210a4024d2ca8f203523609"),
        ("train-labels-idx1-ubyte.gz", 28881, "3552534a0a558bbed6aed32b30c495cca23d567ec52cac8be1a0730e8010255c"),
        ("t10k-images-idx3-ubyte.gz", 1648877, "8d422c7b0a1c1c79245a5bcf07fe86e33eeafee792b84584aec276f5a2dbc4e6"),
        ("t10k-labels-idx1-ubyte.gz", 4542, "f7ae60f92e00ec6debd23a6088c31dbd2371eca3ffa0defaefb259924204aec6"),
    ),
    "binarized_mnist": _files(
        ("http://www.cs.toronto.edu/~larocheh/public/datasets/binarized_mnist/",),
        ("binarized_mnist_train.amat", 78400000, "ad693b29f94c14277b095f5238ddefbbdaaae0939789dd2f4f0205278cee3e4d"),
        ("binarized_mnist_valid.amat", 15680000, "1de3d397c40fe8eeb33dafd4099a1f665ec01e96d9be234aaeeac8a34930e2e2"),
        ("binarized_mnist_test.amat", 15680000, "e6687bfea3f820c174f33b7865140b2a2dd2930ef786f35d45795fc193b5ab2c"),
    ),
    "omniglot": _files(
        (
            "https://github.com/yburda/iwae/raw/master/datasets/OMNIGLOT/",
            "https://raw.githubusercontent.com/yburda/iwae/master/datasets/OMNIGLOT/",
        ),
        ("chardata.mat", None, "016a3536ffe5e1d38e42563a18d7a78bfaf643ec"),
    ),
    "fashion_mnist": _files(
        (
            "http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/",
            "https://github.com/zalandoresearch/fashion-mnist/raw/master/data/fashion/",
        ),
        ("train-images-idx3-ubyte.gz", 26421880, "3aede38d61863908ad78613f6a32ed271626dd12800ba2636569512369268a84"),
        ("train-labels-idx1-ubyte.gz", 29515, "a04f17134ac03560a47e3764e11b92fc97de4d1bfaf8ba1a3aa29af54cc90845"),
        ("t10k-images-idx3-ubyte.gz", 4422102, "346e55b948d973a97e58d2351dde16a484bd415d4595297633bb08f03db6a073"),
        ("t10k-labels-idx1-ubyte.gz", 5148, "67da17c76eaffca5446c3361aaab5c3cd6d1c2608764d35dfb1850b086bf8dd5"),
    ),
}
DEFAULT = ("mnist", "binarized_mnist", "omniglot")


def cache_dir(data_dir: str | os.PathLike[str] | None = None) -> Path:
    """The cache folder: the argument, else `IWAE_DATA_DIR`, else the operating system's cache folder."""
    given = data_dir or os.environ.get("IWAE_DATA_DIR")
    if given:
        return Path(given).expanduser()
    import pooch

    return Path(pooch.os_cache("iwae"))


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[BinaryIO]:
    """A new binary file that takes the place of `path` when the block ends well, and vanishes when it does not.

    It is written under a temporary name in the same folder, flushed to disk, and renamed.
    """
    temporary = path.with_name(f"{path.name}.{os.getpid()}-{secrets.token_hex(4)}.part")
    try:
        with open(temporary, "xb") as stream:
            yield stream
            stream.flush()
            os.fsync(stream.fileno())
        os.replace(temporary, path)
    except BaseException:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)
        raise


def defect(path: Path, file: RemoteFile) -> str | None:
    """What is wrong with the copy of `file` at `path`, both identities named; None if it is right."""
    if not path.is_file():
        return "missing"
    size = path.stat().st_size
    if file.size not in (None, size):
        return f"{size} bytes, expected {file.size}{_looks_like_html(path)}"
    digest = hashlib.sha256() if file.digest_name == "sha256" else hashlib.sha1(b"blob %d\0" % size)
    with open(path, "rb") as stream:
        while block := stream.read(1 << 20):
            digest.update(block)
    if digest.hexdigest() == file.digest:
        return None
    return f"{file.digest_name} {digest.hexdigest()}, expected {file.digest}{_looks_like_html(path)}"


def _looks_like_html(path: Path) -> str:
    with open(path, "rb") as stream:
        head = stream.read(256).lstrip().lower()
    return " (a web page, as a login or proxy page sends)" if head.startswith((b"<!doctype", b"<html")) else ""


class _Progress:
    """What `pooch.HTTPDownloader` tells about a transfer: shown as a bar on a terminal, and held against the size."""

    def __init__(self, file: RemoteFile) -> None:
        self._size, self._received, self._total, self._bar = file.size, 0, 0, None
        if sys.stderr.isatty():
            import progressbar

            self._bar = progressbar.DataTransferBar(
                max_value=file.size or progressbar.UnknownLength, prefix=f"{file.name} ", max_error=False
            ).start()

    @property
    def total(self) -> int:
        """Bytes that the server announced, 0 if it did not."""
        return self._total

    @total.setter
    def total(self, announced: int) -> None:
        if announced and self._size and announced != self._size:
            raise _Refused(f"another file or a web page: {announced} bytes offered, expected {self._size}")
        self._total = announced

    def update(self, chunk: int) -> None:
        self._received += chunk
        if self._size and self._received >= self._size + chunk:
            raise _Refused(f"more than the expected {self._size} bytes")
        if self._bar:
            self._bar.update(min(self._received, self._size or self._received))

    def reset(self) -> None:
        self._received = 0

    def close(self) -> None:
        if self._bar:
            self._bar.finish(dirty=True)
            self._bar = None


def _transfer(url: str, file: RemoteFile, path: Path, timeout: float) -> None:
    """One attempt: `file` from `url` to `path`, verified. Raises _Refused, an error of requests, or OSError."""
    import pooch

    with contextlib.closing(_Progress(file)) as progress, replacing(path) as stream:
        download = pooch.HTTPDownloader(
            progressbar=progress,
            chunk_size=1 << 16,
            timeout=timeout,
            headers={"Accept-Encoding": "identity"},  # a .gz must arrive as the bytes that the checksum names
        )
        download(url, stream, None)
        stream.flush()
        wrong = defect(Path(stream.name), file)
        if wrong:
            raise _Refused(wrong)


def _reason(error: Exception, timeout: float) -> str:
    """A failed attempt in one short line."""
    import requests

    if isinstance(error, _Refused):
        return str(error)
    if isinstance(error, requests.HTTPError) and error.response is not None:
        return f"HTTP status {error.response.status_code}"
    if isinstance(error, requests.Timeout) or "timed out" in str(error).lower():
        return f"no data for {timeout:g} s"
    innermost: BaseException = error
    while cause := getattr(innermost, "reason", None) or innermost.__cause__ or innermost.__context__:
        if not isinstance(cause, BaseException):
            break
        innermost = cause
    text = (getattr(innermost, "strerror", None) or str(innermost) or type(innermost).__name__).splitlines()[0]
    return f"proxy: {text} (see http_proxy, https_proxy)" if isinstance(error, requests.exceptions.ProxyError) else text


def _fetch_file(file: RemoteFile, path: Path, mirror: str | None, timeout: float) -> None:
    import requests

    sources = [f"{mirror.rstrip('/')}/{file.name}"] if mirror else []
    sources += file.urls
    reasons: dict[str, list[str]] = {url: [] for url in sources}
    for attempt in range(ROUNDS):
        if attempt:
            time.sleep(WAIT * 2 ** (attempt - 1))
        for url in sources:
            try:
                _transfer(url, file, path, timeout)
            except (_Refused, requests.RequestException) as error:
                reason = _reason(error, timeout)
                if reason not in reasons[url]:
                    print(f"  {url}: {reason}", file=sys.stderr)
                reasons[url].append(reason)
            else:
                print(f"{path}: fetched from {url}, verified", file=sys.stderr)
                return
    tried = [f"  {url}: {'; '.join(dict.fromkeys(why))} ({len(why)}x)" for url, why in reasons.items()]
    size = f"{file.size} bytes, " if file.size else ""
    raise DownloadError(
        "\n".join(
            [f"{path.parent.name}: {file.name} could not be fetched. Sources tried:"]
            + tried
            + [
                "Try again later, give another source (--mirror URL or IWAE_MIRROR=URL, asked at URL/<file name>), or",
                f"put the file there yourself: {path} ({size}{file.digest_name} {file.digest})",
            ]
        )
    )


def fetch(
    name: str,
    data_dir: str | os.PathLike[str] | None = None,
    *,
    mirror: str | None = None,
    timeout: float = 20.0,
) -> int:
    """Make the files of a dataset present and right in the cache.

    Files already there and right are not asked for again; damaged ones are replaced. Each round asks the mirror, then
    every upstream source, until one gives the right bytes; there are `ROUNDS` rounds.

    Args:
        name: A key of `FILES`.
        data_dir: The cache, see `cache_dir`.
        mirror: Each file is asked for at `mirror/<file name>` first. Default: `IWAE_MIRROR`.
        timeout: Seconds without a byte after which an attempt is given up.

    Returns:
        The number of files transferred.

    Raises:
        ValueError: The mirror is not an http or https address.
        DownloadError: No source gave the right bytes, or the cache cannot be written. The cache has no half file.
    """
    mirror = _checked_mirror(mirror)
    folder = cache_dir(data_dir) / name
    transferred = 0
    for file in FILES[name]:
        path = folder / file.name
        try:
            wrong = defect(path, file)
            if wrong is None:
                continue
            if wrong != "missing":
                print(f"{path}: {wrong}; fetching it again", file=sys.stderr)
            folder.mkdir(parents=True, exist_ok=True)
            _remove_stale(folder)
            _fetch_file(file, path, mirror, timeout)
        except OSError as error:
            raise DownloadError(
                f"{name}: {path}: {error.strerror or error}. Make room or access there, or choose "
                "another folder with --data-dir DIR or IWAE_DATA_DIR=DIR"
            ) from error
        transferred += 1
    return transferred


def _checked_mirror(mirror: str | None) -> str | None:
    mirror = mirror or os.environ.get("IWAE_MIRROR") or None
    if mirror and not mirror.lower().startswith(("http://", "https://")):
        raise ValueError(f"--mirror (IWAE_MIRROR): expected an address that starts with http(s)://, got {mirror!r}")
    return mirror


def _remove_stale(folder: Path) -> None:
    """Remove what killed processes left; a transfer in progress touches its file at least every `timeout`."""
    for left in folder.glob("*.part"):
        with contextlib.suppress(OSError):
            if time.time() - left.stat().st_mtime > STALE:
                left.unlink()


def _seconds(text: str) -> float:
    value = float(text)
    if not 0 < value < float("inf"):
        raise argparse.ArgumentTypeError(f"expected more than 0 seconds, got {text}")
    return value


def main(arguments: Sequence[str] | None = None) -> int:
    """The command `datasets_download`: fetch, parse, and tell what is cached.

    Returns:
        Exit status: 0, 1 if a dataset failed, 2 for wrong usage, 130 if interrupted.
    """
    parser = argparse.ArgumentParser(
        prog="datasets_download", description="Fetch datasets into the cache, verified; nothing is fetched twice."
    )
    parser.add_argument(
        "names", nargs="*", metavar="NAME", help=f"of {', '.join(FILES)} (default: {' '.join(DEFAULT)})"
    )
    parser.add_argument("--data-dir", metavar="DIR", help="the cache (default: IWAE_DATA_DIR, else the system's cache)")
    parser.add_argument(
        "--mirror", metavar="URL", help="ask at URL/<file name> first, then upstream (default: IWAE_MIRROR)"
    )
    parser.add_argument(
        "--timeout", metavar="SECONDS", type=_seconds, default=20.0, help="give up a silent server (default: 20)"
    )
    options = parser.parse_args(arguments)
    for name in options.names:
        if name not in FILES:
            parser.error(f"NAME: expected one of {', '.join(FILES)}, got {name!r}")
    try:
        _checked_mirror(options.mirror)
    except ValueError as error:
        parser.error(str(error))

    from iwae.data import loading

    failed = []
    for name in dict.fromkeys(options.names or DEFAULT):
        try:
            fetch(name, options.data_dir, mirror=options.mirror, timeout=options.timeout)
            loading.load_dataset(name, options.data_dir)  # parses what is new
        except (DownloadError, loading.DatasetError) as error:
            print(error, file=sys.stderr)
            failed.append(name)
        except KeyboardInterrupt:
            print("interrupted; what is complete is kept, the same command goes on from there", file=sys.stderr)
            return 130
    print(_table(options.data_dir))
    if failed:
        print(f"failed: {', '.join(failed)}", file=sys.stderr)
    return 1 if failed else 0


def _table(data_dir: str | None) -> str:
    """What is cached, a row a dataset."""
    from iwae.data import loading

    folder = cache_dir(data_dir)
    rows: list[tuple[str, ...]] = [
        ("dataset", "files", "bytes", "train", "valid", "test", "pixel mean (train, valid, test)")
    ]
    for name, files in FILES.items():
        paths = [folder / name / file.name for file in files]
        try:
            size = sum(path.stat().st_size for path in paths)
            data = loading.load_dataset(name, data_dir)
        except (OSError, loading.DatasetError):
            rows.append((name, "not cached", "", "", "", "", ""))
            continue
        splits = (data.train, data.valid, data.test)
        counts = [f"{len(x):,}" for x in splits]
        means = "  ".join(f"{x.mean(dtype='float64'):.6f}" for x in splits)
        rows.append((name, str(len(paths)), f"{size:,}", *counts, means))
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = []
    for row in rows:
        cells = [row[0].ljust(widths[0])] + [cell.rjust(w) for cell, w in zip(row[1:-1], widths[1:-1], strict=True)]
        lines.append("  ".join([*cells, row[-1]]).rstrip())
    return "\n".join([f"cache: {folder}", *lines])
