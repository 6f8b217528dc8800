"""The closed loop of a mixture search: ask, train, tell, refine, recommend, confirm."""

from bimix_tune.loop.closed_loop import search
from bimix_tune.loop.result import Comparison, Confirmation, RunRecord, SearchResult
from bimix_tune.loop.state import SearchState

__all__ = ["Comparison", "Confirmation", "RunRecord", "SearchResult", "SearchState", "search"]
