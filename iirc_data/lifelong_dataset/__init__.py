"""The published dataset API: datasets whose content changes with the task that is chosen."""
