"""A trained run -> an artifact that a server can serve, published only after it was proved."""

import os

# Before ONNX Runtime is loaded, which would give the machine a number and tell its maker of runs.
os.environ["ORT_DISABLE_TELEMETRY"] = "1"
