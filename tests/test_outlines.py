"84_use.outlines and 84a_use.labels: what is written for labelling tools, read by GDAL, pycocotools and our own readers, on drawn scenes and on real masks"
import json, os
from pathlib import Path
from urllib.parse import parse_qs, urlsplit
from xml.etree import ElementTree
import numpy as np, pytest
for _m in ('rasterio','shapely','geopandas'): pytest.importorskip(_m, reason=f'{_m} is not installed (extra geo)')
import geopandas, rasterio, shapely
from PIL import Image
from rasterio import Affine
from rasterio.features import rasterize
from scipy import ndimage
from drone_seg.classes import ClassTable
from drone_seg.fields import DroneSegError, FileError, PredictError
from drone_seg.data.datasets import open_dataset
from drone_seg.data.pair import Pair, Reader
from drone_seg.data.plain import place
from drone_seg.photo.images import save_mask
from drone_seg.predict.tidy import remove_specks
from drone_seg.scenes.scene import SCENE_CLASSES, draw_scene, write_scenes
from drone_seg.use.cut import cut_geotiff
from drone_seg.use.labels import FORMS, Sheet, write_labels
from drone_seg.use.outlines import find_areas

REAL = Path(__file__).parents[2]/'shared'/'data'
PIXELS = [f for f in FORMS if f!='geojson']
STREET = ClassTable(['clutter','road & "lane"','Straße <1>','tree'], [(0,0,0),(90,90,90),(200,0,0),(0,99,0)], [3,7,200,0], void=['clutter'])

def noisy(seed, size=(60,90)):
    "A mask with holes in holes, corners that touch and areas of one pixel"
    g = np.random.default_rng(seed)
    a = ndimage.gaussian_filter(g.normal(size=(4,*size)), (0,*g.uniform(.6, 4, 2)))
    return np.array(STREET.ids, np.uint8)[a.argmax(0)]

def pairs_of(root, masks, table=STREET, end='.jpg'):
    "Photos and masks on the disk, by their stems"
    res = []
    for stem,ids in masks.items():
        photo,mask = root/f'photos/{stem}{end}',root/f'masks/{stem}.png'
        photo.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.full((*ids.shape,3), 77, np.uint8)).save(photo)
        save_mask(ids, table, mask)
        res.append(Pair(stem, photo, mask, reader=Reader(table)))
    return res

# Independent readers: names and polygons by a few lines, pixels by GDAL

def polygons_of(out, to):
    "{name of the photo: [(name of the class, corners)] in the order they are drawn}"
    res = {}
    if to=='labelme':
        for f in out.rglob('*.json'):
            d = json.loads(f.read_text())
            assert (f.parent/d['imagePath']).is_file()
            res[(f.parent/d['imagePath']).relative_to(out).as_posix()] = [(s['label'], s['points']) for s in d['shapes']]
    if to=='cvat':
        for im in ElementTree.parse(out/'annotations.xml').iterfind('image'):
            marks = sorted(im, key=lambda e: int(e.get('z_order')))
            res[im.get('name')] = [(e.get('label'), [list(map(float, p.split(','))) for p in e.get('points').split(';')]) for e in marks]
    if to=='labelstudio':
        for t in json.loads((out/'tasks.json').read_text()):
            path, = parse_qs(urlsplit(t['data']['image']).query)['d']
            assert (out.parent/path).is_file() # below the folder that the server is told
            (guess,) = t['predictions']
            assert len({r['id'] for r in guess['result']})==len(guess['result'])
            res[path.removeprefix(f'{out.name}/images/')] = [
                (r['value']['polygonlabels'][0], np.array(r['value']['points'])*(r['original_width']/100, r['original_height']/100)) for r in guess['result']]
    return res

def drawn_by_gdal(marks, table, size):
    shapes = [(shapely.Polygon(np.round(p, 3)), table.id_of(n)) for n,p in marks]
    return rasterize(shapes, size, fill=254, dtype='uint8')

def drawn_by_coco(out, name):
    COCO = pytest.importorskip('pycocotools.coco', reason='pycocotools is not installed').COCO
    coco = COCO(out/'annotations/instances_default.json')
    im = next(i for i in coco.imgs.values() if i['file_name']==name)
    res,n = np.full((im['height'],im['width']), 254, np.uint8),np.zeros((im['height'],im['width']), int)
    for a in coco.loadAnns(coco.getAnnIds(im['id'])):
        m = coco.annToMask(a)>0
        res[m] = a['category_id']-1 # as a class has the id 0
        n += m
        x,y,w,h = a['bbox']
        assert abs(m.sum()-a['area'])<=.25*m.sum()+8 and not m[:int(y)].any() and not m[:,int(x+w):].any()
    return res,n

@pytest.mark.filterwarnings('ignore:__array__ implementation:DeprecationWarning') # pycocotools
@pytest.mark.parametrize('seed', range(3))
@pytest.mark.parametrize('to', PIXELS)
def test_every_pixel_comes_back(to, seed, tmp_path):
    "Unsmoothed, by our reader and by another's; names that XML and addresses must escape; a photo in a folder of its own"
    masks = {'a': noisy(seed), 'east #1/b 50%20': noisy(seed+50)}
    out = write_labels(pairs_of(tmp_path, masks), STREET, tmp_path/'my labels'/to, to, 0, 0, progress=False)
    back = open_dataset(out)
    assert back.classes==STREET and len(back)==2
    for s in back.stems:
        ids = masks[next(k for k in masks if k.endswith(s))]
        np.testing.assert_array_equal(back.read_ids(s), ids)
    for stem,ids in masks.items():
        if to=='coco':
            seen,n = drawn_by_coco(out, f'{stem}.jpg')
            assert (n==1).all()
        else: seen = drawn_by_gdal(polygons_of(out, to)[f'{stem}.jpg'], STREET, ids.shape)
        np.testing.assert_array_equal(seen, ids)

@pytest.mark.parametrize('to', PIXELS)
def test_smoothed_by_a_pixel(to, tmp_path):
    "Drawn scenes as a model sees them: 99.5 % of the pixels, no gaps, in fewer corners"
    masks = {f's{k}': remove_specks(draw_scene(k, size=(240,360))[1], 40) for k in range(2)}
    out = write_labels(pairs_of(tmp_path, masks, SCENE_CLASSES), SCENE_CLASSES, tmp_path/to, to, 1, progress=False)
    back = open_dataset(out)
    for s,ids in masks.items():
        assert (back.read_ids(s)==ids).mean()>.995
        if to=='coco': continue
        seen = drawn_by_gdal(polygons_of(out, to)[f'{s}.jpg'], SCENE_CLASSES, ids.shape)
        assert (seen==ids).mean()>.995 and (seen!=254).all()

@pytest.mark.parametrize('to', PIXELS)
def test_no_sliver_that_covers_no_pixel(to, tmp_path, monkeypatch):
    "Smoothing leaves some; without them every pixel is as with them, and `check` has nothing to say"
    pairs = pairs_of(tmp_path, {'a': noisy(1, (120,180))})
    back = open_dataset(write_labels(pairs, STREET, tmp_path/to, to, 2, 0, progress=False))
    assert 'cover no pixel' not in repr(back.check(progress=False))
    monkeypatch.setattr(Sheet, 'shows', lambda sheet, ring: True)
    full = open_dataset(write_labels(pairs, STREET, tmp_path/'full'/to, to, 2, 0, progress=False))
    assert 'cover no pixel' in repr(full.check(progress=False))
    np.testing.assert_array_equal(back.read_ids('a'), full.read_ids('a'))

@pytest.mark.parametrize('seed', range(4))
def test_areas_fill_the_photo(seed):
    "Valid polygons that share their borders, one for each component, in the order of nesting"
    ids = noisy(seed)
    for simplify in (0, 1, 3):
        areas = find_areas(ids, simplify, 0)
        filled = [shapely.Polygon(a.ring) for a in areas]
        shapes = [a.shape for a in areas]
        assert shapely.is_valid(shapes).all() and shapely.coverage_is_valid(shapes)
        assert sum(s.area for s in shapes)==pytest.approx(ids.size)
        assert len(areas)==sum(ndimage.label(ids==i)[1] for i in np.unique(ids))
        for a in areas: # slowly: how many filled outlines hold it
            point = shapely.point_on_surface(a.shape)
            assert a.depth==sum(f.contains(point) for f in filled)-1
        assert [a.depth for a in areas]==sorted(a.depth for a in areas)

@pytest.mark.parametrize('seed', range(4))
def test_pieces_have_no_holes_and_lose_nothing(seed):
    for a in find_areas(noisy(seed, (120,160)), 1, 0):
        pieces = [shapely.Polygon(r) for r in a.pieces]
        assert shapely.is_valid(pieces).all()
        assert shapely.union_all(pieces).symmetric_difference(a.shape).area<.02
        assert sum(p.area for p in pieces)==pytest.approx(a.shape.area, abs=.02)

def test_small_areas_go_to_their_neighbours(tmp_path):
    ids = np.full((100,200), 7, np.uint8)
    ids[10:13,10:13],ids[50:54,50:54],ids[80:83,80:83] = 200,200,3 # 9, 16, and 9 of void
    assert [(a.id, a.shape.area) for a in find_areas(ids, 0)]==[(7, 20000-16), (200, 16)]
    assert len(find_areas(np.kron(ids, np.ones((30,30), np.uint8)), 0))==4 # 5x5 of a million are 450 pixels here

def test_a_table_without_void_gets_it(tmp_path):
    table = ClassTable(['road','roof'], [(90,90,90),(200,0,0)], [0,4])
    ids = np.repeat(np.uint8([[0,4,255]]), 20, 1).repeat(30, 0)
    for to in PIXELS:
        back = open_dataset(write_labels(pairs_of(tmp_path, {'a': ids}, table), table, tmp_path/to, to, 0, 0, progress=False))
        assert back.classes.scored_names==['road','roof'] and set(back.classes.void)=={255}
        np.testing.assert_array_equal(back.read_ids('a'), ids)

@pytest.mark.parametrize('to', PIXELS)
def test_the_table_may_lie_elsewhere(to, tmp_path):
    "As where a tool has exported what it had imported"
    ids = noisy(7)
    out = write_labels(pairs_of(tmp_path, {'a': ids}), STREET, tmp_path/to, to, 0, 0, progress=False)
    (out/'classes.csv').rename(tmp_path/'classes.csv')
    back = open_dataset(out, classes=tmp_path/'classes.csv')
    assert back.classes==STREET
    np.testing.assert_array_equal(back.read_ids('a'), ids)

@pytest.mark.parametrize('to', PIXELS)
def test_a_photo_that_its_flag_turns(to, tmp_path):
    "Shapes lie on the photo as it is shown, upright"
    ids = noisy(8, (90,60))
    pair, = pairs_of(tmp_path, {'a': ids})
    flag = Image.Exif()
    flag[0x112] = 6
    Image.fromarray(np.full((60,90,3), 77, np.uint8)).save(pair.image, exif=flag)
    out = write_labels([pair], STREET, tmp_path/to, to, 0, 0, progress=False)
    np.testing.assert_array_equal(open_dataset(out).read_ids('a'), ids)
    if to!='coco': np.testing.assert_array_equal(drawn_by_gdal(polygons_of(out, to)['a.jpg'], STREET, ids.shape), ids)

def test_what_a_person_corrects_is_read(tmp_path):
    "LabelMe, which saves in place: a name changed, an outline drawn on top"
    ids = np.full((40,60), 7, np.uint8)
    ids[10:30,10:30] = 0
    out = write_labels(pairs_of(tmp_path, {'a': ids}), STREET, tmp_path/'labelme', 'labelme', 0, 0, progress=False)
    d = json.loads((out/'a.json').read_text())
    d['shapes'][1]['label'] = 'Straße <1>'
    d['shapes'].append(dict(label='tree', points=[[40,0],[60,0],[60,5],[40,5]], shape_type='polygon', flags={}, group_id=None))
    (out/'a.json').write_text(json.dumps(d))
    ids[ids==0],ids[:5,40:] = 200,0
    np.testing.assert_array_equal(open_dataset(out).read_ids('a'), ids)

def test_colours_and_names_for_the_tool(tmp_path):
    import yaml
    pairs = pairs_of(tmp_path, {'a': noisy(0)})
    out = {to: write_labels(pairs, STREET, tmp_path/to, to, progress=False) for to in PIXELS}
    hexes = ['#000000','#5a5a5a','#c80000','#006300']
    labels = json.loads((out['cvat']/'labels.json').read_text())
    assert [(l['name'], l['color']) for l in labels]==list(zip(STREET.names, hexes))
    view = ElementTree.parse(out['labelstudio']/'labels.xml').getroot()
    assert [(l.get('value'), l.get('background')) for l in view.iter('Label')]==list(zip(STREET.names, hexes))
    assert view.find('PolygonLabels').attrib==dict(name='label', toName='image') and view.find('Image').get('value')=='$image'
    settings = yaml.safe_load((out['labelme']/'labelme.yaml').read_text(encoding='utf-8'))
    assert list(settings['label_colors'].items())==list(zip(STREET.names, STREET.colors.tolist()))==list(zip(settings['labels'], STREET.colors.tolist()))
    cats = json.loads((out['coco']/'annotations/instances_default.json').read_text())['categories']
    assert [(c['id']-1, c['name'], c['color']) for c in cats]==list(zip(STREET.ids, STREET.names, STREET.colors.tolist()))

def geotiff(path, ids, crs='EPSG:32640'):
    about = dict(driver='GTiff', count=3, height=ids.shape[0], width=ids.shape[1], dtype='uint8', crs=crs, transform=Affine(.1, .02, 326000, .03, -.1, 2789000))
    with rasterio.open(path, 'w', **about) as f: f.write(np.full((3,*ids.shape), 90, np.uint8))

def test_geojson_lies_on_the_map(tmp_path):
    "By GDAL in longitude and latitude, and back to masks by `cut_geotiff`; a slanted grid"
    ids = remove_specks(noisy(3, (120,160)), 30)
    pair, = pairs_of(tmp_path, {'a': ids}, end='.tif')
    geotiff(pair.image, ids)
    out = write_labels([pair], STREET, tmp_path/'geojson', 'geojson', 0, 0, progress=False)
    found = geopandas.read_file(out/'a.geojson')
    assert found.crs.to_epsg()==4326 and (out/'a.qml').is_file()
    with rasterio.open(pair.image) as f: on_map,transform = found.to_crs(f.crs),f.transform
    seen = rasterize(zip(on_map.geometry, on_map.class_id), ids.shape, fill=3, transform=transform, dtype='uint8')
    assert (seen==ids).mean()>.999
    assert set(found['class'])=={STREET.name_of(int(i)) for i in np.unique(ids) if i!=3}

@pytest.mark.parametrize('to', FORMS)
def test_an_interrupted_job_leaves_nothing(to, tmp_path, monkeypatch):
    pairs = pairs_of(tmp_path, {'a': noisy(0), 'b': noisy(1)}, end='.tif' if to=='geojson' else '.jpg')
    if to=='geojson':
        for p in pairs: geotiff(p.image, noisy(0))
    there = sorted(tmp_path.rglob('*'))
    def stop(self): raise KeyboardInterrupt
    with monkeypatch.context() as m:
        ids = Pair.ids
        m.setattr(Pair, 'ids', lambda self: stop(self) if self.stem=='b' else ids(self))
        with pytest.raises(KeyboardInterrupt): write_labels(pairs, STREET, tmp_path/'out', to, progress=False)
    assert sorted(tmp_path.rglob('*'))==there
    assert write_labels(pairs, STREET, tmp_path/'out', to, progress=False).is_dir() # and again
    before = {f: f.read_bytes() for f in (tmp_path/'out').rglob('*') if f.is_file()}
    with pytest.raises(DroneSegError, match='is there already'): write_labels(pairs, STREET, tmp_path/'out', to, progress=False)
    assert before=={f: f.read_bytes() for f in (tmp_path/'out').rglob('*') if f.is_file()}

def test_a_disk_that_is_full_is_told_in_a_line(tmp_path, monkeypatch):
    pairs = pairs_of(tmp_path, {'a': noisy(0)})
    def full(*args): raise OSError(28, 'No space left on device')
    monkeypatch.setattr('drone_seg.use.labels.place', full)
    with pytest.raises(FileError, match='No space left'): write_labels(pairs, STREET, tmp_path/'out', 'coco', progress=False)
    assert not (tmp_path/'out').exists() and not list(tmp_path.glob('.out*'))

def test_photos_cost_nothing_twice(tmp_path):
    pair, = pairs_of(tmp_path, {'a': noisy(0)})
    out = write_labels([pair], STREET, tmp_path/'coco', 'coco', progress=False)
    assert os.path.samefile(out/'images/a.jpg', pair.image)

def test_a_scored_class_called_void(tmp_path):
    for k,name in enumerate(('void','Void','VOID')):
        table = ClassTable(['road',name], [(90,90,90),(200,0,0)], [0,4])
        ids = np.repeat(np.uint8([[0,4,255]]), 20, 1).repeat(30, 0)
        out = write_labels(pairs_of(tmp_path/str(k), {'a': ids}, table), table, tmp_path/f'out{k}', 'coco', 0, 0, progress=False)
        cats = json.loads((out/'annotations/instances_default.json').read_text())['categories']
        assert [c['name'] for c in cats]==['road', name, 'void (255)']
        np.testing.assert_array_equal(open_dataset(out).read_ids('a'), ids)

def test_photos_that_are_links(tmp_path):
    "Also relative ones, that lead elsewhere from another folder"
    pair, = pairs_of(tmp_path, {'a': noisy(0)})
    pair.image.rename(tmp_path/'true.jpg')
    pair.image.symlink_to('../true.jpg')
    out = write_labels([pair], STREET, tmp_path/'deep/er/coco', 'coco', progress=False)
    assert not (out/'images/a.jpg').is_symlink() and os.path.samefile(out/'images/a.jpg', tmp_path/'true.jpg')

def test_a_name_that_is_taken_is_not_written_over(tmp_path):
    "As the photo there may be the person's own file, under a second name"
    for name in 'ab': (tmp_path/name).write_text(name)
    place(tmp_path/'a', tmp_path/'c')
    with pytest.raises(FileExistsError): place(tmp_path/'b', tmp_path/'c')
    assert (tmp_path/'a').read_text()=='a'

def test_wrong_pairs_and_numbers_are_said_at_once(tmp_path):
    pairs = pairs_of(tmp_path, {'a': noisy(0), 'b': noisy(1)})
    def refused(match, pairs=pairs, **options):
        with pytest.raises(PredictError, match=match): write_labels(pairs, STREET, tmp_path/'out', 'cvat', progress=False, **options)
    refused('a: 2 photos of this name', [*pairs, pairs[0]])
    for value in (-1, float('nan'), '1', True):
        refused('min_area=.*0 or more', min_area=value)
        refused('simplify=.*0 or more', simplify=value)

def test_a_data_set_itself(tmp_path):
    data = open_dataset(write_scenes(tmp_path/'scenes', 2, size=(60,90)))
    out = write_labels(data, data.classes, tmp_path/'out', 'coco', progress=False)
    assert open_dataset(out).stems==data.stems

@pytest.mark.parametrize('to', ['cvat','labelstudio'])
def test_a_name_that_is_not_utf8(to, tmp_path):
    pair, = pairs_of(tmp_path, {'a': noisy(0)})
    stem = os.fsdecode(b'b\xff')
    try: photo = pair.image.rename(pair.image.with_stem(stem))
    except OSError: pytest.skip('this disk has UTF-8 names only')
    odd = Pair(stem, photo, pair.mask, reader=pair.reader)
    with pytest.raises(PredictError, match='not UTF-8') as e: write_labels([odd], STREET, tmp_path/'out', to, progress=False)
    str(e.value).encode()

@pytest.fixture(scope='module')
def flight(tmp_path_factory):
    "A model, and photos in two folders, one of them cut off"
    from drone_seg.models.bundle import Bundle
    from drone_seg.models.unet import create_unet
    root = tmp_path_factory.mktemp('flight')
    Bundle(create_unet('resnet18', SCENE_CLASSES.n), SCENE_CLASSES, (60,90)).save(root/'run')
    for k in ('east/a','west/a','west/b'):
        (root/f'photos/{k}.jpg').parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(draw_scene(3+len(k), size=(120,180))[0]).save(root/f'photos/{k}.jpg')
    cut = root/'photos/west/b.jpg'
    cut.write_bytes(cut.read_bytes()[:900])
    return root

def command(monkeypatch, capsys, *args):
    from drone_seg import cli
    from drone_seg.models.bundle import Bundle
    from drone_seg.predict.look import color_net
    image,mask = draw_scene(3, size=(120,180)) # its colours answer instead of the untrained network
    model = Bundle(color_net(image, mask, SCENE_CLASSES), SCENE_CLASSES, (60,90))
    monkeypatch.setattr('drone_seg.models.bundle.load_bundle', lambda run: model)
    monkeypatch.setattr('sys.argv', ['drone_seg', *map(str, args)])
    code = 0
    try: cli.main()
    except SystemExit as e: code = e.code or 0
    out = capsys.readouterr()
    return code,out.out,out.err.strip()

def test_predict_for_a_tool(flight, monkeypatch, capsys):
    "Good photos are outlined although one is bad, and again for another tool without predicting; a folder that is there stops it first"
    monkeypatch.chdir(flight)
    code,out,err = command(monkeypatch, capsys, 'predict', 'run', 'photos', '--out', 'p', '--to', 'cvat')
    assert code==2 and '2 photos outlined for cvat: p/cvat' in out and 'b.jpg' in err and len(err.splitlines())==1
    assert set(polygons_of(flight/'p/cvat', 'cvat'))=={'east/a.jpg','west/a.jpg'}
    back = open_dataset(flight/'p/cvat')
    model = Reader(SCENE_CLASSES)
    for p in back.items:
        mask = (flight/'p/masks'/p.image.relative_to(flight/'p/cvat/images')).with_suffix('.png')
        assert (back.read_ids(p)==model.ids(Pair('a', p.image, mask))).mean()>.95
    masks = {f: f.stat().st_mtime_ns for f in (flight/'p/masks').rglob('*.png')}
    assert command(monkeypatch, capsys, 'predict', 'run', 'photos', '--out', 'p', '--to', 'labelme')[1].startswith('2 photos outlined for labelme: p/labelme\nto load: labelme p/labelme --config p/labelme/labelme.yaml')
    assert masks=={f: f.stat().st_mtime_ns for f in (flight/'p/masks').rglob('*.png')}
    code,out,err = command(monkeypatch, capsys, 'predict', 'run', 'photos', '--out', 'p', '--to', 'cvat', '--scale', '.9')
    assert code==2 and 'p/cvat: is there already' in err and not out
    assert masks=={f: f.stat().st_mtime_ns for f in (flight/'p/masks').rglob('*.png')}

def test_what_no_tool_can_take_is_said_before_predicting(flight, monkeypatch, capsys):
    monkeypatch.chdir(flight)
    code,_,err = command(monkeypatch, capsys, 'predict', 'run', 'photos/east', '--out', 'q', '--to', 'geojson')
    assert code==2 and 'a.jpg: does not say where on the map' in err and 'coco' in err and not list(flight.glob('q/masks/*'))

@pytest.mark.skipif(not REAL.is_dir(), reason='the real photos are not beside this checkout (licences)')
@pytest.mark.parametrize('to', PIXELS)
@pytest.mark.parametrize('name', ['semantic_drone_dataset','dubai'])
def test_real_masks(name, to, tmp_path):
    "To the pixel unsmoothed; smoothed by one pixel 99.5 % of all pixels"
    data = open_dataset(REAL/name)
    stems = data.stems[::len(data)//2][:2]
    pairs,truth = [data.pair(s) for s in stems],[data.read_ids(s) for s in stems]
    back = open_dataset(write_labels(pairs, data.classes, tmp_path/'exact', to, 0, 0, progress=False))
    for s,t in zip(stems, truth): np.testing.assert_array_equal(back.read_ids(s), t)
    back = open_dataset(write_labels(pairs, data.classes, tmp_path/'smooth', to, 1, 0, progress=False))
    for s,t in zip(stems, truth): assert (back.read_ids(s)==t).mean()>.995

@pytest.mark.skipif(not REAL.is_dir(), reason='the real photos are not beside this checkout (licences)')
def test_the_finest_real_masks_keep_their_pixels():
    "The three of 310 with most borders; corners along pixels are 117,641"
    data,corners = open_dataset(REAL/'semantic_drone_dataset'),0
    for stem in ('470','207','103'):
        ids,areas = data.read_ids(stem),find_areas(data.read_ids(stem), 1, 0)
        seen = rasterize([(a.shape, a.id) for a in areas], ids.shape, fill=254)
        assert (seen==ids).mean()>.995
        corners += shapely.get_num_coordinates([a.shape for a in areas]).sum()
    assert corners<64000 # 64,159 by Visvalingam and Whyatt, with 99.4 % of the pixels

@pytest.mark.parametrize('tolerance', [.4,1,2,5])
@pytest.mark.parametrize('seed', range(4))
def test_borders_are_a_coverage(seed, tolerance):
    "Of noise, where areas of a pixel and areas that touch at corners abound"
    ids = noisy(seed, (60,80)) if seed else np.random.default_rng(0).integers(0, 3, (40,50)).astype(np.uint8)
    areas = np.array([a.shape for a in find_areas(ids, tolerance, 0)])
    assert shapely.is_valid(areas).all() and shapely.coverage_is_valid(areas)
    assert abs(shapely.area(areas).sum()-ids.size)<1e-6 and shapely.area(shapely.union_all(areas))>ids.size-1e-6
