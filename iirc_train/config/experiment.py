"""The configuration of a run: the type, description and check of every common setting."""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import (
    AfterValidator,
    BeforeValidator,
    ConfigDict,
    Field,
    PlainValidator,
    model_validator,
)

from iirc_data.definitions import ORDER_BLOCKS, DecoderName, OrderName, current_decoder_name
from iirc_data.files import write_atomically
from iirc_data.shards.addresses import local_path
from iirc_data.sizes import parse_size
from iirc_train.config.image_preset import checked_image_preset
from iirc_train.config.intervals import checked_interval, read_warmup, warmup_epochs
from iirc_train.config.network import AUTO, MAX_LAYERS, check_depth
from iirc_train.config.places import (
    absolute_benchmark,
    absolute_data,
    benchmark_file,
    places_of,
    read_data,
    read_place,
)
from iirc_train.config.plain_yaml import read_settings, settings_text
from iirc_train.config.settings import Role, Settings
from iirc_train.config.setup import (
    DEFAULT_EPOCHS,
    FORMER_FIRST_TASK_EPOCHS,
    Decision,
    Hcv,
    Loss,
    with_former_defaults,
)
from iirc_train.config.weights import NONE, absolute_weights, read_weights_place

MAX_COUNT = 10**9  # of anything: what is larger is a slip
MAX_FACTOR = 1e9  # likewise

PositiveInt = Annotated[int, Field(ge=1, le=MAX_COUNT)]


def _split_epochs(value: Any) -> Any:
    """Read ``"80 110"`` as two epochs and ``"-1"`` as no epoch, as published."""
    if isinstance(value, str):
        value = value.split()
        return None if value == ["-1"] else value
    return value


def _checked_size(text: str | None) -> str | None:
    if text is not None:
        parse_size(text)
    return text


class MethodConfig(Settings):
    """Settings that all methods have, under their published names.

    A method adds settings in a subclass; see
    :class:`~iirc_train.methods.base_method.BaseMethod`.
    """

    dataset: Annotated[
        str,
        Field(description="Benchmark, or image preset; its image size chooses the default network"),
    ] = "cifar"
    network: Annotated[
        str,
        Role.STATE,
        Field(
            min_length=1,
            description="Network: a name, torchvision:NAME, timm:NAME or package.module:function; "
            "'auto' fits the images",
        ),
    ] = AUTO
    n_layers: Annotated[
        Annotated[int, Field(ge=1, le=MAX_LAYERS)] | None,
        Role.STATE,
        Field(description="Layers of the ResNet that fits the images; or give network"),
    ] = None
    weights: Annotated[
        str,
        PlainValidator(read_weights_place),
        Role.STATE,
        Field(
            description="Weights that the network starts from: 'none' for new random ones, "
            "'default' for the pretrained ones of its library, or a .safetensors or .pth file"
        ),
    ] = NONE
    frozen: Annotated[
        bool,
        Role.STATE,
        Field(
            description="Freeze all layers before the output layer: no gradients, and batch "
            "normalisation keeps its statistics"
        ),
    ] = False
    frozen_until: Annotated[
        Annotated[str, Field(min_length=1)] | None,
        Role.STATE,
        Field(description="Freeze the network up to and with a stage, such as layer3 or blocks.8"),
    ] = None
    augment: Annotated[
        bool,
        Field(
            description="Augment training images as the image preset says; otherwise show them as "
            "evaluation does"
        ),
    ] = True
    loss: Annotated[
        Loss | Literal["auto"],
        Field(
            description="'bce', binary cross-entropy per class, or 'ce', cross-entropy over all "
            "classes; 'auto' is bce for an IIRC benchmark, ce for a class-incremental one"
        ),
    ] = "auto"
    decision: Annotated[
        Decision | Literal["auto"],
        Field(
            description="'threshold' predicts each label with a probability above 1/2, 'argmax' "
            "the most probable one; 'auto' is threshold for an IIRC benchmark, argmax for a "
            "class-incremental one and with ce"
        ),
    ] = "auto"
    calibrate_thresholds: Annotated[
        bool,
        Field(
            description="After each task, fit the threshold of each label to the memories (the "
            "largest F1), instead of predicting labels with a probability above 1/2"
        ),
    ] = False
    hcv: Annotated[
        Hcv,
        Field(
            description="Hierarchy-consistency verification: discover superclasses of new classes, "
            "and add them to targets ('train'), make predictions consistent with them ('infer'), "
            "or 'both'"
        ),
    ] = "off"
    hcv_threshold: Annotated[
        float,
        Field(
            ge=0,
            lt=1,
            description="Fraction of a new class's samples above which an earlier class that is "
            "predicted for them is its superclass, with hcv",
        ),
    ] = 0.6
    hcv_superclass: Annotated[
        Literal["highest", "deepest"],
        Field(
            description="Which of several such classes hcv takes: the most frequent one, as "
            "published, or the deepest one in the hierarchy so far, for more than two levels"
        ),
    ] = "highest"
    epochs_per_task: Annotated[int, Field(ge=1, le=10**6, description="Epochs per task")] = (
        DEFAULT_EPOCHS
    )
    first_task_epochs: Annotated[
        Annotated[int, Field(ge=1, le=10**7)] | None,
        Role.STATE,
        Field(
            description="Epochs of the first task; by default epochs_per_task, and twice as many "
            "for an IIRC benchmark, as published"
        ),
    ] = None
    optimizer: Annotated[
        Literal["momentum", "sgd", "adam", "adamw"],
        Field(description="Optimizer; 'momentum' is sgd with its default momentum of 0.9"),
    ] = "momentum"
    momentum: Annotated[
        float, Field(ge=0, lt=1, description="Momentum of optimizer sgd; 0 for none")
    ] = 0.9
    nesterov: Annotated[bool, Field(description="Nesterov's momentum, with optimizer sgd")] = False
    lr: Annotated[
        float, Field(gt=0, le=MAX_FACTOR, description="Learning rate at the start of each task")
    ] = 1.0
    trunk_lr_factor: Annotated[
        float,
        Field(
            ge=0,
            le=MAX_FACTOR,
            description="Learning rate of all layers before the output layer, in multiples of lr",
        ),
    ] = 1.0
    lr_gamma: Annotated[
        float, Field(gt=0, le=1, description="Factor of the learning rate at each decay")
    ] = 0.1
    lr_schedule: Annotated[
        list[PositiveInt] | None,
        BeforeValidator(_split_epochs),
        Field(description="Epochs of a task at which the learning rate decays, e.g. '80 110'"),
    ] = None
    reduce_lr_on_plateau: Annotated[
        bool, Field(description="Decay when in-task validation stalls; overrides lr_schedule")
    ] = False
    lr_cosine: Annotated[
        bool,
        Field(description="Decay to 0 along half a cosine in each task, instead of lr_schedule"),
    ] = False
    lr_warmup: Annotated[
        int | str,
        BeforeValidator(read_warmup),
        Field(
            description="Epochs at the start of each task during which the learning rate rises "
            "linearly, or steps: '500steps'"
        ),
    ] = 0
    weight_decay: Annotated[float, Field(ge=0, le=MAX_FACTOR, description="Weight decay")] = 1e-5
    temperature: Annotated[
        float, Field(gt=0, le=MAX_FACTOR, description="Logits are divided by this")
    ] = 1.0
    memory_strength: Annotated[
        float, Field(ge=0, le=MAX_FACTOR, description="Weight of replayed samples in the loss")
    ] = 1.0

    @model_validator(mode="after")
    def _network_has_its_layers(self) -> Self:
        check_depth(self.network, self.n_layers)
        return self

    @model_validator(mode="after")
    def _frozen_contradicts_nothing(self) -> Self:
        if self.frozen and self.frozen_until is not None:
            raise ValueError(
                f"frozen freezes everything before the output layer, so frozen_until "
                f"{self.frozen_until} has no effect: set only one"
            )
        if self.frozen and self.trunk_lr_factor != 1:
            raise ValueError(
                f"trunk_lr_factor {self.trunk_lr_factor:g} has no effect on a frozen trunk: leave "
                "it out, or set frozen_until instead of frozen"
            )
        return self

    @model_validator(mode="after")
    def _optimizer_makes_sense(self) -> Self:
        if self.nesterov and (self.optimizer != "sgd" or not self.momentum):
            raise ValueError("nesterov needs optimizer sgd with a momentum above 0")
        if self.optimizer != "sgd" and self.momentum != 0.9:
            raise ValueError(
                f"momentum {self.momentum:g} has no effect on optimizer {self.optimizer!r}: set "
                "optimizer sgd, or leave momentum at 0.9"
            )
        if self.lr_cosine and (self.lr_schedule or self.reduce_lr_on_plateau):
            raise ValueError("lr_cosine excludes lr_schedule and reduce_lr_on_plateau")
        if self.lr_warmup and self.reduce_lr_on_plateau:
            raise ValueError("lr_warmup excludes reduce_lr_on_plateau")
        shortest = min(self.epochs_per_task, self.first_task_epochs or self.epochs_per_task)
        if warmup_epochs(self.lr_warmup) >= shortest:
            raise ValueError(f"lr_warmup {self.lr_warmup} leaves no epoch of a task of {shortest}")
        return self

    def epochs_of_task(self, task_id: int) -> range:
        """Return the epochs of a task, numbered across all tasks."""
        epochs, first_task = self.epochs_per_task, self.first_task_epochs
        if first_task is None:
            first_task = FORMER_FIRST_TASK_EPOCHS * epochs
        if not task_id:
            return range(first_task)
        first = first_task + epochs * (task_id - 1)
        return range(first, first + epochs)


class BufferConfig(Settings):
    """Settings of the replay buffer, under their published names."""

    published_names: ClassVar[Mapping[str, str]] = {"total_n_memories": "total_n_mems"}

    n_memories_per_class: Annotated[
        int,
        Role.STATE,
        Field(ge=-1, le=MAX_COUNT, description="Memories per class; -1 to use total_n_mems"),
    ] = 0
    total_n_mems: Annotated[
        int,
        Role.STATE,
        Field(
            ge=-1,
            le=MAX_COUNT,
            description="Memories in total, divided evenly among the seen classes",
        ),
    ] = -1
    max_mems_pool_per_class: Annotated[
        int,
        Field(
            ge=-1,
            le=MAX_COUNT,
            description="Samples per class to choose memories from; -1 for all",
        ),
    ] = -1

    @model_validator(mode="after")
    def _one_size_only(self) -> Self:
        if self.max_mems_pool_per_class == 0:
            raise ValueError("max_mems_pool_per_class must be -1 (all) or above 0")
        if self.n_memories_per_class == -1 and self.total_n_mems == -1:
            raise ValueError("set n_memories_per_class or total_n_mems (0 for no replay)")
        if self.n_memories_per_class >= 0 and self.total_n_mems > 0:
            raise ValueError(
                "n_memories_per_class and total_n_mems exclude each other: to use total_n_mems, "
                "set n_memories_per_class to -1"
            )
        return self

    @property
    def keeps_memories(self) -> bool:
        """Whether the buffer keeps any memories."""
        return max(self.n_memories_per_class, self.total_n_mems) > 0


class ExperimentConfig(MethodConfig, BufferConfig):
    """All settings of a run.

    The fields are the settings that all methods share. Settings that the method adds are stored
    beside them and checked by :func:`~iirc_train.methods.settings.checked_settings`, so that a
    report can read runs of methods that are not registered.
    """

    model_config = ConfigDict(extra="allow")

    former_names: ClassVar[Mapping[str, str]] = {"engine": "decoder"}
    published_names: ClassVar[Mapping[str, str]] = {
        **BufferConfig.published_names,
        "tasks_configuration_id": "schedule",
        "dataset": "benchmark",
        **former_names,
    }

    benchmark: Annotated[
        str,
        PlainValidator(read_place),
        Role.PLACE,
        Field(description="Name of a benchmark, or its JSON file"),
    ]
    data: Annotated[
        str | dict[str, str],
        PlainValidator(read_data),
        Role.PLACE,
        Field(
            description="Shard folder; NAME=FOLDER, repeated, for a benchmark of several datasets"
        ),
    ]
    method: Annotated[str, Role.STATE, Field(description="Method")]
    schedule: Annotated[
        int, Role.STATE, Field(ge=0, description="Index of the benchmark's schedule")
    ] = 0
    image_preset: Annotated[
        Annotated[str, AfterValidator(checked_image_preset)],
        Field(
            description="Augmentation and normalisation of images; 'auto' is what a network with "
            "pretrained weights expects, else what the benchmark says ('benchmark'); "
            "'cifar100_pycil' adds PyCIL's colour jitter"
        ),
    ] = "auto"
    cache_features: Annotated[
        bool | None,
        Field(
            description="Compute the features of a frozen network once, keep them in the cache, "
            "and train on them; by default where they are constant, which augment rules out"
        ),
    ] = None
    seed: Annotated[int, Field(ge=0, lt=2**63, description="Seed of all random numbers")] = 0
    batch_size: Annotated[
        int, Field(ge=1, le=10**6, description="Samples per batch, over all processes")
    ] = 128
    joint: Annotated[
        bool, Role.STATE, Field(description="Learn all classes in one task, with all labels")
    ] = False
    incremental_joint: Annotated[
        bool,
        Role.STATE,
        Field(description="Learn each task on the data of all tasks so far, with all labels"),
    ] = False
    complete_info: Annotated[
        bool,
        Role.STATE,
        Field(description="Show all labels of a training sample that were seen so far"),
    ] = False
    use_best_model: Annotated[
        bool,
        Field(description="End each task with the network of its best in-task validation"),
    ] = False
    buffer_sampling_multiplier: Annotated[
        float,
        Field(
            ge=0,
            le=1000,
            description="Memories shown per epoch, in multiples of the buffer's size",
        ),
    ] = 1.0
    samples_per_class: Annotated[
        PositiveInt | None,
        Role.STATE,
        Field(description="Number of training images per leaf class; by default all"),
    ] = None
    order: Annotated[
        OrderName,
        Field(
            description="Order of an epoch: 'exact' is one permutation of all samples, 'bounded' "
            "works through a few blocks of the shards at a time"
        ),
    ] = "exact"
    order_blocks: Annotated[
        PositiveInt,
        Field(description="Blocks of 4 MiB that the bounded order works through at a time"),
    ] = ORDER_BLOCKS
    cache_size: Annotated[
        Annotated[str, Field(min_length=1)] | None,
        AfterValidator(_checked_size),
        Role.MACHINE,
        Field(
            description="Limit of the cache of remote shards, e.g. '50GB'; by default that of "
            "IIRC_CACHE_SIZE"
        ),
    ] = None
    device: Annotated[
        str, Role.MACHINE, Field(description="'cpu', 'cuda', 'cuda:1', … or 'auto'")
    ] = "auto"
    threads: Annotated[
        Annotated[int, Field(ge=1, le=1024)] | None,
        Role.MACHINE,
        Field(description="CPU threads for training; results depend on it in the last bits"),
    ] = None
    decoder: Annotated[
        DecoderName,
        BeforeValidator(current_decoder_name),
        Role.MACHINE,
        Field(description="What decodes images"),
    ] = "auto"
    hw_decoder_load: Annotated[
        float,
        Role.MACHINE,
        Field(
            ge=0,
            le=1,
            description="Fraction of a batch's JPEGs for the GPU's JPEG engine (A100, H100, …); 0 "
            "until the ordering test of 'python -m benchmarks.gpu_acceptance' passes on your GPU, "
            "because the engine is reported to write images too early",
        ),
    ] = 0.0
    resident: Annotated[
        bool | None,
        Role.MACHINE,
        Field(
            description="Decode a task's images once and keep them on the training device; by "
            "default if they are small; results do not change"
        ),
    ] = None
    precision: Annotated[
        Literal["auto", "fp32", "bf16"],
        Field(
            description="Precision of the network; 'auto' is bf16 for images above 64 pixels on a "
            "GPU, fp32 elsewhere"
        ),
    ] = "auto"
    compile: Annotated[
        bool, Role.MACHINE, Field(description="Compile the network with torch.compile")
    ] = False
    graph: Annotated[
        Literal["auto", "on", "off"],
        Role.MACHINE,
        Field(
            description="Capture training steps in a CUDA graph; 'auto' does so where it pays and "
            "is possible"
        ),
    ] = "auto"
    checkpoint_interval: Annotated[
        int,
        Role.MACHINE,
        Field(ge=0, le=MAX_COUNT, description="Epochs between checkpoints; 0 for one per task"),
    ] = 1
    checkpoint_every: Annotated[
        Annotated[str, AfterValidator(checked_interval)] | None,
        Role.MACHINE,
        Field(
            description="Also write a checkpoint this long after the last one, within an epoch, "
            "too: '30s', '10min', '2h', '500steps'"
        ),
    ] = None
    save_each_task_model: Annotated[
        bool, Role.MACHINE, Field(description="Keep a checkpoint of the end of every task")
    ] = False

    @model_validator(mode="after")
    def _make_sense_together(self) -> Self:
        if self.reduce_lr_on_plateau and self.lr_gamma == 1:
            raise ValueError("reduce_lr_on_plateau needs an lr_gamma below 1")
        if self.joint and self.incremental_joint:
            raise ValueError("joint and incremental_joint exclude each other")
        if self.calibrate_thresholds and not self.keeps_memories:
            raise ValueError(
                "calibrate_thresholds needs memories: set n_memories_per_class or total_n_mems "
                "above 0"
            )
        if self.joint and self.hcv != "off":
            raise ValueError("hcv discovers superclasses in earlier tasks: joint has one task")
        if self.incremental_joint and self.keeps_memories:
            raise ValueError(
                "incremental_joint trains on all earlier data: set n_memories_per_class to 0"
            )
        return self

    @property
    def complete_information(self) -> bool:
        """Whether training samples show all of their labels whose classes were seen so far."""
        return self.complete_info or self.joint or self.incremental_joint

    def values(self) -> dict[str, Any]:
        """Return the settings as plain values: the common ones, then those that the method adds."""
        return {**super().values(), **(self.model_extra or {})}

    @classmethod
    def free_settings(cls) -> frozenset[str]:
        """Return the names of the settings that may change when a run is resumed."""
        return cls.with_role(Role.PLACE, Role.MACHINE)

    def with_absolute_places(self) -> Self:
        """Return the configuration with absolute paths."""
        places = {
            "data": absolute_data(self.data),
            "benchmark": absolute_benchmark(self.benchmark),
            "weights": absolute_weights(self.weights),
        }
        return self.model_copy(update=places)

    def missing_places(self) -> dict[tuple[str, str], Path]:
        """Return the expected paths of data and benchmark file that do not exist here.

        Each belongs to a setting and, of several datasets, to one of them by name.
        """
        data = places_of(self.data).items()
        paths = {("data", name): local_path(place) for name, place in data}
        paths["benchmark", ""] = benchmark_file(self.benchmark)
        return {name: path for name, path in paths.items() if path and not path.exists()}

    @classmethod
    def load(cls, path: Path) -> Self:
        """Read a configuration from :meth:`save`, including settings that a method adds.

        Settings that an earlier release wrote none of have the values that they had then.

        Raises:
            ConfigurationError: The file is not readable, or a common setting is wrong.
        """
        found = read_settings(path)
        settings = with_former_defaults(cls.checked_names(found, str(path), own=found))
        return cls.parse(settings, dict.fromkeys(settings, str(path)), own=settings)

    def save(self, path: Path) -> None:
        """Write the configuration as YAML."""
        with write_atomically(path) as file:
            file.write(settings_text(self.values()))
