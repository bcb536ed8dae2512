"""The evidence of a report: the tidy frame and its statistics, each computed once."""

from __future__ import annotations

import itertools
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from ssl_transfer.cost import Cost
from ssl_transfer.study.report.claims import Terms
from ssl_transfer.study.report.drawing import PERMUTED_LOOK, TRIVIAL_LOOK, Looks, arm_looks
from ssl_transfer.study.report.guidance import answers
from ssl_transfer.study.report.headline import Headline, headline
from ssl_transfer.study.report.primary import MainMetrics, at_main, at_primary_noise, main_metrics, primary_noise
from ssl_transfer.study.report.recommendations import recommendations
from ssl_transfer.study.statistics import (
    CONTRAST_COLUMNS,
    DEFAULT_MARGIN,
    FAMILY,
    STRATEGY_COLUMNS,
    SUMMARY_COLUMNS,
    Decision,
    RunsWithPredictions,
    Selectors,
    aa_contrasts,
    against_trivial,
    contrasts,
    decision_rows,
    permutation_controls,
    strategy_contrasts,
    summary,
    tidy_curves,
)
from ssl_transfer.study.table import CLEAN, complete, known_boundaries, matches, random_init_arms

PERMUTED_NAME = "permuted labels"
TUNING_COLUMNS = ["task", "protocol", "strategy", "fraction", "pretraining", "pretraining_seed", "seed"]
TUNING_COLUMNS += ["settings", "metric", "value", "selected", "seconds"]
CONTAMINATION_COLUMNS = ["pretraining", "task", "statement", "cases", "seen", "patient", "pixels", "near", "unknown"]


@dataclass(frozen=True)
class Attachment:
    """An external picture (a UMAP, a contact sheet) that is embedded in the report.

    Attributes:
        title: Heading.
        caption: Caption.
        path: Path of a PNG or SVG file.
    """

    title: str
    caption: str
    path: Path


@dataclass(frozen=True, kw_only=True)
class Scope:
    """What the results were obtained with, for the sentences on what they do not say.

    Attributes:
        architectures: Names of the architectures of the pretrained backbones.
        methods: Pretraining methods.
        sizes: Sizes of their images in pixels.
        public: Arm -> the public weights that it is.
        generated: Names of the stores whose images are generated.
        test: Target -> number of test images, and of test patients (None: unknown).
        classes: Target with one class per image -> number of classes.
    """

    architectures: Sequence[str] = ()
    methods: Sequence[str] = ()
    sizes: Sequence[int] = ()
    public: Mapping[str, str] = field(default_factory=dict)
    generated: Sequence[str] = ()
    test: Mapping[str, tuple[int, int | None]] = field(default_factory=dict)
    classes: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Provenance:
    """Origin of the results, as the report states it.

    Attributes:
        title: Title of the page.
        question: The research question, in a sentence or two.
        design: Design of the study: heading -> text.
        missing: Planned runs without a result, as lines of text.
        cost: Pairs of stage and what its jobs have cost.
        environment: Name -> version or setting.
        methods_text: Methods section for a paper.
        warnings: Caveats at the top of the page.
        commands: Commands that reproduce the page.
        attachments: Pictures to embed.
        tuning: Settings that were tried on validation, columns `TUNING_COLUMNS`; None: none were.
        extend: Command that says with which probability, at which price, more seeds decide what is open; empty: none.
        scope: Architectures, images and test patients.
    """

    title: str
    question: str
    design: Mapping[str, str] = field(default_factory=dict)
    missing: Sequence[str] = ()
    cost: Sequence[tuple[str, Cost]] = ()
    environment: Mapping[str, Any] = field(default_factory=dict)
    methods_text: str = ""
    warnings: Sequence[str] = ()
    commands: Sequence[str] = ()
    attachments: Sequence[Attachment] = ()
    tuning: pd.DataFrame | None = None
    extend: str = ""
    scope: Scope = Scope()


@dataclass(frozen=True, kw_only=True, eq=False)
class Evidence:
    """A tidy frame of results with its statistics, for all sections of a report.

    Attributes:
        frame: The tidy table; without rows the report states that no run is finished.
        primaries: The primary contrasts, answered in their order: `protocol` and `metric`, and `fraction`, `task` (one or a
            list), `strategy` where wanted; also `noise` and `noise_sigma` if the answer, and all figures but the robustness
            curves, are not to be those of the runs without noise. Where a single one is needed, it is the first.
        provenance: How the results were made.
        decisions: The gate and the declared primary contrasts, see `statistics.decide`; none for results from elsewhere.
        arms: One dict per pretraining: name, domain, boundary, images, steps, note (all but the name may be missing). Random
            initialisation is the arm `scratch`, and any of boundary `scratch`, here or in the frame.
        stated_metrics: Target -> its main metric; others: see `primary.main_metrics`.
        margin: As for `statistics.contrasts`.
        relevant: The smallest difference worth detecting, as `margin`; None: the margin.
        family: As for `statistics.contrasts`.
        pairs: As for `statistics.contrasts`.
        shared_draws: As for `statistics.contrasts`.
        secondary: As for `statistics.contrasts`.
        exploratory: As for `statistics.contrasts`.
        planned: As for `statistics.contrasts`; None: results that no plan is known of.
        validation: Validation values over steps, columns `statistics.CURVE_COLUMNS`; None: not recorded.
        scores: Transferability scores and cross-validated probes: pretraining, pretraining_seed, task, criterion, value (more
            is better); None: not computed.
        predictions: Runs of an arm in a cell with their predictions, for contrasts over patients; None: not recorded.
        trivial: Tidy table of trivial features, which are in no contrast; None: not evaluated.
        permuted: Tidy table of evaluations with permuted labels, which are in no contrast; None: not evaluated.
        contamination: What is known of the test cases of each arm and target, columns `CONTAMINATION_COLUMNS`: `statement` is
            `yes`, `no` or `unknown`, the others are counts; None: not known.
        external: Tidy table of external tests, for `statistics.external_gaps`; None: there are none.
        subgroups: Tidy table of subgroups, see `statistics.subgroup_runs`; None: there are none.
        flow: Images and patients by target and label fraction, see `study.flow`; None: not known.
        external_notes: What stores and targets do not have in common, as sentences.
    """

    frame: pd.DataFrame
    primaries: Sequence[Mapping[str, Any]]
    provenance: Provenance
    decisions: Sequence[Decision] = ()
    arms: Sequence[Mapping[str, Any]] = ()
    stated_metrics: Mapping[str, str] | None = None
    margin: float | Mapping[str, float] | None = None
    relevant: float | Mapping[str, float] | None = None
    family: Sequence[str] = FAMILY
    pairs: Collection[Collection[str]] | None = None
    shared_draws: bool = True
    secondary: Selectors | None = None
    exploratory: Selectors | None = None
    planned: pd.DataFrame | None = None
    validation: pd.DataFrame | None = None
    scores: pd.DataFrame | None = None
    predictions: RunsWithPredictions | None = None
    trivial: pd.DataFrame | None = None
    permuted: pd.DataFrame | None = None
    contamination: pd.DataFrame | None = None
    external: pd.DataFrame | None = None
    external_notes: Sequence[str] = ()
    subgroups: pd.DataFrame | None = None
    flow: pd.DataFrame | None = None

    @cached_property
    def runs(self) -> pd.DataFrame:
        """The frame with missing texts filled in, checked."""
        return complete(self.frame)

    @cached_property
    def results(self) -> pd.DataFrame:
        """`statistics.summary`: mean, SD and interval of every arm in every cell."""
        return summary(self.frame) if len(self.frame) else pd.DataFrame(columns=SUMMARY_COLUMNS)

    @cached_property
    def contrasts(self) -> pd.DataFrame:
        """`statistics.contrasts` of pretrainings."""
        options = {**self._families, "pairs": self.pairs, "shared_draws": self.shared_draws}
        table = contrasts(self.frame, margin=self.margin, family=self.family, **options)
        return table if len(table) else pd.DataFrame(columns=CONTRAST_COLUMNS)

    @cached_property
    def declared_contrasts(self) -> pd.DataFrame:
        """The gate and the primary contrasts as rows of the same columns."""
        return decision_rows(self.decisions, known_boundaries(self.runs))

    @cached_property
    def terms(self) -> Terms:
        """What the words of claims on declared contrasts depend on."""
        return Terms(runs=self.runs, margin=self.margin, relevant=self.relevant, random_init=self.random_init)

    @cached_property
    def headline(self) -> Headline | None:
        """What the gate and the primary contrasts say together; None without declared contrasts or without a run."""
        return headline(self.decisions, self.terms) if len(self.frame) else None

    @cached_property
    def sentences(self) -> list[str]:
        """The answer of the page as text."""
        if self.headline is not None:
            return self.headline.sentences
        return [f"{answer['where']}: {answer['advice']}" for answer in self.answers]

    @cached_property
    def strategies(self) -> pd.DataFrame:
        """`statistics.strategy_contrasts`, in the declared families as far as strategies have their columns."""
        family = [name for name in self.family if name in STRATEGY_COLUMNS]
        return strategy_contrasts(self.frame, family, **self._families)

    @property
    def _families(self) -> dict[str, Any]:
        """Which contrasts are secondary and which exploratory, and how many were planned."""
        chosen = {"secondary": self.secondary, "exploratory": self.exploratory, "planned": self.planned}
        return {"main_metrics": self.main_metrics, **chosen}

    @cached_property
    def primary_contrasts(self) -> pd.DataFrame:
        """The contrasts of pretrainings that the primaries name."""
        chosen = [matches(self.contrasts, {**primary, **primary_noise(primary)}) for primary in self.primaries]
        rows = [np.flatnonzero(kept).tolist() for kept in chosen]
        return self.contrasts.iloc[list(dict.fromkeys(itertools.chain.from_iterable(rows)))]

    @cached_property
    def answers(self) -> list[dict]:
        """Answers to primary contrasts that no study has declared, see `guidance.answers`."""
        return answers(self.contrasts, self.primaries, self.margin)

    @cached_property
    def _metrics(self) -> tuple[MainMetrics, list[str]]:
        return main_metrics(self.runs, self.primaries, self.stated_metrics)

    @property
    def main_metrics(self) -> MainMetrics:
        """(target, protocol) -> its main metric, for guidance and figures."""
        return self._metrics[0]

    @property
    def metric_warnings(self) -> list[str]:
        """A sentence for each stated main metric that no run has."""
        return self._metrics[1]

    def at_main(self, table: pd.DataFrame) -> pd.DataFrame:
        """Rows at main metrics and at the noise setting of the first primary contrast, sorted by target in page order."""
        kept, _ = at_primary_noise(table.assign(strategy=table.get("strategy", "")), self.primaries[0])
        return self.in_page_order(at_main(kept, self.main_metrics))

    def in_page_order(self, table: pd.DataFrame) -> pd.DataFrame:
        """Rows sorted by target: those of the primary metrics first."""
        order = {task: position for position, task in enumerate(dict.fromkeys(task for task, _ in self.main_metrics))}
        return table.sort_values("task", key=lambda tasks: tasks.map(order), kind="stable")

    @cached_property
    def main_contrasts(self) -> pd.DataFrame:
        """Contrasts of pretrainings `at_main`."""
        return self.at_main(self.contrasts)

    @cached_property
    def main_results(self) -> pd.DataFrame:
        """Results `at_main`."""
        return self.at_main(self.results)

    @cached_property
    def recommendations(self) -> list[dict]:
        """Recommended arms for each target, see `recommendations.recommendations`."""
        return recommendations(self.main_contrasts, self.results, self.margin)

    @cached_property
    def curves(self) -> pd.DataFrame | None:
        """Validation curves, tidy and in the order of the page."""
        return None if self.validation is None else self.in_page_order(tidy_curves(self.validation))

    @cached_property
    def trivial_results(self) -> pd.DataFrame:
        """`statistics.summary` of trivial features; of all labels nothing is drawn, so all seeds are one unit there."""
        if self.trivial is None or self.trivial.empty:
            return pd.DataFrame(columns=SUMMARY_COLUMNS)
        seeds = self.trivial["pretraining_seed"]
        repeats = (self.trivial["fraction"] == 1) & seeds.notna() & (seeds != seeds.min())
        return summary(self.trivial[~repeats])

    @cached_property
    def permuted_results(self) -> pd.DataFrame:
        """`statistics.summary` of probes of permuted labels, of whatever arm, as one called `PERMUTED_NAME`."""
        if self.permuted is None or self.permuted.empty:
            return pd.DataFrame(columns=SUMMARY_COLUMNS)
        return summary(self.permuted.assign(pretraining=PERMUTED_NAME))

    @cached_property
    def against_trivial(self) -> pd.DataFrame:
        """`statistics.against_trivial` at main metrics."""
        trivial = self.runs.iloc[:0] if self.trivial is None else self.trivial
        runs, trivial = (at_main(table, self.main_metrics) for table in (self.runs, trivial))
        return against_trivial(runs, trivial, self._margin)

    @cached_property
    def aa_contrasts(self) -> pd.DataFrame:
        """`statistics.aa_contrasts` in the cells of the primary contrasts."""
        primaries = [{**primary, **primary_noise(primary)} for primary in self.primaries]
        chosen = np.any(
            [matches(self.runs, primary) for primary in primaries] or [np.zeros(len(self.runs), bool)], axis=0
        )
        return aa_contrasts(self.runs[chosen], self._margin)

    @cached_property
    def permutations(self) -> pd.DataFrame:
        """`statistics.permutation_controls`."""
        return permutation_controls(self.runs.iloc[:0] if self.permuted is None else self.permuted)

    def _margin(self, metric: str) -> float:
        """The margin of a metric, else the smallest relevant difference, else `DEFAULT_MARGIN`."""
        for stated in (self.margin, self.relevant):
            value = stated.get(metric) if isinstance(stated, Mapping) else stated
            if value is not None:
                return value
        return DEFAULT_MARGIN

    @cached_property
    def random_init(self) -> set[str]:
        """Names of the arms that are random initialisation."""
        return random_init_arms(self.runs, self.arms)

    @cached_property
    def looks(self) -> Looks:
        """Colour and marker of each arm, the same throughout the page."""
        validated = () if self.curves is None else self.curves["pretraining"]
        looks = arm_looks([*self.runs["pretraining"], *validated], self.random_init)
        controls = {TRIVIAL_LOOK: self.trivial_results, PERMUTED_LOOK: self.permuted_results}
        return looks | {arm: look for look, table in controls.items() for arm in table["pretraining"]}

    @property
    def has_noise(self) -> bool:
        """Whether any run has noise."""
        return bool((self.runs["noise"] != CLEAN).any())

    @property
    def several_tasks(self) -> bool:
        """Whether there is more than one target."""
        return self.runs["task"].nunique() > 1
