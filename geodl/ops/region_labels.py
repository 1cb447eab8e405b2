"""Edge-connected regions of equal value in an array of any number of values, in one pass."""

from __future__ import annotations

import numpy as np
from scipy import sparse
from scipy.sparse import csgraph


def label_regions(values: np.ndarray, valid: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Number the edge-connected regions of equal value.

    Parameters
    ----------
    values
        int32 (H, W).
    valid
        bool (H, W); pixels elsewhere belong to no region.

    Returns
    -------
    regions
        int64 (H, W): numbers from 0, -1 where nothing is valid.
    of_region
        int32 (R,): the value of each.
    """
    begins = np.ones(values.shape, bool)
    begins[:, 1:] = (values[:, 1:] != values[:, :-1]) | (valid[:, 1:] != valid[:, :-1])
    # Runs along rows are far fewer than pixels where a map is smooth.
    run = np.cumsum(begins.reshape(-1), dtype=np.int32).reshape(values.shape) - 1
    count = int(run[-1, -1]) + 1
    touch = (values[1:] == values[:-1]) & valid[1:] & valid[:-1]
    # Two runs that meet are linked where the later of them begins.
    touch &= begins[1:] | begins[:-1]
    links = (run[1:][touch], run[:-1][touch])
    graph = sparse.coo_array((np.ones(len(links[0]), np.int8), links), shape=(count, count))
    found, of_run = csgraph.connected_components(graph.tocsr(), directed=False)
    value_of_run, run_valid = values[begins], valid[begins]
    kept = np.zeros(found, bool)
    kept[of_run[run_valid]] = True
    number = np.where(kept, np.cumsum(kept) - 1, -1)
    of_region = np.zeros(int(kept.sum()), np.int32)
    of_region[number[of_run[run_valid]]] = value_of_run[run_valid]
    return number[of_run][run], of_region
