"""The papers' networks by name, and a user's own. Start with `build`; `catalogue.py` lists them
and says how a family is added.

Importing this package loads no torch: the networks' modules are loaded when one is built.
"""

from edgeprune.models.catalogue import ModelEntry
from edgeprune.models.registry import build, entry, names
from edgeprune.models.user_module import load

__all__ = ["ModelEntry", "build", "entry", "load", "names"]
