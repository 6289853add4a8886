"""The configuration: what is graded, on what, by what, and what is made of the winners."""

from packhouse.config.loading import load_config
from packhouse.config.model import PackhouseConfig

__all__ = ["PackhouseConfig", "load_config"]
