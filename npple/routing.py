"""What one needs to write a routing table of one's own: the table and the kinds of rows."""

from npple.core.rows import (Concat, Experts, Fusion, Gate, Pass, Pool, Route, Row, Source, Stitch,
                             Tower)
from npple.core.table import Level, Table

__all__ = ["Concat", "Experts", "Fusion", "Gate", "Level", "Pass", "Pool", "Route", "Row", "Source",
           "Stitch", "Table", "Tower"]
