"""Results laid out for people; no file here computes anything."""
