"""Published API: the state of a lifelong dataset, as plain values."""

from typing import Annotated, Any, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from iirc_data.errors import BenchmarkError

STATE_VERSION = 1


class DatasetState(BaseModel):
    """The state that :meth:`BaseDataset.dataset_state_dict` returns as a dictionary.

    Attributes:
        version: Version of this format; 1.
        tasks: Class names of each task.
        total_dataset_size: Number of samples of the dataset.
        task_ids: The current tasks, at least one.
        seen_classes: Names of the classes seen so far.
        complete_information_mode: Whether all labels of seen classes are visible.
    """

    model_config = ConfigDict(strict=True, extra="forbid")

    version: int
    tasks: list[list[str]]
    total_dataset_size: int
    task_ids: Annotated[list[int], Field(min_length=1)]
    seen_classes: list[str]
    complete_information_mode: bool

    @classmethod
    def parse(cls, state_dict: dict[str, Any]) -> Self:
        """Check a dictionary field by field.

        Raises:
            BenchmarkError: A field is missing, unknown or of the wrong type.
        """
        try:
            return cls.model_validate(state_dict)
        except ValidationError as error:
            first = error.errors()[0]
            field = ".".join(map(str, first["loc"])) or "state"
            raise BenchmarkError(f"not the state of a dataset: {field}: {first['msg']}") from error

    def check_fits(self, dataset: Self) -> None:
        """Check that this state belongs to the same samples and tasks as a dataset's own.

        Args:
            dataset: The current state of the dataset that loads this one.

        Raises:
            BenchmarkError: Version, tasks or number of samples differ.
        """
        given, expected = self.model_dump(), dataset.model_dump()
        for key in ("version", "tasks", "total_dataset_size"):
            if given[key] != expected[key]:
                raise BenchmarkError(
                    f"the state's {key} is {given[key]!r:.80}, this dataset's "
                    f"{expected[key]!r:.80}: load the state into the dataset that it came from"
                )
