"""Trajectories: how good the backbones of a run's epochs are on a task, and which epoch validation chooses."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ssl_transfer.kept import run_and_epoch
from ssl_transfer.measures.metrics import METRICS, metric_sign
from ssl_transfer.palette import COLORS, INK
from ssl_transfer.result import EvalResult

LINE, CHOSEN = COLORS[:2]
NAMES_OF_SETTINGS = ("fraction", "seed")


@dataclass(frozen=True, kw_only=True)
class Trajectory:
    """Results of the epochs of a pretraining on a task, by one protocol with the same settings.

    Attributes:
        run: Folder of the pretraining.
        task: Name of the task.
        protocol: Protocol, or the strategy of a fine-tune.
        metric: The task's metric.
        fraction, seed: Those of the evaluations.
        epochs: Epochs, ascending.
        val: Metric on validation at each epoch; NaN where undefined.
        test: Metric on test at each epoch, likewise. It chooses nothing.
        intervals: 95 % interval of `test` at each epoch; None: not computed.
    """

    run: str
    task: str
    protocol: str
    metric: str
    fraction: float
    seed: int
    epochs: tuple[float, ...]
    val: tuple[float, ...]
    test: tuple[float, ...]
    intervals: tuple[tuple[float, float] | None, ...]

    @property
    def chosen(self) -> float | None:
        """The epoch that is best on validation, of equal ones the earliest; None if the metric is undefined at all of them."""
        sign = metric_sign(self.metric)
        known = [
            (sign * value, -epoch) for epoch, value in zip(self.epochs, self.val, strict=True) if not math.isnan(value)
        ]
        return -max(known)[1] if known else None

    def to_json(self) -> dict[str, Any]:
        """The trajectory as a JSON object: its settings, the `chosen` epoch, and a point per epoch."""
        points = [
            {"epoch": epoch, "val": _number(val), "test": _number(test), "interval": interval and list(interval)}
            for epoch, val, test, interval in zip(self.epochs, self.val, self.test, self.intervals, strict=True)
        ]
        names = ("run", "task", "protocol", "metric", *NAMES_OF_SETTINGS)
        return {**{name: getattr(self, name) for name in names}, "chosen": self.chosen, "points": points}


def trajectories(results: Iterable[tuple[str, EvalResult]], metric: str) -> list[Trajectory]:
    """The trajectories in some results: those of two or more epochs of a run with the same settings.

    Args:
        results: Pairs of spec and result. Specs that do not name an epoch (`RUN@5`) are left out.
        metric: The task's metric.
    """
    grouped: dict[tuple, dict[float, EvalResult]] = {}
    for spec, result in results:
        run, epoch = run_and_epoch(spec) or (spec, "")
        if epoch.replace(".", "", 1).isdigit():
            key = (run, result.task["name"], result.strategy or result.protocol, result.fraction, result.seed)
            grouped.setdefault(key, {})[float(epoch)] = result
    return [_trajectory(key, by_epoch, metric) for key, by_epoch in grouped.items() if len(by_epoch) > 1]


def _trajectory(key: tuple, by_epoch: Mapping[float, EvalResult], metric: str) -> Trajectory:
    run, task, protocol, fraction, seed = key
    ordered = dict(sorted(by_epoch.items()))
    intervals = [result.intervals.get(metric) for result in ordered.values()]
    return Trajectory(
        run=run,
        task=task,
        protocol=protocol,
        metric=metric,
        fraction=fraction,
        seed=seed,
        epochs=tuple(ordered),
        val=tuple(_value(result, "val", metric) for result in ordered.values()),
        test=tuple(_value(result, "test", metric) for result in ordered.values()),
        intervals=tuple((interval[0], interval[1]) if interval else None for interval in intervals),
    )


def _value(result: EvalResult, split: str, metric: str) -> float:
    value = result.metrics[split].get(metric)
    return math.nan if value is None else value


def _number(value: float) -> float | None:
    return None if math.isnan(value) else value


def trajectory_text(trajectory: Mapping[str, Any]) -> str:
    """A trajectory as a table: validation at every epoch; test at the chosen and the last one, which are those to report.

    Args:
        trajectory: As `Trajectory.to_json` returns it.
    """
    metric, points, chosen = trajectory["metric"], trajectory["points"], trajectory["chosen"]
    title = METRICS[metric].title if metric in METRICS else metric
    settings = f"fraction {trajectory['fraction']:g}, seed {trajectory['seed']}"
    lines = [
        f"{trajectory['run']}: {title} over epochs, {trajectory['protocol']} on {trajectory['task']}, {settings}",
        f"  {'epoch':>8}  {'validation':>10}  test",
    ]
    for point in points:
        marks = [word for word, is_so in _marks(point, chosen, points).items() if is_so]
        value = "–" if point["val"] is None else f"{point['val']:.4f}"
        test = f"{_test(point)}  {', '.join(marks)}" if marks else ""
        lines.append(f"  {point['epoch']:>8g}  {value:>10}  {test}".rstrip())
    return "\n".join(lines)


def _marks(point: Mapping[str, Any], chosen: float | None, points: Sequence[Mapping[str, Any]]) -> dict[str, bool]:
    return {"chosen on validation": point["epoch"] == chosen, "last": point is points[-1]}


def _test(point: Mapping[str, Any]) -> str:
    value = "–" if point["test"] is None else f"{point['test']:.4f}"
    return value if point["interval"] is None else f"{value} [{point['interval'][0]:.4f}, {point['interval'][1]:.4f}]"


def draw_trajectories(drawn: Sequence[Trajectory], path: Path) -> Path:
    """Draw the metric on validation over epochs, a panel per trajectory, and the test values of the chosen and the last epoch.

    Args:
        drawn: One or more trajectories.
        path: Path of the figure; its suffix is the format, such as `.png` or `.svg`.
    """
    import matplotlib
    from matplotlib.figure import Figure

    with matplotlib.rc_context({"text.parse_math": False, "font.size": 9}):  # a name may contain a dollar sign
        figure = Figure(figsize=(6.0, 2.8 * len(drawn)), layout="constrained")
        for ax, trajectory in zip(figure.subplots(len(drawn), squeeze=False)[:, 0], drawn, strict=True):
            _panel(ax, trajectory)
        path.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(path, dpi=150)
    return path


def _panel(ax: Any, trajectory: Trajectory) -> None:
    """Validation as a line; test of the chosen and of the last epoch, with intervals."""
    ax.plot(trajectory.epochs, trajectory.val, color=LINE, marker="o", markersize=4, label="validation")
    last = trajectory.epochs[-1]
    for epoch, word in {last: "last", **({} if trajectory.chosen is None else {trajectory.chosen: "chosen"})}.items():
        place = trajectory.epochs.index(epoch)
        test, interval = trajectory.test[place], trajectory.intervals[place]
        error = None if interval is None else [[max(0.0, test - interval[0])], [max(0.0, interval[1] - test)]]
        color = CHOSEN if word == "chosen" else INK
        ax.errorbar([epoch], [test], yerr=error, color=color, marker="D", markersize=5, capsize=3, linestyle="")
        ax.axvline(epoch, color=color, linewidth=0.7, linestyle=(0, (1, 2)), label=f"epoch {epoch:g}: {word}, test ◆")
    title = METRICS[trajectory.metric].title if trajectory.metric in METRICS else trajectory.metric
    ax.set_title(
        f"{trajectory.run}: {trajectory.protocol} on {trajectory.task}, fraction {trajectory.fraction:g}, "
        f"seed {trajectory.seed}",
        loc="left",
        fontsize=9,
    )
    ax.set_xlabel("epochs of pretraining")
    ax.set_ylabel(title)
    ax.spines[["top", "right"]].set_visible(False)
    ax.legend(frameon=False, fontsize=8)
