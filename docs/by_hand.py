"""The example of docs/cgc-by-hand.md, and its picture with npple's numbers on the edges.

`python docs/pictures.py docs/images` draws it as `cgc-by-hand.svg`.
"""

from html import escape

import numpy as np

import npple
from npple.core.passes import backward, joint_loss
from npple.draw.svg import COLORS, LIGHT, PAPER, SHARED

STROKES = {"A": COLORS[0][0], "B": COLORS[1][0], "shared": SHARED[0]}
FILLS = {"A": COLORS[0][1], "B": COLORS[1][1], "shared": SHARED[1]}
PLACES = {"A": (180, 250, 95), "B": (580, 510, 665)}  # x of a task's expert, mixture, gate
LOW = 390  # y of the experts
STYLE = f"""
.hand text{{font:13px system-ui,'Segoe UI','DejaVu Sans',Verdana,sans-serif;fill:{LIGHT["ink"]}}}
.hand text{{text-anchor:middle}}
.hand .name{{font-weight:600}}
.hand .line{{fill:none;stroke:{LIGHT["muted"]};stroke-width:1.4}}
.hand .selects{{stroke-dasharray:4 3}}
.hand .back{{font-weight:600;font-style:italic}}
""" + "".join(f".hand .g{task}{{fill:{color}}}\n" for task, color in STROKES.items())


def example():
    """The model, its parameters, the row and the targets."""
    model = npple.cgc(2, {"A": "regression", "B": "regression"}, task_experts=1, shared_experts=1,
                      expert_units=(1,), tower_units=(), activation="identity")
    params = {name: np.zeros(shape) for name, shape in model.shapes.items()}
    for stream, weight in {"A": (1, 0), "B": (0, 1), "shared": (1, 1)}.items():
        params[f"level1/{stream}/experts/layer1/weight"][0, :, 0] = weight
    for task in model.tasks:
        params[f"tower/{task}/layer1/weight"][:] = 1
    return model, params, np.array([[1.0, 2.0]]), {"A": np.array([1.0]), "B": np.array([4.0])}


def numbers():
    """Every tensor by name, every gradient by name, and those of each task's loss alone."""
    model, params, x, targets = example()
    trace, found = model.forward(params, x), {}
    for tasks in ("A", "B", "AB"):
        weights = {task: float(task in tasks) for task in model.tasks}
        starts = joint_loss(trace, targets, dict.fromkeys(model.tasks), weights)[1]
        found[tasks] = backward(trace, {name: starts[name] for name in starts if name[-1] in tasks})
    return trace, model.task_losses(params, x, targets), found


def picture():
    """The example as SVG: forward numbers upright, gradients slanted in their task's colour."""
    trace, losses, grads = numbers()
    own, shared = "level1/{}/experts".format, "level1/shared/experts"
    felt = {task: said(grads[task][shared]) for task in "AB"}
    lines = [_line(f"M380 480V{LOW + 32}")]
    boxes = [_box(380, 500, "", "input", f"x = ({', '.join(map(said, trace['input'][0]))})"),
             _box(380, LOW, "shared", "shared expert", said(trace[shared]),
                  f"gradient {felt['A']} {felt['B'].replace('−', '− ')} = "
                  f"{said(grads['AB'][shared])}", width=180)]
    for task, (expert, mixture, gate) in PLACES.items():
        weights = [said(weight) for weight in trace[f"level1/{task}/gate/weights"][0]]
        gate_weight = grads[task][f"level1/{task}/gate/layer1/weight"]
        logits = [said(each) for each in gate_weight[0]]  # those of the logits, as x_1 is 1
        y, back = said(trace[f"tower/{task}"]), said(grads[task][f"tower/{task}"])
        aside = 1 if task == "B" else -1
        lines += [
            _line(f"M380 480L{expert} {LOW + 32}"),
            _line(f"M{380 + 75 * aside} 500H{gate}V260", "selects"),
            _line(f"M{gate} 230H{mixture}", "selects"),
            _line(f"M{expert} {LOW - 32}L{mixture} 250"), _line(f"M380 {LOW - 32}L{mixture} 250"),
            _line(f"M{mixture} 210V122"),
            _beside(expert + 5 * aside, 295, f"{weights[0]} × {said(trace[own(task)])}",
                    said(grads[task][own(task)]), task),
            _beside(380 + 42 * aside, 282, f"{weights[1]} × {said(trace[shared])}",
                    felt[task], task),
            _beside(mixture + 24 * aside, 162, y, back, task)]
        boxes += [_box(expert, LOW, task, f"expert {task}", said(trace[own(task)]),
                       f"gradient {said(grads['AB'][own(task)])}"),
                  _box(gate, 230, task, f"gate {task}", "weights " + ", ".join(weights),
                       "logits' gradients", ", ".join(logits), width=140),
                  _box(mixture, 230, task, f"y of {task}", y, width=100),
                  _box(mixture, 100, task, f"loss {task}", said(losses[task]), width=120)]
    words = [_text(380, 30, "name", "One step of CGC by hand"),
             _text(380, 550, "", "upright: forward, from below; slanted: gradients, from above"),
             _text(380, 569, "", "no line joins expert A and loss B: that gradient is exactly 0")]
    return "\n".join([
        '<svg xmlns="http://www.w3.org/2000/svg" class="hand" role="img" width="760" height="590" '
        'viewBox="0 0 760 590">', f"<title>One step of CGC by hand</title>\n<style>{STYLE}</style>",
        f'<rect width="760" height="590" rx="8" fill="{PAPER}"/>',
        *lines, *boxes, *words, "</svg>\n"])


def said(number):
    """A number as the page writes it."""
    return f"{np.asarray(number).item():g}".replace("-", "−")


def _line(path, kind=""):
    return f'<path class="line {kind}" d="{path}"/>'


def _beside(x, y, ahead, back, task):
    """What goes up and, below it, what comes down."""
    return _text(x, y, "", ahead) + _text(x, y + 18, f"back g{task}", back)


def _text(x, y, kind, words):
    return f'<text class="{kind}" x="{x:g}" y="{y:g}">{escape(words, quote=False)}</text>'


def _box(x, y, owner, name, *lines, width=150):
    """A box about (x, y): a name, and lines below it."""
    height = 22 + 18 * len(lines)
    texts = [_text(x, y - height / 2 + 17 + 17 * i, "" if i else "name", line)
             for i, line in enumerate([name, *lines])]
    fill, stroke = FILLS.get(owner, LIGHT["neutral"]), STROKES.get(owner, LIGHT["muted"])
    return (f'<rect x="{x - width / 2:g}" y="{y - height / 2:g}" width="{width}" height="{height}" '
            f'rx="6" fill="{fill}" stroke="{stroke}"/>' + "".join(texts))
