"""Runs beside runs: several seeds of one, runs that differ in one parameter, VAE and IWAE on the same images."""

import statistics
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from iwae import config
from iwae.report import markdown
from iwae.report.records import Record

_DATA = "fingerprint of the data"  # files of one name may hold different data
_CHANGED = "changed while trained"
_NETWORK = ("model.hidden_units", "model.latent_units")  # lists that belong together: one parameter
# A change in these is a change of what is measured: such runs are not set beside each other.
_OTHER_QUESTION = {
    "data.name", "data.binarization", "data.synthetic_examples", "model.likelihood", "model.condition", "evaluation.k",
    _CHANGED, _DATA,
}  # fmt: skip


def parameters(record: Record) -> dict[str, str]:
    """What makes a run what it is, but for its seed, as text by name, in the order of the names."""
    values = config.flatten(record.experiment)
    of_one_kind = {f"model.{name}": kind for name, kind in config.NETWORK_OF.items()}
    in_network = {*_NETWORK, "model.network", *of_one_kind}
    shown = [name for name in values if config.in_a_name(name) and name not in ("seed", *in_network)]
    result = {name: config.written(values[name]) for name in shown}
    for name, schedule in {"stages": "burda", "gamma": "multistep", "milestones": "multistep"}.items():
        if record.experiment.training.schedule != schedule:  # of no effect
            result[f"training.{name}"] = ""
    result["data.name"], result["data.binarization"] = record.data, record.binarization
    if record.first:
        first = record.first.experiment.model
        result["training.start_from"] = f"{first.objective}, k = {first.k}, {record.first.passes} passes"
    kind = values["model.network"]
    below = [config.written(values[name]) for name, owner in of_one_kind.items() if owner == kind]
    layers = [config.written(values[name]) for name in _NETWORK]
    result["network"] = " - ".join([" ".join([kind, *below]), *layers] if below else layers)
    result["evaluation.k"] = str(record.test.get("k"))
    result[_DATA], result[_CHANGED] = record.fingerprint, "; ".join(record.changed)
    return dict(sorted(result.items()))


def same_but_seed(records: Iterable[Record]) -> list[list[Record]]:
    """Runs that differ in their seed alone, together, in the order of the first of each."""
    found: dict[tuple[str, ...], list[Record]] = {}
    for record in records:
        found.setdefault(tuple(parameters(record).values()), []).append(record)
    return list(found.values())


def one_each_seed(members: Sequence[Record]) -> list[Record]:
    """One run for each seed, of those that were evaluated on the most examples."""
    most = max(record.test.get("examples", 0) for record in members)
    by_seed: dict[int, Record] = {}
    for record in members:
        if record.test.get("examples", 0) == most:
            by_seed.setdefault(record.experiment.seed, record)
    return list(by_seed.values())


def varying(frame: pd.DataFrame) -> list[str]:
    """The parameters that are not the same in all rows, but for those that another name says already."""
    return [str(name) for name in frame if frame[name].nunique() > 1 and name != _DATA]


def short(name: str) -> str:
    """A parameter's name in a table, without its section where no other has the rest."""
    return {"data.name": "data", "evaluation.k": name}.get(name, name.rpartition(".")[2])


def comparisons(records: Iterable[Record]) -> str:
    """Markdown: for each parameter a table of the runs that differ in it alone; "" if there are none."""
    cells = [one_each_seed(members) for members in same_but_seed(record for record in records if record.test)]
    frame = pd.DataFrame([parameters(seeds[0]) for seeds in cells])
    names, parts = list(frame), []
    frame["NLL"] = [_compared(seeds, cells) for seeds in cells]
    for parameter in sorted(set(varying(frame[names])) - _OTHER_QUESTION):
        rest = [name for name in names if name != parameter]
        table = frame.pivot(index=rest, columns=parameter, values="NLL")
        table = table[table.notna().sum(axis=1) > 1].dropna(axis=1, how="all")
        if table.empty:
            continue
        rows, table = table.index.to_frame(index=False), table.reset_index(drop=True)
        others, values = varying(rows), sorted(table, key=_natural)
        order = sorted(table.index, key=lambda row: [_natural(text) for text in rows.loc[row, others]])
        table = pd.concat([rows[others], table[values]], axis=1).loc[order]
        table.columns = pd.Index([*map(short, others), *(f"{short(parameter)} {value}" for value in values)])
        parts += [f"### {parameter}", markdown.table(table)]
    if not parts:
        return ""
    text = (
        "NLL in nats ± standard error over the test examples; of several seeds, their mean and standard deviation. "
        "Each row holds runs that are the same but for this parameter (and their seeds)."
    )
    return "\n\n".join(["## Runs that differ in one parameter", text, *parts])


def _compared(seeds: Sequence[Record], cells: Sequence[Sequence[Record]]) -> str:
    """The NLL of runs that differ in their seed alone; and on how many examples, if on fewer than others."""
    values, examples = [record.test["nll"] for record in seeds], seeds[0].test["examples"]
    most = max(others[0].test["examples"] for others in cells if others[0].data == seeds[0].data)
    of = f" ({examples:,} examples)" if examples < most else ""
    if len(values) > 1:
        return f"{statistics.mean(values):.3f}, sd {statistics.stdev(values):.3f} ({len(values)} seeds){of}"
    return f"{values[0]:.3f} ± {seeds[0].test['nll_stderr']:.3f}{of}"


def _natural(text: str) -> tuple[bool, float, str]:
    """Numbers in their order, before words."""
    try:
        return False, float(text), text
    except ValueError:
        return True, 0.0, text


def paired(records: Sequence[Record], base: Path) -> str:
    """Markdown: VAE and IWAE, the same but for the objective, image by image; "" if no two have such values."""
    rows = []
    for vae in sorted(records, key=lambda record: (record.layers, record.cell)):
        for iwae in records:
            difference = _differences(vae, iwae)
            if difference is None:
                continue
            row = {"data": vae.data, "layers": str(vae.layers), "k": str(vae.experiment.model.k)}
            row |= {run.objective.upper(): markdown.link(run.folder, base) for run in (vae, iwae)}
            mean = f"{difference.mean():+.3f} ± {difference.std(ddof=1) / len(difference) ** 0.5:.3f}"
            rows.append(row | {"images": f"{len(difference):,}", "IWAE less VAE": mean})
    if not rows:
        return ""
    text = (
        "Runs that are the same but for the objective, compared image by image: the mean over the images of the NLL of "
        "the IWAE less that of the VAE, in nats, ± its standard error. What the images themselves differ in cancels."
    )
    return "\n\n".join(["## VAE and IWAE on the same images", markdown.table(rows), text])


def _differences(vae: Record, iwae: Record) -> np.ndarray | None:
    """NLL of the IWAE less that of the VAE for each image, [n]; None if these are no such runs or of other images."""
    a, b = vae.likelihoods, iwae.likelihoods
    if a is None or b is None or len(a) < 2 or (vae.objective, iwae.objective) != ("vae", "iwae"):
        return None
    same = [{**parameters(record), "model.objective": ""} for record in (vae, iwae)]
    if same[0] != same[1] or a.name != b.name or not a.index.equals(b.index):
        return None
    return a.to_numpy() - b.to_numpy()
