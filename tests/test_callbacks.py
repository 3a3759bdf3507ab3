"Training in stages: a killed one ends as an unbroken one, bit for bit; what it refuses; what watches over it"
import copy, csv, errno, json, os, random, resource, sys
from contextlib import contextmanager
from types import SimpleNamespace
import numpy as np, pytest, torch
from fastai.callback.core import Callback
from fastai.optimizer import OptimWrapper, SGD
from fastai.torch_core import set_seed
from fastcore.basics import noop
from safetensors import SafetensorError
from safetensors.torch import load_file
from drone_seg.classes import ClassTable
from drone_seg.data.pair import Pair
from drone_seg.fields import FileError, TrainError
import drone_seg.train.callbacks as callbacks
from drone_seg.train.callbacks import *
from drone_seg.train.callbacks import batch_names
from drone_seg.train.checkpoint import read_file
from drone_seg.train.facts import file_fingerprint
from drone_seg.train.fit import *
from drone_seg.train.stages import *
from drone_seg.train.keep import KeepBest, write_state
from drone_seg.train.learner import unet_learner
from test_learner import make_dls

WORKER = '''
import os, random, signal, sys, warnings
warnings.filterwarnings('ignore')
import numpy as np, torch
torch.set_num_threads(1)
from pathlib import Path
from fastai.callback.core import Callback
from fastai.torch_core import set_seed
import drone_seg.train.checkpoint as C
from drone_seg.data.augment import BatchAugment
from drone_seg.data.datasets import open_dataset
from drone_seg.fields import TrainError
from drone_seg.scenes.scene import write_scenes
from drone_seg.train.callbacks import *
from drone_seg.train.keep import write_state
from drone_seg.train.learner import *
from drone_seg.train.fit import *
from drone_seg.train.stages import *
root = Path(sys.argv[1])
STAGES = [Stage(1, frozen=True, pct_start=.9), Stage(2), Stage(2, lr=1e-3, schedule='plateau', monitor='miou', patience=1)]

def train(folder, seed, resume=False, kill=None, split=1):
    data = open_dataset(root/'scenes')
    set_seed(seed)
    split = data.split(by='random', seed=split, progress=False)
    dls = data.dataloaders(split, size=(64,96), bs=4, augment='nadir', batch_tfms=[BatchAugment(rotate=20, seed=3)], device='cpu')
    learn = seg_learner(dls, 'fpn', 'test_efficientnet', weights=None, net=dict(decoder_pyramid_channels=32, decoder_segmentation_channels=32), folder=folder, cbs=[Average(.8), StopEarly(patience=9), KeepEpochs(folder)])
    assert any(isinstance(m, (torch.nn.Dropout, torch.nn.Dropout2d)) and m.p>0 for m in learn.model.modules())
    if kill: KILLS[kill](learn)
    with learn.no_bar(), learn.no_logging(): fit_stages(learn, STAGES, folder, resume)
    write_state(learn.model.state_dict(), Path(folder)/'last.safetensors')

def die(): os.kill(os.getpid(), signal.SIGKILL)

class Steps(Callback): # in the second of three steps of the fourth epoch
    n = 0
    def after_step(self):
        self.n += 1
        if self.n==3*3+2: die()

def dies_at(order, epoch): # the last of the callbacks below `order` have done their part after the epoch
    class Dies(Callback):
        n = 0
        def after_epoch(self):
            self.n += 1
            if self.n==epoch: die()
    Dies.order = order
    return lambda learn: learn.add_cb(Dies())

def half_a_file(learn): # written, but not yet in its place, after the third epoch
    real,n = C.to_disk,[0]
    def to_disk(path):
        real(path)
        n[0] += str(path).endswith('.tmp')
        if n[0]==3: die()
    C.to_disk = to_disk

def in_its_place(learn): # of the last epoch of a stage
    real,n = C.to_disk,[0]
    def to_disk(path):
        real(path)
        n[0] += Path(path).is_dir()
        if n[0]==3: die()
    C.to_disk = to_disk

KILLS = dict(step=lambda learn: learn.add_cb(Steps()), best=dies_at(99, 4), half=half_a_file, place=in_its_place)

def run(*args, **kwargs): # in a process of its own that has never trained; how it ended
    pid = os.fork()
    if not pid:
        try: train(*args, **kwargs); os._exit(0)
        except BaseException as e: print(type(e), e, file=sys.stderr, flush=True); os._exit(1)
    return os.waitpid(pid, 0)[1]
'''
FIRST = WORKER+'''
os.environ['DRONE_SEG_CACHE'] = str(root/'cache')
write_scenes(root/'scenes', 15, size=(64,96), progress=False)
assert run(root/'whole', 0)==0
for kill in KILLS: assert run(root/kill, 0, kill=kill)==signal.SIGKILL, kill
for kill in KILLS:
    if kill!='step': assert run(root/kill, 99, resume=True)==0, kill
'''
AGAIN = WORKER+'''
train(root/'step', 7, resume=True)
def refused(**kwargs):
    try: train(root/'step', 7, resume=True, **kwargs)
    except TrainError as e: print(e, file=sys.stderr)
refused(split=2)
photo = next(p.image for p in open_dataset(root/'scenes').items)
with open(photo, 'ab') as f: f.write(bytes(1)) # which no decoder minds
refused()
'''

@pytest.fixture(scope='module')
def runs(tmp_path_factory, program):
    root = tmp_path_factory.mktemp('runs')
    program(FIRST, root)
    said = program(AGAIN, root).stderr # in a process that has never trained
    return root,said

def rows(folder):
    with open(folder/'history.csv') as f: return [{k:v for k,v in r.items() if k!='time'} for r in csv.DictReader(f)]

def same(a, b, at='', leave=('text','facts')):
    "Whether two trees of lists, dicts, numbers and tensors are the same to the last bit; where not"
    if isinstance(a, dict): return [o for k in a.keys()|b.keys() if k not in leave for o in ([f'{at}.{k}'] if (k in a)!=(k in b) else same(a[k], b[k], f'{at}.{k}'))]
    if isinstance(a, list): return [f'{at} length'] if len(a)!=len(b) else [o for k,(x,y) in enumerate(zip(a, b)) for o in same(x, y, f'{at}.{k}')]
    if isinstance(a, torch.Tensor): return [] if torch.equal(a, b) and a.dtype==b.dtype and a.stride()==b.stride() else [at]
    return [] if a==b else [at]

@pytest.mark.parametrize('kill', ['step','best','half','place'])
def test_a_killed_training_ends_as_the_unbroken_one(runs, kill):
    runs,_ = runs
    for name in ('last','best',*(f'epochs/epoch_{n:03}' for n in range(5))):
        a,b = (load_file(runs/k/f'{name}.safetensors') for k in ('whole',kill))
        assert a.keys()==b.keys() and all(torch.equal(a[k], b[k]) for k in a), name
    a,b = (read_file(runs/k/'checkpoint.safetensors') for k in ('whole',kill))
    assert len(a['state']['model'])>50 and a['state']['callbacks'].keys()=={'keep_best','average','stop_early','keep_epochs','epoch_log','recorder','reduce_lr_on_plateau','see_light'}
    assert same(a, b)==[] # weights, optimiser, averages, best epoch, all generators, history
    assert [r['epoch'] for r in rows(runs/kill)]==list('01234') and rows(runs/kill)==rows(runs/'whole')
    assert not list((runs/kill).glob('.*')), 'what a killed process left behind is gone'

def test_the_runs_are_worth_comparing(runs):
    "Weights move in each epoch, the average is not the weights, rates fall, seeds matter"
    runs,said = runs
    a = read_file(runs/'whole'/'checkpoint.safetensors')['state']
    average = a['callbacks']['average']
    assert average['swapped'] and any(not torch.equal(v, a['model'][k]) for k,v in average['shadow'].items())
    assert len({r['train_loss'] for r in rows(runs/'whole')})==5
    e = [load_file(runs/'whole'/f'epochs/epoch_{n:03}.safetensors') for n in (3,4)]
    assert any(not torch.equal(e[0][k], e[1][k]) for k in e[0])

def test_other_photos_and_another_split_are_refused(runs):
    said = runs[1]
    assert 'going on after 3 of 5 epochs' in said
    assert "the split is another (split." in said and "was 'train', is 'valid'" in said.replace("was 'valid', is 'train'", "was 'train', is 'valid'")
    assert said.count('the photos or masks are not those it was trained on (data.')==1

# --- in this process, on blocks of three colours

def make(seed=0, cbs=None, keep=None, n=8, **kw): # two steps in an epoch
    set_seed(seed)
    learn = unet_learner(make_dls(n=n), 'test_efficientnet', weights=None, keep=keep, cbs=cbs, net=dict(widths=[16]*4), **kw)
    learn.remove_cb(learn.progress); learn.logger = noop
    set_seed(seed)
    return learn

def equal(a, b):
    a,b = (o.model.state_dict() if hasattr(o, 'model') else o for o in (a, b))
    return a.keys()==b.keys() and all(torch.equal(a[k], b[k]) for k in a)

class At(Callback):
    "Do something at an event of a step or epoch of the whole training, counted from 1"
    order = 50.5
    run_valid = False # not in validation
    def __init__(self, event, n, do): self._n,self._do = 0,do; setattr(self, event, lambda: self._count(n))
    def _count(self, n):
        self._n += 1
        if self._n==n: self._do(self.learn)

def interrupt(learn): raise KeyboardInterrupt

TWO = [Stage(1, frozen=True, pct_start=.9), Stage(2)]

def test_stages_are_fine_tune():
    a,b = make(),make()
    a.fine_tune(2)
    fit_stages(b, TWO)
    assert equal(a, b)

def test_schedules_by_hand_and_against_torch():
    rates = lambda learn: [float(v) for v in learn.recorder.lrs]
    learn = fit_stages(make(), [Stage(3, 1e-3, 'cosine')])
    p = torch.zeros(1, requires_grad=True); opt = torch.optim.SGD([p], 1e-3); sched = torch.optim.lr_scheduler.CosineAnnealingLR(opt, 6, 1e-8)
    want = []
    for _ in range(6): want.append(opt.param_groups[0]['lr']); opt.step(); sched.step()
    np.testing.assert_allclose(rates(learn), want, rtol=1e-4)
    assert rates(fit_stages(make(), [Stage(1, 2e-3, 'flat')]))==[2e-3]*2
    learn = make(cbs=Scores('miou', [.1, .2, .2, .15, .3, .3, .3, .3]), lr=1e-2)
    fit_stages(learn, [Stage(8, None, 'plateau', monitor='miou', patience=2)])
    np.testing.assert_allclose(rates(learn)[::2], [1e-2]*4+[1e-3]*3+[1e-4], rtol=1e-12)

class Scores(Callback):
    "Puts given values in the place of a score"
    order = 50.2
    def __init__(self, name, given): self._name,self._given = name,given
    def after_epoch(self):
        if self.learn.training: return
        i = list(self.recorder.metric_names[1:]).index(self._name)
        self.recorder.values[-1][i] = self.recorder.log[1+i] = self._given[self.epoch]

# --- the average

def test_average_is_that_of_timm():
    from timm.utils import ModelEmaV3
    class Timm(Callback):
        order,n = -6,0
        def before_train(self): self._ema = ModelEmaV3(self.model) if self.n==0 else self._ema
        def after_step(self): self.n += 1; self._ema.decay = min(.8, self.n/(self.n+10)); self._ema.update(self.model)
    timm,average = Timm(),Average(.8)
    learn,plain = make(cbs=[timm,average]),make()
    learn.fit(3, 1e-3); plain.fit(3, 1e-3)
    want = timm._ema.module.state_dict()
    got = learn.model.state_dict()
    assert got.keys()==want.keys() and all(torch.equal(got[k], want[k]) for k in want) # in the network at the end, batch normalisation too
    raw = plain.model.state_dict()
    assert all(torch.equal(v, raw[k]) for k,v in average.shadow.items()) # training itself is not touched
    assert not equal(learn, plain)

def test_average_is_what_is_judged_and_kept():
    learn = make(cbs=Average(.5), keep='miou')
    learn.fit(3, 1e-3)
    i = [m.name for m in learn.metrics].index('miou')+1
    assert learn.validate()[i]==pytest.approx(learn.keep_best.best, abs=1e-9)
    before = copy.deepcopy(learn.model.state_dict())
    learn.validate()
    assert equal(before, learn.model.state_dict()) # nothing is swapped by judging alone

def test_average_remembers_half_an_epoch():
    a = Average(); learn = make(cbs=a, n=200) # 50 steps an epoch
    learn.add_cb(At('after_step', 3, interrupt))
    with pytest.raises(KeyboardInterrupt): learn.fit(1)
    assert a.steps==3 and 1-1/max(20, .5*50)==.96
    with pytest.raises(TrainError, match='above 0 and below 1'): Average(1.)

# --- early stopping, an end at NaN

def test_stops_early_by_hand():
    for name,given,ends in (('miou', [.1,.3,.2,.3,.1,.9,.9], 5), ('valid_loss', [3,1,2,1,1.5,.1,.1], 5), ('miou', [float('nan'),.1,.2,.3,.4,.5,.6], 7)):
        learn = make(cbs=[Scores(name, given), StopEarly(name, patience=3)])
        learn.fit(7, 1e-4)
        assert len(learn.recorder.values)==ends, name
    with pytest.raises(TrainError, match="^no score named 'iou'; there are .*miou"): make(cbs=StopEarly('iou')).fit(1)
    learn = make(cbs=StopEarly(patience=1)) # nothing is validated while rates are tried, so nothing can become better
    learn.lr_find(end_lr=1e-4, show_plot=False)
    assert len(learn.recorder.lrs)==100

def nan_loss(learn): learn.loss = learn.loss*float('nan'); learn.loss_grad = learn.loss_grad*float('nan')

def test_nan_names_the_batch_and_keeps_the_weights():
    learn = make(cbs=[StopAtNaN()])
    learn.add_cb(At('after_loss', 4, nan_loss))
    seen = []
    class Take(Callback):
        order = -99
        def before_train(self): seen.append({k:v.clone() for k,v in self.model.state_dict().items()})
    learn.add_cb(Take())
    with pytest.raises(TrainError) as e: learn.fit(3, 1e-3)
    idxs = learn.dls.train._DataLoader__idxs[4:8]
    assert str(e.value).startswith(f"the loss is nan in epoch 2, step 2 of 2 at rate 0.001 on items {', '.join(map(str, idxs))}; the weights are those this epoch began with; try")
    assert '\n' not in str(e.value) and equal(learn.model.state_dict(), seen[1])
    learn.remove_cbs([At]); learn.fit(1, 1e-4)
    assert all(np.isfinite(learn.recorder.values[-1][:2]))

def test_nan_after_a_broken_step_and_at_the_end():
    for step,says in ((1, 'step 2 of 2, after the step before it'), (2, 'weights are no numbers in epoch 1, step 2 of 2 at')):
        learn = make(keep='miou', cbs=StopAtNaN())
        def ruin(learn): next(learn.model.decoder.parameters()).data.fill_(float('nan'))
        learn.add_cb(At('after_step', step, ruin))
        with pytest.raises(TrainError, match=says): learn.fit(1, 1e-3)
        assert all(torch.isfinite(p).all() for p in learn.model.parameters())

def test_nan_goes_back_to_the_best_epoch_and_leaves_its_checkpoint(tmp_path, capsys):
    learn = make(keep='miou', folder=tmp_path)
    learn.add_cb(At('after_loss', 3, nan_loss))
    with pytest.raises(TrainError, match='of the best epoch .miou'): fit_stages(learn, TWO, tmp_path)
    assert equal(learn.model.state_dict(), load_file(tmp_path/'best.safetensors'))
    assert read_file(tmp_path/'checkpoint.safetensors')['done']==1 and '1 of 3 epochs are in' in (err := capsys.readouterr().err) and 'go on with' not in err # to the same numbers

def test_crops_are_named_by_drawing_them_again():
    class Picker:
        def draw(self): return random.randrange(3),random.randrange(50),random.randrange(70)
    pairs = [Pair(s, None, None) for s in 'abc']
    dl = SimpleNamespace(bs=2, seed=4, epoch=6, dataset=SimpleNamespace(pairs=pairs, picker=Picker()), _DataLoader__idxs=[9,8,7,5])
    random.seed('4 6 7'); p,y,x = Picker().draw()
    random.seed(1); state = random.getstate()
    assert batch_names(dl, 1).startswith(f"photos {'abc'[p]} (top {y}, left {x}), ") and random.getstate()==state
    dl.seed = None
    assert batch_names(dl, 1)==''

# --- stopping and going on

_whole = {}
def whole(**kw): # the weights of an unbroken training
    if repr(kw) not in _whole: _whole[repr(kw)] = fit_stages(make(**kw), TWO).model.state_dict()
    return _whole[repr(kw)]

def test_ctrl_c_says_how_to_go_on(tmp_path, capsys, monkeypatch):
    want = whole(keep='miou')
    monkeypatch.setattr(sys, 'argv', ['drone_seg','first'])
    learn = make(keep='miou')
    stop = At('after_step', 3, interrupt); learn.add_cb(stop)
    with pytest.raises(KeyboardInterrupt): fit_stages(learn, TWO, tmp_path)
    err = capsys.readouterr().err
    assert f'stopped; 1 of 3 epochs are in {tmp_path}/checkpoint.safetensors, weights of the best one (miou' in err and 'in the learner; go on with resume=True' in err
    assert f'drone_seg train DATA --out {tmp_path} --resume' in err
    assert equal(learn.model.state_dict(), learn.keep_best.state)
    learn.remove_cb(stop)
    monkeypatch.setattr(sys, 'argv', ['drone_seg','again'])
    assert equal(fit_stages(learn, TWO, tmp_path, resume=True), want) # the same learner, in the same process
    assert json.loads((tmp_path/'run.json').read_text())['command']==['drone_seg','first']
    assert equal(fit_stages(make(3, keep='miou'), TWO, tmp_path, resume=True), want) # nothing left to do
    assert json.loads((tmp_path/'run.json').read_text())['finished'] is True
    fit_stages(make(keep='miou'), TWO, tmp_path) # a finished one may be replaced

def test_ctrl_c_waits_until_the_checkpoint_is_whole(tmp_path, capsys, monkeypatch):
    import signal, drone_seg.train.checkpoint as m
    real = m.write_file
    def pressed(*args): signal.raise_signal(signal.SIGINT); real(*args)
    monkeypatch.setattr(m, 'write_file', pressed)
    before = signal.signal(signal.SIGINT, signal.default_int_handler) # a job in the background is started with Ctrl-C ignored
    try:
        with pytest.raises(KeyboardInterrupt): fit_stages(make(), TWO, tmp_path)
        assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    finally: signal.signal(signal.SIGINT, before)
    assert read_file(tmp_path/'checkpoint.safetensors')['done']==1 and '1 of 3 epochs are in' in capsys.readouterr().err

def test_ctrl_c_before_anything_is_saved(tmp_path, capsys):
    learn = make(cbs=At('after_step', 2, interrupt))
    with pytest.raises(KeyboardInterrupt): fit_stages(learn, TWO, tmp_path)
    assert 'nothing is saved yet' in capsys.readouterr().err
    with pytest.raises(KeyboardInterrupt): fit_stages(make(cbs=At('after_step', 2, interrupt)), TWO)
    assert 'no folder was given' in capsys.readouterr().err
    learn = fit_stages(make(), TWO, tmp_path, resume=True)
    assert 'from the beginning' in capsys.readouterr().err and equal(learn, whole())

def stopped(folder, step=3, **kw):
    learn = make(**kw)
    learn.add_cb(At('after_step', step, interrupt))
    with pytest.raises(KeyboardInterrupt): fit_stages(learn, TWO, folder)

@pytest.mark.parametrize('opt', [lambda p, lr: OptimWrapper(p, torch.optim.AdamW), lambda p, lr: SGD(p, lr=lr, mom=.9)], ids=['torch','sgd'])
def test_other_optimisers_go_on(tmp_path, opt):
    stopped(tmp_path, 5, opt_func=opt, lr=1e-3)
    assert equal(fit_stages(make(5, opt_func=opt, lr=1e-3), TWO, tmp_path, resume=True), whole(opt_func=opt, lr=1e-3))

def test_best_epoch_survives_whatever_stands_in_its_file(tmp_path):
    given = [.9,.1,.2]
    class Two(Scores): # the first stage has epoch 0, so has the second
        def after_epoch(self): self._given = given[:1] if self.opt.frozen_idx else given[1:]; super().after_epoch()
    learn = make(keep='miou', folder=tmp_path, cbs=[Two('miou', given), At('after_step', 3, interrupt)])
    with pytest.raises(KeyboardInterrupt): fit_stages(learn, TWO, tmp_path)
    best = load_file(tmp_path/'best.safetensors')
    write_state({k:torch.zeros_like(v) for k,v in best.items()}, tmp_path/'best.safetensors')
    learn = fit_stages(make(4, keep='miou', folder=tmp_path, cbs=Two('miou', given)), TWO, tmp_path, resume=True)
    assert learn.keep_best.best==.9 and equal(learn.model.state_dict(), best) and equal(load_file(tmp_path/'best.safetensors'), best)

def test_gradients_and_parts_are_remembered(tmp_path):
    "An accumulation that runs over the end of an epoch, and the number of parts after memory ran out"
    class Keep(Callback): # a gradient is left over
        def after_step(self): self._g = [p.grad.clone() for p in self.model.head.parameters()]
        def after_train(self):
            for p,g in zip(self.model.head.parameters(), self._g): p.grad.copy_(g)
    a = make(cbs=Keep()); a.accumulate = 2
    fit_stages(a, TWO)
    b = make(cbs=[Keep(), At('after_step', 3, interrupt)]); b.accumulate = 2
    with pytest.raises(KeyboardInterrupt): fit_stages(b, TWO, tmp_path)
    c = fit_stages(make(6, cbs=Keep()), TWO, tmp_path, resume=True)
    assert equal(a, c) and c.accumulate==2

# --- what is refused

def test_an_unfinished_training_is_not_overwritten(tmp_path):
    stopped(tmp_path)
    old = (tmp_path/'checkpoint.safetensors').read_bytes()
    with pytest.raises(TrainError, match='stopped after 1 epochs; go on with resume'): fit_stages(make(), TWO, tmp_path)
    assert (tmp_path/'checkpoint.safetensors').read_bytes()==old

def test_other_settings_are_refused_by_name(tmp_path):
    stopped(tmp_path, cbs=Average(.9))
    again = lambda stages=TWO, facts=None, **kw: fit_stages(make(**{'cbs':Average(.9), **kw}), stages, tmp_path, resume=True, facts=facts)
    for says,kw in ((r"stages are others .stages.1.epochs was 2, is 3\)", dict(stages=[TWO[0], Stage(3)])),
                    (r"stages are others .stages.2 was not there", dict(stages=TWO+[Stage(1)])),
                    (r"settings.callbacks.average.decay is another .* was 0.9, is 0.8", dict(cbs=Average(.8))),
                    (r"settings.callbacks.average is another .* is not there", dict(cbs=None)),
                    (r"settings.loss.*", dict(loss_func='ce')),
                    (r"settings.lr.0 is another", dict(lr=1e-2)),
                    (r"recipe is another .recipe was not there, is 'best'", dict(facts=dict(recipe='best')))):
        with pytest.raises(TrainError, match=says) as e: again(**kw)
        assert '\n' not in str(e.value)
    learn = make(cbs=Average(.9))
    for dl in learn.dls.loaders: dl.classes = ClassTable(['a','b','d','unlabelled'], void=['unlabelled'])
    with pytest.raises(TrainError, match="class table is another .classes.2.name was 'c', is 'd'"): fit_stages(learn, TWO, tmp_path, resume=True)
    assert equal(again(), whole(cbs=Average(.9))) # and what it began with still goes on

def test_a_torn_checkpoint_is_told_and_left_alone(tmp_path):
    stopped(tmp_path)
    path = tmp_path/'checkpoint.safetensors'
    good = path.read_bytes()
    rng = random.Random(0)
    bad = [good[:n] for n in (0, 5, 8, 100, len(good)//2, len(good)-1)] + [good+b'x', b'\x80\x04pickle', b'\x00'*64]
    for at in [rng.randrange(len(good)) for _ in range(8)]+[rng.randrange(4000) for _ in range(4)]: bad.append(good[:at]+bytes([good[at]^(1<<rng.randrange(8))])+good[at+1:])
    learn = make()
    for b in bad:
        path.write_bytes(b)
        with pytest.raises(TrainError, match='checkpoint.safetensors: damaged, or no checkpoint .*delete it to begin anew') as e: fit_stages(learn, TWO, tmp_path, resume=True)
        assert '\n' not in str(e.value) and path.read_bytes()==b
    path.write_bytes(good)
    assert equal(fit_stages(learn, TWO, tmp_path, resume=True), whole())

@contextmanager
def small_disk(n): # no file may be longer; Python has SIGXFSZ ignored, so writing fails
    old = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (n, old[1]))
    try: yield
    finally: resource.setrlimit(resource.RLIMIT_FSIZE, old)

def test_a_full_disk_leaves_the_checkpoint_before(tmp_path, capsys):
    learn = make(cbs=At('after_step', 3, lambda learn: resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, resource.getrlimit(resource.RLIMIT_FSIZE)[1]))))
    with small_disk(resource.getrlimit(resource.RLIMIT_FSIZE)[0]), pytest.raises(FileError, match='cannot be written .*') as e: fit_stages(learn, TWO, tmp_path)
    assert '\n' not in str(e.value) and '1 of 3 epochs are in' in (err := capsys.readouterr().err) and 'go on with' in err
    assert read_file(tmp_path/'checkpoint.safetensors')['done']==1
    assert equal(fit_stages(make(2), TWO, tmp_path, resume=True), whole())
    assert not list(tmp_path.glob('.*'))

def test_a_full_disk_at_the_history_and_the_best_weights(tmp_path):
    for name,error in (('epoch_log', OSError(errno.ENOSPC, 'No space left on device')), ('keep_best', SafetensorError('I/O error: No space left on device (os error 28)'))):
        learn = make(keep='miou')
        def fail(): raise error
        cb = At('after_epoch', 0, noop); cb.order = 62; cb.after_epoch = fail
        learn.add_cb(cb)
        with pytest.raises(FileError, match='No space left on device.*; make room'): fit_stages(learn, TWO, tmp_path/name)

# --- the smaller ones

def test_pictures_and_kept_epochs_change_nothing(tmp_path):
    from PIL import Image
    a,b = make(),make(cbs=[KeepEpochs(tmp_path), Pictures(tmp_path, every=2)])
    fit_stages(a, TWO); fit_stages(b, TWO)
    assert equal(a, b) and equal(load_file(tmp_path/'epochs'/'epoch_002.safetensors'), b.model.state_dict())
    assert sorted(p.name for p in (tmp_path/'pictures').iterdir())==['epoch_000.jpg','epoch_002.jpg','kept.jpg']
    im = Image.open(tmp_path/'pictures'/'epoch_002.jpg')
    assert im.width>4*200 and im.height>2*160
    assert (tmp_path/'pictures'/'kept.jpg').read_bytes()==(tmp_path/'pictures'/'epoch_002.jpg').read_bytes() # nothing better is kept: the last one

def test_the_kept_epoch_is_shown(tmp_path, monkeypatch):
    class Script(Callback): # scores as they are told
        order = 64
        def after_epoch(self): self.recorder.values[-1][self.learn.keep_best.idx] = [.2,.5,.4][self.epoch]
    titles,draw = [],callbacks.picture_of
    monkeypatch.setattr(callbacks, 'picture_of', lambda *a, **k: titles.append(a[4][0]) or draw(*a, **k))
    make(keep='miou', cbs=[Script(), Pictures(tmp_path, every=3)]).fit(3)
    assert titles==['epoch 0, kept: miou 0.200', 'epoch 1, kept: miou 0.500']
    assert sorted(p.name for p in (tmp_path/'pictures').iterdir())==['epoch_000.jpg','kept.jpg']

def test_run_json(tmp_path, monkeypatch):
    monkeypatch.setattr(sys, 'argv', ['drone_seg','train','--seed','3'])
    fit_stages(make(cbs=Average(.9)), [Stage(1)], tmp_path, facts=dict(recipe='best', seed=3))
    d = json.loads((tmp_path/'run.json').read_text())
    assert d['recipe']=='best' and d['seed']==3 and d['finished'] and d['command'][-2:]==['--seed','3'] and d['versions']['torch'].startswith(torch.__version__.split('+')[0])
    assert d['stages']==[json.loads(json.dumps(vars(Stage(1))))] and d['classes'][0]['name']=='a' and d['settings']['callbacks']['average']==dict(decay=.9)

def test_fingerprint_sees_what_matters(tmp_path):
    f = tmp_path/'a'
    def of(b): f.write_bytes(b); return file_fingerprint(f)
    small,large = bytes(1000),bytes(3_000_000)
    assert len({of(small), of(small[:-1]), of(small[:500]+b'1'+small[501:]), of(large), of(large[:-1]+b'1'), of(b'1'+large[1:])})==6
    a = of(small); os.utime(f, (1, 1))
    assert file_fingerprint(f)==a and file_fingerprint(tmp_path/'b')=='missing'

def test_deterministic():
    was = torch.are_deterministic_algorithms_enabled(),torch.backends.cudnn.deterministic,torch.backends.cudnn.benchmark
    try:
        draws = []
        for _ in range(2): deterministic(5); draws.append((random.random(), np.random.rand(), torch.rand(1).item()))
        assert draws[0]==draws[1] and torch.are_deterministic_algorithms_enabled()
    finally: torch.use_deterministic_algorithms(was[0]); torch.backends.cudnn.deterministic,torch.backends.cudnn.benchmark = was[1:]
