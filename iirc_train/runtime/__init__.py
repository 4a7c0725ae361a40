"""What surrounds a run: other processes, signals, memory, random state, progress, logging."""
