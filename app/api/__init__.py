"""HTTP: routes, schemas, problems. No logic."""
