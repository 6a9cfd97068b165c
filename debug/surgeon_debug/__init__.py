"""The middle floor: run models on engines, compare what they compute, name what differs."""
