from .analysis.projection import project, transform
from .analysis.stage import analyze
from .cli.study import run_study
from .data.ingest.stage import ingest
from .data.store import open_store
from .data.tasks import open_task
from .evaluation.linear_probe import LinearProbe
from .evaluation.stage import evaluate, probe
from .export.stage import export_backbone
from .features import embed_images, extract_features
from .measures.geometry import cka
from .measures.neighborhood import neighbors
from .models.backbone import load_backbone
from .models.importing.stage import import_backbone
from .prediction.stage import predict
from .pretraining.stage import pretrain
from .ranking.stage import rank
from .study.plan import open_study

__all__ = [
    "LinearProbe",
    "analyze",
    "cka",
    "embed_images",
    "evaluate",
    "export_backbone",
    "extract_features",
    "import_backbone",
    "ingest",
    "load_backbone",
    "neighbors",
    "open_store",
    "open_study",
    "open_task",
    "predict",
    "pretrain",
    "probe",
    "project",
    "rank",
    "run_study",
    "transform",
]
__version__: str
