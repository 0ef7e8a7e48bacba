"""What the classifier says about one query."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Scores:
    """Prediction for one query, before any token is generated."""

    class_name: str
    """One of `trimtab_classifier.labels.CLASSES`."""
    class_probability: float
    """Calibrated probability of that class, 0..1."""
    gain: float
    """Expected gain in accuracy of the next stronger tier, P(strong right) - P(weak right), in [-1, 1]."""
    output_tokens_p50: int
    """Median of the answer's length, tokens."""
    output_tokens_p90: int
    """90th percentile of the answer's length, tokens; never below the median."""
    out_of_domain: float
    """0..1: the share of the training data that is more familiar than this query."""
