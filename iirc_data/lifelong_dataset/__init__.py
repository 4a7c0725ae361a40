"""Published API: datasets that show one task at a time."""
