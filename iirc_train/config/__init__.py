"""The configuration of a run: settings, presets, and how they are composed."""

from iirc_train.config.experiment import BufferConfig, ExperimentConfig, MethodConfig

__all__ = ["BufferConfig", "ExperimentConfig", "MethodConfig"]
