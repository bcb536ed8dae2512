"""The registry of pretraining methods: recipes select a method by its key."""

from ssl_transfer.methods.barlowtwins import BarlowTwins
from ssl_transfer.methods.byol import BYOL
from ssl_transfer.methods.dino import DINO
from ssl_transfer.methods.dinov2 import DINOv2
from ssl_transfer.methods.distill import Distill
from ssl_transfer.methods.mae import MAE
from ssl_transfer.methods.moco import MoCo
from ssl_transfer.methods.mocov3 import MoCoV3
from ssl_transfer.methods.objective import Losses, Objective
from ssl_transfer.methods.simclr import SimCLR
from ssl_transfer.methods.simsiam import SimSiam
from ssl_transfer.methods.supervised import Supervised
from ssl_transfer.methods.vicreg import VICReg

METHODS: dict[str, type[Objective]] = {
    "simclr": SimCLR,
    "byol": BYOL,
    "moco": MoCo,
    "mocov3": MoCoV3,
    "barlowtwins": BarlowTwins,
    "vicreg": VICReg,
    "simsiam": SimSiam,
    "dino": DINO,
    "dinov2": DINOv2,
    "mae": MAE,
    "distill": Distill,
    "supervised": Supervised,
}

__all__ = ["METHODS", "Losses", "Objective"]
