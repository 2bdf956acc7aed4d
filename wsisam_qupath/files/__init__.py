"""Files on this machine: ordinary ones only, written atomically, below folders that are safe."""

from .compressed import compress, estimate_size
from .json_documents import JsonList, OnRead, is_list, read_json
from .ordinary import (
    CACHE_VARIABLE,
    NOT_A_FILE,
    cache_folder,
    check_ordinary,
    check_writable,
    compute_sha256,
    hold_alone,
    make_folder,
    measure_folder_bytes,
    open_atomically,
    open_file,
    process_folder,
    read_file,
    sha256_of_open,
    write_atomically,
)
from .safe_folder import IS_A_LINK, SafeFolder, is_refusal, name_of_open

__all__ = [
    "CACHE_VARIABLE",
    "IS_A_LINK",
    "NOT_A_FILE",
    "JsonList",
    "OnRead",
    "SafeFolder",
    "cache_folder",
    "check_ordinary",
    "check_writable",
    "compress",
    "compute_sha256",
    "estimate_size",
    "hold_alone",
    "is_list",
    "is_refusal",
    "make_folder",
    "measure_folder_bytes",
    "name_of_open",
    "open_atomically",
    "open_file",
    "process_folder",
    "read_file",
    "read_json",
    "sha256_of_open",
    "write_atomically",
]
