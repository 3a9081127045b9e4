"""Writes what the pages of docs/ hold of npple itself: run `python docs/make.py` to renew it.

    ```python npple/core/ops.py:dense_backward         a block that is this function's source
    ```text output                                a block that is what the block before it prints
"""

import ast
import inspect
import os
import re
import subprocess
import sys
import tempfile
import textwrap
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

DOCS = Path(__file__).resolve().parent
ROOT = DOCS.parent
FENCE = re.compile(r"^```([^\n`]*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
SOURCE = re.compile(r"python (npple/[\w/]+\.py):([\w.]+)")
MARK = "\x1e"  # stands between the outputs of two blocks

MODULES = ("npple", "npple.routing", "npple.verify.gradcheck", "npple.verify.isolation",
           "npple.verify.influence", "npple.training", "npple.data", "npple.metrics",
           "npple.ranking", "npple.draw.plots", "npple.draw", "npple.oracle",
           "npple.oracle.adapters", "npple.testing", "npple.lab.compare", "npple.lab.gains",
           "npple.lab.budget", "npple.lab.inspection", "npple.lab.workers", "npple.lab.abtest")
SECTIONS = ("Parameters", "Attributes", "Returns", "Yields", "Raises", "Notes", "References")
PROPERTIES = (property, cached_property)
ITEMS = ("Attributes", "Parameters", "Returns", "Yields", "Raises")  # a name, below it what it is


def main():
    """Renews every page."""
    for page, text in renewed():
        page.write_text(text, encoding="utf-8")
        print(f"written: {page.relative_to(ROOT)}")


def renewed():
    """Yields (path, text) of the pages that are not what they should be."""
    for page in pages():
        text = page.read_text(encoding="utf-8") if page.exists() else ""
        fresh = with_outputs(page, with_sources(text))
        if fresh != text:
            yield page, fresh


def pages():
    """The README in both languages and all pages of docs/."""
    return sorted({ROOT / "README.md", *DOCS.glob("**/*.md")})


# Blocks -----------------------------------------------------------------------------------------

@dataclass(frozen=True)
class Block:
    """A fenced block: what stands after the fence, its text, and where it starts on the page."""

    info: str
    text: str
    start: int


def blocks(text):
    """The fenced blocks of a page."""
    return [Block(match[1].strip(), match[2], match.start()) for match in FENCE.finditer(text)]


def with_sources(text):
    """The page with every source block as the code is now."""
    def renew(match):
        where = SOURCE.fullmatch(match[1].strip())
        return f"```{match[1]}\n{source(*where.groups())}```" if where else match[0]

    return FENCE.sub(renew, text)


def source(file, name):
    """The source of a function, a class or a method in a file of npple."""
    text = (ROOT / file).read_text(encoding="utf-8")
    lines, node = text.splitlines(keepends=True), ast.parse(text)
    for part in name.split("."):
        node = next(child for child in node.body if getattr(child, "name", None) == part)
    start = min([node.lineno, *(d.lineno for d in getattr(node, "decorator_list", ()))])
    return textwrap.dedent("".join(lines[start - 1:node.end_lineno]))


def with_outputs(page, text):
    """The page with every output block as its code prints now."""
    if "```text output" not in text:
        return text
    with tempfile.TemporaryDirectory() as folder:
        outputs = run(page, text, folder)
    last = {}

    def renew(match):
        info = match[1].strip()
        last["index"] = last.get("index", -1) + 1
        if info == "text output":
            return f"```{match[1]}\n{outputs[last['index'] - 1]}```"
        return match[0]

    return FENCE.sub(renew, text)


def run(page, text, folder):
    """Runs a page from top to end in one interpreter; what each block prints, by its number."""
    script = ["import subprocess, sys"]
    found = blocks(text)
    for i, block in enumerate(found):
        script.append(f"print('\\n{MARK}{i}', flush=True)")
        if block.info == "python":
            script.append(block.text)
        elif block.info == "console" and not page.name.startswith("README"):
            for line in re.findall(r"^\$ npple (.*)$", block.text, re.MULTILINE):
                script.append(f"subprocess.run([sys.executable, '-m', 'npple', *"
                              f"__import__('shlex').split({line!r})], check=True)")
    environment = os.environ | {"PYTHONPATH": str(ROOT), "MPLBACKEND": "Agg",
                                "PYTHONIOENCODING": "utf-8"}
    done = subprocess.run([sys.executable, "-W", "error", "-c", "\n".join(script)], cwd=folder,
                          env=environment, capture_output=True, text=True, encoding="utf-8")
    if done.returncode:
        raise RuntimeError(f"{page.name}: {done.stderr}")
    parts = re.split(f"\n{MARK}\\d+\n", done.stdout)[1:]
    return dict(enumerate(parts))


# The API page -----------------------------------------------------------------------------------


def public(module):
    """The names a module offers: `__all__`, or the functions and classes defined in it."""
    if hasattr(module, "__all__"):
        return module.__all__
    return [name for name, value in vars(module).items() if not name.startswith("_")
            and getattr(value, "__module__", None) == module.__name__]


def methods(cls):
    """The public methods and properties that a class defines, by name.

    Not those without a docstring that are documented in a public class it derives from.
    """
    fields = getattr(cls, "__dataclass_fields__", ())  # a default may be a function
    kinds = (*PROPERTIES, classmethod, staticmethod)
    return {name: value for name, value in vars(cls).items()
            if not name.startswith("_") and name not in fields
            and (inspect.isfunction(value) or isinstance(value, kinds))
            and (value.__doc__ or not _is_documented(name, cls.__mro__[1:]))}


def _is_documented(name, bases):
    """Whether a public one of these classes says what its method or property does."""
    return any(getattr(vars(base).get(name), "__doc__", None) for base in bases
               if not base.__name__.startswith("_"))


def documented(module):
    """Yields (name, function, class, method or property) of what a module offers."""
    for name in public(module):
        value = getattr(module, name)
        if callable(value):
            yield name, value
            core = value.__module__ == "npple.core.rows"  # one line a method, on the ten pages
            for method in methods(value) if isinstance(value, type) and not core else ():
                if not any(hasattr(base, method) or method in getattr(base, "__annotations__", ())
                           for base in value.__mro__[1:]):  # said there
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


if __name__ == "__main__":
    main()
