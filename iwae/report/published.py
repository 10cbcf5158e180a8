"""What runs are set beside, as data: the paper's numbers and sizes, the predecessor's, and a second implementation's.

NLL on the test set by L_5000, in nats, and active units. Nothing is imported here, so that anyone may read it.
"""

from typing import Any, NamedTuple


class Published(NamedTuple):
    """A published value and the active units beside it, "" where none are given."""

    nll: float
    active_units: str = ""

    def __str__(self) -> str:
        return f"{self.nll:.2f}" + (f" ({self.active_units})" if self.active_units else "")


Cell = tuple[str, str, int, int]
"""Dataset, objective, k and number of stochastic layers."""

SOURCES = (
    "Published values: Burda, Grosse & Salakhutdinov, Importance Weighted Autoencoders, ICLR 2016 (arXiv:1509.00519), "
    "tables 1 and 2 and the appendix on fixed binarization; for `camel` the report of the PyTorch predecessor."
)
SECOND_SOURCE = (
    "nbip/IWAE (github.com/nbip/IWAE): a second implementation of the paper, in TensorFlow 2, with 100 latent units "
    "where the paper's one-layer models have 50."
)

# Table 1: layers, k, then MNIST VAE, MNIST IWAE, OMNIGLOT VAE, OMNIGLOT IWAE.
_TABLE_1 = """
1  1   86.76 19    86.76 19    108.11 28    108.11 28
1  5   86.47 20    85.54 22    107.62 28    106.12 34
1  50  86.35 20    84.78 25    107.80 28    104.67 41
2  1   85.33 16+5  85.33 16+5  107.58 28+4  107.56 30+5
2  5   85.01 17+5  83.89 21+5  106.31 30+5  104.79 38+6
2  50  84.78 17+5  82.90 26+7  106.30 30+5  103.38 44+7
"""
# Appendix, fixed binarization: layers, objective, k.
_FIXED = """
1 vae  1   88.71 19
1 iwae 5   87.63 22
1 iwae 50  87.10 24
2 vae  1   88.08 16+5
2 iwae 5   86.17 21+5
2 iwae 50  85.32 24+7
"""
# nbip/IWAE, MNIST: layers, objective, then k = 1, 5, 50.
_SECOND = """
1 vae   86.35  86.10  86.06
1 iwae  86.35  85.18  84.59
2 vae   84.83  84.08  83.89
2 iwae  84.83  83.48  82.82
"""


def _cells() -> dict[Cell, Published]:
    cells = {}
    for line in _TABLE_1.strip().splitlines():
        layers, k, *values = line.split()
        columns = [(data, objective) for data in ("mnist", "omniglot") for objective in ("vae", "iwae")]
        for (data, objective), nll, active in zip(columns, values[::2], values[1::2], strict=True):
            cells[data, objective, int(k), int(layers)] = Published(float(nll), active)
    for line in _FIXED.strip().splitlines():
        layers, objective, k, nll, active = line.split()
        cells["binarized_mnist", objective, int(k), int(layers)] = Published(float(nll), active)
    return cells


def _second() -> dict[Cell, Published]:
    cells = {}
    for line in _SECOND.strip().splitlines():
        layers, objective, *values = line.split()
        for k, nll in zip((1, 5, 50), values, strict=True):
            cells["mnist", objective, k, int(layers)] = Published(float(nll))
    return cells


CELLS = _cells()
"""Table 1 and the appendix."""

SECOND = _second()
"""nbip/IWAE."""

CONTINUED = {("vae", 1, "iwae", 50): Published(84.88, "22"), ("iwae", 50, "vae", 1): Published(86.02, "23")}
"""Table 2, MNIST, one layer: by objective and k of the first run and of its continuation."""

CAMEL = {"vae": Published(1.52), "iwae": Published(1.37)}
"""The PyTorch predecessor's report; its IWAE has k = 20."""

# ---- the paper's protocol, where it is not the default of `iwae.config` ----

SIZES: dict[int, dict[str, Any]] = {
    1: {"latent_units": (50,), "hidden_units": ((200, 200),)},
    2: {"latent_units": (100, 50), "hidden_units": ((200, 200), (100, 100))},
}
"""The paper's networks by their number of stochastic layers, from the data upwards."""

STAGES = 8
"""Stages of the paper's schedule; stage i has 3^i passes over the data."""

PASSES = (3**STAGES - 1) // 2
CONTINUED_PASSES = 3 ** (STAGES - 1)
"""Passes of a continuation (table 2): those of the last stage, at its learning rate."""

CONTINUED_TRAINING: dict[str, Any] = {"schedule": "constant", "learning_rate": 1e-4, "epochs": CONTINUED_PASSES}

TEST_EXAMPLES = {"mnist": 10_000, "binarized_mnist": 10_000, "omniglot": 8_070}
NAMES = {"mnist": "MNIST", "omniglot": "OMNIGLOT", "binarized_mnist": "MNIST"}
"""The datasets as the paper writes them."""
