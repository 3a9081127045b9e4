"""Writes what the pages of docs/ hold of npple itself: run `python docs/make.py` to renew it.

    ```python npple/core/ops.py:dense_backward         a block that is this function's source
    ```js docs/ple.js:softmax                     the same of JavaScript
    ```text output                                a block that is what the block before it prints

docs/ple.js stands in docs/train.html, too. A page of docs/zh has the blocks of the English page.
"""

import ast
import os
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
import textwrap
from dataclasses import dataclass
from pathlib import Path

DOCS = Path(__file__).resolve().parent
ROOT = DOCS.parent
TRAIN = DOCS / "train.html"
ENGINE = re.compile(r'(<script id="engine">\n).*?(</script>)', re.DOTALL)
FENCE = re.compile(r"^```([^\n`]*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
SOURCE = re.compile(r"(?:python (?=npple/)|js (?=docs/))([\w/]+\.(?:py|js)):([\w.]+)")
COMMAND = re.compile(r"^\$ (npple|node docs/\w+\.js) (.*)$", re.MULTILINE)
MARK = "\x1e"  # stands between the outputs of two blocks


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
    for page, english in translations().items():
        text = page.read_text(encoding="utf-8")
        if with_blocks_of(english, text) != text:
            yield page, with_blocks_of(english, text)
    text = TRAIN.read_text(encoding="utf-8")
    if with_engine(text) != text:
        yield TRAIN, with_engine(text)


def with_engine(text):
    """The page that trains with docs/ple.js in it, but for what needs Node."""
    engine, _, _ = (DOCS / "ple.js").read_text(encoding="utf-8").partition("// With Node")
    return ENGINE.sub(lambda match: match[1] + engine + match[2], text)


def pages():
    """The README in both languages and all pages of docs/."""
    return sorted({ROOT / "README.md", *DOCS.glob("*.md")})


def translations():
    """The pages in Chinese, each with the English page that it translates."""
    return {page: DOCS / page.name for page in sorted((DOCS / "zh").glob("*.md"))}


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


def with_blocks_of(english, text):
    """A translated page with the blocks of the English one, as that has them on the disk."""
    originals = [match[0] for match in FENCE.finditer(english.read_text(encoding="utf-8"))]
    return FENCE.sub(lambda match: originals.pop(0) if originals else "", text)


def with_sources(text):
    """The page with every source block as the code is now."""
    def renew(match):
        where = SOURCE.fullmatch(match[1].strip())
        return f"```{match[1]}\n{source(*where.groups())}```" if where else match[0]

    return FENCE.sub(renew, text)


def source(file, name):
    """The source of a function, a class or a method in a file of npple, or of JavaScript."""
    text = (ROOT / file).read_text(encoding="utf-8")
    if file.endswith(".js"):
        return re.search(rf"^(?://[^\n]*\n)*(?:function|const) {name}\b.*?^}};?\n", text,
                         re.MULTILINE | re.DOTALL)[0]
    lines, node = text.splitlines(keepends=True), ast.parse(text)
    for part in name.split("."):
        node = next(child for child in node.body if getattr(child, "name", None) == part)
    start = min([node.lineno, *(d.lineno for d in getattr(node, "decorator_list", ()))])
    return textwrap.dedent("".join(lines[start - 1:node.end_lineno]))


def missing(text):
    """The program that a page runs and that is not installed, or None."""
    return "node" if "$ node " in text and shutil.which("node") is None else None


def with_outputs(page, text):
    """The page with every output block as its code prints now."""
    if "```text output" not in text or missing(text):
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
            for program, line in COMMAND.findall(block.text):
                command = ([sys.executable, "-m", "npple"] if program == "npple"
                           else ["node", str(ROOT / program.removeprefix("node "))])
                script.append(f"subprocess.run({command + shlex.split(line)}, check=True)")
    environment = os.environ | {"PYTHONPATH": str(ROOT), "MPLBACKEND": "Agg",
                                "PYTHONIOENCODING": "utf-8"}
    done = subprocess.run([sys.executable, "-W", "error", "-c", "\n".join(script)], cwd=folder,
                          env=environment, capture_output=True, text=True, encoding="utf-8")
    if done.returncode:
        raise RuntimeError(f"{page.name}: {done.stderr}")
    parts = re.split(f"\n{MARK}\\d+\n", done.stdout)[1:]
    return dict(enumerate(parts))


if __name__ == "__main__":
    main()
