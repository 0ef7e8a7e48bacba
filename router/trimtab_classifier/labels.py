"""The classes a query can belong to; a RoutingPolicy's `classes[].name` uses these names."""

CLASSES: tuple[str, ...] = (
    "math",
    "code",
    "knowledge",
    "commonsense",
    "reasoning",
    "extraction",
    "writing",
    "chat",
    "agentic",
)
"""Order is the order of the model's output.

`extraction` is work on text that is given: extract, classify, summarise, translate, answer from a passage.
`agentic` is decided by structure alone: a request that offers tools is agentic, any other is not.
"""

AGENTIC = CLASSES.index("agentic")
