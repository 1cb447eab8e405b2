"""One worker for each GPU of this machine, through dask-cuda."""

from __future__ import annotations

import os

from geodl.base.errors import OptionError
from geodl.base.packages import require
from geodl.runtime.clusters.local import LATE
from geodl.runtime.clusters.processes import START_S, start_processes
from geodl.runtime.clusters.spec import Launcher, Spec, Started


def _start(spec: Spec) -> Started:
    require("dask_cuda", "cuda")
    there = _visible()
    if spec.workers not in (None, there):
        raise OptionError(
            f"connect('cuda'): workers={spec.workers}, but {there} GPUs are visible and each gets "
            f"one worker; leave workers out, or choose GPUs with CUDA_VISIBLE_DEVICES"
        )
    # One such process starts a worker for each GPU, gives it that GPU alone (the worker's own
    # device 0) and binds it to the cores near it. "auto" is a share of the memory for each.
    cluster = start_processes(
        spec, "dask_cuda.CUDAWorker", 1, memory_limit=spec.memory_limit or "auto"
    )
    return Started(cluster, there, START_S, LATE)


def _visible() -> int:
    """GPUs that workers will see; the driver is asked, so that no CUDA context is made here."""
    chosen = os.environ.get("CUDA_VISIBLE_DEVICES")
    if chosen is not None:
        there = len([part for part in chosen.split(",") if part.strip() not in ("", "-1")])
    else:
        nvml = require("pynvml", "cuda")
        try:
            nvml.nvmlInit()
            there = int(nvml.nvmlDeviceGetCount())
        except nvml.NVMLError as error:
            raise OptionError(
                f"connect('cuda'): the NVIDIA driver does not answer ({error}); see `geodl "
                f"doctor`, or use connect('local')"
            ) from error
    if there < 1:
        raise OptionError(
            "connect('cuda'): no GPU is visible; unset CUDA_VISIBLE_DEVICES, or use "
            "connect('local')"
        )
    return there


LAUNCHER = Launcher((), _start)
