"""The calls of a run's network: compiled, with averaged gradients, captured in CUDA graphs."""

import torch

from iirc_data.errors import ConfigurationError
from iirc_data.loader import Loader
from iirc_train.buffer import ReservoirBuffer
from iirc_train.models.compiled import NetworkCompiler
from iirc_train.runtime.distributed import averaging_gradients, world_size
from iirc_train.training.graphed_step import CudaCapture, GraphedStep, TrainingStep
from iirc_train.training.loaders import Loaders
from iirc_train.training.remembering import RememberingStep


class TrainingSteps(Loaders):
    """How an experiment calls its network in training.

    Attributes:
        graph: Whether training steps on resident images are captured, ``"on"`` or ``"off"``.
    """

    graph: str
    _graphed_step: GraphedStep | None = None
    _compiler: NetworkCompiler | None = None
    _connected: tuple[torch.nn.Module | None, torch.nn.Module | None] = None, None

    def connect_network(self) -> None:
        """Compile the network if configured.

        Call again after a task is prepared, because that may change the network.
        """
        net: torch.nn.Module | None = None
        teacher: torch.nn.Module | None = None
        if self.config.compile:
            if self._compiler is None:
                n_images = self.method.images_per_pass(self.config.batch_size)
                self._compiler = NetworkCompiler(n_images // world_size())
            net, *teachers = self._compiler.compiled(self.method.net, self.method.old_net)
            net = self.method.as_called(net)
            teacher = teachers[0] if teachers else None
        self._connected = net, teacher
        self.method.train_through(net, teacher)

    def average_gradients(self, *, is_equal: bool = False) -> None:
        """Let several processes average their gradients; call again where a run may resume.

        DistributedDataParallel sums gradients in another order after its first step. Without a new
        one, an epoch would end in other bits after a resumption than within an unbroken run.

        Args:
            is_equal: All processes have the same parameters, so none are sent.
        """
        if world_size() > 1:
            net, teacher = self._connected
            self.method.train_through(None)  # releases the buckets of the epoch before
            net = net or self.method.as_called(self.method.net)
            averaging = averaging_gradients(net, self.device, is_equal=is_equal)
            self.method.train_through(averaging, teacher)

    def training_step(self, loader: Loader) -> TrainingStep:
        """Return the method's training step for the batches of a loader, captured if configured.

        Raises:
            ConfigurationError: ``graph`` is ``on``, and the loader does not hold resident images.
        """
        if isinstance(self.buffer, ReservoirBuffer):
            return RememberingStep(self.method, self.buffer)
        if self.graph == "off":
            return self.method.training_step
        if not loader.is_resident:  # a decoder would use the GPU during the capture
            if self.config.graph == "on":
                raise ConfigurationError(
                    f"graph: on needs resident images, got {loader.n_samples:,} images that are "
                    "decoded in every epoch: give --resident or --graph auto"
                )
            return self.method.training_step
        if self._graphed_step is None:
            capture = CudaCapture(self.device)
            self._graphed_step = GraphedStep(self.method, self.batch_size, capture)
        return self._graphed_step
