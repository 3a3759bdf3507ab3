"Bits, bands and emptiness of photos, masks and maps: hand-made files with known values"
import warnings
import numpy as np, pytest
from pathlib import Path
from PIL import Image
import torch
from drone_seg.fields import DroneSegError, ImageError, MaskError, PredictError
from drone_seg.classes import ClassTable
from drone_seg.photo.photo_file import find_margin, open_photo, photo_valid
from drone_seg.photo.images import photo_levels, read_mask
from drone_seg.data.datasets import open_dataset
from drone_seg.data.cache import Small
from drone_seg.models.bundle import Bundle, load_bundle
from drone_seg.models.zoo import create_model
from drone_seg.predict.folder import predict_folder
rasterio = pytest.importorskip('rasterio')

T = ClassTable(['void','dark','light'], void=['void'])
PLAIN = ClassTable(['dark','light']) # no void: 255

def write(f, a, mask=None, **kwargs): # (bands, H, W)
    a = a[None] if a.ndim==2 else a
    with warnings.catch_warnings(), rasterio.Env(GDAL_TIFF_INTERNAL_MASK=True):
        warnings.simplefilter('ignore')
        with rasterio.open(f, 'w', driver='GTiff', count=len(a), height=a.shape[1], width=a.shape[2], dtype=a.dtype, **kwargs) as ds:
            ds.write(a)
            if mask is not None: ds.write_mask(mask)
    return f

def colours(h=64, w=96, top=256, dtype=np.uint8): return np.random.default_rng(0).integers(top//8, top, (3, h, w)).astype(dtype)

class Bright(torch.nn.Module): # light where a pixel is brighter than half
    def __init__(self): super().__init__(); self.p = torch.nn.Parameter(torch.zeros(1))
    def forward(self, x):
        y = (x.mean(1, keepdim=True)-.5)*20
        return torch.cat([-y, y], 1) + self.p*0

def bundle(classes=T, **kwargs): return Bundle(Bright(), classes, size=(64,96), **kwargs)

@pytest.mark.parametrize('dtype,value', [('float32',-9999), ('float64',-9999), ('float64',float('nan')), ('int16',-9999), ('uint16',65535), ('int32',-2147483648), ('uint32',4294967295), ('int64',-1)])
def test_nodata_of_a_mask_is_void_where_the_file_says_so(dtype, value, tmp_path):
    a = np.array([[1,2],[value,1]], dtype)
    assert read_mask(write(tmp_path/'said.tif', a, nodata=value), T).tolist()==[[1,2],[0,1]]
    with pytest.raises(MaskError, match=f"{value:.15g} is .* .1 pixels."): read_mask(write(tmp_path/'unsaid.tif', a), T)

def test_fractions_are_no_ids(tmp_path):
    with pytest.raises(MaskError, match='value 0.25 is no whole id .2 pixels'): read_mask(write(tmp_path/'m.tif', np.float32([[1,.25],[.25,2]])), T)
    assert read_mask(write(tmp_path/'w.tif', np.float64([[1,2]])), T).tolist()==[[1,2]]

@pytest.mark.parametrize('kind', ['colours','ids'])
def test_transparent_pixels_of_masks_are_void(kind, tmp_path):
    ids = np.uint8([[1,2],[2,1]])
    rgb = T.to_colors(ids) if kind=='colours' else np.stack([ids]*3, -1)
    a = np.dstack([rgb, [[255,255],[0,0]]]).astype(np.uint8)
    a[1,1,:3] = 77,1,9 # no colour of the table; the other erased pixel kept its own
    Image.fromarray(a).save(tmp_path/'m.png')
    assert read_mask(tmp_path/'m.png', T).tolist()==[[1,2],[0,0]]

def folder(root, photos, masks=None, table='name\ndark\nlight\n'):
    (root/'images').mkdir(); (root/'masks').mkdir()
    (root/'classes.csv').write_text(table)
    for k,a in enumerate(photos):
        write(root/'images'/f'p{k}.tif', a, photometric='RGB' if len(a)>1 else 'MINISBLACK')
        m = (a.mean(0)>a.max()/2).astype(np.uint8) if masks is None else masks[k]
        write(root/'masks'/f'p{k}.tif', m)
    return root

def test_check_names_the_value_not_another_cause(tmp_path):
    m = np.zeros((64,96), np.int16); m[0,:5] = -9999
    found = open_dataset(folder(tmp_path, [colours()], [m])).check(progress=False)
    assert [f.kind for f in found.findings if f.level=='error']==['values'] and '-9999 is outside 0..255 (5 pixels)' in found.problems[0][1]
    assert '0/255' not in repr(found)

def test_12_bits_have_one_white_in_training_and_prediction(tmp_path):
    a = colours(top=4096, dtype=np.uint16)
    root = folder(tmp_path, [a, a//2, a[:,::-1]])
    data = open_dataset(root)
    assert data.photos==(3,(0,4095)) and '4095 white' in repr(data)
    assert '4095 white' in repr(data.check(progress=False))
    want = np.round(a.transpose(1,2,0)*(255/4095))
    for got in (data['p0'][0], data.read_photo('p0')): assert abs(got-want).max()<=1
    dls = data.dataloaders(dict(train=['p0','p1'], valid=['p2']), size=(64,96), bs=1, augment=None, cache=False)
    assert dls.photos==(3,(0,4095))
    trained = bundle(PLAIN, photos=dls.photos)
    np.testing.assert_array_equal(trained.predict(root/'images'/'p0.tif', scale=1).ids, want.mean(2)>127.5)
    with pytest.raises(ImageError, match='gdal_translate .* -scale 0 4095'): bundle().predict(root/'images'/'p0.tif')
    with pytest.raises(ImageError, match='beyond 0 to 4095'): trained.predict(write(tmp_path/'b.tif', a*10, photometric='RGB'))

def test_the_white_is_kept_with_the_model(tmp_path):
    b = Bundle(create_model('unet', encoder='resnet18', classes=2, weights=None), PLAIN, size=(64,96), photos=(3,(0,4095)))
    b.save(tmp_path/'b')
    assert load_bundle(tmp_path/'b').photos==(3,(0,4095))

def test_bands_are_named_or_refused(tmp_path):
    a = colours()
    nir = write(tmp_path/'nir.tif', a[0])
    with pytest.raises(PredictError, match='one band, and the model was trained on photos of three'): bundle().predict(nir)
    for f in ('grey.png','grey.jpg'):
        Image.fromarray(a[0]).save(tmp_path/f)
        with pytest.raises(PredictError, match='one band, and .*save it as RGB'): bundle().predict(tmp_path/f)
        with pytest.raises(PredictError, match='save it as RGB'): bundle().predict(Image.open(tmp_path/f))
        assert bundle(photos=(1,None)).predict(tmp_path/f).ids.shape==(64,96)
    Image.open(tmp_path/'grey.png').convert('RGB').save(tmp_path/'rgb.png') # the way out
    np.testing.assert_array_equal(bundle().predict(tmp_path/'rgb.png').ids==2, a[0]>127)
    rgbn = write(tmp_path/'rgbn.tif', np.concatenate([a, a[:1]]), photometric='RGB', alpha='NO')
    with pytest.warns(UserWarning, match='4 bands, of which the first three'): got = bundle().predict(rgbn)
    np.testing.assert_array_equal(got.ids, bundle().predict(a.transpose(1,2,0)).ids)
    hidden = write(tmp_path/'hidden.tif', np.concatenate([a, a[:1]])) # GDAL marks the fourth as alpha by itself
    assert 'infrared' in open_photo(hidden).notes[0] and open_photo(hidden).valid is None
    with pytest.raises(ImageError, match='5 bands, and the file does not name'): bundle().predict(write(tmp_path/'five.tif', np.concatenate([a, a[:2]])))
    (tmp_path/'d').mkdir()
    found = open_dataset(folder(tmp_path/'d', [np.concatenate([a, a[:1]])])).check(progress=False)
    assert 'bands' in [f.kind for f in found.warnings]

EMPTY = np.zeros((64,96), bool); EMPTY[:,:30] = True; EMPTY[50:] = True

def empty_photo(f, how):
    a = colours()
    a[:,EMPTY] = 0 if how=='nodata' else 200
    there = np.where(EMPTY, 0, 255).astype(np.uint8)
    if how=='nodata': return write(f.with_suffix('.tif'), a, photometric='RGB', nodata=0)
    if how=='mask': return write(f.with_suffix('.tif'), a, there, photometric='RGB')
    if how=='jpeg mask': return write(f.with_suffix('.tif'), a, there, photometric='YCBCR', compress='JPEG', tiled=True, blockxsize=64, blockysize=64)
    im = Image.fromarray(np.dstack([a.transpose(1,2,0), there]))
    im.save(f.with_suffix('.png' if how=='png' else '.tif'))
    return f.with_suffix('.png' if how=='png' else '.tif')

@pytest.mark.parametrize('how', ['png','alpha','nodata','mask','jpeg mask'])
def test_nothing_is_void_on_every_way_in(how, tmp_path):
    (tmp_path/'images').mkdir(); (tmp_path/'masks').mkdir()
    (tmp_path/'classes.csv').write_text('name\ndark\nlight\n')
    f = empty_photo(tmp_path/'images'/'p', how)
    np.testing.assert_array_equal(photo_valid(f), ~EMPTY)
    for table in (T, PLAIN):
        got = bundle(table).predict(f, confidence='max', smooth=3, specks=20)
        assert (got.ids[EMPTY]==table.void_id).all() and (got.ids[~EMPTY]!=table.void_id).all() and not got.confidence[EMPTY].any()
    res = predict_folder(bundle(), f, tmp_path/'out', overlays=False, progress=False)
    assert len(res.written)==1 and (np.asarray(Image.open(tmp_path/'out'/'masks'/'p.png'))[EMPTY]==0).all()
    Image.fromarray(np.ones((64,96), np.uint8)).save(tmp_path/'masks'/'p.png')
    data = open_dataset(tmp_path)
    assert (data['p'][1][EMPTY]==255).all() and (data['p'][1][~EMPTY]==1).all()
    assert data.check(progress=False).counts[0,1]==(~EMPTY).sum()

def test_a_margin_is_found_said_and_left_out_when_asked(tmp_path):
    a = colours(); a[:,EMPTY] = 0
    f = write(tmp_path/'p.tif', a, photometric='RGB')
    np.testing.assert_array_equal(find_margin(a.transpose(1,2,0)), EMPTY)
    with pytest.warns(UserWarning, match='void_border leaves it out'): got = bundle().predict(f)
    assert (got.ids!=0).all()
    np.testing.assert_array_equal(bundle().predict(f, void_border=True).ids==0, EMPTY)
    said = predict_folder(bundle(), f, tmp_path/'out', overlays=False, progress=False)
    assert 'void_border' in '\n'.join(said.notes)

def margin_folder(root):
    photos = [colours(), colours()[:,::-1], colours()[:,:,::-1]]
    for a in photos: a[:,EMPTY] = 0
    return folder(root, photos)

def test_a_margin_trains_no_class_when_asked(tmp_path):
    "It is void in pictures, masks, counts, loaders and the model, and so in prediction and scores"
    root = margin_folder(tmp_path)
    plain,data = open_dataset(root),open_dataset(root, void_border=True)
    assert [f.kind for f in plain.check(progress=False).warnings].count('margin')==1 and 'void_border leaves it out' in repr(plain.check(progress=False))
    assert 'margin' not in [f.kind for f in data.check(progress=False).warnings] and 'margin of a photo is void' in repr(data)
    assert plain.check(progress=False).counts.sum()==3*EMPTY.size and data.check(progress=False).counts.sum()==3*(~EMPTY).sum()
    assert plain.fingerprint()!=data.fingerprint()
    p,small = data.pair('p0'),Small(size=(64,96), keep=True)
    for image,ids in (data['p0'], (data.read_photo('p0'), data.read_ids('p0')), *((small.image(p), small.ids(p)) for _ in range(2))):
        assert (ids[EMPTY]==255).all() and (ids[~EMPTY]!=255).all() and (image[EMPTY]==(124,116,104)).all()
    assert (plain['p0'][1]!=255).all()
    for cache in (True, False):
        dls = data.dataloaders(dict(train=['p0','p1'], valid=['p2']), size=(64,96), bs=1, augment=None, cache=cache)
        assert dls.void_border and all(((y==255).numpy()==EMPTY).all() for _,y in dls.train)
    assert data.crop_dataloaders(dict(train=['p0','p1'], valid=['p2']), size=(64,96), bs=1, augment=None, progress=False).void_border
    assert not plain.dataloaders(dict(train=['p0','p1'], valid=['p2']), size=(64,96), bs=1).void_border

def test_a_model_that_was_trained_without_margins_leaves_them_out(tmp_path):
    root = margin_folder(tmp_path)
    b = Bundle(create_model('unet', encoder='resnet18', classes=2, weights=None), PLAIN, size=(64,96), void_border=True)
    b.save(tmp_path/'b')
    assert load_bundle(tmp_path/'b').void_border
    trained = bundle(PLAIN, void_border=True)
    f = root/'images'/'p0.tif'
    np.testing.assert_array_equal(trained.predict(f).ids==255, EMPTY)
    assert (trained.predict(f, void_border=False).ids!=255).all()
    data = open_dataset(root)
    assert trained.evaluate(data, progress=False).matrix.sum()==3*(~EMPTY).sum() and not data.void_border
    with pytest.warns(UserWarning, match='^p0 and 2 more: a part of it is black or white'): said = bundle(PLAIN).evaluate(data, progress=False)
    assert said.matrix.sum()==3*EMPTY.size

def test_a_data_set_is_scored_with_the_white_of_training(tmp_path):
    a = colours(top=1024, dtype=np.uint16) # of its own 10 bits
    data = open_dataset(folder(tmp_path, [a], [(a.mean(0)>2047.5).astype(np.uint8)]))
    assert data.photos==(3,(0,1023))
    m = bundle(PLAIN, photos=(3,(0,4095))).evaluate(data, progress=False).matrix
    assert m.trace()==m.sum()==a[0].size # all dark, as the same photos are for `predict`
    with pytest.raises(DroneSegError, match='photos of three bands.*trained on photos of one band'): bundle(PLAIN, photos=(1,None)).evaluate(data, progress=False)

def test_black_in_the_middle_or_in_shadow_is_no_margin():
    a = np.full((60,80,3), 90, np.uint8)
    a[20:40,20:40] = 0 # touches no edge
    a[0,:5] = 0 # too small
    assert find_margin(a) is None and find_margin(np.zeros((9,9,3), np.uint8)) is None

UTM = dict(crs='EPSG:32640', transform=rasterio.Affine(.1, 0, 4e5, 0, -.1, 2.7e6), photometric='RGB')

def test_a_geotiff_uses_its_own_metres_and_points_to_map(tmp_path):
    f = write(tmp_path/'p.tif', colours(), **UTM)
    with pytest.warns(UserWarning, match='drone_seg map'): got = bundle(gsd=.2).predict(f)
    assert got.scale==pytest.approx(.5, rel=2e-3)
    with pytest.warns(UserWarning, match='0.1 m per pixel are not used'): bundle().predict(f)

def test_maps_leave_out_alpha_of_a_fifth_band_and_a_margin(tmp_path):
    from drone_seg.photo.raster import GeoImage
    from drone_seg.use.map import predict_geotiff
    a = colours(); a[:,EMPTY] = 0
    alpha = np.where(EMPTY, 0, 255).astype(np.uint8)
    five = write(tmp_path/'five.tif', np.concatenate([a, a[:1], alpha[None]]), **UTM)
    with rasterio.open(five, 'r+') as ds: ds.colorinterp = [*ds.colorinterp[:3], rasterio.enums.ColorInterp.undefined, rasterio.enums.ColorInterp.alpha]
    res = predict_geotiff(bundle(gsd=.1), five, tmp_path/'m5.tif')
    assert 'bands 1, 2, 3 of 5' in repr(res)
    with rasterio.open(tmp_path/'m5.tif') as ds: np.testing.assert_array_equal(ds.read(1)==0, EMPTY)
    plain = write(tmp_path/'plain.tif', a, **UTM)
    res = predict_geotiff(bundle(gsd=.1), plain, tmp_path/'m.tif')
    assert sum(res.areas().values())==pytest.approx(a[0].size*.01, rel=5e-3) and 'void_border leaves it out' in repr(res)
    with pytest.raises(DroneSegError, match='one band, and the model'): predict_geotiff(bundle(gsd=.1), write(tmp_path/'nir.tif', a[0], **UTM | dict(photometric='MINISBLACK')), tmp_path/'n.tif')
    res = predict_geotiff(bundle(gsd=.1), plain, tmp_path/'m.tif', void_border=True)
    assert sum(res.areas().values())==pytest.approx((~EMPTY).sum()*.01, rel=5e-3)

def test_masks_of_two_bands_are_refused_and_stored_ids_are_read(tmp_path):
    ids = np.uint8([[1,2],[0,1]])
    with pytest.raises(ImageError, match='2 bands (of 8 bits )?where one (band )?of ids'): read_mask(write(tmp_path/'two.tif', np.stack([ids, ids*0])), T) # by Pillow's version
    assert read_mask(write(tmp_path/'white.tif', ids, photometric='MINISWHITE'), T).tolist()==ids.tolist()

def test_colours_that_two_classes_share_are_an_error_of_check(tmp_path):
    same = [[0,0,0],[90,9,9],[90,9,9]]
    root = folder(tmp_path, [colours()], [np.uint8(same)[np.random.default_rng(0).integers(0, 3, (64,96))].transpose(2,0,1)], 'name,r,g,b\n' + ''.join(f"c{k},{','.join(map(str, c))}\n" for k,c in enumerate(same)))
    assert 'share the colour (90, 9, 9)' in open_dataset(root).check(progress=False).problems[0][1]
