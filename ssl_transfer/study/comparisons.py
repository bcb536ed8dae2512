"""The comparisons that a study declares in its YAML, under `statistics`, and what they mean for its arms and targets."""

# ruff: noqa: RUF012 — pydantic copies defaults
from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Literal

from pydantic import Field, field_validator, model_validator

from ssl_transfer.domains import DISTANCE
from ssl_transfer.errors import nearest
from ssl_transfer.measures.metrics import has_unit
from ssl_transfer.protocols import PROTOCOLS
from ssl_transfer.recipe import Section
from ssl_transfer.study.declared import CELL, DeclaredContrast, Expected, Spending, of_metric

SIDES = ("pretraining", "strategy")  # what the two sides of a contrast may differ in


class On(Section):
    """The runs that a contrast is about; several values of one key are averaged within a pretraining seed.

    Attributes:
        boundary: Targets with this boundary to the domain of side a: `none` (in-domain), `soft`, `hard`, `mixed`, `unknown`.
        task: Targets by name.
        pretraining: Pretrainings, for a contrast of strategies; null: all.
        strategy: Strategies, for a contrast of pretrainings; null: all.
    """

    boundary: list[str] | None = None
    task: list[str] | None = None
    pretraining: list[str] | None = None
    strategy: list[str] | None = None

    @field_validator("*", mode="before")
    @classmethod
    def _one_is_a_list(cls, value: Any) -> Any:
        return [value] if isinstance(value, str) else value


class Contrast(Section):
    """A declared contrast: side a (`compare`) less side b (`with`), over runs averaged within a pretraining seed.

    Attributes:
        compare: Side a: a pretraining's name, or `{strategy: lp_ft}`; null: the pretraining nearest to the targets.
        with_: Side b (`with` in YAML), likewise; null: every other trained pretraining, each a contrast of its own (in a gate:
            random initialisation).
        on: The runs; null: the targets nearest to side a.
        protocol: Protocol.
        metric: Metric.
        fractions: Label fractions; null: all.
        noise: Noise of the runs, such as `gaussian test`.
        noise_sigma: Its sigma; null: all.
        claim: What the literature claims, in words, for the report's table of claims; null: the contrast is in no such table.
        published: Where it was published, and the effect there.
        expect: What side a then is: `better` than side b, `worse`, `equivalent`, `not better` or `not worse`.
    """

    compare: str | dict[Literal["pretraining", "strategy"], str] | None = None
    with_: str | dict[Literal["pretraining", "strategy"], str] | None = Field(default=None, alias="with")
    on: On = On()
    protocol: str
    metric: str
    fractions: list[float] | None = None
    noise: str = "none"
    noise_sigma: float | None = None
    claim: str | None = None
    published: str | None = None
    expect: Expected | None = None

    @field_validator("fractions", mode="before")
    @classmethod
    def _one_is_a_list(cls, value: Any) -> Any:
        return value if value is None or isinstance(value, (list, tuple)) else [value]

    @model_validator(mode="after")
    def _sides_fit(self) -> Contrast:
        if self.protocol not in PROTOCOLS:
            raise ValueError(f"No protocol is called '{self.protocol}'.{nearest(self.protocol, PROTOCOLS)}"[:-1])
        if self.compare is None and self.with_ is not None:
            raise ValueError("`with` names side b; name side a too: `compare: …`")
        if isinstance(self.compare, dict) and (
            not isinstance(self.with_, dict) or set(self.with_) != set(self.compare)
        ):
            raise ValueError(f"compare: {self.compare}: expected `with` to name the same: {', '.join(self.compare)}")
        if self.claim and self.expect is None:
            raise ValueError("`claim` without `expect`: state what it expects side a to be, `expect: better`")
        if self.published and not self.claim:
            raise ValueError("`published` without `claim`: state in words what was claimed, `claim: …`")
        return self

    @property
    def of_pretrainings(self) -> bool:
        """Its sides are two pretrainings."""
        return not isinstance(self.compare, dict)


class SpendingSection(Section):
    """How alpha is shared among looks, see `statistics.sequential.Spending`."""

    kind: Literal["hsd"] = "hsd"
    gamma: float = Field(default=-2.0, ge=-20, le=20)


class Components(Section):
    """Standard deviations of a single run's metric, for the power of a study before it has results.

    Attributes:
        pretraining: Between pretraining seeds of an arm.
        residual: Between evaluations of one pretraining that cancels in no pair: head, order, arm × subset.
        subset: Between label subsets, which cancels in pairs but not against public weights; null: not known.
    """

    pretraining: float = Field(gt=0)
    residual: float = Field(ge=0)
    subset: float | None = Field(None, ge=0)


class Statistics(Section):
    """The comparisons of a study and their criteria.

    Attributes:
        gate: Pretrained against random initialisation, tested before all primary contrasts; null: side a of the first primary
            contrast, on its nearest targets (of a metric with a unit, on its target), where the study has an untrained arm;
            `false`: no gate.
        primary: The primary contrasts, few; null: the nearest pretraining against each other trained one.
        margin: Largest difference that counts as equivalent: a number, or one per metric. Null: nothing is equivalent.
        relevant: The smallest difference worth detecting, for power and for the allocation of seeds; null: the margin.
        looks: Pretraining seeds at which the primary contrasts are looked at: `study run` adds seeds from look to look, until
            they are decided. Null: once, at the seeds of the study.
        spending: How alpha is shared among looks.
        components: Standard deviations for `study plan --power`, where no results exist; null: from records.
        family: Columns that define the families of correction of secondary and exploratory contrasts.
        secondary: The secondary contrasts, by columns of the table and their values (or lists of these); the others are
            exploratory. Null: those at the main metric of their task. Holm's correction.
        exploratory: The exploratory contrasts, likewise; the others are secondary. Benjamini and Hochberg's correction.
        pairs: The declared comparisons; null: all pairs of arms that differ in one factor.
    """

    gate: Contrast | Literal[False] | None = None
    primary: list[Contrast] | None = None
    margin: float | dict[str, float] | None = None
    relevant: float | dict[str, float] | None = None
    looks: list[int] | None = None
    spending: SpendingSection = SpendingSection()
    components: Components | None = None
    family: list[str] = ["protocol", "metric", "fraction"]
    secondary: list[dict[str, Any]] | None = None
    exploratory: list[dict[str, Any]] | None = None
    pairs: list[tuple[str, str]] | None = None

    @field_validator("gate", mode="before")
    @classmethod
    def _false(cls, value: Any) -> Any:
        return False if str(value).lower() == "false" else value  # the values of a YAML are texts

    @field_validator("primary", "secondary", "exploratory", mode="before")
    @classmethod
    def _one_is_a_list(cls, value: Any) -> Any:
        return [value] if isinstance(value, dict) else value

    @field_validator("secondary", "exploratory")
    @classmethod
    def _select(cls, value: list[dict[str, Any]] | None) -> list[dict[str, Any]] | None:
        for name in {key for selector in value or () for key in selector}:
            if name not in CELL:
                raise ValueError(f"Contrasts are not selected by '{name}'.{nearest(name, CELL)}"[:-1])
        return value

    @field_validator("looks")
    @classmethod
    def _ascend(cls, value: list[int] | None) -> list[int] | None:
        if value is not None and (not value or value != sorted(set(value)) or value[0] < 2):
            raise ValueError(f"looks: found {value}, expected ascending numbers of seeds, 2 or more")
        return value

    @property
    def spent(self) -> Spending:
        """How alpha is shared among looks."""
        return Spending(self.spending.kind, self.spending.gamma)

    def margin_of(self, metric: str) -> float | None:
        """The margin of a metric; None: none is stated."""
        return of_metric(self.margin, metric)

    def relevant_for(self, metric: str) -> float | None:
        """The smallest difference worth detecting; None: neither it nor a margin is stated."""
        stated = of_metric(self.relevant, metric)
        return self.margin_of(metric) if stated is None else stated


class Comparisons:
    """Resolves what a study declares into contrasts of its arms and targets.

    Args:
        statistics: The declaration.
        arms: Evaluated arms of the plan (`Arm.card()`), in the order of the study.
        pairs: Pairs of arms that are compared (`arms.compared`).
        targets: (task, protocol) -> metrics measured or planned, the main metric first.
        boundaries: (pretraining, task) -> boundary, as far as it is known.
    """

    def __init__(
        self,
        statistics: Statistics,
        arms: Sequence[Mapping[str, Any]],
        pairs: Iterable[tuple[str, str]],
        targets: Mapping[tuple[str, str], Sequence[str]],
        boundaries: Mapping[tuple[str, str], str],
    ):
        self.statistics, self.targets, self.boundaries = statistics, targets, boundaries
        self.pairs = {frozenset(pair) for pair in pairs}
        self.trained = [arm["name"] for arm in arms if not arm["untrained"]]
        self.untrained = [arm["name"] for arm in arms if arm["untrained"]]

    def gate(self) -> DeclaredContrast | None:
        """The gate; None where the study has none."""
        stated = self.statistics.gate
        if stated is False:
            return None
        if stated is None:
            first = next((each for each in self.stated_primaries() if each.of_pretrainings), None)
            if first is None:
                return None
            on = On(task=first.on.task) if has_unit(first.metric) else On()  # other targets would have other units
            stated = first.model_copy(update={"with_": None, "on": on})
        compare = stated.compare or self.nearest(stated)
        against = stated.with_ or next((arm for arm in self.untrained if self._are_compared(compare, arm)), None)
        return None if compare is None or against is None else self._declared(stated, compare, against)

    def primaries(self) -> list[DeclaredContrast]:
        """The primary contrasts, each once."""
        found: list[DeclaredContrast] = []
        for stated in self.stated_primaries():
            compare = stated.compare or self.nearest(stated)
            if compare is None:
                continue
            against = (
                [stated.with_] if stated.with_ else [arm for arm in self.trained if self._are_compared(compare, arm)]
            )
            declared = [self._declared(stated, compare, side) for side in against]
            found += [contrast for contrast in declared if contrast not in found]
        return found

    def stated_primaries(self) -> list[Contrast]:
        """The primary contrasts as stated; by default one at the linear probe (or the first protocol) and its main metric."""
        if self.statistics.primary is not None or not self.targets:
            return self.statistics.primary or []
        protocols = list(dict.fromkeys(protocol for _, protocol in self.targets))
        protocol = "linear_probe" if "linear_probe" in protocols else protocols[0]
        task = min((task for task, of in self.targets if of == protocol), key=self._distance)
        return [Contrast(protocol=protocol, metric=self.targets[task, protocol][0])]

    def nearest(self, stated: Contrast) -> str | None:
        """The trained arm nearest to any target of a contrast; of equally near ones the first of the study."""
        tasks = self._tasks(stated)
        return min(
            self.trained, key=lambda arm: min((self._reach(arm, task) for task in tasks), default=9), default=None
        )

    def _are_compared(self, a: Any, b: str) -> bool:
        return not isinstance(a, dict) and frozenset((a, b)) in self.pairs

    def _tasks(self, stated: Contrast) -> list[str]:
        """Targets that have the protocol and metric of a contrast, and the names it states."""
        measured = [
            task
            for (task, protocol), metrics in self.targets.items()
            if protocol == stated.protocol and stated.metric in metrics
        ]
        return [task for task in measured if stated.on.task is None or task in stated.on.task]

    def _declared(self, stated: Contrast, compare: Any, against: Any) -> DeclaredContrast:
        tasks, on = self._tasks(stated), {}
        if isinstance(compare, str):
            if stated.on.boundary is not None:
                tasks = [
                    task for task in tasks if self.boundaries.get((compare, task), "unknown") in stated.on.boundary
                ]
            elif stated.on.task is None and tasks:
                nearest = min(self._reach(compare, task) for task in tasks)
                tasks = [task for task in tasks if self._reach(compare, task) == nearest]
        sides = [side if isinstance(side, dict) else {"pretraining": side} for side in (compare, against)]
        for name in SIDES:
            if (values := getattr(stated.on, name)) is not None and name not in sides[0]:
                on[name] = tuple(values)
        return DeclaredContrast(
            a=sides[0],
            b=sides[1],
            tasks=tuple(tasks),
            protocol=stated.protocol,
            metric=stated.metric,
            fractions=None if stated.fractions is None else tuple(stated.fractions),
            on=on,
            noise=stated.noise,
            noise_sigma=stated.noise_sigma,
            claim=stated.claim,
            published=stated.published,
            expect=stated.expect,
        )

    def _reach(self, arm: str, task: str) -> int:
        """How far an arm's domain is from a target's."""
        return DISTANCE.get(self.boundaries.get((arm, task), ""), len(DISTANCE))

    def _distance(self, task: str) -> int:
        return min((self._reach(arm, task) for arm in self.trained), default=len(DISTANCE))


def looks_of(statistics: Statistics, seeds: Sequence[int]) -> tuple[int, ...]:
    """Seeds at each look: as stated, or one look at all pretraining seeds of the study."""
    return tuple(statistics.looks) if statistics.looks else (max(2, len(seeds)),)
