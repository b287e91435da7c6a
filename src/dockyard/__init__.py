"""Dockyard: a container platform in one package that speaks Docker's own protocols (see ARCHITECTURE.md)."""

__version__ = "0.1.0"
