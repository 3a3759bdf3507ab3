"""What to label next: the choice beside a slow one, networks of any make, photos known whatever they are called."""
import shutil
from pathlib import Path
import numpy as np, pytest
from PIL import Image
from drone_seg.fields import ModelError, PredictError
from drone_seg.models.bundle import Bundle
from drone_seg.models.zoo import create_model
from drone_seg.runs.to_label import glances, choose, glance, next_photos
from drone_seg.scenes.scene import SCENE_CLASSES, draw_scene, write_scenes

def slow(looks, worth, place, labelled, n): # one photo after the other, each distance anew
    have,new = [int(k) for k in np.flatnonzero(labelled)],[]
    for _ in range(n):
        def value(k):
            unlike = min((1-float(looks[k]@looks[j]) for j in have+new), default=2.)
            return unlike*worth[k]/(1+sum(place[j]==place[k] for j in new))
        new.append(max((k for k in range(len(looks)) if k not in have+new), key=value))
    return new

@pytest.mark.parametrize('seed,known', [(0, 0), (1, 1), (2, 6), (3, 20)])
def test_choice_as_by_hand(seed, known):
    rng = np.random.default_rng(seed)
    looks = rng.normal(size=(40,5))
    looks /= np.linalg.norm(looks, axis=1, keepdims=True)
    worth,place,labelled = rng.random(40)+.1,rng.integers(0, 7, 40),rng.permutation(40)<known
    found = choose(looks, worth, place, labelled, 15)
    assert [k for k,*_ in found]==slow(looks, worth, place, labelled, 15)
    before = labelled.copy()
    for k,of_place,unlike in found:
        assert of_place==(before & (place==place[k])).sum()
        before[k] = True

def test_all_are_chosen_once_where_all_are_asked_for():
    looks = np.ones((5,3))/3**.5 # all the same
    assert sorted(k for k,*_ in choose(looks, np.ones(5), np.zeros(5), np.arange(5)==2, 4))==[0,1,3,4]

@pytest.mark.parametrize('name,encoder,squish', [('unet', 'test_efficientnet', False), ('fpn', 'test_efficientnet', True),
                                                 ('unet-scratch', None, False), ('segformer', 'mit_b0', False), ('upernet', 'convnext_atto', False)])
def test_networks_of_any_make(name, encoder, squish, tmp_path):
    photo = tmp_path/'a.png'
    Image.fromarray(draw_scene(1, size=(128,192))[0]).save(photo)
    net = create_model(name, encoder, classes=SCENE_CLASSES, weights=None).eval()
    looks,doubt = glance(Bundle(net, SCENE_CLASSES, (64,96), squish=squish), photo)
    assert looks.ndim==1 and abs(np.linalg.norm(looks)-1)<1e-5
    assert doubt.shape==(SCENE_CLASSES.n,) and (doubt>0).all() and (doubt<=.25).all()
    assert not net.encoder._forward_hooks

@pytest.fixture(scope='module')
def run(tmp_path_factory):
    from drone_seg.runs.published import run_recipe
    root = tmp_path_factory.mktemp('next')
    data = write_scenes(root/'scenes', 6, size=(64,96))
    small = dict(encoder='test_efficientnet', size=(64,96), epochs=1, freeze_epochs=0, batch=4, weights=None, bar=False)
    run_recipe('fast', data, 'random', root/'run', say=lambda *args: None, **small)
    return root

def test_labelled_photos_are_known_by_content(run, tmp_path):
    shutil.copytree(run/'scenes', tmp_path/'all') # photos and masks of the run, and three others of which one has the name of a labelled one
    new = write_scenes(tmp_path/'new', 3, size=(64,96), seed=50)/'images'
    old = sorted((tmp_path/'all'/'images').iterdir())
    name = old[0].name
    old[0].rename(old[0].with_name('renamed'+old[0].suffix))
    for f,to in zip(sorted(new.iterdir()), (name,'b.png','c.png')): shutil.copy(f, tmp_path/'all'/'images'/to)
    found = next_photos(run/'run', tmp_path/'all', 3, progress=False)
    assert sorted(f.name for f in found.files)==sorted([name,'b.png','c.png'])

def test_bundle_alone_knows_names(run, tmp_path):
    shutil.copytree(run/'run', tmp_path/'bundle')
    (tmp_path/'bundle'/'run.json').unlink()
    new = write_scenes(tmp_path/'new', 2, size=(64,96), seed=50)/'images'
    for k,f in enumerate(sorted(new.iterdir())): shutil.copy(f, tmp_path/f'x{k}{f.suffix}')
    photos = [*(run/'scenes'/'images').iterdir(), *tmp_path.glob('x*')]
    assert sorted(f.name[:2] for f in next_photos(tmp_path/'bundle', photos, 2, progress=False).files)==['x0','x1']

@pytest.mark.parametrize('name,encoder', [('dpt', 'test_vit'), ('deeplabv3-resnet101', None)])
def test_encoders_that_give_more_than_maps(name, encoder, tmp_path):
    "Tokens beside maps, and maps by name: the deepest map is taken"
    photo = tmp_path/'a.png'
    Image.fromarray(draw_scene(1, size=(64,96))[0]).save(photo)
    net = create_model(name, encoder, classes=SCENE_CLASSES, weights=None).eval()
    looks,_ = glance(Bundle(net, SCENE_CLASSES, (64,96)), photo)
    assert len(looks)==(64 if name=='dpt' else 2048) and abs(np.linalg.norm(looks)-1)<1e-5

def test_an_encoder_without_maps_is_said_at_once(tmp_path, monkeypatch):
    photo = tmp_path/'a.png'
    Image.fromarray(draw_scene(1, size=(64,96))[0]).save(photo)
    net = create_model('unet', 'test_efficientnet', classes=SCENE_CLASSES, weights=None).eval()
    bundle = Bundle(net, SCENE_CLASSES, (64,96))
    monkeypatch.setattr('drone_seg.runs.to_label._maps', lambda made: [])
    with pytest.raises(ModelError, match='unet: its encoder makes no map'): glances(bundle, [photo], False)

@pytest.fixture
def bundle(run, tmp_path): # without its run, and what it knows of the photos is their names in two folders
    import json
    shutil.copytree(run/'run', tmp_path/'bundle')
    (tmp_path/'bundle'/'run.json').unlink()
    about = json.loads((tmp_path/'bundle'/'bundle.json').read_text())
    about['split'] |= dict(train=['flight0/DJI_000','flight0/DJI_001'], valid=['flight1/DJI_000'])
    (tmp_path/'bundle'/'bundle.json').write_text(json.dumps(about))
    return tmp_path/'bundle'

def test_names_below_folders(run, bundle, tmp_path):
    new = sorted((write_scenes(tmp_path/'new', 4, size=(64,96), seed=50)/'images').iterdir())
    names = ['flight0/DJI_000','flight0/DJI_001','flight1/DJI_000','flight1/DJI_001']
    for f,name in zip(new, names):
        (tmp_path/'photos'/name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(f, tmp_path/f'photos/{name}{f.suffix}')
    found = next_photos(bundle, tmp_path/'photos', 1, progress=False)
    assert found.left==1 and found.files[0].with_suffix('')==tmp_path/'photos/flight1/DJI_001'
    with pytest.raises(PredictError, match='the run had none of them'):
        next_photos(bundle, tmp_path/'photos', 1, labelled=tmp_path/'new/images', progress=False)

def test_what_was_written_before_is_no_photo(run, tmp_path):
    flight = write_scenes(tmp_path/'flight', 3, size=(64,96), seed=50)/'images'
    first = next_photos(run/'run', flight, 1, progress=False)
    first.save(flight/'to_label')
    again = next_photos(run/'run', flight, 2, progress=False)
    assert again.left==2 and {f.parent for f in again.files}=={flight} and not {*again.files} & {*first.files}
    assert len(next_photos(run/'run', flight/'to_label/photos', 1, progress=False))==1 # asked for by name

def test_too_many_is_said_before_looking_and_broken_photos_say_why(run, tmp_path, monkeypatch):
    for name in 'ab': (tmp_path/f'{name}.jpg').write_bytes(b'nonsense')
    with pytest.raises(PredictError, match=r'n=2; 2 of 2 photos .* cannot be read \(.*a\.jpg'):
        next_photos(run/'run', tmp_path, 2, progress=False)
    def looked(*args): raise AssertionError('looked')
    monkeypatch.setattr('drone_seg.runs.to_label.glance', looked)
    with pytest.raises(PredictError, match='give 1 to 2'): next_photos(run/'run', tmp_path, 3, progress=False)

def test_masks_of_a_data_set_are_no_photos(run, tmp_path, monkeypatch, capsys):
    import csv
    from drone_seg import cli
    data = write_scenes(tmp_path/'data', 3, size=(64,96), seed=50)
    args = ['drone_seg', 'next', run/'run', data, '--labelled', run/'scenes', '-n', 3, '--out', tmp_path/'out']
    monkeypatch.setattr('sys.argv', list(map(str, args)))
    try: cli.main()
    except SystemExit as e: assert not e.code, capsys.readouterr()
    names = [row['photo'] for row in csv.DictReader((tmp_path/'out/next.csv').open())]
    assert sorted(names)==sorted(f.name for f in (data/'images').iterdir())

@pytest.mark.parametrize('to', ['labelme','cvat'])
def test_what_to_label_next_is_labelled_for_a_tool(to, run, tmp_path, monkeypatch, capsys):
    from drone_seg import cli
    from drone_seg.data.datasets import open_dataset
    data = write_scenes(tmp_path/'data', 3, size=(64,96), seed=50)
    monkeypatch.setattr('sys.argv', list(map(str, ['drone_seg', 'next', run/'run', data/'images', '--labelled', run/'scenes', '-n', 2, '--out', tmp_path/'out', '--to', to])))
    (run/'enough.txt').write_text('99 photos are')
    try: cli.main()
    except SystemExit as e: assert not e.code, capsys.readouterr()
    finally: (run/'enough.txt').unlink()
    said = capsys.readouterr().out
    assert f'2 photos outlined for {to}' in said and 'how many are enough: 99 photos are' in said and 'drone_seg predict' not in said
    chosen = sorted(f.stem for f in (tmp_path/'out/photos').iterdir())
    labels = open_dataset(tmp_path/'out'/to)
    assert sorted(Path(s).stem for s in labels.stems)==chosen
    for stem,pair in zip(chosen, sorted(labels.items, key=lambda p: p.image.stem)):
        mask = np.asarray(Image.open(tmp_path/f'out/masks/{stem}.png'))
        drawn,seen = labels.classes.to_colors(labels.read_ids(pair)),SCENE_CLASSES.to_colors(mask)
        assert (drawn==seen).all(-1).mean()>.9
