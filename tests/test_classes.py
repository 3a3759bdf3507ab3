"The class table against slow, obvious versions"
import json
import numpy as np, pytest
from hypothesis import given, settings, strategies as st
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
    with pytest.raises(ClassColorError, match='share the colour'): t.from_colors(np.zeros((2,2,3), np.uint8))

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
    with pytest.raises(ClassIdError, match=says): ClassTable(['a','b']).encode(mask)

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

@pytest.mark.parametrize('name,data', [('t.csv', 'name,r,g,b\nStra\xdfe,1,2,3\n'.encode('latin-1')), ('t.json', b'[{"name": "a", "color": ["x",0,0]}]'), ('t.json', b'[{"name": "\xdf"}]')])
def test_tables_in_other_encodings_or_with_text_for_numbers(tmp_path, name, data):
    (tmp_path/name).write_bytes(data)
    with pytest.raises(ClassTableError, match=name): ClassTable.from_file(tmp_path/name)
