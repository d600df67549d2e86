"""What the trainer and the server must agree on: numpy and the standard library only."""
