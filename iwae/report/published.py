"""What runs are set beside, as data: the paper's numbers, the predecessor's, and a second implementation's.

NLL on the test set by L_5000, in nats, and active units. Nothing is imported here, so that anyone may read it.
"""

from typing import NamedTuple


class Published(NamedTuple):
    """A published value and the active units beside it, "" where none are given."""

    nll: float
    active_units: str = ""

    def __str__(self) -> str:
        return f"{self.nll:.2f}" + (f" ({self.active_units})" if self.active_units else "")


Cell = tuple[str, str, int, int]
"""Dataset, objective, k and number of stochastic layers."""

PAPER = "Burda, Grosse & Salakhutdinov, Importance Weighted Autoencoders, ICLR 2016 (arXiv:1509.00519)"
SECOND_SOURCE = (
    "nbip/IWAE (github.com/nbip/IWAE): a second implementation of the paper, in TensorFlow 2, with 100 latent units "
    "where the paper's one-layer models have 50."
)

# Table 1 and the appendix on fixed binarization: dataset, layers, objective, then NLL/active units for k = 1, 5, 50.
_PAPER = """
mnist            1  vae    86.76/19     86.47/20     86.35/20
mnist            1  iwae   86.76/19     85.54/22     84.78/25
mnist            2  vae    85.33/16+5   85.01/17+5   84.78/17+5
mnist            2  iwae   85.33/16+5   83.89/21+5   82.90/26+7
omniglot         1  vae   108.11/28    107.62/28    107.80/28
omniglot         1  iwae  108.11/28    106.12/34    104.67/41
omniglot         2  vae   107.58/28+4  106.31/30+5  106.30/30+5
omniglot         2  iwae  107.56/30+5  104.79/38+6  103.38/44+7
binarized_mnist  1  vae    88.71/19       -            -
binarized_mnist  1  iwae     -          87.63/22     87.10/24
binarized_mnist  2  vae    88.08/16+5     -            -
binarized_mnist  2  iwae     -          86.17/21+5   85.32/24+7
"""
_SECOND = """
mnist            1  vae    86.35        86.10        86.06
mnist            1  iwae   86.35        85.18        84.59
mnist            2  vae    84.83        84.08        83.89
mnist            2  iwae   84.83        83.48        82.82
"""


def _cells(text: str) -> dict[Cell, Published]:
    cells = {}
    for line in text.strip().splitlines():
        data, layers, objective, *values = line.split()
        for k, value in zip((1, 5, 50), values, strict=True):
            nll, _, active_units = value.partition("/")
            if nll != "-":
                cells[data, objective, k, int(layers)] = Published(float(nll), active_units)
    return cells


CELLS = _cells(_PAPER)
"""Table 1 of the paper, and its appendix on fixed binarization."""

SECOND = _cells(_SECOND)
"""nbip/IWAE."""

CONTINUED = {("vae", 1, "iwae", 50): Published(84.88, "22"), ("iwae", 50, "vae", 1): Published(86.02, "23")}
"""Table 2, MNIST, one layer: by objective and k of the first run and of its continuation."""

CAMEL = {"vae": Published(1.52), "iwae": Published(1.37)}
"""The PyTorch predecessor's report; its IWAE has k = 20."""

TEST_EXAMPLES = {"mnist": 10_000, "binarized_mnist": 10_000, "omniglot": 8_070}
NAMES = {"mnist": "MNIST", "omniglot": "OMNIGLOT", "binarized_mnist": "MNIST"}
"""The datasets as the paper writes them."""
