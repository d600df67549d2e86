"""Settings come from KT_ variables, and none is overlooked."""

from __future__ import annotations

import sys

import pytest

from app.settings import Settings, SettingsInvalid


def test_the_environment_is_read_and_cast():
    """What is not set, or set to nothing, keeps its default."""
    found = Settings.from_env({"KT_PORT": "9000", "KT_REDIS_URL": "", "PATH": "/bin"})

    assert (found.port, found.redis_url, found.host) == (9000, None, "127.0.0.1")


@pytest.mark.parametrize(
    ("environ", "said"),
    [
        ({"KT_PROT": "9000"}, "KT_PROT is not a setting; known: KT_HOST"),
        ({"KT_PORT": "many"}, "KT_PORT='many'"),
        ({"KT_PORT": "70000"}, "less than or equal to 65535"),
        ({"KT_PROVIDER": "tpu"}, "'auto', 'cpu' or 'cuda'"),
    ],
)
def test_a_wrong_setting_is_named(environ, said):
    """With its value and what would do."""
    with pytest.raises(SettingsInvalid) as caught:
        Settings.from_env(environ)

    assert said in str(caught.value)


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "10.0.0.7", "kt.example"])
def test_nobody_serves_the_world_by_mistake(host, tmp_path):
    """Another address than loopback wants keys, or to be told so in so many words."""
    with pytest.raises(SettingsInvalid, match="KT_OPEN_TO_ANYONE=1"):
        Settings.from_env({"KT_HOST": host})

    open_to = Settings.from_env({"KT_HOST": host, "KT_OPEN_TO_ANYONE": "1"})
    keyed = Settings.from_env({"KT_HOST": host, "KT_KEYS_FILE": str(tmp_path / "keys.json")})
    assert open_to.host == keyed.host == host


@pytest.mark.parametrize("host", ["127.0.0.1", "127.8.9.10", "::1", "localhost"])
def test_this_machine_alone_needs_no_keys(host):
    """So that one command serves."""
    assert Settings.from_env({"KT_HOST": host}).keys_file is None


def test_a_secret_is_not_shown():
    """Neither by the settings nor by what is wrong with them."""
    settings = Settings.from_env({"KT_USER_ID_SECRET": "correct horse battery"})

    assert "horse" not in repr(settings)
    with pytest.raises(SettingsInvalid) as refusal:
        Settings.from_env({"KT_USER_ID_SECRET": "short-horse"})
    assert "horse" not in str(refusal.value)
    assert "KT_USER_ID_SECRET" in str(refusal.value)


@pytest.mark.parametrize(
    "address", ["collector:4318", "grpc://collector:4317", "http://", "http://c/?key=horse"]
)
def test_an_address_that_no_trace_can_be_sent_to_is_refused(address):
    """Without being quoted: it may hold a password."""
    with pytest.raises(SettingsInvalid, match=r"KT_TRACES: .*http://HOST:PORT") as refusal:
        Settings.from_env({"KT_TRACES": address})
    assert "horse" not in str(refusal.value)


@pytest.mark.parametrize("missing", ["opentelemetry.sdk", "opentelemetry.exporter.otlp.proto.http"])
def test_traces_without_what_sends_them_are_refused(monkeypatch, missing):
    """With the command that installs it."""
    monkeypatch.setitem(sys.modules, missing, None)

    with pytest.raises(SettingsInvalid, match=r"pip install 'ktserve\[tracing\]'"):
        Settings.from_env({"KT_TRACES": "http://collector:4318"})
    assert Settings.from_env({}).traces is None


def test_the_address_of_a_collector_is_read():
    """Where the packages are there."""
    settings = Settings.from_env({"KT_TRACES": "http://collector:4318", "KT_TRACES_SHARE": "0.1"})

    assert (settings.traces, settings.traces_share) == ("http://collector:4318", 0.1)
