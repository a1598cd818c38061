"""Cost of a training pass against batch size, sequence length and group size; each should be a straight line."""

from __future__ import annotations

import statistics
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

import mint_lab as ml
from mint_lab.client.training import TrainingClient
from mint_lab.types import Datum

from .engine import medium_model

__all__ = ["Curve", "as_rows", "draw", "measure"]

VOCABULARY = 16_384


@dataclass(frozen=True)
class Curve:
    """Seconds of a pass at each size, and the line through them.

    Attributes:
        name: What the sizes count.
        sizes: The sizes.
        seconds: Median of the rounds at each size.
        low: Their lower quartiles.
        high: Their upper quartiles.
        slope: Seconds for each unit of size, of the least-squares line.
        start: Seconds at size 0, of that line.
        r2: Its coefficient of determination.
    """

    name: str
    sizes: list[int]
    seconds: list[float]
    low: list[float]
    high: list[float]
    slope: float
    start: float
    r2: float


def measure(rounds: int) -> list[Curve]:
    """Time forward and backward of cross-entropy on random tokens, 22 M-parameter model, alternating sizes."""
    with tempfile.TemporaryDirectory() as folder:
        client = ml.ServiceClient().create_lora_training_client(
            str(medium_model(Path(folder))), rank=16, seed=0, train_unembed=False
        )
        return [
            _curve(client, "sequences of 128 tokens", {n: _sequences(n, 128) for n in (2, 4, 8, 16, 24, 32)}, rounds),
            _curve(client, "tokens in each of 4 sequences", {n: _sequences(4, n) for n in (64, 128, 256, 512)}, rounds),
            _curve(client, "samples of 64 tokens on one prompt of 256", _groups((1, 2, 4, 8, 16, 24, 32)), rounds),
        ]


def _sequences(count: int, length: int) -> list[Datum]:
    random = np.random.default_rng(0)
    return [ml.data.to_datum(random.integers(0, VOCABULARY, length + 1).tolist(), 1) for _ in range(count)]


def _groups(sizes: Sequence[int]) -> dict[int, list[Datum]]:
    random = np.random.default_rng(0)
    prompt = random.integers(0, VOCABULARY, 256).tolist()
    samples = [random.integers(0, VOCABULARY, 64).tolist() for _ in range(max(sizes))]
    return {n: [ml.data.to_datum([*prompt, *sample], 256) for sample in samples[:n]] for n in sizes}


def _curve(client: TrainingClient, name: str, batches: dict[int, list[Datum]], rounds: int) -> Curve:
    found: dict[int, list[float]] = {size: [] for size in batches}
    for turn in range(rounds + 1):
        for size, data in batches.items():
            start = time.perf_counter()
            client.forward_backward(data, "cross_entropy").result()
            if turn:  # the first round is warm-up
                found[size].append(time.perf_counter() - start)
    sizes = list(batches)
    seconds = [statistics.median(found[size]) for size in sizes]
    slope, start = np.polyfit(sizes, seconds, 1)
    line = slope * np.array(sizes) + start
    rest = float(((np.array(seconds) - line) ** 2).sum() / ((np.array(seconds) - np.mean(seconds)) ** 2).sum())
    low, high = ([float(np.quantile(found[size], q)) for size in sizes] for q in (0.25, 0.75))
    return Curve(name, sizes, seconds, low, high, float(slope), float(start), 1 - rest)


def draw(curves: Sequence[Curve], path: Path) -> None:
    """Draw a panel for each curve: medians with quartiles, and the line through them."""
    import matplotlib as mpl

    mpl.use("Agg")
    import matplotlib.pyplot as plt

    figure, panels = plt.subplots(1, len(curves), figsize=(4.2 * len(curves), 3.2), layout="constrained")
    for axes, curve in zip(panels, curves, strict=True):
        spread = [np.subtract(curve.seconds, curve.low), np.subtract(curve.high, curve.seconds)]
        axes.errorbar(curve.sizes, curve.seconds, yerr=spread, fmt="o", color="#1f5fa8", capsize=3, markersize=5)
        ends = np.array([0, max(curve.sizes)])
        axes.plot(ends, curve.slope * ends + curve.start, color="#888888", linewidth=1)
        axes.set(xlabel=curve.name, xlim=(0, None), ylim=(0, None))
        axes.set_title(f"{1000 * curve.slope:.3g} ms each, R² = {curve.r2:.4f}", fontsize=10)
        axes.spines[["top", "right"]].set_visible(False)
    panels[0].set_ylabel("forward and backward, s")
    figure.savefig(path, dpi=120)
    plt.close(figure)


def as_rows(curves: Sequence[Curve]) -> list[dict[str, object]]:
    """Return the curves for the JSON file."""
    return [asdict(curve) for curve in curves]
