"Counting in several processes: the same matrices in the same order as in one process, no photo twice"
import subprocess, sys, textwrap
import numpy as np, pytest, torch
from drone_seg.classes import DroneSegError
from drone_seg.confusion import Confusion, _together

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
from drone_seg.boundary import Boundary
from drone_seg.calibration import Calibration
from drone_seg.confusion import Confusion
from torch.utils.data import DataLoader, DistributedSampler
x,y = photos()
counters = [Confusion(C),Boundary(C),Calibration()]
dist.init_process_group('gloo', rank=rank, world_size=world)
data = list(zip(x, y))
for a,b in DataLoader(data, batch_size=2, sampler=DistributedSampler(data, shuffle=False)):
    for o in counters: o.update(a, b)
m,bd,cal = [o.gather(len(data), 'strided') for o in counters]
values = counters[0].compute(len(data))
dist.destroy_process_group()
np.savez(out, matrices=m.matrices, void=m.void_pixels, counts=bd.counts, sums=cal.sums, miou=values['miou'], mine=len(counters[0]))
'''
IN_FASTAI = COMMON+'''
from fastai.vision.all import Callback, DataLoader, DataLoaders, Learner
try: import accelerate
except ImportError: # fastai.distributed needs the name for a class that is not used here
    import types
    sys.modules['accelerate'] = types.ModuleType('accelerate'); sys.modules['accelerate'].Accelerator = type('Accelerator', (), {'__init__':lambda self: None})
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

def run(script, world, tmp_path):
    import socket
    with socket.socket() as s: s.bind(('127.0.0.1', 0)); port = s.getsockname()[1]
    file = tmp_path/f'run{world}.py'; file.write_text(textwrap.dedent(script))
    ps = [subprocess.Popen([sys.executable, str(file), str(r), str(world), str(port), str(tmp_path/f'{world}_{r}.npz')], stderr=subprocess.PIPE, text=True) for r in range(world)]
    try: errors = [p.communicate(timeout=240)[1] for p in ps]
    finally:
        for p in ps: p.kill()
    assert all(p.returncode==0 for p in ps), '\n'.join(errors)[-3000:]
    return [np.load(tmp_path/f'{world}_{r}.npz') for r in range(world)]

@pytest.mark.skipif(not torch.distributed.is_available(), reason='this torch has no torch.distributed')
@pytest.mark.parametrize('script', [IN_LOOP, IN_FASTAI], ids=['loop with DistributedSampler', 'fastai with DistributedDL'])
def test_two_processes_equal_one(script, tmp_path):
    one, = run(script, 1, tmp_path)
    two = run(script, 2, tmp_path)
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
    assert [i for i,_ in _together([[(i,0) for i in o] for o in shares], n, order)]==list(range(n))
    if padded>n: assert len(_together([[(i,0) for i in o] for o in shares], None, order))==padded # the naive way counts some twice

def test_shares_cut_short_by_drop_last_and_wrong_totals():
    shares = [[(i,0) for i in o] for o in ([0,1],[3,4],[6])] # 9 photos in pieces of 3, the last batch of each dropped
    assert [i for i,_ in _together(shares, 9, 'blocks')]==[0,1,3,4,6]
    with pytest.raises(DroneSegError, match='a process counted 2 photos'): _together(shares, 3, 'blocks')
    with pytest.raises(DroneSegError, match="order='rows'"): _together(shares, 9, 'rows')

def test_one_process_needs_nothing():
    c = Confusion(3).add(np.zeros((2,4,4), np.uint8), np.zeros((2,4,4), np.uint8))
    assert c.gather() is c and c.gather(2, 'blocks') is c
