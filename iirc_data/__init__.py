"""Data half: raw images to shards to task views to batches. Never imports ``iirc_train``."""
