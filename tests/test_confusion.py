"Counts against a loop over pixels; scores against scikit-learn and torchmetrics, on random masks with void"
import json, math
import numpy as np, pytest, torch
from drone_seg.fields import MaskError, DroneSegError
from drone_seg.classes import IGNORE
from drone_seg.scores.confusion import Confusion, Scores, class_scores, count, count_images

def random_pair(n, shape=(3,17,23), seed=0, void=.2, used=None):
    "Predictions and targets with void; classes from `used` on never occur"
    rng = np.random.default_rng(seed)
    target = rng.integers(0, used or n, shape).astype(np.uint8)
    pred = np.where(rng.random(shape)<.6, target, rng.integers(0, used or n, shape)).astype(np.uint8)
    target[rng.random(shape)<void] = IGNORE
    return pred, target

def count_slowly(pred, target, n):
    res = np.zeros((n,n), dtype=np.int64)
    for p,t in zip(np.ravel(pred), np.ravel(target)):
        if t!=IGNORE: res[t,p] += 1
    return res

@pytest.mark.parametrize('n', [1, 2, 24, 180, 181, 255])
def test_equals_a_loop_over_pixels(n):
    pred,target = random_pair(n)
    res = count_images(pred, target, n)
    assert res.dtype==np.int64 and res.shape==(3,n,n)
    for m,p,t in zip(res, pred, target): np.testing.assert_array_equal(m, count_slowly(p, t, n))
    np.testing.assert_array_equal(count(pred, target, n), res.sum(0))

@pytest.mark.parametrize('dtype', [torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64, torch.uint16])
def test_any_integer_type_and_layout(dtype):
    pred,target = random_pair(5)
    pred[target==IGNORE] = 0
    expected = count_slowly(pred, target, 5)
    t = torch.from_numpy(target.astype(np.int64))
    p = torch.from_numpy(pred).to(dtype)
    assert torch.equal(count(p, t, 5), torch.from_numpy(expected))
    assert torch.equal(count(p.transpose(1,2), t.transpose(1,2), 5), torch.from_numpy(expected))
    np.testing.assert_array_equal(count(pred[:,::-1], target[:,::-1].astype(np.uint16), 5), expected)

def test_tensor_subclasses_and_empty_batches():
    from fastai.vision.core import TensorMask
    pred,target = random_pair(4)
    res = count_images(TensorMask(torch.from_numpy(pred)), TensorMask(torch.from_numpy(target)), 4)
    assert type(res) is torch.Tensor and res.sum()==(target!=IGNORE).sum()
    assert count_images(pred[:0], target[:0], 4).shape==(0,4,4)
    assert count_images(pred[:,:0], target[:,:0], 4).sum()==0

def test_bool_masks():
    pred,target = random_pair(2, void=0)
    np.testing.assert_array_equal(count(pred.astype(bool), target.astype(bool), 2), count_slowly(pred, target, 2))

@pytest.mark.parametrize('bad,where', [(5,'pred'), (254,'pred'), (255,'pred'), (5,'target'), (254,'target'), (-1,'pred'), (-1,'target'), (256,'pred'), (511,'target'), (2**40,'target')])
@pytest.mark.parametrize('kind', ['array', 'tensor'])
def test_impossible_ids_are_refused(bad, where, kind):
    pair = dict(zip(('pred','target'), (o.astype(np.int64) for o in random_pair(5))))
    pair[where][1,2,3] = bad
    if kind=='tensor': pair = {k:torch.from_numpy(v) for k,v in pair.items()}
    with pytest.raises(MaskError, match=f'{where}.* {bad}'): count_images(**pair, n=5)

@pytest.mark.parametrize('n', [3, 24, 200])
def test_the_way_for_accelerators_gives_the_same(n):
    from drone_seg.scores.count import _at_once
    pred,target = random_pair(n)
    res = _at_once(torch.from_numpy(pred), torch.from_numpy(target), n).view(-1, n+1, n)[:,1:]
    np.testing.assert_array_equal(res, count_images(pred, target, n))

def test_shapes_must_agree():
    with pytest.raises(DroneSegError, match='shape'): count(np.zeros((4,5), np.uint8), np.zeros((5,4), np.uint8), 3)
    with pytest.raises(MaskError, match='n=256'): count(np.zeros((4,5), np.uint8), np.zeros((4,5), np.uint8), 256)
    with pytest.raises(ValueError): count_images(np.zeros((2,5), np.uint8), np.zeros((3,5), np.uint8), 3)

def test_a_full_size_photo_is_counted_exactly():
    "6000x4000 pixels are more than float32 can count one by one"
    truth = np.zeros((4000,6001), dtype=np.uint8)
    assert count(truth, truth, 2)[0,0]==4000*6001

def test_the_naive_way_calls_void_wrong():
    "What happens without removing void: a perfect prediction of the labelled pixels looks bad"
    pred,target = random_pair(3, void=.5)
    perfect = np.where(target==IGNORE, pred, target)
    assert Confusion(3).add(perfect, target).scores().miou==1
    assert (perfect==target).mean()<.6

@pytest.mark.parametrize('seed', range(3))
@pytest.mark.parametrize('used', [None, 4])
def test_equal_to_sklearn(seed, used):
    sk = pytest.importorskip('sklearn.metrics')
    n = 6
    pred,target = random_pair(n, seed=seed, used=used)
    s = Confusion(n).add(pred, target).scores(empty=0)
    keep = target!=IGNORE
    p,t,labels = pred[keep],target[keep],list(range(n))
    np.testing.assert_array_equal(s.matrix, sk.confusion_matrix(t, p, labels=labels))
    opts = dict(average=None, labels=labels, zero_division=0)
    for mine,theirs in ((s.iou, sk.jaccard_score), (s.dice, sk.f1_score), (s.precision, sk.precision_score), (s.recall, sk.recall_score)):
        np.testing.assert_allclose(mine, theirs(t, p, **opts), rtol=0, atol=1e-9)
    assert math.isclose(s.pixel_accuracy, sk.accuracy_score(t, p), abs_tol=1e-9)
    assert math.isclose(s.kappa, sk.cohen_kappa_score(t, p), abs_tol=1e-9)
    assert math.isclose(s.fw_iou, sk.jaccard_score(t, p, average='weighted', labels=labels, zero_division=0), abs_tol=1e-9)
    present = Scores(s.matrix) # 'nan': over the classes that occur, which is what scikit-learn does without labels
    assert math.isclose(present.miou, sk.jaccard_score(t, p, average='macro'), abs_tol=1e-9)
    assert math.isclose(present.macro_dice, sk.f1_score(t, p, average='macro'), abs_tol=1e-9)

@pytest.mark.parametrize('used', [None, 4])
def test_equal_to_torchmetrics(used):
    tm = pytest.importorskip('torchmetrics.functional.classification')
    n = 6
    pred,target = (torch.from_numpy(o).long() for o in random_pair(n, used=used))
    s = Confusion(n).add(pred, target).scores()
    opts = dict(num_classes=n, ignore_index=IGNORE)
    np.testing.assert_array_equal(s.matrix, tm.multiclass_confusion_matrix(pred, target, **opts))
    tol = 3e-7 # torchmetrics divides in float32
    present = ~np.isnan(s.iou)
    for mine,f in ((s.iou, tm.multiclass_jaccard_index), (s.dice, tm.multiclass_f1_score), (s.precision, tm.multiclass_precision), (s.recall, tm.multiclass_recall)):
        np.testing.assert_allclose(mine[present], f(pred, target, average='none', **opts).numpy()[present], rtol=0, atol=tol)
    assert math.isclose(s.miou, tm.multiclass_jaccard_index(pred, target, average='macro', **opts), abs_tol=tol)
    assert math.isclose(s.macro_dice, tm.multiclass_f1_score(pred, target, average='macro', **opts), abs_tol=tol)
    assert math.isclose(s.pixel_accuracy, tm.multiclass_accuracy(pred, target, average='micro', **opts), abs_tol=tol)
    assert math.isclose(s.kappa, tm.multiclass_cohen_kappa(pred, target, **opts), abs_tol=tol)

@pytest.mark.parametrize('used', [None, 4])
def test_equal_to_torchmetrics_to_1e9_once_it_divides_in_double(used, monkeypatch, request):
    "Its formulas, without the rounding of its float32 divisions"
    tm = pytest.importorskip('torchmetrics.functional.classification')
    monkeypatch.setattr(torch.Tensor, 'float', torch.Tensor.double)
    before = torch.get_default_dtype()
    request.addfinalizer(lambda: torch.set_default_dtype(before))
    torch.set_default_dtype(torch.float64)
    n = 6
    pred,target = (torch.from_numpy(o).long() for o in random_pair(n, used=used))
    s = Confusion(n).add(pred, target).scores()
    opts,same = dict(num_classes=n, ignore_index=IGNORE),lambda a,b: math.isclose(a, b, abs_tol=1e-9)
    assert same(s.miou, tm.multiclass_jaccard_index(pred, target, average='macro', **opts))
    assert same(s.micro_iou, tm.multiclass_jaccard_index(pred, target, average='micro', **opts))
    assert same(s.macro_dice, tm.multiclass_f1_score(pred, target, average='macro', **opts))
    assert same(s.micro_dice, tm.multiclass_f1_score(pred, target, average='micro', **opts))
    assert same(s.pixel_accuracy, tm.multiclass_accuracy(pred, target, average='micro', **opts))
    assert same(s.kappa, tm.multiclass_cohen_kappa(pred, target, **opts))
    present = ~np.isnan(s.iou)
    for mine,f in ((s.iou, tm.multiclass_jaccard_index), (s.dice, tm.multiclass_f1_score), (s.precision, tm.multiclass_precision), (s.recall, tm.multiclass_recall)):
        np.testing.assert_allclose(mine[present], f(pred, target, average='none', **opts).numpy()[present], rtol=0, atol=1e-9)

def mmseg(pred, target, n, ignore=IGNORE):
    "The formulas of mmsegmentation's IoUMetric, in double: histograms of labelled pixels, 0/0 is NaN, means leave NaN out"
    keep = target!=ignore
    p,t = pred[keep],target[keep]
    hist = lambda o: np.array([(o==c).sum() for c in range(n)], dtype=float)
    hit,said,true = hist(p[p==t]),hist(p),hist(t)
    with np.errstate(invalid='ignore'):
        precision,recall = hit/said,hit/true
        return dict(aAcc=hit.sum()/true.sum(), IoU=hit/(said+true-hit), Dice=2*hit/(said+true), Acc=recall, Precision=precision, Fscore=2*precision*recall/(precision+recall))

@pytest.mark.parametrize('seed', range(3))
@pytest.mark.parametrize('used', [None, 4])
def test_equal_to_mmsegmentation(seed, used):
    pred,target = random_pair(6, seed=seed, used=used)
    s,m = Confusion(6).add(pred, target).scores(),mmseg(pred, target, 6)
    np.testing.assert_allclose(s.iou, m['IoU'], rtol=0, atol=1e-9)
    np.testing.assert_allclose(s.dice, m['Dice'], rtol=0, atol=1e-9)
    for mine,theirs in ((s.miou, m['IoU']), (s.macro_dice, m['Dice']), (s.mean('recall'), m['Acc']), (s.mean('precision'), m['Precision']), (s.mean('dice'), m['Fscore'])):
        assert math.isclose(mine, np.nanmean(theirs), abs_tol=1e-9)
    assert math.isclose(s.pixel_accuracy, m['aAcc'], abs_tol=1e-9)

def test_where_mmsegmentation_differs():
    "A class missed altogether: no precision there, so its mFscore forgets the class, while its mDice and everything here count 0"
    pred,target = np.array([[0,0,1,1]]),np.array([[0,2,1,1]])
    s,m = Confusion(3).add(pred[None], target[None]).scores(),mmseg(pred, target, 3)
    assert s.dice[2]==m['Dice'][2]==0 and np.isnan(m['Fscore'][2]) and np.nanmean(m['Fscore'])>s.macro_dice
    assert s.precision[2]==0 and np.isnan(m['Precision'][2])

@pytest.mark.parametrize('seed', range(2))
def test_background_out_and_micro_against_sklearn(seed):
    sk = pytest.importorskip('sklearn.metrics')
    pred,target = random_pair(6, seed=seed)
    s = Confusion(6, list('abcdef')).add(pred, target).scores()
    keep = target!=IGNORE
    p,t,labels = pred[keep],target[keep],[1,2,3,5]
    out = s.without('a', 'e')
    for mine,f,average in ((out.miou, sk.jaccard_score, 'macro'), (out.macro_dice, sk.f1_score, 'macro'), (out.micro_iou, sk.jaccard_score, 'micro'), (out.micro_dice, sk.f1_score, 'micro')):
        assert math.isclose(mine, f(t, p, labels=labels, average=average), abs_tol=1e-9)
    assert math.isclose(out.fw_iou, sk.jaccard_score(t, p, labels=labels, average='weighted'), abs_tol=1e-9)
    rows = np.isin(t, labels)
    assert math.isclose(out.pixel_accuracy, sk.accuracy_score(t[rows], p[rows]), abs_tol=1e-9)
    assert math.isclose(out.kappa, sk.cohen_kappa_score(t[rows], p[rows]), abs_tol=1e-9)
    per_photo = [sk.jaccard_score(b[b!=IGNORE], a[b!=IGNORE], labels=labels, average='macro', zero_division=0) for a,b in zip(pred, target)]
    np.testing.assert_allclose(out.miou_per_image(), per_photo, rtol=0, atol=1e-9) # every class is in every photo here
    assert math.isclose(s.micro_dice, s.pixel_accuracy, abs_tol=1e-15) and s.kept.all()
    assert 'Without a, e' in out.definition and 'Without' not in s.definition and out.to_dict()['without']==['a','e']
    assert math.isclose(out.without(1).miou, s.iou[[2,3,5]].mean())
    with pytest.raises(DroneSegError, match='no class is left'): s.without(*'abcdef')

def test_batches_give_what_torchmetrics_collects():
    tm = pytest.importorskip('torchmetrics.classification')
    n,theirs = 5,tm.MulticlassJaccardIndex(5, ignore_index=IGNORE)
    g = torch.Generator().manual_seed(0)
    batches = [(torch.randint(0, n, (2,7,9), generator=g), torch.randint(0, n, (2,7,9), generator=g)) for _ in range(3)]
    whole,a,b = Confusion(n),Confusion(n).add(*batches[0]),Confusion(n)
    for z,t in batches:
        theirs.update(z, t)
        whole.add(z, t)
    for z,t in batches[1:]: b.add(z.numpy(), t.numpy())
    assert math.isclose(theirs.compute(), whole.scores().miou, abs_tol=1e-6)
    assert a.merge(b).scores().to_dict()==whole.scores().to_dict() and len(a)==6 and len(b)==4
    with pytest.raises(DroneSegError, match='same settings'): a.merge(Confusion(n+1))

def test_absent_in_truth_but_predicted_is_zero():
    tm = pytest.importorskip('torchmetrics.functional.classification')
    pred,target = torch.tensor([[0,1,2]]),torch.tensor([[0,1,1]])
    s = Confusion(4).add(pred, target).scores()
    np.testing.assert_array_equal(s.iou, [1, .5, 0, np.nan])
    assert s.recall[2]==0 and s.precision[2]==0 and s.pixels[2]==0
    assert math.isclose(s.miou, tm.multiclass_jaccard_index(pred, target, num_classes=4), abs_tol=1e-6)

def test_micro_dice_of_fastai_beyond_one_cannot_happen():
    "The multi-class mask on which fastai's binary Dice says 1.67"
    pred = np.array([[[0,1],[2,2]]])
    assert Scores(count_images(pred, pred, 3)).macro_dice==1
    for seed in range(5):
        v = class_scores(count_images(*random_pair(7, seed=seed), 7))
        assert all((np.nan_to_num(v[k])<=1).all() for k in ('iou','dice','precision','recall'))

def test_per_image_against_a_loop():
    sk = pytest.importorskip('sklearn.metrics')
    pred,target = random_pair(5, shape=(4,6,6), void=.4)
    target[2] = IGNORE # nothing is known about this image
    s = Confusion(5).add(pred, target).scores()
    for i,(p,t) in enumerate(zip(pred, target)):
        keep = t!=IGNORE
        if keep.any():
            assert math.isclose(s.miou_per_image()[i], sk.jaccard_score(t[keep], p[keep], average='macro', zero_division=0), abs_tol=1e-9)
            assert math.isclose(s.dice_per_image()[i], sk.f1_score(t[keep], p[keep], average='macro', zero_division=0), abs_tol=1e-9)
    assert np.isnan(s.miou_per_image()[2])

def test_empty_conventions():
    m = np.zeros((1,3,3), np.int64); m[0,0,0] = 10
    assert Scores(m).miou==1 and Scores(m, empty=1).miou==1 and Scores(m, empty=0).miou==1/3
    with pytest.raises(DroneSegError, match="it is one of 'nan', 0, 1"): Scores(m, empty='one')
    with pytest.raises(DroneSegError, match='2 names'): Scores(m, ['a','b'])
    with pytest.raises(DroneSegError, match='shape'): Scores(np.zeros((2,3)))

def test_kappa_without_disagreement_to_measure():
    assert math.isnan(Scores(np.diag([10,0])).kappa) # one class only: chance already agrees fully
    assert Scores(np.diag([10,5])).kappa==1

def test_void_is_counted_and_batches_do_not_matter():
    pred,target = random_pair(5, shape=(7,9,11))
    whole = Confusion(5).add(pred, target)
    parts = Confusion(5)
    for i in range(0, 7, 3): parts.add(torch.from_numpy(pred[i:i+3]).long(), torch.from_numpy(target[i:i+3]))
    np.testing.assert_array_equal(whole.matrices, parts.matrices)
    assert whole.void_pixels==parts.void_pixels==(target==IGNORE).sum()
    assert len(parts)==7 and len(parts.reset())==0 and parts.void_pixels==0

def test_a_refused_batch_leaves_the_counter_alone():
    pred,target = random_pair(5)
    c = Confusion(5).add(pred, target)
    with pytest.raises(MaskError): c.add(pred+9, target)
    assert len(c)==3

def test_json_and_tables():
    pred,target = random_pair(4, used=3)
    s = Confusion(4, ['a','b|c','d','e']).add(pred, target).scores()
    d = json.loads(json.dumps(s.to_dict(), allow_nan=False))
    assert {'miou','macro_dice','pixel_accuracy','per_class','photos','void_pixels','definition'} <= set(d)
    assert {'name','iou','dice','pixels'} <= set(d['per_class'][0])
    assert d['per_class'][3]['iou'] is None and d['photos']==3 and d['void_pixels']==int((target==IGNORE).sum())
    assert len(repr(s).splitlines())==7 and s.definition in repr(s)

def test_every_score_per_image_is_that_of_the_image_alone():
    pred,target = random_pair(5, shape=(4,6,6), void=.4)
    target[2] = IGNORE
    s = Confusion(5).add(pred, target).scores().without(1)
    alone = [Confusion(5).add(p, t).scores().without(1) for p,t in zip(pred, target)]
    for k in s.measures: np.testing.assert_array_equal(s.per_image(k), [getattr(o, k) for o in alone])
    np.testing.assert_array_equal(s.per_image('miou'), s.miou_per_image())
    for f in s.mean,s.per_image:
        with pytest.raises(DroneSegError, match="no 'f1' of each class; there are iou, dice"): f('f1')

def test_a_name_for_each_class():
    with pytest.raises(DroneSegError, match='2 names for 3 classes'): Confusion(3, ['lawn','roof'])
