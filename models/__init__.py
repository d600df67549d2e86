"""Everything about a model: contract, networks, data sets, training, evaluation."""

import os

# Before ONNX Runtime is loaded, which would give the machine a number and tell its maker of runs.
os.environ["ORT_DISABLE_TELEMETRY"] = "1"
