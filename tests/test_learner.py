"The learner: what it refuses, how it trains, what it keeps"
import copy, os, warnings
import numpy as np, pytest, torch
from torch import nn
from torch.utils.data import TensorDataset
from fastai.callback.core import Callback
from fastai.data.core import DataLoaders
from fastai.data.load import DataLoader
from fastai.data.transforms import Normalize
from fastcore.basics import noop
from fasttransform import Pipeline
from safetensors.torch import load_file
from drone_seg.classes import IGNORE, ClassTable
from drone_seg.models.memory import has_fast_bf16
from drone_seg.models.unet import create_unet
from drone_seg.fields import ModelError, TrainError
from drone_seg.train.keep import KeepBest, write_state
from drone_seg.train.learner import seg_learner, unet_learner
from drone_seg.train.precision import DepthwiseConv, DepthwiseConvSame, depthwise_in_float32

COLORS = torch.tensor([[.9,.1,.1], [.1,.9,.1], [.1,.1,.9]])

def items(n, seed, size=(32,48)):
    "Photos of three colours in blocks under noise, with a void border: simple enough to learn in seconds"
    g = torch.Generator().manual_seed(seed)
    y = torch.randint(0, 3, (n,size[0]//8,size[1]//8), generator=g).repeat_interleave(8,1).repeat_interleave(8,2)
    x = COLORS[y].permute(0,3,1,2) + .15*torch.randn(n, 3, *size, generator=g)
    y[:,0] = IGNORE
    return list(zip(x.clamp(0,1), y))

def make_dls(bs=4, n=24, cls=True):
    torch.manual_seed(0)
    dls = DataLoaders(DataLoader(items(n,0), bs=bs, shuffle=True, drop_last=True, num_workers=0), DataLoader(items(8,1), bs=bs, num_workers=0), device='cpu')
    if cls:
        for dl in dls.loaders: dl.classes,dl.size = ClassTable(['a','b','c','unlabelled'], void=['unlabelled']),(32,48)
    return dls

def quiet(learn): learn.remove_cbs([cb for cb in learn.cbs if type(cb).__name__=='ProgressCallback']); learn.logger = noop; return learn
def make(dls=None, arch='test_resnet', weights=None, **kw):
    "A learner whose network is small: most steps of these tests are about the loop, not about what it learns"
    torch.manual_seed(0)
    return quiet(unet_learner(dls or make_dls(), arch, weights=weights, **dict(net=dict(widths=[16]*4)) | kw))
def values(learn, name): i = [n for n in learn.recorder.metric_names[1:]].index(name); return [r[i] for r in learn.recorder.values]

def test_learns_something():
    learn = make(lr=4e-3)
    before = learn.validate()[2]
    learn.fit_one_cycle(4)
    assert max(values(learn, 'miou'))>.85 > before

def test_outputs_follow_the_class_table():
    learn = make()
    x,y = learn.dls.one_batch()
    assert learn.model(x).shape==(4,3,32,48)
    assert [m.name for m in learn.metrics]==['pixel_accuracy','miou','macro_dice']

def test_a_network_that_was_made_elsewhere_trains_whole():
    net = create_unet('test_resnet', 3, widths=[16]*4)
    learn = quiet(seg_learner(make_dls(), net))
    assert learn.lr_ratio==1. and all(p.requires_grad for p in net.parameters())
    learn.fit(1)

def test_scores_by_name():
    from drone_seg.train.metrics import seg_metrics
    assert [m.name for m in make(metrics='miou').metrics]==['miou']
    other = seg_metrics(list('abc'), 'kappa')[0]
    learn = make(metrics=['miou',other,'ece'], keep='ece')
    assert [m.name for m in learn.metrics]==['miou','kappa','ece'] and learn.metrics[0].counter is learn.metrics[2].counter and learn.metrics[1] is other

@pytest.mark.parametrize('keep,lower', [('ece',True), ('valid_loss',True), ('miou',False)])
def test_the_kept_epoch_is_the_best_of_its_score(keep, lower):
    learn = make(metrics=['miou','ece'], keep=keep)
    class Fake(Callback):
        order = 64
        def after_epoch(self): i = learn.recorder.metric_names[1:].index(keep); learn.recorder.log[1+i] = learn.recorder.values[-1][i] = [.3,.1,.2][learn.epoch]
    learn.add_cb(Fake())
    learn.fit(3)
    assert learn.keep_best.best==(.1 if lower else .3)

# --- refusals

@pytest.mark.parametrize('option', ['model','act_cls','norm_type'])
def test_unknown_options_are_answered_before_a_network_is_built(option, monkeypatch):
    import drone_seg.train.learner as m
    monkeypatch.setattr(m, 'create_model', None)
    with pytest.raises(TrainError, match=f"no option '{option}'.*net=dict.*weights=None"): make(**{option:True})

def test_a_loss_of_fastai_with_an_auxiliary_network():
    from fastai.losses import CrossEntropyLossFlat
    learn = make(loss_func=CrossEntropyLossFlat(axis=1, ignore_index=IGNORE))
    learn.model.register_forward_hook(lambda m, x, y: (y,y) if m.training else y)
    with pytest.raises(TrainError, match='auxiliary outputs, and the loss CrossEntropyLossFlat'): learn.fit(1)

def test_missing_classes():
    with pytest.raises(TrainError, match='dls.classes is NoneType.*data.dataloaders'): make(make_dls(cls=False))

def test_normalize_is_taken_out():
    for where in ('after_batch','after_item'):
        dls = make_dls()
        for dl in dls.loaders: setattr(dl, where, Pipeline([Normalize.from_stats([.5]*3, [.5]*3, cuda=False)]))
        make(dls)
        assert not any(getattr(dl, where).fs for dl in dls.loaders)

def test_batch_of_one_is_said():
    with pytest.warns(UserWarning, match='a batch of 1:'): make(make_dls(bs=1))

def test_no_training_batch():
    with pytest.raises(TrainError, match='no training batch of 50.*smaller batch'): make(make_dls(bs=50))

def test_missing_weights_file(tmp_path):
    with pytest.raises(ModelError, match='no weights file'): make(weights=tmp_path/'w.safetensors')

def test_unknown_score_to_keep():
    with pytest.raises(TrainError, match="'mIoU'.*'miou'"): make(keep='mIoU')

# --- freezing and rates

@pytest.fixture
def weights(tmp_path):
    torch.manual_seed(1)
    write_state(create_unet('test_resnet', 3).encoder.state_dict(), tmp_path/'w.safetensors')
    return tmp_path/'w.safetensors'

def free(m): return [p.requires_grad for p in m.parameters() if p.ndim>1]

def test_pretrained_encoder_is_frozen_at_first_only(weights):
    learn = make(weights=weights)
    assert not any(free(learn.model.encoder)) and all(free(learn.model.decoder)) and all(free(learn.model.head))
    learn.unfreeze(); assert all(free(learn.model.encoder))
    learn.freeze(); assert not any(free(learn.model.encoder)) and all(free(learn.model.decoder))
    assert all(free(make().model.encoder)) # random weights have nothing to protect

def test_three_groups_with_rates(weights):
    learn = make(weights=weights, lr=1e-2, lr_ratio=.1)
    assert len(learn.opt.param_lists)==3
    learn.unfreeze(); learn.fit_one_cycle(1)
    lrs = np.array([h['lr'] for h in learn.opt.hypers])
    np.testing.assert_allclose(lrs/lrs[-1], [.1,1,1])

def test_fine_tune_moves_everything(weights):
    learn = make(weights=weights)
    before = copy.deepcopy(learn.model.state_dict())
    learn.fine_tune(1)
    moved = {k.split('.')[0] for k,v in learn.model.state_dict().items() if v.is_floating_point() and not torch.equal(v, before[k])}
    assert moved=={'encoder','decoder','head'}
    learn.fine_tune(1, 1e-3)
    learn.fine_tune(1, slice(1e-4,1e-3))

def test_lr_find_restores_everything(tmp_path):
    learn = make(path=tmp_path)
    before = copy.deepcopy(learn.model.state_dict())
    res = learn.lr_find(show_plot=False)
    assert 1e-7<res.valley<10
    assert all(torch.equal(v, before[k]) for k,v in learn.model.state_dict().items())
    assert learn.keep_best.state is None

# --- best checkpoint

def scripted(script, **kw):
    "A learner with a score that follows a script, epoch by epoch"
    from fastai.learner import Metric
    class M(Metric):
        name,value = 'score',0.
        def reset(self): pass
        def accumulate(self, learn): self.value = script[learn.epoch] if learn.training is False else 0.
    learn = make(metrics=[M()], keep=None)
    learn.add_cb(KeepBest('score', **kw))
    return learn

@pytest.mark.parametrize('script,lower,best', [([.1,.5,.3],False,1), ([.1,.5,.3],True,0), ([float('nan'),.2,.1],False,1), ([.5,.5,.5],False,0)])
def test_keeps_the_best_epoch(tmp_path, script, lower, best):
    learn = scripted(script, folder=tmp_path/'run', lower_is_better=lower)
    seen = []
    from fastai.callback.core import Callback
    class Note(Callback):
        order = 70
        def after_epoch(self): seen.append({k:v.clone() for k,v in self.model.state_dict().items()})
    learn.add_cb(Note())
    learn.fit(3)
    assert learn.keep_best.best_epoch==best
    for k,v in learn.model.state_dict().items(): assert torch.equal(v, seen[best][k]), k
    disk = load_file(tmp_path/'run'/'best.safetensors')
    for k,v in seen[best].items(): assert torch.equal(v, disk[k]), k
    assert [f.name for f in (tmp_path/'run').iterdir()]==['best.safetensors'] # nothing half-written beside it

def test_validate_changes_nothing():
    "fastai sends before_fit and after_epoch in `validate`, too"
    learn = make()
    learn.fit(2)
    best = learn.keep_best.best
    with torch.no_grad(): learn.model.head.weight.add_(1)
    before = learn.model.head.weight.clone()
    learn.validate(); learn.get_preds()
    assert learn.keep_best.best==best and torch.equal(learn.model.head.weight, before)

def test_a_worse_second_fit_ends_with_the_first_best():
    learn = make()
    learn.fit_one_cycle(4)
    best = learn.keep_best.best
    learn.fit(1, lr=5.)
    assert learn.keep_best.best==best
    assert learn.validate()[2]==pytest.approx(best)

# --- precision

def test_bf16_forward_float32_loss():
    learn = make(precision='bf16')
    seen = []
    learn.model.head.register_forward_hook(lambda m,i,o: seen.append(o.dtype))
    loss,learn.loss_func = learn.loss_func,lambda p,y: (seen.append(p.dtype), loss(p, y))[1]
    learn.fit(1)
    assert seen[:2]==[torch.bfloat16,torch.float32] and set(seen[::2])=={torch.bfloat16} and set(seen[1::2])=={torch.float32}
    assert all(p.dtype==torch.float32 for p in learn.model.parameters())
    assert make(precision='fp32').amp is None and learn.to_fp32().amp is None

def test_autocast_ends_when_the_forward_pass_is_interrupted():
    learn = make(precision='bf16')
    def stop(*a): raise KeyboardInterrupt
    learn.model.head.register_forward_pre_hook(stop)
    with pytest.raises(KeyboardInterrupt): learn.fit(1)
    assert not torch.is_autocast_enabled('cpu')

@pytest.mark.parametrize('arch,kind', [('tf_efficientnet_lite0', DepthwiseConvSame), ('test_efficientnet', DepthwiseConv)])
def test_depthwise_in_float32_changes_precision_only(arch, kind):
    torch.manual_seed(0)
    net = create_unet(arch, 3, widths=[16]*4)
    twin = depthwise_in_float32(copy.deepcopy(net))
    assert any(isinstance(m, kind) for m in twin.modules()) and list(twin.state_dict())==list(net.state_dict())
    x = torch.rand(2,3,64,64)
    torch.testing.assert_close(twin.eval()(x), net.eval()(x), rtol=0, atol=0)
    grads = []
    for n in (net, twin):
        with torch.autocast('cpu', torch.bfloat16): out = n(x)
        out.float().square().mean().backward()
        grads.append(torch.cat([p.grad.flatten() for p in n.parameters()]))
    want = copy.deepcopy(net); want.zero_grad(); want(x).square().mean().backward()
    want = torch.cat([p.grad.flatten() for p in want.parameters()])
    err = [((g-want).norm()/want.norm()).item() for g in grads]
    assert err[1]<=err[0]*1.2, err # at least as close to float32 as autocast everywhere
    pickled = copy.deepcopy(twin); assert torch.equal(pickled(x), twin(x))
    conv = next(m for m in twin.modules() if isinstance(m, kind)) # the rest of the network is one graph, see test_unet.py
    torch.compile(conv, fullgraph=True, backend='eager')(torch.rand(2,conv.in_channels,16,16))

def test_has_fast_bf16_answers():
    assert has_fast_bf16('cpu') in (True,False) and has_fast_bf16('mps') is False

def test_loss_by_name():
    learn = make(loss_func='ce + dice')
    learn.fit(1)
    with pytest.raises(ValueError, match='dise'): make(loss_func='ce + dise')

def test_drawn_scenes_are_learnt(tmp_path, monkeypatch):
    from drone_seg.scenes.scene import write_scenes
    from drone_seg.data.datasets import open_dataset
    monkeypatch.setenv('DRONE_SEG_CACHE', str(tmp_path/'cache'))
    write_scenes(tmp_path/'scenes', 24, size=(64,96), progress=False)
    data = open_dataset(tmp_path/'scenes')
    dls = data.dataloaders(data.split(by='random', seed=1, progress=False), size=(64,96), bs=4, seed=1, device='cpu', augment=None)
    from drone_seg.models.weights import offline_file
    learn = make(dls, 'tf_efficientnet_lite0', weights='auto' if offline_file('tf_efficientnet_lite0') else None)
    learn.fine_tune(3)
    assert learn.keep_best.best>.25

@pytest.mark.skipif(not torch.cuda.is_available(), reason='needs a CUDA card')
def test_trains_saves_and_predicts_on_a_card(tmp_path):
    from drone_seg.models.bundle import load_bundle, save_bundle
    dls = make_dls().to('cuda')
    learn = make(dls, 'resnet18', lr=4e-3)
    learn.fit_one_cycle(4)
    assert max(values(learn, 'miou'))>.85 and next(learn.model.parameters()).device.type=='cuda'
    model = load_bundle(save_bundle(learn, tmp_path/'b'))
    photo = (items(1, 2)[0][0].permute(1,2,0).numpy()*255).astype(np.uint8)
    on_card,on_cpu = model.predict(photo, device='cuda').ids,model.predict(photo, device='cpu').ids
    assert (on_card==on_cpu).mean()>.98

# --- loaders of others, and test-time looks

def foreign(ids_seen, encoded=False):
    "Plain loaders whose masks hold `ids_seen`, under a table whose void is 0"
    y = torch.tensor(ids_seen)[torch.randint(0, len(ids_seen), (6,4,6), generator=torch.Generator().manual_seed(0))].repeat_interleave(8,1).repeat_interleave(8,2)
    data = list(zip(torch.rand(6, 3, 32, 48), y))
    dls = DataLoaders(*[DataLoader(data, bs=2, num_workers=0) for _ in range(2)], device='cpu')
    for dl in dls.loaders: dl.classes,dl.size,dl.encoded = ClassTable(['void','a','b','c'], void=['void']),(32,48),encoded
    return dls

@pytest.mark.parametrize('ids,say', [([0,1,2,3], 'value 3, which is no training number'), ([0,1,2], r'no void \(255\)')])
def test_masks_of_others_that_are_not_encoded_are_refused(ids, say):
    with pytest.raises(TrainError, match=say+'.*encode_masks'): unet_learner(foreign(ids), 'resnet18', weights=None)

def test_masks_of_others_that_are_encoded_train():
    assert make(foreign([0,1,2,255])).dls.classes.n==3 and make(foreign([0,1,2], encoded=True))

def test_masks_of_others_are_encoded_by_the_table():
    from drone_seg.data.encode import encode_masks
    dls = foreign([0,1,2,3])
    ids = dls.valid.one_batch()[1]
    numbers = encode_masks(dls, dls.classes).valid.one_batch()[1]
    assert torch.equal(numbers, torch.tensor([255,0,1,2])[ids]) and make(dls)

def test_dice_of_one_class_is_refused_for_several():
    from fastai.metrics import Dice
    with pytest.raises(TrainError, match="exceeds 1; take 'macro_dice'"): make(metrics=[Dice()])

def test_tta_mirrors_answers_back():
    "A network that knows left from right: mirrored looks, mirrored back by hand"
    learn = make()
    preds,targets = learn.tta()
    learn.model.eval()
    x = torch.cat([b[0] for b in learn.dls.valid])
    with torch.no_grad(): want = sum(learn.model(x.flip(d)).softmax(1).flip(d) for d in ([], [-1], [-2], [-1,-2]))/4
    assert torch.allclose(preds, want, atol=2e-2 if learn.amp else 1e-5) and torch.equal(targets, torch.cat([b[1] for b in learn.dls.valid]))
    with pytest.raises(TrainError, match='n=5; it is a whole number, 1 or more and 4 at most'): learn.tta(n=5)
