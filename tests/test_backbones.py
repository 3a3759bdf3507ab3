"""Backbones of every family under a U-Net: skips, odd sizes, gradient, copy, memory; export, ONNX and compile for one small one of each kind.

`python benchmarks/backbones.py` does all of it for all of them and writes the table."""
import copy, importlib.util, warnings
from pathlib import Path
import pytest, timm, torch, torchvision
from torch import nn
from drone_seg.fields import ModelError
from drone_seg.models.encoders import (TracedEncoder, create_encoder, encoder_key, encoder_pyramid, encoder_stats, nearest_encoders)
from drone_seg.models.unet import create_unet

spec = importlib.util.spec_from_file_location('backbones', Path(__file__).parent.parent/'benchmarks'/'backbones.py')
bench = importlib.util.module_from_spec(spec); spec.loader.exec_module(bench)
HEAVY = {'resnet50', 'resnext50_32x4d', 'torchvision/vgg16_bn'} # their small sisters are here; the benchmark has them
VIT = [a for a in bench.BACKBONES if a.startswith(('vit_', 'deit'))]
KINDS = ['mobilenetv3_small_050', 'torchvision/mobilenet_v3_small', 'swin_tiny_patch4_window7_224', 'vit_tiny_patch16_224'] # what is exported here

def shallow(net):
    "One block of each kind; more of them export alike, and take a minute"
    kind = lambda m: type(m).__name__
    for m in net.modules():
        if kind(m)=='SwinTransformerStage': m.blocks = m.blocks[:2] # a window that stands and one that is shifted
        if kind(m)=='VisionTransformer': # the four whose maps are taken
            for i in {*range(len(m.blocks))}-{2,5,8,11}: m.blocks[i] = nn.Identity()
        if kind(m)=='MobileNetV3Features': m.blocks = nn.Sequential(*[stage[:1] for stage in m.blocks])
    return net

def smp_or_skip(arch):
    if arch.startswith('mit_'): pytest.importorskip('segmentation_models_pytorch')

@pytest.mark.parametrize('arch', [a for a in bench.BACKBONES if a not in HEAVY])
def test_each(arch):
    "Three skips or the ViT path; logits at odd sizes; a gradient in every parameter; a copy that answers alike"
    smp_or_skip(arch)
    r = bench.measure(arch, size=64, odd_sizes=((31,45), (65,40)), rounds=1)
    strides = [s for _,s in r['pyramid']]
    if arch in VIT: assert len(strides)==4 and len(set(strides))==1 and r['skips']=='ViT'
    else: assert r['skips']>=3 and strides==sorted(set(strides))
    assert r['without_gradient']==[] and r['copy'] and r['odd']
    assert r['memory']>8*r['parameters']>0

@pytest.mark.parametrize('arch', ['mobilenetv3_small_050', 'swinv2_cr_tiny_ns_224', 'vit_tiny_patch16_224'])
def test_odd_sizes_31_to_300(arch):
    net = create_unet(arch, 3, widths=[16]*4).eval()
    with torch.no_grad():
        for n in range(31, 301, 15): assert net(torch.rand(1,3,n,331-n if n%2 else 32)).shape[-2:]==(n,331-n if n%2 else 32)

def test_saved_bytes_of_a_hand_worked_case():
    "relu keeps its output, the square its input (the same storage), mean nothing: one map of 4*5 floats; the weight is not counted"
    net = nn.Sequential(nn.Linear(3, 5, bias=False), nn.ReLU())
    x = torch.rand(4,3)
    assert bench.saved_bytes(net, lambda: net(x).square().mean())==4*(4*5 + 4*3)

# Exporting

@pytest.mark.parametrize('arch', KINDS)
def test_export_onnx_and_compile(arch):
    warnings.filterwarnings('ignore', category=FutureWarning, module='torch')
    for m in ('onnx', 'onnxscript', 'onnxruntime'): pytest.importorskip(m)
    assert bench.exports(arch, 32, 64, shallow)==dict(export='ok', onnx='ok', compile='ok')

# torchvision

@pytest.mark.parametrize('name,pyramid', [
    ('resnet18', [(64,2), (64,4), (128,8), (256,16), (512,32)]),
    ('vgg11_bn', [(128,2), (256,4), (512,8), (512,16), (512,32)])])
def test_traced_maps_equal_timms_with_the_same_weights(name, pyramid):
    "The same classifier from torchvision and timm: equal maps"
    net = getattr(torchvision.models, name)(weights=None).eval()
    ours,theirs = create_encoder(net),timm.create_model(name, features_only=True).eval()
    assert encoder_pyramid(ours)==pyramid
    state = dict(net.state_dict())
    if name=='resnet18':
        theirs.load_state_dict(state, strict=False)
        x = torch.rand(1,3,64,96)
        with torch.no_grad():
            for a,b in zip(ours.eval()(x), theirs(x), strict=True): torch.testing.assert_close(a, b)

def test_traced_vgg_maps_are_what_its_layers_say():
    net,x = torchvision.models.vgg11(weights=None).eval(),torch.rand(1,3,64,96)
    maps,y = create_encoder(net).eval()(x),x
    want = []
    for m in net.features:
        if isinstance(m, nn.MaxPool2d): want.append(y)
        y = m(y)
    for a,b in zip(maps, [*want[1:], y], strict=True): assert torch.equal(a, b)

def test_channels_last_swin_is_turned():
    "torchvision's Swin keeps channels last; its stages give the same maps"
    net,x = torchvision.models.swin_t(weights=None).eval(),torch.rand(1,3,64,96)
    maps,y,want = create_encoder(net).eval()(x),x,[]
    with torch.no_grad():
        for i,m in enumerate(net.features):
            y = m(y)
            if i%2: want.append(y.permute(0,3,1,2))
    assert [m.shape for m in maps]==[w.shape for w in want]
    for a,b in zip(maps[:-1], want): torch.testing.assert_close(a, b)
    torch.testing.assert_close(maps[-1], net.norm(want[-1].permute(0,2,3,1)).permute(0,3,1,2)) # the last one after its norm

def test_function_text_and_config_are_one():
    a = create_unet(torchvision.models.mobilenet_v3_small, 3)
    assert a.config['encoder']=='torchvision/mobilenet_v3_small'==encoder_key('torchvision/mobilenet_v3_small')
    create_unet(**a.config).load_state_dict(a.state_dict())
    assert encoder_stats(a.encoder)==((.485,.456,.406), (.229,.224,.225))

def test_traced_encoder_follows_train_and_eval():
    "Batch normalisation and dropout are those of the mode at hand, not of the moment of tracing"
    net = create_encoder('torchvision/resnet18').train()
    before = net.body.bn1.running_mean.clone()
    net(torch.rand(2,3,64,64))
    assert not torch.equal(before, net.body.bn1.running_mean)
    before = net.eval().body.bn1.running_mean.clone(); net(torch.rand(2,3,64,64))
    assert torch.equal(before, net.body.bn1.running_mean)

def test_weights_of_torchvision_have_the_encoders_names():
    "Every tensor of the encoder's body has the classifier's name, so that a state loads"
    for arch in ('resnet18', 'densenet121', 'swin_t'):
        net = getattr(torchvision.models, arch)(weights=None)
        assert set(create_encoder(f'torchvision/{arch}').body.state_dict())<=set(net.state_dict())

@pytest.mark.parametrize('arch', ['torchvision/mobilenet_v3_small', 'mobilenetv3_small_050', 'mit_b0', 'vit_tiny_patch16_224'])
def test_five_bands(arch):
    smp_or_skip(arch)
    net = create_unet(arch, 3, in_chans=5).eval()
    with torch.no_grad(): assert net(torch.rand(1,5,33,64)).shape==(1,3,33,64)

# Modules

def test_module_keeps_its_weights_and_has_no_config():
    net = torchvision.models.resnet18(weights=None)
    w = net.layer1[0].conv1.weight
    res = create_unet(net, 3)
    assert res.body.get_submodule('layer1.0.conv1').weight is w and not hasattr(res, 'config')

def test_module_that_is_a_pyramid_is_taken_as_it_is():
    body = timm.create_model('mobilenetv3_small_050', features_only=True)
    assert create_encoder(body) is body

def test_module_that_cannot_be_traced_is_refused():
    class Fork(nn.Module):
        def forward(self, x): return x if x.sum()>0 else -x
    with pytest.raises(ModelError, match='Fork cannot be traced.*feature maps') as e: create_encoder(Fork())
    assert '\n' not in str(e.value)
    class Flat(nn.Module):
        def __init__(self): super().__init__(); self.c = nn.Conv2d(3, 4, 3, stride=2, padding=1)
        def forward(self, x): return self.c(x).mean((2,3))
    with pytest.raises(ModelError, match='Flat has 0 skip'): create_encoder(Flat())

# Sizes of images that transformers were not built for

@pytest.mark.parametrize('arch', ['swinv2_tiny_window8_256', 'swin_tiny_patch4_window7_224'])
def test_swin_at_another_size_equals_one_built_for_it(arch):
    """timm's own network built for 224x288 with the same weights, windows padded. Not the last map: whether its windows shift is settled
    when a network is built, by the size it is built for, and pretrained ones of 224 or 256 pixels do not"""
    net = bench.wake(create_encoder(arch)).eval() # SwinV2's norms start at 0, and would hide its attention
    twin = timm.create_model(arch, features_only=True, img_size=(224,288), window_size=net.body.layers_0.blocks[0].window_size[0]).eval()
    twin.load_state_dict(net.body.state_dict())
    x = torch.rand(1,3,224,288)
    with torch.no_grad():
        for a,b in list(zip(net(x), twin(x), strict=True))[:3]: torch.testing.assert_close(a, b.permute(0,3,1,2), rtol=1e-4, atol=1e-4)

def test_vit_at_its_own_size_equals_the_plain_one():
    net,twin = create_encoder('vit_tiny_patch16_224').eval(),timm.create_model('vit_tiny_patch16_224', num_classes=0).eval()
    twin.load_state_dict(net.body.state_dict() if hasattr(net, 'body') else net.model.state_dict(), strict=False)
    x = torch.rand(1,3,224,224)
    with torch.no_grad():
        want = twin.get_intermediate_layers(x, n=[2,5,8,11], reshape=True)
        for a,b in zip(net(x), want, strict=True): torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-4)

# Refusals

@pytest.mark.parametrize('name,near', [('torchvision/resnet35','torchvision/resnet34'), ('mit_b9','mit_b'), ('hiera_tiny_224','resnet34'), ('levit_128','resnet34'), ('mvitv2_tiny','resnet34')])
def test_refusals_name_what_would_do(name, near):
    with pytest.raises(ModelError) as e: create_encoder(name)
    assert 'nearest supported backbones' in str(e.value) and '\n' not in str(e.value)
    names = str(e.value).rpartition(': ')[2].split(', ')
    assert len(names)==3 and any(near in n for n in names)
    create_encoder(names[0])

# Modules and functions that were handed over

def test_modules_bring_the_normalisation_of_their_weights():
    imagenet = ((.485,.456,.406), (.229,.224,.225))
    assert encoder_stats(create_encoder(torchvision.models.resnet18()))==imagenet
    assert encoder_stats(create_encoder(timm.create_model('resnet18')))==imagenet
    mute = timm.create_model('resnet18'); mute.pretrained_cfg = None
    assert encoder_stats(create_encoder(mute))==((.5,)*3,)*2

def test_timms_functions_are_timms_networks():
    assert encoder_key(timm.models.resnet.resnet18)=='resnet18' and encoder_key(torchvision.models.resnet18)=='torchvision/resnet18'
    assert list(create_encoder(timm.models.resnet.resnet18).state_dict())==list(create_encoder('resnet18').state_dict())

@pytest.mark.parametrize('arch', [5, ('a','b'), len, None, lambda: None])
def test_what_is_no_backbone_is_refused_by_type(arch):
    with pytest.raises(ModelError, match='is no backbone; pass a name') as e: create_encoder(arch)
    assert '\n' not in str(e.value)

def test_a_wrong_tag_names_the_network_and_its_tags():
    near = nearest_encoders('resnet34.foo')
    assert near[0]=='resnet34' and near[1].startswith('resnet34.') and len(near)==3

def test_a_module_that_cannot_be_traced_is_told_of_timms_pyramid():
    with pytest.raises(ModelError, match='features_only=True'): create_encoder(timm.create_model('tf_efficientnet_lite0'))
