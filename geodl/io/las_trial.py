"""A file whose header is odd, decoded in a process of its own before this one touches it.

The trial has limits of time and memory, so that a file made to hang or exhaust the decoder ends it
and not us. Run as ``python -m geodl.io.las_trial LOCATION MEMORY_BYTES``.
"""

from __future__ import annotations

import functools
import subprocess
import sys
from collections.abc import Sequence

from geodl.base.errors import GeodlError, SourceError

MEMORY_BYTES = 3 * 2**30
_LEAST_S, _S_PER_MB = 20.0, 0.5


def check_doubts(where: str, stamp: str, doubts: Sequence[str], size: int) -> None:
    """Decode a file elsewhere, once for each state of it.

    Raises
    ------
    SourceError
        It failed, or went over the limits; names what was odd about the file.
    """
    problem = _try(where, stamp, size)
    if problem is not None:
        raise SourceError(
            f"{where} is not read: {'; '.join(doubts)}, and decoding it in another process "
            f"{problem}. Copy or export the file again."
        )


@functools.lru_cache(maxsize=256)
def _try(where: str, stamp: str, size: int) -> str | None:
    limit_s = _LEAST_S + _S_PER_MB * size / 1e6
    command = [sys.executable, "-m", "geodl.io.las_trial", where, str(MEMORY_BYTES)]
    try:
        done = subprocess.run(command, capture_output=True, timeout=limit_s, check=False)
    except subprocess.TimeoutExpired:
        return f"did not end within {limit_s:.0f} s"
    if done.returncode == 0:
        return None
    if done.returncode < 0:
        return f"was ended by signal {-done.returncode}"
    lines = done.stdout.decode("utf-8", "replace").strip().splitlines()
    return f"failed ({lines[-1] if lines else f'status {done.returncode}'})"


def main(arguments: Sequence[str]) -> int:
    """Decode every part of a file; 0 when all went well, else 1 with the reason on stdout."""
    import resource

    from geodl.io.las_file import open_las
    from geodl.io.locations import locate

    where, limit = arguments
    _, hard = resource.getrlimit(resource.RLIMIT_AS)
    wanted = int(limit) if hard == resource.RLIM_INFINITY else min(int(limit), hard)
    resource.setrlimit(resource.RLIMIT_AS, (wanted, hard))
    try:
        file = open_las(locate(where), trusted=True)
        for part in file.parts(0):
            file.read_raw(part)
    except (GeodlError, MemoryError) as error:
        sys.stdout.write(" ".join(str(error).split()) or type(error).__name__)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
