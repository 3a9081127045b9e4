"""Experiments: what the papers claim, measured on data whose truth is known."""
