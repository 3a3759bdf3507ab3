"13a_photo.raster, 81_use.map to 83_use.cut: maps against hand-worked places, GDAL's and rio-cogeo's own checks, point in polygon, and what was put in"
import ast, json, math, os, re, resource, shutil, sqlite3, subprocess, sys, tracemalloc
from contextlib import closing
from pathlib import Path
from xml.etree import ElementTree
import numpy as np, pytest, torch
from torch import nn
for _m in ('rasterio','shapely','geopandas','pyogrio','pyproj'): pytest.importorskip(_m, reason=f'{_m} is not installed (extra geo)')
import geopandas, rasterio, shapely
from rasterio import Affine
from rasterio.crs import CRS
from rasterio.enums import ColorInterp, Resampling
from rasterio.features import rasterize
from scipy import ndimage
from typer.testing import CliRunner
import drone_seg.photo.raster as raster, drone_seg.use.map as geo
from drone_seg.fields import DroneSegError, FileError, GeoError
from drone_seg.classes import ClassTable
from drone_seg.data.datasets import open_dataset
from drone_seg.photo.gsd import ground_pixel, map_points
from drone_seg.data.splits import Split
from drone_seg.photo.raster import *
from drone_seg.use.map import *
from drone_seg.use.map import NO_CONFIDENCE, qgis_style
from drone_seg.use.polygons import *
from drone_seg.use.cut import *
from drone_seg.models.bundle import Bundle
from drone_seg.models.ensemble import Ensemble
from drone_seg.predict.stream import Looker

torch.set_num_threads(1)
pytestmark = pytest.mark.filterwarnings('ignore::rasterio.errors.NotGeoreferencedWarning')
TABLE = ClassTable(['void','road','roof & wall','grass','water'], ids=[0,7,9,200,3], void=[0])
PLACE = Affine(.1, 0, 326000, 0, -.1, 2789000)
UTM = 'EPSG:32640'

def turned(degrees, high=1):
    "A transform like PLACE, its rows turned on the ground, its pixels as many times as high"
    c,s = math.cos(math.radians(degrees)),math.sin(math.radians(degrees))
    return Affine(.1*c, -.1*s*high, 326000, -.1*s, -.1*c*high, 2789000)

def on_ground(t, p): return t.a*p[0]+t.b*p[1]+t.c, t.d*p[0]+t.e*p[1]+t.f

@pytest.fixture(autouse=True)
def on_cpu(monkeypatch): monkeypatch.setattr(torch.cuda, 'is_available', lambda: False)

def smooth(h, w, seed=0, sigma=5):
    "(h, w, 3) uint8 with blobs"
    a = ndimage.gaussian_filter(np.random.default_rng(seed).normal(size=(h, w, 3)), (sigma,sigma,0))
    return ((a-a.min())/(a.max()-a.min())*254+1).astype(np.uint8)

def blobs(h, w, ids=(0,7,9,200,3), seed=0, sigma=5):
    z = ndimage.gaussian_filter(np.random.default_rng(seed).normal(size=(h, w)), sigma)
    return np.array(ids, np.uint8)[np.digitize(z, np.quantile(z, np.linspace(0, 1, len(ids)+1)[1:-1]))]

def write(path, a, crs=UTM, transform=PLACE, kinds=None, colormap=None, **more):
    a = a[None] if a.ndim==2 else a
    with rasterio.open(path, 'w', driver='GTiff', count=len(a), height=a.shape[1], width=a.shape[2], dtype=a.dtype, crs=crs, transform=transform, **more) as ds:
        if kinds: ds.colorinterp = kinds
        ds.write(a)
        if colormap: ds.write_colormap(1, colormap)
    return path

def chw(image): return image.transpose(2, 0, 1)

def model(size=(48,64), gsd=.1, seed=0, k=1, table=TABLE):
    g = torch.Generator().manual_seed(seed)
    net = nn.Conv2d(3, table.n, k, padding=k//2)
    net.weight.data,net.bias.data = torch.randn(net.weight.shape, generator=g)*9,torch.zeros(table.n)
    net.bias.data = -net(torch.full((1,3,9,9), .5))[0,:,4,4].detach() # classes of equal chance at mid grey
    return Bundle(net.eval(), table, size, gsd=gsd, device='cpu')

def read(path, band=1):
    with rasterio.open(path) as ds: return ds.read(band)

def left(folder): return sorted(f.name for f in folder.rglob('*'))


# Size of a pixel on the ground

@pytest.mark.parametrize('crs, transform, want', [
    (UTM, PLACE, (.1,.1)),
    ('EPSG:2263', Affine(.5, 0, 980000, 0, -.5, 200000), (.5*1200/3937,)*2), # feet of New York
    ('EPSG:3857', Affine(.2, 0, 1196000, 0, -.2, 8380000), (.2*math.cos(math.radians(59.92)),)*2), # a web map of Oslo
    ('EPSG:4326', Affine(1e-6, 0, 0, 0, -1e-6, 60), (111412e-6,55800e-6)), # metres of a degree at 60 north
    (UTM, turned(30), (.1,.1)),
    (UTM, turned(-70, 3), (.3,.1)),
])
def test_ground_pixel(crs, transform, want): np.testing.assert_allclose(ground_pixel(transform, CRS.from_user_input(crs), (500,400)), want, rtol=3e-3)

def test_ground_pixel_of_nowhere():
    assert ground_pixel(PLACE, None, (9,9)) is None and ground_pixel(Affine.identity(), CRS.from_epsg(32640), (9,9)) is None
    local = CRS.from_wkt('LOCAL_CS["site",UNIT["metre",1]]')
    assert ground_pixel(PLACE, local, (9,9)) is None


# Reading

@pytest.mark.parametrize('scale, how', [(1, None), (.37, Resampling.average), (.5, Resampling.average), (1.7, Resampling.bilinear)])
def test_bands_of_rows_are_the_whole_picture(tmp_path, monkeypatch, scale, how):
    im = np.random.default_rng(0).integers(0, 256, (3,311,201), dtype=np.uint8)
    g = GeoImage(write(tmp_path/'a.tif', im))
    monkeypatch.setattr(raster, '_CHUNK', 1) # 16 rows at once
    got = g.at_scale(scale)
    with rasterio.open(tmp_path/'a.tif') as ds: want = ds.read(out_shape=(3,*g.size_at(scale)), resampling=how or Resampling.nearest).transpose(1, 2, 0)
    assert isinstance(got, np.memmap) and got.shape==(round(311*scale), round(201*scale), 3)
    assert abs(got.astype(int)-want).max()<=1 and (got!=want).mean()<1e-3

@pytest.mark.skipif(not Path('/proc/self/io').exists(), reason='needs /proc')
def test_blocks_are_decoded_once(tmp_path, monkeypatch):
    "GDAL's memory holds a row of blocks while rows of pixels are read out of it"
    def read_so_far(): return int(re.search(r'rchar: (\d+)', Path('/proc/self/io').read_text())[1])
    tif = write(tmp_path/'a.tif', np.random.default_rng(0).integers(0, 256, (4,600,1100), dtype=np.uint8), tiled=True, blockxsize=512, blockysize=512, compress='DEFLATE', kinds=RGB+(ColorInterp.alpha,))
    monkeypatch.setattr(raster, '_CHUNK', 1)
    g,before = GeoImage(tif),read_so_far()
    g.at_scale(1)
    assert read_so_far()-before<2.5*tif.stat().st_size

def test_pixels_are_made_square(tmp_path):
    g = GeoImage(write(tmp_path/'a.tif', chw(smooth(100, 120)), 'EPSG:4326', Affine(1e-6, 0, 10, 0, -1e-6, 60)))
    (h,w),k = g.size_at(1),math.sqrt(111412/55800)
    assert abs(h-100*k)<=1 and abs(w-120/k)<=1
    np.testing.assert_allclose(g.gsd, math.sqrt(.111412*.0558), rtol=.003)

RGB = (ColorInterp.red, ColorInterp.green, ColorInterp.blue)
@pytest.mark.parametrize('n, kinds, want', [
    (3, None, (1,2,3)), (4, RGB+(ColorInterp.alpha,), (1,2,3)), (1, (ColorInterp.gray,), (1,1,1)), (2, (ColorInterp.gray,ColorInterp.alpha), (1,1,1)),
    (4, (ColorInterp.blue,ColorInterp.green,ColorInterp.red,ColorInterp.undefined), (3,2,1)), (5, (ColorInterp.gray,)+(ColorInterp.undefined,)*4, (1,2,3))])
def test_bands(tmp_path, n, kinds, want):
    write(tmp_path/'a.tif', np.full((n,8,8), 9, np.uint8), kinds=kinds)
    assert GeoImage(tmp_path/'a.tif').bands==want

def test_bands_that_are_no_photo(tmp_path):
    write(tmp_path/'two.tif', np.full((2,8,8), 9, np.uint8), kinds=(ColorInterp.gray,ColorInterp.undefined))
    with pytest.raises(GeoError, match='2 bands beside alpha'): GeoImage(tmp_path/'two.tif')
    assert GeoImage(tmp_path/'two.tif', bands=2).bands==(2,2,2)
    write(tmp_path/'mask.tif', np.full((8,8), 1, np.uint8), colormap={1:(9,9,9)})
    with pytest.raises(GeoError, match='numbers of colours'): GeoImage(tmp_path/'mask.tif')
    for bad in (0, 3, (1,2), (1,2,9), 'red'):
        with pytest.raises(GeoError, match='from 1 to 2'): GeoImage(tmp_path/'two.tif', bands=bad)

def test_void_of_nodata_alpha_mask_and_nan(tmp_path):
    im,hole = chw(smooth(60, 70)),np.zeros((60,70), bool)
    hole[10:30,5:25] = True
    a = im.copy(); a[:,hole] = 0; a[0,40:,40:] = 0 # black in one band only is a colour
    alpha = np.where(hole, 0, 255).astype(np.uint8)
    f = im.astype(np.float32); f[:,hole] = np.nan
    write(tmp_path/'nodata.tif', a, nodata=0); write(tmp_path/'alpha.tif', np.concatenate([im, alpha[None]]), kinds=RGB+(ColorInterp.alpha,)); write(tmp_path/'nan.tif', f)
    with rasterio.Env(GDAL_TIFF_INTERNAL_MASK=True), rasterio.open(write(tmp_path/'mask.tif', im), 'r+') as ds: ds.write_mask(alpha)
    for name in ('nodata','alpha','nan','mask'):
        g = GeoImage(tmp_path/f'{name}.tif', stretch=(0,255) if name=='nan' else None)
        got = g.at_scale(1)
        assert (got[hole]==raster.EMPTY).all() and (got[~hole]==(a if name=='nodata' else im).transpose(1, 2, 0)[~hole]).all(), name
        made = predict_geotiff(model(), tmp_path/f'{name}.tif', tmp_path/'out.tif', stretch=(0,255) if name=='nan' else None)
        assert ((read(made.mask)==0)==hole).all() and ((read(made.confidence)==NO_CONFIDENCE)==hole).all(), name
        assert made.counts[0]==hole.sum()

def test_all_nodata(tmp_path):
    write(tmp_path/'a.tif', np.zeros((3,50,60), np.uint8), nodata=0); write(tmp_path/'b.tif', np.zeros((3,50,60), np.uint16), nodata=0)
    for f in ('a.tif','b.tif'):
        with pytest.raises(GeoError, match='every pixel is nodata'): predict_geotiff(model(), tmp_path/f, tmp_path/'out.tif')
    assert left(tmp_path)==['a.tif','b.tif']

@pytest.mark.parametrize('dtype, f', [('uint16', lambda a: a*200+1000), ('int16', lambda a: a*50-6000), ('float32', lambda a: a/255)])
def test_stretch(tmp_path, dtype, f):
    im = smooth(90, 80)
    tif = write(tmp_path/'a.tif', f(chw(im).astype(float)).astype(dtype))
    got = GeoImage(tif, stretch=(float(f(0)),float(f(255)))).at_scale(1)
    assert abs(got.astype(int)-im).max()<=1
    g = GeoImage(tif)
    lo,hi = np.percentile(f(im.astype(float)).astype(dtype), (1,99))
    np.testing.assert_allclose(g.levels, (lo,hi), rtol=1e-6)
    want = np.clip((f(im.astype(float))-lo)/(hi-lo)*255, 0, 255)
    assert abs(g.at_scale(1)-want).max()<=1.1
    made = predict_geotiff(model(), tif, tmp_path/'m.tif')
    with rasterio.open(made.mask) as ds: assert '1 % and 99 %' in ds.tags()['DRONE_SEG_STRETCH'] and ds.tags()['DRONE_SEG_BANDS']=='1,2,3'

@pytest.mark.parametrize('stretch', [(5,5), (5,4), (0,math.nan), (1,2,3)])
def test_bad_stretch(tmp_path, stretch):
    with pytest.raises(GeoError, match='black'): GeoImage(write(tmp_path/'a.tif', np.ones((3,9,9), np.uint16)), stretch=stretch)

def test_files_that_are_no_map(tmp_path):
    (tmp_path/'a.tif').write_bytes(b'II*\0'+bytes(50)); (tmp_path/'b.tif').write_text('x')
    for f in ('a.tif','b.tif'):
        with pytest.raises(GeoError, match='not a raster'): GeoImage(tmp_path/f)
    with pytest.raises(GeoError, match='no such file'): GeoImage(tmp_path/'c.tif')
    whole = write(tmp_path/'d.tif', np.random.default_rng(0).integers(0, 256, (3,200,200), dtype=np.uint8)).read_bytes()
    (tmp_path/'d.tif').write_bytes(whole[:len(whole)//2])
    with pytest.raises(DroneSegError, match='d.tif'): predict_geotiff(model(), tmp_path/'d.tif', tmp_path/'out.tif')
    assert 'out.tif' not in left(tmp_path)

def test_control_points_only(tmp_path):
    from rasterio.control import GroundControlPoint as P
    with rasterio.open(tmp_path/'a.tif', 'w', driver='GTiff', count=3, height=9, width=9, dtype='uint8') as ds:
        ds.gcps = [P(0, 0, 326000, 2789000), P(0, 9, 326001, 2789000), P(9, 0, 326000, 2788999)],CRS.from_epsg(32640)
        ds.write(np.ones((3,9,9), np.uint8))
    with pytest.raises(GeoError, match='gdalwarp'): GeoImage(tmp_path/'a.tif')

def test_without_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, 'rasterio', None)
    with pytest.raises(GeoError, match=r"pip install .*\[geo\]"): GeoImage('a.tif')


# Predicting

@pytest.mark.parametrize('crs, transform', [(UTM, PLACE), (UTM, turned(20)), (UTM, Affine(.1, 0, 326000, 0, .1, 2789000)), (None, Affine.identity()), ('EPSG:3857', PLACE)])
@pytest.mark.parametrize('scale', [1, .5])
def test_mask_is_that_of_the_photo_on_its_grid(tmp_path, crs, transform, scale):
    im,m = smooth(130, 170),model()
    made = predict_geotiff(m, write(tmp_path/'a.tif', chw(im), crs, transform), tmp_path/'m.tif', scale=scale)
    want = m.predict(im, scale=scale, confidence='max')
    with rasterio.open(made.mask) as a, rasterio.open(made.confidence) as b:
        for ds in (a,b): assert ds.shape==(130,170) and ds.transform.almost_equals(transform, 1e-9) and ds.crs==(CRS.from_user_input(crs) if crs else None)
        np.testing.assert_array_equal(a.read(1), want.ids)
        np.testing.assert_array_equal(b.read(1), np.round(want.confidence/2.55))
        assert (a.nodata,b.nodata,b.units[0])==(0,255,'%')
    assert made.counts==want.counts() and len(made.counts)>2

def test_scale_follows_from_the_ground(tmp_path):
    im,m = smooth(130, 170),model(gsd=.2)
    tif = write(tmp_path/'a.tif', chw(im))
    made = predict_geotiff(m, tif, tmp_path/'m.tif')
    assert abs(made.scale-.5)<1e-3 and (read(made.mask)==m.predict(im, scale=.5).ids).mean()>.999
    assert abs(predict_geotiff(m, tif, tmp_path/'m.tif', gsd=.2).scale-1)<1e-9
    area = {k:v for k,v in made.areas().items() if v}
    np.testing.assert_allclose(sum(area.values()), 130*170*.01, rtol=1e-3)

def test_degrees(tmp_path):
    "A pixel half as wide as high: what the network sees is the picture with square pixels"
    im = smooth(100, 120)
    tif = write(tmp_path/'a.tif', chw(im), 'EPSG:4326', Affine(1e-6, 0, 10, 0, -1e-6, 60))
    seen = []
    class Spy(nn.Module):
        def forward(self, x): seen.append(tuple(x.shape[2:])); return torch.zeros(len(x), 4, *x.shape[2:])
    b = Bundle(Spy(), TABLE, (400,400), gsd=.0788, device='cpu')
    made = predict_geotiff(b, tif, tmp_path/'m.tif', dtype='fp32')
    with rasterio.open(made.mask) as ds: assert ds.shape==(100,120) and ds.crs.to_epsg()==4326
    assert seen[-1]==(400,400) and GeoImage(tif).size_at(made.scale)==(141,85)

def test_what_is_not_known_is_asked_for(tmp_path):
    tif = write(tmp_path/'a.tif', chw(smooth(50, 60)), crs=None)
    for kw,b,says in ((dict(), model(), 'give gsd'), (dict(), model(gsd=None), 'give scale'), (dict(gsd=.1), model(gsd=None), 'give scale'), (dict(gsd=.1, scale=1), model(), 'one of them'), (dict(gsd=-1), model(), 'above 0')):
        with pytest.raises(DroneSegError, match=says): predict_geotiff(b, tif, tmp_path/'m.tif', **kw)
    assert predict_geotiff(model(), tif, tmp_path/'m.tif', gsd=.1).scale==1
    with pytest.raises(GeoError, match='no projection'): predict_geotiff(model(), tif, tmp_path/'m.tif', gsd=.1).areas()
    with pytest.raises(GeoError, match='written as .tif'): predict_geotiff(model(), tif, tmp_path/'m.png', gsd=.1)
    with pytest.raises(FileError, match='would be written over'): predict_geotiff(model(), tif, tif, gsd=.1)
    (tmp_path/'m_confidence.tif').unlink(); shutil.copy(tif, tmp_path/'m_confidence.tif')
    with pytest.raises(FileError, match='would be written over'): predict_geotiff(model(), tmp_path/'m_confidence.tif', tmp_path/'m.tif', gsd=.1)

@pytest.mark.parametrize('shape', [(400,40), (40,400), (1,1), (20,20)])
def test_odd_shapes(tmp_path, shape):
    im,m = smooth(*shape),model()
    made = predict_geotiff(m, write(tmp_path/'a.tif', chw(im)), tmp_path/'m.tif')
    np.testing.assert_array_equal(read(made.mask), m.predict(im, scale=1).ids)

def test_several_answers(tmp_path):
    im,ms = smooth(80, 90),[model(seed=s, k=3) for s in (0,1)]
    tif,e = write(tmp_path/'a.tif', chw(im)),Ensemble(ms)
    for kw in (dict(tta='flips', confidence='disagreement'), dict(tta=(.75,1), confidence='margin')):
        made = predict_geotiff(e, tif, tmp_path/'m.tif', scale=1, **kw)
        want = e.predict(im, scale=1, **kw)
        assert (read(made.mask)==want.ids).mean()>.999 and abs(read(made.confidence)-want.confidence/2.55).mean()<.5
    made = predict_geotiff(e, tif, tmp_path/'n.tif', scale=1, confidence=None)
    assert made.confidence is None and not (tmp_path/'n_confidence.tif').exists()

@pytest.fixture(scope='module')
def large(tmp_path_factory):
    d = tmp_path_factory.mktemp('large')
    return predict_geotiff(model((256,256)), write(d/'a.tif', chw(np.kron(smooth(400, 550), np.ones((3,3,1), np.uint8)))), d/'m.tif')

def test_cloud_optimised(large):
    cogeo = pytest.importorskip('rio_cogeo', reason='rio-cogeo is not installed')
    for f in (large.mask,large.confidence):
        assert cogeo.cog_validate(f, strict=True)==(True,[],[])
        with rasterio.open(f) as ds: assert ds.overviews(1)==[2,4] and ds.profile['blockxsize']==512 and ds.profile['compress']=='deflate'
    assert left(large.mask.parent)==['a.tif','m.qml','m.tif','m.tif.aux.xml','m_confidence.tif']

def test_gdals_own_validator(large):
    "Where GDAL's Python scripts are installed, for this Python or the system's"
    pythons = [p for p in (sys.executable, '/usr/bin/python3') if Path(p).exists() and not subprocess.run([p, '-c', 'import osgeo_utils.samples.validate_cloud_optimized_geotiff'], capture_output=True, env={}).returncode]
    if not pythons: pytest.skip("GDAL's Python scripts are not installed")
    for f in (large.mask,large.confidence):
        r = subprocess.run([pythons[0], '-m', 'osgeo_utils.samples.validate_cloud_optimized_geotiff', str(f)], capture_output=True, text=True, env={})
        assert r.returncode==0 and 'is a valid cloud optimized GeoTIFF' in r.stdout, r.stdout+r.stderr

def test_overviews_hold_ids_of_most_pixels(large):
    ids = read(large.mask)
    with rasterio.open(large.mask, overview_level=0) as ds: half = ds.read(1)
    four = ids.reshape(600, 2, 825, 2).transpose(0, 2, 1, 3).reshape(600, 825, 4)
    n = (four[...,:,None]==four[...,None,:]).sum(-1) # how often each of the four occurs
    of = np.where(four==half[...,None], n, 0).max(-1)
    assert (of==n.max(-1)).all() and set(np.unique(half))<=set(TABLE.ids)

def test_names_and_colours(large):
    with rasterio.open(large.mask) as ds:
        assert ds.colorinterp[0]==ColorInterp.palette and ds.nodata==0
        for i,c in zip(TABLE.ids, TABLE.colors): assert ds.colormap(1)[i]==(*map(int, c), 255 if i else 0)
        assert ClassTable.from_dict(json.loads(ds.tags()['DRONE_SEG_CLASSES']))==TABLE
    xml = large.mask.with_name('m.tif.aux.xml').read_text()
    names = re.findall('<Category>(.*?)</Category>', xml)
    assert (len(names), names[0], names[7], names[9], names[8])==(201, 'void', 'road', 'roof &amp; wall', '')

@pytest.mark.skipif(shutil.which('gdalinfo') is None, reason='gdalinfo is not installed')
def test_gdal_reads_the_names(large):
    d = json.loads(subprocess.run(['gdalinfo','-json',str(large.mask)], capture_output=True, text=True, check=True).stdout)
    text = subprocess.run(['gdalinfo',str(large.mask)], capture_output=True, text=True, check=True).stdout
    assert d['metadata']['IMAGE_STRUCTURE']['LAYOUT']=='COG' and '7: road' in text and '9: roof & wall' in text

def test_interrupted_leaves_nothing(tmp_path, monkeypatch):
    tif,m = write(tmp_path/'a.tif', chw(smooth(100, 90))),model()
    made = predict_geotiff(m, tif, tmp_path/'m.tif')
    before = {f.name:f.read_bytes() for f in tmp_path.iterdir()}
    for error in (KeyboardInterrupt, RuntimeError):
        def stop(*a, **k):
            yield from [next(real(*a, **k))]
            raise error
        real = Looker.ids
        with monkeypatch.context() as mp:
            mp.setattr(Looker, 'ids', stop)
            with pytest.raises(error): predict_geotiff(m, tif, tmp_path/'m.tif', scale=.5)
            with pytest.raises(error): predict_geotiff(m, tif, tmp_path/'new.tif')
        assert {f.name:f.read_bytes() for f in tmp_path.iterdir()}==before

@pytest.mark.parametrize('at', [60_000, 300_000, 700_000])
def test_no_room(tmp_path, at):
    "Files may not grow beyond a limit, as on a full disk"
    im = np.random.default_rng(0).integers(0, 256, (3,700,700), dtype=np.uint8)
    (tmp_path/'in').mkdir(); tif = write(tmp_path/'in'/'a.tif', im)
    soft,hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    picture = GeoImage.at_scale
    def at_scale(self, scale): # the temporary picture has room
        resource.setrlimit(resource.RLIMIT_FSIZE, (hard,hard))
        try: return picture(self, scale)
        finally: resource.setrlimit(resource.RLIMIT_FSIZE, (at,hard))
    with pytest.MonkeyPatch.context() as mp:
        mp.setattr(GeoImage, 'at_scale', at_scale)
        try:
            resource.setrlimit(resource.RLIMIT_FSIZE, (at,hard))
            with pytest.raises(FileError, match='cannot be written'): predict_geotiff(model((256,256)), tif, tmp_path/'out'/'m.tif')
        finally: resource.setrlimit(resource.RLIMIT_FSIZE, (soft,hard))
    assert left(tmp_path/'out')==[]

def test_no_folder_to_write_to(tmp_path):
    tif = write(tmp_path/'a.tif', chw(smooth(30, 40)))
    (tmp_path/'file').write_text('x')
    with pytest.raises(FileError, match='cannot be written'): predict_geotiff(model(), tif, tmp_path/'file'/'m.tif')

def test_memory_does_not_grow_with_rows(tmp_path, monkeypatch):
    monkeypatch.setattr(raster, '_CHUNK', 1<<16) # where rows are few, so that both maps take several
    monkeypatch.setattr(raster, '_OVERVIEW', 512) # both maps are larger than the overview in which a margin is looked for
    m,peaks = model((64,64)),[]
    for rows in (600, 3000):
        tif = write(tmp_path/f'{rows}.tif', np.tile(chw(smooth(100, 500)), (1, rows//100, 1)), tiled=True)
        tracemalloc.start()
        predict_geotiff(m, tif, tmp_path/'m.tif', dtype='fp32')
        peaks.append(tracemalloc.get_traced_memory()[1]); tracemalloc.stop()
    assert peaks[1]-peaks[0]<.2*500*2400 # a byte for each further pixel would be five times that


# Polygons

@pytest.mark.parametrize('kind', ['noise','blobs','stairs','one'])
@pytest.mark.parametrize('simplify', [0, 1, 3])
def test_polygons_fill_the_map_without_gaps_or_overlaps(kind, simplify):
    rng = np.random.default_rng(1)
    ids = dict(noise=rng.choice(np.uint8([7,9,3]), (40,50)), blobs=blobs(90, 110, (7,9,200,3)), stairs=np.where(np.tri(60, 70, 5), 7, 9).astype(np.uint8), one=np.full((5,6), 7, np.uint8))[kind]
    f = find_polygons(ids, TABLE, PLACE, UTM, simplify=simplify)
    assert f.geometry.is_valid.all() and (f.geometry.geom_type=='Polygon').all()
    np.testing.assert_allclose(f.geometry.area.sum(), ids.size*.01, rtol=1e-9)
    np.testing.assert_allclose(f.geometry.union_all().area, ids.size*.01, rtol=1e-9) # so nothing overlaps
    assert shapely.coverage_is_valid(shapely.transform(f.geometry.values, lambda a: np.round((a-[326000,2789000])*1e6)))
    assert len(f)==sum(ndimage.label(ids==i)[1] for i in np.unique(ids))
    if not simplify:
        for i in np.unique(ids): np.testing.assert_allclose(f.geometry.area[f.class_id==i].sum(), (ids==i).sum()*.01, rtol=1e-9)
        np.testing.assert_array_equal(rasterize(zip(f.geometry, f.class_id), ids.shape, transform=PLACE, dtype='uint8'), ids)

def test_simplified_outlines_stay_near(tmp_path):
    ids = blobs(200, 240, (7,9,200,3), sigma=8)
    n,same = [],[]
    for simplify in (0, 1, 2, 4):
        f = find_polygons(ids, TABLE, PLACE, UTM, simplify=simplify)
        n.append(shapely.get_num_coordinates(f.geometry.values).sum())
        same.append((rasterize(zip(f.geometry, f.class_id), ids.shape, transform=PLACE, dtype='uint8')==ids).mean())
    assert n==sorted(n, reverse=True) and n[1]<.6*n[0] and same[1]>.98 and same[0]==1 and same==sorted(same, reverse=True)
    a,b = (find_polygons(ids, TABLE, PLACE, UTM, simplify=s).geometry for s in (2.3, '23 cm'))
    assert (a==b).all()

@pytest.mark.parametrize('transform', [PLACE, turned(25), Affine(.1, 0, 326000, 0, .1, 2789000)])
def test_polygons_lie_where_the_pixels_are(transform):
    ids = np.zeros((20,30), np.uint8); ids[3:8,10:24] = 7
    f = find_polygons(ids, TABLE, transform, UTM)
    want = shapely.Polygon([on_ground(transform, c) for c in ((10,3), (24,3), (24,8), (10,8))])
    assert len(f)==1 and f['class'][0]=='road' and f.geometry[0].symmetric_difference(want).area<1e-6
    assert shapely.is_ccw(f.geometry[0].exterior)

def test_mean_confidence_and_void(tmp_path):
    rng = np.random.default_rng(0)
    ids,sure = blobs(80, 90),rng.integers(0, 101, (80,90)).astype(np.uint8)
    write(tmp_path/'a_confidence.tif', sure)
    f = find_polygons(write(tmp_path/'a.tif', ids), TABLE, simplify=0)
    assert 0 not in set(f.class_id)
    for i in (7,9,200,3): # slowly: each component by its label
        lab,n = ndimage.label(ids==i)
        want = sorted((round((lab==k).sum()*.01, 6), round(sure[lab==k].mean()/100, 4)) for k in range(1, n+1))
        got = sorted((round(a, 6), c) for a,c in zip(f.geometry.area[f.class_id==i], f.confidence[f.class_id==i]))
        np.testing.assert_allclose(got, want, atol=1.1e-4)
    assert find_polygons(ids, TABLE, PLACE, UTM).confidence.isna().all()

def test_specks_go_to_their_neighbours():
    ids = np.full((40,40), 7, np.uint8); ids[10:12,10:12] = 9; ids[20:30,20:30] = 3; ids[0:2,0:2] = 0
    f = find_polygons(ids, TABLE, PLACE, UTM, min_area='0.5 m2', simplify=0)
    assert sorted(f['class'])==['road','water'] and abs(f.geometry.area.sum()-(1600-4)*.01)<1e-9
    assert f.geometry.area.min()==pytest.approx(1.)

@pytest.mark.parametrize('crs, transform, want', [(UTM, PLACE, 12), ('EPSG:3857', Affine(.2, 0, 1196000, 0, -.2, 8380000), 1200*.04*math.cos(math.radians(59.92))**2),
    ('EPSG:4326', Affine(1e-6, 0, 10, 0, -1e-6, 60), 1200*.111412*.0558), ('EPSG:2263', Affine(.5, 0, 980000, 0, -.5, 200000), 1200*(.5*1200/3937)**2)])
def test_areas_are_those_of_the_ground(crs, transform, want):
    f = find_polygons(np.full((30,40), 7, np.uint8), TABLE, transform, crs)
    np.testing.assert_allclose(f.area_m2[0], want, rtol=5e-3)

def test_holes_are_no_area():
    ids = np.full((30,30), 7, np.uint8); ids[10:20,10:20] = 9
    f = find_polygons(ids, TABLE, PLACE, UTM, simplify=0).set_index('class')
    np.testing.assert_allclose(f.area_m2[['road','roof & wall']], [8,1], rtol=2e-3)

def test_written_polygons(tmp_path, large):
    f = find_polygons(large.mask, min_area='2 m2')
    assert f.confidence.between(.2, 1).all() and len(f)>5
    save_polygons(f, tmp_path/'p.geojson'); save_polygons(f, tmp_path/'p.gpkg')
    assert left(tmp_path)==['p.geojson','p.gpkg','p.qml']
    g,j = geopandas.read_file(tmp_path/'p.gpkg', layer='p'),json.loads((tmp_path/'p.geojson').read_text())
    assert g.crs.to_epsg()==32640 and g.geometry.geom_equals(f.geometry).all() and list(g.columns)==['class_id','class','area_m2','confidence','geometry']
    np.testing.assert_allclose(g.area_m2, g.geometry.area, rtol=1e-3)
    assert 'crs' not in j and len(j['features'])==len(f)
    xy = np.array(j['features'][0]['geometry']['coordinates'][0])
    assert 55<xy[:,0].min() and xy[:,0].max()<56 and 25<xy[:,1].min()<26
    for o in j['features']:
        first,*holes = o['geometry']['coordinates']
        assert shapely.is_ccw(shapely.LinearRing(first)) and not any(shapely.is_ccw(shapely.LinearRing(h)) for h in holes)
    k = geopandas.read_file(tmp_path/'p.geojson').to_crs(32640)
    np.testing.assert_allclose(k.geometry.area, f.geometry.area, rtol=1e-2)
    with pytest.raises(GeoError, match='.gpkg'): save_polygons(f, tmp_path/'p.dxf')

SCORED = {7:'road', 9:'roof & wall', 200:'grass', 3:'water'} # of TABLE

def check_style(text, table=TABLE, scored=SCORED):
    "What QGIS takes from a style for a mask, and for polygons, is the table"
    root = ElementTree.fromstring(text)
    of_table = {i: tuple(map(int, c)) for i,c in zip(table.ids, table.colors)}
    entries = root.findall('pipe/rasterrenderer[@type="paletted"]/colorPalette/paletteEntry')
    assert {int(e.get('value')): e.get('label') for e in entries}==scored
    assert {int(e.get('value')): tuple(bytes.fromhex(e.get('color')[1:])) for e in entries}=={i: of_table[i] for i in scored}
    renderer = root.find('renderer-v2[@type="categorizedSymbol"][@attr="class_id"]')
    symbols = {s.get('name'): s.find('layer/Option/Option[@name="color"]').get('value') for s in renderer.findall('symbols/symbol')}
    cats = renderer.findall('categories/category')
    assert {int(c.get('value')): c.get('label') for c in cats}==scored
    assert {int(c.get('value')): tuple(map(int, symbols[c.get('symbol')].split(','))) for c in cats}=={i: (*of_table[i], 255) for i in scored}

def test_qgis_finds_the_style_of_a_map(large): check_style(large.mask.with_suffix('.qml').read_text(encoding='utf-8'))

def test_qgis_finds_the_style_of_polygons(tmp_path, large):
    f = find_polygons(large.mask, min_area='2 m2')
    for n in ('p.geojson','two words.gpkg'): save_polygons(f, tmp_path/n)
    check_style((tmp_path/'p.qml').read_text(encoding='utf-8'))
    with closing(sqlite3.connect(tmp_path/'two words.gpkg')) as db:
        (layer,geometry,default,text), = db.execute('SELECT f_table_name, f_geometry_column, useAsDefault, styleQML FROM layer_styles').fetchall()
        assert (layer,default)==('two words',1) and db.execute('SELECT column_name FROM gpkg_geometry_columns').fetchall()==[(geometry,)]
        assert ('layer_styles','attributes') in db.execute('SELECT table_name, data_type FROM gpkg_contents').fetchall() # else QGIS does not see it
    check_style(text)

QGIS = """
import sys
from qgis.core import QgsApplication, QgsRasterLayer, QgsVectorLayer
app = QgsApplication([], False); app.initQgis()
for f in sys.argv[1:]:
    layer = QgsRasterLayer(f) if f.endswith('.tif') else QgsVectorLayer(f)
    assert layer.isValid() and layer.loadDefaultStyle()[1], f
    r = layer.renderer()
    if f.endswith('.tif'): print([(int(c.value), c.label, c.color.name()) for c in r.classes()])
    else: print([(int(c.value()), c.label(), c.symbol().color().name()) for c in r.categories()])
"""

def test_in_qgis(tmp_path, large):
    "Where QGIS is installed for the system's Python: what it shows is the table, once a class"
    env = dict(QT_QPA_PLATFORM='offscreen', HOME=str(tmp_path))
    start = lambda *a: subprocess.run(['/usr/bin/python3', '-c', *map(str, a)], capture_output=True, text=True, env=env)
    if not Path('/usr/bin/python3').exists() or start('import qgis.core').returncode: pytest.skip('QGIS is not installed')
    files = [large.mask, tmp_path/'p.gpkg', tmp_path/'q.geojson']
    found = find_polygons(large.mask, min_area='2 m2')
    for p in files[1:]: save_polygons(found, p)
    r = start(QGIS, *files)
    want = [(i, SCORED[i], '#'+bytes(TABLE.colors[TABLE.row(i)].tolist()).hex()) for i in TABLE.ids if i in SCORED]
    assert [ast.literal_eval(l) for l in r.stdout.splitlines() if l.startswith('[')]==[want]*3, r.stderr

def test_names_of_any_kind_in_a_style():
    names = ['a "b" <c> & \'d\'', 'Straße, Weg', '{x}']
    check_style(qgis_style(ClassTable(names, [(1,2,3),(255,0,10),(0,0,0)])), ClassTable(names, [(1,2,3),(255,0,10),(0,0,0)]), dict(enumerate(names)))

def test_polygons_from_elsewhere_have_no_style(tmp_path):
    save_polygons(geopandas.GeoDataFrame({'class':['a']}, geometry=[shapely.box(326000, 2789000, 326010, 2789010)], crs=UTM), tmp_path/'p.gpkg')
    assert geopandas.list_layers(tmp_path/'p.gpkg').name.tolist()==['p']

def test_a_mask_that_does_not_say_enough(tmp_path):
    ids = np.full((9,9), 7, np.uint8)
    with pytest.raises(GeoError, match='give classes'): find_polygons(write(tmp_path/'a.tif', ids))
    assert len(find_polygons(write(tmp_path/'a.tif', ids), TABLE))==1
    with pytest.raises(GeoError, match='a_srs'): find_polygons(write(tmp_path/'b.tif', ids, crs=None), TABLE)
    with pytest.raises(GeoError, match='no class 8.*give the table of this mask'): find_polygons(np.full((9,9), 8, np.uint8), TABLE, PLACE, UTM)
    with pytest.raises(GeoError, match='one band of ids'): find_polygons(write(tmp_path/'c.tif', chw(smooth(9, 9))), TABLE)
    shutil.copy(write(tmp_path/'d.tif', np.zeros((5,5), np.uint8)), tmp_path/'a_confidence.tif')
    with pytest.raises(GeoError, match='not the confidence of'): find_polygons(tmp_path/'a.tif', TABLE)
    assert len(find_polygons(np.zeros((9,9), np.uint8), TABLE, PLACE, UTM))==0 # all void

def test_confidence_of_another_mask(tmp_path):
    tif = write(tmp_path/'a.tif', chw(smooth(50, 60)))
    predict_geotiff(model(), tif, tmp_path/'m.tif')
    assert find_polygons(tmp_path/'m.tif').confidence.notna().all()
    predict_geotiff(model(seed=5), tif, tmp_path/'m.tif', confidence=None)
    with pytest.raises(GeoError, match='not the confidence of'): find_polygons(tmp_path/'m.tif')

def test_a_table_without_void():
    t = ClassTable(['a','b'])
    ids = np.uint8([[0,0,255],[1,1,255]])
    assert sorted(find_polygons(ids, t, PLACE, UTM)['class'])==['a','b']


# Training data

COLUMNS = ['road','roof & wall','grass','water']

def labelled(folder, crs=UTM, ids=None, transform=PLACE, h=150, w=200):
    "A map, and exact polygons of a mask of it"
    im,ids = smooth(h, w),blobs(h, w, sigma=8) if ids is None else ids
    f = find_polygons(ids, TABLE, transform, crs, simplify=0)
    return write(folder/'ortho.tif', chw(im), crs, transform),f,im,ids

def joined(data, ids, size):
    "The masks of windows, put together again, by name; windows that are not there are void"
    res = np.full((-(-ids.shape[0]//size)*size, -(-ids.shape[1]//size)*size), 'void', dtype='U20')
    for s in data.stems:
        i,j = map(int, s.split('_')[-2:])
        names = np.full(256, 'void', dtype='U20'); names[data.classes.ids] = data.classes.names
        res[i*size:(i+1)*size, j*size:(j+1)*size] = names[data.read_ids(s)]
    return res[:ids.shape[0],:ids.shape[1]]

NAMES = np.full(256, 'void', dtype='U20'); NAMES[TABLE.ids] = TABLE.names

@pytest.mark.parametrize('ending', ['gpkg','geojson','shp'])
def test_windows_are_the_map(tmp_path, ending):
    tif,f,im,ids = labelled(tmp_path)
    f.to_crs(4326 if ending=='geojson' else UTM).to_file(tmp_path/f'l.{ending}')
    c = cut_geotiff(tif, tmp_path/f'l.{ending}', tmp_path/'tiles', size=32)
    assert c.data.gsd==pytest.approx(.1, rel=1e-3) and sorted(c.data.classes.names)==sorted(['void',*COLUMNS])
    same = joined(c.data, ids, 32)==NAMES[ids]
    assert same.all() if ending!='geojson' else same.mean()>.995 # GeoJSON has seven digits
    np.testing.assert_array_equal(c.data['ortho_001_002'][0], im[32:64,64:96])
    edge,m = c.data['ortho_004_006'] # 22 rows and 8 columns are left
    assert (edge[22:]==raster.EMPTY).all() and (edge[:,8:]==raster.EMPTY).all() and (edge[:22,:8]==im[128:,192:]).all() and (m[22:]==0).all()
    assert not c.data.check(progress=False).problems

@pytest.mark.parametrize('label_crs', [4326, 32639, 3857])
def test_labels_in_another_projection(tmp_path, label_crs):
    tif,f,_,ids = labelled(tmp_path)
    f.to_crs(label_crs).to_file(tmp_path/'l.gpkg')
    assert (joined(cut_geotiff(tif, tmp_path/'l.gpkg', tmp_path/'tiles', size=64).data, ids, 64)==NAMES[ids]).mean()>.999

@pytest.mark.parametrize('crs, transform', [(UTM, turned(33)), ('EPSG:4326', Affine(1e-6, 0, 10, 0, -1e-6, 60))])
def test_windows_against_point_in_polygon(tmp_path, crs, transform):
    h,w = 120,160
    tif = write(tmp_path/'ortho.tif', chw(smooth(h, w)), crs, transform)
    shape = shapely.Polygon([on_ground(transform, c) for c in ((20.3,10.2), (140.7,33.1), (90.2,110.4), (30.1,80.9))])
    geopandas.GeoDataFrame({'class':['road']}, geometry=[shape], crs=crs).to_file(tmp_path/'l.gpkg')
    c = cut_geotiff(tif, tmp_path/'l.gpkg', tmp_path/'tiles', size=40, background='land')
    g = GeoImage(tif)
    step = [40*g.gsd/p if abs(g.pixel[0]/g.pixel[1]-1)>.01 else 40 for p in g.pixel] if crs==UTM else [40,40]
    for s in c.data.stems:
        i,j = map(int, s.split('_')[-2:])
        y,x = np.mgrid[:40,:40]
        col,row = (j*step[1]+(x+.5)*step[1]/40, i*step[0]+(y+.5)*step[0]/40)
        X,Y = on_ground(transform, (col.reshape(-1),row.reshape(-1)))
        inside = shapely.contains_xy(shape, X, Y).reshape(40, 40)
        there = (col<w) & (row<h)
        want = np.where(there, np.where(inside, 'road', 'land'), 'void')
        names = np.array(c.data.classes.names)
        got = names[[c.data.classes.row(int(k)) for k in c.data.read_ids(s).reshape(-1)]].reshape(40, 40)
        assert (got==want).mean()>.99, s

def test_coarser_windows(tmp_path):
    tif,f,im,ids = labelled(tmp_path)
    f.to_file(tmp_path/'l.gpkg')
    c = cut_geotiff(tif, tmp_path/'l.gpkg', tmp_path/'tiles', size=25, gsd=.2)
    assert len(c.data)==3*4 and c.data.gsd==.2
    got,m = c.data['ortho_000_001']
    assert abs(got.astype(int)-im[:50,50:100].reshape(25, 2, 25, 2, 3).mean((1,3))).mean()<1

def square(x, y, n=10): return shapely.box(326000+x, 2789000-y-n, 326000+x+n, 2789000-y)
def labels(path, shapes, values, crs=UTM, column='class'):
    geopandas.GeoDataFrame({column:values}, geometry=shapes, crs=crs).to_file(path)
    return path

def test_later_polygons_lie_above(tmp_path):
    tif = labelled(tmp_path)[0]
    c = cut_geotiff(tif, labels(tmp_path/'l.gpkg', [square(0, 0), square(2, 2, 3)], ['a','b']), tmp_path/'tiles', size=100)
    m = c.data.read_ids('ortho_000_000')
    t = c.data.classes
    assert (m[20:50,20:50]==t.id_of('b')).all() and (m==t.id_of('a')).sum()==100*100-30*30

def test_invalid_and_empty_shapes(tmp_path):
    tif = labelled(tmp_path)[0]
    bow = shapely.Polygon([(326000,2789000), (326010,2788990), (326010,2789000), (326000,2788990)])
    f = geopandas.GeoDataFrame({'class':['a','a','b']}, geometry=[bow, None, square(12, 2, 2)], crs=UTM)
    f.to_file(tmp_path/'l.gpkg')
    c = cut_geotiff(tif, tmp_path/'l.gpkg', tmp_path/'tiles', size=100)
    assert any('1 of 3 features have no geometry' in n for n in c.notes) and any('Self-intersection' in n and 'repaired' in n for n in c.notes)
    m = c.data.read_ids('ortho_000_000')
    np.testing.assert_allclose((m==c.data.classes.id_of('a')).sum(), 5000, rtol=.03) # both halves of the bow tie

def test_labels_that_do_not_fit(tmp_path):
    tif = labelled(tmp_path)[0]
    def refused(says, f, **kw):
        with pytest.raises(GeoError, match=says): cut_geotiff(tif, f, tmp_path/'t', **kw)
        assert not (tmp_path/'t').exists()
    one = labels(tmp_path/'one.gpkg', [square(0, 0)], ['a'])
    refused('no such file', tmp_path/'none.gpkg')
    (tmp_path/'text.gpkg').write_text('x'); refused('not a vector file', tmp_path/'text.gpkg')
    refused("no column 'kind'; it has class", one, column='kind')
    refused('lies on the map', labels(tmp_path/'far.gpkg', [square(1e4, 0)], ['a']))
    refused('are no polygons', labels(tmp_path/'line.gpkg', [shapely.LineString([(0,0), (1,1)])], ['a']))
    refused('have no class', labels(tmp_path/'null.gpkg', [square(0, 0), square(3, 3)], ['a',None]))
    refused("'c' \\(2 features\\).*b \\(1\\)", labels(tmp_path/'odd.gpkg', [square(0, 0)]*3, ['a','c','c']), classes=['a','b'])
    refused('holds numbers', labels(tmp_path/'num.gpkg', [square(0, 0)], [3]))
    labels(tmp_path/'p.shp', [square(0, 0)], ['a']); (tmp_path/'p.prj').unlink()
    refused('has no projection', tmp_path/'p.shp')
    for n in ('x','y'): geopandas.GeoDataFrame({'class':['a']}, geometry=[square(0, 0)], crs=UTM).to_file(tmp_path/'two.gpkg', layer=n)
    refused('layers with geometry are x, y', tmp_path/'two.gpkg')
    refused('size=3; .* 16 or more', one, size=3); refused('gsd=0; it is a number', one, gsd=0)
    write(tmp_path/'nowhere.tif', chw(smooth(50, 50)), crs=None)
    with pytest.raises(GeoError, match='the map has no projection'): cut_geotiff(tmp_path/'nowhere.tif', one, tmp_path/'t')
    write(tmp_path/'dark.tif', np.zeros((3,50,50), np.uint8), nodata=0)
    with pytest.raises(GeoError, match='no window'): cut_geotiff(tmp_path/'dark.tif', one, tmp_path/'t')
    assert len(cut_geotiff(tif, tmp_path/'two.gpkg', tmp_path/'t', layer='y').data)==1
    with pytest.raises(FileError, match='is there already'): cut_geotiff(tif, one, tmp_path/'t')
    ids = cut_geotiff(tif, labels(tmp_path/'ids.gpkg', [square(0, 0)], [9.]), tmp_path/'u', classes=TABLE, size=100).data
    assert ids.classes==TABLE and set(np.unique(ids.read_ids(ids.stems[0])))=={9}

def test_split_by_blocks_with_a_gap(tmp_path):
    tif,f,_,_ = labelled(tmp_path, h=800, w=800, ids=blobs(800, 800, (7,9,200,3), sigma=30))
    f.to_file(tmp_path/'l.gpkg')
    c = cut_geotiff(tif, tmp_path/'l.gpkg', tmp_path/'tiles', size=40)
    at = lambda s: tuple(map(int, s.split('_')[-2:]))
    train,valid = [{at(s) for s in side} for side in (c.split.train,c.split.valid)]
    assert len(c.data)==400 and 60<=len(valid)<=100 and len(train)>=160
    assert not any((i+a,j+b) in train for i,j in valid for a in (-1,0,1) for b in (-1,0,1))
    assert all({(i,j) for i,j in train|valid if (i//4,j//4)==block}<=side for side in (train,valid) for block in {(i//4,j//4) for i,j in side} if not any((i//4,j//4)==block for i,j in (train if side is valid else valid)))
    assert open_dataset(tmp_path/'tiles').use_split(Split.load(tmp_path/'tiles'/'split.json'))==c.split


# The command

def test_commands(tmp_path):
    from drone_seg.cli import app
    from drone_seg.models.zoo import create_model
    net = create_model('unet', 'mobilenetv3_small_050', TABLE, None)
    Bundle(net.eval(), TABLE, (64,64), gsd=.1).save(tmp_path/'run')
    tif,f,_,_ = labelled(tmp_path, h=90, w=120)
    run = lambda *a: CliRunner().invoke(app, [str(o) for o in a], catch_exceptions=False)
    r = run('map', tmp_path/'run', tif, '--out', tmp_path/'m.tif', '--polygons', tmp_path/'p.gpkg', '--min-area', '1 m2', '--bands', '3,2,1', '--device', 'cpu', '--dtype', 'fp32')
    assert r.exit_code==0 and re.search(r'polygons? written', r.output) and {'m.tif','m_confidence.tif','p.gpkg'}<=set(left(tmp_path))
    with rasterio.open(tmp_path/'m.tif') as ds: assert ds.tags()['DRONE_SEG_BANDS']=='3,2,1'
    for bad in (['--bands','1,2'], ['--stretch','a,b'], ['--polygons','p.txt']):
        with pytest.raises(DroneSegError): run('map', tmp_path/'run', tif, '--out', tmp_path/'n.tif', *bad)
    lost = write(tmp_path/'lost.tif', chw(smooth(60, 60)), crs=None)
    for bad,says in (([tif, '--polygons', tmp_path/'q.gpkg', '--min-area', '1 acre'], 'acre'), ([tif, '--polygons', tmp_path/'q.gpkg', '--simplify', 'much'], 'much'), ([tif, '--polygons', tmp_path/'m.tif'/'q.gpkg'], 'is a file'), ([lost, '--gsd', '.1', '--polygons', tmp_path/'q.gpkg'], 'has no projection')):
        with pytest.raises(DroneSegError, match=says): run('map', tmp_path/'run', *bad, '--out', tmp_path/'n.tif')
        assert not (tmp_path/'n.tif').exists() # said before predicting
    f.to_file(tmp_path/'l.gpkg')
    r = run('cut', tif, tmp_path/'l.gpkg', '--size', 32, '--out', tmp_path/'tiles')
    assert r.exit_code==0 and 'drone_seg train' in r.output and len(open_dataset(tmp_path/'tiles'))==12
