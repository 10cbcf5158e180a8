"""Hostile cases: what is typed, edited, damaged or left lying about, and what must come of it. One table.

    python tests/programs/hostile.py [--short] [--only WORD]

Each case starts from a copy of a finished run (digits, one epoch, k = 2), does something to it, and gives a command.
A command must end with the status that is expected; a failure tells itself in one line and never as a traceback; what
it refuses, it leaves as it was to the byte. All in one process. The exit status is 1 if a case came out otherwise.
"""

import argparse
import collections
import contextlib
import copy
import hashlib
import io
import os
import re
import shutil
import signal
import sys
import tempfile
import time
import traceback
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

sys.path[:0] = [str(folder) for folder in Path(__file__).resolve().parents[1:3]]

import tiny  # noqa: E402
from hostile_cases import Case, cases  # noqa: E402  # beside this file

import iwae  # noqa: E402
from iwae import config  # noqa: E402
from iwae.cli import command_line  # noqa: E402
from iwae.data import download  # noqa: E402
from iwae.report import __main__ as report  # noqa: E402

TINY = config.replace(tiny.TINY, {"tasks": ("train", "evaluate")})
SECONDS = 180  # a case that takes longer waits for something that never comes


class Waited(BaseException):
    """A case took too long."""


# ---- doing them ----


def contents(place: Path) -> dict[str, Any]:
    """What lies below a folder: the bytes of each file, where each link points, None for a folder."""
    found: dict[str, Any] = {}
    for folder, names, files in os.walk(place):
        for path in (Path(folder, name) for name in (*names, *files)):
            kind = (
                os.readlink(path) if path.is_symlink() else None if path.is_dir() else hashlib.sha256(path.read_bytes())
            )
            found[path.relative_to(place).as_posix()] = kind.digest() if hasattr(kind, "digest") else kind
    return found


def call(program: str, words: Sequence[str], experiment: iwae.Experiment = TINY) -> tuple[Any, str]:
    """The exit status of a command in this process, or the traceback of what it raised instead, and what it printed."""
    output = io.StringIO()
    with contextlib.redirect_stdout(output), contextlib.redirect_stderr(output), warnings.catch_warnings():
        warnings.simplefilter("always")
        try:
            if program == "iwae.report":
                return report.main(words), output.getvalue()
            if program == "datasets_download.py":
                return download.main(words), output.getvalue()
            command_line.main(lambda: experiment, words)
        except SystemExit as end:
            if end.code in (129, 130, 143):  # a signal was meant for this process
                raise
            return end.code, output.getvalue()
        except BaseException:
            return traceback.format_exc(), output.getvalue()


def wrong_with(case: Case, place: Path, done: Path) -> list[str]:
    """Does a case in an empty folder; what did not come out as expected."""
    folder = place / "results" / "tiny"
    shutil.copytree(done, folder)
    case.deed(folder)
    before = contents(place)
    words = case.words.split() if isinstance(case.words, str) else case.words
    experiment = config.replace(TINY, {"results_dir": str(place / "results")})
    signal.alarm(SECONDS)
    status, output = call(case.program, [word.replace("{place}", str(place)) for word in words], experiment)
    signal.alarm(0)
    found = []
    if isinstance(status, str):
        return [f"a traceback: {status}"]
    if status != case.status:
        found.append(f"status {status}, expected {case.status}")
    if "Traceback" in output:
        found.append("a traceback was printed")
    lines = output.splitlines()
    errors = [line for line in lines if re.match(r"(\w[\w .-]*: )?error: ", line)]
    if status and len(errors) != 1:
        found.append(f"{len(errors)} lines of error")
    if not any(re.search(case.says, line) for line in (errors if status else lines)):
        found.append(f"none that says {case.says!r}")
    after = contents(place)
    changed = [name for name, content in before.items() if after.get(name, 0) != content]
    if status:
        changed += [f"{name} (new)" for name in after.keys() - before.keys() if not name.endswith("tiny/.lock")]
    if lost := [name for name in changed if not re.search(case.gone, name)]:
        found.append(f"changed: {', '.join(sorted(lost)[:4])}")
    return [f"{what}; it said: {' | '.join(errors or lines[-3:])[:300]}" for what in found[:1]] + found[1:]


@contextlib.contextmanager
def a_finished_run() -> Iterator[tuple[Path, Path]]:
    """A folder to work in, and in it the folder of a finished run."""
    with tempfile.TemporaryDirectory() as place:
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
            run = iwae.run(config.replace(TINY, {"results_dir": place}))
        yield Path(place), run.folder.path


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--short", action="store_true", help="every fifth case, and none that trains")
    parser.add_argument("--only", default="", metavar="WORD", help="cases whose group or name holds it")
    options = parser.parse_args(arguments)
    chosen = [case for case in cases() if options.only in f"{case.group}: {case.name}"]
    if options.short:
        chosen = [case for case in chosen if not case.trains][::5]

    def waited(*_: object) -> None:
        raise Waited(f"no end after {SECONDS} s")

    signal.signal(signal.SIGALRM, waited)
    counts, started = collections.Counter[tuple[str, bool]](), time.monotonic()
    with a_finished_run() as (place, done):
        for number, case in enumerate(chosen):
            begun = time.monotonic()
            wrong = wrong_with(copy.copy(case), place / str(number), done)
            counts[case.group, bool(wrong)] += 1
            shutil.rmtree(place / str(number))
            outcome = "; ".join(wrong) or f"as expected (status {case.status})"
            print(f"{case.group}: {case.name}: {outcome} ({time.monotonic() - begun:.1f} s)", flush=True)
    failed = sum(count for (_, wrong), count in counts.items() if wrong)
    for group in dict.fromkeys(case.group for case in chosen):
        print(f"{group:16} {counts[group, False]:4} as expected, {counts[group, True]:3} not")
    print(f"{len(chosen)} cases, {failed} not as expected, {time.monotonic() - started:.0f} s")
    return 1 if failed else 0


if __name__ == "__main__":
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    sys.exit(main())
