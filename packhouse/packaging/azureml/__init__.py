"""Packages for Azure ML: their assets, how they get their versions, and the process that speaks to a workspace.

Azure's SDK is imported by `client` only, which runs as a process of its own for as long as something is registered.
"""
