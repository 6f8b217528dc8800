"""The closed loop of a mixture search: ask, train, tell, refine, recommend, confirm."""

from bimix_tune.loop.closed_loop import SearchState, search
from bimix_tune.loop.result import Comparison, Confirmation, RunRecord, SearchResult

__all__ = ["Comparison", "Confirmation", "RunRecord", "SearchResult", "SearchState", "search"]
