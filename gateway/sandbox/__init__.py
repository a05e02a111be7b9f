"""Filters in processes of their own: what they may do there is compute, and answer.

The worker's side: `keeper` keeps one alive, `confined` calls it, over a `line` on which it has `credit`, and `forking` starts
it. The other side: `zygote` forks, `cell` runs a filter, `cage` is what it cannot get out of, by `calls` and `seccomp`.
"""
