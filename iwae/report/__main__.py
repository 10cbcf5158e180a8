"""Tables of runs beside the published numbers, and learning curves of several runs in one plot.

    python -m iwae.report                       every run under results/
    python -m iwae.report results/A results/B   these runs
    python -m iwae.report --paper-table         the paper's own table, one run a cell
    python -m iwae.report --write               writes results/README.md as well
    python -m iwae.report --readme README.md    writes the paper's table between two marker comments of a file
    python -m iwae.report A B --curves AB.png   learning curves of these runs in one plot

A run is read from its files; neither TensorFlow nor the weights are needed. A run that cannot be read is named in one
line, and the others are reported all the same.
"""

import argparse
import re
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path

from iwae import files, printing
from iwae.figures import style
from iwae.report import markdown
from iwae.report.curves import curves
from iwae.report.paper import paper_table
from iwae.report.records import ReportError, find
from iwae.report.tables import HEAD, report

BEGIN, END = "<!-- results: begin -->", "<!-- results: end -->"


def between_markers(text: str, content: str, name: str) -> str:
    """`text` with what lies between the two marker comments replaced by `content`; `name` says where, in an error."""
    parts = re.split(f"({BEGIN}|{END})", text)
    if parts[1::2] != [BEGIN, END]:
        raise ReportError(f"{name}: expected the lines {BEGIN} and {END}, once each and in this order")
    return f"{parts[0]}{BEGIN}\n\n{content}\n\n{END}{parts[-1]}"


def main(arguments: Sequence[str] | None = None) -> int:
    """The command; returns its exit status."""
    printing.may_get_lost()
    parser = argparse.ArgumentParser(prog="python -m iwae.report", description="Tables of runs.")
    parser.add_argument("runs", nargs="*", metavar="RUN", help="folder of a run, or its name (default: all)")
    parser.add_argument("--results_dir", default="results", help="folder that holds the runs (default: results)")
    parser.add_argument("--paper-table", action="store_true", help="the paper's own table alone, one run a cell")
    parser.add_argument("--markdown", action="store_true", help="Markdown in a terminal too, as elsewhere")
    parser.add_argument("--write", action="store_true", help="write RESULTS_DIR/README.md as well")
    parser.add_argument(
        "--readme", metavar="FILE", help=f"write the paper's table between {BEGIN} and {END} of this file"
    )
    parser.add_argument("--curves", metavar="FILE.png", help="draw the learning curves of the runs in one plot")
    options = parser.parse_args(arguments)
    results_dir = Path(options.results_dir)
    try:
        records, problems = find(options.runs, results_dir)
        text = report(records, problems, results_dir if options.write else Path())
        if options.curves:
            figure = curves(records)
            try:
                style.save(figure, options.curves)
            except ValueError as error:
                raise ReportError(f"{options.curves}: expected the name of a picture, got an error: {error}") from None
        if options.write:
            text = HEAD + text
            files.write_atomically(results_dir / "README.md", text.encode())
        if options.readme:
            path = Path(options.readme)
            try:
                old = path.read_text(encoding="utf-8")
            except OSError as error:
                raise ReportError(f"{path}: expected a file that can be read, got: {error.strerror}") from None
            new = between_markers(old, paper_table(records, path.parent), str(path))
            files.write_atomically(path, new.encode())
        if options.paper_table:
            text = paper_table(records, Path()) + "\n"
    except (ReportError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    if sys.stdout.isatty() and not options.markdown:
        text = markdown.plain(text.removeprefix(HEAD), shutil.get_terminal_size().columns)
    print(text, end="")
    for problem in problems:
        print(f"left out: {problem}", file=sys.stderr)
    return 0


if __name__ == "__main__":
    sys.exit(main())
