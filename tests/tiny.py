"""The experiment of the tests that want a whole run: digits, one epoch of few updates, a second or two."""

from pathlib import Path
from typing import Any

import iwae
from iwae import config

TINY = iwae.Experiment(
    name="tiny",
    seed=5,
    data=iwae.Data(name="digits", batch_size=100),
    model=iwae.Model(k=2, latent_units=(2,), hidden_units=((16,),)),
    training=iwae.Training(stages=1),
    evaluation=iwae.Evaluation(k=5, examples=20),
)


def experiment(results_dir: str | Path, **changes: Any) -> iwae.Experiment:
    return config.replace(TINY, {"results_dir": str(results_dir), **changes})
