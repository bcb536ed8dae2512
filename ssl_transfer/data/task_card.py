"""The card of a task: what its YAML file holds."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field, field_validator, model_validator

from ssl_transfer.data.groups import TargetOf
from ssl_transfer.measures.classification import OPERATING_POINT
from ssl_transfer.measures.overlap import TOLERANCE
from ssl_transfer.recipe import Section
from ssl_transfer.target_kinds import KINDS

# Targets that are not a column; all but the mask name theirs elsewhere in the card.
MASK, ORDINAL, REGRESSION, SURVIVAL = "mask", "ordinal", "regression", "survival"
COLUMNS = {ORDINAL: ("column",), REGRESSION: ("column",), SURVIVAL: ("time", "event")}  # which name them
CLASSIFICATION, SEGMENTATION = ("classification", "classes, labels or grades"), ("segmentation", "masks")
OPTIONS_OF_METRICS = {  # option -> kind of the metrics that depend on it, and their targets
    "averaging": CLASSIFICATION,
    "operating_point": CLASSIFICATION,
    "tolerance": SEGMENTATION,
}


class TaskCard(Section):
    """What a task's YAML file holds.

    Attributes:
        store: Folder.
        target: A column of classes (multiclass); several columns of 0 and 1 or no and yes (see `truths`), or one column of words
            with a `separator` (multilabel); `mask` (segmentation); `ordinal` or `regression`, of a `column`; or `survival`, of
            the columns `time` and `event`.
        metric: Settings are selected by it, and reports show it first.
        averaging: Of auroc, average_precision, f1 and the metrics at an operating point over classes, labels or grades.
        operating_point: Of classes, labels and grades: the specificity at which `sensitivity_at_specificity` is measured, and the
            sensitivity of the reverse, in (0, 1).
        tolerance: Of masks: distance of two surfaces that `nsd` accepts, mm (pixels where spacings are unknown).
        domain: Target domain; null: the store's.
        separator: Between the words of a column that names several labels (`Effusion|Mass`).
        negative: The word of that column which says that there is none.
        labels: Words of that column that are predicted, in this order; the others count as none. Null: all, sorted.
        classes: Of masks: name -> values of the mask, or `any`: whatever is not 0. Null: as the store names them.
        subgroups: Columns whose groups of test cases are evaluated apart, such as sex, age or manufacturer; see
            `evaluation.subgroups`. Null: none.
        column: Of ordinal tasks, the column of the grades; of regression, that of the numbers.
        order: Names of the grades, the lowest first; null: the grades are numbers, in ascending order.
        time: Of survival, the column of the times to the event or to the end of the observation, in any unit.
        event: Of survival, the column that says whether the event was observed: 1 and 0, or yes and no.
        air: `clear`: CT images are read without the grey level of their air, see `altered.ClearedAir`. Null: as they are.
        target_of: What has one label and gets one prediction: the images of a `patient`, `study` or `series`. Null: each image.
        external: Folders of further stores, on which the model is tested as well after it was selected, see `external_tests`.
    """

    store: str
    target: str | tuple[str, ...]
    metric: str
    averaging: Literal["macro", "weighted"] = "macro"
    operating_point: float = Field(default=OPERATING_POINT, gt=0, lt=1)
    tolerance: float = Field(default=TOLERANCE, ge=0, allow_inf_nan=False)
    domain: str | None = None
    separator: str | None = None
    negative: str | None = None
    labels: tuple[str, ...] | None = None
    classes: dict[str, tuple[int, ...] | Literal["any"]] | None = None
    subgroups: tuple[str, ...] | None = None
    column: str | None = None
    order: tuple[str, ...] | None = None
    time: str | None = None
    event: str | None = None
    air: Literal["clear"] | None = None
    target_of: TargetOf | None = None
    external: tuple[str, ...] | None = None

    @field_validator("external", mode="before")
    @classmethod
    def _single_store(cls, value):
        return [value] if isinstance(value, str) else value

    @field_validator("classes", mode="before")
    @classmethod
    def _single_values(cls, value):
        if not isinstance(value, dict):
            return value
        return {name: ids if isinstance(ids, (list, tuple)) or ids == "any" else [ids] for name, ids in value.items()}

    @field_validator("order", mode="before")
    @classmethod
    def _names(cls, value):
        return [str(name) for name in value] if isinstance(value, (list, tuple)) else value

    @model_validator(mode="after")
    def _columns_fit(self) -> TaskCard:
        needed = COLUMNS.get(self.target, ()) if isinstance(self.target, str) else ()
        for name in dict.fromkeys(name for names in COLUMNS.values() for name in names):
            given = getattr(self, name) is not None
            if given and name not in needed:
                kinds = " or ".join(kind for kind, names in COLUMNS.items() if name in names)
                raise ValueError(f"`{name}` is for `target: {kinds}`, and the target is {self.target}. Leave it out")
            if not given and name in needed:
                raise ValueError(f"`target: {self.target}` needs `{name}`, the name of a column of the store. Add it")
        if self.order and self.target != ORDINAL:
            raise ValueError(f"`order` is for `target: {ORDINAL}`, and the target is {self.target}. Leave it out")
        if self.order and len(set(self.order)) < max(2, len(self.order)):
            raise ValueError(f"`order`: found {', '.join(self.order)}; expected two or more grades, each once")
        return self

    @model_validator(mode="after")
    def _options_fit(self) -> TaskCard:
        if self.classes and self.target != MASK:
            raise ValueError(f"`classes` are for `target: {MASK}`, and the target is {self.target}. Leave them out")
        if self.target_of and self.target == MASK:
            raise ValueError(f"`target_of` is for labels, and `target: {MASK}` belongs to pixels. Leave it out")
        if self.separator and (self.target in (MASK, *COLUMNS) or not isinstance(self.target, str)):
            raise ValueError("`separator` is for a single column of words. Leave it out")
        if not self.separator and (self.negative or self.labels):
            raise ValueError(
                "`negative` and `labels` are for a column of words with a `separator`. Add it, such as '|'"
            )
        return self

    @model_validator(mode="after")
    def _options_have_metrics(self) -> TaskCard:
        for name, (metrics, targets) in OPTIONS_OF_METRICS.items():
            value = getattr(self, name)  # a study writes the defaults of all options into its cards
            if value != TaskCard.model_fields[name].default and metrics not in KINDS[self.kind].metrics:
                raise ValueError(
                    f"`{name}`: found {value}, and no metric of a {self.kind} target depends on it. Expected it for {targets} "
                    "alone. Leave it out"
                )
        return self

    def identity(self) -> dict[str, Any]:
        """What a run's id depends on, besides the stores, which have ids of their own, and what is only reported."""
        later = {name for name in ("target_of",) if getattr(self, name) is None}  # options that older ids do not have
        return self.model_dump(exclude={"store", "external", "subgroups", *later})

    @property
    def kind(self) -> str:
        """`multiclass` (one class per image), `multilabel` (any number of labels per image), `ordinal`, `regression`, `survival`
        or `segmentation`.
        """
        if self.target == MASK:
            return "segmentation"
        if isinstance(self.target, str) and self.target in COLUMNS:
            return self.target
        return "multiclass" if isinstance(self.target, str) and not self.separator else "multilabel"

    @property
    def columns(self) -> tuple[str, ...]:
        """The columns of the store that hold the target; none of masks."""
        if isinstance(self.target, tuple):
            return self.target
        if self.target == MASK:
            return ()
        names = COLUMNS.get(self.target)
        return (self.target,) if names is None else tuple(str(getattr(self, name)) for name in names)
