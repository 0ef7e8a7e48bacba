"""The two resources, the wire document and the capacity model: the vocabulary every other part shares."""
