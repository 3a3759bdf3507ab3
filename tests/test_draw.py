"Pictures of masks: colours that can be told apart, what stays unpainted, errors and scores, one letter size"
import math
import numpy as np, pytest
from itertools import combinations
from PIL import Image
from drone_seg.classes import *
from drone_seg.photo.colors import distinct_colors, color_difference
from drone_seg.photo.show import *
from drone_seg.photo.show import show_errors, letter_size, background_ids, painted_ids, for_looking
from drone_seg.scores.confusion import say_score
from drone_seg.data.records import RECORDS

def lab(rgb, turn): # the formulas of CIE 1976 and of sRGB, a number at a time
    linear = [v/255/12.92 if v/255<=.04045 else ((v/255+.055)/1.055)**2.4 for v in rgb]
    r,g,b = (min(1, max(0, sum(k*v for k,v in zip(row, linear)))) for row in turn)
    xyz = (.412453*r+.357580*g+.180423*b)/.950456, .212671*r+.715160*g+.072169*b, (.019334*r+.119193*g+.950227*b)/1.088754
    x,y,z = (t**(1/3) if t>.008856 else 7.787*t+16/116 for t in xyz)
    return 116*y-16, 500*(x-y), 200*(y-z)

usual = (1,0,0),(0,1,0),(0,0,1)
no_green = (.367322,.860646,-.227968),(.280085,.672501,.047413),(-.011820,.042940,.968881)
no_red = (.152286,1.052583,-.204868),(.114503,.786281,.099216),(-.003882,-.048116,1.051998)

def difference(a, b): return min(math.dist(lab(a, e), lab(b, e))/(2 if e is usual else 1) for e in (usual, no_green, no_red))
def least(colors): return min(difference(a, b) for a,b in combinations(np.asarray(colors).tolist(), 2))

def test_difference_of_colours_by_hand():
    some = np.random.default_rng(0).integers(0, 256, (12,3))
    want = [[difference(a, b) for b in some] for a in some]
    assert np.abs(color_difference(some, some)-want).max()<.3
    assert np.allclose(color_difference([(128,128,128)], [(200,200,200)]), abs(lab((128,)*3, usual)[0]-lab((200,)*3, usual)[0])/2, atol=.1)

def test_colours_of_rows_without_can_be_told_apart():
    assert least(distinct_colors(12))>20 and least(distinct_colors(25))>12
    assert len({tuple(c) for c in distinct_colors(254).tolist()})==254
    assert (distinct_colors(30)[:7]==distinct_colors(7)).all()

@pytest.mark.parametrize('name', RECORDS)
def test_every_known_data_set_can_be_looked_at(name):
    own = RECORDS[name].classes
    seen = for_looking(own)
    rows = [own.row(i) for i in painted_ids(own)]
    assert least(seen.colors[rows])>(12 if len(rows)<30 else 10)
    assert (seen is own)==(least(own.colors[rows])>=12)
    assert (seen.names,seen.ids,seen.void)==(own.names,own.ids,own.void)

@pytest.mark.parametrize('names', ['car obstacle', 'tree rocks', 'rocks roof', 'fence fence-pole'])
def test_pairs_that_were_taken_for_each_other(names):
    own = RECORDS['semantic_drone'].classes
    a,b = (own.row(n) for n in names.split())
    assert difference(*own.colors[[a,b]].tolist())<12<difference(*for_looking(own).colors[[a,b]].tolist())

def test_colours_stay_where_they_do():
    table = RECORDS['landcover'].classes
    assert for_looking(table) is table
    assert for_looking(ClassTable(['tree'])).n==1

@pytest.mark.parametrize('name,is_background', [('Clutter',True), ('background/clutter',True), ('Other',True), ('other-vehicle',False), ('ground',False), ('unlabeled',True)])
def test_background_by_name(name, is_background):
    assert background_ids(ClassTable([name,'road'], ids=[7,9], void=[]))==({7} if is_background else set())

def test_background_and_void_show_the_photo():
    table = ClassTable(['void','other','road'], [(0,0,0),(0,0,0),(200,0,0)], ids=[3,0,255], void=['void'])
    photo = np.full((20,30,3), 100, np.uint8)
    ids = np.full((20,30), 3, np.uint8)
    ids[:,10:],ids[:,20:] = 0,255
    bare,painted = (np.asarray(overlay(photo, ids, table, .5, background=b))[10,[5,15,25]].tolist() for b in (False, True))
    assert bare==[[100]*3,[100]*3,[150,50,50]] and painted[0]==[100]*3 and painted[1]!=[100]*3

def alike(): return ClassTable(['one','two'], [(10,140,120),(12,142,122)])

def test_large_regions_bear_their_id():
    ids = np.zeros((200,200), np.uint8)
    ids[100:,100:] = 1
    ids[20:26,20:26] = 1 # too small for a number
    ids[60:68] = 1 # too thin
    photo = np.zeros((200,200,3), np.uint8)
    with_,without = (np.asarray(overlay(photo, ids, alike(), numbers=n)).astype(int) for n in (True, False))
    changed = np.abs(with_-without).max(2)>0
    assert changed[100:,100:].any() and changed[:100].any() and not changed[15:31,15:31].any() and not changed[58:70].any()
    line = (without==255).all(2)
    assert line[150,99:102].any() and line[99:102,150].any() and not line[72:96,50:90].any()

def ink_height(a): # rows of a white picture that hold black letters
    rows = np.flatnonzero((np.asarray(a.convert('L'))<100).any(1))
    return rows.max()-rows.min()+1

@pytest.mark.parametrize('height', [60, 240, 800])
def test_one_letter_size(height):
    white = np.full((height,400,3), 255, np.uint8)
    table = ClassTable(['HHH','b'], [(255,255,255),(0,0,0)])
    pic = sheet([([white],['HHH'])]*2, table, [np.zeros((9,9), np.uint8)])
    pt = letter_size(height)
    title,legend = pic.crop((0, 0, 400, int(pt*1.7))),pic.crop((400+2*pt, 0, pic.width, pic.height))
    assert abs(ink_height(title)-ink_height(legend))<=1

def test_a_long_legend_is_not_cut():
    table = ClassTable([f'class {i}' for i in range(60)])
    pic = add_legend(Image.new('RGB', (30,20), 'white'), table, columns=1)
    assert pic.height>60*12 and np.asarray(pic)[-20:].min()<200

def test_score_and_errors_by_hand():
    table = ClassTable(['void','a','b','c'], void=['void'])
    truth = np.array([[1,1,2,2,3,0]], np.uint8)
    said  = np.array([[1,2,2,2,0,1]], np.uint8) # one wrong of four; blank; void
    assert say_score(truth, said, table)==f"wrong 25.0%, mIoU {(1/2 + 2/3)/2:.3f}"
    assert say_score(truth*0, said, table)=='nothing to judge'
    photo = np.random.default_rng(0).integers(0, 256, (1,6,3), dtype=np.uint8)
    errors = show_errors(photo, truth, said, table)[0].astype(int)
    grey = photo[0] @ [.299,.587,.114]
    assert np.abs(errors[[0,2,3]]-grey[[0,2,3],None]).max()<=1 # right: the photo in grey
    assert (errors[4]==errors[5]).all() and np.ptp(errors[4])==0 # blank and void
    assert errors[1,0]-errors[1,2]>150 # wrong
