"""What a run is measured by: the published value that belongs beside it, and what departs from the paper's protocol."""

from pathlib import Path
from typing import Any

from iwae import config
from iwae.report.published import CAMEL, CELLS, CONTINUED, TEST_EXAMPLES, Published
from iwae.report.records import Record

# Passes over the data: 3^0 + ... + 3^7; of a continuation (table 2) 3^7, those of the last stage at its learning rate.
PASSES, CONTINUED_PASSES = 3280, 2187
_CONTINUATION = {"training.schedule": "constant", "training.learning_rate": 1e-4}

# What says how long a run was trained: told by its passes over the data.
_LENGTH = {"training.stages", "training.epochs", "training.start_from"}


def published(record: Record) -> Published | None:
    """The published value that belongs beside a run; None if there is none for its data, objective, k and depth."""
    model, first = record.experiment.model, record.first
    if model.condition != "none":  # which gives log p(x | y)
        return None
    if record.experiment.data.name in ("camel", "two_close_clusters"):
        same = (model.latent_units, model.hidden_units) == ((1,), ((5, 5),)) and first is None
        return CAMEL.get(record.objective) if same and (record.objective == "vae" or model.k == 20) else None
    likelihood = model.likelihood == "bernoulli" and model.beta == 1
    if not likelihood or model.latent_units == (2,) or not _pixels_of_the_paper(record):
        return None
    if record.experiment.training.start_from is not None:
        if first is None or published(first) is None or {record.data, first.data} != {"mnist"} or record.layers != 1:
            return None
        return CONTINUED.get((first.objective, first.experiment.model.k, record.objective, model.k))
    return CELLS.get(record.cell)


def on_all_examples(record: Record) -> bool:
    """Whether a run was evaluated on all test images of a dataset of the paper; images differ, so that the NLL of a
    part of them says nothing beside a published value."""
    examples = record.test["examples"]
    return examples == TEST_EXAMPLES.get(record.experiment.data.name, examples)


def departures(record: Record) -> list[str]:
    """Everything in which a run on the paper's datasets departs from the paper's protocol, each in a few words."""
    found, first = _departures_in_training(record), record.first
    if record.experiment.training.start_from is not None:
        before = _departures_in_training(first) if first else ["not found"]
        if first and first.data != record.data:
            before.append(f"data.name {first.data} (here: {record.data})")
        if first and first.experiment.training.start_from is not None:
            before.append(f"training.start_from {Path(first.experiment.training.start_from).name} (paper: none)")
        found += [f"first run: {text}" for text in before]
    threshold, paper = record.experiment.evaluation.active_unit_threshold, config.Evaluation()
    if record.test["k"] != paper.k:
        found.append(f"L_{record.test['k']} (paper: L_{paper.k})")
    if not on_all_examples(record):
        of_all = TEST_EXAMPLES[record.experiment.data.name]
        found.append(f"{record.test['examples']:,} test examples (paper: all {of_all:,})")
    if "binarization" not in record.test and record.binarization == "stochastic":  # of an early version
        found.append("test pixels drawn with the run's own seed (now: the same for all runs)")
    if threshold != paper.active_unit_threshold:
        found.append(f"evaluation.active_unit_threshold {threshold} (paper: {paper.active_unit_threshold})")
    return found


def _departures_in_training(record: Record) -> list[str]:
    given, paper, training = config.flatten(record.experiment), _paper(record), record.experiment.training
    passes = PASSES if training.start_from is None else CONTINUED_PASSES
    found = [f"{record.passes:,} passes over the data (paper: {passes:,})"] * (record.passes != passes)
    ignored = {*_LENGTH, *config.INCIDENTAL}
    if fast := _fast(record):
        ignored |= fast
        found.append("the fast protocol (docs/protocol.md)")
    if training.schedule == "multistep":
        ignored |= {"training.schedule", "training.gamma", "training.milestones"}
        steps = f"multistep, times {training.gamma:.3g} after epochs {config.written(training.milestones)}"
        found.append(f"training.schedule {steps} (paper: {paper['training.schedule']})")
    if not _pixels_of_the_paper(record):
        found.append(f"data.binarization {record.binarization} (paper: stochastic)")
    for name, value in given.items():
        of_training = name.startswith(("model.", "training.")) or name == "data.batch_size"
        if of_training and name not in ignored and value != paper[name]:
            found.append(f"{name} {config.written(value)} (paper: {config.written(paper[name])})")
    return found + [text for text in record.changed if not any(f" {name} was " in text for name in _LENGTH)]


def _fast(record: Record) -> set[str]:
    """The parameters that the fast protocol sets, if a run was trained by it."""
    given, (of_model, of_training) = config.flatten(record.experiment), config.fast_protocol(record.experiment.model.k)
    fast = {f"model.{name}": value for name, value in of_model.items()}
    fast |= {f"training.{name}": value for name, value in of_training.items()}
    return set(fast) if all(given[name] == value for name, value in fast.items()) else set()


def _paper(record: Record) -> dict[str, Any]:
    """The paper's parameters for the objective, k and depth of a run; for other depths than 1 and 2, its own sizes."""
    model, start = record.experiment.model, record.experiment.training.start_from
    own = {name: getattr(model, name) for name in ("k", "alpha", "groups", "mixture", "latent_units", "hidden_units")}
    changed = {"objective": record.objective, **own, **config.PAPER_NETWORKS.get(record.layers, {})}
    paper = config.flatten(config.Experiment("paper")) | {f"model.{name}": value for name, value in changed.items()}
    return paper if start is None else paper | _CONTINUATION


def _pixels_of_the_paper(record: Record) -> bool:
    return record.binarization == "stochastic" or record.experiment.data.name == "binarized_mnist"
