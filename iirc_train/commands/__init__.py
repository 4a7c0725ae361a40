"""The commands of the training half, mounted by the command ``iirc``."""
