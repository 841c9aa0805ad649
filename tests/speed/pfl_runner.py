"""Runs inside pfl's environment, one process per worker: LEAF's CNN, 10 of 100 clients a round."""

import json
import sys
import time

import numpy as np
import torch
from pfl.aggregate.simulate import SimulatedBackend
from pfl.algorithm.base import NNAlgorithmParams
from pfl.algorithm.federated_averaging import FederatedAveraging
from pfl.callback.base import TrainingProcessCallback
from pfl.data.dataset import Dataset
from pfl.data.federated_dataset import FederatedDataset
from pfl.data.sampling import get_user_sampler
from pfl.hyperparam.base import NNEvalHyperParams, NNTrainHyperParams
from pfl.metrics import Metrics, Weighted
from pfl.model.pytorch import PyTorchModel
from torch import nn

torch.set_num_threads(1)
path, model_file, rounds, cohort = sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4])
data = np.load(path)
names = [str(i) for i in range(len(data["ends"]))]
starts = np.concatenate([[0], data["ends"][:-1]])
inputs, targets = torch.from_numpy(data["x"]), torch.from_numpy(data["y"])
seen = 0
stamps = []

space: dict = {}
exec(open(model_file).read(), space)


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.net = space["leaf_cnn"]()

    def forward(self, x):
        return self.net(x)

    def loss(self, x, y, **_):
        self.train()
        return nn.functional.cross_entropy(self(x), y)

    def metrics(self, x, y, **_):
        return {"count": Weighted(len(y), 1)}


class Counting(FederatedAveraging):
    def train_one_user(self, state, model, user_dataset, context):
        global seen
        seen += len(user_dataset)
        return super().train_one_user(state, model, user_dataset, context)


class Clock(TrainingProcessCallback):
    def after_central_iteration(self, aggregate_metrics, model, *, central_iteration):
        stamps.append((time.perf_counter(), time.process_time(), seen))
        return False, Metrics()


def dataset(name):
    rows = slice(int(starts[int(name)]), int(data["ends"][int(name)]))
    return Dataset(raw_data=[inputs[rows], targets[rows]], user_id=name)


net = Net()
model = PyTorchModel(
    model=net,
    local_optimizer_create=torch.optim.SGD,
    central_optimizer=torch.optim.SGD(net.parameters(), lr=1.0),
)
sizes = {name: int(end - start) for name, start, end in zip(names, starts, data["ends"])}
users = FederatedDataset(dataset, get_user_sampler("random", names), user_id_to_weight=sizes)
backend = SimulatedBackend(training_data=users, val_data=users)
Counting().run(
    algorithm_params=NNAlgorithmParams(
        central_num_iterations=rounds,
        evaluation_frequency=1_000_000,  # only the first round, which does not count
        train_cohort_size=cohort,
        val_cohort_size=0,
    ),
    backend=backend,
    model=model,
    model_train_params=NNTrainHyperParams(local_num_epochs=1, local_learning_rate=0.1, local_batch_size=20),
    model_eval_params=NNEvalHyperParams(local_batch_size=None),
    callbacks=[Clock()],
)
proportional = next(line for line in open("/proc/self/smaps_rollup") if line.startswith("Pss:"))
print(json.dumps({"stamps": stamps, "memory": int(proportional.split()[1]) * 1024}), flush=True)
