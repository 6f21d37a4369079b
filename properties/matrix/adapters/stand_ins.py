"""Loads single files of an installed package, with stand-ins for modules whose import needs more than the loss does."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType
from typing import Any


def stand_in(name: str, **attributes: Any) -> ModuleType:
    """Enters a module with these attributes under a name, or adds them to the one that is there."""
    module = sys.modules.get(name) or ModuleType(name)
    module.__path__ = getattr(module, "__path__", [])
    for attribute, value in attributes.items():
        setattr(module, attribute, value)
    sys.modules[name] = module
    return module


def load(name: str, file: str) -> Any:
    """Loads a file of an installed package as a module of this name.

    Raises:
        ModuleNotFoundError: no folder on the path holds the file.
    """
    loaded = sys.modules.get(name)
    if loaded is not None and getattr(loaded, "__file__", None):
        return loaded
    path = next((Path(folder, file) for folder in sys.path if Path(folder, file).is_file()), None)
    if path is None:
        raise ModuleNotFoundError(f"no folder on the path holds {file}", name=name)
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module
