"""The one place that knows a dataset. Another one is an entry below and a file with its parser.

The standard library only: the parameters import this when the program starts.
"""

import math
import pkgutil
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

Kind = Literal["binary", "grey", "continuous"]
ARRAYS = "arrays"  # as `data.name` has it: the data are handed over in Python


class DatasetError(ValueError):
    """A dataset that is missing or unusable; the message is one line."""


@dataclass(frozen=True)
class RemoteFile:
    """A file as upstream publishes it.

    Attributes:
        name: File name, the same in the cache, upstream and at a mirror.
        urls: Where to ask, best first.
        digest: Hexadecimal: SHA-256 (64 digits), or the git blob id (40 digits; SHA-1 of `blob <size>\\0` and the
            contents) where a git repository is the source.
        size: Bytes; None if not published: then an answer is cut after `at_most`.
    """

    name: str
    urls: tuple[str, ...]
    digest: str
    size: int | None = None
    at_most: int = 64_000_000

    @property
    def digest_name(self) -> str:
        """What `digest` is, for messages."""
        return "sha256" if len(self.digest) == 64 else "git blob id"


@dataclass(frozen=True)
class Entry:
    """A dataset.

    Attributes:
        name: As `data.name` has it.
        about: One line about it.
        parser: `module:name`, imported when the dataset is asked for. A function: the folder of `files` -> the arrays
            of a user's .npz (see `loading.load_dataset`); of synthetic data a `synthetic.Density`.
        kind: As in `loading.Dataset`.
        shape: Of an example: (height, width) of an image, else (D,).
        sizes: Examples in train, valid and test; None for synthetic data, which are drawn as many as wanted.
        files: What is downloaded; none for data that come with a package or are drawn.
        white: The largest pixel value where the parser gives integers.
    """

    name: str
    about: str
    parser: str
    kind: Kind
    shape: tuple[int, ...]
    sizes: tuple[int, int, int] | None = None
    files: tuple[RemoteFile, ...] = ()
    white: int = 255

    @property
    def dimension(self) -> int:
        """Numbers in an example, D."""
        return math.prod(self.shape)

    @property
    def synthetic(self) -> bool:
        """Whether examples are drawn from a known density."""
        return self.sizes is None


def named(text: str) -> Any:
    """What `module` or `module:name` names, imported now and not earlier: this drawer's one lazy door."""
    return pkgutil.resolve_name(text)


def _files(folders: Sequence[str], *rows: tuple[str, int | None, str]) -> tuple[RemoteFile, ...]:
    return tuple(RemoteFile(name, tuple(f + name for f in folders), digest, size) for name, size, digest in rows)


def _synthetic(name: str, dimension: int, about: str, density: str) -> Entry:
    about = f"synthetic, {dimension}-D: {about}"
    return Entry(name, about, f"iwae.data.synthetic:{density}", "continuous", (dimension,))


_MNIST = _files(
    ("https://storage.googleapis.com/cvdf-datasets/mnist/", "https://ossci-datasets.s3.amazonaws.com/mnist/"),
    ("train-images-idx3-ubyte.gz", 9912422, "440fcabf73cc546fa21475e81ea370265605f56be210a4024d2ca8f203523609"),
    ("train-labels-idx1-ubyte.gz", 28881, "3552534a0a558bbed6aed32b30c495cca23d567ec52cac8be1a0730e8010255c"),
    ("t10k-images-idx3-ubyte.gz", 1648877, "8d422c7b0a1c1c79245a5bcf07fe86e33eeafee792b84584aec276f5a2dbc4e6"),
    ("t10k-labels-idx1-ubyte.gz", 4542, "f7ae60f92e00ec6debd23a6088c31dbd2371eca3ffa0defaefb259924204aec6"),
)
_BINARIZED_MNIST = _files(
    ("http://www.cs.toronto.edu/~larocheh/public/datasets/binarized_mnist/",),
    ("binarized_mnist_train.amat", 78400000, "ad693b29f94c14277b095f5238ddefbbdaaae0939789dd2f4f0205278cee3e4d"),
    ("binarized_mnist_valid.amat", 15680000, "1de3d397c40fe8eeb33dafd4099a1f665ec01e96d9be234aaeeac8a34930e2e2"),
    ("binarized_mnist_test.amat", 15680000, "e6687bfea3f820c174f33b7865140b2a2dd2930ef786f35d45795fc193b5ab2c"),
)
_FASHION_MNIST = _files(
    (
        "http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/",
        "https://github.com/zalandoresearch/fashion-mnist/raw/master/data/fashion/",
    ),
    ("train-images-idx3-ubyte.gz", 26421880, "3aede38d61863908ad78613f6a32ed271626dd12800ba2636569512369268a84"),
    ("train-labels-idx1-ubyte.gz", 29515, "a04f17134ac03560a47e3764e11b92fc97de4d1bfaf8ba1a3aa29af54cc90845"),
    ("t10k-images-idx3-ubyte.gz", 4422102, "346e55b948d973a97e58d2351dde16a484bd415d4595297633bb08f03db6a073"),
    ("t10k-labels-idx1-ubyte.gz", 5148, "67da17c76eaffca5446c3361aaab5c3cd6d1c2608764d35dfb1850b086bf8dd5"),
)
_OMNIGLOT = _files(
    (
        "https://github.com/yburda/iwae/raw/master/datasets/OMNIGLOT/",
        "https://raw.githubusercontent.com/yburda/iwae/master/datasets/OMNIGLOT/",
    ),
    ("chardata.mat", None, "016a3536ffe5e1d38e42563a18d7a78bfaf643ec"),
)

_ENTRIES = (
    Entry(  # valid: the last training images, as in the authors' code
        "mnist", "28x28 handwritten digits, grey values", "iwae.data.mnist:parse", "grey", (28, 28),
        (59_600, 400, 10_000), _MNIST,
    ),
    Entry(
        "binarized_mnist", "MNIST with the fixed binarization of Larochelle & Murray",
        "iwae.data.mnist:parse_binarized", "binary", (28, 28), (50_000, 10_000, 10_000), _BINARIZED_MNIST, white=1,
    ),
    Entry(
        "fashion_mnist", "28x28 pictures of clothes, grey values", "iwae.data.mnist:parse", "grey", (28, 28),
        (59_600, 400, 10_000), _FASHION_MNIST,
    ),
    Entry(  # valid: the last after a fixed shuffle, as in the authors' code
        "omniglot", "28x28 handwritten characters of 50 alphabets, grey values", "iwae.data.omniglot:parse",
        "grey", (28, 28), (23_000, 1_345, 8_070), _OMNIGLOT,
    ),
    Entry(
        "digits", "8x8 handwritten digits that come with scikit-learn, no download", "iwae.data.digits:parse",
        "grey", (8, 8), (1_297, 200, 300), white=16,
    ),
    _synthetic("camel", 1, "two clusters that overlap", "CAMEL"),
    _synthetic("two_close_clusters", 1, "another name of camel", "CAMEL"),
    _synthetic("two_clusters", 1, "two clusters apart", "TWO_CLUSTERS"),
    _synthetic("linear2dim", 2, "a noisy line", "LINE"),
    _synthetic("simple_2_layers", 2, "four clusters", "FOUR_CLUSTERS"),
    _synthetic("circle", 2, "a noisy circle", "CIRCLE"),
)  # fmt: skip

CATALOGUE: dict[str, Entry] = {entry.name: entry for entry in _ENTRIES}
