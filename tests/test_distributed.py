"Counting in several processes: the same matrices in the same order as in one process, no photo twice"
import numpy as np, pytest, torch
from drone_seg.fields import DroneSegError
from drone_seg.scores.confusion import Confusion
from drone_seg.scores.table import in_order

COMMON = '''
import os, sys, numpy as np, torch, torch.distributed as dist
torch.set_num_threads(1)
rank,world,port,out = int(sys.argv[1]),int(sys.argv[2]),sys.argv[3],sys.argv[4]
os.environ.update(RANK=str(rank), WORLD_SIZE=str(world), MASTER_ADDR='127.0.0.1', MASTER_PORT=port)
C = 4
def photos(n=7):
    g = torch.Generator().manual_seed(0)
    x = torch.randn(n,C,8,10, generator=g); y = torch.randint(0, C, (n,8,10), generator=g)
    y[torch.rand(y.shape, generator=g)<.2] = 255
    return x,y
'''
IN_LOOP = COMMON+'''
from drone_seg.scores.boundary import Boundary
from drone_seg.scores.calibration import Calibration
from drone_seg.scores.confusion import Confusion
from torch.utils.data import DataLoader, DistributedSampler
x,y = photos()
counters = [Confusion(C),Boundary(C),Calibration()]
dist.init_process_group('gloo', rank=rank, world_size=world)
data = list(zip(x, y))
for a,b in DataLoader(data, batch_size=2, sampler=DistributedSampler(data, shuffle=False)):
    for o in counters[:2]: o.add(a.argmax(1), b)
    counters[2].add_logits(a, b)
m,bd,cal = [o.gather(len(data), 'strided') for o in counters]
dist.destroy_process_group()
np.savez(out, matrices=m.matrices, void=m.void_pixels, counts=bd.counts, sums=cal.sums, miou=m.scores().miou, mine=len(counters[0]))
'''
IN_FASTAI = COMMON+'''
from fastai.vision.all import Callback, DataLoader, DataLoaders, Learner
from fastai.distributed import DistributedDL
from drone_seg.train.losses import CrossEntropy
from drone_seg.train.metrics import seg_metrics
x,y = photos()
class OnCPU(DistributedDL):
    def _broadcast(self, t, rank): # fastai's own sends it over CUDA
        t = torch.LongTensor(t); dist.broadcast(t, rank); return t.tolist()
class Deal(Callback):
    order = 11
    def before_validate(self): self.learn.dl = OnCPU(self.learn.dl, device='cpu')
names = ['pixel_accuracy','miou','iou:b','boundary_iou','ece']
if world>1: dist.init_process_group('gloo', rank=rank, world_size=world)
dls = DataLoaders(*[DataLoader(list(zip(x, y)), bs=2, num_workers=0) for _ in range(2)])
torch.manual_seed(1)
learn = Learner(dls, torch.nn.Conv2d(C, C, 1), loss_func=CrossEntropy(), metrics=seg_metrics(list('abcd'), names), cbs=[Deal()] if world>1 else [])
with learn.no_bar(), learn.no_logging(): values = list(learn.validate())[1:]
counter = learn.metrics[0].counter
np.savez(out, values=values, matrices=counter.whole[0].matrices, mine=len(counter))
if world>1: dist.destroy_process_group()
'''

def run(forks, script, world, tmp_path):
    import socket
    with socket.socket() as s: s.bind(('127.0.0.1', 0)); port = s.getsockname()[1]
    ends = forks.run(*[(script, r, world, port, tmp_path/f'{world}_{r}.npz') for r in range(world)])
    assert all(e.returncode==0 for e in ends), '\n'.join(e.stderr for e in ends)[-3000:]
    return [np.load(tmp_path/f'{world}_{r}.npz') for r in range(world)]

@pytest.mark.skipif(not torch.distributed.is_available(), reason='this torch has no torch.distributed')
@pytest.mark.parametrize('script', [IN_LOOP, IN_FASTAI], ids=['loop with DistributedSampler', 'fastai with DistributedDL'])
def test_two_processes_equal_one(forks, script, tmp_path):
    one, = run(forks, script, 1, tmp_path)
    two = run(forks, script, 2, tmp_path)
    assert len(one['matrices'])==7 and sum(int(o['mine']) for o in two)==8 # one photo was dealt out twice
    for r in two:
        for k in set(one.files)-{'mine'}: np.testing.assert_array_equal(one[k], r[k])

@pytest.mark.parametrize('world', [1, 2, 3, 5, 8, 11])
@pytest.mark.parametrize('n', [1, 2, 7, 10])
@pytest.mark.parametrize('order', ['strided', 'blocks'])
def test_every_way_to_deal(world, n, order):
    "As DistributedSampler and DistributedDL deal: the list is repeated until it can be cut evenly"
    padded = -(-n//world)*world
    ids = (list(range(n))*padded)[:padded]
    shares = [ids[r::world] if order=='strided' else ids[r*padded//world:(r+1)*padded//world] for r in range(world)]
    assert [i for i,_ in in_order([[(i,0) for i in o] for o in shares], n, order)]==list(range(n))

def test_shares_cut_short_by_drop_last_and_wrong_totals():
    shares = [[(i,0) for i in o] for o in ([0,1],[3,4],[6])] # 9 photos in pieces of 3, the last batch of each dropped
    assert [i for i,_ in in_order(shares, 9, 'blocks')]==[0,1,3,4,6]
    with pytest.raises(DroneSegError, match='a process counted 2 photos'): in_order(shares, 3, 'blocks')
    with pytest.raises(DroneSegError, match="order='rows'"): in_order(shares, 9, 'rows')

def test_one_process_needs_nothing():
    c = Confusion(3).add(np.zeros((2,4,4), np.uint8), np.zeros((2,4,4), np.uint8))
    assert c.gather(2) is c and c.gather(2, 'blocks') is c


# Training together, in 56_train.distributed

TRAINING = COMMON+"""
os.environ['LOCAL_RANK'] = str(rank)
import hashlib, json, logging, random, warnings
from pathlib import Path
warnings.filterwarnings('ignore')
from fastai.vision.all import Callback, DataLoaders, Learner, SGD, set_seed
from drone_seg.data.loader import DroneDL
from drone_seg.data.datasets import open_dataset
from drone_seg.train.callbacks import *
from drone_seg.train.checkpoint import *
from drone_seg.train.fit import *
from drone_seg.train.stages import *
from drone_seg.train.distributed import Distributed, SharedDL
from drone_seg.train.distributed import run_folder
from drone_seg.train.keep import EpochLog, KeepBest
from drone_seg.train.learner import seg_learner
from drone_seg.train.losses import CrossEntropy
from drone_seg.train.metrics import seg_metrics
base = Path(out).parent
res = dict(order=[], lengths=[], first=[], stands=[])

class Look(Callback):
    "Which photos this process trains on, how many batches it is told of, how many come"
    order = 90
    def before_train(self):
        res['stands'].append(hashlib.sha256(repr((random.getstate(), np.random.get_state(), torch.get_rng_state().tolist())).encode()).hexdigest())
        self.n,self.came = self.learn.n_iter if hasattr(self.learn, 'n_iter') else 0,0
    def after_batch(self):
        if self.training: self.came += 1; self.told = self.n_iter
    def after_train(self): res['lengths'].append([self.told, self.came])

class Stop(Callback):
    "In the third epoch, after its first batch"
    n = 0
    def after_epoch(self): self.n += 1
    def after_batch(self):
        if self.n==2: raise KeyboardInterrupt

own_order = SharedDL.get_idxs
def get_idxs(self):
    idxs = own_order(self); res['order'].append(list(map(int, idxs))); return idxs
SharedDL.get_idxs = get_idxs

def digest(model): return hashlib.sha256(b''.join(v.cpu().numpy().tobytes() for v in model.state_dict().values())).hexdigest()

def scenes(cbs, folder):
    data = open_dataset(base/'scenes')
    split = data.split(by='random', valid=7/17, seed=0, progress=False)
    set_seed(3)
    dls = data.dataloaders(split, size=(64,96), bs=2, seed=5, num_workers=0, cache=False)
    return seg_learner(dls, 'fpn', 'test_resnet', weights=None, net=dict(decoder_pyramid_channels=32, decoder_segmentation_channels=32), lr=2e-3, precision='fp32', folder=folder, cbs=[Distributed(), Look(), Average(), StopAtNaN(), *cbs])

stages = [Stage(1, frozen=True), Stage(2)]
def train(name, cbs=(), resume=False):
    with run_folder(base/name) as folder:
        learn = scenes(list(cbs), folder)
        set_seed(10+rank) # as from a script without seeds: what is drawn, each process draws by itself
        with learn.no_bar(), learn.no_logging(): fit_stages(learn, stages, folder, resume)
        res['files '+name] = sorted(str(f.name) for f in Path(folder).iterdir())
        res['here '+name] = Path(folder)==base/name
    return learn

learn = train('whole')
res.update(weights=digest(learn.model), plain=type(learn.model).__name__, n_train=len(learn.dls.train_ds), n_valid=len(learn.dls.valid_ds), best=learn.keep_best.best)
with learn.no_bar(), learn.no_logging(): res['scores'] = [float(v) for v in learn.validate()[1:]]
matrices = learn.metrics[0].counter.whole[0].matrices
mine = len(learn.metrics[0].counter)
if world>1:
    try: train('parts', [Stop()])
    except KeyboardInterrupt: res['stopped'] = True
    res['resumed'] = digest(train('parts', resume=True).model)
elif (base/'whole'/'best.safetensors').exists():
    from safetensors.torch import load_file
    learn.model.load_state_dict(load_file(base/'two.safetensors'))
    with learn.no_bar(), learn.no_logging(): res['scores of theirs'] = [float(v) for v in learn.validate()[1:]]
    matrices = learn.metrics[0].counter.whole[0].matrices
if world>1 and rank==0:
    from safetensors.torch import save_file
    save_file({k:v.contiguous() for k,v in learn.model.state_dict().items()}, base/'two.safetensors')

# a network without memory, for a comparison by hand
x,y = photos(10); y[y==255] = 0
dls = DataLoaders(DroneDL(list(zip(x, y)), bs=2, shuffle=True, drop_last=True, num_workers=0, device='cpu'), DroneDL(list(zip(x, y))[:3], bs=2, num_workers=0, device='cpu')) # workers forked beside gloo's threads can hang
for dl in dls.loaders: dl.seed = 7
torch.manual_seed(rank) # the first one's weights are everybody's
net = torch.nn.Conv2d(C, C, 1)
start = [p.detach().clone() for p in net.parameters()]
learn = Learner(dls, net, loss_func=CrossEntropy(), opt_func=SGD, metrics=seg_metrics(list('abcd'), ['miou']), cbs=[Distributed()])
at = len(res['order'])
with learn.no_bar(), learn.no_logging(): learn.fit(2, .1, wd=0.)
res['small order'] = res['order'][at:]
np.savez(out, res=json.dumps(res), matrices=matrices, mine=mine, **{f'start{i}':p.numpy() for i,p in enumerate(start)}, **{f'end{i}':p.detach().numpy() for i,p in enumerate(net.parameters())})
if world>1: dist.destroy_process_group()
"""

@pytest.fixture(scope='module')
def trained(tmp_path_factory, forks):
    pytest.importorskip('accelerate')
    import json
    from drone_seg.scenes.scene import write_scenes
    folder = tmp_path_factory.mktemp('together')
    write_scenes(folder/'scenes', 17, size=(64,96), seed=1)
    two = run(forks, TRAINING, 2, folder); files = sorted(str(f.relative_to(folder)) for f in folder.rglob('*'))
    one, = run(forks, TRAINING, 1, folder)
    return one,two,[json.loads(str(o['res'])) for o in (one, *two)],files,folder

def test_both_end_with_the_same_weights(trained):
    _,_,(_,a,b),*_ = trained
    assert a['weights']==b['weights'] and a['plain']==b['plain']=='SegNet' and a['best']==b['best']

def test_each_photo_trains_once_and_no_batch_is_announced_that_does_not_come(trained):
    _,_,(_,a,b),*_ = trained
    n,m = a['n_train'],a['n_valid']
    assert (n,m)==(10,7)
    for k,(p,q) in enumerate(zip(a['order'][:6], b['order'][:6])): # of three epochs: training, validation
        if k%2: assert p==[0,1,2,3] and q==[4,5,6,0] # one is dealt out twice
        else: assert sorted(p+q)==list(range(n))
    assert len({tuple(o) for o in a['order'][:6:2]})==3 # another order in each epoch
    assert a['lengths'][:3]==b['lengths'][:3]==[[2,2]]*3

def test_scores_are_those_of_one_process(trained):
    one,two,(o,a,b),*_ = trained
    assert [len(t['matrices']) for t in two]==[7,7] and sorted(int(t['mine']) for t in two)==[4,4]
    for t in two: np.testing.assert_array_equal(t['matrices'], one['matrices']) # the same weights, judged alone
    assert a['scores']==b['scores']==o['scores of theirs']

def test_only_the_first_writes(trained):
    _,_,(_,a,b),files,_ = trained
    assert a['here whole'] and not b['here whole']
    assert {'best.safetensors','checkpoint.safetensors','history.csv','run.json'}<=set(a['files whole'])
    assert sorted(f for f in files if f.startswith('whole/'))==sorted(f'whole/{f}' for f in a['files whole'])
    assert not any('.tmp' in f for f in files)

def test_goes_on_after_a_crash(trained):
    _,_,(_,a,b),*_ = trained
    assert a['stopped'] and a['resumed']==b['resumed']==a['weights']
    for o in (a, b): # unbroken: 3 epochs; stopped in its third; that one again
        assert len(o['stands'])==7 and o['stands'][:3]==o['stands'][3:6] and o['stands'][6]==o['stands'][2]
    assert not set(a['stands']) & set(b['stands'])

def test_other_numbers_of_processes_go_on_as_told(trained, capsys):
    from drone_seg.train.checkpoint import read_file
    from drone_seg.train.fit import tell_moved
    folder = trained[4]
    found = read_file(folder/'parts'/'checkpoint.safetensors')
    assert found['facts']['machine']['processes']==2 and len(found['state']['others'])==1
    tell_moved(found['facts'], found['facts'] | dict(machine=found['facts']['machine'] | dict(processes=1)))
    assert 'machine.processes was 2, is 1: steps are of another number of photos' in capsys.readouterr().err

def test_steps_are_those_of_the_mean_loss(trained):
    "By hand: each step takes the mean of both processes' losses"
    _,(a,b),(_,ra,rb),*_ = trained
    g = torch.Generator().manual_seed(0)
    x = torch.randn(10,4,8,10, generator=g); y = torch.randint(0, 4, (10,8,10), generator=g)
    y[torch.rand(y.shape, generator=g)<.2] = 255; y[y==255] = 0
    w,c = (torch.tensor(a[f'start{i}'], requires_grad=True) for i in (0,1))
    assert not np.allclose(a['start0'], b['start0'])
    for p,q in zip(ra['small order'][::2], rb['small order'][::2]):
        assert len(p)==len(q)==5
        for k in (0,2):
            loss = sum(torch.nn.functional.cross_entropy(torch.nn.functional.conv2d(x[i[k:k+2]], w, c), y[i[k:k+2]]) for i in (p, q))/2
            for t,d in zip((w, c), torch.autograd.grad(loss, (w, c))): t.data -= .1*d
    for t in (a, b):
        np.testing.assert_allclose(t['end0'], w.detach(), atol=1e-6); np.testing.assert_allclose(t['end1'], c.detach(), atol=1e-6)
