"""A run with all that belongs to it."""

import dataclasses
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from iwae.config import Experiment
from iwae.data import loading
from iwae.runs.folder import Folder

if TYPE_CHECKING:
    from iwae.model import IWAE


@dataclass(frozen=True)
class Run:
    """A run: parameters, folder, data, model, and what was measured.

    `evaluation` is the content of evaluation.json, {} before there is one.
    """

    experiment: Experiment
    folder: Folder
    dataset: loading.Dataset
    model: "IWAE"
    evaluation: dict[str, Any]

    def images(self, split: str) -> np.ndarray:
        """The images [n, D] of a split as the model is given them: binarized once, if they are to be."""
        return prepared_images(self.dataset, split, self.experiment)

    @property
    def title(self) -> str:
        """Run, dataset, objective and k, for the titles of figures."""
        model = self.experiment.model
        return f"{self.experiment.name} ({self.dataset.name}, {model.objective.upper()}, k = {model.k})"

    def with_evaluation(self, evaluation: dict[str, Any]) -> "Run":
        """The run with another evaluation, which is written to its folder."""
        self.folder.write_evaluation(evaluation)
        return dataclasses.replace(self, evaluation=evaluation)

    def summary(self) -> str:
        """What the run gave, in a few lines for the terminal."""
        lines = [f"{self.title}: {self.folder}"]
        for split, values in self.evaluation.items():
            active = "+".join(str(units) for units in values["active_units"])
            digits = 3 if "true_log_likelihood" in values else 2
            lines.append(
                f"  {split}: NLL {values['nll']:.{digits}f} +- {values['nll_stderr']:.{digits}f} nats "
                f"(L_{values['k']}, {values['examples']} examples), active units {active}"
            )
            if "true_log_likelihood" in values:
                lines.append(
                    f"  {split}: the true density gives {-values['true_log_likelihood']:.3f} nats on the same data"
                )
        plots = sorted(self.folder.plots.glob("*.png"))
        if plots:
            lines.append(f"  {len(plots)} plots in {self.folder.plots}")
        return "\n".join(lines)


_SEEDS = {"valid": (1509, 519, 1), "test": (1509, 519, 2)}  # of binarizations; any numbers would do


def prepared_images(dataset: loading.Dataset, split: str, experiment: Experiment) -> np.ndarray:
    """The images [n, D] of a split with the binarization of the experiment; stochastic becomes one fixed draw.

    That of the validation and test images is the same for all experiments, whose results can so be compared.
    """
    how, seed = experiment.data.binarization, _SEEDS.get(split, experiment.seed)
    return loading.binarize(getattr(dataset, split), "fixed" if how == "stochastic" else how, seed)
