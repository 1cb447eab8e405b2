"""How much memory a step takes, and how much there is."""

from __future__ import annotations

import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil  # type: ignore[import-untyped]
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

# Limits of a container, version 2 and 1 of the kernel's interface: (limit, used).
_CGROUP_FILES = (
    ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory.current"),
    (
        "/sys/fs/cgroup/memory/memory.limit_in_bytes",
        "/sys/fs/cgroup/memory/memory.usage_in_bytes",
    ),
)


class _LiveStorages(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Adds up the storages that operations create, and takes them off when they die."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.live_bytes = 0
        self.peak_bytes = 0
        self._seen: dict[int, int] = {}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        for leaf in tree_leaves(result):
            if isinstance(leaf, Tensor):
                self._count(leaf.untyped_storage())
        return result

    def _count(self, storage: torch.UntypedStorage) -> None:
        key = storage._cdata
        if key in self._seen:
            return
        size = storage.nbytes()
        self._seen[key] = size
        self.live_bytes += size
        self.peak_bytes = max(self.peak_bytes, self.live_bytes)
        weakref.finalize(storage, self._drop, key)

    def _drop(self, key: int) -> None:
        self.live_bytes -= self._seen.pop(key, 0)


def peak_tensor_bytes(step: Callable[[], object]) -> int:
    """Most bytes of tensors created by ``step`` that are alive at one time, on a CPU.

    Counted, not sampled: the same for each run and independent of what else the machine does.
    """
    with _LiveStorages() as tracker:
        step()
    return tracker.peak_bytes


def free_bytes(device: torch.device) -> int:
    """Memory that could still be taken on a device: of the GPU, or of the machine or container."""
    if device.type == "cuda":
        reserved = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return torch.cuda.mem_get_info(device)[0] + reserved
    return min([psutil.virtual_memory().available, *_container_bytes()])


def _container_bytes() -> list[int]:
    for limit_file, used_file in _CGROUP_FILES:
        try:
            limit, used = (Path(name).read_text().strip() for name in (limit_file, used_file))
        except OSError:
            continue
        if limit.isdigit() and used.isdigit():
            return [max(0, int(limit) - int(used))]
    return []
