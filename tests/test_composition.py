"""Composing a configuration: preset, then file, then options; the presets; what is refused."""

import inspect
import json
from functools import partial
from pathlib import Path
from typing import get_args

import pytest
import yaml
from typer.testing import CliRunner

from iirc_data.benchmarks import load_benchmark
from iirc_data.errors import ConfigurationError
from iirc_train.cli import app as cli
from iirc_train.cli.train import train
from iirc_train.config import BufferConfig, ExperimentConfig, MethodConfig
from iirc_train.config import compose as composing
from iirc_train.config.network import image_size, with_named_network
from iirc_train.config.preset_files import PRESETS, preset_file, preset_names
from iirc_train.methods import METHODS, MethodParts, finetune, get_method
from iirc_train.methods.settings import (
    checked_settings,
    experiment_config,
    method_configs,
    settings_of_run,
)

PUBLISHED = {
    "cifar100": "configurations_cifar.json",
    "imagenet_full": "configurations_imagenet_full.json",
    "imagenet_lite": "configurations_imagenet_lite.json",
}
compose = partial(composing.compose, methods=method_configs())
REQUIRED = {"benchmark": "iirc_cifar10", "data": "shards", "method": "finetune"}
IIRC_PRESETS = [name for name in preset_names() if preset_file(name).parent == PRESETS]
RENAMED = {"agem_20_lr05": "agem_20_lr0.5"}


@pytest.fixture
def write(tmp_path):
    def write(text: str) -> Path:
        path = tmp_path / "mine.yaml"
        path.write_text(text)
        return path

    return write


@pytest.mark.parametrize("name", IIRC_PRESETS)
def test_a_preset_lacks_nothing_but_the_data(name):
    config = compose(name, overrides={"data": "shards"})
    get_method(config.method)
    assert load_benchmark(config.benchmark).name == config.benchmark
    lines = preset_file(name).read_text().splitlines()
    assert lines[0].startswith("# IIRC-") and not lines[1].startswith("#")


def named(config: ExperimentConfig) -> dict[str, object]:
    return with_named_network(config.values(), image_size(load_benchmark(config.benchmark)))


@pytest.mark.parametrize("prefix, file", PUBLISHED.items())
def test_presets_are_the_published_configurations(shared_file, prefix, file):
    published = json.loads(shared_file(f"reference/published_configurations/{file}").read_text())
    expected = {}
    for key, parts in published.items():
        settings = parts["fixed_arguments"] | parts["flags"] | {"data": "shards"}
        settings.setdefault("seed", parts["iterable_arguments"].get("seed", [None])[0])
        assert settings["reduce_lr_on_plateau"]  # the schedule is ignored then
        for name in ("group", "tasks_configuration_id", "lr_schedule"):
            settings.pop(name, None)
        settings |= {"loss": "bce", "decision": "threshold"}
        settings["first_task_epochs"] = 2 * settings["epochs_per_task"]
        expected[f"{prefix}_{RENAMED.get(key, key)}"] = named(experiment_config(**settings))
    found = {
        name.replace("-", "_"): named(compose(name, overrides={"data": "shards"}))
        for name in preset_names()
        if name.startswith(f"{prefix}-")
    }
    assert found == expected


def test_the_file_wins_over_the_preset_and_options_over_both(write):
    file = write("lr: 0.2\nbatch_size: 64\ndata: here\n")
    config = compose("cifar100-lucir-20", file, {"lr": 0.3})
    assert (config.lr, config.batch_size, config.network) == (0.3, 64, "resnet32")
    assert compose("cifar100-lucir-20", file).lr == 0.2
    assert compose("cifar100-lucir-20", overrides={"data": "here"}).lr == 1.0


def test_another_optimizer_replaces_the_momentum_of_the_preset(write):
    file = write("optimizer: sgd\nmomentum: 0.5\nnesterov: true\n")
    given = {"data": "here", "optimizer": "adamw"}
    config = compose("cifar100-finetune", file, given)
    assert (config.momentum, config.nesterov) == (0.9, False)
    with pytest.raises(ConfigurationError, match="has no effect on optimizer 'adamw'"):
        compose("cifar100-finetune", file, given | {"momentum": 0.5})


def test_published_and_former_names_serve_too(write):
    file = write(
        "dataset: iirc_cifar100\ndata: here\nmethod: finetune\ntasks_configuration_id: 3\n"
        "n_memories_per_class: -1\ntotal_n_memories: 2000\nlr_schedule: '80 110'\n"
    )
    config = compose(file=file)
    assert (config.benchmark, config.schedule) == ("iirc_cifar100", 3)
    assert (config.total_n_mems, config.lr_schedule) == (2000, [80, 110])
    assert compose(file=file, overrides={"schedule": 4, "lr_schedule": "-1"}) == config.model_copy(
        update={"schedule": 4, "lr_schedule": None}
    )
    former = write("engine: torch\n")
    assert compose("cifar100-lucir-20", former, {"data": "here"}).decoder == "pillow"
    published = {"n_memories_per_class": -1, "total_n_memories": 50, "group": "x"}
    assert BufferConfig.from_any(published).total_n_mems == 50


def test_a_saved_configuration_is_a_file_to_start_from(tmp_path):
    config = compose("imagenet_lite-icarl_norm-20", overrides={"data": "here", "schedule": 2})
    config.save(tmp_path / "config.yaml")
    assert "dataset" not in yaml.safe_load((tmp_path / "config.yaml").read_text())
    assert compose(file=tmp_path / "config.yaml") == config
    assert ExperimentConfig.load(tmp_path / "config.yaml") == config
    (tmp_path / "config.yaml").write_text("benchmark: b\ndata: d\nmethod: m\nlr: fast")
    with pytest.raises(ConfigurationError, match=r"config.yaml: lr: .* got 'fast'"):
        ExperimentConfig.load(tmp_path / "config.yaml")


@pytest.mark.parametrize(
    "text, message",
    [
        ("learning_rate: 1", r"mine.yaml: there is no setting 'learning_rate'"),
        ("epoch_per_task: 1", r"mine.yaml: .* did you mean 'epochs_per_task'\?"),
        ("3: 1", r"mine.yaml: there is no setting 3"),
        ("lr: fast", r"mine.yaml: lr: .* got 'fast'"),
        ("optimizer: momentun", r"mine.yaml: optimizer: .* did you mean 'momentum'\?"),
        ("precision: fp31", r"mine.yaml: precision: .* did you mean 'fp32'\?"),
        ("decoder: dally", r"mine.yaml: decoder: .* did you mean 'dali'\?"),
        ("joint: perhaps", r"mine.yaml: joint: .* got 'perhaps'"),
        ("lr_schedule: [80, x]", r"mine.yaml: lr_schedule.1: .* got 'x'"),
        ("lr_schedule: '80 0'", r"mine.yaml: lr_schedule.1: .* got '0'"),
        ("schedule: 1\ntasks_configuration_id: 2", r"mine.yaml: .* 'schedule' a second time"),
        ("lr: [1", r"mine.yaml is not YAML: .* line \d"),
        ("lr: !!python/object/apply:os.getcwd []", r"mine.yaml is not YAML"),
        ("", r"mine.yaml holds no settings"),
        ("- lr", r"mine.yaml holds no settings"),
        ("total_n_mems: 100", r"set n_memories_per_class to -1"),
    ],
)
def test_an_error_names_file_and_setting_in_one_line(write, text, message):
    with pytest.raises(ConfigurationError, match=message) as raised:
        compose("cifar100-lucir-20", write(text), {"data": "here"})
    assert "\n" not in str(raised.value)


def test_a_wrong_value_is_not_blamed_on_what_it_overrides(write):
    with pytest.raises(ConfigurationError, match=r"configuration: lr: .* got -1"):
        compose("cifar100-lucir-20", write("lr: 2"), {"data": "here", "lr": -1})


def test_a_file_that_is_not_there_or_not_text_is_named(tmp_path):
    with pytest.raises(ConfigurationError, match=r"cannot read .*none.yaml: No such file"):
        compose(file=tmp_path / "none.yaml")
    (tmp_path / "mine.yaml").write_bytes(b"\xff\xfe\x00lr")
    with pytest.raises(ConfigurationError, match=r"mine.yaml is not YAML"):
        compose(file=tmp_path / "mine.yaml")


def test_the_nearest_preset_is_named():
    with pytest.raises(ConfigurationError, match="did you mean 'cifar100-lucir-20'"):
        compose("cifar100-lucir_20")


def test_all_missing_settings_are_named():
    with pytest.raises(ConfigurationError, match="no value for benchmark, data, method: give it"):
        compose()
    with pytest.raises(ConfigurationError, match="no value for data: give it"):
        compose("cifar100-joint")


def command(*arguments):
    return CliRunner().invoke(cli.app, [str(argument) for argument in arguments])


@pytest.fixture
def composed(monkeypatch):
    """Return a function that gives the configuration that ``iirc train`` would run."""

    def composed(*arguments: object) -> ExperimentConfig:
        found = []

        def catch(config, *others, **options):
            found.append(config)
            raise ConfigurationError("far enough")

        monkeypatch.setattr("iirc_train.cli.train.continue_experiment", catch)
        result = command("train", "--output", "run", "--data", "here", *arguments)
        assert found, result.exception
        return found[0]

    return composed


def test_train_composes_preset_file_and_options(composed, write):
    file = write("batch_size: 64\nlr: 0.2\n")
    config = composed("--preset", "cifar100-finetune-20", "--config", file, "--lr", "0.3")
    assert (config.method, config.n_memories_per_class) == ("finetune", 20)
    assert (config.batch_size, config.lr) == (64, 0.3)


def test_train_turns_flags_on_and_off(composed):
    config = composed("--preset", "cifar100-joint", "--engine", "torch")  # its former names
    assert config.decoder == "pillow"
    config = composed("--preset", "cifar100-joint", "--no-joint", "--save-each-task-model")
    assert (config.joint, config.complete_info, config.save_each_task_model) == (False, True, True)


@pytest.mark.parametrize(
    "options, expected",
    [
        (["--lr-schedule", "80 110"], [80, 110]),
        (["--lr-schedule", "80", "--lr-schedule", "110"], [80, 110]),
        (["--lr-schedule", "-1"], None),
        ([], [7]),
    ],
)
def test_train_takes_a_schedule_of_several_epochs(composed, write, options, expected):
    file = write("lr_schedule: [7]")
    assert composed("--preset", "cifar100-joint", "--config", file, *options).lr_schedule == (
        expected
    )


@pytest.mark.parametrize(
    "given, expected",
    [
        (["lr_schedule: '4'"], {"lr_schedule": [4]}),
        (["lr_cosine: true"], {"lr_cosine": True}),
        (["lr_cosine: 'false'"], {"reduce_lr_on_plateau": True}),
        (["lr_warmup: 2"], {"lr_warmup": 2}),
        (["lr_schedule: '-1'"], {"reduce_lr_on_plateau": True}),
        (["lr_schedule: [4]", "--lr-cosine"], {"lr_cosine": True}),
        (["lr_cosine: true", "--lr-schedule", "-1"], {"lr_cosine": True}),
        (["lr_cosine: true", "--lr-schedule", "4"], {"lr_schedule": [4]}),
        (["lr_schedule: [4]", "--reduce-lr-on-plateau"], {"reduce_lr_on_plateau": True}),
        (["lr_warmup: 2", "--reduce-lr-on-plateau"], {"reduce_lr_on_plateau": True}),
        (["lr_warmup: 2", "--lr-schedule", "4"], {"lr_warmup": 2, "lr_schedule": [4]}),
    ],
)
def test_a_later_way_to_move_the_learning_rate_replaces_earlier_ones(
    composed, write, given, expected
):
    text, *options = given
    file = write(text)
    config = composed("--preset", "cifar100-joint", "--config", file, *options)
    nothing = {
        "lr_schedule": None,
        "lr_cosine": False,
        "reduce_lr_on_plateau": False,
        "lr_warmup": 0,
    }
    assert {name: getattr(config, name) for name in nothing} == nothing | expected


@pytest.mark.parametrize(
    "options, message",
    [
        (["--output", "run"], "no value for benchmark, data, method"),
        (["--preset", "cifar100-joint"], "--output"),
        (["--resume", "run", "--lr", "1"], "not lr: give only"),
        (["--resume", "run", "--preset", "cifar100-joint"], "not preset: give only"),
        (["--resume", "run", "--output", "other"], "leave out --output"),
        (["--output", "other", "--repeat", "run", "--seed", "1"], "not seed: give only"),
        (["--resume", "nowhere"], "nowhere holds no run"),
        (["--output", "run", "--preset", "joint"], "no preset 'joint'"),
    ],
)
def test_train_says_what_is_wrong_or_missing(tmp_path, monkeypatch, options, message):
    monkeypatch.chdir(tmp_path)
    result = command("train", *options)
    assert isinstance(result.exception, ConfigurationError)
    assert message in str(result.exception)
    assert not list(tmp_path.iterdir())


def test_the_help_of_train_tells_of_every_setting():
    result = CliRunner().invoke(cli.app, ["train", "--help"], env={"COLUMNS": "400"})
    assert result.exit_code == 0
    lines = {line.split()[1]: line for line in result.output.splitlines() if "│ --" in line}
    for name in ExperimentConfig.setting_names():
        description = ExperimentConfig.model_fields[name].description
        assert description.split()[0] in lines[f"--{name.replace('_', '-')}"]
    for option, told in [
        ("--network", "[default: auto]"),
        ("--joint", "[default: no]"),
        ("--tensorboard", "[default: yes]"),
        ("--method", ", ".join(METHODS)),
        ("--optimizer", "(momentum, sgd, adam, adamw)"),
    ]:
        assert told in lines[option]


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("threads", int),
        ("lr", float),
        ("resident", bool),
        ("lr_schedule", list[str]),
        ("data", list[str]),
        ("benchmark", str),
    ],
)
def test_options_are_parsed_as_their_settings(name, kind):
    annotation = inspect.signature(train).parameters[name].annotation
    assert get_args(annotation)[0] == kind | None


def test_presets_are_listed_with_what_they_train():
    result = CliRunner().invoke(cli.app, ["presets"], env={"COLUMNS": "80"})
    assert result.exit_code == 0
    rows = [line.split() for line in result.output.splitlines()]
    assert [
        "imagenet_full-icarl_cnn-20",
        "iirc_imagenet_full",
        "icarl_cnn",
        "20",
        "100",
        "0.5",
    ] in (rows)
    assert ["cifar100-infinite_buffer", "iirc_cifar100", "finetune", "100000*", "140", "1"] in rows
    assert {row[0] for row in rows if row} >= set(preset_names())
    assert "…" not in result.output


def test_a_preset_is_shown_as_it_is_written():
    shown = command("presets", "show", "cifar100-lucir-20").output
    assert shown == preset_file("cifar100-lucir-20").read_text()
    assert yaml.safe_load(shown)["lucir_lambda"] == 5.0


def test_a_preset_that_is_not_there_is_one_line():
    result = command("presets", "show", "cifar100-lucir")
    assert result.exit_code == 1
    assert "did you mean 'cifar100-lucir-20'" in result.output


@pytest.mark.parametrize(
    "text, problem",
    [
        ("lr: 2001-13-45", "valid number"),
        ("lr: " + "[" * 3000, "is not YAML"),
        ("a: &a [1, 2]\nlr: [*a, *a]", r"alias \*a is not read"),
        ("lr: !!python/object/apply:os.system [exit]", "could not determine a constructor"),
        ("lr: .inf", "finite number"),
        ("lr: 0b_", "valid number"),
        ("lr: !!int 0b_", "is not YAML"),
    ],
)
def test_hostile_yaml_is_refused(write, text, problem):
    with pytest.raises(ConfigurationError, match=problem):
        compose(None, write(text), REQUIRED)


@pytest.mark.parametrize(
    ("line", "name", "value"),
    [
        ("seed: 010", "seed", 10),
        ("seed: 08", "seed", 8),
        ("seed: 0o17", "seed", 15),
        ("seed: 0x1F", "seed", 31),
        ("batch_size: 1_000", "batch_size", 1000),
        ("lr: 1e-3", "lr", 0.001),
        ("lr: .5", "lr", 0.5),
        ("lr: 1.", "lr", 1.0),
        ("lr: '0.25'", "lr", 0.25),
        ("joint: yes", "joint", True),
        ("joint: off", "joint", False),
        ("joint: FALSE", "joint", False),
        ("method: no", "method", "no"),
        ("method: y", "method", "y"),
        ("data: 2001-01-01", "data", "2001-01-01"),
        ("data: '010'", "data", "010"),
        ("threads: ~", "threads", None),
        ("threads:", "threads", None),
        ("data: 12:30", "data", "12:30"),
        ("data: =", "data", "="),
    ],
)
def test_values_in_yaml_are_what_a_person_means(write, line, name, value):
    settings = {k: v for k, v in REQUIRED.items() if k != name}
    config = composing.compose(None, write(line), settings)
    found = getattr(config, name)
    assert (found, type(found)) == (value, type(value))
    config.save(write("").with_name("config.yaml"))
    assert ExperimentConfig.load(write("").with_name("config.yaml")) == config


@pytest.mark.parametrize(
    "text", ["1e3", "08", "0o7", "no", "1_000", "~", "12:30", "a: b", "\udce9"]
)
def test_a_saved_configuration_gives_text_back_as_it_was(tmp_path, text):
    config = ExperimentConfig.parse(REQUIRED | {"method": text})
    config.save(tmp_path / "config.yaml")
    assert ExperimentConfig.load(tmp_path / "config.yaml").method == text


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("seed: 12:30", "seed: .*valid integer.* got '12:30'"),
        ("data: 2024", "data: .* put it in quotes, '2024'"),
        ("method: 1.0", "method: .* got 1.0: put text in quotes"),
        ("data: ~", r"data: .*\(empty, null or ~\): give a value"),
        ("lr:", r"lr: .* got None \(empty, null or ~\): give a value, or leave the setting out"),
        ("data: ''", "that is not empty"),
        ('data: "a\\0b"', "NUL"),
        ("lr: 1\nlr: 2", "'lr' is given twice"),
        ("seed: -1", "greater than or equal to 0"),
        ("lr: 1e400", "finite"),
    ],
)
def test_values_in_yaml_that_mean_nothing_are_refused(write, text, message):
    settings = {name: value for name, value in REQUIRED.items() if f"{name}:" not in text}
    with pytest.raises(ConfigurationError, match=message) as raised:
        compose(None, write(text), settings)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16"])
def test_a_file_from_windows_is_read(tmp_path, encoding):
    path = tmp_path / "mine.yaml"
    path.write_bytes("data: Übung\r\nlr: 0.5\r\n".encode(encoding))
    config = compose(None, path, {"benchmark": "iirc_cifar10", "method": "finetune"})
    assert (config.data, config.lr) == ("Übung", 0.5)


@pytest.mark.parametrize(
    "setting",
    [
        *("n_layers", "batch_size", "epochs_per_task", "n_memories_per_class", "total_n_mems"),
        *("max_mems_pool_per_class", "samples_per_class", "threads", "checkpoint_interval", "seed"),
        *("buffer_sampling_multiplier", "lr_schedule"),
    ],
)
@pytest.mark.parametrize("value", ["9" * 30, "9" * 400])
def test_numbers_out_of_any_reason_are_refused(setting, value):
    with pytest.raises(ConfigurationError, match=f"{setting}") as raised:
        compose(None, None, {**REQUIRED, setting: int(value)})
    assert len(str(raised.value)) < 300


@pytest.mark.parametrize("setting", ["lr", "weight_decay", "temperature", "memory_strength"])
def test_factors_that_overflow_float32_are_refused(setting):
    with pytest.raises(ConfigurationError, match=f"{setting}: .* equal to 1000000000, got 1e"):
        compose(None, None, {**REQUIRED, setting: 1e300})


def test_a_network_may_not_be_deeper_than_any_that_was_trained():
    with pytest.raises(ConfigurationError, match=r"n_layers: .* equal to 2000, got 20000"):
        compose(None, None, {**REQUIRED, "n_layers": 20000})


def test_the_home_folder_is_known_by_its_sign(write, tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    config = compose(None, write("benchmark: ~/b.json\n"), {**REQUIRED, "data": "~/shards"})
    assert config.data == str(tmp_path / "shards")
    config = ExperimentConfig.parse({**REQUIRED, "benchmark": "~/b.json"})
    assert config.benchmark == str(tmp_path / "b.json")
    assert ExperimentConfig.parse({**REQUIRED, "data": "~none_such/x"}).data == "~none_such/x"


def test_a_wrong_value_is_shown_in_short():
    with pytest.raises(ConfigurationError) as caught:
        compose(None, None, {**REQUIRED, "lr": ["x" * 10**6] * 10})
    assert len(str(caught.value)) < 500


OLD = "lucir_lambda: 5.0\nlucir_margin_1: 0.5\nlucir_margin_2: 0.5\n"


def test_a_setting_of_one_method_is_checked_and_completed_for_it_alone(write):
    config = compose(None, write("lucir_lambda: 3"), {**REQUIRED, "method": "lucir"})
    assert config.values()["lucir_lambda"] == 3.0
    assert config.values()["lucir_margin_1"] == 0.5
    assert "lucir_lambda" not in compose(None, None, REQUIRED).values()
    assert experiment_config(**REQUIRED | {"method": "lucir"}).values() == (
        checked_settings(ExperimentConfig(**REQUIRED | {"method": "lucir"})).values()
    )


@pytest.mark.parametrize(
    ("text", "overrides", "message"),
    [
        (
            "lr: 1",
            {"lucir_lambda": 5.0},
            r"^'lucir_lambda' is a setting of lucir; the method finet",
        ),
        ("lucir_lambda: 3", {}, r"mine.yaml: 'lucir_lambda' is a setting of lucir; the method"),
        ("lucir_lambda: -3", {"method": "lucir"}, r"mine.yaml: lucir_lambda: .* got -3"),
        ("lucir_lamda: 3", {"method": "lucir"}, r"did you mean 'lucir_lambda'"),
        ("lucir_lambda: 3", {"method": "lucirr"}, r"no method 'lucirr': .* mean 'lucir'"),
    ],
)
def test_a_setting_of_another_method_or_a_wrong_one_is_refused(write, text, overrides, message):
    with pytest.raises(ConfigurationError, match=message):
        compose(None, write(text), REQUIRED | overrides)


def test_settings_that_earlier_releases_wrote_for_every_method_are_read(write, tmp_path):
    old = write(yaml.safe_dump(REQUIRED) + OLD)
    assert compose(None, old) == compose(None, None, REQUIRED)
    run = write(yaml.safe_dump(REQUIRED) + OLD.replace("5.0", "3"))  # it had no effect
    former = {"loss": "bce", "decision": "threshold", "first_task_epochs": 280}
    assert settings_of_run(ExperimentConfig.load(run)) == compose(None, None, REQUIRED | former)
    lucir = write(yaml.safe_dump(REQUIRED | {"method": "lucir"}) + OLD.replace("5.0", "3"))
    assert settings_of_run(ExperimentConfig.load(lucir)).values()["lucir_lambda"] == 3.0


def test_settings_of_the_method_that_a_preset_names_leave_with_it(write):
    file = write("method: lucir\nlucir_lambda: 3")
    config = compose("cifar100-lucir-20", file, {"data": "d", "method": "finetune"})
    assert config == compose("cifar100-lucir-20", None, {"data": "d", "method": "finetune"})
    assert not {"lucir_lambda", "lucir_margin_1"} & config.values().keys()


def test_a_run_of_an_unknown_method_keeps_all_of_its_settings(write):
    config = ExperimentConfig.load(write(yaml.safe_dump(REQUIRED | {"method": "m", "own": [1]})))
    assert settings_of_run(config).values()["own"] == [1]
    with pytest.raises(ConfigurationError, match="no method 'm'"):
        checked_settings(config)


def test_a_method_may_change_the_default_of_a_common_setting(monkeypatch):
    class Slow(finetune.Model):
        class Config(MethodConfig):
            lr: float = 0.25

    monkeypatch.setitem(METHODS, "slow", MethodParts(Slow, finetune.Buffer))
    assert experiment_config(**REQUIRED | {"method": "slow"}).lr == 0.25
    assert experiment_config(**REQUIRED | {"method": "slow", "lr": 2}).lr == 2


def test_train_takes_the_settings_of_its_method_only(composed):
    config = composed("--preset", "cifar100-lucir-20", "--lucir-lambda", "3")
    assert config.values()["lucir_lambda"] == 3
    result = command(
        *("train", "--preset", "cifar100-finetune", "--data", "d", "--lucir-lambda", "5"),
        *("--output", "run"),
    )
    assert "'lucir_lambda' is a setting of lucir" in str(result.exception)
