"The class table against slow, obvious versions"
import json, re
import numpy as np, pytest
from hypothesis import given, settings, strategies as st
from drone_seg.fields import *
from drone_seg.classes import *

def table(rng, n=24, void=2):
    ids = rng.choice(255, n, replace=False).tolist()
    colors = rng.choice(256**3, n, replace=False)
    colors = [(int(c)>>16, int(c)>>8&255, int(c)&255) for c in colors]
    return ClassTable([f'c{i}' for i in range(n)], colors, ids, void=ids[:void])

def test_encode_and_decode_pixel_by_pixel():
    rng = np.random.default_rng(0); t = table(rng)
    ids = rng.choice(t.ids, (30,40)).astype(np.uint8)
    scored = [i for i in t.ids if i not in t.void]
    slow = np.array([[IGNORE if v in t.void else scored.index(v) for v in row] for row in ids.tolist()])
    assert (t.encode(ids)==slow).all()
    back = t.decode(t.encode(ids))
    assert all(b==v or (v in t.void and b==t.void_id) for b,v in zip(back.ravel().tolist(), ids.ravel().tolist()))

@pytest.mark.parametrize('shape', [(1,1), (31,7), (32,5), (33,64), (97,101)])
def test_colours_pixel_by_pixel(shape):
    rng = np.random.default_rng(1); t = table(rng)
    ids = rng.choice(t.ids, shape).astype(np.uint8)
    assert (t.from_colors(t.to_colors(ids))==ids).all()
    assert (t.from_colors(t.to_colors(ids)[:,::-1])==ids[:,::-1]).all() # a view that is not contiguous

@settings(max_examples=25, deadline=None)
@given(st.integers(0, 2**32-1), st.integers(1, 6))
def test_tolerance_takes_the_nearest_colour(seed, tol):
    rng = np.random.default_rng(seed)
    base = rng.integers(0, 256, 3) # colours that crowd each other, so that the nearest is in question
    colors = np.unique((base + rng.integers(-8, 9, (12,3))).clip(0, 255), axis=0)
    t = ClassTable([f'c{i}' for i in range(len(colors))], colors)
    px = (base + rng.integers(-12, 13, (20,20,3))).clip(0, 255).astype(np.uint8)
    got = t.from_colors(px, tol, unknown='void')
    d = px[:,:,None].astype(int) - colors
    near,dist = np.abs(d).max(-1)<=tol,(d**2).sum(-1)
    for y in range(20):
        for x in range(20):
            k = np.flatnonzero(near[y,x])
            if not len(k): assert got[y,x]==t.void_id
            else: assert dist[y,x,got[y,x]]==dist[y,x,k].min()

def test_two_classes_of_one_colour_cannot_be_read_from_colours():
    t = ClassTable(['blocked','sand'], [(160,150,20)]*2)
    with pytest.raises(MaskError, match='share the colour'): t.from_colors(np.zeros((2,2,3), np.uint8))

def test_alias_colours_are_read_and_never_written():
    t = ClassTable(['void','person'], [(0,0,0),(255,22,96)], void=['void'], aliases={'person': [(255,22,0)]})
    assert t.from_colors(np.uint8([[[255,22,0],[255,22,96]]])).tolist()==[[1,1]]
    assert t.to_colors([[1]]).tolist()==[[[255,22,96]]]
    assert ClassTable.from_dict(t.to_dict())==t

def test_255_is_void_unless_the_table_has_it():
    assert ClassTable(['a','b']).encode([[0,255]]).tolist()==[[0,IGNORE]]
    assert ClassTable(['a','b'], ids=[1,255]).encode([[1,255]]).tolist()==[[0,1]]

@pytest.mark.parametrize('mask,says', [(np.zeros((2,2,3), np.uint8), 'shape'), (np.zeros((2,2)), 'whole numbers'), (np.full((2,2), 300), '0 to 255'), (np.full((2,2), -1), '0 to 255')])
def test_what_is_no_mask_is_refused(mask, says):
    with pytest.raises(MaskError, match=says): ClassTable(['a','b']).encode(mask)

def test_merge_leaves_void_void():
    t = ClassTable(['void','road','grass','car'], ids=[0,7,8,20], void=['void'])
    small,lut = t.merge({'ground': ['road','grass']}, rest='other')
    assert small.scored_names==['ground','other']
    assert lut[[0,7,8,20,99]].tolist()==[IGNORE,0,0,1,IGNORE]
    with pytest.raises(ClassTableError, match='in group'): t.merge({'a': ['road'], 'b': ['road']})
    with pytest.raises(ClassTableError, match='void stays void'): t.merge({'a': ['void']})
    with pytest.raises(ClassTableError, match="no class 'sea'"): t.merge({'a': ['sea']})

@pytest.mark.parametrize('name,text', [
    ('a.csv', 'name,r,g,b\nvoid,0,0,0\nroad,1,2,3\n'), ('b.csv', '\ufeffName, R, G, B\nvoid, 0, 0, 0\n\nroad, 1, 2, 3\n'),
    ('c.csv', 'id,name,color,void\n0,nothing,#000000,yes\n1,road,#010203,no\n'),
    ('d.json', json.dumps([dict(name='void', color=[0,0,0]), dict(name='road', color='#010203')])),
    ('e.json', json.dumps({'classes': [dict(title='void', color='#000000', id='abc'), dict(title='road', color='#010203')]})),
    ('f.json', json.dumps({'void': [0,0,0], 'road': [1,2,3]}))])
def test_files(tmp_path, name, text):
    (tmp_path/name).write_text(text, encoding='utf-8')
    t = ClassTable.from_file(tmp_path/name)
    assert t.scored_names==['road'] and t.colors.tolist()==[[0,0,0],[1,2,3]] and t.void=={0}

@pytest.mark.parametrize('text,says', [('', 'no classes'), ('name,r,g,b\n', 'no classes'), ('r,g,b\n1,2,3\n', 'no name'), ('name,r,g,b\nroad,1,2\n', 'line 2'),
    ('name,r,g,b\nroad,1,2,999\n', '0 to 255'), ('name,id\na,1\nb,1\n', 'id 1'), ('name,r,g,b\na,1,1,1\na,2,2,2\n', "name 'a'"), ('name,color\nroad,red\n', 'RRGGBB')])
def test_bad_tables_name_the_row(tmp_path, text, says):
    (tmp_path/'t.csv').write_text(text)
    with pytest.raises(ClassTableError, match=says) as e: ClassTable.from_file(tmp_path/'t.csv')
    assert 't.csv' in str(e.value)

@pytest.mark.parametrize('data', ['{', '3', '[1]', '{"classes": [{"id": 1}]}'])
def test_bad_json(tmp_path, data):
    (tmp_path/'t.json').write_text(data)
    with pytest.raises(ClassTableError): ClassTable.from_file(tmp_path/'t.json')

def test_ids_and_void_as_text():
    t = ClassTable.from_dict([dict(name='a', id='3', void='false'), dict(name='b', id='7', void='true'), dict(name='c', id='9', void='')])
    assert t.ids==[3,7,9] and t.void=={7}

@pytest.mark.parametrize('data', [b'[{"name": "a", "color": ["x",0,0]}]', b'[{"name": 7}]', b'\x89PNG\r\n\x1a\n\x00\x00', b'PK\x03\x04\x14\x00\x06\x00'])
def test_what_is_no_text_or_has_text_for_numbers(tmp_path, data):
    (tmp_path/'t.json').write_bytes(data)
    with pytest.raises(ClassTableError, match='t.json'): ClassTable.from_file(tmp_path/'t.json')

# Files as tools and people write them, each with what a person reads in it: id, name, colour, void

V = True
ROAD,ROOF = (128,64,128),(70,70,70)
PLAIN = [(0,'background',(0,0,0)), (1,'road',ROAD), (2,'roof',ROOF)]
NAMED = [(0,'background'), (1,'road'), (2,'low vegetation')]
GAPS = [(0,'background'), (50,'road'), (255,'roof')]
FILES = [
    ('classes.csv', 'id,name,r,g,b\n0,background,0,0,0\n1,road,128,64,128\n2,roof,70,70,70\n', PLAIN),
    ('classes.csv', 'id;name;r;g;b\r\n0;background;0;0;0\r\n1;road;128;64;128\r\n2;roof;70;70;70\r\n', PLAIN),
    ('classes.csv', 'sep=;\nid;name;color\n0;background;0,0,0\n1;road;128,64,128\n2;roof;70,70,70\n', PLAIN),
    ('classes.tsv', 'id\tname\tred\tgreen\tblue\n0\tbackground\t0\t0\t0\n1\troad\t128\t64\t128\n2\troof\t70\t70\t70\n', PLAIN),
    ('classes.csv', 'name,red,green,blue\nbackground,0,0,0\nroad,128,64,128\nroof,70,70,70\n', PLAIN),
    ('class_dict_seg.csv', 'name, r, g, b\nbackground, 0, 0, 0\nroad, 128, 64, 128\nroof, 70, 70, 70\n', PLAIN),
    ('classes.csv', 'Class,RGB\nbackground,"0, 0, 0"\nroad,"(128, 64, 128)"\nroof,"[70 70 70]"\n', PLAIN),
    ('classes.csv', 'label,hex\nbackground,#000\nroad,#804080\nroof,464646\n', PLAIN),
    ('classes.csv', 'label,hex\nbackground,#000000ff\nroad,#804080ff\nroof,#464646ff\n', PLAIN),
    ('classes.csv', 'label,hex\nbackground,#ff000000\nroad,#ff804080\nroof,#ff464646\n', PLAIN),
    ('classes.csv', 'label,color\nbackground,"rgb(0,0,0)"\nroad,"rgba(128,64,128,0.5)"\nroof,"rgb(70, 70, 70)"\n', PLAIN),
    ('classes.txt', 'id name r g b\n0 background 0 0 0\n1 road 128 64 128\n2 roof 70 70 70\n', PLAIN),
    ('t.csv', 'value,label,color,alpha\n0,background,#000000,255\n1,road,#804080,255\n2,roof,#464646,255\n', PLAIN),
    # ids in their many columns, in another order than the rows
    *[('classes.csv', f'{head}\n255,roof\n0,background\n50,road\n', GAPS) for head in ('id,name','value,class','index,label','Pixel Value, Class','gray,name','class_id,class_name','Label ID,Label','code,name','DN,description','class,name','label,name','category_id,category')],
    ('classes.csv', 'name,pixel_value\nroof,255.0\nbackground,0.0\nroad,50.0\n', GAPS),
    ('classes.csv', 'id,value,name\n255,255,roof\n0,0,background\n50,50,road\n', GAPS),
    ('_classes.csv', 'Pixel Value, Class\n0, background\n1, road\n2, low vegetation\n', NAMED),
    ('classes.txt', '0 background\n1 road\n2 low vegetation\n', NAMED), ('classes.txt', '0: background\n1: road\n2: low vegetation\n', NAMED), ('classes.txt', '0\tbackground\n1\troad\n2\tlow vegetation\n', NAMED),
    ('classes.txt', 'background,0\nroad,1\nlow vegetation,2\n', NAMED), ('classes.txt', 'background=0\nroad=1\nlow vegetation=2\n', NAMED),
    ('classes.txt', '0,"low, wet vegetation"\n1,road\n', [(0,'low, wet vegetation'), (1,'road')]), ('classes.csv', ',name,r,g,b\n0,background,0,0,0\n1,road,128,64,128\n2,roof,70,70,70\n', PLAIN), # pandas numbers the rows
    ('classes.csv', 'ID,Name,Color (hex),Pixel value (8 bit)\n0,background,#000000,0\n1,road,#804080,1\n2,roof,#464646,2\n', PLAIN), ('arcgis.csv', 'OID,Value,Count,LABEL\n0,50,9,road\n1,0,8,background\n2,255,7,roof\n', GAPS),
    ('config.json', '{"id2label": {"0": "background", "50": "road", "255": "roof"}, "label2id": {"background": 0, "road": 50, "roof": 255}}', GAPS),
    # tools
    ('labelmap.txt', '# label:color_rgb:parts:actions\nbackground:0,0,0::\nroad:128,64,128::\nroof:70,70,70::\n', PLAIN),
    ('labelmap.txt', 'background:0,0,0:: # color index 0\nroad:128,64,128:left,right:\nroof:70,70,70::open\n', PLAIN),
    ('labels.txt', '__ignore__\n_background_\nroad\nroof\n', [(255,'__ignore__',None,V), (0,'_background_'), (1,'road'), (2,'roof')]),
    ('class_names.txt', '_background_\nroad\nroof\n', [(0,'_background_'), (1,'road'), (2,'roof')]), ('codes.txt', 'Road\nTree\nVoid', [(0,'Road'), (1,'Tree'), (2,'Void',None,V)]),
    ('codes.txt', 'name\nArea 51\nzone 7\n', [(0,'Area 51'), (1,'zone 7')]), ('codes.txt', '"car, parked"\nroad\n', [(0,'car, parked'), (1,'road')]), ('codes.txt', 'No label\nroad\ncab\n', [(0,'No label',None,V), (1,'road'), (2,'cab')]),
    ('label_colors.txt', '0 0 0\tbackground\n128 64 128\t\troad\n70 70 70\troof\n', PLAIN), ('colors.txt', '0 0 0 background\n128 64 128 road\n70 70 70 roof\n', PLAIN), ('colors.txt', 'background 0 0 0\nroad 128 64 128\nroof 70 70 70\n', PLAIN),
    ('colors.txt', '#000000 background\n#804080 road\n#464646 roof\n', PLAIN),
    ('qgis.txt', '# QGIS Generated Color Map Export File\nINTERPOLATION:EXACT\n0,0,0,0,255,background\n1,128,64,128,255,road\n2,70,70,70,255,roof\n', PLAIN), ('map.clr', '0 0 0 0 background\n1 128 64 128 road\n2 70 70 70 roof\n', PLAIN),
    ('data.yaml', 'path: ../data\ntrain: images/train\nval: images/val\nnc: 3\nnames: [background, road, low vegetation]\n', NAMED), ('data.yaml', 'train: a\nnames:\n  0: background\n  1: road\n  2: low vegetation\n', NAMED), ('c.yml', '- background\n- road\n- low vegetation\n', NAMED),
    ('coco.json', '{"info": {}, "images": [], "annotations": [], "categories": [{"id": 50, "name": "road", "supercategory": "ground"}, {"id": 0, "name": "background", "supercategory": ""}, {"id": 255, "name": "roof", "supercategory": "x"}]}', GAPS),
    ('a.json', '{"background": 0, "road": 50, "roof": 255}', GAPS), ('a.json', '{"255": "roof", "0": "background", "50": "road"}', GAPS), ('a.json', '{"0": {"name": "background"}, "50": {"name": "road"}, "255": {"name": "roof"}}', GAPS),
    ('a.json', '{"background": {"id": 0, "color": [0,0,0]}, "road": {"id": 1, "color": [128,64,128]}, "roof": {"id": 2, "color": "#464646"}}', PLAIN),
    ('a.json', '{"background": [0,0,0], "road": [128,64,128], "roof": [70,70,70]}', PLAIN), ('a.json', '{"#000000": "background", "#804080": "road", "#464646": "roof"}', PLAIN),
    ('mmseg.json', '{"CLASSES": ["background","road","roof"], "PALETTE": [[0,0,0],[128,64,128],[70,70,70]]}', PLAIN), ('a.json', '{"labels": {"0": "background", "1": "road", "2": "low vegetation"}}', NAMED),
    ('mmseg.json', '{"METAINFO": {"classes": ["background","road","roof"], "palette": [[0,0,0],[128,64,128],[70,70,70]]}, "ignore_index": 255, "reduce_zero_label": false}', PLAIN),
    ('meta.json', '{"classes": [{"title": "background", "shape": "bitmap", "color": "#000000", "geometry_config": {}, "id": 31, "hotkey": ""}, {"title": "road", "shape": "bitmap", "color": "#804080", "geometry_config": {}, "id": 30, "hotkey": ""},'
        ' {"title": "roof", "shape": "bitmap", "color": "#464646", "geometry_config": {}, "id": 7, "hotkey": ""}], "tags": [], "projectType": "images"}', PLAIN),
    ('cvat.json', '[{"name": "background", "id": 3, "color": "#000000", "type": "any", "attributes": []}, {"name": "road", "id": 1, "color": "#804080", "type": "any", "attributes": []}, {"name": "roof", "id": 2, "color": "#464646", "type": "any", "attributes": []}]', PLAIN),
    ('server.json', '[{"name": "background", "id": 90311, "color": "#000000"}, {"name": "road", "id": 90312, "color": "#804080"}, {"name": "roof", "id": 4, "color": "#464646"}]', PLAIN),
    ('city.csv', 'name,id,trainId,category,catId,hasInstances,ignoreInEval,color\nunlabeled,0,255,void,0,False,True,"(0, 0, 0)"\nroad,7,0,flat,1,False,False,"(128, 64, 128)"\nlicense plate,-1,-1,vehicle,7,False,True,"(0, 0, 142)"\n',
        [(0,'unlabeled',(0,0,0),V), (7,'road',ROAD), (255,'license plate',(0,0,142),V)]),
    ('void.csv', 'id,name\n0,__ignore__\n1,ignore_region\n2,road\n3,don\'t care\n4,no data\n', [(0,'__ignore__',None,V), (1,'ignore_region',None,V), (2,'road'), (3,"don't care",None,V), (4,'no data',None,V)]),
]
@pytest.mark.parametrize('name,text,want', FILES)
def test_files_of_tools_and_people(tmp_path, name, text, want):
    (tmp_path/name).write_text(text, encoding='utf-8', newline='')
    t = ClassTable.from_file(tmp_path/name)
    want = {i: (n, *more) for i,n,*more in want}
    assert {i: n for i,n in zip(t.ids, t.names)}=={i: n for i,(n,*_) in want.items()}
    for i,(_,*more) in want.items():
        if more and more[0]: assert tuple(t.colors[t.row(i)].tolist())==more[0]
    assert t.void=={i for i,(_,*more) in want.items() if len(more)>1}

@pytest.mark.parametrize('code', ['utf-8','utf-8-sig','utf-16','utf-16-le','utf-16-be','cp1252','latin-1'])
def test_encodings(tmp_path, code):
    for text in ('id;name\n3;Straße\n1;Höfe\n', '{"Straße": 3, "Höfe": 1}'):
        (tmp_path/'t.csv').write_bytes(text.encode(code))
        assert dict(zip(ClassTable.from_file(tmp_path/'t.csv').names, ClassTable.from_file(tmp_path/'t.csv').ids))=={'Straße': 3, 'Höfe': 1}

@pytest.mark.parametrize('name,text,says', [
    ('t.csv', 'id,name,elevation\n0,road,7\n', "column 'elevation' is not understood"), ('t.csv', 'id,name,r,g\n0,road,1,2\n', 'b is not there'), ('t.csv', 'id,value,name\n0,10,road\n1,20,roof\n', "'id' and 'value' number the classes differently"),
    ('t.csv', 'id,name\n0,road\n,roof\n', 'line 3 .roof. has no id'), ('t.csv', 'name,id\nroad,x\nroof,2\n', "column 'id' holds other things"), ('t.csv', 'id,name,void\n0,road,perhaps\n', 'line 2 .road.: void is'), ('t.csv', 'id,name\n0,road\n1,roof,red\n', 'line 3: 3 cells, the header has 2'),
    ('t.csv', 'id,name\n1,a\n2,b\n1,c\n', 'id 1 stands in line 2 and again in line 4'), ('t.csv', 'id,name\n300,a\n', 'line 2 .a. has id 300'), ('t.csv', 'id,name,name\n1,a,b\n', "two columns 'name'"),
    ('t.csv', 'value,r,g,b\n1,2,3,4\n', 'no name'), ('t.clr', '1 128 64 128\n2 70 70 70\n', "line 1: '1 128 64 128' is not understood"), ('t.txt', 'road:1,2,3\nroof\n', "line 1: 'road:1,2,3' is not understood"), ('t.txt', 'road\nroof, flat\n', "line 2: 'roof, flat'"),
    *[('t.txt', f'{a}road{b}\n{a}roof{b}\n', f"line 1: '?.{re.escape(a+'road'+b)[1:]}") for a,b in (('- ',''), ('* ',''), ('1. ',''), ('1) ',''), ('0 - ',''), ('',' -> 1'), ('class_0: ',''), ('0 <','>'), ('','|x|y'))],
    ('t.csv', 'name,rgb\nroad,16711680\n', "colour '16711680'"), ('t.yaml', 'labels: {0: a, 1: b}\ncolor_map: {0: [0,0,0], 1: [9,9,9]}\n', 'do not fit together'),
    ('t.txt', 'road 1\nroof 2 x\n', "line 1: 'road 1'"), ('t.txt', '0\n1\n2\n', "line 1: '0'"), ('t.xml', '<ld><Label value="Road"/></ld>', 'line 1'), ('t.pbtxt', "item {\n  id: 1\n  name: 'road'\n}\n", 'is not understood'), ('t.txt', '0 0 255 255 sea\n0 0 200 255 pool\n', 'line 1'),
    ('t.txt', 'road\n__ignore__\nroof\n', '__ignore__ is name 2 of 3'), ('t.json', '{"road": 1, "road": 2}', "'road' occurs twice"), ('t.json', '{"version": "5", "shapes": []}', "'shapes': .. is neither"), ('t.json', '{"0": [1,2,3]}', 'neither name and id'), ('t.json', '{"classes": ["a","b"], "palette": [[1,2,3]]}', 'do not fit together'),
    ('t.json', '{"classes": ["road","roof"], "reduce_zero_label": true}', "'reduce_zero_label' is True"), ('t.json', '{"classes": ["sky","road"], "ignore_index": 0}', "'ignore_index' is 0"),
    ('t.json', '[["road",1]]', 'row 0'), ('t.yaml', 'names: [road, no]\n', 'row 1'), ('t.yaml', 'names: [road\n', 'not YAML'), ('t.csv', 'name,color\na,#11223344\nb,#55667788\n', 'write six')])
def test_what_is_not_understood_is_refused_with_its_place(tmp_path, name, text, says):
    (tmp_path/name).write_text(text)
    with pytest.raises(ClassTableError, match=says) as e: ClassTable.from_file(tmp_path/name)
    assert name in str(e.value)

def test_what_is_assumed_is_said(tmp_path):
    def assumed(text): (tmp_path/'t.txt').write_text(text); return ClassTable.from_file(tmp_path/'t.txt').assumed
    assert assumed('id,name,color,void\n0,road,#010203,no\n')==''
    assert assumed('void\nroad\n')=='ids are row numbers; colours are ours; void by name: void'
    assert assumed('id,name,r,g,b,comment\n1,road,1,2,3,77\n')=='not read: comment'
    assert assumed('id,name,color,r,g,b,void\n1,a,#ffffff,0,0,0,no\n')=='not read: r, g, b'
    assert assumed('id,name,r,g,b,pixels\n1,road,1,2,3,77\n')=='' # as `write_classes` writes it
    tool = ClassTable.from_dict([dict(title='road', color='#010203', id=77, shape='bitmap')])
    assert tool.ids_from=='nowhere' and 'database id' in tool.assumed

def test_lines_of_nothing_but_separators_are_empty(tmp_path):
    "As a table program saves rows below the last"
    (tmp_path/'c.csv').write_text('id;name\n3;road\n;\n7;roof\n;;\n\t\n\n')
    t = ClassTable.from_file(tmp_path/'c.csv')
    assert list(t.names)==['road','roof'] and list(t.ids)==[3,7]
