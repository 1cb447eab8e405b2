import pickle
import threading

import pytest
import torch

from geodl.base.errors import BundleError, OptionError, SourceNotFoundError
from geodl.bundle import load_model, resolve_model
from geodl.bundle.cache import CACHED_MODELS, ModelRef, forget_models


def test_a_loaded_model_answers_like_the_one_that_was_saved(package, contract):
    loaded = load_model(resolve_model(package.dlpk(), package.root))
    x = torch.randn(2, 2, 8, 8)
    with torch.inference_mode():
        assert torch.allclose(loaded.net(x), package.net(x), atol=1e-6)
        assert loaded.task.scores(loaded.net, x).shape == (2, 3, 8, 8)
    assert loaded.contract == contract
    assert not loaded.net.training
    assert not any(p.requires_grad for p in loaded.net.parameters())


def test_a_reference_is_small_and_does_not_depend_on_the_working_folder(package, monkeypatch):
    package.folder()
    monkeypatch.chdir(package.root)
    ref = resolve_model("points", package.root)
    assert ref.path == str(package.root / "points")
    monkeypatch.chdir("/")
    assert load_model(ref) is load_model(pickle.loads(pickle.dumps(ref)))
    assert len(pickle.dumps(ref)) < 1000


def test_a_process_loads_a_model_once_also_from_many_threads(package, model_class):
    ref = resolve_model(package.folder(), package.root)
    model_class.built = 0
    seen = []
    threads = [threading.Thread(target=lambda: seen.append(load_model(ref))) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert model_class.built == 1
    assert all(model is seen[0] for model in seen)


def test_the_cache_keeps_few_models(package, model_class):
    refs = []
    for i in range(CACHED_MODELS + 1):
        package.change(Classes=[{"Value": i + 1, "Name": "a"}, {"Value": 90, "Name": "b"}])
        path = package.root / f"m{i}.dlpk"
        path.write_bytes(package.dlpk().read_bytes())
        refs.append(resolve_model(path, package.root))
    assert len({ref.sha256 for ref in refs}) == len(refs)
    models = [load_model(ref) for ref in refs]
    assert load_model(refs[-1]) is models[-1]
    assert load_model(refs[0]) is not models[0]


def test_a_package_that_changed_since_planning_is_refused(package):
    ref = resolve_model(package.folder(), package.root)
    package.change(ModelParameters={"width": 4, "more": 1}).folder()
    with pytest.raises(BundleError, match="another model than the run was planned with"):
        load_model(ref)


def test_a_package_that_is_gone_is_said(package):
    ref = resolve_model(package.dlpk(), package.root)
    (package.root / "points.dlpk").unlink()
    with pytest.raises(SourceNotFoundError, match=r"points\.dlpk"):
        load_model(ref)


@pytest.mark.parametrize(
    ("parameters", "text"),
    [
        ({}, "ModelParameters"),
        ({"width": "wide"}, "ModelParameters"),
        ({"width": 5}, r"'backbone\.0\.weight' have the shape \(4, 2, 1, 1\), the network \(5"),
        ({"width": 4, "norm": "layer"}, "norm"),
    ],
)
def test_parameters_that_build_no_such_network_are_refused(package, parameters, text):
    ref = resolve_model(package.change(ModelParameters=parameters).folder(), package.root)
    with pytest.raises(BundleError, match=f"(?s)points.emd.*{text}"):
        load_model(ref)


def test_a_trained_object_is_packed_for_the_workers(package):
    class Trained:
        def write_bundle(self, folder):
            assert folder == package.root / "run"
            return package.folder() / "points.emd"

    ref = resolve_model(Trained(), package.root / "run")
    assert load_model(ref).contract.model_name == "PointClassifier"


def test_what_is_no_model_is_refused(tmp_path):
    with pytest.raises(OptionError, match="int is no model"):
        resolve_model(3, tmp_path)


def test_loading_leaves_the_random_state(package):
    ref = resolve_model(package.folder(), package.root)
    state = torch.get_rng_state()
    load_model(ref)
    assert torch.equal(torch.get_rng_state(), state)


def test_forgotten_models_are_loaded_again(package):
    ref = resolve_model(package.folder(), package.root)
    first = load_model(ref)
    assert load_model(ref, torch.device("cpu")) is first
    forget_models()
    assert load_model(ref) is not first


def test_references_compare_by_value():
    assert ModelRef("a", "b") == ModelRef("a", "b")
