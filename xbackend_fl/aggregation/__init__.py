"""Backend-neutral merging of updates."""

from xbackend_fl.aggregation.bench import bench_mean
from xbackend_fl.aggregation.online import OnlineMean, Precision, Sums
from xbackend_fl.aggregation.optimizers import ServerOptimizer, State

__all__ = ["OnlineMean", "Precision", "ServerOptimizer", "State", "Sums", "bench_mean"]
