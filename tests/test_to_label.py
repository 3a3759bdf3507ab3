"""What to label next: the choice beside a slow one, networks of any make, photos known whatever they are called."""
import shutil
import numpy as np, pytest
from PIL import Image
from drone_seg.models.bundle import Bundle
from drone_seg.models.zoo import create_model
from drone_seg.runs.to_label import choose, glance, next_photos
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
