"""All verbs, in the order of `--help`. A new verb is a file and a line here (or in `STAGES`, if a study may run it)."""

from ssl_transfer.cli import export, import_, init, inspect, list_, predict, preview, quickstart, study, verify
from ssl_transfer.cli.stages import STAGES
from ssl_transfer.cli.verb import Verb

VERBS: dict[str, Verb] = {
    "quickstart": quickstart.VERB,
    "init": init.VERB,
    **STAGES,
    "preview": preview.VERB,
    "import": import_.VERB,
    "export": export.VERB,
    "predict": predict.VERB,
    "list": list_.VERB,
    "inspect": inspect.VERB,
    "verify": verify.VERB,
    "study": study.VERB,
}
