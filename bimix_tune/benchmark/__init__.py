"""How well laws predict runs that they have not seen, on swarms of finished runs.

Each law, and other people's models beside them (`bimix_tune.benchmark.peers`), is fitted to a
few random runs of a swarm and judged by the others; all get the same draws.
"""

from bimix_tune.benchmark.law_comparison import compare_laws, contenders
from bimix_tune.benchmark.results import Result, read_results
from bimix_tune.benchmark.summary import Summary, markdown, summarise
from bimix_tune.benchmark.swarms import Swarm, load_swarms, swarms_of, synthetic_swarm

__all__ = [
    "Result",
    "Summary",
    "Swarm",
    "compare_laws",
    "contenders",
    "load_swarms",
    "markdown",
    "read_results",
    "summarise",
    "swarms_of",
    "synthetic_swarm",
]
