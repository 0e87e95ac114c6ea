"""The settings of this process: the configuration file's or the sandbox's, and the secrets that nobody configured."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from pydantic import SecretStr

from app import settings
from app.db.embedded import default_data_dir
from app.settings import Environment, Settings


def load(config: Path | None = None) -> Settings:
    """The configuration file's settings, or the sandbox's where there is only a sandbox. Raises SettingsError."""
    environment = Environment()
    config = config or environment.filemux_config
    sandbox_url = os.environ.get("FILEMUX_SANDBOX_URL")
    if sandbox_url and config is None:
        from app.sandbox.config import sandbox_configuration  # noqa: PLC0415  not part of a real gateway

        return settings.from_mapping(sandbox_configuration(sandbox_url), environment, default_data_dir())
    return settings.load(config, environment, default_data_dir())


def with_secrets(found: Settings, tell: Callable[[str], None]) -> Settings:
    """Make and keep what was not configured; a new master key is told once."""
    master_key, secret_keys = found.master_key, found.secret_keys
    if master_key is None:
        path = found.data_dir / "master_key"
        secret, new = settings.kept_secret(path)
        master_key = SecretStr(secret)
        if new:
            tell(f"new master key, kept in {path}: {secret}")
    if not secret_keys:
        secret_keys = (SecretStr(settings.kept_secret(found.data_dir / "secret_key")[0]),)
    return replace(found, master_key=master_key, secret_keys=secret_keys)
