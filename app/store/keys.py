"""Names of what is kept of a user; the braces keep all of it on one server of a cluster."""

HISTORY = "kt:h1:{%s}"
STATES = "kt:s1:{%s}"
CALLS = "kt:i1:{%s}"
FORECASTS = "kt:p1:{%s}"
BESIDE = "kt:b1:{%s}"
"""Where a history lies while it is copied; nothing is there when the script has ended."""

OUTCOMES = "kt:q1:{%s}"
"""What became of a model's forecasts, by the model's key in hex: of no user."""
