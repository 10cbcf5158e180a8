"""Figures: each file draws from arrays, and below that has the few lines that take the arrays from a run.

A figure of every run: a function of a run (`style.OfRun`) in the tuple `OF_EVERY_RUN` at the end of its file.
"""

LAST = "active_units"  # of the figures of every run: when its file is there, they all are
