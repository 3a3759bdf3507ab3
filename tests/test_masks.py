"71a_runs.masks, 75 to 78b with masks of other programs: against torchmetrics, what is missing, misnamed, of other sizes or ids; the line of a learning curve"
import json, shutil, zipfile
from pathlib import Path
import numpy as np, pytest, torch
from torchmetrics.functional.classification import multiclass_jaccard_index
from typer.testing import CliRunner
from drone_seg.classes import IGNORE
from drone_seg.cli import app
from drone_seg.data.datasets import open_dataset
from drone_seg.fields import DatasetError, DroneSegError, ImageError, MaskError
from drone_seg.photo.images import save_image, save_mask
from drone_seg.runs.compare import compare_runs
from drone_seg.runs.curve import foresee
from drone_seg.runs.masks import judge_masks, open_masks, say_missing
from drone_seg.runs.run import open_run
from drone_seg.scenes.scene import write_scenes

@pytest.fixture
def old(tmp_path, monkeypatch):
    "A run of before, its scenes, and masks that are shifted by three pixels, of all photos but one"
    monkeypatch.setenv('DRONE_SEG_CACHE', str(tmp_path/'cache'))
    with zipfile.ZipFile(Path(__file__).parent/'data'/'old_run.zip') as z: z.extractall(tmp_path)
    data = open_dataset(tmp_path/'scenes')
    for s in data.stems[1:]: save_mask(np.roll(data.read_ids(s), 3, axis=1), data.classes, tmp_path/'peer'/f'{s}.png')
    return tmp_path,data

def test_masks_are_judged_as_torchmetrics_does(old):
    root,data = old
    scores = judge_masks(root/'peer', data, progress=False)
    masks = open_masks(root/'peer', data)
    pairs = [(data.classes.encode(masks.read_ids(s)), data.classes.encode(data.read_ids(s))) for s in masks.stems]
    pred,true = (torch.from_numpy(np.concatenate([p[i].ravel() for p in pairs])).long() for i in (0,1))
    keep = (pred!=IGNORE) & (true!=IGNORE)
    want = multiclass_jaccard_index(pred[keep], true[keep], data.classes.n, average='none').numpy()
    there = ~np.isnan(scores.iou)
    np.testing.assert_allclose(scores.iou[there], want[there], atol=1e-6)
    assert scores.photos==len(data)-1 and len(scores.regions)==len(scores.near)==scores.photos

def test_a_folder_of_masks_opens_like_a_run(old):
    root,data = old
    run = open_run(root/'peer', data)
    assert run.finished and run.name=='peer' and run.stems==data.stems[1:] and run.split is None
    assert run.notes[0].startswith('masks of another program: which photos trained it is not known')
    assert run.notes[1:]==[f'no mask for 1 of {len(data)} photos: {data.stems[0]}']
    assert (run.answers(data)(data.stems[2])==np.roll(data.read_ids(data.stems[2]), 3, axis=1)).all() and 'mIoU' in repr(run)
    with pytest.raises(DroneSegError, match='not a run'): open_run(root/'peer')

def test_a_run_and_a_peer_are_compared_on_common_photos(old, capsys):
    root,data = old
    found = compare_runs(root/'run', root/'peer', data)
    run,peer = open_run(root/'run'),open_run(root/'peer', data)
    both = [s for s in run.stems if s in peer.stems]
    assert sorted(found.photos.index)==sorted(both)==sorted(data.stems[1:]) and found.groups=='place'
    mine = [peer.stems.index(s) for s in both]
    assert found.table.mIoU[1].value==pytest.approx(type(peer.scores)(peer.matrices[mine], peer.scores.names).miou)
    done = CliRunner().invoke(app, ['compare', *map(str, (root/'run', root/'peer', root/'scenes')), '--out', str(root/'cmp')])
    assert done.exit_code==0 and 'peer against run' in done.output, done.output
    assert {f.name for f in (root/'cmp').iterdir()}=={'table.csv','classes.csv','photos.csv','compare.png','differ.jpg'}

def test_evaluate_takes_masks(old):
    root,data = old
    done = CliRunner().invoke(app, ['evaluate', str(root/'peer'), str(root/'scenes'), '--out', str(root/'s.json')])
    assert done.exit_code==0 and f'no mask for 1 of {len(data)} photos: {data.stems[0]}' in done.output, done.output
    d = json.loads((root/'s.json').read_text())
    assert d['miou']==pytest.approx(judge_masks(root/'peer', data, progress=False).miou) and len(d['each_photo'])==d['photos']==len(data)-1

def test_masks_have_a_report_and_suspects(old):
    root,data = old
    done = CliRunner().invoke(app, ['report', str(root/'peer'), str(root/'scenes'), '--suspects', '--out', str(root/'r.html')])
    page = (root/'r.html').read_text() if done.exit_code==0 else done.output
    assert 'Masks of another program' in page and 'id="photos"' in page and 'id="suspects"' in page and 'id="sure"' not in page
    score = judge_masks(root/'peer', data, progress=False).miou
    assert f'{score:.3f}' in page
    done = CliRunner().invoke(app, ['suspects', str(root/'peer'), str(root/'scenes'), '--out', str(root/'sus')])
    assert done.exit_code==0 and (root/'sus'/'suspects.csv').is_file(), done.output

def test_names_of_masks(old):
    root,data = old
    pred = root/'out'/'masks'/'images' # as drone_seg predict writes them, with the folders of the photos
    for s in data.stems: save_mask(data.read_ids(s), data.classes, pred/f'{s}.png')
    save_image(np.zeros((9,9,3), np.uint8), root/'out'/'overlays'/'images'/f'{data.stems[0]}.png')
    assert judge_masks(root/'out', data, progress=False).pixel_accuracy==1 and not say_missing(open_masks(root/'out', data), data)
    shutil.copy(pred/f'{data.stems[0]}.png', pred/f'{data.stems[0]}.bmp')
    with pytest.raises(DatasetError, match='1 masks differ only in their ending'): open_masks(root/'out', data)

def test_photos_of_one_name_in_many_folders(tmp_path):
    from PIL import Image
    rng = np.random.default_rng(0)
    for tile in ('Tile 1','Tile 2'):
        for i in (1,2):
            (tmp_path/'d'/tile/'images').mkdir(parents=True, exist_ok=True)
            (tmp_path/'d'/tile/'masks').mkdir(parents=True, exist_ok=True)
            Image.fromarray(rng.integers(0, 255, (32,48,3), dtype=np.uint8)).save(tmp_path/'d'/tile/'images'/f'p{i}.jpg')
            Image.fromarray(rng.integers(0, 2, (32,48), dtype=np.uint8)).save(tmp_path/'d'/tile/'masks'/f'p{i}.png')
    (tmp_path/'d'/'classes.csv').write_text('id,name\n0,a\n1,b\n')
    data = open_dataset(tmp_path/'d')
    assert len(data)==4
    for p in data.items: save_mask(data.read_ids(p.stem), data.classes, tmp_path/'pred'/p.image.relative_to(tmp_path/'d').with_suffix('.png'))
    assert judge_masks(tmp_path/'pred', data, progress=False).pixel_accuracy==1
    for i in (1,2): shutil.copy(tmp_path/'pred'/'Tile 1'/'images'/f'p{i}.png', tmp_path/f'p{i}.png')
    (tmp_path/'flat').mkdir()
    shutil.copy(tmp_path/'p1.png', tmp_path/'flat'/'p1.png')
    with pytest.raises(DatasetError, match='fits more than one photo'): open_masks(tmp_path/'flat', data)

@pytest.mark.parametrize('high, id, error, says', [
    (8, 1, ImageError, 'photo and mask must have the same size'), (None, 77, MaskError, 'id 77')])
def test_bad_masks_are_named_and_nothing_is_written(old, high, id, error, says):
    root,data = old
    bad = root/'peer'/f'{data.stems[2]}.png'
    save_mask(np.full_like(data.read_ids(data.stems[2])[:high], id), data.classes, bad)
    with pytest.raises(error, match=says) as e: judge_masks(root/'peer', data, progress=False)
    assert str(bad) in str(e.value) and len(str(e.value).splitlines())==1
    done = CliRunner().invoke(app, ['evaluate', str(root/'peer'), str(root/'scenes'), '--out', str(root/'s.json')])
    assert done.exit_code and not (root/'s.json').exists()

def test_colours_outside_the_table_are_named(old):
    root,data = old
    save_image(np.full((*data.read_ids(data.stems[1]).shape,3), 123, np.uint8), root/'peer'/f'{data.stems[1]}.png')
    with pytest.raises(MaskError, match=f'{data.stems[1]}.png'): judge_masks(root/'peer', data, progress=False)

def test_a_line_is_drawn_on_by_least_squares():
    "Against numpy's polyfit, and its interval is wider the farther it goes"
    right,photos = [500, 600, 650],[40, 90, 160]
    matrices = [np.array([[[r, 1000-r], [1000-r, r]]]*6) for r in right]
    miou = [r/(2000-r) for r in right]
    slope,at_zero = np.polyfit(np.log2(photos), np.log(1-np.array(miou)), 1)
    wide = []
    for at in (200,400,800):
        said = foresee(photos, matrices, None, at)
        assert said.value==pytest.approx(1-np.exp(at_zero+slope*np.log2(at)))
        wide.append(said.high-said.low)
    assert wide==sorted(wide) and wide[0]>2*1.96*.01
