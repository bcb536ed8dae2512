"""Names and numbers as reports print them: three digits, p-values as in papers, a typographic minus."""

from __future__ import annotations

import math
from collections.abc import Sequence
from numbers import Integral

from ssl_transfer.measures.metrics import METRICS, base_metric, metric_sign
from ssl_transfer.protocols import PROTOCOLS
from ssl_transfer.study.table import CLEAN

SUPERSCRIPTS = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")
_WORDS = {"lp": "LP", "ft": "FT", "l1": "L1", "l2": "L2", "sp": "SP", "rgn": "RGN"}
JOIN = " · "  # between a pretraining and the other factor levels of its arm


def words(name: str) -> str:
    """A name for readers: `balanced_accuracy` -> balanced accuracy, `knn` -> kNN, `hd95_liver` -> HD95 liver."""
    name = str(name)
    if name in PROTOCOLS:
        return PROTOCOLS[name].title
    if metric := base_metric(name):
        return METRICS[metric].title + name.removeprefix(metric).replace("_", " ")
    return " ".join(_WORDS.get(word, word) for word in name.split("_"))


def measure(metric: str) -> str:
    """A metric's title, and its direction where less is better: `hd95` -> HD95 (less is better)."""
    return words(metric) + (" (less is better)" if metric_sign(metric) < 0 else "")


def noisy(noise: str, sigma: float | None = None) -> str:
    """Noise for readers: `gaussian test`, 0.01 -> Gaussian noise in test, σ 0.01; empty if there is none.

    Args:
        noise: As in a tidy table.
        sigma: Its strength; None if the reader sees it elsewhere.
    """
    if noise == CLEAN:
        return ""
    kind, _, splits = noise.partition(" ")
    where = f" in {splits.replace('train', 'training').replace('+', ' and ')}" if splits else ""
    return f"{kind.capitalize()} noise{where}" + ("" if sigma is None else f", σ {sigma:g}")


def percent(fraction: float) -> str:
    """A label fraction for readers: 0.05 -> 5 %; empty if there is none."""
    return "" if math.isnan(fraction) else f"{100 * fraction:.3g} %"


def number(value: float | None, sign: bool = False) -> str:
    """A number with three digits: 0.873, 4.94, 12.3, 1234; a dash for NaN or infinity; `sign` shows + as well as −."""
    if value is None or not math.isfinite(value):
        return "–"
    digits = 3 if abs(value) < 0.9995 else max(0, 2 - math.floor(math.log10(abs(value))))
    return f"{value:{'+' if sign else ''}.{digits}f}".replace("-", "−")


def random_initialisation(arms: Sequence[str]) -> str:
    """Arms that are random initialisation, in words: their names follow where they say more.

    Example:
        >>> random_initialisation(["scratch · CNN"]), random_initialisation(["random initialisation"])
        ('random initialisation (scratch · CNN)', 'random initialisation')
    """
    text = "random initialisation"
    names = [arm for arm in arms if arm != text]
    return f"{text} ({', '.join(names)})" if names else text


def listed(names: Sequence[str], word: str = "and", most: int | None = None) -> str:
    """Names in a sentence: a, b and c; with `most`, a, b and 7 others if they are more than that."""
    if most and len(names) > most:
        names = [*names[: most - 1], f"{len(names) - most + 1} others"]
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} {word} {names[-1]}"


def difference(a: str, b: str) -> str:
    """Two arms of a contrast, a shared level once: CT · ResNet-18, cells · ResNet-18 -> CT − cells · ResNet-18."""
    (name_a, _, rest_a), (name_b, _, rest_b) = a.partition(JOIN), b.partition(JOIN)
    return f"{name_a} − {name_b}{JOIN}{rest_a}" if rest_a and rest_a == rest_b else f"{a} − {b}"


def joined(*parts: str) -> str:
    """The non-empty parts of a title."""
    return JOIN.join(part for part in parts if part)


def p_value(p: float | None) -> str:
    """A p-value as papers print it: .012, < .001; a dash if there is none."""
    if p is None or math.isnan(p):
        return "–"
    return "< .001" if p < 0.001 else f"{p:.3f}".lstrip("0") if p < 0.9995 else "1"


def p_equals(p: float | None) -> str:
    """A p-value in a sentence: p = .012, p < .001."""
    text = p_value(p)
    return f"p {text}" if text.startswith("<") else f"p = {text}"


def units_used(n_a: int, n_b: int, test: str) -> str:
    """Units behind a contrast: `12 pairs`, or `4 / 3` where they are not paired."""
    return f"{n_a} pair{'s' if n_a != 1 else ''}" if test == "paired" else f"{n_a} / {n_b}"


def nominal(level: float) -> str:
    """A level of a test as papers print it: .05, .0166, .00037; a dash if there is none."""
    return "–" if level is None or math.isnan(level) else f"{level:.3g}".lstrip("0")


def fine(value: float) -> str:
    """Two significant digits, for small numbers: 0.0031, 0.010; a dash for NaN or infinity."""
    return "–" if not math.isfinite(value) else f"{value:#.2g}".rstrip(".")


def rounded(value: float | None) -> str:
    """Six digits, for programs to sort by."""
    return "nan" if value is None else f"{value:.6g}"


def t_value(t: float, df: float) -> str:
    """A test statistic with its degrees of freedom: t(5.8) = 2.1; a dash if there is none."""
    if t is None or not math.isfinite(t):
        return "–"
    return f"t({df:.{0 if float(df).is_integer() else 1}f}) = {t:.1f}".replace("-", "−")


def confidence(level: float) -> str:
    """The confidence of an interval at a level: .05 -> 95 %, .0125 -> 98.75 %; empty if there is none."""
    return "" if level is None or math.isnan(level) else f"{100 * (1 - level):.4g} %"


def powers(value: float | None) -> str:
    """A large number with three digits and a power of ten: 1.23 × 10¹⁵; 0, and a dash for None."""
    if not value:
        return "–" if value is None else "0"
    digits, _, exponent = f"{value:.2e}".partition("e")
    return f"{digits} × 10{str(int(exponent)).translate(SUPERSCRIPTS)}"


def whole(value) -> str:
    """Thousands apart (12,800); anything else as it is; a dash for None."""
    return "–" if value is None else f"{value:,}" if isinstance(value, Integral) else str(value)
