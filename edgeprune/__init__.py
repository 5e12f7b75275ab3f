"""edgeprune: measure what structured pruning really gains on edge devices."""
__version__ = "0.1.0"
