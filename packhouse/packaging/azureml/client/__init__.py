"""The child process that speaks to one Azure ML workspace, and all that is known here of Azure's SDK.

It is a process of its own because the SDK takes seconds and 70 MB to import, sets the cloud in the environment, prints on
standard output, and can hang for ever, all of which ends with it. `packhouse.packaging.azureml.workspace` is its other side.
"""
