"""The ``geodl`` command: thin argument parsing over the tools.

Exit status 0, 1 for a failed run, 2 for wrong use. An error is one readable message; ``--debug``
shows the traceback.
"""

from __future__ import annotations

from geodl.cli.main import main

__all__ = ["main"]
