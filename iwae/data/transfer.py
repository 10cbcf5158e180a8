"""One attempt to fetch a file over http(s), within limits of size and time."""

from __future__ import annotations

import queue
import re
import shutil
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urljoin

import requests

from iwae.data.cache import defect
from iwae.data.catalogue import RemoteFile
from iwae.files import replacing

BLOCK = 1 << 16  # bytes read at once, at most
REDIRECTS = 5
DRAWN_EVERY = 0.1  # seconds


class Refused(Exception):
    """No answer, or one that is not the file; the message is one line. `final`: asking there again would be worse."""

    def __init__(self, message: str, final: bool = False) -> None:
        super().__init__(message)
        self.final = final


def transfer(url: str, file: RemoteFile, path: Path, timeout: float, transfer_timeout: float) -> None:
    """Fetch `file` from `url` to `path`, verified.

    Args:
        timeout: Seconds without a byte after which the attempt is given up.
        transfer_timeout: Seconds after which it is given up whatever comes.

    Raises:
        Refused: Whatever is wrong with the address, the network or the answer.
        OSError: The file cannot be written. Nothing is left of it.
    """
    with replacing(path) as stream, _Line(file) as line:
        for block in _in_time(_blocks(url, file, timeout), timeout, transfer_timeout):
            stream.write(block)
            line.draw(len(block))
        stream.flush()
        wrong = defect(Path(stream.name), file)
        if wrong:
            raise Refused(wrong)
        line.draw(complete=True)


def _in_time(blocks: Iterator[bytes], timeout: float, transfer_timeout: float) -> Iterator[bytes]:
    """`blocks`, read by a thread: its reads may block for longer than they should, where a byte comes now and then."""
    read: queue.SimpleQueue[bytes | Refused] = queue.SimpleQueue()
    over = threading.Event()

    def read_all() -> None:
        try:
            for block in blocks:
                if over.is_set():
                    return
                read.put(block)
            read.put(b"")
        except Exception as error:  # whatever an answer makes its readers raise, it is no file
            read.put(Refused(_reason(error, timeout)))

    threading.Thread(target=read_all, daemon=True).start()
    deadline = time.monotonic() + transfer_timeout
    try:
        while block := read.get(timeout=max(deadline - time.monotonic(), 0)):
            if isinstance(block, Refused):
                raise block
            yield block
    except queue.Empty:
        raise Refused(f"not complete after {transfer_timeout:g} s", final=True) from None
    finally:
        over.set()


class _NotFollowing(requests.Session):
    """One that does not follow redirects by itself: it would first read the body of the redirect, however long."""

    def get_redirect_target(self, resp: requests.Response) -> None:
        return None


def _blocks(url: str, file: RemoteFile, timeout: float) -> Iterator[bytes]:
    """The bytes of the answer as they come, never more than the file may have, never decoded."""
    limit = file.size or file.at_most
    with _NotFollowing() as http:
        for _ in range(REDIRECTS):
            answer = http.get(url, stream=True, timeout=timeout, headers={"Accept-Encoding": "identity"})
            if not (300 <= answer.status_code < 400 and "Location" in answer.headers):
                break
            answer.close()
            url = urljoin(url, answer.headers["Location"])
        with answer:
            if answer.status_code != 200:
                raise Refused(f"HTTP status {answer.status_code}")
            encoding = answer.headers.get("Content-Encoding", "").strip().lower()
            # Some servers call a .gz a file in gzip encoding; they send it as it is.
            if encoding not in ("", "identity") and not (encoding.endswith("gzip") and file.name.endswith(".gz")):
                raise Refused(f"an answer in the encoding {encoding[:40]!r}, expected the file as it is")
            announced = answer.headers.get("Content-Length", "")
            if announced.isdecimal() and file.size and int(announced) != file.size:
                raise Refused(f"another file or a web page: {announced[:40]} bytes offered, expected {file.size}")
            if announced.isdecimal() and int(announced) > limit:
                raise Refused(f"{announced[:40]} bytes offered, expected at most {limit}")
            received = 0
            while block := answer.raw.read1(BLOCK, decode_content=False):
                received += len(block)
                if received > limit:
                    raise Refused(f"more than the expected {'' if file.size else 'at most '}{limit} bytes")
                yield block


def _reason(error: Exception, timeout: float) -> str:
    """A failed attempt in one short line."""
    if isinstance(error, Refused):
        return str(error)
    if isinstance(error, requests.Timeout) or "timed out" in str(error).lower():
        return f"no data for {timeout:g} s"
    innermost: BaseException = error
    while cause := getattr(innermost, "reason", None) or innermost.__cause__ or innermost.__context__:
        if not isinstance(cause, BaseException):
            break
        innermost = cause
    said = " ".join(str(getattr(innermost, "strerror", None) or innermost).split())
    said = "".join(character if character.isprintable() else "?" for character in said)  # some of it is the server's
    text = without_password(said)[:200] or type(innermost).__name__
    return f"proxy: {text} (see http_proxy, https_proxy)" if isinstance(error, requests.exceptions.ProxyError) else text


def without_password(text: str) -> str:
    """The text with what stands before the @ of an address (user and password) blotted out."""
    return re.sub(r"(?<=//)\S*@|^[^\s/]*@", "***@", text)


class _Line:
    """On a terminal, one line that says how much has come: it ends at 100 %, or is wiped out if the file is refused."""

    def __init__(self, file: RemoteFile) -> None:
        self._file, self._received, self._drawn, self._width = file, 0, 0.0, 0

    def draw(self, more: int = 0, complete: bool = False) -> None:
        self._received += more
        if not sys.stderr.isatty() or not (complete or time.monotonic() - self._drawn >= DRAWN_EVERY):
            return
        self._drawn = time.monotonic()
        total = self._received if complete else self._file.size
        share = f"{100 * self._received // total:3} %  " if total else ""
        of = f" of {total / 1e6:.1f}" if total else ""
        text = f"  {self._file.name}  {share}{self._received / 1e6:.1f}{of} MB"
        self._put(text, "\n" if complete else "")

    def _put(self, text: str, end: str) -> None:
        text = text[: shutil.get_terminal_size().columns - 1]  # a full line would wrap
        print(f"\r{text.ljust(self._width)}", end=end, file=sys.stderr, flush=True)
        self._width = 0 if end else len(text)

    def __enter__(self) -> _Line:
        return self

    def __exit__(self, *_: object) -> None:
        if self._width:
            self._put("", "\r")
