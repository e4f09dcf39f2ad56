"""Reads and validates a config file, and writes a resolved one, without importing torch."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

from influence.base import Method
from influence.diagnostic import Diagnostic
from influence.registry import DIAGNOSTICS, METHODS, OBSERVERS
from orchestrator.config.schema import ABOUT_QUERIES, CONTROLS, CampaignBlock, LoadedConfig, QuerySettings, Settings
from orchestrator.config.yaml_files import ConfigError, apply_overrides, read_yaml, write_yaml
from orchestrator.registry import CAMPAIGNS
from orchestrator.storage.uris import refuse_password
from orchestrator.tracking.record import absolute_uri, check_uri
from tasks.base import Component
from tasks.components import parse_component, parse_named
from tasks.data.wording import quoted
from tasks.measurement import Measurement
from tasks.observer import ObserverConfig
from tasks.registry import MEASUREMENTS, TASKS, load_function
from tasks.suggestions import did_you_mean


def load_config(path: str | Path, overrides: Sequence[str] = ()) -> LoadedConfig:
    """Read a config file, apply `overrides` and validate it.

    Raises ConfigError (an InputError), which names the file, the dotted key, the value and what is allowed.
    """
    path = Path(path)
    raw = apply_overrides(read_yaml(path), overrides, path)
    return parse_config(raw, path, overrides)


def parse_config(
    raw: dict[str, Any], path: Path, overrides: Sequence[str] = (), where: str | None = None
) -> LoadedConfig:
    """Validate a config that has been read.

    Relative data paths are relative to the directory of `path`. Errors name `where`, by default `path`.
    """
    where = str(path) if where is None else where
    _refuse_secrets(raw, where)
    block_name = raw.get("campaign")
    block = raw.get(block_name, {}) if isinstance(block_name, str) else {}
    top = {key: value for key, value in raw.items() if key != block_name or key in Settings.model_fields}
    if isinstance(block_name, str) and ":" not in block_name and block_name not in CAMPAIGNS.entries():
        CAMPAIGNS.load(block_name, f"{where}: campaign")  # raises; else its block would be called an unknown key
    also = (block_name,) if isinstance(block_name, str) else ()
    settings: Settings = parse_component(Settings, top, where, "", also)
    if settings.tracking is not None:
        check_uri(settings.tracking.uri, f"{where}: tracking.uri")
    campaign_class = CAMPAIGNS.load(settings.campaign, f"{where}: campaign", settings.plugins)
    if not issubclass(campaign_class, CampaignBlock):
        raise ConfigError(f"{where}: campaign", f"{settings.campaign!r} is not a campaign")
    top = {**campaign_class.fills, **top}
    if campaign_class.asks_queries:
        settings = parse_component(QuerySettings, top, where, "")
    elif given := [key for key in ABOUT_QUERIES if key in top]:
        raise ConfigError(f"{where}: {given[0]}", f"{settings.campaign} takes no {given[0]}")
    campaign = parse_component(campaign_class, block, where, settings.campaign)
    task = parse_named(TASKS, settings.task, where, "task", settings.plugins)
    if settings.queries is not None and (splits := task.measurable()) is not None:
        settings = _measuring_queries(settings, splits, where)
        task = parse_named(TASKS, settings.task, where, "task", settings.plugins)
    measurement = _parse_measurement(settings, where) if campaign.asks_queries else None
    methods = _parse_methods(settings, measurement, where)
    observers, diagnostics = _parse_observers(settings, where), _parse_diagnostics(settings, where)
    arms = campaign.task_variants(settings.task, where)
    return LoadedConfig(
        path, raw, settings, task, measurement, methods, campaign, where, tuple(overrides), arms, observers, diagnostics
    )


def _measuring_queries(settings: Settings, splits: Collection[str], where: str) -> Settings:
    """Return the settings with the default of `task.measure`: the split that the queries are drawn from."""
    assert settings.queries is not None
    split = settings.queries.split
    if split not in splits:
        problem = f"no split {split!r}; splits: {quoted(splits)}{did_you_mean(split, splits)}"
        raise ConfigError(f"{where}: queries.split", problem)
    return settings.model_copy(update={"task": {**settings.task, "measure": [{"split": split}]}})


def _parse_measurement(settings: Settings, where: str) -> Any:
    given = settings.measurement
    options = {"name": given} if isinstance(given, str) else given
    return parse_named(MEASUREMENTS, options, where, "measurement", settings.plugins)


def _parse_observers(settings: Settings, where: str) -> tuple[ObserverConfig, ...]:
    """Parse the observers. Two observers of one name are refused, because their records would have the same keys."""
    observers: dict[str, ObserverConfig] = {}
    for position, block in enumerate(settings.observe):
        key = f"observe.{position}"
        observer = parse_named(OBSERVERS, block, where, key, settings.plugins)
        if observer.name in observers:
            raise ConfigError(f"{where}: {key}", f"duplicate observer {observer.name!r}; give each observer once")
        observers[observer.name] = observer
    return tuple(observers.values())


def _parse_methods(settings: Settings, measurement: Measurement | None, where: str) -> dict[str, Method]:
    methods: dict[str, Method] = {}
    for position, block in enumerate(settings.methods):
        key = f"methods[{position}]"
        options = dict(block)
        label = options.pop("as", options.get("name"))
        method = parse_named(METHODS, options, where, key, settings.plugins)
        _check_label(label, where, key)
        if label in CONTROLS and method.name != label:
            raise ConfigError(f"{where}: {key}.as", f"{label!r} is the label of the control {label}; give another")
        if label in methods:
            raise ConfigError(f"{where}: {key}", f"duplicate label {label!r}; give one of the two another `as:`")
        if measurement and measurement.label != "gold" and not method.follows_query_loss:
            raise ConfigError(
                f"{where}: {key}", f"{label!r} cannot follow the measurement {measurement.name!r}; choose another"
            )
        methods[label] = method
    return methods


def _parse_diagnostics(settings: Settings, where: str) -> dict[str, Diagnostic]:
    diagnostics: dict[str, Diagnostic] = {}
    for position, block in enumerate(settings.diagnose):
        key, options = f"diagnose.{position}", dict(block)
        label = options.pop("as", options.get("name"))
        diagnostic = parse_named(DIAGNOSTICS, options, where, key, settings.plugins)
        for option, function in diagnostic.functions().items():
            load_function(function, f"{where}: {key}.{option}", settings.plugins)
        _check_label(label, where, key)
        if label in diagnostics:
            raise ConfigError(f"{where}: {key}", f"duplicate label {label!r}; give one of the two another `as:`")
        diagnostics[label] = diagnostic
    return diagnostics


def _check_label(label: Any, where: str, key: str) -> None:
    if not isinstance(label, str) or not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_.+-]{0,79}", label):
        raise ConfigError(f"{where}: {key}.as", f"{label!r}: give an `as:` of at most 80 letters, digits and _ . + -")


def _refuse_secrets(value: Any, where: str, key: str = "") -> None:
    if isinstance(value, str):
        refuse_password(value, f"{where}: {key}")
    elif isinstance(value, Mapping):
        for name, item in value.items():
            _refuse_secrets(item, where, f"{key}.{name}".lstrip("."))
    elif isinstance(value, list):
        for position, item in enumerate(value):
            _refuse_secrets(item, where, f"{key}[{position}]")


def dump_config(config: LoadedConfig, task: Any) -> str:
    """Return the resolved config, with defaults, as YAML text; reading it gives the same campaign.

    `task` is the opened task of the first arm.
    """
    resolved = config.settings.model_dump(
        mode="json", exclude=None if config.campaign.asks_queries else {*ABOUT_QUERIES}
    )
    # Arms change the block that the user wrote. Writing the first arm's defaults into a changed block would give another
    # arm the defaults of a different optimiser or recipe.
    changed = {key.partition(".")[0] for changes in config.arms.values() for key in changes}
    for part in {"model", "recipe"} & resolved["task"].keys() - changed:
        resolved["task"][part] = {**_named(getattr(task, part)), "name": resolved["task"][part]["name"]}
    if config.campaign.asks_queries:
        resolved |= _resolved_queries(config)
    resolved["observe"] = [
        {**_named(observer), "name": block["name"]}
        for block, observer in zip(config.settings.observe, config.observers, strict=True)
    ]
    resolved[config.settings.campaign] = config.campaign.model_dump(mode="json")
    if resolved["tracking"] is not None:
        resolved["tracking"]["uri"] = absolute_uri(resolved["tracking"]["uri"])
    return write_yaml(resolved)


def _resolved_queries(config: LoadedConfig) -> dict[str, Any]:
    """Return the measurement, the methods and the diagnostics with their defaults."""
    given = config.settings.measurement
    methods = zip(config.settings.methods, config.methods.items(), strict=True)
    return {
        "measurement": {**_named(config.measurement), "name": given if isinstance(given, str) else given["name"]},
        "methods": [{**_named(method), "name": block["name"], "as": label} for block, (label, method) in methods],
        "diagnose": [
            {**_named(diagnostic), "name": block["name"], "as": label}
            for block, (label, diagnostic) in zip(config.settings.diagnose, config.diagnostics.items(), strict=True)
        ],
    }


def _named(part: Component) -> dict[str, Any]:
    return {"name": part.name, **part.model_dump(mode="json")}
