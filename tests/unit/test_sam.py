"""Models, their weights, and what is said when a checkpoint is not right."""

import hashlib
import pickle
import urllib.error

import pytest
import torch
from safetensors.torch import save_file

from crowdmask.config import Sam
from crowdmask.errors import DataError
from crowdmask.masks import checkpoints, sam
from crowdmask.masks.small import IMAGE_SIZE, build_small


@pytest.fixture(scope="module")
def small():
    torch.manual_seed(0)
    torch.set_num_threads(1)
    return build_small().requires_grad_(False)


def millions(module):
    return sum(p.numel() for p in module.parameters()) / 1e6


def test_vit_b_has_the_official_number_of_parameters():
    with torch.device("meta"):  # shapes without numbers
        model = sam.build("vit_b")
    assert millions(model.image_encoder) == pytest.approx(89.67, abs=0.01)
    assert millions(model.prompt_encoder) == pytest.approx(0.006, abs=0.001)
    assert millions(model.mask_decoder) == pytest.approx(4.06, abs=0.01)
    assert not model.training and model.image_encoder.img_size == 1024


def test_small_shapes(small):
    assert 2 < millions(small) < 5 and not small.training  # 10 MB in half precision
    with torch.inference_mode():
        embedding = small.image_encoder(torch.zeros(2, 3, IMAGE_SIZE, IMAGE_SIZE))
        assert embedding.shape == (2, 128, 32, 32)
        points = torch.full((4, 1, 2), 60.0), torch.ones(4, 1, dtype=torch.int32)
        sparse, dense = small.prompt_encoder(points=points, boxes=None, masks=None)
        logits, scores = small.mask_decoder(
            embedding[:1], small.prompt_encoder.get_dense_pe(), sparse, dense, multimask_output=True
        )
    assert logits.shape == (4, 3, 128, 128) and scores.shape == (4, 3)
    assert small.prompt_encoder.mask_input_size == (128, 128)


def test_the_shipped_weights_are_small_and_load():
    path = checkpoints.path_of(Sam())
    assert path == checkpoints.shipped() and 1_000_000 < path.stat().st_size <= 10_000_000
    model = sam.load(Sam(), path, torch.device("cpu"))
    assert not model.training and not any(p.requires_grad for p in model.parameters())
    assert all(p.dtype == torch.float32 and torch.isfinite(p).all() for p in model.parameters())


@pytest.mark.parametrize("suffix", [".safetensors", ".pth"])
def test_weights_come_back(small, tmp_path, suffix):
    path = tmp_path / f"w{suffix}"
    state = {k: v.contiguous() for k, v in small.state_dict().items()}
    save_file(state, str(path)) if suffix == ".safetensors" else torch.save(state, path)
    model = sam.load(Sam(), path, torch.device("cpu"))
    assert all(torch.equal(v, state[k]) for k, v in model.state_dict().items())


class Code:
    """What a malicious checkpoint does when it is unpickled."""

    def __reduce__(self):
        return print, ("executed",)


def bad_files():
    yield "garbage.pth", b"\x00garbage" * 99
    yield "garbage.safetensors", b"\x00garbage" * 99
    yield "empty.pth", b""
    yield "empty.safetensors", b""
    yield "code.pth", pickle.dumps({"image_encoder.weight": Code()})


@pytest.mark.parametrize(("name", "content"), list(bad_files()), ids=lambda v: v if isinstance(v, str) else "")
def test_files_that_are_no_checkpoints_are_refused(small, tmp_path, capsys, name, content):
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(DataError, match="not a checkpoint of this model") as caught:
        sam.load_weights(small, path)
    assert caught.value.path == str(path)
    assert "executed" not in capsys.readouterr().out


@pytest.mark.parametrize("state", [{"a": torch.zeros(2)}, {"a": 1}, [1, 2], {}, {"code": Code()}])
def test_states_of_something_else_are_refused(small, tmp_path, capsys, state):
    torch.save(state, tmp_path / "other.pth")
    with pytest.raises(DataError, match="not a checkpoint of this model"):
        sam.load_weights(small, tmp_path / "other.pth")
    assert "executed" not in capsys.readouterr().out


def test_a_missing_or_wrong_file_is_named(tmp_path):
    missing = tmp_path / "sam.pth"
    with pytest.raises(DataError, match="checkpoint not found") as caught:
        checkpoints.path_of(Sam(checkpoint=str(missing)))
    assert caught.value.path == str(missing)
    with pytest.raises(DataError, match="checkpoint not found"):
        checkpoints.verify(missing, None)
    missing.write_bytes(b"abc")
    assert checkpoints.path_of(Sam(checkpoint=str(missing))) == missing
    with pytest.raises(DataError, match=r"wrong SHA-256: ba7816bf.*expected ec2df627"):
        sam.load(Sam(model="vit_b", checkpoint=str(missing)), missing, torch.device("cpu"))
    checkpoints.verify(missing, hashlib.sha256(b"abc").hexdigest())
    checkpoints.verify(missing, None)


def test_names_and_hashes():
    assert checkpoints.path_of(Sam(model="vit_h")).as_posix() == "checkpoints/sam_vit_h_4b8939.pth"
    assert checkpoints.expected_sha256(Sam()) is None
    for model in ("vit_b", "vit_l", "vit_h"):
        assert checkpoints.expected_sha256(Sam(model=model)) == checkpoints.OFFICIAL[model][1]
        assert len(checkpoints.OFFICIAL[model][1]) == 64
        assert checkpoints.OFFICIAL[model][0].startswith(f"sam_{model}_")
    assert checkpoints.expected_sha256(Sam(model="vit_b", sha256="0" * 64)) == "0" * 64


@pytest.mark.parametrize(
    "error", [urllib.error.URLError("Name or service not known"), TimeoutError("late"), ConnectionResetError("gone")]
)
def test_without_a_connection_the_way_out_is_named(tmp_path, monkeypatch, error):
    def urlopen(url, timeout):
        raise error

    monkeypatch.setattr(checkpoints.urllib.request, "urlopen", urlopen)
    path = tmp_path / "checkpoints" / "sam_vit_b_01ec64.pth"
    with pytest.raises(DataError) as caught:
        checkpoints.download("vit_b", path)
    text = str(caught.value)
    assert text.startswith(f"{path}: cannot be downloaded")
    for hint in (checkpoints.BASE_URL, checkpoints.OFFICIAL["vit_b"][1], "sam.checkpoint", "sam.model: small"):
        assert hint in text
    assert not list(path.parent.iterdir())


def offered(tmp_path, monkeypatch, content, expected):
    (tmp_path / "server").mkdir()
    (tmp_path / "server" / "made-up.pth").write_bytes(content)
    monkeypatch.setattr(checkpoints, "BASE_URL", (tmp_path / "server").as_uri() + "/")
    monkeypatch.setitem(checkpoints.OFFICIAL, "vit_b", ("made-up", expected))


def test_a_download_is_verified_and_takes_its_name(tmp_path, monkeypatch):
    content = bytes(range(256)) * 9000  # some blocks
    offered(tmp_path, monkeypatch, content, hashlib.sha256(content).hexdigest())
    checkpoints.download("vit_b", tmp_path / "here" / "made-up.pth")
    assert (tmp_path / "here" / "made-up.pth").read_bytes() == content


def test_a_wrong_download_leaves_no_file(tmp_path, monkeypatch):
    offered(tmp_path, monkeypatch, b"something else", "0" * 64)
    with pytest.raises(DataError, match="wrong SHA-256"):
        checkpoints.download("vit_b", tmp_path / "here" / "made-up.pth")
    assert not list((tmp_path / "here").iterdir())
