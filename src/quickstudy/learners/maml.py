"""MAML: g = −∇ of the support set's loss by every weight of the encoder and of a head, α of each weight learned.

Finn et al. 2017, https://arxiv.org/abs/1703.03400, with the step sizes of Meta-SGD (Li et al. 2017,
https://arxiv.org/abs/1707.09835) and the head of Proto-MAML (Triantafillou et al. 2019,
https://arxiv.org/abs/1903.03096), which is made of the support set, so that it fits any number of classes.
"""

from collections.abc import Mapping, Sequence
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

from quickstudy.encoders.blocks import known_statistics, statistics_of_patches
from quickstudy.learners.learner import State, WeightLearner, class_sums

ALPHA = 0.01  # of each weight, at the start
TAU = 10.0  # of each encoder, at the start


class Maml(WeightLearner):
    """Gradient steps on the support set's mean cross-entropy, from a start and with step sizes that are learned.

    The head is a linear layer. A class's row starts from p, the mean of its support vectors plus a learned vector that
    all classes share: weight 2p, bias −‖p‖². With α = 0 and that vector 0 this is a prototypical network.

    Args:
        dimension: D of the encoders' vectors.
        encoders: by modality. What is learned beside their weights is each modality's own.
        steps: gradient steps.
        second_order: in meta-training, follow how a step's gradient depends on the weights it was taken at. Otherwise
            it counts as a constant (first-order MAML), which takes less time.
        way: where given, tasks have so many classes, and two things are as in the code of Finn et al.: the head starts
            as a linear layer that is learned, and batch norms take the statistics of a task's queries, all together,
            from these queries, and not from its support set.
    """

    def __init__(self, dimension: int, encoders: nn.ModuleDict, steps: int, second_order: bool, way: int | None = None):
        super().__init__()
        self.steps, self.second_order = steps, second_order
        self.own = nn.ModuleDict({modality: _Own(dimension, encoder, way) for modality, encoder in encoders.items()})
        self._encoders = dict(encoders.items())  # to know them again; being in a plain dict they do not become ours

    @property
    def alpha(self) -> Tensor:  # type: ignore[override]
        """Every α, one after the other."""
        return torch.cat([p.flatten() for name, p in self.named_parameters() if name.endswith("alpha")])

    def adapt(self, encoder: nn.Module, support: Tensor, targets: Tensor, way: int) -> State:
        """encoder.NAME: [B, ...] of each weight; log_tau: [B]; head.weight: [B, N, D]; head.bias: [B, N]; and of each
        batch norm what it measured on the support set last, norm.NUMBER.mean and norm.NUMBER.var: [B, C]; with a
        linear head none of these"""
        own = cast(_Own, next(self.own[modality] for modality, known in self._encoders.items() if known is encoder))
        start = {**encoder_weights(encoder), "log_tau": own.log_tau}
        alpha = {name: own.alphas[_alpha(name)] for name in (*start, "head.weight", "head.bias")}
        return descend(encoder, start, own.head, alpha, support, targets, way, self.steps, self.second_order)

    def score(self, encoder: nn.Module, state: State, query: Tensor) -> Tensor:
        vectors, _ = read(encoder, state, query)
        return vectors @ state["head.weight"].mT + state["head.bias"][:, None]


class _Own(nn.Module):
    """What is learned beside the weights of an encoder."""

    def __init__(self, dimension: int, encoder: nn.Module, way: int | None):
        super().__init__()
        if way is None:
            self.shared = nn.Parameter(torch.zeros(dimension))
        else:
            self.linear = nn.Linear(dimension, way)
        self.log_tau = nn.Parameter(torch.tensor(TAU).log())
        shapes = {name: tuple(weight.shape) for name, weight in encoder_weights(encoder).items()}
        shapes |= {"log_tau": (), "head.weight": (dimension,), "head.bias": ()}  # of the head the same for each class
        self.alphas = nn.ParameterDict({_alpha(n): nn.Parameter(torch.full(s, ALPHA)) for n, s in shapes.items()})

    @property
    def head(self) -> Tensor | nn.Linear:
        """what it starts from, as `descend` takes it"""
        return self.linear if hasattr(self, "linear") else self.shared


def _alpha(name: str) -> str:
    return f"{name.replace('.', '_')}_alpha"


def encoder_weights(encoder: nn.Module) -> State:
    """encoder.NAME of each weight, without a task dimension."""
    return {f"encoder.{name}": weight for name, weight in encoder.named_parameters()}


def descend(
    encoder: nn.Module,
    start: State,
    head: Tensor | nn.Linear,
    alpha: Mapping[str, Tensor],
    support: Tensor,
    targets: Tensor,
    way: int,
    steps: int,
    second_order: bool,
) -> State:
    """Take the gradient steps.

    Args:
        start: the encoder's weights and log_tau, without a task dimension.
        head: [D], which its rows start with beside the class means; or a linear layer to start from, and no statistics
            are wanted.
        alpha: for each of ``start``, and for head.weight and head.bias.
        support: [B, S, ...]
        targets: int64 [B, S]

    Returns:
        the state as `Maml.adapt` describes it; without a history where gradients are off.
    """
    learning = torch.is_grad_enabled()

    def kept(tensor: Tensor) -> Tensor:
        return tensor if learning else tensor.detach().requires_grad_()

    with torch.inference_mode(False), torch.enable_grad():  # whoever asks, the steps need gradients
        support, targets = support.clone(), targets.clone()  # made in inference mode, they would have none
        state = {name: kept(weight.expand(len(support), *weight.shape)) for name, weight in start.items()}
        linear = isinstance(head, nn.Linear)
        vectors, norms = read(encoder, state, support, measure=steps == 0 and not linear)
        onehot, sums, count = class_sums(vectors, targets, way)
        if isinstance(head, nn.Linear):
            weight, bias = (each.expand(len(support), *each.shape) for each in (head.weight, head.bias))
        else:
            rows = head + sums / count[..., None]
            weight, bias = 2 * rows, -rows.square().sum(-1)
        state |= {"head.weight": kept(weight), "head.bias": kept(bias)}
        for step in range(steps):
            # The gradient through the head is written out. The encoder's weights get theirs through the vectors alone:
            # the head was made of such vectors, but from there on it is a weight of its own.
            logits = vectors @ state["head.weight"].mT + state["head.bias"][:, None]
            residual = (logits.softmax(-1) - onehot) / support.shape[1]
            inside = torch.autograd.grad(
                vectors,
                [state[name] for name in start],
                residual @ state["head.weight"],
                retain_graph=learning,
                create_graph=learning and second_order,
            )
            gradient = dict(zip(start, inside, strict=True))
            gradient |= {"head.weight": residual.mT @ vectors, "head.bias": residual.sum(1)}
            minus_g = gradient if second_order else {name: slope.detach() for name, slope in gradient.items()}
            state = {n: kept(torch.addcmul(weight, alpha[n], minus_g[n], value=-1)) for n, weight in state.items()}
            last = step == steps - 1
            if not (last and linear):
                vectors, norms = read(encoder, state, support, measure=last)
        state |= norms
        return state if learning else {name: tensor.detach() for name, tensor in state.items()}


def read(encoder: nn.Module, state: State, arrays: Tensor, measure: bool = False) -> tuple[Tensor, State]:
    """Each task's arrays [B, n, ...] by its own encoder → vectors [B, n, D], all of length √τ.

    Batch norms take the statistics in ``state``, so that no array sees the others. Where it has none they take those of
    the arrays, task by task; the second value is these, if ``measure``.
    """
    weights = {name.removeprefix("encoder."): w for name, w in state.items() if name.startswith("encoder.")}
    norms = [state[name].flatten() for name in sorted(state) if name.startswith("norm.")]
    b = len(arrays)
    if b == 1:
        alone = {name: weight.squeeze(0) for name, weight in weights.items()}  # [0] would copy in the gradient
        vectors, found = _call(encoder, alone, norms, arrays[0], measure)
        vectors = vectors[None]
    elif _is_convolutional(encoder):
        vectors, found = _call(encoder, weights, norms, arrays.transpose(0, 1).flatten(1, 2), measure)
        vectors = vectors.unflatten(1, (b, -1)).transpose(0, 1)
    else:
        states = [{name: tensor[i : i + 1] for name, tensor in state.items()} for i in range(b)]
        each = [read(encoder, own, arrays[i : i + 1], measure) for i, own in enumerate(states)]
        return torch.cat([v for v, _ in each]), {n: torch.cat([found[n] for _, found in each]) for n in each[0][1]}
    vectors = F.normalize(vectors, dim=-1) * (state["log_tau"] / 2).exp()[:, None, None]
    names = [f"norm.{i:02}.{what}" for i in range(len(found) // 2) for what in ("mean", "var")]
    return vectors, {name: values.unflatten(0, (b, -1)) for name, values in zip(names, found, strict=True)}


def _is_convolutional(encoder: nn.Module) -> bool:
    """Whether all that it learns stands in 2D convolutions and batch norms, whose channels can hold many tasks."""
    layers = [layer for layer in encoder.modules() if next(layer.parameters(recurse=False), None) is not None]
    return all(isinstance(layer, nn.Conv2d | nn.BatchNorm2d) for layer in layers)


def _call(
    encoder: nn.Module, weights: State, norms: Sequence[Tensor], arrays: Tensor, measure: bool
) -> tuple[Tensor, list[Tensor]]:
    buffers = {name: buffer.clone() for name, buffer in encoder.named_buffers()}  # batch norms count how often they ran
    with _TaskLayers(norms, measure) as layers:
        return functional_call(encoder, weights | buffers, (arrays,)), layers.found


class _TaskLayers(TorchFunctionMode):
    """Inside, a batch norm takes the next mean and variance of ``norms``, or, where there are none, those of what comes
    in, and adds them to ``found`` if ``measure``; never running averages. And the channels may hold tasks,
    [n, B·C, H, W], where weights have a task dimension in front: a convolution is one with B groups.

    So all tasks are one pass. To adapt 16 tasks by one step so (Conv4-64, 28×28, 5-way 1-shot, two cores) takes 0.5 of
    the time of one task after the other in first order, and 1.6 of it in second order.
    """

    def __init__(self, norms: Sequence[Tensor], measure: bool):
        super().__init__()
        self.known, self.norms, self.measure, self.found = bool(norms), list(norms), measure, list[Tensor]()

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func is F.conv2d:
            return self._conv2d(*args, **kwargs)
        if func is F.batch_norm:
            return self._batch_norm(*args, *kwargs.values())
        if func is known_statistics:
            return self._known_statistics(*args)
        return func(*args, **kwargs)

    def _conv2d(
        self,
        x: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        stride: Any = 1,
        padding: Any = 0,
        dilation: Any = 1,
        groups: int = 1,
    ) -> Tensor:
        if weight.ndim == 5:
            groups, weight, bias = groups * len(weight), weight.flatten(0, 1), None if bias is None else bias.flatten()
        return F.conv2d(x, weight, bias, stride, padding, dilation, groups)

    def _known_statistics(self, x: Tensor, weight: Tensor, _norm: nn.Module) -> tuple[Tensor, Tensor] | None:
        if self.known:
            return self.norms.pop(0), self.norms.pop(0)
        if x.shape[1] > 1:
            return None
        mean, var = statistics_of_patches(x, weight)
        self.found += [mean, var] if self.measure else []
        return mean, var

    def _batch_norm(
        self, x: Tensor, _mean: Any, _var: Any, weight: Tensor, bias: Tensor, _training: Any, _momentum: Any, eps: float
    ) -> Tensor:
        weight, bias = weight.flatten(), bias.flatten()
        if not self.known and not self.measure:
            return F.batch_norm(x, None, None, weight, bias, True, 0.0, eps)
        to_channels, others = (-1, *[1] * (x.ndim - 2)), [d for d in range(x.ndim) if d != 1]
        mean = self.norms.pop(0) if self.known else x.mean(others)
        x = x - mean.view(to_channels)
        var = self.norms.pop(0) if self.known else x.square().mean(others)
        self.found += [] if self.known else [mean, var]
        scale = weight * (var + eps).rsqrt()
        return torch.addcmul(bias.view(to_channels), x, scale.view(to_channels))
