"""Refit's Python interface: load_config, plan, run, open_run."""

from typing import Any

__all__ = ["load_config", "open_run", "plan", "run"]


def __getattr__(name: str) -> Any:
    if name in __all__:
        from orchestrator import api

        return getattr(api, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
