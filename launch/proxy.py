"""What the reward of a search measures, in words: it is not the network's accuracy."""

_MEASURED = {
    "shared_weights": "measured with shared weights",
    "relaxed": (
        "measured on this child alone, with the relaxed supernet's weights, which were "
        "trained in mixtures of ops; it may be near chance after a good search, "
        "and rewards of rounds, which are of the mixture, do not compare with it"
    ),
    "from_scratch": "measured after a short training in the search form",
    "inherited": "measured after a short training from scratch",
    "tabular": "looked up in the table",
}


def of_winner(evaluator: str) -> str:
    """A clause about the winner's reward, to stand after "its reward is 0.9".

    >>> of_winner("shared_weights")
    'a proxy, measured with shared weights'

    Args:
      evaluator: its name.
    """
    return ", ".join(filter(None, ("a proxy", _MEASURED.get(evaluator))))
