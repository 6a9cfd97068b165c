"""Name the culprit: what one element of a model is, and how a trial of some of them is made."""
