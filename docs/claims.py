"""The table of docs/claims.md, from the results in docs/results: `python docs/claims.py` renews it.

    python docs/claims.py NAME FILE     keeps what a command of `COMMANDS` printed with --json,
                                        an experiment of any size instead of the one that was kept

A number of ours stands in no row: `{result|line|column}` is the place of a stored one. Nor does a
verdict: it is the result's own, or follows from the intervals that a row names as its `parts`.
"""

import json
import re
import shlex
import sys
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

import npple
from npple.cli import _parser
from npple.kinds import about
from npple.lab.claims import EXPERIMENTS
from npple.lab.finding import VERDICTS, Panel, gain_panels, shown, verdict
from npple.lab.gains import Estimate
from npple.lab.gains import estimate as estimated
from pictures import rendered

DOCS = Path(__file__).resolve().parent
PAGE, RESULTS = DOCS / "claims.md", DOCS / "results"
PLACE = re.compile(r"\{([^|{}]+)\|([^|{}]+)\|([^|{}]+)\}")
MARKS = ("<!-- table -->\n", "<!-- end of table -->\n")
NOT_RUN, CANNOT = "not run yet", VERDICTS[3]


@dataclass(frozen=True)
class Claim:
    """A row: what is claimed, where, its number there, and what of it is measured here.

    `parts` are (result, line, column, sign): whether an interval lies above zero (1), below (-1),
    or not below (0), or the text of a cell; of a plain number its sign counts; with `some` one of
    them is enough. `result` names a stored finding whose verdict is that of the row. A claim with
    neither has a `fixed` verdict; `command` is what to run where nothing is stored.
    """

    claim: str
    where: str
    paper: str
    ours: str = ""
    parts: tuple = ()
    some: bool = False
    result: str = ""
    fixed: str = ""
    command: str = ""

    def results(self):
        """The names of the results that the row rests on."""
        named = [place[1] for place in PLACE.finditer(self.ours)] + [part[0] for part in self.parts]
        return list(dict.fromkeys([*named, *([self.result] if self.result else [])]))


def stored():
    """Name -> what was stored under it."""
    return {path.stem: json.loads(path.read_text("utf-8"))
            for path in sorted(RESULTS.glob("*.json"))}


def estimate(cell):
    """A stored interval."""
    return Estimate(**cell)


def number(cell, column):
    """A stored cell as it stands on the page; gains and leads with their sign."""
    text = shown(cell)
    signed = column.startswith(("gain", "mean", "lead", "nearer")) and isinstance(cell, dict)
    return f"+{text}" if signed and cell["mean"] >= 0 else text.replace("-", "−")


def holds(results, part):
    """Whether a part of a claim is found: an interval on that side of zero."""
    result, line, column, sign = part
    cell = results[result]["table"][line][column]
    if isinstance(sign, str):
        return cell == sign
    direction = np.sign(cell) if isinstance(cell, float) else estimate(cell).direction
    return direction >= 0 if sign == 0 else direction == sign


def verdict_of(row, results):
    """The verdict of a row, from what is stored."""
    if not {*row.results()} <= results.keys():
        return NOT_RUN
    if row.fixed:
        return row.fixed
    if row.result:
        return results[row.result]["verdict"]
    found = [holds(results, part) for part in row.parts]
    return verdict([any(found)] if row.some else found)


def duration(seconds):
    """A time in words."""
    return f"{seconds / 60:.0f} min" if seconds >= 90 else f"{seconds:.0f} s"


def size(found):
    """What a stored experiment has less than its whole form, in words; empty for the whole form."""
    args = _parser().parse_args(shlex.split(found["command"])[1:])
    if args.command != "claims" or not (args.quick or args.seeds):
        return ""
    seeds = f"{found['settings']['seeds']} of {EXPERIMENTS[found['name']].full.seeds} seeds"
    return "*quick*" if args.quick else seeds


def lines(rows, results):
    """The rows of the table, as Markdown."""
    yield "| claim | where | there | here | verdict | command | time |"
    yield "| --- | --- | --- | --- | --- | --- | --- |"
    for row in rows:
        missing = [name for name in row.results() if name not in results]
        known = [] if missing else row.results()
        ours = "" if missing else PLACE.sub(lambda place: number(
            results[place[1]]["table"][place[2]][place[3]], place[3]), row.ours)
        sizes = dict.fromkeys(filter(None, (size(results[name]) for name in known)))
        ours += f" ({', '.join(sizes)})" if sizes else ""
        time = " ".join(duration(results[name]["seconds"]) for name in known)
        command = COMMANDS[missing[0]] if missing else row.command
        words = f"`{command}`" if command else " ".join(f"[{name}](#{name})" for name in known)
        yield (f"| {row.claim} | {row.where} | {row.paper} | {ours.strip() or '—'} | "
               f"{verdict_of(row, results)} | {words or '—'} | {time or '—'} |")


def table():
    """What stands between the marks of the page."""
    return "\n".join(lines(CLAIMS, stored())) + "\n"


def sections():
    """What stands below the table: a section for each result, with all its numbers."""
    less = [f"{name} ({words})" for name, found in stored().items() if (words := size(found))]
    yield f"Experiments whose whole form has not been run: {', '.join(less) or 'none'}.\n"
    for name, found in stored().items():
        yield f"### {name}\n"
        if "claim" in found:
            yield f"{found['claim']}.\n"
        yield f"```text\n{found['command']}\n```\n"
        words = f"Version {found['version']}, {duration(found['seconds'])} of computing."
        if "verdict" in found:
            words += f" Verdict: {found['verdict']}. {found['reason']}"
        if found.get("settings"):
            given = found["settings"]
            words += (f" {given['rows']:,} rows, {given['epochs']} epochs at most, "
                      f"{given['seeds']} seeds.")
        words += f" Not the whole form: {size(found)}." if size(found) else ""
        yield words + "\n"
        if panels := panels_of(found):
            titles = "; ".join(panel.title.replace("\n", ", ") or
                               f"{panel.label} by {panel.across}" for panel in panels)
            yield (f"![{found['name']}: {titles}]"
                   f"(images/claim-{name}.svg)\n")
        cells_of = {line: cells for line, cells in found["table"].items()
                    if not line.startswith("labels")}
        for line, pairs in found["table"].items():
            if line not in cells_of:
                words = "; ".join(f"{pair} {number(value, pair)}" for pair, value in pairs.items())
                yield f"Correlation of the {line}: {words}.\n"
        columns = list(dict.fromkeys(column for cells in cells_of.values() for column in cells))
        yield f"| | {' | '.join(columns)} |\n| --- |{' ---: |' * len(columns)}"
        for line, cells in cells_of.items():
            texts = [number(cells.get(column), column) for column in columns]
            yield f"| {line} | {' | '.join(texts)} |"
        yield ""


def renewed(text):
    """The page with its table and what stands below it."""
    before, rest = text.split(MARKS[0])
    made = "\n".join((table(), "## The results\n", *sections()))
    return before + MARKS[0] + "\n" + made + MARKS[1] + rest.split(MARKS[1])[1]


def draw():
    """The pictures of the results that have panels."""
    from npple.draw.plots import finding_figure
    for name, found in stored().items():
        if panels := panels_of(found):
            picture = DOCS / "images" / f"claim-{name}.svg"
            picture.write_text(rendered(finding_figure(panels)), encoding="utf-8")


def panels_of(found):
    """What there is to draw of an experiment: what it stored, or else the gains of its table."""
    if "claim" not in found:
        return []
    return [Panel(**panel) for panel in found["panels"]] or gain_panels(found["table"])


def keep(name, file):
    """Store what a command of `COMMANDS` printed, without what no row needs."""
    found = json.loads(Path(file).read_text("utf-8"))
    content = found if "claim" in found else of_comparison(name, found)
    content["panels"] = [panel for panel in content.get("panels", []) if not panel["points"]]
    assert content["command"].startswith(COMMANDS[name]), content["command"]
    content = json.loads(json.dumps(content),  # six digits: the page shows four
                         parse_float=lambda number: float(f"{float(number):.6g}"))
    (RESULTS / f"{name}.json").write_text(json.dumps(content) + "\n", encoding="utf-8")


def of_comparison(name, found):
    """A comparison as a result."""
    several, cells = len(found["tasks"]) > 1, {}
    for row in found["outcomes"]:
        line = f"{row['architecture']}, {row['data']}" if several else row["architecture"]
        cells[line] = {f"{task} metric": value for task, value in row["metrics"].items()}
        cells[line] |= {f"gain of {task}": value for task, value in row["gains"].items()}
        cells[line]["mean over shared_bottom"] = ahead(found, row)
        cells[line] |= {"mean gain": row["mean_gain"],
                        "detectable": row["mean_gain"] and row["mean_gain"]["detectable"],
                        "lead of ple": row["ple_lead"],
                        "rate": row["rate"], "best epoch is the last": row["late"],
                        "seesaw": "strict" if row["seesaw"] else
                        "by sign" if row["seesaw_by_sign"] else "no"}
        cells[line] |= {} if row["pruned"] is None else {"pruned": row["pruned"]}
    for data, pairs in found["labels"].items():
        cells[f"labels, {data}" if several else "labels"] = pairs
    return {"name": name, "command": COMMANDS[name], "version": npple.__version__, "table": cells,
            "seconds": sum(result["seconds"] for result in found["results"])}


SNR = ("npple compare --data vtr_vcr --rows 20000 --inputs 16 --dependence 0.8 --models "
       "single_task snr_trans snr_aver --seeds 3 --data-seeds --rate 0.01 --epochs 20 "
       "--budget 8000 --l0 ")
COMMANDS = {name: f"npple claims {name}" for name in EXPERIMENTS}  # of any size
COMMANDS |= {
    "vtr-vcr": "npple compare --data vtr_vcr --rows 20000 --inputs 16 --dependence 0.8 --seeds 5 "
               "--data-seeds --rates 0.01 0.003 --epochs 30 --budget 8000",
    "vtr-vcr-share": "npple compare --data vtr_vcr --tasks 3 --rows 20000 --inputs 16 "
                     "--dependence 0.8 --seeds 5 --data-seeds --rates 0.01 0.003 --epochs 30 "
                     "--budget 8000",
    "vtr-vcr-four": "npple compare --data vtr_vcr --tasks 4 --rows 20000 --inputs 16 "
                    "--dependence 0.8 --models single_task mmoe cgc ple --seeds 5 --data-seeds "
                    "--rates 0.01 0.003 --epochs 30 --budget 8000",
    "snr": SNR + "0.001",
    "snr-strong": SNR + "0.1",
    "census-college": "npple compare --data census --task-group 2 --models single_task "
                      "shared_bottom mmoe --seeds 10 --rates 0.01 0.003 --epochs 30",
    "mmoe-synthetic": "npple compare --data synthetic --inputs 100 --rows 10000 --correlation 0 "
                      "0.5 --models single_task shared_bottom mmoe --seeds 20 --data-seeds "
                      "--rates 0.01 0.003 --epochs 40 --budget 13056",
    "census": "npple compare --data census --models single_task shared_bottom mmoe ml_mmoe cgc ple "
              "--seeds 5 --rates 0.01 0.003 --epochs 30",
    "synthetic": "npple compare --data synthetic --inputs 32 --rows 20000 --correlation 0 0.5 0.9 "
                 "--models single_task shared_bottom mmoe cgc ple --seeds 5 --data-seeds "
                 "--rates 0.01 0.003 --epochs 40 --budget 8000"}


def ahead(found, row):
    """How much better than a shared bottom, in the mean over the tasks; None for two metrics."""
    tasks = found["tasks"][row["data"]]
    metrics = {about(kind).gain for kind in tasks.values()}
    values = {name: [np.mean([result["tasks"][task]["test"][metric] for task in tasks])
                     for result in found["results"] for metric, _ in metrics
                     if (result["data"], result["architecture"]) == (row["data"], name)]
              for name in (row["architecture"], "shared_bottom")} if len(metrics) == 1 else {}
    if row["architecture"] in ("shared_bottom", "single_task") or not values.get("shared_bottom"):
        return None
    (_, sign), = metrics
    return asdict(estimated([float(sign * (a - b)) for a, b in zip(*values.values())]))


def gains(line, tasks=("vtr", "vcr"), result="vtr-vcr"):
    """The gains of an architecture, as a row shows them."""
    return " / ".join(f"{{{result}|{line}|gain of {task}}}" for task in tasks)


def signs(line, found, tasks=("vtr", "vcr"), result="vtr-vcr"):
    """The parts of a claim that says of which sign the gains are."""
    return tuple((result, line, f"gain of {task}", sign) for task, sign in zip(tasks, found))


_TABLE_1 = {  # architecture -> its name there, gains there (VTR in AUC, VCR in MSE), their signs
    "shared_bottom": ("hard sharing", "−0.0047 / +1.8e-5", (-1, 1)),
    "asymmetric_sharing": ("asymmetric sharing", "+0.0036 / −0.0025", (1, -1)),
    "cross_stitch": ("cross-stitch", "−0.0047 / +1.6e-5", (-1, 1)),
    "sluice": ("sluice", "+0.0038 / −0.0008", (1, -1)),
    "customized_sharing": ("customized sharing", "−0.0007 / +0.0002", (-1, 1)),
    "mmoe": ("MMoE", "+0.0016 / +0.0001", (1, 1)),
    "ml_mmoe": ("ML-MMoE", "+0.0028 / −0.0009", (1, -1)),
    "cgc": ("CGC", "+0.0045 / +3.5e-5", (1, 1)),
    "ple": ("PLE", "+0.0044 / +0.0013", (1, 1))}
_SEESAW = "one task gains and the other loses"
P = ("0", "0.5", "0.9")  # the task correlations of the result "synthetic"
THREE = ("vtr", "vcr", "share")
FOUR = (*THREE, "comment")
MAP = "seesaw-map|vtr_vcr dependence=0.9, 3,000 parameters, weight 1"
BECOMES, VIDEOS, STITCH, RUNS = "mmoe-becomes-ple", "vtr-vcr", "cross-stitch", "trainability"

CLAIMS = [
    *(Claim(f"{name}: {_SEESAW}" if sum(found) == 0 else f"{name}: both tasks gain",
            "PLE, table 1", there, gains(line), signs(line, found))
      for line, (name, there, found) in _TABLE_1.items()),
    Claim("PLE is ahead of MMoE on VTR and VCR", "PLE, table 1", "+0.0028 / +0.0012",
          f"{{{VIDEOS}|mmoe|lead of ple}} of what MMoE leaves",
          ((VIDEOS, "mmoe", "lead of ple", 1),)),
    Claim("PLE is ahead of ML-MMoE", "PLE, table 1", "+0.0016 / +0.0022",
          f"{{{VIDEOS}|ml_mmoe|lead of ple}}", ((VIDEOS, "ml_mmoe", "lead of ple", 1),)),
    Claim("PLE is ahead of CGC in sum", "PLE, table 1", "−0.0001 / +0.0013",
          f"{{{VIDEOS}|cgc|lead of ple}}", ((VIDEOS, "cgc", "lead of ple", 1),)),
    Claim("Where the correlation depends on the sample, shared experts seesaw, PLE does not",
          "PLE, section 3.2", "bubbles of figure 3",
          f"shared bottom {{{MAP}: shared_bottom|gain of vtr}} / "
          f"{{{MAP}: shared_bottom|gain of vcr}}, PLE {{{MAP}: ple|gain of vtr}} / "
          f"{{{MAP}: ple|gain of vcr}}, at the middle weight of the small models",
          result="seesaw-map"),
    Claim("Own experts keep a task from what another does to the shared ones",
          "PLE, section 4.1", "no number", "dense task, CGC: {dense-and-sparse|sharing 0.05: cgc|"
          "gain of vtr}, shared bottom: {dense-and-sparse|sharing 0.05: shared_bottom|gain of vtr}",
          result="dense-and-sparse"),
    Claim("MMoE can hardly find the path to CGC", "PLE, section 2.1", "no number",
          f"smallest mean weight {{{BECOMES}|mmoe|smallest}}, with a gate bias "
          f"{{{BECOMES}|mmoe, gate bias|smallest}}", result=BECOMES),
    Claim("It is possible that MMoE becomes PLE: started there, it stays, and loses nothing",
          "PLE, section 4.2", "no number",
          f"MMoE {{{BECOMES}|mmoe, from cgc|gain over cgc or ple}} of what CGC leaves, smallest "
          f"mean weight {{{BECOMES}|mmoe, from cgc|smallest}}; ML-MMoE "
          f"{{{BECOMES}|ml_mmoe, from ple|gain over cgc or ple}}, "
          f"{{{BECOMES}|ml_mmoe, from ple|smallest}}",
          ((BECOMES, "mmoe, from cgc", "gain over cgc or ple", 0),
           (BECOMES, "ml_mmoe, from ple", "gain over cgc or ple", 0))),
    Claim("The two tasks' gates differ more in CGC than in MMoE", "PLE, figure 8", "a picture",
          f"{{{BECOMES}|cgc|distance}} and {{{BECOMES}|mmoe|distance}}",
          ((BECOMES, "mmoe", "nearer than in PLE", 1),)),
    Claim("The two tasks' gates differ more in PLE than in ML-MMoE", "PLE, figure 8", "a picture",
          f"{{{BECOMES}|ple|distance}} and {{{BECOMES}|ml_mmoe|distance}}",
          ((BECOMES, "ml_mmoe", "nearer than in PLE", 1),)),
    Claim("MMoE and ML-MMoE use every expert, and more alike for both tasks than CGC and PLE",
          "PLE, figure 8", "a picture", "entropy of the gates: " + ", ".join(
              f"{name} {{utilization|{line}|entropy}}" for name, line in (
                  ("MMoE", "mmoe"), ("ML-MMoE", "ml_mmoe"), ("CGC", "cgc"), ("PLE", "ple")))
          + "; the least used expert of PLE has {utilization|ple|least used}",
          result="utilization"),
    Claim("On CTR and VCR all but cross-stitch gain on both tasks, PLE most", "PLE, table 2",
          "PLE +0.0027 / +0.0029; ML-MMoE −0.0001 / +0.0010", fixed=CANNOT),
    Claim("Online PLE brings more views and watch time than MMoE", "PLE, table 3",
          "+2.23 % / +1.84 %", fixed=CANNOT),
    Claim("With a sharing task beside, PLE gains on all three", "PLE, table 4",
          "+0.0132 / +0.0036 / +0.0013", gains("ple", THREE, "vtr-vcr-share"),
          signs("ple", (1, 1, 1), THREE, "vtr-vcr-share")),
    Claim("With a sharing task beside, CGC loses on it", "PLE, table 4",
          "+0.0131 / +0.0019 / −0.0001", gains("cgc", THREE, "vtr-vcr-share"),
          signs("cgc", (1, 1, -1), THREE, "vtr-vcr-share")),
    Claim("With sharing and comments beside, PLE gains on all four", "PLE, table 4",
          "+0.0128 / +0.0017 / +0.0058 / +0.0080", gains("ple", FOUR, "vtr-vcr-four"),
          signs("ple", (1, 1, 1, 1), FOUR, "vtr-vcr-four")),
    Claim("With sharing and comments beside, CGC gains on all four", "PLE, table 4",
          "+0.0097 / +0.0016 / +0.0008 / +0.0012", gains("cgc", FOUR, "vtr-vcr-four"),
          signs("cgc", (1, 1, 1, 1), FOUR, "vtr-vcr-four")),
    Claim("Census: PLE gains on both tasks", "PLE, table 5", "+0.0077 / +0.0022",
          gains("ple", ("income", "marital"), "census"),
          signs("ple", (1, 1), ("income", "marital"), "census")),
    Claim("Census: MMoE gains on both tasks", "PLE, table 5", "+0.0048 / +0.0005",
          gains("mmoe", ("income", "marital"), "census"),
          signs("mmoe", (1, 1), ("income", "marital"), "census")),
    Claim("Census: PLE is ahead of MMoE", "PLE, table 5", "+0.0029 / +0.0017",
          "{census|mmoe|lead of ple}", (("census", "mmoe", "lead of ple", 1),)),
    Claim("Ali-CCP: MMoE gains on CTR and loses on CVR, PLE gains on both", "PLE, table 5",
          "+0.0006 / −0.0302; +0.0024 / +0.0057", fixed=CANNOT),
    Claim("Synthetic data: hard sharing and MMoE sometimes seesaw", "PLE, section 5.2.3",
          "figure 7", "shared bottom by p: " + ", ".join(
              f"{{synthetic|shared_bottom, synthetic p={p}|seesaw}}" for p in P) + "; MMoE: "
          + ", ".join(f"{{synthetic|mmoe, synthetic p={p}|seesaw}}" for p in P),
          tuple(("synthetic", f"{name}, synthetic p={p}", "seesaw", "strict")
                for name in ("shared_bottom", "mmoe") for p in P), some=True),
    Claim("Synthetic data: PLE gains at every correlation", "PLE, section 5.2.3", "figure 7",
          ", ".join(f"{{synthetic|ple, synthetic p={p}|mean gain}}" for p in P),
          tuple(("synthetic", f"ple, synthetic p={p}", "mean gain", 1) for p in P)),
    Claim("Synthetic data: PLE's gain is larger than MMoE's", "PLE, section 5.2.3",
          "87.2 % larger", ", ".join(f"{{synthetic|mmoe, synthetic p={p}|lead of ple}}" for p in P),
          tuple(("synthetic", f"mmoe, synthetic p={p}", "lead of ple", 1) for p in P)),
    Claim("The labels' correlation is another number than the tasks', and grows with it",
          "MMoE, figure 2", "a picture",
          "by p: " + ", ".join(f"{{synthetic|labels, synthetic p={p}|task1, task2}}" for p in P),
          fixed="holds"),
    Claim("Scenes with auto-play have more plays, so how VTR and VCR go together depends on the "
          "sample", "PLE, section 3.1", "no number", fixed=CANNOT),
    Claim("Loss weights that decay by epoch are better than fixed ones", "PLE, equation 10",
          "no number", "VTR's {task-weights|ple, vtr decays|mean gain}, VCR's "
          "{task-weights|ple, vcr decays|mean gain} of what weights of 1 leave",
          result="task-weights"),
    Claim("Without its selector, its shared gate or its one shared stream PLE is worse",
          "PLE, section 4.2", "no number", ", ".join(
              f"{name} {{selector-worth|ple, {line}|mean gain}}" for name, line in (
                  ("input as selector", "selector is the input"),
                  ("mean for the shared gate", "no shared gate, the mean instead"),
                  ("input for it", "no shared gate, the input instead"),
                  ("separate streams", "a shared stream for each task"))),
          result="selector-worth"),
    Claim("A shared bottom loses more the less the tasks are related", "MMoE, figure 3",
          "a picture", ", ".join(f"{{synthetic|shared_bottom, synthetic p={p}|mean gain}}"
                                 for p in P),
          (("synthetic", "shared_bottom, synthetic p=0", "mean gain", -1),)),
    Claim("MMoE is better than a shared bottom where tasks are hardly related", "MMoE, figure 4",
          "a picture", "{mmoe-synthetic|mmoe, synthetic p=0|mean over shared_bottom}",
          (("mmoe-synthetic", "mmoe, synthetic p=0", "mean over shared_bottom", 1),)),
    Claim("Over 200 runs a shared bottom varies most; the lowest losses are comparable",
          "MMoE, figure 5", "histograms", "shared bottom further from its median by "
          f"{{{RUNS}|shared_bottom|further from the median than mmoe}}; lowest tenth: its "
          f"{{{RUNS}|shared_bottom|mean of the lowest tenth}}, MMoE "
          f"{{{RUNS}|mmoe|mean of the lowest tenth}}", result=RUNS),
    Claim("Census, group 1: MMoE is better than single task on the main task", "MMoE, table 1",
          "AUC, 400 trainings", "{census|mmoe|gain of income}",
          (("census", "mmoe", "gain of income", 1),)),
    Claim("Census, group 2: MMoE is better than single task on the main task", "MMoE, table 2",
          "AUC, 400 trainings", "{census-college|mmoe|gain of college}",
          (("census-college", "mmoe", "gain of college", 1),)),
    Claim("Cross-stitch units learn best 100 to 1000 times as fast", "cross-stitch, section 5.2",
          "100 to 1000", "; ".join(f"{factor} times: {{{STITCH}|cross_stitch, units {factor} times "
                                   "as fast|mean gain}" for factor in (10, 100, 1000)),
          tuple((STITCH, f"cross_stitch, units {factor} times as fast", "mean gain", 1)
                for factor in (100, 1000))),
    Claim("Cross-stitch starts best from networks of one task", "cross-stitch, section 5.3",
          "no number", f"{{{STITCH}|cross_stitch, from networks of one task|mean gain}}; from "
          f"itself, trained twice as well, {{{STITCH}|cross_stitch, from itself|mean gain}}",
          ((STITCH, "cross_stitch, from networks of one task", "mean gain", 1),)),
    Claim("ML-MMoE is the worst of five baselines", "SNR, YouTube8M", "a picture", fixed=CANNOT),
    Claim("SNR's penalty closes connections", "SNR, the penalty", "no number",
          "share closed by SNR-Trans / SNR-Aver: at the authors' largest weight "
          "{snr|snr_trans|pruned} / {snr|snr_aver|pruned}, at a hundred times that "
          "{snr-strong|snr_trans|pruned} / {snr-strong|snr_aver|pruned}",
          tuple((result, line, "pruned", 1) for result in ("snr", "snr-strong")
                for line in ("snr_trans", "snr_aver"))),
    Claim("CGC removes the connections between a tower and other tasks' experts",
          "PLE, section 4.1", "structure", "the gradient is exactly 0.0, by structure and measured",
          fixed="holds", command="npple isolation --model cgc"),
    Claim("In PLE separation is progressive: lower levels are reached, the last is not",
          "PLE, section 4.2", "structure", "proved and measured, level by level", fixed="holds",
          command="npple isolation --model ple"),
]

if __name__ == "__main__":
    if len(sys.argv) == 3:
        keep(*sys.argv[1:])
    draw()
    PAGE.write_text(renewed(PAGE.read_text("utf-8")), encoding="utf-8")
