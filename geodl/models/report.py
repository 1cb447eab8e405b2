"""The report beside a saved model: an HTML page of its losses, metrics and sample results."""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping
from html import escape
from typing import Any

_SHOWN_METRICS = ("accuracy", "mIoU", "average_precision_score")


def report_html(name: str, emd: Mapping[str, Any], pictures: Mapping[str, bytes]) -> str:
    """An HTML fragment.

    Parameters
    ----------
    name
        Of the model.
    emd
        Its definition with metrics.
    pictures
        PNG files by title.
    """
    parameters = emd.get("ModelParameters", {})
    parts = [
        f"<h1>{escape(name)}</h1>",
        _line("Model", emd["ModelName"]),
        _line("Backbone", parameters.get("backbone", "none")),
        _line("Learning rate", emd.get("LearningRate", "None")),
        *(_line(key, _metric(emd[key])) for key in _SHOWN_METRICS if key in emd),
    ]
    if "per_class_metrics" in emd:
        parts.append(_class_table(json.loads(emd["per_class_metrics"])))
    for title, png in pictures.items():
        text = base64.b64encode(png).decode("ascii")
        parts.append(f"<h2>{escape(title)}</h2>")
        parts.append(f'<img alt="{escape(title)}" src="data:image/png;base64,{text}">')
    return "\n".join(parts) + "\n"


def _line(key: str, value: Any) -> str:
    return f"<p><b>{escape(key)}:</b> {escape(str(value))}</p>"


def _metric(value: Any) -> str:
    if isinstance(value, Mapping):
        return ", ".join(f"{key}: {_metric(part)}" for key, part in value.items())
    return f"{value:.4f}" if isinstance(value, float) else str(value)


def _class_table(table: Mapping[str, Mapping[str, float]]) -> str:
    columns = list(next(iter(table.values()), {}))
    head = "".join(f"<th>{escape(column)}</th>" for column in ("class", *columns))
    rows = "".join(
        f"<tr><td>{escape(name)}</td>"
        + "".join(f"<td>{row[column]:.4f}</td>" for column in columns)
        + "</tr>"
        for name, row in table.items()
    )
    return f"<table><tr>{head}</tr>{rows}</table>"
