"Each published data set: a tiny folder of its true layout, opened, told apart and read by the real code"
import re
from pathlib import Path
import numpy as np, pytest
from PIL import Image
from drone_seg.fields import *
from drone_seg.classes import *
from drone_seg.data.records import *
from drone_seg.photo.images import *
from drone_seg.data.datasets import *
from drone_seg.data.join import *

@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch): monkeypatch.setenv('DRONE_SEG_CACHE', str(tmp_path/'cache'))

def write(path, a): path.parent.mkdir(parents=True, exist_ok=True); Image.fromarray(a).save(path)

def scene(classes, seed, size=(24,48)):
    "A photo, and ids of which the last one of the table always occurs"
    rng = np.random.default_rng(seed)
    ids = rng.choice(classes.ids, (4,8)); ids[0,0] = classes.ids[-1]
    return rng.integers(0, 255, (*size,3)).astype(np.uint8), np.kron(ids, np.ones((size[0]//4, size[1]//8))).astype(np.uint8)

def make(name, files, root, colors=False, jitter=0, ids3=False):
    "`files`: stem -> (photo, mask or None). Returns stem -> ids"
    c,res = RECORDS[name].classes,{}
    for k,(stem,(photo,mask)) in enumerate(files.items()):
        im,ids = scene(c, k)
        write(root/photo, im)
        if mask is None: continue
        out = c.to_colors(ids) if colors else np.stack([ids]*3, -1) if ids3 else ids
        if jitter: out = (out.astype(int) + np.random.default_rng(k).integers(0, 2, 3)*jitter*np.where(out==255, -1, 1)).clip(0, 255).astype(np.uint8)
        write(root/mask, out); res[stem] = ids
    return res

def texts(root, **lists):
    for f,names in lists.items(): p = root/f.replace('__', '/'); p = p.with_suffix('.txt'); p.parent.mkdir(parents=True, exist_ok=True); p.write_text('\n'.join(names) + '\n')

# One generator per layout: writes the folder, returns (stem -> ids, official split or None)

def semantic_drone_original(root):
    t = 'semantic_drone_dataset/training_set'
    got = make('semantic_drone', {s: (f'{t}/images/{s}.jpg', f'{t}/gt/semantic/label_images/{s}.png') for s in ('001','554')}, root, colors=True)
    (root/t/'gt'/'semantic'/'class_dict.csv').write_text('name, r, g, b\nunlabeled, 0, 0, 0\n'); (root/t/'gt'/'bounding_box').mkdir()
    return got, None

def semantic_drone_widespread(root):
    t = 'dataset/semantic_drone_dataset'
    got = make('semantic_drone', {s: (f'{t}/original_images/{s}.jpg', f'{t}/label_images_semantic/{s}.png') for s in ('001','554')}, root)
    make('semantic_drone', {s: (f'RGB_color_image_masks/RGB_color_image_masks/{s}.png',)*2 for s in ('001','554')}, root, colors=True)
    (root/'class_dict_seg.csv').write_text('name, r, g, b\nunlabeled, 0, 0, 0\n')
    return got, None

def _aeroscapes(root, masks, **kwargs):
    stems = ['000001_001','000001_002','000002_001']
    got = make('aeroscapes', {s: (f'aeroscapes/JPEGImages/{s}.jpg', f'aeroscapes/{masks}/{s}.png') for s in stems}, root, **kwargs)
    texts(root/'aeroscapes', ImageSets__trn=stems[:2], ImageSets__val=stems[2:])
    return got, dict(train=stems[:2], valid=stems[2:], test=[])
def aeroscapes_ids(root): return _aeroscapes(root, 'SegmentationClass')
def aeroscapes_colors(root): return _aeroscapes(root, 'Visualizations', colors=True)
def aeroscapes_jitter(root): return _aeroscapes(root, 'Visualizations', colors=True, jitter=1)

def uavid(root):
    f = {s: (f'uavid_{d}/{s.split("/")[0]}/Images/{s.split("/")[1]}.png', f'uavid_{d}/{s.split("/")[0]}/Labels/{s.split("/")[1]}.png' if d!='test' else None)
         for d,s in (('train','seq1/000000'), ('train','seq1/000100'), ('train','seq2/000000'), ('val','seq16/000000'), ('test','seq21/000000'))}
    return make('uavid', f, root, colors=True), dict(train=['seq1/000000','seq1/000100','seq2/000000'], valid=['seq16/000000'], test=[])

def _src_gt(name, root, folder, sides=('train','val')):
    f = {f'DJI_{k:04}': (f'{folder}/{d}/src/DJI_{k:04}.JPG', f'{folder}/{d}/gt/DJI_{k:04}.png') for k,d in enumerate(sides)}
    for (p,_) in f.values(): (root/p).parent.mkdir(parents=True, exist_ok=True)
    got = make(name, {k: (v[0].replace('.JPG', '.jpg'), v[1]) for k,v in f.items()}, root)
    for (p,_) in f.values(): (root/p).with_suffix('.jpg').rename(root/p)
    return got, {'train': ['DJI_0000'], 'valid': ['DJI_0001'], 'test': ['DJI_0002'] if 'test' in sides else []}
def udd5(root): return _src_gt('udd5', root, 'UDD5')
def udd6(root): return _src_gt('udd6', root, 'UDD/UDD6')
def vdd(root): return _src_gt('vdd', root, 'VDD', ('train','val','test'))
def vdd_unnamed(root): return _src_gt('vdd', root, 'data', ('train','val','test'))

def _org_label(name, root, folder, lab='_lab', **kwargs):
    f = {str(6000+k): (f'{folder}/{d}/{d}-org-img/{6000+k}.jpg', f'{folder}/{d}/{d}-label-img/{6000+k}{lab}.png') for k,d in enumerate(('train','val','test'))}
    return make(name, f, root, **kwargs), dict(train=['6000'], valid=['6001'], test=['6002'])
def floodnet(root): return _org_label('floodnet', root, 'FloodNet-Supervised_v1.0')
def floodnet_three_channels(root): return _org_label('floodnet', root, 'FloodNet-Supervised_v1.0', ids3=True)
def floodnet_unnamed_colors(root): return _org_label('floodnet', root, 'x', colors=True)
def rescuenet(root): return _org_label('rescuenet', root, 'RescueNet_v2.0')
def rescuenet_v1(root): return _org_label('rescuenet_v1', root, 'RescueNet_v1.0')
def rescuenet_v1_by_ids(root): return _org_label('rescuenet_v1', root, 'RescueNet')

def landcover_tiles(root):
    stems = ['M-33-20-D-c-4-2_0','M-33-20-D-c-4-2_1','N-33-60-D-c-4-2_0']
    got = make('landcover', {s: (f'output/{s}.jpg', f'output/{s}_m.png') for s in stems}, root)
    texts(root, train=stems[:1], val=stems[1:2], test=stems[2:])
    return got, dict(train=stems[:1], valid=stems[1:2], test=stems[2:])
def landcover_whole(root):
    got = make('landcover', {s: (f'landcover.ai.v1/images/{s}.tif', f'landcover.ai.v1/masks/{s}.tif') for s in ('M-33-20-D-c-4-2','N-33-60-D-c-4-2')}, root)
    (root/'landcover.ai.v1'/'split.py').write_text('')
    return got, None

def dubai(root):
    names = [(t, f'image_part_00{k}') for t in (1,2) for k in (1,2)]
    return make('dubai', {f'Tile {t}/{s}': (f'Tile {t}/images/{s}.jpg', f'Tile {t}/masks/{s}.png') for t,s in names}, root, colors=True), None

def camvid_fastai(root):
    stems = ['0001TP_006690','0006R0_f02910','Seq05VD_f00000']
    got = make('camvid', {s: (f'camvid/images/{s}.png', f'camvid/labels/{s}_P.png') for s in stems}, root)
    texts(root/'camvid', valid=['0006R0_f02910.png'], codes=RECORDS['camvid'].classes.names)
    return got, dict(train=[stems[0], stems[2]], valid=[stems[1]], test=[])
def camvid_kaggle(root):
    c = RECORDS['camvid'].classes
    f = {s: (f'CamVid/{d}/{s}.png', f'CamVid/{d}_labels/{s}_L.png') for d,s in (('train','0001TP_006690'), ('val','0016E5_07959'), ('test','0006R0_f02910'))}
    (root/'CamVid').mkdir(); (root/'CamVid'/'class_dict.csv').write_text('name,r,g,b\n' + '\n'.join(f'{n},{r},{g},{b}' for n,(r,g,b) in zip(c.names, c.colors.tolist())))
    return make('camvid', f, root, colors=True), dict(train=['0001TP_006690'], valid=['0016E5_07959'], test=['0006R0_f02910'])
def camvid_original(root): return make('camvid', {'0001TP_006690': ('701_StillsRaw_full/0001TP_006690.png', 'LabeledApproved_full/0001TP_006690_L.png')}, root, colors=True), None

LAYOUTS = dict(semantic_drone=[semantic_drone_original, semantic_drone_widespread], aeroscapes=[aeroscapes_ids, aeroscapes_colors, aeroscapes_jitter], uavid=[uavid], udd5=[udd5], udd6=[udd6], vdd=[vdd],
    floodnet=[floodnet, floodnet_three_channels, floodnet_unnamed_colors], rescuenet=[rescuenet], rescuenet_v1=[rescuenet_v1, rescuenet_v1_by_ids], landcover=[landcover_tiles, landcover_whole],
    dubai=[dubai], camvid=[camvid_fastai, camvid_kaggle, camvid_original])
each_layout = pytest.mark.parametrize('name,write_it', [(n, g) for n,gs in LAYOUTS.items() for g in gs], ids=lambda v: getattr(v, '__name__', v))

@pytest.fixture
def root(tmp_path): r = tmp_path/'d'; r.mkdir(); return r # a name that hints at nothing

def test_every_record_has_a_generator(): assert set(LAYOUTS)|{'harvey25'}==set(RECORDS)

@each_layout
def test_recognised_and_read(root, name, write_it):
    want,official = write_it(root)
    data = open_dataset(root)
    assert data.name==name and RECORDS[name].title in data.why
    assert data.stems==sorted(want) and data.official==official
    for s in want:
        image,ids = data[s]
        assert (ids==want[s]).all() and image.shape[:2]==ids.shape
    found = data.check(progress=False)
    assert not found.problems and found.counts.sum()==sum(v.size for v in want.values())

@each_layout
def test_relabelled_to_the_common_classes(root, name, write_it):
    "Pixel by pixel through the names, the slow way"
    want,_ = write_it(root)
    data = open_dataset(root).relabel('common')
    c,to = RECORDS[name].classes,common_classes(name)
    for s,ids in want.items():
        got = data.read_ids(s)
        for i in np.unique(ids):
            new = IGNORE if i in c.void else COMMON_CLASSES.id_of(to[c.names[c.row(int(i))]])
            assert (got[ids==i]==new).all()
    assert not data.check(progress=False).problems

@pytest.mark.parametrize('write_it,groups', [(uavid, {'seq1/000000':'seq1','seq16/000000':'seq16'}), (aeroscapes_ids, {'000001_002':'000001'}), (dubai, {'Tile 2/image_part_001':'Tile 2'}),
    (landcover_tiles, {'M-33-20-D-c-4-2_1':'M-33-20-D-c-4-2'}), (camvid_fastai, {'Seq05VD_f00000':'Seq05VD'}), (udd6, None)], ids=lambda v: getattr(v, '__name__', ''))
def test_sequences(root, write_it, groups):
    import pickle
    write_it(root)
    data = open_dataset(root)
    if groups is None: assert data.sequence is None
    else:
        for s,g in groups.items(): assert data.sequence(s)==pickle.loads(pickle.dumps(data.sequence))(s)==g

def test_withheld_masks_are_no_fault(root):
    uavid(root)
    data = open_dataset(root)
    assert [f.parts[-4] for f in data.withheld]==['uavid_test'] and not data.lonely and not data.check(progress=False).findings

def test_a_mask_that_is_missing_on_a_side_with_masks_is_said(root):
    uavid(root); (root/'uavid_train'/'seq2'/'Labels'/'000000.png').unlink()
    data = open_dataset(root)
    assert [f.parent.parent.name for f in data.lonely]==['seq2'] and 'seq2' in str(data.check(progress=False).warnings)

# Layouts that several data sets share

def test_what_folders_and_masks_cannot_tell_is_asked(root):
    "UDD5 in a folder without a name: ids 0 to 4 fit all three"
    _src_gt('udd5', root, 'data')
    with pytest.raises(DatasetError, match="record 'udd5' or 'udd6' or 'vdd'"): open_dataset(root)
    data = open_dataset(root, record='udd5')
    assert data.name=='udd5' and data.classes.names[0]=='Vegetation'
    with pytest.raises(DatasetError, match="record='udd7'; nearest are udd6"): open_dataset(root, record='udd7')

@pytest.mark.parametrize('kwargs', [{}, dict(colors=True)])
def test_rescuenet_without_version_is_asked(root, kwargs):
    "All ids and all colours of v2.0 are among those of v1.0"
    _org_label('rescuenet', root, 'RescueNet', **kwargs)
    with pytest.raises(DatasetError, match="give record 'rescuenet' or 'rescuenet_v1'"): open_dataset(root)

def test_why_says_how_it_was_told_apart(root):
    vdd(root)
    assert 'by the name VDD' in open_dataset(root).why

def test_folders_that_anybody_could_have_are_asked_about(root):
    "No name, no table; ids up to 6 fit VDD alone, but also any seven classes of one's own"
    vdd_unnamed(root/'a')
    with pytest.raises(DatasetError, match="as in Varied Drone Dataset, but nothing else is its own; give record 'vdd' if it is that, or put a class table"): open_dataset(root/'a')
    assert open_dataset(root/'a', record='vdd').name=='vdd'
    own = ClassTable([f'own{i}' for i in range(7)])
    assert open_dataset(root/'a', classes=own).classes==own and open_dataset(root/'a', classes=own).sequence is None

@pytest.mark.parametrize('images,masks,colors,lists', [('JPEGImages/{}.jpg','SegmentationClass/{}.png',False,True), ('train/seq1/Images/{}.jpg','train/seq1/Labels/{}.png',True,False), ('Tile 1/images/{}.jpg','Tile 1/masks/{}.png',True,False)])
def test_own_photos_in_the_folders_of_a_record_are_not_taken_for_it(root, images, masks, colors, lists):
    "Ids and colours that the record has too"
    t = next(r.classes for r in RECORDS.values() if any(l.images.split('/')[-2:]==images.replace('{}.jpg','*').split('/')[-2:] for l in r.layouts))
    own_folder(root, images, masks, classes=ClassTable([f'own{i}' for i in range(5)], t.colors[:5]), colors=colors)
    if lists: texts(root, ImageSets__trn=['a_1'], ImageSets__val=['a_2'])
    with pytest.raises(DatasetError): open_dataset(root)

def test_the_same_photos_labelled_by_others(root):
    "The authors of VDD labelled UDD6 anew, with their own ids"
    _src_gt('vdd', root, 'UDD6')
    with pytest.raises(DatasetError, match="they fit Varied Drone Dataset: give record 'vdd'"): open_dataset(root)
    f = open_dataset(root, record='udd6').check(progress=False).findings[0]
    assert f.kind=='ids' and "fit Varied Drone Dataset: give record 'vdd'" in f.cause
    assert not open_dataset(root, record='vdd').check(progress=False).problems

def test_a_copy_with_another_order_of_classes_is_noted(root):
    semantic_drone_widespread(root); t = root/'dataset'/'semantic_drone_dataset'
    names = RECORDS['semantic_drone'].classes.names
    (t/'classes.txt').write_text('\n'.join(names))
    assert not open_dataset(root).notes
    (t/'classes.txt').write_text('\n'.join(sorted(names)))
    data = open_dataset(root)
    assert data.classes.names==sorted(names) and "in another order" in str(data.check(progress=False).warnings)
    assert open_dataset(root, record='semantic_drone').classes.names==names

def test_the_other_floodnet_is_refused(root):
    for state,n in (('Flooded',2), ('Non-Flooded',3)):
        for k in range(n):
            im,ids = scene(RECORDS['floodnet'].classes, k)
            write(root/'FloodNet'/'Train'/'Labeled'/state/'image'/f'{k}.jpg', im); write(root/'FloodNet'/'Train'/'Labeled'/state/'mask'/f'{k}_lab.png', ids)
    (root/'FloodNet'/'Train'/'Unlabeled'/'image').mkdir(parents=True)
    with pytest.raises(DatasetError, match='Track 1 release of FloodNet .*FloodNet Supervised v1.0'): open_dataset(root)
    one = open_dataset(root/'FloodNet'/'Train'/'Labeled'/'Flooded', classes=RECORDS['floodnet'].classes)
    assert len(one)==2

def test_harvey_is_recognised_by_its_name_only(root):
    "train_images and train_masks could be anybody's"
    c = RECORDS['harvey25'].classes
    for k in range(3):
        im,ids = scene(c, k)
        for d in ('any','hurricane_harvey'): write(root/d/'train_images'/f'{k}.jpg', im); write(root/d/'train_masks'/f'{k}.png', ids)
    with pytest.raises(DatasetError, match="no class table; put classes.csv .* beside the folders of photos.*give record 'harvey25'"): open_dataset(root/'any')
    for data in (open_dataset(root/'any', record='harvey25'), open_dataset(root/'hurricane_harvey')):
        assert data.name=='harvey25' and data.classes.n==25 and not data.check(progress=False).problems
        assert data.relabel('common').classes.n==8

def test_any_folder_of_tiffs_is_not_poland(root):
    make('landcover', {s: (f'images/{s}.tif', f'masks/{s}.tif') for s in ('a','b')}, root)
    with pytest.raises(DatasetError, match='no class table'): open_dataset(root)

def test_same_name_on_two_sides(root):
    "The side becomes part of the stem, and the split stays right"
    make('vdd', {d: (f'VDD/{d}/src/0001.jpg', f'VDD/{d}/gt/0001.png') for d in ('train','val')}, root)
    data = open_dataset(root)
    assert data.stems==['train/0001','valid/0001'] and data.official==dict(train=['train/0001'], valid=['valid/0001'], test=[])

def test_official_list_with_photos_that_are_not_here(root):
    _,want = aeroscapes_ids(root)
    with open(root/'aeroscapes'/'ImageSets'/'val.txt', 'a') as f: f.write('000140_001\n')
    data = open_dataset(root)
    assert data.official==want and '1 of 2 photos listed there are not here, such as 000140_001' in str(data.check(progress=False).warnings)

def test_the_other_red_of_person(root):
    c = RECORDS['semantic_drone'].classes
    m = np.zeros((8,8,3), np.uint8); m[:4] = 255,22,96; m[4:] = 255,22,0
    write(root/'training_set'/'images'/'001.jpg', m); write(root/'training_set'/'gt'/'semantic'/'label_images'/'001.png', m)
    assert (open_dataset(root)[0][1]==c.id_of('person')).all()

# The facts themselves

def test_facts_are_complete():
    for r in RECORDS.values():
        assert r.title and r.source and r.licence and re.fullmatch('[a-z0-9_]+', r.name)
        assert len({tuple(c) for c in r.classes.colors.tolist()})==len(r.classes)
        assert len(r.common.split('|'))==7 and set(r.common.replace('|', '').split())<=set(r.classes.scored_names)
        assert bool(r.coarse)==(r.name in ('aeroscapes','udd5','udd6','vdd','dubai'))

def test_list_datasets_is_a_table():
    t = list_datasets()
    assert list(t.index)==list(RECORDS) and list(t.classes)==[r.classes.n for r in RECORDS.values()]
    assert [t.title[n] for n in RECORDS]==[r.title for r in RECORDS.values()]

# Getting them

@pytest.fixture
def kaggle(tmp_path, monkeypatch):
    "A stand-in for kagglehub that remembers what it was asked"
    import sys, types
    hub = types.ModuleType('kagglehub'); hub.asked = []
    def dataset_download(handle): hub.asked.append(handle); d = tmp_path/'hub'; d.mkdir(exist_ok=True); dubai(d); return str(d)
    hub.dataset_download = dataset_download
    monkeypatch.setitem(sys.modules, 'kagglehub', hub)
    return hub

def test_download(kaggle, capsys):
    data = open_dataset(download_dataset('dubai'))
    assert data.name=='dubai' and kaggle.asked==['humansintheloop/semantic-segmentation-of-aerial-imagery']
    assert 'licence: CC0' in capsys.readouterr().out

@pytest.mark.parametrize('folder', ['semantic-segmentation-of-aerial-imagery', 'datasets/humansintheloop/semantic-segmentation-of-aerial-imagery'])
def test_kaggle_input_needs_no_download(kaggle, tmp_path, monkeypatch, folder):
    import drone_seg.data.join as D
    monkeypatch.setattr(D, '_kaggle_input', tmp_path/'input'); dubai(tmp_path/'input'/folder)
    assert open_dataset(download_dataset('dubai')).name=='dubai' and kaggle.asked==[]

def test_download_that_cannot_be(kaggle, monkeypatch):
    import sys
    for r in RECORDS.values():
        if r.kaggle: continue
        with pytest.raises(DatasetError) as e: download_dataset(r.name)
        assert r.source in str(e.value) and r.licence in str(e.value)
    with pytest.raises(DatasetError, match='nearest are aeroscapes'): download_dataset('cityscapes')
    def refuse(handle): raise OSError('no network')
    kaggle.dataset_download = refuse
    with pytest.raises(DatasetError, match='no network'): download_dataset('dubai')
    monkeypatch.setitem(sys.modules, 'kagglehub', None)
    with pytest.raises(DatasetError, match=r'pip install .*\[kaggle\]'): download_dataset('dubai')

# Several together

def test_joined_data_sets(root):
    a,_ = uavid(root/'a'); b,_ = udd6(root/'b')
    x,y = open_dataset(root/'a').relabel(),open_dataset(root/'b').relabel()
    data = join_datasets([x, y])
    assert data.stems==[f'uavid/{s}' for s in sorted(a)]+[f'udd6/{s}' for s in sorted(b)] and data.classes==COMMON_CLASSES
    for k,d in (('uavid',x), ('udd6',y)):
        for s in d.stems: assert (data[f'{k}/{s}'][1]==d[s][1]).all()
    assert data.official['valid']==['uavid/seq16/000000','udd6/DJI_0001']
    assert data.sequence('uavid/seq1/000100')=='uavid/seq1' and data.sequence('udd6/DJI_0001')=='udd6/DJI_0001'
    one,other = data.check(progress=False),[d.check(progress=False) for d in (x, y)]
    assert one.counts.tolist()==np.concatenate([c.counts for c in other]).tolist() and one.stems==data.stems

def test_join_wants_the_same_classes_and_names(root):
    uavid(root/'a'); udd6(root/'b')
    x,y = open_dataset(root/'a'),open_dataset(root/'b')
    with pytest.raises(DatasetError, match='relabel both first'): join_datasets([x, y])
    with pytest.raises(DatasetError, match='a dict with a name for each'): join_datasets([x, x])
    with pytest.raises(DatasetError): join_datasets([])

def test_joined_problems_are_named(root):
    uavid(root/'a'); udd6(root/'b')
    data = join_datasets([open_dataset(root/'a').relabel(), open_dataset(root/'b').relabel()])
    write(data.items[-1].mask, np.full((24,48), 77, np.uint8))
    found = data.check(progress=False)
    assert [s for s,_ in found.problems]==[data.stems[-1]] and 'id 77' in found.problems[0][1]

def test_relabelled_masks_never_hide_an_unknown_id(root):
    udd6(root)
    data = open_dataset(root).relabel()
    write(data.items[0].mask, np.full((24,48), 77, np.uint8))
    with pytest.raises(MaskError, match='id 77'): data[0]

def test_relabel_twice_and_by_groups(root):
    want,_ = udd6(root)
    data = open_dataset(root)
    twice = data.relabel('common').relabel({'built': ['road/paved','building']}, rest='nature')
    once = data.relabel({'built': ['Road','Facade','Roof']}, rest='nature')
    for s in want: assert (twice[s][1]==once[s][1]).all()
    assert twice.classes.scored_names==['built','nature'] and data.classes.n==6
    with pytest.raises(DatasetError, match="'common' or a dict"): data.relabel('usual')

def test_relabelled_sets_are_not_read_again(root, monkeypatch):
    import drone_seg.data.check as D
    want,_ = udd6(root)
    data = open_dataset(root); data.check(progress=False)
    monkeypatch.setattr(D, 'look_at', lambda p: pytest.fail(f'{p.stem} is read again'))
    found = data.relabel().check(progress=False)
    for k,s in enumerate(found.stems): assert found.counts[k].tolist()==np.bincount(data.relabel()[s][1].ravel(), minlength=256).tolist()

def test_what_reading_depends_on_is_told_to_caches(root):
    "Groups of the same names and colours but other members must not share a cache"
    udd6(root)
    data = open_dataset(root)
    a,b = (data.relabel({'ok': m}, rest='other') for m in (['Road'], ['Road','Vegetation']))
    assert a.classes==b.classes and len({d.turning for d in (data, a, b)})==3 and len({d.fingerprint() for d in (data, a, b)})==3
    ja,jb = (join_datasets({'x': d}) for d in (a, b))
    assert ja.turning!=jb.turning and ja.fingerprint()!=jb.fingerprint()

def test_relabel_a_folder_of_ones_own(root):
    for k in range(2):
        im,ids = scene(ClassTable(['void','tree','building']), k); write(root/'images'/f'{k}.jpg', im); write(root/'masks'/f'{k}.png', ids)
    data = open_dataset(root, classes=['void','tree','building'])
    assert set(np.unique(data.relabel()[0][1]))<={COMMON_CLASSES.id_of('tree'), COMMON_CLASSES.id_of('building'), IGNORE}
    with pytest.raises(DatasetError, match='pass a dict of groups'): open_dataset(root, classes=['void','gras','haus']).relabel()

def test_joined_sets_can_be_relabelled_and_joined_again(root):
    uavid(root/'a'); want,_ = udd6(root/'b'); semantic_drone_widespread(root/'c')
    x,y,z = (open_dataset(root/d).relabel() for d in 'abc')
    data = join_datasets({'two': join_datasets([x, y]), 'one': z}).relabel({'built': ['building','road/paved']}, rest='nature')
    slow = open_dataset(root/'b').relabel({'built': ['Road','Facade','Roof']}, rest='nature')
    for s in want: assert (data[f'two/udd6/{s}'][1]==slow[s][1]).all()
    found = data.check(progress=False)
    assert not found.problems and all((found.counts[k][:2]==np.bincount(data[s][1].ravel(), minlength=256)[:2]).all() for k,s in enumerate(found.stems))
    assert [f.kind for f in found.warnings]==['same','near'] # the generators draw the same photos, as PNG and as JPEG

def test_photos_that_two_joined_sets_share_are_found(root):
    "UDD6 was labelled anew by others: the same photos under two names would train and judge"
    udd6(root/'UDD6'); c = RECORDS['vdd'].classes
    import shutil
    for d in ('train','val'): shutil.copytree(root/'UDD6'/'UDD'/'UDD6'/d, root/'VDD'/d)
    data = join_datasets([open_dataset(root/'UDD6').relabel(), open_dataset(root/'VDD').relabel()])
    assert [m for _,m in data.check(progress=False).warnings[0].items]==[f'udd6/DJI_000{k}, vdd/DJI_000{k}: the same bytes' for k in (0,1)]

# Folders of one's own that look like those of a published data set

OWN = ClassTable(['background','road','roof','pool'])

def own_folder(root, photo, mask, stems=('a_1','a_2','a_3'), colors=False, classes=OWN):
    "Photos and masks of one's own; stem -> ids"
    res = {}
    for k,s in enumerate(stems):
        im,ids = scene(classes, k)
        write(root/photo.format(s), im); write(root/mask.format(s), classes.to_colors(ids) if colors else ids); res[s] = ids
    return res

def opened_as_own(root, want, table, **kwargs):
    data = open_dataset(root, **kwargs)
    assert data.name not in RECORDS and data.classes.names==table.names and data.sequence is None and (data.reader.tol, data.reader.slack, data.reader.unknown)==(0,0,'raise')
    for s,ids in want.items(): assert (data[s][1]==ids).all()
    assert not data.check(progress=False).problems
    return data

def test_labelme2voc_is_not_aeroscapes(root):
    want = own_folder(root, 'JPEGImages/{}.jpg', 'SegmentationClass/{}.png'); own_folder(root, 'JPEGImages/{}.jpg', 'SegmentationClassVisualization/{}.jpg')
    with pytest.raises(DatasetError, match='3 pairs found, but no class table.*--write-classes'): open_dataset(root)
    opened_as_own(root, want, OWN, classes=OWN)
    (root/'class_names.txt').write_text('\n'.join(OWN.names))
    opened_as_own(root, want, OWN)

@pytest.mark.parametrize('colors', [True, False])
def test_cvat_is_not_aeroscapes(root, colors):
    want = own_folder(root, 'JPEGImages/{}.jpg', 'SegmentationClass/{}.png', colors=colors); texts(root, ImageSets__Segmentation__default=list(want))
    (root/'labelmap.txt').write_text('# label:color_rgb:parts:actions\n' + ''.join(f"{n}:{','.join(map(str, c))}::\n" for n,c in zip(OWN.names, OWN.colors.tolist())))
    opened_as_own(root, want, OWN)

@pytest.mark.parametrize('codes', [OWN.names, RECORDS['camvid'].classes.names[::-1]])
def test_fastai_names_are_not_camvid(root, codes):
    t = ClassTable(codes, void=[n for n in codes if n=='Void'])
    want = own_folder(root, 'images/{}.jpg', 'labels/{}_P.png', classes=t); texts(root, codes=codes, valid=['a_1.jpg'])
    opened_as_own(root, want, t)

@each_layout
def test_the_table_in_a_folder_wins_over_any_record(root, name, write_it):
    "The folders, names and lists of each published data set, with classes of one's own beside the photos"
    write_it(root)
    base = open_dataset(root).path
    own = ClassTable([f'c{i}' for i in RECORDS[name].classes.ids], RECORDS[name].classes.colors, RECORDS[name].classes.ids)
    (base/'classes.csv').write_text('id,name,r,g,b\n' + ''.join(f"{i},{n},{','.join(map(str, c))}\n" for i,n,c in zip(own.ids, own.names, own.colors.tolist())))
    for f in ('codes.txt','class_dict.csv'): (base/f).unlink(missing_ok=True)
    for data in (open_dataset(root), open_dataset(root, classes=own), open_dataset(root, classes=own, record=False)):
        assert data.classes.names==own.names and data.name not in RECORDS and data.sequence is None and data.reader.tol==0
    assert open_dataset(root, record=name).classes==RECORDS[name].classes

@each_layout
def test_a_record_needs_masks_that_could_be_its(root, name, write_it):
    write_it(root)
    for f in [*root.rglob('codes.txt'), *root.rglob('class_dict.csv')]: f.unlink() # a table that agrees says enough
    data = open_dataset(root)
    for p in data.items: write(p.mask, np.full((24,48,3), (1,200,99), np.uint8) if data.reader.kind=='colors' else np.full((24,48), 200, np.uint8))
    with pytest.raises(DatasetError, match="its masks are not|fit none of them"): open_dataset(root)
    assert open_dataset(root, record=name).name==name

def test_one_wrong_mask_does_not_hide_what_it_is(root):
    semantic_drone_widespread(root); data = open_dataset(root)
    write(data.items[0].mask, np.full((24,48), 99, np.uint8))
    assert [f.kind for f in open_dataset(root).check(progress=False).findings][0]=='ids'

@each_layout
def test_what_a_record_assumes_is_said(root, name, write_it):
    write_it(root); data,r = open_dataset(root),RECORDS[name]
    assert (r.assumed in repr(data)) and bool(r.assumed)==bool(r.sequence or r.tol or r.slack or r.unknown=='void')
    assert ('sequence' in r.assumed)==bool(r.sequence) and ('void' in r.assumed)==(r.unknown=='void') and (f'within {r.tol} ' in r.assumed)==bool(r.tol)

def test_of_two_data_sets_at_any_depth_all_are_named(root):
    "As below /kaggle/input: one lies deeper than the other"
    dubai(root/'flat'); semantic_drone_widespread(root/'datasets'/'owner'/'semantic-drone-dataset')
    with pytest.raises(DatasetError, match='2 data sets found: flat, datasets/owner/semantic-drone-dataset/dataset/semantic_drone_dataset'): open_dataset(root)
    assert open_dataset(root/'datasets').name=='semantic_drone' and open_dataset(root/'flat').name=='dubai'

def test_folders_named_as_in_lessons_are_not_taken_for_the_data_set_of_the_lesson(root):
    want = own_folder(root/'soil', 'original_images/{}.jpg', 'label_images_semantic/{}.png')
    with pytest.raises(DatasetError, match="no data set found for sure.*give record 'semantic_drone' if it is that, or put a class table"): open_dataset(root)
    (root/'soil'/'classes.csv').write_text('value,label\n' + ''.join(f'{i},{n}\n' for i,n in reversed(list(zip(OWN.ids, OWN.names)))))
    data = open_dataset(root)
    assert {i: data.classes.names[data.classes.row(i)] for i in OWN.ids}==dict(zip(OWN.ids, OWN.names)) and data.name=='soil'
    for s,ids in want.items(): assert (data[s][1]==ids).all()

def test_masks_of_another_tool_are_told_where_one_class_is_scored(tmp_path):
    for k,top in enumerate((1,1,1,1,255,255)):
        save_image(np.zeros((8,8,3), np.uint8), tmp_path/'images'/f'{k}.png')
        (tmp_path/'masks').mkdir(exist_ok=True)
        Image.fromarray(np.eye(8, dtype=np.uint8)*top).save(tmp_path/'masks'/f'{k}.png')
    (tmp_path/'classes.csv').write_text('id,name,void\n0,nothing,1\n1,roof,0\n')
    found = open_dataset(tmp_path).check(progress=False).findings
    assert 'mixed' in [f.kind for f in found]
