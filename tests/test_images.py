"Reading and writing: whatever the file holds, the right pixels or a clear error"
import numpy as np, pytest
from PIL import Image, ImageOps
from drone_seg.fields import *
from drone_seg.classes import *
from drone_seg.photo.photo_file import *
from drone_seg.photo.images import read_mask, resize_image, resize_mask, save_mask, mask_kind
from drone_seg.files import replacing

@pytest.fixture
def photo():
    y,x = np.mgrid[:48,:80]
    return np.stack([x*3, y*5, (x+y)*2], -1).clip(0, 255).astype(np.uint8)

T = ClassTable(['void','road','grass','car'], [(0,0,0),(128,64,128),(0,102,0),(9,143,150)], void=['void'])
IDS = np.random.default_rng(0).integers(0, 4, (20,30)).astype(np.uint8)

@pytest.mark.parametrize('turn', range(1, 9))
def test_exif_turns(tmp_path, photo, turn):
    exif = Image.Exif(); exif[0x0112] = turn
    Image.fromarray(photo).save(tmp_path/'p.png', exif=exif)
    with Image.open(tmp_path/'p.png') as im: want = np.asarray(ImageOps.exif_transpose(im))
    got = read_image(tmp_path/'p.png')
    assert (got==want).all() and image_size(tmp_path/'p.png')==got.shape[:2]==((80,48) if turn>4 else (48,80))

@pytest.mark.parametrize('mode', ['L','RGBA','P','CMYK','LA','1'])
def test_modes_give_rgb(tmp_path, photo, mode):
    f = tmp_path/('p.tif' if mode=='CMYK' else 'p.png')
    im = Image.fromarray(photo).convert(mode); im.save(f)
    got = read_image(f)
    assert got.shape==(48,80,3) and got.dtype==np.uint8
    assert abs(got.astype(int) - np.asarray(im.convert('RGB'))).max()<=1

def test_sixteen_bits_are_scaled(tmp_path):
    a = np.linspace(0, 65535, 100).astype(np.uint16).reshape(10, 10)
    Image.fromarray(a).save(tmp_path/'p.png')
    got = read_image(tmp_path/'p.png')
    assert abs(got[...,0] - a/257).max()<=.51 and (got[...,0]==got[...,2]).all()

@pytest.mark.parametrize('at_least', [(1,1), (60,100), (100,100), (101,10), (400,600)])
def test_reduced_jpegs_are_never_too_small(tmp_path, at_least):
    big = np.kron(np.random.default_rng(0).integers(0, 255, (20,30,3)), np.ones((20,20,1))).astype(np.uint8)
    Image.fromarray(big).save(tmp_path/'p.jpg', quality=95)
    got = read_image(tmp_path/'p.jpg', at_least)
    assert got.shape[0]>=min(at_least[0], 400) and got.shape[1]>=min(at_least[1], 600)
    want = resize_image(big, got.shape[:2])
    assert abs(got.astype(int)-want).mean()<8

@pytest.mark.parametrize('keep', [.1, .5, .9, .99])
def test_a_jpeg_cut_short_is_damaged(tmp_path, photo, keep):
    f = tmp_path/'p.jpg'
    Image.fromarray(np.tile(photo, (5,5,1))).save(f, quality=95)
    b = f.read_bytes(); f.write_bytes(b[:int(len(b)*keep)])
    for at_least in (None, (1,1)):
        with pytest.raises(ImageError, match='p.jpg'): read_image(f, at_least)

@pytest.mark.parametrize('make,says', [(lambda f: None, 'no such file'), (lambda f: f.mkdir(), 'a folder'), (lambda f: f.write_text('x'), 'not an image'), (lambda f: f.write_bytes(b''), 'not an image')])
def test_what_is_no_image(tmp_path, make, says):
    make(tmp_path/'p.jpg')
    with pytest.raises(ImageError, match=says): read_image(tmp_path/'p.jpg')

def as_palette(colors): # a palette PNG whose indices are not the ids
    im = Image.fromarray((3-IDS).astype(np.uint8)); im.putpalette(np.uint8(colors)[::-1].tobytes()); return im

@pytest.mark.parametrize('make', [
    lambda: Image.fromarray(IDS), lambda: Image.fromarray(T.to_colors(IDS)), lambda: Image.fromarray(np.dstack([T.to_colors(IDS), np.full(IDS.shape, 255, np.uint8)])),
    lambda: Image.fromarray(np.stack([IDS]*3, -1)), lambda: as_palette(T.colors), lambda: Image.fromarray(IDS.astype(np.uint16))],
    ids=['grey','colours','colours+alpha','grey in three channels','palette of colours','16 bit'])
def test_every_kind_of_mask(tmp_path, make):
    make().save(tmp_path/'m.png')
    assert (read_mask(tmp_path/'m.png', T)==IDS).all()

def test_a_palette_of_colours_that_are_a_little_off(tmp_path):
    "As a picture of such colours is read with a tolerance, so is a palette of them, in whatever order it has them"
    as_palette(T.colors.astype(int)+(T.colors<200)).save(tmp_path/'m.png')
    assert mask_kind(tmp_path/'m.png', T, tol=1)=='colors'
    assert (read_mask(tmp_path/'m.png', T, tol=1)==IDS).all()

def test_a_palette_of_other_colours_holds_ids(tmp_path):
    im = Image.fromarray(IDS); im.putpalette(np.random.default_rng(3).integers(0, 255, 768).astype(np.uint8).tobytes())
    im.save(tmp_path/'m.png')
    assert (read_mask(tmp_path/'m.png', T)==IDS).all()

def test_colours_where_ids_are_expected(tmp_path):
    Image.fromarray(T.to_colors(IDS)).save(tmp_path/'m.png')
    with pytest.raises(ImageError, match='colour picture'): read_mask(tmp_path/'m.png', T, 'ids')

@pytest.mark.parametrize('size', [(1,1), (7,200), (31,33), (100,160), (20,30)])
def test_resized_masks_hold_no_new_ids(size):
    m = np.random.default_rng(1).choice([3,5,200], (20,30)).astype(np.uint8)
    got = resize_mask(m, size)
    assert got.shape==size and set(np.unique(got))<={3,5,200}
    y,x = [((np.arange(n)+.5)*s/n).astype(int) for n,s in zip(size, m.shape)] # the pixel whose middle is nearest
    assert (got==m[y][:,x]).mean()>.9 # but for ties between two pixels

def test_a_failed_write_keeps_what_was_there(tmp_path):
    save_mask(IDS, T, tmp_path/'m.png')
    before = (tmp_path/'m.png').read_bytes()
    with pytest.raises(RuntimeError):
        with replacing(tmp_path/'m.png') as tmp: tmp.write_bytes(b'half'); raise RuntimeError
    assert (tmp_path/'m.png').read_bytes()==before and [f.name for f in tmp_path.iterdir()]==['m.png']
    (tmp_path/'file').write_text('x')
    with pytest.raises(FileError, match='cannot be written'): save_mask(IDS, T, tmp_path/'file'/'m.png')

@pytest.mark.parametrize('channels,dtype,ending', [(c,d,e) for c,d in ((3,np.uint16), (4,np.uint16), (4,np.uint8), (1,np.uint16)) for e in ('.tif','.png')] + [(1,np.float32,'.tif')])
def test_deep_and_four_channel_photos(tmp_path, channels, dtype, ending):
    "16 bits and floats come down to 8, a fourth channel is left out; at most one grey level is lost"
    import cv2
    top = 1 if dtype==np.float32 else np.iinfo(dtype).max
    a = (np.random.default_rng(0).random((20,30,channels))*top).astype(dtype)
    cv2.imwrite(str(tmp_path/f'p{ending}'), a[...,[2,1,0,3][:channels] if channels>1 else 0])
    got = read_image(tmp_path/f'p{ending}')
    assert got.shape==(20,30,3) and got.dtype==np.uint8
    for k in range(3): assert abs(got[...,k] - a[...,min(k, channels-1)]/top*255).max()<1.01

def test_a_mask_with_its_own_exif_flag_is_turned(tmp_path):
    exif = Image.Exif(); exif[0x0112] = 6
    Image.fromarray(IDS).save(tmp_path/'m.png', exif=exif)
    assert (read_mask(tmp_path/'m.png', T)==np.rot90(IDS, -1)).all()
