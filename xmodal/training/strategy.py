"""The Lightning strategy that splits weights over the processes: FSDP2, on GPUs and CPUs, with ordinary checkpoints."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pytorch_lightning.core.optimizer import LightningOptimizer
from pytorch_lightning.strategies import FSDPStrategy, ModelParallelStrategy
from torch import Tensor
from torch.nn.modules.batchnorm import _BatchNorm
from torch.optim import Optimizer

from xmodal.errors import ModelError
from xmodal.training.sharding import (
    ShardedNetwork,
    average_whole_gradients,
    share_from_first,
    split_like,
    whole_state,
)

if TYPE_CHECKING:
    from xmodal.training.module import AlignmentModule


class FullyShardedStrategy(ModelParallelStrategy):
    """Fully sharded data parallelism over all processes of all nodes.

    :meth:`AlignmentModule.configure_model <xmodal.training.module.AlignmentModule.configure_model>` splits the weights
    (:mod:`xmodal.training.sharding`). What Lightning's own strategy for that does not do: a checkpoint is one ordinary
    file, written and read as in every other run, so that a run can go on with another strategy or number of processes;
    gradients of what is not split are averaged; running statistics are the first process's, as under DDP.

    Args:
        process_group_backend: "nccl" or "gloo"; None for the one that fits the device.
    """

    def __init__(self, process_group_backend: str | None = None) -> None:
        super().__init__(
            tensor_parallel_size=1, save_distributed_checkpoint=False, process_group_backend=process_group_backend
        )

    def setup_environment(self) -> None:
        """Start the process group; the mesh has all processes in one dimension."""
        self._data_parallel_size = self.num_nodes * self.num_processes
        super().setup_environment()

    @property
    def lightning_restore_optimizer(self) -> bool:
        """Lightning asks for :meth:`load_optimizer_state_dict`."""
        return True

    # -- steps --------------------------------------------------------------------------------------------------

    def training_step(self, *args: Any, **kwargs: Any) -> Any:
        """A step with the first process's running statistics."""
        self._share_statistics()
        return super().training_step(*args, **kwargs)

    def validation_step(self, *args: Any, **kwargs: Any) -> Any:
        """Likewise."""
        self._share_statistics()
        return super().validation_step(*args, **kwargs)

    def test_step(self, *args: Any, **kwargs: Any) -> Any:
        """Likewise."""
        self._share_statistics()
        return super().test_step(*args, **kwargs)

    def predict_step(self, *args: Any, **kwargs: Any) -> Any:
        """Likewise."""
        self._share_statistics()
        return super().predict_step(*args, **kwargs)

    def post_backward(self, closure_loss: Tensor) -> None:
        """Average the gradients that FSDP knows nothing of."""
        assert self.lightning_module is not None
        average_whole_gradients(self.lightning_module.parameters())

    def _share_statistics(self) -> None:
        assert self.lightning_module is not None
        norms = [module for module in self.lightning_module.modules() if isinstance(module, _BatchNorm)]
        share_from_first(buffer for norm in norms for buffer in norm.buffers())

    # -- checkpoints --------------------------------------------------------------------------------------------

    def lightning_module_state_dict(self) -> dict[str, Any]:
        """The whole weights, in every process."""
        assert self.lightning_module is not None
        state: dict[str, Any] = whole_state(self.lightning_module.state_dict())
        return state

    def load_model_state_dict(self, checkpoint: Mapping[str, Any], strict: bool = True) -> None:
        """Each process takes its parts of the whole weights."""
        assert self.lightning_module is not None
        now = self.lightning_module.state_dict()
        state = {
            name: split_like(value, now[name]) if name in now else value
            for name, value in checkpoint["state_dict"].items()
        }
        self.lightning_module.load_state_dict(state, strict=strict)

    def optimizer_state(self, optimizer: Optimizer) -> dict[str, Any]:
        """The whole state, in every process."""
        inner: Optimizer = optimizer._optimizer if isinstance(optimizer, LightningOptimizer) else optimizer
        state: dict[str, Any] = whole_state(inner.state_dict())
        return state

    def load_optimizer_state_dict(self, checkpoint: Mapping[str, Any]) -> None:
        """Each process takes its parts of the whole state."""
        for optimizer, state in zip(self.optimizers, checkpoint["optimizer_states"], strict=True):
            parameters = [each for group in optimizer.param_groups for each in group["params"]]
            split = {
                place: {
                    name: split_like(value, parameters[place]) if _is_of(value, parameters[place]) else value
                    for name, value in states.items()
                }
                for place, states in state["state"].items()
            }
            optimizer.load_state_dict({**state, "state": split})

    def save_checkpoint(
        self, checkpoint: dict[str, Any], filepath: str | Path, storage_options: Any | None = None
    ) -> None:
        """The first process writes, with the run's own checkpoint plugin."""
        if self.is_global_zero:
            self.checkpoint_io.save_checkpoint(checkpoint, filepath, storage_options=storage_options)

    def load_checkpoint(self, checkpoint_path: str | Path, weights_only: bool | None = None) -> dict[str, Any]:
        """Every process reads the file."""
        return self.checkpoint_io.load_checkpoint(checkpoint_path, weights_only=weights_only)


def split_weights(module: AlignmentModule) -> ShardedNetwork | None:
    """Split a module's network over the processes if its strategy is :class:`FullyShardedStrategy`.

    Raises:
        ModelError: If another strategy would split the weights, or the module holds what cannot be split.
    """
    strategy = module.trainer.strategy
    if not isinstance(strategy, FullyShardedStrategy):
        if isinstance(strategy, FSDPStrategy | ModelParallelStrategy):
            raise ModelError(
                f"{type(strategy).__name__} splits weights in a way that does not fit towers, which are more than "
                "their forward; use --trainer.strategy xmodal.training.FullyShardedStrategy, or ddp"
            )
        return None
    if module.key_encoder is not None:
        raise ModelError(
            "key_momentum keeps a second network that follows the whole weights, and FullyShardedStrategy splits them; "
            "use ddp, or leave key_momentum out"
        )
    if module.compiles:
        raise ModelError(
            "compile takes a tower's weights as they are, and FullyShardedStrategy gathers them when they are needed; "
            "use ddp, or leave compile out"
        )
    if strategy._layer_sync is not None:
        raise ModelError(
            "sync_batchnorm replaces layers after the weights were split by FullyShardedStrategy; use ddp, or leave "
            "trainer.sync_batchnorm out"
        )
    module.network.to(strategy.root_device)
    sharded = ShardedNetwork(module.network, strategy.device_mesh["data_parallel"])
    module.encoder.audio_tower = module.network.audio.encode
    if module.averaged is not None:
        module.averaged.restart(module.network)
    return sharded


def _is_of(value: Any, parameter: Tensor) -> bool:
    """Whether a state is one number for each of a parameter's (a moment), and not one for all (a count of steps)."""
    return isinstance(value, Tensor) and value.shape == parameter.shape
