"""`iwae.presets`: every cell of the paper's tables under its name, with the paper's parameters, and changes to them."""

import json

import pytest

from iwae import config
from iwae.cli import command_line, presets
from iwae.config import ConfigError, Data, Evaluation, Experiment

DEFAULT = Experiment("mine", seed=7, tasks=("train",), results_dir="elsewhere", data=Data(name="digits", path="cache"))


def planned(words: str) -> list[Experiment]:
    return command_line.plan(words.split(), DEFAULT)[0]


@pytest.mark.parametrize("dataset", ["mnist", "omniglot"])
def test_table_1_has_every_cell_with_the_protocol_of_the_paper(dataset: str) -> None:
    experiments = planned(f"--preset table1-{dataset}")
    cells = {(e.model.objective, e.model.k, len(e.model.latent_units)) for e in experiments}
    assert cells == {(objective, k, layers) for objective in ("vae", "iwae") for k in (1, 5, 50) for layers in (1, 2)}
    assert len(experiments) == len(cells)
    paper = Experiment("paper")
    for experiment in experiments:
        assert experiment.data.name == dataset
        assert experiment.training == paper.training and experiment.evaluation == paper.evaluation
        assert experiment.data.batch_size == 20 and experiment.data.binarization == "stochastic"
        two = len(experiment.model.latent_units) == 2
        assert experiment.model.latent_units == ((100, 50) if two else (50,))
        assert experiment.model.hidden_units == (((200, 200), (100, 100)) if two else ((200, 200),))


def test_one_cell_by_its_name() -> None:
    (experiment,) = planned("--preset omniglot_iwae_k5_2layers")
    assert experiment.name == "omniglot_iwae_k5_2layers"
    assert (experiment.data.name, experiment.model.objective, experiment.model.k) == ("omniglot", "iwae", 5)
    assert len(experiment.model.latent_units) == 2


def test_where_and_what_come_from_the_default_and_the_rest_from_the_preset() -> None:
    default = config.replace(DEFAULT, {"evaluation.k": 10, "model.k": 3, "training.learning_rate": 0.5})
    (experiment,), _ = command_line.plan(["--preset", "mnist_vae_k1_1layer"], default)
    assert (experiment.seed, experiment.tasks, experiment.results_dir) == (7, ("train",), "elsewhere")
    assert experiment.data == Data(name="mnist", path="cache")
    assert experiment.training == config.Training() and experiment.evaluation == Evaluation()


def test_fixed_binarization_has_the_cells_of_the_appendix() -> None:
    experiments = planned("--preset fixed-binarization")
    assert {e.data.name for e in experiments} == {"binarized_mnist"}
    assert [(e.model.objective, e.model.k, len(e.model.latent_units)) for e in experiments] == [
        (objective, k, layers) for layers in (1, 2) for objective, k in (("vae", 1), ("iwae", 5), ("iwae", 50))
    ]


@pytest.mark.parametrize(("words", "epochs", "ending"), [("", 3**7, ""), (" --training.stages 4", 3**3, "_stages4")])
def test_table_2_continues_finished_runs_for_the_length_of_the_last_stage(words: str, epochs: int, ending: str) -> None:
    vae, vae_to_iwae, iwae, iwae_to_vae = planned(f"--preset table2{words}")
    assert vae.name == f"mnist_vae_k1_1layer{ending}" and vae.training.start_from is None
    for first, then, objective, k in ((vae, vae_to_iwae, "iwae", 50), (iwae, iwae_to_vae, "vae", 1)):
        assert (then.model.objective, then.model.k) == (objective, k)
        assert then.model.latent_units == first.model.latent_units
        assert (then.training.schedule, then.training.learning_rate) == ("constant", 1e-4)
        assert then.training.epochs == epochs
        assert then.training.start_from == first.run_dir


def test_table_2_of_several_seeds_continues_the_run_of_the_same_seed() -> None:
    experiments = {e.name: e for e in planned("--preset table2 --grid seed 1 2")}
    for seed in (1, 2):
        then = experiments[f"mnist_iwae_k50_1layer_then_vae_k1_seed{seed}"]
        assert then.training.start_from == experiments[f"mnist_iwae_k50_1layer_seed{seed}"].run_dir
        assert then.seed == seed


@pytest.mark.parametrize(
    ("words", "ending"),
    [
        ("--training.learning_rate 1e-4", "_learning_rate0.0001"),  # which the continuations have in any case
        ("--training.schedule constant --training.epochs 9", "_schedule-constant_epochs9"),
        ("--model.latent_units 20 --seed 4", "_latent_units20_seed4"),
        ("--grid training.learning_rate 1e-4", "_learning_rate0.0001"),
        ("--model.k 50", "_k50"),
    ],
)
def test_table_2_with_changes_starts_from_the_runs_of_the_same_set(words: str, ending: str) -> None:
    experiments = planned(f"--preset table2 {words}")
    unchanged = planned("--preset table2")
    vae, vae_to_iwae, iwae, iwae_to_vae = experiments
    assert vae_to_iwae.training.start_from == vae.run_dir and iwae_to_vae.training.start_from == iwae.run_dir
    assert vae_to_iwae.name == f"mnist_vae_k1_1layer_then_iwae_k50{ending}"
    assert not {e.name for e in experiments if e not in unchanged} & {e.name for e in unchanged}


def test_a_change_that_the_run_before_cannot_have_is_refused_with_its_name() -> None:
    words = "--preset mnist_vae_k1_1layer_then_iwae_k50 --model.estimator sampled"
    with pytest.raises(ConfigError, match=r"^model\.estimator: .* \(in mnist_vae_k1_1layer, which .* continues\)$"):
        planned(words)


def test_a_continuation_with_a_name_starts_from_the_same_run_as_without() -> None:
    words = "--preset mnist_vae_k1_1layer_then_iwae_k50 --training.stages 4"
    without, named = planned(words) + planned(f"{words} --name own")
    assert named.name == "own"
    assert named.training.start_from == without.training.start_from == "elsewhere/mnist_vae_k1_1layer_stages4"


def test_a_continuation_can_start_elsewhere_and_take_another_time() -> None:
    words = "--preset mnist_vae_k1_1layer_then_iwae_k50 --name x --training.start-from other --training.epochs 2"
    (experiment,) = planned(words)
    assert (experiment.training.start_from, experiment.training.epochs) == ("other", 2)


@pytest.mark.parametrize(
    ("words", "name"),
    [
        ("", "mnist_iwae_k5_1layer"),
        ("--training.stages 4", "mnist_iwae_k5_1layer_stages4"),
        ("--training.stages 8", "mnist_iwae_k5_1layer"),
        ("--training.stages 4 --seed 9", "mnist_iwae_k5_1layer_stages4_seed9"),
        ("--evaluation.examples 1000 --tasks evaluate --overwrite", "mnist_iwae_k5_1layer"),
        ("--data.name some/standin.npz", "mnist_iwae_k5_1layer_data-standin"),
        ("--training.stages 4 --name other", "other"),
        ("--training.stages 4 --grid seed 9", "mnist_iwae_k5_1layer_stages4_seed9"),
    ],
)
def test_a_changed_preset_says_so_in_its_name(words: str, name: str) -> None:
    (experiment,) = planned(f"--preset mnist_iwae_k5_1layer {words}")
    assert experiment.name == name


def test_two_dimensional_and_synthetic_runs() -> None:
    assert {e.model.latent_units for e in planned("--preset latent-2d latent-2d-fast")} == {(2,)}
    experiments = planned("--preset synthetic")
    assert {e.data.name for e in experiments} == {"camel", "two_clusters", "linear2dim", "simple_2_layers", "circle"}
    assert {e.model.objective for e in experiments} == {"vae", "iwae"}
    (camel,) = planned("--preset camel_iwae_k20")
    assert (camel.model.latent_units, camel.model.hidden_units, camel.model.k) == ((1,), ((5, 5),), 20)


def test_several_names_are_run_once_each_in_order() -> None:
    words = "--preset mnist_iwae_k5_1layer table2 mnist_iwae_k5_1layer"
    expected = ["mnist_iwae_k5_1layer", *presets.GROUPS["table2"]]
    assert [e.name for e in planned(words)] == expected
    assert presets.expand(("table2", "table1-mnist"))[:4] == list(presets.GROUPS["table2"])


def test_an_unknown_name_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"^preset: expected .*got 'tabel2' \(did you mean 'table2'\?\)$"):
        planned("--preset tabel2")


def test_every_preset_is_a_valid_experiment_and_listed(capsys: pytest.CaptureFixture) -> None:
    with pytest.raises(SystemExit) as ended:
        planned("--list")
    assert ended.value.code == 0
    lines = capsys.readouterr().out.splitlines()
    listed = [line.split()[0] for line in lines]
    assert set(listed) == {*presets.PRESETS, *presets.GROUPS}
    assert max(map(len, lines)) <= 100
    for name in presets.PRESETS:
        (experiment,) = planned(f"--preset {name}")
        assert config.from_dict(json.loads(json.dumps(config.to_dict(experiment)))) == experiment
    assert not set(presets.PRESETS) & set(presets.GROUPS)
