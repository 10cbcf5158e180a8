"""The paper's own table: layers and k by VAE and IWAE, one run a cell beside the published value."""

from collections.abc import Sequence
from pathlib import Path

from iwae.report import markdown, protocol
from iwae.report.published import CELLS, NAMES, PAPER, SECOND, SECOND_SOURCE, Cell
from iwae.report.records import Record
from iwae.report.tables import Group, Marks, duration, group_of

_OBJECTIVES = {"vae": "VAE", "iwae": "IWAE"}
_RULE = (
    f"NLL on the test images in nats (in brackets table 1 of {PAPER}). One run a cell, a link to its files: of the "
    "runs with the paper's network and L_5000 the one evaluated on the most images, of these those on the test pixels "
    "that all runs share now, then the longest trained, then the lowest seed; the NLL plays no part. With k = 1 "
    "the two objectives are one, and so is their run. "
    f"The last columns: VAE / IWAE; the paper's runs have {protocol.PASSES:,} passes over the data."
)


def paper_table(records: Sequence[Record], base: Path) -> str:
    """Markdown: table 1 for each of its datasets that has an evaluated run, with links relative to `base`, and the rule
    by which runs are chosen."""
    documented = sorted(filter(_belongs, records), key=_documented)
    runs = {_bound(record.cell): record for record in documented}  # the last one stays
    datasets = sorted({data for data, *_ in runs})
    if not datasets:
        return "No run of table 1 has been evaluated yet."
    marks, rows = Marks(), []
    for data, layers, k in sorted({(data, layers, k) for data, _, k, layers in CELLS if data in datasets}):
        cells: dict[str, Cell] = {name: (data, objective, k, layers) for objective, name in _OBJECTIVES.items()}
        there = [runs.get(_bound(cell)) for cell in cells.values()]
        row = {"data": NAMES[data] if len(datasets) > 1 else "", "layers": str(layers), "k": str(k)}
        row |= {name: _text(cell, run, base, marks) for (name, cell), run in zip(cells.items(), there, strict=True)}
        row["nbip/IWAE"] = " / ".join(str(SECOND[cell]) for cell in cells.values() if cell in SECOND)
        row["passes"] = " / ".join(f"{run.passes:,}" if run else "-" for run in there)
        row["training time"] = " / ".join(_time(run) if run else "-" for run in there)
        rows.append(row)
    parts = [markdown.table(rows), _RULE]
    if marks:
        parts.append(f"Other departures from the paper's protocol: {marks}.")
    return "\n\n".join([*parts, *[SECOND_SOURCE] * ("mnist" in datasets)])


def _bound(cell: Cell) -> Cell:
    """With k = 1 the IWAE is the VAE: L_1 is the ELBO."""
    data, objective, k, layers = cell
    return data, "vae" if k == 1 else objective, k, layers


def _belongs(record: Record) -> bool:
    if not record.test or group_of(record)[0] not in (Group.TABLE_1_MNIST, Group.TABLE_1_OMNIGLOT):
        return False
    others = any(text.startswith(("model.", "L_")) for text in protocol.departures(record))
    return protocol.published(record) is not None and not others


def _documented(record: Record) -> tuple[int, bool, int, int, str]:
    shared = "binarization" in record.test
    return record.test["examples"], shared, record.passes, -record.experiment.seed, record.folder.name


def _time(run: Record) -> str:
    return f"{duration(run.seconds)}{'' if run.device.startswith(('CPU', '?')) else ' (GPU)'}"


def _text(cell: Cell, run: Record | None, base: Path, marks: Marks) -> str:
    published = f"({CELLS[cell].nll:.2f})"
    if run is None:
        return published
    others = marks.of(text for text in protocol.departures(run) if " passes over the data " not in text)
    link = markdown.link(run.folder, base, f"{run.test['nll']:.2f} {published}")
    return f"{link} {others}".strip()
