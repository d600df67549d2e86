"""Every setting of the service: a frozen value, made once from the environment and handed down."""

from __future__ import annotations

import os
from collections.abc import Mapping
from importlib.util import find_spec
from ipaddress import ip_address
from pathlib import Path
from typing import Annotated, Any, Literal, Self
from urllib.parse import urlsplit

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    SecretStr,
    ValidationError,
)

from app.errors import TracerError

PREFIX = "KT_"


class SettingsInvalid(TracerError):
    """The environment holds a setting that is unknown or out of bounds."""

    code = "settings_invalid"


def _pairs(text: Any) -> Any:
    """Read `a=1,b=2`."""
    if not isinstance(text, str):
        return text
    pairs = [part.split("=") for part in text.split(",") if part.strip()]
    if any(len(pair) != 2 or not all(map(str.strip, pair)) for pair in pairs):
        raise ValueError("MODEL=VERSION, with commas between them, is expected")
    return {model.strip(): version.strip() for model, version in pairs}


def _http_address(address: str | None) -> str | None:
    """Refuse what requests cannot be sent to."""
    if address is None:
        return None
    parts = urlsplit(address)
    if parts.scheme not in ("http", "https") or not parts.hostname or parts.query or parts.fragment:
        raise ValueError("http://HOST:PORT or https://HOST:PORT is expected")
    return address


class Settings(BaseModel):
    """The service's settings; each is read from `KT_` and its name in capitals."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    host: str = Field("127.0.0.1", description="Address to listen on.")
    port: int = Field(8000, ge=0, le=65535, description="Port to listen on; 0 takes a free one.")
    artifact_dir: Path = Field(Path("artifacts"), description="Folder of <model>/<version>/.")
    default_model: str = Field("dkt_asked", description="Model of a request that names none.")
    knowledge_model: str = Field("dkt", description="Model whose vector is the knowledge state.")
    model_versions: Annotated[dict[str, str], BeforeValidator(_pairs)] = Field(
        {}, description="Versions to serve, as in `dkt=3,saint_plus=2`; of other models the newest."
    )
    follow_artifacts_s: float = Field(
        0.0,
        ge=0,
        le=86_400,
        description="Looks so often for newer versions of models, and serves them; 0 never does.",
    )
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
    redis_password_file: Path | None = Field(
        None, description="File that holds the password of that store, in place of one in its URL."
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
    late_answers: Literal["append", "refuse", "insert"] = Field(
        "append",
        description="What becomes of an answer asked before one already there: kept as it arrived, "
        "refused, or put where it belongs.",
    )
    retention_days: int = Field(
        0,
        ge=0,
        le=36_500,
        description="Days after which a history that nothing was added to is gone; 0: never.",
    )
    require_durable: bool = Field(
        False, description="Serve only with a store that loses nothing it has acknowledged."
    )
    quality_share: float = Field(
        1.0,
        ge=0,
        le=1,
        description="Of the users, whose predictions are compared with their answers; 0: nobody's.",
    )
    quality_within_s: int = Field(
        3600,
        ge=1,
        le=86_400,
        description="Longest time from a prediction to the answer that it is compared with.",
    )
    memory_max_bytes: int = Field(
        256_000_000,
        ge=0,
        description="Held in this process of the users seen last, at most; 0 holds nothing.",
    )
    max_body_bytes: int = Field(4_000_000, ge=1000, description="Largest request body accepted.")
    keys_file: Path | None = Field(
        None, description="File of API keys (`python -m app.keys`); none: callers need no key."
    )
    open_to_anyone: bool = Field(
        False, description="Allows another address than loopback without keys."
    )
    user_id_secret: SecretStr | None = Field(
        None,
        min_length=16,
        description="Users are stored under hashes keyed with it; another one finds none of them.",
    )
    head_timeout_s: float = Field(
        10.0, gt=0, le=600, description="Longest time in which the head of a request may come."
    )
    max_head_bytes: int = Field(
        32_768, ge=1024, le=1_048_576, description="Largest head of a request accepted."
    )
    drain_s: float = Field(
        10.0, ge=0, le=600, description="Longest wait for requests under way at stop."
    )
    stuck_after_s: float = Field(
        30.0, gt=0, le=3600, description="Age of a model run from which /livez says restart."
    )
    traces: Annotated[str | None, AfterValidator(_http_address)] = Field(
        None,
        description="Address of an OpenTelemetry collector that is told of requests over HTTP, as "
        "in `http://collector:4318`; none is told.",
    )
    traces_share: float = Field(
        1.0,
        ge=0,
        le=1,
        description="So many of the requests that come without a trace are traced; of others "
        "their caller decides.",
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
            settings = cls.model_validate(given)
        except ValidationError as exc:
            raise SettingsInvalid(
                "; ".join(
                    _explain(str(e["loc"][0]), e["type"], e["msg"], given) for e in exc.errors()
                )
            ) from exc
        if not (settings.keys_file or settings.open_to_anyone or _is_loopback(settings.host)):
            raise SettingsInvalid(
                f"{PREFIX}HOST={settings.host!r} lets everybody in who can reach this machine: "
                f"name a file of keys with {PREFIX}KEYS_FILE, or say {PREFIX}OPEN_TO_ANYONE=1"
            )
        if settings.traces and not _has_tracing():
            raise SettingsInvalid(
                f"{PREFIX}TRACES needs packages that are not here: pip install 'ktserve[tracing]'"
            )
        return settings


def _is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ip_address(host).is_loopback
    except ValueError:  # a name: it may mean any address
        return False


def _has_tracing() -> bool:
    """Say whether the extra `tracing` is installed, without importing it."""
    try:
        return all(map(find_spec, ("opentelemetry.sdk", "opentelemetry.exporter.otlp.proto.http")))
    except ModuleNotFoundError:  # a package above it
        return False


def _explain(name: str, kind: str, message: str, given: Mapping[str, str]) -> str:
    variable = PREFIX + name.upper()
    if kind == "extra_forbidden":
        known = ", ".join(PREFIX + n.upper() for n in Settings.model_fields)
        return f"{variable} is not a setting; known: {known}"
    if name in _SECRET:
        return f"{variable}: {message}"
    return f"{variable}={given.get(name)!r}: {message}"


_SECRET = ("user_id_secret", "redis_url", "traces")
"""Their values are not quoted: an address may hold a password."""
