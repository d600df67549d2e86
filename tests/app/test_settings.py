"""Settings come from KT_ variables, and none is overlooked."""

from __future__ import annotations

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
