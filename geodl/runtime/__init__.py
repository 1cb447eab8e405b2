"""Running blocks: serially or on Dask, with a ledger that makes every run resumable."""

from geodl.runtime.ledger import Ledger
from geodl.runtime.run import BlockTask, RunSummary, run_blocks

__all__ = ["BlockTask", "Ledger", "RunSummary", "run_blocks"]
