"""Ways to start a cluster: one file each, all from one :class:`~geodl.runtime.clusters.spec.Spec`.

A launcher is a function of a spec that returns a started :class:`Cluster`, with the names of the
options that it takes beyond the common ones.
"""

from __future__ import annotations

from geodl.base.registry import Registry

LAUNCHERS = Registry(
    "kind of cluster",
    {
        "cuda": "geodl.runtime.clusters.cuda:LAUNCHER",
        "local": "geodl.runtime.clusters.local:LAUNCHER",
        "slurm": "geodl.runtime.clusters.slurm:LAUNCHER",
    },
    group="geodl.clusters",
)

__all__ = ["LAUNCHERS"]
