"""Parts that several networks share, one noun a file."""
