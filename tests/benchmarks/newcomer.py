"""What a newcomer waits for: each command of the README, and the first one of each guide.

    python tests/benchmarks/newcomer.py

Seconds, once each, in a fresh folder, with as many threads as there are; installing is left out.
"""

import argparse
import re
import shlex
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from timing import machine, save, table, unpinned, with_threads

ROOT = Path(__file__).parents[2]
COMMAND = re.compile(r"^\$ (?:.* )?(?:\.venv/bin/)?npple (\S.*)$", re.MULTILINE)
PROGRAM = re.compile(r"^```python\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def main():
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", help="a file for the results")
    args = parser.parse_args()
    save(args.json, with_threads(run, [2]))


def run():
    """All of them -> a list of dicts."""
    found = [{"page": page, "what": what, "seconds": seconds(arguments)}
             for page, what, arguments in waits()]
    print(f"\n{as_table(found)}\n{machine()}")
    return found


def waits():
    """Yields (page, what it is called, arguments of Python)."""
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    for command in COMMAND.findall(readme):
        yield "README.md", f"npple {command}", ["-m", "npple", *shlex.split(command)]
    yield "README.md", "its Python, in one go", ["-c", "\n".join(PROGRAM.findall(readme))]
    for page in sorted((ROOT / "docs").glob("*.md")):
        commands = COMMAND.findall(page.read_text(encoding="utf-8"))
        if commands and not page.name.startswith("README"):
            yield page.name, f"npple {commands[0]}", ["-m", "npple", *shlex.split(commands[0])]


def seconds(arguments):
    """Of a fresh process in a fresh folder."""
    with tempfile.TemporaryDirectory() as folder:
        start = time.perf_counter()
        done = subprocess.run([sys.executable, *arguments], cwd=folder, stdout=subprocess.DEVNULL,
                              stderr=subprocess.PIPE, text=True, env=unpinned())
        if done.returncode not in (0, 1):  # 1: a check failed, which may be what the page shows
            sys.exit(f"{arguments}: {done.stderr}")
        return time.perf_counter() - start


def as_table(results):
    """One row for each."""
    short = [each["what"] if len(each["what"]) < 60 else f"{each['what'][:56]} ..."
             for each in results]
    return table(["page", "command", "s"], [[each["page"], what, each["seconds"]]
                                            for each, what in zip(results, short)])


if __name__ == "__main__":
    main()
