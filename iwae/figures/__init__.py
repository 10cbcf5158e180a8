"""Figures: each file draws from arrays, and below that has the few lines that take the arrays from a run.

A figure of every run is a function of a run (`style.OfRun`) in the tuple `OF_EVERY_RUN` at the end of its file. Those
that need the true posterior are in `iwae.diagnostics.plot`, the task that draws them all.
"""
