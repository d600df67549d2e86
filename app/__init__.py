"""The service: answers in, probability and knowledge state out."""

import os

# Before ONNX Runtime is loaded, which would give the machine a number and tell its maker of runs.
os.environ["ORT_DISABLE_TELEMETRY"] = "1"

__version__ = "0.1.0"
