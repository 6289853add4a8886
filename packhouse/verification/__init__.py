"""Verification: open what was packaged, and see whether it is what it says it is."""

from packhouse.verification.package import VerifiedModel, VerifiedPackage, verify_package
from packhouse.verification.reader import Limits, is_bare, unpack

__all__ = ["Limits", "VerifiedModel", "VerifiedPackage", "is_bare", "unpack", "verify_package"]
