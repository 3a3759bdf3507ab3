"The learner's loop: optimisers, precision, batches in parts, memory, rates"
import copy, random, warnings
from contextlib import suppress
import numpy as np, pytest, torch
from torch import nn
from fastcore.foundation import L
from fastai.callback.core import Callback, CancelBatchException
from drone_seg.classes import IGNORE
from drone_seg.fields import TrainError
from drone_seg.train.keep import KeepBest
from drone_seg.train.learner import Prepare, SegLearner, _optimiser_options
from drone_seg.train.loaders import check_dls
from drone_seg.train.memory import MemoryEstimate
from drone_seg.train.parts import Parts
from drone_seg.train.precision import fastest_precision, training_layout
from drone_seg.train.rates import careful_valley
from drone_seg.train.trackers import tracker
from drone_seg.train.losses import seg_loss
from drone_seg.train.metrics import seg_metrics
from test_learner import items, make, make_dls, quiet, values

class Tiny(nn.Module):
    "Encoder, decoder, head; without batch normalisation, so that photos do not see each other"
    def __init__(self):
        super().__init__()
        self.encoder,self.decoder,self.head = nn.Conv2d(3, 8, 3, padding=1),nn.Sequential(nn.GroupNorm(2, 8), nn.ReLU(), nn.Conv2d(8, 8, 3, padding=1), nn.ReLU()),nn.Conv2d(8, 3, 1)
    def forward(self, x): return self.head(self.decoder(self.encoder(x)))

def tiny(loss='ce', dls=None, model=None, opt='adamw', momentum=None, cbs=(), **kw):
    torch.manual_seed(0)
    loss = seg_loss(loss) if isinstance(loss, str) else loss
    split = lambda m: [list(o.parameters()) for o in (m.encoder, m.decoder, m.head)]
    cbs = [Parts(), Prepare(), *L(cbs)]
    learn = SegLearner(dls or make_dls(), model or Tiny(), loss_func=loss, splitter=split, lr=1e-2, cbs=cbs, **_optimiser_options(opt, momentum), **kw)
    return quiet(learn)

def weights(learn): return torch.cat([p.detach().flatten() for p in learn.model.parameters()])

# --- optimisers

PEERS = dict(adamw=lambda g,wd: torch.optim.AdamW(g, lr=1e-2, betas=(.9,.99), eps=1e-5), adam=lambda g,wd: torch.optim.Adam(g, lr=1e-2, betas=(.9,.99), eps=1e-5),
             sgd=lambda g,wd: torch.optim.SGD(g, lr=1e-2, momentum=.9))

@pytest.mark.parametrize('opt', PEERS)
def test_optimisers_are_those_of_torch_with_decay_on_weights_only(opt):
    learn,twin = tiny(opt=opt, momentum=.9, wd=.1),Tiny()
    twin.load_state_dict(learn.model.state_dict())
    groups = [dict(params=[p for p in twin.parameters() if p.ndim>1], weight_decay=.1), dict(params=[p for p in twin.parameters() if p.ndim<2], weight_decay=0.)]
    peer,batches = PEERS[opt](groups, .1),[torch.rand(4,3,8,8) for _ in range(4)]
    learn.create_opt(); learn.opt.set_hypers(wd=.1, lr=1e-2)
    learn.prepare.before_train()
    for x in batches:
        for net,step in ((learn.model, learn.opt), (twin, peer)):
            net(x).square().mean().backward(); step.step(); step.zero_grad()
    theirs = torch.cat([p.detach().flatten() for p in twin.parameters()])
    torch.testing.assert_close(weights(learn), theirs, rtol=1e-4, atol=1e-6)

def test_decay_alone_shrinks_weights_and_nothing_else():
    class Scaled(Tiny):
        def __init__(self): super().__init__(); self.decoder.register_parameter('gamma', nn.Parameter(torch.ones(8)))
    learn = tiny(model=Scaled(), wd=.5)
    learn.create_opt(); learn.opt.set_hypers(wd=.5, lr=.1)
    learn.prepare.before_train()
    for p in learn.model.parameters(): p.data.fill_(1.); p.grad = torch.zeros_like(p)
    learn.opt.step()
    for n,p in learn.model.named_parameters(): assert p.detach().eq(1.).all().item()==(p.ndim<2), n
    both = tiny(wd=.5, wd_bn_bias=True); both.create_opt(); both.prepare.before_train()
    assert not any(s.get('do_wd', True) is False for *_,s,_ in both.opt.all_params())

def test_frozen_weights_stand_still_after_they_were_trained():
    learn = tiny(wd=.1)
    learn.fit(1); learn.freeze()
    before = learn.model.encoder.weight.clone()
    learn.fit(1)
    assert torch.equal(learn.model.encoder.weight, before)

def test_momentum_and_names():
    learn = make(opt='sgd', momentum=.937)
    learn.fit_one_cycle(1)
    assert {h['mom'] for h in learn.opt.hypers}=={.937}
    for kw,said in ((dict(opt='adagrad'), 'nearest are adam'), (dict(momentum=1.), 'momentum=1.0'), (dict(accumulate=0), 'accumulate=0'), (dict(precision='fp8'), 'nearest are fp32')):
        with pytest.raises(TrainError, match=said): make(**kw)

# --- parts

def step(accumulate, loss, batch, **kw):
    learn = tiny(loss, opt='sgd', momentum=0., **kw)
    learn.accumulate = accumulate
    learn.create_opt(); learn.opt.set_hypers(lr=1.)
    before = weights(learn)
    one_batch(learn, batch)
    return before-weights(learn),learn

def one_batch(learn, batch):
    learn.training,learn.xb,learn.yb = True,batch[:1],batch[1:]
    with suppress(CancelBatchException): learn('before_batch')

def uneven():
    "A batch whose photos have very different numbers of labelled pixels"
    x,y = map(torch.stack, zip(*items(5, 3)))
    y[0,2:],y[1,:,5:],y[4] = IGNORE,IGNORE,IGNORE
    return x,y

@pytest.mark.parametrize('loss', ['ce', 'focal', 'weighted', 'torch'])
@pytest.mark.parametrize('n', [2, 3, 5, 8])
def test_parts_make_the_gradient_of_the_whole(loss, n):
    w = torch.tensor([.2,1.,7.])
    make_loss = dict(weighted=lambda: seg_loss('ce', w), torch=lambda: nn.CrossEntropyLoss(w, ignore_index=IGNORE)).get(loss, lambda: seg_loss(loss))
    (one,a),(many,b) = step(1, make_loss(), uneven()),step(n, make_loss(), uneven())
    torch.testing.assert_close(many, one, rtol=1e-4, atol=1e-6)
    assert b.loss.item()==pytest.approx(a.loss.item(), rel=1e-5) and b.pred.shape==(5,3,32,48)
    torch.testing.assert_close(b.pred, a.pred)

def test_equal_halves_would_not_be_the_whole():
    x,y = uneven(); one = step(1, 'ce', (x,y))[0]
    halves = sum(step(1, 'ce', (x[i],y[i]))[0] for i in (slice(0,2), slice(2,5)))/2
    assert (halves-one).norm()>.05*one.norm()

def test_validation_in_parts_is_the_same():
    learn = make(precision='fp32')
    want = learn.validate()
    learn.accumulate = 3
    np.testing.assert_allclose(list(learn.validate()), list(want), rtol=1e-5)

def test_auxiliary_outputs_in_parts():
    class Two(Tiny):
        def forward(self, x): y = super().forward(x); return (y, y[..., ::2, ::2]) if self.training else y
    grads = [step(n, 'ce', uneven(), model=Two())[0] for n in (1, 2)]
    assert grads[0].norm()>0 and torch.isfinite(grads[1]).all()

# --- memory

class Full(torch.autograd.Function):
    "Does nothing; in the backward pass memory runs out above two photos"
    @staticmethod
    def forward(ctx, x): return x.clone()
    @staticmethod
    def backward(ctx, g):
        if len(g)>2: raise RuntimeError("[enforce fail at alloc_cpu.cpp:118] err == 0. DefaultCPUAllocator: can't allocate memory: you tried to allocate 8 bytes")
        return g

class Small(Tiny):
    "Memory holds two photos"
    def __init__(self, where): super().__init__(); self.where = where
    def forward(self, x):
        if len(x)>2 and self.where=='forward': raise torch.OutOfMemoryError('CUDA out of memory. Tried to allocate 2.00 GiB')
        return super().forward(Full.apply(x.requires_grad_()) if self.training and self.where=='backward' else x)

class Count(Callback):
    n = 0
    def after_step(self): self.n += 1

@pytest.mark.parametrize('where', ['forward','backward'])
def test_memory_runs_out_and_the_epoch_goes_on(where):
    def run(accumulate, make_model):
        random.seed(0); torch.manual_seed(0) # fastai shuffles by `random`
        learn = tiny(dls=make_dls(), model=make_model(), cbs=Count())
        learn.accumulate = accumulate
        learn.fit_one_cycle(2)
        return learn
    with pytest.warns(UserWarning, match='out of memory: from this batch on, 4 photos.*2 parts') as said: a = run(1, lambda: Small(where))
    b = run(2, Tiny)
    assert len([o for o in said if 'memory' in str(o.message)])==1 and a.accumulate==2 and a.count.n==b.count.n==12
    assert torch.equal(weights(a), weights(b)) # nothing of the first try is left
    np.testing.assert_array_equal(a.recorder.lrs, b.recorder.lrs)

def test_memory_for_no_photo_at_all():
    class None_(Tiny):
        def forward(self, x): raise torch.OutOfMemoryError('CUDA out of memory')
    with warnings.catch_warnings(): 
        warnings.simplefilter('ignore')
        with pytest.raises(TrainError, match='one photo of 32x48 at a time.*smaller size'): tiny(model=None_()).fit(1)

def test_other_errors_stay_what_they_are():
    class Bad(Tiny):
        def forward(self, x): raise RuntimeError('shapes do not match')
    with pytest.raises(RuntimeError, match='shapes do not match'): tiny(model=Bad()).fit(1)

def test_memory_estimate_follows_the_batch(monkeypatch):
    learn = make(precision='fp32')
    whole = learn.memory_estimate(); learn.accumulate = 2; half = learn.memory_estimate()
    assert whole.photos==4 and half.photos==2 and half.need<whole.need and '2 photos of 32x48' in str(half)
    n = sum(p.numel() for p in learn.model.parameters())
    assert whole.need>4*4*n # gradients twice at the peak, two numbers per weight of Adam, the kept copy

def test_what_hardly_fits_is_said_once(monkeypatch):
    import drone_seg.train.memory as m
    learn = make(precision='fp32')
    monkeypatch.setattr(m, 'free_memory', lambda d: 10**6)
    monkeypatch.setattr(m, 'training_memory', lambda learn, parts: MemoryEstimate(1_100_000, 10**6, 4, (32,48)))
    with pytest.warns(UserWarning, match='0.0 GB are free; take accumulate=2'): learn.fit(1) # 275 kB each: three at a time, so two parts
    with warnings.catch_warnings():
        warnings.simplefilter('error')
        learn.fit(1) # said once

def test_what_cannot_fit_is_refused_before_the_first_step(monkeypatch):
    import drone_seg.train.memory as m
    learn = make(precision='fp32')
    seen = []
    monkeypatch.setattr(type(learn), 'one_batch', lambda self, i, b: seen.append(1))
    monkeypatch.setattr(m, 'free_memory', lambda d: 10**6)
    with pytest.raises(TrainError, match=r'0.0 GB are free; not one such photo fits; take size 32x32 or less'): learn.fit(1)
    assert not seen

# --- precision

def test_fastest_precision(monkeypatch):
    import drone_seg.train.precision as m
    for fast,kind,want in ((True,'cuda','bf16'), (False,'cuda','fp16'), (True,'cpu','bf16'), (False,'cpu','fp32'), (False,'mps','fp32')):
        monkeypatch.setattr(m, 'has_fast_bf16', lambda d: fast)
        assert fastest_precision(kind)==want

@pytest.mark.parametrize('processor,device,precision,pixels_together', [
    ('AVX512', 'cpu', 'fp32', True), ('AVX512', 'cpu', 'bf16', True), # measured: .66 to .94 of the time
    ('AVX2', 'cpu', 'fp32', False), # measured: up to 1.5 times the time, but for SegFormer
    ('AVX2', 'cpu', 'bf16', True), # measured: in software, half the time
    ('DEFAULT', 'cpu', 'fp32', False), ('AVX512', 'mps', 'fp32', False), # not measured: as torch makes them
    ('AVX2', 'cuda', 'fp16', True), ('AVX2', 'cuda', 'bf16', True), ('AVX2', 'cuda', 'fp32', True)])
def test_layout_of_training(processor, device, precision, pixels_together, monkeypatch):
    monkeypatch.setattr(torch.backends.cpu, 'get_cpu_capability', lambda: processor)
    assert training_layout(device, precision)==(torch.channels_last if pixels_together else torch.contiguous_format)
    assert training_layout(device, precision, 'segformer')==(torch.channels_last if pixels_together or device=='cpu' else torch.contiguous_format)

@pytest.mark.parametrize('processor,strides', [('AVX512', (27,1,9,3)), ('AVX2', (27,9,3,1))]) # of the stem's weights, (n, 3, 3, 3)
def test_weights_lie_as_training_is_fastest_also_after_a_bundle_turned_them(processor, strides, monkeypatch):
    monkeypatch.setattr(torch.backends.cpu, 'get_cpu_capability', lambda: processor)
    learn = make(arch='tf_efficientnet_lite0', precision='fp32')
    stem = next(p for p in learn.model.parameters() if p.ndim==4)
    assert stem.shape[1:]==(3,3,3) and stem.stride()==strides # also where only steps are timed
    learn.model.to(memory_format=torch.channels_last) # as a bundle does
    learn.fit(1)
    assert stem.stride()==strides

def test_fp16_takes_the_steps_of_float32():
    (a,_),(b,learn),(c,_) = step(1, 'ce', uneven()),step_fp16(1),step_fp16(2)
    assert (a-b).norm()<.02*a.norm() and (a-c).norm()<.02*a.norm()
    assert learn.scaler.get_scale()==2.**16 and learn.scaler.state_dict()['scale']==2.**16

def step_fp16(accumulate, scale=None, cbs=None):
    learn = tiny('ce', opt='sgd', momentum=0., cbs=cbs).to_precision('fp16')
    if scale: learn.scaler = torch.amp.GradScaler('cpu', init_scale=scale)
    learn.accumulate = accumulate
    learn.create_opt(); learn.opt.set_hypers(lr=1.)
    before = weights(learn)
    one_batch(learn, uneven())
    return before-weights(learn),learn

def test_a_step_that_overflows_is_left_out():
    moved,learn = step_fp16(1, 2.**40)
    assert not moved.any() and learn.scaler.get_scale()==2.**39
    one_batch(learn, uneven()) # and the next one is tried

def test_clipping_sees_gradients_without_their_scale():
    from fastai.callback.training import GradientClip
    plain = step(1, 'ce', uneven())[0].norm().item()
    for n in (1, 2):
        assert step_fp16(n, cbs=GradientClip(.1*plain))[0].norm().item()==pytest.approx(.1*plain, rel=.02)
        assert step(n, 'ce', uneven(), cbs=GradientClip(.1*plain))[0].norm().item()==pytest.approx(.1*plain, rel=1e-3)

@pytest.mark.skipif(not torch.cuda.is_available(), reason='needs a CUDA card')
@pytest.mark.parametrize('precision', ['fp16','bf16'])
def test_a_card_learns_in_halves(precision):
    learn = make(make_dls().to('cuda'), precision=precision, accumulate=2)
    learn.fit_one_cycle(4)
    assert max(values(learn, 'miou'))>.8 and learn.memory_estimate().free>0

# --- rates

def loaders(seed=7):
    "Loaders that count their epochs and draw from their own generators"
    from drone_seg.data.loader import DroneDL
    from drone_seg.classes import ClassTable
    from fastai.data.core import DataLoaders
    dls = [DroneDL(items(12, k), bs=4, shuffle=k==0, drop_last=k==0, num_workers=0) for k in (0, 1)]
    for dl in dls: dl.seed,dl.classes,dl.size = seed,ClassTable(['a','b','c','unlabelled'], void=['unlabelled']),(32,48)
    return DataLoaders(*dls, device='cpu')

class Normed(Tiny):
    "With statistics of batches, which trying rates must not move"
    def __init__(self):
        super().__init__()
        self.decoder[0] = nn.BatchNorm2d(8)

@pytest.mark.parametrize('seed', [7, None])
def test_training_goes_on_as_if_no_rate_had_been_looked_for(seed):
    res = []
    for look in (False, True):
        random.seed(1); torch.manual_seed(1); np.random.seed(1)
        learn = tiny(dls=loaders(seed), model=Normed(), metrics=seg_metrics(list('abc'), 'miou'), cbs=KeepBest('miou'))
        learn.fit(1)
        learn.freeze()
        if look:
            learn.lr_find(show_plot=False)
            assert learn.opt.frozen_idx==1 and len(learn.recorder.lrs)>50
        learn.fit(1)
        res.append((copy.deepcopy(learn.model.state_dict()), random.random(), np.random.rand(), torch.rand(1), [dl.epoch for dl in learn.dls.loaders], learn.keep_best.best))
    for k,v in res[0][0].items(): assert torch.equal(v, res[1][0][k]), k
    assert res[0][1:]==res[1][1:]

def test_small_sets_are_gone_round():
    learn = tiny(dls=make_dls(n=8)) # two batches
    learn.lr_find(stop_div=False, end_lr=.1, num_it=20, show_plot=False)
    assert len(learn.recorder.lrs)==100 and learn.opt is None
    np.testing.assert_allclose(np.diff(np.log(learn.recorder.lrs)), np.log(1e6)/100, rtol=1e-3)

def test_a_loss_that_turns_nan():
    for bad_above in (1e-2, 0.):
        ce = seg_loss('ce')
        def loss(p, y): return ce(p, y)*(float('nan') if learn.opt.hypers[-1]['lr']>bad_above else 1.)
        learn = tiny(loss)
        before = weights(learn)
        with warnings.catch_warnings(record=True) as said:
            warnings.simplefilter('always')
            res = learn.lr_find(show_plot=False)
        assert 1e-5<=res.valley<=.1 and torch.equal(weights(learn), before) and np.isfinite(res.valley), res
        if not bad_above: assert res.valley==pytest.approx(1e-2) and any('too early' in str(w.message) for w in said)

def test_suggestions():
    def careful(lrs, losses, **kwargs): return careful_valley(torch.as_tensor(lrs), torch.as_tensor(losses), 100, **kwargs)
    lrs = np.geomspace(1e-7, 10, 100)[10:]
    dip = lambda at, lrs=lrs: 1+.05*np.log10(lrs/at)**2
    rate,(x,y) = careful(lrs, dip(1e-2))
    assert 3e-5<rate<2e-4 and x==pytest.approx(rate, rel=.1) # half way, in powers, from 10**-6.2 to 10**-2 is 8e-5
    assert careful(lrs/1e3, dip(1e-6, lrs/1e3))[0]==1e-5
    with pytest.warns(UserWarning, match='at no rate.*stays 4.0e-03'): assert careful(lrs, np.ones(90), default=4e-3)[0]==4e-3
    with pytest.warns(UserWarning, match='too early'): assert careful(lrs[:5], dip(1e-2)[:5])[0]==1e-3

# --- what it warns of

def test_classes_that_never_occur_and_photos_too_small():
    dls = make_dls()
    for dl in dls.loaders: dl.pixel_counts = np.array([[5,0,3],[1,0,0]])
    with pytest.warns(UserWarning, match="b: no pixel in the 2 training photos.*split by class"): check_dls(dls)
    small = make_dls()
    for dl in small.loaders: dl.size = (16,24)
    with pytest.raises(TrainError, match='16x24 pixels are smaller than the 32x32.*size=128'): make(small)

# --- compiling, trackers

def test_compiled_weights_keep_their_names():
    learn = tiny(); names = list(learn.model.state_dict())
    learn.compile(backend='eager') # torch's own
    learn.fit(1)
    assert list(learn.model.state_dict())==names and type(learn.model) is Tiny and copy.deepcopy(learn.model).state_dict().keys()==set(names)

def test_tensorboard(tmp_path):
    pytest.importorskip('tensorboard')
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
    learn = make(cbs=tracker('tensorboard', tmp_path))
    learn.fine_tune(1)
    learn.lr_find(show_plot=False)
    learn.fit(1)
    seen = EventAccumulator(str(tmp_path)).Reload()
    steps = [e.step for e in seen.Scalars('miou')]
    assert steps==[6, 12, 18] and [e.value for e in seen.Scalars('miou')][-1]==pytest.approx(values(learn, 'miou')[-1], abs=1e-6)
    assert 'lr_2' in seen.Tags()['scalars'] and max(e.step for e in seen.Scalars('train_loss'))==18

def test_wandb_offline(tmp_path, monkeypatch):
    wandb = pytest.importorskip('wandb')
    for k,v in dict(WANDB_MODE='offline', WANDB_SILENT='true', WANDB_DIR=str(tmp_path)).items(): monkeypatch.setenv(k, v)
    learn = make(cbs=tracker('wandb', tmp_path))
    try:
        learn.fit(1)
        assert wandb.run.config['batch']==4 and wandb.run.summary['miou']==pytest.approx(values(learn, 'miou')[-1])
    finally: wandb.finish()
    assert list(tmp_path.rglob('*.wandb'))

def test_trackers_that_are_not_there(monkeypatch):
    import sys
    with pytest.raises(TrainError, match='nearest are wandb'): tracker('mlflow')
    monkeypatch.setitem(sys.modules, 'wandb', None)
    with pytest.raises(TrainError, match=r"it comes with .*pip install .*\[track\]"): tracker('wandb')
