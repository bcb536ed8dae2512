"""Self-supervised methods. A method is a page; a recipe names it by its key here."""

from ssl_transfer.methods.byol import BYOL
from ssl_transfer.methods.moco import MoCo
from ssl_transfer.methods.objective import Losses, Objective
from ssl_transfer.methods.simclr import SimCLR

METHODS: dict[str, type[Objective]] = {"simclr": SimCLR, "byol": BYOL, "moco": MoCo}

__all__ = ["METHODS", "Losses", "Objective"]
