"""What the training split was like, so that a server can tell how far its callers are from it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from models.contract.inputs import Inputs
from models.contract.interaction import RIGHT
from models.contract.vocabulary import Vocabulary
from models.contract.window import lags_s
from models.datasets.dataset import DatasetError
from models.datasets.encoded import encode
from models.datasets.split import SplitConfig, open_split

Say = Callable[[str], object]


def inputs_of(
    data: Mapping[str, Any], seed: int, vocabulary: Vocabulary, say: Say, *, reads_lag: bool
) -> Inputs:
    """Count the training split in buckets; no counts where it cannot be read any more.

    `data` is the record of source and split that a run keeps. An artifact without counts is served
    as well: only drift is not told of it.
    """
    try:
        train = open_split(SplitConfig.of(data["source"]), seed=seed).train
    except (DatasetError, OSError) as exc:
        say(f"drift will not be told: the training split cannot be read: {exc}")
        return Inputs()
    expected = data["splits"]["train"]["answers"]
    if len(train) != expected:
        say(f"drift will not be told: the training split has {len(train)} answers, not {expected}")
        return Inputs()
    histories = [user.history for user in encode(train, vocabulary)]
    return Inputs.counted(
        skill=np.concatenate([history.skills[:, 0] for history in histories]),
        lag_s=np.concatenate([lags_s(history.asked_ms) for history in histories]),
        length=np.concatenate([np.arange(len(history.question)) for history in histories]),
        right=np.concatenate([history.response == RIGHT for history in histories]),
        reads_lag=reads_lag,
    )
