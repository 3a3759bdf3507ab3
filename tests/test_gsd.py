"photo.gsd: metres per pixel by hand, from tags as makers write them, and from files that lie"
import math, time
import numpy as np, pytest
from PIL import Image
from drone_seg.fields import DroneSegError, GeoError
from drone_seg.photo.gsd import Gsd, gsd_from_height, photo_gsd, photo_transform
from drone_seg.photo.flight import tilt_of, xmp_value
from drone_seg.photo.lens import PHOTO_SIZES
from drone_seg.photo.photo_file import photo_valid

def photo(path, size=(547,365), model='FC6310R', xmp='<rdf:Description drone-dji:RelativeAltitude="+30.10" drone-dji:GimbalPitchDegree="-90.00"/>', sea=None, **tags):
    "A JPEG with EXIF and XMP; tags: focal, film, wide, high, plane, unit, zoom, turn"
    exif = Image.Exif()
    sub,gps = exif.get_ifd(0x8769),exif.get_ifd(0x8825)
    exif[0x0110] = model
    if 'turn' in tags: exif[0x0112] = tags.pop('turn')
    names = dict(focal=0x920A, film=0xA405, wide=0xA002, high=0xA003, plane=0xA20E, unit=0xA210, zoom=0xA404)
    for k,v in tags.items(): sub[names[k]] = v
    if sea is not None: gps[5],gps[6] = b'\0',sea
    Image.new('RGB', size, 'grey').save(path, exif=exif, **(dict(xmp=xmp.encode()) if xmp is not None else {}))
    return path

P4 = dict(focal=8.8, film=24, wide=5472, high=3648)

# DJI, specifications of its cameras: GSD in cm per pixel is the height in metres over these
@pytest.mark.parametrize('model, focal, wide, high, over', [('FC6310R', 8.8, 5472, 3648, 36.5), ('ZenmuseP1', 24, 8192, 5460, 55), ('ZenmuseP1', 35, 8192, 5460, 80), ('ZenmuseP1', 50, 8192, 5460, 114)])
def test_published_dji_figures(tmp_path, model, focal, wide, high, over):
    "At a tenth of the camera's size a pixel shows ten times as much; DJI rounds to about 1 %"
    f = photo(tmp_path/'a.jpg', (wide//10, high//10), model, '<a drone-dji:RelativeAltitude="+100.0"/>', focal=focal, wide=wide, high=high)
    assert photo_gsd(f)*100==pytest.approx(10*100/over, rel=.01)

def test_pix4d_worked_example(): assert gsd_from_height(162.07, 5, 6.17, 4000)==pytest.approx(.05, rel=1e-4)

def test_three_ways_agree_by_hand(tmp_path):
    "8.8 mm on 13.2 mm: 547 pixels see 1.5 heights"
    want = 30.1*1.5/547
    assert photo_gsd(photo(tmp_path/'a.jpg', **P4))==pytest.approx(want, rel=1e-6)
    assert photo_gsd(photo(tmp_path/'b.jpg', model='X', focal=8.8, plane=5472/13.2*25.4, unit=2, wide=5472, high=3648))==pytest.approx(want, rel=1e-4) # per inch
    assert photo_gsd(photo(tmp_path/'c.jpg', model='X', focal=8.8, plane=5472/13.2*10, unit=3, wide=5472, high=3648))==pytest.approx(want, rel=1e-4) # per centimetre
    assert photo_gsd(photo(tmp_path/'d.jpg', model='X', film=24))==pytest.approx(want, rel=.02) # 24 mm on film of 36 mm see 1.5 heights as well

def test_a_turned_photo_is_the_same(tmp_path):
    assert photo_gsd(photo(tmp_path/'a.jpg', (365,547), turn=6, **P4))==pytest.approx(photo_gsd(photo(tmp_path/'b.jpg', **P4)))

@pytest.mark.parametrize('xmp, height', [
    ('<rdf:Description drone-dji:RelativeAltitude="+39.839"/>', 39.839), # Zenmuse P1, as published in DJI's forum
    ("<rdf:Description drone-dji:RelativeAltitude='+39.839'/>", 39.839),
    ('<drone-dji:RelativeAltitude>19.7</drone-dji:RelativeAltitude>', 19.7),
    ('<rdf:Description drone:RelativeAltitude="28.0" drone:AbsoluteAltitude="500"/>', 28.), # Autel
    ('<Camera:AboveGroundAltitude> 4971569/65536 </Camera:AboveGroundAltitude>', 4971569/65536), # Parrot, Pix4D's names
    ('<Camera:AboveGroundAltitude>55.5</Camera:AboveGroundAltitude><drone-dji:RelativeAltitude>1</drone-dji:RelativeAltitude>', 55.5), # above ground goes before above take-off
])
def test_heights_of_makers(tmp_path, xmp, height):
    g = photo_gsd(photo(tmp_path/'a.jpg', xmp=xmp, sea=481.2, **P4))
    assert g==pytest.approx(height*1.5/547, rel=1e-6)
    assert any('take-off' in n for n in g.notes)==('Relative' in g.source)

@pytest.mark.parametrize('xmp, off', [('drone-dji:GimbalPitchDegree="-70"', 20), ('drone:GimbalPitchDegree="-70"', 20), ('drone-parrot:CameraPitchDegree="-70"', 20), ('Camera:Pitch="20"', 20), ('Camera:Pitch="-20"', 20), ('drone-dji:GimbalPitchDegree="-85"', 5)])
def test_tilt(tmp_path, xmp, off):
    "The middle of the photo is further away by the cosine; a tilt of more than 10 degrees is said"
    g = photo_gsd(photo(tmp_path/'a.jpg', xmp=f'<a {xmp} Camera:AboveGroundAltitude="30"/>', **P4))
    assert g==pytest.approx(30*1.5/547/math.cos(math.radians(off)), rel=1e-6)
    assert any(f'{off} degrees off' in n for n in g.notes)==(off>10)

def test_tilt_note_is_the_geometry():
    "A ray 30 degrees further out than a camera's axis of 20 degrees sees 1/(1 - tan 20 tan 30) times as much per pixel: traced by hand"
    (off,(note,)),t = tilt_of('p', 'Camera:Pitch="20"'),math.radians
    z = lambda a: 1/math.cos(t(20+a))*math.cos(t(a)) # depth along the axis of the ground seen at angle a
    assert off==20 and f"{100*z(30)/z(0)-100:.0f} %" in note

@pytest.mark.parametrize('kw, says', [
    (dict(xmp=None, sea=1410.9), 'above the sea'), (dict(xmp=None), 'does not say how high'),
    (dict(xmp='<a drone-dji:RelativeAltitude="+0.00"/>'), 'no height above ground'), (dict(xmp='<a drone-dji:RelativeAltitude="-12"/>'), '-12 m'),
    (dict(xmp='<a drone-dji:RelativeAltitude="+12000"/>'), '12000 m'), (dict(xmp='<a drone-dji:RelativeAltitude="nan"/>'), 'is nan'),
    (dict(xmp='<a Camera:AboveGroundAltitude="1/0"/>'), 'no height'), (dict(xmp='<a Camera:AboveGroundAltitude="20" Camera:Pitch="60"/>'), '60 degrees off'),
    (dict(film=50), 'contradict'), (dict(zoom=2.), 'zoom of 2'), (dict(film=0, focal=0), 'what its lens shows'), (dict(size=(100,365)), 'contradict')])
def test_what_cannot_be_is_refused_in_one_line(tmp_path, kw, says):
    with pytest.raises(GeoError, match=says) as e: photo_gsd(photo(tmp_path/'a.jpg', **{**P4, **kw}))
    assert 'gsd' in str(e.value) and '\n' not in str(e.value)

@pytest.mark.parametrize('v', [0, -.01, 40, 2.1, 1e-5, float('nan'), float('inf'), None, 'x', True])
def test_numbers_that_cannot_be(v):
    with pytest.raises(GeoError): Gsd(v)

def test_gsd_is_a_number_with_an_origin():
    g = Gsd(.04, 'a map', ['north is up'], guess=True)
    assert g==.04 and g*2==.08 and Gsd(g).guess and Gsd(g).notes==('north is up',) and 'ASSUMED' in repr(g)
    assert g.to_dict()==dict(metres_per_pixel=.04, source='a map', guess=True, notes=['north is up'])

def test_a_given_height_goes_before_tags(tmp_path):
    f = photo(tmp_path/'a.jpg', sea=481, **P4)
    assert photo_gsd(f, height=10)==pytest.approx(10*1.5/547)
    for h in (0, -3, 5000, float('nan'), '10'):
        with pytest.raises(GeoError, match='height='): photo_gsd(f, height=h)

def test_xmp_cannot_be_made_slow():
    start = time.process_time()
    for text in ('<drone-dji:RelativeAltitude>' + ' '*(1<<20), 'drone-'*(1<<18), '<Camera:Pitch' + 'x'*(1<<20), 'Camera:Pitch="'*(1<<16)): xmp_value(text, r'drone[-\w]{0,20}:RelativeAltitude'); xmp_value(text, 'Camera:Pitch')
    assert time.process_time()-start<5

def test_damaged_tags_are_our_errors_or_numbers(tmp_path):
    data = photo(tmp_path/'a.jpg', sea=481, **P4).read_bytes()
    rng,end = np.random.default_rng(0),700
    for _ in range(150):
        b = bytearray(data)
        for i in rng.integers(20, end, 6): b[i] = rng.integers(256)
        (tmp_path/'b.jpg').write_bytes(b)
        try: assert photo_gsd(tmp_path/'b.jpg')>0
        except DroneSegError: pass

@pytest.mark.parametrize('crs, transform, want', [
    ('EPSG:32633', (.05, 0, 5e5, 0, -.05, 5e6), .05), ('EPSG:32633', (.03, .04, 5e5, .04, -.03, 5e6), .05), # turned
    ('EPSG:2263', (1, 0, 9.8e5, 0, -1, 2e5), .3048006), # US survey feet
    ('EPSG:3857', (.1, 0, 1196000, 0, -.1, 8380000), .1*math.cos(math.radians(59.92))), # Oslo on a web map
    ('EPSG:4326', (1e-6, 0, 15, 0, -1e-6, 47), 'degrees'), (None, (.05, 0, 0, 0, -.05, 0), 'without a projection'),
    ('EPSG:32633', (.05, 0, 0, 0, -.06, 0), 'square'), ('EPSG:32633', (40, 0, 0, 0, -40, 0), 'metres per pixel')])
def test_geotiff(tmp_path, crs, transform, want):
    rasterio = pytest.importorskip('rasterio')
    with rasterio.open(tmp_path/'a.tif', 'w', driver='GTiff', width=60, height=40, count=3, dtype='uint8', crs=crs, transform=rasterio.Affine(*transform)) as f: f.write(np.zeros((3,40,60), np.uint8))
    if isinstance(want, float):
        g = photo_gsd(tmp_path/'a.tif')
        assert g==pytest.approx(want, rel=4e-3) and 'GeoTIFF' in g.source and not g.guess
        assert photo_transform(tmp_path/'a.tif')[0]==pytest.approx(transform)
    else:
        with pytest.raises(GeoError, match=want): photo_gsd(tmp_path/'a.tif')

def test_blank_is_what_was_left_out(tmp_path):
    rasterio = pytest.importorskip('rasterio')
    seen = np.random.default_rng(0).random((4,40,60))>.3 # transparent, nodata, an internal mask, turned
    a = np.random.default_rng(1).integers(1, 255, (4,40,60), dtype=np.uint8)
    place = dict(driver='GTiff', width=60, height=40, dtype='uint8', crs='EPSG:32633', transform=rasterio.Affine(.05, 0, 5e5, 0, -.05, 5e6))
    with rasterio.open(tmp_path/'alpha.tif', 'w', count=4, photometric='RGB', alpha='YES', **place) as f: f.write(np.concatenate([a[:3], seen[:1]*np.uint8(255)]))
    with rasterio.open(tmp_path/'nodata.tif', 'w', count=3, photometric='RGB', nodata=0, **place) as f: f.write(a[:3]*seen[1])
    with rasterio.Env(GDAL_TIFF_INTERNAL_MASK=True), rasterio.open(tmp_path/'mask.tif', 'w', count=3, photometric='RGB', **place) as f: f.write(a[:3]); f.write_mask(seen[2])
    exif = Image.Exif(); exif[0x0112] = 6
    Image.fromarray(np.dstack([*a[:3], seen[3]*np.uint8(255)])).save(tmp_path/'turned.png', exif=exif)
    for n,s in (('alpha.tif', seen[0]), ('nodata.tif', seen[1]), ('mask.tif', seen[2]), ('turned.png', np.rot90(seen[3], -1))): assert (photo_valid(tmp_path/n)==s).all()
    with rasterio.open(tmp_path/'full.tif', 'w', count=3, photometric='RGB', **place) as f: f.write(a[:3])
    assert photo_valid(tmp_path/'full.tif') is None and photo_valid(photo(tmp_path/'a.jpg', **P4)) is None

def test_a_turned_geotiff_has_no_transform(tmp_path):
    rasterio = pytest.importorskip('rasterio')
    with rasterio.open(tmp_path/'a.tif', 'w', driver='GTiff', width=6, height=4, count=3, dtype='uint8', crs='EPSG:32633', transform=rasterio.Affine(.05, 0, 5e5, 0, -.05, 5e6)) as f: f.write(np.ones((3,4,6), np.uint8))
    assert photo_transform(tmp_path/'a.tif')[1].to_epsg()==32633
    with Image.open(tmp_path/'a.tif') as im: tags = im.tag_v2
    tags[0x0112] = 6
    im = Image.fromarray(np.ones((4,6,3), np.uint8)); im.save(tmp_path/'b.tif', tiffinfo=tags)
    assert photo_transform(tmp_path/'b.tif')==(None, None)

NADIR = '<a drone-dji:GimbalPitchDegree="-90"/>'
FILM = math.hypot(36, 24)

@pytest.mark.parametrize('model, sensor', [('FC7303', (4000,3000)), ('FC6310', (5472,3648))])
def test_a_photo_of_fewer_rows_has_the_pixels_of_the_whole(tmp_path, model, sensor):
    "16:9 or 4:3 out of a sensor of 4:3 or 3:2, by the 35 mm equivalent alone: a pixel is as large as without leaving rows or columns out"
    want = 30/(24/FILM*math.hypot(*sensor))
    for size in PHOTO_SIZES[model]:
        f = photo(tmp_path/'a.jpg', size, model, NADIR, film=24, wide=size[0], high=size[1])
        g = photo_gsd(f, height=30)
        assert g==pytest.approx(want, rel=1e-6) and g.spread==pytest.approx(.5/24) and g.known
        f = photo(tmp_path/'b.jpg', size[::-1], model, NADIR, film=24, wide=size[0], high=size[1], turn=6)
        assert photo_gsd(f, height=30)==pytest.approx(want, rel=1e-6)

@pytest.mark.parametrize('sensor', [4/3, 3/2, 16/9])
@pytest.mark.parametrize('shape', [1, 4/3, 3/2, 16/9, 2])
@pytest.mark.parametrize('equivalent', [19.5, 24.49, 27.51])
def test_the_spread_of_an_unknown_camera_holds_the_truth(tmp_path, sensor, shape, equivalent):
    "Whatever shape a sensor has that cuts its photo out, and whatever was rounded away"
    if sensor==16/9 and shape<16/9: return # no drone is known to leave so much out
    whole = (1200, 1200/sensor)
    size = (round(min(whole[0], whole[1]*shape)), round(min(whole[1], whole[0]/shape)))
    g = photo_gsd(photo(tmp_path/'a.jpg', size, 'new', NADIR, film=round(equivalent), wide=size[0], high=size[1]), height=30)
    true = 30/(equivalent/FILM*math.hypot(*whole))
    assert abs(true/g-1)<=g.spread*1.1+.003 and g.guess and 'cropped' in g.notes[-1] # 1.1: of the number or of the truth

@pytest.mark.parametrize('tags', [dict(film=24), dict(focal=8.8), P4])
@pytest.mark.parametrize('size', [(2736,1824), (3000,2000), (5472,3000)])
def test_what_an_editor_cropped_is_refused_where_the_camera_is_known(tmp_path, tags, size):
    small = (size[0]//8, size[1]//8)
    kept,rewritten = dict(wide=5472, high=3648),dict(wide=size[0], high=size[1])
    with pytest.raises(GeoError, match='sizes were rewritten; give gsd'): photo_gsd(photo(tmp_path/'a.jpg', size, **{**tags, **rewritten}))
    with pytest.raises(GeoError, match='sizes were rewritten'): photo_gsd(photo(tmp_path/'b.jpg', small, **{k:v for k,v in tags.items() if k in ('film','focal')}))
    if size[0]*2!=size[1]*3:
        with pytest.raises(GeoError, match='it was cropped'): photo_gsd(photo(tmp_path/'c.jpg', size, **{**tags, **kept}))
    else:
        g = photo_gsd(photo(tmp_path/'d.jpg', size, **{**tags, **kept})) # of the sensor's shape: resized, most likely
        assert f"{5472/size[0]:.3g} times too large" in g.notes[-1] and not g.known

def test_two_ways_that_agree_show_that_nothing_was_cropped(tmp_path):
    plane = dict(focal=8.8, plane=5472/13.2*10, unit=3)
    g = photo_gsd(photo(tmp_path/'a.jpg', (5472,3648), 'new', NADIR, film=24, **plane), height=30)
    assert not g.guess and g.known and g==pytest.approx(30*1.5/5472, rel=1e-6)
    with pytest.raises(GeoError, match='contradict'): photo_gsd(photo(tmp_path/'b.jpg', (2736,1824), 'new', NADIR, film=24, **plane), height=30)
    far = photo_gsd(photo(tmp_path/'c.jpg', (5472,3648), 'new', NADIR, film=27, **plane), height=30) # 12.5 % apart, of which rounding tells 1.9 and a sensor of 4:3 would tell 4
    assert far==pytest.approx(30*1.5/5472, rel=1e-6) and far.spread==pytest.approx(27/24-1-.5/27-.04, abs=2e-3) and not far.known

@pytest.mark.parametrize('words', ['drone-dji:Gimbal{}Degree', 'drone:Gimbal{}Degree', 'drone-parrot:Camera{}Degree', 'Camera:{}'])
def test_angles_all_zero_are_unknown(tmp_path, words):
    "mobile SDKs write 0/0/0 where the gimbal was not asked"
    xmp = lambda p,r,y: '<a ' + ' '.join(f'{words.format(n)}="{v}"' for n,v in (('Pitch', p), ('Roll', r), ('Yaw', y))) + ' Camera:AboveGroundAltitude="30"/>'
    for h in (None, 30):
        g = photo_gsd(photo(tmp_path/'a.jpg', xmp=xmp('+0.00', '0', '-0.0'), **P4), height=h)
        assert g==pytest.approx(30*1.5/547, rel=1e-6) and any('does not say which way' in n for n in g.notes) and not g.known
    if words=='Camera:{}': return # 0 is straight down
    for zero in ((0, 0, 12), (0, 3, 0)):
        with pytest.raises(GeoError, match='90 degrees off'): photo_gsd(photo(tmp_path/'a.jpg', xmp=xmp(*zero), **P4), height=30)

def test_known_is_without_any_doubt():
    assert Gsd(.04).known and Gsd(.04, spread=.02).known
    for g in (Gsd(.04, guess=True), Gsd(.04, notes=['the ground is not level']), Gsd(.04, spread=.06)): assert not g.known
    assert '± 6 %' in repr(Gsd(.04, spread=.06)) and Gsd(Gsd(.04, spread=.06)).spread==.06 and Gsd(.04, spread=.06).to_dict()['spread']==.06
