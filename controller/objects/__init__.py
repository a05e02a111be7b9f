"""The Kubernetes objects that we read, typed, with the API's defaults; what we do not read is not kept.

A kind is a type in one of these files and a row in `kinds.py`; a kind of policy is a file in `policies/` and a row there.
"""
