"""Features from a file in place of a backbone: rows are matched by key, and what differs is named."""

import numpy as np
import pandas
import pytest
from evaluation.test_evaluate import SIDE

from ssl_transfer.analysis.opening import analyzed
from ssl_transfer.analysis.similarity import FEATURES, shapes
from ssl_transfer.data.altered import Noise, NoisyStore, SelectedRows
from ssl_transfer.data.ingest.pseudonyms import file_pseudonym, pseudonym
from ssl_transfer.data.store import StoreWriter
from ssl_transfer.data.tasks import Task, TaskCard
from ssl_transfer.errors import BackboneError, UsageError
from ssl_transfer.evaluation.stage import evaluate
from ssl_transfer.features import extract_features
from ssl_transfer.measures.neighborhood import Neighborhood
from ssl_transfer.models.backbone import load_backbone
from ssl_transfer.models.opening import open_backbone, open_backbones
from ssl_transfer.ranking.stage import rank

COUNT, DIM = 36, 5


@pytest.fixture(autouse=True)
def own_folder(tmp_path, monkeypatch):
    """Cached features are written below the working directory."""
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def task(tmp_path):
    """12 patients with a series of 3 slices each; names of files and series are hashed."""
    draw = np.random.default_rng(0)
    with StoreWriter(tmp_path / "store", (1, SIDE, SIDE), np.uint8) as writer:
        for number in range(COUNT):
            patient = number // 3
            row = {"label": str(patient % 2), "patient": f"p{patient}", "slice": number % 3}
            row |= {"series": pseudonym("series", f"1.2.{patient}"), "file": file_pseudonym(f"scans/{number}.dcm")}
            writer.append(draw.integers(0, 255, (1, SIDE, SIDE), np.uint8), row)
        splits = np.repeat(["train"] * 6 + ["val"] * 3 + ["test"] * 3, 3)
        store = writer.finish(splits, units="display", domain="ct", split_by="patient")
    return Task("made_up", store, TaskCard(store=str(tmp_path / "store"), target="label", metric="accuracy"))


@pytest.fixture
def vectors():
    return np.random.default_rng(1).normal(size=(COUNT, DIM)).astype(np.float32)


KEYS = {"file": [f"scans/{number}.dcm" for number in range(COUNT)], "row": list(range(COUNT))}


def parquet(path, key, keys, vectors):
    columns = {f"d{number}": vectors[:, number] for number in range(vectors.shape[1])}
    pandas.DataFrame({key: keys, **columns}).to_parquet(path)
    return f"features:{path}"


def values_of(spec, store, folder):
    return extract_features(open_backbone(spec, store), store, folder).values


@pytest.mark.parametrize("key", ["file", "stored file", "image", "row"])
def test_rows_are_matched_to_the_images_of_a_store_by_their_key_in_any_order(task, vectors, tmp_path, key):
    store = task.store
    keys = {**KEYS, "image": store.column("pixel_digest"), "stored file": store.column("file")}[key]
    order = np.random.default_rng(2).permutation(COUNT)
    name = key.removeprefix("stored ")
    spec = parquet(tmp_path / "f.parquet", name, np.asarray(keys, object)[order], vectors[order])
    assert np.array_equal(values_of(spec, store, tmp_path / "p"), vectors)
    name = "files" if name == "file" else name
    np.savez(tmp_path / "f.npz", **{name: np.asarray(keys).astype(str)[order], "features": vectors[order]})
    assert np.array_equal(values_of(f"features:{tmp_path / 'f.npz'}", store, tmp_path / "n"), vectors)


def test_a_column_of_lists_is_read(task, vectors, tmp_path):
    pandas.DataFrame({"row": range(COUNT), "features": list(vectors)}).to_parquet(tmp_path / "f.parquet")
    assert np.array_equal(values_of(f"features:{tmp_path / 'f.parquet'}", task.store, tmp_path / "o"), vectors)


def test_every_image_of_a_series_gets_the_mean_of_the_rows_of_the_series(task, vectors, tmp_path):
    series = [f"1.2.{number // 2}" for number in range(24)]  # two vectors of each of the 12 series
    spec = parquet(tmp_path / "f.parquet", "series", series, vectors[:24])
    expected = vectors[:24].reshape(12, 2, DIM).mean(1).repeat(3, 0)
    assert np.allclose(values_of(spec, task.store, tmp_path / "o"), expected, atol=1e-6)


def test_a_view_of_a_store_gets_its_rows(task, vectors, tmp_path):
    spec = parquet(tmp_path / "f.parquet", "row", KEYS["row"], vectors)
    view = SelectedRows(SelectedRows(task.store, np.arange(4, 20)), np.array([3, 0, 7]))
    assert np.array_equal(open_backbone(spec, view).model.of(view), vectors[[7, 4, 11]])


def test_missing_and_surplus_rows_are_named(task, vectors, tmp_path):
    keys = [*KEYS["file"][:-2], "scans/900.dcm", "scans/901.dcm"]
    spec = parquet(tmp_path / "f.parquet", "file", keys, vectors)
    with pytest.raises(UsageError) as error:
        open_backbone(spec, task.store)
    message = str(error.value)
    assert f"2 file keys of the store {task.store.path} are missing ({file_pseudonym('scans/34.dcm')}" in message
    assert "2 file keys of the file are not in the store (scans/900.dcm, scans/901.dcm)" in message


def test_if_no_path_matches_the_message_says_how_paths_are_written(task, vectors, tmp_path):
    spec = parquet(tmp_path / "f.parquet", "file", [f"/data/{name}" for name in KEYS["file"]], vectors)
    with pytest.raises(UsageError, match="Paths are those below the ingested source"):
        open_backbone(spec, task.store)


FAULTS = {
    "no key": (
        {"a": [1.0], "b": [2.0]},
        "found none of the keys file, series, image, row; expected one. Columns: a, b",
    ),
    "two keys": ({"row": [0], "file": ["x"], "a": [1.0]}, "found file and row of the keys"),
    "a text": ({"row": [0], "a": ["x"]}, "expected numbers in every column besides the key"),
    "NaN": ({"row": [0, 1], "a": [1.0, np.nan]}, r"1 vectors are NaN or infinite \(first: row 1\)"),
    "twice": ({"row": [0, 0], "a": [1.0, 2.0]}, "row 0 occurs 2 times"),
    "no dimensions": ({"row": [0, 1]}, "expected"),
    "uneven lists": ({"row": [0, 1], "features": [[1.0], [1.0, 2.0]]}, "expected"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_file_without_one_key_and_finite_numbers_is_refused(task, tmp_path, fault):
    columns, message = FAULTS[fault]
    pandas.DataFrame(columns).to_parquet(tmp_path / "f.parquet")
    with pytest.raises(BackboneError, match=message):
        open_backbone(f"features:{tmp_path / 'f.parquet'}", task.store)


@pytest.mark.parametrize(
    ("name", "message"),
    [("f.csv", "expected a .parquet or .npz file"), ("none.npz", "no such file"), ("torn.npz", "cannot be read")],
)
def test_another_file_is_refused(task, tmp_path, name, message):
    (tmp_path / "torn.npz").write_bytes(b"PK")
    with pytest.raises(BackboneError, match=message):
        open_backbone(f"features:{tmp_path / name}", task.store)


def test_an_npz_is_never_unpickled(task, tmp_path):
    np.savez(tmp_path / "f.npz", row=np.array([0], object), features=np.zeros((1, 2)))
    with pytest.raises(BackboneError, match="cannot be read: Object arrays cannot be loaded when allow_pickle=False"):
        open_backbone(f"features:{tmp_path / 'f.npz'}", task.store)


@pytest.mark.parametrize("protocol", ["linear_probe", "knn"])
def test_probes_evaluate_them(task, vectors, tmp_path, protocol):
    labels = np.arange(COUNT) // 3 % 2
    vectors[:, 0] = 5 * labels + 0.1 * vectors[:, 0]
    spec = parquet(tmp_path / "closed_model.parquet", "row", KEYS["row"], vectors)
    result = evaluate(protocol, spec, task, tmp_path / "r", resamples=0)
    assert result.metrics["test"]["accuracy"] == 1
    assert result.backbone["name"] == "closed_model" and result.boundary == "unknown"
    assert result.seen_in_pretraining == "unknown"
    stated = evaluate(protocol, f"{spec},domain=photograph,method=dinov2", task, tmp_path / "s", resamples=0)
    assert (stated.boundary, stated.backbone["method"]) == ("hard", "dinov2")


def test_rank_scores_them_beside_a_backbone_and_their_id_follows_the_content(task, vectors, tmp_path):
    spec = parquet(tmp_path / "ours.parquet", "row", KEYS["row"], vectors)
    ranking = rank(task, [spec, "scratch:test_resnet,in_channels=1,size=32"], tmp_path / "rank", resamples=0, folds=3)
    assert {backbone.name for backbone in ranking.backbones} == {"ours", "scratch"}
    before = open_backbone(spec, task.store).id
    parquet(tmp_path / "ours.parquet", "row", KEYS["row"], vectors + 1)
    assert open_backbone(spec, task.store).id != before


def test_an_analysis_has_their_features_and_neither_layers_nor_views(task, vectors, tmp_path):
    spec = parquet(tmp_path / "ours.parquet", "row", KEYS["row"], vectors)
    (ours,) = analyzed([spec], task.store)
    assert np.array_equal(ours.features(task.store), vectors)
    assert ours.layers(task.store, np.arange(4)) == {} and ours.pairs(task.store, np.arange(4)) is None
    table = shapes({FEATURES: vectors}, None, Neighborhood.of(vectors, 3))
    assert np.isnan(table["alignment"][0]) and np.isfinite(table["uniformity"][0])


def test_one_spec_serves_several_stores_by_their_names(task, vectors, tmp_path):
    parquet(tmp_path / "ours_store.parquet", "row", KEYS["row"], vectors)
    backbone = open_backbone(f"features:{tmp_path}/ours_{{store}}.parquet", task.store)
    assert backbone.card.name == "ours" and np.array_equal(backbone.model.of(task.store), vectors)


def test_a_fine_tuning_refuses_them(task, vectors, tmp_path):
    spec = parquet(tmp_path / "f.parquet", "row", KEYS["row"], vectors)
    with pytest.raises(UsageError, match=r"finetune: f: these are features, not a backbone: nothing can be trained"):
        evaluate("finetune", spec, task, tmp_path / "r")


def test_what_needs_pixels_refuses_them(task, vectors, tmp_path):
    spec = parquet(tmp_path / "f.parquet", "row", KEYS["row"], vectors)
    with pytest.raises(BackboneError, match="these are features, not a backbone: nothing can be trained"):
        load_backbone(spec)  # as `init` of a recipe does
    backbone = open_backbone(spec, task.store)
    with pytest.raises(UsageError, match="noise needs images"):
        backbone.model.of(NoisyStore(task.store, Noise("gaussian", 0.1, 0), 0, 255))
    with pytest.raises(UsageError, match="noise needs images"):
        evaluate("knn", spec, task, tmp_path / "r", **{"noise.kind": "gaussian", "noise.sigma": 0.1})
    with pytest.raises(UsageError, match=r"size=64: the features of f are from a file. Leave size out"):
        evaluate("knn", spec, task, tmp_path / "s", size=64)


def test_an_unknown_setting_gets_the_nearest_name(task, vectors, tmp_path):
    spec = parquet(tmp_path / "f.parquet", "row", KEYS["row"], vectors)
    with pytest.raises(BackboneError, match=r"no setting 'domian'. Did you mean 'domain'\?"):
        open_backbones([f"{spec},domian=ct"], task.store)
