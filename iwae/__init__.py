"""Variational and importance weighted autoencoders (Burda, Grosse & Salakhutdinov 2015) in TensorFlow and Keras."""

import importlib
from typing import Any

from iwae import device
from iwae.config import Data, Evaluation, Experiment, Model, Training
from iwae.sections import ConfigError, RunError

__version__ = "0.1.0"
__all__ = [
    "ConditionalIWAE", "ConfigError", "Data", "Evaluation", "Experiment", "IWAE", "Model", "RunError", "Training",
    "bounds", "load_dataset", "load_run", "run", "verbs",
]  # fmt: skip

# Imported when first used, so that `import iwae` waits neither for TensorFlow nor for NumPy: where, and the name there.
_LAZY = {
    "IWAE": ("iwae.model", "IWAE"),
    "ConditionalIWAE": ("iwae.conditional", "ConditionalIWAE"),
    "bounds": ("iwae.bounds", None),
    "load_dataset": ("iwae.data.loading", "load_dataset"),
    "load_run": ("iwae.experiment", "load_run"),
    "run": ("iwae.experiment", "run"),
    "verbs": ("iwae.verbs", None),
}
_WITH_TENSORFLOW = ("IWAE", "ConditionalIWAE", "bounds", "load_run", "run", "verbs")


def __getattr__(name: str) -> Any:
    if name not in _LAZY:
        raise AttributeError(f"module 'iwae' has no attribute {name!r}")
    if name in _WITH_TENSORFLOW:
        device.start_tensorflow(begin=name != "bounds")  # with which experiments.py registers a bound of one's own
    module, attribute = _LAZY[name]
    found = importlib.import_module(module)
    return found if attribute is None else getattr(found, attribute)
