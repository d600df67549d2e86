"""Every setting of the service: a frozen value, made once from the environment and handed down."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from app.errors import TracerError

PREFIX = "KT_"


class SettingsInvalid(TracerError):
    """The environment holds a setting that is unknown or out of bounds."""

    code = "settings_invalid"


class Settings(BaseModel):
    """The service's settings; each is read from `KT_` and its name in capitals."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    host: str = Field("127.0.0.1", description="Address to listen on.")
    port: int = Field(8000, ge=0, le=65535, description="Port to listen on; 0 takes a free one.")
    artifact_dir: Path = Field(Path("artifacts"), description="Folder of <model>/<version>/.")
    default_model: str = Field("dkt_asked", description="Model of a request that names none.")
    knowledge_model: str = Field("dkt", description="Model whose vector is the knowledge state.")
    provider: Literal["auto", "cpu", "cuda"] = Field(
        "auto", description="Execution provider. `cuda` refuses to start without one."
    )
    threads: int = Field(
        0, ge=0, le=256, description="Cores for model runs; 0 counts those this process may use."
    )
    batch_max_items: int = Field(64, ge=1, le=4096, description="Windows in one run, at most.")
    batch_max_places: int = Field(
        65536, ge=64, description="Rows times padded length of one run, at most."
    )
    queue_max_items: int = Field(
        4096,
        ge=1,
        description="Windows waiting for one model before callers are refused; eight times as many "
        "may wait for the store.",
    )
    requests_max_items: int = Field(
        128,
        ge=1,
        le=100_000,
        description="Requests answered at a time, a batch being one; more are refused at once.",
    )
    deadline_ms: int = Field(
        10_000,
        ge=10,
        le=3_600_000,
        description="Longest time of a request; then it is given up and answered with 503.",
    )
    redis_url: str | None = Field(
        None,
        description="redis://, rediss:// or unix:// of the store, redis+sentinel:// or "
        "redis+cluster:// of several servers; none starts the embedded one.",
    )
    redis_timeout_ms: int = Field(2000, ge=10, le=60000, description="Longest wait for the store.")
    redis_connections: int = Field(
        32, ge=1, le=1024, description="Connections to the store, at most."
    )
    redis_min_replicas: int = Field(
        0, ge=0, le=16, description="Replicas that have an answer before it is acknowledged."
    )
    data_dir: Path = Field(Path("data"), description="Folder of the embedded store.")
    history_max_items: int = Field(
        4096, ge=1, le=1_000_000, description="Interactions kept a user; older ones are dropped."
    )
    memory_max_bytes: int = Field(
        256_000_000,
        ge=0,
        description="Held in this process of the users seen last, at most; 0 holds nothing.",
    )
    max_body_bytes: int = Field(4_000_000, ge=1000, description="Largest request body accepted.")
    drain_s: float = Field(
        10.0, ge=0, le=600, description="Longest wait for requests under way at stop."
    )
    stuck_after_s: float = Field(
        30.0, gt=0, le=3600, description="Age of a model run from which /livez says restart."
    )
    log_level: Literal["debug", "info", "warning", "error"] = Field(
        "info", description="Log level."
    )

    @classmethod
    def from_env(cls, environ: Mapping[str, str] | None = None) -> Self:
        """Read settings from `environ`; raise `SettingsInvalid` naming each that is wrong."""
        environ = os.environ if environ is None else environ
        given = {
            k.removeprefix(PREFIX).lower(): v
            for k, v in environ.items()
            if k.startswith(PREFIX) and v != ""
        }
        try:
            return cls.model_validate(given)
        except ValidationError as exc:
            raise SettingsInvalid(
                "; ".join(
                    _explain(str(e["loc"][0]), e["type"], e["msg"], given) for e in exc.errors()
                )
            ) from exc


def _explain(name: str, kind: str, message: str, given: Mapping[str, str]) -> str:
    variable = PREFIX + name.upper()
    if kind == "extra_forbidden":
        known = ", ".join(PREFIX + n.upper() for n in Settings.model_fields)
        return f"{variable} is not a setting; known: {known}"
    return f"{variable}={given.get(name)!r}: {message}"
