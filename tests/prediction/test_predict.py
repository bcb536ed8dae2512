"""New files are read as those of the store were: predictions of its own test images are those of the evaluation."""

import json
import shutil

import nibabel
import numpy as np
import pandas
import pytest
import yaml
from PIL import Image
from support.exported import randomised
from support.radiographs import MR, write_image

from ssl_transfer.cli import main
from ssl_transfer.data.ingest.pseudonyms import file_pseudonym
from ssl_transfer.data.ingest.stage import ingest
from ssl_transfer.data.readers.phantom.generate import expand
from ssl_transfer.errors import SourceError, StoreError, UsageError
from ssl_transfer.evaluation.stage import evaluate
from ssl_transfer.export.predictor import export_predictor
from ssl_transfer.models.backbone import save_backbone
from ssl_transfer.prediction.stage import predict

CLASSES = ("dark", "light")
SIDE = 24
pytestmark = pytest.mark.usefixtures("one_thread")


def labelled(folder, write, count=24):
    """Files of `count` patients, written by `write(path, levels)`, and their label table."""
    rng, rows = np.random.default_rng(0), ["file,patient,label"]
    for number in range(count):
        levels = rng.random((SIDE, SIDE)) * 0.5 + 0.4 * (number % 2)  # in [0, 1)
        name = write(folder / f"p{number:02d}", levels).name
        rows.append(f"{name},p{number:02d},{CLASSES[number % 2]}")
    (folder.parent / "labels.csv").write_text("\n".join(rows))


def pictures(folder):
    """PNG files of 8 bits."""
    folder.mkdir()

    def write(path, levels):
        Image.fromarray((levels * 255).astype(np.uint8)).save(path.with_suffix(".png"))
        return path.with_suffix(".png")

    labelled(folder, write)


def radiographs(folder):
    """12-bit detectors in containers of 16 bits, without a window: one range, which is the depth in use."""

    def write(path, levels):
        pixels = (levels * 4000).astype(np.uint16)
        return write_image(path.with_suffix(".dcm"), pixels, bits=16)

    labelled(folder, write)


def magnetic_resonance(folder):
    """MR images of other scales: a range by percentile of each."""

    def write(path, levels):
        pixels = (levels * (200 + 40 * int(path.name[1:]))).astype(np.uint16)
        return write_image(path.with_suffix(".dcm"), pixels, sop=MR, modality="MR", bits=12)

    labelled(folder, write)


def computed_tomography(folder):
    """Phantom CT in HU, several slices of a patient."""
    source = expand("phantom:ct,patients=12,slices=3,size=24", folder.parent / "phantom")["source"]
    shutil.move(source, folder)
    patients = sorted({path.name.partition("-")[0] for path in folder.iterdir()})
    rows = [f"{patient},{CLASSES[number % 2]}" for number, patient in enumerate(patients)]
    (folder.parent / "labels.csv").write_text("\n".join(["patient,label", *rows]))


KINDS = {"display": pictures, "stored": radiographs, "scaled": magnetic_resonance, "hu": computed_tomography}


def evaluated(folder, units):
    """`files`, their `store`, a saved `backbone`, and the `result` of a linear probe."""
    KINDS[units](folder / "files")
    options = {"domain": "xray"} if units == "display" else {}
    store = ingest(
        folder / "files",
        folder / "store",
        labels=folder / "labels.csv",
        split=(0.4, 0.3, 0.3),
        size=20,
        workers=1,
        **options,
    )
    assert store.units == units
    save_backbone(randomised("test_resnet,in_channels=1,size=32"), folder / "backbone")
    card = {"store": str(folder / "store"), "target": "label", "metric": "accuracy"}
    (folder / "task.yaml").write_text(yaml.safe_dump(card))
    result = evaluate("linear_probe", folder / "backbone", folder / "task.yaml", folder / "result", resamples=0)
    return store, result


def scores(table):
    return table[[f"score_{name}" for name in CLASSES]].to_numpy()


@pytest.mark.parametrize("units", KINDS)
def test_predictions_of_the_files_of_a_store_are_those_of_its_evaluation(units, tmp_path):
    store, _ = evaluated(tmp_path, units)
    answer = predict(tmp_path / "result", tmp_path / "files", tmp_path / "new.parquet", workers=1)
    expected = pandas.read_parquet(tmp_path / "result/predictions.parquet")
    rows = store.rows.iloc[expected["row"]].reset_index(drop=True)
    keys = ["file", "slice"] if "slice" in rows and rows["slice"].notna().all() else ["file"]
    found = pandas.read_parquet(tmp_path / "new.parquet").set_index(keys)
    found = found.loc[pandas.MultiIndex.from_frame(rows[keys]) if len(keys) > 1 else rows["file"]]
    assert np.abs(scores(found) - scores(expected)).max() < 1e-5
    if units == "display":  # of pictures, only the label table knew the patients
        assert found["patient"].isna().all() and answer["n_patients"] == 0
    else:
        assert (found["patient"].to_numpy() == rows["patient"]).all()
    assert (answer["n_images"], answer["n_refused"]) == (len(store), 0)
    most = np.array(CLASSES)[scores(expected).argmax(1)]
    assert (found["predicted"].to_numpy() == most).all()


def test_a_single_new_file_is_read_with_the_range_of_the_store_not_its_own(tmp_path):
    evaluated(tmp_path, "stored")
    predict(tmp_path / "result", tmp_path / "files", tmp_path / "all.parquet", workers=1)
    dark = min((tmp_path / "files").iterdir())
    (tmp_path / "one").mkdir()
    shutil.copy(dark, tmp_path / "one")
    predict(tmp_path / "result", tmp_path / "one", tmp_path / "one.parquet", workers=1)
    every = pandas.read_parquet(tmp_path / "all.parquet").set_index("file")
    alone = pandas.read_parquet(tmp_path / "one.parquet").set_index("file")
    assert np.abs(scores(alone) - scores(every.loc[[file_pseudonym(dark.name)]])).max() < 1e-5


@pytest.fixture(scope="module")
def ct(tmp_path_factory):
    folder = tmp_path_factory.mktemp("ct")
    return folder, *evaluated(folder, "hu")


def test_a_patient_gets_the_mean_of_its_images(ct, tmp_path):
    folder, store, _ = ct
    predict(folder / "result", folder / "files", tmp_path / "new.csv", workers=1)
    images, patients = (pandas.read_csv(tmp_path / f"{name}.csv") for name in ("new", "new_patients"))
    assert len(patients) == store.card.n_patients == 12 and set(patients["images"]) == {3}
    for patient in patients.itertuples():
        of_patient = images[images["patient"] == patient.patient]
        assert np.allclose(scores(of_patient).mean(0), scores(patients[patients["patient"] == patient.patient])[0])


def test_files_that_cannot_be_read_are_listed_with_the_reason(ct, tmp_path):
    folder, store, _ = ct
    shutil.copytree(folder / "files", tmp_path / "files")
    broken = next(path for path in sorted((tmp_path / "files").rglob("*")) if path.is_file())
    broken.write_bytes(broken.read_bytes()[:2000])
    (tmp_path / "files/letter.txt").write_text("to Dr. Doe")
    answer = predict(folder / "result", tmp_path / "files", tmp_path / "new.parquet", workers=1)
    assert answer["n_images"] == len(store) - 1 and answer["n_refused"] == 2
    named = {refusal["file"]: refusal for refusal in answer["refused"]}
    assert named["letter.txt"]["kind"] == "not_an_image"
    assert named[str(broken.relative_to(tmp_path / "files"))]["kind"] == "unreadable"
    written = (tmp_path / "new_refused.csv").read_text() + (tmp_path / "new.json").read_text()
    assert "letter" not in written and broken.name not in written


def test_an_exported_predictor_needs_nothing_else(ct, tmp_path, monkeypatch, capsys):
    folder, *_ = ct
    monkeypatch.chdir(tmp_path)
    export_predictor(folder / "result", tmp_path / "predictor")
    shutil.copytree(folder / "files", tmp_path / "files")
    words = ["predict", "predictor", "files", "--out", "new.parquet", "--keep-paths", "--workers", "1"]
    capsys.readouterr()
    assert main([*words, "--json"]) == 0
    answer = json.loads(capsys.readouterr().out)
    predict(folder / "result", folder / "files", tmp_path / "other.parquet", workers=1)
    found, expected = (pandas.read_parquet(tmp_path / name) for name in ("new.parquet", "other.parquet"))
    assert np.abs(scores(found) - scores(expected)).max() < 1e-6
    assert (tmp_path / "files" / found["file"][0]).is_file() and answer["n_patients"] == 12
    plan = json.loads((tmp_path / "predictor/preprocessing.json").read_text())
    assert plan["size"] == [32, 32] and plan["store"]["units"] == "hu" and plan["store"]["size"] == [20, 20]
    assert plan["store"]["spacing_mm"][0] > 0
    readme = (tmp_path / "predictor/README.md").read_text()
    assert "ssl-transfer predict" in readme and "dark, light" in readme and "not a medical device" in readme
    assert main(words) == 0
    again = capsys.readouterr()
    assert "already there" in again.err and "36 images of 12 known patients" in again.out


def test_a_store_is_predicted_as_its_files_are(ct, tmp_path):
    folder, *_ = ct
    predict(folder / "result", folder / "store", tmp_path / "new/folder/store.csv")
    predict(folder / "result", folder / "store", tmp_path / "store.parquet")
    predict(folder / "result", folder / "files", tmp_path / "files.parquet", workers=1)
    found, expected = (pandas.read_parquet(tmp_path / f"{name}.parquet") for name in ("store", "files"))
    assert np.abs(scores(found) - scores(expected)).max() < 1e-5
    assert len(pandas.read_csv(tmp_path / "new/folder/store.csv")) == len(found)


def test_a_store_of_volumes_cut_in_another_direction_is_predicted(tmp_path):
    (tmp_path / "files").mkdir()
    for number in range(24):
        values = np.random.default_rng(number).gamma(2, 100 + 50 * (number % 2), (6, 5, 6)).astype(np.float32)
        nibabel.Nifti1Image(values, np.eye(4)).to_filename(tmp_path / f"files/p{number:02d}.nii.gz")
    rows = [f"p{number:02d}.nii.gz,{CLASSES[number % 2]}" for number in range(24)]
    (tmp_path / "labels.csv").write_text("\n".join(["file,label", *rows]))
    ingest(
        tmp_path / "files", tmp_path / "store", labels=tmp_path / "labels.csv", axis="coronal", domain="mr", workers=1
    )
    save_backbone(randomised("test_resnet,in_channels=1,size=32"), tmp_path / "backbone")
    card = {"store": str(tmp_path / "store"), "target": "label", "metric": "accuracy"}
    (tmp_path / "task.yaml").write_text(yaml.safe_dump(card))
    evaluate("linear_probe", tmp_path / "backbone", tmp_path / "task.yaml", tmp_path / "result", resamples=0)
    for source in ("store", "files"):
        predict(tmp_path / "result", tmp_path / source, tmp_path / f"{source}.parquet", workers=1)
    found, expected = (pandas.read_parquet(tmp_path / f"{name}.parquet") for name in ("store", "files"))
    assert len(found) == len(expected) == 24 * 5 and np.abs(scores(found) - scores(expected)).max() < 1e-5


def test_images_without_hu_are_refused_where_the_probe_was_fitted_on_hu(ct, tmp_path):
    folder, *_ = ct
    magnetic_resonance(tmp_path / "files")
    with pytest.raises(
        SourceError, match="found images in values without HU, and this probe was fitted on images in HU"
    ):
        predict(folder / "result", tmp_path / "files", tmp_path / "new.parquet", workers=1)
    store = ingest(tmp_path / "files", tmp_path / "store", workers=1)
    with pytest.raises(StoreError, match=r"'scaled'.*fitted on 'hu'"):
        predict(folder / "result", store.path, tmp_path / "new.parquet")
    assert not list(tmp_path.glob("new*")) and not list(tmp_path.glob(".new*"))


@pytest.mark.parametrize(
    ("change", "message"),
    [("moved", "the backbone of this probe was .* --backbone PATH"), ("another", "the probe in .* was fitted on")],
)
def test_a_backbone_that_moved_or_changed_is_named(ct, change, message, tmp_path):
    folder, *_ = ct
    shutil.copytree(folder / "result", tmp_path / "result")
    card = json.loads((tmp_path / "result/probe.json").read_text())
    save_backbone(randomised("test_resnet,in_channels=1,size=32,seed=1"), tmp_path / "other")
    card["backbone_spec"] = str(tmp_path / ("nowhere" if change == "moved" else "other"))
    (tmp_path / "result/probe.json").write_text(json.dumps(card))
    with pytest.raises(UsageError, match=message):
        predict(tmp_path / "result", folder / "files", tmp_path / "new.parquet", workers=1)
    answer = predict(
        tmp_path / "result", folder / "files", tmp_path / "new.parquet", backbone=folder / "backbone", workers=1
    )
    assert answer["n_images"] == 36


def test_a_damaged_probe_and_other_files_in_place_of_the_output_are_refused(ct, tmp_path):
    folder, *_ = ct
    (tmp_path / "new_patients.parquet").write_text("notes")
    with pytest.raises(UsageError, match="already there, of other inputs"):
        predict(folder / "result", folder / "files", tmp_path / "new.parquet")
    with pytest.raises(UsageError, match=r"ends with \.parquet or \.csv"):
        predict(folder / "result", folder / "files", tmp_path / "new")
    shutil.copytree(folder / "result", tmp_path / "result")
    tensors = bytearray((tmp_path / "result/probe.safetensors").read_bytes())
    tensors[-1] ^= 1
    (tmp_path / "result/probe.safetensors").write_bytes(bytes(tensors))
    with pytest.raises(UsageError, match=r"is damaged: .*digest"):
        predict(tmp_path / "result", folder / "files", tmp_path / "other.parquet")


def test_a_result_without_a_probe_cannot_be_exported(ct, tmp_path):
    folder, *_ = ct
    evaluate("knn", folder / "backbone", folder / "task.yaml", tmp_path / "knn", resamples=0)
    with pytest.raises(UsageError, match="has no fitted probe"):
        export_predictor(tmp_path / "knn", tmp_path / "out")
    evaluate(
        "linear_probe",
        folder / "backbone",
        folder / "task.yaml",
        tmp_path / "control",
        resamples=0,
        permute_labels=True,
    )
    with pytest.raises(UsageError, match="permuted labels"):
        export_predictor(tmp_path / "control", tmp_path / "out")


@pytest.mark.parametrize("pooling", ["max", "topk", "attention"])
def test_groups_of_new_files_get_the_predictions_of_their_evaluation(ct, pooling, tmp_path):
    folder, store, _ = ct
    card = {"store": str(store.path), "target": "label", "metric": "accuracy", "target_of": "patient"}
    (tmp_path / "task.yaml").write_text(yaml.safe_dump(card))
    evaluate(
        *("linear_probe", folder / "backbone", tmp_path / "task.yaml", tmp_path / "result"),
        resamples=0,
        group_pool=[pooling],
    )
    export_predictor(tmp_path / "result", tmp_path / "predictor")
    answer = predict(tmp_path / "predictor", folder / "files", tmp_path / "new.parquet", workers=1)
    found = pandas.read_parquet(tmp_path / "new.parquet")
    assert (answer["n_images"], answer["n_groups"], answer["n_patients"]) == (36, 12, 12)
    assert sum(answer["predicted"].values()) == 12 and answer["patients"] is None
    assert set(found["images"]) == {3} and not (tmp_path / "new_patients.parquet").exists()
    expected = pandas.read_parquet(tmp_path / "result/predictions.parquet")
    assert np.abs(scores(found.set_index("group").loc[expected["group"]]) - scores(expected)).max() < 1e-5
    readme = (tmp_path / "predictor/README.md").read_text()
    assert f"one prediction per patient, {pooling} pooling" in readme and "new_patients" not in readme


def test_images_without_a_group_are_in_no_row_and_without_any_group_each_is_a_case(ct, tmp_path, capsys):
    folder, store, _ = ct
    card = {"store": str(store.path), "target": "label", "metric": "accuracy", "target_of": "patient"}
    (tmp_path / "task.yaml").write_text(yaml.safe_dump(card))
    evaluate("linear_probe", folder / "backbone", tmp_path / "task.yaml", tmp_path / "result", resamples=0)
    for name, unknown in (("some", 3), ("all", 36)):
        shutil.copytree(store.path, tmp_path / name)
        rows = pandas.read_parquet(tmp_path / name / "rows.parquet")
        rows.loc[: unknown - 1, "patient"] = None
        rows.to_parquet(tmp_path / name / "rows.parquet")
        answer = predict(tmp_path / "result", tmp_path / name, tmp_path / f"{name}.parquet")
        assert answer["n_groups"] == (36 if unknown == 36 else len(set(rows["patient"].dropna())))
    printed = capsys.readouterr().err
    assert "the patient of 3 of 36 images is unknown; they are in no row of some.parquet" in printed
    assert "no patient is known: every image is a case of its own. Say which part of a name is the patient" in printed
