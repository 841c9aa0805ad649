"""Runs inside Flower's environment: LEAF's CNN, 10 of 100 clients a round, Ray's simulation."""

import json
import os
import sys
import time

os.environ.setdefault("FLWR_TELEMETRY_ENABLED", "0")
os.environ.setdefault("RAY_DEDUP_LOGS", "0")

import numpy as np
from flwr.client import ClientApp, NumPyClient
from flwr.common import ndarrays_to_parameters
from flwr.server import ServerApp, ServerAppComponents, ServerConfig
from flwr.server.strategy import FedAvg
from flwr.simulation import run_simulation

PATH, MODEL, ROUNDS, COHORT, WORKERS = sys.argv[1], sys.argv[2], *map(int, sys.argv[3:6])


def resident():
    """Model and data of this process, made once: in Flower's favour."""
    import builtins

    import torch

    # Ray sends this file's functions by value: a global of theirs would be new for every client.
    kept = builtins.__dict__.setdefault("xbfl_kept", {})
    if not kept:
        torch.set_num_threads(1)
        data, space = np.load(PATH), {}
        exec(open(MODEL).read(), space)
        kept["net"] = space["leaf_cnn"]()
        kept["x"], kept["y"] = torch.from_numpy(data["x"]), torch.from_numpy(data["y"])
        kept["ends"] = data["ends"]
    return kept


class Client(NumPyClient):
    def __init__(self, number):
        self.number = number

    def fit(self, parameters, config):
        import torch

        kept = resident()
        net, ends = kept["net"], kept["ends"]
        with torch.no_grad():
            for value, array in zip(net.parameters(), parameters):
                value.copy_(torch.from_numpy(array))
        start = int(ends[self.number - 1]) if self.number else 0
        x, y = kept["x"][start : int(ends[self.number])], kept["y"][start : int(ends[self.number])]
        optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
        for rows in torch.randperm(len(y)).split(20):
            optimizer.zero_grad()
            torch.nn.functional.cross_entropy(net(x[rows]), y[rows]).backward()
            optimizer.step()
        return [value.detach().numpy() for value in net.parameters()], len(y), {}


def tree_bytes():
    """Proportional memory of this process and its children."""
    total, stack = 0, [os.getpid()]
    while stack:
        pid = stack.pop()
        try:
            for line in open(f"/proc/{pid}/smaps_rollup"):
                if line.startswith("Pss:"):
                    total += int(line.split()[1]) * 1024
            for task in os.listdir(f"/proc/{pid}/task"):
                stack += map(int, open(f"/proc/{pid}/task/{task}/children").read().split())
        except OSError:
            continue
    return total


class Clocked(FedAvg):
    stamps: list = []
    memory = 0

    def aggregate_fit(self, server_round, results, failures):
        assert not failures, failures[0]
        answer = super().aggregate_fit(server_round, results, failures)
        examples = sum(result.num_examples for _, result in results)
        self.stamps.append((time.perf_counter(), 0.0, examples))
        if server_round == ROUNDS:
            # Before Ray's processes end, and after the last time that counts.
            Clocked.memory = tree_bytes()
        return answer


def server(_):
    net = resident()["net"]
    strategy = Clocked(
        fraction_fit=COHORT / 100,
        fraction_evaluate=0.0,
        min_available_clients=100,
        initial_parameters=ndarrays_to_parameters([value.detach().numpy() for value in net.parameters()]),
    )
    return ServerAppComponents(strategy=strategy, config=ServerConfig(num_rounds=ROUNDS))


run_simulation(
    server_app=ServerApp(server_fn=server),
    client_app=ClientApp(
        client_fn=lambda context: Client(int(context.node_config["partition-id"])).to_client()
    ),
    num_supernodes=100,
    backend_config={"client_resources": {"num_cpus": 1}, "init_args": {"num_cpus": WORKERS}},
)
seen, stamps = 0, []
for at, cpu, count in Clocked.stamps:
    seen += count
    stamps.append((at, cpu, seen))
print(json.dumps({"stamps": stamps, "memory": Clocked.memory}), flush=True)
