"""The version of this program, which provenance and caches name."""

from importlib.metadata import PackageNotFoundError, version

try:
    VERSION = version("wsisam-qupath")
except PackageNotFoundError:  # run from a source tree that was never installed
    VERSION = "0+source"
