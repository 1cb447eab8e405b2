"""What a cluster is to have, whoever starts it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from dask.utils import parse_bytes

from geodl.base.errors import OptionError
from geodl.base.options import as_int, check_known

# Less than Python with torch takes: Dask would start such a worker again and again, for ever.
_LEAST_BYTES = 256 * 2**20

COMMON = ("workers", "threads_per_worker", "memory_limit", "dashboard_address")


@dataclass(frozen=True, slots=True, kw_only=True)
class Spec:
    """Workers as a caller asked for them.

    Parameters
    ----------
    workers
        Worker processes; None leaves it to the launcher.
    threads_per_worker
        Dask threads of each, that is blocks in hand: one computes, the others read and write. None
        leaves it to the launcher.
    memory_limit
        Of each worker, in bytes; None leaves it to the launcher.
    dashboard_address
        Where the scheduler serves its dashboard; None for nowhere.
    more
        What only one launcher knows.
    """

    workers: int | None = None
    threads_per_worker: int | None = None
    memory_limit: int | None = None
    dashboard_address: str | None = ":0"
    more: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def of(cls, kind: str, options: Mapping[str, Any], known: tuple[str, ...]) -> Spec:
        """Check the options of ``connect(kind, **options)``.

        Raises
        ------
        UnknownOptionError, OptionError
            Names the option.
        """
        where = f"connect({kind!r})"
        check_known(options, (*COMMON, *known), where)
        workers = options.get("workers")
        threads = options.get("threads_per_worker")
        address = options.get("dashboard_address", ":0")
        if address is not None and not isinstance(address, str):
            raise OptionError(
                f"{where}: dashboard_address={address!r} is no text such as ':8787', and not None"
            )
        return cls(
            workers=None if workers is None else as_int(workers, f"{where}: workers", minimum=1),
            threads_per_worker=None
            if threads is None
            else as_int(threads, f"{where}: threads_per_worker", minimum=1),
            memory_limit=_bytes(options.get("memory_limit", "auto"), where),
            dashboard_address=address,
            more={name: options[name] for name in known if name in options},
        )


@dataclass(frozen=True, slots=True)
class Started:
    """A cluster that runs.

    Parameters
    ----------
    cluster
        A ``distributed`` cluster.
    expected
        Workers that must be there before it is of use.
    within_s
        How long to wait for them.
    late
        What to tell when they do not come.
    """

    cluster: Any
    expected: int
    within_s: float
    late: str


@dataclass(frozen=True, slots=True)
class Launcher:
    """A way to start a cluster, and its own options."""

    options: tuple[str, ...]
    start: Callable[[Spec], Started]


def _bytes(value: Any, where: str) -> int | None:
    if value is None or value == "auto":
        return None
    try:
        found = int(parse_bytes(value))
    except (TypeError, ValueError):
        found = 0
    if found < 1 or isinstance(value, bool):
        raise OptionError(
            f"{where}: memory_limit={value!r} is no size; give bytes, a text such as '4GB', or "
            f"'auto'"
        )
    if found < _LEAST_BYTES:
        raise OptionError(
            f"{where}: memory_limit={value!r} is {found} bytes, less than a worker's libraries "
            f"take; give a text with its unit, such as '4GB'"
        )
    return found
