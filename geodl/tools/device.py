"""Which device a run uses: of this process, or of the workers that do its blocks."""

from __future__ import annotations

import warnings
from typing import Any

import torch

from geodl.base.errors import GeodlWarning, OptionError
from geodl.runtime.connect import prepare_workers
from geodl.runtime.packed import call, pack


def run_device(wanted: str | None, client: Any = None) -> str:
    """``"cuda"`` or ``"cpu"``.

    Parameters
    ----------
    wanted
        The one that was asked for; None takes GPUs where there are any.
    client
        A Dask client whose workers run the blocks: a login node has no GPU, its workers may. None
        asks this process.

    Raises
    ------
    OptionError
        A GPU is asked for where there is none; names the workers.
    """
    if wanted == "cpu":
        return "cpu"
    without = _without_gpu(client)
    if not without:
        return "cuda"
    if wanted == "cuda":
        raise OptionError(
            f'processorType="GPU": torch sees no GPU {_where(without)}; use "CPU", or see `geodl '
            f"doctor` there."
        )
    total = 1 if client is None else len(client.scheduler_info(n_workers=-1)["workers"])
    if len(without) < total:
        warnings.warn(
            f"{total - len(without)} of {total} workers see a GPU, so that the run uses CPUs on "
            f"all; there is none {_where(without)}. Leave these out, one result comes from one "
            f"kind of device.",
            GeodlWarning,
            stacklevel=2,
        )
    return "cpu"


def _without_gpu(client: Any) -> list[str]:
    """Workers without a GPU; ``[""]`` for this process."""
    if client is None:
        return [] if sees_gpu() else [""]
    # Before torch is loaded there: the number of its threads is read then.
    prepare_workers(client)
    packed = pack(sees_gpu)
    asked = {
        address: client.submit(call, packed, workers=[address], pure=False)
        for address in client.scheduler_info(n_workers=-1)["workers"]
    }
    # A worker that fails here is told of, with its reason, by the preflight.
    client.gather(list(asked.values()), errors="skip")
    return [address for address, future in asked.items() if not _says_yes(future)]


def _says_yes(future: Any) -> bool:
    return future.status == "finished" and future.result() is True


def sees_gpu() -> bool:
    """Whether torch can use a GPU in this process."""
    return torch.cuda.is_available()


def _where(without: list[str]) -> str:
    if without == [""]:
        return "here"
    more = f" and {len(without) - 3} more" if len(without) > 3 else ""
    return f"on {', '.join(without[:3])}{more}"
