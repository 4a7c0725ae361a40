"""The errors that users see: each reports what was wrong, the value seen, and what to do."""


class IIRCError(Exception):
    """Base of every error that this project raises on purpose."""


class BenchmarkError(IIRCError, ValueError):
    """A benchmark definition is missing, malformed, or does not fit the data or the request."""


class SourceError(IIRCError, ValueError):
    """Raw input (a folder, a tar, an image file) is missing, damaged, or in the wrong format."""


class ShardError(IIRCError, RuntimeError):
    """A shard folder is missing, incomplete, damaged, or belongs to another dataset."""


class InUseError(IIRCError, RuntimeError):
    """Another process is writing to the folder or file that a command needs to write to."""


class LoaderError(IIRCError, RuntimeError):
    """An image cannot be read or decoded, or a loader cannot work with its settings."""


class ConfigurationError(IIRCError, ValueError):
    """An experiment's configuration is wrong."""


class BufferStorageError(IIRCError, RuntimeError):
    """A replay buffer on disk is missing or damaged, or was used in the wrong order."""


class CheckpointError(IIRCError, RuntimeError):
    """A checkpoint is missing, damaged, or belongs to another run."""


class ClusterError(IIRCError, RuntimeError):
    """A cluster cannot be reached, or cannot do the work."""


class LostWorkersError(ClusterError):
    """Every worker that took a piece of work was lost."""


class TrainingError(IIRCError, RuntimeError):
    """Training failed in a way that continuing would hide."""
