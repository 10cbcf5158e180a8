"""The table of `hostile.py`: what is done to a command line, a folder or a file, and what must come of it."""

import io
import json
import os
import shutil
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from iwae.runs import checkpoints, log

Deed = Callable[[Path], object]
"""Does something to the folder of the run, `PLACE/results/tiny`."""


@dataclass(frozen=True)
class Case:
    """One case.

    Attributes:
        name: what is done.
        says: a pattern of the line it ends with; of any line, where it ends well.
        words: of the command line; "{place}" stands for the folder above `results`.
        deed: done to the run before.
        status: 0, 1 (a run that cannot go on), or 2 (a command that is refused).
        gone: patterns of the names, below the place, of files that it may change or remove; None: any.
        program: what is called with the words.
        trains: whether it trains, which takes seconds.
    """

    group: str
    name: str
    says: str
    words: str | Sequence[str] = ()
    deed: Deed = lambda folder: None
    status: int = 2
    gone: str | None = r"$^"
    program: str = "experiments.py"
    trains: bool = False


# ---- deeds ----


def edited(file: str, path: str, value: Any) -> Deed:
    """Puts a value at a dotted path of a JSON file; `DELETED` takes it away. Without a path: the whole content."""

    def deed(folder: Path) -> None:
        values = json.loads((folder / file).read_text())
        *parents, last = path.split(".") if path else [""]
        inner = values
        for name in parents:
            inner = inner[name]
        if value is DELETED:
            del inner[last]
        elif path:
            inner[last] = value
        (folder / file).write_text(json.dumps(values if path else value))

    return deed


DELETED = object()


def holds(file: str, content: bytes) -> Deed:
    """Puts other bytes into a file, which need not exist."""

    def deed(folder: Path) -> None:
        (folder / file).parent.mkdir(parents=True, exist_ok=True)
        (folder / file).write_bytes(content)

    return deed


def without(*names: str) -> Deed:
    def deed(folder: Path) -> None:
        for name in names:
            path = folder / name
            shutil.rmtree(path) if path.is_dir() else path.unlink()

    return deed


def a_folder(name: str) -> Deed:
    """A folder with a file in the place of a file."""

    def deed(folder: Path) -> None:
        (folder / name).unlink(missing_ok=True)
        (folder / name).mkdir()
        (folder / name / "mine").write_text("mine")

    return deed


def a_link(name: str, target: str) -> Deed:
    """A symbolic link in the place of a file or folder, whose content is moved to where it points."""

    def deed(folder: Path) -> None:
        path, there = folder / name, folder.parent.parent / target
        if os.path.lexists(path):
            path.rename(there)
        path.symlink_to(there)

    return deed


def both(*deeds: Deed) -> Deed:
    return lambda folder: [deed(folder) for deed in deeds]


untrained = without("model.weights.h5", "model.weights.h5.sha256")


def checkpoint(state: dict[str, Any] | None = None, arrays: dict[str, Any] | None = None, missing: str = "") -> Deed:
    """An unfinished run whose checkpoint has other contents and a right checksum; `missing` begins names of arrays."""

    def deed(folder: Path) -> None:
        untrained(folder)
        place = folder / "checkpoints"
        (path,) = place.glob("*.npz")
        with np.load(path) as file:
            values = {name: file[name] for name in file.files if not (missing and name.startswith(missing))}
        buffer = io.BytesIO()
        np.savez(buffer, **values | {name: np.asarray(value) for name, value in (arrays or {}).items()})
        record = json.loads(path.with_suffix(".json").read_text()) | (state or {})
        record = {name: value for name, value in record.items() if value is not DELETED}
        path.write_bytes(buffer.getvalue())
        record["sha256"] = checkpoints._checksum(buffer.getvalue(), record)
        path.with_suffix(".json").write_text(json.dumps(record))

    return deed


def a_dataset(**arrays: Any) -> Deed:
    """`PLACE/own.npz`, good but for `arrays`; None leaves one out."""

    def deed(folder: Path) -> None:
        good = {"x_train": np.eye(120, 16), "x_test": np.eye(30, 16)}
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            np.savez(folder.parent.parent / "own.npz", **{n: v for n, v in {**good, **arrays}.items() if v is not None})

    return deed


def nested(depth: int) -> bytes:
    return b"[" * depth + b"]" * depth


# ---- the table ----

HUGE = 10**400
ONE_LINE = r"^error: "

COMMANDS = (  # refused before anything is read or written
    ("model.k 5", "'model.k': expected an option"), ("-model.k 5", "-model.k: expected an option"),
    ("--model.k", "model.k: expected one value, got none"), ("--model.k 1 2", "model.k: expected one value, got '1 2'"),
    ("--model.k=", "model.k: expected an integer >= 1, got ''"), ("--", "expected an option that --help lists"),
    ("---", "expected an option"), ("--=", "expected an option"), ("--k 5", "did you mean '--model.k' or"),
    ("--model.kk 5", "did you mean '--model.k'"), ("--model 5", "expected an option"), ("--model. 5", "expected an op"),
    ("--model.k 0x5", "expected an integer >= 1, got '0x5'"), ("--model.k 5.", "expected an integer >= 1, got"),
    ("--model.k 1e3", "model.k: expected an integer"), ("--model.k nan", "expected an integer"),
    ("--model.k 9999999999", "the largest is 2147483647"), (f"--model.k {HUGE}", "model.k: expected an integer"),
    ("--model.k " + "9" * 5000, "model.k: expected an integer"), ("--seed -1", "seed: expected an integer from 0"),
    ("--seed true", "seed: expected"), ("--training.learning-rate 1e-30", "training.learning_rate: expected a number"),
    ("--training.learning-rate inf", "it must be finite"), ("--training.learning-rate 1e39", "finite in float32"),
    ("--training.beta-2 0.99999999999", "beta_2: expected a number >= 0 and < 1"),
    ("--model.objective vae --model.beta 1e300", "model.beta: expected a number >= 0"),
    ("--model.latent-units", "model.latent_units: expected"), ("--model.latent-units none", "model.latent_units"),
    ("--model.latent-units 2,", r"latent_units\[1\]: expected"), ("--model.hidden-units 16/16", "hidden_units"),
    ("--model.hidden-units 16 16", "model.hidden_units: expected"), ("--tasks", "tasks: expected a list of at least"),
    ("--tasks train,train", "no repeats"), ("--tasks rm", r"tasks\[0\]: expected one of"),
    ("--name ../x", "name: expected a name"), ("--name .", "name: expected a name"), ("--name a/b", "name: expected"),
    ("--name -x", "-x: expected an option"), ("--results-dir ~nosuchuser/x", "results_dir: expected a path, where ~"),
    ("--data.name ~nosuchuser/x.npz", "data.name: expected"), ("--data.name x.txt", "data.name: expected"),
    ("--training.start-from {place}/results/tiny", "training.start_from: expected"),
    ("--training.start-from {place}/./results/../results/tiny --overwrite", "training.start_from: expected"),
    ("--training.milestones 3", "it belongs to 'multistep'"), ("--training.gamma 0.5", "it belongs to 'multistep'"),
    ("--training.early-stopping-threshold 1", "without training.early_stopping_patience"),
    ("--training.schedule cosine", "training.epochs: expected an integer >= 1"),
    ("--preset", "preset: expected a name"),
    ("--preset tabel2", "preset: expected a name that --list prints, got 'tabel2' .did you mean 'table2'"),
    ("--preset table2 --name x", "name: expected none with 4 presets"), ("--grid", "grid: expected a parameter"),
    ("--grid model.k", "grid: expected a parameter and its values"), ("--grid seed 1 1", "values that differ"),
    ("--grid name a b", "grid: expected a parameter other than name"), ("--grid model.k 1 0", "model.k: expected"),
    ("--grid model.kk 1 2", "grid: expected the name of a parameter"), ("--grid seed 1 2 --seed 3", "seed twice"),
    ("--file {place}/none.py", "file: "), ("--file {place}", "file: "), ("--preset table2 --file x", "got both"),
    ("--overwrite maybe", "overwrite: expected True or False"), ("--evaluation.k 0", "evaluation.k: expected"),
    ("--data.path ~nosuchuser", "data.path: expected"),
    ("--tasks plot --evaluation.posterior-inputs 99999", "posterior_inputs: "),
    ("--name new --data.batch-size 100000", "batch_size: expected at most the"), ("--model.k 3", "model.k was 2, is 3"),
    ("--seed 6", "seed was 5, is 6"),
    ("--model.k 3 --accept-changes", "model.k was 2, is 3"), ("--training.epsilon 1 --accept-changes", "epsilon was"),
    ("--overwrite --data.batch-size 100000", "data.batch_size: expected at most"),
)  # fmt: skip
WORDS = (  # what a shell passes but a line here cannot hold
    (["--name", ""], "name: expected a name"), (["--name", "a\nb"], "name: expected"), (["--name", " "], "name: exp"),
    (["--name", "x" * 300], "name: expected"), (["--name", "\udcff"], "name: expected"), ([""], "'': expected an opt"),
    (["--results-dir", ""], "results_dir: expected"), (["--\u00e9"], "expected an option"),
    ([" --model.k", "5"], "exp"),
    (["--model.k", "\u0665\u0665 "], "model.k was 2, is 55"), (["--data.path", " "], "data.path: expected"),
    (["--training.start-from", "nul\0l"], "start_from: expected"), (["--model.k\n", "5"], "expected an option"),
)  # fmt: skip
CANNOT_GO_ON = (  # commands that are understood
    ("--data.name mnist --data.path {place}/none --name new", "mnist: .*train-images.* is missing; run: python data"),
    ("--tasks train evaluate plot --data.name {place}/none.npz --name new", "none.npz: no such file"),
    ("--tasks evaluate --name new", "expected the weights of a finished training, found none; add 'train' to tasks"),
    ("--name new --training.start-from {place}/none", "experiment.json: expected the parameters of a run, found none"),
    ("--overwrite --training.start-from {place}/none", "experiment.json: expected the parameters of a run, found none"),
    ("--overwrite --data.name mnist --data.path {place}/none", "is missing; run: python datasets_download.py"),
    ("--overwrite --tasks evaluate", "expected the weights of a finished training"),
    ("--results-dir {place}/results/tiny/log.csv", "expected a folder that can be written, got: Not a directory"),
    ("--results-dir /proc/none --name new", "expected a folder that can be written, got: "),
    ("--results-dir /dev/null --name new", "expected a folder that can be written, got: "),
)

WEIRD: dict[str, Any] = {"null": None, "a list": [], "a text": "x", "10^400": HUGE, "nested": json.loads(nested(99))}
IN_PARAMETERS = ("", "seed", "tasks", "model", "model.k", "model.latent_units", "training.learning_rate", "data.name")
IN_EVALUATION = ("", "test", "test.nll", "test.k", "test.active_units", "test.examples")
BYTES = {
    "no JSON": b'{"name": "ti', "no UTF-8": b"\xff\xfe{", "empty": b"", "NaN": b'{"seed": NaN}',
    "deep": nested(100_000),
    "5,000 digits": b'{"seed": ' + b"9" * 5000 + b"}", "half a surrogate": b'{"name": "\\ud800"}', "a list": b"[1]",
    "a key twice": b'{"seed": 5, "seed": "x"}', "an unknown key": b'{"sed": 5}', "NULs": bytes(100),
}  # fmt: skip
ANEW = r"evaluation\.json|likelihoods\.npz|experiment\.json"  # written again
TRAINED = r"results/tiny/"


def run_files() -> Iterator[Case]:
    """Edited and damaged files of a finished run."""
    for path in IN_PARAMETERS:
        for what, value in WEIRD.items():
            if (path, what) in {("data.name", "a text"), ("", "10^400")}:
                continue
            says = "was .*, is|expected"
            yield Case(
                "experiment.json",
                f"{path or 'all'}: {what}",
                says,
                deed=edited("experiment.json", path, value),
                status=1,
            )
    for what, content in BYTES.items():
        deed = holds("experiment.json", content)
        yield Case("experiment.json", what, r"experiment\.json: .*expected", deed=deed, status=1)
    for what, value in WEIRD.items():
        deed = edited("experiment.json", "environment", value)
        yield Case("experiment.json", f"environment: {what}", "NLL", deed=deed, status=0, gone=ANEW)
    for name in ("stretches", "changed_parameters", "device", "dataset_fingerprint"):
        deed = both(untrained, edited("experiment.json", f"environment.{name}", HUGE))
        well = name != "dataset_fingerprint"
        says = "NLL" if well else "expected the data that the run was trained on"
        words = "" if name != "changed_parameters" else "--training.epsilon 1e-3 --accept-changes"
        yield Case(
            "experiment.json", f"{name}: 10^400, training goes on", says, words, deed, 0 if well else 1,
            TRAINED if well else r"$^", trains=well,
        )  # fmt: skip
    said = r"evaluation\.json: .*expected"
    for path in IN_EVALUATION:
        for what, value in WEIRD.items():
            deed = edited("evaluation.json", path, value)
            yield Case("evaluation.json", f"{path or 'all'}: {what}", said, "--tasks train", deed, 1)
    for what, content in BYTES.items():
        yield Case("evaluation.json", what, said, "--tasks train", holds("evaluation.json", content), 1)
    for path in ("test.nll", "test.active_units"):
        yield Case("evaluation.json", f"no {path}", said, "--tasks train", edited("evaluation.json", path, DELETED), 1)
    for what, deed in {
        "test.nll: null": edited("evaluation.json", "test.nll", None), "no JSON": holds("evaluation.json", b"{"),
        "of other weights": edited("evaluation.json", "test.weights_sha256", "0" * 64),
        "weights_sha256: null": edited("evaluation.json", "test.weights_sha256", None),
    }.items():  # fmt: skip
        yield Case("evaluation.json", f"{what}, evaluated again", "NLL 27", "", deed, 0, ANEW, trains=True)
    words, status = "--results_dir {place}/results", 0
    for file in ("experiment.json", "evaluation.json", "log.csv"):
        for what, content in BYTES.items():
            if (file, what) != ("evaluation.json", "a key twice"):
                deed = holds(file, content)
                says = r"left out: .*expected|error: .*expected|tiny"
                yield Case("report", f"{file}: {what}", says, words, deed, status, program="iwae.report")
    for what, value in WEIRD.items():
        deed = edited("evaluation.json", "test.nll", value)
        yield Case(
            "report", f"nll: {what}", "left out: .*nll: expected a nu", words, deed, program="iwae.report", status=0
        )
        for path in ("bounds", "effective_sample_size", "pareto_k", "ais", "snr", "k"):
            deed = edited("evaluation.json", f"test.{path}", value)
            yield Case("report", f"{path}: {what}", "tiny", words, deed, program="iwae.report", status=0)
    for what, line in {
        "no number": "1,13,x,1,1,1,1", "too few": "1,13,1", "10^400": f"{HUGE},13,1,1,1,1,1", "nan": "nan,1,1,1,1,1,1",
        "infinite": "1,inf,1,1,1,1,1", "negative": "-1,13,1,-1,-1,1,1",
    }.items():  # fmt: skip
        deed = holds("log.csv", f"{','.join(log.COLUMNS)}\n{line}\n".encode())
        says = "left out: .*7 numbers in line 2|left out.*epoch|tiny"
        yield Case("report", f"log.csv: {what}", says, words, deed, program="iwae.report", status=0)


def checkpoint_files() -> Iterator[Case]:
    """Checkpoints with a right checksum that make no sense: an unfinished run must not go on from them."""
    states: dict[str, tuple[str, Any]] = {
        f"{name}: {what}": (name, value)
        for name in ("epoch", "update", "seconds", "waited", "stopped", "best", "updates")
        for what, value in {"a text": "x", "a list": [], "10^400": HUGE, "negative": -1, "missing": DELETED}.items()
        if (name, what) not in {("best", "negative"), ("best", "10^400")}
    }
    for what, (name, value) in states.items():
        yield Case("checkpoint", what, r"all damaged", "", checkpoint({name: value}), 1)
    for what, state in {"format 1": {"format": 1}, "another run": {"run": "x"}, "no run": {"run": DELETED}}.items():
        yield Case("checkpoint", what, "expected a checkpoint of", "", checkpoint(state), 1)
    for what, deed in {
        "no log": checkpoint(missing="log"), "no model": checkpoint(missing="model/"),
        "no optimizer": checkpoint(missing="optimizer/"),
        "log of texts": checkpoint(arrays={"log": ["x"]}), "log of two columns": checkpoint(arrays={"log": [[1, 2]]}),
        "log of two epochs": checkpoint(arrays={"log": np.zeros((2, 7))}),
        "log not finite": checkpoint(arrays={"log": np.full((1, 7), np.inf)}),
        "one variable more": checkpoint(arrays={"model/x": 1.0}),
    }.items():  # fmt: skip
        says = "all damaged|checkpoint of this model, got one that does not fit"
        yield Case("checkpoint", what, says, "", deed, 1, ANEW if "variable" in what or "no " in what else r"$^")
    for what, content in {"empty": b"", "no JSON": b"{", "a list": b"[]", "deep": nested(100_000)}.items():
        deed = both(untrained, holds("checkpoints/0000000013.json", content))
        yield Case("checkpoint", f".json: {what}", "all damaged", "", deed, 1)
    for what, content in {"empty": b"", "no zip": b"x" * 99}.items():
        deed = both(untrained, holds("checkpoints/0000000013.npz", content))
        yield Case("checkpoint", f".npz: {what}", "all damaged", "", deed, 1)


def folders() -> Iterator[Case]:
    """Strays, links and lost files in the folder of a run."""
    strays = (
        ".depart",
        ".part",
        "part_two",
        ".experiment.json.part",
        "experiment.json.99-0123abcd.part",
        "x.part/deep",
    )
    strays += ("checkpoints/99999999999.json", "checkpoints/zzz.npz", "checkpoints/.depart", "plots/mine.txt")
    deed = both(*(holds(name, b"mine") for name in strays))
    yield Case("folder", "strays, nothing to do", "NLL", "", deed, 0, gone="experiment.json")
    yield Case(
        "folder", "strays, trained again", "NLL", "", both(untrained, deed), 0, trains=True,
        gone=r"(experiment\.json|evaluation\.json|log\.csv|\d{10}\.\w+|likelihoods\.npz)$",
    )  # fmt: skip
    yield Case("folder", "strays, refused", "model.k was 2, is 3", "--model.k 3", deed)
    dead = holds(".experiment.json.99-0123abcd.part", b"half")
    yield Case("folder", "left by a killed process", "NLL", "", dead, 0, gone=r"experiment\.json")
    yield Case(
        "folder", "overwrite with strays", "NLL", "--overwrite", deed, 0, trains=True,
        gone=r"tiny/(experiment|evaluation|log|likelihoods|model|checkpoints|tensorboard|plots)",
    )  # fmt: skip
    for name in (
        "experiment.json",
        "evaluation.json",
        "log.csv",
        "model.weights.h5",
        "model.weights.h5.sha256",
        ".lock",
    ):
        says = "made anew|NLL" if name in ("log.csv",) else r"expected|Is a directory"
        status = 0 if name == "log.csv" else 1
        yield Case(
            "folder",
            f"{name} is a folder",
            says,
            "",
            a_folder(name),
            status,
            "experiment.json" if not status else r"$^",
        )
    for name in ("experiment.json", "evaluation.json", "log.csv", "model.weights.h5", "checkpoints", "plots"):
        deed = both(lambda folder: (folder / "plots").mkdir(exist_ok=True), a_link(name, "elsewhere"))
        yield Case("folder", f"{name} is a link", "NLL", "", deed, 0, gone="tiny/experiment.json")
        deed = both(deed, lambda folder: (folder.parent.parent / "mine").write_text("mine"))
        yield Case(
            "folder", f"{name} is a link, overwritten", "NLL", "--overwrite", deed, 0, "results/tiny/", trains=True
        )
    yield Case("folder", ".lock is a link", "expected a folder that can be written", "", a_link(".lock", "mine"), 1)
    yield Case("folder", "the folder is a link", "NLL", "", lambda folder: a_link("tiny", "there")(folder.parent), 0,
        gone=r"experiment\.json")  # fmt: skip
    yield Case("folder", "a link to itself", "expected a folder", "--name loop",
        lambda folder: (folder.parent / "loop").symlink_to("loop"), 1)  # fmt: skip
    for names in (("experiment.json",), ("experiment.json", "model.weights.h5"), ("experiment.json", "checkpoints")):
        deed = without(*names)
        for words in ("", "--seed 77"):
            what, says = f"without {', '.join(names)} {words}", "expected the parameters of the run whose"
            yield Case("folder", what, says, words, deed, 1)
    yield Case(
        "folder", "without experiment.json, overwritten", "NLL", "--overwrite", without("experiment.json"), 0,
        "results/tiny/", trains=True,
    )  # fmt: skip
    yield Case("folder", "without model.weights.h5, only evaluated", "expected the weights of a finished training",
        "--tasks evaluate", without("model.weights.h5"), 1)  # fmt: skip
    yield Case("folder", "without checkpoints", "NLL", "", without("checkpoints"), 0, "experiment.json")
    yield Case("folder", "trained longer", "NLL", "--training.stages 2", status=0, gone="results/tiny/", trains=True)
    yield Case("folder", "a foreign folder, overwritten", "NLL", "--overwrite --name thesis", status=0, trains=True,
        deed=lambda folder: holds("thesis/chapter1.tex", b"mine")(folder.parent))  # fmt: skip
    yield Case("folder", "a run within a run", "NLL", "--overwrite", status=0, gone="results/tiny/[^n]", trains=True,
        deed=lambda folder: shutil.copytree(folder, folder / "nested"))  # fmt: skip
    for what, content in {"other bytes": b"x" * 999, "empty": b"", "no HDF5, without a checksum": b"x"}.items():
        deed = both(holds("model.weights.h5", content), without("checkpoints"))
        if "without" in what:
            deed = both(deed, without("model.weights.h5.sha256"))
        yield Case(
            "folder",
            f"model.weights.h5: {what}",
            r"weights\.h5: expected the (bytes|weights)",
            "--tasks evaluate",
            deed,
            1,
        )
    for what, content in {"another": b"0" * 64, "empty": b"", "no text": b"\xff" * 70}.items():
        deed = both(holds("model.weights.h5.sha256", content), without("checkpoints"))
        yield Case("folder", f"model.weights.h5.sha256: {what}", "expected the bytes that were written", "", deed, 1)


def datasets() -> Iterator[Case]:
    """A user's own file."""
    words = "--name new --data.name {place}/own.npz --data.batch-size 10 --data.binarization none"
    refused: dict[str, Deed] = {
        "no zip": lambda folder: (folder.parent.parent / "own.npz").write_bytes(b"x"),
        "empty": lambda folder: (folder.parent.parent / "own.npz").write_bytes(b""),
        "a folder": lambda folder: (folder.parent.parent / "own.npz").mkdir(),
        "missing": lambda folder: None,
        "a link to itself": lambda folder: (folder.parent.parent / "own.npz").symlink_to("own.npz"),
        "a device": lambda folder: (folder.parent.parent / "own.npz").symlink_to("/dev/null"),
        "no x_train": a_dataset(x_train=None), "no x_test": a_dataset(x_test=None), "text": a_dataset(x_train=["a"]),
        "objects": a_dataset(x_train=np.array([{}], object)), "complex": a_dataset(x_train=np.eye(120, 16) * 1j),
        "NaN": a_dataset(x_train=np.full((120, 16), np.nan)), "infinite": a_dataset(x_test=np.full((9, 16), np.inf)),
        "beyond float32": a_dataset(x_test=np.full((9, 16), 1e300)), "negative": a_dataset(x_test=-np.eye(9, 16)),
        "1.0000001": a_dataset(x_test=np.full((9, 16), 1.0000001)), "256": a_dataset(x_test=np.full((9, 16), 256)),
        "one dimension": a_dataset(x_train=np.zeros(16)), "four": a_dataset(x_train=np.zeros((9, 4, 2, 2))),
        "a number": a_dataset(x_train=1.0), "no examples": a_dataset(x_train=np.zeros((0, 16))),
        "no pixels": a_dataset(x_train=np.zeros((9, 0)), x_test=np.zeros((9, 0))), "dates": a_dataset(
            x_train=np.zeros((9, 16), "M8[s]")), "fields": a_dataset(x_train=np.zeros(9, [("a", "f4")])),
        "another size in x_test": a_dataset(x_test=np.eye(9, 17)), "x_valid empty": a_dataset(x_valid=np.eye(0, 16)),
        "labels of floats": a_dataset(y_train=np.zeros(120)), "labels too few": a_dataset(y_test=np.zeros(2, int)),
        "labels without images": a_dataset(y_valid=np.zeros(2, int)), "one example": a_dataset(x_train=np.eye(1, 16)),
        "fewer than a batch": a_dataset(x_train=np.eye(9, 16)),
    }  # fmt: skip
    for what, deed in refused.items():
        yield Case("dataset", what, r"own\.npz|batch_size: expected at most", words, deed)
    yield Case("dataset", "bytes, labels, more arrays", "NLL", words, status=0, trains=True, deed=a_dataset(
        x_train=np.eye(120, 16, dtype="u1") * 255, y_train=np.arange(120) - 60, other=np.array([{}],
        object)))  # fmt: skip
    yield Case("dataset", "Fortran order, big end first", "NLL", words, status=0, trains=True,
        deed=a_dataset(x_train=np.asfortranarray(np.eye(120, 16, dtype=">f8"))))  # fmt: skip


def others() -> Iterator[Case]:
    for words, says in (
        ("nosuch", "expected|invalid choice"), ("--data-dir ~nosuchuser/x mnist", "home folder"),
        ("--nosuch", "unrecog"),
        ("--timeout 1e10 mnist", "timeout"), ("--timeout nan mnist", "timeout"), ("--timeout 0 mnist", "timeout"),
        ("--mirror ftp://x mnist", "mirror"),
    ):  # fmt: skip
        yield Case("download", words, says, words, program="datasets_download.py", status=2)
    for words, says in (
        ("--results_dir {place}/none", "expected a folder of runs"), ("--results_dir {place}", "expected at least one"),
        ("{place}/none", "left out|error"), ("{place}/results/tiny --curves {place}/x.nosuch", "x.nosuch: expected"),
        ("{place}/results/tiny --curves {place}/none/x.png", "No such file"), ("--nosuch", "unrecognized"),
        ("{place}/results/tiny --readme {place}/none", "expected a file that can be read"),
    ):  # fmt: skip
        yield Case("report", words, says, words, program="iwae.report", status=0 if says == "left out|error" else 2)


def cases() -> list[Case]:
    """All of them."""
    return [
        *(Case("command line", words[:60], ONE_LINE + f".*{says}", words) for words, says in COMMANDS),
        *(Case("command line", str(words)[:60], ONE_LINE + f".*{says}", words) for words, says in WORDS),
        *(
            Case("command", words, ONE_LINE + f".*{says}", words, status=2 if "--data.name" in words else 1)
            for words, says in CANNOT_GO_ON
        ),
        *run_files(),
        *checkpoint_files(),
        *folders(),
        *datasets(),
        *others(),
    ]
