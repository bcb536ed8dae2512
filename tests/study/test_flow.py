"""Images and patients that runs learn from, select on and are tested on."""

from support.results import made_result

from ssl_transfer.study.flow import images_and_patients


def test_a_row_has_the_range_over_draws_of_images_and_patients():
    def counts(images, patients):
        return {"train": {"images": images, "patients": 9}, "val": {"images": 40, "patients": patients}}

    results = [
        made_result(fraction=0.1, seed=seed, n={**counts(images, None), "test": {"images": 1200, "patients": 60}})
        for seed, images in enumerate((14, 9))
    ]
    (row,) = images_and_patients(results).to_dict("records")
    assert (row["train_images"], row["train_patients"]) == ("9–14", "9")
    assert (row["val_images"], row["val_patients"]) == ("40", "")
    assert (row["test_images"], row["test_patients"]) == ("1,200", "60")


def test_without_results_there_is_none():
    assert images_and_patients([]) is None
