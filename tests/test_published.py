"Each published definition against a loop over photos, classes and batches of masks"
import math
import numpy as np, pytest
from drone_seg.fields import DroneSegError
from drone_seg.classes import IGNORE
from drone_seg.scores.confusion import Confusion, Scores

N = 6

@pytest.fixture(params=range(3))
def masks(request):
    "Eleven photos that show two or three of six classes; the prediction dreams up others; void; one photo is all void"
    rng = np.random.default_rng(request.param)
    t = np.stack([rng.choice(rng.choice(N, rng.integers(2, 4), replace=False), (9,12)) for _ in range(11)]).astype(np.uint8)
    p = np.where(rng.random(t.shape)<.8, t, rng.integers(0, N, (11,1,1))).astype(np.uint8)
    t[rng.random(t.shape)<.15] = IGNORE
    t[4] = IGNORE
    return p,t

def scores(p, t, **kwargs): return Confusion(N, ['background',*'bcdef']).add(p, t).scores(**kwargs)

def iou(p, t, c):
    ok = t!=IGNORE
    a,b = (p==c) & ok,(t==c) & ok
    return (a&b).sum()/(a|b).sum() if (a|b).any() else None

def dice(p, t, c, empty):
    ok = t!=IGNORE
    a,b = (p==c) & ok,(t==c) & ok
    return 2*(a&b).sum()/(a.sum()+b.sum()) if (a|b).any() else empty

def chunks(x, k): return [x[i:i+k] for i in range(0, len(x), k)]
def close(a, b): return math.isclose(a, b, abs_tol=1e-12)

def test_void_masked_accuracy_of_fastai_unet(masks):
    p,t = masks
    total = images = 0
    for a,b in zip(chunks(p, 4), chunks(t, 4)):
        ok = b!=IGNORE
        total,images = total+len(a)*(a[ok]==b[ok]).mean(),images+len(a) # fastai v1 weighs a batch by its images
    s = scores(p, t)
    assert close(s.published()['fastai-unet accuracy'][0], total/images)
    assert s.published()['fastai-unet accuracy'][0]!=s.pixel_accuracy # void is not spread evenly

@pytest.mark.parametrize('recipe,bs', [('unet-scratch',32), ('smp-tuned',40)])
def test_iou_of_unet_scratch_and_smp_tuned(masks, recipe, bs):
    p,t = masks
    by_batch = []
    for a,b in zip(chunks(p, bs), chunks(t, bs)):
        by_batch.append(np.mean([iou(x, y, c) for x,y in zip(a, b) for c in range(N) if (y==c).any()]))
    assert close(scores(p, t).published()[f'{recipe} IoU'][0], np.mean(by_batch))

def test_dice_of_deeplab_focal_dice(masks):
    p,t = masks
    assert close(scores(p, t).published()['deeplab-focal-dice Dice'][0], np.mean([dice(x, y, c, 1.) for x,y in zip(p, t) for c in range(N)]))

def test_miou_of_mobile_landing(masks):
    p,t = masks
    by_batch = [np.mean([iou(a, b, c) for c in range(N) if (b==c).any()]) for a,b in zip(chunks(p, 3), chunks(t, 3))]
    assert close(scores(p, t).published()['mobile-landing mIoU'][0], np.mean(by_batch))

def test_dices_of_harvey_deeplab(masks):
    p,t = masks
    table = scores(p, t).published(background='background')
    assert close(table['harvey-deeplab Kaggle Dice'][0], np.mean([dice(x, y, c, 1.) for x,y in zip(p, t) for c in range(1, N)]))
    assert 'background out' in table['harvey-deeplab Kaggle Dice'][1]
    per_photo = [np.mean([d for c in range(N) if (d := dice(x, y, c, None)) is not None]) for x,y in zip(p, t) if (y!=IGNORE).any()]
    assert close(table['harvey-deeplab notebook Dice'][0], np.mean(per_photo))

def test_far_from_the_set_wide_score(masks):
    "The reason to know which one was computed"
    table = {k:v for k,(v,_) in scores(*masks).published(background=0).items()}
    assert table['deeplab-focal-dice Dice']>table['harvey-deeplab notebook Dice']+.05
    assert table['unet-scratch IoU']>table['mIoU']+.05 and table['mobile-landing mIoU']!=table['unet-scratch IoU']
    assert len(set(table.values()))>=8

def test_needs_one_matrix_per_image_and_survives_nothing(masks):
    p,t = masks
    with pytest.raises(DroneSegError, match='one matrix per image'): Scores(scores(p, t).matrix).published()
    none = Confusion(N).add(p, np.full_like(t, IGNORE)).scores().published()
    assert math.isnan(none['fastai-unet accuracy'][0]) and math.isnan(none['mobile-landing mIoU'][0]) and none['deeplab-focal-dice Dice'][0]==1
    assert all(math.isnan(v) for k,(v,_) in Confusion(N).scores().published().items())
