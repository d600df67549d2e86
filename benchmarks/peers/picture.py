"""The rates of all servers as bars, a panel a length of history."""

from __future__ import annotations

from typing import Any

from matplotlib.figure import Figure


def picture(found: dict[str, Any]) -> Figure:
    """Return the figure: medians, with a line from the least to the most of the rounds."""
    histories = sorted({row["history"] for row in found["rows"]})
    figure = Figure(figsize=(4.6 * len(histories), 2.8), layout="constrained")
    panels = figure.subplots(1, len(histories), squeeze=False)[0]
    for axes, history in zip(panels, histories, strict=True):
        rows = [row for row in found["rows"] if row["history"] == history][::-1]
        names = [row["server"] for row in rows]
        rates, least, most = zip(*(row["per_second"] for row in rows), strict=True)
        spread = [
            [rate - low for rate, low in zip(rates, least, strict=True)],
            [high - rate for rate, high in zip(rates, most, strict=True)],
        ]
        colors = ["C1" if name == "ktserve" else "C0" for name in names]
        axes.barh(names, rates, xerr=spread, color=colors, error_kw={"elinewidth": 1})
        for place, (rate, high) in enumerate(zip(rates, most, strict=True)):
            axes.annotate(
                f"{rate:,.0f}", (high, place), xytext=(4, 0), textcoords="offset points",
                va="center", fontsize=8,
            )  # fmt: skip
        axes.set_title(f"{history:,} stored answers", fontsize=10)
        axes.set_xlabel(f"predictions a second, {found['callers']} callers")
        axes.margins(x=0.18)
        axes.set_xlim(left=0)
        axes.grid(axis="x", alpha=0.3)
    return figure
