"""Drawings show the table: every tensor, its true shape, every arrow, and what a loss reaches."""

import json
import re
from dataclasses import replace
from itertools import combinations
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest

import npple
from npple.cli import main
import pictures
from npple.draw import diagram, page, svg, text
from npple.draw.layout import layout
from npple.draw.svg import body
from npple.lab.gains import Comparison
from npple.verify.cases import random_case, random_model
from npple.routing import Experts, Gate, Level, Pass, Source, Table, Tower

TASKS = {"vtr": "binary", "vcr": "regression", "shr": "multiclass:3"}
IMAGES = Path(__file__).parents[2] / "docs" / "images"
NAMESPACE = "{http://www.w3.org/2000/svg}"


def elements(picture, word):
    """The elements of a class."""
    return [element for element in ElementTree.fromstring(picture).iter()
            if word in element.get("class", "").split()]


def build(name, tasks=3, levels=2):
    builder, options = npple.ARCHITECTURES[name], {}
    if name not in ("single_task", "shared_bottom", "asymmetric_sharing", "customized_sharing",
                    "mmoe", "cgc"):
        options["levels"] = levels
    return builder(32, {f"task{i + 1}": "binary" for i in range(tasks)}, **options)


@pytest.mark.parametrize("name", npple.ARCHITECTURES)
def test_shapes_are_those_of_a_forward_pass(name):
    model = random_model(name)
    case = random_case(model, batch=11)
    trace = model.forward(case.params, case.x)
    nodes = [node for node in diagram(model).nodes if node.kind != "loss"]
    assert {row.name for row in model.table.rows} | {"input"} == {node.name for node in nodes}
    for node in nodes:
        shape = trace[node.name].shape
        assert node.shape.replace("B", "11") == str(shape), node.name
        assert all(model.shapes[key] == shape for key, shape in node.parameters.items())


@pytest.mark.parametrize("name", npple.ARCHITECTURES)
def test_there_is_an_arrow_for_everything_a_row_reads(name):
    model = random_model(name)
    drawn = diagram(model)
    arrows = sorted((edge.source, edge.target) for edge in drawn.edges)
    reads = [(source, row.name) for row in model.table.rows for source in row.inputs()]
    assert arrows == sorted(reads + [(f"tower/{task}", f"loss/{task}") for task in model.tasks])
    assert len(elements(svg(drawn), "edge")) == len(arrows)


@pytest.mark.parametrize("name", npple.ARCHITECTURES)
def test_what_is_lit_is_what_isolation_calls_reached(name):
    model = random_model(name)
    matrix = npple.isolation(model).matrix
    for task in model.tasks:
        nodes = elements(svg(diagram(model), task=task), "node")
        assert all(("lit" in node.get("class")) != ("isolated" in node.get("class"))
                   for node in nodes)
        lit = {node.get("data-group") for node in nodes if "lit" in node.get("class")} - {""}
        assert lit == {group for group, cell in matrix[task].items() if cell == "reached"}


def test_the_arrows_of_a_gradient_are_those_between_reached_tensors():
    drawn = diagram(npple.ple(8, TASKS))
    reached = [drawn.nodes.index(drawn.node[name]) for name in drawn.reached("vcr")]
    for edge in elements(svg(drawn, task="vcr"), "edge"):
        assert ("lit" in edge.get("class")) == (int(edge.get("data-target")) in reached)


def rectangle(x, y, width, height):
    return x, y, x + width, y + height


def apart(a, b):
    return a[2] <= b[0] or b[2] <= a[0] or a[3] <= b[1] or b[3] <= a[1]


@pytest.mark.parametrize("name", npple.ARCHITECTURES)
@pytest.mark.parametrize("tasks, levels", [(1, 1), (2, 2), (3, 3), (5, 2)])
def test_boxes_and_labels_do_not_overlap_and_arrows_go_around_boxes(name, tasks, levels):
    drawn = diagram(build(name, tasks, levels))
    places = layout(drawn)
    boxes = {key: rectangle(box.left, box.top, box.width, box.bottom - box.top)
             for key, box in places.boxes.items()}
    labels = {f"{node.name} {node.shape}":
              rectangle(boxes[node.name][0] + places.boxes[node.name].width / 2 + 6,
                        boxes[node.name][1] - 20, 6.6 * len(node.shape), 12)
              for node in drawn.nodes if node.kind not in ("input", "loss")}
    for (a, first), (b, second) in combinations((boxes | labels).items(), 2):
        assert apart(first, second), f"{a} and {b}"
    left, top, width, _ = places.frame
    assert all(left <= box[0] and box[2] <= left + width and top <= box[1]
               for box in (boxes | labels).values())
    for edge, path in places.paths.items():
        for x, y in points(path):
            for key, box in boxes.items():
                if key not in (edge.source, edge.target):
                    assert apart(rectangle(x, y, 0, 0), box), f"{edge} meets {key}"


def points(path):
    """Points along a path of M, H, V, C and Q."""
    x = y = 0.0
    for letter, numbers in re.findall(r"([MHVCQ])([^MHVCQ]*)", path):
        values = list(map(float, numbers.split()))
        ends = ([(values[0], y)] if letter == "H" else [(x, values[0])] if letter == "V" else
                list(zip(values[::2], values[1::2])))
        controls = np.array(([] if letter == "M" else [(x, y)]) + ends)
        for t in np.linspace(0, 1, 25):
            curve = controls  # de Casteljau
            while len(curve) > 1:
                curve = (1 - t) * curve[:-1] + t * curve[1:]
            yield tuple(curve[0])
        x, y = ends[-1]


def test_a_table_of_ones_own_is_drawn_too():
    # a gate of level 2 on the raw input, some experts of a group, names that are not npple's
    units = {"units": (4,), "activations": ("relu",)}
    bottom = Level((Experts("bottom", "input", 3, **units),),
                   (Pass("first", (Source("bottom", (1,)),)),))
    upper = Level((Experts("upper", "first", 2, **units),),
                  (Gate("second", (Source("upper"), Source("bottom", (0, 2))), "input"),))
    model = npple.Network(Table(8, (bottom, upper), (Tower("a", "binary", "second", (), ()),)))
    drawn = diagram(model)
    assert "← upper, bottom [0, 2], by input" in text(drawn)
    assert len(elements(svg(drawn, task="a"), "edge")) == 8


def test_text_reads_from_lines_further_down():
    drawn = diagram(npple.sluice(8, TASKS, levels=3))
    lines = text(drawn).splitlines()
    row = {line.split()[0]: i for i, line in enumerate(lines) if line.strip()}
    assert all(row[edge.source] > row[edge.target] for edge in drawn.edges
               if not edge.target.startswith("loss/"))


def test_text_marks_what_a_loss_reaches():
    lines = text(diagram(npple.ple(8, TASKS)), task="vcr").splitlines()
    marks = {line.split()[1]: line[0] for line in lines if line[:1] in ("●", "○")}
    assert marks["level2/vcr/experts"] == marks["level1/vtr/experts"] == "●"
    assert marks["level2/vtr/experts"] == marks["tower/vtr"] == "○"


def test_names_are_text_wherever_they_stand():
    tasks = {"<b>&\"'": "binary", "<!--": "binary"}
    model = npple.ple(8, tasks)
    titles = [element.text for element in elements(svg(diagram(model), "<ple>"), "title")]
    assert "<b>&\"' loss" in titles and "<!-- tower" in titles
    script = re.search(r'id="data">(.*?)</script>', page(8, tasks), re.DOTALL)[1]
    assert json.loads(script)["tasks"] == list(tasks)
    assert "<!" not in script


# The page ---------------------------------------------------------------------------------------

def content(document):
    return json.loads(re.search(r'id="data">(.*?)</script>', document, re.DOTALL)[1])


def test_the_page_holds_each_drawing_as_it_is():
    found = content(page(32, TASKS))
    assert list(found["models"]) == list(npple.ARCHITECTURES)
    assert len(found["models"]["ple"]["drawings"]) == 3 * 4 * 4
    for name, model, key in (
            ("ple", npple.ple(32, TASKS, levels=3, task_experts=1, shared_experts=4), "3,1,4"),
            ("mmoe", npple.mmoe(32, TASKS, experts=1), "1"),
            ("single_task", npple.single_task(32, TASKS), "")):
        lines, frame = body(diagram(model))
        kept = found["models"][name]["drawings"][key]
        assert [found["lines"][i] for i in kept["lines"]] == lines
        assert kept["frame"] == list(frame)


def test_the_page_begins_with_what_was_asked_for():
    found = content(page(32, TASKS, "ple", levels=3, shared_experts=7, expert_units=(16,)))
    assert found["model"] == "ple"
    start = {"levels": 3, "task_experts": 2, "shared_experts": 7}
    assert found["models"]["ple"]["start"] == start
    assert 7 in found["models"]["ple"]["choices"]["shared_experts"]
    assert any("(7, B, 16)" in line for line in found["lines"])


def test_the_page_is_one_small_file():
    document = page(32, TASKS)
    assert len(document.encode()) < 500_000
    assert not re.search(r"https?://|src=|@import|<link", document)


# The command ------------------------------------------------------------------------------------

def test_draw_prints_text(capsys):
    assert main(["draw", "--model", "cgc", "--tasks", "a", "b=regression", "--task", "b"]) == 0
    drawn = diagram(npple.cgc(32, {"a": "binary", "b": "regression"}))
    assert capsys.readouterr().out == f"cgc\n\n{text(drawn, 'b')}\n"


def test_draw_as_json_holds_rows_arrows_and_what_is_reached(capsys):
    assert main(["draw", "--levels", "2", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["model"] == "ple" and found["tasks"] == {"vtr": "binary", "vcr": "regression"}
    edge = {"from": "level1/vtr", "to": "level2/vtr", "role": "selects", "experts": None}
    assert edge in found["edges"]
    assert "level2/vcr/experts" in found["reached"]["vcr"]
    assert "level2/vcr/experts" not in found["reached"]["vtr"]
    assert {"name": "tower/vcr", "shape": "(B,)", "formula": "z = MLP(x), x = level2/vcr"}.items() \
        <= next(node for node in found["nodes"] if node["name"] == "tower/vcr").items()


def test_draw_writes_a_picture_and_a_page(capsys, tmp_path):
    picture, document = tmp_path / "ple.svg", tmp_path / "ple.html"
    assert main(["draw", "--task", "vtr", "--out", str(picture), "--html", str(document)]) == 0
    assert capsys.readouterr().out == f"{picture}\n{document}\n"
    tasks = {"vtr": "binary", "vcr": "regression"}
    assert picture.read_text("utf-8") == svg(diagram(npple.ple(32, tasks)), "ple", "vtr")
    assert document.read_text("utf-8") == page(32, tasks)


@pytest.mark.parametrize("arguments, message", [
    (["--task", "ctr"], "task: 'ctr', did you mean 'vtr'? expected one of vtr, vcr"),
    (["--out", "ple.gif"], "--out: 'ple.gif', expected a file that ends in .svg"),
    (["--tasks", "a", "a"], "--tasks: a name stands there twice: ['a', 'a']"),
    (["--tasks", "a=b"], "tasks: 'a' must be 'binary', "),
    (["--model", "mmoe", "--levels", "2"], "--levels: mmoe has no such option"),
    (["--inputs", "0"], "inputs: ")])
def test_bad_arguments_are_one_line_and_status_2(arguments, message, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main(["draw", *arguments]) == 2
    found = capsys.readouterr()
    assert found.err.startswith(f"npple draw: error: {message}") and found.err.count("\n") == 1
    assert not found.out and not list(tmp_path.iterdir())


# The pictures of the documentation --------------------------------------------------------------

AGAIN = "stale: run python docs/pictures.py docs/images"


def test_drawings_in_the_documentation_are_what_the_tables_say():
    for file, drawn in pictures.drawings().items():
        assert (IMAGES / file).read_text("utf-8") == drawn, f"{file} is {AGAIN}"


@pytest.fixture(scope="module")
def measured():
    return json.loads((IMAGES / "pictures.json").read_text("utf-8"))


def test_plots_in_the_documentation_show_the_numbers_beside_them(measured):
    pytest.importorskip("matplotlib")
    for file, drawn in pictures.plotted(measured).items():
        kept = (IMAGES / file).read_text("utf-8")
        numbers = re.search("<!-- numbers: .* -->", drawn)[0]
        assert numbers in kept, f"{file} is {AGAIN}"
        if re.search("Matplotlib v[^,]*", kept)[0] in drawn:  # another version draws otherwise
            shape, places = taken_apart(kept)
            other, others = taken_apart(drawn)
            assert shape == other and np.allclose(places, others, atol=0.5), f"{file} is {AGAIN}"


def taken_apart(picture):
    """A picture without its numbers and the ids made of them, and these numbers."""
    picture = re.sub(r"\b[mp][0-9a-f]{10}\b", "id", picture)
    return re.sub(NUMBER, "#", picture), [float(number) for number in re.findall(NUMBER, picture)]


NUMBER = r"-?\d+\.?\d*(?:e-?\d+)?(?![0-9a-f]{6})"


def test_the_numbers_beside_the_plots_are_what_the_code_measures(measured, monkeypatch):
    """Of trainings the first epoch: later ones follow rounding, which is each processor's own."""
    isolation, errors = pictures.measure_isolation(), pictures.measure_errors()
    for task, norms in measured["isolation"].items():
        assert isolation[task] == pytest.approx(norms, rel=1e-4)
    for method, values in measured["errors"]["errors"].items():
        told = np.array(values) < 0.1  # a step below it is lost in rounding, each processor's own
        assert np.log10(np.array(errors["errors"][method])[told]) == pytest.approx(
            np.log10(np.array(values)[told]), abs=0.7)
    monkeypatch.setattr(pictures, "CORRELATIONS", [0.5])
    monkeypatch.setattr(pictures, "TRAINING", replace(pictures.TRAINING, epochs=1))
    comparison = pictures.measure_comparison(["shared_bottom"], seeds=[0])
    assert comparison["tasks"].items() <= measured["comparison"]["tasks"].items()
    for found in comparison["results"]:
        kept, = [result for result in measured["comparison"]["results"]
                 if all(result[key] == found[key] for key in ("data", "architecture", "seed"))]
        assert found["parameters"] == kept["parameters"]
        for task, metrics in kept["tasks"].items():
            first, = found["tasks"][task]["validation"]
            assert first["mse"] == pytest.approx(metrics["validation"][0]["mse"], rel=0.03)


def test_the_tables_of_the_experiments_are_those_of_the_pictures(measured):
    found, lines = Comparison(**measured["comparison"]), EXPERIMENTS.read_text("utf-8").splitlines()
    names = {row.architecture for row in found.outcomes}
    shown = {line.split()[1] for line in lines if line.startswith("| ")}
    assert shown & npple.ARCHITECTURES.keys() == names
    for name in names:
        rows = [row for row in found.outcomes if row.architecture == name]
        lost = ", ".join(f"{found.correlations[row.data]:g}" for row in rows
                         if row.negative_transfer)
        gains = [name, f"{rows[0].parameters:,}", *(gain(row.mean_gain) for row in rows), lost]
        assert cells(gains) in lines
        assert name == "ple" or cells([name, *(gain(row.ple_lead) for row in rows)]) in lines
        assert not any(row.seesaw for row in rows)


EXPERIMENTS = IMAGES.parent / "experiments.md"


def cells(texts):
    return " ".join(f"| {text}" if text else "|" for text in texts) + " |"


def gain(estimate):
    if estimate is None:
        return ""
    half = (estimate.high - estimate.low) / 2
    return f"{estimate.mean:+.4f} ± {half:.4f}" + "*" * (estimate.direction != 0)


def test_complex_step_is_exact_at_steps_where_differences_are_lost(measured):
    errors = measured["errors"]["errors"]
    assert max(errors["complex step"][-24:]) < 1e-15
    assert min(errors["central difference"]) > 1e-10
    assert min(errors["one-sided difference"]) > 1e-8
