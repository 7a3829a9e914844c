"""A PatchCamelyon pipeline whose every number can be proven."""

__version__ = "0.1.0"
