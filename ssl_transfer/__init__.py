"""ssl_transfer: pretrain without labels on one domain, transfer to another, and test whether in-domain pretraining pays off.

The public names (`__init__.pyi` lists them) load on first use, so that `import ssl_transfer` costs nothing.
"""

import lazy_loader

__version__ = "0.1.0"
__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
