"""What a run is told: settings, presets, and how they are put together."""

from iirc_train.config.experiment import BufferConfig, ExperimentConfig, MethodConfig

__all__ = ["BufferConfig", "ExperimentConfig", "MethodConfig"]
