"""Provenance: what a package is made of, how it came about, and who vouches for it.

- `ml_bom`: the bill of materials inside a package, in CycloneDX
- `statement`: the in-toto statement beside a package, with SLSA provenance as its predicate
- `signing`: the DSSE envelope beside a package, which signs that statement; `keys` and `dsse` are what it is made of

Laws: what was signed verifies; with any other file, byte, name or key it does not. Formats and limits: docs/provenance.md.
"""
