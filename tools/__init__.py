"""Scripts: the commands that write shards, and the conversion of the published benchmarks."""
