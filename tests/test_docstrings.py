"""Docstrings are complete: in numpydoc's form, and true to the code as far as the code can tell."""

import ast
import importlib
import inspect
import re
import textwrap
from functools import cached_property
from pathlib import Path

import pytest

import npple

MODULES = ("npple", "npple.routing", "npple.verify.gradcheck", "npple.verify.isolation",
           "npple.verify.influence", "npple.training", "npple.data", "npple.metrics",
           "npple.ranking", "npple.network", "npple.optimizers", "npple.draw.plots", "npple.draw",
           "npple.oracle", "npple.oracle.adapters", "npple.testing", "npple.lab.compare",
           "npple.lab.gains", "npple.lab.budget", "npple.lab.inspection", "npple.lab.workers",
           "npple.lab.abtest")
SECTIONS = ("Parameters", "Attributes", "Returns", "Yields", "Raises", "Notes", "References")
PROPERTIES = (property, cached_property)
INITS = ("__init__", "__post_init__")


@pytest.mark.parametrize("module", MODULES)
def test_docstrings_are_complete(module):
    for name, value in documented(importlib.import_module(module)):
        fault = docstring_fault(value)
        assert fault is None, f"{name}: {fault}"


def docstring_fault(value):
    """The first thing that is wrong with a docstring, or None."""
    doc = inspect.getdoc(value) if value.__doc__ else ""
    prose, found = parse(doc)
    known = [title for title in SECTIONS if title in found]
    if not doc or not prose[0].endswith(".") or len(prose[0]) > 100:
        return "does not begin with a sentence"
    if [*found] != known:
        return f"sections {[*found]}, expected {known}"
    if isinstance(value, PROPERTIES):
        return None
    if isinstance(value, type):
        return None if issubclass(value, Exception) else _class_fault(value, found)
    return _function_fault(value, found)


def _class_fault(cls, found):
    node, names = _tree(cls), _headings(found, "Parameters", "Attributes")
    starts = [child for child in node.body if getattr(child, "name", "") in INITS]
    made = {each.attr for start in starts for each in _own(start)
            if isinstance(each, ast.Attribute) and isinstance(each.ctx, ast.Store)}
    taken = [*inspect.signature(cls).parameters]
    other = made - set(taken)  # may be documented, or not
    if sorted(set(names) - other) != sorted(taken) or len(names) != len(set(names)):
        return f"documents {names}, takes {taken}"
    return _silent(starts, found)


def _function_fault(function, found):
    node, names = _tree(function), _headings(found, "Parameters")
    taken = [name for name in inspect.signature(function).parameters if name != "self"]
    elsewhere = re.search(r"\b[Aa]s in `", inspect.getdoc(function))  # said once, there
    if not names and elsewhere:
        return None
    if sorted(names) != sorted(taken) or "Attributes" in found:
        return f"documents {names}, takes {taken}"
    for title, kinds in (("Returns", ast.Return), ("Yields", (ast.Yield, ast.YieldFrom))):
        gives = any(isinstance(each, kinds) and each.value for each in _own(node))
        if gives != (title in found):
            return f"{title}: {'missing' if gives else 'there is nothing'}"
    return None if elsewhere else _silent([node], found)


def _tree(value):
    return ast.parse(textwrap.dedent(inspect.getsource(value))).body[0]


def _headings(found, *titles):
    """The names that the entries of sections are about."""
    return [name.strip("* ") for title in titles for heading, _ in items(found.get(title, []))
            for name in heading.partition(" : ")[0].split(",")]


def _own(node, caught=True):
    """Yields what is in a function but in no other one; without `caught`, in no `try` either."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.Try) and child.handlers and not caught:
            child = ast.Module([*child.handlers, *child.orelse, *child.finalbody], [])
        if not isinstance(child, (ast.FunctionDef, ast.Lambda)):
            yield child
            yield from _own(child, caught)


def _silent(nodes, found):
    """The errors of `raise`, `require` and the checks of `npple.checks` that are not documented."""
    errors = set()
    for each in (each for node in nodes for each in _own(node, caught=False)):
        if isinstance(each, ast.Raise) and isinstance(each.exc, ast.Call):
            errors.add(ast.unparse(each.exc.func))
        if isinstance(each, ast.Call) and re.fullmatch("require|check_[a-z]+",
                                                       ast.unparse(each.func)):
            errors.add("InputError")
    errors -= {*_headings(found, "Raises")}
    return f"raises {', '.join(sorted(errors))} in silence" if errors else None


# What a docstring is about, and its parts -------------------------------------------------------

def public(module):
    """The names a module offers: `__all__`, or the functions and classes defined in it."""
    if hasattr(module, "__all__"):
        return module.__all__
    return [name for name, value in vars(module).items() if not name.startswith("_")
            and getattr(value, "__module__", None) == module.__name__]


def methods(cls):
    """Yields the methods and properties that a class has first; what it overrides is said there."""
    fields = getattr(cls, "__dataclass_fields__", ())  # a default may be a function
    kinds = (*PROPERTIES, classmethod, staticmethod)
    for name, value in vars(cls).items():
        known = any(hasattr(base, name) or name in getattr(base, "__annotations__", ())
                    for base in cls.__mro__[1:])
        if (not known and not name.startswith("_") and name not in fields
                and (inspect.isfunction(value) or isinstance(value, kinds))):
            yield name


def documented(module):
    """Yields (name, function, class, method or property) of what a module offers."""
    for name in public(module):
        value = getattr(module, name)
        if callable(value):
            yield name, value
            core = value.__module__ == "npple.core.rows"  # one line a method, on the ten pages
            for method in methods(value) if isinstance(value, type) and not core else ():
                yield f"{name}.{method}", getattr(value, method)


def parse(docstring):
    """A docstring as its prose (lines) and its sections: title -> lines."""
    lines = (docstring or "").strip().splitlines()
    sections, current = {}, []
    prose = current
    for line, below in zip(lines, [*lines[1:], ""]):
        if line and not line.startswith(" ") and re.fullmatch("-{3,}", below):
            current = sections[line.strip()] = []
        elif not re.fullmatch("-{3,}", line):
            current.append(line)
    return prose, sections


def items(body):
    """The entries of a section: (heading, lines of the description)."""
    found = []
    for line in body:
        if line and not line.startswith(" "):
            found.append((line.rstrip(), []))
        elif found:
            found[-1][1].append(line[4:])
    return found


def test_a_class_name_means_one_thing():
    files = sorted(Path(npple.__file__).parent.rglob("*.py"))
    names = [node.name for file in files for node in ast.walk(ast.parse(file.read_text("utf-8")))
             if isinstance(node, ast.ClassDef)]
    assert len(names) > 60 and sorted(names) == sorted(set(names))
