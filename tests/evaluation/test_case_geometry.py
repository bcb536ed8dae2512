"""A case whose reader found irregular slices has no distance between slices, however even its positions are."""

import numpy as np
import pandas as pd
import pytest

from ssl_transfer.evaluation.segment import _spacing


@pytest.mark.parametrize("geometry, between", [(None, 2.5), ("tilt", np.nan)])
def test_a_tilted_case_has_no_distance_between_slices(geometry, between):
    columns = {"spacing_row_mm": 0.5, "spacing_col_mm": 0.7, "spacing_slice_mm": None, "geometry": geometry}
    case = pd.DataFrame([{"z_mm": 2.5 * k} | columns for k in range(4)])
    assert _spacing(case) == pytest.approx((between, 0.5, 0.7), nan_ok=True)
