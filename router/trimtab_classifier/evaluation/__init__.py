"""Judges routing by the prompt alone on labelled queries, against baselines; nothing is fitted on the judged rows."""
