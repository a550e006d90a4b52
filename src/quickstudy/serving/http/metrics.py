"""What Prometheus reads: how much was asked, how long it took, and what answers now. No tenant or content is named."""

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, Info

SECONDS = (0.002, 0.005, 0.01, 0.02, 0.03, 0.05, 0.075, 0.1, 0.2, 0.5, 1, 2, 5, 10, 30)
SIZES = (1, 2, 4, 8, 16, 32, 64, 128, 256)


class Metrics:
    """Counts for one service."""

    def __init__(self) -> None:
        self.registry = own = CollectorRegistry()
        self.requests = Counter("quickstudy_requests", "Requests answered", ["method", "route", "status"], registry=own)
        self.seconds = Histogram(
            "quickstudy_request_seconds", "Time to answer", ["method", "route"], buckets=SECONDS, registry=own
        )
        self.batch = Histogram(
            "quickstudy_batch_inputs", "Inputs that were encoded together", buckets=SIZES, registry=own
        )
        self.adapted = Counter("quickstudy_tasks_adapted", "Times that a task was adapted", registry=own)
        self.at_hand = Gauge("quickstudy_tasks_at_hand", "Adapted tasks kept in memory", registry=own)
        self.queries = Counter("quickstudy_queries", "Queries answered", ["verdict"], registry=own)
        self.model = Info("quickstudy_model", "The model that answers", registry=own)
        self.reloads = Counter("quickstudy_reloads", "Models that took over", ["outcome"], registry=own)
        self.shadow = Counter(
            "quickstudy_shadow_queries", "Queries that the challenger answered too", ["outcome"], registry=own
        )
