"""The fetcher against a local server that misbehaves, a bad network, a bad disk, and other fetchers at once."""

import contextlib
import errno
import functools
import gzip
import io
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest
from test_datasets import mnist_files, table, with_files

from iwae.data import download, loading, transfer
from iwae.data.catalogue import CATALOGUE, RemoteFile
from iwae.data.download import DownloadError

FAULTS = ("truncate", "corrupt", "503", "404", "reset", "stall", "html")
CONTENT = np.random.default_rng(0).bytes(300_000)
REPOSITORY = Path(__file__).resolve().parents[2]
fetch = functools.partial(download.fetch, wait=0)  # seconds between the rounds
main = functools.partial(download.main, wait=0)


class Server(ThreadingHTTPServer):
    """Answers any path that ends in a name of `contents`; the first `faulty` answers have `fault`."""

    daemon_threads = True
    block_on_close = False

    def __init__(self, contents, fault=None, faulty=10**9, pause=0.0):
        super().__init__(("127.0.0.1", 0), Handler)
        self.contents, self.fault, self.faulty, self.pause = contents, fault, faulty, pause
        self.paths = []
        self.over = threading.Event()
        self.url = f"http://127.0.0.1:{self.server_address[1]}"

    def handle_error(self, request, client_address):  # clients that go away are part of the tests
        pass


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self):
        server = self.server
        server.paths.append(self.path)
        fault = server.fault if len(server.paths) <= server.faulty else None
        body = server.contents.get(self.path.rsplit("/", 1)[-1])
        self.close_connection = True
        if fault == "reset":
            return
        if fault in ("503", "404") or body is None:
            return self.send_error(int(fault or 404))
        if fault == "html":
            body = b"<html><body>Please log in</body></html>\n"
        if fault == "corrupt":
            body = body[:100] + bytes([body[100] ^ 1]) + body[101:]
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if fault in ("truncate", "stall"):
            self.wfile.write(body[: len(body) // 2])
            self.wfile.flush()
            if fault == "stall":
                server.over.wait(30)
            return
        for start in range(0, len(body), 1 << 16):
            self.wfile.write(body[start : start + (1 << 16)])
            time.sleep(server.pause)

    def log_message(self, pattern, *arguments):
        pass


@pytest.fixture
def serve():
    servers = []

    def start(contents, *arguments, **keywords):
        server = Server(contents, *arguments, **keywords)
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
        servers.append(server)
        return server

    yield start
    for server in servers:
        server.over.set()
        server.shutdown()
        server.server_close()


@pytest.fixture(autouse=True)
def alone(monkeypatch):
    for name in ("IWAE_MIRROR", "IWAE_DATA_DIR", "http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)


def upstream(monkeypatch, *servers, contents=None, name="mnist"):
    with_files(monkeypatch, name, *table(contents or {"a.bin": CONTENT}, *(s.url for s in servers)))


def names(folder):
    return sorted(path.name for path in folder.rglob("*") if path.is_file())


CLOSED = "http://127.0.0.1:9"  # the discard port: nothing listens


# Sources and faults


def test_fetched_once(monkeypatch, tmp_path, serve):
    server = serve({"a.bin": CONTENT, "b.bin": b"b"})
    upstream(monkeypatch, server, contents={"a.bin": CONTENT, "b.bin": b"b"})
    assert fetch("mnist", tmp_path / "new" / "cache") == 2
    assert (tmp_path / "new" / "cache" / "mnist" / "a.bin").read_bytes() == CONTENT
    assert fetch("mnist", tmp_path / "new" / "cache") == 0
    assert server.paths == ["/a.bin", "/b.bin"]


@pytest.mark.parametrize("fault", FAULTS)
def test_faulty_at_first(monkeypatch, tmp_path, serve, fault):
    server = serve({"a.bin": CONTENT}, fault, faulty=3)
    upstream(monkeypatch, server)
    assert fetch("mnist", tmp_path, timeout=0.3 if fault == "stall" else 10) == 1
    assert (tmp_path / "mnist" / "a.bin").read_bytes() == CONTENT
    assert len(server.paths) == 4 and names(tmp_path) == ["a.bin"]


REASONS = {
    "truncate": r"IncompleteRead\(150000 bytes read, 150000 more expected\)",
    "corrupt": "sha256 [0-9a-f]{64}, expected [0-9a-f]{64}",
    "503": "HTTP status 503",
    "404": "HTTP status 404",
    "reset": "Remote end closed connection without response",
    "stall": "no data for 0.3 s",
    "html": "another file or a web page: 40 bytes offered, expected 300000",
}


@pytest.mark.parametrize("fault", FAULTS)
def test_faulty_always(monkeypatch, tmp_path, serve, fault):
    one, other = serve({"a.bin": CONTENT}, fault), serve({"a.bin": CONTENT}, fault)
    upstream(monkeypatch, other)
    start = time.perf_counter()
    with pytest.raises(DownloadError) as caught:
        fetch("mnist", tmp_path, mirror=one.url, timeout=0.3 if fault == "stall" else 10)
    assert time.perf_counter() - start < 10
    lines = str(caught.value).splitlines()
    assert lines[0].startswith("mnist: a.bin could not be fetched: try again later, give another source (--mirror URL ")
    assert f"put it there yourself: {tmp_path}/mnist/a.bin (300000 bytes, sha256 " in lines[0]
    assert re.fullmatch(rf"  {one.url}/a.bin: {REASONS[fault]} \(4x\)", lines[1])
    assert re.fullmatch(rf"  {other.url}/a.bin: {REASONS[fault]} \(4x\)", lines[2])
    assert len(lines) == 3
    assert names(tmp_path) == []


def test_a_web_page_without_a_length_is_called_one(monkeypatch, tmp_path, serve):
    page = b" <!DOCTYPE html><p>Please log in"
    server = serve({"chardata.mat": page})
    file = RemoteFile("chardata.mat", (f"{server.url}/chardata.mat",), "0" * 40)
    with_files(monkeypatch, "omniglot", file)
    with pytest.raises(DownloadError, match=r"git blob id [0-9a-f]{40}, expected 0{40} \(a web page"):
        fetch("omniglot", tmp_path)


def test_an_endless_answer_is_cut(monkeypatch, tmp_path, serve):
    def endless(handler):
        handler.send_response(200)
        handler.end_headers()
        handler.close_connection = True
        while True:
            handler.wfile.write(bytes(1 << 16))

    server = serve({})
    monkeypatch.setattr(Handler, "do_GET", endless)
    upstream(monkeypatch, server)
    with pytest.raises(DownloadError, match="more than the expected 300000 bytes"):
        fetch("mnist", tmp_path)
    assert names(tmp_path) == []


class Raw:
    """Sends the same bytes to everyone who asks, whatever they are, and then `more` for as long as someone listens."""

    def __init__(self, answer, more=b"", pause=0.0):
        self.socket = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self.socket.getsockname()[1]}"
        self.answer, self.more, self.pause = answer, more, pause
        self.asked = 0
        threading.Thread(target=self.serve, daemon=True).start()

    def serve(self):
        with contextlib.suppress(OSError):  # closed: the test is over
            while True:
                threading.Thread(target=self.speak, args=(self.socket.accept()[0],), daemon=True).start()

    def speak(self, connection):
        with contextlib.suppress(OSError), connection:
            connection.recv(1 << 16)
            self.asked += 1
            connection.sendall(self.answer)
            while self.more:
                connection.sendall(self.more)
                time.sleep(self.pause)
            connection.shutdown(socket.SHUT_WR)
            connection.recv(1)


@pytest.fixture
def raw():
    servers = []

    def start(*arguments):
        servers.append(Raw(*arguments))
        return servers[-1]

    yield start
    for server in servers:
        server.socket.close()


def answer(*headers, body=b"0123456789", status="200 OK"):
    return "\r\n".join([f"HTTP/1.1 {status}", *headers, "", ""]).encode("latin1") + body


WRONG_ANSWERS = {
    "length: empty": answer("Content-Length: "),
    "length: no number": answer("Content-Length: many"),
    "length: negative": answer("Content-Length: -5"),
    "length: another": answer("Content-Length: 999999999999"),
    "length: 5000 digits": answer("Content-Length: " + "9" * 5000),
    "length: superscript": answer("Content-Length: \xb2"),
    "length: two": answer("Content-Length: 10", "Content-Length: 300000"),
    "length: the right one, twice, of another body": answer("Content-Length: 300000", "Content-Length: 300000"),
    "chunk: negative": answer("Transfer-Encoding: chunked", body=b"-5\r\n0123456789\r\n0\r\n\r\n"),
    "chunk: no number": answer("Transfer-Encoding: chunked", body=b"many\r\n0123456789\r\n0\r\n\r\n"),
    "chunk: cut": answer("Transfer-Encoding: chunked", body=b"ff\r\n0123456789"),
    "redirect: half an IPv6 address": answer("Location: http://[::1/a.bin", status="302 Found"),
    "redirect: no port": answer("Location: http://127.0.0.1:many/a.bin", status="302 Found"),
    "redirect: no such port": answer("Location: http://127.0.0.1:99999/a.bin", status="302 Found"),
    "redirect: no host": answer("Location: http://", status="301 Moved"),
    "redirect: label too long": answer(f"Location: http://{'a' * 70}.invalid./", status="301 Moved"),
    "redirect: dots": answer("Location: http://.../a.bin", status="307 Temporary"),
    "redirect: a file": answer("Location: file:///etc/passwd", status="302 Found"),
    "redirect: to itself": answer("Location: /a.bin", "Content-Length: 10", status="302 Found"),
    "redirect: nowhere": answer(status="302 Found"),
    "encoding: gzip": answer("Content-Encoding: gzip", body=gzip.compress(CONTENT)),
    "encoding: no such": answer("Content-Encoding: x\xff"),
    "status: partial": answer(status="206 Partial Content"),
    "status: nothing there": answer(status="204 No Content", body=b""),
    "status: escape codes": b"\x1b[2J\x07hello\r\n\r\n",
    "status: none": b"hello\r\n\r\n",
    "status: empty": b"\r\n\r\n",
    "headers: no end": b"HTTP/1.1 200 OK\r\n" + b"a: b\r\n" * 300,
    "headers: long": b"HTTP/1.1 200 OK\r\na: " + b"b" * 100_000,
    "headers: nonsense": b"HTTP/1.1 200 OK\r\n\xff\x00:\r\n:\r\n\r\n0123456789",
}


@pytest.mark.parametrize("case", WRONG_ANSWERS)
def test_a_wrong_answer_is_one_line_and_the_next_source_is_asked(monkeypatch, tmp_path, serve, raw, capsys, case):
    wrong, good = raw(WRONG_ANSWERS[case]), serve({"a.bin": CONTENT})
    upstream(monkeypatch, wrong, good)
    assert fetch("mnist", tmp_path, timeout=5) == 1
    assert (tmp_path / "mnist" / "a.bin").read_bytes() == CONTENT
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 2 and re.fullmatch(rf"  {wrong.url}/a.bin: \S.{{0,300}}", lines[0])
    assert lines[0].isprintable()
    good.contents.clear()
    with pytest.raises(DownloadError, match=rf"\n  {wrong.url}/a.bin: .*\(4x\)\n"):
        fetch("mnist", tmp_path / "again", timeout=5)
    assert names(tmp_path / "again") == []


@pytest.mark.parametrize("headers", [(), ("Content-Length: ",), ("Content-Length: 300000", "Content-Length: 300000")])
def test_the_right_file_is_taken_whatever_its_announced_length(monkeypatch, tmp_path, raw, headers):
    upstream(monkeypatch, raw(answer(*headers, body=CONTENT)))
    assert fetch("mnist", tmp_path) == 1


def test_redirects_are_followed(monkeypatch, tmp_path, serve, raw):
    good = serve({"a.bin": CONTENT})
    upstream(monkeypatch, raw(answer(f"Location: {good.url}/there/a.bin", status="302 Found")))
    assert fetch("mnist", tmp_path) == 1
    assert good.paths == ["/there/a.bin"]


ENDLESS = {
    "body": (answer(body=b""), bytes(1 << 16)),
    "chunks": (answer("Transfer-Encoding: chunked", body=b""), b"10000\r\n" + bytes(1 << 16) + b"\r\n"),
    "negative chunk": (answer("Transfer-Encoding: chunked", body=b"-5\r\n"), bytes(1 << 16)),
    "body of a redirect": (answer("Location: http://[", status="302 Found", body=b""), bytes(1 << 16)),
    "gzip": (
        answer("Content-Encoding: gzip", "Location: http://[", status="302 Found", body=gzip.compress(b"")),
        gzip.compress(bytes(1 << 24)),
    ),
}


@pytest.mark.parametrize("case", ENDLESS)
def test_endless_answers_are_cut_where_no_size_is_published(monkeypatch, tmp_path, raw, case):
    server = raw(*ENDLESS[case])
    file = RemoteFile("chardata.mat", (f"{server.url}/chardata.mat",), "0" * 40, at_most=2_000_000)
    with_files(monkeypatch, "omniglot", file)
    resource = pytest.importorskip("resource")
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(
        DownloadError, match=r"more than the expected at most 2000000 bytes|Invalid IPv6|Failed to parse"
    ):
        fetch("omniglot", tmp_path)
    assert names(tmp_path) == [] and resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 100_000  # KiB


def test_every_file_has_a_bound():
    sizes = [file.size or file.at_most for entry in CATALOGUE.values() for file in entry.files]
    assert max(sizes) <= 80_000_000


def test_an_announced_size_above_the_bound_is_not_awaited(monkeypatch, tmp_path, raw):
    server = raw(answer("Content-Length: 64000001", body=b""), b"x", 10.0)
    with_files(monkeypatch, "omniglot", RemoteFile("chardata.mat", (f"{server.url}/chardata.mat",), "0" * 40))
    with pytest.raises(DownloadError, match="64000001 bytes offered, expected at most 64000000"):
        fetch("omniglot", tmp_path)


@pytest.mark.parametrize("start", [answer("Content-Length: 300000", body=b""), b"HTTP/1.1 200 OK\r\na: "])
def test_a_slow_drip_ends_and_is_not_asked_again(monkeypatch, tmp_path, serve, raw, start):
    drip, good = raw(start, b"x", 0.05), serve({"a.bin": CONTENT}, "503", 1)
    upstream(monkeypatch, drip, good)
    begin = time.perf_counter()
    assert fetch("mnist", tmp_path, transfer_timeout=0.5) == 1
    assert 0.5 <= time.perf_counter() - begin < 3 and drip.asked == 1 and len(good.paths) == 2
    upstream(monkeypatch, drip)
    with pytest.raises(DownloadError, match=r"not complete after 0.5 s \(1x\)"):
        fetch("mnist", tmp_path / "again", transfer_timeout=0.5)


def test_passwords_are_not_printed(monkeypatch, tmp_path, serve, raw, capsys):
    good = serve({"a.bin": CONTENT})
    upstream(monkeypatch, raw(b""))
    mirror = good.url.replace("://", "://user:secret@")
    assert fetch("mnist", tmp_path, mirror=mirror) == 1
    assert good.paths == ["/a.bin"]
    lost = [
        good.url.replace("://", "://user:secret@", 1) + "/none",
        "http://user:secret@[::1",
        "HTTP://user:s/ecret@x:y",
    ]
    lost.append("http://user:secret@" + raw(answer("Location: ftp://user:secret@x/", status="302 Found")).url[7:])
    for number, mirror in enumerate(lost):
        good.contents.clear()
        assert main(["mnist", "--data-dir", str(tmp_path / str(number)), "--mirror", mirror]) == 1
    output = "".join(capsys.readouterr())
    assert "secret" not in output and "s/ecret" not in output and "***@127.0.0.1" in output


def test_times_out_of_range():
    for name in ("timeout", "transfer_timeout"):
        for value in (0, -1.0, 1e10, float("nan")):
            with pytest.raises(ValueError, match=f"{name}: expected more than 0 and at most 604800 seconds, got"):
                fetch("mnist", **{name: value})


class Terminal(io.StringIO):
    """What a terminal of some width would show of what is written to it."""

    def __init__(self, columns):
        super().__init__()
        self.columns, self.rows, self.written = columns, [""], []

    def isatty(self):
        return True

    def write(self, text):
        self.written.append(text)
        column = len(self.rows[-1].rstrip("\0"))
        for character in text:
            if character == "\n":
                self.rows.append("")
                column = 0
            elif character == "\r":
                column = 0
            else:
                if column >= self.columns:
                    self.rows.append("")
                    column = 0
                row = self.rows[-1].ljust(column)
                self.rows[-1] = row[:column] + character + row[column + 1 :]
                column += 1
        return len(text)


@pytest.mark.parametrize("columns", [80, 20])
def test_the_line_on_a_terminal_ends_complete_and_does_not_wrap(monkeypatch, tmp_path, serve, columns):
    name = "train-images-idx3-ubyte.gz"
    upstream(monkeypatch, serve({name: CONTENT}, pause=0.12), contents={name: CONTENT})
    terminal = Terminal(columns)
    monkeypatch.setattr(sys, "stderr", terminal)
    monkeypatch.setenv("COLUMNS", str(columns))
    assert fetch("mnist", tmp_path) == 1
    assert any(" 43 %" in text or "train-ima" in text for text in terminal.written[:-4])
    assert terminal.rows[0].rstrip() == f"  {name}  100 %  0.3 of 0.3 MB"[: columns - 1].rstrip()
    assert terminal.rows[1].startswith(str(tmp_path)[: columns // 2])


def test_a_failing_transfer_leaves_one_line_on_a_terminal(monkeypatch, tmp_path, serve):
    server = serve({"a.bin": CONTENT}, "truncate")
    upstream(monkeypatch, server)
    terminal = Terminal(80)
    monkeypatch.setattr(sys, "stderr", terminal)
    monkeypatch.setattr(transfer, "DRAWN_EVERY", 0.0)
    with pytest.raises(DownloadError):
        fetch("mnist", tmp_path)
    assert any("a.bin   " in text for text in terminal.written)
    text = "".join(row.ljust(80) for row in terminal.rows).strip()
    assert text == f"{server.url}/a.bin: IncompleteRead(150000 bytes read, 150000 more expected)"


def test_mirror_first_then_upstream_in_order(monkeypatch, tmp_path, serve):
    mirror, first, second = serve({}), serve({"a.bin": CONTENT}, "503"), serve({"a.bin": CONTENT})
    upstream(monkeypatch, first, second)
    monkeypatch.setenv("IWAE_MIRROR", f"{mirror.url}/sub/")
    assert fetch("mnist", tmp_path) == 1
    assert (mirror.paths, first.paths, second.paths) == (["/sub/a.bin"], ["/a.bin"], ["/a.bin"])
    good = serve({"a.bin": CONTENT})
    assert fetch("mnist", tmp_path / "other", mirror=good.url) == 1
    assert len(good.paths) == 1 and len(mirror.paths) == len(second.paths) == 1


def test_no_network_and_wrong_proxy(monkeypatch, tmp_path, serve):
    server = serve({"a.bin": CONTENT})
    upstream(monkeypatch, server)
    with pytest.raises(DownloadError, match=r"proxy: Connection refused \(see http_proxy, https_proxy\) \(4x\)"):
        monkeypatch.setenv("http_proxy", CLOSED)
        fetch("mnist", tmp_path)
    monkeypatch.delenv("http_proxy")
    server.contents.clear()
    with pytest.raises(DownloadError, match=f"{CLOSED}/a.bin: Connection refused"):
        fetch("mnist", tmp_path, mirror=CLOSED)


def test_mirror_must_be_an_address(tmp_path):
    with pytest.raises(ValueError, match=r"--mirror \(IWAE_MIRROR\): expected .*http\(s\)://, got 'localhost:80'"):
        fetch("mnist", tmp_path, mirror="localhost:80")


# Identities


def test_git_blob_id(monkeypatch, tmp_path, serve):
    """As `git hash-object` gives it for a file with the line `hello`."""
    server = serve({"chardata.mat": b"hello\n"})
    identity = "ce013625030ba8dba906f756967f9e9ca394464a"
    file = RemoteFile("chardata.mat", (f"{server.url}/chardata.mat",), identity)
    with_files(monkeypatch, "omniglot", file)
    assert fetch("omniglot", tmp_path) == 1
    server.contents["chardata.mat"] = b"hello?\n"
    (tmp_path / "omniglot" / "chardata.mat").unlink()
    with pytest.raises(DownloadError, match=rf"git blob id (?!{identity})[0-9a-f]{{40}}, expected {identity} \(4x\)"):
        fetch("omniglot", tmp_path)
    assert names(tmp_path) == []


def test_another_omniglot_file_is_refused(monkeypatch, tmp_path, serve):
    """The true identity of chardata.mat, and any other content."""
    (file,) = CATALOGUE["omniglot"].files
    server = serve({"chardata.mat": CONTENT})
    with_files(monkeypatch, "omniglot", RemoteFile(file.name, (), file.digest))
    with pytest.raises(DownloadError, match="expected 016a3536ffe5e1d38e42563a18d7a78bfaf643ec"):
        fetch("omniglot", tmp_path, mirror=server.url)
    (tmp_path / "omniglot" / "chardata.mat").write_bytes(CONTENT)  # nor when placed by hand
    with pytest.raises(loading.DatasetError, match="chardata.mat is git blob id .* expected 016a3536"):
        loading.load_dataset("omniglot", tmp_path)


@pytest.mark.parametrize("damage", [CONTENT[:-1], CONTENT[:-1] + b"?", b""])
def test_damaged_cache_is_noticed_and_mended(monkeypatch, tmp_path, serve, damage, capsys):
    server = serve({"a.bin": CONTENT})
    upstream(monkeypatch, server)
    fetch("mnist", tmp_path)
    path = tmp_path / "mnist" / "a.bin"
    path.write_bytes(damage)
    assert fetch("mnist", tmp_path) == 1
    assert path.read_bytes() == CONTENT
    assert "fetching it again" in capsys.readouterr().err


def test_a_file_placed_by_hand_is_used(monkeypatch, tmp_path):
    with_files(monkeypatch, "mnist", *table({"a.bin": CONTENT}, CLOSED))
    (tmp_path / "mnist").mkdir()
    (tmp_path / "mnist" / "a.bin").write_bytes(CONTENT)
    assert fetch("mnist", tmp_path) == 0


def test_the_table_of_sources_is_well_formed():
    for name, files in ((name, entry.files) for name, entry in CATALOGUE.items()):
        assert len({file.name for file in files}) == len(files)
        for file in files:
            assert len(file.digest) == (40 if name == "omniglot" else 64) and int(file.digest, 16)
            assert file.urls and all(url.endswith(f"/{file.name}") for url in file.urls)
            assert (file.size is None) == (name == "omniglot")


# The disk, other processes


def test_two_fetchers_at_once(monkeypatch, tmp_path, serve):
    server = serve({"a.bin": CONTENT}, pause=0.05)
    upstream(monkeypatch, server)
    counts = []
    threads = [threading.Thread(target=lambda: counts.append(fetch("mnist", tmp_path))) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    assert counts == [1, 1] and len(server.paths) == 2
    assert (tmp_path / "mnist" / "a.bin").read_bytes() == CONTENT and names(tmp_path) == ["a.bin"]


def in_a_process(code, *arguments, **keywords):
    """A Python process that has this repository's package, whatever is installed."""
    return subprocess.Popen(
        [sys.executable, "-c", code, *map(str, arguments)],
        cwd=REPOSITORY,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        **keywords,
    )


# A shell starts background jobs with Ctrl-C ignored, and what they start inherits that: hence the handler.
FETCH = """
import signal, sys
signal.signal(signal.SIGINT, signal.default_int_handler)
sys.path.insert(0, ".")
import dataclasses
from iwae.data import download
from iwae.data.catalogue import CATALOGUE, RemoteFile
name, url, size, digest, cache = sys.argv[1:6]
files = (RemoteFile(name, (url,), digest, int(size)),)
CATALOGUE["mnist"] = dataclasses.replace(CATALOGUE["mnist"], files=files)
if len(sys.argv) > 6:
    import resource
    resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[6]), int(sys.argv[6])))
sys.exit(download.main(["mnist", "--data-dir", cache]))
"""


def test_killed_in_the_middle(monkeypatch, tmp_path, serve):
    server = serve({"a.bin": CONTENT}, "stall", faulty=1)
    upstream(monkeypatch, server)
    (file,) = CATALOGUE["mnist"].files
    process = in_a_process(FETCH, file.name, file.urls[0], file.size, file.digest, tmp_path)
    deadline = time.monotonic() + 20
    while not any(path.stat().st_size for path in tmp_path.rglob("*.part")) and time.monotonic() < deadline:
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    (left,) = names(tmp_path)
    assert left.startswith(".a.bin.") and left.endswith(".part")

    assert fetch("mnist", tmp_path) == 1  # a recent one may be another process at work: it stays
    assert names(tmp_path) == [left, "a.bin"]
    old = time.time() - 2 * download.STALE
    os.utime(tmp_path / "mnist" / left, (old, old))
    (tmp_path / "mnist" / "a.bin").unlink()
    assert fetch("mnist", tmp_path) == 1
    assert names(tmp_path) == ["a.bin"] and (tmp_path / "mnist" / "a.bin").read_bytes() == CONTENT


def test_interrupted(monkeypatch, tmp_path, serve):
    server = serve({"a.bin": CONTENT}, "stall")
    upstream(monkeypatch, server)
    (file,) = CATALOGUE["mnist"].files
    process = in_a_process(FETCH, file.name, file.urls[0], file.size, file.digest, tmp_path)
    deadline = time.monotonic() + 20
    while not any(path.stat().st_size for path in tmp_path.rglob("*.part")) and time.monotonic() < deadline:
        time.sleep(0.02)
    process.send_signal(signal.SIGINT)
    assert "interrupted" in process.communicate(timeout=20)[1]
    assert process.returncode == 130 and names(tmp_path) == []


def test_a_file_that_cannot_be_written_whole(monkeypatch, tmp_path, serve):
    pytest.importorskip("resource")
    server = serve({"a.bin": CONTENT})
    upstream(monkeypatch, server)
    (file,) = CATALOGUE["mnist"].files
    process = in_a_process(FETCH, file.name, file.urls[0], file.size, file.digest, tmp_path, 100_000)
    error = process.communicate(timeout=20)[1]
    assert process.returncode == 1
    assert f"mnist: {tmp_path}/mnist/a.bin: File too large. Make room or access there, or choose another" in error
    assert len(server.paths) == 1 and names(tmp_path) == []  # asking again would not help


def test_read_only_cache(monkeypatch, tmp_path, serve):
    contents, _ = mnist_files()
    upstream(monkeypatch, serve(contents), contents=contents)
    fetch("mnist", tmp_path)

    def refuse(*arguments, **keywords):
        raise OSError(errno.EROFS, "Read-only file system")

    monkeypatch.setattr(transfer, "replacing", refuse)
    monkeypatch.setattr(loading, "replacing", refuse)
    monkeypatch.setattr(Path, "mkdir", refuse)
    monkeypatch.setattr(Path, "unlink", refuse)
    assert main(["mnist", "--data-dir", str(tmp_path)]) == 0  # complete, but for the parsed arrays
    os.remove(tmp_path / "mnist" / "t10k-labels-idx1-ubyte.gz")
    with pytest.raises(DownloadError, match=r"mnist: .*t10k-labels-idx1-ubyte.gz: Read-only file system. .*--data-dir"):
        fetch("mnist", tmp_path)


def test_cache_below_a_file(monkeypatch, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(DownloadError, match=f"{tmp_path}/file/mnist/train-images-idx3-ubyte.gz: Not a directory"):
        fetch("mnist", tmp_path / "file")


# The command


def test_command(monkeypatch, tmp_path, serve, capsys):
    contents, (x, _, x_test, _) = mnist_files()
    server = serve(contents)
    upstream(monkeypatch, server, contents=contents)
    with_files(monkeypatch, "omniglot", *table({"chardata.mat": b"?"}, server.url))
    # The failed one comes first: the command goes on.
    assert main(["omniglot", "mnist", "--data-dir", str(tmp_path), "--mirror", server.url, "--timeout", "5"]) == 1
    output = capsys.readouterr()
    assert "omniglot: chardata.mat could not be fetched" in output.err
    rows = {line.split()[0]: line.split() for line in output.out.splitlines()}
    size = sum(map(len, contents.values()))
    means = [f"{part.mean() / 255:.6f}" for part in (x[:-400], x[-400:], x_test)]
    assert rows["mnist"] == ["mnist", "4", f"{size:,}", "5", "400", "7", *means]
    assert rows["omniglot"] == ["omniglot", "not", "cached"]
    asked = len(server.paths)
    assert main(["mnist", "--data-dir", str(tmp_path)]) == 0
    assert len(server.paths) == asked  # no transfer


def test_a_failing_command_prints_a_line_for_each_source_and_one_what_to_do(monkeypatch, tmp_path, serve, capsys):
    """Of sources that fail in several ways, one after the other, too; nothing is there that a table could show."""
    mirror, first, second = serve({"a.bin": CONTENT}, "503", 1), serve({}), serve({"a.bin": CONTENT}, "html")
    mirror.contents.clear()  # after the 503
    upstream(monkeypatch, first, second)
    assert main(["mnist", "--data-dir", str(tmp_path), "--mirror", mirror.url]) == 1
    out, err = capsys.readouterr()
    starts = [f"  {server.url}/a.bin: " for server in (mirror, first, second)]
    starts.append("mnist: a.bin could not be fetched: try again later, ")
    assert all(map(str.startswith, err.splitlines(), starts)) and len(err.splitlines()) == 4 and not out


def test_default_names(monkeypatch, tmp_path):
    asked = []
    monkeypatch.setattr(download, "fetch", lambda name, *a, **k: asked.append(name))
    assert main(["--data-dir", str(tmp_path)]) == 1  # nothing there to load
    assert asked == ["mnist", "binarized_mnist", "omniglot"]


@pytest.mark.parametrize(
    "arguments, message",
    [
        (["mnits"], "NAME: expected one of mnist, binarized_mnist, fashion_mnist, .*omniglot.*, got 'mnits'"),
        (["mnist", "digits"], "NAME: expected one of .*, got 'digits'"),
        (["--mirror", "ftp://x"], "--mirror .*: expected .*, got 'ftp://x'"),
        (["--timeout", "0"], "--timeout: expected more than 0 and at most 604800 seconds, got 0"),
        (["--timeout", "1e10"], "--timeout: expected more than 0 and at most 604800 seconds, got 1e10"),
        (["--transfer-timeout", "nan"], "--transfer-timeout: expected more than 0 and at most .* seconds, got nan"),
        (["--data-dir", "~no-such-user/x"], "~no-such-user/x: expected the home folder of a user, found none"),
        (["--mirror", "user:secret@host"], r"--mirror .*: expected .*, got '\*\*\*@host'"),
        (["--timeout", "soon"], "--timeout: .*'soon'"),
        (["--data"], "--data-dir: expected one argument"),
    ],
)
def test_wrong_usage(arguments, message, capsys):
    with pytest.raises(SystemExit) as caught:
        main(arguments)
    assert caught.value.code == 2
    assert re.search(message, capsys.readouterr().err.splitlines()[-1])


def test_the_script_starts_light():
    """Neither TensorFlow nor what only a transfer needs is imported for `--help`; nor TensorFlow for loading."""
    code = """
import runpy, sys
sys.argv = ["datasets_download.py", "--help"]
try:
    runpy.run_path("datasets_download.py", run_name="__main__")
except SystemExit as end:
    assert end.code == 0
print([m for m in ("numpy", "requests", "pooch", "tensorflow", "keras") if m in sys.modules])
import iwae.data.loading
iwae.data.loading.load_dataset("camel")
print([m for m in ("scipy", "sklearn", "requests", "pooch", "tensorflow", "keras") if m in sys.modules])
"""
    output, error = in_a_process(f"import sys; sys.path.insert(0, '.')\n{code}").communicate(timeout=60)
    assert output.splitlines()[-2:] == ["[]", "[]"], error
