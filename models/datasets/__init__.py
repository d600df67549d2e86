"""Raw files -> interactions -> splits -> windows."""

from __future__ import annotations

from models.datasets.dataset import Dataset, DatasetError
from models.datasets.known import KNOWN, open_dataset
from models.datasets.split import Split, SplitConfig, open_split

__all__ = ["KNOWN", "Dataset", "DatasetError", "Split", "SplitConfig", "open_dataset", "open_split"]
