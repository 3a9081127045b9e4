"""A report in one line: what `pytest -rP tests/peers` shows and docs/conformance.md quotes."""


def shown(report):
    """The report, after printing its verdict and numbers."""
    print(f"{len(report.rows)} tensors, {report.precision}: ", end="")
    if report.passed:
        print(f"passed, largest error {max(row.error for row in report.rows):.1e}")
    else:
        error = next(row.error for row in report.rows if not row.passed)
        print(f"first divergence {report.first_divergence}, error {error:.1e}, it is "
              f"{[diagnosis.names for diagnosis in report.diagnosis]}")
    return report
