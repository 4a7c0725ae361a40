"""The experiment's configuration: every setting typed, documented and checked in one place."""

import difflib
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, Self

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from iirc_data.errors import ConfigurationError
from iirc_data.files import write_atomically

PositiveInt = Annotated[int, Field(ge=1)]


class _Settings(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    @classmethod
    def from_any(cls, config: "Mapping[str, Any] | BaseModel") -> Self:
        """Take this group's settings out of a larger configuration, typed or a plain mapping.

        Raises:
            ConfigurationError: A value is wrong; the message names the setting.
        """
        values = config.model_dump() if isinstance(config, BaseModel) else dict(config)
        return cls.parse({name: values[name] for name in cls.model_fields if name in values})

    @classmethod
    def parse(cls, values: Mapping[str, Any]) -> Self:
        """Check settings.

        Raises:
            ConfigurationError: A name or value is wrong; the message names the setting, and the
                nearest right name.
        """
        for name in values:
            if name not in cls.model_fields:
                close = difflib.get_close_matches(name, cls.model_fields, n=1, cutoff=0.5)
                hint = f"; did you mean {close[0]!r}?" if close else ""
                raise ConfigurationError(f"there is no setting {name!r}{hint}")
        try:
            return cls.model_validate(values)
        except ValidationError as error:
            problems = "; ".join(
                f"{'.'.join(map(str, problem['loc']))}: {problem['msg']}, got {problem['input']!r}"
                if problem["loc"]
                else problem["msg"]
                for problem in error.errors()
            )
            raise ConfigurationError(f"wrong configuration: {problems}") from error


class MethodConfig(_Settings):
    """What a method needs to know; the names are those of the published configuration."""

    dataset: Annotated[
        str, Field(description="Benchmark's name; with 'imagenet' in it the network is a ResNet")
    ] = "cifar"
    n_layers: Annotated[int, Field(description="Layers of the network")] = 20
    optimizer: Annotated[Literal["momentum", "adam"], Field(description="Optimizer")] = "momentum"
    lr: Annotated[float, Field(gt=0, description="Learning rate at the start of each task")] = 1.0
    lr_gamma: Annotated[
        float, Field(gt=0, le=1, description="Factor of the learning rate at each decay")
    ] = 0.1
    lr_schedule: Annotated[
        list[int] | None, Field(description="Epochs of a task at which the learning rate decays")
    ] = None
    reduce_lr_on_plateau: Annotated[
        bool, Field(description="Decay when in-task validation stalls; lr_schedule is ignored then")
    ] = False
    weight_decay: Annotated[float, Field(ge=0, description="Weight decay")] = 1e-5
    temperature: Annotated[float, Field(gt=0, description="Logits are divided by this")] = 1.0
    memory_strength: Annotated[
        float, Field(ge=0, description="Weight of replayed samples in the loss")
    ] = 1.0
    lucir_lambda: Annotated[
        float, Field(ge=0, description="LUCIR: weight of the distillation of latents")
    ] = 5.0
    lucir_margin_1: Annotated[
        float, Field(ge=0, description="LUCIR: margin to the most similar new class")
    ] = 0.5
    lucir_margin_2: Annotated[
        float, Field(ge=0, description="LUCIR: margin to the second most similar new class")
    ] = 0.5


class BufferConfig(_Settings):
    """How much the replay buffer keeps; the names are those of the published configuration."""

    n_memories_per_class: Annotated[
        int, Field(ge=-1, description="Memories kept per class; -1 to use total_n_mems")
    ] = 0
    total_n_mems: Annotated[
        int, Field(ge=-1, description="Memories kept in all, shared evenly among seen classes")
    ] = -1
    max_mems_pool_per_class: Annotated[
        int, Field(ge=-1, description="Samples per class to choose memories from; -1 for all")
    ] = -1

    @model_validator(mode="after")
    def _one_size_only(self) -> Self:
        if self.n_memories_per_class == -1 and self.total_n_mems == -1:
            raise ValueError("give n_memories_per_class or total_n_mems (0 for no replay)")
        if self.n_memories_per_class > 0 and self.total_n_mems > 0:
            raise ValueError("n_memories_per_class and total_n_mems exclude each other")
        return self


class ExperimentConfig(MethodConfig, BufferConfig):
    """Everything that determines a run."""

    benchmark: Annotated[str, Field(description="Benchmark: a name, or a JSON file")]
    data: Annotated[str, Field(description="Shard folder")]
    method: Annotated[str, Field(description="Method")]
    schedule: Annotated[int, Field(ge=0, description="Number of the benchmark's schedule")] = 0
    seed: Annotated[int, Field(ge=0, description="Seed of everything random")] = 0
    epochs_per_task: Annotated[
        PositiveInt, Field(description="Epochs per task; the first task gets twice as many")
    ] = 140
    batch_size: Annotated[
        PositiveInt, Field(description="Samples per batch, over all processes together")
    ] = 128
    joint: Annotated[
        bool, Field(description="Learn all classes in one task, with complete information")
    ] = False
    incremental_joint: Annotated[
        bool, Field(description="Learn each task with all data so far, with complete information")
    ] = False
    complete_info: Annotated[
        bool, Field(description="Show all labels of a training sample that were seen so far")
    ] = False
    use_best_model: Annotated[
        bool, Field(description="End each task with the epoch that was best at in-task validation")
    ] = False
    buffer_sampling_multiplier: Annotated[
        float, Field(ge=0, description="Memories shown per epoch, in multiples of the buffer")
    ] = 1.0
    samples_per_class: Annotated[
        PositiveInt | None,
        Field(description="Train on only the first so many images of each leaf class"),
    ] = None
    device: Annotated[str, Field(description="'cpu', 'cuda', 'cuda:1', … or 'auto'")] = "auto"
    threads: Annotated[
        PositiveInt | None,
        Field(description="Training threads on the CPU; results depend on it in the last bits"),
    ] = None
    engine: Annotated[
        Literal["auto", "dali", "torch"], Field(description="What decodes images")
    ] = "auto"
    precision: Annotated[
        Literal["auto", "fp32", "bf16"],
        Field(description="Arithmetic of the network; 'auto' is bf16 on a GPU, fp32 elsewhere"),
    ] = "auto"
    compile: Annotated[bool, Field(description="Compile the network with torch.compile")] = False
    checkpoint_interval: Annotated[
        int, Field(ge=0, description="Epochs between checkpoints; 0 for one per task")
    ] = 1
    save_each_task_model: Annotated[
        bool, Field(description="Keep the checkpoint of every task's end")
    ] = False

    @model_validator(mode="after")
    def _one_joint_only(self) -> Self:
        if self.joint and self.incremental_joint:
            raise ValueError("joint and incremental_joint exclude each other")
        if self.incremental_joint and max(self.n_memories_per_class, self.total_n_mems) > 0:
            raise ValueError(
                "incremental_joint shows all earlier data again: set n_memories_per_class to 0"
            )
        return self

    @property
    def complete_information(self) -> bool:
        """Whether training samples show all labels that were seen so far."""
        return self.complete_info or self.joint or self.incremental_joint

    @classmethod
    def load(cls, path: Path) -> Self:
        """Read a configuration from YAML.

        Raises:
            ConfigurationError: The file is not readable, or a setting in it is wrong.
        """
        try:
            values = yaml.safe_load(path.read_text())
        except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
            raise ConfigurationError(f"cannot read {path}: {error}") from error
        if not isinstance(values, dict):
            raise ConfigurationError(f"{path} holds no settings")
        return cls.parse(values)

    def save(self, path: Path) -> None:
        """Write the configuration as YAML."""
        with write_atomically(path) as file:
            file.write(yaml.safe_dump(self.model_dump(), sort_keys=False).encode())
