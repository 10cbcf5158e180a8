"""Variational and importance weighted autoencoders (Burda, Grosse & Salakhutdinov 2015) in TensorFlow and Keras."""

import importlib

from iwae import device
from iwae.config import ConfigError, Data, Evaluation, Experiment, Model, Training

__version__ = "0.1.0"
__all__ = [
    "ConfigError", "Data", "Evaluation", "Experiment", "IWAE", "Model", "RunError", "Training", "bounds",
    "load_dataset", "load_run", "run",
]  # fmt: skip

# Imported when first used, so that `import iwae` does not wait for TensorFlow.
_LAZY = {"run": ("iwae.experiment", "run"), "load_run": ("iwae.experiment", "load_run"), "RunError": ("iwae.runs.folder", "RunError"), "IWAE": ("iwae.model", "IWAE"), "load_dataset": ("iwae.data.loading", "load_dataset")}


def __getattr__(name: str):
    if name in _LAZY:
        if name in ("IWAE", "run", "load_run"):
            device.start_tensorflow()
        module, attribute = _LAZY[name]
        return getattr(importlib.import_module(module), attribute)
    if name == "bounds":
        return importlib.import_module("iwae.bounds")
    raise AttributeError(f"module 'iwae' has no attribute {name!r}")
