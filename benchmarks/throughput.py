"""Training steps a second beside easy-few-shot-learning and learn2learn, with the same mathematics.

    .venv/bin/python benchmarks/throughput.py [--peers ../.peers/bin/python] [--only protonet …] [--rounds 7]
    .venv/bin/python benchmarks/throughput.py --quick      ours beside itself, one round: does it run?

A step is forward, backward and Adam for a meta-batch of 16 tasks: Conv4-64 (four blocks of 3×3 convolution to 64
channels, batch norm, ReLU and 2×2 pooling), 28×28×1, 5-way 1-shot, 15 queries a class, float32, two threads. Images are
made up, and the same for all; so are the first weights. The losses of the first step, and of all, are compared: of two
patches that are nearly alike, rounding decides which one max pooling takes, and so which weights the next step has.

The peers need an environment of their own (learn2learn 0.2.0 has no wheel for this Python, and its Cython files must be
translated anew):

    python3 -m venv ../.peers && ../.peers/bin/pip install torch==2.13.0 torchvision==0.28.0 easyfsl==1.5.0 "Cython<3.1"
    ../.peers/bin/pip download --no-deps --no-binary :all: learn2learn==0.2.0 && tar xf learn2learn-0.2.0.tar.gz
    cd learn2learn-0.2.0 && ../../.peers/bin/cython -3 learn2learn/data/*.pyx && ../../.peers/bin/pip install .

Each peer runs as in its own examples: one task after the other, the gradients of the tasks added up.

- protonet, easyfsl: `process_support_set`, then the classifier on the queries, so that support and queries are
  normalised apart. Its distance is squared, as in the paper and in ours.
- protonet, learn2learn: examples/vision/protonet_miniimagenet.py; support and queries go through the network together.
- anil: examples/vision/anil_fc100.py; 5 steps of 0.1 on the head, which starts at 0 in both and is left there by Adam.
- fomaml, maml: examples/vision/maml_omniglot.py; one step of 0.5 on all weights, of a network that ends in a linear
  layer (ours: `Maml(way=5)`), and queries normalised by their own statistics. maml is the second order.

In all of them the vectors that reach the head have the length √τ, as ours always have.

"allowed" is what this machine's convolutions allow: the time that the step's convolutions take alone, one after the
other, each in its faster layout and at the faster of two batch sizes, divided by the time of the step. "malloc" is the
gain that the settings of the allocator bring (quickstudy.system.environment), which ours has, and a peer in its own
process has not; the last ratio is the one in which the peer has them too. Memory is the peak of the process, and in
brackets what it has before the first step.
"""

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

TASKS, WAY, SHOT, QUERY, WIDTH, SIZE = 16, 5, 1, 15, 64, 28
TAU = 10.0
ANIL_STEPS, ANIL_RATE = 5, 0.1
MAML_STEPS, MAML_RATE = 1, 0.5
LEARNING_RATE = 0.001
WORKLOADS = {  # name: peer, mark
    "protonet": ("easyfsl", 2.3),
    "protonet-together": ("learn2learn", 2.3),
    "anil": ("learn2learn", 2.3),
    "fomaml": ("learn2learn", 2.3),
    "maml": ("learn2learn", 2.3),
}

Step = Callable[[Tensor, Tensor], float]
"""Support [B, N·K, 1, S, S] and queries [B, N·Q, 1, S, S], rows class by class → the loss before the step."""


def episodes(step: int, device: str) -> tuple[Tensor, Tensor]:
    """A meta-batch: of each class a coarse random picture, and noise over it."""
    generator = torch.Generator().manual_seed(step)
    coarse = torch.rand(TASKS * WAY, 1, 7, 7, generator=generator)
    pictures = F.interpolate(coarse, SIZE, mode="bilinear").view(TASKS, WAY, 1, 1, SIZE, SIZE)
    images = pictures + 0.5 * torch.rand(TASKS, WAY, SHOT + QUERY, 1, SIZE, SIZE, generator=generator)
    return images[:, :, :SHOT].flatten(1, 2).to(device), images[:, :, SHOT:].flatten(1, 2).to(device)


def first_weights() -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(0)
    weights = {}
    for i in range(4):
        inside = WIDTH if i else 1
        weights[f"conv{i}"] = torch.randn(WIDTH, inside, 3, 3, generator=generator) * (9 * inside) ** -0.5
        weights[f"gain{i}"] = torch.rand(WIDTH, generator=generator) + 0.5
    weights["head"] = torch.randn(WAY, WIDTH, generator=generator) * WIDTH**-0.5
    return weights


def targets(shot: int, device: str) -> Tensor:
    return torch.arange(WAY, device=device).repeat_interleave(shot)


# Ours


def ours(workload: str, device: str) -> Step:
    from quickstudy.config import load_settings
    from quickstudy.encoders.blocks import ConvBlock, ConvBlocks, Modulation
    from quickstudy.encoders.image import ImageEncoder
    from quickstudy.kinds.task import TaskBatch
    from quickstudy.learners.anil import Anil
    from quickstudy.learners.maml import Maml
    from quickstudy.model.metamodel import MetaModel

    class Conv4(ImageEncoder):
        def __init__(self) -> None:
            super().__init__(settings.inputs.image)
            self.blocks = ConvBlocks(*[ConvBlock(WIDTH if i else 1, WIDTH) for i in range(4)])
            self.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

        def forward(self, images: Tensor, modulation: Modulation | None = None) -> Tensor:
            return self.blocks(images, modulation).flatten(1)

    settings = load_settings(Path(__file__).parents[1] / "params.yaml")
    model = MetaModel(settings.inputs, settings.model.model_copy(update={"learner": "protonet"}), ["image"])
    encoder = Conv4()
    model.encoders = nn.ModuleDict({"image": encoder})
    weights = first_weights()
    with torch.no_grad():
        for i, block in enumerate(encoder.blocks):
            block[0].weight.copy_(weights[f"conv{i}"])
            block[1].weight.copy_(weights[f"gain{i}"])
    trained = [*encoder.parameters(), *model.log_tau.parameters()]
    if workload == "anil":
        model.learner = Anil(WIDTH, ANIL_STEPS)
        with torch.no_grad():
            model.learner.start_alpha.zero_()
            model.learner.alpha.fill_(ANIL_RATE * TAU / (WAY * SHOT))  # ours is divided by τ, and theirs by N · K
        trained = list(encoder.parameters())
    elif workload in ("fomaml", "maml"):
        model.learner = Maml(WIDTH, model.encoders, MAML_STEPS, workload == "maml", WAY)
        own = model.learner.own["image"]
        with torch.no_grad():
            own.linear.weight.copy_(weights["head"])
            own.linear.bias.zero_()
            for alpha in own.alphas.parameters():
                alpha.requires_grad_(False).fill_(MAML_RATE)
        trained = [*encoder.parameters(), own.log_tau, *own.linear.parameters()]
    model.to(device).train()
    adam = torch.optim.Adam(trained, LEARNING_RATE)
    taught, answers = targets(SHOT, device), targets(QUERY, device)

    def step(support: Tensor, query: Tensor) -> float:
        adam.zero_grad()
        total = torch.zeros((), device=device)
        for i in range(TASKS):
            task = TaskBatch("image", support[i : i + 1], query[i : i + 1], WAY, taught[None], answers[None])
            if workload == "protonet":
                state = model.adapt("image", task.support, task.support_targets, WAY)
                logits = model.score("image", state, task.query)
            else:
                logits = model([task])[0]
            loss = F.cross_entropy(logits.flatten(0, 1), answers)
            (loss / TASKS).backward()
            total += loss.detach() / TASKS
        adam.step()
        return total.item()

    return step


# The peers


def import_torchvision() -> None:
    """Both peers import it, and need none of it. One that was built for another torch lacks two operators."""
    operators = torch.library.Library("torchvision", "FRAGMENT")
    try:
        import torchvision
    except RuntimeError:
        for name in ("nms", "qnms"):
            operators.define(f"{name}(Tensor boxes, Tensor scores, float iou_threshold) -> Tensor")
    import torchvision  # noqa: F401


class PlainConv4(nn.Sequential):
    """As everybody writes it."""

    def __init__(self) -> None:
        super().__init__(
            *[
                nn.Sequential(
                    nn.Conv2d(WIDTH if i else 1, WIDTH, 3, padding=1), nn.BatchNorm2d(WIDTH), nn.ReLU(), nn.MaxPool2d(2)
                )
                for i in range(4)
            ],
            nn.Flatten(),
        )


class Vectors(nn.Module):
    """A network's vectors, of the length √τ."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network, self.log_tau = network, nn.Parameter(torch.tensor(TAU).log())

    def forward(self, x: Tensor) -> Tensor:
        return F.normalize(self.network(x), dim=-1) * (self.log_tau / 2).exp()


class Classifier(nn.Module):
    def __init__(self, features: nn.Module) -> None:
        super().__init__()
        self.features, self.head = features, nn.Linear(WIDTH, WAY)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.features(x))


def started(network: nn.Module) -> nn.Module:
    weights = first_weights()
    convolutions = [layer for layer in network.modules() if isinstance(layer, nn.Conv2d)]
    norms = [layer for layer in network.modules() if isinstance(layer, nn.BatchNorm2d)]
    with torch.no_grad():
        for i, (conv, norm) in enumerate(zip(convolutions, norms, strict=True)):
            conv.weight.copy_(weights[f"conv{i}"])
            norm.weight.copy_(weights[f"gain{i}"])
    return network


def easyfsl(workload: str, device: str) -> Step:
    import_torchvision()
    from easyfsl.methods import PrototypicalNetworks

    class Squared(PrototypicalNetworks):
        def l2_distance_to_prototypes(self, samples: Tensor) -> Tensor:
            return -super().l2_distance_to_prototypes(samples).square()

    classifier = Squared(Vectors(started(PlainConv4()))).to(device).train()
    adam = torch.optim.Adam(classifier.parameters(), LEARNING_RATE)
    labels, answers = targets(SHOT, device), targets(QUERY, device)

    def step(support: Tensor, query: Tensor) -> float:
        adam.zero_grad()
        total = 0.0
        for i in range(TASKS):
            classifier.process_support_set(support[i], labels)
            loss = F.cross_entropy(classifier(query[i]), answers)
            loss.backward()
            total += loss.item()
        for parameter in classifier.parameters():
            parameter.grad.mul_(1.0 / TASKS)
        adam.step()
        return total / TASKS

    return step


def learn2learn(workload: str, device: str) -> Step:
    import_torchvision()
    import learn2learn as l2l

    features = Vectors(started(l2l.vision.models.CNN4Backbone(hidden_size=WIDTH, channels=1, max_pool=True)))
    labels, answers = targets(SHOT, device), targets(QUERY, device)
    trained = list(features.parameters())
    maml: Any = None
    if workload == "anil":
        head = nn.Linear(WIDTH, WAY)
        nn.init.zeros_(head.weight)
        nn.init.zeros_(head.bias)
        maml = l2l.algorithms.MAML(head, lr=ANIL_RATE)
        trained = list(features.network.parameters())
    elif workload in ("fomaml", "maml"):
        network = Classifier(features)
        with torch.no_grad():
            network.head.weight.copy_(first_weights()["head"])
            network.head.bias.zero_()
        maml = l2l.algorithms.MAML(network, lr=MAML_RATE, first_order=workload == "fomaml")
        trained = list(maml.parameters())
    for module in (features, maml):
        if module is not None:
            module.to(device).train()
    adam = torch.optim.Adam(trained, LEARNING_RATE)

    def protonet(support: Tensor, query: Tensor) -> Tensor:
        embeddings = features(torch.cat([support, query]))
        prototypes = embeddings[: WAY * SHOT].reshape(WAY, SHOT, -1).mean(dim=1)
        a, b = embeddings[WAY * SHOT :], prototypes
        n, m = a.shape[0], b.shape[0]
        logits = -((a.unsqueeze(1).expand(n, m, -1) - b.unsqueeze(0).expand(n, m, -1)) ** 2).sum(dim=2)
        return F.cross_entropy(logits, answers)

    def anil(support: Tensor, query: Tensor) -> Tensor:
        learner = maml.clone()
        embeddings = features(torch.cat([support, query]))
        for _ in range(ANIL_STEPS):
            learner.adapt(F.cross_entropy(learner(embeddings[: WAY * SHOT]), labels))
        return F.cross_entropy(learner(embeddings[WAY * SHOT :]), answers)

    def all_weights(support: Tensor, query: Tensor) -> Tensor:
        learner = maml.clone()
        for _ in range(MAML_STEPS):
            learner.adapt(F.cross_entropy(learner(support), labels))
        return F.cross_entropy(learner(query), answers)

    task = {"protonet-together": protonet, "anil": anil}.get(workload, all_weights)

    def step(support: Tensor, query: Tensor) -> float:
        adam.zero_grad()
        total = 0.0
        for i in range(TASKS):
            loss = task(support[i], query[i])
            loss.backward()
            total += loss.item()
        for parameter in trained:
            parameter.grad.mul_(1.0 / TASKS)
        adam.step()
        return total / TASKS

    return step


# What the convolutions allow


def convolutions(workload: str) -> list[tuple[int, int, dict[str, int]]]:
    """Rows of one pass, passes a step, and how many convolutions of each kind a layer has in a pass: forward, gradient
    by the weight, gradient by the input. A layer that reads images has none of the last, nor what comes from it."""
    support, query = WAY * SHOT, WAY * QUERY
    once = {"forward": 1, "weight": 1, "input": 1}
    twice = {"forward": 3, "weight": 3, "input": 3}  # both gradients, too, have two gradients each
    if workload in ("protonet-together", "anil"):
        return [(support + query, TASKS, once)]
    return [(support, TASKS, twice if workload == "maml" else once), (query, TASKS, once)]


def measure_convolutions(workloads: list[str], device: str) -> dict[str, dict[str, float]]:
    """Of each workload the number of operations of a step's convolutions, and the seconds that they take alone."""
    known: dict[tuple[int, int, int, str], float] = {}

    def timed(run: Callable[[], object]) -> float:
        times = []
        for _ in range(7):
            _wait(device)
            begin = time.perf_counter()
            run()
            _wait(device)
            times.append(time.perf_counter() - begin)
        return statistics.median(times[2:])

    def fastest(rows: int, inside: int, size: int, kind: str) -> float:
        """Seconds a row."""
        if (rows, inside, size, kind) in known:
            return known[rows, inside, size, kind]
        best = float("inf")
        for n in (rows, rows * TASKS):
            for last in (True, False):

                def laid(*shape: int, last: bool = last) -> Tensor:
                    b, c, h, w = shape
                    return (
                        torch.rand(b, h, w, c, device=device).permute(0, 3, 1, 2)
                        if last
                        else torch.rand(shape, device=device)
                    )

                x, weight, g = laid(n, inside, size, size), laid(WIDTH, inside, 3, 3), laid(n, WIDTH, size, size)
                if kind == "forward":
                    seconds = timed(lambda x=x, weight=weight: F.conv2d(x, weight, None, 1, 1))
                else:
                    wanted = [kind == "input", kind == "weight", False]
                    seconds = timed(
                        lambda x=x, weight=weight, g=g, wanted=wanted: torch.ops.aten.convolution_backward(
                            g, x, weight, None, [1, 1], [1, 1], [1, 1], False, [0, 0], 1, wanted
                        )
                    )
                best = min(best, seconds / n)
        known[rows, inside, size, kind] = best
        return best

    result = {}
    for workload in workloads:
        operations, seconds = 0.0, 0.0
        for rows, passes, kinds in convolutions(workload):
            for i, size in enumerate((28, 14, 7, 3)):
                inside = WIDTH if i else 1
                counts = kinds if i else {"forward": (kinds["forward"] + 1) // 2, "weight": (kinds["weight"] + 1) // 2}
                for kind, count in counts.items():
                    operations += count * passes * rows * 2 * 9 * inside * WIDTH * size**2
                    seconds += count * passes * rows * fastest(rows, inside, size, kind)
        result[workload] = {"operations": operations, "seconds": seconds}
    return result


def _wait(device: str) -> None:
    if device == "cuda":
        torch.cuda.synchronize()


# A process for each; this one asks them in turn


def work(who: str, workload: str, device: str) -> None:
    """Answer each line of standard input, the number of a step, with the time and the loss of that step."""
    torch.set_num_threads(2)
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)  # what a library prints
    if who == "convolutions":
        answers.write(json.dumps(measure_convolutions(workload.split(","), device)) + "\n")
        return
    step = {"ours": ours, "easyfsl": easyfsl, "learn2learn": learn2learn}[who](workload, device)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for line in sys.stdin:
        support, query = episodes(int(line), device)
        _wait(device)
        begin = time.perf_counter()
        loss = step(support, query)
        _wait(device)
        seconds = time.perf_counter() - begin
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        answers.write(json.dumps({"seconds": seconds, "loss": loss, "peak": peak, "before": before}) + "\n")


class Worker:
    def __init__(self, python: str, who: str, workload: str, device: str, malloc: bool):
        from quickstudy.system.environment import DEFAULTS, MALLOC

        kept = {name: value for name, value in os.environ.items() if name not in MALLOC and name != "GOMP_SPINCOUNT"}
        own = {"GOMP_SPINCOUNT": DEFAULTS["GOMP_SPINCOUNT"]} if who in ("ours", "convolutions") else {}
        self.process = subprocess.Popen(
            [python, __file__, "--work", who, workload, "--device", device],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            bufsize=1,
            env=kept | own | (_malloc() if malloc else {}),
        )
        self.answers: list[dict[str, float]] = []

    def ask(self, step: int) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(f"{step}\n")
        self.answers.append(self.read())

    def read(self) -> Any:
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        if not line:
            raise SystemExit(f"{' '.join(map(str, self.process.args))} ended early")  # type: ignore[arg-type]
        return json.loads(line)

    def end(self) -> None:
        assert self.process.stdin is not None
        self.process.stdin.close()
        self.process.wait()

    def milliseconds(self, warm: int = 2) -> float:
        return 1000 * statistics.median(answer["seconds"] for answer in self.answers[warm:])

    def megabytes(self, what: str) -> float:
        return max(answer[what] for answer in self.answers) / 1024


def _malloc() -> dict[str, str]:
    from quickstudy.system import environment

    return environment._malloc()


def compare(workload: str, peers: str | None, rounds: int, device: str, allowed: dict[str, float]) -> dict[str, Any]:
    peer, mark = WORKLOADS[workload]
    mine = [Worker(sys.executable, "ours", workload, device, malloc) for malloc in (True, False)]
    theirs = [Worker(peers or sys.executable, peer if peers else "ours", workload, device, m) for m in (False, True)]
    try:
        for step in range(rounds + 2):  # two to warm up
            for worker in (theirs[0], mine[0], theirs[1], mine[1]):
                worker.ask(step)
    finally:
        for worker in (*mine, *theirs):
            worker.end()
    ms = mine[0].milliseconds()
    differences = [abs(a["loss"] - b["loss"]) for a, b in zip(mine[0].answers, theirs[0].answers, strict=True)]
    return {
        "workload": workload,
        "peer": peer if peers else "ours",
        "mark": mark,
        "ms": ms,
        "peer ms": theirs[0].milliseconds(),
        "episodes/s": TASKS / ms * 1000,
        "ratio": theirs[0].milliseconds() / ms,
        "ratio, peer with malloc settings": theirs[1].milliseconds() / ms,
        "malloc gain": mine[1].milliseconds() / ms,
        "malloc gain of peer": theirs[0].milliseconds() / theirs[1].milliseconds(),
        "first losses": [mine[0].answers[0]["loss"], theirs[0].answers[0]["loss"]],
        "last losses": [mine[0].answers[-1]["loss"], theirs[0].answers[-1]["loss"]],
        "largest difference of losses": max(differences),
        "difference of the first": differences[0],
        "GFLOP": allowed["operations"] / 1e9,
        "GFLOP/s": allowed["operations"] / ms / 1e6,
        "GFLOP/s allowed": allowed["operations"] / allowed["seconds"] / 1e9,
        "share": allowed["seconds"] / ms * 1000,
        "peak MB": mine[0].megabytes("peak"),
        "before MB": mine[0].megabytes("before"),
        "peer peak MB": theirs[0].megabytes("peak"),
        "peer before MB": theirs[0].megabytes("before"),
    }


HEAD = f"{'':18} {'peer':11} {'ms':>6} {'peer':>6} {'ratio':>6} {'malloc':>6} {'last':>5} {'ep./s':>6} {'GFLOP/s':>8} {'allowed':>8}  {'MB':>10} {'peer':>10}  losses"  # noqa: E501


def row(r: dict[str, Any]) -> str:
    return (
        f"{r['workload']:18} {r['peer']:11} {r['ms']:6.0f} {r['peer ms']:6.0f} {r['ratio']:6.2f} "
        f"{r['malloc gain']:6.2f} {r['ratio, peer with malloc settings']:5.2f} {r['episodes/s']:6.1f} "
        f"{r['GFLOP/s']:8.0f} {r['share']:8.0%}  {r['peak MB']:4.0f} ({r['before MB']:.0f}) {r['peer peak MB']:4.0f} "
        f"({r['peer before MB']:.0f})  {r['first losses'][0]:.5f} and {r['first losses'][1]:.5f}, "
        f"{r['difference of the first']:.0e} apart; later at most {r['largest difference of losses']:.0e}"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--peers", default="../.peers/bin/python", help="the Python of the peers' environment")
    parser.add_argument("--only", nargs="+", choices=WORKLOADS, default=list(WORKLOADS))
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--quick", action="store_true", help="ours beside itself, one round, nothing written")
    parser.add_argument("--gpu", action="store_true")
    parser.add_argument("--work", nargs=2, metavar=("WHO", "WORKLOAD"), help=argparse.SUPPRESS)
    parser.add_argument("--device", default="cpu", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.work:
        work(*arguments.work, arguments.device)
        return
    device = "cuda" if arguments.gpu else "cpu"
    alone = Worker(sys.executable, "convolutions", ",".join(arguments.only), device, True)
    allowed = alone.read()
    alone.end()
    print(HEAD)
    out = Path(__file__).parent / "results" / f"throughput{'-gpu' if arguments.gpu else ''}.json"
    results = {r["workload"]: r for r in json.loads(out.read_text())} if out.exists() else {}
    for workload in arguments.only:
        peers, rounds = (None, 1) if arguments.quick else (arguments.peers, arguments.rounds)
        results[workload] = compare(workload, peers, rounds, device, allowed[workload])
        print(row(results[workload]), flush=True)
        if not arguments.quick:
            out.write_text(json.dumps([results[w] for w in WORKLOADS if w in results], indent=1) + "\n")


if __name__ == "__main__":
    main()
