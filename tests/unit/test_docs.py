"""The generated pages say what the code says."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.parametrize(("page", "maker"), [("api-coverage.md", "coverage"), ("errors.md", "catalogue"), ("cli.md", "command_line")])
def test_generated_pages_are_current(page: str, maker: str) -> None:
    spec = importlib.util.spec_from_file_location("gendocs", ROOT / "scripts/gendocs.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    assert (ROOT / "docs" / page).read_text() == getattr(module, maker)(), "run `make docs`"


def test_every_operation_of_the_specification_has_a_route() -> None:
    import yaml

    from dockyard.api.routes import ROUTES

    file = ROOT.parent / "shared/specs/engine-api/v1.51.yaml"
    if not file.exists():
        pytest.skip("shared/specs is not beside this checkout")
    paths = yaml.load(file.read_text(), Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader))["paths"]
    wanted = {(method.upper(), path) for path, operations in paths.items() for method in operations if method in {"get", "post", "put", "delete", "head"}}
    assert wanted <= {(route.method, route.path) for route in ROUTES}
