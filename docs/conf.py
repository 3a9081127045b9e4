"""The site, built by Sphinx from the pages and the docstrings; nothing is fetched.

    pip install '.[docs]'
    sphinx-build -W -b html docs build/site
"""

import re
import shutil
from importlib import import_module
from inspect import isbuiltin
from pathlib import Path
from pkgutil import resolve_name, walk_packages

from docutils.nodes import SkipNode
from latex2mathml.converter import convert

import npple

DOCS = Path(__file__).parent
REPOSITORY = "https://github.com/npple/npple/blob/main/"

project, author, copyright = "npple", "The npple founders", "The npple founders"
extensions = ["myst_parser", "sphinx.ext.autodoc", "numpydoc"]
root_doc = "README"
html_theme = "alabaster"
html_static_path, html_css_files = ["site.css"], ["site.css"]
highlight_language = "none"  # of indented lines in docstrings
smartquotes = False  # "a" stays what one types
default_role = "py:obj"  # `name` in a docstring: a link where there is such a name
myst_heading_anchors = 3
myst_enable_extensions = ["html_image", "dollarmath"]
myst_dmath_allow_space = myst_dmath_allow_digits = False  # $5 and $6 are prices
html_math_renderer = "mathml"
numpydoc_show_class_members = False
autodoc_typehints = "none"  # the docstrings say shapes and dtypes


def setup(app):
    """A page for each module, and the pages without what only the hosting site shows."""
    app.connect("builder-inited", lambda app: write_reference())
    app.connect("source-read", readable)
    app.connect("autodoc-skip-member", foreign)
    app.connect("autodoc-process-docstring", plain, priority=100)  # before numpydoc's
    app.add_html_math_renderer("mathml", (inline, None), (display, None))


def inline(translator, node):
    """A formula in a line."""
    translator.body.append(mathml(node, "inline"))
    raise SkipNode


def display(translator, node):
    """A formula on lines of its own; on a narrow screen it scrolls, not the page."""
    translator.body.append('<div style="overflow: auto hidden; padding: 4px 0">'
                           f'{mathml(node, "block")}</div>\n')
    raise SkipNode


def mathml(node, display):
    """A formula that the browser draws, without a script, spaced as TeX would."""
    made = convert(node.astext(), display=display)
    for written, spaced in SPACED.items():
        made = re.sub(written, spaced, made)
    return made


SPACED = {
    r"(<mo[^>]*>(?:&#x000(?:28|3D|3E|2C);|,)</mo>)<mo>(?=&#x02212;|&#x0002B;)":  # a sign: (-3
        r'\1<mo form="prefix">',
    "<mi>log</mi>(?!<mo)": r'\g<0><mspace width="0.17em"/>',
    "<mo[^>]*>(?=&#x0007C;)": '<mo stretchy="false" lspace="0" rspace="0">',  # |z|
    "<msup>(<mi>.</mi>)<mi>(&#x0203[23];)</mi></msup>": r"\1<mi>\2</mi>",  # f': raised as it is
}


def modules():
    """Every module but those of the command line, and those that a function hides."""
    found = sorted(module.name for module in walk_packages(npple.__path__, "npple."))
    found = [name for name in found if not re.match(r"npple\.(cli|__main__)", name)]
    return ["npple", *(name for name in found
                       if import_module(name) == resolve_name(":".join(name.rsplit(".", 1))))]


def write_reference():
    """`docs/reference/MODULE.md` for each module, made anew; the folder is not kept."""
    folder = DOCS / "reference"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    lines = []
    for name in modules():
        module = import_module(name)
        first = module.__doc__.splitlines()[0].removeprefix(f"{name}: ")
        gathers = "   :imported-members:\n" if hasattr(module, "__all__") else ""
        (folder / f"{name}.md").write_text(
            f"# {name}\n\n```{{eval-rst}}\n.. automodule:: {name}\n   :members:\n{gathers}```\n",
            encoding="utf-8")
        lines.append(f"- [{name}]({name}.md): {first}\n")
    tree = "```{toctree}\n:hidden:\n\n" + "\n".join(modules()) + "\n```\n"
    (folder / "index.md").write_text("# Reference\n\n" + "".join(lines) + "\n" + tree,
                                     encoding="utf-8")


def foreign(app, what, name, value, skip, options):
    """Whether a member of a module is a function of Python itself, which has a reference."""
    return skip or isbuiltin(value)


def plain(app, what, name, value, options, lines):
    """Plain text: |z| and a*b mean what they say, indented lines stay as they stand."""
    if what == "module":
        lines[:] = [*value.__doc__.splitlines(), ""]  # as they are indented
    made, prose, code = [], True, False
    for line in lines:
        prose &= not re.fullmatch("-{3,}", line)  # it ends where the first section begins
        indented, text = line.startswith("    "), [each for each in made if each.strip()]
        if prose and indented and not code and made and not made[-1].strip():
            code = True
            made += [] if text[-1].endswith("::") else ["::", ""]
        code &= prose and (indented or not line.strip())
        made.append(line if code else escaped(line))
    lines[:] = made


def escaped(line):
    """What reStructuredText would take as markup, and `name`s with a letter right behind."""
    line = re.sub(r"[|*]", r"\\\g<0>", line)
    return re.sub(r"(`[^`]+`)(\w?)", lambda name: "\\ ".join(filter(None, name.groups())), line)


def readable(app, name, source):
    """Blocks that quote a source or an output are plain blocks; links to files lead to GitHub."""
    text = re.sub(r"^```(python|js) (npple|docs)/[^\n]*$", r"```\1", source[0], flags=re.MULTILINE)
    text = re.sub(r"^```text output$", "```text", text, flags=re.MULTILINE)
    up = "../" * (1 + name.count("/"))  # out of docs/
    text = re.sub(rf"\]\({re.escape(up)}(?=[^)])", f"]({REPOSITORY}", text)
    if name == "README":  # the pages in the order in which it leads to them, and the others
        pages = dict.fromkeys(re.findall(r"\]\(([\w-]+)\.md[)#]", text))
        tree = "\n".join([*pages, "*", "zh/*", "reference/index"])
        text += f"\n\n```{{toctree}}\n:hidden:\n:glob:\n\n{tree}\n```\n"
    source[0] = text
