"""Statistics of a study: pure functions, numbers and frames in, numbers and frames out.

`contrasts` has the tables over all cells of a tidy frame, `two_samples` the tests they are made of, `nested` the models of seeds
within seeds. What cannot be tested gives NaN, and NaN never decides anything.
"""

from ssl_transfer.study.statistics.nested import (
    VARIANCE_COLUMNS,
    PatientBootstrap,
    SeedBootstrap,
    nested_bootstrap,
    patient_bootstrap,
    variance_components,
)
from ssl_transfer.study.statistics.tables import (
    CONTRAST_COLUMNS,
    EQUIVALENT,
    STRATEGY_COLUMNS,
    SUMMARY_COLUMNS,
    contrasts,
    seed_units,
    strategy_contrasts,
    summary,
)
from ssl_transfer.study.statistics.two_samples import (
    ALPHA,
    Effect,
    Paired,
    Samples,
    Welch,
    benjamini_hochberg,
    hedges_g,
    holm,
    minimal_detectable_effect,
    paired,
    seeds_needed,
    tost,
    welch,
)

__all__ = [
    "ALPHA",
    "CONTRAST_COLUMNS",
    "EQUIVALENT",
    "STRATEGY_COLUMNS",
    "SUMMARY_COLUMNS",
    "VARIANCE_COLUMNS",
    "Effect",
    "Paired",
    "PatientBootstrap",
    "Samples",
    "SeedBootstrap",
    "Welch",
    "benjamini_hochberg",
    "contrasts",
    "hedges_g",
    "holm",
    "minimal_detectable_effect",
    "nested_bootstrap",
    "paired",
    "patient_bootstrap",
    "seed_units",
    "seeds_needed",
    "strategy_contrasts",
    "summary",
    "tost",
    "variance_components",
    "welch",
]
