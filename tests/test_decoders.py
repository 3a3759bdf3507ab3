"Options of the U-Net's decoder, and fastai's decoder against fastai's own"
import copy, warnings
import pytest, torch
from torch import nn
from drone_seg.fields import ModelError
from drone_seg.models.decoder import DecoderBlock, Reassemble
from drone_seg.models.fastai_decoder import CrossBlock, SelfAttention, Shuffle
from drone_seg.models.unet import UNet, create_unet, splitter

OPTIONS = [dict(), dict(block='plain'), dict(widths=(64,32), out_stride=4), dict(decoder='fastai'),
           dict(decoder='fastai', blur=True, self_attention=True, bottle=True), dict(decoder='fastai', last_cross=False)]
named = dict(argvalues=OPTIONS, ids=lambda o: ','.join(f'{k}={v}' for k,v in o.items()) or 'default')

def wake(net):
    "Self-attention starts with gamma 0; give it a share"
    for m in net.modules():
        if isinstance(m, SelfAttention): nn.init.constant_(m.gamma, .5)
    return net

@pytest.mark.parametrize('options', **named)
def test_odd_sizes_gradient_copy_groups_and_config(options):
    net = wake(create_unet('mobilenetv3_small_050', 5, **options))
    out = net(torch.rand(2,3,65,97))
    assert out.shape==(2,5,65,97)
    out.square().mean().backward()
    assert [n for n,p in net.named_parameters() if p.grad is None or not p.grad.abs().sum()>0]==[]
    x = torch.rand(1,3,64,64)
    twin = copy.deepcopy(net).eval()
    with torch.no_grad(): assert torch.equal(twin(x), net.eval()(x))
    groups = splitter(net)
    assert sorted(id(p) for g in groups for p in g)==sorted(id(p) for p in net.parameters())
    create_unet(**net.config).load_state_dict(net.state_dict())

class Steps(nn.Module):
    "The smallest encoder of five strides"
    def __init__(self):
        super().__init__()
        self.convs = nn.ModuleList([nn.Conv2d(n, m, 3, stride=2, padding=1) for n,m in zip((3,8,8,16,16), (8,8,16,16,32))])
    def forward(self, x): return [x := c(x).relu() for c in self.convs]

@pytest.mark.parametrize('options', **named)
def test_one_graph(options):
    "Whatever the decoder; that encoders are one graph is seen in test_backbones.py"
    torch._dynamo.reset() # or it stops at the eighth kind of network
    net,x = UNet(Steps(), 5, **options).eval(),torch.rand(2,3,64,64)
    with torch.no_grad(): torch.testing.assert_close(torch.compile(net, fullgraph=True, backend='eager')(x), net(x))

def test_residual_block_is_its_convolutions_plus_its_short_cut():
    m,x,s = DecoderBlock(6, 4, 8, 'residual').eval(),torch.rand(1,6,2,3),torch.rand(1,4,4,6)
    for p in m.convs.parameters(): nn.init.zeros_(p)
    both = torch.cat([x.repeat_interleave(2,2).repeat_interleave(2,3), s], 1)
    with torch.no_grad(): torch.testing.assert_close(m(x, s), m.short(both).clamp(min=0))

def test_blur_averages_four_cells():
    m = Shuffle(1, 1, blur=True)
    m.shuffle = nn.Identity() # the map is large enough
    y = m(torch.tensor([[[[0.,0.,4.,4.],[0.,0.,4.,4.],[8.,8.,12.,12.],[8.,8.,12.,12.]]]]), (4,4))[0,0]
    assert y.tolist()==[[0,0,2,4],[0,0,2,4],[4,4,6,8],[8,8,10,12]]

def test_reassemble_strides_of_patch_14_and_16():
    assert [s for _,s in Reassemble([(384,14)]*4).pyramid]==[3.5,7,14,28]
    assert Reassemble([(768,16)]*4).pyramid==[(96,4), (192,8), (384,16), (768,32)]

@pytest.mark.parametrize('kw,match', [(dict(block='dense'), 'nearest are residual, plain'), (dict(upsample='shuffle'), 'no option .upsample.*out_stride'), (dict(decoder='fpn'), 'nearest are unet, fastai'),
                                      (dict(decoder='fastai', widths=(64,)), 'no option .widths.*blur_final')])
def test_wrong_options_are_refused(kw, match):
    with pytest.raises(ModelError, match=match) as e: create_unet('resnet18', 3, **kw)
    assert '\n' not in str(e.value)

# fastai's own

def copy_attention(ours, theirs):
    for k in ('query', 'key', 'value'):
        a,b = getattr(ours, k),getattr(theirs, k)[0]
        a.parametrizations.weight.original.data.copy_(b.weight_orig)
        a.parametrizations.weight[0]._u.copy_(b.weight_u); a.parametrizations.weight[0]._v.copy_(b.weight_v)
    ours.gamma.data.copy_(theirs.gamma.data)

def copy_convs(ours, theirs):
    "Convolutions and batch normalisations in order of definition, self-attention's apart"
    pick = lambda m: [c for c in m.modules() if isinstance(c, (nn.Conv2d, nn.BatchNorm2d))]
    a,b = pick(ours),pick(theirs)
    assert [type(o) for o in a]==[type(o) for o in b]
    for x,y in zip(a, b): x.load_state_dict(y.state_dict())

def test_self_attention_equals_fastais():
    layers = pytest.importorskip('fastai.layers')
    theirs,ours = layers.SelfAttention(16).eval(),SelfAttention(16).eval()
    nn.init.constant_(theirs.gamma, .7)
    copy_attention(ours, theirs)
    x = torch.randn(2,16,5,7)
    torch.testing.assert_close(ours(x), theirs(x), rtol=1e-4, atol=1e-4)

@pytest.mark.parametrize('blur', [False, True])
@pytest.mark.parametrize('final', [False, True])
def test_cross_block_equals_fastais_unet_block(final, blur):
    unet = pytest.importorskip('fastai.vision.models.unet')
    class Hook: stored = torch.randn(2,12,9,14)
    theirs = unet.UnetBlock(20, 12, Hook, final_div=not final, blur=blur).eval()
    ours = CrossBlock(20, 12, final, blur).eval()
    copy_convs(ours, theirs)
    x = torch.randn(2,20,5,7) # shuffled to 10x14, so also resized to the skip
    torch.testing.assert_close(ours(x, Hook.stored), theirs(x), rtol=1e-4, atol=1e-4)

@pytest.mark.parametrize('options', [dict(), dict(blur=True), dict(blur=True, blur_final=False, self_attention=True), dict(last_cross=False)],
                         ids=lambda o: ','.join(o) or 'default')
def test_fastai_decoder_equals_dynamic_unet(options):
    "Logits of resnet18 with the same weights, at a size both can take as it is; the difference: we normalise inside"
    unet = pytest.importorskip('fastai.vision.models.unet')
    import torchvision
    torch.manual_seed(0)
    body = nn.Sequential(*list(torchvision.models.resnet18(weights=None).children())[:-2])
    theirs = unet.DynamicUnet(body, 5, (64,96), **options).eval()
    ours = create_unet('resnet18', 5, decoder='fastai', **options).eval()
    for m in theirs.modules():
        if isinstance(m, nn.BatchNorm2d): m.running_mean.normal_(0,.1); m.running_var.uniform_(.5,2)
    copy_convs(ours.encoder, body)
    parts = list(theirs.layers)
    copy_convs(ours.decoder, nn.Sequential(*parts[1:-2]))
    ours.head.load_state_dict(parts[-2][0].state_dict())
    attend = [m for m in theirs.modules() if type(m).__name__=='SelfAttention']
    for m in attend: nn.init.constant_(m.gamma, .7)
    for a,b in zip([m for m in ours.modules() if isinstance(m, SelfAttention)], attend, strict=True): copy_attention(a, b)
    x = torch.rand(2,3,64,96)
    with torch.no_grad(): torch.testing.assert_close(ours(x), torch.Tensor(theirs((x-ours.mean)/ours.std)), rtol=1e-4, atol=1e-4)
    n = lambda m: sum(p.numel() for p in m.parameters())
    assert n(ours)==n(theirs)

def test_bottle_that_fastai_cannot_build():
    unet = pytest.importorskip('fastai.vision.models.unet')
    import torchvision
    body = nn.Sequential(*list(torchvision.models.resnet18(weights=None).children())[:-2])
    with pytest.raises(RuntimeError, match='channels'): unet.DynamicUnet(body, 5, (64,64), bottle=True)(torch.rand(2,3,64,64))
    n = lambda **kw: sum(p.numel() for p in create_unet('resnet18', 5, decoder='fastai', **kw).parameters())
    assert n(bottle=True)<n()
