"""benchmarks/throughput.py: that what it times as ours learns what the peers learn."""

import importlib.util
from pathlib import Path
from types import ModuleType

import pytest
import torch
from torch.nn import functional as F

SCRIPT = Path(__file__).parents[3] / "benchmarks" / "throughput.py"


@pytest.fixture
def throughput(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    spec = importlib.util.spec_from_file_location("throughput", SCRIPT)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    monkeypatch.setattr(module, "TASKS", 2)
    return module


@pytest.mark.parametrize("workload", ["protonet", "protonet-together", "anil", "fomaml", "maml"])
def test_the_loss_is_that_of_the_network_as_everybody_writes_it(throughput: ModuleType, workload: str) -> None:
    t = throughput
    support, query = t.episodes(0, "cpu")
    step = t.ours(workload, "cpu")
    losses = [step(support, query) for _ in range(3)]
    assert losses[2] < losses[0]

    answers = t.targets(t.QUERY, "cpu")
    expected = 0.0
    for s, q in zip(support, query, strict=True):
        network = t.Classifier(t.Vectors(t.started(t.PlainConv4()))).train()
        weights = t.first_weights()["head"] if "maml" in workload else torch.zeros(t.WAY, t.WIDTH)
        with torch.no_grad():
            network.head.weight.copy_(weights)
            network.head.bias.zero_()
        if workload in ("fomaml", "maml"):
            loss = F.cross_entropy(network(s), t.targets(t.SHOT, "cpu"))
            for parameter, slope in zip(
                network.parameters(), torch.autograd.grad(loss, list(network.parameters())), strict=True
            ):
                parameter.data.sub_(t.MAML_RATE * slope)
            logits = network(q)
        elif workload == "anil":
            vectors = network.features(torch.cat([s, q])).detach()
            for _ in range(t.ANIL_STEPS):
                loss = F.cross_entropy(network.head(vectors[: len(s)]), t.targets(t.SHOT, "cpu"))
                for parameter, slope in zip(
                    network.head.parameters(), torch.autograd.grad(loss, list(network.head.parameters())), strict=True
                ):
                    parameter.data.sub_(t.ANIL_RATE * slope)
            logits = network.head(vectors[len(s) :])
        else:
            together = network.features(torch.cat([s, q])).split([len(s), len(q)])
            own, asked = together if workload == "protonet-together" else (network.features(s), network.features(q))
            logits = -torch.cdist(asked, own).square()
        expected += F.cross_entropy(logits, answers).item() / t.TASKS
    assert losses[0] == pytest.approx(expected, abs=1e-4)


def test_the_operations_are_counted(throughput: ModuleType) -> None:
    once, twice = ({kind: n for kind in ("forward", "weight", "input")} for n in (1, 3))
    assert throughput.convolutions("anil") == [(80, 2, once)]
    assert throughput.convolutions("fomaml") == [(5, 2, once), (75, 2, once)]
    assert throughput.convolutions("maml") == [(5, 2, twice), (75, 2, once)]
