"""Verification: open what was packaged, and see whether it is what it says it is."""

from packhouse.verification.archive import VerifiedArchive, VerifiedModel, verify_archive

__all__ = ["VerifiedArchive", "VerifiedModel", "verify_archive"]
