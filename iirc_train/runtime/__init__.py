"""The process that a run lives in: other processes, signals, memory, progress."""
