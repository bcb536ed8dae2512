"""A tidy table from rows that are written out in tests."""

from collections.abc import Sequence

import pandas as pd

from ssl_transfer.draws import draw_seed
from ssl_transfer.study.table import COLUMNS


def tidy_frame(rows: Sequence[tuple]) -> pd.DataFrame:
    """A tidy table, from the columns in their order up to `noise_sigma`; the draw is that of the two seeds."""
    frame = pd.DataFrame(rows, columns=[*COLUMNS][: [*COLUMNS].index("noise_sigma") + 1])
    seeds = zip(frame["pretraining_seed"], frame["seed"], strict=True)
    draws = [draw_seed(None if pd.isna(pretraining) else int(pretraining), int(seed)) for pretraining, seed in seeds]
    return frame.assign(draw=draws).reindex(columns=[*COLUMNS]).astype(COLUMNS)
