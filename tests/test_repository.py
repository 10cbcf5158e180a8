"""The repository itself: small enough to clone, a README that is read to its end, no link that leads nowhere."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from iwae import config
from iwae.cli import command_line

ROOT = Path(__file__).resolve().parents[1]
PAGES = ("README.md", "CONTRIBUTING.md", "results/README.md", *(f"docs/{path.name}" for path in ROOT.glob("docs/*.md")))
LINK = re.compile(r"\]\(([^)\s]+)\)")
CODE = re.compile(r"^```.*?^```", re.MULTILINE | re.DOTALL)
RESULTS_BYTES = 5_000_000
README_BYTES = 10_240


def tracked_files(folder: str) -> list[Path]:
    """The files of a folder that git holds; the test is skipped outside a checkout."""
    try:
        listing = subprocess.run(
            ["git", "ls-files", "-z", folder], cwd=ROOT, capture_output=True, check=True, text=True
        )
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("not a git checkout")
    if not listing.stdout:
        pytest.skip("not a git checkout of this repository")
    return [ROOT / name for name in listing.stdout.split("\0")[:-1]]


def anchors(text: str) -> set[str]:
    """The anchors of a page's headings, as GitHub makes them."""
    headings = re.findall(r"^#+ (.*)$", CODE.sub("", text), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


# A shell in which no command is found, and `experiments.py` tells the words that it is given.
SHELL = """
command_not_found_handle() { while (($#)) && [ "$1" != experiments ]; do shift; done; (($#)) && "$@"; return 0; }
cd() { return 0; }
experiments() { (($#)) && printf "%s\\x1f" "$@"; printf "\\x1e"; }
"""


def commands(page: str, folder: Path) -> list[list[str]]:
    """The words after `experiments.py` of every command of a page, as a shell makes them."""
    found = []
    for block in re.findall(r"^ *```sh\n(.*?)^ *```", (ROOT / page).read_text(), re.MULTILINE | re.DOTALL):
        script = SHELL + re.sub(r"python3? \S*experiments\.py", "experiments", block.replace(".venv/bin/", ""))
        told = subprocess.run(
            [shutil.which("bash") or "bash", "-c", script],
            cwd=folder,
            env={"PATH": "/nowhere"},
            capture_output=True,
            text=True,
        )
        assert not told.stderr, told.stderr
        of_block = [words.split("\x1f")[:-1] for words in told.stdout.split("\x1e")[:-1]]
        assert len(of_block) >= len(re.findall(r"^[^#\n]*experiments\.py", block, re.MULTILINE)), block
        found += of_block
    return found


@pytest.mark.parametrize("page", PAGES)
def test_every_command_is_understood(page, tmp_path):
    for words in commands(page, tmp_path):
        run = words[words.index("--run") + 1] if "--run" in words else ""
        if not run or (ROOT / run).exists():
            assert command_line.plan(words, config.Experiment())


EXAMPLES = {
    page: re.findall(r"^```python\n(.*?)^```", (ROOT / page).read_text(), re.MULTILINE | re.DOTALL) for page in PAGES
}


@pytest.mark.slow
@pytest.mark.parametrize("page", [page for page in PAGES if EXAMPLES[page] and page != "README.md"])
def test_the_python_examples_of_a_page_run_as_they_stand(page, tmp_path):
    """Those of the README ask for data that are downloaded, and for the run of its first command."""
    program = "\n".join(EXAMPLES[page])
    subprocess.run([sys.executable, "-c", program], cwd=tmp_path, check=True, timeout=600)


def test_results_are_small_enough_to_clone():
    sizes = {path: path.stat().st_size for path in tracked_files("results") if path.exists()}
    largest = sorted(sizes, key=sizes.__getitem__)[-3:]
    assert sum(sizes.values()) < RESULTS_BYTES, f"{sum(sizes.values()):,} bytes; the largest: {largest}"


def test_every_run_in_git_has_its_parameters_log_and_evaluation():
    files = {path.relative_to(ROOT / "results").as_posix() for path in tracked_files("results")}
    for run in {name.split("/")[0] for name in files if "/" in name}:
        for name in ("experiment.json", "log.csv", "evaluation.json"):
            assert f"{run}/{name}" in files


def test_readme_is_short():
    assert len((ROOT / "README.md").read_bytes()) < README_BYTES


@pytest.mark.parametrize("command", ["run", "test"])
def test_readme_keeps_the_commands_that_ci_reads(command):
    text = (ROOT / "README.md").read_text()
    found = re.findall(rf"^<!-- command: {command} -->\n```sh\n(.+?)^```$", text, re.MULTILINE | re.DOTALL)
    assert len(found) == 1


def test_the_readme_has_one_place_for_the_table():
    text = (ROOT / "README.md").read_text()
    assert re.findall(r"^<!-- results: (begin|end) -->$", text, re.MULTILINE) == ["begin", "end"]


@pytest.mark.parametrize("page", PAGES)
def test_every_link_and_picture_is_there(page):
    text = (ROOT / page).read_text()
    for link in LINK.findall(CODE.sub("", text)):
        if re.match(r"[a-z]+:", link):
            continue
        name, _, anchor = link.partition("#")
        target = (ROOT / page).parent / name if name else ROOT / page
        assert target.exists(), f"{page}: {link}"
        assert not anchor or anchor in anchors(target.read_text()), f"{page}: no heading {link}"


@pytest.mark.parametrize("page", PAGES)
def test_every_link_and_picture_is_in_git(page):
    tracked = {path.resolve() for path in tracked_files(".")}
    folders = {parent for path in tracked for parent in path.parents}
    for link in LINK.findall(CODE.sub("", (ROOT / page).read_text())):
        if not re.match(r"[a-z]+:", link):
            assert ((ROOT / page).parent / link.partition("#")[0]).resolve() in tracked | folders, f"{page}: {link}"
