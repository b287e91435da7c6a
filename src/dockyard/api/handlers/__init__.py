"""Handlers by group, named in the route table as ``module.function``. Each is ``async (Call) -> Answer``."""
