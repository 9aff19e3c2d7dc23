"""Every row there is, from the pages of this folder."""

from __future__ import annotations

import importlib
import pkgutil

import tests.assurance
from tests.assurance.rows import Row


def _rows() -> tuple[Row, ...]:
    pages = sorted(found.name for found in pkgutil.iter_modules(tests.assurance.__path__))
    modules = [importlib.import_module(f"tests.assurance.{name}") for name in pages if name not in _OTHERS]
    return tuple(row for module in modules for row in module.ROWS)


_OTHERS = ("__main__", "every", "mutating", "rows")
ROWS = _rows()
