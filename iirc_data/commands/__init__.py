"""The commands of the data half, which the command ``iirc`` mounts."""
