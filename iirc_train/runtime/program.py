"""How this process was started: as ``iirc``, or as a script that adds methods and calls it."""

import sys
from pathlib import Path

OWN = ("-m", "iirc_train")
"""Arguments with which the Python interpreter starts the command ``iirc``."""

_OWN_NAMES = ("iirc", "iirc_train")


def this_program() -> tuple[str, ...]:
    """Return the arguments with which the interpreter starts this program again.

    A script that registers a method and then calls :func:`iirc_train.cli.app.main` is started as
    that script, so the method is registered in the processes that a command starts, too.
    """
    main = sys.modules["__main__"]
    file, spec = getattr(main, "__file__", None), main.__spec__
    if file is None or not _is_same_file(sys.argv[0], file):
        return OWN  # a notebook, or another program that calls the command line
    if spec is not None:  # python -m; for a package, __main__ runs
        return "-m", spec.name.removesuffix(".__main__")
    if Path(file).stem in _OWN_NAMES:
        return OWN
    return (str(Path(file).absolute()),)


def typed_program() -> list[str]:
    """Return the words, before the arguments, that start this program on a command line."""
    program, file = this_program(), Path(sys.argv[0])
    if program[0] == "-m" and program != OWN:
        return ["python", *program]
    if file.name == "__main__.py":
        return ["python", "-m", file.parent.name]
    return ["python", sys.argv[0]] if file.suffix == ".py" else [file.name]


def _is_same_file(one: str, other: str) -> bool:
    try:
        return Path(one).samefile(other)
    except OSError:
        return False
