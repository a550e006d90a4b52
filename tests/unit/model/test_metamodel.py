"""The whole model on a meta-batch that mixes modalities, ways and shots."""

import numpy as np
import pytest
import torch

from quickstudy.config import Settings
from quickstudy.data.dataset import MODALITIES
from quickstudy.model.metamodel import CHUNK, MetaModel, TaskBatch
from quickstudy.training import meta_loss
from tests.toy.tasks import grouped


@pytest.fixture
def model(tiny: Settings) -> MetaModel:
    torch.manual_seed(0)
    made = MetaModel(tiny.inputs, tiny.model, MODALITIES)
    with torch.no_grad():
        for modality, tau in (("image", 2.0), ("audio", 4.0), ("text", 8.0)):
            made.log_tau[modality].fill_(np.log(tau))
    return made


def arrays(modality: str, *shape: int, seed: int = 0) -> torch.Tensor:
    random = np.random.default_rng(seed)
    if modality == "image":
        return torch.from_numpy(random.integers(0, 256, (*shape, 1, 16, 16), dtype=np.uint8))
    if modality == "audio":
        return torch.from_numpy(random.uniform(-1.5, 1.5, (*shape, 1, 16, 21)).astype(np.float16))
    return torch.from_numpy(random.normal(0, 1, (*shape, 384)).astype(np.float32))


def batch(modality, tasks: int, way: int, shot: int, query: int, seed: int = 0) -> TaskBatch:
    return grouped(
        modality,
        arrays(modality, tasks, way * shot, seed=seed),
        arrays(modality, tasks, way * query, seed=seed + 50),
        way,
    )


MIXED = [("image", 2, 5, 1, 2), ("text", 1, 2, 5, 3), ("audio", 3, 3, 2, 1), ("image", 1, 4, 3, 4)]


def test_targets_name_the_rows_class_by_class() -> None:
    task = batch("text", 2, 3, 2, 1)
    support, query = task.support_targets, task.query_targets
    assert support.tolist() == [[0, 0, 1, 1, 2, 2]] * 2 and query.tolist() == [[0, 1, 2]] * 2


def test_a_mixed_meta_batch_answers_each_task_as_if_it_were_alone(model: MetaModel) -> None:
    model.eval()
    with torch.no_grad():
        model.learner.alpha.fill_(0.5)
        model.learner.step_alpha.fill_(0.5)
        tasks = [batch(*spec, seed=i) for i, spec in enumerate(MIXED)]
        together = model(tasks)
        for task, logits in zip(tasks, together, strict=True):
            assert logits.shape == (len(task.support), task.query.shape[1], task.way)
            for i in range(len(task.support)):
                alone = model([grouped(task.modality, task.support[i : i + 1], task.query[i : i + 1], task.way)])[0]
                assert (alone[0] - logits[i]).abs().max() < 1e-4


def test_at_each_turn_other_examples_of_the_task_are_its_support(model: MetaModel) -> None:
    model.eval()
    with torch.no_grad():
        model.learner.step_alpha.fill_(0.5)
        task = batch("image", 2, 4, 2, 1)  # three examples a class: three turns
        first = model([task])[0]
        turned = model([task], turns=5)[0]
        assert turned.shape == (6, 4, 4) and (turned[:2] - first).abs().max() < 1e-5
        classes = torch.cat([task.support.unflatten(1, (4, 2)), task.query.unflatten(1, (4, 1))], dim=2)
        for turn in (1, 2):
            moved = classes[:, :, [(i + turn) % 3 for i in range(3)]]
            alone = model([grouped("image", moved[:, :, :2].flatten(1, 2), moved[:, :, 2:].flatten(1, 2), 4)])[0]
            assert (turned[2 * turn : 2 * turn + 2] - alone).abs().max() < 1e-5
        assert (turned[2:4] - first).abs().max() > 1e-3


@pytest.mark.parametrize("modality", MODALITIES)
def test_vectors_have_the_length_of_their_modality(model: MetaModel, modality) -> None:
    model.eval()
    rows = arrays(modality, 2 * CHUNK + 3)
    vectors = model.encode(modality, rows)
    tau = {"image": 2.0, "audio": 4.0, "text": 8.0}[modality]
    assert vectors.shape == (2 * CHUNK + 3, 16)
    assert torch.allclose(vectors.square().sum(1), torch.tensor(tau), rtol=1e-4)
    with torch.inference_mode():  # in chunks, where nothing is kept for a gradient
        assert torch.allclose(model.encode(modality, rows), vectors, atol=1e-5)


def test_every_parameter_learns_in_the_end_and_alpha_from_the_start(model: MetaModel) -> None:
    tasks = [batch(*spec, seed=i) for i, spec in enumerate(MIXED)]
    meta_loss(model, tasks).backward()
    assert model.learner.alpha.item() == 0 and model.learner.alpha.grad.abs() > 0
    assert (model.learner.step_alpha.grad.abs() > 0).all()
    assert model.learner.attention.in_proj_weight.grad.abs().max() == 0  # α = 0 shuts it off
    model.zero_grad()
    with torch.no_grad():
        model.learner.alpha.fill_(0.1)
    meta_loss(model, tasks).backward()
    silent = [name for name, p in model.named_parameters() if p.grad is None or p.grad.abs().max() == 0]
    assert silent == []


def test_the_loss_weighs_tasks_alike(model: MetaModel) -> None:
    model.eval()
    tasks = [batch("text", 1, 2, 1, 1, seed=1), batch("text", 1, 5, 2, 6, seed=2)]
    alone = [meta_loss(model, [task]) for task in tasks]
    assert meta_loss(model, tasks).item() == pytest.approx((alone[0] + alone[1]).item() / 2, rel=1e-5)


def test_a_model_has_the_modalities_that_it_was_made_for(tiny: Settings) -> None:
    model = MetaModel(tiny.inputs, tiny.model, {"text", "audio"})
    assert model.modalities == ("audio", "text")
    assert {name.split(".")[1] for name in model.state_dict() if name.startswith("encoders")} == {"audio", "text"}
