"""Counting 64 masks of 512x512 with 24 classes and void: this package against other ways, one thread, process CPU time.
Then what border and calibration scores cost for a photo of 768x512 with 22 classes.

    python benchmarks/confusion.py            # prints; the last run is in benchmarks/results/confusion.txt

MONAI and numba are compared if they can be imported: `pip install --no-deps monai numba llvmlite` will do.

Gate: `count_images` takes at most 3 times as long as cv2.calcHist, measured in the same run."""
import os
for k in ('OMP_NUM_THREADS', 'MKL_NUM_THREADS', 'OPENBLAS_NUM_THREADS'): os.environ[k] = '1'
import statistics, sys, time, warnings
warnings.filterwarnings('ignore')
import cv2, numpy as np, torch
from drone_seg.scores.boundary import border_band, count_boundary
from drone_seg.scores.calibration import Calibration
from drone_seg.scores.confusion import Scores, count_images

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

def fastai_():
    from types import SimpleNamespace
    from fastai.metrics import DiceMulti
    z = torch.nn.functional.one_hot(lp[:8], N).movedim(-1, 1).float() # what it takes the argmax of
    def f():
        m = DiceMulti(); m.reset(); m.accumulate(SimpleNamespace(pred=z, y=lt[:8]))
    return f
def monai_():
    from monai.metrics import compute_iou
    a,b = (torch.nn.functional.one_hot(o[:8].clamp(max=N-1), N).movedim(-1, 1).float() for o in (lp, lt))
    return lambda: compute_iou(a, b, ignore_empty=False)
def numba_():
    from numba import njit
    @njit
    def f(t, p):
        m = np.zeros((len(t),256,256), np.int64)
        for i in range(len(t)):
            for j in range(t.shape[1]): m[i,t[i,j],p[i,j]] += 1
        return m
    return lambda: f(t.reshape(B, -1), p.reshape(B, -1))

rows = [('drone_seg count_images, uint8', lambda: count_images(tp, tt, N), 7, 1), ('drone_seg count_images, int64 in', lambda: count_images(lp, lt, N), 7, 1),
        ('cv2.calcHist (no range check)', calc_hist, 7, 1), ('boolean mask + np.bincount int64', bincount_int64, 3, 1),
        ('torchmetrics', torchmetrics_(True), 3, 1), ('torchmetrics validate_args=False', torchmetrics_(False), 3, 1),
        ('smp get_stats (no matrix)', smp_(), 3, 1), ('sklearn confusion_matrix (8 masks x 8)', sklearn_, 1, 8), ('naive comparison (8 masks x 8)', naive, 1, 8)]
for name,make,runs,times in (('fastai DiceMulti, argmax and void in (8 masks x 8)', fastai_, 1, 8), ('MONAI compute_iou, void in, no matrix (8 masks x 8)', monai_, 1, 8), ('numba loop (no range check, one matrix per image)', numba_, 7, 1)):
    try: rows.append((name, make(), runs, times))
    except ImportError: print(f'{name}: not installed')
np.testing.assert_array_equal(count_images(p, t, N), calc_hist())
np.testing.assert_array_equal(count_images(p, t, N).sum(0), bincount_int64())
took = {name:ms(f, runs)*times for name,f,runs,times in rows}
ref = took['cv2.calcHist (no range check)']
print(f"{'way to count':<54}{'ms':>9}{'x calcHist':>12}")
for name,v in took.items(): print(f'{name:<54}{v:9.1f}{v/ref:12.2f}')
ok = took['drone_seg count_images, uint8']<=3*ref
print('gate (at most 3 x cv2.calcHist):', 'kept' if ok else 'BROKEN')

def one_photo(H=512, W=768, C=22):
    rng = np.random.default_rng(0)
    t = rng.integers(0, C, (H//32,W//32)).astype(np.uint8).repeat(32, 0).repeat(32, 1)
    p = np.where(rng.random((H,W))<.02, rng.integers(0, C, (H,W)), np.roll(t, 3, 1)).astype(np.uint8)
    t[:16] = 255
    z = torch.randn(1,C,H,W)+3*torch.nn.functional.one_hot(torch.from_numpy(p).long(), C).movedim(-1, 0)[None]
    return p,t,z

p,t,z = one_photo()
tt = torch.from_numpy(t)[None]
rows = np.where(t==255, 0, t+1).astype(np.uint8)
def original_bands(): # boundary-iou-api's way, class by class, both masks
    for o in (p, t):
        for c in range(22):
            m = cv2.copyMakeBorder((o==c).astype(np.uint8), 1, 1, 1, 1, cv2.BORDER_CONSTANT, value=0)
            m-cv2.erode(m, np.ones((3,3), np.uint8), iterations=18)
def torchmetrics_ece():
    from torchmetrics.functional.classification import multiclass_calibration_error as f
    return lambda: f(z, tt.long(), num_classes=22, n_bins=15, ignore_index=255)
big = Scores(np.random.default_rng(0).integers(0, 1000, (400,22,22)))
extra = [('largest logit (argmax) alone', lambda: z.max(1)), ('softmax and its largest alone', lambda: z.softmax(1).max(1)), ('count_images', lambda: count_images(p[None], t[None], 22)),
         ('Calibration.add_logits', lambda: Calibration().add_logits(z, tt)), ('torchmetrics calibration error', torchmetrics_ece()),
         ('count_boundary, both measures', lambda: count_boundary(p, t, 22)), ('  bands of one mask', lambda: border_band(rows, 18)), ('original bands, 22 classes, both masks', original_bands),
         ('published() of 400 photos', big.published)]
print(f"\n{'a photo of 768x512, 22 classes':<54}{'ms':>9}")
for name,f in extra: print(f'{name:<54}{ms(f, 5):9.1f}', flush=True)
sys.exit(not ok)
