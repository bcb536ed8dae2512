"""What a fine-tune leaves: its log and its scores."""

import json

import pandas

ADAMW = "optimizer={name: adamw, lr: 0.003}"
THOROUGH = (ADAMW, "train.steps=40", "train.batch_size=16", "train.check_every_steps=10")


def lines(folder):
    return [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]


def scores(folder):
    return pandas.read_parquet(folder / "predictions.parquet").filter(like="score_").to_numpy()
