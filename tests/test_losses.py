"Losses against PyTorch, segmentation_models_pytorch and finite differences, with void and in half precision"
import math, re
import pytest, torch, torch.nn.functional as F
from drone_seg.classes import IGNORE, ClassIdError
from drone_seg.train.losses import CrossEntropy, Focal, LossError, LossSum, Lovasz, SoftDice, SoftJaccard, loss_names, seg_loss, summarize

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
    import drone_seg.train.losses as m
    z,t = batch()
    for layout in LAYOUTS:
        x,whole = z.contiguous(memory_format=layout),None
        for step in (10**6, 7, 601):
            monkeypatch.setattr(m, '_step', step)
            res = value_grad(seg_loss('ce(label_smoothing=.1) + dice + lovasz'), x, t)
            whole = whole or res
            same(res, whole)

@pytest.mark.parametrize('text', ALL)
@pytest.mark.parametrize('layout', LAYOUTS)
def test_gradients_by_finite_differences(text, layout):
    if text.startswith('lovasz') and 'None' not in text or '+ lovasz' in text: text = text.replace('lovasz', 'lovasz(bins=None)') # a histogram is a staircase: compared with sorting below
    z,t = batch(4, used=3, shape=(2,5,7), dtype=torch.float64)
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
    z,t = batch(used=used, void=0) # its JaccardLoss has no void
    same(value_grad(SoftJaccard(), z, t), [v*c/present for v in value_grad(smp.JaccardLoss('multiclass'), z, t)])

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

@pytest.mark.parametrize('text', ALL)
@pytest.mark.parametrize('dtype', [torch.float16, torch.bfloat16])
@pytest.mark.parametrize('layout', LAYOUTS)
def test_half_precision_at_512_is_finite_and_right(text, dtype, layout):
    "fastai's DiceLoss says nan here: a sum over 262144 pixels does not fit 65504"
    if 'None' in text and layout is torch.channels_last: pytest.skip('the sorted reference is slow, and once is enough')
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

@pytest.mark.parametrize('bad', [6, 254, 256, -1, -100])
def test_impossible_targets_are_refused(bad):
    z,t = batch()
    t[1,2,3] = bad
    with pytest.raises(ClassIdError, match=f'holds {bad},.*6 outputs'): CrossEntropy()(z, t)

def test_wrong_shapes_are_refused():
    z,t = batch()
    for x,y in ((z, t[:,1:]), (z, t[:,None]), ((z,None), t), ((), t), (z[0], t[0]), (z, t.float())):
        with pytest.raises(LossError): CrossEntropy()(x, y)
    with pytest.raises(LossError, match='2 class weights for 6'): CrossEntropy([1,2])(z, t)

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

def test_one_value_per_image():
    z,t = batch()
    t[1] = IGNORE
    loss = seg_loss('ce + dice')
    loss.reduction = 'none'
    res = loss(z, t)
    assert res.shape==(3,) and res[1]==0
    torch.testing.assert_close(res[2], seg_loss('ce + dice')(z[2:], t[2:]))

@pytest.mark.parametrize('text,factors', [('ce', None), (' 2 * ce ', [2]), ('ce+dice', [1,1]), ('focal + 40*dice', [1,40]), ('.5*ce(label_smoothing=1e-1) + 1e+1*lovasz(bins=256)', [.5,10])])
def test_texts(text, factors):
    loss = seg_loss(text)
    assert getattr(loss, 'factors', None)==factors

@pytest.mark.parametrize('text', ['', 'ce +', '+ ce', 'ce dice', 'ce - dice', '2ce', '-1*ce', 'ce*2', 'ce(1)', 'ce(label_smoothing)', 'ce(smoothing=.1)', 'dice(gamma=2)', 'lovasz(bins=1)', 'ce(label_smoothing=2)',
                                  'focal(gamma=-1)', 'focal(gamma=__import__("os"))', 'lovasz(bins=64) + lovasz(bins=128)', 'ce; import os'])
def test_bad_texts_are_refused_in_words(text):
    with pytest.raises(LossError): seg_loss(text)

def test_weights_reach_only_the_terms_that_take_them():
    z,t = batch()
    w = [1,2,3,4,5,6]
    torch.testing.assert_close(seg_loss('ce + dice', weight=w)(z, t), CrossEntropy(w)(z, t)+SoftDice()(z, t))
    assert 'weight' not in str(list(seg_loss('ce', weight=w).state_dict())) # weights are configuration, not state

def test_training_on_a_sum_learns():
    "A linear map of one-hot inputs finds the classes"
    torch.manual_seed(0)
    t = torch.randint(0, 4, (2,16,16)); x = F.one_hot(t, 4).movedim(-1, 1).float(); t[:,:3] = IGNORE
    for text in ALL:
        net = torch.nn.Conv2d(4, 4, 1)
        opt = torch.optim.Adam(net.parameters(), lr=.1)
        for _ in range(60): opt.zero_grad(); seg_loss(text)(net(x), t).backward(); opt.step()
        assert (net(x).argmax(1)==t)[t!=IGNORE].all(), text

def test_a_learner_shows_and_predicts():
    from fastai.vision.all import DataLoader, DataLoaders, Learner
    z,t = batch(3, shape=(5,8,8))
    dl = DataLoader(list(zip(z, t)), bs=2)
    learn = Learner(DataLoaders(dl, dl), torch.nn.Conv2d(3, 3, 1), loss_func=seg_loss('ce + dice'), cbs=[])
    with learn.no_bar(), learn.no_logging():
        learn.fit(1)
        probs,targs,decoded,losses = learn.get_preds(with_decoded=True, with_loss=True)
    torch.testing.assert_close(probs.sum(1), torch.ones(5,8,8))
    assert torch.equal(decoded, probs.argmax(1)) and losses.shape==(5,)
