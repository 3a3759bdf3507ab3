"photo.light: what a training remembers of its photos' light, and what a model does with another one"
import json, numpy as np, pytest, torch
from types import SimpleNamespace
from dataclasses import replace
from fastai.callback.core import Callback
from fastai.torch_core import set_seed
from drone_seg.data.datasets import open_dataset
from drone_seg.fields import ModelError
from drone_seg.models.bundle import as_bundle, load_bundle
from drone_seg.photo.light import light_bounds, light_of, light_table, odd_light, relit
from drone_seg.photo.photo_file import EMPTY
from drone_seg.scenes.scene import write_scenes
from drone_seg.train.fit import fit_stages
from drone_seg.train.learner import seg_learner
from drone_seg.train.stages import Stage

@pytest.fixture(scope='module')
def data(tmp_path_factory):
    p = tmp_path_factory.mktemp('light')
    write_scenes(p/'scenes', 12, size=(96,144), progress=False)
    return open_dataset(p/'scenes')

def learner(data, **kw):
    dls = data.dataloaders(data.split(by='random', seed=1, progress=False), size=(96,144), bs=2, seed=1, device='cpu', **kw)
    return seg_learner(dls, 'unet', 'test_resnet', weights=None)

@pytest.fixture(scope='module')
def model(data):
    learn = learner(data)
    with learn.no_bar(), learn.no_logging(): learn.fit(1)
    return as_bundle(learn)

def test_a_training_remembers_what_it_saw(data, model):
    seen = light_bounds([light_of(np.asarray(data[s][0])) for s in model.split['train']])
    for k in ('least','most','usual'): np.testing.assert_allclose(model.light[k], seen[k], atol=1e-3)

def test_light_of_by_hand():
    photo = np.random.default_rng(0).integers(0, 256, (50,80,3)).astype(np.uint8)
    for c in range(3):
        values = np.sort(photo[...,c].ravel())
        assert light_of(photo)[c]==values[round(.02*3999)] and light_of(photo)[3+c]==values[round(.98*3999)]

def test_only_odd_light_is_changed(data, model, monkeypatch):
    monkeypatch.setattr('drone_seg.predict.stream.View.sureness', lambda view, windows: .5)
    model = replace(model, light=light_bounds([light_of(np.asarray(data[s][0])) for s in data.stems]))
    plain,photo = replace(model, light=None),np.asarray(data[data.stems[0]][0])
    assert (model.predict(photo).ids==plain.predict(photo).ids).all() and not model.predict(photo).notes
    hazy = (.4*photo+.6*215).astype(np.uint8)
    pred = model.predict(hazy)
    assert pred.notes==('it is hazier than the training photos, and was brought to their light',)
    assert (pred.ids==plain.predict(relit(hazy, light_table(light_of(hazy), model.light))).ids).all()

def test_it_is_left_alone_where_the_network_is_less_sure_then(data, model):
    from drone_seg.predict.stream import Looker, View
    model = replace(model, light=light_bounds([light_of(np.asarray(data[s][0])) for s in data.stems]))
    hazy = (.4*np.asarray(data[data.stems[0]][0])+.6*215).astype(np.uint8)
    views = []
    for sure in ((.9, .8), (.8, .9), (.84, .8)): # as it is, in the usual light
        view = View(Looker(model), model, 1., False, SimpleNamespace(total=0))
        answers = iter(sure[::-1])
        view.sureness = lambda windows: next(answers)
        view.rows(hazy)
        views.append(view.light is not None)
    assert views==[False, True, True]

def test_it_travels_with_the_bundle(model, tmp_path):
    model.save(tmp_path/'b')
    assert load_bundle(tmp_path/'b').light==model.light
    about = json.loads((tmp_path/'b/bundle.json').read_text())
    for wrong in ({}, dict(least=[0]*7, most=[0]*7), [1], dict(about['light'], usual=[0]*6)):
        (tmp_path/'b/bundle.json').write_text(json.dumps(about | dict(light=wrong)))
        with pytest.raises(ModelError, match='light is'): load_bundle(tmp_path/'b')
    del about['light'] # a bundle of before
    (tmp_path/'b/bundle.json').write_text(json.dumps(about))
    assert load_bundle(tmp_path/'b').light is None

class Normalised(Callback): # as fastai's loaders may be
    order = -40
    def before_batch(self): self.learn.xb = (self.x*4-2,)

def test_pixels_that_are_no_colours_are_left_alone(data):
    learn = learner(data)
    with learn.no_bar(), learn.no_logging(): learn.fit(1, cbs=Normalised())
    assert as_bundle(learn).light is None

@pytest.mark.parametrize('gain,veil,odd', [(1,0,False), (.4,130,True), (.2,0,True), ((1.3,1,.3),0,True)])
def test_the_runner_of_exports_sees_the_same(data, gain, veil, odd):
    from drone_seg.export.run_onnx import _in_usual_light, _is_odd, _light_of
    seen = json.loads(json.dumps(light_bounds([light_of(np.asarray(data[s][0])) for s in data.stems])))
    photo = np.clip(np.asarray(data[data.stems[3]][0])*gain+veil, 0, 255).astype(np.uint8)
    light = _light_of(photo)
    assert (light==light_of(photo)).all() and _is_odd(light, seen)==bool(odd_light(light, seen))==odd
    if odd: assert (_in_usual_light(photo, light, seen)==relit(photo, light_table(light, seen))).all()

def test_the_runner_chooses_as_the_library_does(data, model):
    from drone_seg.export.run_onnx import predict_numbers
    light = light_bounds([light_of(np.asarray(data[s][0])) for s in data.stems])
    model = replace(model, light=light)
    with torch.inference_mode():
        ask = lambda x: model.net.float()(torch.from_numpy(x)).numpy()
        about = dict(size=model.size, window=None, multiple=32, light=light, answer='logits', gsd=None, scale=model.scale,
                     sides=model.sides, squish=False, photo_size=model.photo_size, classes=model.classes.to_dict()['classes'])
        for gain,veil,odd in ((1, 0, None), (.4, 129, 'hazier than'), (.2, 0, 'darker than')):
            photo = (gain*np.asarray(data[data.stems[0]][0])+veil).astype(np.uint8)
            ids = model.predict(photo, dtype='fp32').ids
            assert odd_light(light_of(photo), light)==odd
            assert (model.classes.decode(predict_numbers(ask, photo, about))==ids).mean()>.999

class Cut(Callback):
    def before_epoch(self):
        if self.epoch==1: raise RuntimeError('cut')

def test_what_is_not_there_has_no_light(data, model):
    seen = light_bounds([light_of(np.asarray(data[s][0])) for s in data.stems])
    photo = np.asarray(data[data.stems[0]][0])
    wide = np.full((96,1440,3), EMPTY, np.uint8)
    wide[:,:144] = photo
    assert odd_light(light_of(wide), seen) is None
    assert odd_light(light_of(np.where((wide==EMPTY).all(2, keepdims=True), wide, wide//8)), seen)=='darker than'

def test_the_windows_that_decide_show_something(data, model):
    from drone_seg.predict.stream import Looker, View
    from drone_seg.predict.windows import cover_size
    wide = np.full((384,1440,3), EMPTY, np.uint8)
    wide[:,720:] = 200
    for turned in (False, True):
        view = View(Looker(model), model, 1., turned, SimpleNamespace(total=0))
        t = (lambda a: a[::-1]) if turned else tuple
        few = view.few_windows(wide, cover_size(t((384,1440)), t((96,144)), .25, 32))
        assert 0<len(few)<=4 and all(w.shape==(96,144,3) and (w==200).mean()>.5 for w in few)

def test_inputs_that_are_no_photos_are_left_alone():
    from drone_seg.train.learner import SeeLight
    for shape in ((4,), (4,3), (4,3,2,8,8), (4,1,8,8)):
        cb = SeeLight()
        cb.learn = SimpleNamespace(x=torch.rand(shape))
        cb.before_batch()
        assert cb.seen is None

def test_a_folder_of_another_light_is_done_again(data, model):
    from drone_seg.predict.ledger import fingerprint
    assert fingerprint(model)!=fingerprint(replace(model, light=None))

def test_a_training_that_goes_on_remembers(data, tmp_path):
    def run(folder, **kw):
        set_seed(0)
        learn = learner(data)
        try:
            with learn.no_bar(), learn.no_logging(), learn.added_cbs(kw.pop('cbs', [])):
                fit_stages(learn, [Stage(2, 1e-3)], folder, **kw)
        except RuntimeError as e: assert 'cut' in str(e)
        return learn.see_light
    whole = run(tmp_path/'a')
    run(tmp_path/'b', cbs=[Cut()])
    on = run(tmp_path/'b', resume=True)
    assert (on.seen,on.n)==(whole.seen,whole.n)
