"""Names of what is kept of a user; the braces keep both on one server of a cluster."""

HISTORY = "kt:h1:{%s}"
STATES = "kt:s1:{%s}"
