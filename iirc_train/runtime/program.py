"""The program that this process is: ``iirc``, or a script that adds methods and calls it."""

import sys
from pathlib import Path

OWN = ("-m", "iirc_train")
"""What the Python interpreter is given to start the command ``iirc``."""

_OWN_NAMES = ("iirc", "iirc_train")


def this_program() -> tuple[str, ...]:
    """Return what the interpreter is given to start this program once more.

    A script that adds a method of its own and hands over to :func:`iirc_train.cli.app.main` is
    started as it was, so that processes that a command starts know the method too.
    """
    main = sys.modules["__main__"]
    file, spec = getattr(main, "__file__", None), main.__spec__
    if file is None or not _is_same_file(sys.argv[0], file):
        return OWN  # a notebook, or another program that calls the command
    if spec is not None:  # python -m; of a package __main__ runs
        return "-m", spec.name.removesuffix(".__main__")
    if Path(file).stem in _OWN_NAMES:
        return OWN
    return (str(Path(file).absolute()),)


def typed_program() -> list[str]:
    """Return the words before its arguments with which this program was started by hand."""
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
