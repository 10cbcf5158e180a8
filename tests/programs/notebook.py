"""Executes the code cells of a notebook in its folder, by plain Python and without Jupyter; ends with 1 if one raises.

    python tests/programs/notebook.py docs/tour.ipynb [--write]

With --write their outputs are kept in the notebook: what is printed, and figures as PNG files of few colours.
"""

import argparse
import ast
import base64
import contextlib
import io
import json
import os
import sys
from pathlib import Path
from typing import Any

os.environ["MPLBACKEND"] = "agg"

import matplotlib.pyplot as plt  # noqa: E402
from matplotlib.figure import Figure  # noqa: E402
from PIL import Image  # noqa: E402

ROOT = Path(__file__).resolve().parents[2]


def outputs_of(source: str, number: int, names: dict[str, Any]) -> list[dict[str, Any]]:
    """What Jupyter shows below a cell: what it prints, the figures of pyplot, and a figure that is its last line."""
    body, last = ast.parse(source).body, None
    if body and isinstance(body[-1], ast.Expr):
        last = ast.Expression(body.pop().value)
    with contextlib.redirect_stdout(io.StringIO()) as printed:
        exec(compile(ast.Module(body, []), f"cell {number}", "exec"), names)
        value = last and eval(compile(last, f"cell {number}", "eval"), names)
    outputs: list[dict[str, Any]] = []
    if text := printed.getvalue().splitlines(keepends=True):
        outputs.append({"name": "stdout", "output_type": "stream", "text": text})
    figures = [plt.figure(n) for n in plt.get_fignums()] + [value] * isinstance(value, Figure)
    for figure in figures:
        data = {"image/png": png(figure), "text/plain": ["<Figure>"]}
        outputs.append({"data": data, "metadata": {}, "output_type": "display_data"})
    plt.close("all")
    return outputs


def png(figure: Figure) -> str:
    """A figure as PNG in base64, with 256 colours: half the size."""
    drawn, small = io.BytesIO(), io.BytesIO()
    figure.savefig(drawn, format="png", dpi=100, bbox_inches="tight")
    Image.open(drawn).convert("RGB").quantize(256, dither=Image.Dither.NONE).save(small, "png", optimize=True)
    return base64.b64encode(small.getvalue()).decode()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("notebook", type=Path)
    parser.add_argument("--write", action="store_true", help="keep the outputs in the notebook")
    arguments = parser.parse_args()
    path = arguments.notebook.resolve()
    notebook = json.loads(path.read_text())
    sys.path.insert(0, str(ROOT))
    os.chdir(path.parent)
    names: dict[str, Any] = {"__name__": "__main__"}
    cells = [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]
    for number, cell in enumerate(cells, start=1):
        cell["outputs"] = outputs_of("".join(cell["source"]), number, names)
        cell["execution_count"] = number
    if arguments.write:
        path.write_text(json.dumps(notebook, indent=1, ensure_ascii=False) + "\n")
    print(f"{path.name}: {len(cells)} cells executed")


if __name__ == "__main__":
    main()
