"""Embeddings: the vectors of the network itself, in files that are read back as they are."""

from __future__ import annotations

import warnings

import h5py
import numpy as np
import pytest
import torch
from PIL import Image

import geodl
from geodl.base.errors import (
    FormatError,
    NotSupportedError,
    OfflineWarning,
    OptionError,
    SourceError,
    SourceNotFoundError,
    UnknownOptionError,
)
from geodl.data.embedding_plot import clusters_of, principal
from geodl.infer.embeddings import image_encoder
from geodl.learn import Embeddings

pytestmark = pytest.mark.filterwarnings("ignore::geodl.base.errors.OfflineWarning")
BACKBONE = "timm:test_efficientnet"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Red, green and blue images of several kinds, in folders below one another."""
    place = tmp_path_factory.mktemp("images")
    rng = np.random.default_rng(0)
    for number in range(12):
        colour = np.zeros((20 + number, 30, 3), np.uint8) + 30
        colour[..., number % 3] = 220
        colour = (colour + rng.integers(0, 20, colour.shape)).astype(np.uint8)
        inside = place / ("a" if number % 2 else "b")
        inside.mkdir(exist_ok=True)
        Image.fromarray(colour).save(inside / f"{number:02d}.{['png', 'jpg', 'tif'][number % 3]}")
    (place / "notes.txt").write_text("no image")
    return place


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", OfflineWarning)
        return Embeddings("image", BACKBONE, working_dir=tmp_path_factory.mktemp("work"))


def test_images_become_the_vectors_of_the_network(images, folder):
    path = images.get(folder, batch_size=5, show_progress=False, chip_size=32)
    vectors, items = images.load(path)
    assert vectors.dtype == np.float32
    assert len(vectors) == len(items) == 12
    assert [item.rpartition("/")[2][:2] for item in items][:3] == ["01", "03", "05"]
    image = Image.open(items[4]).convert("RGB").resize((32, 32), Image.Resampling.BILINEAR)
    x = torch.from_numpy(np.asarray(image, np.float32).transpose(2, 0, 1) / 255)
    x = (x - torch.tensor([0.485, 0.456, 0.406]).view(3, 1, 1)) / torch.tensor(
        [0.229, 0.224, 0.225]
    ).view(3, 1, 1)
    body = image_encoder(BACKBONE, 32).net.body
    with torch.inference_mode():
        expected = body(x[None])[0].numpy()
    np.testing.assert_allclose(vectors[4], expected, atol=1e-4)
    with h5py.File(path) as file:
        assert file["items"].maxshape == file["embeddings"].maxshape[:1] == (None,)
        assert file["embeddings"].chunks


def test_a_file_is_read_lazily_or_whole_and_a_frame_is_the_same(images, folder):
    path = images.get([folder / "a", folder / "b"], show_progress=False, chip_size=32)
    vectors, items = images.load(path)
    file, lazy, names = images.load(path, load_to_memory=False)
    assert isinstance(lazy, h5py.Dataset)
    np.testing.assert_array_equal(lazy[3:5], vectors[3:5])
    assert names[0].decode() == items[0]
    file.close()
    frame = images.get(
        folder, batch_size=1, show_progress=False, return_embeddings=True, chip_size=32
    )
    assert frame["items"].tolist() == items.tolist()
    np.testing.assert_allclose(np.stack(frame["embeddings"]), vectors, atol=1e-4)
    plain = images.get(
        folder, show_progress=False, return_embeddings=True, chip_size=32, normalize=False
    )
    assert not np.allclose(np.stack(plain["embeddings"]), vectors, atol=1e-3)


def test_workers_share_the_images(images, folder, cluster_address):
    alone = images.get(folder, 2, False, return_embeddings=True, chip_size=32)
    with geodl.connect(cluster_address):
        shared = images.get(folder, 2, False, return_embeddings=True, chip_size=32)
    assert shared["items"].tolist() == alone["items"].tolist()
    np.testing.assert_allclose(
        np.stack(shared["embeddings"]), np.stack(alone["embeddings"]), atol=1e-5
    )


@pytest.mark.parametrize("dimensions", [2, 3])
def test_clusters_are_drawn(images, folder, dimensions):
    path = images.get(folder, show_progress=False, chip_size=32)
    figure = images.visualize(path, n_clusters=3, dimensions=dimensions)
    assert len(figure.data) == 3
    assert sum(len(trace.x) for trace in figure.data) == 12
    assert {trace.type for trace in figure.data} == {"scatter3d" if dimensions == 3 else "scatter"}
    assert all(name[:2].isdigit() for trace in figure.data for name in trace.hovertext)
    with pytest.raises(OptionError, match="n_clusters"):
        images.visualize(path, n_clusters=13)
    with pytest.raises(OptionError, match="dimensions"):
        images.visualize(path, dimensions=4)


def test_clusters_and_components_are_right():
    rng = np.random.default_rng(1)
    centres = np.array([[0, 0, 0, 0], [9, 0, 0, 0], [0, 0, 9, 0]])
    truth = np.repeat([0, 1, 2], 20)
    vectors = centres[truth] + rng.normal(0, 0.3, (60, 4))
    found = clusters_of(vectors, 3)
    assert len({(a, b) for a, b in zip(truth, found, strict=True)}) == 3
    places = principal(vectors, 2)
    centred = vectors - vectors.mean(0)
    _, size, _ = np.linalg.svd(centred)
    np.testing.assert_allclose(np.sqrt((places**2).sum(0)), size[:2])
    assert principal(vectors[:, :1], 3)[:, 1:].max() == 0


def test_what_cannot_be_read_is_named(images, folder, tmp_path):
    with pytest.raises(SourceNotFoundError, match="nowhere"):
        images.get(tmp_path / "nowhere")
    with pytest.raises(SourceNotFoundError, match="holds no file"):
        images.get(tmp_path)
    with pytest.raises(OptionError, match="file_extensions"):
        images.get(folder, file_extensions="gif")
    with pytest.raises(UnknownOptionError, match="pooling_strategy"):
        images.get(folder, pooling_strategy="mean")
    (tmp_path / "broken.png").write_bytes(b"no picture")
    with pytest.raises(FormatError, match=r"broken\.png"):
        images.get(tmp_path, show_progress=False, chip_size=32)
    assert not list((images._working_dir / "embeddings").glob("*.part"))
    with pytest.raises(NotSupportedError, match="resnet34"):
        Embeddings("image", "resnet35")
    with pytest.raises(OptionError, match="dataset_type"):
        Embeddings("sound")


@pytest.mark.parametrize("content", ["nothing", "no items", "lengths"])
def test_other_files_are_no_embeddings(images, tmp_path, content):
    path = tmp_path / "x.h5"
    if content == "nothing":
        path.write_text("text")
    else:
        with h5py.File(path, "w") as file:
            file["embeddings"] = np.zeros((3, 2))
            if content == "lengths":
                file["items"] = np.zeros(2)
    with pytest.raises(FormatError, match=r"x\.h5"):
        images.load(path)


# ---- texts


@pytest.fixture(scope="module")
def language(tmp_path_factory):
    """A transformer of two thin layers with random weights, in a local folder."""
    from transformers import BertConfig, BertModel, BertTokenizerFast

    place = tmp_path_factory.mktemp("language")
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "forest", "river", "road", "a", "of"]
    (place / "vocab.txt").write_text("\n".join(words))
    tokenizer = BertTokenizerFast(str(place / "vocab.txt"))
    tokenizer.save_pretrained(place)
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=len(words), hidden_size=16, num_hidden_layers=2, num_attention_heads=2,
        intermediate_size=32, max_position_embeddings=32,
    )  # fmt: skip
    BertModel(config).save_pretrained(place)
    return place


@pytest.mark.parametrize("pooling", ["mean", "max", "first"])
def test_texts_become_pooled_vectors_of_a_local_model(language, tmp_path, pooling):
    from transformers import AutoModel, AutoTokenizer

    (tmp_path / "a.txt").write_text("a river")
    (tmp_path / "b.csv").write_text("text,more\na road of forest,x\nforest,y\n")
    (tmp_path / "c.json").write_text('[{"text": "river of <b>road</b> http://x.org/1"}]')
    embeddings = Embeddings("text", str(language), working_dir=tmp_path / "work")
    path = embeddings.get(
        tmp_path, show_progress=False, pooling_strategy=pooling, remove_urls=True,
        remove_html_tags=True, batch_size=2,
    )  # fmt: skip
    vectors, items = embeddings.load(path)
    assert items.tolist() == ["a river", "a road of forest", "forest", "river of road"]
    tokenizer, model = AutoTokenizer.from_pretrained(language), AutoModel.from_pretrained(language)
    with torch.inference_mode():
        tokens = model(**tokenizer("a road of forest", return_tensors="pt")).last_hidden_state[0]
    expected = {"mean": tokens.mean(0), "max": tokens.max(0).values, "first": tokens[0]}[pooling]
    np.testing.assert_allclose(vectors[1], expected.numpy(), atol=1e-5)


def test_texts_that_cannot_be_had_are_named(language, tmp_path):
    (tmp_path / "b.csv").write_text("texts\nx\n")
    embeddings = Embeddings("text", str(language), working_dir=tmp_path / "w")
    with pytest.raises(FormatError, match=r"no column 'text'; it has texts"):
        embeddings.get(tmp_path, show_progress=False)
    (tmp_path / "b.csv").write_bytes(b"text\n\xff\xfe\n")
    with pytest.raises(FormatError, match="UTF-8"):
        embeddings.get(tmp_path, show_progress=False)
    with pytest.raises(OptionError, match="klingon"):
        embeddings.get(tmp_path, show_progress=False, encoding="klingon")
    with pytest.raises(SourceError, match=r"download.*backbone=FOLDER"):
        Embeddings("text", "nobody/nothing").get(tmp_path, show_progress=False)


def test_backbones_are_named():
    assert "resnet34" in Embeddings.supported_backbones()
    assert any("distilbert" in name for name in Embeddings.supported_backbones("text"))
