"""What MkDocs is told beyond mkdocs.yml: the site has the repository's own tree, so that every link leads somewhere.

Beside the pages of `docs/` there are the README files, the runs that they link to, a page for each, and the notebook.
"""

import json
import posixpath
import re
from pathlib import Path
from typing import Any

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT = Path(__file__).resolve().parents[1]
SHOWN = (
    "README.md", "CONTRIBUTING.md", "LICENSE", "docs/*.md", "iwae/**/*.py", "benchmarks/*.py", "results/*.*",
    "results/*/*.json", "results/*/log.csv", "results/*/plots/*.png",
)  # fmt: skip


def on_files(files: Files, config: MkDocsConfig) -> None:
    for file in [file for file in files if file.src_dir == config.docs_dir]:
        files.remove(file)
    for path in (path for pattern in SHOWN for path in ROOT.glob(pattern)):
        files.append(File.generated(config, path.relative_to(ROOT).as_posix(), abs_src_path=str(path)))
    for path in ROOT.glob("docs/*.ipynb"):
        notebook = json.loads(path.read_text())
        files.append(File.generated(config, f"docs/{path.stem}.md", content=notebook_page(notebook)))
    names = [file.src_uri for file in files if file.src_uri.startswith("results/")]
    for folder in {posixpath.dirname(name) for name in names} - {"results"}:
        inside = [posixpath.relpath(name, folder) for name in sorted(names) if name.startswith(f"{folder}/")]
        shown = [f"{'!' * name.endswith('.png')}[{name}]({name})" for name in inside]
        files.append(File.generated(config, f"{folder}/index.md", content="\n\n".join([f"# {folder}", *shown])))


def on_page_markdown(markdown: str, page: Page, **_: Any) -> str:
    """Links to a folder or a notebook become links to its page, and are checked as such."""
    here = (ROOT / page.file.src_uri).parent

    def of_page(link: re.Match[str]) -> str:
        name = link[1]
        return f"]({name}/index.md)" if (here / name).is_dir() else f"]({name.replace('.ipynb', '.md')})"

    return re.sub(r"\]\(([^):\s]+)\)", of_page, markdown)


def notebook_page(notebook: dict[str, Any]) -> str:
    """A notebook as Markdown: its cells, and below each what was printed and drawn."""
    parts = []
    for cell in notebook["cells"]:
        source = "".join(cell["source"])
        parts.append(f"```python\n{source}\n```" if cell["cell_type"] == "code" else source)
        for output in cell.get("outputs", ()):
            if "text" in output:
                parts.append("```text\n" + "".join(output["text"]) + "```")
            else:
                parts.append(f"![Output of the cell](data:image/png;base64,{output['data']['image/png']})")
    return "\n\n".join(parts)
