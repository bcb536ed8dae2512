"""How names and numbers are written for readers: three digits, p as papers print it, a real minus sign."""

from __future__ import annotations

import math
from collections.abc import Sequence
from numbers import Integral

from ssl_transfer.measures.metrics import METRICS, base_metric, metric_sign
from ssl_transfer.protocols import PROTOCOLS
from ssl_transfer.study.table import CLEAN

_WORDS = {"lp": "LP", "ft": "FT", "l1": "L1", "l2": "L2", "sp": "SP", "rgn": "RGN"}
JOIN = " · "  # between a pretraining and what else its arm varies


def words(name: str) -> str:
    """A name as a report spells it: `balanced_accuracy` -> balanced accuracy, `knn` -> kNN, `hd95_liver` -> HD95 liver."""
    name = str(name)
    if name in PROTOCOLS:
        return PROTOCOLS[name].title
    if metric := base_metric(name):
        return METRICS[metric].title + name.removeprefix(metric).replace("_", " ")
    return " ".join(_WORDS.get(word, word) for word in name.split("_"))


def measure(metric: str) -> str:
    """A metric as a reader says it, and its direction where less is better: `hd95` -> HD95 (less is better)."""
    return words(metric) + (" (less is better)" if metric_sign(metric) < 0 else "")


def noisy(noise: str, sigma: float | None = None) -> str:
    """Noise for readers: `gaussian test`, 0.01 -> Gaussian noise in test, σ 0.01; empty if there is none.

    Args:
        noise: As in a tidy table.
        sigma: Its strength; None if the reader sees it elsewhere.
    """
    if noise == CLEAN:
        return ""
    kind, _, place = noise.partition(" ")
    where = f" in {place.replace('train', 'training').replace('+', ' and ')}" if place else ""
    return f"{kind.capitalize()} noise{where}" + ("" if sigma is None else f", σ {sigma:g}")


def percent(fraction: float) -> str:
    """A label fraction for readers: 0.05 -> 5 %; empty if there is none."""
    return "" if math.isnan(fraction) else f"{100 * fraction:.3g} %"


def number(value: float | None, sign: bool = False) -> str:
    """Three digits: 0.873, 4.94, 12.3, 1234; a dash for what is not known; `sign` shows + as well as −."""
    if value is None or not math.isfinite(value):
        return "–"
    digits = 3 if abs(value) < 0.9995 else max(0, 2 - math.floor(math.log10(abs(value))))
    return f"{value:{'+' if sign else ''}.{digits}f}".replace("-", "−")


def listed(names: Sequence[str], word: str = "and", most: int | None = None) -> str:
    """Names as a sentence has them: a, b and c; with `most`, a, b and 7 others where they are more than that."""
    if most and len(names) > most:
        names = [*names[: most - 1], f"{len(names) - most + 1} others"]
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} {word} {names[-1]}"


def difference(a: str, b: str) -> str:
    """Two arms of a contrast; what both vary alike is said once: CT · ResNet-18, cells · ResNet-18 -> CT − cells · ResNet-18."""
    (first, _, rest), (second, _, other) = a.partition(JOIN), b.partition(JOIN)
    return f"{first} − {second}{JOIN}{rest}" if rest and rest == other else f"{a} − {b}"


def joined(*parts: str) -> str:
    """Those parts of a title that there are."""
    return JOIN.join(part for part in parts if part)


def p_value(p: float | None) -> str:
    """A p-value as papers print it: .012, < .001; a dash if there is none."""
    if p is None or math.isnan(p):
        return "–"
    return "< .001" if p < 0.001 else f"{p:.3f}".lstrip("0") if p < 0.9995 else "1"


def fine(value: float) -> str:
    """Two digits that count, for what is small: 0.0031, 0.010; a dash if it is not known."""
    return "–" if not math.isfinite(value) else f"{value:#.2g}".rstrip(".")


def rounded(value: float | None) -> str:
    """Six digits, for programs to sort by."""
    return "nan" if value is None else f"{value:.6g}"


def t_value(t: float, df: float) -> str:
    """A test statistic with its degrees of freedom: t(5.8) = 2.1; a dash if there is none."""
    if t is None or not math.isfinite(t):
        return "–"
    return f"t({df:.{0 if float(df).is_integer() else 1}f}) = {t:.1f}".replace("-", "−")


def whole(value) -> str:
    """Thousands apart (12,800); anything else as it is; a dash for None."""
    return "–" if value is None else f"{value:,}" if isinstance(value, Integral) else str(value)
