"""Slices and windows as channels: values equal to those computed by hand from the pixels of a store."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from ssl_transfer.channels import WINDOWS_HU, InputChannels, stated_input
from ssl_transfer.data.altered import Noise, NoisyStore, SelectedRows
from ssl_transfer.data.intensity import Scale
from ssl_transfer.data.neighbours import StackedSlices, lacking, neighbouring_slices, slices_of, with_channels_of
from ssl_transfer.data.presets import VIEWS
from ssl_transfer.data.store import StoreWriter
from ssl_transfer.data.views import ViewMaker
from ssl_transfer.errors import BackboneError

SLICES = 5
SERIES = np.repeat(["a1", "a2", "b1", "c1"], SLICES)  # of patients a, a, b and c, whose series has two volumes
ORDER = np.random.default_rng(0).permutation(len(SERIES))
THREE = InputChannels(context=3)
WINDOWS = InputChannels(windows_hu=(WINDOWS_HU["soft_tissue"], WINDOWS_HU["lung"], WINDOWS_HU["bone"]))
STILL = {"flip": 0.0, "crop_scale": (1.0, 1.0), "rotation_degrees": 0.0, "blur_share": 0.0, "noise": 0.0}
STILL |= dict.fromkeys(("window_shift", "window_stretch", "brightness", "contrast"), 0.0)


def written(path, rows, splits: str | list[str] = "train", dtype="<i2", channels=1, units="hu"):
    """A store; the pixels of row n are n everywhere."""
    with StoreWriter(path, (channels, 8, 8), np.dtype(dtype)) as writer:
        for number, row in rows:
            writer.append(np.full((channels, 8, 8), number, dtype), row)
        return writer.finish(np.broadcast_to(splits, len(rows)), units=units, domain="ct", split_by="patient")


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    """Slices in random order, whose numbers descend with the grey value; slice 2 of b1 is unknown."""
    rows = []
    for number in ORDER:
        place = SLICES - 1 - number % SLICES
        volume = int(SERIES[number] == "c1" and place > 2)
        row = {"patient": SERIES[number][0], "series": SERIES[number], "volume": volume, "slice": int(place)}
        rows.append((number, row | ({"slice": None} if number == 12 else {})))
    return written(tmp_path_factory.mktemp("stores") / "store", rows)


def grey_values(store, context, number):
    """Grey values of the channels of the image with a grey value."""
    return with_channels_of(store, InputChannels(context)).read(np.flatnonzero(number == ORDER))[0, :, 0, 0].tolist()


def test_neighbours_come_in_the_order_of_their_slices_and_ends_are_repeated(store):
    assert grey_values(store, 3, 1) == [2, 1, 0]  # numbers of slices descend
    assert grey_values(store, 3, 4) == [4, 4, 3] and grey_values(store, 3, 0) == [1, 0, 0]
    assert grey_values(store, 5, 3) == [4, 4, 3, 2, 1]
    assert grey_values(store, 7, 2) == [4, 4, 3, 2, 1, 0, 0]


def test_neighbours_are_of_the_same_volume_whatever_the_order_of_the_store(store):
    assert grey_values(store, 3, 5) == [6, 5, 5]  # not 4, of another series of the patient
    assert grey_values(store, 3, 16) == [16, 16, 15] and grey_values(store, 3, 17) == [18, 17, 17]
    stacked = StackedSlices(store, 9)
    volumes = store.rows["volume"].to_numpy()
    for position, slices in enumerate(stacked.neighbours.tolist()):
        assert (SERIES[ORDER[slices]] == SERIES[ORDER[position]]).all() and np.ptp(volumes[slices]) == 0


def test_an_image_of_an_unknown_place_is_repeated_and_passed_over_by_others(store):
    assert grey_values(store, 3, 12) == [12, 12, 12] and grey_values(store, 3, 13) == [14, 13, 11]


def test_neighbours_are_of_the_same_split(tmp_path):
    rows = [(number, {"series": "a", "slice": number}) for number in range(4)]
    store = written(tmp_path / "store", rows, ["train", "train", "test", "test"])
    assert neighbouring_slices(store, 3).tolist() == [[0, 0, 1], [0, 1, 1], [2, 2, 3], [2, 3, 3]]
    assert slices_of(StackedSlices(store, 3), np.array([0])).tolist() == [0, 1]


def test_slices_of_patients_are_a_volume_without_series_unless_their_numbers_repeat(tmp_path):
    places = {"a": [0, 1, None, 2, None], "b": [1, 0, 1]}
    rows = [{"patient": patient, "slice": place} for patient, of_patient in places.items() for place in of_patient]
    assert neighbouring_slices(written(tmp_path / "store", list(enumerate(rows))), 3).tolist() == [
        *([0, 0, 1], [0, 1, 3], [2, 2, 2], [1, 3, 3], [4, 4, 4]),
        *([5, 5, 5], [6, 6, 6], [7, 7, 7]),
    ]


def test_neighbours_of_selected_rows_are_those_of_the_whole_store(store):
    selected = np.flatnonzero(np.isin(ORDER, [1, 7, 13]))
    some = with_channels_of(SelectedRows(store, selected), THREE)
    assert np.array_equal(some.read(np.arange(3)), StackedSlices(store, 3).read(selected))


def test_slices_are_altered_before_they_are_stacked(store):
    noisy = NoisyStore(store, Noise("gaussian", 0.1), -160, 240)
    stacked = StackedSlices(noisy, 3)
    row = int(np.flatnonzero(ORDER == 2)[0])
    expected = noisy.read(stacked.neighbours[row])[:, 0]
    assert np.array_equal(stacked.read(np.array([row]))[0], expected) and np.ptp(expected[0]) > 0


def test_colours_become_luminance(tmp_path):
    rows = [(number, {"series": "a", "slice": number}) for number in (10, 20)]
    store = written(tmp_path / "store", rows, dtype="|u1", channels=3, units="rgb")
    stacked = with_channels_of(store, THREE)
    assert stacked.units == stacked.card.units == "display" and stacked.shape == (3, 8, 8)
    assert np.allclose(stacked.read([0])[0, :, 0, 0], [10, 10, 20])
    assert with_channels_of(store, WINDOWS).read([1]).shape == (1, 1, 8, 8)
    assert lacking(store, WINDOWS) == ["its images are in colour", "its images are not in HU (rgb)"]


def test_a_store_without_neighbours_says_so(tmp_path, store):
    bare = written(tmp_path / "store", [(number, {"patient": "a"}) for number in range(3)])
    assert lacking(bare, THREE) == ["none of its images has a neighbouring slice (columns series and slice)"]
    assert not lacking(store, THREE) and not lacking(bare, InputChannels()) and not lacking(bare, WINDOWS)
    assert with_channels_of(bare, THREE).read([1])[0, :, 0, 0].tolist() == [1, 1, 1]


def in_windows(hu, channels=WINDOWS):
    return [(hu - low) / (high - low) for low, high in channels.windows_hu]


def test_several_windows_are_channels_of_every_slice():
    hu = torch.randint(-1024, 2000, (2, 2, 4, 4), dtype=torch.int16)
    scale = Scale(*WINDOWS.windows_hu[0], WINDOWS.windows_hu[1:])
    found = scale.unit(hu)
    expected = [window for channel in (0, 1) for window in in_windows(hu[:, channel].float())]
    assert found.shape == (2, 6, 4, 4) and torch.equal(found, torch.stack(expected, 1))


def test_images_without_hu_are_the_same_in_every_window(ct_store):
    scale = Scale.of_store(replace(ct_store.card, units="display"), (-160, 240), WINDOWS)
    assert scale.windows == ((0, 255),) * 3


def views(channels, images, seed=0, **options):
    """A view of each image by the preset for CT, in unit intensity."""
    preset = replace(VIEWS["ct"](8, channels.count, "hu", **options), crop_ratio=(1.0, 1.0))
    scale = Scale(-160.0, 240.0, channels.windows_hu[1:])
    (made,) = ViewMaker([preset], scale, seed, channels.count)(images, np.arange(len(images)), 0)
    return made * 0.25 + 0.5


def test_a_view_without_augmentation_is_the_image_in_each_window():
    hu = torch.randint(-1024, 2000, (3, 1, 8, 8), dtype=torch.int16)
    expected = torch.cat(in_windows(hu.float()), 1).clamp(0, 1)
    assert torch.allclose(views(WINDOWS, hu, **STILL), expected, atol=1e-5)


def test_channels_are_cropped_flipped_and_rotated_alike_and_each_as_ct_is():
    """Of equal slices all channels of a view are equal, and those of the image alone, but for noise."""
    hu = torch.randint(-200, 300, (4, 1, 8, 8), dtype=torch.int16)
    alone = views(InputChannels(), hu, noise=0.0)
    assert torch.allclose(views(THREE, hu.expand(-1, 3, -1, -1), noise=0.0), alone.expand(-1, 3, -1, -1), atol=1e-6)
    in_each = [views(InputChannels(), _moved(hu, window), noise=0.0) for window in WINDOWS.windows_hu]
    assert torch.allclose(views(WINDOWS, hu, noise=0.0), torch.cat(in_each, 1), atol=1e-4)


def _moved(hu, window):
    """HU whose values in the window of soft tissue are those of `hu` in another window."""
    low, high = window
    return (hu.float() - low) / (high - low) * 400 - 160


def test_slices_and_windows_have_no_colours_to_jitter():
    colourful = replace(VIEWS["microscopy"](8, 3, "display", colour=1.0), grey=0.5, stain=0.1)
    grey = colourful.for_input(colourful.intensity, THREE)
    assert (grey.colour, grey.grey, grey.stain) == (0, 0, 0) and grey.noise == colourful.noise
    assert colourful.for_input(colourful.intensity, InputChannels()) == colourful


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("resnet18,context=4", "found 4, expected an odd number"),
        ("resnet18,context=three", "context: found three"),
        ("resnet18,windows=lung", "found one window"),
        ("resnet18,windows=lung+bones", "windows: found 'bones'. Did you mean 'bone'"),
        ("resnet18,windows=lung+40:-40", "found 40 to -40 HU"),
        ("resnet18,windows=lung+a:b", "found a:b, expected lower:upper"),
    ],
)
def test_wrong_channels_are_refused(spec, message):
    with pytest.raises(BackboneError, match=message):
        stated_input(spec)
