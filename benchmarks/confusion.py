"""Counting 64 masks of 512x512 with 24 classes and void: this package against other ways, one thread, process CPU time.

    python benchmarks/confusion.py

Gate: `count_images` takes at most 3 times as long as cv2.calcHist, measured in the same run."""
import os
for k in ('OMP_NUM_THREADS', 'MKL_NUM_THREADS', 'OPENBLAS_NUM_THREADS'): os.environ[k] = '1'
import statistics, sys, time, warnings
warnings.filterwarnings('ignore')
import cv2, numpy as np, torch
from drone_seg.confusion import count_images

torch.set_num_threads(1); cv2.setNumThreads(1)
N,B,S = 24,64,512

def masks(seed=0):
    "Patchy truth with void, a prediction that is right four times in five"
    rng = np.random.default_rng(seed)
    t = rng.integers(0, N, (B,S//16,S//16)).astype(np.uint8).repeat(16, 1).repeat(16, 2)
    p = np.where(rng.random(t.shape)<.8, t, rng.integers(0, N, t.shape)).astype(np.uint8)
    t[rng.random((B,S//16,S//16)).repeat(16, 1).repeat(16, 2)<.1] = 255
    return p,t

def ms(f, runs):
    f(); took = []
    for _ in range(runs):
        start = time.process_time(); f(); took.append(time.process_time()-start)
    return statistics.median(took)*1e3

p,t = masks()
tp,tt = torch.from_numpy(p),torch.from_numpy(t)
lp,lt = tp.long(),tt.long()

def calc_hist(): # Per image; void and beyond fall outside the ranges
    return np.stack([cv2.calcHist([a,b], [0,1], None, [N,N], [0,N,0,N]) for a,b in zip(t, p)]).astype(np.int64)
def bincount_int64():
    keep = t!=255
    return np.bincount(t[keep].astype(np.int64)*N+p[keep], minlength=N*N).reshape(N,N)
def naive():
    return np.array([[((t[:8]==i) & (p[:8]==j)).sum() for j in range(N)] for i in range(N)])
def sklearn_():
    from sklearn.metrics import confusion_matrix
    keep = t[:8]!=255
    return confusion_matrix(t[:8][keep], p[:8][keep], labels=range(N))
def torchmetrics_(validate):
    from torchmetrics.functional.classification import multiclass_confusion_matrix as f
    return lambda: f(lp, lt, num_classes=N, ignore_index=255, validate_args=validate)
def smp_():
    import segmentation_models_pytorch as smp
    return lambda: smp.metrics.get_stats(lp, lt, mode='multiclass', ignore_index=255, num_classes=N)

rows = [('drone_seg count_images, uint8', lambda: count_images(tp, tt, N), 7, 1), ('drone_seg count_images, int64 in', lambda: count_images(lp, lt, N), 7, 1),
        ('cv2.calcHist (no range check)', calc_hist, 7, 1), ('boolean mask + np.bincount int64', bincount_int64, 3, 1),
        ('torchmetrics', torchmetrics_(True), 3, 1), ('torchmetrics validate_args=False', torchmetrics_(False), 3, 1),
        ('smp get_stats (no matrix)', smp_(), 3, 1), ('sklearn confusion_matrix (8 masks x 8)', sklearn_, 1, 8), ('naive comparison (8 masks x 8)', naive, 1, 8)]
np.testing.assert_array_equal(count_images(p, t, N), calc_hist())
np.testing.assert_array_equal(count_images(p, t, N).sum(0), bincount_int64())
took = {name:ms(f, runs)*times for name,f,runs,times in rows}
ref = took['cv2.calcHist (no range check)']
print(f"{'way to count':<42}{'ms':>9}{'x calcHist':>12}")
for name,v in took.items(): print(f'{name:<42}{v:9.1f}{v/ref:12.2f}')
ok = took['drone_seg count_images, uint8']<=3*ref
print('gate (at most 3 x cv2.calcHist):', 'kept' if ok else 'BROKEN')
sys.exit(not ok)
