"""Statistics of a study: pure functions, numbers and frames in, numbers and frames out.

`tables` compares arms over all cells of a tidy frame, `units` has what is compared, `two_samples` the tests, `families` their
correction for many tests, and `variance` the variance components.
The other modules summarise what these return. What cannot be tested gives NaN, and NaN never decides anything.
"""

from ssl_transfer.study.statistics.boundaries import by_boundary
from ssl_transfer.study.statistics.case_curves import arm_curves
from ssl_transfer.study.statistics.contrast_units import contrast_units
from ssl_transfer.study.statistics.controls import (
    AA_COLUMNS,
    DEFAULT_MARGIN,
    PERMUTATION_COLUMNS,
    TRIVIAL_COLUMNS,
    aa_contrasts,
    against_trivial,
    permutation_controls,
)
from ssl_transfer.study.statistics.corrections import (
    ALPHA,
    benjamini_hochberg,
    benjamini_hochberg_decisions,
    holm,
    holm_decisions,
)
from ssl_transfer.study.statistics.crossed import (
    CrossedInterval,
    ResampledUnits,
    crossed_interval,
    probability_of_false_outperformance,
)
from ssl_transfer.study.statistics.decision_table import decision_rows
from ssl_transfer.study.statistics.decisions import Decision, Look, decide, decide_many
from ssl_transfer.study.statistics.detectable import (
    minimal_detectable_effect,
    paired_detectable_effect,
    paired_seeds_needed,
    seeds_needed,
)
from ssl_transfer.study.statistics.dominance import Dominance
from ssl_transfer.study.statistics.external_tests import EXTERNAL_COLUMNS, external_gaps
from ssl_transfer.study.statistics.families import EXPLORATORY, FAMILY, SECONDARY, Selectors
from ssl_transfer.study.statistics.meta_analysis import RandomEffects, over_targets, random_effects, target_effects
from ssl_transfer.study.statistics.outlook import Outlook, outlook
from ssl_transfer.study.statistics.patients import (
    PATIENT_COLUMNS,
    PatientContrast,
    PredictedRun,
    RunsWithPredictions,
    declared_patient_contrasts,
    patient_contrasts,
    patient_contrasts_of,
)
from ssl_transfer.study.statistics.ranks import MeanRanks, mean_ranks, rank_table, ranks_over_targets
from ssl_transfer.study.statistics.score_validity import fine_tuned, score_correlations, score_validity
from ssl_transfer.study.statistics.seed_variance import detectable_differences, least_detectable
from ssl_transfer.study.statistics.sequential import nominal_levels
from ssl_transfer.study.statistics.strategies import averaged, strategy_wins
from ssl_transfer.study.statistics.subgroups import subgroup_gaps, subgroup_runs
from ssl_transfer.study.statistics.tables import (
    CONTRAST_COLUMNS,
    STRATEGY_COLUMNS,
    SUMMARY_COLUMNS,
    contrasts,
    strategy_contrasts,
    summary,
)
from ssl_transfer.study.statistics.two_samples import Effect, Paired, Samples, Welch, hedges_g, paired, tost, welch
from ssl_transfer.study.statistics.units import seed_units
from ssl_transfer.study.statistics.validation_curves import CURVE_COLUMNS, mean_curve, tidy_curves, time_to_quality
from ssl_transfer.study.statistics.variance import COMPONENTS, VARIANCE_COLUMNS, variance_components

__all__ = [
    "AA_COLUMNS",
    "ALPHA",
    "COMPONENTS",
    "CONTRAST_COLUMNS",
    "CURVE_COLUMNS",
    "DEFAULT_MARGIN",
    "EXPLORATORY",
    "EXTERNAL_COLUMNS",
    "FAMILY",
    "PATIENT_COLUMNS",
    "PERMUTATION_COLUMNS",
    "SECONDARY",
    "STRATEGY_COLUMNS",
    "SUMMARY_COLUMNS",
    "TRIVIAL_COLUMNS",
    "VARIANCE_COLUMNS",
    "CrossedInterval",
    "Decision",
    "Dominance",
    "Effect",
    "Look",
    "MeanRanks",
    "Outlook",
    "Paired",
    "PatientContrast",
    "PredictedRun",
    "RandomEffects",
    "ResampledUnits",
    "RunsWithPredictions",
    "Samples",
    "Selectors",
    "Welch",
    "aa_contrasts",
    "against_trivial",
    "arm_curves",
    "averaged",
    "benjamini_hochberg",
    "benjamini_hochberg_decisions",
    "by_boundary",
    "contrast_units",
    "contrasts",
    "crossed_interval",
    "decide",
    "decide_many",
    "decision_rows",
    "declared_patient_contrasts",
    "detectable_differences",
    "external_gaps",
    "fine_tuned",
    "hedges_g",
    "holm",
    "holm_decisions",
    "least_detectable",
    "mean_curve",
    "mean_ranks",
    "minimal_detectable_effect",
    "nominal_levels",
    "outlook",
    "over_targets",
    "paired",
    "paired_detectable_effect",
    "paired_seeds_needed",
    "patient_contrasts",
    "patient_contrasts_of",
    "permutation_controls",
    "probability_of_false_outperformance",
    "random_effects",
    "rank_table",
    "ranks_over_targets",
    "score_correlations",
    "score_validity",
    "seed_units",
    "seeds_needed",
    "strategy_contrasts",
    "strategy_wins",
    "subgroup_gaps",
    "subgroup_runs",
    "summary",
    "target_effects",
    "tidy_curves",
    "time_to_quality",
    "tost",
    "variance_components",
    "welch",
]
