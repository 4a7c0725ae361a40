"""The definition of a benchmark: taxonomy, schedules of tasks, splits, sampling, image preset."""

import difflib
from collections import Counter
from collections.abc import Iterable, Mapping
from functools import cached_property
from typing import Annotated, Any, Literal, Self

from pydantic import (
    BaseModel,
    Field,
    SerializerFunctionWrapHandler,
    model_serializer,
    model_validator,
)

from iirc_data.augment import IMAGE_PRESETS, ImagePreset
from iirc_data.benchmarks.settings import (
    FROZEN,
    DatasetSettings,
    PresetOrName,
    SamplingSettings,
    SplitSettings,
)
from iirc_data.definitions import (
    CIL_SETUP,
    IIRC_SETUP,
    NO_LABEL_PLACEHOLDER,
    ImageOrder,
    Setup,
)
from iirc_data.errors import BenchmarkError
from iirc_data.qualified_names import check_qualified_names, split_name
from iirc_data.taxonomy import Taxonomy

ClassName = Annotated[str, Field(min_length=1, max_length=255)]  # names a folder
QualifiedName = Annotated[str, Field(min_length=1, max_length=511)]  # dataset/class
DatasetName = Annotated[str, Field(pattern=r"^[A-Za-z0-9_][A-Za-z0-9_.-]*$", max_length=255)]
Tasks = list[list[str]]


class Benchmark(BaseModel):
    """A benchmark definition, the content of ``manifests/<name>.json``.

    A benchmark may draw from several datasets. Each leaf class is then named ``dataset/class``,
    which distinguishes classes of the same name, or is a joined class, with the images of
    several such classes.

    Attributes:
        schema_version: Version of this format, 1.
        name: Name of the benchmark.
        dataset: Name of the dataset that the benchmark is defined on; informative. Optional if
            there are ``datasets``.
        datasets: Maps the name of each dataset to its :class:`DatasetSettings`; empty for a
            benchmark of one dataset. The order determines the numbers of samples.
        joined_classes: Maps leaf classes to the classes, ``dataset/class``, whose images they have.
        setup: ``"IIRC"`` or ``"CIL"``.
        description: One or two sentences for readers.
        attribution: Source of the definition, if it was taken from elsewhere.
        transforms: Augmentation and normalisation of images: the name of an image preset, such as
            ``"cifar"`` or ``"imagenet"``, or an
            :class:`~iirc_data.augment.image_presets.ImagePreset` as an object.
        superclasses: Maps each superclass to the names of its direct subclasses, which may be
            superclasses themselves: taxonomies have any depth.
        several_superclasses: Whether a class may be listed under several superclasses.
        other_classes: Leaf classes without a superclass.
        readable_names: Maps class names to readable names, where the two differ.
        image_order: Order of each class's images for splits and sampling: ``"dataset"``, the order
            of the dataset, or ``"published_imagenet"`` (see
            :func:`iirc_data.splits.published_imagenet_order`).
        splits: See :class:`SplitSettings`.
        sampling: See :class:`SamplingSettings`.
        schedules: The schedules; each is a list of tasks, each task a list of the classes that it
            introduces.
    """

    model_config = FROZEN

    schema_version: Literal[1] = 1
    name: Annotated[str, Field(min_length=1)]
    dataset: str
    datasets: dict[DatasetName, DatasetSettings] = {}
    joined_classes: dict[ClassName, Annotated[list[QualifiedName], Field(min_length=1)]] = {}
    setup: Setup = IIRC_SETUP
    description: str = ""
    attribution: str = ""
    transforms: PresetOrName = "cifar"
    superclasses: dict[ClassName, Annotated[list[ClassName], Field(min_length=1)]] = {}
    several_superclasses: bool = False
    other_classes: list[ClassName] = []
    readable_names: dict[str, str] = {}
    image_order: ImageOrder = "dataset"
    splits: SplitSettings = SplitSettings()
    sampling: SamplingSettings = SamplingSettings()
    schedules: Annotated[
        list[Annotated[list[Annotated[list[ClassName], Field(min_length=1)]], Field(min_length=1)]],
        Field(min_length=1),
    ]

    @model_validator(mode="before")
    @classmethod
    def _names_its_datasets(cls, content: Any) -> Any:
        names = content.get("datasets") if isinstance(content, dict) else None
        if isinstance(names, dict) and names and "dataset" not in content:
            return {**content, "dataset": " + ".join(map(str, names))}
        return content

    @model_serializer(mode="wrap")
    def _without_unused_fields(self, serialized: SerializerFunctionWrapHandler) -> Any:
        content = serialized(self)
        for name in ("datasets", "joined_classes", "several_superclasses"):
            if not content.get(name, True):
                del content[name]  # earlier releases do not know it
        return content

    @model_validator(mode="after")
    def _is_consistent(self) -> Self:
        self._check_taxonomy()
        check_qualified_names(self.datasets, self.joined_classes, self.leaf_classes)
        self._check_sizes()
        known = set(self.taxonomy.levels)
        for name in self.readable_names:
            if name not in known:
                raise ValueError(f"readable_names: {_unknown_class(name, known)}")
        for number, schedule in enumerate(self.schedules):
            introduced_by: dict[str, int] = {}
            for task, names in enumerate(schedule):
                where = f"schedules.{number}.{task}"
                for name in names:
                    if name not in known:
                        raise ValueError(f"{where}: {_unknown_class(name, known)}")
                    if name in introduced_by:
                        raise ValueError(
                            f"{where}: class {name!r} was introduced by task {introduced_by[name]}"
                        )
                    introduced_by[name] = task
        return self

    def _check_taxonomy(self) -> None:
        if self.setup == CIL_SETUP and self.superclasses:
            raise ValueError(f"superclasses: need setup {IIRC_SETUP!r}, setup is {self.setup!r}")
        listed_in: dict[str, str] = {}
        for superclass, subclasses in self.superclasses.items():
            where = f"superclasses.{superclass}"
            for name in subclasses:
                twice = listed_in.get(name) == where
                if name in listed_in and (twice or not self.several_superclasses):
                    raise ValueError(
                        f"{where}: class {name!r} is already in {listed_in[name]}; a class is "
                        "listed once, under one superclass or none"
                        + ("" if twice else ", unless several_superclasses is true")
                    )
                listed_in[name] = where
        for name in self.other_classes:
            if name in self.superclasses:
                raise ValueError(f"other_classes: {name!r} is a superclass, expected leaf classes")
            if name in listed_in:
                raise ValueError(
                    f"other_classes: class {name!r} is already in {listed_in[name]}; a class is "
                    "listed once, under one superclass or none"
                )
            listed_in[name] = "other_classes"
        if NO_LABEL_PLACEHOLDER in self.taxonomy.levels:
            raise ValueError(
                f"a class may not be called {NO_LABEL_PLACEHOLDER!r}: that name stands for no label"
            )

    def _check_sizes(self) -> None:
        sizes = {name: p.size for name, p in self.image_presets.items() if p.size is not None}
        first = next(iter(sizes), "")
        for name, size in sizes.items():
            if size != sizes[first]:
                raise ValueError(
                    f"datasets: images of {first!r} are shown at {sizes[first]} pixels, those of "
                    f"{name!r} at {size}: give the image presets (transforms) one size"
                )

    def model_copy(self, *, update: Mapping[str, Any] | None = None, deep: bool = False) -> Self:
        """Return a copy with some fields changed, which are not validated."""
        copied = super().model_copy(update=update, deep=deep)
        for name in copied.__dict__.keys() - type(self).model_fields.keys():
            del copied.__dict__[name]  # cached; it follows from the fields
        return copied

    @cached_property
    def taxonomy(self) -> Taxonomy:
        """The classes and their superclasses."""
        return Taxonomy(self.superclasses, self.other_classes)

    @property
    def leaf_classes(self) -> list[str]:
        """Leaf classes: subclasses grouped by superclass, then the classes without superclass."""
        return self.taxonomy.leaf_classes

    def labels_of(self, leaf_class: str) -> tuple[str, ...]:
        """Return the superclasses of a leaf class, the upper levels first, and itself."""
        return self.taxonomy.labels_of(leaf_class)

    @property
    def image_preset(self) -> ImagePreset:
        """Augmentation and normalisation of images.

        Raises:
            BenchmarkError: The datasets of the benchmark have different ones.
        """
        first, *others = self.image_presets.values()
        if any(other != first for other in others):
            raise BenchmarkError(
                f"benchmark {self.name!r} has an image preset for each of its datasets: use "
                "image_presets"
            )
        return first

    @property
    def image_presets(self) -> dict[str, ImagePreset]:
        """Augmentation and normalisation of the images of each dataset."""
        named = {name: s.transforms or self.transforms for name, s in self.datasets.items()}
        named = named or {self.dataset: self.transforms}
        return {
            name: IMAGE_PRESETS[preset] if isinstance(preset, str) else preset
            for name, preset in named.items()
        }

    def classes_in(self, dataset: str, leaf_classes: Iterable[str]) -> list[str]:
        """Return the classes of a dataset, by their names there, whose images leaf classes have.

        Args:
            dataset: Name of one of ``datasets``.
            leaf_classes: The leaf classes.
        """
        sources = [name for leaf in leaf_classes for name in self.joined_classes.get(leaf, [leaf])]
        return [name for of, name in map(split_name, sources) if of == dataset]

    def part(self, dataset: str) -> "Benchmark":
        """Return the benchmark's part in one of its ``datasets``, without schedules.

        Its leaf classes are classes of the dataset, by their names there.
        """
        own = self.datasets[dataset]
        leaves = set(self.leaf_classes)
        classes = {
            superclass: self.classes_in(dataset, [name for name in names if name in leaves])
            for superclass, names in self.superclasses.items()
        }
        return Benchmark.model_construct(
            name=self.name,
            dataset=dataset,
            setup=self.setup,
            transforms=own.transforms or self.transforms,
            superclasses={superclass: names for superclass, names in classes.items() if names},
            other_classes=self.classes_in(dataset, self.other_classes),
            image_order=own.image_order or self.image_order,
            splits=own.splits or self.splits,
            sampling=self.sampling,
            schedules=[],
        )

    def check_one_dataset(self, remedy: str) -> None:
        """Check that the benchmark draws from one dataset.

        Args:
            remedy: What to do otherwise, for the error.

        Raises:
            BenchmarkError: It draws from several.
        """
        if self.datasets:
            raise BenchmarkError(
                f"benchmark {self.name!r} draws from the datasets {', '.join(self.datasets)}: "
                f"{remedy}"
            )

    def tasks(self, schedule: int = 0, *, joint: bool = False) -> Tasks:
        """Return the tasks of one schedule.

        Args:
            schedule: Number of the schedule (published as ``tasks_configuration_id``).
            joint: Put all classes of the schedule into one task.

        Returns:
            The names of the classes that each task introduces.

        Raises:
            BenchmarkError: The schedule does not exist.
        """
        if not 0 <= schedule < len(self.schedules):
            raise BenchmarkError(
                f"benchmark {self.name!r} has schedules 0 to {len(self.schedules) - 1}, "
                f"got {schedule}"
            )
        tasks = self.schedules[schedule]
        if joint:
            return [[name for task in tasks for name in task]]
        return [list(task) for task in tasks]

    def readable_name(self, class_name: str) -> str:
        """Return the readable name of a class, followed by the class name if it is ambiguous."""
        name = self.readable_names.get(class_name, class_name)
        return f"{name} ({class_name})" if name in self._shared_readable_names else name

    @cached_property
    def _shared_readable_names(self) -> set[str]:
        counts = Counter(self.readable_names.get(name, name) for name in self.taxonomy.levels)
        return {name for name, count in counts.items() if count > 1}

    def class_names_to_idx(self, schedule: int = 0) -> dict[str, int]:
        """Return the index of each scheduled class, its position in order of appearance."""
        return class_order(self.tasks(schedule))


def _unknown_class(name: str, known: set[str]) -> str:
    close = difflib.get_close_matches(name, known, n=1)
    hint = f"; did you mean {close[0]!r}?" if close else ""
    return f"class {name!r} is in neither superclasses nor other_classes{hint}"


def class_order(tasks: Tasks) -> dict[str, int]:
    """Map class names to class indices, in order of appearance in ``tasks``."""
    names = dict.fromkeys(name for task in tasks for name in task)
    return {name: index for index, name in enumerate(names)}
