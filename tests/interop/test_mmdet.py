from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from tests.interop import foreign
from tests.interop.foreign import CLASSES, GFL, changed, with_config

from detdistill.detectors.architecture import Preprocessing
from detdistill.errors import UserError
from detdistill.interop import checkpoint, mmdet
from detdistill.interop.mmdet import config as configs


def weights(file: Path) -> dict[str, torch.Tensor]:
    return mmdet.load(file).detector.state_dict()


def same(found: dict[str, torch.Tensor], expected: dict[str, torch.Tensor]) -> bool:
    return all(torch.equal(found[name], tensor) for name, tensor in expected.items())


@pytest.mark.parametrize("family", ["atss", "retinanet", "fcos_tricks", "faster_rcnn"])
def test_the_config_in_the_checkpoint_and_the_one_beside_it_say_the_same(family: str) -> None:
    file = foreign.FIXTURES / family / "r18/checkpoint.pth"
    inside, beside = mmdet.load(file), mmdet.load(file, config=file.with_name("config.json"))
    assert inside.detector.architecture == beside.detector.architecture
    assert inside.detector.architecture.family == family.removesuffix("_tricks")
    assert inside.detector.spec.classes == CLASSES
    assert inside.report.complete
    assert inside.report.notes == ()


@pytest.mark.parametrize(
    "change",
    [
        lambda content: content,
        lambda content: {"state_dict": content["state_dict"], **content},
        foreign.averaged,
        lambda c: {**c, "state_dict": {f"module.{k}": v for k, v in c["state_dict"].items()}},
        lambda c: {**c, "state_dict": {f"architecture.{k}": v for k, v in c["state_dict"].items()}},
        lambda c: {**c, "state_dict": {**c["state_dict"], "teacher.a": torch.zeros(1)}},
    ],
    ids=["published", "order", "averaged", "parallel", "distilled", "with its teacher"],
)
@pytest.mark.parametrize("zipped", [True, False], ids=["zip", "legacy"])
def test_every_form_of_a_checkpoint_has_the_same_weights(
    tmp_path: Path, change: foreign.Change, *, zipped: bool
) -> None:
    assert same(weights(changed(tmp_path, change, zipped=zipped)), weights(GFL))


def test_a_checkpoint_of_2x_has_its_own_statistics_of_pixels(tmp_path: Path) -> None:
    found = mmdet.load(changed(tmp_path, foreign.of_2x))
    assert found.detector.architecture.preprocessing == Preprocessing(
        mean=(1.0, 2.0, 3.0), std=(4.0, 5.0, 6.0), bgr=True
    )
    assert same(found.detector.state_dict(), weights(GFL))
    assert found.detector.spec.classes == CLASSES


def test_what_no_detector_needs_is_left_out_with_a_word(tmp_path: Path) -> None:
    words = " ".join(mmdet.load(changed(tmp_path, foreign.averaged)).report.left_out)
    assert "optimizer" in words
    assert "schedules" in words
    assert "averaged" in words


def test_a_plain_state_dict_needs_a_description_and_classes(tmp_path: Path) -> None:
    file = changed(tmp_path, lambda content: content["state_dict"])
    config = tmp_path / "config.py"
    config.write_text(foreign.published()["meta"]["cfg"])
    with pytest.raises(UserError, match="--classes"):
        mmdet.load(file)
    with pytest.raises(UserError, match="--config"):
        mmdet.load(file, classes=CLASSES)
    with pytest.raises(UserError, match="knows 5 classes, but 1"):
        mmdet.load(file, classes=["one"], config=config)
    found = mmdet.load(file, classes=CLASSES, config=config)
    assert same(found.detector.state_dict(), weights(GFL))


def test_weights_that_do_not_fit_are_refused_unless_a_part_is_enough(tmp_path: Path) -> None:
    def change(content: dict) -> dict:
        state = content["state_dict"]
        del state["bbox_head.scales.3.scale"]
        del state["neck.lateral_convs.1.conv.bias"]
        state["bbox_head.gfl_cls.weight"] = torch.zeros(7, 16, 3, 3)
        state["bbox_head.stranger"] = torch.zeros(1)
        return content

    file = changed(tmp_path, change)
    with pytest.raises(UserError, match=r"3 missing .*2 unexpected .*--partial"):
        mmdet.load(file)
    report = mmdet.load(file, partial=True).report
    assert set(report.missing) == {
        "head.scales",
        "head.cls.weight",
        "neck.fpn.inner_blocks.1.0.bias",
    }
    assert set(report.unexpected) == {
        "bbox_head.gfl_cls.weight (7, 16, 3, 3), not (5, 16, 3, 3)",
        "bbox_head.stranger",
    }


def test_a_preset_that_is_another_detector_is_refused_even_in_part(tmp_path: Path) -> None:
    file = changed(tmp_path, lambda _: {"a": torch.zeros(1)})
    with pytest.raises(UserError, match="Only 0 tensors fit") as refusal:
        mmdet.load(file, preset="gfl-mini-w8", classes=CLASSES, partial=True)
    assert "--partial" not in str(refusal.value), "it was given"


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("type='GFLHead'", "type='VFNetHead'", "model.bbox_head.type = 'VFNetHead'"),
        ("type='FPN'", "type='PAFPN'", "model.neck.type = 'PAFPN'"),
        ("type='ResNet'", "type='ResNet', dcn=dict(type='DCNv2')", "model.backbone.dcn"),
        ("type='ResNet'", "type='HRNet'", "model.backbone.type = 'HRNet'"),
        ("depth=50", "depth=50, deep_stem=True", "model.backbone.deep_stem = True"),
        ("type='GN'", "type='BN'", "model.bbox_head.norm_cfg.type = 'BN'"),
        ("type='nms'", "type='soft_nms'", "test_cfg.nms.type = 'soft_nms'"),
        ("add_extra_convs='on_output'", "add_extra_convs='on_lateral'", "add_extra_convs"),
        ("octave_base_scale=8", "octave_base_scale=8, base_sizes=[1]", "base_sizes"),
        ("            128,", "            256,", "anchor_generator.strides"),
        ("type='GFL')", "type='GFL', mask_head=dict(type='X'))", "model.mask_head"),
        ("    bbox_head=", "    roi_heads=", "model.type = 'GFL'"),
    ],
)
def test_what_cannot_be_built_is_refused_by_name(
    tmp_path: Path, old: str, new: str, message: str
) -> None:
    with pytest.raises(UserError, match=r"cannot be built here\. Supported: ") as refusal:
        mmdet.load(with_config(tmp_path, old, new))
    assert message in str(refusal.value)


def test_what_is_switched_off_is_no_hindrance(tmp_path: Path) -> None:
    file = with_config(tmp_path, "depth=50", "depth=50, dcn=None, avg_down=False, plugins=[]")
    assert mmdet.load(file).report.complete


def test_types_may_be_written_with_their_module(tmp_path: Path) -> None:
    file = with_config(tmp_path, "type='FPN'", "type='mmdet.models.necks.FPN'")
    assert mmdet.load(file).report.complete


def test_another_way_of_training_is_noted(tmp_path: Path) -> None:
    found = mmdet.load(with_config(tmp_path, "topk=9", "topk=13"))
    assert found.report.notes == (
        "It was trained with train_cfg.assigner.topk = 13, here it would be 9.",
    )


def test_a_config_file_inherits_and_deletes_as_in_mmdetection(tmp_path: Path) -> None:
    (tmp_path / "bases").mkdir()
    (tmp_path / "bases/model.py").write_text(
        "width = 4\nmodel = dict(neck=dict(a=1, b=[2, -3]), head=dict(type='A', size=width * 2))\n"
    )
    (tmp_path / "bases/run.py").write_text("import os\nepochs = 12\nroot = os.environ\n")
    (tmp_path / "own.py").write_text(
        "_base_ = ['bases/model.py', 'bases/run.py']\n"
        "model = dict(neck=dict(a=5), head=dict(_delete_=True, type='B'))\n"
    )
    assert configs.read_file(tmp_path / "own.py") == {
        "model": {"neck": {"a": 5, "b": [2, -3]}, "head": {"type": "B"}},
        "width": 4,
        "epochs": 12,
    }


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("model = dict(a=open('x'))", r"line 1: the model holds \"open\('x'\)\""),
        ("model = dict(a=[] * 99999999999)", "arithmetic"),
        ("model = dict(", "not a config in Python"),
        ("a = 1", "no dictionary named 'model'"),
        ("_base_ = 'own.py'", "names itself"),
        ("_base_ = 'none.py'", "no config file"),
    ],
)
def test_a_config_is_never_run(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "own.py").write_text(text)
    with pytest.raises(UserError, match=message):
        configs.read_file(tmp_path / "own.py")


def test_an_imported_detector_is_a_checkpoint_of_ours(tmp_path: Path) -> None:
    imported = mmdet.load(GFL)
    file = imported.save(tmp_path / "teacher", source="a test")
    images = torch.randint(0, 256, (1, 3, 64, 96), dtype=torch.uint8)
    expected = imported.detector.eval()(images).dense.decoded()
    assert torch.equal(
        checkpoint.load(tmp_path / "teacher").eval()(images).dense.decoded(), expected
    )
    assert checkpoint.resize_of(file) == (800, 1333)
    card = json.loads(file.with_suffix(".json").read_text())
    assert card["classes"] == list(CLASSES)
    assert card["preprocessing"]["mean"] == [123.675, 116.28, 103.53]
    with pytest.raises(UserError, match="--overwrite"):
        imported.save(file, source="a test")
    imported.save(file, source="another", overwrite=True)
    assert json.loads(file.with_suffix(".json").read_text())["source"] == "another"
