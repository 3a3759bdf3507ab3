"70_runs.confidence: the temperature against slow full fits, the curves against a sort of all pixels, a memory meter, bad input"
import json, math, sys
from pathlib import Path
from types import SimpleNamespace
import numpy as np, pytest, torch, torch.nn.functional as F
from torch import nn
from drone_seg.scores.calibration import Calibration
from drone_seg.fields import DroneSegError, ModelError, PredictError
from drone_seg.classes import IGNORE, ClassTable
from drone_seg.data.datasets import DroneDataset, open_dataset
from drone_seg.models.bundle import Bundle, load_bundle
from drone_seg.runs.confidence import *
from drone_seg.runs.confidence import (
    judge_photo, judge_calibration, draw_pixels, pick_logits, fit_temperature, halve_by_place)
from drone_seg.runs.confidence import slope_of_nll
from drone_seg.scores.coverage import RiskCoverage
from drone_seg.models.ensemble import Ensemble
from drone_seg.predict.confidence import MEASURES
from drone_seg.predict.predict import Prediction
from drone_seg.predict.stream import Looker
from drone_seg.runs.evaluate import AnsweredScores
from drone_seg.scenes.scene import SCENE_CLASSES, write_scenes

torch.set_num_threads(1)
C = SCENE_CLASSES.n

@pytest.fixture(autouse=True)
def on_cpu(monkeypatch, tmp_path):
    monkeypatch.setattr(torch.cuda, 'is_available', lambda: False)
    monkeypatch.setenv('DRONE_SEG_CACHE', str(tmp_path/'cache'))

@pytest.fixture(scope='module')
def data(tmp_path_factory): return open_dataset(write_scenes(tmp_path_factory.mktemp('scenes')/'s', 6, size=(60,84), seed=50))

def drawn_logits(n=4000, c=5, scale=2.5, seed=0):
    "Logits `scale` times too large for their truth"
    g = torch.Generator().manual_seed(seed)
    z = 1.5*torch.randn(n, c, generator=g)
    return scale*z,torch.multinomial(z.softmax(1), 1, generator=g)[:,0]

def color_model(data, sharp=60, **kw):
    "A 1x1 convolution: logits are how near a pixel's colour is to the mean colour of each class, sharpened"
    px = {r: [] for r in SCENE_CLASSES.scored}
    for s in data.stems:
        image,ids = data[s]
        for r in px: px[r].append(image[ids==SCENE_CLASSES.ids[r]].reshape(-1, 3))
    m = torch.tensor(np.array([np.concatenate(v).mean(0)/255 if sum(map(len, v)) else np.full(3, 3.) for v in px.values()]), dtype=torch.float32)
    net = nn.Conv2d(3, len(m), 1)
    net.weight.data,net.bias.data = sharp*2*m[...,None,None],-sharp*(m**2).sum(1)
    return Bundle(net.eval(), SCENE_CLASSES, size=(60,84), **kw)

def all_logits(model, data, stems):
    "All logits and truths of whole photos, void out: (n, C) float64 and (n,)"
    Z,Y = [],[]
    for s in stems:
        image,ids = data[s]
        with torch.no_grad(): z = model.net(torch.tensor(image).permute(2, 0, 1)[None]/255)[0]
        y = torch.from_numpy(SCENE_CLASSES.encode(ids)).long()
        Z.append(z[:,y!=IGNORE].T.double()); Y.append(y[y!=IGNORE])
    return torch.cat(Z),torch.cat(Y)

def lbfgs_temperature(z, y): # as published: the mean cross-entropy over T by L-BFGS
    log_t = torch.zeros(1, dtype=torch.float64, requires_grad=True)
    opt = torch.optim.LBFGS([log_t], lr=.5, max_iter=300, tolerance_grad=1e-12, tolerance_change=1e-14, line_search_fn='strong_wolfe')
    def step():
        opt.zero_grad()
        loss = F.cross_entropy(z.double()/log_t.exp(), y)
        loss.backward()
        return loss
    opt.step(step)
    return log_t.exp().item()

# The fit

@pytest.mark.parametrize('scale', (.2, .7, 1, 2.5, 8))
def test_temperature_is_that_of_lbfgs_and_scikit_learn(scale):
    z,y = drawn_logits(scale=scale)
    T = fit_temperature([(z, y, 1.)])
    assert T==pytest.approx(lbfgs_temperature(z, y), rel=1e-4)
    assert T==pytest.approx(scale, rel=.1)
    peer = getattr(pytest.importorskip('sklearn.calibration'), '_TemperatureScaling', None)
    if peer is not None: assert T==pytest.approx(1/peer().fit(z.double().numpy(), y.numpy()).beta_, rel=1e-3)

def test_slope_is_that_of_autograd():
    z,y = drawn_logits(500)
    for b in (.1, 1., 3.):
        beta = torch.tensor(b, dtype=torch.float64, requires_grad=True)
        nll = F.cross_entropy(z.double()*beta, y)
        slope, = torch.autograd.grad(nll, beta)
        assert slope_of_nll([(z, y, 1.)], b)==pytest.approx(slope.item(), rel=1e-4, abs=1e-6)

def test_photos_count_by_the_pixels_they_stand_for():
    (z,y),(u,v) = drawn_logits(300, scale=1),drawn_logits(500, scale=6, seed=1)
    T = fit_temperature([(z, y, 3.), (u, v, 1.)])
    assert T==pytest.approx(lbfgs_temperature(torch.cat([z, z, z, u]), torch.cat([y, y, y, v])), rel=1e-4)

def test_far_starts_and_large_logits_end_at_the_bottom():
    z,y = drawn_logits(scale=15)
    assert fit_temperature([(z+1000, y, 1.)])==pytest.approx(lbfgs_temperature(z, y), rel=1e-3) # a shift of all logits changes nothing

@pytest.mark.parametrize('make,says', [
    (lambda z, y: [(z[:0], y[:0], 1.)], 'all void'), (lambda z, y: [], 'all void'),
    (lambda z, y: [(z.index_fill(0, torch.tensor([7]), math.nan), y, 1.)], 'NaN'), (lambda z, y: [(z.index_fill(0, torch.tensor([7]), math.inf), y, 1.)], 'NaN or infinite'),
    (lambda z, y: [(torch.zeros_like(z)+3, y, 1.)], 'same logit'), (lambda z, y: [(z[:,:1], y*0, 1.)], 'one class only'),
    (lambda z, y: [(F.one_hot(y, 5)*5., y, 1.)], 'below 0.05'), (lambda z, y: [(F.one_hot(y, 5)*1e4, y, 1.)], 'every answer is right'), (lambda z, y: [(-z, y, 1.)], 'above'), (lambda z, y: [(z*100, y, 1.)], '20')])
def test_what_cannot_be_fitted_is_refused(make, says):
    with pytest.raises(PredictError, match=says): fit_temperature(make(*drawn_logits()))

# Which pixels

@pytest.mark.parametrize('shape,n', [((40,60),100), ((7,211),50), ((5,5),1), ((1,1),10), ((30,20),600), ((30,20),10**6)])
def test_every_pixel_has_the_same_chance(shape, n):
    hits,runs = np.zeros(shape),400
    for seed in range(runs):
        y,x,w = draw_pixels(shape, n, seed)
        assert len(y)==len(x)<=n*1.6+6 and len(set(zip(y, x)))==len(y)
        hits[y,x] += w
    if n>=shape[0]*shape[1]: assert (hits==runs).all()
    else: assert abs(hits.mean()/runs-1)<.15 and abs(hits.astype(float)[-1].mean()/runs-1)<.45 # the last row lies in cells that are not whole

@pytest.mark.parametrize('shape', [(60,84), (300,20), (20,300)])
def test_pixels_are_picked_from_rows_and_from_columns(shape):
    rng = np.random.default_rng(0)
    image,truth = rng.integers(0, 256, (*shape, 3), dtype=np.uint8),rng.integers(0, C, shape).astype(np.uint8)
    truth[:3] = IGNORE
    torch.manual_seed(0)
    model = Bundle(nn.Conv2d(3, C, 1), SCENE_CLASSES, size=(60,84))
    whole = torch.zeros(C, *shape)
    for r,c,b in Looker(model, scale=1)(image): whole[:,r,c] = b
    z,y,w = pick_logits(Looker(model, scale=1)(image), truth, 500, 3)
    i,j,step = draw_pixels(shape, 500, 3)
    ok = truth[i,j]!=IGNORE
    order = lambda a: sorted(map(tuple, a))
    assert w==step and order(np.column_stack([z.numpy(), y]))==order(np.column_stack([whole[:,i[ok],j[ok]].T.numpy(), truth[i[ok],j[ok]]]))
    every = pick_logits(Looker(model, scale=1)(image), truth, 10**9)
    assert len(every[0])==(truth!=IGNORE).sum()

# Judging

def test_judge_counts_as_if_all_logits_were_there(data):
    model = color_model(data)
    Z,Y = all_logits(model, data, data.stems)
    for t,(c,nll) in zip((1., .5, 7.), judge_calibration(Looker(model, scale=1, dtype='fp32'), data, data.stems, (1., .5, 7.))):
        want = Calibration().add_logits((Z/t).float().T[None,:,None], Y[None,None])
        assert c.ece==pytest.approx(want.ece, abs=1e-5) and nll==pytest.approx(F.cross_entropy(Z/t, Y).item(), rel=1e-5)
        assert len(c)==len(data) and c.sums[:,0].sum()==len(Y)
        assert c.void_pixels==sum((SCENE_CLASSES.encode(data[s][1])==IGNORE).sum() for s in data.stems)

def test_calibrate_finds_the_temperature_of_all_pixels_and_keeps_the_answers(data):
    model,stems = color_model(data, split=dict(valid=[])),data.stems
    before = model.predict(data[stems[0]][0], scale=1, confidence='max')
    res = model.calibrate(data, stems[:3], stems[3:], pixels=10**9, progress=False, scale=1, dtype='fp32')
    Z,Y = all_logits(model, data, stems[:3])
    assert model.temperature==res.temperature==pytest.approx(lbfgs_temperature(Z, Y), rel=1e-3)
    assert res.pixels==len(Y) and res.nll[1]<res.nll[0] and res.after.ece<res.before.ece
    after = model.predict(data[stems[0]][0], scale=1, confidence='max')
    np.testing.assert_array_equal(after.ids, before.ids)
    with torch.no_grad(): z = model.net(torch.tensor(data[stems[0]][0]).permute(2, 0, 1)[None]/255)[0]
    np.testing.assert_allclose(after.confidence, 255*(z/res.temperature).softmax(0).amax(0).numpy(), atol=.51)
    some = color_model(data).calibrate(data, stems[:3], stems[3:], pixels=3000, progress=False, scale=1, dtype='fp32')
    assert some.pixels<=3600 and some.temperature==pytest.approx(res.temperature, rel=.1)
    d = res.to_dict()
    assert json.loads(json.dumps(d, allow_nan=False))==d and d['fitted']==stems[:3]
    assert model.training['calibration']['judged']==stems[3:] and 'before' not in model.training['calibration']

def test_a_wrong_temperature_in_the_bundle_does_not_leak_into_the_fit(data):
    a,b = (color_model(data).calibrate(data, data.stems[:3], data.stems[3:], progress=False) for _ in range(2))
    model = color_model(data, temperature=9.)
    assert model.calibrate(data, data.stems[:3], data.stems[3:], progress=False).temperature==a.temperature==b.temperature

# Which photos

def test_photos_are_halved_by_place(data, monkeypatch):
    s = data.stems
    monkeypatch.setattr(DroneDataset, 'places', lambda self, progress=True: SimpleNamespace(place=dict(zip(s, (0,0,0,1,2,2))), links=[]))
    a,b = halve_by_place(data, s)
    assert {tuple(a),tuple(b)}=={tuple(s[:3]),tuple(s[3:])}
    with pytest.raises(PredictError, match='all of one place'): halve_by_place(data, s[:3])
    model = color_model(data, split=dict(valid=s))
    res = model.calibrate(data, progress=False)
    assert (res.stems,res.judge)==(a, b)

def test_test_photos_judge_where_there_are_some(data):
    s = data.stems
    res = color_model(data, split=dict(train=s[:2], valid=s[2:4], test=s[4:])).calibrate(data, progress=False)
    assert (res.stems,res.judge)==(s[2:4], s[4:]) and not any('trained the model:' in w for w in res.warnings)
    assert any('not known' in w for w in res.warnings)

def test_photos_that_trained_are_named(data):
    s = data.stems
    res = color_model(data, split=dict(train=s[:1]+s[4:], valid=[])).calibrate(data, s[:3], s[3:], progress=False)
    assert [w.split(' trained')[0] for w in res.warnings[:2]]==['1 of the 3 photos that were fitted', '2 of the 3 photos that judge']
    assert 'Warning: 1 of the 3 photos' in repr(res)

def test_overlap_with_training_is_said_where_places_are_known(tmp_path):
    data = open_dataset(write_scenes(tmp_path/'s', 6, size=(192,288), seed=3, places=2))
    place = data.places(progress=False).place
    home = [s for s in data.stems if place[s]==place[data.stems[0]]]
    if not 2<len(home)<len(data): pytest.skip('the places of these scenes were not found')
    away = [s for s in data.stems if s not in home]
    model = color_model(data, split=dict(train=home[:1], valid=away))
    res = model.calibrate(data, home[1:], away, progress=False)
    assert any('fitted photos overlap a training photo' in w for w in res.warnings) and not any('judging' in w for w in res.warnings)

@pytest.mark.parametrize('kw,says', [
    (dict(), 'name photos that did not train it'), (dict(stems=[]), 'name photos'), (dict(stems=['nobody'], judge=['nobody else']), 'nobody'),
    (dict(tta='flips'), 'without tta'), (dict(pixels=0), 'pixels=0'), (dict(scale=-1), 'above 0'), (dict(gsd=.1), 'does not know')])
def test_bad_questions_are_refused(kw, says, data):
    with pytest.raises(DroneSegError, match=says): color_model(data).calibrate(data, progress=False, **kw)

def test_other_classes_both_sides_and_ensembles_are_refused(data):
    s,model = data.stems,color_model(data)
    with pytest.raises(PredictError, match='both fitted and judged'): model.calibrate(data, s, s[:1])
    with pytest.raises(ModelError, match='the classes it was trained on'): model.calibrate(DroneDataset(data.path, data.items, ClassTable(['a','b'])), s[:3], s[3:])
    with pytest.raises(PredictError, match='one by one'): Ensemble([model, model]).calibrate(data, s[:3], s[3:])
    assert model.temperature is None

def test_void_photos_and_nan_networks(data, monkeypatch):
    s,read = data.stems,DroneDataset.__getitem__
    void = set(s[:3])
    monkeypatch.setattr(DroneDataset, '__getitem__', lambda self, i: (read(self, i)[0], np.zeros_like(read(self, i)[1])) if i in void else read(self, i))
    model = color_model(data)
    with pytest.raises(PredictError, match='all void'): model.calibrate(data, s[:3], s[3:], progress=False)
    with pytest.raises(PredictError, match='none of the 3 photos that judge'): model.calibrate(data, s[3:], s[:3], progress=False)
    res = model.calibrate(data, s[2:5], s[5:]+s[:1], progress=False) # one void photo among others says nothing
    assert 1<res.temperature<20
    model.net.bias.data[0] = math.nan
    model.temperature = None
    with pytest.raises(PredictError, match='NaN'): model.calibrate(data, s[3:5], s[5:], progress=False)
    assert model.temperature is None

# Risk and coverage

def counted(n=20_000, seed=0):
    rng = np.random.default_rng(seed)
    p = rng.beta(3, 1, (1, n))
    return p,rng.random((1, n))<p

def slow_aurc(conf, right):
    "Mean risk over all prefixes of the pixels sorted by confidence; pixels of one confidence share its rate"
    conf,wrong = conf.reshape(-1),~right.reshape(-1)
    rate = {c: wrong[conf==c].mean() for c in np.unique(conf)}
    e = np.array([rate[c] for c in np.sort(conf)[::-1]])
    return (e.cumsum()/np.arange(1, len(e)+1)).mean()

def test_aurc_is_that_of_a_sort_of_all_pixels():
    p,right = counted()
    c = np.round(255*p).astype(np.uint8)
    curve = RiskCoverage().add(c, right)
    assert curve.aurc==pytest.approx(slow_aurc(c, right), abs=2e-4)
    order = np.argsort(-p[0], kind='stable') # without rounding to bytes
    assert curve.aurc==pytest.approx(((~right[0])[order].cumsum()/np.arange(1, p.size+1)).mean(), abs=2e-3)
    random = RiskCoverage().add(np.random.default_rng(1).integers(0, 256, c.shape).astype(np.uint8), right)
    assert random.aurc==pytest.approx((~right).mean(), abs=.03) and curve.aurc<.6*random.aurc
    assert RiskCoverage().add(np.full_like(c, 7), right).aurc==pytest.approx((~right).mean())

def test_thresholds_against_every_threshold():
    p,right = counted(5000)
    c = np.round(255*p).astype(np.uint8)
    curve = RiskCoverage().add(c, right)
    for want in (1, .95, .9, .5, .05):
        best = max(i for i in range(256) if (c>=i).mean()>=want)
        got = curve.at(want)
        assert got==dict(threshold=best/255, coverage=pytest.approx((c>=best).mean()), risk=pytest.approx((~right)[c>=best].mean()))
    assert 'At 9' in repr(curve) and len(curve.table())==6
    for bad in (0, 1.1, -1, math.nan):
        with pytest.raises(PredictError, match='coverage='): curve.at(bad)

def test_photos_void_and_parts_add_up():
    p,right = counted(600)
    c = np.round(255*p).astype(np.uint8).reshape(2, 10, 30); r = right.reshape(c.shape)
    v = np.ones(c.shape, bool); v[0,:4] = False
    both = RiskCoverage().add(c, r, v)
    apart = RiskCoverage().add(c[0], r[0], v[0]).merge(RiskCoverage().add(c[1], r[1]))
    np.testing.assert_array_equal(both.counts, apart.counts)
    assert both.void_pixels==apart.void_pixels==120 and both.counts[0].sum()==180 and len(both)==2
    assert (both.counts[1,:,1]==np.bincount(c[1][r[1]], minlength=256)).all()
    nothing = RiskCoverage().add(c[0], r[0], v[0]&False)
    assert math.isnan(nothing.aurc) and np.isnan(nothing.coverage).all() and 'no labelled pixel' in repr(nothing)
    with pytest.raises(PredictError, match='no labelled pixel'): nothing.at(.9)
    with pytest.raises(PredictError, match='uint8'): RiskCoverage().add(p, right)
    with pytest.raises(PredictError, match='must be the same'): RiskCoverage().add(c, r[:1])

@pytest.mark.parametrize('measure', ('max','margin','entropy'))
def test_a_threshold_answers_exactly_the_pixels_of_its_table(measure, data):
    model,void = color_model(data, temperature=4.),SCENE_CLASSES.void_id
    curve = risk_coverage(model, data, data.stems[:3], measure, progress=False)
    for want in (.95, .6):
        at = curve.at(want)
        answered = wrong = asked = 0
        for s in data.stems[:3]:
            image,truth = data[s]
            ids = model.predict(image, confidence=measure, abstain=at['threshold']).ids
            ok = (ids!=void) & (truth!=void)
            answered += ok.sum(); wrong += (ids!=truth)[ok].sum(); asked += (truth!=void).sum()
        assert answered/asked==pytest.approx(at['coverage']) and wrong/answered==pytest.approx(at['risk'])

def test_blank_pixels_are_neither_hits_nor_errors(data):
    model,stems = color_model(data, temperature=4.),data.stems[:3]
    full = model.evaluate(data, stems, progress=False)
    at = risk_coverage(model, data, stems, progress=False).at(.7)
    part = model.evaluate(data, stems, progress=False, abstain=at['threshold'])
    assert isinstance(part, AnsweredScores) and not isinstance(full, AnsweredScores)
    assert part.abstained_pixels+part.matrix.sum()==full.matrix.sum() and part.void_pixels==full.void_pixels
    assert 1-part.pixel_accuracy==pytest.approx(at['risk']) and part.stems==stems
    assert part.to_dict()['abstained_pixels']==part.abstained_pixels and 'neither as hit nor as error' in repr(part)
    assert 'blank' not in full.definition
    nothing = model.evaluate(data, stems, progress=False, abstain=1.)
    assert nothing.matrix.sum()+nothing.abstained_pixels==full.matrix.sum()

def test_tables_without_void_and_predictions_without_confidence(data):
    table = ClassTable(SCENE_CLASSES.scored_names)
    model = Bundle(color_model(data).net, table, size=(60,84))
    image = data[data.stems[0]][0]
    with pytest.raises(PredictError, match='no void class'): model.predict(image, abstain=.5)
    assert model.predict(image, confidence='max').confidence.shape==image.shape[:2] # without abstaining no void is needed
    with pytest.raises(PredictError, match='with confidence max'): model.predict(image).confidence_picture()
    with pytest.raises(PredictError, match='leave it out'): risk_coverage(color_model(data), data, data.stems, abstain=.5)
    with pytest.raises(PredictError, match='name photos with stems='): risk_coverage(color_model(data), data)

def test_pictures(data):
    image = data[data.stems[0]][0]
    pred = color_model(data).predict(image, abstain=.4)
    plain = pred.confidence_picture(legend=False)
    assert plain.size==image.shape[1::-1] and pred.confidence_picture(max_side=42).height==30 and pred.confidence_picture().width>plain.width
    a = np.asarray(plain).astype(int)
    assert (a[pred.confidence==255]==(253,231,37)).all()
    order = np.asarray(Prediction(pred.ids, SCENE_CLASSES, image, confidence=np.arange(256, dtype=np.uint8)[None]).confidence_picture(legend=False)).astype(int)
    light = order[0]@(299, 587, 114)
    assert (np.diff(light)>=-1000).all() and len(np.unique(order[0], axis=0))>200 # lighter is surer, and 256 values are told apart

# Memory

GROWN = '''
import numpy as np, torch
from torch import nn
from drone_seg.classes import ClassTable
from drone_seg.models.bundle import Bundle
from drone_seg.runs.confidence import *
from drone_seg.runs.confidence import fit_temperature, judge_calibration, pick_logits
from drone_seg.predict.stream import Looker
from drone_seg.scores.coverage import RiskCoverage
torch.set_num_threads(1)
torch.cuda.is_available = lambda: False
C = 24
model = Bundle(nn.Conv2d(3, C, 1).eval(), ClassTable(['void']+[f'c{i}' for i in range(C)], void=['void']), size=(64,96))
def peak(): return int(next(l for l in open('/proc/self/status') if l.startswith('VmHWM')).split()[1])/1024 # ru_maxrss starts with that of the parent process
kw = dict(scale=1, dtype='fp32', bs=1)
im = np.random.default_rng(0).integers(0, 256, (2000,3000,3), dtype=np.uint8)
model.predict(im[:500], confidence='max', **kw)
before = peak()
'''

@pytest.fixture
def grown(program):
    "MB by which the peak of a process grows while some code runs; up to 10 MB differ from run to run"
    return lambda code: float(program(f'{GROWN}{code}\nprint(peak()-before)').stdout)

@pytest.mark.skipif(not Path('/proc/self/status').exists(), reason='reads /proc')
def test_a_confidence_map_costs_a_byte_per_pixel(grown):
    byte = 2000*3000/2**20
    plain,sure = (grown(f'p = model.predict(im, **kw{how})') for how in ('', ", confidence='max'"))
    assert sure-plain<1.5*byte+12, f"{plain:.1f} MB without, {sure:.1f} MB with confidence; a byte per pixel is {byte:.1f} MB"

@pytest.mark.skipif(not Path('/proc/self/status').exists(), reason='reads /proc')
def test_fitting_and_judging_never_hold_all_logits(grown):
    whole = 24*2000*3000*4/2**20 # 550 MB
    mb = grown('''
import drone_seg.runs.confidence as m
truth = np.zeros((2000,3000), np.uint8); truth[::2] = 5
parts = [pick_logits(Looker(model, **kw)(im), truth, 100_000)]
m.judge_photo(Looker(model, **kw)(im), truth, (1., 2.))
RiskCoverage().add(truth, truth==0)
''')
    assert mb<whole/3, f"{mb:.0f} MB of {whole:.0f}" # the stream itself has a band of logits, about a fifth

# Files

def test_temperature_is_saved_and_bounded(tmp_path):
    from drone_seg.models.unet import create_unet
    b = Bundle(create_unet('tf_efficientnet_lite0', 2), ClassTable(['a','b']), size=(64,96), temperature=1.75)
    b.save(tmp_path)
    assert load_bundle(tmp_path).temperature==1.75
    f = tmp_path/'bundle.json'; d = json.loads(f.read_text())
    for bad in (0, -1, 100, '1', [1], math.nan, math.inf):
        f.write_text(json.dumps(d | dict(temperature=bad)))
        with pytest.raises(ModelError, match='temperature is|is no number'): load_bundle(tmp_path)
    f.write_text(json.dumps({k:v for k,v in d.items() if k!='temperature'})) # bundles of before
    assert load_bundle(tmp_path).temperature is None

def test_command_line(data, tmp_path, monkeypatch, capsys):
    from drone_seg.cli import main
    from drone_seg.models.unet import create_unet
    torch.manual_seed(0)
    net,s = create_unet('tf_efficientnet_lite0', C),data.stems
    counts = np.bincount(np.concatenate([SCENE_CLASSES.encode(data[k][1]).ravel() for k in s]), minlength=256)[:C]+100
    net.head.weight.data.zero_(); net.head.bias.data = 3*torch.tensor(counts/counts.sum()).log().float() # knows how common classes are, three times too sharply
    run = Bundle(net.eval(), SCENE_CLASSES, (60,84), split=dict(train=s[:1], valid=s[1:3], test=s[3:])).save(tmp_path/'run')
    sha = json.loads((run/'bundle.json').read_text())['weights_sha256']
    monkeypatch.setattr(sys, 'argv', ['drone_seg', 'calibrate', str(run), str(data.path)])
    with pytest.raises(SystemExit) as e: main()
    out = capsys.readouterr().out
    assert not e.value.code and 'Temperature' in out and '3 other photos' in out
    d = json.loads((run/'bundle.json').read_text())
    assert load_bundle(run).temperature==d['temperature']==pytest.approx(3, rel=.5) and d['weights_sha256']==sha
    assert json.loads((run/'calibration.json').read_text())['judged']==s[3:] and (run/'reliability.png').read_bytes()[:4]==b'\x89PNG'
    monkeypatch.setattr(sys, 'argv', ['drone_seg', 'calibrate', str(run), str(data.path), '--photos', 'some'])
    with pytest.raises(SystemExit) as e: main()
    assert e.value.code==2 and 'nearest are valid, all' in capsys.readouterr().err
