"""How fast a run was, stage by stage."""

from __future__ import annotations

from dataclasses import dataclass

from geodl.runtime.run import RunSummary

# Stages that blocks report, in the order of the work; the others are parts of "compute".
_STAGES = ("read", "model", "merge", "write", "finalise")


@dataclass(frozen=True, slots=True)
class Speed:
    """Throughput in megapixels a second.

    Parameters
    ----------
    overall
        Of the whole run, from its first block to the finished product.
    stages
        Of each stage by itself, were it alone on one thread.
    busy
        Share of the time of all processes that did blocks in which the model ran, 0..1.
    """

    overall: float
    stages: dict[str, float]
    busy: float

    @classmethod
    def of(cls, summary: RunSummary, pixels: int, processes: int) -> Speed:
        """Of a run over so many pixels, each process computing one block at a time.

        What an earlier call computed counts in the stages, but in neither ``overall`` nor
        ``busy``, whose time is this call's.
        """
        share = 1 - summary.resumed / max(1, summary.total)
        seconds = summary.seconds
        model = sum(summary.seconds_now.get(stage, 0.0) for stage in ("model",))
        return cls(
            overall=pixels * share / 1e6 / max(summary.wall_s, 1e-9),
            stages={
                stage: pixels / 1e6 / seconds[stage] for stage in _STAGES if seconds.get(stage)
            },
            busy=min(1.0, model / max(summary.blocks_s * processes, 1e-9)),
        )

    def __str__(self) -> str:
        parts = ", ".join(f"{stage} {rate:.3g}" for stage, rate in self.stages.items())
        return f"{self.overall:.3g} MPix/s ({parts}), the model ran {self.busy:.0%} of the time"
