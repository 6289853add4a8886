"""MLflow: the format of its models, how they are opened, and how they are registered in a server."""
