"""How large npple is, in statements, docstrings left out: `python docs/size.py`."""

import ast
from collections import Counter
from pathlib import Path

NPPLE = Path(__file__).resolve().parent.parent / "npple"
DOCUMENTED = (ast.Module, ast.ClassDef, ast.FunctionDef)


def main():
    """Prints the statements of each package, and what is largest in the core."""
    packages = Counter()
    for file in sorted(NPPLE.rglob("*.py")):
        folder = file.relative_to(NPPLE).parts[0]
        packages["modules at the top" if folder == file.name else folder] += statements(tree(file))
    for name, count in packages.items():
        print(f"{count:6,}  {name}")
    print(f"{packages.total():6,}  in all")
    mathematics = sum(statements(tree(file), checks=False) for file in core())
    print(f"{mathematics:6,}  the mathematics: core without `validate` and `check_*`")
    print(f"{sum(map(code_lines, core())):6,}  lines of code in core")
    for what, sizes in (("function of core", functions()), ("kind of row", rows())):
        name, count = sizes.most_common(1)[0]
        print(f"{count:6,}  {name}, the largest {what}")


def core():
    """The files of the core."""
    return sorted((NPPLE / "core").glob("*.py"))


def tree(file):
    return ast.parse(file.read_text(encoding="utf-8"))


def statements(node, checks=True):
    """How many statements a tree has; without `checks`, those that refuse what cannot be used."""
    name = getattr(node, "name", None) or ""
    if not checks and (name == "validate" or name.startswith("check_")):
        return 0
    own = isinstance(node, ast.stmt) - (docstring(node) is not None)
    return own + sum(statements(child, checks) for child in ast.iter_child_nodes(node))


def docstring(node):
    """The statement that is a node's docstring, or None."""
    documented = isinstance(node, DOCUMENTED) and ast.get_docstring(node, clean=False) is not None
    return node.body[0] if documented else None


def code_lines(file):
    """How many lines of a file hold code: no docstrings, no comments, none that is empty."""
    found = [docstring(node) for node in ast.walk(tree(file))]
    said = {line for each in found if each for line in range(each.lineno, each.end_lineno + 1)}
    return sum(bool(line.partition("#")[0].strip()) and number not in said for number, line in
               enumerate(file.read_text(encoding="utf-8").splitlines(), 1))


def functions():
    """The statements of each function and method of the core, by file and name."""
    return Counter({f"{file.name}:{node.name} (line {node.lineno})": statements(node)
                    for file in core() for node in ast.walk(tree(file))
                    if isinstance(node, ast.FunctionDef)})


def rows():
    """The statements of each kind of row, by name; what they share is a class of its own."""
    return Counter({node.name: statements(node) for node in tree(NPPLE / "core" / "rows.py").body
                    if isinstance(node, ast.ClassDef)})


if __name__ == "__main__":
    main()
