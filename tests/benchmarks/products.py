"""Each peer's own matrix product at the shapes of the benchmark: what part of a lead is its BLAS.

    python tests/benchmarks/products.py

Milliseconds, medians, of x W with all experts that read the input side by side, batch x in x out;
NumPy's OpenBLAS, PyTorch's MKL, JAX's own.
"""

import argparse
from functools import partial

import numpy as np
from timing import machine, measure, save, table, threads_here, with_threads

SHAPES = {"256x128x64": (256, 128, 576), "1024x512x256": (1024, 512, 2304),
          "4096x512x256": (4096, 512, 2304), "5 tasks": (1024, 240, 768)}


def main():
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--threads", nargs="+", type=int, default=[2])
    add("--seconds", type=float, default=1.0, help="for each peer and shape")
    add("--json", help="a file for the results")
    args = parser.parse_args()
    save(args.json, with_threads(lambda: run(args), args.threads))


def run(args):
    """All products with the threads of this process -> a list of dicts."""
    found = []
    for dtype in ("float32", "float64"):
        for shape, (batch, width, units) in SHAPES.items():
            rng = np.random.default_rng(0)
            x, w = (rng.normal(size=size).astype(dtype)
                    for size in ((batch, width), (width, units)))
            runs = {"numpy": partial(np.matmul, x, w, out=np.empty((batch, units), dtype)),
                    "torch": of_torch(x, w), "jax": of_jax(x, w)}
            found.append({"threads": threads_here(), "dtype": dtype, "shape": shape,
                          "seconds": measure(runs, args.seconds)})
    print(f"\nOne product, threads: {threads_here()}; milliseconds\n\n{as_table(found)}\n"
          f"{machine()}")
    return found


def of_torch(x, w):
    """The product into a tensor made beforehand."""
    import torch
    x, w = torch.from_numpy(x), torch.from_numpy(w)
    return partial(torch.mm, x, w, out=x @ w)


def of_jax(x, w):
    """The product, compiled."""
    import jax
    jax.config.update("jax_enable_x64", True)
    x, w, product = jax.numpy.asarray(x), jax.numpy.asarray(w), jax.jit(jax.numpy.matmul)
    return lambda: product(x, w).block_until_ready()


def as_table(results):
    """One row for each shape: milliseconds, and the peers' time over NumPy's."""
    rows = [[f"{result['shape']}, {result['dtype']}", *(1e3 * t for t in seconds.values()),
             seconds["torch"] / seconds["numpy"], seconds["jax"] / seconds["numpy"]]
            for result in results for seconds in [result["seconds"]]]
    return table(["product", "NumPy", "PyTorch", "JAX", "PyTorch/NumPy", "JAX/NumPy"], rows)


if __name__ == "__main__":
    main()
