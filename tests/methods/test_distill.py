"""Distillation against a naive transcription of its losses; its teacher, which is frozen and no part of the student."""

import math

import pytest
import torch
from support.method_steps import differ, step_of, trace
from support.naive_methods import assert_equal_losses_and_gradients, twin, unit
from support.tiny_methods import IMAGES, RESNET, SIDE, VIT, new_batch, new_method

from ssl_transfer.data.intensity import Intensity
from ssl_transfer.data.views import ViewBatch
from ssl_transfer.errors import BackboneError, RecipeError
from ssl_transfer.methods.distill import Distill
from ssl_transfer.models.backbone import load_backbone
from ssl_transfer.models.feature_maps import FeatureMaps
from ssl_transfer.recipe import Component, choose, options_model

TEACHERS = {  # other channels, other sizes; a map of 1 x 1 positions, one of 2 x 2 tokens, one of 2 x 2 positions
    "resnet": "scratch:test_resnet,in_channels=3,size=32,seed=1",
    "vit": "scratch:test_vit,in_channels=1,size=32,seed=1",
    "convnext": "scratch:test_convnext,in_channels=3,size=64,seed=1",
}


def triangle(size, wanted):
    """Weights (wanted, size) of linear interpolation that averages over the support of an output pixel."""
    scale = size / wanted
    width = max(scale, 1.0)
    rows = []
    for place in range(wanted):
        center = (place + 0.5) * scale
        weights = [max(0.0, 1 - abs((pixel + 0.5 - center) / width)) for pixel in range(size)]
        rows.append([weight / sum(weights) for weight in weights])
    return torch.tensor(rows, dtype=torch.float64)


def naive_teacher_input(naive, image):
    """One view (C, H, W) as its teacher reads it."""
    student, teacher = naive.backbone, naive.teacher
    unit_values = image * student.intensity.std[0] + student.intensity.mean[0]
    weights = triangle(SIDE, naive.teacher_size)
    unit_values = (weights @ unit_values[0] @ weights.T).clamp(0, 1)
    channels = zip(teacher.intensity.mean, teacher.intensity.std, strict=True)
    return torch.stack([(unit_values - mean) / std for mean, std in channels])


def naive_map(backbone, images):
    """Pooled features (B, D), and maps (B, C, h, w) as a hook on the model sees them."""
    model, seen = backbone.model, {}
    layer = next(part for part in (getattr(model, name, None) for name in ("layer4", "norm", "stages")) if part)
    hook = layer.register_forward_hook(lambda _, __, output: seen.update(output=output))
    features = backbone(images)
    hook.remove()
    output = seen["output"]
    if output.ndim == 3:
        patches = output[:, 1:]
        side = math.isqrt(patches.shape[1])
        output = patches.reshape(len(patches), side, side, -1).permute(0, 3, 1, 2)
    return features, output


def naive_loss(naive, batch, pooled_weight=1.0, patch_weight=1.0, temperature=0.2, teacher_temperature=0.01):
    """Fang et al. 2021, equations 3 to 6, and the squared error of standardised local features."""
    features, maps = naive_map(naive.backbone, batch.views[0])
    images = torch.stack([naive_teacher_input(naive, image) for image in batch.views[0]])
    taught, taught_maps = naive_map(naive.teacher, images)
    queue = list(naive.memory.bank.double())
    pooled = 0
    for feature, target in zip(features, taught, strict=True):
        z, t = unit(naive.pooled_head.weight @ feature + naive.pooled_head.bias), unit(target)
        shares = torch.softmax(torch.stack([t @ d for d in [t, *queue]]) / teacher_temperature, 0)
        logs = torch.log_softmax(torch.stack([z @ d for d in [t, *queue]]) / temperature, 0)
        pooled = pooled - (shares * logs).sum() / IMAGES
    centred = taught_maps - taught_maps.mean(1, keepdim=True)
    standard = centred / (centred.square().mean(1, keepdim=True) + 1e-5).sqrt()
    rows, columns = (triangle(standard.shape[axis], maps.shape[axis]) for axis in (2, 3))
    resampled = torch.einsum("ij,bcjk,lk->bcil", rows, standard, columns)
    weight, bias = naive.patch_head.weight[:, :, 0, 0], naive.patch_head.bias
    predicted = torch.einsum("oc,bchw->bohw", weight, maps) + bias[None, :, None, None]
    return pooled_weight * pooled + patch_weight * (predicted - resampled).square().mean()


@pytest.mark.parametrize("teacher", TEACHERS)
@pytest.mark.parametrize("kind", [RESNET, VIT], ids=["resnet", "vit"])
def test_distillation_is_the_papers_cross_entropy_and_the_error_of_local_features(kind, teacher):
    options = {"pooled_weight": 0.7, "patch_weight": 1.3}
    method = new_method("distill", kind, teacher=TEACHERS[teacher], **options)
    naive, batch = twin(method), new_batch(method)
    expected = naive_loss(naive, batch, **options)
    assert_equal_losses_and_gradients(method, method(batch, 0)["loss"], naive, expected)


def test_temperatures_are_those_of_the_options():
    options = {"temperature": 0.5, "teacher_temperature": 0.05}
    method = new_method("distill", **options)
    naive, batch = twin(method), new_batch(method)
    expected = naive_loss(naive, batch, **options)
    assert method(batch, 0)["loss"].item() == pytest.approx(expected.item(), rel=1e-6)


def test_the_queue_holds_the_teacher_s_features_of_the_latest_images_and_the_state_has_it():
    method = new_method("distill", queue=16)
    batches = [new_batch(method, seed) for seed in range(3)]
    for batch in batches:
        method(batch, 0)
    taught = [torch.nn.functional.normalize(method.teacher(method.teacher_input(b.views[0])), dim=1) for b in batches]
    assert torch.allclose(method.memory.bank, torch.cat([taught[2], taught[1]]).to(method.memory.bank.dtype), atol=1e-6)
    other = new_method("distill", queue=16)
    other.load_state_dict(method.state_dict())
    assert torch.equal(other.memory.bank, method.memory.bank) and other.memory.bank_ptr == method.memory.bank_ptr


# The teacher


def test_the_teacher_is_no_part_of_parameters_state_or_modules():
    method = new_method("distill")
    teacher = {id(parameter) for parameter in method.teacher.parameters()}
    assert len(teacher) > 10 and not teacher & {id(parameter) for parameter in method.parameters()}
    assert not {value.data_ptr() for value in method.teacher.state_dict().values()} & {
        value.data_ptr() for value in method.state_dict().values()
    }
    assert method.teacher not in set(method.modules())


def test_the_teacher_stays_as_it_was_while_the_student_is_trained():
    method = new_method("distill")
    before = {name: value.clone() for name, value in method.teacher.state_dict().items()}
    optimizer = torch.optim.SGD([p for p in method.parameters() if p.requires_grad], lr=0.1)
    losses = [step_of(method.train(), optimizer, step) for step in (0, 0, 0)]
    assert not any(part.training for part in method.teacher.modules())
    assert all(parameter.grad is None for parameter in method.teacher.parameters())
    assert all(torch.equal(before[name], value) for name, value in method.teacher.state_dict().items())
    assert losses[2] < losses[0]


def test_the_teacher_goes_where_the_student_goes():
    method = new_method("distill").float()
    assert {p.dtype for p in method.teacher.parameters()} == {torch.float32}
    assert {p.device.type for p in method.to("meta").teacher.parameters()} == {"meta"}


@pytest.mark.parametrize("channels", [1, 3])
def test_the_teacher_reads_the_view_in_its_own_channels_size_and_intensity(channels):
    """A view of unit intensity u: the teacher reads (u - mean) / std, at its size, and colour of grey."""
    method = new_method("distill", teacher=f"scratch:test_resnet,in_channels={channels},size=24")
    method.teacher.card = type(method.teacher.card)(
        **{**vars(method.teacher.card), "intensity": Intensity(mean=(0.4,) * channels, std=(0.2,) * channels)}
    )
    levels = torch.tensor([-0.5, 0.0, 0.3, 1.0, 1.5]).double()
    view = (levels - method.backbone.intensity.mean[0]) / method.backbone.intensity.std[0]
    read = method.teacher_input(view.view(5, 1, 1, 1).expand(5, 1, SIDE, SIDE))
    assert read.shape == (5, channels, 24, 24)
    assert torch.allclose(read[:, 0, 3, 3], (levels.clamp(0, 1) - 0.4) / 0.2)


def test_a_student_in_colour_teaches_itself_from_a_grey_teacher():
    images = torch.rand(2, 3, SIDE, SIDE)
    method = Distill(load_backbone("scratch:test_resnet,size=16"), teacher="scratch:test_vit,in_channels=1,size=16")
    grey = images[:, 0] * 0.299 + images[:, 1] * 0.587 + images[:, 2] * 0.114
    assert torch.allclose(method.teacher_input((images - 0.5) / 0.25)[:, 0], (grey - 0.5) / 0.25, atol=1e-5)


@pytest.mark.parametrize(("spec", "grid"), [("scratch:test_vit,size=32", 3), ("scratch:test_resnet,size=32", 2)])
def test_the_teacher_s_input_can_have_another_size(spec, grid):
    method = new_method("distill", teacher=spec, teacher_size=48)
    assert method.teacher_input(new_batch(method).views[0]).shape[-1] == 48
    seen = []
    of_teacher = method._teacher[1]
    of_teacher.register_forward_hook(lambda _, __, output: seen.append(output[1].shape[-1]))
    assert torch.isfinite(method(new_batch(method), 0)["loss"]) and seen == [grid]


@pytest.mark.parametrize(
    "spec", [*TEACHERS.values(), "scratch:test_efficientnet", "scratch:test_nfnet", "imagenet:efficientnet_lite0"]
)
def test_maps_of_every_kind_of_backbone_are_those_that_its_features_are_pooled_from(spec):
    backbone = load_backbone(spec, 1, 64)
    maps = FeatureMaps(backbone)
    images = torch.randn(2, backbone.card.in_channels, *2 * [backbone.card.image_size])
    with torch.no_grad():
        features, found = maps(images)
        assert torch.allclose(features, backbone(images), atol=1e-4) and found.shape[:2] == (2, maps.channels)


def test_positions_of_a_map_are_those_of_the_image():
    """A change in the upper right corner of the image changes the upper right of the map most."""
    backbone = load_backbone("scratch:test_vit,size=64")
    maps, image = FeatureMaps(backbone), torch.zeros(1, 3, 64, 64)
    changed = image.clone()
    changed[:, :, :16, 48:] += 5
    with torch.no_grad():
        difference = (maps(changed)[1] - maps(image)[1]).norm(dim=1)[0]
    assert difference.shape == (4, 4) and divmod(int(difference.argmax()), 4) == (0, 3)


def test_with_a_patch_weight_of_0_a_teacher_without_a_map_is_accepted():
    with pytest.raises(BackboneError, match="has no map of local features"):
        new_method("distill", teacher="trivial")
    method = new_method("distill", teacher="trivial", patch_weight=0.0)
    assert method.patch_head is None and torch.isfinite(method(new_batch(method), 0)["loss"])


# Precision, options, refusals


@pytest.mark.parametrize("kind", [RESNET, VIT], ids=["resnet", "vit"])
def test_under_bf16_the_loss_is_float32_and_close_to_that_of_float32(kind):
    method = new_method("distill", kind).float()
    batch = new_batch(method)
    batch = ViewBatch([view.float() for view in batch.views], batch.rows)
    with torch.autocast("cpu", torch.bfloat16):
        loss = twin(method)(batch, 0)["loss"]
    loss.backward()
    assert loss.dtype == torch.float32
    assert loss.item() == pytest.approx(method(batch, 0)["loss"].item(), rel=0.03)


CHANGED = {
    "teacher": TEACHERS["vit"],
    "teacher_size": 48,
    "queue": 16,
    "temperature": 0.3,
    "teacher_temperature": 0.1,
    "pooled_weight": 0.5,
    "patch_weight": 0.5,
}


@pytest.mark.parametrize("option", sorted(options_model(Distill).model_fields))
def test_every_option_changes_something(option):
    assert differ(trace("distill"), trace("distill", **{option: CHANGED[option]}))


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"teacher": "runs/nobody"}, BackboneError, "runs/nobody: this is no backbone"),
        ({"pooled_weight": 0.0, "patch_weight": 0.0}, RecipeError, "found 0, and patch_weight is 0 too"),
        ({"teacher": TEACHERS["vit"], "teacher_size": 40}, RecipeError, "multiple of 16, its patch size"),
    ],
)
def test_what_cannot_be_distilled_is_refused(options, error, message):
    with pytest.raises(error, match=message):
        new_method("distill", **options)


def test_a_teacher_must_be_named():
    with pytest.raises(RecipeError, match=r"method\.teacher is missing; it has no default"):
        choose({"distill": Distill}, Component(name="distill"), "recipe: method")


def test_a_queue_that_is_no_multiple_of_the_batch_is_refused():
    with pytest.raises(RecipeError, match=r"32 features are not a multiple of train.batch_size 12.*method\.queue=24"):
        new_method("distill").check_batch(12)
