"""The benchmark: what it counts, what it prints, what it refuses. No time is asserted: machines are shared."""

import json

import pytest

from iwae import benchmark


def test_arithmetic_is_that_of_the_layers():
    """Multiply-adds of the paper's one-layer model, by hand."""
    model, _ = benchmark.prepare(benchmark.Case("train", 1, 1))
    image = 784 * 200 + 200 * 200 + 2 * 200 * 50
    sample = 50 * 200 + 200 * 200 + 200 * 784
    assert benchmark.multiplications(model) == (image, sample)
    expected = {
        benchmark.Case("train", 1, 50): 2 * 20 * 3 * (image + 50 * sample),
        benchmark.Case("train", 1, 50, "iwae", "sampled"): 2 * 20 * (image + 50 * sample + 3 * (image + sample)),
        benchmark.Case("evaluate", 1, 5000): 2 * (image + 5000 * sample),
    }
    assert {case: benchmark.arithmetic(case, model) for case in expected} == expected


def test_a_quick_run_prints_an_object_a_line(capsys):
    assert benchmark.main(["--quick", "--json", "--repeats", "1"]) == 0
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


def test_the_table_names_every_case(capsys):
    assert benchmark.main(["--cases", "train:2:1:vae", "--repeats", "1"]) == 0
    assert "train, 2 layers, k = 1, vae, reparameterized" in capsys.readouterr().out


@pytest.mark.slow
def test_a_new_process_tells_its_start_and_its_memory():
    row = benchmark.first_update(benchmark.Case("start", 1, 1))
    assert row["seconds_to_first_block"] > 0 and 0.1 < row["peak_memory_gib"] < 10


@pytest.mark.slow
def test_time_and_memory_are_drawn(tmp_path, monkeypatch):
    monkeypatch.setattr(benchmark, "SCALING_K", (1,))
    assert benchmark.main(["--plot", str(tmp_path / "k.png"), "--repeats", "1"]) == 0
    assert (tmp_path / "k.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize("case", ["swim:1:5", "train:3:5", "train:1:0", "train:1", "train:1:1:iwae:magic", "x"])
def test_a_case_that_is_not_one_is_refused(case, capsys):
    with pytest.raises(SystemExit) as ended:
        benchmark.main(["--cases", case])
    assert ended.value.code == 2 and repr(case) in capsys.readouterr().err
