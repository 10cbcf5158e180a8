"""Makes each operation on files of a short run fail once, then gives the same command again: the numbers must be equal.

    python tests/programs/faults.py [--every 1] [--first 0] [--last 89] [--deaths 7]

An operation is an opening for writing, a write (half of it is done), a flush to the disk (`fsync`), a rename, a removal
or a new folder. Each is made to fail with ENOSPC, EIO and EACCES, and to be the last that the process does: from there
on nothing reaches the disk. For every `--deaths`-th a process of its own truly ends there. A failure must be told in
one line; the command after it must end well and leave nothing behind, with the log but for its times, the evaluation
and each array of the weights equal to those of a run in one go. Ten operations at a time have a process, for TensorFlow
keeps what it compiled. The exit status is 1 if anything differs.
"""

import argparse
import builtins
import contextlib
import errno
import itertools
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from hostile import TINY, call  # noqa: E402  # beside this file
from kill_anywhere import h5_arrays, same  # noqa: E402

from iwae import config  # noqa: E402
from iwae.runs import log  # noqa: E402

PART = 10  # operations of a process
ENDS = ("ENOSPC", "EIO", "EACCES", "death")
TIMES = ("seconds", "images_per_second")


class Death(BaseException):
    """The process would be gone."""


class Faults:
    """Counts the operations below a folder, and lets one of them end as `end` says; "exit" ends this process."""

    def __init__(self, folder: Path, at: int | None = None, end: str = ""):
        self.folder, self.at, self.end = str(folder), at, end
        self.seen: list[str] = []
        self.dead = False

    def point(self, what: str, path: Any) -> bool:
        """Counts an operation; whether it is the one that fails."""
        if not isinstance(path, str | os.PathLike) or not os.fspath(path).startswith(self.folder):
            return False
        if self.dead:
            raise Death
        self.seen.append(f"{what} {os.path.relpath(path, self.folder)}")
        return len(self.seen) - 1 == self.at

    def fail(self, path: Any) -> None:
        if self.end == "exit":
            os._exit(9)
        if self.end == "death":
            self.dead = True
            raise Death
        number = getattr(errno, self.end)
        raise OSError(number, os.strerror(number), os.fspath(path))

    def operation(self, what: str, path: Any) -> None:
        if self.point(what, path):
            self.fail(path)


class Stream:
    """A file opened for writing, whose writes are counted."""

    def __init__(self, stream: Any, path: Any, faults: Faults):
        self._stream, self._path, self._faults = stream, path, faults

    def write(self, content: Any) -> int:
        if self._faults.point("write", self._path):
            self._stream.write(content[: len(content) // 2])
            self._stream.flush()
            self._faults.fail(self._path)
        return self._stream.write(content)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def __enter__(self) -> "Stream":
        return self

    def __exit__(self, *_: object) -> None:
        self._stream.close()


ACTIVE: list[Faults] = []
EVENTS = {"os.mkdir": "mkdir", "os.rename": "rename", "os.remove": "unlink", "os.rmdir": "rmdir"}


def _heard(event: str, arguments: tuple[Any, ...]) -> None:
    if ACTIVE and event in EVENTS:
        ACTIVE[-1].operation(EVENTS[event], arguments[0])
    elif ACTIVE and event == "open" and isinstance(arguments[2], int) and arguments[2] & (os.O_WRONLY | os.O_RDWR):
        ACTIVE[-1].operation("open", arguments[0])


@contextlib.contextmanager
def failing(faults: Faults) -> Iterator[None]:
    """Has `faults` see every operation of Python's in this process."""
    fsync, plain_open = os.fsync, builtins.open

    def counted_fsync(descriptor: int) -> None:
        faults.operation("fsync", os.readlink(f"/proc/self/fd/{descriptor}"))
        fsync(descriptor)

    def counted_open(file: Any, mode: str = "r", *rest: Any, **options: Any) -> Any:
        stream = plain_open(file, mode, *rest, **options)
        inside = isinstance(file, str | os.PathLike) and os.fspath(file).startswith(faults.folder)
        return Stream(stream, file, faults) if inside and set(mode) & set("wax+") else stream

    ACTIVE.append(faults)
    os.fsync, builtins.open = counted_fsync, counted_open  # type: ignore[assignment]
    try:
        yield
    finally:
        os.fsync, builtins.open = fsync, plain_open
        ACTIVE.pop()


def run(results: Path, faults: Faults | None = None) -> tuple[Any, str]:
    """The run, as the command line does it: its exit status, or a traceback, and what it printed."""
    with failing(faults) if faults else contextlib.nullcontext():
        return call("experiments.py", [], config.replace(TINY, {"results_dir": str(results)}))


def numbers(folder: Path) -> tuple[Any, Any, dict[str, Any]]:
    """The log without its times, the evaluation without the checksum of the weights' file, and the weights."""
    rows = [{name: value for name, value in row.items() if name not in TIMES} for row in log.read(folder / "log.csv")]
    evaluation = json.loads((folder / "evaluation.json").read_text())
    evaluation["test"].pop("weights_sha256")  # in that file Keras counts the layers of a process

    arrays = h5_arrays(folder / "model.weights.h5")
    return rows, evaluation, dict(enumerate(arrays[name] for name in sorted(arrays)))


def wrong_after(results: Path, at: int, end: str, reference: tuple[Any, Any, dict[str, Any]]) -> list[str]:
    """Lets operation `at` of a run fail; what is not as it should be then and after the same command again."""
    found = []
    if end == "exit":
        command = [sys.executable, __file__, "--child", str(results), str(at)]
        status: Any = subprocess.run(command, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL).returncode
        if status != 9:
            found.append(f"the process ended with {status}")
    else:
        status, output = run(results, Faults(results, at, end))
        errors = [line for line in output.splitlines() if line.startswith("error: ")]
        if end != "death" and not (status == 0 or (status == 1 and len(errors) == 1 and "Traceback" not in output)):
            found.append(f"it ended with {status}, {len(errors)} lines of error")
    status, output = run(results)
    if status:
        return [*found, f"the command after it ended with {status}: {output.splitlines()[-1:]}"]
    rows, evaluation, weights = numbers(results / "tiny")
    for what, equal in {
        "log.csv": rows == reference[0],
        "evaluation.json": evaluation == reference[1],
        "the weights": same(weights, reference[2]),
    }.items():
        if not equal:
            found.append(f"{what} differs")
    return found + [f"left behind: {path.name}" for path in (results / "tiny").rglob("*.part")]


def try_operations(first: int, last: int, every: int, deaths: int) -> tuple[int, int]:
    """Lets the operations from `first` to before `last` fail: how many points there were, and how many that differ."""
    failed, done = 0, 0
    with tempfile.TemporaryDirectory() as place:
        whole = Faults(Path(place, "whole"))
        status, output = run(Path(place, "whole"), whole)
        assert status == 0, f"{status}: {output}"
        reference = numbers(Path(place, "whole", "tiny"))
        if first == 0:
            print(f"{len(whole.seen)} operations: {', '.join(whole.seen)}", flush=True)
        for at in range(first, min(last, len(whole.seen)), every):
            ends = list(ENDS if every == 1 else [ENDS[at // every % len(ENDS)]])
            if deaths and at % deaths == 0:
                ends.append("exit")
            for end in ends:
                results = Path(place, f"{at}-{end}")
                wrong = wrong_after(results, at, end, reference)
                done, failed = done + 1, failed + bool(wrong)
                what = whole.seen[at].replace(f".{os.getpid()}-", ".PID-")
                print(f"{at} {what}: {end}: {'; '.join(wrong) or 'the same numbers'}", flush=True)
    return done, failed


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--every", type=int, default=1, help="only every so many of the operations, each with one end")
    parser.add_argument("--first", type=int, default=0, help="the first of them")
    parser.add_argument("--last", type=int, default=10**6, help="and the last, if there are so many")
    parser.add_argument(
        "--deaths", type=int, default=7, help="of which every so many, a process of its own dies; 0: none"
    )
    parser.add_argument("--child", nargs=2, help=argparse.SUPPRESS)
    parser.add_argument("--part", type=int, nargs=2, help=argparse.SUPPRESS)
    options = parser.parse_args()
    sys.addaudithook(_heard)
    if options.child:
        results, at = options.child
        run(Path(results), Faults(Path(results), int(at), "exit"))
        return 0
    if options.part:
        print(*try_operations(*options.part, options.every, options.deaths))
        return 0

    started, failed, done = time.monotonic(), 0, 0
    for first in itertools.count(options.first, PART * options.every):
        part = [str(first), str(min(first + PART * options.every, options.last + 1))]
        command = [sys.executable, __file__, "--every", str(options.every), "--deaths", str(options.deaths)]
        with subprocess.Popen([*command, "--part", *part], stdout=subprocess.PIPE, text=True) as process:
            assert process.stdout is not None
            line = "no line"
            for line in process.stdout:
                if ":" in line:
                    print(line, end="", flush=True)
        points, differ = map(int, line.split())
        done, failed = done + points, failed + differ
        if not points:
            break
    print(f"{done} points, {failed} that differ, {time.monotonic() - started:.0f} s")
    return 1 if failed else 0


if __name__ == "__main__":
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    sys.exit(main())
