"""Evaluation results made up on the spot, as `evaluate` would have written them."""

from ssl_transfer.result import EvalResult, RankedBackbone, Ranking

COUNTS = {"images": 10, "patients": 5}


def made_result(run_id: str = "r1", **facts) -> EvalResult:
    """The result of a linear probe on CT; `facts` replace its fields."""
    fields = {
        "protocol": "linear_probe",
        "strategy": None,
        "backbone": {"id": "b1", "name": "ct-0", "pretraining": "in-domain CT", "source_domain": "ct"},
        "task": {"name": "body_region", "target_domain": "ct"},
        "boundary": "none",
        "fraction": 0.1,
        "seed": 0,
        "pretraining_seed": 3,
        "n": {split: COUNTS for split in ("train", "val", "test")},
        "selected": {},
        "metrics": {"val": {"auroc": 0.99}, "test": {"auroc": 0.8, "accuracy": 0.7}},
        "intervals": {},
        "seen_in_pretraining": False,
        "cost": {"seconds": 2.0, "device": "cpu"},
        "environment": {"ssl_transfer": "0", "versions": {"torch": "9"}},
    }
    return EvalResult(run_id, **fields | facts)


def made_ranking(scores: dict, knn: float, linear_probe: float) -> Ranking:
    """The ranking of one backbone."""
    backbone = RankedBackbone(
        name="it",
        id="b1",
        method="simclr",
        source_domain="ct",
        feature_dim=8,
        scores=scores,
        knn=knn,
        linear_probe=linear_probe,
        intervals={},
        source_classes=None,
        seconds={},
    )
    return Ranking(
        run_id="r1",
        task="region",
        metric="balanced_accuracy",
        by="linear_probe",
        backbones=(backbone,),
        order=("it",),
        first=None,
        not_told_apart=(),
        agreement={},
        recommendation="",
        caveats=(),
        n=COUNTS,
        settings={},
        environment={},
    )
