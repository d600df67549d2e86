"""Everything about a model: contract, networks, data sets, training, evaluation."""
