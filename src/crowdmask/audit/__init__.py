"""The audit of a data set: everything odd in its files and annotations, without stopping at the first fault.

Nothing heavy is imported here: Snakemake imports `crowdmask.audit.listing` to know which files there are.
"""

VERSION = 2
"""Raised when the findings, the records of the cache, or the page change for the same files."""
