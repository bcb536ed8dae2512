"""The options of `ingest`, checked."""

from __future__ import annotations

from dataclasses import asdict, dataclass

from ssl_transfer.data.readers.registry import READERS
from ssl_transfer.domains import Domain
from ssl_transfer.errors import UsageError, nearest


@dataclass(frozen=True)
class Options:
    """The options of `ingest`, where they are documented."""

    format: str = "auto"
    labels: str | None = None
    label_key: str | None = None
    size: int | None = None
    channels: int | None = None
    modality: str | None = None
    domain: str | None = None
    masks: str | None = None
    mask_names: str | None = None
    axis: str = "axial"
    compress: bool = False
    resplit: bool = False
    split_shares: tuple[float, float, float] = (0.7, 0.15, 0.15)
    seed: int = 0
    max_refused: float = 0.05
    workers: int | None = None

    def __post_init__(self):
        formats = ("auto", *READERS)
        if self.format not in formats:
            raise UsageError(f"--format {self.format}: no such format.{nearest(self.format, formats)}")
        if self.channels not in (None, 1, 3):
            raise UsageError(f"--channels {self.channels}: expected 1 or 3.")
        if self.size is not None and self.size < 1:
            raise UsageError(f"--size {self.size}: expected a number of pixels above 0.")
        if not 0 <= self.max_refused <= 1:
            raise UsageError(f"--max-refused {self.max_refused}: expected a share from 0 to 1, such as 0.05.")
        if self.label_key is not None and self.labels is None:
            raise UsageError(f"--label-key {self.label_key}: there is no --labels CSV whose key it could be.")
        if self.domain is not None:
            Domain.parse(self.domain)

    def given(self) -> dict:
        """Options that differ from their defaults."""
        return {name: value for name, value in asdict(self).items() if value != getattr(Options, name)}
