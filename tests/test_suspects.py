"76b_runs.doubts, 77_runs.suspects: faults planted into drawn masks are found, and what is written can be read"
import json, shutil
from pathlib import Path
import cv2, numpy as np, pandas as pd, pytest
from PIL import Image
from drone_seg.classes import IGNORE
from drone_seg.fields import DroneSegError
from drone_seg.models.bundle import Bundle
from drone_seg.models.unet import create_unet
from drone_seg.data.datasets import open_dataset
from drone_seg.photo.images import save_mask
from drone_seg.runs.doubts import *
from drone_seg.runs.suspects import *
from drone_seg.scenes.scene import SCENE_CLASSES, draw_scene, write_scenes

N = SCENE_CLASSES.n
NAMES = SCENE_CLASSES.scored_names

def scene(seed): return SCENE_CLASSES.encode(draw_scene(seed, size=(96,144))[1])

def answered(truth, given, seed=0, right=.9):
    "What a model says that is right at most points, and the less sure where it is wrong"
    rng = np.random.default_rng(seed)
    lost = (rng.random(truth.shape)>right) | (truth==IGNORE)
    seen = np.where(lost, rng.integers(0, N, truth.shape), truth).astype(np.uint8)
    return Answer(given, seen, np.where(lost, 120, 220).astype(np.uint8))

def test_habits_are_counts_of_pairs():
    truth = scene(1)
    answer = answered(truth, truth)
    n = habits(answer, N)
    slow = np.zeros_like(n)
    for g,s,c in zip(answer.given.reshape(-1), answer.seen.reshape(-1), answer.sure.reshape(-1)):
        if g!=IGNORE: slow[g,s,int(c)*BINS//256] += 1
    assert (n==slow).all()

def test_a_habit_is_no_evidence_and_what_never_happens_is():
    total = np.zeros((3,3,BINS), np.int64)
    total[0,0,15],total[1,1,15],total[1,2,15],total[2,2,15] = 10000,5000,5000,10000 # class 1 is taken for 2 half of the time
    own = np.zeros_like(total)
    own[1,0,15] = 100
    says = evidence(total+own, own)
    assert says[1,2,15]<1 and says[1,0,15]>4 and says[0,2,15]>4
    assert (says[np.arange(3),np.arange(3)]==0).all() and says.min()>=0
    alone = evidence(own, own) # one photo and no other: nothing is known
    assert np.isfinite(alone).all()

def test_the_planted_region_comes_first_and_its_box_is_right():
    truths = [scene(k) for k in range(5)]
    grass,car = NAMES.index('grass'),NAMES.index('car')
    wrong = truths[0].copy()
    wrong[truths[0]==grass] = car
    answers = [answered(t, wrong if k==0 else t, k) for k,t in enumerate(truths)]
    each = [habits(a, N) for a in answers]
    found = [(d.score, k, d) for k,a in enumerate(answers) for d in find_doubts(a, evidence(sum(each), each[k]))]
    _,k,first = max(found, key=lambda o: o[0])
    assert (k, first.given, first.meant)==(0, car, grass)
    y,x,h,w = first.box
    assert first.region.shape==(h,w) and (wrong!=truths[0])[y:y+h,x:x+w][first.region].all()

@pytest.fixture(scope='module')
def desk(tmp_path_factory):
    "Drawn scenes, and an untrained model that has seen the first four of them"
    root = tmp_path_factory.mktemp('desk')
    data = open_dataset(write_scenes(root/'scenes', 8, size=(64,96)))
    net = create_unet('test_resnet', data.classes.n, widths=[16]*4)
    Bundle(net, data.classes, (64,96), split=dict(train=data.stems[:4], valid=data.stems[4:])).save(root/'run')
    return root,data

def test_only_photos_that_have_not_trained_are_judged(desk):
    root,data = desk
    found = find_suspects(root/'run', data, progress=False)
    assert set(found.answers)==set(data.stems[4:]) and set(found.table.photo)<=set(data.stems[4:])
    assert '4 photos that have not trained' in found.sentence

def test_answers_are_those_of_predict(desk):
    root,data = desk
    found = find_suspects(root/'run', data, progress=False)
    stem = data.stems[5]
    from drone_seg.models.bundle import load_bundle
    p = load_bundle(root/'run').predict(data.pair(stem).image, confidence='max')
    answer = found.answers.read(stem)
    assert (data.classes.decode(answer.seen)==p.ids).all()
    assert np.abs(answer.sure.astype(int)-p.confidence).max()<=1

def test_a_grid_takes_every_so_manieth_point(desk, monkeypatch):
    root,data = desk
    from drone_seg.models.bundle import load_bundle
    from drone_seg.predict.stream import Looker
    import drone_seg.runs.doubts as doubts
    image,ids = data[6]
    given,look = data.classes.encode(ids),Looker(load_bundle(root/'run'))
    for im,g in ((image, given), (image.swapaxes(0, 1).copy(), given.T.copy())):
        monkeypatch.setattr(doubts, '_SIDE', 1024)
        whole = ask(look, im, g)
        monkeypatch.setattr(doubts, '_SIDE', 32)
        part = ask(look, im, g)
        assert part.step==3 and (part.seen==whole.seen[::3,::3]).all() and (part.given==g[::3,::3]).all() and (part.sure==whole.sure[::3,::3]).all()

@pytest.fixture
def faulty(desk, tmp_path, monkeypatch):
    "The same scenes, grass of the sixth given as roof, and a model that knows them"
    root,data = desk
    again = open_dataset(shutil.copytree(root/'scenes', tmp_path/'faulty'))
    stem = data.stems[5]
    ids = again.read_ids(stem)
    ids[ids==data.classes.id_of('grass')] = data.classes.id_of('roof')
    save_mask(ids, data.classes, again.pair(stem).mask)
    truth = {data[s][0].tobytes(): data.classes.encode(data.read_ids(s)) for s in data.stems}
    monkeypatch.setattr('drone_seg.runs.suspects.ask', lambda look, image, given: answered(truth[image.tobytes()], given))
    return find_suspects(root/'run', again, progress=False),stem

def test_the_planted_photo_is_found(faulty):
    found,stem = faulty
    first = found.table.iloc[0]
    assert (first.photo, first.given, first.meant)==(stem, 'roof', 'grass') and list(found.table.score)==sorted(found.table.score, reverse=True)

def test_what_is_written_can_be_read(faulty, tmp_path):
    found,_ = faulty
    out = found.save(tmp_path/'out')
    table,coco = pd.read_csv(out/'suspects.csv'),json.loads((out/'suspects.json').read_text(encoding='utf-8'))
    assert len(table)==len(coco['annotations'])==len(found) and list(table['rank'])==[*range(1, len(found)+1)]
    names = {c['id']: c['name'] for c in coco['categories']}
    images = {i['id']: i for i in coco['images']}
    for row,mark,doubt in zip(table.itertuples(), coco['annotations'], found.doubts):
        assert names[mark['category_id']]==row.meant and images[mark['image_id']]['file_name'].startswith(str(row.photo))
        drawn = np.zeros((images[mark['image_id']]['height'], images[mark['image_id']]['width']), np.uint8)
        for ring in mark['segmentation']: cv2.fillPoly(drawn, [np.array(ring, np.int32).reshape(-1, 2)], 1)
        y,x,h,w = doubt.box
        assert drawn[y:y+h,x:x+w][doubt.region].all() # the polygon holds the region
    assert {f.name for f in out.iterdir()}>={'suspects.csv','suspects.json','sheet_1.jpg'}

def test_nothing_is_lost_and_nothing_half_written(faulty, tmp_path, monkeypatch):
    found,_ = faulty
    tmp_path = tmp_path/'here'
    (tmp_path/'out').mkdir(parents=True)
    (tmp_path/'out'/'mine.txt').write_text('mine')
    with pytest.raises(DroneSegError, match='is there already'): found.save(tmp_path/'out')
    def stop(*args): raise KeyboardInterrupt
    monkeypatch.setattr(Suspects, 'show', stop)
    with pytest.raises(KeyboardInterrupt): found.save(tmp_path/'other')
    assert [f.name for f in tmp_path.iterdir()]==['out']

def test_bad_input_is_one_line(desk, tmp_path):
    root,data = desk
    def again(name): return Path(shutil.copytree(root/'scenes', tmp_path/name))
    small = again('small')
    save_mask(np.ones((30,40), np.uint8), SCENE_CLASSES, next((small/'masks').glob('*5.png')))
    gone = open_dataset(again('gone'))
    gone.pair(gone.stems[5]).image.unlink()
    named = again('named')
    (named/'classes.csv').write_text((named/'classes.csv').read_text().replace('grass', 'lawn'))
    Bundle(create_unet('test_resnet', data.classes.n, widths=[16]*4), data.classes, (64,96), split=dict(train=data.stems, valid=['x'])).save(tmp_path/'all')
    for run,d,says in ((root/'run', small, 'mask is 40x30'), (root/'run', gone, 'it was here when the data set was opened'), (root/'run', named, 'the model knows'),
                       (tmp_path/'all', data, 'all 8 photos trained all'), (tmp_path/'none', data, 'not a run'), (root/'run', tmp_path/'nowhere', 'no such folder')):
        with pytest.raises(DroneSegError, match=says) as e: find_suspects(run, d, progress=False)
        assert len(str(e.value).splitlines())==1
