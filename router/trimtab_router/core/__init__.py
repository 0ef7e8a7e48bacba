"""Pure decisions: request bytes, scores and the wire document in, a plan out."""
