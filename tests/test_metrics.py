"The metrics of a fastai Learner against scores computed at once from all predictions"
import gc, pickle
import numpy as np, pytest, torch
from torch import nn
from fastai.vision.all import DataLoader, DataLoaders, Dice, DiceMulti, Learner, TensorMask
from drone_seg.scores.boundary import Boundary
from drone_seg.scores.calibration import Calibration
from drone_seg.fields import MaskError, DroneSegError
from drone_seg.classes import IGNORE, ClassTable
from drone_seg.scores.confusion import Confusion
from drone_seg.train.losses import CrossEntropy
from drone_seg.train.metrics import score_names, seg_metrics

C = 4

@pytest.fixture(scope='module')
def data():
    g = torch.Generator().manual_seed(0)
    y = torch.randint(0, C-1, (11,8,10), generator=g) # the last class never occurs
    x = torch.eye(C)[y].movedim(-1, 1)+torch.randn(11,C,8,10, generator=g)
    y[torch.rand(y.shape, generator=g)<.3] = IGNORE
    return x,y

def learner(data, bs=4, metrics=None, model=None, typed=False, **kwargs):
    items = [(x,TensorMask(y) if typed else y) for x,y in zip(*data)]
    dls = DataLoaders(*[DataLoader(items, bs=bs, num_workers=0, shuffle=i==0) for i in range(2)])
    torch.manual_seed(1)
    return Learner(dls, model or nn.Conv2d(C, C, 1), loss_func=CrossEntropy(), metrics=seg_metrics(list('abcd')) if metrics is None else metrics, lr=.05, **kwargs)

def quietly(learn, f, *args, **kwargs):
    with learn.no_bar(), learn.no_logging(): return f(*args, **kwargs)

def at_once(model, data):
    with torch.no_grad(): s = Confusion(C).add(model(data[0]).argmax(1), data[1]).scores()
    return [s.pixel_accuracy, s.miou, s.macro_dice]

@pytest.mark.parametrize('bs', [1, 2, 4, 11, 16])
@pytest.mark.parametrize('typed', [False, True])
def test_fit_and_validate_equal_all_at_once(data, bs, typed):
    learn = learner(data, bs, typed=typed)
    quietly(learn, learn.fit, 2)
    expected = at_once(learn.model, data)
    assert list(learn.recorder.values[-1][2:])==expected
    assert list(quietly(learn, learn.validate)[1:])==expected
    counter = learn.metrics[0].counter
    assert len(counter)==11 and counter.void_pixels==(data[1]==IGNORE).sum()

def test_batch_size_changes_nothing(data):
    model = nn.Conv2d(C, C, 1)
    learners = [learner(data, bs, model=model) for bs in (1,3,4,11)]
    values = [quietly(o, o.validate)[1:] for o in learners]
    assert all(list(v)==list(values[0]) for v in values)

@pytest.mark.parametrize('picked', [[0], [1], [2], [0,2], [2,1], [2,1,0], [1,1]])
def test_any_subset_counts_each_image_once(data, picked):
    metrics = seg_metrics(list('abcd'))
    learn = learner(data, metrics=[metrics[i] for i in picked])
    quietly(learn, learn.fit, 2)
    assert len(metrics[0].counter)==11
    assert list(learn.recorder.values[-1][2:])==[at_once(learn.model, data)[i] for i in picked]

def test_argmax_is_taken_once_per_batch(data, monkeypatch):
    import drone_seg.scores.confusion as m
    calls,count = [],m.count_images
    monkeypatch.setattr(m, 'count_images', lambda *a: calls.append(1) or count(*a))
    learn = learner(data, bs=4)
    quietly(learn, learn.validate)
    assert len(calls)==3

def test_a_network_that_returns_the_same_tensor_twice(data):
    class Constant(nn.Module):
        def __init__(self): super().__init__(); self.out,self.w = torch.randn(1,C,8,10),nn.Parameter(torch.zeros(1))
        def forward(self, x): return self.out
    learn = learner(data, bs=1, model=Constant())
    quietly(learn, learn.validate)
    assert len(learn.metrics[0].counter)==11

def test_auxiliary_outputs_are_passed_over(data):
    class Two(nn.Module):
        def __init__(self): super().__init__(); self.net = nn.Conv2d(C, C, 1)
        def forward(self, x): return self.net(x),x
    learn = learner(data, model=Two())
    learn.loss_func = lambda pred,y: CrossEntropy()(pred[0], y)
    values = quietly(learn, learn.validate)
    assert list(values[1:])==at_once(learn.model.net, data)

def test_metrics_on_the_training_set_too(data):
    learn = learner(data, cbs=None)
    learn.recorder.train_metrics = True
    quietly(learn, learn.fit, 1)
    assert list(learn.recorder.values[-1][-3:])==at_once(learn.model, data)

def test_no_logits_are_kept(data):
    learn = learner(data)
    quietly(learn, learn.validate)
    counter = learn.metrics[0].counter
    del learn; gc.collect()
    assert counter._seen[1]() is None and len(counter)==11

def test_void_naive_and_binary_metrics_of_fastai_are_what_we_avoid(data):
    y = data[1]
    x,same = nn.functional.one_hot(y.clamp(max=C-1), C).movedim(-1, 1).float(),nn.Conv2d(C, C, 1)
    nn.init.dirac_(same.weight); nn.init.zeros_(same.bias)
    learn = learner((x,y), model=same, metrics=[*seg_metrics(list('abcd')), DiceMulti(), Dice()])
    loss,acc,miou,dice,dice_multi,dice_binary = quietly(learn, learn.validate)
    assert (acc,miou,dice)==(1,1,1)
    assert dice_multi<.9 and dice_binary!=1 # void counted as error; ids multiplied as if they were 0 and 1

def test_class_tables_and_bad_targets(data):
    table = ClassTable(['a','b','c','d','unlabelled'], void=['unlabelled'])
    assert seg_metrics(table)[0].counter.names==['a','b','c','d']
    y = data[1].clone(); y[3,0,0] = 9
    learn = learner((data[0],y)); learn.loss_func = lambda pred,y: pred.mean()
    with pytest.raises(MaskError, match='class 9 at 1 pixel'): quietly(learn, learn.validate)

def test_void_in_every_pixel(data):
    learn = learner((data[0], torch.full_like(data[1], IGNORE)))
    values = quietly(learn, learn.validate)
    assert values[0]==0 and np.isnan(list(values[1:])).all()

@pytest.mark.parametrize('bs', [3, 11])
def test_every_score_by_name_equals_all_at_once(data, bs):
    names = [*score_names, 'iou:c', 'dice:a', 'precision:b', 'recall:b', 'boundary_iou:a', 'boundary_f:c']
    learn = learner(data, bs, metrics=seg_metrics(list('abcd'), names))
    values = dict(zip(names, quietly(learn, learn.validate)[1:]))
    with torch.no_grad(): z = learn.model(data[0])
    s = Confusion(C).add(z.argmax(1), data[1]).scores()
    b,c = Boundary(C).add(z.argmax(1), data[1]).scores(),Calibration().add_logits(z, data[1])
    assert values=={**{k:getattr(s, k) for k in s.measures}, 'miou_per_image':s.miou_per_image().mean(), 'dice_per_image':s.dice_per_image().mean(),
                    'boundary_iou':b.boundary_iou, 'boundary_f':b.boundary_f, 'ece':pytest.approx(c.ece, abs=1e-6), 'mce':pytest.approx(c.mce, abs=1e-6), 'iou:c':s.iou[2], 'dice:a':s.dice[0],
                    'precision:b':s.precision[1], 'recall:b':s.recall[1], 'boundary_iou:a':b.by_class['iou'][0], 'boundary_f:c':b.by_class['f'][2]}

def test_without_background_and_unknown_names(data):
    learn = learner(data, metrics=seg_metrics(list('abcd'), 'miou', without='a'))
    value = quietly(learn, learn.validate)[1]
    with torch.no_grad(): s = Confusion(C).add(learn.model(data[0]).argmax(1), data[1]).scores()
    assert value==np.nanmean(s.iou[1:]) and value!=s.miou
    for bad,near in (('mIOU','miou'), ('iou:e','iou:d'), ('boundary','boundary_f'), ('iou','miou')):
        with pytest.raises(DroneSegError, match=f'no score {bad!r}.*{near}'): seg_metrics(list('abcd'), [bad])

def test_borders_and_calibration_cost_nothing_unless_asked(data, monkeypatch):
    monkeypatch.setattr(Boundary, 'add', lambda *a: 1/0); monkeypatch.setattr(Calibration, 'add_logits', lambda *a: 1/0)
    learn = learner(data)
    quietly(learn, learn.validate)
    with pytest.raises(ZeroDivisionError):
        learn = learner(data, metrics=seg_metrics(list('abcd'), ['ece']))
        quietly(learn, learn.validate)

def test_widths_bins_and_empty_reach_the_scores(data):
    names = ['boundary_iou','boundary_f','miou']
    learn = learner(data, metrics=seg_metrics(list('abcd'), [*names, 'mce'], empty=0, width=3, tolerance=2, bins=4))
    *values,mce = quietly(learn, learn.validate)[1:]
    with torch.no_grad(): z = learn.model(data[0])
    b,c = Boundary(C, width=3, tolerance=2).add(z.argmax(1), data[1]).scores(0),Confusion(C).add(z.argmax(1), data[1]).scores(0)
    assert values==[b.boundary_iou, b.boundary_f, c.miou]
    four,fifteen = (Calibration(k).add_logits(z, data[1]).mce for k in (4,15))
    assert mce==pytest.approx(four, abs=1e-6) and abs(four-fifteen)>.01
    for wrong in (dict(empty='zero'), dict(width=0), dict(tolerance=-1), dict(bins=0)):
        with pytest.raises(DroneSegError): seg_metrics(list('abcd'), **wrong)
    with pytest.raises(DroneSegError, match="without=..a.. cannot leave classes out of ece"): seg_metrics(list('abcd'), ['miou','ece'], without='a')

def test_which_scores_are_better_lower():
    assert [m.name for m in seg_metrics(list('abcd'), score_names) if m.lower_is_better]==['ece','mce']

def test_metrics_can_be_saved_after_validation(data):
    "As `learn.export` does"
    learn = learner(data, metrics=seg_metrics(list('abcd'), ['miou','ece']))
    value = quietly(learn, learn.validate)[1]
    assert [m.value for m in pickle.loads(pickle.dumps(list(learn.metrics)))]==[m.value for m in learn.metrics] and learn.metrics[0].value==value
