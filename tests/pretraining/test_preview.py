"""The preview of a recipe shows the views that its training sees."""

import numpy as np
import pytest
from PIL import Image

from ssl_transfer.cli import main
from ssl_transfer.pretraining.preview import GAP, HEADER, MARGIN, TILE, preview
from ssl_transfer.pretraining.setup import PretrainSetup, resolve
from ssl_transfer.recipe import PretrainRecipe, load_recipe

pytestmark = pytest.mark.usefixtures("one_thread")
SIZE = ("data.size=32", "train.batch_size=6")


def tile(page, row, column):
    left, top = MARGIN + column * (TILE + GAP), MARGIN + HEADER + row * (TILE + GAP)
    return np.asarray(page.crop((left, top, left + TILE, top + TILE)).convert("L"), float)


def test_the_pictures_are_the_views_of_the_training_and_the_whole_image(tiny_recipe, tmp_path, ct_store):
    answer = preview(tiny_recipe, tmp_path / "new/views.png", images=3, **{"data.size": 32, "train.batch_size": 6})
    assert answer["views"] == [32, 32] and list(answer["stores"].values()) == [len(ct_store.positions("train"))]
    page = Image.open(tmp_path / "new/views.png")
    training_set = PretrainSetup.build(resolve(load_recipe(PretrainRecipe, tiny_recipe, SIZE), "r"), "r").training_set
    positions = np.asarray(training_set.parts[0].positions)
    rows = positions[((np.arange(3) + 0.5) * len(positions) / 3).astype(int)]
    intensity = training_set.parts[0].maker.presets[0].intensity
    for epoch in (0, 1):
        for number, views in enumerate(training_set.views(training_set.read(rows), rows, epoch).views):
            unit = (views[:, 0] * intensity.std[0] + intensity.mean[0]).clamp(0, 1).numpy()
            for row in range(3):
                seen = tile(page, row, 1 + 2 * epoch + number)
                small = np.asarray(Image.fromarray(seen.astype(np.uint8)).resize((32, 32), Image.Resampling.BOX), float)
                assert np.corrcoef(small.ravel(), unit[row].ravel())[0, 1] > 0.98
                assert abs(small.mean() - 255 * unit[row].mean()) < 3


def test_a_mixture_of_grey_and_colour_has_the_rows_of_both_stores(ct_store, photo_store, tiny_recipe, tmp_path):
    parts = [
        {"store": str(ct_store.path), "share": 0.5, "views": "ct"},
        {"store": str(photo_store.path), "share": 0.5, "views": "natural" if photo_store.shape[0] == 3 else "ct"},
    ]
    overrides = {"data.store": None, "data.mix": parts, "data.size": 32, "train.batch_size": 6}
    answer = preview(tiny_recipe, tmp_path / "mix.png", images=2, **overrides)
    assert len(answer["stores"]) == 2
    assert Image.open(tmp_path / "mix.png").height == 2 * MARGIN + HEADER + 4 * (TILE + GAP) - GAP


def test_the_command_draws_and_refuses_what_the_training_would_refuse(tiny_recipe, tmp_path, capsys):
    figure = tmp_path / "views.png"
    assert main(["preview", str(tiny_recipe), *SIZE, "--figure", str(figure), "--images", "1"]) == 0 and figure.exists()
    assert main(["preview", str(tiny_recipe), "data.views.blurr=0", "--figure", str(figure)]) == 2
    assert "blur" in capsys.readouterr().err
    assert main(["preview", str(tiny_recipe), "--images", "0"]) == 2
