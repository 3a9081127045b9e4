"""The book does not rot: its code runs, its links lead somewhere, what it quotes is what is there.

What stands in the pages of npple itself (sources, outputs) is written by `python docs/make.py`,
which renews it.
"""

import ast
import importlib.util
import itertools
import pkgutil
import re
import shlex
import sys
import tomllib
import unicodedata
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

import by_hand
from npple.cli import main
from peers import written

ROOT = Path(__file__).parent.parent
DOCS = ROOT / "docs"
_spec = importlib.util.spec_from_file_location("make", DOCS / "make.py")
make = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(make)

PAGES = make.pages()
LINK = re.compile(r"(!?)\[((?:[^\[\]]|\[[^\]]*\])*)\]\(([^)\s]+)\)")
IMG = re.compile(r'<img src="([^"]+)"[^>]* alt="([^"]+)"')
DERIVATIONS = sorted(DOCS.glob("backward*.md"))
BESIDE = ThreadPoolExecutor(1)  # runs the pages, one after the other; see tests/conftest.py
SLOW = ("abtest.md", "checking-gradients.md", "contributing.md", "experiments.md", "problem.md",
        "questions.md", "training.md", "validating.md", "verification.md", "your-own-log.md")
each_page = pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)


@cache
def text(page):
    return page.read_text(encoding="utf-8")


def prose(page):
    """The page without its blocks, in which brackets mean something else."""
    return bare(text(page))


def bare(markdown):
    """The same of a part of a page."""
    return make.FENCE.sub("", markdown)


def links(page, markdown=None):
    """(text of the link, file, anchor) of every link that does not leave the repository."""
    markdown = prose(page) if markdown is None else markdown
    pictures = [("!", label, file) for file, label in IMG.findall(markdown)]
    for _, label, target in LINK.findall(markdown) + pictures:
        if not re.match(r"[a-z]+:", target):
            file, _, anchor = target.partition("#")
            yield label, (page.parent / file).resolve() if file else page, anchor


# Code -------------------------------------------------------------------------------------------

@cache
def running(page):
    """What comes of a page's code, in a process beside the other tests."""
    return BESIDE.submit(run, page)


def run(page):
    """What the blocks of a page print, by their number; raises with the traceback."""
    with TemporaryDirectory() as folder:
        return make.run(page, text(page), folder)


@pytest.mark.parametrize("page", [
    pytest.param(page, id=page.name, marks=pytest.mark.slow if page.name in SLOW else ())
    for page in PAGES])
def test_the_code_on_the_page_runs_and_prints_what_the_page_says(page):
    if program := make.missing(text(page)):
        pytest.skip(f"{program} is not installed")
    outputs = running(page).result()
    blocks = make.blocks(text(page))
    for i, block in enumerate(blocks):
        if block.info == "text output":
            assert block.text == outputs[i - 1], f"{page.name}: renew it: python docs/make.py"


@each_page
def test_quoted_sources_are_the_sources(page):
    stale = make.with_sources(text(page)) != text(page)
    assert not stale, f"{page.name}: renew it: python docs/make.py"


@each_page
def test_blocks_are_of_the_kinds_that_are_tested(page):
    for block in make.blocks(text(page)):
        assert (block.info in ("python", "console", "text", "text output", "yaml", "toml", "json")
                or make.SOURCE.fullmatch(block.info)), f"{page.name}: ```{block.info}"
        for line in block.text.splitlines() if block.info == "console" else ():
            readme = page in (ROOT / "README.md", DOCS / "README.zh.md")
            assert line.startswith("$ ") and (readme or make.COMMAND.match(line)), line


@each_page
def test_commands_on_the_page_have_the_options_and_files_they_name(page, capsys):
    """Also those that no test runs: in the text, and in blocks without `$`."""
    for command in commands(page):
        words = shlex.split(command)
        for file in (word for word in words if re.fullmatch(r"[\w./]+/[\w.]+\.py|\.ci/\w+", word)):
            assert (ROOT / file).exists(), f"{page.name}: {command}"
        if words[0] == "npple":
            names = [*itertools.takewhile(str.isalpha, words[1:])]
            with pytest.raises(SystemExit) as ended:
                main([*names, "--help"])
            options = {word.partition("=")[0] for word in words if word.startswith("--")}
            known = {*re.findall(r"--[\w-]+", capsys.readouterr().out)}
            assert ended.value.code == 0 and options <= known, f"{page.name}: {command}"


def commands(page):
    """The commands of npple and its scripts that stand on a page."""
    found = [" ".join(inline.split()) for inline in re.findall("`([^`]+)`", prose(page))]
    for block in make.blocks(text(page)):
        if block.info == "text":
            found += block.text.replace("\\\n", "").splitlines()
    return filter(COMMAND.match, found)


COMMAND = re.compile(r"(npple [a-z]|python |pytest |\.ci/)")


# Formulas ---------------------------------------------------------------------------------------

DISPLAYED = re.compile(r"^\$\$\n([^$]+)\n\$\$\n$", re.MULTILINE)
EVERY_PAGE = [*PAGES, *make.translations()]


def pieces(page):
    """The prose of a page, cut at the dollars of formulas in a line: each second is a formula."""
    return DISPLAYED.sub("", re.sub("`[^`]+`", "", prose(page))).split("$")


@pytest.mark.parametrize("page", EVERY_PAGE, ids=lambda page: str(page.relative_to(ROOT)))
def test_dollars_are_those_of_formulas_as_the_hosting_site_wants_them(page):
    """No space within, no letter right behind; a displayed one has lines of its own."""
    formulas, behind = pieces(page)[1::2], pieces(page)[2::2]
    assert len(formulas) == len(behind), "a dollar is alone"
    for formula, after in zip(formulas, behind):
        assert formula and formula == formula.strip() and not re.match(r"\w", after), formula
        assert "\n" not in formula, formula


@pytest.mark.parametrize("page", EVERY_PAGE, ids=lambda page: str(page.relative_to(ROOT)))
def test_formulas_become_mathml(page):
    latex2mathml = pytest.importorskip("latex2mathml.converter", reason="in the extra docs")
    for formula in DISPLAYED.findall(prose(page)) + pieces(page)[1::2]:
        made = latex2mathml.convert(formula)
        assert "\\" not in made and formula.count("{") == formula.count("}"), formula


# Links ------------------------------------------------------------------------------------------

@cache
def anchors(page):
    """The anchors of a page's headings, as GitHub makes them."""
    found = []
    for heading in re.findall(r"^#+ +(.+?) *$", prose(page), re.MULTILINE):
        heading = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading).replace("`", "")
        kept = (c for c in heading.lower() if c in " -_" or unicodedata.category(c)[0] in "LNM")
        slug = "".join(kept).replace(" ", "-")
        again = sum(anchor == slug or re.fullmatch(rf"{re.escape(slug)}-\d+", anchor) is not None
                    for anchor in found)
        found.append(f"{slug}-{again}" if again else slug)
    return found


@cache
def defined(file):
    """The names a Python file defines: functions, classes, their methods, and constants."""
    names = set()
    for node in ast.parse(file.read_text(encoding="utf-8")).body:
        if isinstance(node, (ast.FunctionDef, ast.ClassDef)):
            names.add(node.name)
            names |= {f"{node.name}.{child.name}" for child in node.body
                      if isinstance(child, ast.FunctionDef)}
        for target in getattr(node, "targets", ()):
            names |= {leaf.id for leaf in ast.walk(target) if isinstance(leaf, ast.Name)}
    return names


@each_page
def test_links_point_to_something(page):
    for label, file, anchor in links(page):
        where = f"{page.name}: [{label}]"
        assert file.exists(), f"{where}: no file {file.relative_to(ROOT)}"
        if file.suffix == ".md" and anchor:
            assert anchor in anchors(file), f"{where}: no heading #{anchor} in {file.name}"
        if file.suffix == ".py" and (name := re.fullmatch(r"`([\w.]+)`", label)):
            assert name[1] in defined(file) | {file.name}, f"{where}: no such name in {file.name}"
    for path in re.findall(r"`((?:npple|docs|tests|\.ci)/[\w./-]+)`", prose(page)):
        assert (ROOT / path).exists(), f"{page.name}: no file {path}"


@each_page
def test_pictures_say_what_they_show(page):
    for image, label, target in LINK.findall(prose(page)):
        assert not image or len(label) > 20, f"{page.name}: {target} needs a text for who is blind"
    pictures = IMG.findall(prose(page))
    assert prose(page).count("<img") == len(pictures), f"{page.name}: a picture without src or alt"


@pytest.mark.parametrize("start", [ROOT / "README.md", DOCS / "README.zh.md"],
                         ids=lambda page: page.name)
@pytest.mark.parametrize("goal", [
    "backward-fusions.md#the-gate",                  # derive the gate's gradient
    "oracle.md#from-a-pytorch-module-to-a-verdict",  # check my PyTorch PLE
    "isolation.md#the-experiment",                   # see the isolation
    "experiments.md#run-it",                         # reproduce the comparison
    "cgc-by-hand.md",                                # follow one row by hand
])
def test_from_the_readme_it_is_two_clicks(goal, start):
    file, _, anchor = goal.partition("#")
    near, seen = {(start, "")}, set()
    for _ in range(2):
        near = {(target, anchor) for page, _ in near if page.suffix == ".md" and page.exists()
                for _, target, anchor in links(page)}
        seen |= near
    assert (DOCS / file, anchor) in seen


def test_from_the_readme_a_ple_in_code_is_one_click():
    assert DOCS / "on-a-page.md" in {file for _, file, _ in links(ROOT / "README.md")}


def test_each_number_of_the_picture_by_hand_is_worked_out_on_the_page():
    number = r"−?\d+(?:\.\d+)?"
    page = prose(DOCS / "cgc-by-hand.md").replace("1/2", "0.5").replace("-", "−")
    worked_out = {*re.findall(number, page)}
    drawn = {each for words in re.findall(r">([^<>]*)</text>", by_hand.picture())
             for each in re.findall(number, words)}
    assert len(drawn) > 10 and drawn <= worked_out


def lessons():
    """The pages of the reading path, in its order."""
    steps = re.findall(r"^\| \d+ \|.*\|$", prose(DOCS / "README.md"), re.MULTILINE)
    return [next(file for _, file, _ in links(DOCS / "README.md", step)) for step in steps]


@pytest.mark.parametrize("page", lessons()[:-1], ids=lambda page: page.name)
def test_a_lesson_ends_in_three_lines(page):
    _, _, end = prose(page).rpartition("\n**In three lines**\n")
    assert end.count("\n- ") == 3 and len(end.splitlines()) < 14


@pytest.mark.parametrize("page", lessons(), ids=lambda page: page.name)
def test_a_lesson_leads_to_the_next_one_and_prints_no_whole_file(page):
    order = [*lessons(), None]
    assert order[order.index(page) + 1] in [None, *(file for _, file, _ in links(page))]
    for block in make.blocks(text(page)):
        if quoted := make.SOURCE.fullmatch(block.info):
            whole = (ROOT / quoted[1]).read_text(encoding="utf-8")
            assert block.text.count("\n") < whole.count("\n") / 2


@pytest.mark.parametrize("page", lessons(), ids=lambda page: page.name)
def test_a_picture_of_a_lesson_has_a_visible_caption(page):
    """The drawings of the zoo have their headings."""
    for target, after in re.findall(r"^!\[.*\]\((.*)\)$\n\n(.)", text(page), re.MULTILINE):
        assert after == "*" or "/architecture-" in target, target


def test_each_exercise_names_its_check_and_folds_its_solution_away():
    exercises = [part for part in sections(DOCS / "exercises.md") if re.match(r"## \d", part)]
    assert len(exercises) == 10
    for part in exercises:
        task, _, solution = part.partition("<details>\n<summary>Solution</summary>\n\n")
        assert "Check: " in task and "</details>" in solution, part.splitlines()[0]


def test_an_interval_that_a_lesson_names_is_one_of_the_claims():
    for lesson in ("questions.md", "problem.md"):
        found = re.findall(r"[−+]?\d\.\d+ ± \d\.\d+", text(DOCS / lesson))
        assert {each for each in found if each not in text(DOCS / "claims.md")} == set()


def test_every_page_is_on_the_reading_path_or_in_the_readme():
    starts = (ROOT / "README.md", DOCS / "README.md")
    found = {file for page in starts for _, file, _ in links(page)}
    missing = {page.name for page in PAGES if page not in found} - {"README.md"}
    assert not missing


def modules():
    """Every module of the package with a line of the map, from the top of the map."""
    listed = [file for _, file, _ in links(DOCS / "architecture.md")
              if file.suffix == ".py" and (ROOT / "npple") in file.parents]
    return list(dict.fromkeys(reversed(listed)))[::-1]  # where it stands last: in the tables


def test_the_map_of_the_code_lists_every_file():
    files = {file for file in (ROOT / "npple").rglob("*.py") if file.stem not in
             ("__init__", "__main__")}
    assert files - {*modules()} == set() and {*modules()} - files == set()


@pytest.mark.parametrize("file", modules(), ids=lambda file: str(file.relative_to(ROOT)))
def test_a_file_imports_only_what_stands_above_it(file):
    """At load time and inside functions; what is imported for types alone does not count."""
    names = [".".join(each.relative_to(ROOT).with_suffix("").parts) for each in modules()]
    own = names.index(".".join(file.relative_to(ROOT).with_suffix("").parts))
    below = {name for name in imported(file) if name in names[own:]}
    assert not below, f"{file.name} imports {below}"


def test_every_file_has_tests_that_kill_its_mutants():
    table = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["tool"]["npple-mutation"]
    files = [file.relative_to(ROOT / "npple") for file in (ROOT / "npple").rglob("*.py")]
    assert not [file for file in files if not {str(file), file.parts[0]} & set(table)]
    assert all((ROOT / test).exists() for tests in table.values() for test in tests)


def test_the_core_knows_nobody_outside():
    for file in (ROOT / "npple" / "core").glob("*.py"):
        assert {name for name in imported(file) if not name.startswith("npple.core")} == set()


@pytest.mark.parametrize("file", modules(), ids=lambda file: str(file.relative_to(ROOT)))
def test_a_module_loads_numpy_alone_beside_python(file):
    loaded = {name.partition(".")[0] for node in ast.parse(file.read_text("utf-8")).body
              for name in ([each.name for each in node.names] if isinstance(node, ast.Import)
                           else [node.module] if isinstance(node, ast.ImportFrom) else [])}
    assert loaded <= {"npple", "numpy", *sys.stdlib_module_names}


def test_packages_import_only_what_lies_below():
    """Each with its own floor; what the package itself offers lies on that of the proofs."""
    floor = {name: height for height, names in enumerate(FLOORS) for name in names.split()}
    for file in (ROOT / "npple").rglob("*.py"):
        own, *_ = file.relative_to(ROOT / "npple").with_suffix("").parts
        for name in imported(file) if own not in ("__init__", "__main__") else ():
            part = name.split(".")[1] if "." in name else ""
            assert floor.get(part, floor["verify"]) <= floor[own], f"{file} imports {name}"


FLOORS = ("core", "errors checks metrics archive kinds",
          "network architectures optimizers routing ranking", "verify",
          "oracle testing learn data training", "lab draw", "cli")


def test_no_file_reaches_for_anothers_private_names():
    """Neither by importing one nor as `module._name` or `Class._name`."""
    for file in (ROOT / "npple").rglob("*.py"):
        tree = ast.parse(file.read_text(encoding="utf-8"))
        names = {alias.asname or name for _, name, alias in imports(tree)}
        names |= {name.rpartition(".")[2] for name in names}
        names |= {ast.unparse(node) for node in ast.walk(tree) if isinstance(node, ast.Attribute)
                  and ast.unparse(node.value) in names}
        private = {name for name in names if re.search(r"(^|\.)_[^_]", name)}
        assert not private, f"{file} reaches for {private}"


def imports(tree):
    """Yields each import of npple: the statement, a.b of `from a import b`, and the alias."""
    for node in ast.walk(tree):
        if isinstance(node, (ast.Import, ast.ImportFrom)):
            above = f"{node.module}." if isinstance(node, ast.ImportFrom) else ""
            for alias in node.names:
                if re.match(r"npple(\.|$)", above + alias.name):
                    yield node, above + alias.name, alias


def imported(file):
    """The modules of npple that a file imports; a name from a module stands as if it were one."""
    tree = ast.parse(file.read_text(encoding="utf-8"))
    for_types = {id(each) for node in ast.walk(tree) if isinstance(node, ast.If)
                 and ast.unparse(node.test) == "TYPE_CHECKING" for each in ast.walk(node)}
    for node, name, _ in imports(tree):
        if id(node) not in for_types:
            yield name
            if name.count(".") > 1:
                yield name.rpartition(".")[0]


# Derivations ------------------------------------------------------------------------------------

def backward_functions():
    """(file, name) of every backward function, but for the deviations that the oracle knows."""
    return {(file, name) for file in (ROOT / "npple" / "core").glob("*.py")
            for name in defined(file) if re.search(r"(^|[._])backward$", name)
            and name.split(".")[0] not in ("Row", "Kind")}


def sections(page):
    """Each part of a page under a heading of level two, heading included."""
    pieces, open_block = [[]], False
    for line in text(page).splitlines(keepends=True):
        open_block ^= line.startswith("```")
        if line.startswith("## ") and not open_block:
            pieces.append([])
        pieces[-1].append(line)
    return ["".join(piece) for piece in pieces[1:]]


def derived(page, section):
    """The backward functions that a section links to: those it derives."""
    return [(file, label.strip("`")) for label, file, _ in links(page, bare(section))
            if (file, label.strip("`")) in backward_functions()]


def test_each_backward_function_is_linked_from_exactly_one_derivation():
    where = [function for page in DERIVATIONS for section in sections(page)
             for function in set(derived(page, section))]
    assert sorted(where) == sorted(backward_functions())


@pytest.mark.parametrize("page", DERIVATIONS, ids=lambda page: page.name)
def test_each_derivation_ends_in_a_check_of_what_it_derives(page):
    for section in sections(page):
        functions, blocks = derived(page, section), make.blocks(section)
        if functions:
            title = section.splitlines()[0]
            running = [block for block in blocks if block.info == "python"]
            last = [block for block in blocks if block.info != "text output"][-1]
            assert last.info == "python" and ".check()" in last.text, f"{page.name}: {title}"
            for _, name in functions:
                row, _, method = name.rpartition(".")  # a row's pass, or a function
                call = rf"row_check\(|\.{method}\(" if row else rf"\b{name}\b"
                assert any(re.search(call, block.text) for block in running), (
                    f"{page.name}: {title}: nothing runs {name}")


# From paper to code -----------------------------------------------------------------------------

def test_each_row_of_the_paper_map_names_its_code_and_a_test_that_holds_it():
    page = DOCS / "paper-map.md"
    rows = [row for row in re.findall(r"^\|(.+)\|$", prose(page), re.MULTILINE)
            if not re.match(r" (what|---)", row)]
    assert len(rows) > 40
    for row in rows:
        named = {(file, label.strip("`")) for label, file, _ in links(page, row)}
        code = [file for file, name in named if file.is_relative_to(ROOT / "npple")]
        tests = [name for file, name in named if file.is_relative_to(ROOT / "tests")
                 and name.startswith("test_")]
        assert code and tests, row


def test_the_changelog_leads_from_old_names_to_names_that_are_there():
    rows = re.findall(r"^\| (`npple.*?) \| (.+) \|$", prose(DOCS / "changelog.md"), re.MULTILINE)
    assert len(rows) > 40
    for old, now in rows:
        there = old if now.startswith(("stays", "the function")) else ""
        names = re.findall(r"`(npple[\w.]*)`", there + now)
        assert names or "not in the package" in now, old
        for name in names:
            pkgutil.resolve_name(name)  # or an error that says what is missing


# Pages in two languages -------------------------------------------------------------------------

CHINESE = make.translations()
UNTIL = {"oracle.md": "Any function"}  # the section before which a translation ends, if it does
each_translation = pytest.mark.parametrize("page", CHINESE, ids=lambda page: page.name)


def original(page):
    """The English that a page translates: all of a page, or all its sections before `UNTIL`."""
    english = text(CHINESE[page])
    if page.name in UNTIL:
        english, _, _ = english.partition(f"\n## {UNTIL[page.name]}\n")
    return english


@each_translation
def test_a_translation_has_the_blocks_of_the_english_page(page):
    english = [block.text for block in make.blocks(original(page))]
    assert [block.text for block in make.blocks(text(page))] == english, (
        "renew it: python docs/make.py")


def outline(markdown):
    """What begins each line that is a heading, a row, an item, a picture or a formula."""
    return [re.match(r"#+|\||- |\d+\.|!\[|\$\$|\*\*", line)[0]
            for line in bare(markdown).splitlines()
            if re.match(r"#+ |\||- |\d+\. |!\[|\$\$|\*\*", line)]


@each_translation
def test_a_translation_has_the_structure_of_the_english_page(page):
    assert outline(text(page)) == outline(original(page))


@each_translation
def test_a_translation_has_the_formulas_of_the_english_page(page):
    assert DISPLAYED.findall(bare(text(page))) == DISPLAYED.findall(bare(original(page)))


@each_translation
def test_a_translation_has_the_numbers_of_the_english_page(page):
    def numbers(markdown):
        return sorted(re.findall(r"\d+(?:[.,]\d+)*", re.sub(r"\]\(\S*\)", "]", bare(markdown))))

    assert numbers(text(page)) == numbers(original(page))


@each_translation
def test_a_translation_leads_where_the_english_page_leads(page):
    def targets(page, markdown):
        return {CHINESE.get(file, file) for label, file, _ in links(page, bare(markdown))
                if label not in ("English", "中文")}

    assert targets(page, text(page)) == targets(CHINESE[page], original(page))
    assert page in {file for _, file, _ in links(CHINESE[page])}
    test_links_point_to_something(page)
    test_pictures_say_what_they_show(page)


# Frameworks --------------------------------------------------------------------------------------

@pytest.mark.parametrize("framework", ["NumPy", "JAX", "PyTorch, functional", "Keras", "Flax",
                                       "PaddlePaddle"])
def test_a_framework_takes_at_most_twenty_lines_of_a_users_code(framework):
    """The mapping and the functions, without blank lines; tests/peers runs them."""
    code = written.block(written.MAPPING) + written.block(framework)
    assert "run, gradients)" in code and len(re.findall(r"^.*\S", code, re.MULTILINE)) <= 20


# The README in two languages --------------------------------------------------------------------

def test_the_readme_has_two_set_up_commands():
    console = [block.text for block in make.blocks(text(ROOT / "README.md"))
               if block.info == "console"]
    assert len(console) == 1 and len(re.findall(r"^\$ ", console[0], re.MULTILINE)) == 2


def test_the_chinese_readme_has_the_same_blocks_and_links():
    english, chinese = ROOT / "README.md", DOCS / "README.zh.md"
    of = {page: [(block.info, block.text) for block in make.blocks(text(page))]
          for page in (english, chinese)}
    assert of[english] == of[chinese]
    targets = {page: [(CHINESE.get(file, file), anchor) for _, file, anchor in links(page)]
               for page in (english, chinese)}
    assert ([link for link in targets[english] if link[0] != chinese]
            == [link for link in targets[chinese] if link[0] != english])
    assert (chinese, "") in targets[english] and (english, "") in targets[chinese]


def test_the_chinese_readme_is_as_long_as_the_english_one():
    shape = {page: [line[:2] for line in prose(page).splitlines() if line[:1] in "#|-!"]
             for page in (ROOT / "README.md", DOCS / "README.zh.md")}
    english, chinese = shape.values()
    assert english == chinese
