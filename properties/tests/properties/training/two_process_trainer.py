"""The reference's trainer in two processes on the CPU: the trainer itself starts several processes only for several GPUs."""

from __future__ import annotations

import os
from typing import Any

import torch
import torch.distributed as dist

from oracle.reference.training import trainer_class


class OnCPU(torch.nn.parallel.DistributedDataParallel):
    """Takes no ``device_ids``, which a trainer gives for a GPU."""

    def __init__(self, module: torch.nn.Module, device_ids: object = None, **options: Any) -> None:
        super().__init__(module, **options)


class TwoProcesses(trainer_class()):  # type: ignore[misc]  # the reference is a black box to the type checker
    """Started once, it starts two processes of itself, as the reference's trainer does for two GPUs."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.world_size = 2
        self.ddp = "LOCAL_RANK" not in os.environ

    def _setup_ddp(self) -> None:
        torch.set_num_threads(1)
        torch.nn.parallel.DistributedDataParallel = OnCPU  # type: ignore[misc, assignment]  # where the trainer looks up the class
        dist.init_process_group("gloo")

    def final_eval(self) -> None:
        """Left out: it asks CUDA which device this is."""
