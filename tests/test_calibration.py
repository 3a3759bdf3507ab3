"Calibration against a loop over pixels and torchmetrics, with void"
import json, math
import numpy as np, pytest, torch
from drone_seg.scores.calibration import Calibration, bin_sums, calibration_errors
from drone_seg.fields import MaskError, DroneSegError
from drone_seg.classes import IGNORE

def logits_and_truth(B=3, C=5, H=17, W=23, scale=2., void=.2, seed=0):
    g = torch.Generator().manual_seed(seed)
    z = scale*torch.randn(B, C, H, W, generator=g)
    t = torch.where(torch.rand(B,H,W, generator=g)<.6, z.argmax(1), torch.randint(0, C, (B,H,W), generator=g))
    t[torch.rand(B,H,W, generator=g)<void] = IGNORE
    return z,t

def slowly(z, t, bins, ignore=IGNORE):
    "Pixel by pixel; a bin holds its upper edge"
    table = np.zeros((bins,3))
    for b,y,x in np.ndindex(*t.shape):
        if t[b,y,x]==ignore: continue
        p = torch.softmax(z[b,:,y,x].float(), 0)
        k = next(k for k in range(bins) if p.max()<=np.float32((k+1)/bins) or k==bins-1)
        table[k] += 1,p.max().item(),p.argmax()==t[b,y,x]
    n,sure,right = table.T
    ece = sum(n[k]/n.sum()*abs(sure[k]/n[k]-right[k]/n[k]) for k in range(bins) if n[k])
    return n,ece,max(abs(sure[k]-right[k])/n[k] for k in range(bins) if n[k])

@pytest.mark.parametrize('bins', [1, 10, 15])
def test_equals_a_loop_over_pixels(bins):
    z,t = logits_and_truth()
    c = Calibration(bins).add_logits(z, t)
    n,ece,mce = slowly(z, t, bins)
    np.testing.assert_array_equal([r['pixels'] for r in c.table], n)
    assert math.isclose(c.ece, ece, abs_tol=1e-6) and math.isclose(c.mce, mce, abs_tol=1e-6)
    assert len(c)==3 and c.void_pixels==(t==IGNORE).sum()

@pytest.mark.parametrize('bins', [7, 10, 15])
@pytest.mark.parametrize('seed', range(3))
def test_equals_torchmetrics(bins, seed):
    f = pytest.importorskip('torchmetrics.functional.classification').multiclass_calibration_error
    z,t = logits_and_truth(seed=seed)
    c = Calibration(bins).add_logits(z, t)
    assert math.isclose(c.ece, f(z.double().softmax(1), t, num_classes=5, n_bins=bins, norm='l1', ignore_index=IGNORE), abs_tol=1e-6)
    assert math.isclose(c.mce, f(z.double().softmax(1), t, num_classes=5, n_bins=bins, norm='max', ignore_index=IGNORE), abs_tol=1e-6)

def test_where_torchmetrics_differs():
    "Its bins hold the lower edge, so a probability of 1 gets a bin of its own; the paper's last bin is (1-1/M, 1]"
    f = pytest.importorskip('torchmetrics.functional.classification').multiclass_calibration_error
    p = torch.tensor([[1.,0.], [.95,.05]]); t = torch.tensor([1,0]) # sure and wrong, nearly sure and right
    theirs = f(p, t, num_classes=2, n_bins=10)
    ours = Calibration(10).add(p.max(1).values, p.argmax(1)==t).ece
    assert math.isclose(theirs, .5*1+.5*.05, abs_tol=1e-6) and math.isclose(ours, abs(1.95-1)/2, abs_tol=1e-6)

def test_upper_edges_belong_to_their_bin():
    p = np.array([0, .25, .5, .75, 1, np.nextafter(np.float32(.5), np.float32(1))], dtype=np.float32)
    np.testing.assert_array_equal(bin_sums(p, np.ones(6, bool), 4)[0], [2,1,2,1])

def test_batches_types_and_merging_change_nothing():
    z,t = logits_and_truth(B=5)
    whole = Calibration().add_logits(z, t)
    parts = Calibration().add_logits(z[:2], t[:2].to(torch.uint8)).merge(Calibration().add_logits(z[2:], t[2:].int()))
    np.testing.assert_array_equal(whole.sums, parts.sums)
    p,answer = z.softmax(1).max(1)
    byhand = Calibration().add(p, answer==t, t!=IGNORE)
    np.testing.assert_array_equal(byhand.sums[:,[0,2]].sum((1,2)), whole.sums[:,[0,2]].sum((1,2)))
    assert math.isclose(byhand.ece, whole.ece, abs_tol=1e-6)
    with pytest.raises(DroneSegError, match='same settings'): whole.merge(Calibration(10))

@pytest.mark.parametrize('dtype', [torch.float16, torch.bfloat16])
def test_half_precision_logits_are_counted_in_float32(dtype):
    z,t = logits_and_truth(scale=6)
    c = Calibration().add_logits(z.to(dtype), t)
    assert c.ece==Calibration().add_logits(z.to(dtype).float(), t).ece

def test_huge_logits_and_one_class():
    z = torch.tensor([1e4,-1e4]).view(1,2,1,1).expand(1,2,4,4)
    t = torch.zeros(1,4,4, dtype=torch.long)
    assert Calibration().add_logits(z, t).ece==0 and Calibration().add_logits(z, t+1).ece==1
    assert Calibration().add_logits(z[:,:1], t).ece==0

def test_the_naive_way_counts_void():
    "A perfectly calibrated network looks bad as soon as void pixels count as wrong"
    p,right,valid = np.full(1000, .8),np.arange(1000)%5>0,np.arange(1000)<500
    right[500:] = False
    assert Calibration().add(p, right).ece>.3 and Calibration().add(p, right, valid).ece<1e-6

def test_nothing_and_bad_values():
    z,t = logits_and_truth()
    c = Calibration().add_logits(z, torch.full_like(t, IGNORE))
    assert math.isnan(c.ece) and math.isnan(c.mce) and c.void_pixels==t.numel()
    d = json.loads(json.dumps(c.to_dict(), allow_nan=False))
    assert d['ece'] is None and len(d['bins'])==15 and d['bins'][0]['pixels']==0
    assert math.isnan(Calibration().ece) and len(Calibration().reset())==0
    with pytest.raises(DroneSegError, match='0 to 1'): Calibration().add(np.array([-.1]), np.array([True]))
    with pytest.raises(DroneSegError, match='0 to 1'): Calibration().add(np.array([np.nan]), np.array([True]))
    with pytest.raises(DroneSegError, match='bins=0'): Calibration(0)
    with pytest.raises(ValueError): Calibration().add_logits(z[:2], t)

def test_impossible_targets_and_shapes_are_refused():
    z,t = torch.randn(2,3,4,5),torch.randint(0, 3, (2,4,5)).byte()
    for bad in (3, 254, -1):
        wrong = t.long(); wrong[1,2,3] = bad
        with pytest.raises(MaskError, match=f'target holds {bad} at 1 pixel'): Calibration().add_logits(z, wrong)
    t[0,0] = 255
    a = Calibration().add_logits(z, t)
    assert a.void_pixels==5 and np.array_equal(a.sums, Calibration().add_logits(z[0], t[0]).add_logits(z[1].numpy(), t[1].numpy()).sums)
    for shape in ((2,4,4), (1,4,5), (4,5)):
        with pytest.raises(DroneSegError, match='expected'): Calibration().add_logits(z, torch.zeros(shape, dtype=torch.long))

def test_errors_per_photo_are_those_of_the_photo_alone():
    torch.manual_seed(0)
    z,t = torch.randn(3,3,4,5),torch.randint(0, 3, (3,4,5)); t[2] = 255
    each = calibration_errors(Calibration(5).add_logits(z, t).sums)
    for k in ('ece','mce'): np.testing.assert_array_equal(each[k], [getattr(Calibration(5).add_logits(z[i:i+1], t[i:i+1]), k) for i in range(3)])

