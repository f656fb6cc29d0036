"""Draws the evaluation's curves as PNG: quality against share or cost, and predicted against recorded rates."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from router_models.errors import TrainingDataError


def draw_curves(report: dict[str, Any], folder: Path) -> list[Path]:
    """Write router_quality.png, router_nine_models.png and router_reliability.png. TrainingDataError without matplotlib."""
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise TrainingDataError("curves need matplotlib: pip install matplotlib, or leave --curves out") from error
    folder.mkdir(parents=True, exist_ok=True)
    figures = {
        "router_quality.png": _quality(Figure, report["routellm"]),
        "router_nine_models.png": _nine(Figure, report["nine_models"]),
        "router_reliability.png": _reliability(Figure, report["quality"]),
    }
    written = []
    for name, figure in figures.items():
        if figure is not None:
            figure.savefig(folder / name, dpi=110, metadata={"Software": None})
            written.append(folder / name)
    return written


def _quality(new: Any, sets: dict[str, Any]) -> Any:
    figure = new(figsize=(4.2 * len(sets), 4.4), layout="constrained")
    colours = colours_of(method for values in sets.values() for method in values["curves"])
    lines: dict[str, Any] = {}
    for place, (name, values) in enumerate(sets.items()):
        axes = figure.add_subplot(1, len(sets), place + 1)
        for method, points in values["curves"].items():
            style = "-" if method.startswith("artifact") else ":" if method == "oracle" else "--"
            x, y = [100 * x for x, _ in points], [y for _, y in points]
            [lines[method]] = axes.plot(x, y, style, color=colours[method], label=method.replace("_", " "))
        ends = [values["always_weak"], values["always_strong"]]
        [lines["random"]] = axes.plot([0, 100], ends, ":", color="grey", label="random")
        axes.set(title=name, xlabel="% of calls to the strong model", ylabel="quality")
    figure.legend(handles=list(lines.values()), loc="outside lower center", ncols=4, fontsize=8)
    return figure


def colours_of(methods: Iterable[str]) -> dict[str, str]:
    """A colour of its own for every method, the same wherever it is drawn; names of matplotlib's cycle."""
    return {method: f"C{place}" for place, method in enumerate(dict.fromkeys(methods))}


def _nine(new: Any, report: dict[str, Any] | None) -> Any:
    if report is None:
        return None
    figure = new(figsize=(6, 4), layout="constrained")
    axes = figure.add_subplot()
    for method, points in report["curves"].items():
        style = ":" if method == "oracle" else ".-"
        axes.plot([x for x, _ in points], [y for _, y in points], style, label=method.replace("_", " "))
    axes.set(
        xlabel="mean cost of a call (billions of parameters)", ylabel="quality", title="nine models, fourteen tasks"
    )
    axes.legend(fontsize=8)
    return figure


def _reliability(new: Any, quality: dict[str, Any]) -> Any:
    figure = new(figsize=(4.2 * len(quality), 3.8), layout="constrained")
    for place, (name, tiers) in enumerate(quality.items()):
        axes = figure.add_subplot(1, len(quality), place + 1)
        axes.plot([0, 1], [0, 1], ":", color="grey")
        for tier, values in tiers.items():
            cells = values.get("reliability", [])
            axes.plot([cell["predicted"] for cell in cells], [cell["recorded"] for cell in cells], "o-", label=tier)
        axes.set(title=name.replace("_", " "), xlabel="predicted", ylabel="recorded")
    figure.axes[0].legend(fontsize=8)
    return figure
