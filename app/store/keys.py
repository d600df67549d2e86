"""Names of what is kept of a user: all of it lies on one server of a cluster.

A cluster places a key by what stands between its first brace and the next closing one, and by the
whole key where that is nothing. So the braces around a user are followed by none that closes them
at once.
"""

HISTORY = "kt:h1:"
STATES = "kt:s1:"
CALLS = "kt:i1:"
FORECASTS = "kt:p1:"
BESIDE = "kt:b1:"
"""Where a history lies while it is copied; nothing is there when the script has ended."""

OUTCOMES = "kt:q1:{%s}"
"""What became of a model's forecasts, by the model's key in hex: of no user."""


def user_key(kind: str, user_id: str) -> str:
    """Return the key under which one kind of thing is kept of a user; no two have the same.

    Closing braces that a user's name begins with go before those around it: no key of another name
    begins so.
    """
    if not user_id.startswith("}"):
        return f"{kind}{{{user_id}}}"
    rest = user_id.lstrip("}")
    return f"{kind}{'}' * (len(user_id) - len(rest))}{{.{rest}}}"
