"""Filters in processes of their own: what they may do there is compute, and answer.

The worker's side: `supervisor` keeps one alive, `host` calls it, over a `line` on which it has `credit`, and
`forkserver_client` starts it. The other side: `forkserver` forks, `runner` runs a filter, and what that cannot get out of are
`restrictions`, by `syscalls` and `seccomp`.
"""
