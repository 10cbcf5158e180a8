"""The benchmark: what it counts, prints, and refuses. Machines are shared: one time is asserted, tenfold."""

import json
import os
import subprocess
import sys

import numpy as np
import pytest

from iwae import IWAE, device
from iwae.benchmark import __main__ as program
from iwae.benchmark import cases, kernels, timing


def test_arithmetic_is_that_of_the_layers():
    """Multiply-adds of the paper's one-layer model, by hand."""
    model, _ = timing.prepare(cases.Case("train", 1, 1))
    image = 784 * 200 + 200 * 200 + 2 * 200 * 50
    sample = 50 * 200 + 200 * 200 + 200 * 784
    assert timing.multiplications(model) == (image, sample)
    expected = {
        cases.Case("train", 1, 50): 2 * 20 * 3 * (image + 50 * sample),
        cases.Case("train", 1, 50, "iwae", "sampled"): 2 * 20 * (image + 50 * sample + 3 * (image + sample)),
        cases.Case("evaluate", 1, 5000): 2 * (image + 5000 * sample),
    }
    assert {case: timing.arithmetic(case, model) for case in expected} == expected


def test_the_optimizer_s_traffic_grows_with_the_weights():
    """Of a model with a hundred times as many it takes at least ten times as long."""
    few, many = (IWAE(784, latent_units=(2,), hidden_units=((units,),)) for units in (20, 2000))
    seconds = [np.median([measure() for _ in range(5)]) for measure in map(timing.optimizer_traffic, (few, many))]
    assert 0 < 10 * seconds[0] < seconds[1]


@pytest.mark.slow
def test_a_quick_run_prints_an_object_a_line(capsys):
    assert program.main(["--quick", "--json", "--repeats", "1"]) == 0
    rows = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [(row["case"], row["layers"], row["k"], row["estimator"]) for row in rows] == [
        ("train", 1, 1, "reparameterized"),
        ("train", 1, 50, "reparameterized"),
        ("train", 1, 50, "sampled"),
        ("evaluate", 1, 5000, "reparameterized"),
    ]
    for row in rows:
        milliseconds = row["ms_per_update"] if row["case"] == "train" else 1e3 * row["seconds_per_image"]
        low, high = row["quartiles_ms"]
        assert 0 < row["flop_floor_ms"] and 0 < low <= milliseconds <= high and row["compile_seconds"] > 0
        # The ratio is a median of ratios, of one repeat at a time: so it is near that of the medians, not equal.
        assert row["ratio_to_floor"] == pytest.approx(milliseconds / row["flop_floor_ms"])
        assert (row["optimizer_floor_ms"] > 0) == (row["case"] == "train")
        assert row["ratio_to_both"] <= row["ratio_to_floor"]


def test_the_table_names_every_case(capsys):
    assert program.main(["--cases", "train:2:1:vae", "--repeats", "1"]) == 0
    assert "train, 2 layers, k = 1, vae, reparameterized" in capsys.readouterr().out


PROGRAM = """
%random.1 (p: u32[2]) -> u32[2] {
  %p = u32[2]{0} parameter(0)
  ROOT %x = u32[2]{0} xor(%p, %p)
}

%rng.1 (state.1: u32[2]) -> (u32[2], u32[]) {
  %state.1 = u32[2]{0} parameter(0)
  %bits = u32[2]{0} fusion(%state.1), kind=kLoop, calls=%random.1
  ROOT %two = (u32[2]{0}, u32[2]{0}) tuple(%bits, %bits)
}

%body.2 (arg.1: (s32[], f32[3,4], u32[2])) -> (s32[], f32[3,4], u32[2]) {
  %arg.1 = (s32[], f32[3,4]{1,0}, /*index=2*/u32[2]{0}) parameter(0)
  %a = f32[3,4]{1,0} get-tuple-element(%arg.1), index=1
  %s = u32[2]{0} get-tuple-element(%arg.1), index=2
  %call = (u32[2]{0}, u32[2]{0}) call(%s), to_apply=%rng.1, metadata={op_name="random"}
  %dot.1 = f32[3,3]{1,0} dot(%a, %a), lhs_contracting_dims={1}, rhs_contracting_dims={1}
  %gemm = (f32[3,3]{1,0}, s8[8]{0}) custom-call(%a, %a), custom_call_target="__cublas$gemm"
  %c = f32[3,4]{1,0} copy(%a)
  %f = f32[3,4]{1,0} fusion(%c, %dot.1), kind=kLoop, calls=%other.1
  ROOT %t = (s32[], f32[3,4]{1,0}, u32[2]{0}) tuple(%i, %f, %s)
}

ENTRY %main.3 (x: f32[3,4]) -> f32[3,4] {
  %x = f32[3,4]{1,0} parameter(0)
  %w = (s32[], f32[3,4]{1,0}, u32[2]{0}) while(%start), condition=%cond.1, body=%body.2KNOWN
  ROOT %y = f32[3,4]{1,0} get-tuple-element(%w), index=1
}
"""


@pytest.mark.parametrize("known", [True, False])
def test_the_instructions_of_a_loop_are_counted_by_kind(known):
    """Those of the calls in it too; on a GPU products are calls of a library."""
    program_text = PROGRAM.replace("KNOWN", ', backend_config={"known_trip_count":{"n":"25"}}' if known else "")
    counted = {"fusions": 1, "products": 2, "random": 1, "copies": 1, "others": 0, "kernels": 5}
    assert kernels.count(program_text) == counted | {"trip_count_known": known}
    with pytest.raises(ValueError, match="expected a loop"):
        kernels.count(program_text.replace(" while(", " sort("))


@pytest.mark.slow
def test_an_update_takes_no_more_kernels_than_it_did(capsys):
    assert program.main(["--kernels", "--json", "--cases", "train:1:50"]) == 0
    row = json.loads(capsys.readouterr().out)
    most = {"fusions": 114, "products": 23, "random": 4, "copies": 2, "others": 0, "kernels": 143}
    assert {kind: row[kind] for kind in most if row[kind] > most[kind]} == {}, "fewer is better"
    assert row["trip_count_known"]


def test_kernels_are_counted_in_training_only(capsys):
    with pytest.raises(SystemExit):
        program.main(["--kernels", "--cases", "evaluate:1:5"])
    assert "expected cases of training" in capsys.readouterr().err


@pytest.mark.slow
def test_a_benchmark_that_has_printed_ends():
    """A dataset's tuning thread sleeps for as long as the process has lived, up to a minute, and was waited for."""
    code = (
        "import time; from iwae import device; device.start_tensorflow()\n"
        "from iwae.benchmark import cases, timing\n"
        "model, run = timing.prepare(cases.Case('train', 1, 1))\n"
        "started = time.monotonic()\n"
        "while time.monotonic() < started + 15: run()\n"
        "del model\n"
        "started = time.monotonic()\n"
        "del run; import gc; gc.collect(); print(time.monotonic() - started)"
    )
    ended = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert float(ended.stdout) < 5


@pytest.mark.slow
def test_a_new_process_tells_its_start_and_its_memory():
    row = timing.first_update(cases.Case("start", 1, 1))
    assert row["seconds_to_first_block"] > 0 and 0.1 < row["peak_memory_gib"] < 10


@pytest.mark.slow
def test_time_and_memory_are_drawn(tmp_path, monkeypatch):
    monkeypatch.setattr(program, "SCALING_K", (1,))
    assert program.main(["--plot", str(tmp_path / "k.png"), "--repeats", "1"]) == 0
    assert (tmp_path / "k.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize("case", ["swim:1:5", "train:3:5", "train:1:0", "train:1", "train:1:1:iwae:magic", "x"])
def test_a_case_that_is_not_one_is_refused(case, capsys):
    with pytest.raises(SystemExit) as ended:
        program.main(["--cases", case])
    assert ended.value.code == 2 and repr(case) in capsys.readouterr().err


@pytest.mark.parametrize(
    ("processor", "version", "given", "expected"),
    [
        ("AuthenticAMD avx512f bmi", "2.21.0", "", "--xla_cpu_prefer_vector_width=512"),
        ("AuthenticAMD avx512f bmi", "2.18.1", "--a=1", "--a=1 --xla_cpu_prefer_vector_width=512"),
        (
            "AuthenticAMD avx512f bmi",
            "2.21.0",
            "--xla_cpu_prefer_vector_width=256",
            "--xla_cpu_prefer_vector_width=256",
        ),
        ("AuthenticAMD avx2 bmi", "2.21.0", "", ""),
        ("GenuineIntel avx512f bmi", "2.21.0", "", ""),
        ("AuthenticAMD avx512f bmi", "2.99.0", "", ""),
    ],
)
def test_vectors_are_wide_where_that_was_measured(processor, version, given, expected, monkeypatch):
    monkeypatch.setattr(device.Path, "read_text", lambda _: processor)
    monkeypatch.setattr(device.metadata, "version", lambda _: version)
    monkeypatch.setenv("XLA_FLAGS", given)
    device._use_wide_vectors()
    assert os.environ["XLA_FLAGS"] == expected
