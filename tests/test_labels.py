"""Exports of labelling tools, in their true layouts, open as they are: the ids are those of an independent rasteriser, names and order those of the tool."""
import base64, gzip, io, json, lzma, os, re, shutil, tarfile, tracemalloc, zipfile, zlib
from pathlib import Path

import cv2, numpy as np, pytest
from matplotlib.path import Path as Outline
from PIL import Image

from drone_seg.classes import IGNORE
from drone_seg.fields import DatasetError, DroneSegError
from drone_seg.data.coco import RunLengths, counts_of
from drone_seg.data.datasets import open_dataset
from drone_seg.data.label_studio import Stroke
from drone_seg.data.labels import Shape, draw, inside
from drone_seg.data.records import RECORDS
from drone_seg.data.write_classes import write_classes
from drone_seg.data.zips import unpacked

H,W = 40,60
ROOF = [(4.3,3.2), (30.6,5.1), (27.2,22.7), (10.4,18.9)]
POND = [(20.2,10.4), (50.7,12.3), (44.1,33.8)] # over the roof, as it comes later
EDGE = [(52.,-5.), (70.,-5.), (70.,8.), (52.,8.)] # beyond the border
SHAPES = {'a': [('roof', ROOF), ('pond', POND)], 'b': [('pond', EDGE)], 'c': []}

def covered(points, h=H, w=W): # by the centres of pixels
    y,x = np.mgrid[:h,:w]+.5
    return Outline(np.array(points)).contains_points(np.stack([x.ravel(), y.ravel()], 1)).reshape(h, w)

def truth(stem):
    "Names of the pixels of a photo, '' where no shape is"
    res = np.full((H,W), '', object)
    for name,points in SHAPES[stem]: res[covered(points)] = name
    return res

def photos(folder, size=(H,W), stems='abc', end='.jpg'):
    folder.mkdir(parents=True, exist_ok=True)
    for k,s in enumerate(stems): Image.fromarray(np.full((*size,3), 50+60*k, np.uint8)).save(folder/f'{s}{end}')

def write(path, d):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(d if isinstance(d, str) else json.dumps(d), encoding='utf-8')

def png(area):
    out = io.BytesIO()
    Image.fromarray(area.astype(np.uint8)*255 if area.dtype==bool else area).save(out, format='PNG')
    return out.getvalue()

def packed_png(area): return base64.b64encode(png(area)).decode()

def counts(flat):
    "Lengths of runs, nothing first, by hand"
    res,last = [0],False
    for v in flat:
        if v!=last: res,last = [*res,0],v
        res[-1] += 1
    return res

# Generators of the layouts

def coco(root, rle=None):
    photos(root/'images')
    def seg(points):
        if rle is None: return [np.ravel(points).tolist()]
        return dict(size=[H,W], counts=rle(covered(points)))
    anns = [dict(id=k, image_id='abc'.index(s), category_id=dict(roof=3, pond=8)[n], iscrowd=int(rle is not None), segmentation=seg(p), bbox=[0,0,1,1])
            for k,(s,n,p) in enumerate((s,n,p) for s,v in SHAPES.items() for n,p in v)]
    images = [dict(id=k, file_name=f'{s}.jpg', height=H, width=W) for k,s in enumerate('abc')]
    write(root/'annotations/instances_default.json', dict(images=images, annotations=anns, categories=[dict(id=3, name='roof'), dict(id=8, name='pond')], info={}, licenses=[]))

def coco_runs(root): coco(root, lambda a: counts(a.T.ravel()))

def roboflow_coco(root):
    for side,stem in zip(('train','valid','test'), 'abc'):
        photos(root/side, stems=[stem], end='_jpg.rf.0a1b2c3d4e5f.jpg')
        anns = [dict(id=k, image_id=0, category_id=dict(pond=1, roof=2)[n], segmentation=[np.ravel(p).tolist()]) for k,(n,p) in enumerate(SHAPES[stem])]
        cats = [dict(id=0, name='things', supercategory='none'), dict(id=1, name='pond', supercategory='things'), dict(id=2, name='roof', supercategory='things')]
        write(root/side/'_annotations.coco.json', dict(images=[dict(id=0, file_name=f'{stem}_jpg.rf.0a1b2c3d4e5f.jpg', height=H, width=W)], annotations=anns, categories=cats))

def labelme(root):
    photos(root)
    for s,v in SHAPES.items():
        shapes = [dict(label=n, points=p, group_id=None, description='', shape_type='polygon', flags={}, mask=None) for n,p in v]
        write(root/f'{s}.json', dict(version='6.3.1', flags={}, shapes=shapes, imagePath=f'..\\photos\\{s}.jpg', imageData=base64.b64encode(b'x'*99).decode(), imageHeight=H, imageWidth=W))

def labelme_masks(root):
    photos(root)
    for s,v in SHAPES.items():
        areas = [(n, inside([np.array(p)], (H,W))) for n,p in v]
        shapes = [dict(label=n, points=[[int(x),int(y)], [int(x)+a.shape[1]-1, int(y)+a.shape[0]-1]], group_id=None, description='', shape_type='mask', flags={}, mask=packed_png(a.astype(np.uint8))) for n,(a,(x,y)) in areas]
        write(root/f'{s}.json', dict(version='6.3.1', flags={}, shapes=shapes, imagePath=f'{s}.jpg', imageData=None, imageHeight=H, imageWidth=W))

def packed(area):
    "A stroke as the converter packs it, one literal value or run at a time"
    flat = np.repeat(area.astype(np.uint8).ravel()*255, 4)
    bits = f'{flat.size:032b}{7:05b}' + ''.join(f'{n-1:04b}' for n in (3,4,8,16))
    at = np.flatnonzero(np.diff(flat, prepend=flat[0]^1)).tolist() + [flat.size]
    for a,b in zip(at, at[1:]): bits += f'111{b-a-1:016b}{flat[a]:08b}' if b-a>8 else f'100{b-a-1:03b}{flat[a]:08b}'
    bits += '0'*(-len(bits)%8)
    return [int(bits[k:k+8], 2) for k in range(0, len(bits), 8)]

def hundredths(points): return [[100*x/W, 100*y/H] for x,y in points]

def region(tool, name, points):
    "Results of Label Studio for one region; where tools and labels are apart there are two"
    if tool=='brush': return [('brushlabels', dict(format='rle', rle=packed(covered(points)), brushlabels=[name]))]
    if tool=='bitmask': # black on nothing
        area = covered(points).astype(np.uint8)*255
        url = 'data:image/png;base64,' + packed_png(np.dstack([0*area, 0*area, 0*area, area]))
        return [('bitmasklabels', dict(imageDataURL=url, bitmasklabels=[name]))]
    if tool=='vector':
        vertices = [dict(x=x, y=y, id=str(k), prevPointId=None, isBezier=False) for k,(x,y) in enumerate(hundredths(points))]
        return [('vectorlabels', dict(closed=True, vertices=vertices, vectorlabels=[name]))]
    outline = dict(points=hundredths(points), closed=True)
    if tool=='apart': return [('polygon', outline), ('labels', outline | dict(labels=[name]))]
    return [('polygonlabels', outline | dict(polygonlabels=[name]))]

def label_studio(root, tool='polygon', least=False):
    photos(root/'images')
    tasks = []
    for k,(s,v) in enumerate(SHAPES.items()):
        regions = [r for n,p in v for r in region(tool, n, p)]
        more = dict(original_width=W, original_height=H, image_rotation=0)
        name = f'/data/upload/3/0a1b2c3d-{s}.jpg'
        if least: tasks.append(dict(id=k, image=name, annotator=1, annotation_id=k, label=[value | more for _,value in regions]))
        else:
            result = [dict(id=str(i), type=kind, value=value, to_name='image', from_name='label', **more) for i,(kind,value) in enumerate(regions)]
            tasks.append(dict(id=k, annotations=[dict(id=k, completed_by=1, was_cancelled=False, result=result)], data=dict(image=name), predictions=[]))
    write(root/'project-3-at-2024-05-01.json', tasks)

def label_studio_brush(root): label_studio(root, 'brush')
def label_studio_bitmask(root): label_studio(root, 'bitmask')
def label_studio_vector(root): label_studio(root, 'vector')
def label_studio_apart(root): label_studio(root, 'apart')
def label_studio_least(root): label_studio(root, least=True)

def cvat(root, masks=False):
    photos(root/'images')
    images = ''
    for k,(s,v) in enumerate(SHAPES.items()):
        rows = ''
        for z,(n,p) in reversed(list(enumerate(v))): # the order is that of z_order, not of the file
            if masks:
                area,(x,y) = inside([np.array(p)], (H,W))
                rows += f'<mask label="{n}" source="manual" occluded="0" rle="{", ".join(map(str, counts(area.ravel())))}" left="{x}" top="{y}" width="{area.shape[1]}" height="{area.shape[0]}" z_order="{z}"></mask>'
            else: rows += f'<polygon label="{n}" source="manual" occluded="0" points="{";".join(f"{x:.2f},{y:.2f}" for x,y in p)}" z_order="{z}"></polygon>'
        images += f'<image id="{k}" name="{s}.jpg" width="{W}" height="{H}">{rows}</image>'
    labels = ''.join(f'<label><name>{n}</name><color>{c}</color><type>any</type><attributes></attributes></label>' for n,c in (('roof','#fa3253'), ('pond','#3d3df5')))
    write(root/'annotations.xml', f'<?xml version="1.0" encoding="utf-8"?>\n<annotations><version>1.1</version><meta><job><labels>{labels}</labels></job></meta>{images}</annotations>')

def cvat_runs(root): cvat(root, masks=True)

def corner_pixels(points):
    "The pixels around an area, as Supervisely takes them for its corners"
    (rim,),_ = cv2.findContours(covered(points).astype(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_SIMPLE)
    return rim[:,0].tolist()

def supervisely(root, kind='polygon'):
    for d in ('img','masks_machine'): photos(root/'fields'/d) # its masks have the names of photos
    write(root/'meta.json', dict(classes=[dict(title='roof', shape=kind, color='#C80000', id=9031), dict(title='pond', shape=kind, color='#0000C8', id=9032)], tags=[], projectType='images'))
    for s,v in SHAPES.items():
        objects = []
        for n,p in v:
            more = dict(id=1, classTitle=n, geometryType=kind, labelerLogin='ann', tags=[])
            if kind=='bitmap':
                area,at = inside([np.array(p)], (H,W))
                a = area.astype(np.uint8)*255
                own = dict(bitmap=dict(data=base64.b64encode(zlib.compress(png(np.dstack([a,a,a,a])))).decode(), origin=[int(v) for v in at]))
            elif kind=='multipolygon': own = dict(parts=[dict(exterior=corner_pixels(p), interior=[])])
            else: own = dict(points=dict(exterior=corner_pixels(p), interior=[]))
            objects.append(more | own)
        write(root/f'fields/ann/{s}.jpg.json', dict(description='', tags=[], size=dict(height=H, width=W), objects=objects))

def supervisely_bitmaps(root): supervisely(root, 'bitmap')
def supervisely_parts(root): supervisely(root, 'multipolygon')

def yolo(root):
    for side,stem in zip(('train','val','test'), 'abc'):
        photos(root/f'images/{side}', stems=[stem])
        rows = [' '.join(map(str, [['roof','pond'].index(n), *np.divide(p, (W,H)).ravel()])) for n,p in SHAPES[stem]]
        if rows: write(root/f'labels/{side}/{stem}.txt', '\n'.join(rows))
    write(root/'data.yaml', 'path: ../fields\ntrain: images/train\nval: images/val\ntest: images/test\nnames:\n  0: roof\n  1: pond\n')

def via(root, project=True):
    photos(root)
    def region(n, p):
        if not project: p = [*p, p[0]] # MakeSense repeats the first point
        return dict(shape_attributes=dict(name='polygon', all_points_x=[x for x,_ in p], all_points_y=[y for _,y in p]), region_attributes=dict(label=n))
    rows = {f'{s}.jpg1234': dict(filename=f'{s}.jpg', size=1234, regions=[region(*r) for r in v], file_attributes={}) for s,v in SHAPES.items()}
    if not project: # as MakeSense writes it: photos without polygons are left out
        rows = {e['filename']: e | dict(fileref='', base64_img_data='', regions=dict(enumerate(e['regions']))) for e in rows.values() if e['regions']}
    write(root/'via_project.json', dict(_via_settings={}, _via_img_metadata=rows, _via_attributes=dict(region=dict(label=dict(type='dropdown', options=dict(roof='', pond=''))), file={}), _via_data_format_version='2.0.10') if project else rows)

def makesense(root): via(root, project=False)

def via3(root):
    photos(root)
    files = {str(k): dict(fid=str(k), fname=f'{s}.jpg', type=2, loc=1, src='') for k,s in enumerate(SHAPES, 1)}
    marks = {f'{k}_{i}': dict(vid=str(k), flg=0, z=[], xy=[7, *np.ravel(p).tolist()], av={'1': str(['roof','pond'].index(n))}) for k,v in enumerate(SHAPES.values(), 1) for i,(n,p) in enumerate(v)}
    marks['3_photo'] = dict(vid='3', flg=0, z=[], xy=[], av={'2': 'cloudy'}) # of the whole photo
    choice = dict(aname='kind', anchor_id='FILE1_Z0_XY1', type=4, desc='', options={'0': 'roof', '1': 'pond'}, default_option_id='')
    text = dict(aname='sky', anchor_id='FILE1_Z0_XY0', type=4, desc='', options={'0': 'sun', '1': 'rain'}, default_option_id='')
    about = dict(pid='__VIA_PROJECT_ID__', pname='fields', data_format_version='3.1.1', vid_list=[*files])
    write(root/'fields.json', dict(project=about, config=dict(file={}, ui={}), attribute={'2': text, '1': choice}, file=files, metadata=marks, view={k: dict(fid_list=[k]) for k in files}))

def geojson(root, up=1):
    photos(root/'photos')
    colors = dict(roof=[200,0,0], pond=[0,0,200])
    for s,v in SHAPES.items():
        features = [dict(type='Feature', geometry=dict(type='Polygon', coordinates=[[(x,up*y) for x,y in [*p, p[0]]]]), properties=dict(objectType='annotation', classification=dict(name=n, color=colors[n]))) for n,p in v]
        write(root/f'labels/{s}.geojson', dict(type='FeatureCollection', features=features))

def test_qgis_over_a_photo_counts_upwards(tmp_path):
    geojson(tmp_path/'a')
    geojson(tmp_path/'b', up=-1)
    a,b = (open_dataset(tmp_path/d) for d in 'ab')
    assert (a.read_ids('a')==b.read_ids('a')).all() and a.classes.colors.tolist()==[[0,0,200],[200,0,0]]

#      generator, names with ids, what no shape covers
FORMS = [
    (coco, dict(background=0, roof=3, pond=8), 'background'), (coco_runs, dict(background=0, roof=3, pond=8), 'background'),
    (roboflow_coco, dict(background=0, pond=1, roof=2), 'background'),
    (labelme, dict(background=0, pond=1, roof=2), 'background'), (labelme_masks, dict(background=0, pond=1, roof=2), 'background'),
    (label_studio, dict(pond=1, roof=2), ''), (label_studio_brush, dict(pond=1, roof=2), ''), (label_studio_least, dict(pond=1, roof=2), ''),
    (label_studio_bitmask, dict(pond=1, roof=2), ''), (label_studio_vector, dict(pond=1, roof=2), ''), (label_studio_apart, dict(pond=1, roof=2), ''),
    (cvat, dict(background=0, roof=1, pond=2), 'background'), (cvat_runs, dict(background=0, roof=1, pond=2), 'background'),
    (supervisely, dict(roof=1, pond=2), ''), (supervisely_bitmaps, dict(roof=1, pond=2), ''), (supervisely_parts, dict(roof=1, pond=2), ''),
    (yolo, dict(background=2, roof=0, pond=1), 'background'),
    (via, dict(roof=1, pond=2), ''), (via3, dict(roof=1, pond=2), ''), (makesense, dict(pond=1, roof=2), ''), (geojson, dict(pond=1, roof=2), '')]

@pytest.mark.parametrize('generate, ids, rest', FORMS, ids=[f[0].__name__ for f in FORMS])
@pytest.mark.parametrize('zipped', [False, True], ids=['folder','zip'])
def test_an_export_opens_as_it_is(generate, ids, rest, zipped, tmp_path, monkeypatch):
    monkeypatch.setenv('DRONE_SEG_CACHE', str(tmp_path/'cache'))
    root = tmp_path/'fields'
    generate(root)
    if zipped:
        with zipfile.ZipFile(tmp_path/'fields.zip', 'w') as z:
            for f in sorted(root.rglob('*')): z.write(f, f'task/{f.relative_to(root)}')
        root = tmp_path/'fields.zip'
    data = open_dataset(root)
    assert {n: data.classes.id_of(n) for n in data.classes.names}==ids
    assert f"what no shape covers is {rest or 'void'}" in data.assumed
    name = {i: n for n,i in ids.items()} | {IGNORE: ''}
    for p in data.items:
        stem = p.image.name[0]
        want = truth(stem)
        want[want==''] = rest
        image,mask = data[p.stem]
        assert image.shape==(H,W,3) and (np.vectorize(name.get)(mask)==want).all(), stem
    assert sorted(p.image.name[0] for p in data.items)==(['a','b'] if generate is makesense else ['a','b','c'])
    sides = {k: len(v) for k,v in (data.official or {}).items()}
    assert sides==(dict(train=1, valid=1, test=1) if generate in (yolo, roboflow_coco) else {})
    report = data.check(progress=False)
    assert not report.problems
    assert [f.name for f in data.lonely]==['c.jpg'] if generate is makesense else '1 photos have no shape' in repr(report)

def test_colours_are_those_of_the_tool(tmp_path):
    supervisely(tmp_path/'s')
    cvat(tmp_path/'c')
    assert open_dataset(tmp_path/'s').classes.colors.tolist()==[[200,0,0],[0,0,200]]
    assert open_dataset(tmp_path/'c').classes.colors.tolist()==[[0,0,0],[250,50,83],[61,61,245]]

def test_an_export_is_trained_on(tmp_path, monkeypatch):
    "Split, loaders and relabel read drawn masks as any other"
    monkeypatch.setenv('DRONE_SEG_CACHE', str(tmp_path/'cache'))
    coco(tmp_path/'fields')
    data = open_dataset(tmp_path/'fields')
    split = data.split(by='random', valid=.34, seed=0)
    dls = data.dataloaders(split, size=(32,48), bs=1, num_workers=0)
    x,y = dls.valid.one_batch()
    assert x.shape[-2:]==y.shape[-2:]==(32,48) and set(np.unique(y.cpu().numpy()))<={0,1,2,IGNORE}
    assert data.fingerprint()!=open_dataset(tmp_path/'fields', ['background','roof']).fingerprint()
    lone = data.relabel(dict(water=['pond']), rest='other')
    assert (np.unique(lone.read_ids(lone.items[0])).tolist())==[0,1]

def test_a_table_of_ones_own_wins(tmp_path):
    coco(tmp_path)
    write(tmp_path/'classes.csv', 'id,name,r,g,b\n4,POND,0,0,9\n7,Background,9,9,9\n')
    data = open_dataset(tmp_path)
    assert (data.classes.names, np.unique(data.read_ids(0)).tolist())==(['POND','Background'], [4,7,255])
    assert "shapes of 'roof', which is no class, are void" in repr(data.check(progress=False))

def test_labels_that_a_table_lacks(tmp_path):
    coco(tmp_path)
    write(tmp_path/'classes.csv', 'id,name\n1,Roof\n2,lake\n')
    data = open_dataset(tmp_path)
    assert np.unique(data.read_ids(0)).tolist()==[1,data.classes.void_id]
    assert 'labels that the class table lacks are void: pond' in repr(data.check(progress=False))
    write(tmp_path/'classes.csv', 'id,name\n1,building\n2,lake\n')
    with pytest.raises(DroneSegError) as e: open_dataset(tmp_path)
    both = 'none of its labels (pond, roof) is in the class table (building, lake)'
    assert both in str(e.value) and 'rename them in one of the two' in str(e.value) and '\n' not in str(e.value)
    assert open_dataset(tmp_path, ['pond','tree']).notes

def test_the_plain_form_holds_the_same(tmp_path):
    from drone_seg.data.plain import write_plain
    for generate in (coco, roboflow_coco, supervisely):
        generate(tmp_path/generate.__name__)
        data = open_dataset(tmp_path/generate.__name__)
        plain = open_dataset(write_plain(data, tmp_path/f'{generate.__name__}_plain', progress=False))
        def sides(d): return {k: [v.split('/')[-1] for v in vs] for k,vs in (d.official or {}).items()}
        assert plain.classes==data.classes and sides(plain)==sides(data)
        other = {p.image.name: p for p in plain.items}
        assert len(other)==len(data)
        for p in data.items:
            for a,b in zip(p.both(), other[p.image.name].both()): assert (a==b).all()

# The drawing

def random_outline(rng, r, n=9):
    a,d = np.sort(rng.uniform(0, 2*np.pi, n)),r*rng.uniform(.4, 1, n)
    return np.stack([100+rng.uniform()+d*np.cos(a), 80+rng.uniform()+d*np.sin(a)], 1)

@pytest.mark.parametrize('r', [2, 9, 50, 300])
def test_pixels_are_those_whose_centre_is_inside(r):
    rng = np.random.default_rng(r)
    for _ in range(5):
        points = random_outline(rng, r)
        got = draw([Shape('x', [points])], (160,200), dict(x=1), 0)[0]
        assert (got==covered(points, 160, 200)).all()

def test_gdal_draws_the_same():
    features = pytest.importorskip('rasterio.features')
    rng = np.random.default_rng(3)
    for r in (2, 9, 50, 300):
        points = random_outline(rng, r)
        other = features.rasterize([dict(type='Polygon', coordinates=[[*map(tuple, points), tuple(points[0])]])], (160,200), dtype='uint8')
        assert (draw([Shape('x', [points])], (160,200), dict(x=1), 0)[0]==other).all()

@pytest.mark.parametrize('r, least', [(9,.93), (50,.985), (90,.99)])
def test_pycocotools_draws_nearly_the_same(r, least):
    mask = pytest.importorskip('pycocotools.mask')
    rng = np.random.default_rng(r)
    for _ in range(5):
        points = random_outline(rng, r)
        other = mask.decode(mask.frPyObjects([points.ravel().tolist()], 200, 220)[0])>0
        ours = draw([Shape('x', [points])], (200,220), dict(x=1), 0)[0]>0
        assert (ours & other).sum()>=least*(ours | other).sum() and abs(int(ours.sum())-int(other.sum()))<=.02*other.sum()+3

def test_run_lengths_are_those_of_pycocotools():
    mask = pytest.importorskip('pycocotools.mask')
    rng = np.random.default_rng(0)
    for p in (0, .03, .5, 1):
        a = np.asfortranarray(rng.uniform(size=(37,91))<p).astype(np.uint8)
        code = mask.encode(a)
        assert counts_of(code['counts'])==counts_of(code['counts'].decode())
        assert (RunLengths(code['counts'].decode(), (37,91))()==a).all() and (RunLengths(counts(a.T.ravel()), (37,91))()==a).all()

def test_a_hole_leaves_what_is_below():
    square,hole = np.array([(2,2),(18,2),(18,18),(2,18)]),np.array([(6,6),(12,6),(12,12),(6,12)])
    got,odd = draw([Shape('a', [square-50+50]), Shape('b', [square, hole])], (20,20), dict(a=1, b=2), 0)
    assert np.bincount(got.ravel()).tolist()==[144, 36, 220] and not odd

def test_a_stroke_is_unpacked():
    area = np.random.default_rng(0).uniform(size=(13,17))<.4
    assert (Stroke(bytes(packed(area)), (13,17))()==area).all()

def test_tiny_and_outer_shapes_are_counted():
    _,odd = draw([Shape('x', [np.array([(1.1,1.1),(1.3,1.1),(1.2,1.3)])]), Shape('x', [np.array(ROOF)-500])], (20,20), dict(x=1), 0)
    assert odd==["2 shapes cover no pixel: smaller than one, or outside the photo"]

@pytest.mark.parametrize('as_stored', [True, False])
def test_photos_turned_by_a_flag(as_stored, tmp_path):
    "Some tools show a photo upright, others as it is stored; the size that they wrote tells which"
    exif = Image.Exif()
    exif[274] = 6 # is to be turned clockwise
    Image.fromarray(np.zeros((H,W,3), np.uint8)).save(tmp_path/'a.jpg', exif=exif)
    h,w = (H,W) if as_stored else (W,H)
    left = [[0,0],[w/2,0],[w/2,h],[0,h]] # its left half, as seen in the tool
    write(tmp_path/'a.json', dict(shapes=[dict(label='roof', points=left, shape_type='polygon')], imagePath='a.jpg', imageHeight=h, imageWidth=w))
    data = open_dataset(tmp_path)
    ids = data.read_ids('a')
    assert ids.shape==(W,H) and (ids[:W//2].all() and not ids[W//2:].any() if as_stored else ids[:,:H//2].all() and not ids[:,H//2:].any())
    assert ('are turned along' in repr(data.check(progress=False)))==as_stored

def test_a_project_of_cvat_has_photos_of_one_name(tmp_path):
    "As in tests/assets/cvat_dataset/for_images/export_project of datumaro"
    cvat(tmp_path)
    f = tmp_path/'annotations.xml'
    head,body = f.read_text().split('<image ', 1)
    one = '<image ' + body.replace('</annotations>', '')
    for side in ('Train','Validation'): photos(tmp_path/'images'/side)
    for old in (tmp_path/'images').glob('*.jpg'): old.unlink()
    f.write_text(head + ''.join(one.replace('<image ', f'<image subset="{s}" ') for s in ('Train','Validation')) + '</annotations>')
    data = open_dataset(tmp_path)
    assert {k: len(v) for k,v in data.official.items()}==dict(train=3, valid=3, test=0) and data.stems[0]=='Train/a'

def test_groups_of_cvat_are_of_no_account(tmp_path):
    "They say which shapes are one object; what a shape is and where it lies stays its own"
    cvat(tmp_path/'a')
    cvat(tmp_path/'b')
    f = tmp_path/'b/annotations.xml'
    f.write_text(f.read_text().replace('<polygon ', '<polygon group_id="1" '))
    a,b = (open_dataset(tmp_path/d).read_ids('a') for d in 'ab')
    assert (a==b).all()

def test_objects_of_supervisely_before_2019(tmp_path):
    "As in assets/legacy of supervisely/docs: no geometryType, and no ending in the name of the file"
    for d in (supervisely, supervisely_bitmaps):
        d(tmp_path/d.__name__)
        want = open_dataset(tmp_path/d.__name__).read_ids('a')
        for f in (tmp_path/d.__name__/'fields/ann').iterdir():
            old = json.loads(f.read_text())
            for o in old['objects']:
                del o['geometryType']
                if 'points' in o: o['points']['exterior'].append(o['points']['exterior'][0])
            write(f, old)
            f.rename(f.with_name(f.name.replace('.jpg', '')))
        assert (open_dataset(tmp_path/d.__name__).read_ids('a')==want).all()

def test_boxes_of_supervisely_hold_the_pixels_at_their_ends(tmp_path):
    "As cv2 draws them, by which its SDK does; points and lines are left out"
    supervisely(tmp_path)
    def thing(kind, points, **more): return dict(classTitle='roof', geometryType=kind, points=points, **more)
    hole = [[[4,4],[8,4],[8,8],[4,8]]]
    objects = [thing('rectangle', dict(exterior=[[20,30],[10,10]], interior=[])), thing('polygon', dict(exterior=[[2,2],[12,2],[12,12],[2,12]], interior=hole)),
        thing('oriented_bbox', [[30,10],[50,20]], angle=.3), thing('point', dict(exterior=[[1,1]], interior=[])), thing('line', dict(exterior=[[1,1],[9,9]], interior=[]))]
    write(tmp_path/'fields/ann/a.jpg.json', dict(size=dict(height=H, width=W), objects=objects))
    want = np.zeros((H,W), np.uint8)
    cv2.rectangle(want, (10,10), (20,30), 1, -1)
    ring = np.zeros_like(want)
    cv2.fillPoly(ring, [np.array(objects[1]['points']['exterior'])], 1)
    cv2.fillPoly(ring, [np.array(hole[0])], 0)
    turned = cv2.boxPoints(((40,15), (20,10), np.rad2deg(.3))).astype(int)
    cv2.fillPoly(want, [turned], 1)
    data = open_dataset(tmp_path)
    assert ((data.read_ids('a')==data.classes.id_of('roof'))==(want | ring)).all()
    assert any('2 objects have a box, a line or points' in m for _,m in data.notes)

def supervisely_masks(root, ann=(), human=None):
    "As its app export-as-masks writes them: grey values from 1; `human` beside the photo, or instead of it"
    write(root/'meta.json', dict(classes=[dict(title='roof', shape='line', color='#C80000'), dict(title='pond', shape='any', color='#0000C8')]))
    write(root/'obj_class_to_machine_color.json', dict(pond=[2,2,2], roof=[1,1,1]))
    for d,stems in (('train','ab'), ('val','c')):
        photos(root/d/'img', stems=stems)
        for name in ('masks_human','masks_machine'): (root/d/name).mkdir()
        for s in stems:
            ids = np.vectorize({'':0,'roof':1,'pond':2}.get)(truth(s)).astype(np.uint8)
            (root/d/f'masks_machine/{s}.png').write_bytes(png(np.dstack([ids]*3)))
            if human: (root/d/f'masks_human/{s}.png').write_bytes(png(human(np.uint8([[0,0,0],[200,0,0],[0,0,200]])[ids])))
            if ann: write(root/d/f'ann/{s}.jpg.json', dict(size=dict(height=H, width=W), objects=list(ann)))

LINE = dict(classTitle='roof', geometryType='line', points=dict(exterior=[[1,1],[9,9]], interior=[]))

@pytest.mark.parametrize('ann', [(), (LINE,)], ids=['without','lines'])
def test_masks_of_supervisely_where_there_is_no_outline(ann, tmp_path):
    supervisely_masks(tmp_path, ann, lambda a: np.hstack([a,a]))
    data = open_dataset(tmp_path)
    assert data.classes.names==['background','pond','roof'] and data.classes.ids==[0,2,1] and data.classes.colors[2].tolist()==[200,0,0]
    for s in ('train/img/a','train/img/b','val/img/c'):
        assert (data.read_ids(s)==np.vectorize({'':0,'roof':1,'pond':2}.get)(truth(s[-1]))).all()
    assert data.official==dict(train=['train/img/a','train/img/b'], valid=['val/img/c'], test=[]) and not data.lonely
    assert not data.check(progress=False).problems
    write(tmp_path/'classes.csv', 'id,name\n0,ground\n1,house\n2,water\n')
    assert open_dataset(tmp_path).classes.names==['ground','house','water']

def test_masks_of_supervisely_without_their_table_count_as_its_app_does(tmp_path):
    supervisely_masks(tmp_path)
    (tmp_path/'obj_class_to_machine_color.json').unlink()
    assert open_dataset(tmp_path).classes.ids==[0,1,2]
    write(tmp_path/'meta.json', dict(classes=[dict(title='Background'), dict(title='roof')]))
    data = open_dataset(tmp_path)
    assert data.classes.names==['unlabelled','Background','roof'] and data.classes.void=={0}

def test_masks_of_two_projects_of_supervisely_are_two_data_sets(tmp_path):
    for name in ('one','two'): supervisely_masks(tmp_path/name)
    assert len(open_dataset(tmp_path))==6
    write(tmp_path/'two/obj_class_to_machine_color.json', dict(roof=[2,2,2], pond=[1,1,1]))
    with pytest.raises(DatasetError, match='obj_class_to_machine_color.json says otherwise; open one project at a time'): open_dataset(tmp_path)

def test_masks_of_supervisely_for_the_eye(tmp_path):
    supervisely_masks(tmp_path/'one', human=lambda a: a)
    supervisely_masks(tmp_path/'two', human=lambda a: np.hstack([a,a]))
    supervisely_masks(tmp_path/'three', human=lambda a: a//2+40)
    for f in tmp_path.glob('*/*/masks_machine'): shutil.rmtree(f)
    data = open_dataset(tmp_path/'one')
    assert (data.read_ids('train/img/a')==np.vectorize({'':0,'roof':1,'pond':2}.get)(truth('a'))).all()
    for name in ('two','three'):
        with pytest.raises(DatasetError, match='masks_human/.*png: a picture for the eye; export the project with masks_machine'): open_dataset(tmp_path/name)

def test_outlines_of_supervisely_come_before_its_masks(tmp_path):
    supervisely(tmp_path)
    want = open_dataset(tmp_path).read_ids('a')
    for f in (tmp_path/'fields/masks_machine').iterdir():
        f.unlink()
        f.with_suffix('.png').write_bytes(png(np.ones((H,W), np.uint8)))
    data = open_dataset(tmp_path)
    assert (data.read_ids('a')==want).all() and any('masks_machine is passed over' in m for _,m in data.notes)

def test_classes_of_boxes_alone_are_told(tmp_path):
    supervisely(tmp_path)
    f = tmp_path/'fields/ann/c.jpg.json'
    write(f, json.loads(f.read_text()) | dict(objects=[dict(classTitle='car', geometryType='rectangle', points=dict(exterior=[[1,1],[9,9]], interior=[]))]))
    write(tmp_path/'meta.json', dict(classes=[dict(title=t) for t in ('roof','pond','car')]))
    assert any('all shapes of car are boxes, which are filled' in m for _,m in open_dataset(tmp_path).notes)

@pytest.mark.parametrize('apart', [False, True])
def test_strokes_of_label_studio_whose_photos_are_named_as_their_tasks(apart, tmp_path):
    photos(tmp_path/'images' if apart else tmp_path, stems=['task-1','task-2','task-3'], end='.png')
    def stroke(name, area):
        (tmp_path/'masks').mkdir(exist_ok=True)
        (tmp_path/('masks' if apart else '.')/f'{name}.png').write_bytes(png(area))
    rows = np.arange(H)[:,None]+np.zeros((H,W))
    stroke('task-1-annotation-1-by-1-tag-dark blue-0', rows<3)
    stroke('task-1-annotation-11-by-a@b.de-tag-dark blue-0', rows<10)
    stroke('task-1-annotation-11-by-a@b.de-tag-dark blue-1', rows>=30)
    stroke('task-1-annotation-11-by-a@b.de-tag-red-roof-0', (rows>=20) & (rows<32))
    stroke('task-2-annotation-2-by-1-tag-red-roof-0', rows>38)
    stroke('task-9-annotation-2-by-1-tag-red-roof-0', rows>38)
    data = open_dataset(tmp_path)
    blue,roof = map(data.classes.id_of, ('dark blue','red-roof'))
    assert (data.read_ids('task-1')==np.where(rows<10, blue, np.where(rows<20, IGNORE, np.where(rows<32, roof, blue)))).all()
    assert data.stems==['task-1','task-2'] and [f.stem for f in data.lonely]==['task-3']
    for text in ('1 photos were labelled more than once', '1 of 3 photos that it lists are not here, such as task-9', '2 photos are drawn from brush strokes in PNGs'):
        assert any(text in m for _,m in data.notes)

def brush_export(root, name='task-{task}-annotation-{task}-by-ann@field.org-tag-{label}-{n}.png'):
    "The PNGs of `label_studio_brush`, as its converter names them; ids of tasks are 40, 41 and 42"
    for k,v in enumerate(SHAPES.values()):
        for n,(label,points) in enumerate(v): (root/name.format(task=40+k, label=label, n=n)).write_bytes(png(covered(points)))

def tasks_without(d, what):
    "Tasks of an export, of which somebody has taken the strokes away"
    for t in d:
        t['id'] += 40
        for a in t.get('annotations', ()): a['id'] += 40
        if 'annotation_id' in t: t['annotation_id'] += 40
        for r in [r for a in t.get('annotations', ()) for r in a['result']] + t.get('label', []):
            if what=='rle': r.get('value', r).pop('rle')
        if what=='results' and 'annotations' in t: t['annotations'] = [a | dict(result=[]) for a in t['annotations']]
        if what=='results': t.pop('label', 0)
        if what=='annotations': t.pop('annotations', 0)
    return d

@pytest.mark.parametrize('name', ['task-{task}-annotation-{task}-by-ann@field.org-tag-{label}-{n}.png', 'task-{task}-annotation-{task}-by--tag-{label}-{n}.png',
    'task-{task}-annotation-{task}-tag-{label}-{n}.png', 'task-{task}-completion-{task}-tag-{label}-{n}.png'])
@pytest.mark.parametrize('what, least', [('rle',False), ('rle',True), ('results',False), ('results',True), ('annotations',False)])
def test_strokes_are_joined_to_photos_by_the_json(what, least, name, tmp_path):
    label_studio(tmp_path, 'brush', least)
    f = tmp_path/'project-3-at-2024-05-01.json'
    write(f, tasks_without(json.loads(f.read_text()), what))
    brush_export(tmp_path, name)
    data = open_dataset(tmp_path)
    order = SHAPES['a'][::-1] # the later in the alphabet is on top
    want = np.full((H,W), IGNORE)
    for label,points in order: want[covered(points)] = data.classes.id_of(label)
    assert data.classes.names==['pond','roof'] and (data.read_ids('a')==want).all()
    assert (data.read_ids('b')==np.where(covered(EDGE), 1, IGNORE)).all()
    assert any('2 photos are drawn from brush strokes in PNGs' in m for _,m in data.notes) and not any('have a box' in m for _,m in data.notes)

@pytest.mark.parametrize('least', [False, True])
def test_strokes_in_the_json_count_and_not_those_beside(least, tmp_path):
    label_studio(tmp_path, 'brush', least)
    f = tmp_path/'project-3-at-2024-05-01.json'
    write(f, tasks_without(json.loads(f.read_text()), ''))
    brush_export(tmp_path)
    for g in tmp_path.glob('task-*.png'): g.write_bytes(png(np.ones((H,W), bool)))
    data = open_dataset(tmp_path)
    assert (data.read_ids('a')==np.vectorize({'':IGNORE,'pond':1,'roof':2}.get)(truth('a'))).all()
    assert not any('PNGs' in m for _,m in data.notes)

def test_strokes_of_photos_that_are_not_here(tmp_path):
    label_studio(tmp_path, 'brush', True)
    f = tmp_path/'project-3-at-2024-05-01.json'
    write(f, tasks_without(json.loads(f.read_text()), 'results'))
    brush_export(tmp_path)
    shutil.rmtree(tmp_path/'images')
    with pytest.raises(DatasetError, match='none of its 2 photos is here, such as .*0a1b2c3d-a.jpg'): open_dataset(tmp_path)

def test_the_csv_of_label_studio_is_told(tmp_path):
    photos(tmp_path)
    write(tmp_path/'project-1.csv', 'annotation_id,annotator,created_at,id,image,lead_time,tag,updated_at\n1,1,x,1,a.jpg,2.5,"[]",x\n')
    with pytest.raises(DatasetError, match='project-1.csv: the CSV of Label Studio; export the project as JSON'): open_dataset(tmp_path)

@pytest.mark.parametrize('broken', [dict(mask=None), {}], ids=['null','no key'])
def test_masks_of_labelme_without_pixels_are_counted(broken, tmp_path):
    labelme_masks(tmp_path)
    f = tmp_path/'a.json'
    d = json.loads(f.read_text())
    want = open_dataset(tmp_path).read_ids('a')
    d['shapes'].append(dict(label='roof', points=[[0,0],[9,9]], shape_type='mask', **broken))
    write(f, d)
    data = open_dataset(tmp_path)
    assert (data.read_ids('a')==want).all() and any('1 masks without pixels are left out, such as in a.json' in m for _,m in data.notes)
    for g in tmp_path.glob('*.json'): write(g, json.loads(g.read_text()) | dict(shapes=d['shapes'][-1:]))
    with pytest.raises(DatasetError, match='3 masks without pixels are left out.*no photo has a shape'): open_dataset(tmp_path)

def test_photos_of_labelme_that_were_renamed_with_their_files(tmp_path):
    "As in the example of supervisely/docs: IMG_0748.json beside IMG_0748.jpeg says IMG_5853 2.jpg"
    labelme(tmp_path)
    want = open_dataset(tmp_path).read_ids('a')
    for s in SHAPES:
        (tmp_path/f'{s}.jpg').rename(tmp_path/f'IMG_{s}.JPEG')
        (tmp_path/f'{s}.json').rename(tmp_path/f'IMG_{s}.json')
    assert (open_dataset(tmp_path).read_ids('IMG_a')==want).all()
    (tmp_path/'IMG_a.JPEG').rename(tmp_path/'other.JPEG')
    assert any('1 of 3 photos that it lists are not here' in m for _,m in open_dataset(tmp_path).notes)

def test_texts_of_label_studio_have_the_names_of_uploads(tmp_path):
    "Its export without photos: the user has them by their own names"
    photos(tmp_path/'images')
    write(tmp_path/'classes.txt', 'roof\npond\n')
    for s,v in SHAPES.items():
        rows = [' '.join(map(str, [['roof','pond'].index(n), *np.divide(p, (W,H)).ravel()])) for n,p in v]
        write(tmp_path/f'labels/0a1b2c3d-{s}.txt', '\n'.join(rows))
    data = open_dataset(tmp_path)
    assert (data.read_ids('a')==np.vectorize({'':2,'roof':0,'pond':1}.get)(truth('a'))).all()
    write(tmp_path/'labels/99999999-a.txt', '')
    with pytest.raises(DatasetError, match='could be that of 0a1b2c3d-a.txt or 99999999-a.txt; take one away'): open_dataset(tmp_path)

def test_outlines_without_a_category_are_counted(tmp_path):
    "MakeSense writes them so where nobody gave a label, or it was deleted"
    coco(tmp_path)
    changed(tmp_path, lambda d: d['annotations'][2].pop('category_id'))
    data = open_dataset(tmp_path)
    assert any('1 shapes have no class and are left out' in m for _,m in data.notes) and not data.read_ids('b').any()

def test_regions_without_names_are_one_class(tmp_path):
    "As in many data sets for Mask R-CNN, such as luoyaxiong/building"
    makesense(tmp_path)
    f = tmp_path/'via_project.json'
    d = json.loads(f.read_text())
    for e in d.values():
        for r in e['regions'].values(): r['region_attributes'] = {}
    write(f, d)
    data = open_dataset(tmp_path)
    assert data.classes.names==['background','object'] and ((data.read_ids('a')>0)==(truth('a')!='')).all()

# What is wrong

def changed(root, change, name='annotations/instances_default.json'):
    d = json.loads((root/name).read_text())
    change(d)
    write(root/name, d)

def boxes(d):
    for a in d['annotations']: a['segmentation'] = []
def other_category(d): d['annotations'][0]['category_id'] = 77
def other_image(d): d['annotations'][0]['image_id'] = 77
def elsewhere(d):
    for i in d['images']: i['file_name'] = 'D:/flight/x' + i['file_name']
def other_size(d): d['annotations'][0]['segmentation'] = dict(size=[3,3], counts=[9])
def one_name(d): d['categories'][1]['name'] = 'Roof'
def nothing(d): d['annotations'] = []
def no_name(d): d['categories'] = [dict(id=3), dict(id=8)]

@pytest.mark.parametrize('change, says', [
    (boxes, 'its 3 objects have a box, a line or points, and no outline'), (other_category, 'has category 77, which is not listed'),
    (other_image, 'has image 77, which is not listed'), (elsewhere, 'none of its 3 photos is here, such as D:/flight/xa.jpg'),
    (other_size, 'run lengths of size (3, 3), its photo is (40, 60)'), (one_name, "'roof' and 'Roof' differ only in case"),
    (nothing, 'no photo has a shape with a label')], ids=lambda v: getattr(v, '__name__', ''))
def test_what_is_wrong_is_one_line_with_file_value_and_way_out(change, says, tmp_path):
    coco(tmp_path)
    changed(tmp_path, change)
    with pytest.raises(DroneSegError) as e: open_dataset(tmp_path)
    text = str(e.value)
    assert says in text and len(text.splitlines())==1 and 'instances_default.json' in text

def test_photo_of_another_size(tmp_path):
    coco(tmp_path)
    photos(tmp_path/'images', size=(H,2*W))
    report = open_dataset(tmp_path).check(progress=False)
    assert len(report.problems)==3 and 'was labelled as 60x40, and is 120x40' in report.problems[0][1]

def test_two_labels_of_one_name_say_the_file(tmp_path):
    labelme(tmp_path)
    d = json.loads((tmp_path/'b.json').read_text())
    d['shapes'][0]['label'] = 'Pond'
    write(tmp_path/'b.json', d)
    with pytest.raises(DatasetError, match="[ab].json: the labels 'Pond' and 'pond' differ only in case or spaces; rename one"): open_dataset(tmp_path)

def test_xml_with_entities_is_refused(tmp_path):
    cvat(tmp_path)
    f = tmp_path/'annotations.xml'
    f.write_text(f.read_text().replace('<annotations>', '<!DOCTYPE a [<!ENTITY l "lol"><!ENTITY m "&l;&l;">]>\n<annotations>', 1))
    with pytest.raises(DroneSegError, match='has a document type or entities'): open_dataset(tmp_path)

@pytest.mark.parametrize('name, says', [('../x.jpg', 'lies outside'), ('/x.jpg', 'lies outside'), ('a/../../x.jpg', 'lies outside'), ('C:\\x.jpg', 'lies outside')])
def test_zip_with_paths_outside(name, says, tmp_path, monkeypatch):
    monkeypatch.setenv('DRONE_SEG_CACHE', str(tmp_path/'cache'))
    with zipfile.ZipFile(tmp_path/'x.zip', 'w') as z: z.writestr(name, 'x')
    with pytest.raises(DroneSegError, match=says): open_dataset(tmp_path/'x.zip')
    assert not [f for f in (tmp_path/'cache').rglob('*') if f.is_file()]

def test_zip_that_grows_is_refused(tmp_path, monkeypatch):
    monkeypatch.setenv('DRONE_SEG_CACHE', str(tmp_path/'cache'))
    with zipfile.ZipFile(tmp_path/'bomb.zip', 'w', zipfile.ZIP_DEFLATED) as z: z.writestr('a.bin', bytes(300_000_000))
    with pytest.raises(DroneSegError, match='it would unpack to 0.3 GB'): unpacked(tmp_path/'bomb.zip')
    (tmp_path/'torn.zip').write_bytes((tmp_path/'bomb.zip').read_bytes()[:-40])
    with pytest.raises(DroneSegError, match='not a sound zip'): unpacked(tmp_path/'torn.zip')

def test_several_annotators(tmp_path):
    label_studio(tmp_path)
    f = tmp_path/'project-3-at-2024-05-01.json'
    tasks = json.loads(f.read_text())
    tasks[0]['annotations'] = [tasks[0]['annotations'][0] | dict(id=9, ground_truth=True), dict(id=10, result=[])]
    tasks[2]['annotations'][0]['was_cancelled'] = True
    write(f, tasks)
    data = open_dataset(tmp_path)
    said = [m for _,m in data.notes]
    assert len(data)==2 and np.unique(data.read_ids(data.stems[0])).tolist()==[1,2,255]
    assert any('1 photos were labelled more than once' in m for m in said) and any('1 tasks are not labelled' in m for m in said)

def test_several_annotators_in_the_short_json(tmp_path):
    "A row for each annotation, and rows of photos that nobody has labelled"
    label_studio(tmp_path, least=True)
    f = tmp_path/'project-3-at-2024-05-01.json'
    tasks = json.loads(f.read_text())
    old = tasks[0] | dict(annotation_id=99, annotator=2, updated_at='2024-01-01', label=[])
    tasks[2]['annotation_id'] = None
    write(f, [tasks[0] | dict(updated_at='2024-01-02'), old, *tasks[1:]])
    data = open_dataset(tmp_path)
    assert len(data)==2 and (data.read_ids('a')==np.vectorize({'':IGNORE,'pond':1,'roof':2}.get)(truth('a'))).all()
    for text in ('1 photos were labelled more than once', '1 tasks are not labelled'): assert any(text in m for _,m in data.notes)

def test_all_that_is_odd_is_counted(tmp_path):
    label_studio(tmp_path)
    write(tmp_path/'classes.csv', 'id,name,r,g,b\n1,roof,200,0,0\n2,pond,0,0,200\n') # no car
    exif = Image.Exif()
    exif[274] = 6
    Image.new('RGB', (W,H), (90,99,80)).save(tmp_path/'images/turned.jpg', exif=exif)
    photos(tmp_path/'images', stems=['empty','skipped'])
    lake = np.zeros((H,W), bool)
    lake[5:20,5:20] = True
    lake[9:12,9:12] = False
    tasks = json.loads((f := tmp_path/'project-3-at-2024-05-01.json').read_text())
    more = dict(original_width=W, original_height=H, image_rotation=0, to_name='image', from_name='label')
    def result(label, points, tool='polygon'): return [dict(id='x', type=kind, value=value, **more) for kind,value in region(tool, label, points)]
    def task(k, name, *results, **a): return dict(id=k, data=dict(image=f'{name}.jpg'), annotations=[dict(id=k, result=[*results], **a)])
    hole = dict(id='x', type='brushlabels', value=dict(format='rle', rle=packed(lake), brushlabels=['pond']), **more)
    dot = [(30.1,30.1), (30.3,30.1), (30.3,30.3)]
    tasks[0]['annotations'].append(dict(id=99, result=[*result('roof', ROOF), *result('roof', EDGE), *result('roof', dot), *result('car', POND), hole], updated_at='2024'))
    tasks += [task(7, 'turned', *result('roof', ROOF)), task(8, 'empty'), task(9, 'skipped', was_cancelled=True)]
    write(f, tasks)
    said = '\n'.join(m for f in open_dataset(tmp_path).check(progress=False).findings for _,m in f.items)
    for text in ('2 shapes cut off at the border, on 2 photos', '1 shape with holes, on 1 photo', 'a.jpg: 1 shapes cover no pixel',
            "a.jpg: 1 shapes of 'car', which is no class, are void", 'labels that the class table lacks are void: car', '2 photos have no shape',
            '1 photos were labelled more than once', '1 tasks are not labelled or were skipped', 'turned.jpg: its shapes fit the photo before its EXIF flag (6)'):
        assert text in said, said

def test_a_deleted_label_is_void(tmp_path):
    cvat(tmp_path)
    f = tmp_path/'annotations.xml'
    f.write_text(f.read_text().replace('<label><name>pond</name><color>#3d3df5</color><type>any</type><attributes></attributes></label>', ''))
    data = open_dataset(tmp_path)
    assert data.classes.names==['background','roof'] and "1 shapes of 'pond', which is no class, are void" in repr(data.check(progress=False))

@pytest.mark.parametrize('old, new', [(' points="', ' dots="'), (' width="60"', ''), ('points="20.20,', 'points="x,'), (' name="a.jpg"', ''), ('z_order="1"', 'z_order="top"'), (' label="pond"', '')])
def test_damaged_xml_is_told(old, new, tmp_path):
    cvat(tmp_path)
    f = tmp_path/'annotations.xml'
    assert old in f.read_text()
    f.write_text(f.read_text().replace(old, new))
    try: data = open_dataset(tmp_path)
    except DroneSegError as e: assert 'annotations.xml' in str(e) and len(str(e).splitlines())==1
    else: assert data.check(progress=False).findings

def places_in(d, path=()):
    "Paths to all values in data"
    for k,v in d.items() if isinstance(d, dict) else enumerate(d) if isinstance(d, list) else ():
        yield (*path, k)
        yield from places_in(v, (*path, k))

@pytest.mark.parametrize('generate', [f[0] for f in FORMS if f[0] not in (yolo, cvat, cvat_runs)], ids=lambda f: f.__name__)
def test_damaged_files_are_told(generate, tmp_path):
    "Any value that is missing, or another: the export opens, or one line says the file"
    generate(tmp_path)
    f = max(tmp_path.rglob('*json'), key=lambda f: f.stat().st_size)
    d,rng = json.loads(f.read_text()),np.random.default_rng(0)
    places,said = list(places_in(d)),set()
    for k in rng.permutation(len(places))[:40]:
        for value in (..., None, 'x', -1, []):
            bad = json.loads(json.dumps(d))
            inner = bad
            for key in places[k][:-1]: inner = inner[key]
            if value is ...: del inner[places[k][-1]]
            else: inner[places[k][-1]] = value
            write(f, bad)
            try:
                data = open_dataset(tmp_path)
                for p in data.items: data.read_ids(p)
            except DroneSegError as e: said.add(str(e)) if len(str(e).splitlines())==1 else pytest.fail(str(e))
            except Exception as e: pytest.fail(f"{places[k]} = {value!r}: {e!r}")
    assert any(f.name in m or f.parent.name in m for m in said)

@pytest.mark.parametrize('layout', ['masks/{s}_{c}.png', 'masks/{c}/{s}.png', '{c}/{s}.png'])
def test_one_mask_per_class(layout, tmp_path):
    photos(tmp_path/'images')
    for s,v in SHAPES.items():
        for c in ('pond','roof'):
            f = tmp_path/layout.format(s=s, c=c)
            f.parent.mkdir(parents=True, exist_ok=True)
            area = np.zeros((H,W), bool)
            for n,p in v: area |= covered(p) & (n==c)
            f.write_bytes(png(area))
    data = open_dataset(tmp_path)
    want = truth('a')
    want[covered(ROOF)] = 'roof' # the later one of the alphabet lies on top
    assert data.classes.names==['background','pond','roof'] and (data.read_ids('a')==np.vectorize({'':0,'pond':1,'roof':2}.get)(want)).all()
    assert not data.check(progress=False).problems
    (tmp_path/layout.format(s='b', c='pond')).write_bytes(png(np.ones((H,W+1), bool)))
    assert 'was labelled as 61x40, and is 60x40' in repr(open_dataset(tmp_path).check(progress=False))

@pytest.mark.parametrize('root_of', [lambda r: r, lambda r: r/'photos'], ids=['together','apart'])
def test_strokes_alone_and_boxes_name_the_way_out(root_of, tmp_path):
    photos(root_of(tmp_path))
    (tmp_path/'task-1-annotation-4-by-1-tag-roof-0.png').write_bytes(png(covered(ROOF)))
    with pytest.raises(DroneSegError, match='1 brush strokes of Label Studio.*export the project as JSON too'): open_dataset(tmp_path)
    (tmp_path/'task-1-annotation-4-by-1-tag-roof-0.png').unlink()
    write(tmp_path/'a.xml', '<annotation><filename>a.jpg</filename><object><name>car</name><bndbox><xmin>1</xmin></bndbox></object></annotation>')
    with pytest.raises(DroneSegError, match='a.xml: boxes in the form of Pascal VOC.*draw polygons'): open_dataset(tmp_path)

# Masks that are nearly right

def nearly(root, masks, table='id,name,r,g,b\n0,ground,0,0,255\n1,roof,255,85,0\n', end='png'):
    "A data set of these masks, and all that `check` says; the last line of an error if it does not open"
    photos(root/'images', (80,120), 'abcdef'[:len(masks)], '.png')
    for s,m in zip('abcdef', masks):
        (root/'masks').mkdir(exist_ok=True)
        Image.fromarray(m).save(root/f'masks/{s}.{end}')
    if table: write(root/'classes.csv', table)
    return repr(open_dataset(root).check(progress=False))

def block(value=1):
    a = np.zeros((80,120), np.uint8)
    a[20:60,30:90] = value
    return a

def smooth():
    from scipy.ndimage import gaussian_filter
    return gaussian_filter(block(255).astype(float), 1.2).round().astype(np.uint8)

def test_masks_of_0_and_255_name_a_command_that_works(tmp_path):
    said = nearly(tmp_path, [block(255)]*3)
    assert '--write-classes' in said and 'error' in said
    (tmp_path/'classes.csv').unlink()
    write_classes(tmp_path)
    assert open_dataset(tmp_path).classes.ids==[0,255] and not open_dataset(tmp_path).check(progress=False).problems

def test_ids_of_two_tools_are_told(tmp_path):
    assert "b.png: holds 0 and 255 only, and 255 is no class but void, and no other mask holds 255" in nearly(tmp_path/'x', [block(), block(255), block()])
    assert 'join_datasets' in nearly(tmp_path/'y', [block(), block(7), block()])
    void = block()
    void[:5] = 255
    assert 'join_datasets' not in nearly(tmp_path/'z', [block(), block(255), void]) # 255 is void elsewhere too

def test_smooth_borders_are_told(tmp_path):
    said = nearly(tmp_path/'x', [smooth()]*2, 'id,name,r,g,b\n0,ground,0,0,255\n255,roof,255,85,0\n')
    assert 'without anti-aliasing' in said
    a = smooth()
    said = nearly(tmp_path/'y', [np.dstack([a, a//3, 255-a])]*2, 'name,r,g,b\nground,0,0,255\nroof,255,85,0\n')
    assert 'between two of them' in said and 'without anti-aliasing' in said and 'add them to the class table' not in said
    for d in 'xy':
        (tmp_path/d/'classes.csv').unlink()
        with pytest.raises(DroneSegError, match='smooth borders; draw and export masks without anti-aliasing'): write_classes(tmp_path/d)
        assert not (tmp_path/d/'classes.csv').exists()

def test_jpeg_masks_are_told(tmp_path):
    said = nearly(tmp_path, [block(255)]*2, end='jpg')
    assert 'use the lossless originals' in said
    (tmp_path/'classes.csv').unlink()
    with pytest.raises(DroneSegError, match='a.jpg: a JPEG, which changes what masks hold'): write_classes(tmp_path)

def test_folders_that_changed_places_are_told(tmp_path):
    noise = np.random.default_rng(0).integers(0, 255, (80,120,3), dtype=np.uint8)
    assert 'rename the two folders' in nearly(tmp_path, [noise]*2)

# Masks of tools, which need no reader

def test_cvat_masks_have_the_names_of_their_own_table(tmp_path):
    "Its folders are those of AeroScapes and of VOC"
    photos(tmp_path/'JPEGImages')
    (tmp_path/'SegmentationClass').mkdir()
    colors = dict(zip(('','roof','pond'), ((0,0,0), (250,50,83), (61,61,245))))
    for s in SHAPES: Image.fromarray(np.array([[colors[n] for n in row] for row in truth(s)], np.uint8)).save(tmp_path/f'SegmentationClass/{s}.png')
    write(tmp_path/'labelmap.txt', "# label:color_rgb:parts:actions\nbackground:0,0,0::\nroof:250,50,83::\npond:61,61,245::\n")
    write(tmp_path/'ImageSets/Segmentation/default.txt', 'a\nb\nc\n')
    data = open_dataset(tmp_path)
    assert data.classes.names==['background','roof','pond'] and (data.read_ids('a')==np.vectorize({'':0,'roof':1,'pond':2}.get)(truth('a'))).all()

def test_a_table_of_fewer_classes_than_a_record_wins(tmp_path):
    "Folders and names of AeroScapes, of which the table knows three classes"
    rec = RECORDS['aeroscapes'].classes
    photos(tmp_path/'aeroscapes/JPEGImages')
    (tmp_path/'aeroscapes/SegmentationClass').mkdir()
    for s in SHAPES: Image.fromarray(np.vectorize({'':0,'roof':1,'pond':4}.get)(truth(s)).astype(np.uint8)).save(tmp_path/f'aeroscapes/SegmentationClass/{s}.png')
    rows = [f'{rec.ids[r]},{rec.names[r]},' + ','.join(map(str, rec.colors[r])) for r in (0,1,4)]
    write(tmp_path/'aeroscapes/classes.csv', '\n'.join(['id,name,r,g,b', *rows]))
    assert open_dataset(tmp_path/'aeroscapes').classes.names==['background','person','drone']
    (tmp_path/'aeroscapes/classes.csv').unlink()
    assert open_dataset(tmp_path/'aeroscapes').classes==rec

@pytest.mark.parametrize('city, end', [('ulm/','.png'), ('','.jpg')])
def test_layout_of_cityscapes(city, end, tmp_path):
    "As CVAT and datumaro write it, too: label_colors.txt, ids beside colours and instances, photos as they were"
    for side,s in zip(('train','val'), 'ab'):
        photos(tmp_path/f'imgsFine/leftImg8bit/{side}/{city}', stems=[s], end=f'_leftImg8bit{end}')
        gt = tmp_path/f'gtFine/{side}/{city}'
        gt.mkdir(parents=True)
        ids = np.vectorize({'':0,'roof':1,'pond':2}.get)(truth(s)).astype(np.uint8)
        for what in ('labelIds','instanceIds'): Image.fromarray(ids).save(gt/f'{s}_gtFine_{what}.png')
        Image.fromarray(np.dstack([ids*90]*3)).save(gt/f'{s}_gtFine_color.png')
    write(tmp_path/'label_colors.txt', '0 0 0 background\n250 50 83 roof\n61 61 245 pond\n')
    data = open_dataset(tmp_path)
    assert data.stems==[f'{city}a', f'{city}b'] and not data.lonely and data.classes.names==['background','roof','pond']
    assert {k: len(v) for k,v in data.official.items() if v}==dict(train=1, valid=1)
    assert (data.read_ids(f'{city}a')==np.vectorize({'':0,'roof':1,'pond':2}.get)(truth('a'))).all()

def test_layout_of_cityscapes_without_sides(tmp_path):
    "As mmsegmentation's own tests have it"
    photos(tmp_path/'leftImg8bit', stems=['a'], end='_leftImg8bit.png')
    ids = np.vectorize({'':0,'roof':1,'pond':2}.get)(truth('a')).astype(np.uint8)
    (tmp_path/'gtFine').mkdir()
    for what in ('labelIds','labelTrainIds'): Image.fromarray(ids if what=='labelIds' else ids+1).save(tmp_path/f'gtFine/a_gtFine_{what}.png')
    write(tmp_path/'label_colors.txt', '0 0 0 background\n250 50 83 roof\n61 61 245 pond\n')
    data = open_dataset(tmp_path)
    assert data.stems==['a'] and not data.lonely and data.official is None and (data.read_ids('a')==ids).all()

def test_roboflow_masks(tmp_path):
    for side,stem in zip(('train','valid'), 'ab'):
        photos(tmp_path/side, stems=[stem], end='_jpg.rf.0a1b.jpg')
        Image.fromarray(np.vectorize({'':0,'roof':2,'pond':1}.get)(truth(stem)).astype(np.uint8)).save(tmp_path/side/f'{stem}_jpg.rf.0a1b_mask.png')
        write(tmp_path/side/'_classes.csv', 'Pixel Value, Class\n0, background\n1, pond\n2, roof\n')
    data = open_dataset(tmp_path)
    assert data.classes.names==['background','pond','roof'] and {k: len(v) for k,v in data.official.items() if v}==dict(train=1, valid=1)
    assert np.unique(data.read_ids(data.stems[0])).tolist()==[0,1,2]

@pytest.mark.parametrize('name', ['lot#1.jpg','a50%20b.jpg','what?.jpg'])
def test_names_that_look_like_addresses(name, tmp_path):
    coco(tmp_path)
    (tmp_path/'images/a.jpg').rename(tmp_path/'images'/name)
    changed(tmp_path, lambda d: d['images'][0].update(file_name=name))
    assert Path(name).stem in open_dataset(tmp_path).stems

def test_folders_above_an_export_do_not_count(tmp_path):
    root = tmp_path/'images'/'project'
    photos(root)
    for s in 'abc': write(root/f'{s}.txt', '0 .1 .1 .5 .1 .5 .5')
    write(root/'data.yaml', 'names: [roof]')
    assert len(open_dataset(root))==3

def test_a_category_that_is_its_own_group_stays(tmp_path):
    coco(tmp_path)
    changed(tmp_path, lambda d: d['categories'].append(dict(id=9, name='car', supercategory='car')))
    assert 'car' in open_dataset(tmp_path).classes.names

def test_wrong_runs_name_their_file(tmp_path):
    coco(tmp_path)
    changed(tmp_path, lambda d: d['annotations'][0].update(segmentation=dict(size=[H,W], counts=[10**12, 3])))
    data = open_dataset(tmp_path)
    with pytest.raises(DroneSegError, match='instances_default.json: a shape on a.jpg cannot be drawn'): data.read_ids('a')
    assert data.check(progress=False).problems

def test_a_damaged_zip_is_told(tmp_path, monkeypatch):
    monkeypatch.setenv('DRONE_SEG_CACHE', str(tmp_path/'cache'))
    coco(tmp_path/'x')
    with zipfile.ZipFile(tmp_path/'x.zip', 'w', zipfile.ZIP_DEFLATED) as z:
        for f in (tmp_path/'x').rglob('*.json'): z.write(f, f.relative_to(tmp_path/'x'))
    b = bytearray((tmp_path/'x.zip').read_bytes())
    b[120:160] = bytes(40)
    (tmp_path/'x.zip').write_bytes(b)
    with pytest.raises(DroneSegError, match='not a sound zip'): unpacked(tmp_path/'x.zip')

# One of several photos, and masks of one class in several forms

def per_class(root, **areas):
    for name,a in areas.items():
        f = root/f'{name}.png'
        f.parent.mkdir(parents=True, exist_ok=True)
        (a if isinstance(a, Image.Image) else Image.fromarray(a.astype(np.uint8)*255)).save(f)

def top(rows, size=(H,W)): return np.arange(size[0])[:,None]+np.zeros(size)<rows

@pytest.mark.parametrize('at', ['images/{d}/a.jpg masks/{d}', '{d}/images/a.jpg {d}/masks', 'images/{d}/a.jpg masks/{d}/x'])
def test_masks_per_class_belong_to_the_photo_of_their_folder(at, tmp_path):
    for d,rows in (('f1',5), ('f2',15)):
        photo,masks = at.format(d=d).split()
        photos((tmp_path/photo).parent, stems='a')
        per_class(tmp_path/masks, a_roof=top(rows), a_tree=top(20)&~top(rows))
    data = open_dataset(tmp_path)
    assert [np.bincount(data.read_ids(s).ravel()).tolist() for s in data.stems]==[[20*W,5*W,15*W], [20*W,15*W,5*W]]
    assert 'f1' in str(data.items[0].image) and not data.check(progress=False).problems

@pytest.mark.parametrize('at, says', [('masks', 'a_roof.png: could be of images/f1/a.jpg and images/f2/a.jpg'), ('masks/f1 masks/f1/x', "is 'roof' of the same photo")])
def test_masks_per_class_that_fit_two_photos_or_twice_are_refused(at, says, tmp_path):
    for d in ('f1','f2'): photos(tmp_path/'images'/d, stems='a')
    for d in at.split(): per_class(tmp_path/d, a_roof=top(5))
    with pytest.raises(DroneSegError, match=says) as e: open_dataset(tmp_path)
    assert len(str(e.value).splitlines())==1

@pytest.mark.parametrize('form', ['RGBA','LA','RGB','P','1'])
def test_masks_per_class_of_every_form(form, tmp_path):
    photos(tmp_path/'images', stems='a')
    def grey(a): return Image.fromarray(a.astype(np.uint8)*255).convert(form)
    per_class(tmp_path/'masks', a_roof=grey(top(20)), a_tree=grey(top(30)&~top(20)))
    assert np.bincount(open_dataset(tmp_path).read_ids('a').ravel()).tolist()==[10*W,20*W,10*W]

def test_a_mask_per_class_of_another_size_is_refused(tmp_path):
    photos(tmp_path/'images', stems='a')
    per_class(tmp_path/'masks', a_roof=top(20), a_tree=top(20, (20,30)))
    said = open_dataset(tmp_path).check(progress=False).problems
    assert len(said)==1 and 'a_tree.png: mask is 30x20, another of its photo is 60x40; photo and mask must have the same size' in said[0][1]

def test_a_mask_per_class_that_holds_more_is_told(tmp_path):
    "It is not among those that are looked at when the folder is opened"
    for n in 'abcdefghijkl':
        photos(tmp_path/'images', stems=n)
        per_class(tmp_path/'masks', **{f'{n}_roof': top(20)})
    per_class(tmp_path/'masks', b_roof=Image.fromarray((top(20)*90+top(10)*90).astype(np.uint8)))
    found = open_dataset(tmp_path).check(progress=False)
    assert len(found.problems)==1 and 'b_roof.png: holds more than two values' in found.problems[0][1] and len(found.stems)==11

def test_import_says_what_check_says(tmp_path):
    from typer.testing import CliRunner
    from drone_seg.cli import app
    photos(tmp_path/'one'/'images', stems='ab')
    per_class(tmp_path/'one'/'masks', a_roof=top(20), b_roof=top(5))
    done = CliRunner().invoke(app, ['import', str(tmp_path/'one'), '--out', str(tmp_path/'plain')])
    assert done.exit_code==0 and 'masks of one class each are put together' in done.output
    f = tmp_path/'one'/'images'/'a.jpg'
    f.write_bytes(f.read_bytes()[:-60])
    done = CliRunner().invoke(app, ['import', str(tmp_path/'one'), '--out', str(tmp_path/'torn')])
    assert 'a.jpg' in str(done.exception) and not (tmp_path/'torn').exists()

def test_numbers_are_classes_of_geojson(tmp_path):
    photos(tmp_path, stems='a')
    def feature(y, c): return dict(type='Feature', properties={'class':c}, geometry=dict(type='Polygon', coordinates=[[[0,y],[W,y],[W,y+10],[0,y+10]]]))
    write(tmp_path/'a.geojson', dict(type='FeatureCollection', features=[feature(0, 1), feature(20, 2)]))
    data = open_dataset(tmp_path)
    assert data.classes.names==['1','2'] and [data.read_ids('a')[y,0] for y in (5,25)]==[data.classes.id_of(n) for n in '12']

@pytest.mark.parametrize('folder', ['','images'])
def test_a_photo_at_just_the_path_that_is_given_wins(folder, tmp_path):
    coco(tmp_path)
    if not folder:
        for f in (tmp_path/'images').iterdir(): f.rename(tmp_path/f.name)
    for size,d in (((9,9),'sub'), ((9,9),'a/b/c/d/e/f/g')): photos(tmp_path/folder/d, size)
    data = open_dataset(tmp_path)
    assert {p.image.parent for p in data.items}=={tmp_path/folder} and not data.check(progress=False).problems

def test_paths_from_the_folder_of_labelme_files(tmp_path):
    labelme_masks(tmp_path)
    photos(tmp_path/'sub', (9,9))
    write(tmp_path/'sub/c.json', json.loads((tmp_path/'c.json').read_text()) | dict(imagePath='..\\c.jpg'))
    (tmp_path/'c.json').unlink()
    assert {p.image for p in open_dataset(tmp_path).items}=={tmp_path/f'{s}.jpg' for s in 'abc'}

def test_photos_in_deep_folders(tmp_path):
    coco(tmp_path)
    deep = tmp_path/'1/2/3/4/5/6/7/8'
    deep.parent.mkdir(parents=True)
    (tmp_path/'images').rename(deep)
    (tmp_path/'1/round').symlink_to(tmp_path, target_is_directory=True)
    assert len(open_dataset(tmp_path))==3

def test_zip_of_windows_and_an_empty_one(tmp_path, monkeypatch):
    monkeypatch.setenv('DRONE_SEG_CACHE', str(tmp_path/'cache'))
    coco(tmp_path/'x')
    with zipfile.ZipFile(tmp_path/'x.zip', 'w') as z:
        for f in (tmp_path/'x').rglob('*.*'):
            entry = zipfile.ZipInfo()
            entry.filename = '\\'.join(('set', *f.relative_to(tmp_path/'x').parts))
            z.writestr(entry, f.read_bytes())
    assert len(open_dataset(tmp_path/'x.zip'))==3
    zipfile.ZipFile(tmp_path/'none.zip', 'w').close()
    with pytest.raises(DroneSegError, match='none.zip: there is nothing in it'): open_dataset(tmp_path/'none.zip')

def test_masks_of_255_alone_are_void(tmp_path):
    said = nearly(tmp_path, [np.full((80,120), 255, np.uint8)]*2)
    assert 'all of it is void' in said and '0 and 255' not in said
    (tmp_path/'classes.csv').unlink()
    with pytest.raises(DroneSegError, match='its masks hold 255 alone'): write_classes(tmp_path)
    assert not (tmp_path/'classes.csv').exists()

def test_oriented_boxes_of_yolo_are_boxes(tmp_path):
    photos(tmp_path/'images', stems=['a'])
    write(tmp_path/'labels/a.txt', '0 .1 .2 .3 .1 .4 .3 .2 .4\n0 .5 .5 .7 .5 .7 .9 .5 .9')
    write(tmp_path/'data.yaml', 'names: [ship]')
    with pytest.raises(DroneSegError, match='its 2 objects have a box'): open_dataset(tmp_path)
    write(tmp_path/'labels/a.txt', '0 .1 .2 .3 .1 .4 .3 .2 .4\n0 .5 .5 .7 .5 .7 .9')
    assert len(open_dataset(tmp_path))==1

def test_lists_of_pascal_voc_are_its_split(tmp_path):
    photos(tmp_path/'JPEGImages')
    for stem in 'abc': write(tmp_path/f'SegmentationClass/{stem}.png', '')
    for stem in 'abc': Image.fromarray(np.zeros((H,W), np.uint8)).save(tmp_path/f'SegmentationClass/{stem}.png')
    write(tmp_path/'classes.csv', 'id,name\n0,ground\n1,roof\n')
    for side,stems in dict(train='ab', val='c', trainval='abc').items(): write(tmp_path/f'ImageSets/Segmentation/{side}.txt', '\n'.join(stems))
    assert open_dataset(tmp_path).official==dict(train=['a','b'], valid=['c'], test=[])

@pytest.mark.parametrize('table', ['data.yaml','classes.txt'])
def test_outlines_of_four_corners_are_outlines_where_the_file_says_so(table, tmp_path):
    photos(tmp_path/'images', stems=['a'])
    write(tmp_path/'labels/a.txt', '0 .1 .1 .6 .1 .6 .6 .1 .6')
    write(tmp_path/table, 'names: [roof]\n' if table=='data.yaml' else 'roof\n')
    with pytest.raises(DroneSegError, match='write task: segment into .*data.yaml'): open_dataset(tmp_path)
    with open(tmp_path/'data.yaml', 'a') as f: f.write('task: segment\n')
    data = open_dataset(tmp_path)
    assert (data.read_ids(data.items[0])==data.classes.id_of('roof')).sum()==(H//2)*(W//2)

def numbered(root, *labels):
    photos(root, stems='a')
    shapes = [dict(label=n, points=[[0,5*k],[W,5*k],[W,5*k+5],[0,5*k+5]], shape_type='polygon') for k,n in enumerate(labels)]
    write(root/'a.json', dict(version='5.5.0', shapes=shapes, imagePath='a.jpg', imageHeight=H, imageWidth=W))

def test_labels_that_are_numbers_are_the_ids_and_check_says_so(tmp_path):
    numbered(tmp_path, '10', '2')
    data = open_dataset(tmp_path)
    assert [data.classes.id_of(n) for n in ('2','10')]==[2,10] and [data.read_ids('a')[y,0] for y in (2,7,30)]==[10,2,0]
    assert 'its labels are numbers (2, 10), and these are the ids' in str(data.check(progress=False))
    write(tmp_path/'classes.csv', 'id,name\n0,background\n2,roof\n10,pond\n')
    data = open_dataset(tmp_path)
    said = str(data.check(progress=False))
    assert data.read_ids('a')[7,0]==2 and 'read as ids of the class table: 2 is roof, 10 is pond' in said
    assert 'its labels are numbers' not in said

def test_labels_of_whole_photos_are_no_classes_of_cvat(tmp_path):
    cvat(tmp_path)
    file = tmp_path/'annotations.xml'
    write(file, file.read_text().replace('<labels>', '<labels><label><name>cloudy</name><type>tag</type></label>'))
    assert open_dataset(tmp_path).classes.names==['background','roof','pond']

def test_runs_of_cvat_may_lack_the_nothing_at_their_end(tmp_path):
    for name in ('whole','short'): cvat_runs(tmp_path/name)
    file = tmp_path/'short/annotations.xml'
    runs = [r.split(', ') for r in re.findall('rle="(.*?)"', file.read_text())]
    short = {', '.join(r): ', '.join(r[:-1]) for r in runs if len(r)%2}
    assert short
    text = file.read_text()
    for old,new in short.items(): text = text.replace(f'rle="{old}"', f'rle="{new}"')
    write(file, text)
    whole,cut = (open_dataset(tmp_path/n) for n in ('whole','short'))
    assert all((whole.read_ids(s)==cut.read_ids(s)).all() for s in 'abc')


# Paths, lines and boxes as people have them

def _one_photo(file):
    file.parent.mkdir(parents=True, exist_ok=True)
    Image.new('RGB', (64,48)).save(file)

def test_a_path_with_dots_finds_the_same_photo(tmp_path):
    root = tmp_path/'data'
    for f in ('images/a.jpg', 'images/y/images/a.jpg'): _one_photo(root/f)
    shape = dict(id=1, image_id=1, category_id=1, iscrowd=0, segmentation=[[5,5,30,5,30,30,5,30]])
    coco = dict(images=[dict(id=1, file_name='a.jpg', width=64, height=48)], categories=[dict(id=1, name='roof')], annotations=[shape])
    (root/'annotations.json').write_text(json.dumps(coco))
    (tmp_path/'nb').mkdir()
    for path in (root, tmp_path/'nb'/'..'/'data'): assert [p.image.resolve() for p in open_dataset(path).items]==[root/'images/a.jpg']

def test_a_line_that_names_a_folder_is_told(tmp_path):
    _one_photo(tmp_path/'b.png')
    (tmp_path/'pairs.csv').write_text('image,mask\n.,b.png\n')
    (tmp_path/'classes.csv').write_text('name,id\nroof,0\n')
    with pytest.raises(DatasetError, match='1 files are not there: line 2: .'): open_dataset(tmp_path/'pairs.csv', classes=tmp_path/'classes.csv')

def test_plain_boxes_of_yolo_are_not_called_outlines(tmp_path):
    _one_photo(tmp_path/'images/a.jpg')
    (tmp_path/'labels').mkdir()
    (tmp_path/'labels/a.txt').write_text('0 .5 .5 .2 .2\n')
    (tmp_path/'data.yaml').write_text('names: [roof]\n')
    with pytest.raises(DatasetError) as e: open_dataset(tmp_path)
    assert 'boxes' in str(e.value) and 'task: segment' not in str(e.value)

# A tar as Supervisely's download is one

@pytest.mark.parametrize('end', ['.tar','.tar.gz','.tgz'])
def test_a_tar_opens_as_a_zip_does(end, tmp_path, monkeypatch):
    monkeypatch.setenv('DRONE_SEG_CACHE', str(tmp_path/'cache'))
    supervisely(tmp_path/'fields')
    with tarfile.open(tmp_path/f'x{end}', 'w' if end=='.tar' else 'w:gz') as t: t.add(tmp_path/'fields', '.')
    data,other = open_dataset(tmp_path/f'x{end}'),open_dataset(tmp_path/'fields')
    assert data.path.name=='x' and data.stems==other.stems and data.classes==other.classes
    for s in data.stems: assert (data.read_ids(s)==other.read_ids(s)).all()

def tar_of(path, name, kind=tarfile.REGTYPE, data=b'x', **more):
    entry = tarfile.TarInfo(name)
    entry.type,entry.size = kind,len(data)
    for k,v in more.items(): setattr(entry, k, v)
    with tarfile.open(path, 'w:gz') as t: t.addfile(entry, io.BytesIO(data))

@pytest.mark.parametrize('name, more, says', [
    ('../x.jpg', {}, 'lies outside'), ('/x.jpg', {}, 'lies outside'), ('a/../../x.jpg', {}, 'lies outside'),
    ('x.jpg', dict(kind=tarfile.SYMTYPE, linkname='/etc/passwd', data=b''), 'is a link or a device'),
    ('x.jpg', dict(kind=tarfile.LNKTYPE, linkname='../y', data=b''), 'is a link or a device'),
    ('x.jpg', dict(kind=tarfile.FIFOTYPE, data=b''), 'is a link or a device')])
def test_harmful_tars_are_refused(name, more, says, tmp_path, monkeypatch):
    monkeypatch.setenv('DRONE_SEG_CACHE', str(tmp_path/'cache'))
    tar_of(tmp_path/'x.tar.gz', name, **more)
    with pytest.raises(DatasetError, match=says): open_dataset(tmp_path/'x.tar.gz')
    assert not [f for f in (tmp_path/'cache').rglob('*') if f.is_file()]

def test_tars_that_grow_or_are_torn_or_empty(tmp_path, monkeypatch):
    monkeypatch.setenv('DRONE_SEG_CACHE', str(tmp_path/'cache'))
    tar_of(tmp_path/'bomb.tgz', 'a.bin', data=bytes(300_000_000))
    with pytest.raises(DatasetError, match='it would unpack to 0.3 GB'): unpacked(tmp_path/'bomb.tgz')
    tarfile.open(tmp_path/'none.tar', 'w').close()
    with pytest.raises(DatasetError, match='none.tar: there is nothing in it'): open_dataset(tmp_path/'none.tar')
    tar_of(tmp_path/'small.tgz', 'a.txt', data=os.urandom(3000))
    small = (tmp_path/'small.tgz').read_bytes()
    assert (unpacked(tmp_path/'small.tgz')/'a.txt').stat().st_size==3000
    shutil.rmtree(tmp_path/'cache')
    for n,part in enumerate((small[:-20], small[:-40], small[:60], b'no tar at all', b'')):
        (tmp_path/f'{n}.tgz').write_bytes(part)
        with pytest.raises(DatasetError, match='not a sound tar'): unpacked(tmp_path/f'{n}.tgz')
    assert not [f for f in (tmp_path/'cache').rglob('*') if f.is_file()]

def three_in_a_tar(path, **more): # each is a header of 512 bytes and 512 of data
    with tarfile.open(path, 'w', **more) as t:
        for name in 'abc':
            entry = tarfile.TarInfo(f'{name}.txt')
            entry.size = 9
            t.addfile(entry, io.BytesIO(b'roof roof'))
    return path.read_bytes()

@pytest.mark.parametrize('cut', [512, 600, 1024, 1300, 1536, 1600, 2048, 2560, 3000, 3072, 3100])
def test_a_plain_tar_that_is_cut_is_refused(cut, tmp_path, monkeypatch):
    monkeypatch.setenv('DRONE_SEG_CACHE', str(tmp_path/'cache'))
    whole = three_in_a_tar(tmp_path/'x.tar')
    assert len(list(unpacked(tmp_path/'x.tar').iterdir()))==3
    (tmp_path/'cut.tar').write_bytes(whole[:cut])
    with pytest.raises(DatasetError, match='not a sound tar'): unpacked(tmp_path/'cut.tar')

@pytest.mark.parametrize('at', [0, 1024, 1024+150, 2048, 3072])
@pytest.mark.parametrize('packed', [False, True])
def test_a_tar_with_a_wrong_bit_in_a_header_is_refused(at, packed, tmp_path, monkeypatch):
    monkeypatch.setenv('DRONE_SEG_CACHE', str(tmp_path/'cache'))
    raw = bytearray(three_in_a_tar(tmp_path/'x.tar'))
    raw[at] ^= 1
    file = tmp_path/('y.tgz' if packed else 'y.tar')
    file.write_bytes(gzip.compress(raw) if packed else raw)
    with pytest.raises(DatasetError, match='not a sound tar'): unpacked(file)

def test_a_wrong_bit_of_a_file_in_a_gzip_is_refused(tmp_path, monkeypatch):
    monkeypatch.setenv('DRONE_SEG_CACHE', str(tmp_path/'cache'))
    raw = gzip.compress(three_in_a_tar(tmp_path/'x.tar'), 0)
    assert raw.count(b'roof roof')==3
    (tmp_path/'x.tgz').write_bytes(raw)
    (tmp_path/'y.tgz').write_bytes(raw.replace(b'roof roof', b'roof roog', 1))
    assert len(list(unpacked(tmp_path/'x.tgz').iterdir()))==3
    with pytest.raises(DatasetError, match='not a sound tar .CRC check failed'): unpacked(tmp_path/'y.tgz')

def test_a_tar_of_one_zero_block_at_its_end_opens(tmp_path, monkeypatch):
    monkeypatch.setenv('DRONE_SEG_CACHE', str(tmp_path/'cache'))
    (tmp_path/'y.tar').write_bytes(three_in_a_tar(tmp_path/'x.tar')[:3072+512])
    assert len(list(unpacked(tmp_path/'y.tar').iterdir()))==3

def test_what_is_named_tar_and_is_none_is_refused_in_a_line(tmp_path, monkeypatch):
    monkeypatch.setenv('DRONE_SEG_CACHE', str(tmp_path/'cache'))
    raw = bytearray(lzma.compress(three_in_a_tar(tmp_path/'x.tar')))
    raw[len(raw)//2] ^= 255
    for n,part in enumerate((raw, b'a text of several words\n'*99)):
        for end in ('tar','tar.gz'):
            (tmp_path/f'{n}.{end}').write_bytes(part)
            with pytest.raises(DatasetError, match='not a sound tar') as e: unpacked(tmp_path/f'{n}.{end}')
            assert '\n' not in str(e.value)

@pytest.mark.parametrize('form', [tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_long_names_in_a_tar_are_read_and_those_without_measure_are_not(form, tmp_path, monkeypatch):
    monkeypatch.setenv('DRONE_SEG_CACHE', str(tmp_path/'cache'))
    for n,name in enumerate(('/'.join(['a'*100]*9), 'a/'*3_000_000 + 'a')):
        with tarfile.open(tmp_path/f'{n}.tgz', 'w:gz', format=form) as t: t.addfile(tarfile.TarInfo(name))
    assert (unpacked(tmp_path/'0.tgz')/'/'.join(['a'*100]*9)).is_file()
    tracemalloc.start()
    with pytest.raises(DatasetError, match='not a sound tar .a name in it is too long'): unpacked(tmp_path/'1.tgz')
    most = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert most<3e6

def test_a_large_coco_file_takes_little_memory(tmp_path):
    "Python's lists of its numbers would take five times the file"
    photos(tmp_path/'images', stems='a')
    outline = np.random.default_rng(0).uniform(0, 40, 80).round(2).tolist()
    anns = [dict(id=k, image_id=0, category_id=1, segmentation=[outline]) for k in range(4000)]
    f = tmp_path/'instances.json'
    write(f, dict(images=[dict(id=0, file_name='a.jpg', height=H, width=W)], annotations=anns, categories=[dict(id=1, name='roof')]))
    tracemalloc.start()
    data = open_dataset(tmp_path)
    most = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert most<3*f.stat().st_size and len(data.reader.drawings[data.items[0].image].shapes)==4000

# Another task

def label_studio_choices(root):
    value = dict(id='x', type='choices', from_name='choice', to_name='image', value=dict(choices=['pond']))
    write(root/'project.json', [dict(id=1, data=dict(image='/data/upload/1/a.jpg'), annotations=[dict(id=2, was_cancelled=False, result=[value])])])

def coco_captions(root):
    images,captions = [dict(id=0, file_name='a.jpg')],[dict(id=1, image_id=0, caption='a roof beside a pond')]
    write(root/'annotations/captions_train.json', dict(images=images, annotations=captions))

def label_studio_choices_min(root):
    write(root/'project.json', [dict(image='/data/upload/1/a.jpg', id=1, choice='pond', annotator=1, annotation_id=2, lead_time=3.)])

def cvat_tags(root):
    write(root/'annotations.xml', '<annotations><meta><task><labels><label><name>pond</name><type>tag</type></label></labels></task></meta>'
        f'<image id="0" name="a.jpg" width="{W}" height="{H}"><tag label="pond" source="manual"></tag></image></annotations>')

def supervisely_tags(root):
    write(root/'meta.json', dict(classes=[], tags=[dict(name='pond', value_type='none')]))
    write(root/'ds0/ann/a.jpg.json', dict(size=dict(height=H, width=W), tags=[dict(name='pond', value=None)], objects=[]))

def labelme_flags(root):
    write(root/'a.json', dict(version='5.5.0', flags=dict(pond=True, roof=False), shapes=[], imagePath='a.jpg', imageHeight=H, imageWidth=W))

def roboflow_list(root):
    for side in ('train','valid'):
        write(root/side/'_classes.csv', 'filename, pond, roof\na.jpg, 1, 0\n')
        photos(root/side, stems='a')

@pytest.mark.parametrize('here', [True, False])
@pytest.mark.parametrize('generate', [coco_captions, label_studio_choices, label_studio_choices_min, cvat_tags, supervisely_tags, labelme_flags, roboflow_list])
def test_labels_of_whole_photos_are_another_task(generate, here, tmp_path):
    generate(tmp_path)
    if here and generate is not roboflow_list: photos(tmp_path/('ds0/img' if generate is supervisely_tags else 'images'), stems='a')
    with pytest.raises(DatasetError, match='whole photos are labelled, which is another task.*draw polygons'): open_dataset(tmp_path)

def test_labels_of_whole_photos_beside_outlines_are_passed_over(tmp_path):
    cvat(tmp_path)
    file = tmp_path/'annotations.xml'
    write(file, re.sub(r'(<image [^>]*>)', r'\1<tag label="cloudy"></tag>', file.read_text()))
    assert len(open_dataset(tmp_path))==3

@pytest.mark.parametrize('key', ['choice','choices','taxonomy','rating'])
def test_a_stray_list_beside_an_export_is_none_of_label_studio(key, tmp_path):
    supervisely(tmp_path)
    write(tmp_path/'reviews.json', [{'photo': 'a.jpg', key: 4}])
    assert 'Supervisely' in str(open_dataset(tmp_path))

def test_tags_of_supervisely_beside_its_masks_are_passed_over(tmp_path):
    supervisely_masks(tmp_path)
    want = open_dataset(tmp_path)
    for d,s in (('train','a'), ('train','b'), ('val','c')):
        write(tmp_path/d/f'ann/{s}.jpg.json', dict(size=dict(height=H, width=W), tags=[dict(name='cloudy', value=None)], objects=[]))
    data = open_dataset(tmp_path)
    assert data.stems==want.stems and data.classes==want.classes
    assert all((data.read_ids(s)==want.read_ids(s)).all() for s in data.stems)

# Folders of others

def test_voc_without_a_table_names_no_record_of_other_names(tmp_path):
    for folder,end in (('JPEGImages','jpg'), ('SegmentationClass','png')):
        (tmp_path/folder).mkdir()
        for s in ('2007_1','2007_2'): Image.new('L', (W,H)).save(tmp_path/folder/f'{s}.{end}')
    with pytest.raises(DatasetError, match='--write-classes` write one from what the masks hold$'): open_dataset(tmp_path)
    for folder,end in (('JPEGImages','jpg'), ('SegmentationClass','png')):
        for k in (1,2): (tmp_path/folder/f'2007_{k}.{end}').rename(tmp_path/folder/f'00000{k}_001.{end}')
    with pytest.raises(DatasetError, match="if this is AeroScapes, give record 'aeroscapes'"): open_dataset(tmp_path)

@pytest.mark.parametrize('folders', [['train','val'], ['default']])
def test_layout_of_camvid(folders, tmp_path):
    "As SegNet's copy has it, and CVAT writes it"
    colors = dict(zip(('','roof','pond'), ((0,0,0), (250,50,83), (61,61,245))))
    for folder,s in zip(folders, 'ab'):
        photos(tmp_path/folder, stems=[s], end='.png')
        (tmp_path/f'{folder}annot').mkdir()
        Image.fromarray(np.array([[colors[n] for n in row] for row in truth(s)], np.uint8)).save(tmp_path/f'{folder}annot/{s}.png')
        write(tmp_path/f'{folder}.txt', f'/{folder}/{s}.png /{folder}annot/{s}.png\n')
    write(tmp_path/'label_colors.txt', '0 0 0 background\n250 50 83 roof\n61 61 245 pond\n')
    data = open_dataset(tmp_path)
    assert data.stems==list('ab')[:len(folders)] and not data.lonely
    assert {k: len(v) for k,v in (data.official or {}).items() if v}==(dict(train=1, valid=1) if len(folders)>1 else {})
    assert (data.read_ids('a')==np.vectorize({'':0,'roof':1,'pond':2}.get)(truth('a'))).all()
