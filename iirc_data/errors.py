"""The errors that users see: each says what was wrong, the value seen, and what to do."""


class IIRCError(Exception):
    """Base of every error that this project raises on purpose."""


class BenchmarkError(IIRCError, ValueError):
    """A benchmark definition is missing, malformed, or does not fit the data or the request."""


class SourceError(IIRCError, ValueError):
    """Raw input (a folder, a tar, an image file) is not what its format promises."""


class ShardError(IIRCError, RuntimeError):
    """A shard folder is missing, incomplete, damaged, or belongs to another dataset."""


class InUseError(IIRCError, RuntimeError):
    """A folder that a command would write to is being written by another one."""


class LoaderError(IIRCError, RuntimeError):
    """An image could not be read or decoded, or a loader was asked for something impossible."""


class ConfigurationError(IIRCError, ValueError):
    """An experiment's configuration is wrong."""


class BufferStorageError(IIRCError, RuntimeError):
    """A replay buffer on disk is missing, damaged, or used out of turn."""


class CheckpointError(IIRCError, RuntimeError):
    """A checkpoint is missing, damaged, or belongs to another run."""


class ClusterError(IIRCError, RuntimeError):
    """A cluster cannot be reached."""


class TrainingError(IIRCError, RuntimeError):
    """Training went wrong in a way that going on would hide."""
