"76b_runs.doubts, 77_runs.suspects: faults planted into drawn masks are found, and what is written can be read"
import json, shutil
from pathlib import Path
import cv2, numpy as np, pandas as pd, pytest
from PIL import Image
from scipy import ndimage
from drone_seg.classes import IGNORE, ClassTable
from drone_seg.fields import DroneSegError
from drone_seg.models.bundle import Bundle, load_bundle
from drone_seg.models.unet import create_unet
from drone_seg.data.datasets import open_dataset
from drone_seg.photo.images import save_image, save_mask
from drone_seg.runs.doubts import Answer, Points, BINS, habits, log_rates, find_shift, find_doubts
from drone_seg.runs.run import open_run
from drone_seg.runs.suspects import *
from drone_seg.scenes.scene import SCENE_CLASSES, draw_scene, write_scenes
from drone_seg.train.facts import pair_fingerprint
from drone_seg.train.recipes import recipe

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
    for c in range(N):
        label,k = ndimage.label(truth==c)
        for r in range(1, k+1):
            mine = label==r
            for s,p in zip(answer.seen[mine], answer.sure[mine]): slow[c,s,int(p)*BINS//256] += min(1, 300/mine.sum())
    assert np.allclose(n, slow)

def test_a_habit_is_no_evidence_and_what_never_happens_is():
    total = np.zeros((3,3,BINS))
    total[0,0,15],total[1,1,15],total[1,2,15],total[2,2,15] = 10000,5000,5000,10000 # class 1 is taken for 2 half of the time
    own = np.zeros_like(total)
    own[1,0,15] = 100
    rates = log_rates(total+own, own)
    assert np.allclose(np.exp(rates).sum((1,2)), 1)
    assert rates[2,2,15]-rates[1,2,15]<1 and rates[0,0,15]-rates[1,0,15]>4 and rates[2,2,15]-rates[0,2,15]>4
    assert np.isfinite(log_rates(own, own)).all() # one photo and no other: nothing is known

def listed(truths, masks):
    "(photo, doubt), the worst first"
    answers = [answered(t, m, k) for k,(t,m) in enumerate(zip(truths, masks))]
    each = [habits(a, N) for a in answers]
    found = [(k, d) for k,a in enumerate(answers) for d in find_doubts(a, log_rates(sum(each), each[k]))]
    return sorted(found, key=lambda o: -o[1].score)

TRUTHS = [scene(k) for k in range(6)]

def test_masks_that_are_right_raise_no_doubt():
    assert [d for _,d in listed(TRUTHS, TRUTHS) if d.score>20]==[]

def test_a_region_given_another_class_comes_first():
    grass,paved = NAMES.index('grass'),NAMES.index('paved')
    k = max(range(6), key=lambda k: (TRUTHS[k]==grass).sum())
    wrong = np.where(TRUTHS[k]==grass, paved, TRUTHS[k]).astype(np.uint8)
    i,first = listed(TRUTHS, [wrong if j==k else t for j,t in enumerate(TRUTHS)])[0]
    assert (i, first.given, first.meant)==(k, paved, grass)
    y,x,h,w = first.box
    assert first.region.shape==(h,w) and (wrong!=TRUTHS[k])[y:y+h,x:x+w][first.region].mean()>.5

def test_what_was_missed_comes_first():
    grass,roof = NAMES.index('grass'),NAMES.index('roof')
    k = max(range(6), key=lambda k: (TRUTHS[k]==grass).sum())
    truth = TRUTHS[k].copy()
    rows,cols = np.nonzero(truth==grass)
    y,x = rows[len(rows)//2],cols[len(rows)//2]
    truth[y:y+14,x:x+14][truth[y:y+14,x:x+14]==grass] = roof # a roof that the mask does not have
    i,first = listed([truth if j==k else t for j,t in enumerate(TRUTHS)], TRUTHS)[0]
    assert (i, first.fault, first.given, first.meant)==(k, 'missed', grass, roof)
    r,c,h,w = first.box
    assert (truth==roof)[r:r+h,c:c+w][first.region].mean()>.9 # noise beside it is seen as roof, too

@pytest.mark.parametrize('dy,dx', [(5,-4), (0,7), (-6,0)])
def test_a_shifted_mask_is_found_with_its_way_back(dy, dx):
    k = max(range(6), key=lambda k: len(np.unique(TRUTHS[k])))
    wide = np.pad(TRUTHS[k], 10, mode='edge')
    moved = wide[10+dy:,10+dx:][:96,:144]
    i,first = listed(TRUTHS, [moved if j==k else t for j,t in enumerate(TRUTHS)])[0]
    assert (i, first.fault, first.moved)==(k, 'shifted', (dy,dx))
    assert first.region.all() and first.region.shape==(96,144)

def test_the_mask_of_another_photo_is_found():
    found = listed(TRUTHS, [TRUTHS[1], TRUTHS[0], *TRUTHS[2:]])
    assert {i for i,d in found if d.fault=="another's mask"}<={0,1} and found[0][1].fault=="another's mask"

@pytest.mark.parametrize('fill', [IGNORE, 0])
def test_masks_that_say_nothing_or_one_thing(fill):
    flat = np.full((96,144), fill, np.uint8)
    assert listed([*TRUTHS, flat], [*TRUTHS, flat]) is not None
    answer = answered(flat, flat)
    assert find_shift(answer)==((0,0),0.) or find_shift(answer)[1]<.02

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
    assert '4 photos that were looked at; 4 others trained the model' in found.sentence
    def right(s):
        truth = data.read_ids(s)
        return (load_bundle(root/'run').predict(data.pair(s).image, progress=False).ids==truth)[truth!=data.classes.void_id]
    same = np.concatenate([right(s) for s in data.stems[4:]]).mean()
    assert found.answers.agreement==pytest.approx(same, abs=1e-9) and f'agree with {same:.0%} of' in found.sentence
    few = find_suspects(root/'run', data, most=1, progress=False)
    assert few.sentence.startswith(f'1 suspects, the worst of {len(found)}, in 1 of the 4') and len(few)==1 and few.found==found.found==len(found)

def test_answers_are_those_of_predict(desk):
    root,data = desk
    found = find_suspects(root/'run', data, progress=False)
    stem = data.stems[5]
    p = load_bundle(root/'run').predict(data.pair(stem).image, confidence='max')
    answer = found.answers.read(stem)
    assert (data.classes.decode(answer.seen)==p.ids).all()
    assert np.abs(answer.sure.astype(int)-p.confidence).max()<=1

def test_a_grid_takes_every_so_manieth_point(desk, monkeypatch):
    root,data = desk
    import drone_seg.runs.doubts as doubts
    image,ids = data[6]
    given,points = data.classes.encode(ids),Points(load_bundle(root/'run'))
    for im,g in ((image, given), (image.swapaxes(0, 1).copy(), given.T.copy())):
        monkeypatch.setattr(doubts, '_SIDE', 1024)
        whole = points.ask(im, g)
        monkeypatch.setattr(doubts, '_SIDE', 32)
        part = points.ask(im, g)
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
    monkeypatch.setattr(Points, 'ask', lambda self, image, given: answered(truth[image.tobytes()], given))
    return find_suspects(root/'run', again, progress=False),stem

def test_the_planted_photo_is_found(faulty):
    found,stem = faulty
    first = found.table.query('given=="roof" and meant=="grass"').iloc[0]
    assert first.photo==stem and first.name<=3 and list(found.table.score)==sorted(found.table.score, reverse=True)

def test_what_is_written_can_be_read(faulty, tmp_path):
    found,_ = faulty
    out = found.save(tmp_path/'out')
    table,coco = pd.read_csv(out/'suspects.csv'),json.loads((out/'suspects.json').read_text(encoding='utf-8'))
    assert len(table)==len(coco['annotations'])==len(found) and list(table['rank'])==[*range(1, len(found)+1)]
    names = {c['id']: c['name'] for c in coco['categories']}
    images = {i['id']: i for i in coco['images']}
    for row,mark,doubt in zip(table.itertuples(), coco['annotations'], found.doubts):
        assert names[mark['category_id']]==(row.meant if row.given==row.given else 'whole photo') and images[mark['image_id']]['file_name'].startswith(str(row.photo))
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

def test_folds_keep_places_apart_and_go_on(tmp_path, monkeypatch):
    from drone_seg.runs import folds
    monkeypatch.setenv('DRONE_SEG_CACHE', str(tmp_path/'cache'))
    data = open_dataset(write_scenes(tmp_path/'scenes', 8, size=(64,96), places=4))
    place = data.places(progress=False).place
    net = create_unet('test_resnet', data.classes.n, widths=[16]*4)
    Bundle(net, data.classes, (64,96), split=dict(train=data.stems[:6], valid=data.stems[6:])).save(tmp_path/'run')
    run = open_run(tmp_path/'run')
    with pytest.raises(DroneSegError, match='does not tell how it was trained'): find_suspects(run, data, budget=60, progress=False)
    run.recipe = recipe('fast', encoder='test_resnet', weights=None, size=(64,96), batch=2, epochs=1, freeze_epochs=0)
    trained = []
    train = folds.train_recipe
    def stop_in_the_second(*args, split=None, **kwargs):
        trained.append(split)
        if len(trained)==2: raise KeyboardInterrupt
        return train(*args, split=split, **kwargs)
    monkeypatch.setattr(folds, 'train_recipe', stop_in_the_second)
    with pytest.raises(KeyboardInterrupt): find_suspects(run, data, budget=60, folds=2, progress=False, say=str)
    found = find_suspects(run, data, budget=60, folds=2, progress=False, say=str)
    assert set(found.answers)==set(data.stems) and len(trained)==3 # the first fold was there already
    for s in trained: assert not {place[o] for o in s.train} & {place[o] for o in s.valid} and not set(s.valid) & set(data.stems[6:])
    assert sorted(trained[0].valid+trained[2].valid)==data.stems[:6]

def test_odd_names_stay_as_they_are(tmp_path, monkeypatch):
    names = ['трава "x"', "l'eau <b>", '草, 3', *NAMES[3:]]
    classes = ClassTable(['void', *names], SCENE_CLASSES.colors, SCENE_CLASSES.ids, SCENE_CLASSES.void)
    write_scenes(tmp_path/'scenes', 4, size=(64,96))
    for sub in ('images','masks'):
        for i,f in enumerate(sorted((tmp_path/'scenes'/sub).iterdir())): f.rename(f.with_name(f"'фото' {i}{f.suffix}"))
    data = open_dataset(tmp_path/'scenes', classes=classes)
    Bundle(create_unet('test_resnet', N, widths=[16]*4), classes, (64,96), split=dict(train=['other'], valid=data.stems)).save(tmp_path/'run')
    shift = lambda s: 1 if s==data.stems[0] else 0 # of one photo all is seen as another class
    other = {data[s][0].tobytes(): (classes.encode(data.read_ids(s)).astype(int)+shift(s))%N for s in data.stems}
    monkeypatch.setattr(Points, 'ask', lambda self, image, given: answered(other[image.tobytes()].astype(np.uint8), given))
    monkeypatch.setattr('drone_seg.runs.doubts._CHANCE', -9)
    found = find_suspects(tmp_path/'run', data, progress=False)
    out = found.save(tmp_path/'out')
    table,coco = pd.read_csv(out/'suspects.csv'),json.loads((out/'suspects.json').read_text(encoding='utf-8'))
    assert len(table)==len(coco['annotations'])==len(found)>0 and set(table.photo)<=set(data.stems) and set(table.given)<=set(names)
    assert [c['name'] for c in coco['categories']]==[*names, 'whole photo'] and all(i['file_name'].startswith("'фото' ") for i in coco['images'])

def test_marks_stay_within_the_photo_and_photos_are_named_with_their_folders(tmp_path, monkeypatch):
    "Photos of one name and of 95x63 pixels, seen at every second point; in two of them grass is taken for roof"
    grass,roof = (SCENE_CLASSES.id_of(n) for n in ('grass','roof'))
    for k in range(8):
        image,ids = draw_scene(k, size=(63,95))
        name = f'flight{k//4}/{k%4}'
        save_image(image, tmp_path/'scenes'/'images'/f'{name}.jpg')
        save_mask(ids, SCENE_CLASSES, tmp_path/'scenes'/'masks'/f'{name}.png')
        answer = np.where(ids==grass, roof, ids) if k%4==1 else ids
        save_mask(answer, SCENE_CLASSES, tmp_path/'answers'/f'{name}.png')
    data = open_dataset(tmp_path/'scenes', classes=SCENE_CLASSES)
    monkeypatch.setattr('drone_seg.runs.doubts._SIDE', 48)
    found = find_suspects(tmp_path/'answers', data, progress=False)
    t,coco = found.table,found.to_coco()
    assert {i['file_name'] for i in coco['images']}=={'flight0/1.jpg','flight1/1.jpg'}
    assert (t.x+t.width<=95).all() and (t.y+t.height<=63).all() and (t.pixels<=t.width*t.height).all()
    assert (t.x+t.width).max()==95 and (t.y+t.height).max()==63 # some lie at the edge
    for mark in coco['annotations']: assert (np.reshape(mark['segmentation'][0], (-1,2))<=[95,63]).all()

def test_photos_that_trained_are_known_by_what_is_in_them(desk, tmp_path):
    "Another flight whose photos have the same names"
    root,data = desk
    run = open_run(shutil.copytree(root/'run', tmp_path/'run'))
    run.facts['data'] = {s: pair_fingerprint(data.pair(s)) for s in data.stems}
    write_scenes(tmp_path/'other', 8, size=(64,96), seed=50)
    assert set(find_suspects(run, data, progress=False).answers)==set(data.stems[4:])
    other = open_dataset(tmp_path/'other')
    assert other.stems==data.stems and set(find_suspects(run, other, progress=False).answers)==set(other.stems)
