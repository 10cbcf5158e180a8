"""What XLA makes of a training step: the instructions of the loop's body, each of which is a kernel on a GPU."""

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any

import tensorflow as tf

from iwae import hardware
from iwae.benchmark import timing
from iwae.benchmark.cases import Case, updates_at_once

KINDS = ("fusions", "products", "random", "copies", "others")
_INSTRUCTION = re.compile(r"^ +(?:ROOT )?%?[\w.-]+ = (?:\(.*?\)|\S+) ([\w-]+)\((?=[%)\w])", re.MULTILINE)
# They only say where numbers lie: nothing is run for them.
_FREE = {"parameter", "constant", "tuple", "get-tuple-element", "bitcast", "after-all"}


def optimized_program(case: Case) -> str:
    """The text of the training step of a case after XLA's passes for this machine's device."""
    model, _ = timing.build(case)
    step = tf.function(lambda indices: model.train_step((indices,)), jit_compile=True)
    indices = tf.zeros([updates_at_once(case.k, hardware.on_gpu()), case.batch], tf.int32)
    return step.experimental_get_compiler_ir(indices)(stage="optimized_hlo")


def count(program: str) -> dict[str, int | bool]:
    """Instructions of the longest loop's body in an optimized HLO program, by kind, and their sum.

    `random` are those that make random bits, `products` those that are one matrix product; `trip_count_known` says
    whether XLA knows how often the loop goes round.
    """
    bodies = dict(re.findall(r"^(?:ENTRY )?%?([\w.-]+) \(.*\{\n((?: .*\n)*)\}", program, re.MULTILINE))
    loops = re.findall(r"^.* while\(.*body=%?([\w.-]+).*$", program, re.MULTILINE)
    if not loops:
        raise ValueError("program: expected a loop, got none")

    def kinds(name: str) -> Counter[str]:
        found: Counter[str] = Counter()
        for line in bodies[name].splitlines():
            match = _INSTRUCTION.match(line)
            operation = match[1] if match else ""
            if operation == "call":
                found += kinds(_named("to_apply", line))
            elif operation and operation not in _FREE:
                found[_kind(operation, line + bodies.get(_named("calls", line), ""))] += 1
        return found

    body, found = max(((name, kinds(name)) for name in loops), key=lambda pair: pair[1].total())
    loop = next(line for line in program.splitlines() if " while(" in line and _named("body", line) == body)
    return {
        **{kind: found[kind] for kind in KINDS},
        "kernels": found.total(),
        "trip_count_known": "known_trip_count" in loop,
    }


def _named(attribute: str, line: str) -> str:
    match = re.search(rf"{attribute}=%?([\w.-]+)", line)
    return match[1] if match else ""


def _kind(operation: str, line: str) -> str:
    """The kind of an instruction; `line` is its text, and that of what is fused in it."""
    if " xor(" in line or operation.startswith("rng"):  # the rounds of Threefry
        return "random"
    if operation == "dot" or re.search("custom_call_target=.*(gemm|matmul)|triton_gemm", line):
        return "products"
    return {"fusion": "fusions", "copy": "copies"}.get(operation, "others")


def measure(cases: Sequence[Case]) -> Iterator[dict[str, Any]]:
    """A row for each case that trains."""
    for case in cases:
        if case.task == "train":
            yield {**case._asdict(), **count(optimized_program(case))}


def table(rows: Sequence[dict[str, Any]]) -> str:
    """The rows as text for the terminal."""
    lines = [f"{'instructions of an update':42s}" + "".join(f"{kind:>9s}" for kind in (*KINDS, "kernels")) + "  trips"]
    for row in rows:
        name = (
            f"{row['layers']} layer{'s' * (row['layers'] > 1)}, k = {row['k']}, {row['objective']}, {row['estimator']}"
        )
        numbers = "".join(f"{row[kind]:9d}" for kind in (*KINDS, "kernels"))
        lines.append(f"{name:42s}{numbers}  {'known' if row['trip_count_known'] else 'unknown'}")
    return "\n".join(lines)
