"""Java streams, which inspect each of a million objects without a call from Python.

Made of methods by their names, as ``PathObject::getID`` makes them in Java.
"""

from __future__ import annotations

from functools import cache
from typing import Any

from .java import Java, java_class

PATH_OBJECT = "qupath.lib.objects.PathObject"
ROI = "qupath.lib.roi.interfaces.ROI"


@cache
def make_function(owner: str, method: str, interface: str = "Function") -> Java:
    """Make a Java Function, or another functional interface, that calls a method."""
    return _as(interface, _handle(owner, method))


@cache
def has_metadata_key(key: str) -> Java:
    """Make a Predicate that tells whether an object's metadata have a key."""
    handles = java_class("java.lang.invoke.MethodHandles")
    contains = _handle("java.util.Map", "containsKey", "java.lang.Object")
    contains_key = handles.insertArguments(contains, 1, java_class("java.lang.String")(key))
    metadata = _handle(PATH_OBJECT, "getMetadata")
    return _as("Predicate", handles.filterReturnValue(metadata, contains_key))


def get_from(java_map: Java) -> Java:
    """Make a Function that looks a key up in a java.util.Map."""
    handle = _handle("java.util.Map", "get", "java.lang.Object")
    return _as("Function", handle.bindTo(java_map))


@cache
def text_or(default: str) -> Java:
    """Make a Function that calls ``toString()``, with a default for null."""
    handles = java_class("java.lang.invoke.MethodHandles")
    to_string = _handle("java.util.Objects", "toString", "java.lang.Object", "java.lang.String")
    text = java_class("java.lang.String")(default)
    return _as("Function", handles.insertArguments(to_string, 1, text))


@cache
def has_method(owner: str, method: str) -> bool:
    """Whether a class of this version of QuPath has a method."""
    return hasattr(java_class(owner), method)


def counts(stream: Java, key: Java) -> dict[Any, int]:
    """Count how often each key occurs; the keys are Java objects."""
    collectors = java_class("java.util.stream.Collectors")
    found = stream.collect(collectors.groupingBy(key, collectors.counting()))
    return {entry.getKey(): int(entry.getValue()) for entry in found.entrySet()}


def _handle(owner: str, method: str, *parameters: str) -> Java:
    types = [java_class(name).class_ for name in parameters]
    lookup = java_class("java.lang.invoke.MethodHandles").publicLookup()
    return lookup.unreflect(java_class(owner).class_.getMethod(method, *types))


def _as(interface: str, handle: Java) -> Java:
    proxies = java_class("java.lang.invoke.MethodHandleProxies")
    return proxies.asInterfaceInstance(java_class(f"java.util.function.{interface}").class_, handle)
