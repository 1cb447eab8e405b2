"""The client of a cluster that was started for it."""

from __future__ import annotations

import logging
from typing import Any

from distributed import Client
from distributed.core import Status

logger = logging.getLogger(__name__)


class ClusterClient(Client):  # type: ignore[misc]
    """Stops its cluster when it is closed, so that no worker outlives a script.

    One that is forgotten instead leaves its cluster to the end of the process: a client is then
    collected in any thread at any time, an event loop's own too, which must not wait for a cluster.
    """

    def __init__(self, cluster: Any) -> None:
        self._started: Any = None
        super().__init__(cluster)
        self._started = cluster

    def close(self, *args: Any, **kwargs: Any) -> Any:
        done = super().close(*args, **kwargs)
        cluster, self._started = self._started, None
        if cluster is not None:
            try:
                cluster.close()
            except OSError as error:
                # A scheduler that has died cannot be told; its workers end without it.
                logger.warning("the cluster was lost before it was closed: %s", error)
                cluster.status = Status.closed
        return done

    def __del__(self) -> None:
        self._started = None
        super().__del__()
