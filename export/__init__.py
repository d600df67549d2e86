"""A trained run -> an artifact that a server can serve, published only after it was proved."""
