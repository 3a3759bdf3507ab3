"34k_data.on_map: polygons of a GIS over GeoTIFF photos, against GDAL and `cut_geotiff`, and what cannot be opened"
import numpy as np, pytest
for _m in ('rasterio','shapely','geopandas'): pytest.importorskip(_m, reason=f'{_m} is not installed (extra geo)')
import geopandas, pandas as pd, pyogrio, rasterio, shapely
from rasterio import Affine
from rasterio.features import rasterize
from scipy import ndimage
from drone_seg.classes import ClassTable
from drone_seg.fields import DroneSegError
from drone_seg.data import on_map
from drone_seg.data.datasets import open_dataset
from drone_seg.use.cut import cut_geotiff
from drone_seg.use.labels import write_labels
from drone_seg.use.polygons import find_polygons

SIZE = 96,140
TABLE = ClassTable(['roof','road','tree'], ids=[0,1,2])

def place(k): return Affine(.05, 0, 326000+2*k, 0, -.05, 2789000-k) @ Affine.rotation(5*k)

def noisy(seed):
    "A mask with holes in holes and corners that touch"
    g = np.random.default_rng(seed)
    return ndimage.gaussian_filter(g.normal(size=(3,*SIZE)), (0,3,3)).argmax(0).astype(np.uint8)

def geotiff(path, transform, crs='EPSG:32640', size=SIZE):
    path.parent.mkdir(parents=True, exist_ok=True)
    about = dict(driver='GTiff', count=3, height=size[0], width=size[1], dtype='uint8', crs=crs, transform=transform)
    with rasterio.open(path, 'w', **about) as f: f.write(np.full((3,*size), 90, np.uint8))

def flight(root, n=3):
    "Overlapping photos, turned by some degrees, and one drawing over all of them"
    for k in range(n): geotiff(root/f'photos/{k}.tif', place(k))
    return find_polygons(noisy(7), TABLE, place(1), 'EPSG:32640', simplify=0)

def burnt(frame, data, stem):
    "What GDAL draws in the projection of a photo"
    with rasterio.open(data.pair(stem).image) as f: crs,transform,size = f.crs,f.transform,f.shape
    drawn = frame.to_crs(crs)
    rows = [(g, data.classes.id_of(c)) for g,c in zip(drawn.geometry, drawn['class'])]
    return rasterize(rows, size, fill=data.classes.void_id, transform=transform, dtype='uint8')

@pytest.mark.parametrize('name, crs', [('drawn.gpkg', 32640), ('drawn.geojson', 4326), ('labels/drawn.shp', 3857)])
def test_masks_are_those_of_gdal(name, crs, tmp_path):
    frame = flight(tmp_path).to_crs(crs)
    (tmp_path/name).parent.mkdir(exist_ok=True)
    frame.to_file(tmp_path/name)
    data = open_dataset(tmp_path)
    assert data.classes.names==sorted({*frame['class']}) and len(data)==3
    for stem in data.stems: np.testing.assert_array_equal(data.read_ids(stem), burnt(geopandas.read_file(tmp_path/name), data, stem))
    assert not data.check(progress=False).problems

def test_a_photo_of_it_is_cut_the_same(tmp_path):
    flight(tmp_path).to_file(tmp_path/'drawn.gpkg')
    data,cut = open_dataset(tmp_path),cut_geotiff(tmp_path/'photos/0.tif', tmp_path/'drawn.gpkg', tmp_path.parent/f'{tmp_path.name}_cut', size=48).data
    for stem in cut.stems:
        y,x = (48*int(k) for k in stem.split('_')[-2:])
        own = data.read_ids('0')[y:y+48,x:x+48]
        def names(t, ids): return np.array([t.name_of(i) if i in t.ids and i not in t.void else 'void' for i in ids.ravel().tolist()])
        other = cut.read_ids(stem)[:own.shape[0],:own.shape[1]]
        assert (names(data.classes, own)==names(cut.classes, other)).all()

def test_out_as_geojson_and_in_again(tmp_path):
    "A file for each photo belongs to that photo alone, though photos overlap"
    flight(tmp_path/'a').to_file(tmp_path/'a/drawn.gpkg')
    data = open_dataset(tmp_path/'a')
    back = open_dataset(write_labels(data, data.classes, tmp_path/'b', 'geojson', 0, 0, progress=False))
    assert 'in b,' in back.why
    for stem in data.stems: np.testing.assert_array_equal(back.read_ids(stem), data.read_ids(stem))

def test_later_files_and_features_lie_on_top(tmp_path):
    geotiff(tmp_path/'a.tif', place(0))
    area = shapely.box(326000, 2788996, 326004, 2789000)
    for name,label in (('a.geojson','own'), ('x.gpkg','all')):
        geopandas.GeoDataFrame({'label': [label]}, geometry=[area], crs='EPSG:32640').to_file(tmp_path/name)
    data = open_dataset(tmp_path)
    assert data.classes.names==['all','own'] and set(np.unique(data.read_ids('a')))=={data.classes.id_of('own'), data.classes.void_id}

def test_what_has_no_class_no_area_or_no_place_is_counted(tmp_path):
    frame = flight(tmp_path)
    geotiff(tmp_path/'photos/nowhere.tif', place(0), crs=None)
    geotiff(tmp_path/'photos/far.tif', Affine(.05, 0, 4e5, 0, -.05, 2789000))
    line = shapely.LineString([(326000,2789000),(326001,2789000)])
    more = geopandas.GeoDataFrame({'class': ['road',None]}, geometry=[line, frame.geometry.iloc[0]], crs=frame.crs)
    pd.concat([frame, more]).to_file(tmp_path/'drawn.gpkg')
    data = open_dataset(tmp_path)
    said = ' '.join(n for _,n in data.notes)
    assert '1 shapes have no class' in said and '2 photos on which no polygon lies' in said and '1 objects have a box, a line' in said
    assert data.stems==['0','1','2'] and {f.name for f in data.lonely}=={'nowhere.tif','far.tif'}

def test_numbers_are_ids_of_a_table(tmp_path):
    frame = flight(tmp_path)
    frame.assign(**{'class': frame.class_id}).to_file(tmp_path/'drawn.gpkg')
    (tmp_path/'classes.csv').write_text('id,name\n0,roof\n1,road\n2,tree\n')
    data = open_dataset(tmp_path)
    assert data.classes.names==['roof','road','tree']
    np.testing.assert_array_equal(data.read_ids('1'), burnt(frame, data, '1'))

def refused(root, *words):
    with pytest.raises(DroneSegError) as e: open_dataset(root)
    assert '\n' not in str(e.value) and all(w in str(e.value) for w in words), e.value

def test_what_does_not_lie_on_the_map_says_the_way_out(tmp_path, monkeypatch):
    frame = flight(tmp_path/'a')
    frame.set_geometry(frame.translate(5e4)).to_file(tmp_path/'a/drawn.gpkg')
    refused(tmp_path/'a', 'drawn.gpkg: none of its polygons lies on one of the 3 photos', 'true projection')
    (tmp_path/'a/drawn.gpkg').unlink()
    bare = frame.set_crs(None, allow_override=True)
    bare.to_file(tmp_path/'a/drawn.shp')
    refused(tmp_path/'a', 'drawn.shp: has no projection', 'ogr2ogr -a_srs')
    for f in (tmp_path/'a').glob('drawn.*'): f.unlink()
    for layer in ('roofs','roads'): frame.to_file(tmp_path/'a/two.gpkg', layer=layer)
    refused(tmp_path/'a', 'two.gpkg: its layers with geometry are roofs, roads', 'keep one alone')
    (tmp_path/'a/two.gpkg').write_bytes(b'nothing')
    refused(tmp_path/'a', 'two.gpkg: not a vector file that can be read')
    frame.to_file(tmp_path/'a/two.gpkg')
    monkeypatch.setattr(on_map, 'LARGEST', 10000)
    refused(tmp_path/'a', '0.tif: 140x96 pixels are a map', f"drone_seg cut {tmp_path/'a/photos/0.tif'} {tmp_path/'a/two.gpkg'}")

@pytest.mark.parametrize('column', ['class_id','surface_t','LU_CODE'])
def test_a_column_of_another_name_is_said(column, tmp_path):
    frame = flight(tmp_path)
    frame = frame.drop(columns=[c for c in frame.columns if c!='geometry']).assign(**{column: frame['class']})
    frame.to_file(tmp_path/'drawn.gpkg')
    data = open_dataset(tmp_path)
    said = f"the columns of drawn.gpkg ({column}) name no class, so every polygon is 'object'"
    assert data.classes.names==['background','object'] and said in repr(data.check(progress=False))
    (tmp_path/'classes.csv').write_text('id,name\n1,roof\n2,road\n')
    refused(tmp_path, 'drawn.gpkg: none of its labels (object) is in the class table (roof, road)', said, 'rename the right one to class')

def test_tables_alone_have_no_geometry(tmp_path):
    geotiff(tmp_path/'a.tif', place(0))
    pyogrio.write_dataframe(pd.DataFrame({'class': ['roof']}), tmp_path/'drawn.gpkg')
    refused(tmp_path, 'drawn.gpkg: has no geometry')

def test_photos_that_lie_nowhere_say_so(tmp_path):
    geotiff(tmp_path/'a.tif', place(0), crs=None)
    frame = geopandas.GeoDataFrame({'class': ['x']}, geometry=[shapely.box(0, 0, 9, 9)], crs='EPSG:32640')
    frame.to_file(tmp_path/'b.gpkg')
    refused(tmp_path, 'b.gpkg: none of the 1 photos here says where on a map it lies', 'drone_seg cut')
    (tmp_path/'b.gpkg').unlink()
    frame.to_file(tmp_path/'b.geojson')
    refused(tmp_path, 'no photo has its name (a.geojson belongs to a.jpg)')
