"""Filters in processes of their own: what they may do there is compute, and answer.

`confined` is the worker's side, `zygote` forks, `cell` runs a filter, `cage` is what it cannot get out of.
"""
