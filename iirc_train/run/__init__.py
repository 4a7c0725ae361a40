"""The folder of a run: configuration, record, checkpoints, curves and results."""
