"""Training: the loop over tasks, its components, evaluation, starting and resuming runs."""
