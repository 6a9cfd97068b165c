"""Searches for what is to blame, over opaque elements; nothing here knows what an element is."""
