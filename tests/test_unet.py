"U-Net on timm pyramids: sizes, gradients, copying, exporting, compiling, naming"
import copy
import pytest, timm, torch
import torch.nn.functional as F
from drone_seg.fields import ModelError
from drone_seg.models.encoders import check_pyramid, create_encoder, encoder_pyramid, nearest_encoders
from drone_seg.models.unet import create_unet, pad_to_stride, splitter

BACKBONES = ['resnet18', 'resnet50', 'resnext50_32x4d', 'regnety_004', 'efficientnet_b0', 'tf_efficientnet_lite0', 'mobilenetv2_100',
             'mobilenetv3_large_100', 'mobilenetv4_conv_small', 'convnext_atto', 'densenet121', 'vgg11_bn', 'hrnet_w18_small']

@pytest.fixture(scope='module')
def net():
    torch.manual_seed(0)
    return create_unet('tf_efficientnet_lite0', 5).eval()

@pytest.mark.parametrize('name', BACKBONES)
def test_backbones_give_at_least_three_skips_and_full_size_logits(name):
    net = create_unet(name, 4).eval()
    assert len(net.pyramid)>=4
    assert [(c,s) for c,s in net.pyramid]==list(zip(net.encoder.feature_info.channels(), net.encoder.feature_info.reduction()))
    with torch.no_grad(): assert net(torch.rand(1,3,65,97)).shape==(1,4,65,97)
    assert net.decoder.stride==2

def test_odd_sizes_31_to_300(net):
    with torch.no_grad():
        for n in range(31, 301, 9):
            assert net(torch.rand(1,3,n,331-n)).shape==(1,5,n,331-n)

@pytest.mark.parametrize('h,w', [(1,1), (7,300), (31,31), (32,33), (63,17)])
def test_tiny_and_narrow_images(net, h, w):
    with torch.no_grad(): out = net(torch.rand(1,3,h,w))
    assert out.shape==(1,5,h,w) and torch.isfinite(out).all()

def test_padding_equals_numpy():
    import numpy as np
    x = torch.rand(2,3,21,37)
    p = pad_to_stride(x, 32)
    assert (p.numpy()==np.pad(x.numpy(), ((0,0),(0,0),(0,11),(0,27)), mode='reflect')).all()
    p = pad_to_stride(x[...,:5,:], 32)
    assert (p.numpy()==np.pad(x[...,:5,:].numpy(), ((0,0),(0,0),(0,27),(0,27)), mode='edge')).all()

def test_padding_is_cropped_away(net):
    "The answer of an odd image is the upper left corner of the answer of its padded version"
    x = torch.rand(1,3,50,70)
    with torch.no_grad(): a,b = net(x),net(pad_to_stride(x, 32))
    torch.testing.assert_close(a, b[...,:50,:70])

def test_normalises_with_the_backbone_config():
    for name in ('tf_efficientnet_lite0', 'resnet18'):
        net = create_unet(name, 3).eval()
        cfg = timm.get_pretrained_cfg(name)
        x = torch.rand(1,3,64,64)
        z = (x-torch.tensor(cfg.mean).view(1,3,1,1))/torch.tensor(cfg.std).view(1,3,1,1)
        seen = []
        h = net.encoder.register_forward_pre_hook(lambda m,i: seen.append(i[0]))
        with torch.no_grad(): net(x)
        h.remove()
        torch.testing.assert_close(seen[0], z)
        assert {'mean','std'} <= set(net.state_dict())

def test_forward_equals_a_written_out_one():
    "The decoder, step by step, against the network"
    net = create_unet('resnet18', 3).eval()
    x = torch.rand(2,3,64,96)
    with torch.no_grad():
        f0,f1,f2,f3,f4 = net.encoder((x-net.mean)/net.std)
        y = f4
        for block,skip in zip(net.decoder.blocks, [f3,f2,f1,f0]):
            z = torch.cat([y.repeat_interleave(2,2).repeat_interleave(2,3), skip], 1)
            y = F.relu(block.convs(z)+block.short(z))
        want = F.interpolate(net.head(y), size=(64,96), mode='bilinear')
        torch.testing.assert_close(net(x), want)

def test_gradient_reaches_every_parameter():
    net = create_unet('tf_efficientnet_lite0', 5)
    net(torch.rand(2,3,64,64)).square().mean().backward()
    assert [n for n,p in net.named_parameters() if p.grad is None or not p.grad.abs().sum()>0]==[]

def test_deepcopy_after_backward_and_no_hooks():
    net = create_unet('resnet18', 3)
    net(torch.rand(2,3,64,64)).mean().backward()
    twin = copy.deepcopy(net).eval()
    x = torch.rand(1,3,64,64)
    assert torch.equal(twin(x), net.eval()(x))
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in net.modules())

def test_export(net):
    x = torch.rand(1,3,50,70)
    prog = torch.export.export(net, (x,))
    torch.testing.assert_close(prog.module()(x), net(x))

def test_traces_as_one_graph(program):
    "fullgraph=True with the eager backend raises at any graph break; in a process of its own, as dynamo takes minutes in one that has done much"
    code = """import torch
from drone_seg.models.unet import create_unet
net,x = create_unet('tf_efficientnet_lite0', 5).eval(),torch.rand(1,3,64,70)
with torch.no_grad(): torch.testing.assert_close(torch.compile(net, fullgraph=True, backend='eager')(x), net(x))"""
    program(code)

def test_channels_last_and_bf16(net):
    x = torch.rand(2,3,64,96)
    want = net(x)
    twin = copy.deepcopy(net).to(memory_format=torch.channels_last)
    torch.testing.assert_close(twin(x.to(memory_format=torch.channels_last)), want, rtol=1e-3, atol=1e-3)
    with torch.autocast('cpu', torch.bfloat16): assert twin(x).dtype==torch.bfloat16

def test_no_cycle_keeps_activations_alive():
    "PITFALLS: hooks of fastai's DynamicUnet keep activations; here a forward pass leaves no tensor behind"
    import gc
    net = create_unet('resnet18', 3)
    def count(): gc.collect(); return sum(issubclass(type(o), torch.Tensor) for o in gc.get_objects())
    net(torch.rand(2,3,64,64)); before = count()
    for _ in range(3): net(torch.rand(2,3,64,64))
    assert count()<=before

def test_groups_are_disjoint_and_complete(net):
    groups = splitter(net)
    ids = [id(p) for g in groups for p in g]
    assert len(groups)==3 and len(ids)==len(set(ids)) and set(ids)=={id(p) for p in net.parameters()}

def test_decoder_widths_are_capped():
    n = sum(p.numel() for p in create_unet('resnet50', 22).parameters())
    assert n<40e6 # fastai's DynamicUnet: 339 M

def test_widths_and_out_stride():
    net = create_unet('resnet18', 3, widths=(32,16), out_stride=4).eval()
    assert (net.decoder.stride, net.decoder.n_out)==(4,16)
    assert create_unet('convnext_atto', 3).decoder.stride==2 # its pyramid ends at 4: one step without a skip
    with torch.no_grad(): assert net(torch.rand(1,3,65,64)).shape==(1,3,65,64)

def test_config_builds_the_same_network():
    net = create_unet('resnet18', 3, widths=(64,32,16,16))
    twin = create_unet(**net.config)
    twin.load_state_dict(net.state_dict())

def test_other_band_counts():
    net = create_unet('resnet18', 3, in_chans=5).eval()
    with torch.no_grad(): assert net(torch.rand(1,5,64,64)).shape==(1,3,64,64)

@pytest.mark.parametrize('name,near', [('resnet35','resnet34'), ('tf_efficientnet_light0','tf_efficientnet_lite0'), ('Convnext-tiny','convnext_tiny')])
def test_unknown_name_gets_three_nearest(name, near):
    with pytest.raises(ModelError) as e: create_encoder(name)
    assert near in str(e.value) and '\n' not in str(e.value)
    assert len(nearest_encoders(name))==3

def test_named_neighbours_can_be_built():
    near = nearest_encoders('mobilenet_v2') # torchvision's and smp's spelling
    assert len(near)==3 and 'mobilenetv2_100' in near and all(n.startswith('mobilenetv2_') for n in near)
    for n in near: create_encoder(n)

@pytest.mark.parametrize('name,first', [('ResNet50','resnet50'), ('resnet_50','resnet50'), ('resnet99','resnet50'), ('tinyvit','tiny_vit_5m_224'), ('Torchvision/ResNet18','torchvision/resnet18')])
def test_capitals_and_dashes_are_no_difference(name, first): assert nearest_encoders(name)[0]==first

def test_too_few_skips_is_refused_with_its_pyramid():
    class Two(torch.nn.Module):
        def forward(self, x): return [F.avg_pool2d(x, 8), F.avg_pool2d(x, 16)]
    with pytest.raises(ModelError, match='1 skip connections.*stride 8.*stride 16'): check_pyramid('two', encoder_pyramid(Two()))

def test_not_more_than_smp_costs():
    "SPEED row 7 counts time in benchmarks/; here the parameters"
    smp = pytest.importorskip('segmentation_models_pytorch')
    n = lambda m: sum(p.numel() for p in m.parameters())
    assert n(create_unet('tf_efficientnet_lite0', 22)) <= 1.1*n(smp.Unet('tu-tf_efficientnet_lite0', encoder_weights=None, classes=22))

@pytest.mark.parametrize('kw,says', [(dict(widths=64), 'widths=64; pass channels'), (dict(widths=()), r'widths=\(\)'), (dict(widths=(64,0)), 'widths='), (dict(widths=(64,.5)), 'widths='),
    (dict(out_stride=3), 'out_stride=3; it is one of 1, 2, 4'), (dict(out_stride=32), 'out_stride=32'), (dict(out_stride=64), 'out_stride=64'), (dict(out_stride=0), 'out_stride=0')])
def test_odd_sizes_of_the_decoder_are_refused(kw, says):
    with pytest.raises(ModelError, match=says): create_unet('resnet18', 3, **kw)

@pytest.mark.parametrize('out_stride', [1, 2, 4, 8, 16])
def test_all_named_strides_work(out_stride):
    net = create_unet('resnet18', 3, out_stride=out_stride).eval()
    assert net.decoder.stride==out_stride
    with torch.no_grad(): assert net(torch.rand(1,3,64,64)).shape==(1,3,64,64)

def test_a_normalisation_can_be_given():
    body = timm.create_model('resnet18')
    net = create_unet(body, 3, mean=(.1,.2,.3), std=(.4,.5,.6))
    assert net.mean.flatten().tolist()==pytest.approx([.1,.2,.3]) and net.std.flatten().tolist()==pytest.approx([.4,.5,.6])
    net = create_unet('resnet18', 3, mean=(.1,.2,.3))
    assert net.std.flatten().tolist()==pytest.approx([.229,.224,.225]) and create_unet(**net.config).mean.flatten().tolist()==pytest.approx([.1,.2,.3])
    with pytest.raises(ModelError, match='mean has 2 numbers, the image 3 bands'): create_unet('resnet18', 3, mean=(.1,.2))

def test_further_bands_get_the_average():
    assert create_unet('resnet18', 3, in_chans=5).mean.flatten().tolist()==pytest.approx([.485,.456,.406,.449,.449])
