"""Figures that need no display, never block, and show exactly once in a notebook."""

from __future__ import annotations

import io
import sys
from typing import Any

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure


class ShownFigure(Figure):
    """A figure outside pyplot's list, so that nothing is drawn twice or kept alive.

    In a notebook :func:`show` draws it at once; when it is also the last value of that cell, the
    notebook's own display of it is passed over. In a later cell it is displayed as usual.
    """

    _shown_in: int | None = None

    def _ipython_display_(self) -> None:
        shell = _notebook()
        if shell is None or shell.execution_count == self._shown_in:
            return
        self._display()

    def _display(self) -> None:
        from IPython.display import Image, display

        display(Image(data=self.to_png()))

    def to_png(self) -> bytes:
        """The figure as a PNG file."""
        buffer = io.BytesIO()
        self.savefig(buffer, format="png", bbox_inches="tight")
        return buffer.getvalue()


def new_figure(width_in: float, height_in: float) -> ShownFigure:
    """An empty figure; sizes in inches."""
    figure = ShownFigure(figsize=(width_in, height_in), layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def show(figure: ShownFigure) -> ShownFigure:
    """Display in a notebook, do nothing elsewhere; the figure is returned to be saved."""
    shell = _notebook()
    if shell is not None:
        figure._display()
        figure._shown_in = shell.execution_count
    return figure


def in_notebook() -> bool:
    """Whether a notebook runs this."""
    return _notebook() is not None


def _notebook() -> Any:
    """The running notebook's shell, or None in scripts and terminals."""
    ipython = sys.modules.get("IPython")
    shell = ipython.get_ipython() if ipython is not None else None
    return shell if shell is not None and hasattr(shell, "kernel") else None
