"""The fetcher against a local server that misbehaves, a bad network, a bad disk, and other fetchers at once."""

import errno
import os
import re
import signal
import subprocess
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest
from test_datasets import mnist_files, table

from iwae.data import download, loading
from iwae.data.download import DownloadError, fetch, main

FAULTS = ("truncate", "corrupt", "503", "404", "reset", "stall", "html")
CONTENT = np.random.default_rng(0).bytes(300_000)
REPOSITORY = Path(__file__).resolve().parent.parent


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
def quick_and_alone(monkeypatch):
    monkeypatch.setattr(download, "WAIT", 0.0)
    for name in ("IWAE_MIRROR", "IWAE_DATA_DIR", "http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)


def upstream(monkeypatch, *servers, contents=None, name="mnist"):
    monkeypatch.setitem(download.FILES, name, table(contents or {"a.bin": CONTENT}, *(s.url for s in servers)))


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
    assert lines[0] == "mnist: a.bin could not be fetched. Sources tried:"
    assert re.fullmatch(rf"  {one.url}/a.bin: {REASONS[fault]} \(4x\)", lines[1])
    assert re.fullmatch(rf"  {other.url}/a.bin: {REASONS[fault]} \(4x\)", lines[2])
    assert lines[4].startswith(f"put the file there yourself: {tmp_path}/mnist/a.bin (300000 bytes, sha256 ")
    assert names(tmp_path) == []


def test_a_web_page_without_a_length_is_called_one(monkeypatch, tmp_path, serve):
    page = b" <!DOCTYPE html><p>Please log in"
    server = serve({"chardata.mat": page})
    file = download.RemoteFile("chardata.mat", (f"{server.url}/chardata.mat",), "0" * 40)
    monkeypatch.setitem(download.FILES, "omniglot", (file,))
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
    file = download.RemoteFile("chardata.mat", (f"{server.url}/chardata.mat",), identity)
    monkeypatch.setitem(download.FILES, "omniglot", (file,))
    assert fetch("omniglot", tmp_path) == 1
    server.contents["chardata.mat"] = b"hello?\n"
    (tmp_path / "omniglot" / "chardata.mat").unlink()
    with pytest.raises(DownloadError, match=rf"git blob id (?!{identity})[0-9a-f]{{40}}, expected {identity} \(4x\)"):
        fetch("omniglot", tmp_path)
    assert names(tmp_path) == []


def test_another_omniglot_file_is_refused(monkeypatch, tmp_path, serve):
    """The true identity of chardata.mat, and any other content."""
    (file,) = download.FILES["omniglot"]
    server = serve({"chardata.mat": CONTENT})
    monkeypatch.setitem(download.FILES, "omniglot", (download.RemoteFile(file.name, (), file.digest),))
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
    monkeypatch.setitem(download.FILES, "mnist", table({"a.bin": CONTENT}, CLOSED))
    (tmp_path / "mnist").mkdir()
    (tmp_path / "mnist" / "a.bin").write_bytes(CONTENT)
    assert fetch("mnist", tmp_path) == 0


def test_the_table_of_sources_is_well_formed():
    for name, files in download.FILES.items():
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
from iwae.data import download
name, url, size, digest, cache = sys.argv[1:6]
download.FILES["mnist"] = (download.RemoteFile(name, (url,), digest, int(size)),)
if len(sys.argv) > 6:
    import resource
    resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[6]), int(sys.argv[6])))
sys.exit(download.main(["mnist", "--data-dir", cache]))
"""


def test_killed_in_the_middle(monkeypatch, tmp_path, serve):
    server = serve({"a.bin": CONTENT}, "stall", faulty=1)
    upstream(monkeypatch, server)
    (file,) = download.FILES["mnist"]
    process = in_a_process(FETCH, file.name, file.urls[0], file.size, file.digest, tmp_path)
    deadline = time.monotonic() + 20
    while not any(path.stat().st_size for path in tmp_path.rglob("*.part")) and time.monotonic() < deadline:
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    (left,) = names(tmp_path)
    assert left.startswith("a.bin.") and left.endswith(".part")

    assert fetch("mnist", tmp_path) == 1  # a recent one may be another process at work: it stays
    assert names(tmp_path) == ["a.bin", left]
    old = time.time() - 2 * download.STALE
    os.utime(tmp_path / "mnist" / left, (old, old))
    (tmp_path / "mnist" / "a.bin").unlink()
    assert fetch("mnist", tmp_path) == 1
    assert names(tmp_path) == ["a.bin"] and (tmp_path / "mnist" / "a.bin").read_bytes() == CONTENT


def test_interrupted(monkeypatch, tmp_path, serve):
    server = serve({"a.bin": CONTENT}, "stall")
    upstream(monkeypatch, server)
    (file,) = download.FILES["mnist"]
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
    (file,) = download.FILES["mnist"]
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

    monkeypatch.setattr(download, "replacing", refuse)
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
    monkeypatch.setitem(download.FILES, "omniglot", table({"chardata.mat": b"?"}, server.url))
    # The failed one comes first: the command goes on.
    assert main(["omniglot", "mnist", "--data-dir", str(tmp_path), "--mirror", server.url, "--timeout", "5"]) == 1
    output = capsys.readouterr()
    assert "omniglot: chardata.mat could not be fetched" in output.err and "failed: omniglot" in output.err
    rows = {line.split()[0]: line.split() for line in output.out.splitlines()}
    size = sum(map(len, contents.values()))
    means = [f"{part.mean() / 255:.6f}" for part in (x[:-400], x[-400:], x_test)]
    assert rows["mnist"] == ["mnist", "4", f"{size:,}", "5", "400", "7", *means]
    assert rows["omniglot"] == ["omniglot", "not", "cached"]
    asked = len(server.paths)
    assert main(["mnist", "--data-dir", str(tmp_path)]) == 0
    assert len(server.paths) == asked  # no transfer


def test_default_names(monkeypatch, tmp_path):
    asked = []
    monkeypatch.setattr(download, "fetch", lambda name, *a, **k: asked.append(name))
    assert main(["--data-dir", str(tmp_path)]) == 1  # nothing there to load
    assert asked == ["mnist", "binarized_mnist", "omniglot"]


@pytest.mark.parametrize(
    "arguments, message",
    [
        (["mnits"], "NAME: expected one of mnist, binarized_mnist, omniglot, fashion_mnist, got 'mnits'"),
        (["mnist", "digits"], "NAME: expected one of .*, got 'digits'"),
        (["--mirror", "ftp://x"], "--mirror .*: expected .*, got 'ftp://x'"),
        (["--timeout", "0"], "--timeout: expected more than 0 seconds, got 0"),
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
iwae.datasets.load_dataset("camel")
print([m for m in ("scipy", "sklearn", "requests", "pooch", "tensorflow", "keras") if m in sys.modules])
"""
    output, error = in_a_process(f"import sys; sys.path.insert(0, '.')\n{code}").communicate(timeout=60)
    assert output.splitlines()[-2:] == ["[]", "[]"], error
