"""A call with hostile input, and what came of it: only what is allowed, or an `Outcome` failed."""

import signal
import traceback
import warnings
from collections import Counter
from dataclasses import dataclass, fields, is_dataclass
from random import Random

import numpy as np

import npple
from hostile import spoil
from npple.checks import shown
from npple.errors import Stopped

PATIENCE = 300  # seconds after which a call counts as hanging; a busy machine may pause


@dataclass
class Call:
    """A call of the public interface with good arguments; the fuzzer spoils some of them.

    `answer` picks from the result what must be finite; `names` adds words a refusal may use
    for an argument; `hostile` are arguments that are bad as they come, `fixed` those left alone.
    """

    function: object
    arguments: dict
    answer: object = lambda result: result
    names: dict = None
    hostile: tuple = ()
    fixed: tuple = ()
    loose: bool = False  # the answer depends on more than the values (time, a file)


class Hang(BaseException):
    """Raised by the alarm."""


def _alarm(number, frame):
    raise Hang


def run(targets, seed, index):
    """The outcome of call number `index`: (target, outcome, what went wrong or None)."""
    r = Random(f"{seed}:{index}")
    target = r.choices(list(targets), [weight for weight, _ in targets.values()])[0]
    return (target, *once(target, targets[target][1](r), r, index))


def once(target, call, r, index):
    """The outcome of a call with some of its arguments spoiled, and what went wrong or None."""
    spoiled = dict(call.arguments)
    free = [name for name in spoiled if name not in call.fixed]
    chosen = r.sample(free, min(len(free), r.choice([0, 1, 1, 1, 1, 2])))
    kept = not call.hostile
    for name in chosen:
        spoiled[name], same = spoil(r, spoiled[name])
        kept = kept and same
    before = signal.signal(signal.SIGALRM, _alarm)
    signal.alarm(PATIENCE)
    try:
        outcome, fault = judge(call, spoiled, [*chosen, *call.hostile], kept)
    except Hang:
        outcome, fault = "hung", "no end after five minutes"
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)
    if fault:
        fault = f"call {index} ({target}, spoiled {chosen}): {fault}"
    return outcome, fault


def judge(call, arguments, chosen, kept):
    """What came of a call: the kind of outcome, and what is wrong with it, if anything."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            result = call.answer(call.function(**arguments))
        except (npple.Diverged, Stopped) as error:
            return f"refused: {type(error).__name__}", None
        except npple.NppleError as error:
            bad = _bad_refusal(call, error, chosen, arguments, kept)
            return f"refused: {type(error).__name__}", bad
        except Hang:
            raise
        except BaseException:
            return "failed", traceback.format_exc()
    other = [w for w in caught if not issubclass(w.category, RuntimeWarning)]
    if other:
        return "failed", f"warning: {other[0].category.__name__}: {other[0].message}"
    if not finite(result):
        if caught:
            return "answered: beyond the floats, with NumPy's warning", None
        if not finite([arguments.get(name) for name in ("params", "grads", "state", "tensors")]):
            return "answered: not finite, as the parameters", None
        return "failed", "silently not finite"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        if kept and not call.loose and not alike(result, call.answer(
                call.function(**call.arguments))):
            return "failed", "another answer for the same values"
    return "answered", None


def _bad_refusal(call, error, chosen, arguments, kept):
    message = str(error)
    if kept:
        return f"refused what is good: {message}"
    lines = message.splitlines()  # only this error takes a line for each fault
    lines = lines if isinstance(error, npple.errors.MappingError) else [message]
    if any(len(line.splitlines()) != 1 or len(line) > 1000 for line in lines):
        return f"not one line: {message!r}"
    words = [word for name in chosen for word in (name, *(call.names or {}).get(name, ()))]
    words += [word[:20] for text in map(arguments.get, chosen)
              if isinstance(text, str) and text.strip()  # a path is named by itself
              for word in (str(npple.NppleError(text)), shown(text))]
    if not any(word in message for word in words):
        return f"names none of {words}: {message}"
    return None


def parts(value, depth=0):
    """All arrays and numbers in a result."""
    if depth > 6:
        return
    if isinstance(value, (np.ndarray, np.generic, float, complex)):
        yield np.asarray(value)
    elif isinstance(value, (dict, npple.Trace)):
        for name in value:
            yield from parts(value[name], depth + 1)
    elif isinstance(value, (list, tuple)):
        for item in value:
            yield from parts(item, depth + 1)
    elif is_dataclass(value):
        for field in fields(value):
            yield from parts(getattr(value, field.name), depth + 1)


def finite(value):
    """Whether a result holds neither NaN nor infinity."""
    return all(np.isfinite(part).all() for part in parts(value) if part.dtype.kind in "fc")


def alike(a, b):
    """Whether two results hold the same numbers, but for the rounding of another order of sums."""
    pairs = list(zip(parts(a), parts(b), strict=True))
    return all(x.shape == y.shape and np.allclose(x, y, rtol=1e-3, atol=1e-5 * _size(y))
               for x, y in pairs if x.dtype.kind in "fciu")


def _size(a):
    return float(np.abs(a).max()) if a.size else 0.0


def campaign(targets, seed, calls):
    """Many calls -> tally by (target, outcome), and the faults."""
    tally, faults = Counter(), []
    for index in range(calls):
        target, outcome, fault = run(targets, seed, index)
        tally[target, outcome] += 1
        if fault:
            faults.append(fault)
    return tally, faults


def table(tally):
    """The tally as text: a line a target, a column an outcome."""
    outcomes = sorted({outcome for _, outcome in tally})
    lines = [f"{sum(tally.values()):>8,} calls"]
    for outcome in outcomes:
        lines.append(f"{sum(n for (_, o), n in tally.items() if o == outcome):>8,}  {outcome}")
    lines.append("")
    for target in sorted({target for target, _ in tally}):
        counts = [f"{tally[target, o]} {o.removeprefix('refused: ')}" for o in outcomes
                  if tally[target, o]]
        lines.append(f"{target:24} {', '.join(counts)}")
    return "\n".join(lines)
