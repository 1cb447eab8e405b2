"""Vectors drawn along their principal components, coloured by cluster."""

from __future__ import annotations

from typing import Any

import numpy as np
from scipy.cluster.vq import kmeans2

from geodl.base.packages import require
from geodl.core.classes import PALETTE

_SEED = 0
_SHOWN_CHARACTERS = 40
# Texts beside more points than these cover one another.
_MOST_TEXTS = 200


def clusters_of(vectors: np.ndarray, count: int) -> np.ndarray:
    """int (n,): the cluster of each vector by k-means (k-means++ starts), the same each time."""
    _, labels = kmeans2(vectors.astype(np.float64), count, minit="++", seed=_SEED, missing="warn")
    return np.asarray(labels)


def principal(vectors: np.ndarray, dimensions: int) -> np.ndarray:
    """float64 (n, dimensions): positions along the directions of largest variance."""
    centred = vectors.astype(np.float64) - vectors.mean(axis=0, dtype=np.float64)
    _, _, axes = np.linalg.svd(centred, full_matrices=False)
    places = centred @ axes[:dimensions].T
    # The sign of a direction is arbitrary; its largest part points up.
    signs = np.sign(
        axes[:dimensions][np.arange(len(axes[:dimensions])), _largest(axes, dimensions)]
    )
    found = np.zeros((len(vectors), dimensions))
    found[:, : places.shape[1]] = places * signs
    return found


def _largest(axes: np.ndarray, dimensions: int) -> np.ndarray:
    return np.abs(axes[:dimensions]).argmax(axis=1)


def embedding_figure(
    vectors: np.ndarray, items: np.ndarray, clusters: int, dimensions: int, with_items: bool
) -> Any:
    """A plotly figure, one trace per cluster; its names appear under the pointer."""
    plotly = require("plotly.graph_objects", "embeddings")
    labels, places = clusters_of(vectors, clusters), principal(vectors, dimensions)
    names = [_short(item) for item in items]
    beside = with_items and len(items) <= _MOST_TEXTS
    figure = plotly.Figure()
    for cluster in range(clusters):
        chosen = np.flatnonzero(labels == cluster)
        axes = dict(zip("xyz", places[chosen].T, strict=False))
        red, green, blue = PALETTE[cluster % len(PALETTE)]
        options = {
            "mode": "markers+text" if beside else "markers",
            "name": f"cluster {cluster + 1}",
            "text": [names[k] for k in chosen] if with_items else None,
            "hovertext": [names[k] for k in chosen],
            "marker": {"size": 5, "color": f"rgb({red},{green},{blue})"},
        }
        trace = plotly.Scatter3d if dimensions == 3 else plotly.Scatter
        figure.add_trace(trace(**axes, **options))
    figure.update_layout(title=f"{len(vectors)} items in {clusters} clusters")
    return _shown(figure)


def _short(item: Any) -> str:
    text = str(item)
    if "/" in text or "\\" in text:
        text = text.replace("\\", "/").rpartition("/")[2]
    return text if len(text) <= _SHOWN_CHARACTERS else text[: _SHOWN_CHARACTERS - 3] + "..."


def _shown(figure: Any) -> Any:
    """In a notebook the figure is shown at once; elsewhere it is only returned."""
    from geodl.data.figure import in_notebook

    if in_notebook():
        figure.show()
    return figure
