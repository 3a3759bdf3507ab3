"Losses against PyTorch, segmentation_models_pytorch and finite differences, with void and in half precision"
import math, re
import numpy as np, pytest, torch, torch.nn.functional as F
from torch import nn
from drone_seg.fields import MaskError, TrainError
from drone_seg.classes import IGNORE
from drone_seg.train.losses import BoundaryLoss, CrossEntropy, Focal, LossSum, Lovasz, OhemCrossEntropy, SoftDice, SoftJaccard, Tversky, loss_names, seg_loss
from drone_seg.train.loss_for import dls_loss
from drone_seg.train.summary import summarize

WEIGHTED = ['ce', 'ce(label_smoothing=.1)', 'focal', 'ohem(min_kept=.3)', 'ce + 2*dice + lovasz']
ALL = [*loss_names, *WEIGHTED[1:], 'lovasz(bins=None)', 'dice(log=True)', 'jaccard(per_image=True, absent=count)', 'tversky(gamma=.75, absent=count)', 'tversky(gamma=2, per_image=True)', 'ce + boundary(width=5)']
LAYOUTS = [torch.contiguous_format, torch.channels_last]

def weighted(text, weight): # Class weights for those that take them
    return seg_loss(text, weight if re.search(r'\b(ce|focal|ohem)\b', text) else None)

def batch(c=6, used=None, shape=(3,20,30), seed=0, void=.2, scale=2., dtype=torch.float32):
    g = torch.Generator().manual_seed(seed)
    z = scale*torch.randn(shape[0], c, *shape[1:], generator=g)
    t = torch.randint(0, used or c, shape, generator=g)
    t[torch.rand(shape, generator=g)<void] = IGNORE
    return z.to(dtype),t

def value_grad(loss, z, t):
    z = z.detach().clone(memory_format=torch.preserve_format).requires_grad_()
    v = loss(z, t)
    return v,torch.autograd.grad(v, z)[0]

def same(a, b, tol=1e-5):
    for x,y in zip(a, b): torch.testing.assert_close(x.float(), y.float(), rtol=tol, atol=tol*max(y.abs().max().item(), 1e-12))

@pytest.mark.parametrize('layout', LAYOUTS)
@pytest.mark.parametrize('weighted', [False, True])
@pytest.mark.parametrize('smooth', [0, .1])
def test_cross_entropy_is_pytorchs(layout, weighted, smooth):
    z,t = batch()
    w = torch.tensor([.5,1,2,0,3,1.5]) if weighted else None
    mine = value_grad(CrossEntropy(w, smooth), z.contiguous(memory_format=layout), t)
    same(mine, value_grad(lambda z,t: F.cross_entropy(z, t, w, ignore_index=IGNORE, label_smoothing=smooth), z, t))

def test_pieces_do_not_matter(monkeypatch):
    import drone_seg.train.summary as m
    z,t = batch()
    for layout in LAYOUTS:
        x,whole = z.contiguous(memory_format=layout),None
        for step in (10**6, 7, 601):
            monkeypatch.setattr(m, '_STEP', step)
            res = value_grad(seg_loss('ce(label_smoothing=.1) + dice + lovasz'), x, t)
            whole = whole or res
            same(res, whole)

@pytest.mark.parametrize('text', ALL)
@pytest.mark.parametrize('layout', LAYOUTS)
def test_gradients_by_finite_differences(text, layout):
    if text.startswith('lovasz') and 'None' not in text or '+ lovasz' in text: text = text.replace('lovasz', 'lovasz(bins=None)') # a histogram is a staircase: compared with sorting below
    z,t = batch(4, used=3, shape=(2,3,5), dtype=torch.float64)
    z = z.contiguous(memory_format=layout).requires_grad_()
    loss = weighted(text, [.5,1,2,1])
    assert torch.autograd.gradcheck(lambda x: loss(x, t), z)

@pytest.mark.parametrize('used', [None, 4])
def test_dice_and_jaccard_are_smps_but_for_absent_classes(used):
    smp = pytest.importorskip('segmentation_models_pytorch').losses
    z,t = batch(used=used)
    c,present = z.shape[1],used or z.shape[1]
    theirs = smp.DiceLoss('multiclass', ignore_index=IGNORE)
    same(value_grad(SoftDice(), z, t), [v*c/present for v in value_grad(theirs, z, t)])
    theirs = smp.JaccardLoss('multiclass', ignore_index=IGNORE)
    same(value_grad(SoftJaccard(), z, t), [v*c/present for v in value_grad(theirs, z, t)])

@pytest.mark.parametrize('loss', [SoftDice(), SoftJaccard(), Lovasz(), Lovasz(None)])
def test_what_void_hides_could_as_well_be_cut_out(loss):
    z,t = batch(void=0)
    hidden = t.clone(); hidden[:,:,20:] = IGNORE
    torch.testing.assert_close(loss(z, hidden), loss(z[...,:20], t[:,:,:20]))

@pytest.mark.parametrize('used', [None, 4])
def test_lovasz_is_smps(used):
    smp = pytest.importorskip('segmentation_models_pytorch').losses
    z,t = batch(used=used)
    theirs = value_grad(smp.LovaszLoss('multiclass', ignore_index=IGNORE), z, t)
    same(value_grad(Lovasz(bins=None), z, t), theirs)
    mine = value_grad(Lovasz(), z, t)
    assert abs(mine[0]-theirs[0])<1/2048
    assert (mine[1]-theirs[1]).norm()<.05*theirs[1].norm()

@pytest.mark.parametrize('bins', [16, 256, 4096])
@pytest.mark.parametrize('scale', [.1, 2, 20])
def test_lovasz_histogram_is_within_half_a_bin(bins, scale):
    z,t = batch(8, used=7, scale=scale)
    assert abs(Lovasz(bins)(z, t)-Lovasz(None)(z, t))<=.5/bins+1e-5

def test_lovasz_at_the_ends():
    t = torch.tensor([[[0,1,2,IGNORE]]])
    right = 100.*F.one_hot(t.clamp(max=2), 3).movedim(-1, 1)
    assert Lovasz()(right, t)<=.5/1024+1e-6
    assert abs(Lovasz()(-right, t)-Lovasz(None)(-right, t))<=.5/1024+1e-6

def test_focal_against_its_formula_and_smps_sigmoid_for_two_classes():
    z,t = batch()
    lp = F.log_softmax(z, 1).gather(1, t.clamp(max=5)[:,None])[:,0][t!=IGNORE]
    torch.testing.assert_close(Focal(3)(z, t), (-(1-lp.exp())**3*lp).mean())
    same(value_grad(Focal(gamma=0, weight=[1,2,3,4,5,6]), z, t), value_grad(CrossEntropy([1,2,3,4,5,6]), z, t))
    smp = pytest.importorskip('segmentation_models_pytorch').losses
    z,t = batch(2)
    theirs = smp.FocalLoss('binary', gamma=2., ignore_index=IGNORE)
    same(value_grad(Focal(), z, t), value_grad(lambda z,t: theirs(z[:,1]-z[:,0], t), z, t))

def test_focal_with_small_gamma_stays_finite():
    z,t = batch(scale=50.)
    v,g = value_grad(Focal(gamma=.5), z, t)
    assert v.isfinite() and g.isfinite().all()

@pytest.mark.parametrize('text', ALL)
def test_all_void_is_zero_without_nan(text):
    z,t = batch()
    v,g = value_grad(weighted(text, [1]*6), z, torch.full_like(t, IGNORE))
    assert v==0 and (g==0).all()

# Each loss written out in plain PyTorch, one class of one image after the other

def slow_overlaps(z, t, per_image, absent, smooth, alpha, beta, cost):
    p,c,costs = z.softmax(1),z.shape[1],[]
    for images in ([[i] for i in range(len(z))] if per_image else [list(range(len(z)))]):
        labelled = torch.cat([t[i].reshape(-1) for i in images])!=IGNORE
        if not labelled.any(): continue
        truth = torch.cat([t[i].reshape(-1) for i in images])[labelled]
        for k in range(c):
            pk,gk = torch.cat([p[i,k].reshape(-1) for i in images])[labelled],(truth==k).to(p.dtype)
            if gk.sum()==0 and absent=='skip': continue
            tp,fp,fn = (pk*gk).sum(),(pk*(1-gk)).sum(),((1-pk)*gk).sum()
            costs.append(cost((tp+smooth)/(tp+alpha*fp+beta*fn+smooth)))
    return torch.stack(costs).mean()

def slow_ohem(z, t, threshold, least):
    losses = F.cross_entropy(z, t, ignore_index=IGNORE, reduction='none')[t!=IGNORE].sort(descending=True).values
    hard = losses[losses>-math.log(threshold)]
    return (hard if len(hard)>=least else losses[:least]).mean()

def slow_boundary(z, t, width):
    edt = pytest.importorskip('scipy.ndimage').distance_transform_edt
    cost = torch.zeros_like(z)
    for i,truth in enumerate(t.numpy()):
        far = np.stack([edt(truth!=k) if (truth==k).any() else np.full(truth.shape, np.inf) for k in range(z.shape[1])])
        for y,x in zip(*np.nonzero(truth!=IGNORE)):
            own = truth[y,x]
            deep = min(np.delete(far[:,y,x], own).min()-1, width)
            cost[i,:,y,x] = torch.tensor([0 if k==own else (min(far[k,y,x], width)+deep)/width for k in range(z.shape[1])])
    return (z.softmax(1)*cost).sum()/(t!=IGNORE).sum()

one_minus = lambda o: 1-o
SLOW = {
    'dice': lambda z,t: slow_overlaps(z, t, False, 'skip', 0, .5, .5, one_minus),
    'dice(log=True)': lambda z,t: slow_overlaps(z, t, False, 'skip', 0, .5, .5, lambda o: -o.log()),
    'dice(smooth=1)': lambda z,t: slow_overlaps(z, t, False, 'skip', 1, .5, .5, one_minus),
    'dice(absent=count)': lambda z,t: slow_overlaps(z, t, False, 'count', 1, .5, .5, one_minus),
    'jaccard(per_image=True)': lambda z,t: slow_overlaps(z, t, True, 'skip', 0, 1, 1, one_minus),
    'jaccard(per_image=True, absent=count)': lambda z,t: slow_overlaps(z, t, True, 'count', 1, 1, 1, one_minus),
    'jaccard(per_image=True, absent=count, log=True)': lambda z,t: slow_overlaps(z, t, True, 'count', 1, 1, 1, lambda o: -o.log()),
    'tversky': lambda z,t: slow_overlaps(z, t, False, 'skip', 0, .3, .7, one_minus),
    'tversky(gamma=.75, per_image=True)': lambda z,t: slow_overlaps(z, t, True, 'skip', 0, .3, .7, lambda o: (1-o)**.75),
    'tversky(alpha=.9, beta=.1, gamma=2, absent=count, smooth=3)': lambda z,t: slow_overlaps(z, t, False, 'count', 3, .9, .1, lambda o: (1-o)**2),
    'ohem': lambda z,t: slow_ohem(z, t, .7, 0),
    'ohem(threshold=.05, min_kept=.5)': lambda z,t: slow_ohem(z, t, .05, math.ceil(.5*(t!=IGNORE).sum())),
    'ohem(threshold=.05, min_kept=100)': lambda z,t: slow_ohem(z, t, .05, 300),
    'ohem(threshold=.05, min_kept=1000000)': lambda z,t: slow_ohem(z, t, .05, 10**6),
    'boundary(width=4)': lambda z,t: slow_boundary(z, t, 4),
    'boundary(width=2.5)': lambda z,t: slow_boundary(z, t, 2.5),
    'boundary(width=200)': lambda z,t: slow_boundary(z, t, 200),
    'focal(gamma=1.5) + .5*boundary': lambda z,t: Focal(1.5)(z, t)+.5*slow_boundary(z, t, 20),
}

@pytest.mark.parametrize('layout', LAYOUTS)
@pytest.mark.parametrize('text', SLOW)
def test_values_and_gradients_are_the_slow_ones(text, layout):
    z,t = batch(used=4)
    t[2][t[2]==1] = IGNORE # a class that one image lacks
    t[0,4:14,4:20] = 3; t[1,:,15:] = 2 # regions with an inside
    same(value_grad(seg_loss(text), z.contiguous(memory_format=layout), t), value_grad(SLOW[text], z, t))

@pytest.mark.parametrize('used', [None, 4])
@pytest.mark.parametrize('name,mine', [('TverskyLoss', Tversky(.2, .8)), ('DiceLoss', SoftDice(log=True)), ('DiceLoss', SoftDice(smooth=2))])
def test_smps_tversky_logarithm_and_smoothing(name, mine, used):
    smp = pytest.importorskip('segmentation_models_pytorch').losses
    z,t = batch(used=used)
    options = dict(alpha=.2, beta=.8) if name=='TverskyLoss' else dict(log_loss=getattr(mine, 'log', False), smooth=mine.smooth)
    theirs = getattr(smp, name)('multiclass', ignore_index=IGNORE, **options)
    same(value_grad(mine, z, t), [v*z.shape[1]/(used or z.shape[1]) for v in value_grad(theirs, z, t)]) # there absent classes count as solved

@pytest.mark.parametrize('per_image', [False, True])
@pytest.mark.parametrize('void', [0, .2])
def test_monais_dice_jaccard_tversky_and_focal(per_image, void):
    monai = pytest.importorskip('monai.losses', reason='MONAI is not installed')
    z,t = batch(used=4, void=void)
    both = dict(softmax=True, to_onehot_y=True, batch=not per_image, smooth_nr=1, smooth_dr=1)
    given,ignore = dict(per_image=per_image, absent='count'),(dict(ignore_index=IGNORE) if void else {})
    theirs = lambda name, **o: value_grad(lambda z,t: getattr(monai, name)(**o, **ignore)(z, t[:,None]), z, t)
    same(value_grad(SoftDice(smooth=.5, **given), z, t), theirs('DiceLoss', **both))
    same(value_grad(SoftJaccard(smooth=.5, **given), z, t), theirs('DiceLoss', jaccard=True, **both))
    same(value_grad(Tversky(.2, .8, smooth=1., **given), z, t), theirs('TverskyLoss', alpha=.2, beta=.8, **both))
    factor = 1 if void else z.shape[1] # it divides by pixels with ignore_index, by pixels times classes without
    same(value_grad(Focal(2), z, t), [v*factor for v in theirs('FocalLoss', use_softmax=True, to_onehot_y=True)])

def test_what_the_page_says_of_other_libraries():
    "Should one of them change its mind, the table of the page is out of date"
    from fastai.losses import CrossEntropyLossFlat, DiceLoss, FocalLoss
    smp = pytest.importorskip('segmentation_models_pytorch').losses
    z,t = batch(4, shape=(2,32,32), void=0); t[:,:8] = IGNORE
    dirty = z.clone(); dirty[:,:,:8] = math.nan
    theirs = {k: getattr(smp, k)('multiclass', ignore_index=IGNORE) for k in ('DiceLoss','JaccardLoss','TverskyLoss','FocalLoss')}
    assert [theirs[k](dirty, t).isnan().item() for k in theirs]==[True,True,True,False]
    assert [theirs[k](z, torch.full_like(t, IGNORE)).item()==0 for k in theirs]==[True,True,True,False]
    assert CrossEntropyLossFlat(axis=1, ignore_index=IGNORE)(z, torch.full_like(t, IGNORE)).isnan()
    assert DiceLoss()(100*F.one_hot(t.clamp(max=3), 4).movedim(-1, 1).float(), t)>.1 # perfect but for void
    with pytest.raises((IndexError, RuntimeError)): FocalLoss()(z, t)
    z,t = batch(4, shape=(1,512,512), void=0)
    assert all(theirs[k](z.half(), t).isnan() for k in ('DiceLoss','JaccardLoss','TverskyLoss')) and DiceLoss()(z.half(), t)!=DiceLoss()(z, t)
    one = torch.zeros(1,3,4,4); one[:,0] = 5; truth = torch.zeros(1,4,4, dtype=torch.long) # two classes absent, with a trace of probability
    assert theirs['DiceLoss'](one, truth)*3==pytest.approx(SoftDice()(one, truth).item(), rel=1e-3)
    assert DiceLoss()(one, truth)>2 and SoftDice(absent='count')(one, truth)<.05

def mmseg_kept(z, t, thresh, min_kept): # the rule of mmsegmentation's OHEMPixelSampler, written out
    n,valid = min_kept*len(t),t!=IGNORE
    prob = z.softmax(1).gather(1, t.masked_fill(~valid, 0)[:,None])[:,0]
    ranked = prob[valid].sort().values
    return valid & (prob<max(ranked[min(n, len(ranked)-1)], thresh))

@pytest.mark.parametrize('thresh', [.05, .3, .7])
@pytest.mark.parametrize('min_kept', [1, 60, 400])
def test_ohem_keeps_mmsegmentations_pixels(thresh, min_kept):
    z,t = batch()
    want = mmseg_kept(z, t, thresh, min_kept)
    assert torch.equal(OhemCrossEntropy(thresh, min_kept).keep(summarize(z, t)).view_as(t), want)
    assert want.sum()<(t!=IGNORE).sum()

def test_ohem_with_ties_and_weights():
    z,t = torch.zeros(1,2,2,3),torch.tensor([[[0,0,1],[1,IGNORE,IGNORE]]])
    v,g = value_grad(OhemCrossEntropy(.3, .5), z, t) # all are as hard as the hardest
    same((v, g), value_grad(CrossEntropy(), z, t))
    z,t = batch()
    w = [1,2,3,4,5,6]
    same(value_grad(OhemCrossEntropy(1., weight=w), z, t), value_grad(CrossEntropy(w), z, t))

def test_boundary_is_the_published_one_where_all_classes_are_near():
    "Signed distances as the authors compute them, and the constant that makes a perfect answer 0"
    edt = pytest.importorskip('scipy.ndimage').distance_transform_edt
    t = torch.zeros(2,24,30, dtype=torch.long); t[:,5:15,6:20] = 1; t[0,10:,15:] = 2; t[1,:7,:9] = 2
    z = torch.randn(2,3,24,30, generator=torch.Generator().manual_seed(0))
    own = F.one_hot(t, 3).movedim(-1, 1)
    phi = torch.stack([torch.stack([torch.from_numpy(edt(~g)*~g-(edt(g)-1)*g) for g in image]) for image in own.bool().numpy()])
    published = lambda z,t: (z.softmax(1)*phi).sum(1).mean()-(own*phi).sum(1).mean()
    same(value_grad(BoundaryLoss(100), z, t), [v/100 for v in value_grad(published, z, t)])

@pytest.mark.parametrize('size', [(1,1), (1,9), (9,1), (7,64), (40,33)])
def test_boundary_on_any_size(size):
    t = torch.randint(0, 3, (2,*size), generator=torch.Generator().manual_seed(1))
    z = torch.randn(2, 4, *size, generator=torch.Generator().manual_seed(0))
    same(value_grad(BoundaryLoss(3), z, t), value_grad(lambda z,t: slow_boundary(z, t, 3), z, t))

def test_void_is_no_border():
    t = torch.zeros(1,9,9, dtype=torch.long); t[:,:,4] = IGNORE
    z = batch(3, shape=(1,9,9))[0]
    everywhere = (2*(1-z.softmax(1)[:,0]))[t==0].mean() # nothing but class 0: each mistake is a width off and a width deep
    torch.testing.assert_close(BoundaryLoss(3)(z, t), everywhere)

@pytest.mark.parametrize('text', ALL)
def test_even_nan_under_void_goes_no_further(text):
    z,t = batch()
    dirty = z.clone(); dirty.movedim(1, -1)[t==IGNORE] = math.nan
    mine = value_grad(seg_loss(text), dirty, t)
    same(mine, value_grad(seg_loss(text), z, t))
    assert (mine[1].movedim(1, -1)[t==IGNORE]==0).all()

@pytest.mark.parametrize('text', [t for t in ALL if 'None' not in t]) # the sorted reference is slow at this size
@pytest.mark.parametrize('dtype,top', [(torch.float16, 60000), (torch.bfloat16, 1e30)])
def test_logits_at_the_end_of_the_range(text, dtype, top):
    t = batch(3, shape=(1,512,512))[1]
    z = (top*torch.randn(1, 3, 512, 512, generator=torch.Generator().manual_seed(0)).clamp(-1, 1)).to(dtype)
    v,g = value_grad(seg_loss(text), z, t)
    assert v.isfinite() and v>0 and g.isfinite().all()

SLOW_ONCE = [(t, layout) for t in ALL for layout in LAYOUTS if 'None' not in t or layout is not torch.channels_last] # the sorted reference

@pytest.mark.parametrize('text,layout', SLOW_ONCE)
@pytest.mark.parametrize('dtype', [torch.float16, torch.bfloat16])
def test_half_precision_at_512_is_finite_and_right(text, dtype, layout):
    "fastai's DiceLoss says nan here: a sum over 262144 pixels does not fit 65504"
    z,t = batch(3, shape=(1,512,512), scale=20., dtype=dtype)
    z = z.contiguous(memory_format=layout)
    loss = seg_loss(text)
    with torch.autocast('cpu', dtype=torch.bfloat16): v,g = value_grad(loss, z, t)
    assert v.dtype==torch.float32 and g.dtype==dtype and g.isfinite().all() and g.abs().sum()>0
    torch.testing.assert_close(v, loss(z.float(), t))

def test_scaled_gradients_reach_float16():
    "What a GradScaler does"
    z,t = batch(dtype=torch.float16)
    z.requires_grad_()
    (2.**12*seg_loss('ce + dice + lovasz')(z, t)).backward()
    assert z.grad.isfinite().all() and z.grad.abs().max()>0

@pytest.mark.parametrize('dtype', [torch.uint8, torch.int16, torch.int32, torch.int64])
def test_targets_of_any_type_are_left_alone(dtype):
    z,t = batch()
    t = t.to(dtype); before = t.clone()
    torch.testing.assert_close(seg_loss('ce + dice')(z, t), seg_loss('ce + dice')(z, before.long()))
    assert torch.equal(t, before)

@pytest.mark.parametrize('dtype', [torch.bool, torch.uint16])
def test_targets_that_torch_cannot_count(dtype):
    z,t = batch(void=0)
    t,aux = (t>2).to(dtype),torch.randn(3,6,10,15)
    torch.testing.assert_close(seg_loss('ce + lovasz')((z, aux), t), seg_loss('ce + lovasz')((z, aux), t.long()))

@pytest.mark.parametrize('bad', [6, 254, 256, -1, -100])
def test_impossible_targets_are_refused(bad):
    z,t = batch()
    t[1,2,3] = bad
    with pytest.raises(MaskError, match=f'holds {bad},.*6 outputs'): CrossEntropy()(z, t)

def test_wrong_shapes_are_refused():
    z,t = batch()
    for x,y in ((z, t[:,1:]), (z, t[:,None]), ((), t), (z[0], t[0]), (z, t.float())):
        with pytest.raises(TrainError): CrossEntropy()(x, y)
    with pytest.raises(TrainError, match='2 class weights for 6'): CrossEntropy([1,2])(z, t)

def test_odd_memory_layouts():
    z,t = batch()
    strided = torch.randn(3,6,20,60)[...,::2]
    for x in (strided, z.transpose(2,3).contiguous().transpose(2,3), z[:,:,:1,:1], torch.randn(3,12,20,30)[:,:6]):
        y = t[:,:x.shape[2],:x.shape[3]]
        same(value_grad(seg_loss('ce + lovasz'), x, y), value_grad(seg_loss('ce + lovasz'), x.contiguous(), y))

def test_fastai_tensors():
    from fastai.vision.core import TensorImage, TensorMask
    z,t = batch()
    for text in ALL:
        v = seg_loss(text)(TensorImage(z), TensorMask(t))
        assert type(v) is torch.Tensor
        torch.testing.assert_close(v, seg_loss(text)(z, t))

@pytest.mark.parametrize('text', ALL)
def test_one_value_per_image(text):
    z,t = batch()
    t[1] = IGNORE
    loss = seg_loss(text)
    loss.reduction = 'none'
    res = loss(z, t)
    assert res.shape==(3,) and res[1]==0
    torch.testing.assert_close(res[2], seg_loss(text)(z[2:], t[2:]))

@pytest.mark.parametrize('text,factors', [('ce', None), (' 2 * ce ', [2]), ('ce+dice', [1,1]), ('focal + 40*dice', [1,40]), ('.5*ce(label_smoothing=1e-1) + 1e+1*lovasz(bins=256)', [.5,10])])
def test_texts(text, factors):
    loss = seg_loss(text)
    assert getattr(loss, 'factors', None)==factors

@pytest.mark.parametrize('text', ['', 'ce +', '+ ce', 'ce dice', 'ce - dice', '2ce', '-1*ce', 'ce*2', 'ce(1)', 'ce(label_smoothing)', 'ce(smoothing=.1)', 'dice(gamma=2)', 'lovasz(bins=1)', 'ce(label_smoothing=2)',
                                  'focal(gamma=-1)', 'dice(absent=zero)', 'dice(absent=1)', 'jaccard(absent=count, smooth=0)', 'dice(smooth=-1)', 'tversky(alpha=0, beta=0)', 'tversky(gamma=0)', 'ohem(threshold=0)', 'ohem(min_kept=-1)', 'boundary(width=.5)', 'boundary(width=5) + boundary',
                                  'focal(gamma=__import__("os"))', 'lovasz(bins=64) + lovasz(bins=128)', 'ce; import os', None, 3, ['ce','dice']])
def test_bad_texts_are_refused_in_words(text):
    with pytest.raises(TrainError): seg_loss(text)

def test_auxiliary_outputs():
    z,t = batch()
    torch.testing.assert_close(seg_loss('ce')((z,), t), seg_loss('ce')(z, t))
    half,third = torch.randn(3,6,10,15),torch.randn(3,6,7,10)
    loss = seg_loss('ce + dice', aux_weight=.5)
    def near(h, w): return torch.stack([torch.stack([t[:,int((y+.5)*20/h),int((x+.5)*30/w)] for x in range(w)], 1) for y in range(h)], 1)
    want = loss(z, t)+.5*(loss(half, near(10,15))+loss(third, near(7,10)))/2
    torch.testing.assert_close(loss((z, half, third), t), want)
    torch.testing.assert_close(loss([z, half, third], t.byte()), want)
    assert seg_loss('ce').aux_weight==.4 and (near(10,15)==IGNORE).any()
    loss.reduction = 'none'
    torch.testing.assert_close(loss((z, half), t)[1], seg_loss('ce + dice', aux_weight=.5)((z[1:2], half[1:2]), t[1:2]))

def test_arithmetic_keeps_the_weight_of_auxiliary_outputs():
    z,t = batch()
    aux = torch.randn(3,6,10,15)
    a,b = seg_loss('ce', aux_weight=.1),seg_loss('dice', aux_weight=.1)
    torch.testing.assert_close((2*a+b)((z, aux), t), 2*a((z, aux), t)+b((z, aux), t))
    assert (3*seg_loss('ce + dice', aux_weight=0)).aux_weight==0
    with pytest.raises(TrainError, match='aux_weight=0.1 and aux_weight=0.4'): a+seg_loss('dice')
    with pytest.raises(TrainError, match='class_weights with a loss that is no text'): dls_loss(None, F.cross_entropy, [1,2])

def test_gradients_reach_auxiliary_outputs_but_not_at_void():
    z,t = batch()
    aux = torch.randn(3,6,10,15, requires_grad=True)
    seg_loss('ce + jaccard')((z, aux), torch.full_like(t, IGNORE)).backward()
    assert (aux.grad==0).all()
    seg_loss('ce + jaccard')((z, aux), t).backward()
    assert aux.grad.abs().sum()>0

def test_weights_move_with_the_loss():
    loss = nn.Sequential(seg_loss('ce + ohem', weight=[1,2,3])).to('meta')
    assert all(o.weight.device.type=='meta' for o in loss[0].parts)

def test_class_weights_by_name_and_by_number():
    from types import SimpleNamespace
    from drone_seg.classes import ClassTable
    dls = SimpleNamespace(classes=ClassTable(['lawn','void','dog'], void=[1]), pixel_counts=[[900,100]])
    torch.testing.assert_close(dls_loss(dls, 'ce', {'dog':3, 'lawn':1}).weight, torch.tensor([1.,3]))
    torch.testing.assert_close(dls_loss(dls, 'ce', [2,1]).weight, torch.tensor([2.,1]))
    torch.testing.assert_close(dls_loss(dls, 'ce', 'median_freq(cap=2)').weight, torch.tensor([.5/.9,2]))
    assert dls_loss(dls, 'ce').weight is None and dls_loss(None, F.cross_entropy) is F.cross_entropy
    for wrong in ({'dog':3}, {'dog':3, 'cat':1, 'lawn':1}, 'inverse', 'median_freq(', 'median_freq(cup=2)', 'median_freq(cap=0)'):
        with pytest.raises(ValueError): dls_loss(dls, 'ce', wrong)
    with pytest.raises(TrainError, match="no class weight for 'lawn'"): dls_loss(dls, 'ce', {'dog':3})
    with pytest.raises(TrainError, match="weights for 'cat', which is no scored class"): dls_loss(dls, 'ce', {'dog':3, 'cat':1, 'lawn':1})
    with pytest.raises(TrainError, match='no text'): dls_loss(dls, F.cross_entropy, 'median_freq')

def test_a_learner_weighs_classes_by_its_training_photos(tmp_path, monkeypatch):
    from drone_seg.data.datasets import open_dataset
    from drone_seg.data.weights import frequency_weights
    from drone_seg.scenes.scene import write_scenes
    from drone_seg.train.learner import unet_learner
    monkeypatch.setenv('DRONE_SEG_CACHE', str(tmp_path/'cache'))
    write_scenes(tmp_path/'scenes', 6, size=(64,96), progress=False)
    data = open_dataset(tmp_path/'scenes')
    split = data.split(by='random', valid=.5, progress=False)
    dls = data.dataloaders(split, size=(32,64), bs=2, device='cpu')
    learn = unet_learner(dls, 'resnet18', weights=None, loss_func='ce + dice', class_weights='median_freq(cap=3)')
    counts = [np.bincount(data.classes.encode(data[s][1]).reshape(-1), minlength=256)[:data.classes.n] for s in split.train]
    want = torch.tensor(frequency_weights(counts, cap=3), dtype=torch.float32)
    torch.testing.assert_close(learn.loss_func.parts[0].weight, want)
    assert want.max()==3 and want.min()<1
    with learn.no_bar(), learn.no_logging(): learn.fit(1)

@pytest.mark.parametrize('weights,says', [([1,2,3], '3 class weights for 2 classes'), ([1,math.nan], '0 or more'), ([1,-1], '0 or more'), (True, 'they are a list'), (['a','b'], 'they are numbers'), ({'dog':-3, 'lawn':1}, '0 or more')])
def test_impossible_class_weights_are_refused_before_training(weights, says):
    from types import SimpleNamespace
    from drone_seg.classes import ClassTable
    dls = SimpleNamespace(classes=ClassTable(['lawn','void','dog'], void=[1]), pixel_counts=[[900,100]])
    with pytest.raises(TrainError, match=says): dls_loss(dls, 'ce', weights)

def test_errors_in_words():
    z,t = batch()
    for make,says in ((lambda: Lovasz(3.5), 'bins=3.5; it is a whole number'), (lambda: Focal(weight=3), 'they are a list'), (lambda: seg_loss('focal(weight=3)'), "no option 'weight'"),
                      (lambda: seg_loss('ce(gamma=2)'), "loss 'ce' has no option 'gamma'.*it has label_smoothing$"), (lambda: seg_loss('ce')(z[:0], t[:0]), 'without a pixel')):
        with pytest.raises(TrainError, match=says): make()

def test_weights_reach_only_the_terms_that_take_them():
    z,t = batch()
    w = [1,2,3,4,5,6]
    torch.testing.assert_close(seg_loss('ce + dice', weight=w)(z, t), CrossEntropy(w)(z, t)+SoftDice()(z, t))
    assert 'weight' not in str(list(seg_loss('ce', weight=w).state_dict())) # weights are configuration, not state

def test_training_on_a_sum_learns():
    "A linear map of one-hot inputs finds the classes"
    torch.manual_seed(0)
    t = torch.randint(0, 4, (2,16,16)); x = F.one_hot(t, 4).movedim(-1, 1).float(); t[:,:3] = IGNORE
    for text in [*loss_names, 'ce + 2*dice + lovasz + boundary']:
        net = nn.Conv2d(4, 4, 1)
        opt = torch.optim.Adam(net.parameters(), lr=.1)
        for _ in range(60): opt.zero_grad(); seg_loss(text)(net(x), t).backward(); opt.step()
        assert (net(x).argmax(1)==t)[t!=IGNORE].all(), text

@pytest.mark.parametrize('text', ALL)
def test_a_learner_trains_shows_and_predicts(text):
    from fastai.vision.all import DataLoader, DataLoaders, Learner
    z,t = batch(3, shape=(5,8,8))
    dl = DataLoader(list(zip(z, t)), bs=2)
    learn = Learner(DataLoaders(dl, dl), nn.Conv2d(3, 3, 1), loss_func=seg_loss(text), cbs=[])
    before = learn.model.weight.detach().clone()
    with learn.no_bar(), learn.no_logging():
        learn.fit(1)
        probs,targs,decoded,losses = learn.get_preds(with_decoded=True, with_loss=True)
    torch.testing.assert_close(probs.sum(1), torch.ones(5,8,8))
    assert torch.equal(decoded, probs.argmax(1)) and losses.shape==(5,) and losses.isfinite().all()
    assert not torch.equal(before, learn.model.weight) and learn.model.weight.isfinite().all()
