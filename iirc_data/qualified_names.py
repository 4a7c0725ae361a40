"""Class names in a benchmark of several datasets: ``dataset/class``, and joined classes."""

from collections.abc import Collection, Mapping, Sequence


def split_name(qualified: str) -> tuple[str, str]:
    """Return the dataset and the class of a name ``dataset/class``."""
    dataset, _, class_name = qualified.partition("/")
    return dataset, class_name


def check_qualified_names(
    datasets: Collection[str],
    joined: Mapping[str, Sequence[str]],
    leaf_classes: Sequence[str],
) -> None:
    """Check that every leaf class states which datasets its images come from.

    Args:
        datasets: Names of the datasets; empty for a benchmark of one dataset, whose class names
            are not qualified.
        joined: Maps each joined class to the qualified classes whose images it has.
        leaf_classes: The leaf classes.

    Raises:
        ValueError: A name is not qualified or belongs to no dataset, the images of a class are used
            twice, a joined class is not a leaf class, or a dataset has no class.
    """
    if not datasets:
        if joined:
            raise ValueError("joined_classes: need datasets, which name where images come from")
        return
    used_by: dict[str, str] = {}
    for leaf in leaf_classes:
        for source in joined.get(leaf, [leaf]):
            _check_qualified(source, datasets, "joined_classes" if leaf in joined else "")
            if source in used_by:
                raise ValueError(
                    f"the images of {source!r} belong to {used_by[source]!r} and {leaf!r}: list "
                    "them once, in joined_classes or as a class of their own"
                )
            used_by[source] = leaf
    for name in joined:
        if split_name(name)[0] in datasets and "/" in name:
            raise ValueError(
                f"joined_classes: {name!r} is the name of a class of one dataset: name the joined "
                "class otherwise"
            )
        if name not in leaf_classes:
            raise ValueError(
                f"joined_classes: {name!r} is in neither superclasses nor other_classes"
            )
    used = {split_name(source)[0] for source in used_by}
    if unused := [name for name in datasets if name not in used]:
        raise ValueError(
            f"datasets: no class is of dataset {unused[0]!r}: write its classes as "
            f"'{unused[0]}/CLASS', or remove it"
        )


def _check_qualified(name: str, datasets: Collection[str], field: str) -> None:
    where = f"{field}: " if field else ""
    dataset, class_name = split_name(name)
    if "/" not in name:
        written = " or ".join(f"'{known}/{name}'" for known in list(datasets)[:3])
        joining = "" if field else ", or list its sources in joined_classes"
        raise ValueError(f"{where}class {name!r} names no dataset: write {written}{joining}")
    if dataset not in datasets or not class_name:
        raise ValueError(
            f"{where}class {name!r} is of none of the datasets {', '.join(datasets)}: write it as "
            "DATASET/CLASS"
        )
