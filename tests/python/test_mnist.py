"""The image classifiers at their smallest: learning through the layer, data, messages."""

import sys

import pytest
import torch

from experiments.common import Protocol
from experiments.mnist import classify, images

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def records() -> list[dict]:
    data = images.blobs(600, pixels=30, seed=0)
    protocol = Protocol(epochs=16, batch_size=32, lr=3e-3)
    return [classify.train(data, name, 0, protocol) | {"network": name} for name in NETWORKS]


NETWORKS = (classify.PLAIN, classify.OPTNET)


def test_both_networks_learn_to_tell_ten_blobs_apart(records):
    for record in records:
        assert record["test_accuracy"] > 0.9, record["network"]
        assert record["curves"]["loss"][-1] < 0.4 * record["curves"]["loss"][0]
    assert records[1]["parameters"] - records[0]["parameters"] == (100 + 100 + 20) - (100 + 10)


def test_head_sends_gradients_to_its_input_and_to_all_its_parameters():
    torch.manual_seed(0)
    head = classify.OptNetHead()
    x = torch.randn(64, 10, requires_grad=True)
    head(x).square().sum().backward()
    assert x.grad.dtype == torch.float32
    for name, parameter in head.layer.named_parameters():
        assert parameter.grad.abs().sum() > 0, name
    with torch.no_grad():
        z = head.layer(x.double())
        data = head.layer.problem()
    assert (z @ data["G"].T <= data["h"] + 1e-8).all()


def test_images_are_read_from_the_four_files(tmp_path):
    pytest.importorskip("torchvision", reason="images are read by torchvision")
    raw = tmp_path / "MNIST" / "raw"
    raw.mkdir(parents=True)
    for part, count in (("train", 4), ("t10k", 2)):
        header = b"".join(number.to_bytes(4, "big") for number in (2051, count, 28, 28))
        pixels = bytes(i * 255 // (count - 1) for i in range(count) for _ in range(28 * 28))
        (raw / f"{part}-images-idx3-ubyte").write_bytes(header + pixels)
        header = b"".join(number.to_bytes(4, "big") for number in (2049, count))
        (raw / f"{part}-labels-idx1-ubyte").write_bytes(header + bytes(range(count)))
    data = images.load("MNIST", tmp_path)
    assert data.train.shape == (4, 784)
    assert data.test_labels.tolist() == [0, 1]
    assert data.train[0, 0].item() == pytest.approx(-0.1307 / 0.3081, abs=1e-6)
    assert data.train[3, 783].item() == pytest.approx((1 - 0.1307) / 0.3081, abs=1e-6)


def test_missing_images_say_where_to_put_them(tmp_path, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setitem(sys.modules, "torchvision", None)
        with pytest.raises(images.MissingImagesError, match="pip install torchvision"):
            images.load("FashionMNIST", tmp_path)
    pytest.importorskip("torchvision", reason="images are read by torchvision")
    with pytest.raises(images.MissingImagesError, match=r"into DIR/FashionMNIST/raw and pass"):
        images.load("FashionMNIST", tmp_path)


def test_results_become_table_and_figure(records, tmp_path):
    runs = [record | {"seed": 0} for record in records]
    assert "| OptNet | 21,750 |" in classify.table(runs)
    classify.draw(runs, tmp_path / "curves.png")
    assert (tmp_path / "curves.png").stat().st_size > 10_000


def test_grid_trains_both_networks_with_three_seeds():
    runs = classify.grid(classify.DEFAULT, "MNIST", None)
    assert [(r.network, r.seed) for r in runs] == [(n, s) for s in (0, 1, 2) for n in NETWORKS]
