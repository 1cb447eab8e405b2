"""Whether a Dask cluster can be reached, and whether its workers suit this process."""

from __future__ import annotations

from typing import Any

from geodl.base.errors import GeodlError


def examine_cluster(target: str, faults: list[str]) -> dict[str, Any]:
    """Facts about the cluster at an address, scheduler file or recipe; faults name the remedy.

    A recipe or kind that starts a cluster (``local``, ``slurm``) is started and stopped again.
    """
    from geodl.runtime.connect import connect
    from geodl.runtime.preflight import versions

    try:
        client = connect(target)
    except (GeodlError, OSError) as error:
        faults.append(f"The cluster cannot be reached: {error}")
        return {"target": target, "workers": 0}
    with client:
        workers = client.scheduler_info(n_workers=-1)["workers"]
        here = versions()
        theirs: dict[str, Any] = {}
        if not workers:
            faults.append(f"The cluster {target} has no workers: start some with `dask worker`.")
        else:
            theirs = client.run(versions, on_error="return")
        for address, found in theirs.items():
            _compare(address, found, here, faults)
        return {
            "target": target,
            "scheduler": client.scheduler_info(n_workers=0)["address"],
            "dashboard": client.dashboard_link,
            "workers": len(workers),
            "threads": sum(worker["nthreads"] for worker in workers.values()),
            "memory_gb": round(sum(w["memory_limit"] or 0 for w in workers.values()) / 2**30, 1),
        }


def _compare(address: str, found: Any, here: dict[str, str], faults: list[str]) -> None:
    if isinstance(found, BaseException):
        faults.append(
            f"The worker {address} cannot run geodl ({type(found).__name__}: {found}): install "
            f"geodl {here['geodl']} there."
        )
        return
    wrong = [f"{k} {text} (here {here[k]})" for k, text in found.items() if text != here[k]]
    if wrong:
        faults.append(
            f"The worker {address} has {', '.join(wrong)}: install the same versions on both sides."
        )
