"""One at a time: what changes the process's warning filters while it runs."""

from __future__ import annotations

import threading

# ``warnings.catch_warnings`` puts back the filters of the whole process when it ends. Two threads
# inside it at once undo each other's; rasterio enters it too, whenever it rasterises.
quiet_lock = threading.RLock()
