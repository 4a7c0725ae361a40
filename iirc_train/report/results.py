"""Former place of :mod:`iirc_train.run.results`, from which its names can still be imported."""

from iirc_train.run.results import JS, PWJS, RunResults, read_evaluations, read_results

__all__ = ["JS", "PWJS", "RunResults", "read_evaluations", "read_results"]
