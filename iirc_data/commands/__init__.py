"""The commands of the data half, mounted by the command ``iirc``."""
