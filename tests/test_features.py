"""The stage `features`: one pass, the backbone in eval, kept under the names of its inputs."""

import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
import torch.nn.functional as functional

from ssl_transfer import features
from ssl_transfer.data.store import StoreWriter
from ssl_transfer.errors import UsageError
from ssl_transfer.features import Features, embed_images, extract_features
from ssl_transfer.models.backbone import load_backbone
from ssl_transfer.models.embedding import embed


@pytest.fixture(scope="module")
def backbone():
    return load_backbone("scratch:test_resnet,in_channels=1,size=16")


def test_features_are_the_output_of_the_backbone_for_each_scaled_image(backbone, ct_store, tmp_path):
    found = extract_features(backbone, ct_store, tmp_path / "f").values
    images = torch.from_numpy(ct_store.read(range(len(ct_store)))).float()
    unit = ((images + 160) / 400).clamp(0, 1)  # the soft-tissue window
    inputs = functional.interpolate(unit, (16, 16), mode="bilinear", antialias=True, align_corners=False)
    with torch.inference_mode():
        expected = backbone((inputs - 0.5) / 0.25).numpy()
    assert found.dtype == np.float32 and found.shape == (48, backbone.feature_dim)
    assert np.allclose(found, expected, rtol=1e-4, atol=1e-5)


def test_an_image_s_features_do_not_depend_on_its_batch(backbone, ct_store):
    whole = embed(backbone, ct_store, np.arange(48))
    parts = embed(backbone, ct_store, np.arange(48)[::-1], batch_size=5)[::-1]
    assert np.allclose(whole, parts, rtol=1e-4, atol=1e-5)


def test_a_backbone_in_training_is_used_in_eval_and_left_as_it_was(backbone, ct_store):
    expected = embed(backbone, ct_store, np.arange(8))
    before = {key: value.clone() for key, value in backbone.state_dict().items()}
    backbone.train()
    try:
        assert np.array_equal(embed(backbone, ct_store, np.arange(8)), expected)
        assert backbone.training
    finally:
        backbone.eval()
    assert all(torch.equal(before[key], value) for key, value in backbone.state_dict().items())


def test_two_jobs_that_need_the_same_features_at_once_compute_them_once(backbone, ct_store, tmp_path, monkeypatch):
    calls = []
    monkeypatch.setattr(
        features, "embed", lambda *args, **kept: (calls.append(1), time.sleep(0.3), embed(*args, **kept))[2]
    )
    with ThreadPoolExecutor(2) as pool:
        jobs = [pool.submit(extract_features, backbone, ct_store, tmp_path / "f") for _ in range(2)]
    assert np.array_equal(*(job.result().values for job in jobs)) and len(calls) == 1


def test_the_same_inputs_are_read_from_the_folder_and_others_refused(backbone, ct_store, tmp_path):
    first = extract_features(backbone, ct_store, tmp_path / "f")
    before = (tmp_path / "f" / "features.safetensors").stat().st_mtime_ns
    again = extract_features(backbone, ct_store, tmp_path / "f")
    assert np.array_equal(first.values, again.values)
    assert (tmp_path / "f" / "features.safetensors").stat().st_mtime_ns == before
    other = load_backbone("scratch:test_resnet,in_channels=1,size=16,seed=1")
    by_seed = (
        rf"features of other inputs: backbone \S+ \({backbone.id}\), expected \S+ \({other.id}\)\. Give another --out"
    )
    for changed, size, message in (
        (other, None, by_seed),
        (backbone, 32, r"inputs: size 16, expected 32\. Give another --out"),
    ):
        with pytest.raises(UsageError, match=message):
            extract_features(changed, ct_store, tmp_path / "f", size=size)


def test_without_a_folder_features_are_kept_under_the_id_of_their_inputs(backbone, ct_store, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    first, again = (extract_features(backbone, ct_store) for _ in range(2))
    larger = extract_features(backbone, ct_store, size=32)
    assert first.path == again.path != larger.path
    assert np.array_equal(Features.load(first.path).values, first.values)


def test_rows_identify_the_image_of_each_vector(backbone, ct_store, tmp_path):
    rows = extract_features(backbone, ct_store, tmp_path / "f").rows
    assert rows["row"].tolist() == list(range(48))
    for name in ("pixel_digest", "patient", "label", "split"):
        assert rows[name].tolist() == ct_store.column(name).tolist()


def test_a_folder_without_features_is_refused(backbone, ct_store, tmp_path):
    (tmp_path / "f").mkdir()
    (tmp_path / "f" / "notes.txt").write_text("")
    with pytest.raises(UsageError, match=r"already holds other files .* or --features"):
        extract_features(backbone, ct_store, tmp_path / "f")
    with pytest.raises(UsageError, match="no features folder of schema 1"):
        Features.load(tmp_path / "f")


def test_oblong_images_are_padded_not_stretched(backbone, tmp_path):
    """A bright square in the middle of a 16 x 32 image is seen as by a square image padded with the lower end."""
    image = np.zeros((1, 16, 32), np.uint8)
    image[:, 4:12, 12:20] = 255
    padded = np.pad(image, ((0, 0), (8, 8), (0, 0)))
    features = []
    for name, content in (("oblong", image), ("square", padded)):
        with StoreWriter(tmp_path / name, content.shape, np.uint8) as writer:
            writer.append(content, {"label": "a"})
            store = writer.finish(np.array(["train"]), units="display", domain="unknown", split_by="image")
        features.append(embed(backbone, store, np.array([0])))
    assert np.array_equal(*features)


def test_images_in_memory_have_the_features_of_the_store(backbone, ct_store, tmp_path):
    expected = extract_features(backbone, ct_store, tmp_path / "features").values
    images = ct_store[:7]
    found = embed_images(backbone, images, value_range=backbone.intensity.window_hu, batch_size=3)
    assert found.shape == (7, backbone.feature_dim) and np.allclose(found, expected[:7], atol=1e-5)
    assert np.array_equal(
        found, embed_images(backbone, images[:, 0], value_range=backbone.intensity.window_hu, batch_size=3)
    )


@pytest.mark.parametrize(
    ("images", "message"),
    [(np.zeros((2, 8, 8, 3), np.uint8), r"expected \(B, C, H, W\)"), (np.zeros((2, 8, 8)), "Give value_range")],
)
def test_images_in_memory_need_a_shape_and_a_range(backbone, images, message):
    with pytest.raises(UsageError, match=message):
        embed_images(backbone, images)
