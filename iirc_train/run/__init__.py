"""What a run leaves behind: its folder, record, checkpoints, curves and results."""
