"""Where the parts of a deployment lie in its package."""

MODEL_FOLDER, CODE_FOLDER, ENVIRONMENT_FOLDER = "model", "code", "environment"
DEPLOYMENT_NAME, CONDA_NAME, SCRIPT = "deployment.json", "conda.yaml", "score.py"
