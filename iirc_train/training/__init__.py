"""Training: the loop over tasks, what it works with, evaluation, starting and resuming a run."""
