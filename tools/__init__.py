"""Command-line tools that turn raw datasets into shards."""
